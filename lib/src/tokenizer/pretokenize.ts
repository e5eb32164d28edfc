// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.
import { SPLIT_PATTERN } from "./bpe.js";
import { javascriptPattern } from "./oniguruma.js";

//| 01-tokenizer/3-fast-merges.ipynb#patterns-parts
export const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";

export const UPPER_LETTERS = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";

export const LOWER_LETTERS = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";

export const SPACE_PATTERN = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** GPT-2's, and that of OpenAI's first models of code. */
export const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** The family of `cl100k`, which differs in the digits that may stand together. */
export const cl100kPattern = (digits: string) =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACE_PATTERN}`;

//| 01-tokenizer/3-fast-merges.ipynb#patterns
/**
 * The patterns by which known tokenizers cut text, as their makers wrote them for Rust's regular expressions
 * (OpenAI, `tiktoken_ext/openai_public.py`; the `tokenizer.json` of Qwen2 and Llama 3), and our own.
 */
export const PATTERNS = {
  house: SPLIT_PATTERN,
  gpt2: GPT2_PATTERN,
  p50k_edit: GPT2_PATTERN,
  cl100k: cl100kPattern("\\p{N}{1,3}"),
  o200k:
    `[^\\r\\n\\p{L}\\p{N}]?${UPPER_LETTERS}*${LOWER_LETTERS}+${CONTRACTIONS}?|[^\\r\\n\\p{L}\\p{N}]?${UPPER_LETTERS}+${LOWER_LETTERS}*${CONTRACTIONS}?|` +
    `\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACE_PATTERN}`,
  qwen2: cl100kPattern("\\p{N}"),
  llama3: cl100kPattern("\\p{N}{1,3}"),
};

/** The name of a pattern that we know. */
export type PatternName = keyof typeof PATTERNS;

//| 01-tokenizer/3-fast-merges.ipynb#split-by-pattern
/** Where a stretch of text stands: where a text begins, further inside of it, or where one goes on that was encoded before. */
export type TextPlace = "start" | "inside" | "continued";

/** Gives the pieces of a text in order, each by where it starts and ends; together they cover the text, or what is kept of it. */
export type Splitter = (
  text: string,
  visit: (text: string, from: number, to: number) => void,
  place?: TextPlace,
) => void;

/** Gives the stretches of a text in order: those that match, and those between them. A match may be empty. */
export type Matcher = (text: string, visit: (from: number, to: number, isMatch: boolean) => void) => void;

/** The regular expression of a pattern. Throws one sentence if it cannot be had in JavaScript. */
export function compilePattern(pattern: string, flags: string): RegExp {
  try {
    return new RegExp(javascriptPattern(pattern), flags);
  } catch (error) {
    const why = (error as Error).message.replace(/^Invalid regular expression: [\s\S]*: /, "");
    const shown = JSON.stringify(pattern.length > 200 ? `${pattern.slice(0, 200)}…` : pattern);
    throw new Error(`The pattern ${shown} cannot be used: ${why}.`);
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#next-match
/** Where the character after the one at `at` begins. */
export function nextCharacter(text: string, at: number): number {
  return at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
}

/** The first match from `at` on, or null. V8 finds some empty ones inside a pair of UTF-16 units: those are none. */
export function nextMatch(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  let match = pattern.exec(text);
  while (match && match.index > 0 && text.codePointAt(match.index - 1)! > 0xffff) {
    pattern.lastIndex = match.index + 1;
    match = pattern.exec(text);
  }
  return match;
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-splitter
/** The matches of any pattern, each from where the one before ended. An empty one counts unless it touches that one. */
export function patternMatcher(pattern: string): Matcher {
  const here = compilePattern(pattern, "uy");
  const further = compilePattern(pattern, "gu");
  return (text, visit) => {
    let done = 0;
    for (let at = 0; at < text.length; ) {
      here.lastIndex = at;
      const found = here.test(text) ? undefined : nextMatch(further, text, at);
      if (found === null) break;
      const from = found ? found.index : at;
      const to = found ? from + found[0].length : here.lastIndex;
      at = to === from && from === done ? nextCharacter(text, at) : to;
      if (to === from && from === done) continue;
      if (from > done) visit(done, from, false);
      visit(from, to, true);
      done = to;
    }
    if (done < text.length) visit(done, text.length, false);
  };
}

/** A splitter for any pattern. What no match covers is a piece too. */
export function patternSplitter(pattern: string): Splitter {
  const matcher = patternMatcher(pattern);
  return (text, visit) =>
    matcher(text, (from, to) => {
      if (to > from) visit(text, from, to);
    });
}
