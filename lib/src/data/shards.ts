// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { END_OF_TEXT } from "../tokenizer/bpe.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { loadTokenizer } from "../tokenizer/files.js";
import { fileChecksum, naming, openToRead, readExactly } from "./files.js";
import { type Manifest, type Shard, type Split, readJson, readManifest } from "./manifest.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#hash-split
/** Whether a document is for validation: if the first 32 bits of its SHA-256, as a fraction of 2^32, are below `valFraction`. */
export function isForValidation(text: string, valFraction: number): boolean {
  return (
    valFraction > 0 &&
    crypto.createHash("sha256").update(text).digest().readUInt32BE(0) < valFraction * 2 ** 32
  );
}

//| 01-tokenizer/7-shards-and-batches.ipynb#token-type
/** Names of the token that ends a document, in the tokenizers that are about. */
export const DOCUMENT_ENDS = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>"];

/** The token that stands between two documents; none in a tokenizer that has no such, as that of characters. */
export function documentSeparator({ specials, around }: Tokenizer): number | undefined {
  const name = DOCUMENT_ENDS.find((end) => specials[end] !== undefined);
  return name === undefined ? (around?.after[0] ?? around?.before[0]) : specials[name];
}

/** How the tokens of a tokenizer are written: with which numbers, and with what between documents. */
export type TokenLayout = Pick<Manifest, "vocab_size" | "separator" | "dtype">;

/** The layout of a tokenizer's tokens: 16 bits each if all ids fit. */
export function tokenLayout(tokenizer: Tokenizer): TokenLayout {
  const { vocabSize } = tokenizer;
  const dtype = vocabSize <= 2 ** 16 ? "u16" : "u32";
  return { vocab_size: vocabSize, separator: documentSeparator(tokenizer), dtype };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#shard-writer
/** Tokens in one file; the next begins a new one. 2^26 tokens of 16 bits are 128 MiB. */
export const SHARD_TOKENS = 2 ** 26;

/** Ids as bytes, little-endian: two bytes each, or four where a vocabulary needs them. */
export function tokenBytes(ids: Uint32Array, dtype: "u16" | "u32"): Uint8Array {
  return new Uint8Array((dtype === "u16" ? new Uint16Array(ids) : ids.slice()).buffer);
}

/** The shards of one split that are being written: the files `folder/name-00000.bin` and on, of `limit` tokens each. */
export interface ShardRow {
  folder: string;
  name: string;
  shards: Shard[];
  dtype: "u16" | "u32";
  limit: number;
}

/** Appends ids to a row of shards; begins new ones as they fill up. */
export function appendTokens({ folder, name, shards, dtype, limit }: ShardRow, ids: Uint32Array): void {
  for (let at = 0; at < ids.length; ) {
    if ((shards.at(-1)?.tokens ?? limit) === limit) {
      shards.push({ file: `${name}-${String(shards.length).padStart(5, "0")}.bin`, tokens: 0, sha256: "" });
    }
    const shard = shards[shards.length - 1];
    const part = ids.subarray(at, at + limit - shard.tokens);
    const file = path.join(folder, shard.file);
    naming(file, () => fs.appendFileSync(file, tokenBytes(part, dtype)));
    shard.tokens += part.length;
    at += part.length;
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#token-source-parts
/** `start + count`, if that range lies within `length` tokens. */
export function checkedEnd(start: number, count: number, length: number): number {
  if (start >= 0 && count >= 0 && start + count <= length) return start + count;
  throw new Error(`Tokens ${start} to ${start + count - 1} do not exist: there are ${length}.`);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#token-source
/** A long row of tokens, in memory or on disk. */
export interface TokenSource {
  /** How many tokens. */
  readonly length: number;
  /** Tokens number `start` to `start + count - 1`. Throws if the source has not that many. */
  read(start: number, count: number): Uint32Array;
}

/** A source of tokens with a name, and its share of training: weights count in relation to each other. */
export interface WeightedSource {
  name: string;
  weight: number;
  tokens: TokenSource;
}

/** Tokens in memory. */
export function tokensInMemory(ids: ArrayLike<number>): TokenSource {
  const all = Uint32Array.from(ids);
  return {
    length: all.length,
    read: (start, count) => all.slice(start, checkedEnd(start, count, all.length)),
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#token-file
/** The tokens of one shard, read from the file when asked for. `close` gives the file back. */
export function tokenFile(
  file: string,
  dtype: "u16" | "u32",
  tokens: number,
): TokenSource & { close(): void } {
  const size = dtype === "u16" ? 2 : 4;
  const handle = openToRead(file);
  const found = fs.fstatSync(handle).size;
  if (found !== tokens * size) {
    fs.closeSync(handle);
    throw new Error(
      `${file} is damaged: it has ${found} bytes where the manifest says ${tokens * size}. Prepare the data again.`,
    );
  }
  const read = (start: number, count: number) => {
    const values = new (dtype === "u16" ? Uint16Array : Uint32Array)(
      checkedEnd(start, count, tokens) - start,
    );
    readExactly(file, handle, new Uint8Array(values.buffer), start * size);
    return Uint32Array.from(values);
  };
  return { length: tokens, read, close: () => fs.closeSync(handle) };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#joined-tokens
/** Several sources as one row. */
export function joinedTokens(sources: TokenSource[]): TokenSource {
  const offsets: number[] = [];
  let length = 0;
  for (const source of sources) {
    offsets.push(length);
    length += source.length;
  }
  const read = (start: number, count: number) => {
    const result = new Uint32Array(checkedEnd(start, count, length) - start);
    sources.forEach((source, i) => {
      const from = Math.max(start, offsets[i]);
      const to = Math.min(start + count, offsets[i] + source.length);
      if (from < to) result.set(source.read(from - offsets[i], to - from), from - start);
    });
    return result;
  };
  return { length, read };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#verify-shards
/** Holds the bytes of every shard against its checksum; throws, naming the file, at the first that differs. */
export function verifyShards(folder: string, manifest: Manifest): void {
  for (const shard of [...manifest.splits.train.shards, ...manifest.splits.val.shards]) {
    const file = path.join(folder, shard.file);
    if (fileChecksum(file) !== shard.sha256) {
      throw new Error(`${file} is damaged: its checksum is not the manifest's. Prepare the data again.`);
    }
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#weighted-sources
/** A stretch of a source as a source. */
export function tokenRange(source: TokenSource, from: number, length: number): TokenSource {
  checkedEnd(from, length, source.length);
  return {
    length,
    read: (start, count) => source.read(from + start, checkedEnd(start, count, length) - start),
  };
}

/** The training tokens of each source with its weight; undefined unless the sources have weights. */
export function weightedSources(
  { mixture = [] }: Manifest,
  train: TokenSource,
): WeightedSource[] | undefined {
  if (mixture.length === 0 || mixture.some(({ weight }) => weight === undefined)) return undefined;
  return mixture.map((source) => {
    const { start, tokens } = source.train;
    return { name: source.name, weight: source.weight!, tokens: tokenRange(train, start, tokens) };
  });
}

//| 01-tokenizer/7-shards-and-batches.ipynb#open-shards-type
/** Prepared data, open for reading. */
export interface OpenShards {
  manifest: Manifest;
  tokenizer: Tokenizer;
  train: TokenSource;
  val: TokenSource;
  /** The training tokens by source, where sources have weights. */
  mixture?: WeightedSource[];
  /** Gives the files back. */
  close(): void;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#open-shards
/**
 * Opens a folder of shards. File sizes are always held against the manifest; `verify` also computes every checksum.
 * A missing or damaged file is an error that names it.
 */
export function openShards(folder: string, options: { verify?: boolean } = {}): OpenShards {
  const manifest = readManifest(folder);
  const open = (split: Split) =>
    split.shards.map((shard) => tokenFile(path.join(folder, shard.file), manifest.dtype, shard.tokens));
  const [train, val] = [open(manifest.splits.train), open(manifest.splits.val)];
  if (options.verify) verifyShards(folder, manifest);
  const whole = joinedTokens(train);
  const tokenizer = loadTokenizer(readJson(path.join(folder, manifest.tokenizer)) as object);
  if (tokenizer.vocabSize !== manifest.vocab_size)
    throw new Error(
      `${path.join(folder, manifest.tokenizer)} has ${tokenizer.vocabSize} tokens where the manifest says ${manifest.vocab_size}. Prepare the data again.`,
    );
  return {
    manifest,
    tokenizer,
    train: whole,
    val: joinedTokens(val),
    mixture: weightedSources(manifest, whole),
    close: () => {
      for (const file of [...train, ...val]) file.close();
    },
  };
}
