// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  type FlashForm,
  type FlashShape,
  flashForm,
  flashKernel,
  flashKeyGradientKernel,
  flashQueryGradientKernel,
  groupedRows,
  keyRangesKernel,
  queryTiles,
  rowFactsKernel,
} from "../kernels/flash.js";
import { prefersSubgroups } from "../kernels/wgsl.js";
import { isTracked, track } from "../tensor/autograd.js";
import { sumToShape } from "../tensor/operations.js";
import { type DType, type Tensor, describe, empty, launch, launchInto } from "../tensor/tensor.js";
import { attention, checkAttention } from "./attention.js";

//| 02-attention/7-the-fused-kernel.ipynb#flash-options
/** What attention does beside the causal rule. */
export interface FlashOptions {
  /** Scores are multiplied by this; 1/√headDim unless given. */
  scale?: number;
  /** A query sees the `window` last keys up to its position and no earlier ones. */
  window?: number;
  /** Scores are bounded smoothly: softcap · tanh(score / softcap), as in Gemma 2. */
  softcap?: number;
  /** f32 [heads]: a learned score for each head that takes a share and gives no value, as in gpt-oss. */
  sinks?: Tensor;
  /** u32, of the positions' shape: the first key that each query may see, such as the first of its document. */
  starts?: Tensor<"u32">;
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-shape-of
/** The sizes of fused attention on these tensors. */
export function flashShape(queries: Tensor, keys: Tensor, options: FlashOptions): FlashShape {
  const [batch, heads, tokens, headDim] = queries.shape;
  const [, kvHeads, length] = keys.shape;
  const { scale = headDim ** -0.5, softcap = 0, sinks } = options;
  return { batch, heads, kvHeads, tokens, length, headDim, scale, softcap, sinks: sinks !== undefined };
}

/** The tables of which keys each query row, and each tile of rows, may see. */
export function keyRanges(
  shape: FlashShape,
  form: FlashForm,
  positions: Tensor<"u32">,
  { window = 0, starts }: FlashOptions,
): Tensor<"u32">[] {
  const sequences = positions.shape.length === 2 ? shape.batch : 1;
  const rows = groupedRows(shape);
  const ranges = empty([sequences, rows, 2], "u32");
  const tiles = empty([sequences, queryTiles(shape, form), 2], "u32");
  const kernel = keyRangesKernel(shape, { sequences, window, starts: starts !== undefined }, form);
  launchInto(kernel, starts ? [positions, starts] : [positions], [ranges, tiles]);
  return [ranges, tiles];
}

//| 02-attention/7-the-fused-kernel.ipynb#check-flash
/** Throws unless everything that fused attention is given fits together. */
export function checkFlash(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor<"u32">,
  { sinks, starts }: FlashOptions,
): void {
  checkAttention(queries, keys, values);
  const [batch, heads, tokens, headDim] = queries.shape;
  if (headDim % 4 !== 0 || values.shape[3] !== headDim)
    throw new Error(
      `flashAttention wants heads of one width, a multiple of 4, not ${describe(queries)} and ${describe(values)}.`,
    );
  const wanted = positions.shape.length === 2 ? [batch, tokens] : [tokens];
  for (const each of starts ? [positions, starts] : [positions])
    if (each.shape.join() !== wanted.join())
      throw new Error(
        `Positions and starts must be [tokens] or [batch, tokens], here [${tokens}] or [${batch}, ${tokens}], not ${describe(each)}.`,
      );
  if (sinks && sinks.shape.join() !== `${heads}`)
    throw new Error(`flashAttention wants one sink for each of ${heads} heads, not ${describe(sinks)}.`);
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-backward
/** The gradients of queries, keys, values and sinks from what forward left: [q, k, v], the tables, y and log-sums. */
export function flashGradients(
  shape: FlashShape,
  form: FlashForm,
  [queries, keys, values]: Tensor[],
  tables: Tensor<"u32">[],
  { y, logSums, sinks }: { y: Tensor; logSums: Tensor; sinks?: Tensor },
  gradient: Tensor,
): (Tensor | undefined)[] {
  const [ranges, tiles] = tables;
  const sequences = ranges.shape[0];
  const facts = empty([...logSums.shape, 4]);
  const parts = sinks ? [empty([shape.batch, shape.tokens, shape.heads])] : [];
  const known: Tensor<DType>[] = [y, gradient, logSums, ranges, ...(sinks ? [sinks] : [])];
  launchInto(rowFactsKernel(shape, sequences), known, [facts, ...parts]);
  const inputs: Tensor<DType>[] = [queries, keys, values, gradient, facts, tiles];
  const found: (Tensor | undefined)[] = [undefined, undefined, undefined];
  if (isTracked(queries))
    found[0] = launch(flashQueryGradientKernel(shape, form, sequences), inputs, queries.shape);
  if (isTracked(keys) || isTracked(values)) {
    const both = [empty(keys.shape), empty(values.shape)];
    launchInto(flashKeyGradientKernel(shape, form, sequences), inputs, both);
    [found[1], found[2]] = both;
  }
  return [...found, ...parts.map((each) => sumToShape(each, [shape.heads]))];
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-attention
/**
 * Attention as `attention` computes it, in memory that grows with the length and not with its square. Queries
 * [batch, heads, tokens, headDim], keys and values [batch, kvHeads, length, headDim], headDim a multiple of 4; key j is seen
 * by the query at token t if starts[t] ≤ j ≤ positions[t] and positions[t] − j < window. The result has the queries' shape.
 * The kernels' form is chosen for the adapter unless given. FlashAttention-2 (Dao, 2023), with the running softmax of Milakov and Gimelshein (2018).
 */
export function flashAttention(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor<"u32">,
  options: FlashOptions = {},
  chosen?: FlashForm,
): Tensor {
  checkFlash(queries, keys, values, positions, options);
  const shape = flashShape(queries, keys, options);
  const form = chosen ?? flashForm(shape, currentGpu().facts);
  const tables = keyRanges(shape, form, positions, options);
  const { sinks } = options;
  const [y, logSums] = [empty(queries.shape), empty(queries.shape.slice(0, 3))];
  const own = [queries, keys, values];
  const inputs: Tensor<DType>[] = [...own, ...tables, ...(sinks ? [sinks] : [])];
  launchInto(flashKernel(shape, form, tables[0].shape[0]), inputs, [y, logSums]);
  return track(y, sinks ? [...own, sinks] : own, (gradient) =>
    flashGradients(shape, form, own, tables, { y, logSums, sinks }, gradient),
  );
}

//| 02-attention/7-the-fused-kernel.ipynb#causal-attention
/**
 * Causal attention as the blocks of a model use it: fused where the heads' width is a multiple of 4, else by `attention`.
 * So too for few queries on a graphics processor: a lane a row would leave nearly all of it idle. With `starts`, the first key that
 * each query may see, it is always fused.
 */
export function causalAttention(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  positions: Tensor<"u32">,
  starts?: Tensor<"u32">,
): Tensor {
  if (starts) return flashAttention(queries, keys, values, positions, { starts });
  const [, , tokens, headDim] = queries.shape;
  const enough = prefersSubgroups(currentGpu().facts) || tokens >= 64;
  return (headDim % 4 === 0 && enough ? flashAttention : attention)(queries, keys, values, positions);
}
