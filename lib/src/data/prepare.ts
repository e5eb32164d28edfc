// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { type Tokenizer, characterTokenizer } from "../tokenizer/characters.js";
import { loadTokenizer } from "../tokenizer/files.js";
import { type CorpusRecord, type SourceRecord, croissant, datasetCard } from "./card.js";
import { PERMUTATIONS, contentHash, hashSet, recentIndex, textSignature } from "./duplicates.js";
import { checkedJson, naming, syncFile, writeSynced, writeWhole } from "./files.js";
import { type Benchmark, addToBenchmark, benchmarkRuns, overlapWith, rejectedBy } from "./filters.js";
import { type Claim, claimFolder } from "./folders.js";
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
  documentSeparator,
  isForValidation,
  jointEntropy,
  knownEntropy,
  tokenType,
} from "./shards.js";
import {
  type Document,
  type DocumentOptions,
  type NormalStep,
  byteChunks,
  documents,
  fileChecksum,
  normalise,
  openToRead,
} from "./sources.js";

//| 01-tokenizer/a-the-pipeline.ipynb#in-order
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

//| 01-tokenizer/a-the-pipeline.ipynb#work-types
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

//| 01-tokenizer/a-the-pipeline.ipynb#checked-texts
/** What was found about texts: per text a verdict (0: nothing against it), 8 bytes of its content's hash, 128 of its signature. */
export interface CheckedTexts {
  verdicts: Uint8Array;
  hashes: Uint32Array;
  signatures: Uint8Array;
}

//| 01-tokenizer/a-the-pipeline.ipynb#work-settings
/** All that a worker needs to know; plain data, so that it can be sent to a thread. */
export interface WorkSettings {
  /** The content of a tokenizer.json. */
  tokenizer?: object;
  valFraction: number;
  checks: CorpusChecks;
}

/** What is held against documents. */
export interface CorpusChecks {
  /** Names of filters, as `chooseFilters` gives them. */
  filters?: string[];
  /** Leave out documents that are the same as an earlier one, or nearly. */
  dedup?: ("exact" | "near")[];
  /** Files with texts that a model is to be judged by: documents that share 13 words with one are left out. */
  contamination?: string[];
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-work
/** Somebody who does the work of preparing: this thread, or others. */
export interface CorpusWork {
  /** Tasks that should be on their way at a time, so that nobody waits. */
  width: number;
  encode(parts: CorpusPart[]): Promise<EncodedParts>;
  check(texts: string[]): Promise<CheckedTexts>;
  close(): Promise<void>;
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-progress
/** How far a run is, in bytes: of the files while they are read, of their text while it is encoded. */
export interface CorpusProgress {
  phase: "reading" | "encoding";
  done: number;
  total: number;
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-types
/** Files that belong together: what they are, under which licence, from where, and their share of training. */
export interface CorpusSource {
  name: string;
  files: string[];
  license?: string;
  url?: string;
  weight?: number;
}

/** How a corpus is read, split and encoded. */
export interface CorpusOptions extends DocumentOptions, CorpusChecks {
  sources: CorpusSource[];
  /** A tokenizer, or "char" for one made of the characters of all files. */
  tokenizer: Tokenizer | "char";
  /** The chat template that belongs to the tokenizer, to lie beside it as chat_template.jinja. */
  chatTemplate?: string;
  /** The share of text that is kept for validation, from 0 up to (not including) 1. 0.1 unless told. */
  valFraction?: number;
  /** Tokens in one file of a split, 2^26 unless told; UTF-16 units of a task, about 2^20 unless told. */
  shardTokens?: number;
  taskSize?: number;
  /** What each text is put through first. */
  normal?: NormalStep[];
  /** Who made it and when (2026-01-31), for the dataset card; without, there is none. */
  made?: { by: string; on: string };
  /** Gives the documents of a file; `documents`, in this very thread, unless told. */
  read?: (file: string, options: DocumentOptions) => AsyncIterable<Document>;
  /** Does the work; in this very thread unless told. */
  openWork?: (settings: WorkSettings) => CorpusWork;
  onProgress?: (progress: CorpusProgress) => void;
  /** Stops the run, so that the next with the same options goes on from there. */
  signal?: AbortSignal;
}

//| 01-tokenizer/a-the-pipeline.ipynb#safe-cut
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

//| 01-tokenizer/a-the-pipeline.ipynb#safe-parts
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

//| 01-tokenizer/a-the-pipeline.ipynb#encode-named
/** The ids of a text; an error says where the text is from. */
export function encodeNamed(tokenizer: Tokenizer, text: string, at: string): Uint32Array {
  try {
    return tokenizer.encode(text);
  } catch (error) {
    throw new Error(`${at}: ${(error as Error).message}`);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#encode-parts
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

/** Encodes parts of text. Before each document stands the separator, if the tokenizer has one. */
export function encodeParts(tokenizer: Tokenizer, parts: CorpusPart[], valFraction: number): EncodedParts {
  const separator = [documentSeparator(tokenizer) ?? []].flat();
  const [train, val] = [0, 1].map(() => ({ rows: [] as Uint32Array[], bytes: 0 }));
  for (const { text, at, begins, split } of parts) {
    const isVal = split === "by hash" ? isForValidation(text, valFraction) : split === "val";
    const side = isVal ? val : train;
    if (begins) side.rows.push(Uint32Array.from(separator));
    side.rows.push(encodeNamed(tokenizer, text, at));
    side.bytes += Buffer.byteLength(text);
  }
  const joined = ({ rows, bytes }: { rows: Uint32Array[]; bytes: number }) => ({
    ids: joinedIds(rows),
    bytes,
  });
  return { train: joined(train), val: joined(val) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-texts
/** Why documents are left out, in the order in which it is looked for: verdict v is reason v - 1. */
export function dropReasons({ filters = [] }: CorpusChecks): string[] {
  return [...filters, "contaminated", "exact-duplicate", "near-duplicate"];
}

/** Holds texts against filters and a benchmark, and takes their hashes and signatures. An empty text is not checked. */
export function checkTexts(texts: string[], checks: CorpusChecks, benchmark: Benchmark): CheckedTexts {
  const { filters = [], dedup = [] } = checks;
  const verdicts = new Uint8Array(texts.length);
  const hashes = new Uint32Array(dedup.length > 0 ? 2 * texts.length : 0);
  const signatures = new Uint8Array(dedup.includes("near") ? PERMUTATIONS * texts.length : 0);
  texts.forEach((text, i) => {
    if (text === "") return;
    const filter = filters.length > 0 ? rejectedBy(text, filters) : undefined;
    if (filter !== undefined) verdicts[i] = 1 + filters.indexOf(filter);
    else if (benchmark.runs.size > 0 && overlapWith(benchmark, text)) verdicts[i] = 1 + filters.length;
    if (verdicts[i] !== 0) return;
    if (hashes.length > 0) hashes.set(contentHash(text), 2 * i);
    if (signatures.length > 0) signatures.set(textSignature(text), PERMUTATIONS * i);
  });
  return { verdicts, hashes, signatures };
}

//| 01-tokenizer/a-the-pipeline.ipynb#read-benchmark
/** The texts of some files as a benchmark; a long text counts part by part. */
export async function readBenchmark(files: string[]): Promise<Benchmark> {
  const benchmark = benchmarkRuns([]);
  for (const file of files) for await (const { text } of documents(file)) addToBenchmark(benchmark, text);
  return benchmark;
}

//| 01-tokenizer/a-the-pipeline.ipynb#work-here
/** The work done in the thread that calls. */
export function workHere({ tokenizer, valFraction, checks }: WorkSettings): CorpusWork {
  const encoder = tokenizer && loadTokenizer(tokenizer);
  const benchmark = readBenchmark(checks.contamination ?? []);
  benchmark.catch(() => {}); // whoever checks a text gets the error
  return {
    width: 1,
    encode: async (parts) => encodeParts(encoder!, parts, valFraction),
    check: async (texts) => checkTexts(texts, checks, await benchmark),
    close: async () => {},
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#file-documents
/** The documents of a file of a corpus, normalised, long ones in parts that are safely cut. */
export async function* corpusDocuments(file: string, options: CorpusOptions): AsyncGenerator<Document> {
  for await (const part of safeParts((options.read ?? documents)(file, options))) {
    const text = normalise(part.text, options.normal ?? []);
    if (text !== "") yield { ...part, text };
  }
}

/** When others last had a turn. */
export const lastBreath = { at: 0 };

/** Lets others have a turn, ten times a second: a loop that only reads would never hear a signal. */
export async function breath(): Promise<void> {
  if (performance.now() - lastBreath.at < 100) return;
  await new Promise((resolve) => setImmediate(resolve));
  lastBreath.at = performance.now();
}

//| 01-tokenizer/a-the-pipeline.ipynb#survey
/** A file after its first reading. */
export interface SurveyedFile {
  about: TextSource;
  /** Documents in it, and such as could not be read. */
  count: number;
  unreadable: number;
}

//| 01-tokenizer/a-the-pipeline.ipynb#survey-file
/**
 * Reads a file once and gives the text of each document, or "" of one that comes in parts; at the end what there is to know of
 * the file. `onBytes` is told how much text was read; its characters go into the alphabet, if one is wanted.
 */
export async function* surveyFile(
  file: string,
  options: CorpusOptions,
  onBytes: (bytes: number) => void,
  alphabet?: Set<string>,
): AsyncGenerator<string, SurveyedFile> {
  let [bytes, characters, count, unreadable, begins] = [0, 0, 0, 0, true];
  const onSkip = (message: string) => {
    unreadable++;
    options.onSkip?.(message);
  };
  for await (const { text, continues } of corpusDocuments(file, { ...options, onSkip })) {
    if (begins) count++;
    bytes += Buffer.byteLength(text);
    characters += codePoints(text);
    if (alphabet) for (const character of text) alphabet.add(character);
    onBytes(bytes);
    if (begins) yield continues ? "" : text;
    begins = !continues;
    await breath();
  }
  if (count === 0)
    throw new Error(unreadable > 0 ? `${file}: no document of it could be read.` : `${file} is empty.`);
  const sha256 = fileChecksum(file);
  const about = { file: path.basename(file), sha256, bytes, characters, ...knownEntropy(file, sha256) };
  return { about, count, unreadable };
}

//| 01-tokenizer/a-the-pipeline.ipynb#file-size
/** How long a file is, or one sentence on why it cannot be read. */
export function fileSize(file: string): number {
  const handle = openToRead(file);
  const { size } = fs.fstatSync(handle);
  fs.closeSync(handle);
  return size;
}

//| 01-tokenizer/a-the-pipeline.ipynb#survey-all
/** The first reading of a whole corpus: its files in the order of the sources, and all their characters if they are wanted. */
export interface Survey {
  files: SurveyedFile[];
  alphabet?: string;
}

//| 01-tokenizer/a-the-pipeline.ipynb#survey-corpus
/** Reads every file of a corpus once, giving the texts of all documents; at the end what there is to know of the files. */
export async function* surveyCorpus(options: CorpusOptions): AsyncGenerator<string, Survey> {
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
        const read = /\.(gz|zst|parquet)$/i.test(file) ? bytes / 3 : bytes;
        options.onProgress?.({ phase: "reading", done: before + Math.min(size, read), total });
      };
      const found = yield* surveyFile(file, options, onBytes, alphabet);
      surveyed.push({ ...found, about: { ...found.about, source: name } });
      before += size;
    }
  }
  return { files: surveyed, ...(alphabet ? { alphabet: [...alphabet].join("") } : {}) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#judge
/** Says of document after document whether it stays. */
export interface Judge {
  /** A verdict for each document so far: 0, or 1 + the number of the reason. */
  readonly verdicts: number[];
  judge(found: CheckedTexts): void;
}

/** A judge who has seen nothing. Of equal documents the first stays. */
export function newJudge(checks: CorpusChecks): Judge {
  const { dedup = [] } = checks;
  const [hashes, signatures, reasons] = [hashSet(), recentIndex(), dropReasons(checks)];
  const verdictOf = (found: CheckedTexts, i: number): number => {
    if (found.verdicts[i] !== 0) return found.verdicts[i];
    const [high, low] = found.hashes.subarray(2 * i, 2 * i + 2);
    if (!high && !low) return 0; // not checked
    const isNew = hashes.add(high, low);
    if (!isNew && dedup.includes("exact")) return 1 + reasons.indexOf("exact-duplicate");
    if (!dedup.includes("near")) return 0;
    const signature = found.signatures.subarray(PERMUTATIONS * i, PERMUTATIONS * (i + 1));
    return signatures.findOrAdd(signature) ? 1 + reasons.indexOf("near-duplicate") : 0;
  };
  const verdicts: number[] = [];
  const judge = (found: CheckedTexts) => found.verdicts.forEach((_, i) => verdicts.push(verdictOf(found, i)));
  return { verdicts, judge };
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-records
/** Bytes that what was found about one document takes in a file: verdict, hash, signature. */
export function recordSize({ dedup = [] }: CorpusChecks): number {
  return 1 + (dedup.length > 0 ? 8 : 0) + (dedup.includes("near") ? PERMUTATIONS : 0);
}

/** What was found about some documents as bytes, document after document. */
export function recordBytes(
  { verdicts, hashes, signatures }: CheckedTexts,
  checks: CorpusChecks,
): Uint8Array {
  const size = recordSize(checks);
  const bytes = new Uint8Array(size * verdicts.length);
  const hashBytes = new Uint8Array(hashes.buffer, hashes.byteOffset, hashes.byteLength);
  verdicts.forEach((verdict, i) => {
    bytes[size * i] = verdict;
    if (size > 1) bytes.set(hashBytes.subarray(8 * i, 8 * i + 8), size * i + 1);
    if (size > 9) bytes.set(signatures.subarray(PERMUTATIONS * i, PERMUTATIONS * (i + 1)), size * i + 9);
  });
  return bytes;
}

//| 01-tokenizer/a-the-pipeline.ipynb#read-records
/** Reads such bytes back. */
export function readRecords(bytes: Uint8Array, checks: CorpusChecks): CheckedTexts {
  const size = recordSize(checks);
  const count = bytes.length / size;
  const hashed = size > 1 ? 8 : 0;
  const columns = (from: number, width: number) => {
    const column = new Uint8Array(width * count);
    for (let i = 0; i < count; i++)
      column.set(bytes.subarray(size * i + from, size * i + from + width), width * i);
    return column;
  };
  const hashes = new Uint32Array(columns(1, hashed).buffer);
  return { verdicts: columns(0, 1), hashes, signatures: columns(9, Math.max(0, size - 9)) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#replay
/** Tells a judge what an earlier run found out; a record that was being written when it ended is cut off. */
export function replayRecords(file: string, checks: CorpusChecks, judge: Judge): void {
  if (!fs.existsSync(file)) return;
  const size = recordSize(checks);
  fs.truncateSync(file, size * Math.floor(fs.statSync(file).size / size));
  for (const bytes of byteChunks(file, 4096 * size)) judge.judge(readRecords(bytes, checks));
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-tasks
/** Texts in lists of about a million characters, without the first `done` texts; what the row of texts returns goes to `onEnd`. */
export async function* checkTasks<T>(
  texts: AsyncGenerator<string, T>,
  done: number,
  onEnd: (result: T) => void,
): AsyncGenerator<string[]> {
  let [task, length, number]: [string[], number, number] = [[], 0, 0];
  for (let next = await texts.next(); ; next = await texts.next()) {
    if (next.done) {
      if (task.length > 0) yield task;
      return onEnd(next.value as T);
    }
    if (number++ < done) continue;
    const text = next.value as string;
    task.push(text);
    length += text.length;
    if (length < 2 ** 20 && task.length < 4096) continue;
    yield task;
    [task, length] = [[], 0];
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#survey-checked
/** Reads a corpus once and says of each document whether it stays; what was found so far is kept in `partial`. */
export async function surveyChecked(
  partial: string,
  options: CorpusOptions,
): Promise<{ survey: Survey; verdicts: Uint8Array }> {
  const { filters = [], dedup = [], contamination = [], openWork = workHere } = options;
  let survey: Survey | undefined;
  const onEnd = (result: Survey) => {
    survey = result;
  };
  if (filters.length + dedup.length + contamination.length === 0) {
    for await (const _ of checkTasks(surveyCorpus(options), 0, onEnd)); // there is nothing to check
    return { survey: survey!, verdicts: new Uint8Array(0) };
  }
  const checks = { filters, dedup, contamination };
  const records = path.join(partial, "checks.bin");
  const judge = newJudge(checks);
  replayRecords(records, checks, judge);
  const work = openWork({ valFraction: 0, checks });
  try {
    const tasks = checkTasks(surveyCorpus(options), judge.verdicts.length, onEnd);
    for await (const [, found] of inOrder(tasks, (texts) => work.check(texts), work.width)) {
      naming(records, () => fs.appendFileSync(records, recordBytes(found, checks)));
      judge.judge(found);
    }
  } finally {
    await work.close();
  }
  return { survey: survey!, verdicts: Uint8Array.from(judge.verdicts) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#file-parts
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

//| 01-tokenizer/a-the-pipeline.ipynb#kept-documents
/** Told of each document that is left out: its number in the corpus, and its text or the first part of it. */
export type OnDrop = (number: number, document: Document) => void;

/** The documents that are kept: a verdict of 0 is "kept". `first` is the number of the first of them in the corpus. */
export async function* keptDocuments(
  parts: AsyncIterable<Document>,
  verdicts: Uint8Array,
  first: number,
  onDrop: OnDrop,
): AsyncGenerator<Document> {
  let number = first;
  for await (const part of parts) {
    if (verdicts[number]) onDrop(number, part);
    else yield part;
    if (!part.continues) number++;
    await breath();
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#short-pieces
/** A part of a long text in pieces of at most about `size` UTF-16 units, safely cut: small tasks, little memory. */
export function* shortPieces(part: CorpusPart, size: number): Generator<CorpusPart> {
  let { text, begins } = part;
  while (text.length > size && part.split !== "by hash") {
    const cut = safeCut(text.slice(0, size)) || text.length;
    yield { ...part, text: text.slice(0, cut), begins };
    [text, begins] = [text.slice(cut), false];
  }
  if (text !== "") yield { ...part, text, begins };
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-task
/** Parts of one source that are encoded in one go. */
export interface CorpusTask {
  source: number;
  parts: CorpusPart[];
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-tasks
/** All the text of a corpus as tasks, in an order that depends on nothing but the corpus. */
export async function* corpusTasks(
  options: CorpusOptions,
  survey: Survey,
  verdicts: Uint8Array,
  onDrop: OnDrop = () => {},
): AsyncGenerator<CorpusTask> {
  const { valFraction = 0.1, taskSize = 2 ** 20 } = options;
  const alone = survey.files.reduce((sum, { count }) => sum + count, 0) === 1;
  let [file, first] = [0, 0];
  for (const [source, { files }] of options.sources.entries()) {
    let [parts, length]: [CorpusPart[], number] = [[], 0];
    for (const name of files) {
      const { about, count } = survey.files[file];
      const texts = corpusDocuments(name, { ...options, onSkip: undefined });
      const kept = keptDocuments(texts, verdicts, first, onDrop);
      const cut = Math.floor(about.characters * (1 - valFraction));
      for await (const part of alone ? cutText(kept, cut) : splitByHash(kept, valFraction)) {
        for (const piece of shortPieces(part, taskSize)) {
          parts.push(piece);
          length += piece.text.length;
          if (length < taskSize / 2) continue;
          yield { source, parts };
          [parts, length] = [[], 0];
        }
      }
      file++;
      first += count;
    }
    if (parts.length > 0) yield { source, parts };
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#run-state-type
/** Where a run stands. Plain JSON. */
export interface CorpusState {
  /** What the run is made of: another corpus or other options begin anew. */
  plan: string;
  survey?: Survey;
  tasks: number;
  splits: { train: Split; val: Split };
  mixture: SourceShare[];
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-plan
/** The files that a corpus is made of, and those that it is held against. */
export function corpusFiles({ sources, contamination = [] }: CorpusOptions): string[] {
  return [...sources.flatMap((source) => source.files), ...contamination];
}

/** A checksum over all that decides what comes out: the files as they are now, how they are read, the tokenizer. */
export function corpusPlan(options: CorpusOptions): string {
  const { tokenizer } = options;
  const fact = (file: string) => [path.resolve(file), fileSize(file), fs.statSync(file).mtimeMs];
  const files = corpusFiles(options).map(fact);
  const encoder = tokenizer === "char" ? tokenizer : tokenizer.toJson();
  // Functions are no part of JSON; who does the work, who watches and who stops it does not matter.
  const all = {
    ...options,
    split: "by document",
    tokenizer: encoder,
    made: undefined,
    signal: undefined,
    files,
  };
  return crypto.createHash("sha256").update(JSON.stringify(all)).digest("hex");
}

//| 01-tokenizer/a-the-pipeline.ipynb#fresh-state
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

//| 01-tokenizer/a-the-pipeline.ipynb#save-state
/** Saves where a run stands: first the shards, then the state that speaks of them. */
export function saveState(partial: string, state: CorpusState): void {
  for (const { shards } of [state.splits.train, state.splits.val]) {
    const last = shards.at(-1);
    if (last) syncFile(path.join(partial, last.file));
  }
  writeWhole(path.join(partial, "state.json"), (write) => write(JSON.stringify(state)));
}

//| 01-tokenizer/a-the-pipeline.ipynb#trim-shards
/** Cuts the shards of a killed run down to what its state speaks of. Throws if they are shorter. */
export function trimShards(
  partial: string,
  { train, val }: CorpusState["splits"],
  dtype: "u16" | "u32",
): void {
  const known = new Map(
    [...train.shards, ...val.shards].map((shard) => [shard.file, shard.tokens * (dtype === "u16" ? 2 : 4)]),
  );
  for (const name of fs.readdirSync(partial).filter((each) => /^(train|val)-\d+\.bin$/.test(each))) {
    const file = path.join(partial, name);
    if (!known.has(name)) fs.rmSync(file);
    else if (fs.statSync(file).size < known.get(name)!)
      throw new Error(`${file} was cut short: begin again.`);
    else fs.truncateSync(file, known.get(name)!);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#open-state
/** The state of an unfinished run of the same plan in a folder; none if there is no such, or one of another plan. */
export function unfinishedState(partial: string, plan: string): CorpusState | undefined {
  try {
    const state = JSON.parse(fs.readFileSync(path.join(partial, "state.json"), "utf8"));
    return state.plan === plan ? state : undefined;
  } catch {
    return undefined; // there is none
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#write-encoded
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
      split.tokens === 0 && encoded[name].ids.length > 0 && documentSeparator(tokenizer) !== undefined;
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

//| 01-tokenizer/a-the-pipeline.ipynb#drop-notes
/** How many documents of each reason are shown in dropped.jsonl, and how much of each. */
export const DROPS_SHOWN = { documents: 10, characters: 300 };

/** Takes notes of documents that are left out: their bytes, and the first of each reason, for people to look at. */
export function dropNotes(checks: CorpusChecks, verdicts: Uint8Array) {
  const reasons = dropReasons(checks);
  const shown = new Map<string, { reason: string; at: string; text: string }[]>(
    reasons.map((reason) => [reason, []]),
  );
  let bytes = 0;
  const onDrop: OnDrop = (number, { text, at }) => {
    bytes += Buffer.byteLength(text);
    const reason = reasons[verdicts[number] - 1];
    const list = shown.get(reason)!;
    if (list.length < DROPS_SHOWN.documents)
      list.push({
        reason,
        at: path.basename(at),
        text: [...text.slice(0, 2 * DROPS_SHOWN.characters)].slice(0, DROPS_SHOWN.characters).join(""),
      });
  };
  const lines = () =>
    [...shown.values()]
      .flat()
      .map((each) => `${JSON.stringify(each)}\n`)
      .join("");
  return { onDrop, bytes: () => bytes, lines };
}

//| 01-tokenizer/a-the-pipeline.ipynb#later-tasks
/** Without the first `done`, which are only read. */
export async function* laterTasks(
  tasks: AsyncIterable<CorpusTask>,
  done: number,
): AsyncGenerator<CorpusTask> {
  let number = 0;
  for await (const task of tasks) if (number++ >= done) yield task;
}

//| 01-tokenizer/a-the-pipeline.ipynb#whole-corpus
/** Throws unless all text that was read first was encoded too (`dropped` bytes were left out), and some of it is there to learn from. */
export function checkWhole({ survey, splits: { train, val } }: CorpusState, dropped: number): void {
  const total = survey!.files.reduce((sum, { about }) => sum + about.bytes, 0);
  if (train.bytes + val.bytes + dropped !== total)
    throw new Error("The text is not what it was when it was first read; begin again.");
  if (train.tokens > 0) return;
  throw new Error(
    "No document was left to learn from: all are for validation. Give more documents, or a smaller validation fraction.",
  );
}

//| 01-tokenizer/a-the-pipeline.ipynb#encode-corpus
/** Encodes what is not yet encoded, and saves where it stands every few seconds. */
export async function encodeCorpus(
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
  tokenizer: Tokenizer,
  verdicts: Uint8Array,
): Promise<void> {
  const { valFraction = 0.1, openWork = workHere, onProgress, signal, shardTokens = SHARD_TOKENS } = options;
  const work = openWork({ tokenizer: tokenizer.toJson(), valFraction, checks: {} });
  const total = state.survey!.files.reduce((sum, { about }) => sum + about.bytes, 0);
  const drops = dropNotes(options, verdicts);
  let saved = performance.now();
  try {
    const tasks = laterTasks(corpusTasks(options, state.survey!, verdicts, drops.onDrop), state.tasks);
    for await (const [{ source }, encoded] of inOrder(tasks, ({ parts }) => work.encode(parts), work.width)) {
      writeEncoded(partial, state, source, encoded, tokenizer, shardTokens);
      const done = state.splits.train.bytes + state.splits.val.bytes + drops.bytes();
      onProgress?.({ phase: "encoding", done, total });
      if (signal?.aborted || performance.now() - saved > 3000) {
        saveState(partial, state);
        saved = performance.now();
      }
      signal?.throwIfAborted();
    }
  } finally {
    await work.close();
  }
  checkWhole(state, drops.bytes());
  if (verdicts.length > 0) writeSynced(path.join(partial, "dropped.jsonl"), drops.lines());
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-steps
/** What was done to the text of a corpus, one sentence each. */
export function corpusSteps({
  normal = [],
  filters = [],
  dedup = [],
  contamination = [],
}: CorpusOptions): string[] {
  const names = contamination.map((file) => path.basename(file)).join(", ");
  return [
    normal.length > 0 ? `The text was normalised: ${normal.join(", ")}.` : "",
    filters.length > 0 ? `Documents that a filter rejects were left out: ${filters.join(", ")}.` : "",
    contamination.length > 0 ? `Documents with 13 words in a row in common with ${names} were left out.` : "",
    dedup.includes("exact")
      ? "Of documents with the same text (but for white space) the first was kept."
      : "",
    dedup.includes("near")
      ? "Of documents that are nearly the same (Jaccard similarity of about 0.8 or more) the first was kept."
      : "",
  ].filter((step) => step !== "");
}

//| 01-tokenizer/a-the-pipeline.ipynb#known-origin
/** The licence and the address in `file.json` beside a file that `tslm data get` fetched, if it speaks of these very bytes. */
export function knownOrigin(file: string, sha256: string): { license?: string; url?: string } {
  try {
    const card = JSON.parse(fs.readFileSync(`${file}.json`, "utf8"));
    return card.kind === "download" && card.sha256 === sha256 ? { license: card.license, url: card.url } : {};
  } catch {
    return {}; // no such file, or another program's
  }
}

/** The sources with their licence and address; of a source with one file, what is known of that, where nothing was said. */
export function withOrigins(options: CorpusOptions, state: CorpusState): SourceShare[] {
  let file = 0;
  return state.mixture.map((share, i) => {
    const { files } = options.sources[i];
    const found = files.length === 1 ? knownOrigin(files[0], state.survey!.files[file].about.sha256) : {};
    file += files.length;
    return { ...share, license: share.license ?? found.license, url: share.url ?? found.url };
  });
}

//| 01-tokenizer/a-the-pipeline.ipynb#count-documents
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

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-manifest
/** What a finished run says of itself, once the checksums of its shards are known. */
export function corpusManifest(
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
  tokenizer: Tokenizer,
): Manifest {
  const { splits, survey } = state;
  const mixture = withOrigins(options, state);
  for (const shard of [...splits.train.shards, ...splits.val.shards])
    shard.sha256 = fileChecksum(path.join(partial, shard.file));
  const sources = survey!.files.map(({ about }) => about);
  const whole = mixture.every((share) => share.documents.kept === share.documents.read);
  return {
    ...SHARD_FORMAT,
    tokenizer: "tokenizer.json",
    vocab_size: tokenizer.vocabSize,
    separator: documentSeparator(tokenizer),
    dtype: tokenType(tokenizer),
    val_fraction: options.valFraction ?? 0.1,
    steps: corpusSteps(options),
    sources,
    mixture,
    ...(whole ? jointEntropy(sources) : {}),
    splits,
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#source-record
/** A source as a dataset card has it; `about` are its files as the manifest knows them. */
export function sourceRecord(share: SourceShare, files: string[], about: TextSource[]): SourceRecord {
  const { name, license = "unknown", url, weight } = share;
  const records = about.map((each, i) => ({
    file: each.file,
    sha256: each.sha256,
    bytes: fileSize(files[i]),
  }));
  return { name, license, url, weight, documents: share.documents, files: records };
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-card
/** Writes README.md and croissant.json into a folder of shards. */
export function writeCards(partial: string, name: string, options: CorpusOptions, manifest: Manifest): void {
  if (!options.made) return;
  const { mixture = [], splits, steps = [], dtype } = manifest;
  const shards = [...splits.train.shards, ...splits.val.shards];
  const filesOf = (share: SourceShare) => manifest.sources.filter((each) => each.source === share.name);
  const record: CorpusRecord = {
    name,
    description: `Token shards: ${splits.train.tokens} tokens to learn from and ${splits.val.tokens} to validate with.`,
    version: "1.0.0",
    created: options.made.on,
    creator: { type: "Organization", name: options.made.by },
    url: "./",
    languages: ["und"], // undetermined: nobody said
    steps,
    sources: mixture.map((share, i) => sourceRecord(share, options.sources[i].files, filesOf(share))),
    files: shards.map(({ file, sha256, tokens }) => ({
      file,
      sha256,
      bytes: tokens * (dtype === "u16" ? 2 : 4),
    })),
  };
  writeSynced(path.join(partial, "README.md"), datasetCard(record));
  writeSynced(path.join(partial, "croissant.json"), `${JSON.stringify(croissant(record), null, 2)}\n`);
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-corpus
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

//| 01-tokenizer/a-the-pipeline.ipynb#fill-corpus
/** Does what is left to do; `name` is what the corpus is called. */
export async function fillCorpus(
  name: string,
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
): Promise<Manifest> {
  const verdictFile = path.join(partial, "verdicts.bin");
  saveState(partial, state);
  if (!state.survey) {
    const { survey, verdicts } = await surveyChecked(partial, options);
    if (verdicts.every((verdict) => verdict !== 0) && verdicts.length > 0)
      throw new Error("No document was left: all were dropped. Ask for fewer filters.");
    writeSynced(verdictFile, verdicts);
    state.survey = survey;
    saveState(partial, state);
  }
  const verdicts = fs.readFileSync(verdictFile);
  const tokenizer =
    options.tokenizer === "char" ? characterTokenizer(state.survey.alphabet!) : options.tokenizer;
  trimShards(partial, state.splits, tokenType(tokenizer));
  await encodeCorpus(partial, options, state, tokenizer, verdicts);
  if (corpusPlan(options) !== state.plan)
    throw new Error("A file of the corpus was changed while it was read; begin again.");
  countDocuments(options, state, verdicts, dropReasons(options));
  const manifest = corpusManifest(partial, options, state, tokenizer);
  writeSynced(path.join(partial, manifest.tokenizer), JSON.stringify(tokenizer.toJson()));
  writeSynced(path.join(partial, "manifest.json"), checkedJson(manifest));
  writeCards(partial, name, options, manifest);
  return manifest;
}

//| 01-tokenizer/a-the-pipeline.ipynb#prepare-corpus
/** Files that hold where a run stands, and go when it is done. */
export const PROGRESS_FILES = ["state.json", "verdicts.bin", "checks.bin"];

/** Gives prepared data its place. */
export function installCorpus(claim: Claim, { splits }: Manifest, chatTemplate?: string): void {
  claim.check();
  const template = path.join(claim.partial, "chat_template.jinja");
  if (chatTemplate !== undefined) fs.writeFileSync(template, chatTemplate);
  else fs.rmSync(template, { force: true }); // of a run that was killed here
  for (const name of PROGRESS_FILES) fs.rmSync(path.join(claim.partial, name), { force: true });
  const shards = [...splits.train.shards, ...splits.val.shards];
  claim.install("manifest.json", new Map(shards.map(({ file, sha256 }) => [file, sha256])));
}

/**
 * Turns a corpus into a folder of token shards with `manifest.json` and `tokenizer.json`, in little memory. Of a corpus of
 * a single text the last part is for validation, as in `prepareText`; of several documents, those whose hash says so. A run that was
 * killed, stopped by its signal or ended by a full disk leaves what it did in the folder, under a hidden name, and the next with
 * the same options goes on there, to the same bytes. Throws one sentence on bad input, and then leaves nothing new.
 */
export async function prepareCorpus(folder: string, options: CorpusOptions): Promise<Manifest> {
  checkCorpus(options);
  const plan = corpusPlan(options);
  const claim = claimFolder(folder, "data prepare", corpusFiles(options));
  try {
    const found = unfinishedState(claim.partial, plan);
    if (!found) claim.discard();
    fs.mkdirSync(claim.partial, { recursive: true });
    const name = path.basename(path.resolve(folder));
    const manifest = await fillCorpus(
      name,
      claim.partial,
      options,
      found ?? freshState(plan, options.sources),
    );
    installCorpus(claim, manifest, options.chatTemplate);
    return manifest;
  } catch (error) {
    const ofSystem = (error as NodeJS.ErrnoException).syscall !== undefined;
    if (!options.signal?.aborted && !ofSystem) claim.discard();
    throw error;
  } finally {
    claim.release();
  }
}
