// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { checkFits } from "../gpu/buffers.js";
import { cacheWriteKernel, int8CacheWriteKernel } from "../kernels/cache.js";
import { blockTokens } from "../kernels/flash.js";
import { cacheBytes } from "../model/count.js";
import type { AttentionCache } from "../model/structure.js";
import type { KeyValues } from "../tensor/attend.js";
import { blank } from "../tensor/embedding.js";
import { type Tensor, indices, launchInto, sizeOf } from "../tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#write-cache
/**
 * Writes new keys and values [batch, kvHeads, tokens, width] into a layer's cache, at the positions [tokens] or [batch, tokens], and
 * gives the whole of it. `capacity` is how many tokens it holds of a sequence. Without values, keys are both.
 */
export function writeCache(
  cached: KeyValues,
  fresh: { keys: Tensor; values?: Tensor },
  positions: Tensor<"u32">,
  capacity: number,
): KeyValues {
  const { blocks, int8 } = cached;
  const more = { positionsPerSequence: positions.shape.length === 2, tableBlocks: blocks?.shape[1] };
  for (const name of ["keys", "values"] as const) {
    const rows = fresh[name];
    if (!rows) continue;
    const [batch, heads, tokens, width] = rows.shape;
    const kernel = (int8 ? int8CacheWriteKernel : cacheWriteKernel)({
      rows: batch * heads,
      tokens,
      width,
      capacity,
      heads,
      ...more,
    });
    launchInto(kernel, [rows, positions, ...(blocks ? [blocks] : [])], [cached[name]]);
  }
  return cached;
}

//| 05-inference/2-the-cache.ipynb#cache-bytes-parts
/** Heads of keys that a token leaves in one layer, and the numbers of one. */
export function cacheRows({ kvHeads, headDim, latent }: ModelConfig): [heads: number, width: number] {
  return latent ? [1, latent.rank + latent.ropeDim] : [kvHeads, headDim];
}
/** How a cache keeps keys and values: as 32-bit floats, or as int8 with a scale for each row. */
export type CacheFormat = "f32" | "int8";

/** Words that a row of so many numbers takes. Throws for one that is not whole words. */
export function rowWords(width: number, format: CacheFormat): number {
  if (format === "f32") return width;
  if (width % 4 === 0) return width / 4 + 1;
  throw new Error(
    `A cache of int8 wants heads whose width is a multiple of 4, not ${width}: keep it in f32.`,
  );
}

/** Bytes of a number in a cache of a model, with its part of what its row needs besides. */
export function cachedNumberBytes(config: ModelConfig, format: CacheFormat): number {
  const [, width] = cacheRows(config);
  return (4 * rowWords(width, format)) / width;
}

//| 05-inference/2-the-cache.ipynb#key-value-cache
/** The keys and values of all tokens so far, so that a new token computes only its own. */
export interface KeyValueCache {
  /** Tokens that it can hold of a sequence. */
  capacity: number;
  /** GPU memory that it takes. */
  bytes: number;
  /**
   * The cache as a model's context wants it, for new tokens that stand at `positions` [tokens] or [batch, tokens]. `tables` are the
   * blocks of each of these sequences [batch, blocks], where the cache has no tables of its own.
   */
  at(positions: Tensor<"u32">, tables?: Tensor<"u32">): AttentionCache;
  free(): void;
}

/**
 * A cache on memory for each layer: all zeros, since attention may multiply unused places by zero, so that they must be numbers.
 * It has `count` sequences or blocks, each of `tokens` tokens.
 */
export function cacheOf(
  config: ModelConfig,
  [count, tokens]: [number, number],
  capacity: number,
  { blocks, format = "f32" }: { blocks?: Tensor<"u32">; format?: CacheFormat } = {},
): KeyValueCache {
  const [heads, width] = cacheRows(config);
  const shape = [count, heads, tokens, rowWords(width, format)];
  checkFits(sizeOf(shape) * Float32Array.BYTES_PER_ELEMENT, `The keys of ${capacity} tokens`);
  const int8 = format === "int8" ? true : undefined; // words are as wide as floats, and zero in both
  const stored = Array.from({ length: config.layers }, (): KeyValues => {
    const keys = blank(shape);
    return { keys, values: config.latent ? keys : blank(shape), int8 };
  });
  return {
    capacity,
    bytes: cacheBytes(config, count * tokens, cachedNumberBytes(config, format)),
    at: (positions, tables = blocks) => ({
      extend: (layer, keys, values) => {
        const cached = { ...stored[layer], blocks: tables };
        const length = tables ? tables.shape[1] * tokens : capacity;
        return writeCache(cached, { keys, values }, positions, length);
      },
    }),
    free: () => {
      for (const { keys, values } of stored) for (const tensor of new Set([keys, values])) tensor.free();
      blocks?.free();
    },
  };
}

/**
 * An empty cache for `batch` sequences: for every layer keys and values [batch, kvHeads, capacity, headDim], or latent rows
 * [batch, 1, capacity, rank + ropeDim]. Throws if the adapter cannot hold that many.
 */
export function keyValueCache(
  config: ModelConfig,
  capacity: number,
  batch = 1,
  format?: CacheFormat,
): KeyValueCache {
  return cacheOf(config, [batch, capacity], capacity, { format });
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
  return cacheOf(config, [blockCount, blockTokens], blockTokens * tables[0].length, { blocks });
}

//| 05-inference/2-the-cache.ipynb#block-memory
/** A cache of so many blocks of 16 tokens, for sequences whose tables come with each use of it. */
export function blockMemory(config: ModelConfig, blockCount: number, format?: CacheFormat): KeyValueCache {
  return cacheOf(config, [blockCount, blockTokens], blockCount * blockTokens, { format });
}
