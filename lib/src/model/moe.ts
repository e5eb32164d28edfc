// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  type DispatchShape,
  combineKernel,
  countingSortKernel,
  dispatchTile,
  dispatchTiles,
  gatherKernel,
  weightGradientKernel,
} from "../kernels/dispatch.js";
import { groupedMatmulKernel, groupedWeightKernel } from "../kernels/grouped.js";
import { isTracked, reshape, track } from "../tensor/autograd.js";
import { type Precision, matmulPrecision, withPrecision } from "../tensor/precision.js";
import { PackedWeight, type Weight, describeWeight, linear, productInputs } from "../tensor/products.js";
import { swiglu } from "../tensor/rows.js";
import { type Tensor, describe, empty, launch, launchInto } from "../tensor/tensor.js";
import { type RouterSettings, type Routing, route } from "./router.js";

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
  /** The pair of each row, or `nobody` [rows]. */
  pairs: Tensor<"u32">;
  /** The expert of each tile, or `nobody` [tiles]. */
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
/**
 * Each row times the transpose of its expert's matrix: rows [rows, inputs] and weight [experts, outputs, inputs], dense or packed,
 * give [rows, outputs]. The precision is the plan's.
 */
export function groupedLinear(rows: Tensor, weight: Weight, plan: DispatchPlan): Tensor {
  const { shape, owners, segments } = plan;
  const [experts, outputs, inputs] = weight.shape;
  if (weight.shape.length !== 3 || experts !== shape.experts || rows.shape[1] !== inputs)
    throw new Error(
      `groupedLinear: ${describe(rows)} of ${shape.experts} experts does not fit ${describeWeight(weight)}.`,
    );
  const { facts } = currentGpu();
  const f16 = plan.precision === "f16";
  const format = weight instanceof PackedWeight ? weight.format : undefined;
  const product = (x: Tensor, columns: number, k: number, transposeB: boolean) => {
    const kernel = groupedMatmulKernel(shape, { columns, k, transposeB, f16, format }, facts);
    return launch(kernel, productInputs(x, weight, [owners]), [rows.shape[0], columns]);
  };
  const weightGradient = (gradient: Tensor, dense: Tensor) =>
    launch(
      groupedWeightKernel(shape, { outputs, inputs, f16 }, facts),
      productInputs(gradient, rows, [segments]),
      dense.shape,
    );
  const learned = weight instanceof PackedWeight ? [] : [weight];
  return track(product(rows, outputs, inputs, true), [rows, ...learned], (gradient) => [
    isTracked(rows) ? product(gradient, inputs, outputs, false) : undefined,
    ...learned.map((dense) => (isTracked(dense) ? weightGradient(gradient, dense) : undefined)),
  ]);
}

//| 03-moe/2-dispatch.ipynb#moe-types
/** The weights of a mixture of experts over tokens of width C: E experts, dense or packed, with an inner width I. */
export interface MoeWeights {
  /** The router [E, C]. */
  router: Tensor;
  /** The experts' gate projections [E, I, C]. */
  gate: Weight;
  /** The experts' up projections [E, I, C]. */
  up: Weight;
  /** The experts' down projections [E, C, I]. */
  down: Weight;
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
/**
 * A mixture of experts for x [..., C]: every token visits the experts that the router chooses for it, each a SwiGLU
 * layer, and gets their weighted sum, plus the residual of x's shape where one is given. Nothing is read back: the sizes of all
 * kernels are those of the worst case.
 */
export function moe(x: Tensor, weights: MoeWeights, settings: RouterSettings, residual?: Tensor): MoeResult {
  const [experts, width] = weights.router.shape;
  const tokens = reshape(x, [x.size / width, width]);
  // Scores choose: two experts that are close must not change places by rounding.
  const scores = withPrecision("f32", () => linear(tokens, weights.router));
  const routing = route(scores, settings);
  const plan = planDispatch(routing.experts, experts);
  const rows = gatherRows(tokens, plan);
  const inner = swiglu(groupedLinear(rows, weights.gate, plan), groupedLinear(rows, weights.up, plan));
  const stream = residual && reshape(residual, tokens.shape);
  const output = combineRows(groupedLinear(inner, weights.down, plan), routing.weights, plan, stream);
  return { output: reshape(output, x.shape), load: plan.load, routing };
}
