// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 05-inference/2-the-cache.ipynb#cache-shape
/** New keys (or values) of some tokens, and the cache they are put into. */
export interface CacheShape {
  /** Batch times heads. */
  rows: number;
  /** New tokens a row. */
  tokens: number;
  headDim: number;
  /** Tokens that the cache holds a row. */
  capacity: number;
}

//| 05-inference/2-the-cache.ipynb#cache-write-kernel
/**
 * Writes x [rows, tokens, headDim] into the cache [rows, capacity, headDim]: token t goes to place positions[t]. Tokens
 * beyond the end are dropped, so that a chunk may be padded. Reads x and positions, writes the cache in place.
 */
export function cacheWriteKernel({ rows, tokens, headDim, capacity }: CacheShape): Kernel {
  const size = rows * tokens * headDim;
  return kernel({
    name: `cache write ${rows}x${tokens}x${headDim} into ${capacity}`,
    reads: ["x: array<f32>", "positions: array<u32>"],
    writes: ["cache: array<f32>"],
    sizes: { size, tokens, headDim, capacity },
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= sizes.size) { return; }
  let column = thread % sizes.headDim;
  let token = thread / sizes.headDim % sizes.tokens;
  let row = thread / (sizes.headDim * sizes.tokens);
  let place = positions[token];
  if (place < sizes.capacity) { cache[(row * sizes.capacity + place) * sizes.headDim + column] = x[thread]; }`,
  });
}
