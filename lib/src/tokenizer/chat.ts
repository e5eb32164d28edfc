// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import type { Tokenizer } from "./characters.js";

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#render-chat
/** A message of a conversation. Templates may read more than these two: tool calls, names, reasoning. */
export interface ChatMessage {
  role: string;
  content: string;
  [key: string]: unknown;
}

/** How a conversation is written down. */
export interface ChatOptions {
  /** End with the beginning of an answer (the usual). */
  prompt?: boolean;
  /** What else the template reads: `bos_token`, `tools`, `enable_thinking`, … */
  variables?: { [name: string]: unknown };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#limited-template
/** How many steps a template may take; the longest conversations with the longest templates of today take tens of thousands. */
export const TEMPLATE_STEPS = 20_000_000;

/** How many steps one turn of a loop counts for, be its body empty: it makes a scope and the variable `loop`. */
export const LOOP_STEPS = 10;

/** An interpreter of templates that counts its steps and stops at a limit. */
export function limitedInterpreter(environment: Environment, limit = TEMPLATE_STEPS): Interpreter {
  const interpreter = new Interpreter(environment);
  const evaluate = interpreter.evaluate.bind(interpreter);
  const looped = new Set<unknown>(); // what the loops go through
  let steps = 0;
  interpreter.evaluate = (...given: Parameters<Interpreter["evaluate"]>) => {
    const [node] = given as [{ type?: string; iterable?: { lhs?: unknown } } | undefined, Environment];
    if (node?.type === "For") looped.add(node.iterable).add(node.iterable?.lhs);
    const result = evaluate(...given);
    steps += stepsOf(result.value) * (node && looped.has(node) ? LOOP_STEPS : 1);
    if (steps > limit) throw new Error("it takes more steps than any conversation needs");
    return result;
  };
  return interpreter;
}

/** A step for any value, and one for each entry of a list and every 64 characters of a text. */
export function stepsOf(value: unknown): number {
  if (Array.isArray(value)) return 1 + value.length;
  if (value instanceof Map) return 1 + value.size;
  return typeof value === "string" ? 1 + value.length / 64 : 1;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#limited-globals
/** The whole numbers of `range(stop)` or `range(start, stop, step)`, which may be no more than a hundred thousand. */
export function boundedRange(...given: number[]): number[] {
  const [start, stop, step = 1] = given.length === 1 ? [0, given[0]] : given;
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= 1e5)) throw new Error(`range(${given.join(", ")}) has no sensible length`);
  return Array.from({ length }, (_, i) => start + i * step);
}

/** Where a template's names live: what the package gives every template, our bounded range, and what the caller gives. */
export function templateEnvironment(given: { [name: string]: unknown }): Environment {
  const environment = new Environment();
  const names = ["true", "True", "false", "False", "none", "None", "raise_exception", "strftime_now"];
  const take = (values: ReturnType<Interpreter["evaluate"]>[]) =>
    values.forEach((value, i) => {
      environment.setVariable(names[i], value);
    });
  new Template(`{{ take([${names.join(", ")}]) }}`).render({ take }); // the package does not export them
  for (const [name, value] of Object.entries({ range: boundedRange, ...given })) environment.set(name, value);
  return environment;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#render-template
/** The text of a conversation by a chat template (Jinja, as in `tokenizer_config.json`). Throws what the template says. */
export function renderChat(
  template: string,
  messages: ChatMessage[],
  { prompt = true, variables = {} }: ChatOptions = {},
): string {
  try {
    const { parsed } = new Template(template);
    const environment = templateEnvironment({ ...variables, messages, add_generation_prompt: prompt });
    return String(limitedInterpreter(environment).run(parsed).value);
  } catch (error) {
    throw new Error(`The chat template cannot be used: ${(error as Error).message}`);
  }
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#encode-chat
/** A private character that occurs in none of the strings of a value. */
export function unusedCharacter(value: unknown): string {
  const text = JSON.stringify(value);
  for (let code = 0xe000; code < 0xf900; code++)
    if (!text.includes(String.fromCharCode(code))) return String.fromCharCode(code);
  throw new Error("The conversation uses all private characters of Unicode.");
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#mark-names
/** A value in which each string has the mark inside of every one of the names, so that none is whole. */
export function markNames<T>(value: T, names: string[], mark: string): T {
  if (typeof value === "string") {
    const marked = names.reduce(
      (text, name) => text.replaceAll(name, name[0] + mark + name.slice(1)),
      value as string,
    );
    return marked as T;
  }
  if (Array.isArray(value)) return value.map((item) => markNames(item, names, mark)) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, markNames(item, names, mark)]),
  ) as T;
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#encode-conversation
/**
 * The ids of a conversation. Special tokens come from the template and from its variables named `…_token` only: in the messages, and in
 * the tools among the variables, they stay text.
 */
export function encodeChat(
  tokenizer: Tokenizer,
  template: string,
  messages: ChatMessage[],
  options: ChatOptions = {},
): Uint32Array {
  const { variables = {} } = options;
  const mark = unusedCharacter([messages, template, variables]);
  const names = Object.keys(tokenizer.specials);
  const marked = markNames({ messages, variables }, names, mark);
  for (const name of Object.keys(variables))
    if (name.endsWith("_token")) marked.variables[name] = variables[name];
  const text = renderChat(template, marked.messages, { ...options, variables: marked.variables });
  return tokenizer.encode(text, { allowed: "all", mark });
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#encode-harmony
/** A message in OpenAI's harmony format. */
export interface HarmonyMessage {
  /** `system`, `developer`, `user`, `assistant`, or the name of a tool. */
  role: string;
  /** Whom it is for, such as `functions.weather`. */
  recipient?: string;
  /** `analysis`, `commentary` or `final`. */
  channel?: string;
  /** What the content is, such as `json`. */
  constrain?: string;
  content: string;
  /** How it ends: an ordinary message, a call of a tool, or the end of the answer. */
  end?: "end" | "call" | "return";
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#special-id
/** The id of a special token. Throws if the tokenizer has none of that name. */
export function specialId({ specials }: Tokenizer, name: string): number {
  if (!(name in specials))
    throw new Error(`The tokenizer has no ${name}: harmony is for the tokenizer of gpt-oss (o200k).`);
  return specials[name];
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#harmony-ids
/** The ids of harmony messages; with `prompt` (as usual) followed by the start of an answer. */
export function encodeHarmony(
  tokenizer: Tokenizer,
  messages: HarmonyMessage[],
  { prompt = true } = {},
): Uint32Array {
  const ids: number[] = [];
  const text = (part: string) => ids.push(...tokenizer.encode(part));
  const special = (name: string) => ids.push(specialId(tokenizer, `<|${name}|>`));
  for (const { role, recipient, channel, constrain, content, end = "end" } of messages) {
    special("start");
    text(recipient ? `${role} to=${recipient}` : role);
    if (channel) {
      special("channel");
      text(constrain ? `${channel} ` : channel);
    }
    if (constrain) {
      special("constrain");
      text(constrain);
    }
    special("message");
    for (const id of tokenizer.encode(content)) ids.push(id); // may be too long to spread
    special(end);
  }
  if (prompt) {
    special("start");
    text("assistant");
  }
  return Uint32Array.from(ids);
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#harmony-message
/** A message from the ids of its parts. */
export function harmonyMessage(
  tokenizer: Tokenizer,
  parts: { [part: string]: number[] },
  end?: HarmonyMessage["end"],
): HarmonyMessage {
  const decoder = new TextDecoder();
  const text = (part: string) => decoder.decode(tokenizer.decode(parts[part] ?? [])).trim();
  const [role = "assistant", ...rest] = text("start")
    .split(" ")
    .filter((word) => word !== "");
  const [channel, ...more] = text("channel").split(" ");
  const to = [...rest, ...more].find((word) => word.startsWith("to="));
  return {
    role,
    ...(to && { recipient: to.slice(3) }),
    ...(channel && { channel }),
    ...(parts.constrain && { constrain: text("constrain") }),
    content: decoder.decode(tokenizer.decode(parts.message ?? [])),
    ...(end && { end }),
  };
}

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#parse-harmony
/** The messages in ids of the harmony format. Ids before the first `<|start|>` are the answer to an open prompt. */
export function parseHarmony(tokenizer: Tokenizer, ids: ArrayLike<number>): HarmonyMessage[] {
  const names = new Map(Object.entries(tokenizer.specials).map(([name, id]) => [id, name.slice(2, -2)]));
  const messages: HarmonyMessage[] = [];
  let parts: { [part: string]: number[] } = {};
  let part = "start";
  const close = (end?: "end" | "call" | "return") => {
    if (Object.keys(parts).length > 0) messages.push(harmonyMessage(tokenizer, parts, end));
    parts = {};
  };
  for (let i = 0; i < ids.length; i++) {
    const name = names.get(ids[i]);
    if (name === "end" || name === "call" || name === "return") close(name);
    if (name === "start") close();
    if (name !== undefined) part = name;
    else if (parts[part]) parts[part].push(ids[i]);
    else parts[part] = [ids[i]];
    if (name === "message") parts.message = [];
  }
  close();
  return messages;
}
