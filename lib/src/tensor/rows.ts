// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { activations, swigluBackwardKernel, swigluKernel } from "../kernels/activation.js";
import {
  layerNormBackwardKernel,
  layerNormKernel,
  normalizedKernel,
  rmsNormBackwardKernel,
  rmsNormKernel,
  rmsNormWeightKernel,
} from "../kernels/norm.js";
import { columnSumKernel } from "../kernels/reduce.js";
import { rowGroups } from "../kernels/rows.js";
import { softmaxBackwardKernel, softmaxKernel } from "../kernels/softmax.js";
import { isTracked, track } from "./autograd.js";
import { applyUnary, multiply, sumToShape } from "./operations.js";
import { type DType, type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/4-rows.ipynb#matrix-size
/** Rows and columns of a tensor seen as a matrix: the last dimension is a row, all others count rows. */
export function matrixSize(x: Tensor<DType>): [number, number] {
  const columns = x.shape.at(-1);
  if (!columns)
    throw new Error(`An operation on rows wants a last dimension of at least 1, not ${describe(x)}.`);
  return [x.size / columns, columns];
}

//| 02-attention/4-rows.ipynb#softmax-operation-code
/** Softmax over the last dimension: each row becomes positive numbers that add up to 1. */
export function softmax(x: Tensor): Tensor {
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const y = launch(softmaxKernel(rows, columns, facts), [x], x.shape);
  return track(y, [x], (gradient) => [
    launch(softmaxBackwardKernel(rows, columns, facts), [y, gradient], x.shape),
  ]);
}

//| 02-attention/4-rows.ipynb#check-columns
/** Throws unless a norm's weight or bias has one element for each column of x. */
export function checkColumns(operation: string, x: Tensor, weight: Tensor): void {
  if (weight.shape.length !== 1 || weight.size !== x.shape.at(-1))
    throw new Error(
      `${operation}: ${describe(weight)} must have one element for each column of ${describe(x)}.`,
    );
}

/** The gradient of RMSNorm's weight [columns] from its input, the kept 1/rms of each row, and the result's gradient. */
export function rmsNormWeightGradient(x: Tensor, inverse: Tensor, gradient: Tensor): Tensor {
  const [rows, columns] = matrixSize(x);
  const groups = rowGroups(rows);
  const sums = launch(rmsNormWeightKernel(rows, columns), [x, inverse, gradient], [groups, columns]);
  return launch(columnSumKernel(groups, columns, 1), [sums], [columns]);
}

//| 02-attention/4-rows.ipynb#rms-norm-operation
/**
 * RMSNorm over the last dimension: each row is divided by the root of its mean square, then multiplied by `weight`
 * (one element a column). `epsilon` keeps a row of zeros from a division by zero.
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  checkColumns("rmsNorm", x, weight);
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const [y, inverse] = [empty(x.shape), empty([rows])];
  launchInto(rmsNormKernel(rows, columns, epsilon, facts), [x, weight], [y, inverse]);
  return track(y, [x, weight], (gradient) => [
    isTracked(x)
      ? launch(rmsNormBackwardKernel(rows, columns, facts), [x, weight, inverse, gradient], x.shape)
      : undefined,
    isTracked(weight) ? rmsNormWeightGradient(x, inverse, gradient) : undefined,
  ]);
}

//| 02-attention/4-rows.ipynb#layer-norm-operation
/** LayerNorm over the last dimension: each row gets mean 0 and variance 1, then `weight` and `bias` (one a column). */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  for (const each of [weight, bias]) checkColumns("layerNorm", x, each);
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const [y, statistics] = [empty(x.shape), empty([rows, 2])];
  launchInto(layerNormKernel(rows, columns, epsilon, facts), [x, weight, bias], [y, statistics]);
  const normalized = () => launch(normalizedKernel(rows, columns, facts), [x, statistics], x.shape);
  return track(y, [x, weight, bias], (gradient) => [
    isTracked(x)
      ? launch(layerNormBackwardKernel(rows, columns, facts), [x, weight, statistics, gradient], x.shape)
      : undefined,
    isTracked(weight) ? sumToShape(multiply(gradient, normalized()), weight.shape) : undefined,
    isTracked(bias) ? sumToShape(gradient, bias.shape) : undefined,
  ]);
}

//| 02-attention/4-rows.ipynb#activate
/** Applies one of `activations` to every element. */
export function activate(name: keyof typeof activations, x: Tensor): Tensor {
  return applyUnary(name, activations[name], x);
}

/** SiLU: x · σ(x), element by element. */
export function silu(x: Tensor): Tensor {
  return activate("silu", x);
}

/** GELU in its tanh form, element by element. */
export function gelu(x: Tensor): Tensor {
  return activate("gelu", x);
}

//| 02-attention/4-rows.ipynb#swiglu-operation
/** silu(gate) · up, element by element, in one kernel forward and one back. Throws when the shapes differ. */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join())
    throw new Error(`swiglu: gate ${describe(gate)} and up ${describe(up)} must have the same shape.`);
  const y = launch(swigluKernel(gate.size), [gate, up], gate.shape);
  return track(y, [gate, up], (gradient) => {
    const parts = [empty(gate.shape), empty(up.shape)];
    launchInto(swigluBackwardKernel(gate.size), [gate, up, gradient], parts);
    return parts;
  });
}
