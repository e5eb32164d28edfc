// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { isTracked } from "../tensor/autograd.js";
import { distances, embed } from "../tensor/embedding.js";
import { add, scale } from "../tensor/operations.js";
import { softcap } from "../tensor/rows.js";
import { type Tensor, indices } from "../tensor/tensor.js";
import { balanceLoss } from "./balance.js";
import { type FeedForward, applyLinear, denseFeedForward, normalize, runBlock } from "./block.js";
import { type MoeResult, gateRows, moe } from "./moe.js";
import { ropeTables } from "./positions.js";
import type { BlockContext, Experts, Model } from "./structure.js";

//| 03-moe/4-the-decoder.ipynb#sequence-context
/** The context for whole sequences of `tokens` tokens: positions 0, 1, 2 … and the turns that belong to them. */
export function sequenceContext(config: ModelConfig, tokens: number): BlockContext {
  const positions = indices(Array.from({ length: tokens }, (_, i) => i));
  return { positions, ...ropeTables(config, tokens) };
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

//| 03-moe/4-the-decoder.ipynb#feed-experts
/** What the experts that serve every token give, as much of it as the token's gate says, plus the residual. */
export function sharedExperts(x: Tensor, { shared, sharedGate }: Experts, residual?: Tensor): Tensor {
  if (!sharedGate) return denseFeedForward(x, shared!, residual);
  return gateRows(denseFeedForward(x, shared!), applyLinear(x, sharedGate), residual);
}

/** Runs a mixture of experts, and the experts that all tokens share where there are any: x [batch, tokens, hidden]. */
export function runExperts(x: Tensor, layer: Experts, residual?: Tensor): MoeResult {
  const stream = layer.shared ? sharedExperts(x, layer, residual) : residual;
  return moe(x, layer, { ...layer, bias: layer.choiceBias }, stream);
}

/** The feed-forward half of every block, dense or sparse; what each mixture of experts gives is also put into `routed`. */
export function feedForwardInto(routed: MoeResult[]): FeedForward {
  return (x, layer, residual) => {
    if (layer.kind === "dense") return denseFeedForward(x, layer, residual);
    const result = runExperts(x, layer, residual);
    routed.push(result);
    return result.output;
  };
}

//| 03-moe/4-the-decoder.ipynb#hidden-states-parts
/** The rows of ids [batch, tokens] in the embedding, with their positions where those are learned: [batch, tokens, hidden]. */
export function embedIds(
  { config, embedding, embeddingScale, positions }: Model,
  ids: Tensor<"u32">,
  { positions: places, firstKey }: Pick<BlockContext, "positions" | "firstKey">,
): Tensor {
  const rows = embed(ids, embedding, config.padTokenId);
  const scaled = embeddingScale === undefined ? rows : scale(rows, embeddingScale);
  if (!positions) return scaled;
  return add(scaled, embed(firstKey ? distances(places, firstKey) : places, positions));
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
export function hiddenStates(model: Model, ids: Tensor<"u32">, context: BlockContext): HiddenResult {
  const routed: MoeResult[] = [];
  let x = embedIds(model, ids, context);
  for (const block of model.blocks) x = runBlock(x, block, context, feedForwardInto(routed));
  return { hidden: model.norm ? normalize(x, model.norm) : x, routed };
}

//| 03-moe/4-the-decoder.ipynb#output-logits
/** The score of every token of the vocabulary to come next: hidden [..., hidden] to logits [..., vocabulary]. */
export function outputLogits({ head, logitSoftcap }: Model, hidden: Tensor): Tensor {
  const logits = applyLinear(hidden, head);
  return logitSoftcap === undefined ? logits : softcap(logits, logitSoftcap);
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
