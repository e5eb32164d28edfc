// Extracted from chapters/02-attention/5-attention.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { type ScoresShape, causalSoftmaxKernel, headsKernel } from "../kernels/attention.js";
import { softmaxBackwardKernel } from "../kernels/softmax.js";
import { reshape, track } from "./autograd.js";
import { matmul } from "./products.js";
import { type Tensor, describe, launch } from "./tensor.js";

//| 02-attention/5-attention.ipynb#split-heads
/** x [batch, tokens, heads · headDim] as [batch, heads, tokens, headDim]: a matrix for each head. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, tokens, width] = x.shape;
  if (x.shape.length !== 3 || width % heads !== 0)
    throw new Error(
      `splitHeads wants [batch, tokens, width] with a width for ${heads} heads, not ${describe(x)}.`,
    );
  if (tokens === 1) return reshape(x, [batch, heads, 1, width / heads]); // they lie as they should
  const shape = { batch, tokens, heads, headDim: width / heads };
  const y = launch(headsKernel("split", shape), [x], [batch, heads, tokens, width / heads]);
  return track(y, [x], (gradient) => [launch(headsKernel("merge", shape), [gradient], x.shape)]);
}

//| 02-attention/5-attention.ipynb#merge-heads
/** x [batch, heads, tokens, headDim] as [batch, tokens, heads · headDim]: each token's heads side by side again. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch, heads, tokens, headDim] = x.shape;
  if (x.shape.length !== 4)
    throw new Error(`mergeHeads wants [batch, heads, tokens, headDim], not ${describe(x)}.`);
  if (tokens === 1) return reshape(x, [batch, 1, heads * headDim]);
  const shape = { batch, tokens, heads, headDim };
  const y = launch(headsKernel("merge", shape), [x], [batch, tokens, heads * headDim]);
  return track(y, [x], (gradient) => [launch(headsKernel("split", shape), [gradient], x.shape)]);
}

//| 02-attention/5-attention.ipynb#check-positions
/** Throws unless there is one position for each token, shared by all sequences or for each its own. */
export function checkPositions(positions: Tensor<"u32">, batch: number, tokens: number): void {
  const shape = positions.shape.join();
  if (shape !== `${tokens}` && shape !== `${batch},${tokens}`)
    throw new Error(
      `Positions must be [tokens] or [batch, tokens], here [${tokens}] or [${batch}, ${tokens}], not ${describe(positions)}.`,
    );
}

//| 02-attention/5-attention.ipynb#scores-shape-check
/** The sizes of scores [batch, heads, tokens, length] with their positions. Throws when the positions are not one for each token. */
export function scoresShape(scores: Tensor, positions: Tensor<"u32">): ScoresShape {
  const [batch, heads, tokens, length] = scores.shape;
  checkPositions(positions, batch, tokens);
  return { batch, heads, tokens, length, positionsPerSequence: positions.shape.length === 2 };
}

//| 02-attention/5-attention.ipynb#causal-softmax
/**
 * Softmax of `factor` · scores [batch, heads, tokens, length] over the keys that each query may see: key j if
 * j ≤ the query's position. The others get 0. `positions` is [tokens] or [batch, tokens].
 */
export function causalSoftmax(scores: Tensor, positions: Tensor<"u32">, factor: number): Tensor {
  const { facts } = currentGpu();
  const shape = scoresShape(scores, positions);
  const p = launch(causalSoftmaxKernel(shape, factor, facts), [scores, positions], scores.shape);
  const rows = shape.batch * shape.heads * shape.tokens;
  return track(p, [scores], (gradient) => [
    launch(softmaxBackwardKernel(rows, shape.length, facts, factor), [p, gradient], scores.shape),
  ]);
}

//| 02-attention/5-attention.ipynb#check-attention
/** Throws unless queries, keys and values fit each other. */
export function checkAttention(queries: Tensor, keys: Tensor, values: Tensor): void {
  const [batch, heads, , headDim] = queries.shape;
  const [batchK, kvHeads, length, headDimK] = keys.shape;
  const [batchV, kvHeadsV, lengthV] = values.shape;
  const same = batch === batchK && batch === batchV && kvHeads === kvHeadsV && length === lengthV;
  if (
    queries.shape.length !== 4 ||
    values.shape.length !== 4 ||
    !same ||
    headDim !== headDimK ||
    heads % kvHeads !== 0
  )
    throw new Error(
      `attention: queries ${describe(queries)}, keys ${describe(keys)} and values ${describe(values)} do not fit; ` +
        "they are [batch, heads, tokens, headDim], and the query heads a multiple of the others.",
    );
}

//| 02-attention/5-attention.ipynb#attention
/**
 * Causal attention with grouped queries: softmax(q·kᵀ / √headDim) · v, where query head h uses key and value head
 * h / (heads / kvHeads). Queries [batch, heads, tokens, headDim], keys and values [batch, kvHeads, length, headDim];
 * the result has the queries' shape. Key j is seen by the query at token t if j ≤ positions[t], so the same call serves
 * training (positions 0, 1, 2 …) and a cache of `length` keys, whose unused part must hold numbers (zeros).
 */
export function attention(queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor<"u32">): Tensor {
  checkAttention(queries, keys, values);
  const [batch, heads, tokens, headDim] = queries.shape;
  const [, kvHeads, length, valueDim] = values.shape;
  // The query heads of one key head are rows of one matrix: nothing is copied to share the keys.
  const grouped = [batch * kvHeads, (heads / kvHeads) * tokens];
  const matrices = (x: Tensor) => reshape(x, [batch * kvHeads, length, x.shape[3]]);
  const scores = matmul(reshape(queries, [...grouped, headDim]), matrices(keys), { transposeB: true });
  const visible = causalSoftmax(reshape(scores, [batch, heads, tokens, length]), positions, headDim ** -0.5);
  const mixed = matmul(reshape(visible, [...grouped, length]), matrices(values));
  return reshape(mixed, [batch, heads, tokens, valueDim]);
}
