// POST /v1/chat/completions: a conversation goes on.
import { randomBytes } from "node:crypto";
import type { AnswerEvent, TokenReport } from "./answer.js";
import { conversationIds } from "./conversation.js";
import { badRequest } from "./errors.js";
import { channelReader } from "./harmony.js";
import { engineRequest, readAnswers, submit, usageOf } from "./jobs.js";
import type { Service } from "./service.js";
import type { RequestRecord } from "./log.js";
import { type Reply, replyWith } from "./reply.js";
import { type ChatRequest, parseChat } from "./schema.js";
import { demandOf } from "./structured.js";
import { type AnswerPart, jsonToolReader } from "./tool-reader.js";

/** A piece of a call, as streams have it. */
interface CallDelta {
  index: number;
  id?: string;
  type?: "function";
  function: { name?: string; arguments: string };
}

/** What a piece adds to a message. */
interface Delta {
  role?: "assistant";
  content?: string;
  reasoning_content?: string;
  tool_calls?: CallDelta[];
}

/** A piece of an answer: what it adds, the tokens of its text, and at the end why it ended. */
interface ChatPiece {
  delta: Delta;
  tokens: TokenReport[];
  finish: string | null;
}

/** What reads the events of one answer as pieces of a message. */
type ChatReader = (event: AnswerEvent) => ChatPiece[];

/** The beginning of a call. */
function newCall(index: number, name: string): CallDelta {
  const id = `call_${randomBytes(12).toString("hex")}`;
  return { index, id, type: "function", function: { name, arguments: "" } };
}

/** A piece of a call's arguments. */
function moreOfCall(index: number, json: string): CallDelta {
  return { index, function: { arguments: json } };
}

/** Reads an answer whose calls, if `readsCalls`, are in its text, or come in channels of their own. */
function chatReader({ form }: Service, readsCalls: boolean): ChatReader {
  const reader = readsCalls && form?.kind === "json" ? jsonToolReader(form) : undefined;
  let [calls, message] = [0, -1];
  let waiting: TokenReport[] = []; // tokens of text that the reader still holds
  const partDelta = (part: AnswerPart): Delta => {
    if ("text" in part) return { content: part.text };
    if ("name" in part) return { tool_calls: [newCall(calls++, part.name)] };
    return { tool_calls: [moreOfCall(calls - 1, part.json)] };
  };
  const deltasOf = (event: AnswerEvent): Delta[] => {
    if (event.finish) return reader?.end().map(partDelta) ?? [];
    const { text, channel } = event;
    if (channel?.kind === "reasoning") return [{ reasoning_content: text }];
    if (channel?.kind === "call") {
      const isNew = channel.message !== message;
      message = channel.message;
      const name: AnswerPart[] = isNew ? [{ name: channel.tool ?? "" }] : [];
      return [...name, { json: text }].map(partDelta);
    }
    return reader ? reader.push(text).map(partDelta) : [{ content: text }];
  };
  return (event) => {
    if (!event.finish) waiting.push(...event.tokens);
    const pieces = deltasOf(event).map((delta): ChatPiece => ({ delta, tokens: [], finish: null }));
    if (event.finish) {
      const finish = event.finish === "stop" && calls > 0 ? "tool_calls" : event.finish;
      pieces.push({ delta: {}, tokens: [], finish });
    }
    if (pieces.length === 0) return [];
    pieces[0].tokens = waiting;
    waiting = [];
    return pieces;
  };
}

/** A whole message from its pieces. */
function wholeMessage(pieces: ChatPiece[]): object {
  const text = (name: "content" | "reasoning_content") => {
    const given = pieces.flatMap(({ delta }) => delta[name] ?? []);
    return given.length === 0 ? undefined : given.join("");
  };
  const calls: CallDelta[] = [];
  for (const { index, ...call } of pieces.flatMap(({ delta }) => delta.tool_calls ?? [])) {
    if (calls[index]) calls[index].function.arguments += call.function.arguments;
    else calls[index] = { ...call, function: { ...call.function } } as CallDelta;
  }
  const content = text("content");
  const reasoning = text("reasoning_content");
  return {
    role: "assistant",
    content: content ?? (calls.length > 0 ? null : ""),
    refusal: null,
    ...(reasoning !== undefined && { reasoning_content: reasoning }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
}

/** Log-probabilities as chats have them. */
function chatLogprobs(request: ChatRequest, tokens: TokenReport[]): object | null {
  if (!request.logprobs) return null;
  const content = tokens.map(({ alternatives, ...token }) => ({ ...token, top_logprobs: alternatives }));
  return { content, refusal: null };
}

/** What a request is checked for before anything is computed: its ids, and the grammar that it asks for. */
function preparedChat(service: Service, request: ChatRequest) {
  const { template, tokenizer, form } = service;
  if (!template)
    throw badRequest(
      "This model has no chat template: use /v1/completions, or start the server with --chat-template.",
    );
  const demand = demandOf(request, form);
  const prompt = conversationIds(tokenizer, template, request);
  const wishes = {
    prompt,
    field: "messages",
    alternatives: request.logprobs ? (request.top_logprobs ?? 0) : undefined,
  };
  const limits = { max_tokens: request.max_completion_tokens ?? request.max_tokens };
  return { prompt, demand, engine: engineRequest(service, { ...request, ...limits }, wishes) };
}

/** Answers a request to go on with a conversation. */
export async function chat(
  service: Service,
  body: unknown,
  record: RequestRecord,
  signal: AbortSignal,
): Promise<Reply> {
  const request = parseChat(body);
  const { tokenizer, form, kept, grammars } = service;
  const { prompt, demand, engine } = preparedChat(service, request);
  record.promptTokens = prompt.length;
  const count = request.n ?? 1;
  const constraints = demand && (await grammars.constraints(demand.source, count, demand.param));
  let next = 0;
  const constraint = constraints && (() => constraints[next++]);
  const [choices] = await submit(service, [{ ...engine, constraint }]).catch((error) => {
    for (const each of constraints ?? []) each.free();
    throw error;
  });
  const readsCalls = (request.tools ?? []).length > 0 && request.tool_choice !== "none";
  const created = Math.floor(Date.now() / 1000);
  const head = { id: record.id, object: "chat.completion", created, model: service.name };

  const read = async (take: (index: number, piece: ChatPiece) => void | Promise<void>) => {
    const readers = choices.map(() => chatReader(service, readsCalls));
    const settings = {
      choices,
      before: choices.map(() => prompt),
      stop: request.stop,
      kept: readsCalls ? kept : undefined,
      channels: form?.kind === "harmony" ? () => channelReader(tokenizer) : undefined,
      constraints,
      record,
      signal,
    };
    try {
      await readAnswers(service, settings, async (index, event) => {
        for (const piece of readers[index](event)) await take(index, piece);
      });
    } finally {
      for (const each of constraints ?? []) each.free();
      record.cachedTokens = choices[0].cachedTokens;
    }
  };

  return replyWith(request, {
    async whole() {
      const pieces = choices.map(() => [] as ChatPiece[]);
      await read((index, piece) => void pieces[index].push(piece));
      const answers = pieces.map((own, index) => ({
        index,
        message: wholeMessage(own),
        logprobs: chatLogprobs(
          request,
          own.flatMap(({ tokens }) => tokens),
        ),
        finish_reason: own.at(-1)?.finish ?? null,
      }));
      return { ...head, choices: answers, usage: usageOf(record) };
    },
    async pieces(send) {
      const chunkHead = { ...head, object: "chat.completion.chunk" };
      const chunk = (index: number, { delta, tokens, finish }: ChatPiece) => {
        const logprobs = tokens.length > 0 ? chatLogprobs(request, tokens) : null;
        return send({ ...chunkHead, choices: [{ index, delta, logprobs, finish_reason: finish }] });
      };
      const begun = new Set<number>();
      await read(async (index, piece) => {
        if (!begun.has(index))
          await chunk(index, { delta: { role: "assistant", content: "" }, tokens: [], finish: null });
        begun.add(index);
        await chunk(index, piece);
      });
    },
    usage: () => ({ ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(record) }),
  });
}
