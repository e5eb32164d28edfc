// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import type { Tokenizer } from "../tokenizer/characters.js";
import { openToRead } from "./files.js";
import { type Document, type DocumentOptions, type NormalStep, documents, normalise } from "./sources.js";

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
  /** Who makes it and when (2026-01-31), for the dataset card; without, there is none. */
  maker?: { by: string; on: string };
  /** Gives the documents of a file; `documents`, in this very thread, unless told. */
  read?: (file: string, options: DocumentOptions) => AsyncIterable<Document>;
  /** Does the work; in this very thread unless told. */
  openWork?: (settings: WorkSettings) => CorpusWork;
  onProgress?: (progress: CorpusProgress) => void;
  /** Stops the run, so that the next with the same options goes on from there. */
  signal?: AbortSignal;
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-files
/** A file of a corpus, and the number of the source that it belongs to. */
export interface CorpusFile {
  file: string;
  source: number;
}

/** The files of a corpus in their order: source after source. */
export function corpusFiles(sources: CorpusSource[]): CorpusFile[] {
  return sources.flatMap(({ files }, source) => files.map((file) => ({ file, source })));
}

/** All files that are read: those that the corpus is made of, and those that it is held against. */
export function filesRead({ sources, contamination = [] }: CorpusOptions): string[] {
  return [...corpusFiles(sources).map(({ file }) => file), ...contamination];
}

//| 01-tokenizer/a-the-pipeline.ipynb#file-size
/** How long a file is, or one sentence on why it cannot be read. */
export function fileSize(file: string): number {
  const handle = openToRead(file);
  const { size } = fs.fstatSync(handle);
  fs.closeSync(handle);
  return size;
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

//| 01-tokenizer/a-the-pipeline.ipynb#code-points
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

//| 01-tokenizer/a-the-pipeline.ipynb#file-documents
/** The documents of a file of a corpus, normalised, long ones in parts that are safely cut. */
export async function* corpusDocuments(file: string, options: CorpusOptions): AsyncGenerator<Document> {
  for await (const part of safeParts((options.read ?? documents)(file, options))) {
    const text = normalise(part.text, options.normal ?? []);
    if (text !== "") yield { ...part, text };
  }
}

/** When others last had a turn. */
export const lastYield = { at: 0 };

/** Lets others have a turn, ten times a second: a loop that only reads would never hear a signal. */
export async function yieldToEventLoop(): Promise<void> {
  if (performance.now() - lastYield.at < 100) return;
  await new Promise((resolve) => setImmediate(resolve));
  lastYield.at = performance.now();
}
