// Extracted from chapters/01-tokenizer/5-judging-a-tokenizer.ipynb: edit it there, or here and run `npm run backport`.
import { type Tokenizer, invalidUtf8, textOfBytes } from "./characters.js";

//| 01-tokenizer/5-judging-a-tokenizer.ipynb#measures
/** Bytes of UTF-8 by tokens: how much text a token stands for. */
export function bytesPerToken(tokenizer: Tokenizer, text: string): number {
  return new TextEncoder().encode(text).length / tokenizer.encode(text).length;
}

/** Tokens by words, where a word is what stands between white space. */
export function fertility(tokenizer: Tokenizer, text: string): number {
  const words = text.split(/\p{White_Space}+/u).filter((word) => word !== "");
  return tokenizer.encode(text).length / words.length;
}

//| 01-tokenizer/5-judging-a-tokenizer.ipynb#unreachable
/** What may stand before and after a token so that a pattern cuts around it. */
export const TOKEN_CONTEXTS = [
  ["", ""],
  ["", " a"],
  ["", "a"],
  ["a", ""],
  ["a", " a"],
  [".", ""],
  [".", "a"],
  ["§", ""],
  ["", "S"],
];

/** The tokens that their text gives in none of the contexts. Special tokens and parts of characters are left out. */
export function unreachableTokens(tokenizer: Tokenizer): number[] {
  const specials = new Set(Object.values(tokenizer.specials));
  const unreachable: number[] = [];
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    const bytes = specials.has(id) ? undefined : bytesOfToken(tokenizer, id);
    if (!bytes || invalidUtf8(bytes) >= 0) continue;
    const text = textOfBytes(bytes);
    if (!TOKEN_CONTEXTS.some(([before, after]) => tokenizer.encode(before + text + after).includes(id)))
      unreachable.push(id);
  }
  return unreachable;
}

/** The bytes of a token inside a text; undefined for an id that stands for none. */
export function bytesOfToken(tokenizer: Tokenizer, id: number): Uint8Array | undefined {
  if (tokenizer.tokenBytes) return tokenizer.tokenBytes(id);
  try {
    return tokenizer.decode([id]);
  } catch {
    return undefined; // a hole: vocabularies may leave ids free
  }
}

//| 01-tokenizer/5-judging-a-tokenizer.ipynb#token-counts
/** How often each token occurs in some texts, by id. */
export function tokenCounts(tokenizer: Tokenizer, texts: Iterable<string>): Float64Array {
  const counts = new Float64Array(tokenizer.vocabSize);
  for (const text of texts) for (const id of tokenizer.encode(text)) counts[id]++;
  return counts;
}
