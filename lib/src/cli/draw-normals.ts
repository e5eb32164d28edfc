// Random numbers drawn by all processors. Number n of a stream needs no number before it, so the pieces of an array can be
// drawn by anyone in any order, and the numbers are the same.
import os from "node:os";
import { Worker } from "node:worker_threads";
import { normals } from "../tensor/random.js";

/** An array that several threads fill, all of it in shared memory. */
export interface Draw {
  seed: number;
  stream: number;
  values: Float32Array;
  /** How many pieces somebody has begun, and how many are done. */
  progress: Int32Array;
}

/** Numbers of a piece: some milliseconds of work. */
const pieceLength = 2 ** 18;

/** Draws pieces that nobody has begun, until there are none. */
export function drawPieces({ seed, stream, values, progress }: Draw): void {
  for (;;) {
    const from = Atomics.add(progress, 0, 1) * pieceLength;
    if (from >= values.length) return;
    values.set(normals(seed, Math.min(pieceLength, values.length - from), stream, from), from);
    Atomics.add(progress, 1, 1);
    Atomics.notify(progress, 1);
  }
}

/** Shared memory for an array of numbers of four bytes. */
function shared(length: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * length);
}

/** Threads that help to draw. They are started when there is something long to draw. */
export interface Drawing {
  /** The same numbers as `normals`. */
  draw: typeof normals;
  close(): Promise<void>;
}

/**
 * This thread draws with the others, and waits at the end only for pieces that others have begun: a thread that is late or
 * cannot start delays nothing.
 */
export function drawInThreads(): Drawing {
  const threads: Worker[] = [];
  const start = () => {
    while (threads.length < Math.min(8, os.availableParallelism()) - 1)
      threads.push(new Worker(new URL("./draw-worker.js", import.meta.url)).on("error", () => {}));
  };
  const draw: typeof normals = (seed, count, stream = 0) => {
    if (count < 2 * pieceLength) return normals(seed, count, stream);
    start();
    const values = new Float32Array(shared(count));
    const progress = new Int32Array(shared(2));
    const work: Draw = { seed, stream, values, progress };
    for (const thread of threads) thread.postMessage(work);
    drawPieces(work);
    const pieces = Math.ceil(count / pieceLength);
    for (let done = 0; done < pieces; done = Atomics.load(progress, 1)) Atomics.wait(progress, 1, done);
    return values;
  };
  return { draw, close: async () => void (await Promise.all(threads.map((thread) => thread.terminate()))) };
}
