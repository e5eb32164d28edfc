// Reading for the commands: an error names the file. (Writing is in data/files.)
import fs from "node:fs";
import { shown } from "../formats/keys.js";
import { findDuplicateKey } from "../formats/safetensors.js";

/** The bytes of a file, or of standard input where `file` is "-". Refuses pipes and the like, which might be waited for in vain. */
export function readBytes(file: string): Uint8Array {
  const found = file === "-" ? undefined : fs.statSync(file, { throwIfNoEntry: false });
  if (found && !found.isFile() && !found.isDirectory())
    throw new Error(`${file} is not a file. Write what comes out of it to one, and name that.`);
  return fs.readFileSync(file === "-" ? 0 : file);
}

/** The text of a UTF-8 file. Throws with the name and the byte offset where it is not UTF-8. */
export function readText(file: string): string {
  return decodeText(readBytes(file), file === "-" ? "standard input" : file);
}

/** UTF-8 bytes as text, a byte-order mark included; `name` says in the error where they came from. */
export function decodeText(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    const offset = invalidTextOffset(bytes);
    if (offset === undefined) throw error; // it is text, but longer than a string may be
    throw new Error(`${name} is not UTF-8 text: see byte ${offset}`);
  }
}

/** The offset of the first byte of the first character that is not UTF-8, or undefined. */
export function invalidTextOffset(bytes: Uint8Array): number | undefined {
  if (decodes(bytes, false)) return undefined;
  // A longer prefix is never better than a shorter one, so the first bad byte is found by halving.
  let good = 0;
  let bad = bytes.length + 1;
  while (bad - good > 1) {
    const middle = (good + bad) >>> 1;
    if (decodes(bytes.subarray(0, middle), true)) good = middle;
    else bad = middle;
  }
  good = Math.min(good, bytes.length);
  while (!decodes(bytes.subarray(0, good), false)) good--; // the character that was cut began up to 3 bytes earlier
  return good;
}

/** Whether bytes are UTF-8; with `open`, they may end within a character. */
function decodes(bytes: Uint8Array, open: boolean): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: open });
    return true;
  } catch {
    return false;
  }
}

/** Reads a JSON file. Throws with the file's name where it does not parse and, with `once`, where an object has a key twice. */
export function readJson(file: string, { once = false } = {}): unknown {
  const text = readText(file).replace(/^\uFEFF/, "");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    // The message quotes the file, line breaks and all.
    throw new Error(`${file} is not JSON: ${(error as Error).message.replace(/\s+/g, " ")}`);
  }
  const twice = once ? findDuplicateKey(text) : undefined;
  if (twice !== undefined) throw new Error(`${file} has the key ${shown(twice)} twice.`);
  return json;
}
