// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { z } from "zod";
import { END_OF_TEXT } from "../tokenizer/bpe.js";
import { type Tokenizer, characterTokenizer } from "../tokenizer/characters.js";
import { loadTokenizer } from "../tokenizer/files.js";
import { checkedJson, naming, parseChecked, readExactly, writeSynced } from "./files.js";
import { writeWholeFolder } from "./folders.js";
import { byteChunks, checkPlainText, fileChecksum, fileText, lastCut, openToRead } from "./sources.js";
import type { SyntheticCard } from "./synthetic.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#text-chunks
/** The text of a UTF-8 file in chunks that end where lines do. Throws, naming file and byte offset, if it is not UTF-8. */
export function* textChunks(file: string, size: number = 2 ** 22): Generator<string> {
  let rest = new Uint8Array(0);
  let offset = 0;
  for (const chunk of byteChunks(file, size)) {
    const bytes = Buffer.concat([rest, chunk]);
    const cut = chunk.length < size ? bytes.length : lastCut(bytes);
    yield fileText(bytes.subarray(0, cut), file, offset);
    offset += cut;
    rest = bytes.subarray(cut);
  }
  if (rest.length > 0) yield fileText(rest, file, offset);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#known-entropy
/** The entropy that stands in `file.json` beside a synthetic corpus, if it speaks of these very bytes. */
export function knownEntropy(file: string, sha256: string): { entropy_bits_per_byte?: number } {
  try {
    const card = JSON.parse(fs.readFileSync(`${file}.json`, "utf8")) as Partial<SyntheticCard>;
    if (card.kind !== "synthetic" || card.sha256 !== sha256) return {};
    return { entropy_bits_per_byte: card.entropy_bits_per_byte };
  } catch {
    return {}; // no such file, or another program's
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#describe-source
/** A text file as the manifest records it. */
export interface TextSource {
  file: string;
  sha256: string;
  /** Of its text, unpacked. */
  bytes: number;
  /** Unicode code points. */
  characters: number;
  /** Known only if the file was made by `tslm data synth` and is unchanged. */
  entropy_bits_per_byte?: number;
  /** The named source that it belongs to, where there are such. */
  source?: string;
}

/** Reads a text once: that it is one plain text, how much, its checksum, and (into `alphabet`) its characters. */
export function describeSource(file: string, alphabet: Set<string>): TextSource {
  checkPlainText(file);
  let [bytes, characters] = [0, 0];
  for (const text of textChunks(file)) {
    if (/^<\|endoftext\|>\r?$/m.test(text))
      throw new Error(`${file} holds several documents: prepareCorpus keeps them apart.`);
    bytes += Buffer.byteLength(text);
    for (const character of text) {
      alphabet.add(character);
      characters++;
    }
  }
  if (bytes === 0) throw new Error(`${file} is empty.`);
  const source = { file: path.basename(file), sha256: fileChecksum(file), bytes, characters };
  return { ...source, ...knownEntropy(file, source.sha256) };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#split-chunks
/** The characters number `from` to `to` of a file, in chunks. */
export function* textRange(file: string, from: number, to: number): Generator<string> {
  let at = 0;
  for (const text of textChunks(file)) {
    const length = codePoints(text);
    if (at + length > from && at < to) {
      yield text.slice(codeUnit(text, Math.max(0, from - at)), codeUnit(text, Math.min(length, to - at)));
    }
    at += length;
    if (at >= to) return;
  }
}

/** How many Unicode code points a text has. */
export function codePoints(text: string): number {
  let pairs = 0;
  for (let i = 0; i < text.length; i++) if ((text.charCodeAt(i) & 0xfc00) === 0xd800) pairs++;
  return text.length - pairs;
}

/** The place in a JavaScript string (in UTF-16 units) of code point number `count`. */
export function codeUnit(text: string, count: number): number {
  let at = 0;
  for (let i = 0; i < count; i++) at += (text.charCodeAt(at) & 0xfc00) === 0xd800 ? 2 : 1;
  return at;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#hash-split
/** Whether a document is for validation: if the first 32 bits of its SHA-256, as a fraction of 2^32, are below `valFraction`. */
export function isForValidation(text: string, valFraction: number): boolean {
  return (
    valFraction > 0 &&
    crypto.createHash("sha256").update(text).digest().readUInt32BE(0) < valFraction * 2 ** 32
  );
}

//| 01-tokenizer/7-shards-and-batches.ipynb#manifest
/** One file of tokens. */
export interface Shard {
  file: string;
  tokens: number;
  sha256: string;
}

/** The training or the validation part: `bytes` of text became `tokens`. */
export interface Split {
  bytes: number;
  tokens: number;
  shards: Shard[];
}

//| 01-tokenizer/7-shards-and-batches.ipynb#source-share
/** A named source of text: what it is, what became of its documents, and where its tokens lie in the two splits. */
export interface SourceShare {
  name: string;
  license?: string;
  url?: string;
  /** Its share of training in relation to the others; without weights, sources count by their size. */
  weight?: number;
  /** Documents by the thousand or one book: how many were read, how many kept, and why the others were not. */
  documents: { read: number; kept: number; dropped: { [reason: string]: number } };
  train: { start: number; tokens: number; bytes: number };
  val: { start: number; tokens: number; bytes: number };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#manifest-type
/** How `manifest.json` begins, so that a later version can tell. */
export const SHARD_FORMAT = { format: "tslm shards", version: 1 } as const;

/** The content of `manifest.json`: what is in a folder of shards, and where it came from. */
export interface Manifest {
  format: "tslm shards";
  version: 1;
  tokenizer: string;
  vocab_size: number;
  /** The token that stands between documents, where the tokenizer has one; older data does not say. */
  separator?: number;
  /** Little-endian numbers of 16 or 32 bits. */
  dtype: "u16" | "u32";
  val_fraction: number;
  /** What was done to the text besides, one sentence each; older data does not say. */
  steps?: string[];
  /** Every file. */
  sources: TextSource[];
  /** The named sources that the files belong to, in the order of their tokens; older data has none. */
  mixture?: SourceShare[];
  /** Of all sources together, if each is synthetic. */
  entropy_bits_per_byte?: number;
  splits: { train: Split; val: Split };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#token-type
/** The numbers that hold a tokenizer's ids: 16 bits if they fit. */
export function tokenType(tokenizer: Tokenizer): "u16" | "u32" {
  return tokenizer.vocabSize <= 2 ** 16 ? "u16" : "u32";
}

/** Names of the token that ends a document, in the tokenizers that are about. */
export const DOCUMENT_ENDS = [END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>"];

/** The token that stands between two documents; none in a tokenizer that has no such, as that of characters. */
export function documentSeparator({ specials, around }: Tokenizer): number | undefined {
  const name = DOCUMENT_ENDS.find((each) => specials[each] !== undefined);
  return name === undefined ? (around?.after[0] ?? around?.before[0]) : specials[name];
}

//| 01-tokenizer/7-shards-and-batches.ipynb#shard-writer
/** Tokens in one file; the next begins a new one. 2^26 tokens of 16 bits are 128 MiB. */
export const SHARD_TOKENS = 2 ** 26;

/** Ids as bytes, little-endian: two bytes each, or four where a vocabulary needs them. */
export function tokenBytes(ids: Uint32Array, dtype: "u16" | "u32"): Uint8Array {
  return new Uint8Array((dtype === "u16" ? new Uint16Array(ids) : ids.slice()).buffer);
}

/** Appends a row of ids to `shards`, the files `folder/name-00000.bin` and on; begins new ones as they fill up. */
export function appendTokens(
  folder: string,
  name: string,
  shards: Shard[],
  ids: Uint32Array,
  dtype: "u16" | "u32",
  limit: number,
): void {
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

//| 01-tokenizer/7-shards-and-batches.ipynb#write-split
/** A range of a file, in characters. */
export interface TextPart {
  file: string;
  from: number;
  to: number;
}

/** Encodes parts of files into one split. Between two files stands `<|endoftext|>`, if the tokenizer has it. */
export function writeSplit(
  folder: string,
  name: "train" | "val",
  parts: TextPart[],
  tokenizer: Tokenizer,
  onBytes: (count: number) => void,
  limit = SHARD_TOKENS,
): Split {
  const shards: Shard[] = [];
  const append = (ids: Uint32Array) => appendTokens(folder, name, shards, ids, tokenType(tokenizer), limit);
  const separator = documentSeparator(tokenizer);
  let bytes = 0;
  for (const { file, from, to } of parts) {
    if (bytes > 0 && separator !== undefined) append(Uint32Array.of(separator));
    for (const text of textRange(file, from, to)) {
      append(tokenizer.encode(text));
      bytes += Buffer.byteLength(text);
      onBytes(Buffer.byteLength(text));
    }
  }
  for (const shard of shards) shard.sha256 = fileChecksum(path.join(folder, shard.file));
  return { bytes, tokens: shards.reduce((sum, shard) => sum + shard.tokens, 0), shards };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#joint-entropy
/** The entropy of sources together: the mean over their bytes, if it is known of each. */
export function jointEntropy(sources: TextSource[]): { entropy_bits_per_byte?: number } {
  let [bits, bytes] = [0, 0];
  for (const source of sources) {
    if (source.entropy_bits_per_byte === undefined) return {};
    bits += source.entropy_bits_per_byte * source.bytes;
    bytes += source.bytes;
  }
  return { entropy_bits_per_byte: bits / bytes };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#prepare-options
/** What `prepareText` needs to know besides the files. */
export interface PrepareOptions {
  /** A tokenizer, or "char" for one made of the characters of all files. */
  tokenizer: Tokenizer | "char";
  /** The share of the text, from 0 up to (not including) 1, that is kept for validation. 0.1 unless told. */
  valFraction?: number;
  /** Called as text is encoded. */
  onBytes?: (done: number, total: number) => void;
}

/** Writes both splits of some files into a folder: of a single one of n characters the first floor(n * (1 - valFraction)) are for training. */
export function writeSplits(
  folder: string,
  files: string[],
  sources: TextSource[],
  tokenizer: Tokenizer,
  options: PrepareOptions,
): Manifest["splits"] {
  const total = sources.reduce((sum, source) => sum + source.bytes, 0);
  let done = 0;
  const onBytes = (count: number) => {
    done += count;
    options.onBytes?.(done, total);
  };
  const { valFraction = 0.1 } = options;
  const isWholly = (file: string) => isForValidation(textChunks(file).next().value ?? "", valFraction);
  const cuts = sources.map(({ characters }, i) =>
    files.length === 1 ? Math.floor(characters * (1 - valFraction)) : isWholly(files[i]) ? 0 : characters,
  );
  const parts = files.map((file, i) => ({ file, cut: cuts[i], to: sources[i].characters }));
  const first = parts.filter(({ cut }) => cut > 0).map(({ file, cut }) => ({ file, from: 0, to: cut }));
  const last = parts.filter(({ cut, to }) => cut < to).map(({ file, cut, to }) => ({ file, from: cut, to }));
  return {
    train: writeSplit(folder, "train", first, tokenizer, onBytes),
    val: writeSplit(folder, "val", last, tokenizer, onBytes),
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#prepare-text
/**
 * Turns plain UTF-8 texts into a folder of token shards with `manifest.json` and `tokenizer.json`. Of a single text of n characters
 * the first floor(n * (1 - valFraction)) are for training and the rest for validation; of several, whole ones are, by their hash.
 * Nothing is left behind on an error.
 */
export function prepareText(files: string[], folder: string, options: PrepareOptions): Manifest {
  const { valFraction = 0.1 } = options;
  if (!(valFraction >= 0 && valFraction < 1))
    throw new Error(`The validation fraction must be from 0 to below 1, not ${valFraction}.`);
  if (files.length === 0) throw new Error("Name at least one text file.");
  const alphabet = new Set<string>();
  const sources = files.map((file) => describeSource(file, alphabet));
  const tokenizer = options.tokenizer === "char" ? characterTokenizer(alphabet) : options.tokenizer;
  return writeWholeFolder(folder, "data prepare", { last: "manifest.json", inputs: files }, (partial) => {
    const splits = writeSplits(partial, files, sources, tokenizer, options);
    if (splits.train.tokens === 0) throw new Error("No text was left to learn from: all is for validation.");
    const about = {
      tokenizer: "tokenizer.json",
      vocab_size: tokenizer.vocabSize,
      separator: documentSeparator(tokenizer),
      dtype: tokenType(tokenizer),
    };
    const manifest = {
      ...SHARD_FORMAT,
      ...about,
      val_fraction: valFraction,
      sources,
      ...jointEntropy(sources),
      splits,
    };
    writeSynced(path.join(partial, about.tokenizer), JSON.stringify(tokenizer.toJson()));
    writeSynced(path.join(partial, "manifest.json"), checkedJson(manifest));
    return manifest;
  });
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

/** `start + count`, if that range lies within `length` tokens. */
export function checkedEnd(start: number, count: number, length: number): number {
  if (start >= 0 && count >= 0 && start + count <= length) return start + count;
  throw new Error(`Tokens ${start} to ${start + count - 1} do not exist: there are ${length}.`);
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
  const starts: number[] = [];
  let length = 0;
  for (const source of sources) {
    starts.push(length);
    length += source.length;
  }
  const read = (start: number, count: number) => {
    const result = new Uint32Array(checkedEnd(start, count, length) - start);
    sources.forEach((source, i) => {
      const from = Math.max(start, starts[i]);
      const to = Math.min(start + count, starts[i] + source.length);
      if (from < to) result.set(source.read(from - starts[i], to - from), from - start);
    });
    return result;
  };
  return { length, read };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#manifest-schema
/** What a manifest must hold; its type is `Manifest`. */
export const manifestSchema = (() => {
  const count = z
    .int({ error: "a whole number from 0 up" })
    .nonnegative({ error: "a whole number from 0 up" });
  const text = z.string({ error: "text" });
  const name = z
    .string({ error: "the name of a file" })
    .regex(/^\w[\w.-]*$/, { error: "the name of a file" });
  const sha256 = z.hex({ error: "a sha256" }).length(64, { error: "a sha256" });
  const split = z.strictObject({
    bytes: count,
    tokens: count,
    shards: z.array(z.strictObject({ file: name, tokens: count, sha256 })),
  });
  const bits = z.number({ error: "a number from 0 to 8" }).min(0).max(8).optional();
  const place = z.strictObject({ start: count, tokens: count, bytes: count });
  const documents = z.strictObject({ read: count, kept: count, dropped: z.record(z.string(), count) });
  const share = {
    ...{ name: text, license: text.optional(), url: text.optional(), documents, train: place, val: place },
    weight: z.number({ error: "a number above 0" }).positive({ error: "a number above 0" }).optional(),
  };
  const source = { file: text, sha256, bytes: count, characters: count, source: text.optional() };
  return z.strictObject({
    ...{ tokenizer: name, vocab_size: count, separator: count.optional() },
    dtype: z.enum(["u16", "u32"], { error: "u16 or u32" }),
    val_fraction: z.number({ error: "a number from 0 to below 1" }).min(0).lt(1),
    steps: z.array(text).optional(),
    sources: z.array(z.strictObject({ ...source, entropy_bits_per_byte: bits })),
    mixture: z.array(z.strictObject(share)).optional(),
    entropy_bits_per_byte: bits,
    splits: z.strictObject({ train: split, val: split }),
  });
})();

//| 01-tokenizer/7-shards-and-batches.ipynb#check-manifest
/** What in a manifest contradicts the rest of it, in a few words; nothing if all agrees. */
export function contradiction({
  vocab_size,
  dtype,
  separator,
  splits,
  mixture = [],
}: Manifest): string | undefined {
  for (const [name, { tokens, shards }] of Object.entries(splits)) {
    if (shards.reduce((sum, shard) => sum + shard.tokens, 0) !== tokens)
      return `splits.${name}.tokens is not the sum over its shards`;
    const places = mixture.map((source) => source[name as "train" | "val"]);
    if (places.some(({ start, tokens: length }) => start + length > tokens))
      return `a source reaches beyond the tokens of ${name}`;
  }
  if (dtype === "u16" && vocab_size > 2 ** 16) return `vocab_size ${vocab_size} does not fit into 16 bits`;
  if (separator !== undefined && separator >= vocab_size) return `separator ${separator} is no token`;
  return undefined;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#read-manifest
/** The JSON in a file, or one sentence on why there is none. */
export function readJson(file: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new Error(`There is no file ${file}.`);
    throw new Error(`${file} cannot be read as JSON: ${(error as Error).message}`);
  }
}

/** The manifest of a folder of shards, every value checked. Throws one sentence that names the file and what is wrong in it. */
export function readManifest(folder: string): Manifest {
  const file = path.join(folder, "manifest.json");
  if (!fs.existsSync(file))
    throw new Error(`${folder} holds no prepared data (no manifest.json); make it with: tslm data prepare`);
  const wrong = (what: string) =>
    new Error(`${file} is damaged or was edited: ${what}. Prepare the data again.`);
  let json: Record<string, unknown>;
  try {
    json = parseChecked(fs.readFileSync(file, "utf8"), { unsigned: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall) throw error;
    throw wrong((error as Error).message);
  }
  const { format, version, ...content } = json;
  if (format !== SHARD_FORMAT.format || version !== SHARD_FORMAT.version)
    throw new Error(`${file} is not a manifest of token shards of version 1; prepare the data again.`);
  const { data, error } = manifestSchema.safeParse(content);
  if (error) {
    const [{ path: where, message }] = error.issues;
    throw wrong(where.length > 0 ? `${where.join(".")} must be ${message}` : message);
  }
  const manifest: Manifest = { ...SHARD_FORMAT, ...data };
  const problem = contradiction(manifest);
  if (problem) throw wrong(problem);
  return manifest;
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
