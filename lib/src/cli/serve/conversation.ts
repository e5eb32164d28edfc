// From the messages of a request to the ids that the model goes on from, by its chat template.
import type { ModelConfig } from "../../formats/config.js";
import type { Tokenizer } from "../../tokenizer/characters.js";
import { type ChatMessage, encodeChat, renderChat } from "../../tokenizer/chat.js";
import { badRequest } from "./errors.js";
import type { ChatRequest, Message } from "./schema.js";

/** A chat template, with what it reads besides the messages. */
export interface ChatTemplate {
  text: string;
  variables: Record<string, unknown>;
}

/** A model's template with the names of the tokens that begin and end its texts. */
export function chatTemplate(
  text: string,
  { bosTokenId, eosTokenIds }: ModelConfig,
  tokenizer: Tokenizer,
): ChatTemplate {
  const names = new Map(Object.entries(tokenizer.specials).map(([name, id]) => [id, name]));
  const bos = bosTokenId ?? tokenizer.around?.before[0];
  const name = (id?: number) => (id === undefined ? "" : (names.get(id) ?? ""));
  return { text, variables: { bos_token: name(bos), eos_token: name(eosTokenIds[0]) } };
}

/** JSON in a text, where it is some; else the text. Templates write arguments as JSON themselves. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A message as templates read it: its content is text, and the arguments of its calls are objects. */
function templateMessage(
  { role, content, tool_calls: calls, ...more }: Message,
  template: string,
): ChatMessage {
  const isUnknown = role === "developer" && !template.includes("developer");
  const withObjects = calls?.map((call) => ({
    ...call,
    type: "function",
    function: { ...call.function, arguments: parsedJson(call.function.arguments) },
  }));
  const given = Object.fromEntries(Object.entries(more).filter(([, value]) => value !== null));
  return {
    ...given,
    role: isUnknown ? "system" : role,
    content: content ?? "",
    ...(withObjects && withObjects.length > 0 && { tool_calls: withObjects }),
  };
}

/** What the template reads besides the messages, as a request says it. */
function requestVariables(request: ChatRequest): Record<string, unknown> {
  const { tools = [], tool_choice: choice, reasoning_effort: effort, chat_template_kwargs: more } = request;
  const isOffered = tools.length > 0 && choice !== "none";
  return {
    ...more,
    ...(effort !== undefined && { reasoning_effort: effort }),
    ...(isOffered && {
      tools: tools.map(({ type, function: { name, description, parameters } }) => ({
        type,
        function: {
          name,
          description: description ?? "",
          parameters: parameters ?? { type: "object", properties: {} },
        },
      })),
    }),
  };
}

/** The ids of a conversation, up to where the answer begins. Throws an error for what the template does not take. */
export function conversationIds(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  request: ChatRequest,
): Uint32Array {
  const messages = request.messages.map((message) => templateMessage(message, template.text));
  const variables = { ...requestVariables(request), ...template.variables };
  try {
    return encodeChat(tokenizer, template.text, messages, { variables });
  } catch (error) {
    throw badRequest(
      `These messages cannot be written down for this model: ${(error as Error).message}`,
      "messages",
    );
  }
}

/** What follows the content of an answer, by the template. */
function afterAnswer(template: ChatTemplate): string {
  const [question, word] = ["ExampleQuestion", "ExampleAnswer"];
  const messages = [
    { role: "user", content: question },
    { role: "assistant", content: word },
  ];
  const { variables } = template;
  const whole = renderChat(template.text, messages, { prompt: false, variables });
  return whole.slice(whole.lastIndexOf(word) + word.length);
}

/** The ids that end an answer: those of the model, and the special token with which its template ends one. */
export function answerEnds(ends: number[], tokenizer: Tokenizer, template?: ChatTemplate): number[] {
  if (!template) return ends;
  try {
    const after = afterAnswer(template);
    const name = Object.keys(tokenizer.specials).find((special) => after.startsWith(special));
    return name === undefined ? ends : [...new Set([...ends, tokenizer.specials[name]])];
  } catch {
    return ends; // a template that takes no such conversation
  }
}
