// A thread that reads documents, file after file, and hands them over in batches as they are asked for.
import { parentPort, workerData } from "node:worker_threads";
import { type Document, documents } from "../data/sources.js";
import type { ReadAnswer, ReadMessage } from "./read-documents.js";

const port = parentPort!;
const { signs, temporary } = workerData as { signs: Int32Array; temporary: string };
let asked: () => void = () => {};

port.on("message", (message: ReadMessage) => {
  if (message.kind === "more") asked();
  else void read(message);
});

async function read({ file, textField, onError }: ReadMessage & { kind: "read" }): Promise<void> {
  let batch: Document[] = [];
  let length = 0;
  const send = (answer: ReadAnswer) => port.postMessage(answer);
  const flush = async () => {
    const more = new Promise<void>((resolve) => {
      asked = resolve;
    });
    send({ kind: "documents", documents: batch });
    [batch, length] = [[], 0];
    await more;
  };
  const onRead = (bytes: number) => {
    Atomics.add(signs, 0, 1);
    Atomics.store(signs, 1, bytes);
  };
  const onSkip = (message: string) => send({ kind: "skip", message });
  try {
    for await (const document of documents(file, { textField, onError, onRead, onSkip, temporary })) {
      batch.push(document);
      length += document.text.length;
      if (length >= 2 ** 20 || batch.length >= 4096) await flush();
    }
    send({ kind: "end", documents: batch });
  } catch (error) {
    send({ kind: "error", message: (error as Error).message });
  }
}
