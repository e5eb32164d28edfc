// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { Readable, pipeline } from "node:stream";
import * as zlib from "node:zlib";
import { Decompress } from "fzstd";
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetRead,
  parquetSchema,
} from "hyparquet";
import { compressors as unpackers } from "hyparquet-compressors";
import { parquetHeader } from "hyparquet/src/column.js";
import xxhash from "xxhash-wasm";
import type { XXHash } from "xxhash-wasm";
import { invalidUtf8, textOfBytes } from "../tokenizer/characters.js";
import { openToRead, readExactly } from "./files.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#document
/** One document, or (of a very long text) one part of it. */
export interface Document {
  text: string;
  /** File and line (or row of a table, or element of an array), for messages: `a.jsonl:17`, or `a.txt` for a text at its start. */
  at: string;
  /** The next document goes on with the same text: no end-of-text token between them. */
  continues: boolean;
}

/** How documents are read. */
export interface DocumentOptions {
  /** Where in a JSON object or a row of .parquet the text stands. "text" unless told. */
  textField?: string;
  /** What a document that cannot be read does: it ends everything with an error ("fail", unless told), or it is left out. */
  onError?: "skip" | "fail";
  /** Told why, for each document that is left out. */
  onSkip?: (message: string) => void;
  /** Told of every stretch of a file that was read or unpacked, in bytes: a sign of life for whoever watches. */
  onRead?: (bytes: number) => void;
  /** Where a copy is put of what cannot be read in one go; the system's folder for such unless told. */
  temporary?: string;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#document-helpers
/** What `make` gives. If it throws and faults are to be skipped: nothing, and the reason is told. */
export function orSkip<T>(options: DocumentOptions, make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    if (options.onError !== "skip") throw error;
    options.onSkip?.((error as Error).message);
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#byte-chunks
/** The bytes of a file in chunks of `size` (the last is shorter): a file of any length in little memory. */
export function* byteChunks(
  file: string,
  size: number,
  onRead?: (bytes: number) => void,
): Generator<Uint8Array, void, undefined> {
  const handle = openToRead(file);
  try {
    for (;;) {
      const chunk = new Uint8Array(size);
      let filled = 0;
      for (let got = -1; got !== 0 && filled < size; filled += got)
        got = fs.readSync(handle, chunk, filled, size - filled, null);
      onRead?.(filled);
      if (filled > 0) yield chunk.subarray(0, filled);
      if (filled < size) return;
    }
  } finally {
    fs.closeSync(handle);
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unpack-gz
/** The error for a packed file that ends too early or holds something else. */
export function damagedFile(file: string, reason: string): Error {
  return new Error(`${file} is cut short or damaged (${reason}). Fetch or make it again.`);
}

/** Whether a file holds nothing but zeros from a place on. */
export function zerosFrom(file: string, start: number): boolean {
  let at = 0;
  for (const chunk of byteChunks(file, 2 ** 20)) {
    if (chunk.subarray(Math.max(0, start - at)).some((byte) => byte !== 0)) return false;
    at += chunk.length;
  }
  return true;
}

/** The bytes that a .gz file holds, in chunks. Throws if it is cut short, or if a checksum is not that of its content. */
export async function* gunzipped(
  file: string,
  onRead?: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const gunzip = zlib.createGunzip();
  pipeline(Readable.from(byteChunks(file, 2 ** 20, onRead)), gunzip, () => {}); // an error of either ends the loop below
  try {
    yield* gunzip;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw code?.startsWith("Z_") ? damagedFile(file, message) : error;
  }
  if (!zerosFrom(file, gunzip.bytesWritten)) throw damagedFile(file, "there is more behind its end");
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#zst-window
/** From this window on, in bytes, a .zst file cannot be unpacked here. */
export const ZST_WINDOW_LIMIT = 2 ** 26 - 3;

/** How a Zstandard frame begins, behind its magic number (RFC 8878, section 3.1.1.1). Sizes in bytes. */
export interface ZstHead {
  /** Of the head itself, by its first byte. */
  length: number;
  window: number;
  /** Of the content, unpacked, if the head says so. */
  contentSize?: number;
  checksum: boolean;
  dictionary: boolean;
}

/** Reads the head of a frame. Of fewer bytes than its length only `length` and the flags are right. */
export function zstHead(bytes: Buffer): ZstHead {
  const flags = bytes[0];
  const single = (flags & 32) !== 0; // a single segment: the window is all of its content
  const dictionarySize = [0, 1, 2, 4][flags & 3];
  const sizeAt = 1 + (single ? 0 : 1) + dictionarySize;
  const sizeSize = [single ? 1 : 0, 2, 4, 8][flags >> 6];
  const number = (at: number, size: number) =>
    bytes.subarray(at, at + size).reduceRight((sum, byte) => 256 * sum + byte, 0);
  const contentSize = sizeSize === 0 ? undefined : number(sizeAt, sizeSize) + (sizeSize === 2 ? 256 : 0);
  const window = single ? contentSize! : 2 ** (10 + (bytes[1] >> 3)) * (1 + (bytes[1] & 7) / 8);
  const dictionary = number(sizeAt - dictionarySize, dictionarySize) !== 0;
  return { length: sizeAt + sizeSize, window, contentSize, checksum: (flags & 4) !== 0, dictionary };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unpack-zst
/** Takes bytes from a file as many at a time as one wants. Throws if it has not that many; `atEnd` asks whether there are none. */
export interface ByteTaker {
  take(count: number): Buffer;
  atEnd(): boolean;
}

/** A taker of a file's bytes, which come in `chunks`. */
export function byteTaker(file: string, chunks: Iterator<Uint8Array>): ByteTaker {
  let rest = Buffer.alloc(0);
  const fill = (count: number): boolean => {
    const parts: Uint8Array[] = [rest];
    let held = rest.length;
    while (held < count) {
      const next = chunks.next();
      if (next.done) break;
      parts.push(next.value);
      held += next.value.length;
    }
    if (parts.length > 1) rest = Buffer.concat(parts);
    return held >= count;
  };
  const take = (count: number) => {
    if (!fill(count)) throw damagedFile(file, "it ends in the middle of a frame");
    const bytes = rest.subarray(0, count);
    rest = rest.subarray(count);
    return bytes;
  };
  return { take, atEnd: () => !fill(1) };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#zst-unpacker
/** Unpacks a frame piece by piece: each call gives what these bytes complete. The last call has none. */
export function zstUnpacker(file: string): (bytes: Uint8Array) => Uint8Array[] {
  let unpacked: Uint8Array[] = [];
  const stream = new Decompress((chunk) => unpacked.push(chunk));
  return (bytes) => {
    try {
      unpacked = [];
      stream.push(bytes, bytes.length === 0);
      return unpacked;
    } catch (error) {
      throw damagedFile(file, (error as Error).message);
    }
  };
}

/** Throws if a frame cannot be unpacked here, with the command that can. */
export function checkZstHead(file: string, { window, dictionary }: ZstHead): void {
  if (dictionary)
    throw new Error(`${file} was packed with a dictionary. Unpack it with: zstd -d -D DICTIONARY ${file}`);
  if (window < ZST_WINDOW_LIMIT) return;
  const mebibytes = Math.ceil(window / 2 ** 20);
  throw new Error(
    `${file} has a window of ${mebibytes} MiB, too large to unpack here. Unpack it with: zstd -d --long=31 ${file}`,
  );
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#zst-frame
/** A frame as it is packed, piece by piece: its head, and block after block. */
export function* zstPieces(
  file: string,
  { take }: ByteTaker,
  magic: Buffer,
  head: Buffer,
): Generator<Uint8Array, void, undefined> {
  yield Buffer.concat([magic, head]);
  for (let last = false; !last; ) {
    const mark = take(3);
    const [kind, size] = [(mark[0] >> 1) & 3, mark.readUIntLE(0, 3) >> 3];
    if (kind === 3 || size > 2 ** 17) throw damagedFile(file, "it has a block that cannot be");
    yield Buffer.concat([mark, take(kind === 1 ? 1 : size)]); // kind 1 is one byte, many times over
    last = (mark[0] & 1) === 1;
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#zst-frame-2
/** The content of the frame that begins behind `magic`, held against its length and its checksum (XXH64) at the end. */
export function* zstFrame(
  file: string,
  taker: ByteTaker,
  magic: Buffer,
  hash: XXHash<bigint>,
): Generator<Uint8Array, void, undefined> {
  const flags = taker.take(1);
  const bytes = Buffer.concat([flags, taker.take(zstHead(flags).length - 1)]);
  const head = zstHead(bytes);
  checkZstHead(file, head);
  const unpack = zstUnpacker(file);
  let length = 0;
  const counted = (chunks: Uint8Array[]) => {
    for (const chunk of chunks) hash.update(chunk);
    length += chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    return chunks;
  };
  for (const piece of zstPieces(file, taker, magic, bytes)) yield* counted(unpack(piece));
  const checksum = head.checksum ? taker.take(4) : undefined;
  if (checksum) yield* counted(unpack(checksum));
  yield* counted(unpack(new Uint8Array(0)));
  if (head.contentSize !== undefined && length !== head.contentSize)
    throw damagedFile(file, "its content has another length than its head says");
  if (checksum && BigInt.asUintN(32, hash.digest()) !== BigInt(checksum.readUInt32LE()))
    throw damagedFile(file, "its checksum is not that of its content");
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#unzstd
/** The bytes that a .zst file holds, in chunks. Throws if it is cut short, or if a checksum in it is not that of its content. */
export async function* unzstd(
  file: string,
  onRead?: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { create64 } = await xxhash();
  const chunks = byteChunks(file, 2 ** 17, onRead);
  const taker = byteTaker(file, chunks);
  try {
    do {
      const magic = taker.take(4);
      if (magic.readUInt32LE() === 0xfd2fb528) yield* zstFrame(file, taker, magic, create64());
      else if (magic.readUInt32LE() >>> 4 === 0x184d2a5) {
        for (let left = taker.take(4).readUInt32LE(); left > 0; left -= 2 ** 17)
          taker.take(Math.min(left, 2 ** 17)); // skippable
      } else throw damagedFile(file, "it holds something else than Zstandard frames");
    } while (!taker.atEnd());
  } finally {
    chunks.return();
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-kind
/** How the names of files end that hold no text: archives, other packings, pictures, sounds, films, pages, tables, weights, programs. */
export const OTHER_ENDINGS = new Set(
  `7z ar br bz2 cab cpio deb dmg iso jar lz lz4 lzma lzo rar rpm sz tar tbz tbz2 tgz tlz txz tzst whl xz z zip zipx
  avif bmp gif heic heif ico jpeg jpg png psd tif tiff webp aac avi flac flv m4a m4v mkv mov mp3 mp4 mpeg mpg ogg opus wav webm wma wmv
  djvu doc docx epub mobi odp ods odt pdf ppt pptx rtf xls xlsx arrow avro bin ckpt duckdb feather gguf h5 hdf5 mdb npy npz onnx orc pickle pkl
  pt pth safetensors sqlite sqlite3 class dll dylib exe pyc so wasm otf ttf woff woff2`.split(/\s+/),
);

/** What the name of a file says. */
export interface FileKind {
  kind: "text" | "json" | "parquet";
  packing?: "gz" | "zst";
}

/** What a file holds and how it is packed, by its name. Throws if its name is that of something else than text. */
export function fileKind(file: string): FileKind {
  const [, inner, packed] = /^(.*?)(?:\.(gz|zst))?$/is.exec(path.basename(file))!;
  const ending = path.extname(inner).slice(1).toLowerCase();
  const packing = packed?.toLowerCase() as FileKind["packing"];
  if (OTHER_ENDINGS.has(ending))
    throw new Error(
      `${file} is a .${ending} file, which is no text. Take the text out of it first, as .txt, .jsonl or .parquet.`,
    );
  if (["jsonl", "ndjson", "json"].includes(ending)) return { kind: "json", packing };
  return { kind: ending === "parquet" ? "parquet" : "text", packing };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-bytes
/** The bytes of a file in chunks, unpacked if its name ends in .gz or .zst. */
export async function* fileBytes(
  file: string,
  { onRead }: DocumentOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const { packing } = fileKind(file);
  if (packing && fs.statSync(file, { throwIfNoEntry: false })?.size === 0)
    throw damagedFile(file, "it is empty");
  if (packing === "gz") yield* gunzipped(file, onRead);
  else yield* packing === "zst" ? unzstd(file, onRead) : byteChunks(file, 2 ** 20, onRead);
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

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-signs
/** How files begin that are no text: the sign (a byte for each character), where it stands, and what the file is then. */
export const FILE_SIGNS: [sign: string, at: number, what: string][] = [
  ["\x1f\x8b", 0, "packed with gzip (is its name to end in .gz?)"],
  ["(\xb5/\xfd", 0, "packed with Zstandard (is its name to end in .zst?)"],
  ["PAR1", 0, "a Parquet file (is its name to end in .parquet?)"],
  ["1AY&SY", 4, "packed with bzip2"],
  ["\xfd7zXZ\0", 0, "packed with xz"],
  ['\x04"M\x18', 0, "packed with LZ4"],
  ["PK\x03\x04", 0, "a ZIP archive"],
  ["7z\xbc\xaf\x27\x1c", 0, "a 7z archive"],
  ["Rar!\x1a\x07", 0, "a RAR archive"],
  ["ustar", 257, "a tar archive"],
  ["%PDF-", 0, "a PDF"],
  ["{\\rtf", 0, "an RTF document"],
  ["\xd0\xcf\x11\xe0", 0, "an old Office document"],
  ["\x89PNG", 0, "a picture"],
  ["GIF8", 0, "a picture"],
  ["\xff\xd8\xff", 0, "a picture"],
  ["WEBP", 8, "a picture"],
  ["II*\0", 0, "a picture"],
  ["MM\0*", 0, "a picture"],
  ["ftyp", 4, "a film"],
  ["WAVE", 8, "a sound"],
  ["ID3", 0, "a sound"],
  ["OggS", 0, "a sound"],
  ["fLaC", 0, "a sound"],
  ["SQLite format 3\0", 0, "a database"],
  ["ARROW1\0\0", 0, "an Arrow table"],
  ["\x89HDF", 0, "an HDF5 file"],
  ["\x93NUMPY", 0, "a NumPy array"],
  ["GGUF", 0, "a GGUF file"],
  ["\x7fELF", 0, "a program"],
  ["\0asm", 0, "a program"],
  ["\xff\xfe", 0, "UTF-16 (iconv -f UTF-16 -t UTF-8 makes it UTF-8)"],
  ["\xfe\xff", 0, "UTF-16 (iconv -f UTF-16 -t UTF-8 makes it UTF-8)"],
];

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#check-head
/** Throws one sentence if the first bytes of a file (unpacked) are those of something else than text. */
export function checkHead(file: string, head: Buffer): void {
  const sign = FILE_SIGNS.find(([text, at]) => head.toString("latin1", at, at + text.length) === text);
  if (sign)
    throw new Error(`${file} is ${sign[2]} by its first bytes, and no text. Take the text out of it first.`);
  const first = head.subarray(0, 8192);
  const zeros = first.reduce((count, byte) => count + (byte === 0 ? 1 : 0), 0);
  if (zeros > first.length / 100)
    throw new Error(
      `${file} is no UTF-8 text: of its first ${first.length} bytes, ${zeros} are zero. Convert the file first.`,
    );
}

/** Whether a text begins as JSON lines or an array of objects do whose first object has a text in the field. */
export function looksLikeJson(head: Buffer, field: string): boolean {
  const line = /^(?:\ufeff)?\s*(?:\[\s*)?\{\s*"[^\n]*/.exec(head.toString())?.[0] ?? "";
  const key = line.indexOf(JSON.stringify(field));
  return key >= 0 && /^\s*:\s*"/.test(line.slice(key + JSON.stringify(field).length));
}

/** Throws one sentence if a file whose name is that of a text does not begin as one. `field` is where JSON would have texts. */
export function checkTextHead(file: string, head: Buffer, field: string): void {
  checkHead(file, head);
  if (looksLikeJson(head, field))
    throw new Error(`${file} holds JSON objects with texts in them: give it the ending .jsonl.`);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#plain-text
/** How much of a file is looked at before it is read, in bytes. */
export const HEAD_SIZE = 2 ** 16;

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#text-bytes
/** The bytes of a file (unpacked) in chunks, of which the first is its head. Throws if that is not the head of a text. */
export async function* textBytes(
  file: string,
  options: DocumentOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  let waiting: Uint8Array[] = [];
  let held = 0;
  const head = () => {
    const bytes = Buffer.concat(waiting);
    if (fileKind(file).kind === "text") checkTextHead(file, bytes, options.textField ?? "text");
    else checkHead(file, bytes);
    waiting = [];
    return bytes;
  };
  for await (const chunk of fileBytes(file, options)) {
    if (held >= HEAD_SIZE) yield chunk;
    else {
      waiting.push(chunk);
      held += chunk.length;
      if (held >= HEAD_SIZE) yield head();
    }
  }
  if (waiting.length > 0) yield head();
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
export async function* fileStretches(
  file: string,
  size: number,
  options: DocumentOptions = {},
): AsyncGenerator<Stretch> {
  let waiting: Uint8Array[] = [];
  let [held, offset] = [0, 0];
  for await (const chunk of textBytes(file, options)) {
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
  for await (const stretch of fileStretches(file, size, options)) {
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

/** A line of JSON, or an element of an array: bytes out of a file, and where in it (unpacked) they begin. */
export interface JsonPiece {
  bytes: Uint8Array;
  offset: number;
}

/** The lines of a file whose bytes come in chunks, without their line ends. */
export async function* fileLines(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<JsonPiece, void, undefined> {
  let waiting: Uint8Array[] = [];
  let [held, offset] = [0, 0];
  for await (const chunk of chunks) {
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
      throw new Error(`${file} has a line of more than ${LONGEST_LINE} bytes: it is no file of JSON lines.`);
  }
  if (held > 0) yield { bytes: Buffer.concat(waiting), offset };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#array-elements
/** The elements of an array of JSON whose bytes come in chunks. Throws if it does not end, or if something comes behind it. */
export async function* arrayElements(
  file: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<JsonPiece, void, undefined> {
  let waiting: Uint8Array[] = [];
  let [depth, inString, escaped, ended, held, offset, chunkAt] = [0, false, false, false, 0, 0, 0];
  for await (const chunk of chunks) {
    let start = 0;
    for (const [i, byte] of chunk.entries()) {
      if (inString) {
        inString = escaped || byte !== 0x22;
        escaped = !escaped && byte === 0x5c;
        continue;
      }
      if (ended && byte > 0x20)
        throw new Error(`${file} has something behind its array: it is no file of JSON.`);
      const [opens, closes] = [(byte & 0xdf) === 0x5b, (byte & 0xdf) === 0x5d]; // [ or {, ] or }
      inString = byte === 0x22;
      depth += Number(opens) - Number(closes);
      const begins = opens && depth === 1;
      const ends = depth === 0 ? closes : depth === 1 && byte === 0x2c;
      if (ends) yield { bytes: Buffer.concat([...waiting, chunk.subarray(start, i)]), offset };
      if (begins || ends) [waiting, held, start, offset] = [[], 0, i + 1, chunkAt + i + 1];
      ended ||= ends && closes;
    }
    waiting.push(chunk.subarray(start));
    held += chunk.length - start;
    chunkAt += chunk.length;
    if (held > LONGEST_LINE)
      throw new Error(
        `${file} has an element of more than ${LONGEST_LINE} bytes: it is no array of documents.`,
      );
  }
  if (!ended) throw damagedFile(file, "its array does not end");
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#json-pieces
/** The lines of a file of JSON lines, or the elements of one that is an array: its first sign says which. */
export async function* jsonPieces(
  file: string,
  options: DocumentOptions,
): AsyncGenerator<JsonPiece, void, undefined> {
  const chunks = textBytes(file, options);
  const first = (await chunks.next()).value as Uint8Array | undefined;
  if (!first) return;
  async function* all(): AsyncGenerator<Uint8Array, void, undefined> {
    yield first as Uint8Array;
    yield* chunks;
  }
  try {
    const isArray = /^(?:\ufeff)?\s*\[/.test(Buffer.from(first).toString());
    yield* isArray ? arrayElements(file, all()) : fileLines(file, all());
  } finally {
    await chunks.return();
  }
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
/** The documents of a file of JSON lines, or of an array of objects. Empty lines and empty texts are passed over. */
export async function* jsonDocuments(file: string, options: DocumentOptions): AsyncGenerator<Document> {
  let number = 0;
  for await (const { bytes, offset } of jsonPieces(file, options)) {
    const at = `${file}:${++number}`;
    const text = orSkip(options, () => {
      const line = fileText(bytes, file, offset);
      return line.trim() === "" ? "" : fieldText(jsonValue(line, at), options.textField ?? "text", at);
    });
    if (text) yield { text, at, continues: false };
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-buffer
/** A file as hyparquet wants it: its length, and any range of its bytes. Throws for a range that is not in it. */
export function fileBuffer(file: string, onRead?: (bytes: number) => void): AsyncBuffer & { close(): void } {
  const handle = openToRead(file);
  const byteLength = fs.fstatSync(handle).size;
  return {
    byteLength,
    slice: (start, end = byteLength) => {
      if (!(start >= 0 && start <= end && end <= byteLength))
        throw new Error("it speaks of bytes that it has not");
      const bytes = new Uint8Array(end - start);
      readExactly(file, handle, bytes, start);
      onRead?.(bytes.length);
      return bytes.buffer;
    },
    close: () => fs.closeSync(handle),
  };
}

/** The unpackers of hyparquet, who tell each time how much they are about to unpack. */
export function toldUnpackers(onRead?: (bytes: number) => void): typeof unpackers {
  const told = Object.entries(unpackers).map(([name, unpack]) => [
    name,
    (bytes: Uint8Array, length: number) => {
      onRead?.(bytes.length);
      return unpack!(bytes, length);
    },
  ]);
  return Object.fromEntries(told);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-pages
/** Throws unless each page of a column has the checksum that its writer noted; many note none. Source: the Parquet format, PageHeader. */
export async function checkPages(
  file: AsyncBuffer,
  group: FileMetaData["row_groups"][number],
  column: string,
): Promise<void> {
  const chunk = group.columns.find(({ meta_data }) => meta_data?.path_in_schema[0] === column)?.meta_data;
  if (!chunk) throw new Error(`a group of rows has no column "${column}"`);
  const begin = Number(chunk.dictionary_page_offset || chunk.data_page_offset);
  const bytes = await file.slice(begin, begin + Number(chunk.total_compressed_size));
  const reader = { view: new DataView(bytes), offset: 0 };
  while (reader.offset < bytes.byteLength) {
    const { crc, compressed_page_size: size } = parquetHeader(reader);
    if (!(size >= 0 && reader.offset + size <= bytes.byteLength)) return; // the reader will say what is wrong
    const page = new Uint8Array(bytes, reader.offset, size);
    if (crc !== undefined && zlib.crc32(page) !== crc >>> 0)
      throw new Error(`a page of the column "${column}" does not have the checksum that its writer noted`);
    reader.offset += size;
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-rows
/** The rows of one group of a Parquet file, of one column; texts come as their bytes. */
export async function parquetRows(
  file: AsyncBuffer,
  metadata: FileMetaData,
  column: string,
  rowStart: number,
  rowEnd: number,
  onRead?: (bytes: number) => void,
): Promise<unknown[]> {
  let rows: unknown[][] = [];
  const parsers = { stringFromBytes: (bytes: Uint8Array | undefined) => bytes }; // we decode, and notice what is no UTF-8
  const take = { utf8: false, parsers, onComplete: (all: unknown[][]) => (rows = all) };
  await parquetRead({
    file,
    metadata,
    columns: [column],
    rowStart,
    rowEnd,
    compressors: toldUnpackers(onRead),
    ...take,
  });
  if (rows.length !== rowEnd - rowStart)
    throw new Error(`of ${rowEnd - rowStart} rows there are ${rows.length}`);
  return rows.map(([value]) => value);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parquet-column
/** One column of a Parquet file, value by value. `name` is what errors call the file. */
export async function* parquetColumn(
  file: string,
  column: string,
  name: string,
  onRead?: (bytes: number) => void,
): AsyncGenerator<unknown, void, undefined> {
  const buffer = fileBuffer(file, onRead);
  const orDamaged = (error: Error) => Promise.reject(damagedFile(name, error.message));
  try {
    const metadata = await parquetMetadataAsync(buffer).catch(orDamaged);
    const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
    if (!columns.includes(column))
      throw new Error(`${name} has no column "${column}". Its columns: ${columns.join(", ")}.`);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      await checkPages(buffer, group, column).catch(orDamaged);
      yield* await parquetRows(buffer, metadata, column, rowStart, rowEnd, onRead).catch(orDamaged);
      rowStart = rowEnd;
    }
    if (rowStart !== Number(metadata.num_rows))
      throw damagedFile(name, `of ${metadata.num_rows} rows there are ${rowStart}`);
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
  for await (const value of parquetColumn(file, field, name, options.onRead)) {
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
  options: DocumentOptions,
  use: (copy: string) => AsyncGenerator<T>,
): AsyncGenerator<T> {
  const place = fs.mkdtempSync(path.join(options.temporary ?? os.tmpdir(), "tslm-unpacked-"));
  try {
    const copy = path.join(place, "copy.parquet");
    for await (const bytes of fileBytes(file, options)) fs.appendFileSync(copy, bytes);
    yield* use(copy);
  } finally {
    fs.rmSync(place, { recursive: true });
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#documents
/**
 * The documents of a text, a file of JSON (lines, or an array of objects) or a .parquet file, or of one that is packed as .gz or
 * .zst around that, in little memory. Throws one sentence, with the file in it, for what is no text by its name or its bytes.
 * A document that cannot be read is an error or left out, as `options` say; a file that is cut short is always an error.
 */
export async function* documents(file: string, options: DocumentOptions = {}): AsyncGenerator<Document> {
  const { kind, packing } = fileKind(file);
  if (kind === "text") yield* textDocuments(file, options);
  else if (kind === "json") yield* jsonDocuments(file, options);
  else if (packing) yield* withUnpacked(file, options, (copy) => parquetDocuments(copy, options, file));
  else yield* parquetDocuments(file, options);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#normalise-parts
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

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#normalise
export type NormalStep = keyof typeof NORMAL_STEPS;

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#normalise-helpers
/** A text after the named steps, in the order in which they are listed in `NORMAL_STEPS`. */
export function normalise(text: string, steps: readonly NormalStep[]): string {
  const taken = (Object.keys(NORMAL_STEPS) as NormalStep[]).filter((name) => steps.includes(name));
  return taken.reduce((result, name) => NORMAL_STEPS[name](result), text);
}
