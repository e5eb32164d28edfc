// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { checkFits } from "../gpu/buffers.js";
import { cacheWriteKernel } from "../kernels/cache.js";
import type { AttentionCache } from "../model/block.js";
import { type Tensor, launchInto, zeros } from "../tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#cache-bytes
/** Bytes that keys and values of `tokens` tokens take in all layers, in 32-bit floats. */
export function cacheBytes({ layers, kvHeads, headDim }: ModelConfig, tokens: number): number {
  return layers * 2 * kvHeads * tokens * headDim * 4;
}

//| 05-inference/2-the-cache.ipynb#write-cache
/** Writes new keys and values [1, kvHeads, tokens, headDim] into a layer's cache, and gives the whole of it. */
export function writeCache(
  cached: [Tensor, Tensor],
  fresh: [Tensor, Tensor],
  positions: Tensor<"u32">,
): [Tensor, Tensor] {
  const [, rows, capacity, headDim] = cached[0].shape;
  const kernel = cacheWriteKernel({ rows, tokens: positions.size, headDim, capacity });
  fresh.forEach((x, i) => launchInto(kernel, [x, positions], [cached[i]]));
  return cached;
}

//| 05-inference/2-the-cache.ipynb#key-value-cache
/** The keys and values of all tokens so far, so that a new token computes only its own. */
export interface KeyValueCache {
  /** Tokens that it can hold. */
  capacity: number;
  /** GPU memory that it takes. */
  bytes: number;
  /** The cache as a model's context wants it, for new tokens that stand at `positions` [tokens]. */
  at(positions: Tensor<"u32">): AttentionCache;
  free(): void;
}

/**
 * An empty cache for one sequence: for every layer keys and values [1, kvHeads, capacity, headDim], all zeros (attention
 * multiplies unused places by zero, so they must be numbers). Throws if the adapter cannot hold that many.
 */
export function keyValueCache(config: ModelConfig, capacity: number): KeyValueCache {
  const { layers, kvHeads, headDim } = config;
  checkFits(4 * kvHeads * capacity * headDim, `The keys of ${capacity} tokens`);
  const place = () => zeros([1, kvHeads, capacity, headDim]);
  const stored = Array.from({ length: layers }, (): [Tensor, Tensor] => [place(), place()]);
  return {
    capacity,
    bytes: cacheBytes(config, capacity),
    at: (positions) => ({
      extend: (layer, keys, values) => writeCache(stored[layer], [keys, values], positions),
    }),
    free: () => {
      for (const each of stored.flat()) each.free();
    },
  };
}
