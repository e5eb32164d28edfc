// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { type Tensor, sizeOf } from "../tensor/tensor.js";
import { modelFamilies, weightsOf } from "./families.js";
import { type Block, type Model, type ModelWeight, buildModel } from "./structure.js";

//| 03-moe/5-the-families.ipynb#outline
/** The structure of a configuration's model, with the shapes of its weights and without their numbers. Needs no GPU. */
export function modelOutline(config: ModelConfig): Model {
  return buildModel(
    config,
    modelFamilies[config.modelType],
    ({ shape }) => ({ shape, size: sizeOf(shape) }) as unknown as Tensor,
  );
}

//| 03-moe/5-the-families.ipynb#is-stacked
/** Whether a weight holds those of all experts of a layer: it has one dimension more than its role has otherwise. */
export function isStacked({ role, shape }: ModelWeight): boolean {
  return shape.length > (["norm", "bias", "buffer"].includes(role) ? 1 : 2);
}

//| 03-moe/5-the-families.ipynb#count-parameters
/** How many numbers a model has: `total`, and `active`, those that one token meets on its way. */
export interface ParameterCount {
  total: number;
  active: number;
}

/**
 * Counts the parameters of a model: what gradients change, so no buffers. Experts that a token does not visit are not active; a tied
 * table counts once.
 */
export function countParameters(config: ModelConfig): ParameterCount {
  const count = { total: 0, active: 0 };
  const { expertsPerToken = 1 } = config.moe ?? {};
  for (const weight of weightsOf(config)) {
    if (weight.role === "buffer") continue; // what no gradient reaches is no parameter
    const size = sizeOf(weight.shape);
    count.total += size;
    count.active += isStacked(weight) ? (size / weight.shape[0]) * expertsPerToken : size;
  }
  return count;
}

//| 03-moe/5-the-families.ipynb#seen-keys
/** The keys that a token sees on average in a text of `context` tokens, itself counted half. */
export function seenKeys(context: number, window = context): number {
  const width = Math.min(window, context);
  return width - width ** 2 / (2 * Math.max(1, context));
}

/** Multiplications and additions of a layer's attention without those with weights, for one token: scores, and sums of values. */
export function attentionFlops(attention: Block["attention"], context: number): number {
  if (attention.kind === "latent") {
    const { q, nopeDim, ropeDim, valueDim } = attention;
    const width = nopeDim + ropeDim;
    return 2 * (q.weight.shape[0] / width) * (width + valueDim) * seenKeys(context);
  }
  const { q, window } = attention;
  return 2 * (q.weight.shape[0] + q.weight.shape[0]) * seenKeys(context, window);
}

//| 03-moe/5-the-families.ipynb#flops
/** Floating-point operations that one token takes: to be read, and to be learned from. */
export interface TokenFlops {
  forward: number;
  training: number;
}

/**
 * Floating-point operations of one token in texts of `context` tokens: two for each weight that it is multiplied with, and those
 * of causal attention, 2 · heads · (key width + value width) for each key seen. Training takes three times as many. What is only
 * looked up in a table costs nothing; a tied table is multiplied with as the last layer.
 */
export function flopsPerToken(config: ModelConfig, context: number): TokenFlops {
  const { embedding, positions, blocks } = modelOutline(config);
  const lookedUp = (config.tied ? 0 : sizeOf(embedding.shape)) + (positions ? sizeOf(positions.shape) : 0);
  const products = 2 * (countParameters(config).active - lookedUp);
  const forward = blocks.reduce((sum, { attention }) => sum + attentionFlops(attention, context), products);
  return { forward, training: 3 * forward };
}

//| 03-moe/5-the-families.ipynb#stored-dtypes
/** Bytes that a row of so many numbers takes, by how it is stored: int8 has a scale of 4 bytes a row, int4 one of 2 bytes for 32 numbers, MXFP4 one of 1 byte. */
export const storedDtypes = {
  f32: (length: number) => 4 * length,
  bf16: (length: number) => 2 * length,
  int8: (length: number) => length + 4,
  int4: (length: number) => length / 2 + 2 * Math.ceil(length / 32),
  mxfp4: (length: number) => length / 2 + Math.ceil(length / 32),
};

export type StoredDtype = keyof typeof storedDtypes;

//| 03-moe/5-the-families.ipynb#weight-bytes
/**
 * Bytes of a model's weights when the matrices of its blocks are stored so; in fewer than 16 bits the rest (tables, norms, biases,
 * routers) stays in 16. In MXFP4 it is the experts alone that are, where a model has some, as gpt-oss is published.
 */
export function weightBytes(config: ModelConfig, dtype: StoredDtype): number {
  const others = dtype === "f32" ? "f32" : "bf16";
  const isPacked = (weight: ModelWeight) =>
    (weight.role === "matrix" || weight.role === "residual") &&
    (dtype !== "mxfp4" || !config.moe || isStacked(weight));
  return weightsOf(config).reduce((sum, weight) => {
    const length = weight.shape[weight.shape.length - 1];
    return sum + (sizeOf(weight.shape) / length) * storedDtypes[isPacked(weight) ? dtype : others](length);
  }, 0);
}

//| 03-moe/5-the-families.ipynb#cached-numbers
/** Numbers that a token leaves in the cache of a layer: its keys and values, or the one row from which latent attention makes them. */
export function cachedNumbers(attention: Block["attention"]): number {
  if (attention.kind === "latent") return attention.kvDown.weight.shape[0] + attention.ropeDim;
  return attention.k.weight.shape[0] + attention.v.weight.shape[0];
}

//| 03-moe/5-the-families.ipynb#cache-bytes
/**
 * Bytes of all that the next token looks at of `tokens` tokens before it: keys and values of every layer, in layers with a window
 * those of its last tokens; `bytesPerNumber` is 4 for f32.
 */
export function cacheBytes(config: ModelConfig, tokens: number, bytesPerNumber = 4): number {
  const numbers = modelOutline(config).blocks.map(({ attention }) => {
    const window = attention.kind === "heads" ? (attention.window ?? tokens) : tokens;
    return cachedNumbers(attention) * Math.min(window, tokens);
  });
  return bytesPerNumber * numbers.reduce((sum, count) => sum + count, 0);
}
