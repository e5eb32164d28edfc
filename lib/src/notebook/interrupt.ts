/** Interrupts: the front end's square, or Ctrl-C. The kernel ends a cell then, but not what the cell has begun. */
import { Script } from "node:vm";
import { inNotebook } from "./display.js";

/** What ends work that was interrupted. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/**
 * Runs work whose signal an interrupt aborts. The cell goes on until the work has ended, and gets what it has so far. A
 * second interrupt ends the cell at once, as the first would without this.
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  // While the first part of a cell runs, up to its first wait, the kernel has taken the listeners away and puts them back.
  await new Promise((resolve) => setImmediate(resolve));
  const controller = new AbortController();
  const others = process.listeners("SIGINT");
  const giveBack = () => {
    for (const other of others) process.on("SIGINT", other);
    others.length = 0;
    process.off("SIGINT", interrupt);
  };
  const interrupt = () => {
    giveBack();
    controller.abort(new Interrupted("Interrupted."));
  };
  process.on("SIGINT", interrupt);
  for (const other of others) process.off("SIGINT", other);
  try {
    return await work(controller.signal);
  } finally {
    giveBack();
  }
}

let interruptions = 0;
let counting = false;

/**
 * A function that throws once there was an interrupt since, so that a loop which calls it does not go on behind the back of
 * a cell that has ended. Outside of a notebook an interrupt ends the program, and there is nothing to do.
 */
export function interruptCheck(): () => void {
  if (!inNotebook()) return () => {};
  if (!counting) setImmediate(() => process.on("SIGINT", () => interruptions++));
  counting = true;
  const before = interruptions;
  return () => {
    if (interruptions > before) throw new Interrupted("Interrupted.");
  };
}

/** How a call ended that was guarded: with a result, or because it was interrupted or took too long. */
export type Guarded<T> = { result: T } | { ended: "interrupted" | "late" };

const SLOT = Symbol.for("tslm.guarded");
const script = new Script(`globalThis[Symbol.for("tslm.guarded")]()`);

/**
 * Calls a function that may never return. An interrupt ends it, and so does the limit of time; what it throws is passed on.
 * Of a function that waits it guards the part before the first wait.
 */
export function guarded<T>(call: () => T, milliseconds: number): Guarded<T> {
  const slots = globalThis as unknown as Record<symbol, unknown>;
  slots[SLOT] = call;
  try {
    const timeout = Math.max(1, Math.ceil(milliseconds));
    return { result: script.runInThisContext({ timeout, breakOnSigint: true }) as T };
  } catch (error) {
    const { code } = (error ?? {}) as { code?: string };
    if (code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") return { ended: "interrupted" };
    if (code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return { ended: "late" };
    throw error;
  } finally {
    delete slots[SLOT];
  }
}
