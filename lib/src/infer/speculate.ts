// Extracted from chapters/05-inference/5-guessing-ahead.ipynb: edit it there, or here and run `npm run backport`.
import { checkIds, hiddenStates, outputLogits } from "../model/decoder.js";
import { type RopeTables, ropeTables } from "../model/positions.js";
import type { Model } from "../model/structure.js";
import { withInference } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { uniforms } from "../tensor/random.js";
import { type Tensor, indices } from "../tensor/tensor.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { type KeyValueCache, keyValueCache } from "./cache.js";
import type { GenerateSettings } from "./generate.js";
import {
  type Candidate,
  candidatesFor,
  editedScores,
  renormalize,
  sampleFrom,
  tokenUses,
} from "./sampling.js";
import { checkLength, prefillChunk, writeTokens } from "./session.js";

//| 05-inference/5-guessing-ahead.ipynb#common-length
/** How many tokens two texts have in common, from the first on. */
export function commonLength(one: ArrayLike<number>, other: ArrayLike<number>): number {
  let length = 0;
  while (length < one.length && length < other.length && one[length] === other[length]) length++;
  return length;
}

//| 05-inference/5-guessing-ahead.ipynb#reading-step
/** A recorded step on tokens that stand anywhere: gives the scores after each [1, tokens, vocabulary], or the hidden states. */
export interface ReadingStep {
  ids: Tensor<"u32">;
  positions: Tensor<"u32">;
  recording: Recording<Tensor>;
}

/** Records the model on `tokens` tokens. Unless `scored`, it ends with the hidden states: only keys and values are wanted. */
export function readingStep(
  model: Model,
  tokens: number,
  scored: boolean,
  { cache, turns }: { cache: KeyValueCache; turns: RopeTables },
): ReadingStep {
  const [ids, positions] = [indices(new Uint32Array(tokens), [1, tokens]), indices(new Uint32Array(tokens))];
  const context = { positions, ...turns, cache: cache.at(positions) };
  const recording = capture(() =>
    withInference(() => {
      const { hidden } = hiddenStates(model, ids, context);
      return scored ? outputLogits(model, hidden) : hidden;
    }),
  );
  return { ids, positions, recording };
}

//| 05-inference/5-guessing-ahead.ipynb#run-reading-step
/** Runs a step on up to its number of tokens. It does not wait for the GPU. */
export function runReadingStep(step: ReadingStep, tokens: number[], start: number): Tensor {
  writeTokens(step, tokens, start);
  return step.recording.run();
}

//| 05-inference/5-guessing-ahead.ipynb#text-reader
/** Reads texts that have a beginning in common with what it read before. */
export interface TextReader {
  /** Tokens that a text may have. */
  capacity: number;
  /** The scores [vocabulary] after each of the last `count` tokens of a text. */
  scoresAfter(text: number[], count: number): Promise<Float32Array[]>;
  free(): void;
}

/** Cuts rows [count, width] out of one array. */
export function rowsOf(values: Float32Array, count: number, width: number): Float32Array[] {
  return Array.from({ length: count }, (_, row) => values.subarray(row * width, (row + 1) * width));
}

//| 05-inference/5-guessing-ahead.ipynb#open-reader
/** Opens a reader for texts of up to `capacity` tokens that gives the scores after up to `most` tokens at once. */
export function openReader(model: Model, capacity: number, most: number): TextReader {
  const { vocabSize } = model.config;
  checkLength(model.config, capacity);
  const cache = keyValueCache(model.config, capacity);
  const turns = ropeTables(model.config, capacity + Math.max(most, prefillChunk), capacity); // padding may pass the end
  const steps = new Map<string, ReadingStep>();
  const stepOf = (tokens: number, scored: boolean) => {
    const key = `${tokens} ${scored}`;
    const step = steps.get(key) ?? readingStep(model, tokens, scored, { cache, turns });
    steps.set(key, step);
    return step;
  };
  let read: number[] = [];
  return {
    capacity,
    async scoresAfter(text, count) {
      checkIds(text, vocabSize);
      const scoredFrom = text.length - count;
      for (let at = Math.min(commonLength(read, text), scoredFrom); at < scoredFrom; at += prefillChunk) {
        const chunk = text.slice(at, Math.min(at + prefillChunk, scoredFrom));
        runReadingStep(stepOf(chunk.length === 1 ? 1 : prefillChunk, false), chunk, at);
      }
      const step = stepOf(count === 1 ? 1 : most, true);
      const scores = runReadingStep(step, text.slice(scoredFrom), scoredFrom);
      read = text.slice();
      return rowsOf(await scores.array(), count, vocabSize);
    },
    free() {
      for (const { recording, ids, positions } of steps.values())
        for (const owned of [recording, ids, positions]) owned.free();
      for (const owned of [cache, turns.ropeTable, turns.localRopeTable]) owned?.free();
    },
  };
}

//| 05-inference/5-guessing-ahead.ipynb#draft-type
/** A guess at the next token. */
export interface Guess {
  id: number;
  /** The probabilities that it was drawn by. Left out where it was not drawn: the draft is sure of it, rightly or not. */
  candidates?: Candidate[];
}

//| 05-inference/5-guessing-ahead.ipynb#draft-interface
/** Somebody who guesses how a text goes on. */
export interface Draft {
  /**
   * Up to `count` guesses at what follows a text, each after those before it. How to draw is as in `settings`, and the guess that
   * would be token n of the new text draws with the second random number of stream n; `written` of them are in the text already.
   */
  guess(
    text: number[],
    count: number,
    settings: GenerateSettings,
    written: number,
  ): Guess[] | Promise<Guess[]>;
  free(): void;
}

//| 05-inference/5-guessing-ahead.ipynb#find-earlier
/** Where the text went on after the latest earlier place of its last `length` tokens; 0 if there is none. */
export function afterEarlier(text: number[], length: number): number {
  const end = text.length - length;
  for (let at = end - 1; at >= 0; at--) {
    let same = 0;
    while (same < length && text[at + same] === text[end + same]) same++;
    if (same === length) return at + length;
  }
  return 0;
}

//| 05-inference/5-guessing-ahead.ipynb#lookup-draft
/** A draft that looks for the last tokens of the text, up to `longest` of them, at an earlier place, and says what followed there. */
export function lookupDraft(longest = 3): Draft {
  return {
    guess(text, count) {
      for (let length = Math.min(longest, text.length - 1); length > 0; length--) {
        const from = afterEarlier(text, length);
        if (from > 0) return text.slice(from, from + count).map((id) => ({ id }));
      }
      return [];
    },
    free() {},
  };
}

//| 05-inference/5-guessing-ahead.ipynb#remainder
/** What is left of p where q is less: norm(max(0, p − q)), in p's order. Empty where nothing is left. */
export function remainder(p: Candidate[], q: Candidate[]): Candidate[] {
  const drafted = new Map(q.map(({ id, probability }) => [id, probability]));
  const left = p
    .map(({ id, probability }) => ({ id, probability: probability - (drafted.get(id) ?? 0) }))
    .filter(({ probability }) => probability > 0);
  return renormalize(left);
}

/** The probability of a token among candidates. */
export function probabilityOf(candidates: Candidate[], id: number): number {
  return candidates.find((candidate) => candidate.id === id)?.probability ?? 0;
}

//| 05-inference/5-guessing-ahead.ipynb#settle
/**
 * The next token, by the model's candidates p, where `guess` was guessed: the guess, or another one in its place. It is distributed
 * as p whatever the guess was drawn from (Leviathan and others, 2023). Where nothing was drawn, it is what p alone would draw.
 */
export function settle(p: Candidate[], guess: Guess | undefined, uniform: number): number {
  if (!guess?.candidates) return sampleFrom(p, uniform);
  const kept = probabilityOf(p, guess.id) / probabilityOf(guess.candidates, guess.id);
  if (uniform < kept) return guess.id;
  const left = remainder(p, guess.candidates);
  if (left.length === 0) return guess.id; // p is q, but for rounding
  return sampleFrom(left, (uniform - kept) / (1 - kept));
}

//| 05-inference/5-guessing-ahead.ipynb#window-start
/** From where on a text of `length` tokens is read, which was read from `start` on: from later on where it has become too long. */
export function windowStart(length: number, capacity: number, start: number): number {
  return length - start > capacity ? length - Math.ceil(capacity / 2) : start;
}

//| 05-inference/5-guessing-ahead.ipynb#speculate-settings
/** How to generate with guesses. */
export interface SpeculateSettings extends GenerateSettings {
  /** Guesses that are checked at once, at most. */
  draftTokens: number;
  /** Is told after each pass how many guesses it checked and how many of them were kept. */
  onPass?(guessed: number, kept: number): void;
}

//| 05-inference/5-guessing-ahead.ipynb#next-candidates
/** The tokens that may follow a text of which `written` are new, by the scores [vocabulary] after it. */
export function nextCandidates(
  scores: Float32Array,
  settings: GenerateSettings,
  text: number[],
  written: number,
): Candidate[] {
  const prompt = text.length - written;
  const uses = tokenUses(text.slice(0, prompt), text.slice(prompt));
  return candidatesFor(editedScores(scores.subarray(0, settings.vocabSize), settings, { uses }), settings);
}

//| 05-inference/5-guessing-ahead.ipynb#guess-and-check
/** Continues `prompt` with what a reader's model writes, guessed by a draft: see `speculate`. */
export async function* guessAndCheck(
  reader: TextReader,
  prompt: ArrayLike<number>,
  settings: SpeculateSettings,
  draft: Draft,
): AsyncGenerator<number> {
  const { seed, maxTokens, draftTokens, stopIds, onPass } = settings;
  const text = Array.from(prompt);
  if (text.length === 0) throw new Error("There is nothing to continue: give at least one token.");
  let [start, written] = [0, 0];
  while (written < maxTokens) {
    start = windowStart(text.length, reader.capacity, start);
    const room = Math.min(draftTokens, maxTokens - written - 1, reader.capacity - (text.length - start));
    const guesses = room > 0 ? await draft.guess(text, room, settings, written) : [];
    const guessed = [...text.slice(start), ...guesses.map(({ id }) => id)];
    const rows = await reader.scoresAfter(guessed, guesses.length + 1);
    let kept = 0;
    for (const [i, scores] of rows.entries()) {
      const p = nextCandidates(scores, settings, text, written);
      const id = settle(p, guesses[i], uniforms(seed, 1, written)[0]);
      if (stopIds.includes(id)) return;
      yield id;
      text.push(id);
      written += 1;
      if (id !== guesses[i]?.id) break;
      kept += 1;
    }
    onPass?.(guesses.length, kept);
  }
}

//| 05-inference/5-guessing-ahead.ipynb#speculate
/**
 * Continues `prompt` (ids) as `generate` does, several tokens a pass where the draft guesses well. The text is `generate`'s own where
 * guesses are certain or the temperature is 0, and else has the same distribution (Leviathan and others, "Fast Inference from
 * Transformers via Speculative Decoding", 2023). The draft stays open.
 */
export async function* speculate(
  model: Model,
  prompt: ArrayLike<number>,
  settings: SpeculateSettings,
  draft: Draft,
): AsyncGenerator<number> {
  checkLength(model.config, prompt.length);
  const capacity = Math.min(model.config.contextLength, prompt.length + settings.maxTokens);
  const reader = openReader(model, capacity, settings.draftTokens + 1);
  try {
    yield* guessAndCheck(reader, prompt, settings, draft);
  } finally {
    reader.free();
  }
}

//| 05-inference/5-guessing-ahead.ipynb#reader-draft
/** A draft that draws its guesses from what a reader's model says. Of a text too long for it, it reads a later part. */
export function readerDraft(reader: TextReader): Draft {
  const half = Math.floor(reader.capacity / 2);
  return {
    async guess(text, count, settings, written) {
      const { seed, stopIds } = settings;
      const surplus = text.length + count - reader.capacity;
      const start = surplus > 0 ? Math.ceil(surplus / half) * half : 0;
      const [longer, guesses] = [text.slice(), [] as Guess[]];
      while (guesses.length < count && !stopIds.includes(guesses[guesses.length - 1]?.id)) {
        const [scores] = await reader.scoresAfter(longer.slice(start), 1);
        const candidates = nextCandidates(scores, settings, longer, written + guesses.length);
        const id = sampleFrom(candidates, uniforms(seed, 2, written + guesses.length)[1]);
        guesses.push({ id, candidates });
        longer.push(id);
      }
      return guesses;
    },
    free: () => reader.free(),
  };
}

//| 05-inference/5-guessing-ahead.ipynb#model-draft
/** A draft that is a model with the same vocabulary. It remembers up to `capacity` tokens of a text, or its context. */
export function modelDraft(model: Model, capacity = model.config.contextLength): Draft {
  return readerDraft(openReader(model, Math.min(capacity, model.config.contextLength), 1));
}

//| 05-inference/5-guessing-ahead.ipynb#check-vocabulary
/** The bytes of a token as text for a message. */
export function tokenText({ tokenBytes, decode }: Tokenizer, id: number): string {
  return JSON.stringify(new TextDecoder().decode(tokenBytes ? tokenBytes(id) : decode([id])));
}

/** Throws unless a draft's tokens are those of the model: as many, each with the same text. */
export function checkVocabulary(model: Tokenizer, draft: Tokenizer): void {
  const advice = "a draft needs the model's own tokenizer";
  if (draft.vocabSize !== model.vocabSize)
    throw new Error(`The draft has ${draft.vocabSize} tokens and the model ${model.vocabSize}: ${advice}.`);
  for (let id = 0; id < model.vocabSize; id++) {
    const [ours, theirs] = [model, draft].map((tokenizer) => tokenText(tokenizer, id));
    if (ours !== theirs)
      throw new Error(`Token ${id} is ${theirs} in the draft and ${ours} in the model: ${advice}.`);
  }
}
