// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as path from "node:path";
import type { Tokenizer } from "../tokenizer/characters.js";
import {
  type CorpusChecks,
  type CorpusOptions,
  type CorpusPart,
  type EncodedParts,
  codePoints,
  codeUnit,
  corpusDocuments,
  safeCut,
  yieldToEventLoop,
} from "./corpus.js";
import { writeSynced } from "./files.js";
import { SHARD_TOKENS, type TokenLayout, appendTokens, isForValidation, tokenLayout } from "./shards.js";
import type { Document } from "./sources.js";
import { type CorpusState, saveState } from "./state.js";
import { type Survey, surveyedFiles } from "./survey.js";
import { dropReasons, inOrder, workHere } from "./work.js";

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
    await yieldToEventLoop();
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#short-pieces
/** UTF-16 units of a task. */
export const TASK_SIZE = 2 ** 20;

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
/** What the second reading needs to know: the corpus, what the first found, and who is told of documents that are left out. */
export interface SecondReading {
  options: CorpusOptions;
  survey: Survey;
  verdicts: Uint8Array;
  onDrop?: OnDrop;
}

/** All the text of a corpus in pieces, each with its split and the number of its source. */
export async function* corpusPieces({
  options,
  survey,
  verdicts,
  onDrop = () => {},
}: SecondReading): AsyncGenerator<[source: number, piece: CorpusPart]> {
  const { valFraction = 0.1, taskSize = TASK_SIZE } = options;
  const files = surveyedFiles(options.sources, survey);
  const isAlone = files.reduce((sum, { count }) => sum + count, 0) === 1;
  for (const { file, source, about, first } of files) {
    const kept = keptDocuments(
      corpusDocuments(file, { ...options, onSkip: undefined }),
      verdicts,
      first,
      onDrop,
    );
    const cut = Math.floor(about.characters * (1 - valFraction));
    for await (const part of isAlone ? cutText(kept, cut) : splitByHash(kept, valFraction))
      for (const piece of shortPieces(part, taskSize)) yield [source, piece];
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-tasks
/** Parts of one source that are encoded in one go. */
export interface CorpusTask {
  source: number;
  parts: CorpusPart[];
}

/** All the text of a corpus as tasks, in an order that depends on nothing but the corpus. */
export async function* corpusTasks(reading: SecondReading): AsyncGenerator<CorpusTask> {
  const { taskSize = TASK_SIZE } = reading.options;
  let [task, length]: [CorpusTask, number] = [{ source: 0, parts: [] }, 0];
  for await (const [source, piece] of corpusPieces(reading)) {
    if (source !== task.source) {
      if (task.parts.length > 0) yield task;
      [task, length] = [{ source, parts: [] }, 0];
    }
    task.parts.push(piece);
    length += piece.text.length;
    if (length < taskSize / 2) continue;
    yield task;
    [task, length] = [{ source, parts: [] }, 0];
  }
  if (task.parts.length > 0) yield task;
}

//| 01-tokenizer/a-the-pipeline.ipynb#write-encoded
/** Where the tokens of a run go. */
export interface TokenWriter {
  partial: string;
  state: CorpusState;
  layout: TokenLayout;
  /** Tokens in one shard. */
  limit: number;
}

/** Writes what came of a task of a source, and counts it. */
export function writeEncoded(
  { partial, state, layout, limit }: TokenWriter,
  source: number,
  encoded: EncodedParts,
): void {
  const place = state.mixture[source];
  for (const name of ["train", "val"] as const) {
    const split = state.splits[name];
    const { ids, bytes } = encoded[name];
    // A split begins with a document, not with what stands between two.
    const isSeparated = split.tokens === 0 && ids.length > 0 && layout.separator !== undefined;
    const tokens = isSeparated ? ids.subarray(1) : ids;
    if (place[name].tokens === 0) place[name].start = split.tokens;
    appendTokens({ folder: partial, name, shards: split.shards, dtype: layout.dtype, limit }, tokens);
    for (const count of [split, place[name]]) {
      count.tokens += tokens.length;
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
      .map((record) => `${JSON.stringify(record)}\n`)
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
  const writer = { partial, state, layout: tokenLayout(tokenizer), limit: shardTokens };
  let saved = performance.now();
  try {
    const reading = { options, survey: state.survey!, verdicts, onDrop: drops.onDrop };
    const tasks = laterTasks(corpusTasks(reading), state.tasks);
    for await (const [{ source }, encoded] of inOrder(tasks, ({ parts }) => work.encode(parts), work.width)) {
      writeEncoded(writer, source, encoded);
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
