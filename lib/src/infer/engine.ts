// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { bindingLimit, poolOf } from "../gpu/buffers.js";
import { finish } from "../gpu/commands.js";
import { currentGpu } from "../gpu/device.js";
import { cacheWriteKernel } from "../kernels/cache.js";
import { blockTokens } from "../kernels/flash.js";
import { editWords } from "../kernels/sample.js";
import { checkIds, hiddenStates, outputLogits } from "../model/decoder.js";
import { type RopeTables, ropeTables } from "../model/positions.js";
import type { Model } from "../model/structure.js";
import { withInference } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { embed } from "../tensor/embedding.js";
import { rowWindow } from "../tensor/pieces.js";
import { uniforms } from "../tensor/random.js";
import { type SampleInputs, likeliestRows, sampleInputs, sampleRows } from "../tensor/sample.js";
import { type Tensor, indices, launchInto, view, zeros } from "../tensor/tensor.js";
import {
  type BlockPool,
  blockPool,
  enterBlock,
  findPrefix,
  freeBlocks,
  releaseBlocks,
  shareBlock,
  takeBlock,
} from "./blocks.js";
import { type CacheFormat, type KeyValueCache, blockMemory, cacheRows, rowWords } from "./cache.js";
import {
  type SampledRow,
  type SamplingSettings,
  type TokenUses,
  checkDrawn,
  checkSampling,
  packEdits,
  tokenUses,
  writeSampling,
} from "./sampling.js";

//| 05-inference/3-many-at-once.ipynb#constraint-type
/** What may come next in a text, and what came: how a grammar holds a text to its form. */
export interface TokenConstraint {
  /** Bit i % 32 of word i / 32 says whether token i may come. All may where there is none. */
  mask(): Uint32Array | undefined;
  accept(id: number): void;
}

//| 05-inference/3-many-at-once.ipynb#request-types
/** A text to be continued. */
export interface EngineRequest {
  prompt: ArrayLike<number>;
  /** New tokens at most; fewer when a stop is met. */
  maxTokens: number;
  /** The same seed gives the same text. */
  seed: number;
  /** Tokens that end the text. They are not part of it. */
  stopIds: number[];
  /** Only ids below it are chosen: a model may have more rows than its tokenizer has tokens. All, unless given. */
  vocabSize?: number;
  sampling: SamplingSettings;
  /** Texts to write from this prompt, each with draws of its own; 1 unless given. */
  choices?: number;
  /** How many of the likeliest tokens to report with each token. Unless given, no probabilities are reported. */
  alternatives?: number;
  /** What may come next, for each choice: see `TokenConstraint`. */
  constraint?: () => TokenConstraint;
  /** Tokens of this text that were drawn before this request: the draws go on from there. */
  drawn?: number;
}

//| 05-inference/3-many-at-once.ipynb#token-type
/** A token of a text, with its probability where that was asked for. */
export interface GeneratedToken {
  id: number;
  logProbability?: number;
  alternatives?: { id: number; logProbability: number }[];
}

//| 05-inference/3-many-at-once.ipynb#choice-types
/** A text that is being written. */
export interface Choice {
  /** Its tokens as they come. Leaving the loop early ends the text. Throws when the engine failed. */
  tokens: AsyncIterable<GeneratedToken>;
  /** Why it ended; "length" also where the model's context is full. */
  finishReason: "stop" | "length" | "aborted" | undefined;
  /** Tokens of the prompt whose keys and values were there already. */
  cachedTokens: number;
  abort(): void;
}

//| 05-inference/3-many-at-once.ipynb#settings-type
/** Sizes of an engine. */
export interface EngineSettings {
  /** Texts that are written at once; 32 unless given. */
  maxSequences?: number;
  /** Tokens that a step may read and write; 256 unless given. */
  prefillTokens?: number;
  /** Blocks of 16 tokens for keys and values. Unless given, enough for all texts, or as many as there is room for. */
  blocks?: number;
  /** Whether a request finds what earlier ones have computed; yes unless given. */
  prefixCache?: boolean;
  /** How keys and values are kept: f32 unless given; int8 takes about a quarter of the memory. */
  cache?: CacheFormat;
}

//| 05-inference/3-many-at-once.ipynb#state-types
/** What an engine counts. */
export interface EngineCounts {
  /** Prompt tokens that were looked for in the prefix index, and those that were found there. */
  prefixQueries: number;
  prefixHits: number;
  /** Times that a text lost its blocks to an earlier one. */
  preemptions: number;
  promptTokens: number;
  generatedTokens: number;
  steps: number;
}

/** What an engine is doing. */
export interface EngineState extends EngineCounts {
  /** Texts that are being written, and that wait. */
  running: number;
  waiting: number;
  blocks: number;
  freeBlocks: number;
  /** The error that it failed with. */
  failed?: string;
}

//| 05-inference/3-many-at-once.ipynb#token-queue
/** Tokens on their way from the engine to a reader. */
export interface TokenQueue {
  push(token: GeneratedToken): void;
  /** Nothing follows; what there is can still be read, and then the error is thrown, where there is one. */
  end(error?: Error): void;
  /** Reads them. `left` is called when the reader goes before the end. */
  read(left: () => void): AsyncGenerator<GeneratedToken>;
}

/** A queue of tokens. */
export function tokenQueue(): TokenQueue {
  const held: GeneratedToken[] = [];
  let end: { error?: Error } | undefined;
  let wake = () => {};
  return {
    push(token) {
      held.push(token);
      wake();
    },
    end(error) {
      end ??= { error };
      wake();
    },
    async *read(left) {
      try {
        for (;;) {
          while (held.length > 0) yield held.shift()!;
          if (end?.error) throw end.error;
          if (end) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        left();
      }
    },
  };
}

//| 05-inference/3-many-at-once.ipynb#sequence-type
/** A text in the engine. */
export interface Sequence {
  request: EngineRequest;
  /** Which of the request's choices it is. */
  number: number;
  /** Its place in the order of arrivals. */
  arrival: number;
  /** The first choice of its request, whose blocks of the prompt the others share. */
  leader?: Sequence;
  /** The prompt and what was written so far. */
  tokens: number[];
  /** Of these tokens, keys and values of the first so many are in its blocks. */
  computed: number;
  blocks: number[];
  /** What its prefix has to share with another's besides its tokens. */
  root: number;
  /** Its whole blocks that are in the index, and the number of the last one's entry. */
  entered: number;
  lastEntry: number;
  choice: Choice;
  queue: TokenQueue;
  constraint?: TokenConstraint;
  /** How often it has each token, by which penalties go. */
  uses: TokenUses;
}

//| 05-inference/3-many-at-once.ipynb#step-types
/** A recorded step on `tokens` new tokens of each of `batch` texts. Its inputs are small tensors, written before each run. */
export interface BatchStep {
  /** Both [batch, tokens]. */
  ids: Tensor<"u32">;
  positions: Tensor<"u32">;
  /** The blocks of each text [batch, blocks of the longest]. */
  tables: Tensor<"u32">;
  /** Which of its tokens is the last of each text, counted over all [batch, 1]. */
  last: Tensor<"u32">;
  /** Where the scores after it go [batch]; nowhere if that is past the end. */
  places: Tensor<"u32">;
  recording: Recording<void>;
}

/** A recorded draw of one token for each of some rows of scores. */
export interface DrawStep {
  inputs: SampleInputs;
  recording: Recording<{ ids: Tensor<"u32">; likeliest?: ReturnType<typeof likeliestRows> }>;
}

//| 05-inference/3-many-at-once.ipynb#engine-parts
/** The parts of an engine. */
export interface EngineParts {
  model: Model;
  settings: Required<EngineSettings>;
  /** Tokens that a text can have at most. */
  capacity: number;
  pool: BlockPool;
  memory: KeyValueCache;
  turns: RopeTables;
  /** What is recorded so far, by size. */
  steps: Map<string, BatchStep>;
  draws: Map<string, DrawStep>;
  /** The scores that are wanted of a step, a row for each text [rows, vocabulary]. */
  scores: Tensor;
  /** Both in the order of arrival. */
  waiting: Sequence[];
  running: Sequence[];
  counts: EngineCounts;
  arrivals: number;
  requests: number;
  /** The loop, while there is something to do. */
  loop?: Promise<void>;
  /** Why it takes no more requests, and whether that is an error that it met. */
  closed?: Error;
  failed?: string;
}

//| 05-inference/3-many-at-once.ipynb#batch-step
/** Tokens of a prompt that are read at once: a recorded step has one of these sizes, or one token of each of some texts. */
export const chunkClasses = [16, 64, 256];

/** The number of rows of a step for `count` texts: a power of two, so that there are few different ones. */
export function batchClass(count: number): number {
  return 2 ** Math.ceil(Math.log2(count));
}

/** Records the model on `tokens` tokens of each of `batch` texts, which stand anywhere. */
export function batchStep(parts: EngineParts, batch: number, tokens: number): BatchStep {
  const { model, memory, turns, scores, capacity } = parts;
  const { hiddenSize, vocabSize } = model.config;
  const shape = [batch, tokens];
  const zeros = (sizes: number[]) => indices(new Uint32Array(sizes.reduce((a, b) => a * b)), sizes);
  const [ids, positions, last, places] = [zeros(shape), zeros(shape), zeros([batch, 1]), zeros([batch])];
  const tables = zeros([batch, Math.ceil(capacity / blockTokens)]);
  const context = { positions, ...turns, cache: memory.at(positions, tables) };
  const put = cacheWriteKernel({ rows: 1, tokens: batch, width: vocabSize, capacity: scores.shape[0] });
  const recording = capture<void>(() =>
    withInference(() => {
      const { hidden } = hiddenStates(model, ids, context);
      const logits = outputLogits(model, embed(last, view(hidden, [batch * tokens, hiddenSize])));
      launchInto(put, [logits, places], [scores]);
    }),
  );
  return { ids, positions, tables, last, places, recording };
}

//| 05-inference/3-many-at-once.ipynb#run-parts
/** The next `count` tokens of a text. */
export interface Part {
  sequence: Sequence;
  /** From which on. */
  start: number;
  count: number;
}

/** A run of a recorded step: which texts, and how many tokens of each it has room for. */
export interface StepRun {
  parts: Part[];
  batch: number;
  tokens: number;
}

/** Whether the scores after a part's last token are wanted: it is the last of its text. */
export function isLastPart({ sequence, start, count }: Part): boolean {
  return start + count === sequence.tokens.length;
}

//| 05-inference/3-many-at-once.ipynb#run-step
/**
 * Writes a step's inputs and runs it; it does not wait for the GPU. Rows and tokens that are too many repeat the last one: the same
 * token at the same place gives the same bits, which are written where they are already. Scores go to places from `place` on.
 */
export function runBatchStep(
  { ids, positions, tables, last, places, recording }: BatchStep,
  run: StepRun,
  place: number,
): void {
  const { parts, batch, tokens } = run;
  const width = tables.shape[1];
  const table = new Uint32Array(batch * width);
  const [id, position, end] = [
    new Uint32Array(batch * tokens),
    new Uint32Array(batch * tokens),
    new Uint32Array(batch),
  ];
  const goesTo = new Uint32Array(batch).fill(0xffffffff);
  for (let row = 0; row < batch; row++) {
    const { sequence, start, count } = parts[Math.min(row, parts.length - 1)];
    table.set(sequence.blocks, row * width);
    for (let t = 0; t < tokens; t++) {
      position[row * tokens + t] = start + Math.min(t, count - 1);
      id[row * tokens + t] = sequence.tokens[position[row * tokens + t]];
    }
    end[row] = row * tokens + count - 1;
    if (row < parts.length && isLastPart(parts[row])) goesTo[row] = place++;
  }
  ids.write(id);
  positions.write(position);
  tables.write(table);
  last.write(end);
  places.write(goesTo);
  recording.run();
}

//| 05-inference/3-many-at-once.ipynb#admit
/** Takes a waiting text in, where there are blocks for all that it has to compute. Says whether that was so. */
export function admit({ pool, counts, running, settings }: EngineParts, sequence: Sequence): boolean {
  const { tokens, choice, request, root } = sequence;
  const found = findPrefix(pool, root, tokens);
  const taken = found.filter(({ block }) => pool.idle.has(block)).length;
  const fresh = Math.ceil(tokens.length / blockTokens) - found.length;
  if (fresh > freeBlocks(pool) - taken) return false;
  for (const { block } of found) shareBlock(pool, block);
  const more = Array.from({ length: fresh }, () => takeBlock(pool)!);
  sequence.blocks = [...found.map(({ block }) => block), ...more];
  sequence.entered = found.length;
  sequence.lastEntry = found.at(-1)?.number ?? root;
  sequence.computed = found.length * blockTokens;
  if (tokens.length === request.prompt.length) {
    counts.prefixQueries += settings.prefixCache ? tokens.length : 0;
    counts.prefixHits += settings.prefixCache ? sequence.computed : 0;
    choice.cachedTokens = settings.prefixCache ? sequence.computed : 0;
  }
  running.push(sequence);
  running.sort((a, b) => a.arrival - b.arrival);
  return true;
}

//| 05-inference/3-many-at-once.ipynb#admit-all
/** Takes waiting texts in, in the order of their arrival, until one does not fit. */
export function admitAll(parts: EngineParts): void {
  const { waiting, running, settings } = parts;
  for (const sequence of [...waiting]) {
    if (running.length >= settings.maxSequences) return;
    const { leader } = sequence;
    const leads = leader && running.includes(leader) && leader.computed < leader.request.prompt.length;
    if (leads) continue; // its prompt is being computed just now
    if (!admit(parts, sequence)) return;
    waiting.splice(waiting.indexOf(sequence), 1);
  }
}

//| 05-inference/3-many-at-once.ipynb#grow
/** Takes a text's blocks away, and has it wait to be computed again. */
export function preempt({ pool, waiting, running, counts }: EngineParts, sequence: Sequence): void {
  running.splice(running.indexOf(sequence), 1);
  releaseBlocks(pool, sequence.blocks);
  Object.assign(sequence, { blocks: [], computed: 0 });
  waiting.push(sequence);
  waiting.sort((a, b) => a.arrival - b.arrival);
  counts.preemptions += 1;
}

/** Sees to it that a text has blocks for all of its tokens, if need be those of the texts that arrived last. */
export function grow(parts: EngineParts, sequence: Sequence): void {
  while (sequence.blocks.length * blockTokens < sequence.tokens.length) {
    const block = takeBlock(parts.pool);
    if (block !== undefined) {
      sequence.blocks.push(block);
      continue;
    }
    const latest = parts.running[parts.running.length - 1];
    preempt(parts, latest);
    if (latest === sequence) return;
  }
}

//| 05-inference/3-many-at-once.ipynb#plan
/** The size of a step for a chunk of a prompt of `count` tokens: the next larger one if that is filled well, else a smaller one. */
export function chunkClass(count: number): number {
  const fitting = chunkClasses.find((size) => count <= size && 4 * count > 3 * size);
  return fitting ?? [...chunkClasses].reverse().find((size) => size <= count) ?? chunkClasses[0];
}

/** The chunks in which the next `count` tokens of a text are read. */
export function chunksOf(sequence: Sequence, count: number): StepRun[] {
  const runs: StepRun[] = [];
  for (let read = 0; read < count; ) {
    const tokens = chunkClass(count - read);
    const part = { sequence, start: sequence.computed + read, count: Math.min(tokens, count - read) };
    runs.push({ parts: [part], batch: 1, tokens });
    read += part.count;
  }
  return runs;
}

/** A run for texts that want one token each, side by side; none where there are none. */
export function decodeRuns(sequences: Sequence[]): StepRun[] {
  if (sequences.length === 0) return [];
  const parts = sequences.map((sequence) => ({ sequence, start: sequence.computed, count: 1 }));
  return [{ parts, batch: batchClass(parts.length), tokens: 1 }];
}

//| 05-inference/3-many-at-once.ipynb#plan-step
/** What the next step runs: a token of every text that is being written, and of prompts what is left of the budget. */
export function planStep(parts: EngineParts): StepRun[] {
  for (const sequence of [...parts.running]) if (parts.running.includes(sequence)) grow(parts, sequence);
  const isWriting = ({ tokens, computed }: Sequence) => tokens.length === computed + 1;
  const writing = parts.running.filter(isWriting);
  const runs = decodeRuns(writing);
  let left = Math.max(1, parts.settings.prefillTokens - writing.length);
  for (const sequence of parts.running.filter((one) => !isWriting(one))) {
    const count = Math.min(left, sequence.tokens.length - sequence.computed);
    if (count === 0) break;
    runs.push(...chunksOf(sequence, count));
    left -= count;
  }
  return runs;
}

//| 05-inference/3-many-at-once.ipynb#draw
/** Alternatives that are found for every token where any are wanted. */
export const mostAlternatives = 20;

/** What a row of scores is drawn by. */
export function sampledRow(
  { request, number, tokens, constraint, uses }: Sequence,
  vocab: number,
): SampledRow {
  const { seed, sampling, drawn = 0, vocabSize = vocab } = request;
  const place = drawn + tokens.length - request.prompt.length;
  const [uniform] = uniforms(seed, 1, place + number * 2 ** 32); // each choice has a stream of its own
  return { settings: sampling, uniform, vocabSize, uses, mask: constraint?.mask() };
}

//| 05-inference/3-many-at-once.ipynb#draw-step
/** The recorded draw for rows of this kind, recorded when it is first needed. */
export function drawStepOf(
  { draws, scores }: EngineParts,
  rows: (SampledRow | undefined)[],
  hasAlternatives: boolean,
): DrawStep {
  const [count, vocab] = [batchClass(rows.length), scores.shape[1]];
  const edited = packEdits(rows).length / editWords;
  const needs = { masked: rows.some((row) => row?.mask), edits: edited && Math.max(16, batchClass(edited)) };
  const key = JSON.stringify([count, needs, hasAlternatives]);
  const recorded = draws.get(key);
  if (recorded) return recorded;
  const [inputs, some] = [sampleInputs(count, vocab, needs), rowWindow(scores, 0, count)];
  const recording = capture(() => {
    const ids = sampleRows(some, inputs);
    return {
      ids,
      likeliest: hasAlternatives
        ? likeliestRows(some, ids, inputs, Math.min(mostAlternatives, vocab))
        : undefined,
    };
  });
  some.free(); // what is recorded holds the scores
  const step = { inputs, recording };
  draws.set(key, step);
  return step;
}

//| 05-inference/3-many-at-once.ipynb#end-sequence
/** Ends a text, and gives its blocks back. */
export function endSequence(
  parts: EngineParts,
  sequence: Sequence,
  reason: Choice["finishReason"],
  error?: Error,
): void {
  if (sequence.choice.finishReason) return;
  sequence.choice.finishReason = reason;
  for (const list of [parts.running, parts.waiting]) {
    const at = list.indexOf(sequence);
    if (at >= 0) list.splice(at, 1);
  }
  releaseBlocks(parts.pool, sequence.blocks);
  sequence.blocks = [];
  sequence.queue.end(error);
}

//| 05-inference/3-many-at-once.ipynb#write-token
/** Adds a drawn token to its text, which may end with it. */
export function addToken(parts: EngineParts, sequence: Sequence, token: GeneratedToken): void {
  const { request, tokens, queue, constraint } = sequence;
  if (request.stopIds.includes(token.id)) {
    endSequence(parts, sequence, "stop");
    return;
  }
  constraint?.accept(token.id);
  tokens.push(token.id);
  sequence.uses.set(token.id, (sequence.uses.get(token.id) ?? 0) + 1);
  queue.push(token);
  parts.counts.generatedTokens += 1;
  const isFull =
    tokens.length - request.prompt.length === request.maxTokens || tokens.length > parts.capacity;
  if (isFull) endSequence(parts, sequence, "length");
}

//| 05-inference/3-many-at-once.ipynb#draw-row
/** What the next token of a text is drawn by; nothing if the text has no next token, with which it ends. */
export function rowOf(parts: EngineParts, sequence: Sequence): SampledRow | undefined {
  try {
    return sampledRow(sequence, parts.scores.shape[1]);
  } catch (error) {
    endSequence(parts, sequence, "aborted", error as Error);
    return undefined;
  }
}

//| 05-inference/3-many-at-once.ipynb#draw-tokens
/** Draws the next tokens of some texts by their rows of scores, in this order. */
export async function drawTokens(parts: EngineParts, drawn: Sequence[]): Promise<GeneratedToken[]> {
  const rows = drawn.map((sequence) => rowOf(parts, sequence));
  const wantsMore = ({ request }: Sequence) => request.alternatives !== undefined;
  const { inputs, recording } = drawStepOf(parts, rows, drawn.some(wantsMore));
  writeSampling(inputs, rows);
  const { ids, likeliest } = recording.run();
  const results = [ids.array(), likeliest?.logProbabilities.array(), likeliest?.likeliest.array()] as const;
  const [chosen, logs, others] = await Promise.all(results);
  return drawn.map((sequence, row) => {
    if (!wantsMore(sequence)) return { id: chosen[row] };
    const width = others!.length / chosen.length;
    const ofRow = logs!.subarray(row * (width + 1), (row + 1) * (width + 1));
    const best = Array.from(ofRow.subarray(1), (logProbability, i) => ({
      id: others![row * width + i],
      logProbability,
    }));
    return {
      id: chosen[row],
      logProbability: ofRow[0],
      alternatives: best.slice(0, sequence.request.alternatives),
    };
  });
}

//| 05-inference/3-many-at-once.ipynb#add-tokens
/** Takes what was drawn for texts; one that could draw nothing ends with the reason. */
export function addTokens(parts: EngineParts, drawn: Sequence[], tokens: GeneratedToken[]): void {
  drawn.forEach((sequence, row) => {
    if (sequence.choice.finishReason) return; // aborted meanwhile
    try {
      checkDrawn(tokens[row].id);
      addToken(parts, sequence, tokens[row]);
    } catch (error) {
      endSequence(parts, sequence, "aborted", error as Error);
    }
  });
}

//| 05-inference/3-many-at-once.ipynb#engine-step
/** The recorded step of a size, recorded when it is first needed. */
export function stepOf(parts: EngineParts, batch: number, tokens: number): BatchStep {
  const key = `${batch}x${tokens}`;
  const step = parts.steps.get(key) ?? batchStep(parts, batch, tokens);
  parts.steps.set(key, step);
  return step;
}

/** Notes that a part of a text is computed, and makes its whole blocks known. */
export function noteComputed({ pool }: EngineParts, { sequence, start, count }: Part): void {
  const { tokens, blocks } = sequence;
  sequence.computed = start + count;
  while ((sequence.entered + 1) * blockTokens <= sequence.computed) {
    const at = sequence.entered * blockTokens;
    sequence.lastEntry = enterBlock(pool, blocks[sequence.entered], sequence.lastEntry, tokens, at);
    sequence.entered += 1;
  }
}

//| 05-inference/3-many-at-once.ipynb#step-result
/** What a step did: its runs, and the texts whose next tokens were drawn, in the order of their rows of scores. */
export interface StepResult {
  runs: StepRun[];
  drawn: Sequence[];
}

//| 05-inference/3-many-at-once.ipynb#engine-step-2
/** Runs one step of all texts: one wait for the GPU. */
export async function engineStep(parts: EngineParts): Promise<StepResult> {
  admitAll(parts);
  const runs = planStep(parts);
  const drawn: Sequence[] = [];
  for (const run of runs) {
    runBatchStep(stepOf(parts, run.batch, run.tokens), run, drawn.length);
    drawn.push(...run.parts.filter(isLastPart).map(({ sequence }) => sequence));
  }
  for (const part of runs.flatMap(({ parts: some }) => some)) noteComputed(parts, part);
  parts.counts.steps += 1;
  if (drawn.length > 0) addTokens(parts, drawn, await drawTokens(parts, drawn));
  else await finish();
  return { runs, drawn };
}

//| 05-inference/3-many-at-once.ipynb#engine-loop
/** Ends all texts with an error, and takes no more. */
export function failEngine(parts: EngineParts, error: Error): void {
  parts.closed ??= error;
  parts.failed = error.message;
  for (const sequence of [...parts.running, ...parts.waiting]) endSequence(parts, sequence, "aborted", error);
}

/** Runs steps while there is something to do. */
export async function runEngine(parts: EngineParts): Promise<void> {
  try {
    while (parts.running.length + parts.waiting.length > 0) await engineStep(parts);
  } catch (error) {
    failEngine(parts, error as Error);
  } finally {
    parts.loop = undefined;
  }
}

//| 05-inference/3-many-at-once.ipynb#check-request
/** Throws for a request that cannot be served. */
export function checkRequest(
  { model, capacity, closed }: EngineParts,
  { prompt, sampling, alternatives }: EngineRequest,
): void {
  const { config } = model;
  if (closed) throw new Error(`This engine serves no more requests: ${closed.message}`);
  if (prompt.length === 0) throw new Error("There is nothing to continue: give at least one token.");
  checkIds(prompt, config.vocabSize);
  if (prompt.length > config.contextLength)
    throw new Error(
      `${prompt.length} tokens are more than this model's context of ${config.contextLength}: shorten the text.`,
    );
  if (prompt.length > capacity)
    throw new Error(
      `${prompt.length} tokens do not fit an engine whose blocks hold ${capacity}: open it with more blocks.`,
    );
  checkSampling(sampling);
  if (alternatives !== undefined && !(alternatives >= 0 && alternatives <= mostAlternatives))
    throw new Error(`There are 0 to ${mostAlternatives} alternatives to each token, not ${alternatives}.`);
}

//| 05-inference/3-many-at-once.ipynb#new-sequence
/** One of a request's choices, as the engine keeps it and as its reader sees it. */
export function newSequence(
  parts: EngineParts,
  request: EngineRequest,
  number: number,
  leader?: Sequence,
): Sequence {
  const queue = tokenQueue();
  const abort = () => endSequence(parts, sequence, "aborted");
  const choice: Choice = { tokens: queue.read(abort), finishReason: undefined, cachedTokens: 0, abort };
  const root = parts.settings.prefixCache ? 0 : -parts.requests; // entries have numbers above 0
  const text = { tokens: Array.from(request.prompt), computed: 0, blocks: [], entered: 0, lastEntry: root };
  const earlier = Math.max(0, request.prompt.length - (request.drawn ?? 0)); // where this text's own tokens begin
  const uses = tokenUses(text.tokens.slice(0, earlier), text.tokens.slice(earlier));
  const own = { request, number, arrival: parts.arrivals++, leader, root };
  const sequence: Sequence = { ...own, ...text, choice, queue, constraint: request.constraint?.(), uses };
  return sequence;
}

//| 05-inference/3-many-at-once.ipynb#submit
/** Puts a request at the end of those that wait, and gives its choices. */
export function enqueue(parts: EngineParts, given: EngineRequest): Sequence[] {
  checkRequest(parts, given);
  const request = { ...given, prompt: Array.from(given.prompt) }; // which the caller may go on with
  parts.requests += 1;
  parts.counts.promptTokens += request.prompt.length;
  const leader = newSequence(parts, request, 0);
  const others = Array.from({ length: (request.choices ?? 1) - 1 }, (_, i) =>
    newSequence(parts, request, i + 1, leader),
  );
  for (const sequence of [leader, ...others]) {
    if (request.maxTokens > 0) parts.waiting.push(sequence);
    else endSequence(parts, sequence, "length");
  }
  return [leader, ...others];
}

/** Takes a request in: gives its choices, which begin to run. */
export function submit(parts: EngineParts, request: EngineRequest): Choice[] {
  const sequences = enqueue(parts, request);
  parts.loop ??= Promise.resolve().then(() => runEngine(parts));
  return sequences.map(({ choice }) => choice);
}

//| 05-inference/3-many-at-once.ipynb#open-engine-parts
/** Blocks that an engine may have unless told otherwise: those in 2 GiB, or in a quarter of what this process may have. */
export function usualBlocks(config: ModelConfig, cache: CacheFormat): number {
  const [heads, width] = cacheRows(config);
  const keyBytes = 4 * heads * blockTokens * rowWords(width, cache); // of one layer
  const room = Math.min(2 ** 31, poolOf(currentGpu()).room / 4);
  const all = Math.floor(room / (keyBytes * config.layers * (config.latent ? 1 : 2)));
  return Math.max(1, Math.min(all, Math.floor(bindingLimit() / keyBytes)));
}

/** The settings of an engine, those that are not given worked out. */
export function engineSettings({ config }: Model, settings: EngineSettings): Required<EngineSettings> {
  const { maxSequences = 32, prefillTokens = 256, prefixCache = true, cache = "f32" } = settings;
  const most = maxSequences * Math.ceil(config.contextLength / blockTokens);
  const blocks = settings.blocks ?? Math.min(most, usualBlocks(config, cache));
  return { maxSequences, prefillTokens, blocks, prefixCache, cache };
}

//| 05-inference/3-many-at-once.ipynb#open-engine-parts-2
/** The parts of a new engine. */
export function engineParts(model: Model, given: EngineSettings): EngineParts {
  const { config } = model;
  const settings = engineSettings(model, given);
  const capacity = Math.min(config.contextLength, settings.blocks * blockTokens);
  const counts = {
    prefixQueries: 0,
    prefixHits: 0,
    preemptions: 0,
    promptTokens: 0,
    generatedTokens: 0,
    steps: 0,
  };
  return {
    ...{ model, settings, capacity, counts, waiting: [], running: [], arrivals: 0, requests: 0 },
    pool: blockPool(settings.blocks),
    memory: blockMemory(config, settings.blocks, settings.cache),
    turns: ropeTables(config, capacity),
    steps: new Map(),
    draws: new Map(),
    scores: zeros([batchClass(settings.maxSequences), config.vocabSize]),
  };
}

//| 05-inference/3-many-at-once.ipynb#free-engine
/** Frees all GPU memory of an engine. */
export function freeEngine({ memory, turns, scores, steps, draws }: EngineParts): void {
  for (const { recording, ...inputs } of steps.values()) {
    recording.free();
    for (const input of Object.values(inputs)) input.free();
  }
  for (const { recording, inputs } of draws.values()) {
    recording.free();
    for (const input of Object.values(inputs)) input?.free();
  }
  for (const recorded of [steps, draws]) recorded.clear();
  for (const owned of [memory, scores, turns.ropeTable, turns.localRopeTable]) owned?.free();
}

//| 05-inference/3-many-at-once.ipynb#open-engine
/** An engine: a model that writes many texts at once. */
export interface Engine {
  /** Takes a request, and gives its choices, which begin to run. Throws where it cannot be served. */
  submit(request: EngineRequest): Choice[];
  state(): EngineState;
  /** Ends what runs, and frees everything. */
  close(): Promise<void>;
}

/**
 * Opens an engine that continues texts with a model, many at once: each request gets the tokens that it would get alone. It runs
 * while there is something to do.
 */
export function openEngine(model: Model, settings: EngineSettings = {}): Engine {
  const parts = engineParts(model, settings);
  const { pool, counts, running, waiting } = parts;
  return {
    submit: (request) => submit(parts, request),
    state: () => ({
      ...counts,
      ...{ running: running.length, waiting: waiting.length },
      ...{ blocks: parts.settings.blocks, freeBlocks: freeBlocks(pool), failed: parts.failed },
    }),
    async close() {
      parts.closed ??= new Error("it was closed.");
      for (const sequence of [...running, ...waiting]) endSequence(parts, sequence, "aborted");
      await parts.loop;
      freeEngine(parts);
    },
  };
}
