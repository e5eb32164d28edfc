// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import type { GatedActivation } from "../formats/config.js";
import { attend } from "../tensor/attend.js";
import { mergeHeads, splitHeads } from "../tensor/attention.js";
import { type Dropout, dropout } from "../tensor/dropout.js";
import { add, applyUnary } from "../tensor/operations.js";
import { linear } from "../tensor/products.js";
import { rope, rotaryHeads } from "../tensor/rope.js";
import { activate, clampedSwiglu, gatedUnit, layerNorm, rmsNorm, swiglu } from "../tensor/rows.js";
import { type Tensor, zeros } from "../tensor/tensor.js";
import { latentAttention } from "./latent.js";
import type { Block, BlockContext, Dense, Experts, Heads, Latent, Linear, Norm } from "./structure.js";

//| 02-attention/9-the-block.ipynb#linear-norm
/** A linear layer: x [..., inputs] to [..., outputs], plus a residual of that shape where one is given. */
export function applyLinear(x: Tensor, { weight, bias }: Linear, residual?: Tensor): Tensor {
  return linear(x, weight, { bias, residual });
}

/** What an RMSNorm multiplies by [columns]: its weight, or 1 + weight. */
export function gainOf({ kind, weight }: Norm): Tensor {
  const onePlus = { value: "x + V(1)", derivative: "V(1)" };
  return kind === "rms1p" ? applyUnary("one plus", onePlus, weight) : weight;
}

/** x [..., columns], each row normalised. */
export function normalize(x: Tensor, norm: Norm): Tensor {
  const { kind, weight, bias, epsilon } = norm;
  if (kind === "layer") return layerNorm(x, weight, bias ?? zeros(weight.shape), epsilon);
  return rmsNorm(x, gainOf(norm), epsilon);
}

//| 02-attention/9-the-block.ipynb#rotated-heads
/** The table that a layer looks its turns up in, where its queries and keys turn. Throws when the context lacks it. */
export function turnsOf({ rotary }: Heads, { ropeTable, localRopeTable }: BlockContext): Tensor | undefined {
  if (rotary === "none") return undefined;
  const table = rotary === "shared" ? ropeTable : localRopeTable;
  if (!table) throw new Error("The context has no table of turns for this layer: make it with ropeTables.");
  return table;
}

/**
 * Queries or keys ready for attention: projected, normalised as the model wants it, split into heads and turned by
 * their positions. x [batch, tokens, hidden] to [batch, heads, tokens, headDim].
 */
export function rotatedHeads(
  x: Tensor,
  layer: Heads,
  projection: Linear,
  norm: Norm | undefined,
  context: BlockContext,
): Tensor {
  const { headDim } = layer;
  const projected = applyLinear(x, projection);
  const turns = turnsOf(layer, context);
  const perHead = norm?.weight.size === headDim;
  if (norm && norm.kind !== "layer" && perHead && turns && 2 * turns.shape[1] === headDim)
    return rotaryHeads(projected, gainOf(norm), norm.epsilon, context.positions, turns);
  const whole = norm && !perHead ? normalize(projected, norm) : projected;
  const split = splitHeads(whole, whole.shape[2] / headDim);
  const heads = norm && perHead ? normalize(split, norm) : split;
  return turns ? rope(heads, context.positions, turns) : heads;
}

//| 02-attention/9-the-block.ipynb#attend-heads
/**
 * The one place where a block looks at earlier tokens: queries [batch, heads, tokens, headDim] with the layer's new keys and
 * values [batch, kvHeads, tokens, headDim], and those that the cache has.
 */
export function attendHeads(heads: Heads, [queries, keys, values]: Tensor[], context: BlockContext): Tensor {
  const { positions, firstKey, cache } = context;
  const { layer, window, scale, softcap, sinks } = heads;
  const keyValues = cache?.extend(layer, keys, values) ?? { keys, values };
  return attend(queries, keyValues, { positions, firstKey, window }, { scale, softcap, sinks });
}

//| 02-attention/9-the-block.ipynb#self-attention
/**
 * Attention with its four projections: x [batch, tokens, hidden], normalised, to what the block adds to its input, or
 * where that input is given as `residual`, to the sum.
 */
export function selfAttention(x: Tensor, heads: Heads, context: BlockContext, residual?: Tensor): Tensor {
  const queries = rotatedHeads(x, heads, heads.q, heads.qNorm, context);
  const keys = rotatedHeads(x, heads, heads.k, heads.kNorm, context);
  const values = splitHeads(applyLinear(x, heads.v), heads.v.weight.shape[0] / heads.headDim);
  const mixed = attendHeads(heads, [queries, keys, values], context);
  return applyLinear(mergeHeads(mixed), heads.o, residual);
}

//| 02-attention/9-the-block.ipynb#feed-forward-layer-parts
/** activation(gate) · up, of equal shapes. */
export function gated(activation: GatedActivation, gate: Tensor, up: Tensor): Tensor {
  if (activation === "clamped-silu") return clampedSwiglu(gate, up);
  return activation === "silu" ? swiglu(gate, up) : gatedUnit(activation, gate, up);
}

/** A dense feed-forward layer on x [batch, tokens, hidden], which keeps its shape, plus the residual where one is given. */
export function denseFeedForward(
  x: Tensor,
  { gate, up, down, activation }: Dense,
  residual?: Tensor,
): Tensor {
  const bent = gate
    ? gated(activation, applyLinear(x, gate), applyLinear(x, up))
    : activate(activation, applyLinear(x, up));
  return applyLinear(bent, down, residual);
}

/** The feed-forward half of a block without experts. Throws for one that has some. */
export function onlyDense(x: Tensor, layer: Dense | Experts, residual?: Tensor): Tensor {
  if (layer.kind === "dense") return denseFeedForward(x, layer, residual);
  throw new Error("This block has experts, and was given no function that runs them.");
}

//| 02-attention/9-the-block.ipynb#feed-forward-layer
/** Computes the second half of a block: from x [batch, tokens, hidden], normalised, to its result, plus the residual where one is given. */
export type FeedForward = (x: Tensor, layer: Dense | Experts, residual?: Tensor) => Tensor;

//| 02-attention/9-the-block.ipynb#block-parts
/** The attention of a block, of either kind: x [batch, tokens, hidden] keeps its shape, plus the residual where one is given. */
export function attentionHalf(
  x: Tensor,
  attention: Heads | Latent,
  context: BlockContext,
  residual?: Tensor,
): Tensor {
  return attention.kind === "heads"
    ? selfAttention(x, attention, context, residual)
    : latentAttention(x, attention, context, residual);
}

/**
 * One residual step: x + after(half(before(x))), where either norm may be missing and dropout may thin out what is added.
 * x [batch, tokens, hidden] keeps its shape.
 */
export function residualStep(
  x: Tensor,
  [before, after]: (Norm | undefined)[],
  half: (x: Tensor, residual?: Tensor) => Tensor,
  thinning?: Dropout,
): Tensor {
  const normalized = before ? normalize(x, before) : x;
  if (!after && !thinning) return half(normalized, x);
  const result = after ? normalize(half(normalized), after) : half(normalized);
  return thinning ? dropout(result, thinning, x) : add(x, result);
}

/** The dropout of half 0 or 1 of a block: each draws numbers of its own. */
export function dropoutOf({ dropout }: BlockContext, layer: number, half: 0 | 1): Dropout | undefined {
  return dropout && { ...dropout, place: dropout.place + 2 * layer + half };
}

//| 02-attention/9-the-block.ipynb#block
/** One transformer block: attention, then the feed-forward layer. x [batch, tokens, hidden] keeps its shape. */
export function runBlock(
  x: Tensor,
  { attention, feedForward, norms }: Block,
  context: BlockContext,
  feed: FeedForward = onlyDense,
): Tensor {
  const { beforeAttention, afterAttention, beforeFeedForward, afterFeedForward } = norms;
  const attended = residualStep(
    x,
    [beforeAttention, afterAttention],
    (rows, residual) => attentionHalf(rows, attention, context, residual),
    dropoutOf(context, attention.layer, 0),
  );
  return residualStep(
    attended,
    [beforeFeedForward, afterFeedForward],
    (rows, residual) => feed(rows, feedForward, residual),
    dropoutOf(context, attention.layer, 1),
  );
}
