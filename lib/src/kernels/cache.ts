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

//| 05-inference/2-the-cache.ipynb#cache-row
/** WGSL: the row of the cache for a `row` and its `sequence` at a `place`. */
export function cacheRow(paged: boolean): string {
  if (!paged) return "row * sizes.capacity + place";
  const block = `blocks[sequence * sizes.tableBlocks + place / ${blockTokens}u]`;
  return `(${block} * sizes.heads + row % sizes.heads) * ${blockTokens}u + place % ${blockTokens}u`;
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
  if (place < sizes.capacity) { cache[(${cacheRow(tableBlocks > 0)}) * sizes.width + column] = x[thread]; }`,
  });
}

//| 05-inference/2-the-cache.ipynb#cache-write-int8
/** The same into a cache of int8 [rows, capacity, width / 4 + 1], in words: four numbers in each, and the row's scale in the last. An invocation writes a row. */
export function int8CacheWriteKernel({ rows, tokens, width, capacity, ...more }: CacheShape): Kernel {
  const { heads = rows, positionsPerSequence = false, tableBlocks = 0 } = more;
  const positionStep = positionsPerSequence ? tokens : 0;
  return kernel({
    name: `int8 cache write ${rows}x${tokens}x${width} into ${capacity}`,
    reads: ["x: array<vec4f>", "positions: array<u32>", ...(tableBlocks > 0 ? ["blocks: array<u32>"] : [])],
    writes: ["cache: array<u32>"],
    sizes: { size: rows * tokens, tokens, words: width / 4, capacity, heads, positionStep, tableBlocks },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * tokens) / 64),
    body: `
  if (thread >= sizes.size) { return; }
  let token = thread % sizes.tokens;
  let row = thread / sizes.tokens;
  let sequence = row / sizes.heads;
  let place = positions[sequence * sizes.positionStep + token];
  if (place >= sizes.capacity) { return; }
  let start = thread * sizes.words;
  var fours = vec4f();
  for (var i = 0u; i < sizes.words; i++) { fours = max(fours, abs(x[start + i])); }
  let largest = max(max(fours.x, fours.y), max(fours.z, fours.w));
  let scale = largest / 127.0;
  let own = (${cacheRow(tableBlocks > 0)}) * (sizes.words + 1u);
  for (var i = 0u; i < sizes.words; i++) {
    let codes = vec4i(clamp(round(x[start + i] / select(1.0, scale, scale > 0.0)), vec4f(-127.0), vec4f(127.0)));
    let bytes = bitcast<vec4u>(codes) & vec4u(255u);
    cache[own + i] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
  }
  cache[own + sizes.words] = bitcast<u32>(scale);`,
  });
}
