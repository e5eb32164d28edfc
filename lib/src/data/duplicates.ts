// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import { randomStream } from "./random.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#hash-set-parts
/** The slot of a hash in a table of pairs (its length is a power of two): where it stands, or where it would. */
export function slotOf(table: Uint32Array, high: number, low: number): number {
  const last = table.length - 2;
  let at = (low << 1) & last;
  while ((table[at] !== high || table[at + 1] !== low) && (table[at] !== 0 || table[at + 1] !== 0))
    at = (at + 2) & last;
  return at;
}

/** The members of a table in one twice as large. */
export function grownTable(table: Uint32Array): Uint32Array {
  const larger = new Uint32Array(2 * table.length);
  for (let from = 0; from < table.length; from += 2) {
    if (table[from] === 0 && table[from + 1] === 0) continue;
    const to = slotOf(larger, table[from], table[from + 1]);
    larger[to] = table[from];
    larger[to + 1] = table[from + 1];
  }
  return larger;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#hash-set
/** A set of 64-bit hashes, each given as two whole numbers of 32 bits. Takes 12 to 24 bytes a member. */
export interface HashSet {
  readonly size: number;
  has(high: number, low: number): boolean;
  /** Adds a hash; false if it was there already. */
  add(high: number, low: number): boolean;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#hash-set-function
/** An empty set of hashes. */
export function hashSet(): HashSet {
  let table: Uint32Array = new Uint32Array(2 ** 11);
  let size = 0;
  const inTable = (low: number) => (low === 0 ? 1 : low) >>> 0; // two zeros mean an empty slot
  return {
    get size() {
      return size;
    },
    has: (high, low) => table[slotOf(table, high >>> 0, inTable(low)) + 1] !== 0,
    add: (high, low) => {
      const at = slotOf(table, high >>> 0, inTable(low));
      if (table[at + 1] !== 0) return false;
      table[at] = high;
      table[at + 1] = inTable(low);
      if (++size * 3 > table.length) table = grownTable(table); // two thirds of the slots, of two numbers each
      return true;
    },
  };
}

/** 64 bits of the SHA-256 of a text, in which a run of white space counts as one blank: equal texts have equal hashes. */
export function contentHash(text: string): [high: number, low: number] {
  const digest = crypto.createHash("sha256").update(text.replace(/\s+/g, " ").trim()).digest();
  return [digest.readUInt32LE(0), digest.readUInt32LE(4)];
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#word-scan
/** What a UTF-16 unit is to words: 0 between words, 1 part of one, 2 one by itself (Chinese, Japanese, emoji). */
export function wordClass(unit: number): 0 | 1 | 2 {
  if (unit < 0x80)
    return (unit >= 97 && unit <= 122) || (unit >= 48 && unit <= 57) || (unit >= 65 && unit <= 90) ? 1 : 0;
  if (unit < 0xc0) return unit === 0xaa || unit === 0xb5 || unit === 0xba ? 1 : 0;
  if (unit < 0x2000) return unit === 0xd7 || unit === 0xf7 ? 0 : 1;
  if (unit < 0x2e80 || (unit >= 0x3000 && unit < 0x3040)) return 0; // punctuation, arrows, signs
  return unit < 0xa000 || (unit >= 0xd800 && unit < 0xe000) ? 2 : 1;
}

/** Mixes 32 bits so that each bit of the result depends on each of the input (the end of MurmurHash3, by Austin Appleby). */
export function mixBits(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#word-hashes
/** A 32-bit hash of each word of a text, upper and lower case alike. Punctuation and white space only separate words. */
export function wordHashes(text: string): Int32Array {
  const lower = text.toLowerCase();
  const hashes = new Int32Array(lower.length);
  let [count, hash, length] = [0, 0, 0];
  for (let i = 0; i <= lower.length; i++) {
    const unit = i < lower.length ? lower.charCodeAt(i) : 0;
    const kind = wordClass(unit);
    if (kind !== 1 && length > 0) {
      hashes[count++] = mixBits(hash + length);
      hash = length = 0;
    }
    if (kind === 1) {
      hash = Math.imul(hash ^ unit, 0x01000193);
      length++;
    }
    if (kind === 2) hashes[count++] = mixBits(unit);
  }
  return hashes.subarray(0, count);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#shingle-hashes
/** Words in a shingle. */
export const SHINGLE_WORDS = 5;

/** A hash of each run of five words; of a text with fewer words, of the run of those it has. */
export function shingleHashes(words: Int32Array): Int32Array {
  const count = words.length > 0 ? Math.max(1, words.length - SHINGLE_WORDS + 1) : 0;
  const hashes = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    let hash = 0;
    for (let j = i; j < i + SHINGLE_WORDS && j < words.length; j++)
      hash = Math.imul(hash ^ words[j], 0x9e3779b1) + j - i;
    hashes[i] = mixBits(hash);
  }
  return hashes;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#signature
/** How many random orders a signature is made of. */
export const PERMUTATIONS = 128;
export const [MULTIPLIERS, ADDENDS] = ((random) => {
  const bits = () => Int32Array.from({ length: PERMUTATIONS }, () => Math.floor(random() * 2 ** 32) | 0);
  return [bits().map((word) => word | 1), bits()];
})(randomStream(1997));

/**
 * The MinHash signature of a text: for each of 128 random orders of all five-word shingles, a byte of the first of the text's
 * own (Broder 1997; Li and König 2010). Depends on the words alone, in upper or lower case; of a text without words, on all of it.
 */
export function textSignature(text: string): Uint8Array {
  const words = wordHashes(text);
  const shingles = words.length > 0 ? shingleHashes(words) : Int32Array.of(contentHash(text)[0]);
  const signature = new Uint8Array(PERMUTATIONS);
  for (let k = 0; k < PERMUTATIONS; k++) {
    const [multiplier, addend] = [MULTIPLIERS[k], ADDENDS[k]];
    let smallest = 0x7fffffff;
    for (let i = 0; i < shingles.length; i++) {
      const place = (Math.imul(multiplier, shingles[i]) + addend) | 0;
      if (place < smallest) smallest = place;
    }
    signature[k] = mixBits(smallest) & 255;
  }
  return signature;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#similarity
/**
 * The Jaccard similarity of two texts as their signatures (at an offset of larger arrays, if told) estimate it. Its standard
 * error is sqrt(J (1 - J) / 128), at most 0.044. Bytes that agree by accident, one in 256, are taken off.
 */
export function signatureSimilarity(a: Uint8Array, b: Uint8Array, atA = 0, atB = 0): number {
  let equal = 0;
  for (let k = 0; k < PERMUTATIONS; k++) if (a[atA + k] === b[atB + k]) equal++;
  return Math.max(0, (equal / PERMUTATIONS - 1 / 256) / (1 - 1 / 256));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#bands
/** The chance that two documents of Jaccard similarity `similarity` agree on a whole band. */
export function meetingChance(similarity: number, bands: number, rows: number): number {
  return 1 - (1 - similarity ** rows) ** bands;
}

/** The longest bands (of `rows` bytes), and as few of them, by which pairs at the threshold meet with the chance `found`. */
export function chooseBands(threshold: number, found = 0.99): { bands: number; rows: number } {
  for (let rows = PERMUTATIONS; rows > 1; rows--) {
    const bands = Math.max(1, Math.ceil(Math.log1p(-found) / Math.log1p(-(threshold ** rows))));
    if (bands * rows <= PERMUTATIONS) return { bands, rows };
  }
  throw new Error(
    `A threshold of ${threshold} is too low to be found with ${PERMUTATIONS} numbers a document.`,
  );
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#near-index
/** Documents by their signatures, to find those that are nearly the same. Takes about 250 bytes a document. */
export interface NearIndex {
  /** How many documents are in it. */
  readonly size: number;
  /** The number of a document that this one nearly equals, with the estimated similarity. */
  find(signature: Uint8Array): { document: number; similarity: number } | undefined;
  /** The same; if there is none, takes it in, as number size - 1. */
  findOrAdd(signature: Uint8Array): { document: number; similarity: number } | undefined;
}

/** Signatures in blocks of 2^16, so that nothing is copied when they grow in number. */
export interface SignatureStore {
  blocks: Uint8Array[];
  size: number;
}

/** Puts a signature at the end of a store. */
export function storeSignature(store: SignatureStore, signature: Uint8Array): void {
  const place = store.size & 0xffff;
  if (place === 0) store.blocks.push(new Uint8Array(PERMUTATIONS * 2 ** 16));
  store.blocks[store.size >>> 16].set(signature, place * PERMUTATIONS);
  store.size++;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#band-tables
/** The place in a table where a band's search begins. */
export function bandHash(bytes: Uint8Array, from: number, rows: number): number {
  let hash = rows;
  for (let i = from; i < from + rows; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return mixBits(hash);
}

/** Whether the bytes from `atA` of one array are those from `atB` of another. */
export function sameBytes(a: Uint8Array, atA: number, b: Uint8Array, atB: number, count: number): boolean {
  for (let i = 0; i < count; i++) if (a[atA + i] !== b[atB + i]) return false;
  return true;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#enter-band
/** Documents in one bucket; a fuller one takes no more. */
export const BUCKET_LIMIT = 8;

/** Enters document number `id` (the table holds id + 1; 0 is an empty slot) into the table of the band that begins at `from`. */
export function enterBand(
  table: Uint32Array,
  store: SignatureStore,
  id: number,
  from: number,
  rows: number,
): void {
  const [block, start] = [store.blocks[id >>> 16], (id & 0xffff) * PERMUTATIONS + from];
  let slot = bandHash(block, start, rows) & (table.length - 1);
  for (let met = 0; table[slot] !== 0; slot = (slot + 1) & (table.length - 1)) {
    const other = table[slot] - 1;
    const same = sameBytes(
      block,
      start,
      store.blocks[other >>> 16],
      (other & 0xffff) * PERMUTATIONS + from,
      rows,
    );
    if (same && ++met === BUCKET_LIMIT) return;
  }
  table[slot] = id + 1;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#search-band
/** The first document in a band's bucket that is similar enough. */
export function searchBand(
  table: Uint32Array,
  store: SignatureStore,
  signature: Uint8Array,
  band: { from: number; rows: number; atLeast: number },
): { document: number; similarity: number } | undefined {
  const { from, rows, atLeast } = band;
  let slot = bandHash(signature, from, rows) & (table.length - 1);
  for (; table[slot] !== 0; slot = (slot + 1) & (table.length - 1)) {
    const other = table[slot] - 1;
    const [block, start] = [store.blocks[other >>> 16], (other & 0xffff) * PERMUTATIONS];
    if (!sameBytes(signature, from, block, start + from, rows)) continue;
    const similarity = signatureSimilarity(signature, block, 0, start);
    if (similarity >= atLeast) return { document: other, similarity };
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#near-index-function
/**
 * An empty index that finds pairs with a Jaccard similarity of about `threshold` or more. Of pairs exactly there 99 % meet, and
 * two thirds of those pass the comparison, which asks for the threshold less half a standard error of the estimate.
 */
export function nearIndex(threshold = 0.8): NearIndex {
  const { bands, rows } = chooseBands(threshold);
  const atLeast = threshold - 0.5 * Math.sqrt((threshold * (1 - threshold)) / PERMUTATIONS);
  const store: SignatureStore = { blocks: [], size: 0 };
  const firsts = Array.from({ length: bands }, (_, band) => band * rows);
  let tables = firsts.map(() => new Uint32Array(2 ** 10));
  const grow = () => {
    tables = tables.map((old) => new Uint32Array(2 * old.length));
    for (let id = 0; id < store.size; id++)
      firsts.forEach((from, i) => enterBand(tables[i], store, id, from, rows));
  };
  const find = (signature: Uint8Array) => {
    for (let i = 0; i < bands; i++) {
      const found = searchBand(tables[i], store, signature, { from: firsts[i], rows, atLeast });
      if (found) return found;
    }
  };
  return {
    get size() {
      return store.size;
    },
    find,
    findOrAdd: (signature) => {
      const found = find(signature);
      if (found) return found;
      storeSignature(store, signature);
      firsts.forEach((from, i) => enterBand(tables[i], store, store.size - 1, from, rows));
      if (store.size * 4 > tables[0].length * 3) grow();
    },
  };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#recent-index
/** Documents of a generation: 2^20 take about 260 MB. */
export const GENERATION = 2 ** 20;

/**
 * An index that never takes more memory than two generations do: when one is full the next is begun, the one before is still
 * searched, and what is older is forgotten. So each document is compared with the last one to two million that stayed.
 */
export function recentIndex(threshold = 0.8, generation = GENERATION): NearIndex {
  let [older, newer] = [nearIndex(threshold), nearIndex(threshold)];
  let before = 0; // documents in all generations before the newer one
  const find = (signature: Uint8Array) => {
    const found = newer.find(signature);
    if (found) return { ...found, document: before + found.document };
    const old = older.find(signature);
    return old && { ...old, document: before - older.size + old.document };
  };
  return {
    get size() {
      return before + newer.size;
    },
    find,
    findOrAdd: (signature) => {
      const found = find(signature);
      if (found) return found;
      if (newer.size === generation) {
        before += generation;
        [older, newer] = [newer, nearIndex(threshold)];
      }
      newer.findOrAdd(signature);
    },
  };
}
