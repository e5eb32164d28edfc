// Threads that check and encode text for `data prepare`.
import { Worker } from "node:worker_threads";
import type { CheckedTexts, CorpusPart, CorpusWork, EncodedParts, WorkSettings } from "../data/corpus.js";

/** A task on its way to a thread. */
export type TaskMessage =
  | { id: number; kind: "encode"; payload: CorpusPart[] }
  | { id: number; kind: "check"; payload: string[] };

/** What comes back. */
export type TaskAnswer = { id: number; result: EncodedParts | CheckedTexts } | { id: number; error: string };

/** A thread, and the tasks that it has not answered yet. */
interface Thread {
  worker: Worker;
  waiting: Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>;
}

function startThread(settings: WorkSettings): Thread {
  const worker = new Worker(new URL("./prepare-worker.js", import.meta.url), { workerData: settings });
  const thread: Thread = { worker, waiting: new Map() };
  worker.on("message", (answer: TaskAnswer) => {
    const task = thread.waiting.get(answer.id);
    thread.waiting.delete(answer.id);
    if ("error" in answer) task?.reject(new Error(answer.error));
    else task?.resolve(answer.result as never);
  });
  const fail = (error: Error) => {
    for (const { reject } of thread.waiting.values()) reject(error);
    thread.waiting.clear();
  };
  worker.on("error", fail);
  worker.on("exit", () => fail(new Error("A worker thread ended before its work was done.")));
  return thread;
}

/** Work done by `count` threads. A task goes to the thread that has the fewest. */
export function workInThreads(count: number, settings: WorkSettings): CorpusWork {
  const threads = Array.from({ length: count }, () => startThread(settings));
  let id = 0;
  const send = <T>(message: Omit<TaskMessage, "id">): Promise<T> => {
    const thread = threads.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
    return new Promise<T>((resolve, reject) => {
      thread.waiting.set(++id, { resolve: resolve as (result: never) => void, reject });
      thread.worker.postMessage({ ...message, id });
    });
  };
  return {
    width: 2 * count + 1, // one being done and one waiting for each thread, and one being written
    encode: (payload) => send<EncodedParts>({ kind: "encode", payload }),
    check: (payload) => send<CheckedTexts>({ kind: "check", payload }),
    close: async () => void (await Promise.all(threads.map(({ worker }) => worker.terminate()))),
  };
}
