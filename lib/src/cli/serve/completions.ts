// POST /v1/completions: a text goes on.
import { type Tokenizer, streamDecoder } from "../../tokenizer/characters.js";
import { promptIds } from "../../infer/generate.js";
import type { TokenReport } from "./answer.js";
import { badRequest } from "./errors.js";
import { engineRequest, readAnswers, submit, usageOf } from "./jobs.js";
import type { Service } from "./service.js";
import type { RequestRecord } from "./log.js";
import { type CompletionRequest, parseCompletion } from "./schema.js";
import { type Reply, replyWith } from "./reply.js";

/** A prompt: its ids, and its text. */
interface Prompt {
  ids: ArrayLike<number>;
  text: string;
}

/** The prompts of a request: texts, or ids already. */
function promptsOf({ tokenizer }: Service, { prompt }: CompletionRequest): Prompt[] {
  const isIds = Array.isArray(prompt) && typeof prompt[0] === "number";
  const list = (Array.isArray(prompt) && !isIds ? prompt : [prompt]) as (string | number[])[];
  return list.map((given) =>
    typeof given === "string" ? textPrompt(tokenizer, given) : idPrompt(tokenizer, given),
  );
}

function textPrompt(tokenizer: Tokenizer, text: string): Prompt {
  try {
    return { ids: promptIds(tokenizer, text), text };
  } catch (error) {
    throw badRequest((error as Error).message, "prompt");
  }
}

function idPrompt(tokenizer: Tokenizer, ids: number[]): Prompt {
  const wrong = ids.find((id) => id >= tokenizer.vocabSize);
  if (wrong !== undefined)
    throw badRequest(
      `prompt has the id ${wrong}, and ids run from 0 to ${tokenizer.vocabSize - 1}.`,
      "prompt",
    );
  const specials = new Set(Object.values(tokenizer.specials));
  const decoder = streamDecoder(tokenizer);
  const pieces = ids.filter((id) => !specials.has(id)).map((id) => decoder.push(id));
  return { ids, text: pieces.join("") + decoder.end() };
}

/** Log-probabilities in the older form; `offset` is where the first token's text begins in the answer. */
function olderLogprobs(tokens: TokenReport[], alternatives: number, offset: number) {
  let at = offset;
  return {
    tokens: tokens.map(({ token }) => token),
    bytes: tokens.map(({ bytes }) => bytes), // not in the older form: the chat page wants to know
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs:
      alternatives === 0
        ? null
        : tokens.map(({ token, logprob, alternatives: others }) => ({
            ...Object.fromEntries(others.map((other) => [other.token, other.logprob])),
            [token]: logprob,
          })),
    text_offset: tokens.map(({ token }) => {
      at += token.length;
      return at - token.length;
    }),
  };
}

/** Answers a request to go on with one or several texts. */
export async function completions(
  service: Service,
  body: unknown,
  record: RequestRecord,
  signal: AbortSignal,
): Promise<Reply> {
  const request = parseCompletion(body);
  const prompts = promptsOf(service, request);
  const wishes = { field: "prompt", usualTokens: 16, alternatives: request.logprobs };
  const requests = prompts.map(({ ids }) => engineRequest(service, request, { ...wishes, prompt: ids }));
  record.promptTokens = prompts.reduce((sum, { ids }) => sum + ids.length, 0);
  const choices = await submit(service, requests);
  const before = prompts.flatMap(({ ids }, i) => choices[i].map(() => ids));
  const echoes = prompts.flatMap(({ text }, i) => choices[i].map(() => (request.echo ? text : "")));
  const head = {
    id: record.id,
    object: "text_completion",
    created: Math.floor(Date.now() / 1000),
    model: service.name,
  };
  const offsets = before.map(() => 0);
  const read = (take: Parameters<typeof readAnswers>[2]) =>
    readAnswers(
      service,
      { choices: choices.flat(), before, stop: request.stop, record, signal },
      take,
    ).finally(() => {
      record.cachedTokens = choices.reduce((sum, [first]) => sum + first.cachedTokens, 0);
    });
  const logprobsOf = (index: number, tokens: TokenReport[]) => {
    if (request.logprobs === undefined) return null;
    const result = olderLogprobs(tokens, request.logprobs, offsets[index]);
    offsets[index] += tokens.reduce((sum, { token }) => sum + token.length, 0);
    return result;
  };

  return replyWith(request, {
    async whole() {
      const texts = [...echoes];
      const tokens: TokenReport[][] = before.map(() => []);
      const ends: (string | null)[] = before.map(() => null);
      await read((index, event) => {
        if (event.finish) ends[index] = event.finish;
        else {
          texts[index] += event.text;
          tokens[index].push(...event.tokens);
        }
      });
      const answers = texts.map((text, index) => ({
        index,
        text,
        logprobs: logprobsOf(index, tokens[index]),
        finish_reason: ends[index],
      }));
      return { ...head, choices: answers, usage: usageOf(record) };
    },
    async pieces(send) {
      const chunk = (index: number, text: string, tokens: TokenReport[], end: string | null) =>
        send({
          ...head,
          choices: [{ index, text, logprobs: logprobsOf(index, tokens), finish_reason: end }],
        });
      await read(async (index, event) => {
        if (event.finish) return chunk(index, "", [], event.finish);
        const text = echoes[index] + event.text;
        echoes[index] = "";
        await chunk(index, text, event.tokens, null);
      });
    },
    usage: () => ({ ...head, choices: [], usage: usageOf(record) }),
  });
}
