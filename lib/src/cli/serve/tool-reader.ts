// Finds the calls of tools in an answer that arrives in pieces.
import { isRecord } from "../../formats/keys.js";
import { openEnd } from "../../infer/sampling.js";
import { type JsonForm, jsonEnd } from "./tool-form.js";

/** A part of an answer: text, or a whole call, its arguments as JSON. */
export type AnswerPart = { text: string; call?: undefined } | { call: { name: string; arguments: string } };

/** Takes the pieces of a text, and gives its parts as soon as they are certain. */
export interface ToolReader {
  push(text: string): AnswerPart[];
  end(): AnswerPart[];
}

/** The call in a piece of JSON, if it is one. */
function callIn(json: string, { nameKey, argumentsKey }: JsonForm): AnswerPart | undefined {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (!isRecord(value) || typeof value[nameKey] !== "string") return undefined;
  // Models mix the two names up.
  const given = value[argumentsKey] ?? value.arguments ?? value.parameters ?? {};
  if (!isRecord(given) && typeof given !== "string") return undefined;
  return {
    call: { name: value[nameKey], arguments: typeof given === "string" ? given : JSON.stringify(given) },
  };
}

/** A part of text, where there is any. */
const textPart = (text: string): AnswerPart[] => (text === "" ? [] : [{ text }]);

/**
 * Reads calls in JSON: after each mark that begins one, or from the beginning of the answer where there is no such mark. What looks like a
 * call and is none is passed on as text.
 */
export function jsonToolReader(form: JsonForm): ToolReader {
  const [begin, end] = [form.begin.trim(), form.end.trim()];
  let held = "";
  let state: "text" | "call" | "after" = begin === "" ? "call" : "text";
  let calls = 0;
  let marked = ""; // the mark of the call that is being read

  /** Text up to the next mark; what may be its beginning is held, with the blanks before it. */
  function readText(): AnswerPart[] | undefined {
    const at = begin === "" ? -1 : held.indexOf(begin);
    if (at < 0) {
      const open = begin === "" ? 0 : openEnd(held, [begin]);
      const sure = held.slice(0, held.length - open);
      const ready = begin === "" ? sure : sure.trimEnd();
      held = held.slice(ready.length);
      return ready === "" ? undefined : textPart(ready);
    }
    const before = held.slice(0, at).trimEnd();
    marked = held.slice(before.length, at + begin.length);
    held = held.slice(at + begin.length);
    state = "call";
    return textPart(before);
  }

  /** The JSON of a call, once all of it is there. */
  function readCall(): AnswerPart[] | undefined {
    const start = held.length - held.trimStart().length;
    if (start === held.length) return undefined;
    const to = held[start] === "{" ? jsonEnd(held, start) : start;
    if (to < 0) return undefined;
    const part = callIn(held.slice(start, to), form);
    if (!part) return giveUp();
    held = held.slice(to);
    calls++;
    marked = "";
    state = "after";
    return [part];
  }

  /** What follows a call: another one, its end mark, or text. */
  function readAfter(): AnswerPart[] | undefined {
    const rest = held.replace(/^[\s,;]+/, "");
    if (rest === "" || (end !== "" && end.startsWith(rest) && rest !== end)) return undefined;
    if (end !== "" && rest.startsWith(end)) {
      held = rest.slice(end.length);
      state = "text";
    } else if (rest.startsWith("{")) {
      held = rest;
      state = "call";
    } else state = "text";
    return [];
  }

  /** What was held as a call is text. */
  function giveUp(): AnswerPart[] {
    const text = marked + held;
    [marked, held] = ["", ""];
    state = "text";
    return textPart(text);
  }

  const steps = { text: readText, call: readCall, after: readAfter };
  return {
    push(text) {
      held += text;
      const parts: AnswerPart[] = [];
      while (held !== "") {
        const some = steps[state]();
        if (!some) break;
        parts.push(...some);
      }
      return parts;
    },
    end() {
      if (state === "after") held = held.trim();
      const rest = giveUp();
      // Blanks behind a call, and a last end mark that never came, are no text.
      return calls > 0 ? rest.filter((part) => part.call || part.text.trim() !== "") : rest;
    },
  };
}
