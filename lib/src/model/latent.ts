// Extracted from chapters/02-attention/8-local-attention-sinks-latent-caches.ipynb: edit it there, or here and run `npm run backport`.
import { type KeyValues, attend } from "../tensor/attend.js";
import { mergeHeads, splitHeads } from "../tensor/attention.js";
import { isTracked, reshape, tape } from "../tensor/autograd.js";
import { joinColumns, someColumns } from "../tensor/columns.js";
import { denseWeight, linear, matmul } from "../tensor/products.js";
import { rope } from "../tensor/rope.js";
import { rmsNorm } from "../tensor/rows.js";
import { type Tensor, view } from "../tensor/tensor.js";
import type { BlockContext, Latent } from "./structure.js";

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#latent-parts
/** Queries of all heads, their last ropeDim elements turned: x [batch, tokens, hidden] to [batch, heads, tokens, nopeDim + ropeDim]. */
export function latentQueries(x: Tensor, layer: Latent, { positions, ropeTable }: BlockContext): Tensor {
  const { qDown, qNorm, q, nopeDim, ropeDim, interleaved } = layer;
  const narrow = qDown ? linear(x, qDown.weight, qDown) : x;
  const projected = linear(qNorm ? rmsNorm(narrow, qNorm.weight, qNorm.epsilon) : narrow, q.weight, q);
  const queries = splitHeads(projected, projected.shape[2] / (nopeDim + ropeDim));
  return rope(queries, positions, ropeTable!, { from: nopeDim, interleaved });
}

/** What tokens leave for all heads: their latent rows [batch, tokens, rank], and their keys that turn [batch, 1, tokens, ropeDim]. */
export function latentRows(x: Tensor, layer: Latent, { positions, ropeTable }: BlockContext) {
  const { kvDown, kvNorm, ropeKey, interleaved } = layer;
  const latent = rmsNorm(linear(x, kvDown.weight, kvDown), kvNorm.weight, kvNorm.epsilon);
  const key = splitHeads(linear(x, ropeKey.weight, ropeKey), 1);
  return { latent, turned: rope(key, positions, ropeTable!, { interleaved }) };
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#expanded
/** What scores are multiplied by. */
export function latentScale({ scale, nopeDim, ropeDim }: Latent): number {
  return scale ?? (nopeDim + ropeDim) ** -0.5;
}

/**
 * Latent attention for training: every head's keys and values are made. Queries [batch, heads, tokens, nopeDim + ropeDim] and
 * what tokens leave to [batch, tokens, heads · valueDim].
 */
export function expandedAttention(
  queries: Tensor,
  { latent, turned }: ReturnType<typeof latentRows>,
  layer: Latent,
  { positions, firstKey }: BlockContext,
): Tensor {
  const [, heads] = queries.shape;
  const [still, values] = [layer.keyUp, layer.valueUp].map((up) =>
    splitHeads(linear(latent, up.weight, up), heads),
  );
  const keys = joinColumns(still, turned);
  return mergeHeads(attend(queries, { keys, values }, { positions, firstKey }, { scale: layer.scale }));
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#absorbed
/** x [batch, heads, tokens, width] as [heads, batch · tokens, width]: a matrix for each head. */
export function headsFirst(x: Tensor): Tensor {
  const [batch, heads, tokens, width] = x.shape;
  const together =
    batch === 1 ? x : splitHeads(reshape(mergeHeads(x), [1, batch * tokens, heads * width]), heads);
  return reshape(together, [heads, batch * tokens, width]);
}

/** The way back: x [heads, batch · tokens, width] as [batch, tokens, heads · width]. */
export function headsMerged(x: Tensor, batch: number): Tensor {
  const [heads, rows, width] = x.shape;
  return reshape(mergeHeads(reshape(x, [1, heads, rows, width])), [batch, rows / batch, heads * width]);
}

/** Queries that look at latent rows: [batch, heads, tokens, nopeDim + ropeDim] to [batch, heads, tokens, rank + ropeDim]. */
export function absorbedQueries(queries: Tensor, { keyUp, nopeDim, ropeDim }: Latent): Tensor {
  const [batch, heads] = queries.shape;
  const matrices = view(denseWeight(keyUp.weight, "keyUp"), [heads, nopeDim, keyUp.weight.shape[1]]);
  const absorbed = matmul(headsFirst(someColumns(queries, 0, nopeDim)), matrices);
  return joinColumns(splitHeads(headsMerged(absorbed, batch), heads), someColumns(queries, nopeDim, ropeDim));
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#absorbed-attention
/**
 * Latent attention for writing: nothing is made of earlier tokens. Queries [batch, heads, tokens, nopeDim + ropeDim] look at the
 * rows that all tokens left, as keys and as values [batch, 1, length, rank + ropeDim]. Result: [batch, tokens, heads · valueDim].
 * It has no gradients.
 */
export function absorbedAttention(
  queries: Tensor,
  kept: KeyValues,
  layer: Latent,
  { positions, firstKey }: BlockContext,
): Tensor {
  const { valueUp, valueDim } = layer;
  const [batch, heads] = queries.shape;
  const rank = valueUp.weight.shape[1];
  const mixed = attend(
    absorbedQueries(queries, layer),
    kept,
    { positions, firstKey },
    { scale: latentScale(layer) },
  );
  const matrices = view(denseWeight(valueUp.weight, "valueUp"), [heads, valueDim, rank]);
  const values = matmul(headsFirst(someColumns(mixed, 0, rank)), matrices, { transposeB: true });
  return headsMerged(values, batch);
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#latent-layer
/**
 * Multi-head latent attention (DeepSeek-V2, 2024) with its projections: x [batch, tokens, hidden], normalised, to what the block
 * adds to its input, or where that input is given as `residual`, to the sum. Without a cache every head's keys and values are
 * made; with one, queries look at the rows that it holds.
 */
export function latentAttention(x: Tensor, layer: Latent, context: BlockContext, residual?: Tensor): Tensor {
  if (!context.ropeTable)
    throw new Error(
      "Latent attention turns a part of its keys, and the context has no table of turns: make it with ropeTables.",
    );
  const queries = latentQueries(x, layer, context);
  const rows = latentRows(x, layer, context);
  if (!context.cache)
    return linear(expandedAttention(queries, rows, layer, context), layer.o.weight, { ...layer.o, residual });
  if (tape.paused === 0 && isTracked(queries))
    throw new Error(
      "Latent attention with a cache has no gradients: call it inside withoutGradients, or without a cache.",
    );
  const [batch, tokens, rank] = rows.latent.shape;
  const row = joinColumns(view(rows.latent, [batch, 1, tokens, rank]), rows.turned);
  const mixed = absorbedAttention(queries, context.cache.extend(layer.layer, row), layer, context);
  return linear(mixed, layer.o.weight, { ...layer.o, residual });
}
