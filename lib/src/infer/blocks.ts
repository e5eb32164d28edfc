// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import { blockTokens } from "../kernels/flash.js";

//| 05-inference/3-many-at-once.ipynb#block-pool
/** A whole block whose content is known: what it holds after its predecessor. */
export interface PrefixEntry {
  /** No two entries ever have the same number. */
  number: number;
  block: number;
  key: string;
}

/** The blocks of a cache: who has them, what the whole ones hold, and which are free. */
export interface BlockPool {
  /** How many sequences have each block. */
  owners: Uint32Array;
  /** Blocks that nobody has and that hold nothing of use. */
  empty: number[];
  /** Blocks that nobody has, whose content may be asked for again: least recently used first. */
  idle: Set<number>;
  /** What is known of each block, and where to find it. */
  entries: (PrefixEntry | undefined)[];
  index: Map<string, PrefixEntry>;
  /** Entries made so far. */
  made: number;
}

//| 05-inference/3-many-at-once.ipynb#block-pool-2
/** A pool of `count` blocks, all of them free. */
export function blockPool(count: number): BlockPool {
  return {
    owners: new Uint32Array(count),
    empty: Array.from({ length: count }, (_, i) => count - 1 - i),
    idle: new Set(),
    entries: new Array<PrefixEntry | undefined>(count).fill(undefined),
    index: new Map(),
    made: 0,
  };
}

/** Blocks that can be taken. */
export function freeBlocks({ empty, idle }: BlockPool): number {
  return empty.length + idle.size;
}

//| 05-inference/3-many-at-once.ipynb#take-block
/** Takes a free block: an empty one, or else the one whose content was not used for the longest time, which is forgotten. */
export function takeBlock(pool: BlockPool): number | undefined {
  const block = pool.empty.pop() ?? pool.idle.values().next().value;
  if (block === undefined) return undefined;
  pool.idle.delete(block);
  const entry = pool.entries[block];
  if (entry) pool.index.delete(entry.key);
  pool.entries[block] = undefined;
  pool.owners[block] = 1;
  return block;
}

/** One owner more for a block that was found by its content. */
export function shareBlock(pool: BlockPool, block: number): void {
  pool.owners[block] += 1;
  pool.idle.delete(block);
}

/** Gives up a sequence's blocks, its last first: a block is of no use when one before it is gone. */
export function releaseBlocks(pool: BlockPool, blocks: number[]): void {
  for (const block of [...blocks].reverse()) {
    pool.owners[block] -= 1;
    if (pool.owners[block] > 0) continue;
    if (pool.entries[block]) pool.idle.add(block);
    else pool.empty.push(block);
  }
}

//| 05-inference/3-many-at-once.ipynb#prefix-index
/** The key of a block: the number of the entry before it, and its tokens. A Map compares keys whole, so that no two are mixed up. */
export function prefixKey(before: number, tokens: number[], at: number): string {
  return `${before}:${tokens.slice(at, at + blockTokens).join()}`;
}

/**
 * The whole blocks at the start of a text that are known already, but never all of its tokens: the last one has to be computed,
 * since its scores are wanted. `root` is what texts have to share besides their tokens.
 */
export function findPrefix({ index }: BlockPool, root: number, tokens: number[]): PrefixEntry[] {
  const found: PrefixEntry[] = [];
  let before = root;
  for (let at = 0; at + blockTokens < tokens.length; at += blockTokens) {
    const entry = index.get(prefixKey(before, tokens, at));
    if (!entry) break;
    found.push(entry);
    before = entry.number;
  }
  return found;
}

/** Makes known what a whole block holds: the 16 tokens from `at` on, after the entry `before`. Gives the number of the entry. */
export function enterBlock(
  pool: BlockPool,
  block: number,
  before: number,
  tokens: number[],
  at: number,
): number {
  const key = prefixKey(before, tokens, at);
  const earlier = pool.index.get(key);
  if (earlier) return earlier.number; // another sequence computed the same at the same time
  const entry = { number: ++pool.made, block, key };
  pool.index.set(key, entry);
  pool.entries[block] = entry;
  return entry.number;
}
