// Streams among the files of a command: pipes, process substitution `<(...)`, standard input. They give their bytes only once,
// and files are read twice, so a stream is kept in a file first.
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { temporaryFolder } from "./temporary.js";

/** Whether a name stands for a stream: "-", or a pipe, a socket or a terminal. */
export function isStream(file: string): boolean {
  if (file === "-") return true;
  const found = fs.statSync(file, { throwIfNoEntry: false });
  return (
    found !== undefined &&
    (found.isFIFO() || found.isSocket() || (found.isCharacterDevice() && file === "/dev/stdin"))
  );
}

/** The same files, each stream kept in a file of the temporary folder. Throws if nothing comes out of one. */
export async function keptFiles(files: string[]): Promise<string[]> {
  const kept: string[] = [];
  for (const file of files) kept.push(isStream(file) ? await keptStream(file) : file);
  return kept;
}

let count = 0;

async function keptStream(file: string): Promise<string> {
  const name = descriptorOf(file) === 0 ? "stdin" : `stream-${++count}`;
  const copy = path.join(temporaryFolder(), name);
  try {
    await pipeline(openStream(file), fs.createWriteStream(copy));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    throw new Error(
      `${path.dirname(copy)} has no room for what comes out of ${file}. TMPDIR can name a folder that has.`,
    );
  }
  if (fs.statSync(copy).size === 0) throw new Error(`Nothing came out of ${file}.`);
  const renamed = copy + endingOf(copy);
  fs.renameSync(copy, renamed);
  return renamed;
}

/** The number of an open file that a name stands for. */
function descriptorOf(file: string): number | undefined {
  if (file === "-" || file === "/dev/stdin") return 0;
  const number = /^\/(?:dev|proc\/self)\/fd\/(\d+)$/.exec(file)?.[1];
  return number === undefined ? undefined : Number(number);
}

/** Opens a stream so that nothing waits for it but who reads it: opening a pipe without a writer would block for ever. */
function openStream(file: string): Readable {
  const descriptor = descriptorOf(file);
  if (descriptor === 0) return process.stdin;
  const { O_RDONLY, O_NONBLOCK } = fs.constants;
  const fd = descriptor ?? fs.openSync(file, O_RDONLY | O_NONBLOCK);
  return new net.Socket({ fd, readable: true, writable: false });
}

/** A stream has no name that says what comes out of it, but tables and objects of JSON are known by how they begin. */
function endingOf(copy: string): string {
  const head = Buffer.alloc(4096);
  const handle = fs.openSync(copy, "r");
  const text = head.toString("utf8", 0, fs.readSync(handle, head, 0, head.length, 0));
  fs.closeSync(handle);
  if (text.startsWith("PAR1")) return ".parquet";
  return /^(?:\ufeff)?\s*(?:\[\s*)?\{\s*"/.test(text) ? ".jsonl" : "";
}
