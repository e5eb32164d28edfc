// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { blockTokens } from "./flash.js";

//| 05-inference/2-the-cache.ipynb#cache-shape
/** New keys (or values) of some tokens, and the cache they are put into. */
export interface CacheShape {
  /** Batch times heads. */
  rows: number;
  /** New tokens a row. */
  tokens: number;
  /** Numbers of a key, or of a value. */
  width: number;
  /** Tokens that the cache holds of a sequence. */
  capacity: number;
  /** Heads of a sequence, where there are several sequences; else they are all of one. */
  heads?: number;
  /** Whether positions are [batch, tokens] and not [tokens]. */
  positionsPerSequence?: boolean;
  /** Blocks in each sequence's table, where the cache is paged. */
  tableBlocks?: number;
}

//| 05-inference/2-the-cache.ipynb#cache-write-kernel
/**
 * Writes x [rows, tokens, width] into the cache [rows, capacity, width]: token t goes to place positions[t]. Tokens beyond
 * the end are dropped, so that a chunk may be padded. Reads x and positions, writes the cache in place. With `tableBlocks` the cache
 * is paged, [blocks, heads, 16, width], and the tables [batch, tableBlocks] are read too. All shapes share one compiled kernel.
 */
export function cacheWriteKernel({ rows, tokens, width, capacity, ...more }: CacheShape): Kernel {
  const { heads = rows, positionsPerSequence = false, tableBlocks = 0 } = more;
  const size = rows * tokens * width;
  const positionStep = positionsPerSequence ? tokens : 0;
  const dense = "row * sizes.capacity + place";
  const block = `blocks[sequence * sizes.tableBlocks + place / ${blockTokens}u]`;
  const paged = `(${block} * sizes.heads + row % sizes.heads) * ${blockTokens}u + place % ${blockTokens}u`;
  return kernel({
    name: `cache write ${rows}x${tokens}x${width} into ${capacity}`,
    reads: ["x: array<f32>", "positions: array<u32>", ...(tableBlocks > 0 ? ["blocks: array<u32>"] : [])],
    writes: ["cache: array<f32>"],
    sizes: { size, tokens, width, capacity, heads, positionStep, tableBlocks },
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= sizes.size) { return; }
  let column = thread % sizes.width;
  let token = thread / sizes.width % sizes.tokens;
  let row = thread / (sizes.width * sizes.tokens);
  let sequence = row / sizes.heads;
  let place = positions[sequence * sizes.positionStep + token];
  if (place < sizes.capacity) { cache[(${tableBlocks > 0 ? paged : dense}) * sizes.width + column] = x[thread]; }`,
  });
}
