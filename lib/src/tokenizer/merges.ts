// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.
import { END_OF_TEXT, MAX_VOCAB, type Utf8Run, bpeJson, mergedTokens, utf8Runs } from "./bpe.js";
import {
  type EncodeOptions,
  type Tokenizer,
  characterName,
  joinTokens,
  unknownSpecial,
} from "./characters.js";
import { characterSource } from "./oniguruma.js";
import { PATTERNS, type Splitter, type TextPlace, patternSplitter } from "./pretokenize.js";

//| 01-tokenizer/3-fast-merges.ipynb#heap
/** A binary heap: `pop` gives the entry that comes before all others, in O(log n). */
export class Heap<T> {
  readonly #entries: T[] = [];
  constructor(readonly before: (a: T, b: T) => boolean) {}

  push(entry: T): void {
    const entries = this.#entries;
    let at = entries.push(entry) - 1;
    for (let up = (at - 1) >> 1; at > 0 && this.before(entry, entries[up]); up = (at - 1) >> 1) {
      entries[at] = entries[up];
      at = up;
    }
    entries[at] = entry;
  }

  pop(): T | undefined {
    const entries = this.#entries;
    const first = entries[0];
    const last = entries.pop();
    if (entries.length > 0) this.#sink(last!);
    return first;
  }

  /** Puts an entry at the top and lets it sink to its place. */
  #sink(entry: T): void {
    const entries = this.#entries;
    let at = 0;
    for (let down = 1; down < entries.length; down = 2 * at + 1) {
      if (down + 1 < entries.length && this.before(entries[down + 1], entries[down])) down++;
      if (!this.before(entries[down], entry)) break;
      entries[at] = entries[down];
      at = down;
    }
    entries[at] = entry;
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#pair-map
/** A number for each pair of ids: an open hash table with linear probing, made for about so many pairs; it grows. */
export class PairMap {
  size = 0;
  // Four numbers a slot: left, right, the pair's number, and one for nothing, so that a slot never lies across two lines of the
  // processor's cache. A free slot is all -1.
  #slots: Int32Array;

  constructor(expected = 512) {
    this.#slots = new Int32Array(4 * 2 ** Math.ceil(Math.log2(2 * expected + 1))).fill(-1);
  }

  /** The number of a pair, -1 if it has none. */
  get(left: number, right: number): number {
    return this.#slots[this.#find(left, right) + 2];
  }

  set(left: number, right: number, value: number): void {
    if (8 * this.size >= this.#slots.length) this.#grow();
    const at = this.#find(left, right);
    if (this.#slots[at] < 0) this.size++;
    this.#slots[at] = left;
    this.#slots[at + 1] = right;
    this.#slots[at + 2] = value;
  }

  /** Where the slot of a pair begins, or the free one where it would go. */
  #find(left: number, right: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    for (let at = (hash << 2) & mask; ; at = (at + 4) & mask)
      if ((slots[at] === left && slots[at + 1] === right) || slots[at] < 0) return at;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(2 * old.length).fill(-1);
    this.size = 0;
    for (let at = 0; at < old.length; at += 4) if (old[at] >= 0) this.set(old[at], old[at + 1], old[at + 2]);
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#utf8-size
/** The length of a text in UTF-8. */
export function utf8Size(text: string): number {
  let size = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 0x7f) size += unit > 0x7ff && (unit & 0xf800) !== 0xd800 ? 2 : 1; // a pair of halves: four in all
  }
  return size;
}

//| 01-tokenizer/3-fast-merges.ipynb#training-cells
/** All distinct pieces, one cell a byte, -1 between them. A token has its id in its first and last cell. */
export interface TrainingCells {
  ids: Int32Array;
  /** How often the piece occurs to which a cell belongs. */
  counts: Float64Array;
}

/** The cells of counted pieces, before the first merge. */
export function trainingCells(pieces: ReadonlyMap<string, number>): TrainingCells {
  const encoder = new TextEncoder();
  let size = 1;
  for (const piece of pieces.keys()) size += utf8Size(piece) + 1;
  const cells = { ids: new Int32Array(size).fill(-1), counts: new Float64Array(size) };
  let at = 1;
  for (const [piece, count] of pieces) {
    const bytes = encoder.encode(piece);
    cells.ids.set(bytes, at);
    cells.counts.fill(count, at, at + bytes.length);
    at += bytes.length + 1;
  }
  return cells;
}

//| 01-tokenizer/3-fast-merges.ipynb#pair-statistics
/** A pair of neighbouring tokens: how often it occurs, and the cells where it starts (some of them outdated). */
export interface PairCount {
  left: number;
  right: number;
  count: number;
  places: number[];
}

//| 01-tokenizer/3-fast-merges.ipynb#pair-counts
/** The counts of all pairs, kept up to date. */
export class PairCounts {
  readonly #numbers = new PairMap();
  readonly #pairs: PairCount[] = [];
  #fresh: PairCount[] = [];
  // A tie goes to the smaller left id, then to the smaller right id.
  readonly #heap = new Heap<{ pair: PairCount; count: number }>(
    (a, b) =>
      a.count > b.count ||
      (a.count === b.count &&
        (a.pair.left < b.pair.left || (a.pair.left === b.pair.left && a.pair.right < b.pair.right))),
  );

  /** Counts a pair `count` times more, where it starts at `place`. */
  add(left: number, right: number, count: number, place: number): void {
    let number = this.#numbers.get(left, right);
    if (number < 0) {
      number = this.#pairs.push({ left, right, count: 0, places: [] }) - 1;
      this.#numbers.set(left, right, number);
      this.#fresh.push(this.#pairs[number]);
    }
    this.#pairs[number].count += count;
    this.#pairs[number].places.push(place);
  }

  /** Counts a pair `count` times less. */
  subtract(left: number, right: number, count: number): void {
    this.#pairs[this.#numbers.get(left, right)].count -= count;
  }

  /** Takes out the most frequent pair. A count in the heap may be too high by now: then it goes back with the true one. */
  takeMostFrequent(): PairCount | undefined {
    for (const pair of this.#fresh) if (pair.count > 0) this.#heap.push({ pair, count: pair.count });
    this.#fresh = [];
    for (let top = this.#heap.pop(); top; top = this.#heap.pop()) {
      if (top.count === top.pair.count) return top.pair;
      if (top.pair.count > 0) this.#heap.push({ pair: top.pair, count: top.pair.count });
    }
    return undefined;
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#merge-everywhere
/** Merges a pair into `id` at all its places, and keeps the counts. `lengths` is the length of each token in bytes. */
export function mergeEverywhere(
  { ids, counts }: TrainingCells,
  pairs: PairCounts,
  pair: PairCount,
  id: number,
  lengths: number[],
): void {
  const { left, right } = pair;
  for (const start of pair.places) {
    const middle = start + lengths[left];
    if (ids[start] !== left || ids[middle] !== right) continue; // it was merged with another neighbour
    const end = middle + lengths[right];
    const [before, after, count] = [ids[start - 1], ids[end], counts[start]];
    if (before >= 0) {
      pairs.subtract(before, left, count);
      pairs.add(before, id, count, start - lengths[before]);
    }
    if (after >= 0) {
      pairs.subtract(right, after, count);
      pairs.add(id, after, count, start);
    }
    ids[middle - 1] = ids[middle] = -2; // cells within a token say nothing
    ids[start] = ids[end - 1] = id;
  }
  pair.count = 0;
  pair.places = [];
}

//| 01-tokenizer/3-fast-merges.ipynb#learn-merges
/**
 * Learns up to `count` merges from counted pieces, each of the pair that is the most frequent then; calls `onMerge` after
 * each. The same as the definition learns, and the same for any order of the pieces. O(n log n) in the bytes of the distinct pieces.
 */
export function learnMerges(
  pieces: ReadonlyMap<string, number>,
  count: number,
  onMerge: (done: number) => void = () => {},
): [number, number][] {
  const cells = trainingCells(pieces);
  const pairs = new PairCounts();
  for (let i = 1; i + 1 < cells.ids.length; i++)
    if (cells.ids[i] >= 0 && cells.ids[i + 1] >= 0)
      pairs.add(cells.ids[i], cells.ids[i + 1], cells.counts[i], i);
  const lengths: number[] = new Array(256).fill(1);
  const merges: [number, number][] = [];
  while (merges.length < count) {
    const pair = pairs.takeMostFrequent();
    if (!pair) break; // every piece is one token: there is nothing left to merge
    lengths.push(lengths[pair.left] + lengths[pair.right]);
    mergeEverywhere(cells, pairs, pair, 256 + merges.length, lengths);
    merges.push([pair.left, pair.right]);
    onMerge(merges.length);
  }
  return merges;
}

//| 01-tokenizer/3-fast-merges.ipynb#own-string
/** A copy of a piece that does not keep the text alive from which it was cut. */
export function ownString(piece: string): string {
  if (piece.length < 13) return piece; // V8 copies these by itself
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(piece));
}

/** The text itself. Throws, naming the place, if half a UTF-16 pair is in it. */
export function wellFormedText(text: string): string {
  const lone = /\p{Surrogate}/u.exec(text);
  if (!lone) return text;
  throw new Error(`The text has half a character, ${characterName(lone[0])}, at position ${lone.index}.`);
}

//| 01-tokenizer/3-fast-merges.ipynb#count-pieces
/** How many distinct pieces are kept while counting: training on as many takes between one and two gigabytes. */
export const PIECE_LIMIT = 2 ** 20;

/** Drops the rarest pieces until there are at most `limit`: all that occur once, then all that occur twice, … */
export function dropRarePieces(counts: Map<string, number>, limit: number): void {
  for (let rare = 1; counts.size > limit; rare++)
    for (const [piece, count] of counts) if (count <= rare) counts.delete(piece);
}

/** Adds the counts of `more` to those of `total`, and drops the rarest pieces beyond `limit`. */
export function addPieceCounts(
  total: Map<string, number>,
  more: ReadonlyMap<string, number>,
  limit = PIECE_LIMIT,
): void {
  for (const [piece, count] of more) total.set(piece, (total.get(piece) ?? 0) + count);
  dropRarePieces(total, limit);
}

//| 01-tokenizer/3-fast-merges.ipynb#count-block
/** The distinct pieces of one block of text with their counts. Bytes that are not UTF-8 belong to no piece. */
export function countBlock(
  text: string | Uint8Array,
  splitter: Splitter,
  limit = PIECE_LIMIT,
): Map<string, number> {
  const counts = new Map<string, number>();
  const count = (from: string, start: number, end: number) => {
    const piece = from.slice(start, end);
    const before = counts.get(piece);
    counts.set(before === undefined ? ownString(piece) : piece, (before ?? 0) + 1);
  };
  for (const run of typeof text === "string" ? [wellFormedText(text)] : utf8Runs(text).map((run) => run.text))
    splitter(run, count);
  dropRarePieces(counts, limit);
  return counts;
}

/** The distinct pieces of texts with their counts, in memory that does not grow with the text. */
export function countPieces(
  texts: Iterable<string | Uint8Array>,
  splitter: Splitter,
  limit = PIECE_LIMIT,
): Map<string, number> {
  const total = new Map<string, number>();
  for (const text of texts) addPieceCounts(total, countBlock(text, splitter, limit), limit);
  return total;
}

//| 01-tokenizer/3-fast-merges.ipynb#vocabulary
/** Which pairs merge, in which order, and into what. */
export interface Merges {
  /** How early each pair merges; -1 for never. */
  ranks: PairMap;
  /** The id that the merge of a rank makes. */
  made: ArrayLike<number>;
}

/** What decides the ids of a piece. */
export interface Vocabulary extends Merges {
  /** The bytes of each id; an id without a token is left out. */
  tokens: (Uint8Array | undefined)[];
  /** The id of each of the 256 bytes. */
  byteIds: ArrayLike<number>;
  /** The tokens that a piece becomes which is one, whatever the merges say (`ignore_merges`); usually none. */
  whole?: { find(bytes: Uint8Array, from: number, to: number): number; remove(id: number): void };
}

/** The vocabulary of merges as training makes them: merge number i joins two earlier ids into id 256 + i. */
export function mergedVocabulary(merges: [number, number][]): Vocabulary {
  const ranks = new PairMap(merges.length);
  merges.forEach(([left, right], rank) => ranks.set(left, right, rank));
  return {
    tokens: mergedTokens(merges),
    byteIds: Array.from({ length: 256 }, (_, byte) => byte),
    ranks,
    made: merges.map((_, rank) => 256 + rank),
  };
}

//| 01-tokenizer/3-fast-merges.ipynb#merge-by-scan
/** Ranks of neighbours that never merge. */
export const NEVER_MERGES = 2 ** 31 - 1;

/** The rank of a pair, NEVER_MERGES if it does not merge. */
export function rankOf(ranks: PairMap, left: number, right: number): number {
  const rank = ranks.get(left, right);
  return rank < 0 ? NEVER_MERGES : rank;
}

//| 01-tokenizer/3-fast-merges.ipynb#merge-short-pieces
/** Merges in place until no pair is left, of equals the leftmost first. Quick for short pieces: O(n·merges). */
export function mergeByScan(ids: number[], { ranks, made }: Merges): number[] {
  const pairRanks: number[] = []; // of each id with the one after it
  for (let i = 0; i + 1 < ids.length; i++) pairRanks.push(rankOf(ranks, ids[i], ids[i + 1]));
  while (pairRanks.length > 0) {
    let at = 0;
    for (let i = 1; i < pairRanks.length; i++) if (pairRanks[i] < pairRanks[at]) at = i;
    if (pairRanks[at] === NEVER_MERGES) break;
    ids[at] = made[pairRanks[at]];
    removeEntry(ids, at + 1);
    removeEntry(pairRanks, at);
    if (at > 0) pairRanks[at - 1] = rankOf(ranks, ids[at - 1], ids[at]);
    if (at < pairRanks.length) pairRanks[at] = rankOf(ranks, ids[at], ids[at + 1]);
  }
  return ids;
}

/** Takes one entry out of a short list; `splice` would make a list of it. */
export function removeEntry(list: number[], at: number): void {
  for (let i = at; i + 1 < list.length; i++) list[i] = list[i + 1];
  list.pop();
}

//| 01-tokenizer/3-fast-merges.ipynb#merge-by-heap
/** The same result as mergeByScan in O(n log n), for long pieces. */
export function mergeByHeap(ids: number[], { ranks, made }: Merges): number[] {
  const length = ids.length;
  const next = Int32Array.from({ length }, (_, i) => i + 1);
  const previous = Int32Array.from({ length }, (_, i) => i - 1);
  const pairRanks = new Int32Array(length).fill(NEVER_MERGES);
  const heap = new Heap<number>((a, b) => a < b);
  const look = (at: number) => {
    pairRanks[at] = next[at] < length ? rankOf(ranks, ids[at], ids[next[at]]) : NEVER_MERGES;
    if (pairRanks[at] !== NEVER_MERGES) heap.push(pairRanks[at] * 2 ** 31 + at);
  };
  for (let at = 0; at < length; at++) look(at);
  for (let top = heap.pop(); top !== undefined; top = heap.pop()) {
    const at = top % 2 ** 31;
    if (pairRanks[at] !== Math.floor(top / 2 ** 31)) continue; // outdated
    const gone = next[at];
    ids[at] = made[pairRanks[at]];
    pairRanks[gone] = NEVER_MERGES;
    next[at] = next[gone];
    if (next[at] < length) previous[next[at]] = at;
    look(at);
    if (previous[at] >= 0) look(previous[at]);
  }
  const result: number[] = [];
  for (let at = 0; at < length; at = next[at]) result.push(ids[at]);
  return result;
}

//| 01-tokenizer/3-fast-merges.ipynb#id-list
/** A list of ids that grows, four bytes each. */
export class IdList {
  #ids = new Uint32Array(256);
  #length = 0;

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const grown = new Uint32Array(2 * this.#length);
      grown.set(this.#ids);
      this.#ids = grown;
    }
    this.#ids[this.#length++] = id;
  }

  toArray(): Uint32Array {
    return this.#ids.slice(0, this.#length);
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#piece-cache
/** What the memory for pieces holds before it starts afresh: so many pieces, UTF-16 units and ids, some megabytes. */
export const PIECE_CACHE = { pieces: 2 ** 16, units: 2 ** 20, ids: 2 ** 19, longest: 64 };

/** A hash of the units of a text from `from` to `to`: FNV-1a, by Fowler, Noll and Vo. */
export function hashUnits(text: string, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash ^ (hash >>> 15);
}

/** Whether the units from `at` on are those of a text from `from` to `to`. */
export function hasUnitsAt(units: Uint16Array, at: number, text: string, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (units[at + i - from] !== text.charCodeAt(i)) return false;
  return true;
}

//| 01-tokenizer/3-fast-merges.ipynb#piece-memory
/** The ids of pieces that have been seen. A piece is compared where it stands in its text: nothing is copied to look it up. */
export class PieceCache {
  readonly #slots = new Int32Array(2 * PIECE_CACHE.pieces); // a hash's place holds the number of a piece; 0 is free
  readonly #units = new Uint16Array(PIECE_CACHE.units);
  readonly #unitEnds = new Int32Array(PIECE_CACHE.pieces + 1); // piece n is units [n - 1] to [n]
  readonly #ids = new Uint32Array(PIECE_CACHE.ids);
  readonly #idEnds = new Int32Array(PIECE_CACHE.pieces + 1);
  #pieces = 0;

  /** Appends the ids of the piece of `text` from `from` to `to`, if it is known, and says whether it is. */
  recall(text: string, from: number, to: number, ids: IdList): boolean {
    const piece = this.#slots[this.#find(text, from, to)];
    if (piece === 0) return false;
    for (let i = this.#idEnds[piece - 1]; i < this.#idEnds[piece]; i++) ids.push(this.#ids[i]);
    return true;
  }

  remember(text: string, from: number, to: number, ids: number[]): void {
    if (to - from > PIECE_CACHE.longest) return;
    const unitEnd = this.#unitEnds[this.#pieces] + to - from;
    const idEnd = this.#idEnds[this.#pieces] + ids.length;
    const fits =
      this.#pieces < PIECE_CACHE.pieces && unitEnd <= PIECE_CACHE.units && idEnd <= PIECE_CACHE.ids;
    if (!fits) {
      this.#pieces = 0;
      this.#slots.fill(0);
      return;
    }
    this.#slots[this.#find(text, from, to)] = ++this.#pieces;
    for (let i = from; i < to; i++) this.#units[unitEnd - to + i] = text.charCodeAt(i);
    this.#ids.set(ids, idEnd - ids.length);
    this.#unitEnds[this.#pieces] = unitEnd;
    this.#idEnds[this.#pieces] = idEnd;
  }

  /** The slot of a piece, or the free one where it would go. */
  #find(text: string, from: number, to: number): number {
    const mask = this.#slots.length - 1;
    for (let slot = hashUnits(text, from, to) & mask; ; slot = (slot + 1) & mask)
      if (this.#slots[slot] === 0 || this.#isPiece(this.#slots[slot], text, from, to)) return slot;
  }

  #isPiece(piece: number, text: string, from: number, to: number): boolean {
    const start = this.#unitEnds[piece - 1];
    return this.#unitEnds[piece] - start === to - from && hasUnitsAt(this.#units, start, text, from, to);
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#is-span
/** A hash of the bytes from `from` to `to`: FNV-1a, by Fowler, Noll and Vo. */
export function hashBytes(bytes: Uint8Array, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}

/** Whether the bytes from `at` on are `length` bytes of others from `from` on. */
export function hasBytesAt(
  all: Uint8Array,
  at: number,
  bytes: Uint8Array,
  from: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) if (all[at + i] !== bytes[from + i]) return false;
  return true;
}

/** The bytes of all tokens in one row, which costs the processor less than a row each: token n is bytes [n] to [n + 1] of the ends. */
export interface TokenRow {
  bytes: Uint8Array;
  ends: Int32Array;
}

/** Tokens in a row. One that is left out has no bytes. */
export function tokensInARow(tokens: readonly (Uint8Array | undefined)[]): TokenRow {
  const ends = new Int32Array(tokens.length + 1);
  for (let id = 0; id < tokens.length; id++) ends[id + 1] = ends[id] + (tokens[id]?.length ?? 0);
  const bytes = new Uint8Array(ends[tokens.length]);
  tokens.forEach((token, id) => {
    if (token) bytes.set(token, ends[id]);
  });
  return { bytes, ends };
}

//| 01-tokenizer/3-fast-merges.ipynb#token-table
/** The ids of tokens by their bytes: an open hash table. */
export class TokenTable {
  // Four numbers a slot, which lie side by side for the processor's cache: an id (-1 in a free one, -2 where one was removed),
  // the hash of its bytes, where they begin in the row, and how many they are.
  readonly #slots: Int32Array;
  readonly #row: TokenRow;

  constructor(row: TokenRow) {
    const { bytes, ends } = row;
    this.#slots = new Int32Array(4 * 2 ** Math.ceil(Math.log2(2 * ends.length))).fill(-1);
    this.#row = row;
    for (let id = 0; id + 1 < ends.length; id++) {
      const [from, to] = [ends[id], ends[id + 1]];
      if (from === to) continue;
      const hash = hashBytes(bytes, from, to);
      const at = this.#slot(hash, bytes, from, to);
      this.#slots[at] = id;
      this.#slots[at + 1] = hash;
      this.#slots[at + 2] = from;
      this.#slots[at + 3] = to - from;
    }
  }

  /** The id of the token with the bytes from `from` to `to`, -1 if there is none. */
  find(bytes: Uint8Array, from: number, to: number): number {
    return this.#slots[this.#slot(hashBytes(bytes, from, to), bytes, from, to)];
  }

  /** Whether a token has the bytes from `from` to `to`. */
  has(id: number, bytes: Uint8Array, from: number, to: number): boolean {
    const { bytes: all, ends } = this.#row;
    return ends[id + 1] - ends[id] === to - from && hasBytesAt(all, ends[id], bytes, from, to - from);
  }

  /** Forgets a token. */
  remove(id: number): void {
    const { bytes, ends } = this.#row;
    const at = this.#slot(hashBytes(bytes, ends[id], ends[id + 1]), bytes, ends[id], ends[id + 1]);
    if (this.#slots[at] === id) this.#slots[at] = -2;
  }

  /** Where the slot of a token begins, or the free one where it would go. */
  #slot(hash: number, bytes: Uint8Array, from: number, to: number): number {
    const [slots, all, length] = [this.#slots, this.#row.bytes, to - from];
    const mask = slots.length - 1;
    for (let at = ((hash ^ (hash >>> 15)) << 2) & mask; ; at = (at + 4) & mask) {
      if (slots[at] === -1) return at;
      if (slots[at + 1] !== hash || slots[at + 3] !== length || slots[at] < 0) continue;
      if (hasBytesAt(all, slots[at + 2], bytes, from, length)) return at;
    }
  }
}

//| 01-tokenizer/3-fast-merges.ipynb#piece-encoder
/** Pieces from this many bytes on are merged with a heap. */
export const LONG_PIECE = 100;

/** Merges in place, in the way that is the quicker for so many ids. */
export function mergeIds(ids: number[], merges: Merges): number[] {
  return ids.length < LONG_PIECE ? mergeByScan(ids, merges) : mergeByHeap(ids, merges);
}

/** The ids of a piece from its bytes. */
export function encodePiece(bytes: Uint8Array, vocabulary: Vocabulary): number[] {
  const ids: number[] = [];
  for (let i = 0; i < bytes.length; i++) ids.push(vocabulary.byteIds[bytes[i]]);
  return mergeIds(ids, vocabulary);
}

//| 01-tokenizer/3-fast-merges.ipynb#remembering-encoder
/** Appends the ids of the piece of `text` from `from` to `to`. */
export type PieceEncoder = (text: string, from: number, to: number, ids: IdList) => void;

/** An encoder of pieces that remembers what came of each. */
export function rememberingEncoder(encode: (piece: string) => number[]): PieceEncoder {
  const cache = new PieceCache();
  return (text, from, to, ids) => {
    if (cache.recall(text, from, to, ids)) return;
    const pieceIds = encode(text.slice(from, to));
    for (let i = 0; i < pieceIds.length; i++) ids.push(pieceIds[i]);
    cache.remember(text, from, to, pieceIds);
  };
}

/** The encoder of pieces of a vocabulary of bytes. */
export function pieceEncoder(vocabulary: Vocabulary, bytesOf?: (piece: string) => Uint8Array): PieceEncoder {
  const encoder = new TextEncoder();
  return rememberingEncoder((piece) => {
    const bytes = bytesOf ? bytesOf(piece) : encoder.encode(piece);
    const token = vocabulary.whole?.find(bytes, 0, bytes.length) ?? -1;
    return token < 0 ? encodePiece(bytes, vocabulary) : [token];
  });
}

//| 01-tokenizer/3-fast-merges.ipynb#added-token
/** A token that is found in the text as it stands, before the text is cut; flags as in `tokenizer.json`. */
export interface AddedToken {
  id: number;
  content: string;
  /** Found only where the caller allows it by name; one that is not special is always found. */
  special: boolean;
  /** Found only where no word touches it: no letter, mark, decimal digit, underscore or other connector. */
  single_word?: boolean;
  /** The space before it, or after it, belongs to it. */
  lstrip?: boolean;
  rstrip?: boolean;
  /** Searched, itself normalised, in the text after it was normalised. */
  normalized?: boolean;
}

//| 01-tokenizer/3-fast-merges.ipynb#added-token-helpers
/** Whether a token is looked for. Throws, naming it, if a name is allowed that no special token has. */
export function wantedTokens(
  added: AddedToken[],
  allowed: EncodeOptions["allowed"] = [],
): (token: AddedToken) => boolean {
  if (allowed === "all") return () => true;
  const names = new Set(allowed);
  for (const name of names)
    if (!added.some(({ content }) => content === name))
      throw unknownSpecial(
        name,
        added.map(({ content }) => content),
      );
  return ({ content, special }) => !special || names.has(content);
}

//| 01-tokenizer/3-fast-merges.ipynb#tokens-pattern
/** A state of the automaton: what was read leads on to these, and may be a token itself. */
export interface TokenState {
  token?: AddedToken;
  next?: Map<number, TokenState>;
}

/** The automaton of tokens by what they look like: a tree with a branch for each UTF-16 unit. */
export function tokenStates(tokens: ReadonlyMap<string, AddedToken>): TokenState {
  const root: TokenState = {};
  for (const [content, token] of tokens) {
    let state = root;
    for (let i = 0; i < content.length; i++) {
      state.next ??= new Map();
      const after = state.next.get(content.charCodeAt(i)) ?? {};
      state.next.set(content.charCodeAt(i), after);
      state = after;
    }
    state.token = token;
  }
  return root;
}

//| 01-tokenizer/3-fast-merges.ipynb#token-finder
/** Finds tokens in a text, from left to right. */
export type TokenFinder = (
  text: string,
  visit: (token: AddedToken, from: number, to: number) => void,
) => void;

/** A finder of tokens: at each place the longest, and the next search starts where it ends, whether it is used or not. */
export function tokenFinder(tokens: ReadonlyMap<string, AddedToken>): TokenFinder {
  const root = tokenStates(tokens);
  const firsts = new Set([...tokens.keys()].map((content) => content.codePointAt(0)!));
  const start = new RegExp(`[${[...firsts].map(characterSource).join("")}]`, "gu");
  return (text, visit) => {
    start.lastIndex = 0;
    for (let match = start.exec(text); match; match = start.exec(text)) {
      let [found, end]: [AddedToken | undefined, number] = [undefined, 0];
      let state: TokenState | undefined = root;
      for (let at = match.index; state; at++) {
        if (state.token) [found, end] = [state.token, at];
        state = state.next?.get(text.charCodeAt(at));
      }
      if (!found) continue;
      start.lastIndex = end;
      visit(found, match.index, end);
    }
  };
}

//| 01-tokenizer/3-fast-merges.ipynb#cut-added-parts
export const WORD_BEFORE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;

export const WORD_AFTER = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Whether a part of a text touches a word. */
export function touchesWord(text: string, from: number, to: number): boolean {
  return WORD_BEFORE.test(text.slice(Math.max(0, from - 2), from)) || WORD_AFTER.test(text.slice(to, to + 2));
}

//| 01-tokenizer/3-fast-merges.ipynb#cut-added
/** Calls `onText` and `onToken` for the stretches of text and the tokens among them, in order. */
export function cutAtTokens(
  text: string,
  finder: TokenFinder,
  isWanted: (token: AddedToken) => boolean,
  onText: (text: string, from: number) => void,
  onToken: (id: number) => void,
): void {
  let done = 0;
  finder(text, (token, start, end) => {
    if (!isWanted(token) || (token.single_word && touchesWord(text, start, end))) return;
    let [from, to] = [start, end];
    while (token.lstrip && from > done && /\p{White_Space}/u.test(text[from - 1])) from--;
    while (token.rstrip && to < text.length && /\p{White_Space}/u.test(text[to])) to++;
    if (token.lstrip) from = Math.max(from, done);
    if (from > done) onText(text.slice(done, from), done);
    if (to > from) onToken(token.id); // the one before may have taken all of its space
    done = to;
  });
  if (done < text.length) onText(text.slice(done), done);
}

//| 01-tokenizer/3-fast-merges.ipynb#byte-level-tokenizer
/** What encodes: how a text is changed and cut, and what its pieces become. */
export interface EncoderParts {
  added: AddedToken[];
  /** Applied to a text before it is cut, such as Unicode's NFC. Decoding gives the normalised text. */
  normalize?: (text: string, place?: TextPlace) => string;
  splitter: Splitter;
  encodePiece: PieceEncoder;
  /** The id of a byte that is no text. */
  idOfByte: (byte: number) => number;
}

//| 01-tokenizer/3-fast-merges.ipynb#run-encoder
/** The finders of added tokens: of those that are searched in the text as it stands, and in the normalised text. */
export function addedFinders({ added, normalize = (text) => text }: EncoderParts) {
  const finderOf = (isNormalized: boolean, form: (content: string) => string) =>
    tokenFinder(
      new Map(
        added
          .filter(({ normalized = false }) => normalized === isNormalized)
          .map((token) => [form(token.content), token]),
      ),
    );
  return [finderOf(false, (content) => content), finderOf(true, (content) => normalize(content))];
}

//| 01-tokenizer/3-fast-merges.ipynb#encode-runs
/** A function that encodes stretches of text, with the bytes between them that are no text as themselves. */
export function runEncoder(parts: EncoderParts) {
  const { added, normalize = (text: string) => text, splitter, encodePiece, idOfByte } = parts;
  const [early, late] = addedFinders(parts);
  return (runs: Utf8Run[], { allowed, mark, continues }: EncodeOptions = {}): Uint32Array => {
    const ids = new IdList();
    const pushId = (id: number) => ids.push(id);
    const pushPiece = (text: string, from: number, to: number) => encodePiece(text, from, to, ids);
    const isWanted = wantedTokens(added, allowed);
    const pushText = (part: string, place: TextPlace) => {
      const text = normalize(mark ? part.replaceAll(mark, "") : part, place);
      const pushStretch = (stretch: string, from: number) =>
        splitter(stretch, pushPiece, from === 0 ? place : "inside");
      cutAtTokens(text, late, isWanted, pushStretch, pushId);
    };
    runs.forEach(({ text, invalid }, i) => {
      const place = i > 0 || continues ? "continued" : "start";
      const pushStretch = (stretch: string, from: number) => pushText(stretch, from === 0 ? place : "inside");
      cutAtTokens(text, early, isWanted, pushStretch, pushId);
      if (invalid !== undefined) ids.push(idOfByte(invalid));
    });
    return ids.toArray();
  };
}

//| 01-tokenizer/3-fast-merges.ipynb#assemble
/** The parts of a tokenizer of byte-level pairs. */
export interface ByteLevelParts extends Omit<EncoderParts, "encodePiece" | "idOfByte"> {
  vocabulary: Vocabulary;
  /** The bytes of a piece, where the splitter does not give pieces of the text itself. */
  bytesOf?: (piece: string) => Uint8Array;
  toJson: () => object;
}

/** A tokenizer from its parts. */
export function byteLevelTokenizer(parts: ByteLevelParts): Tokenizer {
  const { vocabulary, bytesOf, added, toJson } = parts;
  const tokens = [...vocabulary.tokens];
  for (const { id, content } of added) tokens[id] ??= new TextEncoder().encode(content);
  const special = added.filter((token) => token.special);
  const encodePiece = pieceEncoder(vocabulary, bytesOf);
  const encodeRuns = runEncoder({ ...parts, encodePiece, idOfByte: (byte) => vocabulary.byteIds[byte] });
  return {
    vocabSize: tokens.length,
    specials: Object.fromEntries(special.map(({ content, id }) => [content, id])),
    encode: (text, options) => encodeRuns([{ text: wellFormedText(text) }], options),
    encodeBytes: (bytes) => encodeRuns(utf8Runs(bytes)),
    decode: (ids) => joinTokens(ids, tokens),
    toJson,
  };
}

//| 01-tokenizer/3-fast-merges.ipynb#bpe-tokenizer-parts
/** The tokenizer of a list of merges; merge number i joins two earlier ids into id 256 + i. Last comes `<|endoftext|>`. */
export function bpeTokenizer(merges: [number, number][]): Tokenizer {
  const vocabulary = mergedVocabulary(merges);
  return byteLevelTokenizer({
    vocabulary,
    splitter: patternSplitter(PATTERNS.house),
    added: [{ id: vocabulary.tokens.length, content: END_OF_TEXT, special: true }],
    toJson: () => bpeJson(merges),
  });
}

//| 01-tokenizer/3-fast-merges.ipynb#bpe-tokenizer
/** One token a byte, and `<|endoftext|>`: byte-pair encoding before its first merge. */
export function byteTokenizer(): Tokenizer {
  return bpeTokenizer([]);
}

//| 01-tokenizer/3-fast-merges.ipynb#train-bpe-parts
/** How many merges lead to a vocabulary of `vocabSize`. Throws one sentence if it cannot be. */
export function mergesFor(vocabSize: number): number {
  if (Number.isInteger(vocabSize) && vocabSize >= 257 && vocabSize <= MAX_VOCAB) return vocabSize - 257;
  throw new Error(
    `The vocabulary size must be from 257 (256 bytes and ${END_OF_TEXT}) to ${MAX_VOCAB}, not ${vocabSize}.`,
  );
}

//| 01-tokenizer/3-fast-merges.ipynb#train-bpe
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
  const total = mergesFor(vocabSize);
  const pieces = countPieces(texts, patternSplitter(PATTERNS.house));
  return bpeTokenizer(learnMerges(pieces, total, (done) => onMerge(done, total)));
}
