// Counting the pieces of a long text on several threads. The blocks are the same whatever the number of workers, and they
// are added in their order, so the counts are the same too.
import { Worker } from "node:worker_threads";
import { addPieceCounts } from "../tokenizer/merges.js";

type Counts = Map<string, number>;

/** A worker and what it still owes, in order. */
interface Counter {
  worker: Worker;
  waiting: { resolve: (counts: Counts) => void; reject: (error: Error) => void }[];
}

/** The distinct pieces of lists of texts with their counts, counted by `workers` threads; `onTexts` hears of each list as it is added. */
export async function countPiecesWithWorkers(
  lists: AsyncIterable<string[]>,
  workers: number,
  onTexts: (texts: string[]) => void,
): Promise<Counts> {
  const total: Counts = new Map();
  const counters: Counter[] = [];
  const pending: { texts: string[]; counts: Promise<Counts> }[] = [];
  const add = async ({ texts, counts }: (typeof pending)[number]) => {
    addPieceCounts(total, await counts);
    onTexts(texts);
  };
  try {
    let next = 0;
    for await (const texts of lists) {
      if (counters.length < workers) counters.push(startCounter());
      pending.push({ texts, counts: countWith(counters[next++ % workers], texts) });
      if (pending.length >= 2 * workers) await add(pending.shift()!); // what is in memory stays bounded
    }
    for (const batch of pending) await add(batch);
  } finally {
    await Promise.all(counters.map(({ worker }) => worker.terminate()));
  }
  return total;
}

function startCounter(): Counter {
  const counter: Counter = { worker: new Worker(new URL("./count-worker.js", import.meta.url)), waiting: [] };
  counter.worker.on("message", (counts: Counts) => counter.waiting.shift()!.resolve(counts));
  counter.worker.on("error", (error) => {
    for (const { reject } of counter.waiting.splice(0)) reject(error);
  });
  return counter;
}

function countWith({ worker, waiting }: Counter, texts: string[]): Promise<Counts> {
  const counts = new Promise<Counts>((resolve, reject) => waiting.push({ resolve, reject }));
  counts.catch(() => {}); // it is awaited later; until then a failure is not unhandled
  worker.postMessage(texts);
  return counts;
}
