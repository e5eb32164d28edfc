// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { checkFits } from "../gpu/buffers.js";
import { cacheWriteKernel } from "../kernels/cache.js";
import { blockTokens } from "../kernels/flash.js";
import type { AttentionCache } from "../model/block.js";
import type { KeyValues } from "../tensor/attend.js";
import { type Tensor, indices, launchInto, sizeOf, zeros } from "../tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#write-cache
/**
 * Writes new keys and values [batch, kvHeads, tokens, width] into a layer's cache, at the positions [tokens] or [batch, tokens], and
 * gives the whole of it. `capacity` is how many tokens it holds of a sequence.
 */
export function writeCache(
  cached: KeyValues,
  fresh: { keys: Tensor; values: Tensor },
  positions: Tensor<"u32">,
  capacity: number,
): KeyValues {
  const { blocks } = cached;
  const more = { positionsPerSequence: positions.shape.length === 2, tableBlocks: blocks?.shape[1] };
  for (const name of ["keys", "values"] as const) {
    const [batch, heads, tokens, width] = fresh[name].shape;
    const kernel = cacheWriteKernel({ rows: batch * heads, tokens, width, capacity, heads, ...more });
    launchInto(kernel, [fresh[name], positions, ...(blocks ? [blocks] : [])], [cached[name]]);
  }
  return cached;
}

//| 05-inference/2-the-cache.ipynb#key-value-cache
/** The keys and values of all tokens so far, so that a new token computes only its own. */
export interface KeyValueCache {
  /** Tokens that it can hold of a sequence. */
  capacity: number;
  /** GPU memory that it takes. */
  bytes: number;
  /** The cache as a model's context wants it, for new tokens that stand at `positions` [tokens] or [batch, tokens]. */
  at(positions: Tensor<"u32">): AttentionCache;
  free(): void;
}

/** A cache on memory for each layer: all zeros, since attention may multiply unused places by zero, so that they must be numbers. */
export function cacheOf(
  { layers, headDim }: ModelConfig,
  rows: number[],
  capacity: number,
  blocks?: Tensor<"u32">,
): KeyValueCache {
  const shape = [...rows, headDim];
  const bytes = sizeOf(shape) * Float32Array.BYTES_PER_ELEMENT;
  checkFits(bytes, `The keys of ${capacity} tokens`);
  const stored = Array.from(
    { length: layers },
    (): KeyValues => ({ keys: zeros(shape), values: zeros(shape), blocks }),
  );
  return {
    capacity,
    bytes: 2 * layers * bytes,
    at: (positions) => ({
      extend: (layer, keys, values) => writeCache(stored[layer], { keys, values }, positions, capacity),
    }),
    free: () => {
      for (const { keys, values } of stored) for (const tensor of [keys, values]) tensor.free();
      blocks?.free();
    },
  };
}

/**
 * An empty cache for `batch` sequences: for every layer keys and values [batch, kvHeads, capacity, headDim]. Throws if the adapter
 * cannot hold that many.
 */
export function keyValueCache(config: ModelConfig, capacity: number, batch = 1): KeyValueCache {
  return cacheOf(config, [batch, config.kvHeads, capacity], capacity);
}

//| 05-inference/2-the-cache.ipynb#paged-cache
/**
 * A cache for several sequences in blocks of 16 tokens: for every layer keys and values [blocks, kvHeads, 16, headDim]. `tables` says for
 * each sequence which blocks are its own, in order, as many for each.
 */
export function pagedCache(config: ModelConfig, blockCount: number, tables: number[][]): KeyValueCache {
  const blocks = indices(tables.flat(), [tables.length, tables[0].length]);
  const wrong = tables.flat().find((block) => block >= blockCount);
  if (wrong !== undefined) throw new Error(`Block ${wrong} is not one of the cache's ${blockCount}.`);
  return cacheOf(config, [blockCount, config.kvHeads, blockTokens], blockTokens * tables[0].length, blocks);
}
