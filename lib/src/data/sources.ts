// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { Readable, pipeline } from "node:stream";
import * as zlib from "node:zlib";
import { Decompress } from "fzstd";
import { type AsyncBuffer, parquetMetadataAsync, parquetRead, parquetSchema } from "hyparquet";
import { compressors as unpackers } from "hyparquet-compressors";
import { invalidUtf8, textOfBytes } from "../tokenizer/characters.js";
import { readExactly } from "./files.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#document
/** One document, or (of a very long text) one part of it. */
export interface Document {
  text: string;
  /** File and line (or row of a table), for messages: `a.jsonl:17`, or `a.txt` for a text at its start. */
  at: string;
  /** The next document goes on with the same text: no end-of-text token between them. */
  continues: boolean;
}

/** How documents are read. */
export interface DocumentOptions {
  /** Where in a line of .jsonl or a row of .parquet the text stands. "text" unless told. */
  textField?: string;
  /** What a document that cannot be read does: it ends everything with an error ("fail", unless told), or it is left out. */
  onError?: "skip" | "fail";
  /** Told why, for each document that is left out. */
  onSkip?: (message: string) => void;
}

/** What `make` gives. If it throws and faults are to be skipped: nothing, and the reason is told. */
export function orSkip<T>(options: DocumentOptions, make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (options.onError !== "skip") throw error;
    options.onSkip?.((error as Error).message);
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#open-file
/** Opens a file to read, or says in one sentence why that cannot be. */
export function openToRead(file: string): number {
  try {
    if (fs.statSync(file).isDirectory()) throw new Error(`${file} is a folder; name the text files in it.`);
    return fs.openSync(file, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new Error(`There is no file ${file}.`);
    if (code === "EACCES") throw new Error(`The file ${file} may not be read.`);
    throw error;
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#byte-chunks
/** The bytes of a file in chunks of `size` (the last is shorter): a file of any length in little memory. */
export function* byteChunks(file: string, size: number): Generator<Uint8Array> {
  const handle = openToRead(file);
  try {
    for (;;) {
      const chunk = new Uint8Array(size);
      let filled = 0;
      for (let got = -1; got !== 0 && filled < size; filled += got)
        got = fs.readSync(handle, chunk, filled, size - filled, null);
      if (filled > 0) yield chunk.subarray(0, filled);
      if (filled < size) return;
    }
  } finally {
    fs.closeSync(handle);
  }
}

/** The SHA-256 of a file, in hex. */
export function fileChecksum(file: string): string {
  const hash = crypto.createHash("sha256");
  for (const bytes of byteChunks(file, 2 ** 22)) hash.update(bytes);
  return hash.digest("hex");
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unpack-gz
/** The error for a packed file that ends too early or holds something else. */
export function damagedFile(file: string, reason: string): Error {
  return new Error(`${file} is cut short or damaged (${reason}). Fetch or make it again.`);
}

/** The bytes that a .gz file holds, in chunks. Throws if it is cut short. */
export async function* gunzipped(file: string): AsyncGenerator<Uint8Array> {
  const gunzip = zlib.createGunzip();
  pipeline(Readable.from(byteChunks(file, 2 ** 20)), gunzip, () => {}); // an error of either ends the loop below
  try {
    yield* gunzip;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw code?.startsWith("Z_") ? damagedFile(file, message) : error;
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#zst-window
/** From this window on, in bytes, a .zst file cannot be unpacked here. */
export const ZST_WINDOW_LIMIT = 2 ** 26 - 3;

/** The window of a .zst file in bytes, from how it begins (RFC 8878, section 3.1.1.1); 0 if it is too short to tell. */
export function zstWindow(head: Buffer): number {
  let at = 0;
  while (head.length >= at + 18 && head.readUInt32LE(at) >>> 4 === 0x184d2a5)
    at += 8 + head.readUInt32LE(at + 4); // skippable
  if (head.length < at + 18) return 0;
  const [flags, window] = [head[at + 4], head[at + 5]];
  if ((flags & 32) === 0) return 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8);
  const sizeAt = at + 5 + [0, 1, 2, 4][flags & 3]; // a single segment: the window is all of its content
  const wide = flags >> 6 === 3 ? head.readUInt32LE(sizeAt + 4) * 2 ** 32 : 0;
  return wide + (flags >> 6 >= 2 ? head.readUInt32LE(sizeAt) : 0);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unpack-zst
/** Unpacks a .zst file piece by piece: each call gives what these bytes complete. The last call has none. */
export function zstUnpacker(file: string): (bytes: Uint8Array) => Uint8Array[] {
  let made: Uint8Array[] = [];
  const stream = new Decompress((chunk) => made.push(chunk));
  return (bytes) => {
    try {
      made = [];
      stream.push(bytes, bytes.length === 0);
      return made;
    } catch (error) {
      throw damagedFile(file, (error as Error).message);
    }
  };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unzstd
/** The bytes that a .zst file holds, in chunks. Throws if it is cut short. (Its checksums are not verified.) */
export function* unzstd(file: string): Generator<Uint8Array, void, undefined> {
  const unpack = zstUnpacker(file);
  let window = -1;
  for (const bytes of byteChunks(file, 2 ** 17)) {
    if (window < 0) window = zstWindow(Buffer.from(bytes.buffer, 0, bytes.length));
    if (window >= ZST_WINDOW_LIMIT) {
      const mebibytes = Math.ceil(window / 2 ** 20);
      throw new Error(
        `${file} has a window of ${mebibytes} MiB, too large to unpack here. Unpack it with: zstd -d --long=31 ${file}`,
      );
    }
    yield* unpack(bytes);
  }
  yield* unpack(new Uint8Array(0));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-bytes
/** The bytes of a file in chunks, unpacked if its name ends in .gz or .zst. */
export async function* fileBytes(file: string): AsyncGenerator<Uint8Array> {
  const packed = /\.(gz|zst)$/.test(file);
  if (packed && fs.statSync(file, { throwIfNoEntry: false })?.size === 0)
    throw damagedFile(file, "it is empty");
  if (file.endsWith(".gz")) yield* gunzipped(file);
  else yield* file.endsWith(".zst") ? unzstd(file) : byteChunks(file, 2 ** 20);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-text
/** The bytes at `offset` of a file as text, without the byte-order mark that a file may begin with. Throws if they are not UTF-8. */
export function fileText(bytes: Uint8Array, file: string, offset: number): string {
  let text: string;
  try {
    text = textOfBytes(bytes);
  } catch {
    const at = invalidUtf8(bytes);
    const hex = bytes[at].toString(16).padStart(2, "0");
    throw new Error(
      `${file} is not UTF-8 text: the byte 0x${hex} at offset ${offset + at} starts no character. Convert the file first.`,
    );
  }
  return offset === 0 && text.startsWith("\ufeff") ? text.slice(1) : text;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#last-cut
/**
 * Where to cut bytes so that tokens do not notice: after the last line end that other text follows, where no piece of the
 * tokenizer crosses. Without one, before the last character (a line of megabytes may then lose one merge).
 */
export function lastCut(bytes: Uint8Array): number {
  const isLineEnd = (byte: number) => byte === 10 || byte === 13;
  for (let at = bytes.length - 1; at > 0; at--) {
    if (isLineEnd(bytes[at - 1]) && !isLineEnd(bytes[at])) return at;
  }
  let at = bytes.length - 1;
  while (at > 0 && bytes.length - at < 4 && (bytes[at] & 0xc0) === 0x80) at--;
  return at;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#separator-line
/** The line that separates documents in a text file. */
export const DOCUMENT_SEPARATOR = "<|endoftext|>";

/**
 * Where a separator that begins at `at` ends, its line end included; nothing if there is more in that line.
 * `newLine` says whether the bytes begin where a line does.
 */
export function separatorEnd(bytes: Buffer, at: number, newLine: boolean): number | undefined {
  let end = at + DOCUMENT_SEPARATOR.length;
  if (bytes[end] === 13 && bytes[end + 1] === 10) end++;
  const wholeLine =
    (at === 0 ? newLine : bytes[at - 1] === 10) && (end === bytes.length || bytes[end] === 10);
  return wholeLine ? Math.min(end + 1, bytes.length) : undefined;
}

/** Where to cut a stretch of text: after its last separator, or else after its last line. */
export function stretchCut(bytes: Buffer): number {
  for (
    let at = bytes.lastIndexOf(DOCUMENT_SEPARATOR);
    at > 0;
    at = bytes.lastIndexOf(DOCUMENT_SEPARATOR, at - 1)
  ) {
    const end = separatorEnd(bytes, at, false);
    if (end !== undefined && bytes[end - 1] === 10) return end;
  }
  return lastCut(bytes);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#stretches
/** Bytes out of a file. */
export interface Stretch {
  bytes: Buffer;
  /** Where in the (unpacked) file they begin, in bytes. */
  offset: number;
}

/** A file (unpacked) in stretches of about `size` bytes that end where documents do, or at least lines. */
export async function* fileStretches(file: string, size: number): AsyncGenerator<Stretch> {
  let waiting: Uint8Array[] = [];
  let [held, offset] = [0, 0];
  for await (const chunk of fileBytes(file)) {
    waiting.push(chunk);
    held += chunk.length;
    if (held < size) continue;
    const bytes = Buffer.concat(waiting);
    const cut = stretchCut(bytes);
    yield { bytes: bytes.subarray(0, cut), offset };
    waiting = [bytes.subarray(cut)];
    held -= cut;
    offset += cut;
  }
  if (held > 0) yield { bytes: Buffer.concat(waiting), offset };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#separators
/** What stands between the separator lines of a stretch, also if that is nothing: one piece more than there are such lines. */
export function separated({ bytes, offset }: Stretch, newLine: boolean): Stretch[] {
  const pieces: Stretch[] = [];
  let start = 0;
  for (let at = bytes.indexOf(DOCUMENT_SEPARATOR); at >= 0; at = bytes.indexOf(DOCUMENT_SEPARATOR, at + 1)) {
    const end = separatorEnd(bytes, at, newLine);
    if (end === undefined) continue;
    pieces.push({ bytes: bytes.subarray(start, at), offset: offset + start });
    start = end;
  }
  return [...pieces, { bytes: bytes.subarray(start), offset: offset + start }];
}

/** How many lines end in bytes. */
export function lineEnds(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count++;
  return count;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#text-documents
/** `a.txt` for its first line, else `a.txt:17`. */
export function placeIn(file: string, line: number): string {
  return line === 1 ? file : `${file}:${line}`;
}

/** The documents of a text file, in parts if they are longer than about `size` bytes. */
export async function* textDocuments(
  file: string,
  options: DocumentOptions,
  size = 2 ** 22,
): AsyncGenerator<Document> {
  let last: Document | undefined;
  let goesOn = false; // whether the next piece belongs to the same text as `last`
  let [line, newLine] = [1, true];
  for await (const stretch of fileStretches(file, size)) {
    for (const [i, { bytes, offset }] of separated(stretch, newLine).entries()) {
      if (i > 0) goesOn = false;
      if (i > 0) line++; // the separator's own
      const text = orSkip(options, () => fileText(bytes, file, offset));
      if (text === undefined) goesOn = false;
      if (text) {
        if (last) yield { ...last, continues: goesOn };
        last = { text, at: placeIn(file, line), continues: false };
        goesOn = true;
      }
      line += lineEnds(bytes);
    }
    newLine = stretch.bytes.at(-1) === 10;
  }
  if (last) yield last;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-lines
/** The longest line that is read, in bytes: longer ones are no JSON lines, but some other file with that name. */
export const LONGEST_LINE = 2 ** 28;

/** The lines of a file (unpacked), without their line ends. */
export async function* fileLines(file: string): AsyncGenerator<{ bytes: Uint8Array; offset: number }> {
  let waiting: Uint8Array[] = [];
  let [held, offset] = [0, 0];
  for await (const chunk of fileBytes(file)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const rest = chunk.subarray(start, end);
      const bytes = held > 0 ? Buffer.concat([...waiting, rest]) : rest;
      yield { bytes, offset };
      offset += bytes.length + 1;
      [waiting, held, start] = [[], 0, end + 1];
    }
    waiting.push(chunk.subarray(start));
    held += chunk.length - start;
    if (held > LONGEST_LINE)
      throw new Error(`${file} has a line of more than ${LONGEST_LINE} bytes: it is no .jsonl file.`);
  }
  if (held > 0) yield { bytes: Buffer.concat(waiting), offset };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#json-text
/** The text in the field of a record. Throws, naming the place, if there is none. */
export function fieldText(record: unknown, field: string, at: string): string {
  if (record === null || typeof record !== "object" || Array.isArray(record)) {
    throw new Error(`${at} is not a JSON object.`);
  }
  if (!Object.hasOwn(record, field)) {
    const has = Object.keys(record).slice(0, 10).join(", ") || "none";
    throw new Error(`${at} has no field "${field}". Its fields: ${has}.`);
  }
  const text = (record as Record<string, unknown>)[field];
  if (typeof text !== "string") throw new Error(`${at}: its field "${field}" is not text.`);
  if (/\p{Surrogate}/u.test(text)) throw new Error(`${at}: its text has half a character in it.`);
  return text;
}

/** A line of JSON as a value. Throws, naming the place, if it is none. */
export function jsonValue(line: string, at: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw new Error(`${at} is not JSON.`);
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#jsonl-documents
/** The documents of a file of JSON lines. Empty lines and empty texts are passed over. */
export async function* jsonlDocuments(file: string, options: DocumentOptions): AsyncGenerator<Document> {
  let number = 0;
  for await (const { bytes, offset } of fileLines(file)) {
    const at = `${file}:${++number}`;
    const text = orSkip(options, () => {
      const line = fileText(bytes, file, offset);
      return line.trim() === "" ? "" : fieldText(jsonValue(line, at), options.textField ?? "text", at);
    });
    if (text) yield { text, at, continues: false };
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-buffer
/** A file as hyparquet wants it: its length, and any range of its bytes. */
export function fileBuffer(file: string): AsyncBuffer & { close(): void } {
  const handle = openToRead(file);
  const byteLength = fs.fstatSync(handle).size;
  return {
    byteLength,
    slice: (start, end = byteLength) => {
      const bytes = new Uint8Array(end - start);
      readExactly(file, handle, bytes, start);
      return bytes.buffer;
    },
    close: () => fs.closeSync(handle),
  };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-rows
/** One column of a Parquet file, value by value; texts come as their bytes. `name` is what errors call the file. */
export async function* parquetColumn(file: string, column: string, name: string): AsyncGenerator<unknown> {
  const buffer = fileBuffer(file);
  const orDamaged = (error: Error) => Promise.reject(damagedFile(name, error.message));
  try {
    const metadata = await parquetMetadataAsync(buffer).catch(orDamaged);
    const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
    if (!columns.includes(column))
      throw new Error(`${name} has no column "${column}". Its columns: ${columns.join(", ")}.`);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      let rows: unknown[][] = [];
      const parsers = { stringFromBytes: (bytes: Uint8Array | undefined) => bytes }; // we decode, and notice what is no UTF-8
      const take = { utf8: false, parsers, onComplete: (all: unknown[][]) => (rows = all) };
      await parquetRead({
        file: buffer,
        metadata,
        columns: [column],
        rowStart,
        rowEnd,
        compressors: unpackers,
        ...take,
      }).catch(orDamaged);
      for (const [value] of rows) yield value;
      rowStart = rowEnd;
    }
  } finally {
    buffer.close();
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-documents
/** The documents of a Parquet file, one a row. Empty texts are passed over. */
export async function* parquetDocuments(
  file: string,
  options: DocumentOptions,
  name = file,
): AsyncGenerator<Document> {
  const field = options.textField ?? "text";
  let row = 0;
  for await (const value of parquetColumn(file, field, name)) {
    const at = `${name}:${++row}`;
    const text = orSkip(options, () => {
      if (value instanceof Uint8Array) return fileText(value, at, 0);
      throw new Error(`${at}: its column "${field}" holds no text.`);
    });
    if (text) yield { text, at, continues: false };
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#all-documents
/** Gives `use` an unpacked copy of a file and removes it afterwards. */
export async function* withUnpacked<T>(
  file: string,
  use: (copy: string) => AsyncGenerator<T>,
): AsyncGenerator<T> {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-unpacked-"));
  try {
    const copy = path.join(place, path.basename(file).replace(/\.(gz|zst)$/, ""));
    for await (const bytes of fileBytes(file)) fs.appendFileSync(copy, bytes);
    yield* use(copy);
  } finally {
    fs.rmSync(place, { recursive: true });
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#documents
/**
 * The documents of a .txt, .jsonl or .parquet file, or of one that is packed as .gz or .zst around that, in little memory.
 * A document that cannot be read is an error or left out, as `options` say; a file that is cut short is always an error.
 */
export async function* documents(file: string, options: DocumentOptions = {}): AsyncGenerator<Document> {
  const [, kind, packing] = /\.(txt|jsonl|parquet)(\.gz|\.zst)?$/.exec(file) ?? [];
  if (kind === "txt") yield* textDocuments(file, options);
  else if (kind === "jsonl") yield* jsonlDocuments(file, options);
  else if (kind === "parquet" && packing)
    yield* withUnpacked(file, (copy) => parquetDocuments(copy, options, file));
  else if (kind === "parquet") yield* parquetDocuments(file, options);
  else
    throw new Error(
      `${file} is none of .txt, .jsonl and .parquet (each may also end in .gz or .zst). Give it the ending of what it holds.`,
    );
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#normalise
/** The steps that text may be put through, by name. */
export const NORMAL_STEPS = {
  /** A line ends in one byte: CR LF and lone CR become LF. */
  newlines: (text: string) => text.replace(/\r\n?/g, "\n"),
  /** No control characters but tab and line ends, and no byte-order marks in mid text. */
  controls: (text: string) => text.replace(/[^\P{Cc}\t\n\r]|\ufeff/gu, ""),
  /** No blanks and tabs at the ends of lines. */
  trailing: (text: string) => text.replace(/[ \t]+(?=\r?\n|$)/g, ""),
  /** Unicode's composed form: one code point for é, not two (UAX 15). */
  nfc: (text: string) => text.normalize("NFC"),
};
export type NormalStep = keyof typeof NORMAL_STEPS;

/** A text after the named steps, in the order in which they are listed in `NORMAL_STEPS`. */
export function normalise(text: string, steps: readonly NormalStep[]): string {
  const taken = (Object.keys(NORMAL_STEPS) as NormalStep[]).filter((name) => steps.includes(name));
  return taken.reduce((result, name) => NORMAL_STEPS[name](result), text);
}
