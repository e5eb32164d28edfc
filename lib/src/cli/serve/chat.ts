// POST /v1/chat/completions: a conversation goes on.
import type { TokenReport } from "./answer.js";
import { conversationIds } from "./conversation.js";
import { badRequest } from "./errors.js";
import { type Service, engineRequest, readAnswers, submit, usageOf } from "./jobs.js";
import type { RequestRecord } from "./log.js";
import { type Reply, replyWith } from "./reply.js";
import { type ChatRequest, parseChat } from "./schema.js";

/** Log-probabilities as chats have them. */
function chatLogprobs(request: ChatRequest, tokens: TokenReport[]) {
  if (!request.logprobs) return null;
  return {
    content: tokens.map(({ alternatives, ...token }) => ({ ...token, top_logprobs: alternatives })),
    refusal: null,
  };
}

/** Answers a request to go on with a conversation. */
export async function chat(
  service: Service,
  body: unknown,
  record: RequestRecord,
  signal: AbortSignal,
): Promise<Reply> {
  const request = parseChat(body);
  const { template, tokenizer } = service;
  if (!template)
    throw badRequest(
      "This model has no chat template: use /v1/completions, or start the server with --chat-template.",
    );
  const prompt = conversationIds(tokenizer, template, request);
  record.promptTokens = prompt.length;
  const [choices] = await submit(service, [
    engineRequest(
      service,
      { ...request, max_tokens: request.max_completion_tokens ?? request.max_tokens },
      { prompt, field: "messages", alternatives: request.logprobs ? (request.top_logprobs ?? 0) : undefined },
    ),
  ]);
  const before = choices.map(() => prompt);
  const created = Math.floor(Date.now() / 1000);
  const head = { id: record.id, object: "chat.completion", created, model: service.name };
  const read = (take: Parameters<typeof readAnswers>[2]) =>
    readAnswers(service, { choices, before, stop: request.stop, record, signal }, take).finally(() => {
      record.cachedTokens = choices[0].cachedTokens;
    });

  return replyWith(request, {
    async whole() {
      const answers = choices.map(() => ({
        text: "",
        tokens: [] as TokenReport[],
        end: null as string | null,
      }));
      await read((index, event) => {
        const so = answers[index];
        if (event.finish) so.end = event.finish;
        else {
          so.text += event.text;
          so.tokens.push(...event.tokens);
        }
      });
      return {
        ...head,
        choices: answers.map(({ text, tokens, end }, index) => ({
          index,
          message: { role: "assistant", content: text, refusal: null },
          logprobs: chatLogprobs(request, tokens),
          finish_reason: end,
        })),
        usage: usageOf(record),
      };
    },
    async pieces(send) {
      const chunkHead = { ...head, object: "chat.completion.chunk" };
      const chunk = (index: number, delta: object, tokens: TokenReport[] = [], end: string | null = null) =>
        send({
          ...chunkHead,
          choices: [
            {
              index,
              delta,
              logprobs: tokens.length > 0 ? chatLogprobs(request, tokens) : null,
              finish_reason: end,
            },
          ],
        });
      const begun = choices.map(() => false);
      await read(async (index, event) => {
        if (!begun[index]) {
          begun[index] = true;
          await chunk(index, { role: "assistant", content: "" });
        }
        if (event.finish) await chunk(index, {}, [], event.finish);
        else await chunk(index, { content: event.text }, event.tokens);
      });
    },
    usage: () => ({ ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(record) }),
  });
}
