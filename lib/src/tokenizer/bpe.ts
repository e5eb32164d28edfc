// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.
import { bpeModelJson, characterName, invalidUtf8, joinTokens, textOfBytes } from "./characters.js";

//| 01-tokenizer/1-bytes-and-pairs.ipynb#merge-pair
/** The ids with every `left, right` replaced by `merged`, from left to right: of `a a a` the first two merge. */
export function mergePair(ids: number[], left: number, right: number, merged: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    const isPair = ids[i] === left && i + 1 < ids.length && ids[i + 1] === right;
    result.push(isPair ? merged : ids[i]);
    if (isPair) i++;
  }
  return result;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#split-pattern
/**
 * How a text is cut before pairs are counted: a word with the space before it, one digit, a run of signs,
 * line ends, indentation. Every character belongs to exactly one piece. Written so that JavaScript and the Rust
 * of Hugging Face's tokenizers read it alike (`\s` differs between them, `\p{White_Space}` does not).
 */
export const SPLIT_PATTERN =
  " ?[\\p{L}\\p{M}]+| ?\\p{N}| ?[^\\p{White_Space}\\p{L}\\p{M}\\p{N}]+|[\\r\\n]+| +(?= )|\\t+|\\p{White_Space}";

/** The pieces of a text in order; joined they give the text. Throws on half a UTF-16 pair. */
export function splitPieces(text: string): string[] {
  const lone = /\p{Surrogate}/u.exec(text);
  if (lone)
    throw new Error(`The text has half a character, ${characterName(lone[0])}, at position ${lone.index}.`);
  return text.match(new RegExp(SPLIT_PATTERN, "gu")) ?? [];
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#utf8-runs
/** A stretch of valid UTF-8, and the one invalid byte that follows it (none after the last stretch). */
export interface Utf8Run {
  text: string;
  invalid?: number;
}

/** Any bytes as stretches of text with single invalid bytes between them. */
export function utf8Runs(bytes: Uint8Array): Utf8Run[] {
  const runs: Utf8Run[] = [];
  let rest = bytes;
  for (let at = invalidUtf8(rest); at >= 0; at = invalidUtf8(rest)) {
    runs.push({ text: textOfBytes(rest.subarray(0, at)), invalid: rest[at] });
    rest = rest.subarray(at + 1);
  }
  runs.push({ text: textOfBytes(rest) });
  return runs;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#words
/** A distinct piece of the training text: its ids so far, and how often it occurs. */
export interface CountedWord {
  ids: number[];
  count: number;
}

/** The distinct pieces of some texts with their counts, as bytes. */
export function countWords(texts: Iterable<string | Uint8Array>): CountedWord[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    const runs = typeof text === "string" ? [text] : utf8Runs(text).map((run) => run.text);
    for (const run of runs)
      for (const piece of splitPieces(run)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  }
  const encoder = new TextEncoder();
  return [...counts].map(([piece, count]) => ({ ids: Array.from(encoder.encode(piece)), count }));
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#pair-key-parts
/** Ids stay below this number, so that a pair of them fits exactly into one JavaScript number. */
export const MAX_VOCAB = 2 ** 20;

//| 01-tokenizer/1-bytes-and-pairs.ipynb#pair-key
/** A pair of ids as one number, ordered like the pairs: by the left id, then by the right. */
export function pairKey(left: number, right: number): number {
  return left * MAX_VOCAB + right;
}

/** The pair of a key. */
export function pairOfKey(key: number): [left: number, right: number] {
  return [Math.floor(key / MAX_VOCAB), key % MAX_VOCAB];
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#most-frequent-pair
/** The key of the most frequent pair; of equals the one with the smallest left id, then right id. None: undefined. */
export function mostFrequentPair(counts: Map<number, number>): number | undefined {
  let best = -1;
  let bestCount = 0;
  for (const [key, count] of counts) {
    if (count > bestCount || (count === bestCount && key < best)) {
      best = key;
      bestCount = count;
    }
  }
  return best < 0 ? undefined : best;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#train-slowly
/** The definition of training, word for word: every pair is counted again for every merge. Slow; the judge of the quick form. */
export function learnMergesByDefinition(words: CountedWord[], count: number): [number, number][] {
  const merges: [number, number][] = [];
  for (let next = 256; next < 256 + count; next++) {
    const counts = new Map<number, number>();
    for (const { ids, count } of words) {
      for (let i = 0; i + 1 < ids.length; i++) {
        const key = pairKey(ids[i], ids[i + 1]);
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    }
    const best = mostFrequentPair(counts);
    if (best === undefined) break;
    const [left, right] = pairOfKey(best);
    for (const word of words) word.ids = mergePair(word.ids, left, right, next);
    merges.push([left, right]);
  }
  return merges;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#merged-tokens
/** The bytes of every token: 256 single bytes, then each merge as its left part followed by its right part. */
export function mergedTokens(merges: [number, number][]): Uint8Array[] {
  const tokens: Uint8Array[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  for (const [left, right] of merges) {
    if (!tokens[left] || !tokens[right]) {
      throw new Error(
        `Merge ${tokens.length - 256} joins ${left} and ${right}, but only ids below ${tokens.length} exist.`,
      );
    }
    tokens.push(joinTokens([left, right], tokens));
  }
  return tokens;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#encode-piece
/** The ids of one piece, by definition: its bytes, with the merges replayed in the order in which they were learned. */
export function encodePieceByDefinition(bytes: Uint8Array, merges: Map<number, number>): number[] {
  let ids: number[] = Array.from(bytes);
  for (;;) {
    let first = Number.POSITIVE_INFINITY; // the earliest merge that applies has the smallest new id
    let pair = 0;
    for (let i = 0; i + 1 < ids.length; i++) {
      const merged = merges.get(pairKey(ids[i], ids[i + 1]));
      if (merged === undefined || merged >= first) continue;
      first = merged;
      pair = i;
    }
    if (first === Number.POSITIVE_INFINITY) return ids;
    ids = mergePair(ids, ids[pair], ids[pair + 1], first);
  }
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#byte-characters
/**
 * A visible character for each byte, as in GPT-2's `bytes_to_unicode`: the printable ones of Latin-1 stand for
 * themselves, the 68 others are counted up from U+0100. A space is "Ġ", a line end "Ċ".
 */
export function byteCharacters(): string[] {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** Bytes in those visible characters. */
export function visibleBytes(bytes: Uint8Array, characters: string[] = byteCharacters()): string {
  return Array.from(bytes, (byte) => characters[byte]).join("");
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#end-of-text
/** The token that stands between documents. */
export const END_OF_TEXT = "<|endoftext|>";

//| 01-tokenizer/1-bytes-and-pairs.ipynb#bpe-json
/** Byte-pair encoding with our pattern, and `<|endoftext|>` as the last id, as a Hugging Face `tokenizer.json`. */
export function bpeJson(merges: [number, number][]): object {
  const characters = byteCharacters();
  const names = mergedTokens(merges).map((token) => visibleBytes(token, characters));
  const split = { type: "Split", pattern: { Regex: SPLIT_PATTERN }, behavior: "Isolated", invert: false };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{ id: names.length, content: END_OF_TEXT, ...flags }],
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [split, byteLevel] },
    post_processor: null,
    decoder: byteLevel,
    model: bpeModelJson(
      Object.fromEntries(names.map((name, id) => [name, id])),
      merges.map(([left, right]) => `${names[left]} ${names[right]}`),
    ),
  };
}
