// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.
import {
  type Tokenizer,
  alphabetTokenizer,
  bpeModelJson,
  characterName,
  invalidUtf8,
  joinTokens,
  textOfBytes,
} from "./characters.js";

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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#pair-key
/** Ids stay below this number, so that a pair of them fits exactly into one JavaScript number. */
export const MAX_VOCAB = 2 ** 20;

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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#pair-table
/** How often each pair stands in the text, and in which words it does (a word may be listed after it lost the pair). */
export interface PairTable {
  counts: Map<number, number>;
  places: Map<number, Set<number>>;
}

/** Adds the pairs of word number `at` to the table `times` times: 1 puts them in, -1 takes them out. */
export function countPairs(table: PairTable, words: CountedWord[], at: number, times: 1 | -1): void {
  const { ids, count } = words[at];
  for (let i = 0; i + 1 < ids.length; i++) {
    const key = pairKey(ids[i], ids[i + 1]);
    const total = (table.counts.get(key) ?? 0) + times * count;
    if (total > 0) table.counts.set(key, total);
    else table.counts.delete(key);
    if (!table.places.has(key)) table.places.set(key, new Set());
    table.places.get(key)!.add(at);
  }
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#learn-merges
/** Learns up to `count` merges, each of the pair that is the most frequent then; calls `onMerge` after each. */
export function learnMerges(
  words: CountedWord[],
  count: number,
  onMerge: (done: number) => void,
): [number, number][] {
  const table: PairTable = { counts: new Map(), places: new Map() };
  for (let at = 0; at < words.length; at++) countPairs(table, words, at, 1);
  const merges: [number, number][] = [];
  while (merges.length < count) {
    const key = mostFrequentPair(table.counts);
    if (key === undefined) break; // every piece is one token: there is nothing left to merge
    const [left, right] = pairOfKey(key);
    for (const at of table.places.get(key)!) {
      countPairs(table, words, at, -1);
      words[at].ids = mergePair(words[at].ids, left, right, 256 + merges.length);
      countPairs(table, words, at, 1);
    }
    table.places.delete(key);
    merges.push([left, right]);
    onMerge(merges.length);
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
/** The ids of one piece: its bytes, with the merges replayed in the order in which they were learned. */
export function encodePiece(bytes: Uint8Array, merges: Map<number, number>): number[] {
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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#piece-encoder
/** Pieces longer than this, and pieces beyond this many, are encoded afresh each time. */
export const PIECE_CACHE = { length: 64, size: 2 ** 17 };

/** A function from a piece to its ids that remembers what it has seen: most words of a text are old words. */
export function pieceEncoder(merges: Map<number, number>): (piece: string) => number[] {
  const cache = new Map<string, number[]>();
  const encoder = new TextEncoder();
  return (piece) => {
    const known = cache.get(piece);
    if (known) return known;
    const ids = encodePiece(encoder.encode(piece), merges);
    if (piece.length <= PIECE_CACHE.length && cache.size < PIECE_CACHE.size) cache.set(piece, ids);
    return ids;
  };
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#encode-runs
/** The ids of stretches of text, piece by piece, with the invalid bytes between them as themselves. */
export function encodeRuns(runs: Utf8Run[], pieceIds: (piece: string) => number[]): Uint32Array {
  const result: number[] = [];
  for (const { text, invalid } of runs) {
    for (const piece of splitPieces(text)) for (const id of pieceIds(piece)) result.push(id);
    if (invalid !== undefined) result.push(invalid);
  }
  return Uint32Array.from(result);
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
/** Byte-pair encoding as a Hugging Face `tokenizer.json`. */
export function bpeJson(merges: [number, number][], tokens: Uint8Array[]): object {
  const characters = byteCharacters();
  const names = tokens.slice(0, -1).map((token) => visibleBytes(token, characters));
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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#bpe-tokenizer
/** The tokenizer of a list of merges; merge number i joins two earlier ids into id 256 + i. */
export function bpeTokenizer(merges: [number, number][]): Tokenizer {
  const tokens = mergedTokens(merges);
  const endOfText = tokens.length;
  tokens.push(new TextEncoder().encode(END_OF_TEXT));
  const pieceIds = pieceEncoder(new Map(merges.map(([left, right], i) => [pairKey(left, right), 256 + i])));
  return {
    vocabSize: tokens.length,
    specials: { [END_OF_TEXT]: endOfText },
    encode: (text) => encodeRuns([{ text }], pieceIds),
    encodeBytes: (bytes) => encodeRuns(utf8Runs(bytes), pieceIds),
    decode: (ids) => joinTokens(ids, tokens),
    toJson: () => bpeJson(merges, tokens),
  };
}

/** One token a byte, and `<|endoftext|>`: byte-pair encoding before its first merge. */
export function byteTokenizer(): Tokenizer {
  return bpeTokenizer([]);
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#train-bpe
/**
 * Trains byte-pair encoding (Gage 1994; Sennrich et al. 2016) on bytes (Radford et al. 2019): ids 0 to 255 are the bytes,
 * then one id a merge, and last `<|endoftext|>`. A tie goes to the pair with the smaller ids. If the text runs out of
 * pairs, the vocabulary is smaller than asked for. Bytes that are not UTF-8 join no merge.
 */
export function trainBpe(
  texts: Iterable<string | Uint8Array>,
  vocabSize: number,
  onMerge: (done: number, total: number) => void = () => {},
): Tokenizer {
  if (!Number.isInteger(vocabSize) || vocabSize < 257 || vocabSize > MAX_VOCAB) {
    throw new Error(
      `The vocabulary size must be from 257 (256 bytes and ${END_OF_TEXT}) to ${MAX_VOCAB}, not ${vocabSize}.`,
    );
  }
  const total = vocabSize - 257;
  return bpeTokenizer(learnMerges(countWords(texts), total, (done) => onMerge(done, total)));
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#tokenizer-file
/** The parts of a `tokenizer.json` that we read. */
export interface TokenizerFile {
  model?: { type?: string; vocab?: { [token: string]: number }; merges?: (string | [string, string])[] };
  added_tokens?: { id: number; content: string }[];
  normalizer?: object | null;
  pre_tokenizer?: { type?: string; pretokenizers?: object[]; pattern?: object };
  decoder?: { type?: string };
}

/** What decides which ids a text gets: two `tokenizer.json` with the same rules are the same tokenizer. */
export function tokenizerRules(file: TokenizerFile): string {
  const vocab = Object.entries(file.model?.vocab ?? {}).sort((a, b) => a[1] - b[1]);
  const merges = (file.model?.merges ?? []).map((merge) =>
    typeof merge === "string" ? merge.split(" ") : merge,
  );
  const added = (file.added_tokens ?? []).map(({ id, content }) => [id, content]);
  const { normalizer = null, pre_tokenizer, decoder } = file;
  const cuts = (pre_tokenizer?.pretokenizers ?? [pre_tokenizer]).map(
    (step: TokenizerFile["pre_tokenizer"]) => step?.pattern ?? step?.type,
  );
  return JSON.stringify([vocab, merges, added, normalizer, cuts, decoder?.type]);
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#merges-of-file
/** The merges of a `tokenizer.json` as pairs of ids. */
export function mergesOfFile(
  vocab: Map<string, number>,
  merges: (string | [string, string])[],
): [number, number][] {
  const idOf = (name: string) => {
    const id = vocab.get(name);
    if (id === undefined)
      throw new Error(`A merge in tokenizer.json names ${JSON.stringify(name)}, which has no id.`);
    return id;
  };
  return merges.map((merge) => {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    return [idOf(left), idOf(right)];
  });
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#load-tokenizer
/**
 * A tokenizer from the content of a `tokenizer.json` of the kinds that `toJson` makes: characters, bytes or
 * byte-pair encoding. Throws one sentence if the file is of another kind or was damaged.
 */
export function loadTokenizer(json: object): Tokenizer {
  const file = json as TokenizerFile;
  if (file.model?.type !== "BPE" || !file.model.vocab || !Array.isArray(file.model.merges)) {
    throw new Error("This tokenizer.json has no byte-pair model; make one with `tslm tokenizer train`.");
  }
  const vocab = new Map(Object.entries(file.model.vocab));
  const byId = [...vocab.keys()].sort((a, b) => vocab.get(a)! - vocab.get(b)!);
  const tokenizer =
    file.decoder?.type === "ByteLevel"
      ? bpeTokenizer(mergesOfFile(vocab, file.model.merges))
      : alphabetTokenizer(byId);
  if (tokenizerRules(tokenizer.toJson()) !== tokenizerRules(file)) {
    throw new Error("This tokenizer.json follows rules that tslm does not know, or it is damaged.");
  }
  return tokenizer;
}
