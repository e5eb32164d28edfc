// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { loadTokenizer } from "../tokenizer/bpe.js";
import { type Tokenizer, characterTokenizer } from "../tokenizer/characters.js";
import {
  type Manifest,
  SHARD_FORMAT,
  SHARD_TOKENS,
  type SourceShare,
  type Split,
  type TextSource,
  appendTokens,
  codePoints,
  codeUnit,
  jointEntropy,
  knownEntropy,
  partialFolder,
  takePlace,
  tokenType,
} from "./shards.js";
import {
  type Document,
  type DocumentOptions,
  type NormalStep,
  documents,
  fileChecksum,
  normalise,
  openToRead,
  textDocuments,
} from "./sources.js";
import { writeWhole } from "./synthetic.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#in-order
/** The results of `work` on each item, in the order of the items, with up to `width` of them being worked on at a time. */
export async function* inOrder<T, R>(
  items: AsyncIterable<T>,
  work: (item: T) => Promise<R>,
  width: number,
): AsyncGenerator<[item: T, result: R]> {
  const waiting: [T, Promise<R>][] = [];
  const first = async (): Promise<[T, R]> => {
    const [item, result] = waiting.shift()!;
    return [item, await result];
  };
  for await (const item of items) {
    const result = work(item);
    result.catch(() => {}); // whoever waits for it gets the error
    waiting.push([item, result]);
    if (waiting.length >= width) yield await first();
  }
  while (waiting.length > 0) yield await first();
}

//| 01-tokenizer/7-shards-and-batches.ipynb#work-types
/** A document or a part of one, on its way to the shards. */
export interface CorpusPart {
  text: string;
  at: string;
  /** Whether a document begins here. */
  begins: boolean;
  split: "train" | "val" | "by hash";
}

/** What parts of text became: tokens and the bytes of their text, for either split. */
export interface EncodedParts {
  train: { ids: Uint32Array; bytes: number };
  val: { ids: Uint32Array; bytes: number };
}

/** All that a worker needs to know; plain data, so that it can be sent to a thread. */
export interface WorkSettings {
  /** The content of a tokenizer.json. */
  tokenizer?: object;
  valFraction: number;
}

/** Somebody who does the work of preparing: this thread, or others. */
export interface CorpusWork {
  /** Tasks that should be on their way at a time, so that nobody waits. */
  width: number;
  encode(parts: CorpusPart[]): Promise<EncodedParts>;
  close(): Promise<void>;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#corpus-types
/** Files that belong together: what they are, under which licence, from where, and their share of training. */
export interface CorpusSource {
  name: string;
  files: string[];
  license?: string;
  url?: string;
  weight?: number;
}

/** How a corpus is read, split and encoded. */
export interface CorpusOptions extends DocumentOptions {
  sources: CorpusSource[];
  /** A tokenizer, or "char" for one made of the characters of all files. */
  tokenizer: Tokenizer | "char";
  /** The share of text that is kept for validation, from 0 up to (not including) 1. 0.1 unless told. */
  valFraction?: number;
  /** Tokens in one file of a split, 2^26 unless told; UTF-16 units of a task, 2^20 unless told. */
  shardTokens?: number;
  taskSize?: number;
  /** What each text is put through first. */
  normal?: NormalStep[];
  /** Does the work; in this very thread unless told. */
  openWork?: (settings: WorkSettings) => CorpusWork;
  onProgress?: (progress: CorpusProgress) => void;
  /** Stops the run, so that the next with the same options goes on from there. */
  signal?: AbortSignal;
}

/** How far a run is, in bytes: of the files while they are read, of their text while it is encoded. */
export interface CorpusProgress {
  phase: "reading" | "encoding";
  done: number;
  total: number;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#safe-cut
/** The last place of a sign with something that fits before and behind it; -1 if there is none. */
export function lastBetween(before: RegExp, sign: string, behind: RegExp, text: string): number {
  for (let at = text.lastIndexOf(sign); at > 0; at = text.lastIndexOf(sign, at - 1))
    if (before.test(text[at - 1]) && behind.test(text.slice(at + 1, at + 3))) return at;
  return -1;
}

/**
 * Where to cut a text so that no known tokenizer notices: before the last letter or digit that begins a line, behind a line that
 * does not end in a blank; or else before the last blank between two letters. 0: nowhere.
 */
export function safeCut(text: string): number {
  const line = lastBetween(/\P{White_Space}/u, "\n", /^[\p{L}\p{N}]/u, text);
  return line >= 0 ? line + 1 : Math.max(0, lastBetween(/\p{L}/u, " ", /^\p{L}/u, text));
}

/** The longest text that waits for such a place, in UTF-16 units. */
export const LONGEST_PART = 2 ** 24;

/** The same documents, the parts of long ones cut at such places. */
export async function* safeParts(parts: AsyncIterable<Document>): AsyncGenerator<Document> {
  let rest = "";
  for await (const part of parts) {
    const text = rest + part.text;
    const anywhere = !part.continues || text.length > LONGEST_PART;
    const cut = anywhere ? text.length : safeCut(text);
    rest = text.slice(cut);
    if (cut > 0) yield { ...part, text: text.slice(0, cut) };
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#hash-split
/** Whether a document is for validation: if the first 32 bits of its SHA-256, as a fraction of 2^32, are below `valFraction`. */
export function isForValidation(text: string, valFraction: number): boolean {
  return (
    valFraction > 0 &&
    crypto.createHash("sha256").update(text).digest().readUInt32BE(0) < valFraction * 2 ** 32
  );
}

//| 01-tokenizer/7-shards-and-batches.ipynb#encode-parts
/** The ids of rows of ids, one after the other. */
export function joinedIds(rows: Uint32Array[]): Uint32Array {
  const ids = new Uint32Array(rows.reduce((sum, row) => sum + row.length, 0));
  let at = 0;
  for (const row of rows) {
    ids.set(row, at);
    at += row.length;
  }
  return ids;
}

/** Encodes parts of text. Before each document stands `<|endoftext|>`, if the tokenizer has it. */
export function encodeParts(tokenizer: Tokenizer, parts: CorpusPart[], valFraction: number): EncodedParts {
  const separator = Uint32Array.from(Object.values(tokenizer.specials).slice(0, 1));
  const [train, val] = [0, 1].map(() => ({ rows: [] as Uint32Array[], bytes: 0 }));
  for (const { text, at, begins, split } of parts) {
    const isVal = split === "by hash" ? isForValidation(text, valFraction) : split === "val";
    const side = isVal ? val : train;
    if (begins) side.rows.push(separator);
    side.rows.push(encodeNamed(tokenizer, text, at));
    side.bytes += Buffer.byteLength(text);
  }
  const joined = ({ rows, bytes }: { rows: Uint32Array[]; bytes: number }) => ({
    ids: joinedIds(rows),
    bytes,
  });
  return { train: joined(train), val: joined(val) };
}

/** The ids of a text; an error says where the text is from. */
export function encodeNamed(tokenizer: Tokenizer, text: string, at: string): Uint32Array {
  try {
    return tokenizer.encode(text);
  } catch (error) {
    throw new Error(`${at}: ${(error as Error).message}`);
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#work-here
/** The work done in the thread that calls. */
export function workHere(settings: WorkSettings): CorpusWork {
  const tokenizer = settings.tokenizer && loadTokenizer(settings.tokenizer);
  return {
    width: 1,
    encode: async (parts) => encodeParts(tokenizer!, parts, settings.valFraction),
    close: async () => {},
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#file-documents
/** The documents of a file, normalised; a file whose name does not say what it is is a text. */
export async function* corpusDocuments(file: string, options: CorpusOptions): AsyncGenerator<Document> {
  const known = /\.(txt|jsonl|parquet)(\.gz|\.zst)?$/.test(file);
  const parts = safeParts(known ? documents(file, options) : textDocuments(file, options));
  for await (const part of parts) {
    const text = normalise(part.text, options.normal ?? []);
    if (text !== "") yield { ...part, text };
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#survey
/** A file after its first reading. */
export interface SurveyedFile {
  about: TextSource;
  /** Documents in it, and such as could not be read. */
  count: number;
  unreadable: number;
}

export let breathed = 0;

/** Lets others have a turn, ten times a second: a loop that only reads would never hear a signal. */
export async function breath(): Promise<void> {
  if (performance.now() - breathed < 100) return;
  await new Promise((resolve) => setImmediate(resolve));
  breathed = performance.now();
}

/** Reads a file once. `onBytes` is told how much text was read so far; characters go into the alphabet, if one is wanted. */
export async function surveyFile(
  file: string,
  options: CorpusOptions,
  onBytes: (bytes: number) => void,
  alphabet?: Set<string>,
): Promise<SurveyedFile> {
  let [bytes, characters, count, unreadable, goesOn] = [0, 0, 0, 0, false];
  const onSkip = (message: string) => {
    unreadable++;
    options.onSkip?.(message);
  };
  for await (const { text, continues } of corpusDocuments(file, { ...options, onSkip })) {
    if (!goesOn) count++;
    goesOn = continues;
    bytes += Buffer.byteLength(text);
    characters += codePoints(text);
    if (alphabet) for (const character of text) alphabet.add(character);
    onBytes(bytes);
    await breath();
  }
  if (count === 0)
    throw new Error(unreadable > 0 ? `${file}: no document of it could be read.` : `${file} is empty.`);
  const sha256 = fileChecksum(file);
  const about = { file: path.basename(file), sha256, bytes, characters, ...knownEntropy(file, sha256) };
  return { about, count, unreadable };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#survey-all
/** The first reading of a whole corpus: its files in the order of the sources, and all their characters if they are wanted. */
export interface Survey {
  files: SurveyedFile[];
  alphabet?: string;
}

/** Reads every file of a corpus once. */
export async function surveyCorpus(options: CorpusOptions): Promise<Survey> {
  const alphabet = options.tokenizer === "char" ? new Set<string>() : undefined;
  const sizes = options.sources.flatMap(({ files }) => files.map(fileSize));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const surveyed: SurveyedFile[] = [];
  let before = 0;
  for (const { name, files } of options.sources) {
    for (const file of files) {
      const size = sizes[surveyed.length];
      const onBytes = (bytes: number) => {
        options.signal?.throwIfAborted();
        // Packed text is longer than its file: a third of it is a fair guess until the file is through.
        const read = /\.(gz|zst|parquet)$/.test(file) ? bytes / 3 : bytes;
        options.onProgress?.({ phase: "reading", done: before + Math.min(size, read), total });
      };
      const found = await surveyFile(file, options, onBytes, alphabet);
      surveyed.push({ ...found, about: { ...found.about, source: name } });
      before += size;
    }
  }
  return { files: surveyed, ...(alphabet ? { alphabet: [...alphabet].join("") } : {}) };
}

/** How long a file is, or one sentence on why it cannot be read. */
export function fileSize(file: string): number {
  const handle = openToRead(file);
  const { size } = fs.fstatSync(handle);
  fs.closeSync(handle);
  return size;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#file-parts
/** The parts of a text of which the first `cut` characters are for training. */
export async function* cutText(parts: AsyncIterable<Document>, cut: number): AsyncGenerator<CorpusPart> {
  let position = 0;
  for await (const { text, at } of parts) {
    const end = position + codePoints(text);
    const middle = codeUnit(text, Math.min(end, Math.max(position, cut)) - position);
    if (middle > 0) yield { text: text.slice(0, middle), at, begins: position === 0, split: "train" };
    if (middle < text.length) yield { text: text.slice(middle), at, begins: position <= cut, split: "val" };
    position = end;
  }
}

/** The parts of many documents; of one that comes in parts, the first part's hash decides for all. */
export async function* splitByHash(
  parts: AsyncIterable<Document>,
  valFraction: number,
): AsyncGenerator<CorpusPart> {
  let [begins, split]: [boolean, CorpusPart["split"]] = [true, "by hash"];
  for await (const { text, at, continues } of parts) {
    if (begins && !continues) split = "by hash";
    else if (begins) split = isForValidation(text, valFraction) ? "val" : "train";
    yield { text, at, begins, split };
    begins = !continues;
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#kept-documents
/** The documents that are kept: a verdict of 0 is "kept". `first` is the number of the first of them in the corpus. */
export async function* keptDocuments(
  parts: AsyncIterable<Document>,
  verdicts: Uint8Array,
  first: number,
): AsyncGenerator<Document> {
  let number = first;
  for await (const part of parts) {
    if (!verdicts[number]) yield part;
    if (!part.continues) number++;
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#corpus-tasks
/** Parts of one source that are encoded in one go. */
export interface CorpusTask {
  source: number;
  parts: CorpusPart[];
}

/** All the text of a corpus as tasks, in an order that depends on nothing but the corpus. */
export async function* corpusTasks(
  options: CorpusOptions,
  survey: Survey,
  verdicts: Uint8Array,
): AsyncGenerator<CorpusTask> {
  const { valFraction = 0.1, taskSize = 2 ** 20 } = options;
  let [file, first] = [0, 0];
  for (const [source, { files }] of options.sources.entries()) {
    let [parts, length]: [CorpusPart[], number] = [[], 0];
    for (const name of files) {
      const { about, count } = survey.files[file];
      const texts = corpusDocuments(name, { ...options, onSkip: undefined });
      const kept = keptDocuments(texts, verdicts, first);
      const cut = Math.floor(about.characters * (1 - valFraction));
      for await (const part of count === 1 ? cutText(kept, cut) : splitByHash(kept, valFraction)) {
        parts.push(part);
        length += part.text.length;
        if (length < taskSize) continue;
        yield { source, parts };
        [parts, length] = [[], 0];
      }
      file++;
      first += count;
    }
    if (parts.length > 0) yield { source, parts };
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#run-state-type
/** Where a run stands. Plain JSON. */
export interface CorpusState {
  /** What the run is made of: another corpus or other options begin anew. */
  plan: string;
  survey?: Survey;
  tasks: number;
  splits: { train: Split; val: Split };
  mixture: SourceShare[];
}

/** A checksum over all that decides what comes out: the files as they are now, how they are read, the tokenizer. */
export function corpusPlan(options: CorpusOptions): string {
  const { sources, tokenizer, valFraction, normal, textField, onError, shardTokens, taskSize } = options;
  const files = sources.map((source) =>
    source.files.map((file) => [path.resolve(file), fileSize(file), fs.statSync(file).mtimeMs]),
  );
  const encoder = tokenizer === "char" ? tokenizer : tokenizer.toJson();
  const all = [sources, files, encoder, valFraction, normal, textField, onError, shardTokens, taskSize];
  return crypto.createHash("sha256").update(JSON.stringify(all)).digest("hex");
}

/** The state of a run that has not begun. */
export function freshState(plan: string, sources: CorpusSource[]): CorpusState {
  const empty = () => ({ start: 0, tokens: 0, bytes: 0 });
  const split = () => ({ bytes: 0, tokens: 0, shards: [] });
  const mixture = sources.map(({ name, license, url, weight }) => ({
    ...{ name, license, url, weight },
    documents: { read: 0, kept: 0, dropped: {} },
    train: empty(),
    val: empty(),
  }));
  return { plan, tasks: 0, splits: { train: split(), val: split() }, mixture };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#save-state
/** Saves where a run stands: first the shards, then the state that speaks of them. */
export function saveState(partial: string, state: CorpusState): void {
  for (const { shards } of [state.splits.train, state.splits.val]) {
    const last = shards.at(-1);
    if (last) syncFile(path.join(partial, last.file));
  }
  writeWhole(path.join(partial, "state.json"), (write) => write(JSON.stringify(state)));
}

/** Waits until a file is on the disk. */
export function syncFile(file: string): void {
  const handle = fs.openSync(file, "r+");
  fs.fsyncSync(handle);
  fs.closeSync(handle);
}

/** Cuts the shards of a killed run down to what its state speaks of. Throws if they are shorter. */
export function trimShards(
  partial: string,
  { train, val }: CorpusState["splits"],
  dtype: "u16" | "u32",
): void {
  const known = new Map(
    [...train.shards, ...val.shards].map((shard) => [shard.file, shard.tokens * (dtype === "u16" ? 2 : 4)]),
  );
  for (const name of fs.readdirSync(partial).filter((each) => each.endsWith(".bin"))) {
    const file = path.join(partial, name);
    if (!known.has(name)) fs.rmSync(file);
    else if (fs.statSync(file).size < known.get(name)!)
      throw new Error(`${file} was cut short; delete ${partial} to begin again.`);
    else fs.truncateSync(file, known.get(name)!);
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#open-state
/** The state of an unfinished run of the same plan in a folder; none if there is no such. */
export function unfinishedState(partial: string, plan: string): CorpusState | undefined {
  try {
    const state = JSON.parse(fs.readFileSync(path.join(partial, "state.json"), "utf8")) as CorpusState;
    return state.plan === plan ? state : undefined;
  } catch {
    return undefined; // there is none
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#write-encoded
/** Writes what came of a task, and counts it. */
export function writeEncoded(
  partial: string,
  state: CorpusState,
  source: number,
  encoded: EncodedParts,
  tokenizer: Tokenizer,
  limit: number,
): void {
  const share = state.mixture[source];
  for (const name of ["train", "val"] as const) {
    const split = state.splits[name];
    const { bytes } = encoded[name];
    // A split begins with a document, not with what stands between two.
    const first =
      split.tokens === 0 && encoded[name].ids.length > 0 && Object.keys(tokenizer.specials).length > 0;
    const ids = first ? encoded[name].ids.subarray(1) : encoded[name].ids;
    if (share[name].tokens === 0) share[name].start = split.tokens;
    appendTokens(partial, name, split.shards, ids, tokenType(tokenizer), limit);
    for (const count of [split, share[name]]) {
      count.tokens += ids.length;
      count.bytes += bytes;
    }
  }
  state.tasks++;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#encode-corpus
/** Encodes what is not yet encoded, and saves where it stands every few seconds. */
export async function encodeCorpus(
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
  tokenizer: Tokenizer,
  verdicts: Uint8Array,
): Promise<void> {
  const { valFraction = 0.1, openWork = workHere, onProgress, signal, shardTokens = SHARD_TOKENS } = options;
  const work = openWork({ tokenizer: tokenizer.toJson(), valFraction });
  const total = state.survey!.files.reduce((sum, { about }) => sum + about.bytes, 0);
  const done = state.tasks;
  let saved = performance.now();
  try {
    const tasks = laterTasks(corpusTasks(options, state.survey!, verdicts), done);
    for await (const [{ source }, encoded] of inOrder(tasks, ({ parts }) => work.encode(parts), work.width)) {
      writeEncoded(partial, state, source, encoded, tokenizer, shardTokens);
      const { train, val } = state.splits;
      onProgress?.({ phase: "encoding", done: train.bytes + val.bytes, total });
      if (signal?.aborted || performance.now() - saved > 3000) {
        saveState(partial, state);
        saved = performance.now();
      }
      signal?.throwIfAborted();
    }
  } finally {
    await work.close();
  }
}

/** Without the first `done`, which are only read. */
export async function* laterTasks(
  tasks: AsyncIterable<CorpusTask>,
  done: number,
): AsyncGenerator<CorpusTask> {
  let number = 0;
  for await (const task of tasks) {
    if (number++ >= done) yield task;
    else await breath();
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#corpus-manifest
/** What a finished run says of itself, once the checksums of its shards are known. */
export function corpusManifest(
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
  tokenizer: Tokenizer,
): Manifest {
  const { splits, mixture, survey } = state;
  for (const shard of [...splits.train.shards, ...splits.val.shards])
    shard.sha256 = fileChecksum(path.join(partial, shard.file));
  const sources = survey!.files.map(({ about }) => about);
  const whole = mixture.every((share) => share.documents.kept === share.documents.read);
  return {
    ...SHARD_FORMAT,
    tokenizer: "tokenizer.json",
    vocab_size: tokenizer.vocabSize,
    dtype: tokenType(tokenizer),
    val_fraction: options.valFraction ?? 0.1,
    sources,
    mixture,
    ...(whole ? jointEntropy(sources) : {}),
    splits,
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#count-documents
/** Counts per source what was read, kept and dropped. `reasons[v - 1]` is what verdict v says. */
export function countDocuments(
  options: CorpusOptions,
  state: CorpusState,
  verdicts: Uint8Array,
  reasons: string[],
): void {
  let [file, number] = [0, 0];
  for (const [source, { files }] of options.sources.entries()) {
    const counts: SourceShare["documents"] = { read: 0, kept: 0, dropped: {} };
    const drop = (reason: string, count: number) => {
      if (count > 0) counts.dropped[reason] = (counts.dropped[reason] ?? 0) + count;
    };
    for (const { count, unreadable } of state.survey!.files.slice(file, file + files.length)) {
      counts.read += count + unreadable;
      drop("unreadable", unreadable);
      for (const end = number + count; number < end; number++) {
        if (verdicts[number]) drop(reasons[verdicts[number] - 1], 1);
        else counts.kept++;
      }
    }
    file += files.length;
    state.mixture[source].documents = counts;
  }
}

//| 01-tokenizer/7-shards-and-batches.ipynb#check-corpus
/** Throws one sentence if options make no sense. */
export function checkCorpus({ sources, valFraction = 0.1 }: CorpusOptions): void {
  if (!(valFraction >= 0 && valFraction < 1))
    throw new Error(`The validation fraction must be from 0 to below 1, not ${valFraction}.`);
  if (sources.length === 0) throw new Error("Name at least one text file.");
  for (const { name, files } of sources)
    if (files.length === 0) throw new Error(`The source ${name} has no files.`);
  const names = sources.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new Error(`Two sources are called ${twice}; give each a name of its own.`);
  const weighted = sources.filter(({ weight }) => weight !== undefined).length;
  if (weighted > 0 && weighted < sources.length) throw new Error("Give every source a weight, or none.");
  const light = sources.find(
    ({ weight }) => weight !== undefined && !(weight > 0 && weight < Number.POSITIVE_INFINITY),
  );
  if (light) throw new Error(`The weight of ${light.name} must be a number above 0, not ${light.weight}.`);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#prepare-corpus
/**
 * Turns a corpus into a folder of token shards with `manifest.json` and `tokenizer.json`, in little memory. Of a file that holds
 * a single text the last part is for validation, as in `prepareText`; of documents, those whose hash says so. A run that was
 * killed or stopped by its signal leaves `folder.partial`, and the next with the same options goes on there, to the same bytes.
 * Throws one sentence on bad input, and then leaves nothing.
 */
export async function prepareCorpus(folder: string, options: CorpusOptions): Promise<Manifest> {
  checkCorpus(options);
  const partial = partialFolder(folder, "manifest.json");
  const plan = corpusPlan(options);
  const found = unfinishedState(partial, plan);
  if (!found) fs.rmSync(partial, { recursive: true, force: true });
  fs.mkdirSync(partial, { recursive: true });
  const state = found ?? freshState(plan, options.sources);
  try {
    return await fillCorpus(folder, partial, options, state);
  } catch (error) {
    if (!options.signal?.aborted) fs.rmSync(partial, { recursive: true, force: true });
    throw error;
  }
}

/** Does what is left to do. */
export async function fillCorpus(
  folder: string,
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
): Promise<Manifest> {
  state.survey ??= await surveyCorpus(options);
  saveState(partial, state);
  const verdicts = new Uint8Array(0);
  const tokenizer =
    options.tokenizer === "char" ? characterTokenizer(state.survey.alphabet!) : options.tokenizer;
  trimShards(partial, state.splits, tokenType(tokenizer));
  await encodeCorpus(partial, options, state, tokenizer, verdicts);
  if (corpusPlan(options) !== state.plan)
    throw new Error("A file of the corpus was changed while it was read; begin again.");
  countDocuments(options, state, verdicts, []);
  const manifest = corpusManifest(partial, options, state, tokenizer);
  fs.writeFileSync(path.join(partial, manifest.tokenizer), JSON.stringify(tokenizer.toJson()));
  fs.writeFileSync(path.join(partial, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  fs.rmSync(path.join(partial, "state.json"));
  takePlace(partial, folder);
  return manifest;
}
