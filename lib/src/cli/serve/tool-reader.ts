// Finds the calls of tools in an answer that arrives in pieces.
import { isRecord } from "../../formats/keys.js";
import { openEnd } from "../../infer/sampling.js";
import { type JsonForm, jsonEnd } from "./tool-form.js";

/** A part of an answer: text; the name of a tool, with which a call begins; or a piece of its arguments, which are JSON. */
export type AnswerPart = { text: string } | { name: string } | { json: string };

/** Takes the pieces of a text, and gives its parts as soon as they are certain. */
export interface ToolReader {
  push(text: string): AnswerPart[];
  end(): AnswerPart[];
}

/** The beginning of a call: all up to its arguments. */
function callHead({ nameKey, argumentsKey }: JsonForm): RegExp {
  const word = String.raw`"(?:[^"\\]|\\.)*"`;
  // Models mix the names for arguments up.
  const keys = [...new Set([argumentsKey, "arguments", "parameters"])].map((key) => JSON.stringify(key));
  return new RegExp(
    `^\\s*\\{\\s*${JSON.stringify(nameKey)}\\s*:\\s*(${word})\\s*,\\s*(?:${keys.join("|")})\\s*:\\s*(?=\\{)`,
  );
}

/** A whole call whose keys come in another order, or without arguments. */
function wholeCall(json: string, { nameKey, argumentsKey }: JsonForm): AnswerPart[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || typeof value[nameKey] !== "string") return undefined;
  const given = value[argumentsKey] ?? value.arguments ?? value.parameters ?? {};
  if (!isRecord(given) && typeof given !== "string") return undefined;
  return [{ name: value[nameKey] }, { json: typeof given === "string" ? given : JSON.stringify(given) }];
}

/** Where the JSON object ends whose pieces it is given: how far into the last piece, or -1. */
function objectEnd() {
  let [depth, inText, escaped] = [0, false, false];
  return (piece: string): number => {
    for (let i = 0; i < piece.length; i++) {
      const character = piece[i];
      if (escaped) escaped = false;
      else if (inText) {
        if (character === "\\") escaped = true;
        else if (character === '"') inText = false;
      } else if (character === '"') inText = true;
      else if (character === "{" || character === "[") depth++;
      else if ((character === "}" || character === "]") && --depth === 0) return i + 1;
    }
    return -1;
  };
}

/**
 * Reads calls in JSON: after each mark that begins one, or from the beginning of the answer where the form has no such mark. What looks
 * like a call and is none is passed on as text.
 */
export function jsonToolReader(form: JsonForm): ToolReader {
  const [begin, end] = [form.begin.trim(), form.end.trim()];
  const head = callHead(form);
  let state: keyof typeof steps = begin === "" ? "call" : "text";
  let held = "";
  let mark = ""; // the mark of the call that is being read
  let hasCalls = false;
  let argumentsEnd = objectEnd();

  /** Text up to the next mark; what may be the beginning of one is held, with the blanks before it. */
  function text(): AnswerPart[] | undefined {
    const at = begin === "" ? -1 : held.indexOf(begin);
    const sure =
      at < 0 ? held.slice(0, held.length - openEnd(held, begin === "" ? [] : [begin])) : held.slice(0, at);
    const ready = begin === "" ? sure : sure.trimEnd();
    if (at >= 0) {
      mark = held.slice(ready.length, at + begin.length);
      state = "call";
    }
    held = held.slice(at < 0 ? ready.length : at + begin.length);
    if (ready === "") return at < 0 ? undefined : [];
    return [{ text: ready }];
  }

  /** The name in a call, once it is there. */
  function call(): AnswerPart[] | undefined {
    const blanks = held.length - held.trimStart().length;
    if (blanks === held.length) return undefined;
    if (held[blanks] !== "{") return giveUp();
    const [match, name] = head.exec(held) ?? [];
    if (match !== undefined && name !== undefined) {
      begun(match.length);
      state = "arguments";
      argumentsEnd = objectEnd();
      return [{ name: JSON.parse(name) as string }];
    }
    const to = jsonEnd(held, blanks);
    if (to < 0) return undefined;
    const parts = wholeCall(held.slice(blanks, to), form);
    if (!parts) return giveUp();
    begun(to);
    state = "after";
    return parts;
  }

  /** Notes that a call has begun, of which so much has been read. */
  function begun(length: number): void {
    held = held.slice(length);
    mark = "";
    hasCalls = true;
  }

  /** The arguments of a call as they come. */
  function given(): AnswerPart[] {
    const to = argumentsEnd(held);
    const json = to < 0 ? held : held.slice(0, to);
    held = held.slice(json.length);
    if (to >= 0) state = "rest";
    return [{ json }];
  }

  /** What the call has behind its arguments. */
  function rest(): AnswerPart[] | undefined {
    const to = jsonEnd(`{${held}`, 0);
    if (to < 0) return undefined;
    held = held.slice(to - 1);
    state = "after";
    return [];
  }

  /** What follows a call: another one, its end mark, or text. */
  function after(): AnswerPart[] | undefined {
    const left = held.replace(/^[\s,;]+/, "");
    if (left === "" || (left !== end && end.startsWith(left))) return undefined;
    if (end !== "" && left.startsWith(end)) held = left.slice(end.length);
    else if (left.startsWith("{")) {
      held = left;
      state = "call";
      return [];
    }
    state = "text";
    return [];
  }

  /** What was held as a call is text. */
  function giveUp(): AnswerPart[] {
    const whole = mark + held;
    [mark, held] = ["", ""];
    state = "text";
    return whole === "" ? [] : [{ text: whole }];
  }

  const steps = { text, call, arguments: given, rest, after };
  return {
    push(piece) {
      held += piece;
      const parts: AnswerPart[] = [];
      while (held !== "") {
        const some = steps[state]();
        if (!some) break;
        parts.push(...some);
      }
      return parts;
    },
    end() {
      // What is left of a call that was begun is no text, and neither are blanks behind one.
      const isText = state === "text" || state === "call";
      if (!isText || (hasCalls && (mark + held).trim() === "")) return [];
      return giveUp();
    },
  };
}
