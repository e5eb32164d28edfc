// Models in files of GGUF: opened wherever a model is named, by the ending of the name.
import fs from "node:fs";
import path from "node:path";
import { openToRead, readExactly } from "../data/files.js";
import { type GgufHead, type ReadBytes, readGgufHead } from "../formats/gguf.js";
import { type GgufModel, openGgufModel } from "../model/gguf.js";
import { ggufTokenizerJson } from "../model/gguf-tokenizer.js";

/** Whether a name is that of a GGUF file. */
export function isGguf(name: string): boolean {
  return name.endsWith(".gguf");
}

/** The bytes that Node reads at once. */
const largestRead = 2 ** 30;

/** An open GGUF file: its head, and the reading of its data. */
interface GgufFile {
  head: GgufHead;
  read: ReadBytes;
  close(): void;
}

/** Opens a GGUF file and checks its head. Errors name the file. */
function openGguf(file: string): GgufFile {
  const handle = openToRead(file);
  const read: ReadBytes = (begin, end) => {
    const bytes = new Uint8Array(end - begin);
    for (let at = 0; at < bytes.length; at += largestRead)
      readExactly(path.basename(file), handle, bytes.subarray(at, at + largestRead), begin + at);
    return bytes;
  };
  try {
    return { head: readGgufHead(fs.fstatSync(handle).size, read), read, close: () => fs.closeSync(handle) };
  } catch (error) {
    fs.closeSync(handle);
    throw naming(file, error);
  }
}

/** An error about a file, with its name. */
function naming(file: string, error: unknown): unknown {
  const isOurs = error instanceof Error && !("code" in error) && !error.message.startsWith(file);
  return isOurs ? new Error(`${file}: ${error.message}`) : error;
}

/** Does something with the model in a GGUF file, whose weights can be read meanwhile. Errors name the file. */
export async function withGgufModel<T>(file: string, work: (model: GgufModel) => T | Promise<T>): Promise<T> {
  const { head, read, close } = openGguf(file);
  try {
    return await work(openGgufModel(head, read));
  } catch (error) {
    throw naming(file, error);
  } finally {
    close();
  }
}

/** The keys of a GGUF file. */
function ggufKeys(file: string): GgufHead["keys"] {
  const { head, close } = openGguf(file);
  close();
  return head.keys;
}

/** The tokenizer of a GGUF file as a tokenizer.json. */
export function ggufTokenizer(file: string): object {
  const json = ggufTokenizerJson(ggufKeys(file));
  if (!json) throw new Error(`${file} has no tokenizer.`);
  return json;
}

/** The chat template of a GGUF file, where it has one. */
export function ggufChatTemplate(file: string): string | undefined {
  const template = ggufKeys(file).get("tokenizer.chat_template")?.value;
  return typeof template === "string" ? template : undefined;
}
