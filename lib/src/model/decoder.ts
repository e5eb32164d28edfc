// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { isTracked } from "../tensor/autograd.js";
import { embed } from "../tensor/embedding.js";
import { linear } from "../tensor/products.js";
import { type Tensor, indices } from "../tensor/tensor.js";
import { balanceLoss } from "./balance.js";
import {
  type BlockContext,
  type FeedForward,
  type Weights,
  block,
  denseFeedForward,
  initialWeights,
  namedNorm,
  weightNamed,
  weightShapes,
} from "./block.js";
import { type MoeResult, type MoeWeights, moe } from "./moe.js";
import { ropeTable } from "./positions.js";

//| 03-moe/4-the-decoder.ipynb#model
/** A model: what its config.json says, and its weights by their Hugging Face names. */
export interface Model {
  config: ModelConfig;
  weights: Weights;
}

/** A model with fresh random weights. The same seed gives the same weights. */
export function randomModel(config: ModelConfig, seed: number): Model {
  return { config, weights: initialWeights(config, seed) };
}

//| 03-moe/4-the-decoder.ipynb#parameters
/** The weights that training changes, by name, in the fixed order of `weightShapes`. */
export function parametersOf({ config, weights }: Model): Map<string, Tensor> {
  const names = [...weightShapes(config).keys()];
  return new Map(names.map((name): [string, Tensor] => [name, weightNamed(weights, name)]));
}

//| 03-moe/4-the-decoder.ipynb#sequence-context
/** The context for whole sequences of `tokens` tokens: positions 0, 1, 2 … and the turns that belong to them. */
export function sequenceContext(config: ModelConfig, tokens: number): BlockContext {
  const positions = indices(Array.from({ length: tokens }, (_, i) => i));
  return { positions, ropeTable: ropeTable(config.rope, config.headDim, tokens) };
}

//| 03-moe/4-the-decoder.ipynb#check-ids
/** Throws for the first id that the vocabulary does not have: the GPU would not complain. */
export function checkIds(ids: ArrayLike<number>, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    if (Number.isInteger(ids[i]) && ids[i] >= 0 && ids[i] < vocabSize) continue;
    throw new Error(
      `The id ${ids[i]} at place ${i} is not in the vocabulary, whose ids are 0 to ${vocabSize - 1}.`,
    );
  }
}

//| 03-moe/4-the-decoder.ipynb#expert-weights
/** The weights of one layer's experts. */
export function expertWeights(weights: Weights, layer: number): MoeWeights {
  const named = (name: string) => weightNamed(weights, `model.layers.${layer}.mlp.${name}.weight`);
  return {
    router: named("gate"),
    gate: named("experts.gate_proj"),
    up: named("experts.up_proj"),
    down: named("experts.down_proj"),
  };
}

//| 03-moe/4-the-decoder.ipynb#feed-forward-of
/**
 * The feed-forward half of a layer as the configuration wants it: dense, or a mixture of experts, whose result is also
 * put into `routed`.
 */
export function feedForwardOf(config: ModelConfig, layer: number, routed: MoeResult[]): FeedForward {
  const settings = config.moe;
  if (!settings?.sparseLayers[layer]) return denseFeedForward;
  const { expertsPerToken, normalizeTopK } = settings;
  return (_config, _layer, weights, x, residual) => {
    const routing = { expertsPerToken, normalize: normalizeTopK };
    const result = moe(x, expertWeights(weights, layer), routing, residual);
    routed.push(result);
    return result.output;
  };
}

//| 03-moe/4-the-decoder.ipynb#hidden-states
/** What the blocks of a model give. */
export interface HiddenResult {
  /** The last block's output after the last norm [batch, tokens, hidden]. */
  hidden: Tensor;
  /** What happened in each layer with experts, in order. */
  routed: MoeResult[];
}

/** Ids [batch, tokens] through embedding, all blocks and the last norm. */
export function hiddenStates(
  { config, weights }: Model,
  ids: Tensor<"u32">,
  context: BlockContext,
): HiddenResult {
  const routed: MoeResult[] = [];
  let x = embed(ids, weightNamed(weights, "model.embed_tokens.weight"));
  for (let layer = 0; layer < config.layers; layer++)
    x = block(config, layer, weights, x, context, feedForwardOf(config, layer, routed));
  return { hidden: namedNorm(config, weights, "model.norm", x), routed };
}

//| 03-moe/4-the-decoder.ipynb#output-logits
/** The weight that makes logits of hidden states [vocabulary, hidden]: the embedding again, where the two are tied. */
export function outputWeight({ config, weights }: Model): Tensor {
  return weightNamed(weights, config.tied ? "model.embed_tokens.weight" : "lm_head.weight");
}

/** The score of every token of the vocabulary to come next: hidden [..., hidden] to logits [..., vocabulary]. */
export function outputLogits(model: Model, hidden: Tensor): Tensor {
  return linear(hidden, outputWeight(model));
}

//| 03-moe/4-the-decoder.ipynb#forward
/** What a model gives for ids [batch, tokens]. */
export interface ForwardResult {
  /** The score of each token to come next [batch, tokens, vocabulary]. */
  logits: Tensor;
  /** The balance loss of all layers with experts [1], where there are any and gradients are wanted. */
  balanceLoss?: Tensor;
  /** The tokens that each expert received [experts], for every layer with experts in order. */
  load: Tensor<"u32">[];
}

/**
 * Runs a model on ids [batch, tokens], which must be in its vocabulary (`checkIds`). The context says where the tokens
 * stand: `sequenceContext`, or one with a cache. Use `withoutGradients` unless the model is to be trained.
 */
export function forward(model: Model, ids: Tensor<"u32">, context: BlockContext): ForwardResult {
  const { hidden, routed } = hiddenStates(model, ids, context);
  const logits = outputLogits(model, hidden);
  const load = routed.map((layer) => layer.load);
  if (routed.length === 0 || !isTracked(logits)) return { logits, load };
  return { logits, balanceLoss: balanceLoss(routed), load };
}
