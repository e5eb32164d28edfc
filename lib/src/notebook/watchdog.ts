/**
 * A thread that watches over work which waits. What runs after the first wait of an async function is out of reach of `guarded`: a
 * loop there that never ends would hold up timers and interrupts alike. The thread ends it from outside, as a debugger does; an
 * interrupt that came meanwhile is heard then.
 */
import { Worker } from "node:worker_threads";

/** Places in the memory that both threads see. */
const [ARMED, LIMIT] = [0, 1];

/** Milliseconds more than it was told that the thread waits: unless it is stuck, the main thread stops the watch by itself. */
const GRACE = 1000;

/** Waits until it is armed, then until it is disarmed; if that takes too long, the main thread is stuck, and what it runs is ended. */
const watch = `
const { workerData } = require("node:worker_threads");
const { Session } = require("node:inspector");
const shared = new Int32Array(workerData);
for (;;) {
  Atomics.wait(shared, ${ARMED}, 0);
  const turn = Atomics.load(shared, ${ARMED});
  if (turn === 0 || Atomics.wait(shared, ${ARMED}, turn, Atomics.load(shared, ${LIMIT})) !== "timed-out") continue;
  const session = new Session();
  session.connectToMainThread();
  session.post("Runtime.terminateExecution", () => {});
  session.disconnect();
  Atomics.compareExchange(shared, ${ARMED}, turn, 0);
}`;

let memory: Int32Array | undefined;
let turns = 0;

/** Starts the thread, once; it does not keep the process alive. Gives the memory that is shared with it. */
function startThread(): Int32Array {
  const shared = new SharedArrayBuffer(8);
  new Worker(watch, { eval: true, workerData: shared }).unref();
  return new Int32Array(shared);
}

/**
 * Watches the main thread until the function that comes back is called. What keeps it busy for more than so many milliseconds
 * by then is ended; its promise stays open for ever.
 */
export function watchOver(milliseconds: number): () => void {
  memory ??= startThread();
  const shared = memory;
  turns = (turns % 2 ** 30) + 1;
  Atomics.store(shared, LIMIT, Math.min(2 ** 30, Math.ceil(milliseconds) + GRACE));
  Atomics.store(shared, ARMED, turns);
  Atomics.notify(shared, ARMED);
  return () => {
    Atomics.store(shared, ARMED, 0);
    Atomics.notify(shared, ARMED);
  };
}
