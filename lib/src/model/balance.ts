// Extracted from chapters/03-moe/3-keeping-balance.ipynb: edit it there, or here and run `npm run backport`.
import {
  addCountsKernel,
  balanceLossBackwardKernel,
  balanceLossKernel,
  routerBiasKernel,
  routerTotalsKernel,
  squaredLogSumBackwardKernel,
  squaredLogSumKernel,
} from "../kernels/balance.js";
import { track } from "../tensor/autograd.js";
import { mean } from "../tensor/operations.js";
import { type Tensor, empty, launch, launchInto } from "../tensor/tensor.js";
import type { MoeResult } from "./moe.js";
import type { Experts, Model } from "./structure.js";

//| 03-moe/3-keeping-balance.ipynb#routed-layer
/** What the balance loss wants to know of a layer. */
export type RoutedLayer = Pick<MoeResult, "routing" | "load">;

//| 03-moe/3-keeping-balance.ipynb#router-totals-of
/** Pairs and summed probabilities of each expert over all layers [2, experts]. Throws when there is no layer. */
export function routerTotals(layers: RoutedLayer[]): Tensor {
  let totals: Tensor | undefined;
  for (const { routing, load } of layers) {
    const [rows, experts] = routing.probabilities.shape;
    const totalsKernel = routerTotalsKernel(rows, experts, totals === undefined);
    const inputs = totals ? [routing.probabilities, load, totals] : [routing.probabilities, load];
    totals = launch(totalsKernel, inputs, [2, experts]);
  }
  if (!totals) throw new Error("The balance loss wants at least one layer with experts.");
  return totals;
}

//| 03-moe/3-keeping-balance.ipynb#balance-loss
/**
 * The balance loss [1] of all sparse layers together: E · Σ f P, where f is an expert's pairs a token and P its mean
 * probability, both over the tokens of all layers joined. When all experts are used alike it equals the experts a token
 * visits. Gradients flow into the probabilities alone. Source: `load_balancing_loss_func` of Hugging Face's transformers.
 */
export function balanceLoss(layers: RoutedLayer[]): Tensor {
  const totals = routerTotals(layers);
  const inputs = layers.map(({ routing }) => routing.probabilities);
  const [rows, experts] = inputs[0].shape;
  const tokens = rows * layers.length;
  return track(launch(balanceLossKernel(experts, tokens), [totals], [1]), inputs, (gradient) => {
    const backward = balanceLossBackwardKernel(rows, experts, tokens);
    const one = launch(backward, [totals, gradient], [rows, experts]);
    return inputs.map(() => one);
  });
}

//| 03-moe/3-keeping-balance.ipynb#z-loss
/**
 * The router's z-loss: the mean of (log Σ exp(logits))² over tokens, which keeps logits [tokens, experts] from growing.
 * Source: ST-MoE (Zoph and others, 2022).
 */
export function routerZLoss(logits: Tensor): Tensor {
  const [rows, experts] = logits.shape;
  const squares = launch(squaredLogSumKernel(rows, experts), [logits], [rows]);
  track(squares, [logits], (gradient) => [
    launch(squaredLogSumBackwardKernel(rows, experts), [logits, gradient], logits.shape),
  ]);
  return mean(squares);
}

//| 03-moe/3-keeping-balance.ipynb#bias-update
/**
 * Balancing without a loss: moves the bias [E] of each expert by `rate` ([1], as data) towards the mean load, in place:
 * bias += rate · sign(mean load − load). Source: DeepSeek-V3's report. Call it after each step with the step's load.
 */
export function updateRouterBias(bias: Tensor, load: Tensor<"u32">, rate: Tensor): void {
  launchInto(routerBiasKernel(bias.size), [load, rate], [bias]);
}

//| 03-moe/3-keeping-balance.ipynb#update-choice-biases
/** The loads [E] of some layers in two batches, added up. */
export function addLoads(one: Tensor<"u32">[], other: Tensor<"u32">[]): Tensor<"u32">[] {
  return one.map((load, i) => {
    const sum = empty(load.shape, "u32");
    launchInto(addCountsKernel(load.size), [load, other[i]], [sum]);
    return sum;
  });
}

/** The layers of a model that have experts, in order. */
export function expertLayers({ blocks }: Pick<Model, "blocks">): Experts[] {
  return blocks.flatMap(({ feedForward }) => (feedForward.kind === "experts" ? [feedForward] : []));
}

/** Moves the choice bias of every layer that has one by its load [E], one for each layer with experts: see `updateRouterBias`. */
export function updateChoiceBiases(model: Pick<Model, "blocks">, loads: Tensor<"u32">[], rate: Tensor): void {
  for (const [i, { choiceBias }] of expertLayers(model).entries())
    if (choiceBias) updateRouterBias(choiceBias, loads[i], rate);
}
