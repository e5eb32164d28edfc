// Extracted from chapters/02-attention/8-the-block.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { parameter } from "../tensor/autograd.js";
import { linear } from "../tensor/products.js";
import { normals, streamOf } from "../tensor/random.js";
import { rmsNorm, swiglu } from "../tensor/rows.js";
import { type Tensor, sizeOf, tensor } from "../tensor/tensor.js";
import { mergeHeads, splitHeads } from "./attention.js";
import { causalAttention } from "./flash.js";
import { rope, rotaryHeads } from "./positions.js";

//| 02-attention/8-the-block.ipynb#weights-type
/** A model's weights by their Hugging Face names. Linear weights are [outputs, inputs]. */
export type Weights = Map<string, Tensor>;

/** Looks up a weight by its name. Throws when the model has none of that name. */
export function weightNamed(weights: Weights, name: string): Tensor {
  const weight = weights.get(name);
  if (!weight) throw new Error(`The model has no weight named ${name}.`);
  return weight;
}

/**
 * A linear layer by its name, with its bias where the model has one: x [..., inputs] to [..., outputs], plus a tensor of that shape
 * where one is given.
 */
export function namedLinear(weights: Weights, name: string, x: Tensor, residual?: Tensor): Tensor {
  return linear(x, weightNamed(weights, `${name}.weight`), { bias: weights.get(`${name}.bias`), residual });
}

/** RMSNorm by its weight's name. */
export function namedNorm(config: ModelConfig, weights: Weights, name: string, x: Tensor): Tensor {
  return rmsNorm(x, weightNamed(weights, `${name}.weight`), config.normEps);
}

//| 02-attention/8-the-block.ipynb#block-context
/** Keys and values of earlier tokens, kept for generating. */
export interface AttentionCache {
  /**
   * Stores the new keys and values [batch, kvHeads, tokens, headDim] of a layer at the context's positions, and gives
   * all of that layer [batch, kvHeads, length, headDim].
   */
  extend(layer: number, keys: Tensor, values: Tensor): [Tensor, Tensor];
}

/** What all blocks of a model share while it runs. */
export interface BlockContext {
  /** The position of each token: [tokens], or [batch, tokens] where sequences differ. */
  positions: Tensor<"u32">;
  /** Made by `ropeTable`, at least as long as the largest position + 1. */
  ropeTable: Tensor;
  /** [batch, tokens], like the positions then: the first place that each token sees, where its document begins. */
  starts?: Tensor<"u32">;
  cache?: AttentionCache;
}

//| 02-attention/8-the-block.ipynb#turned-heads
/**
 * Queries or keys ready for attention: projected, normalised as the model wants it, split into heads and turned by
 * their positions. x [batch, tokens, hidden] to [batch, heads, tokens, headDim].
 */
export function turnedHeads(
  config: ModelConfig,
  weights: Weights,
  name: { projection: string; norm: string },
  x: Tensor,
  context: BlockContext,
): Tensor {
  const { positions, ropeTable } = context;
  const projected = namedLinear(weights, name.projection, x);
  if (config.qkNorm === "head") {
    const weight = weightNamed(weights, `${name.norm}.weight`);
    return rotaryHeads(projected, weight, config.normEps, positions, ropeTable);
  }
  const whole = config.qkNorm === "projection" ? namedNorm(config, weights, name.norm, projected) : projected;
  return rope(splitHeads(whole, whole.shape[2] / config.headDim), positions, ropeTable);
}

//| 02-attention/8-the-block.ipynb#self-attention
/**
 * Attention with its four projections: x [batch, tokens, hidden], normalised, to what the block adds to its input, or
 * where that input is given as `residual`, to the sum.
 */
export function selfAttention(
  config: ModelConfig,
  layer: number,
  weights: Weights,
  x: Tensor,
  context: BlockContext,
  residual?: Tensor,
): Tensor {
  const at = `model.layers.${layer}.self_attn`;
  const named = (letter: string) => ({ projection: `${at}.${letter}_proj`, norm: `${at}.${letter}_norm` });
  const queries = turnedHeads(config, weights, named("q"), x, context);
  const keys = turnedHeads(config, weights, named("k"), x, context);
  const values = splitHeads(namedLinear(weights, `${at}.v_proj`, x), config.kvHeads);
  const [allKeys, allValues] = context.cache?.extend(layer, keys, values) ?? [keys, values];
  const mixed = causalAttention(queries, allKeys, allValues, context.positions, context.starts);
  return namedLinear(weights, `${at}.o_proj`, mergeHeads(mixed), residual);
}

//| 02-attention/8-the-block.ipynb#feed-forward-type
/**
 * The second half of a block: from normalised activations x [batch, tokens, hidden] to what is added to the block's stream, or
 * where that is given as `residual`, to the sum.
 */
export type FeedForward = (
  config: ModelConfig,
  layer: number,
  weights: Weights,
  x: Tensor,
  residual?: Tensor,
) => Tensor;

/** The dense feed-forward layer: down(silu(gate(x)) · up(x)), plus the residual where one is given. x [batch, tokens, hidden] keeps its shape. */
export function denseFeedForward(
  _config: ModelConfig,
  layer: number,
  weights: Weights,
  x: Tensor,
  residual?: Tensor,
): Tensor {
  const at = `model.layers.${layer}.mlp`;
  const gated = swiglu(namedLinear(weights, `${at}.gate_proj`, x), namedLinear(weights, `${at}.up_proj`, x));
  return namedLinear(weights, `${at}.down_proj`, gated, residual);
}

//| 02-attention/8-the-block.ipynb#block
/**
 * One transformer block: x + attention(norm(x)), then the same with the feed-forward layer.
 * x [batch, tokens, hidden] keeps its shape. `feedForward` replaces the dense layer, as a mixture of experts does.
 */
export function block(
  config: ModelConfig,
  layer: number,
  weights: Weights,
  x: Tensor,
  context: BlockContext,
  feedForward: FeedForward = denseFeedForward,
): Tensor {
  const norm = (name: string, value: Tensor) =>
    namedNorm(config, weights, `model.layers.${layer}.${name}`, value);
  const attended = selfAttention(config, layer, weights, norm("input_layernorm", x), context, x);
  return feedForward(config, layer, weights, norm("post_attention_layernorm", attended), attended);
}

//| 02-attention/8-the-block.ipynb#attention-shapes
/** The shapes of one layer's attention weights, by name within the layer. */
export function attentionShapes(config: ModelConfig): [string, number[]][] {
  const { hiddenSize, heads, kvHeads, headDim } = config;
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const outputs: [string, number[]][] = [
    ["q_proj", [queries, hiddenSize]],
    ["k_proj", [keys, hiddenSize]],
    ["v_proj", [keys, hiddenSize]],
    ["o_proj", [hiddenSize, queries]],
  ];
  const norms = { none: [], head: [headDim, headDim], projection: [queries, keys] }[config.qkNorm];
  return [
    ...outputs.map(([name, shape]): [string, number[]] => [`self_attn.${name}.weight`, shape]),
    ...(config.attentionBias
      ? outputs.map(([name, [length]]): [string, number[]] => [`self_attn.${name}.bias`, [length]])
      : []),
    ...norms.map((length, i): [string, number[]] => [`self_attn.${"qk"[i]}_norm.weight`, [length]]),
  ];
}

//| 02-attention/8-the-block.ipynb#feed-forward-shapes
/**
 * The shapes of one layer's feed-forward weights, by name within the layer. The experts of a sparse layer are stacked:
 * one tensor [experts, outputs, inputs] for each of their three matrices.
 */
export function feedForwardShapes(config: ModelConfig, layer: number): [string, number[]][] {
  const { hiddenSize, moe } = config;
  const sparse = moe?.sparseLayers[layer] === true;
  const inner = sparse ? moe.intermediateSize : config.intermediateSize;
  const [before, stack] = sparse ? ["mlp.experts", [moe.experts]] : ["mlp", []];
  return [
    ...(sparse ? [["mlp.gate.weight", [moe.experts, hiddenSize]] as [string, number[]]] : []),
    [`${before}.gate_proj.weight`, [...stack, inner, hiddenSize]],
    [`${before}.up_proj.weight`, [...stack, inner, hiddenSize]],
    [`${before}.down_proj.weight`, [...stack, hiddenSize, inner]],
  ];
}

//| 02-attention/8-the-block.ipynb#weight-shapes
/** The name and shape of every weight of a model, in a fixed order: from the embedding up to the output. */
export function weightShapes(config: ModelConfig): Map<string, number[]> {
  const { hiddenSize, vocabSize } = config;
  const shapes = new Map<string, number[]>([["model.embed_tokens.weight", [vocabSize, hiddenSize]]]);
  for (let layer = 0; layer < config.layers; layer++) {
    const parts: [string, number[]][] = [
      ["input_layernorm.weight", [hiddenSize]],
      ...attentionShapes(config),
      ["post_attention_layernorm.weight", [hiddenSize]],
      ...feedForwardShapes(config, layer),
    ];
    for (const [name, shape] of parts) shapes.set(`model.layers.${layer}.${name}`, shape);
  }
  shapes.set("model.norm.weight", [hiddenSize]);
  if (!config.tied) shapes.set("lm_head.weight", [vocabSize, hiddenSize]);
  return shapes;
}

//| 02-attention/8-the-block.ipynb#initial-values
/**
 * Fresh values of one weight. Norms are 1, biases 0, matrices normally distributed with the configuration's standard
 * deviation; those that write into the residual stream are divided by √(2 · layers), so that the stream's size does not
 * grow with depth (GPT-2's rule). Each name draws from a stream of its own.
 */
export function initialValues(
  config: ModelConfig,
  name: string,
  shape: number[],
  seed: number,
): Float32Array {
  const size = sizeOf(shape);
  if (name.endsWith("norm.weight")) return new Float32Array(size).fill(1);
  if (name.endsWith(".bias")) return new Float32Array(size);
  const intoResidual = /\b(o_proj|down_proj)\.weight$/.test(name);
  const deviation = config.initializerRange / (intoResidual ? Math.sqrt(2 * config.layers) : 1);
  return normals(seed, size, streamOf(name)).map((value) => value * deviation);
}

//| 02-attention/8-the-block.ipynb#initial-weights
/** Fresh weights for a model, as parameters to train. The same seed gives the same weights. */
export function initialWeights(config: ModelConfig, seed: number): Weights {
  const weights: Weights = new Map();
  for (const [name, shape] of weightShapes(config))
    weights.set(name, parameter(tensor(initialValues(config, name, shape, seed), shape)));
  return weights;
}
