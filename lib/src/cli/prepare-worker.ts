// A thread that does the work of preparing data: checks texts and encodes them, task after task.
import { parentPort, workerData } from "node:worker_threads";
import type { WorkSettings } from "../data/corpus.js";
import { workHere } from "../data/work.js";
import "./limit.js";
import type { TaskAnswer, TaskMessage } from "./prepare-pool.js";

const port = parentPort!;
const work = workHere(workerData as WorkSettings);

port.on("message", async ({ id, kind, payload }: TaskMessage) => {
  try {
    const result = kind === "encode" ? await work.encode(payload) : await work.check(payload);
    const arrays =
      "train" in result
        ? [result.train.ids, result.val.ids]
        : [result.verdicts, result.hashes, result.signatures];
    port.postMessage({ id, result } satisfies TaskAnswer, [
      ...new Set(arrays.map(({ buffer }) => buffer as ArrayBuffer)),
    ]);
  } catch (error) {
    port.postMessage({ id, error: (error as Error).message } satisfies TaskAnswer);
  }
});
