// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as path from "node:path";
import {
  type CheckedTexts,
  type CorpusChecks,
  type CorpusFile,
  type CorpusOptions,
  type CorpusSource,
  codePoints,
  corpusDocuments,
  corpusFiles,
  fileSize,
  yieldToEventLoop,
} from "./corpus.js";
import { PERMUTATIONS, hashSet, recentIndex } from "./duplicates.js";
import { fileChecksum, naming } from "./files.js";
import { type TextSource, knownEntropy } from "./manifest.js";
import { byteChunks } from "./sources.js";
import { dropReasons, inOrder, workHere } from "./work.js";

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
    await yieldToEventLoop();
  }
  if (count === 0)
    throw new Error(unreadable > 0 ? `${file}: no document of it could be read.` : `${file} is empty.`);
  const sha256 = fileChecksum(file);
  const about = { file: path.basename(file), sha256, bytes, characters, ...knownEntropy(file, sha256) };
  return { about, count, unreadable };
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
  const files = corpusFiles(options.sources).map((one) => ({ ...one, size: fileSize(one.file) }));
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const surveyed: SurveyedFile[] = [];
  let before = 0;
  for (const { file, source, size } of files) {
    const onBytes = (bytes: number) => {
      options.signal?.throwIfAborted();
      // Packed text is longer than its file: a third of it is a fair guess until the file is through.
      const read = /\.(gz|zst|parquet)$/i.test(file) ? bytes / 3 : bytes;
      options.onProgress?.({ phase: "reading", done: before + Math.min(size, read), total });
    };
    const found = yield* surveyFile(file, options, onBytes, alphabet);
    surveyed.push({ ...found, about: { ...found.about, source: options.sources[source].name } });
    before += size;
  }
  return { files: surveyed, ...(alphabet ? { alphabet: [...alphabet].join("") } : {}) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#surveyed-files
/** The files of a surveyed corpus in their order, each with the number that its first document has in the whole corpus. */
export function surveyedFiles(
  sources: CorpusSource[],
  survey: Survey,
): (CorpusFile & SurveyedFile & { first: number })[] {
  let first = 0;
  return corpusFiles(sources).map((place, i) => {
    const surveyed = { ...place, ...survey.files[i], first };
    first += surveyed.count;
    return surveyed;
  });
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
