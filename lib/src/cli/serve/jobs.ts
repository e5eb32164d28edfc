// One request from its ids to its answers: what the two endpoints share.
import { randomInt } from "node:crypto";
import type { GenerationConfig } from "../../formats/generation.js";
import type { SamplingSettings } from "../../infer/sampling.js";
import { usualSampling } from "../model.js";
import { type AnswerEvent, answer } from "./answer.js";
import type { GrammarConstraint } from "./constraint.js";
import type { Choice, EngineRequest, GeneratedToken, TokenConstraint } from "../../infer/engine.js";
import { ApiError, badRequest } from "./errors.js";
import type { ChannelReader } from "./harmony.js";
import type { RequestRecord } from "./log.js";
import type { Metrics } from "./metrics.js";
import type { CommonRequest } from "./schema.js";
import type { Service } from "./service.js";

/** How to choose tokens, by the request, else as the model's file says. */
function samplingOf(request: CommonRequest, given: GenerationConfig | undefined): SamplingSettings {
  const usual = usualSampling(given);
  const bias = Object.entries(request.logit_bias ?? {});
  return {
    temperature: request.temperature ?? usual.temperature,
    topK: Math.max(0, request.top_k ?? usual.topK),
    topP: request.top_p ?? usual.topP,
    minP: Math.min(request.min_p ?? usual.minP, 1 - 2 ** -20),
    repetitionPenalty: request.repetition_penalty ?? usual.repetitionPenalty,
    presencePenalty: request.presence_penalty,
    frequencyPenalty: request.frequency_penalty,
    bias: bias.length > 0 ? bias.map(([id, value]): [number, number] => [Number(id), value]) : undefined,
  };
}

/** Throws for a bias of something that is no token. */
function checkBias({ logit_bias: bias = {} }: CommonRequest, vocabSize: number): void {
  for (const id of Object.keys(bias))
    if (!/^\d{1,10}$/.test(id) || Number(id) >= vocabSize)
      throw badRequest(
        `logit_bias names ${JSON.stringify(id)}, which is no token id below ${vocabSize}.`,
        "logit_bias",
      );
}

/** A seed of the request's as the 32 bits that the engine takes; a random one where it has none. */
function seedOf({ seed }: CommonRequest): number {
  return seed === undefined
    ? randomInt(2 ** 32)
    : Number(BigInt.asUintN(32, BigInt(seed) ^ (BigInt(seed) >> 32n)));
}

/** What an endpoint asks for besides. */
interface Wishes {
  prompt: ArrayLike<number>;
  /** The name of the field that the prompt is in. */
  field: string;
  /** New tokens at most, unless the request says. */
  usualTokens?: number;
  alternatives?: number;
  constraint?: () => TokenConstraint;
}

/** The request for the engine. Throws errors for a prompt that is too long, and for what means nothing. */
export function engineRequest(
  { tokenizer, contextLength, ends, generation, limits }: Service,
  request: CommonRequest,
  { prompt, field, usualTokens, alternatives, constraint }: Wishes,
): EngineRequest {
  if (prompt.length === 0) throw badRequest(`${field} has no tokens: give some text.`, field);
  const room = contextLength - prompt.length;
  if (room < 1)
    throw badRequest(
      `The prompt has ${prompt.length} tokens, which leaves no room for an answer in this model's context of ${contextLength}: shorten it.`,
      field,
      "context_length_exceeded",
    );
  checkBias(request, tokenizer.vocabSize);
  const wanted = request.max_tokens ?? usualTokens ?? generation?.maxNewTokens ?? room;
  return {
    prompt,
    maxTokens: Math.max(1, Math.min(wanted, room, limits.tokens)),
    seed: seedOf(request),
    stopIds: ends,
    vocabSize: tokenizer.vocabSize,
    sampling: samplingOf(request, generation),
    choices: request.n ?? 1,
    alternatives,
    constraint,
  };
}

/** Submits requests to the engine, unless too many wait. Their errors are those of what was asked for. */
export async function submit({ host, limits }: Service, requests: EngineRequest[]): Promise<Choice[][]> {
  const engine = await host.engine();
  const { running, waiting } = engine.state();
  const more = requests.reduce((sum, { choices = 1 }) => sum + choices, 0);
  if (running + waiting + more > limits.running + limits.queue)
    throw new ApiError(
      429,
      `${running} answers are being written and ${waiting} wait, so that ${more} more do not fit the queue: try again later.`,
      { code: "queue_full", retryAfter: 1 },
    );
  const submitted: Choice[][] = [];
  try {
    for (const request of requests) submitted.push(engine.submit(request));
  } catch (error) {
    for (const choice of submitted.flat()) choice.abort();
    throw error;
  }
  return submitted;
}

/** Tokens as they pass, with their times. */
async function* timed(
  tokens: AsyncIterable<GeneratedToken>,
  metrics: Metrics,
  record: RequestRecord,
): AsyncGenerator<GeneratedToken> {
  let last: number | undefined;
  for await (const token of tokens) {
    const now = performance.now();
    if (last !== undefined) metrics.betweenTokens.observe((now - last) / 1000);
    else if (record.firstToken === undefined) {
      record.firstToken = now - record.begin;
      metrics.firstToken.observe(record.firstToken / 1000);
    }
    last = now;
    record.completionTokens++;
    yield token;
  }
}

/** What answers are read with. */
interface Reading {
  choices: Choice[];
  /** The ids that each goes on from. */
  before: ArrayLike<number>[];
  stop?: string[];
  kept?: ReadonlySet<number>;
  /** A reader for each answer, where they come in channels. */
  channels?: () => ChannelReader;
  /** What holds each answer to its form. */
  constraints?: GrammarConstraint[];
  record: RequestRecord;
  signal: AbortSignal;
}

/**
 * Reads all answers at once, and hands on each piece with the number of its answer. When one fails, or the signal comes, all of them are
 * aborted, and it throws.
 */
export async function readAnswers(
  { tokenizer, metrics }: Service,
  { choices, before, stop = [], kept, channels, constraints, record, signal }: Reading,
  take: (index: number, event: AnswerEvent) => void | Promise<void>,
): Promise<void> {
  const abort = () => {
    for (const choice of choices) choice.abort();
  };
  signal.addEventListener("abort", abort);
  const read = async (choice: Choice, index: number) => {
    const tokens = timed(choice.tokens, metrics, record);
    const constraint = constraints?.[index];
    const settings = {
      tokenizer,
      before: before[index],
      stop,
      kept,
      channels: channels?.(),
      isComplete: constraint && (() => constraint.isComplete),
    };
    for await (const event of answer(choice, tokens, settings)) {
      if (event.finish) {
        record.finishReasons[index] = event.finish;
        metrics.finished.inc({ finished_reason: event.finish });
      }
      await take(index, event);
    }
    if (constraint?.error) throw constraint.error;
  };
  try {
    if (signal.aborted) abort();
    const reads = choices.map((choice, index) =>
      read(choice, index).catch((error) => {
        abort();
        throw error;
      }),
    );
    const outcomes = await Promise.allSettled(reads);
    signal.throwIfAborted();
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  } finally {
    signal.removeEventListener("abort", abort);
    for (const [index] of choices.entries())
      if (record.finishReasons[index] === undefined) metrics.finished.inc({ finished_reason: "abort" });
  }
}

/** The tokens of a request and its answers. */
export function usageOf({ promptTokens, completionTokens, cachedTokens }: RequestRecord): object {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}
