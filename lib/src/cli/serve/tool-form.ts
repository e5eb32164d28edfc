// How a model writes the calls of tools. Its chat template knows: a conversation with a call in it is written down, and what stands where
// the call was is the form. There are two kinds: JSON with the name and the arguments, between two marks (Hermes and Qwen) or as the
// whole answer (Llama 3); and messages to the tool, in channels (harmony).
import { isRecord } from "../../formats/keys.js";
import { type ChatMessage, renderChat } from "../../tokenizer/chat.js";
import type { Tokenizer } from "../../tokenizer/characters.js";
import type { ChatTemplate } from "./conversation.js";
import { harmonyMarks, speaksHarmony } from "./harmony.js";

/** Calls as JSON in the text. */
export interface JsonForm {
  kind: "json";
  /** What stands before a call and after it, as the template writes it; empty where the call is the whole answer. */
  begin: string;
  end: string;
  /** The keys of the JSON. */
  nameKey: string;
  argumentsKey: string;
}

/** Calls as messages of their own: `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>…`. */
export interface HarmonyForm {
  kind: "harmony";
}

export type ToolForm = JsonForm | HarmonyForm;

const probe = {
  question: "ExampleQuestion",
  name: "example_tool",
  key: "example_key",
  value: "example value",
};

/** A conversation in which the answer is a call. */
function probeText(template: ChatTemplate): { before: string; whole: string } {
  const { name, key, value } = probe;
  const parameters = { type: "object", properties: { [key]: { type: "string" } }, required: [key] };
  const tools = [{ type: "function", function: { name, description: "An example.", parameters } }];
  const call = { id: "call00001", type: "function", function: { name, arguments: { [key]: value } } };
  const question: ChatMessage = { role: "user", content: probe.question };
  const answer: ChatMessage = { role: "assistant", content: "", tool_calls: [call] };
  const variables = { ...template.variables, tools };
  return {
    before: renderChat(template.text, [question], { variables }),
    whole: renderChat(template.text, [question, answer], { prompt: false, variables }),
  };
}

/** The end of the JSON value that begins at `at`, or -1 where it does not end: braces and brackets are counted outside of texts. */
export function jsonEnd(text: string, at: number): number {
  let depth = 0;
  let inText = false;
  for (let i = at; i < text.length; i++) {
    const character = text[i];
    if (inText) {
      if (character === "\\") i++;
      else if (character === '"') inText = false;
    } else if (character === '"') inText = true;
    else if (character === "{" || character === "[") depth++;
    else if ((character === "}" || character === "]") && --depth === 0) return i + 1;
  }
  return -1;
}

/** JSON in a text as a record; undefined where it is none. */
function recordIn(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The keys under which the JSON of a call has the name and the arguments. */
function callKeys(json: Record<string, unknown>): { nameKey: string; argumentsKey: string } | undefined {
  const nameKey = Object.keys(json).find((key) => json[key] === probe.name);
  const isArguments = (value: unknown) => (JSON.stringify(value) ?? "").includes(probe.value);
  const argumentsKey = Object.keys(json).find((key) => isArguments(json[key]));
  return nameKey === undefined || argumentsKey === undefined ? undefined : { nameKey, argumentsKey };
}

/** The form in which a template writes calls; undefined where it has none that we read. `ends` are the tokens that end an answer. */
export function learnToolForm(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  ends: string[],
): ToolForm | undefined {
  let texts: ReturnType<typeof probeText>;
  try {
    texts = probeText(template);
  } catch {
    return undefined; // a template that takes no calls
  }
  const { before, whole } = texts;
  const place = whole.lastIndexOf(probe.name);
  if (place < whole.lastIndexOf(probe.question)) return undefined; // the list of tools, and no call
  if (speaksHarmony(tokenizer) && whole.slice(0, place).endsWith("to=functions.")) return { kind: "harmony" };
  const from = whole.lastIndexOf("{", place);
  const to = from < 0 ? -1 : jsonEnd(whole, from);
  const json = to < 0 ? undefined : recordIn(whole.slice(from, to));
  const keys = json && callKeys(json);
  if (!keys) return undefined;
  let same = 0;
  while (same < from && before[same] === whole[same]) same++;
  const after = whole.slice(to);
  const stops = ends.map((name) => after.indexOf(name)).filter((at) => at >= 0);
  const end = after.slice(0, Math.min(after.length, ...stops));
  return { kind: "json", begin: whole.slice(same, from), end: end.trimEnd(), ...keys };
}

/** The names of ids that are special tokens. */
export function specialNames({ specials }: Tokenizer, ids: number[]): string[] {
  return Object.keys(specials).filter((name) => ids.includes(specials[name]));
}

/** The special tokens that a form is written with. */
export function formTokens(form: ToolForm, tokenizer: Tokenizer): Set<number> {
  const text = form.kind === "json" ? form.begin + form.end : harmonyMarks.join("");
  return new Set(
    Object.keys(tokenizer.specials)
      .filter((name) => text.includes(name))
      .map((name) => tokenizer.specials[name]),
  );
}
