// Documents for the commands. What unpacks Zstandard and Parquet is JavaScript of other people, and a damaged file can make it
// run for ever; so that runs in a thread, which is stopped when it shows no sign of life. Signals are heard all the time.
import fs from "node:fs";
import { Worker } from "node:worker_threads";
import { type Document, type DocumentOptions, documents, fileKind } from "../data/sources.js";
import { removeTemporaryFolder, temporaryFolder } from "./temporary.js";
import { openToRead } from "../data/files.js";

/** To the thread. */
export type ReadMessage =
  | { kind: "more" }
  | ({ kind: "read"; file: string } & Pick<DocumentOptions, "textField" | "onError">);

/** From the thread. */
export type ReadAnswer =
  | { kind: "documents" | "end"; documents: Document[] }
  | { kind: "skip" | "error"; message: string };

/** A thread, what it counts (signs of life, and the bytes of the last thing it read), and what it said that nobody heard yet. */
interface Reader {
  worker: Worker;
  signs: Int32Array;
  inbox: (ReadAnswer | Error)[];
  wake: () => void;
}

/** How long a reader may be silent, in seconds of the clock and of this process's processors; longer after a large stretch. */
const patience = { wall: 4, cpu: 2, bytesPerSecond: 1e5 };

/** A reader that has nothing to do. Starting one takes as long as reading a small file. */
let idle: Reader | undefined;

function startReader(): Reader {
  const signs = new Int32Array(new SharedArrayBuffer(8));
  const workerData = { signs, temporary: temporaryFolder() };
  const worker = new Worker(new URL("./read-worker.js", import.meta.url), { workerData });
  worker.unref(); // whoever waits for it keeps the process; one that has nothing to do does not
  const reader: Reader = { worker, signs, inbox: [], wake: () => {} };
  const hear = (said: ReadAnswer | Error) => {
    reader.inbox.push(said);
    reader.wake();
  };
  worker.on("message", hear).on("error", hear);
  worker.on("exit", () => hear(new Error("The thread that read the files ended.")));
  return reader;
}

/** Ends the thread that reads, and removes what it kept. */
export async function endReading(): Promise<void> {
  await idle?.worker.terminate();
  idle = undefined;
  removeTemporaryFolder();
}

/** The documents of a file, as `documents` gives them, with everything that might run for ever in a thread of its own. */
export async function* watchedDocuments(
  file: string,
  options: DocumentOptions = {},
  signal?: AbortSignal,
): AsyncGenerator<Document, void, undefined> {
  const { kind, packing } = fileKind(file);
  if (kind !== "parquet" && packing !== "zst") return yield* documents(file, options);
  fs.closeSync(openToRead(file)); // what is no file is told at once
  const reader = idle ?? startReader();
  idle = undefined;
  let whole = false;
  try {
    const { textField, onError } = options;
    reader.worker.postMessage({ kind: "read", file, textField, onError } satisfies ReadMessage);
    while (!whole) {
      const answer = await nextAnswer(reader, file, signal);
      if (answer.kind === "error") throw new Error(answer.message);
      if (answer.kind === "skip") options.onSkip?.(answer.message);
      if (answer.kind !== "documents" && answer.kind !== "end") continue;
      whole = answer.kind === "end";
      if (!whole) reader.worker.postMessage({ kind: "more" } satisfies ReadMessage); // it reads on while we work
      yield* answer.documents;
    }
  } finally {
    if (whole) idle = reader;
    else await reader.worker.terminate();
  }
}

/** What a reader says next. Throws if it says nothing for too long, fails, or is not to be waited for any more. */
async function nextAnswer(reader: Reader, file: string, signal?: AbortSignal): Promise<ReadAnswer> {
  const isSilent = silenceOf(reader.signs);
  for (;;) {
    const said = reader.inbox.shift();
    if (said instanceof Error) throw readerFault(said, file);
    if (said) return said;
    signal?.throwIfAborted();
    if (isSilent())
      throw new Error(`${file} is damaged: reading it does not come to an end. Fetch or make it again.`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 200);
      reader.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Why a thread ended. */
function readerFault(error: NodeJS.ErrnoException, file: string): Error {
  if (error.code !== "ERR_WORKER_OUT_OF_MEMORY") return error;
  return new Error(`${file} is damaged, or has groups of rows too large for the memory of this machine.`);
}

/** Says whether there was no sign for so long that there will be none. Time in which this process was stopped does not count. */
function silenceOf(signs: Int32Array): () => boolean {
  let [seen, wall, cpu, last] = [-1, 0, 0, performance.now()];
  return () => {
    const [count, bytes, now] = [Atomics.load(signs, 0), Atomics.load(signs, 1), performance.now()];
    if (count !== seen) [seen, wall, cpu] = [count, 0, processorSeconds()];
    wall += Math.min(1, (now - last) / 1000);
    last = now;
    const more = bytes / patience.bytesPerSecond;
    return wall > patience.wall + more && processorSeconds() - cpu > patience.cpu + more / 2;
  };
}

/** Seconds that processors spent on this process. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** The texts of all documents of some files in lists of about a million characters. */
export async function* documentLists(
  files: string[],
  options: DocumentOptions = {},
): AsyncGenerator<string[]> {
  let [list, length]: [string[], number] = [[], 0];
  for (const file of files) {
    for await (const { text } of watchedDocuments(file, options)) {
      list.push(text);
      length += text.length;
      if (length < 2 ** 20) continue;
      yield list;
      [list, length] = [[], 0];
    }
  }
  if (list.length > 0) yield list;
}
