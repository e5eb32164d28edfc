// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import type { GatedActivation } from "../formats/config.js";
import { currentGpu } from "../gpu/device.js";
import {
  type DispatchShape,
  capacityKernel,
  combineKernel,
  countingSortKernel,
  dispatchTile,
  dispatchTiles,
  gatherKernel,
  weightGradientKernel,
} from "../kernels/dispatch.js";
import { gateRowsKernel, gateScoresKernel } from "../kernels/gate.js";
import {
  type GroupedShape,
  groupedBiasKernel,
  groupedMatmulKernel,
  groupedWeightKernel,
} from "../kernels/grouped.js";
import { inference, isTracked, reshape, track } from "../tensor/autograd.js";
import { type Precision, matmulPrecision, withPrecision } from "../tensor/precision.js";
import { PackedWeight, type Weight, describeWeight, productInputs } from "../tensor/products.js";
import { type Tensor, describe, empty, launch, launchInto } from "../tensor/tensor.js";
import { linearWatcher } from "../tensor/watch.js";
import { applyLinear, gated } from "./block.js";
import { type Jitter, type RouterSettings, type Routing, jittered, route } from "./router.js";
import type { Linear } from "./structure.js";

//| 03-moe/2-dispatch.ipynb#dispatch-plan
/** Where each pair (token, choice) goes: the pairs sorted by expert, each expert's rows padded to whole tiles. */
export interface DispatchPlan {
  shape: DispatchShape;
  /** The precision of the products that the tiles were made for, which the products of its rows therefore have. */
  precision: Precision;
  /** Rows of the sorted arrays, padding included. */
  rows: number;
  /** The row of each pair [tokens, k]. */
  slots: Tensor<"u32">;
  /** The pair of each row, or `padding` [rows]. */
  pairs: Tensor<"u32">;
  /** The expert of each tile, or `padding` [tiles]. */
  owners: Tensor<"u32">;
  /** First row of each expert and the row after its last tile [experts, 2]. */
  segments: Tensor<"u32">;
  /** Pairs of each expert [experts]. */
  load: Tensor<"u32">;
}

//| 03-moe/2-dispatch.ipynb#plan-dispatch
/** Sorts pairs by expert, from the experts of each token [tokens, k], for products of the present precision. */
export function planDispatch(chosen: Tensor<"u32">, experts: number): DispatchPlan {
  const [tokens, expertsPerToken] = chosen.shape;
  const pairsPerExpert = (tokens * expertsPerToken) / experts;
  const precision = matmulPrecision.now;
  const tile = dispatchTile(currentGpu().facts, pairsPerExpert, precision === "f16");
  const shape = { tokens, expertsPerToken, experts, tile };
  const tiles = dispatchTiles(shape);
  const rows = tiles * shape.tile;
  const [slots, pairs, owners] = [empty(chosen.shape, "u32"), empty([rows], "u32"), empty([tiles], "u32")];
  const [segments, load] = [empty([experts, 2], "u32"), empty([experts], "u32")];
  launchInto(countingSortKernel(shape), [chosen], [slots, pairs, owners, segments, load]);
  return { shape, precision, rows, slots, pairs, owners, segments, load };
}

//| 03-moe/2-dispatch.ipynb#carry-rows
/** Copies each token's row of x [tokens, width] to the rows of its pairs [rows, width]; padding is zero. */
export function gatherRows(x: Tensor, { shape, rows, pairs, slots }: DispatchPlan): Tensor {
  const width = x.shape[1];
  const output = launch(gatherKernel(shape, width, false), [x, pairs], [rows, width]);
  return track(output, [x], (gradient) => [launch(combineKernel(shape, width), [gradient, slots], x.shape)]);
}

//| 03-moe/2-dispatch.ipynb#combine-rows
/**
 * Adds up the rows of each token's pairs, weighted, and the residual [tokens, width] where there is one: rows [rows, width] and
 * weights [tokens, k] give [tokens, width].
 */
export function combineRows(
  rows: Tensor,
  weights: Tensor,
  { shape, pairs, slots }: DispatchPlan,
  residual?: Tensor,
): Tensor {
  const width = rows.shape[1];
  const combine = combineKernel(shape, width, { weighted: true, residual: residual !== undefined });
  const added = residual ? [residual] : [];
  const output = launch(combine, [rows, slots, weights, ...added], [shape.tokens, width]);
  const back = () => gatherKernel(shape, width, true);
  return track(output, [rows, weights, ...added], (gradient) => [
    isTracked(rows) ? launch(back(), [gradient, pairs, weights], rows.shape) : undefined,
    isTracked(weights)
      ? launch(weightGradientKernel(shape, width), [rows, slots, gradient], weights.shape)
      : undefined,
    ...(residual ? [gradient] : []),
  ]);
}

//| 03-moe/2-dispatch.ipynb#grouped-linear
/** Throws unless the weights of an expert's layer fit the sorted rows and each other. */
export function checkGroupedWeights(
  rows: Tensor,
  weight: Weight,
  bias: Tensor | undefined,
  plan: DispatchPlan,
): void {
  const [experts, outputs, inputs] = weight.shape;
  if (weight.shape.length !== 3 || experts !== plan.shape.experts || rows.shape[1] !== inputs)
    throw new Error(
      `groupedLinear: ${describe(rows)} of ${plan.shape.experts} experts does not fit ${describeWeight(weight)}.`,
    );
  if (bias && bias.shape.join() !== `${experts},${outputs}`)
    throw new Error(`groupedLinear: the bias ${describe(bias)} must be [${experts}, ${outputs}].`);
}

//| 03-moe/2-dispatch.ipynb#grouped-linear-2
/**
 * Each row times the transpose of its expert's matrix, plus its expert's bias [experts, outputs] where there is one: rows
 * [rows, inputs] and weight [experts, outputs, inputs], dense or packed, give [rows, outputs]. The precision is the plan's.
 */
export function groupedLinear(rows: Tensor, weight: Weight, plan: DispatchPlan, bias?: Tensor): Tensor {
  checkGroupedWeights(rows, weight, bias, plan);
  const { shape, owners, segments, precision } = plan;
  linearWatcher.now?.({ x: rows, weight, tiles: { owners, rows: shape.tile } });
  const [, outputs, inputs] = weight.shape;
  const { facts } = currentGpu();
  const f16 = precision === "f16";
  const format = weight instanceof PackedWeight ? weight.format : undefined;
  const product = (
    x: Tensor,
    grouped: Pick<GroupedShape, "columns" | "k" | "transposeB">,
    added?: Tensor,
  ) => {
    const epilogue = { bias: added !== undefined };
    const how = { f16, format, epilogue, invariant: inference.on };
    const kernel = groupedMatmulKernel(shape, { ...grouped, ...how }, facts);
    return launch(kernel, productInputs(x, weight, [owners], { bias: added }), [
      rows.shape[0],
      grouped.columns,
    ]);
  };
  const weightGradient = (gradient: Tensor, dense: Tensor) => {
    const kernel = groupedWeightKernel(shape, { outputs, inputs, f16 }, facts);
    return launch(kernel, productInputs(gradient, rows, [segments]), dense.shape);
  };
  const biasGradient = (gradient: Tensor, to: Tensor) =>
    isTracked(to) ? launch(groupedBiasKernel(shape, outputs), [gradient, segments], to.shape) : undefined;
  const learned = weight instanceof PackedWeight ? [] : [weight];
  const biases = bias ? [bias] : [];
  const output = product(rows, { columns: outputs, k: inputs, transposeB: true }, bias);
  return track(output, [rows, ...learned, ...biases], (gradient) => [
    isTracked(rows) ? product(gradient, { columns: inputs, k: outputs, transposeB: false }) : undefined,
    ...learned.map((dense) => (isTracked(dense) ? weightGradient(gradient, dense) : undefined)),
    ...biases.map((to) => biasGradient(gradient, to)),
  ]);
}

//| 03-moe/2-dispatch.ipynb#capacity
/** The pairs that each expert takes at most: its fair share times a factor, rounded up. */
export function expertCapacity(factor: number, { tokens, expertsPerToken, experts }: DispatchShape): number {
  return Math.ceil((factor * tokens * expertsPerToken) / experts);
}

/** The weights [tokens, k] of pairs that their experts [tokens, k] have room for, zeros for the others. */
export function dropBeyond(
  capacity: number,
  weights: Tensor,
  experts: Tensor<"u32">,
  plan: DispatchPlan,
): Tensor {
  const { shape, slots, segments } = plan;
  const keep = (values: Tensor) =>
    launch(capacityKernel(shape, capacity), [values, experts, slots, segments], weights.shape);
  return track(keep(weights), [weights], (gradient) => [keep(gradient)]);
}

//| 03-moe/2-dispatch.ipynb#moe-types
/** The weights of a mixture of experts over tokens of width C: E experts, dense or packed, with an inner width I. */
export interface MoeWeights {
  /** The router [E, C], and its bias [E] where it has one. */
  router: Linear;
  /** The experts' gate projections [E, I, C], their biases [E, I]. */
  gate: Linear;
  /** The experts' up projections [E, I, C], their biases [E, I]. */
  up: Linear;
  /** The experts' down projections [E, C, I], their biases [E, C]. */
  down: Linear;
  /** What each expert does between its layers: SwiGLU unless given. */
  activation?: GatedActivation;
}

//| 03-moe/2-dispatch.ipynb#moe-result
/** What a mixture of experts gives. */
export interface MoeResult {
  /** The shape of the input. */
  output: Tensor;
  /** How many pairs each expert received [E]. */
  load: Tensor<"u32">;
  /** What the router decided: `balanceLoss` and `routerZLoss` want it. */
  routing: Routing;
}

//| 03-moe/2-dispatch.ipynb#moe
/** How a mixture works: how its router chooses, and what is done in training besides. */
export interface MoeSettings extends RouterSettings {
  /** What the router sees is shaken; the experts see it as it is. */
  jitter?: Jitter;
  /** Each expert takes its fair share of the pairs times this at most, and drops the rest. Nothing is dropped unless given. */
  capacityFactor?: number;
}

/**
 * A mixture of experts for x [..., C]: every token visits the experts that the router chooses for it, each a gated
 * layer, and gets their weighted sum, plus the residual of x's shape where one is given. Nothing is read back: the sizes of all
 * kernels are those of the worst case.
 */
export function moe(x: Tensor, weights: MoeWeights, settings: MoeSettings, residual?: Tensor): MoeResult {
  const { router, gate, up, down, activation = "silu" } = weights;
  const { jitter, capacityFactor } = settings;
  const [experts, width] = router.weight.shape;
  const tokens = reshape(x, [x.size / width, width]);
  // Scores choose: two experts that are close must not change places by rounding.
  const scores = withPrecision("f32", () => applyLinear(jitter ? jittered(tokens, jitter) : tokens, router));
  const routing = route(scores, settings);
  const plan = planDispatch(routing.experts, experts);
  const rows = gatherRows(tokens, plan);
  const layer = (input: Tensor, { weight, bias }: Linear) => groupedLinear(input, weight, plan, bias);
  const answers = layer(gated(activation, layer(rows, gate), layer(rows, up)), down);
  const kept =
    capacityFactor === undefined
      ? routing.weights
      : dropBeyond(expertCapacity(capacityFactor, plan.shape), routing.weights, routing.experts, plan);
  const output = combineRows(answers, kept, plan, residual && reshape(residual, tokens.shape));
  return { output: reshape(output, x.shape), load: plan.load, routing };
}

//| 03-moe/2-dispatch.ipynb#gate-rows
/** Each row of x [..., width] times the sigmoid of its score [..., 1], plus the residual of x's shape where one is given. */
export function gateRows(x: Tensor, scores: Tensor, residual?: Tensor): Tensor {
  const rows = scores.size;
  const width = x.size / rows;
  const added = residual ? [residual] : [];
  const output = launch(gateRowsKernel(rows, width, residual !== undefined), [x, scores, ...added], x.shape);
  return track(output, [x, scores, ...added], (gradient) => [
    isTracked(x) ? launch(gateRowsKernel(rows, width), [gradient, scores], x.shape) : undefined,
    isTracked(scores)
      ? launch(gateScoresKernel(rows, width), [x, scores, gradient], scores.shape)
      : undefined,
    ...(residual ? [gradient] : []),
  ]);
}
