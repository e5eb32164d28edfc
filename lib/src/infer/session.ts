// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { checkIds, hiddenStates, outputLogits } from "../model/decoder.js";
import { type RopeTables, ropeTables } from "../model/positions.js";
import type { Model } from "../model/structure.js";
import { withInference } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { embed } from "../tensor/embedding.js";
import { type Tensor, indices, view } from "../tensor/tensor.js";
import { type CacheFormat, type KeyValueCache, keyValueCache } from "./cache.js";

//| 05-inference/2-the-cache.ipynb#token-step
/** Tokens of a prompt that go through the model at once. */
export const prefillChunk = 32;

/** A recorded step of a fixed number of tokens. Its inputs are small tensors, written before each run. */
export interface TokenStep {
  ids: Tensor<"u32">;
  positions: Tensor<"u32">;
  /** Which of the tokens is the last one whose score is wanted. */
  last: Tensor<"u32">;
  recording: Recording<Tensor>;
}

/** Records the model on `tokens` tokens that stand at any positions, giving the scores after one of them. */
export function tokenStep(model: Model, tokens: number, cache: KeyValueCache, turns: RopeTables): TokenStep {
  const [ids, positions] = [indices(new Uint32Array(tokens), [1, tokens]), indices(new Uint32Array(tokens))];
  const last = indices([0], [1, 1]);
  const context = { positions, ...turns, cache: cache.at(positions) };
  const recording = capture(() =>
    withInference(() => {
      const { hidden } = hiddenStates(model, ids, context);
      return outputLogits(model, embed(last, view(hidden, [tokens, model.config.hiddenSize])));
    }),
  );
  return { ids, positions, last, recording };
}

//| 05-inference/2-the-cache.ipynb#run-token-step
/** Gives a step up to its number of tokens, from place `start` on; the rest is padding that later tokens overwrite. */
export function writeTokens(
  { ids, positions }: Pick<TokenStep, "ids" | "positions">,
  tokens: number[],
  start: number,
): void {
  ids.write(Uint32Array.from({ length: ids.size }, (_, i) => tokens[Math.min(i, tokens.length - 1)]));
  positions.write(Uint32Array.from({ length: ids.size }, (_, i) => start + i));
}

/** Runs a recorded step on up to its number of tokens, and gives the scores after the last. It does not wait for the GPU. */
export function runTokenStep(step: TokenStep, ids: number[], start: number): Tensor {
  writeTokens(step, ids, start);
  step.last.write([ids.length - 1]);
  return step.recording.run();
}

//| 05-inference/2-the-cache.ipynb#token-steps
/** The recorded steps of a session: made when they are first needed. */
export interface TokenSteps {
  /** The step that reads so many tokens. */
  reading(tokens: number): TokenStep;
  free(): void;
}

/** Steps of a model that share a cache and tables of turns. */
export function tokenSteps(model: Model, cache: KeyValueCache, turns: RopeTables): TokenSteps {
  const steps = new Map<number, TokenStep>();
  return {
    reading(tokens) {
      const step = steps.get(tokens) ?? tokenStep(model, tokens, cache, turns);
      steps.set(tokens, step);
      return step;
    },
    free() {
      for (const { recording, ids, positions, last } of steps.values()) {
        recording.free();
        for (const input of [ids, positions, last]) input.free();
      }
    },
  };
}

//| 05-inference/2-the-cache.ipynb#session-parts
/** Throws when a text of `length` tokens is longer than the model was made for. */
export function checkLength({ contextLength }: ModelConfig, length: number): void {
  if (length > contextLength)
    throw new Error(
      `${length} tokens are more than this model's context of ${contextLength}: shorten the text.`,
    );
}

//| 05-inference/2-the-cache.ipynb#session
/** One text being continued: the model with a cache of what it has read. */
export interface Session {
  /** Tokens read so far. */
  length: number;
  capacity: number;
  cacheBytes: number;
  /** Reads more tokens and gives the scores [vocabulary] of what may follow the last one. */
  read(ids: ArrayLike<number>): Promise<Float32Array>;
  /** Forgets what it has read. */
  clear(): void;
  free(): void;
}

//| 05-inference/2-the-cache.ipynb#session-helpers
/** Throws when a session has no room for more tokens, or is given none. */
export function checkRoom({ length, capacity }: Session, tokens: number): void {
  if (tokens === 0) throw new Error("There is nothing to continue: give at least one token.");
  if (length + tokens > capacity)
    throw new Error(
      `${length + tokens} tokens do not fit a session of ${capacity}: open it with a larger capacity.`,
    );
}

//| 05-inference/2-the-cache.ipynb#read-in-chunks
/** Reads ids into a session, some at a time, and gives the scores after the last. */
export async function readInChunks(
  session: Session,
  steps: TokenSteps,
  { vocabSize }: ModelConfig,
  ids: number[],
): Promise<Float32Array> {
  checkIds(ids, vocabSize);
  checkRoom(session, ids.length);
  let scores: Tensor | undefined;
  for (let at = 0; at < ids.length; at += prefillChunk) {
    const chunk = ids.slice(at, at + prefillChunk);
    const step = steps.reading(chunk.length === 1 ? 1 : prefillChunk);
    scores = runTokenStep(step, chunk, session.length);
    session.length += chunk.length;
  }
  return scores!.array();
}

//| 05-inference/2-the-cache.ipynb#open-session
/** Opens a session for up to `capacity` tokens, whose keys and values are kept as `cache` says. Reading goes in chunks, then token by token. */
export function openSession(
  model: Model,
  capacity: number,
  { cache: format }: { cache?: CacheFormat } = {},
): Session {
  const { config } = model;
  checkLength(config, capacity);
  const cache = keyValueCache(config, capacity, 1, format);
  // The last chunk of a prompt may be padded past the end: its turns are looked up too.
  const turns = ropeTables(config, capacity + prefillChunk, capacity);
  const steps = tokenSteps(model, cache, turns);
  const session: Session = {
    length: 0,
    capacity,
    cacheBytes: cache.bytes,
    read: (ids) => readInChunks(session, steps, config, Array.from(ids)),
    clear() {
      session.length = 0; // what the cache holds is out of sight, and will be written over
    },
    free() {
      for (const owned of [steps, cache, turns.ropeTable, turns.localRopeTable]) owned?.free();
    },
  };
  return session;
}
