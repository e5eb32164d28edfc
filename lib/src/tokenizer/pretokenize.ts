// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.
import { SPLIT_PATTERN } from "./bpe.js";

//| 01-tokenizer/3-fast-merges.ipynb#patterns
export const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
export const UPPER_LETTERS = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
export const LOWER_LETTERS = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
export const SPACE_PATTERN = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** The family of `cl100k`, which differs in the digits that may stand together. */
export const cl100kPattern = (digits: string) =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACE_PATTERN}`;

/**
 * The patterns by which known tokenizers cut text, as their makers wrote them for Rust's regular expressions
 * (OpenAI, `tiktoken_ext/openai_public.py`; the `tokenizer.json` of Qwen2 and Llama 3), and our own.
 */
export const PATTERNS = {
  house: SPLIT_PATTERN,
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  cl100k: cl100kPattern("\\p{N}{1,3}"),
  o200k:
    `[^\\r\\n\\p{L}\\p{N}]?${UPPER_LETTERS}*${LOWER_LETTERS}+${CONTRACTIONS}?|[^\\r\\n\\p{L}\\p{N}]?${UPPER_LETTERS}+${LOWER_LETTERS}*${CONTRACTIONS}?|` +
    `\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACE_PATTERN}`,
  qwen2: cl100kPattern("\\p{N}"),
  llama3: cl100kPattern("\\p{N}{1,3}"),
};

/** The name of a pattern that we know. */
export type PatternName = keyof typeof PATTERNS;

//| 01-tokenizer/3-fast-merges.ipynb#ignore-case
/** Characters besides its two cases that a letter equals when case is ignored (Unicode's CaseFolding.txt, status C and S). */
export const CASE_FOLDS: { [letter: string]: string } = { s: "ſ", k: "\u212a" };

/** A pattern of letters, and classes of them, that ignores their case: "'s" becomes "'[sSſ]". */
export function ignoreCase(pattern: string): string {
  const cases = (letter: string) =>
    letter.toLowerCase() + letter.toUpperCase() + (CASE_FOLDS[letter.toLowerCase()] ?? "");
  return pattern.replace(
    /\[[a-z]+\]|[a-z]/gi,
    (found) => `[${found.replace(/[[\]]/g, "").replace(/./g, cases)}]`,
  );
}

//| 01-tokenizer/3-fast-merges.ipynb#translate-escape
/** Escapes that mean something else in JavaScript. */
export const TRANSLATED_ESCAPES: { [found: string]: string } = {
  "\\s": "\\p{White_Space}",
  "\\S": "\\P{White_Space}",
  "\\d": "\\p{Nd}",
  "\\D": "\\P{Nd}",
  "\\A": "^",
  "\\z": "$",
};

/** One escape in JavaScript's dialect. Throws for one whose meaning we do not know to be the same. */
export function translateEscape(found: string): string {
  if (TRANSLATED_ESCAPES[found]) return TRANSLATED_ESCAPES[found];
  if (/^\\[pPxu]/.test(found) || /^\\[rntfv0^$\\.*+?()[\]{}|/-]$/.test(found)) return found;
  if (/^\\[^A-Za-z0-9]$/.test(found)) return found[1]; // needless, and JavaScript refuses it
  throw new Error(`it uses ${found}, which tslm does not translate`);
}

//| 01-tokenizer/3-fast-merges.ipynb#javascript-pattern
/** The parts of a pattern: escapes, classes, groups without case, possessive operators, operators, all else. */
export const PATTERN_PARTS =
  /\\[pP]\{[^}]*\}|\\x[\dA-Fa-f]{2}|\\u[\dA-Fa-f]{4}|\\.|\[(?:\\.|[^\]\\])*\]|\(\?i:(?:[^()\\[\]]|\[[A-Za-z]+\])*\)|(?:[?*+]|\{\d+(?:,\d*)?\})\+|[\s\S]/gu;

/** A class such as `[^\s\p{L}]` in JavaScript's dialect. */
export function translateClass(part: string): string {
  return part.replace(/\\[pP]\{[^}]*\}|\\./gu, (found) => (found === "\\-" ? found : translateEscape(found)));
}

//| 01-tokenizer/3-fast-merges.ipynb#translate-pattern
/** A pattern of Rust's dialect (or Oniguruma's) as JavaScript reads it with the flag `u`. Throws what it cannot say. */
export function javascriptPattern(pattern: string): string {
  const atoms: string[] = []; // the pattern in parts that an operator may follow
  const open: number[] = []; // where groups began
  let kept = 0;
  for (const part of pattern.match(PATTERN_PARTS) ?? []) {
    if (/^[?*+{].*\+$/.test(part)) {
      const name = `_${kept++}`;
      atoms.push(`(?=(?<${name}>${atoms.pop()}${part.slice(0, -1)}))\\k<${name}>`);
    } else if (part === ")" && open.length > 0) atoms.push(atoms.splice(open.pop()!).join("") + part);
    else {
      if (part === "(") open.push(atoms.length);
      atoms.push(translatePart(part));
    }
  }
  return atoms.join("");
}

/** A part that is no operator of its own. */
export function translatePart(part: string): string {
  if (part.startsWith("(?i:")) return `(?:${ignoreCase(part.slice(4, -1))})`;
  if (part.length > 1 && part.startsWith("[")) return translateClass(part);
  if (part.startsWith("\\")) return translateEscape(part.replace(/^\\-$/, "-"));
  return part === "." ? "[^\\n]" : part;
}

//| 01-tokenizer/3-fast-merges.ipynb#split-by-pattern
/** Gives the pieces of a text in order, each by where it starts and ends; together they cover the text. */
export type Splitter = (text: string, each: (text: string, from: number, to: number) => void) => void;

/** The regular expression of a pattern. Throws one sentence if it cannot be had in JavaScript. */
export function compilePattern(pattern: string, flags: string): RegExp {
  try {
    return new RegExp(javascriptPattern(pattern), flags);
  } catch (error) {
    const why = (error as Error).message.replace(/^Invalid regular expression: .*: /, "");
    throw new Error(`The pattern ${JSON.stringify(pattern)} cannot be used: ${why}.`);
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#pattern-splitter
/** A splitter for any pattern. What no match covers is a piece too. */
export function patternSplitter(pattern: string): Splitter {
  const here = compilePattern(pattern, "uy");
  const further = compilePattern(pattern, "gu");
  return (text, each) => {
    for (let at = 0, end = 0; at < text.length; at = end) {
      here.lastIndex = at;
      end = here.test(text) && here.lastIndex > at ? here.lastIndex : nextMatch(further, text, at);
      each(text, at, end);
    }
  };
}

/** Where the first match beyond `at` that is not empty begins, or the end of the text. */
export function nextMatch(pattern: RegExp, text: string, at: number): number {
  for (const match of text.slice(at).matchAll(pattern))
    if (match.index! > 0 && match[0] !== "") return at + match.index!;
  return text.length;
}
