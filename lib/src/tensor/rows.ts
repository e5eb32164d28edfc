// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  activations,
  clampedSwigluBackwardKernel,
  clampedSwigluKernel,
  gatedBackwardKernel,
  gatedKernel,
  swigluBackwardKernel,
  swigluKernel,
} from "../kernels/activation.js";
import { type UnaryFunction, unaryBackwardKernel } from "../kernels/elementwise.js";
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
import { wgslNumber } from "../kernels/wgsl.js";
import { inference, isTracked, track } from "./autograd.js";
import { applyUnary, multiply, sumToShape } from "./operations.js";
import { type DType, type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/4-rows.ipynb#matrix-size
/** Rows and columns of x [..., columns] seen as a matrix: the last dimension is a row, all others count rows. */
export function matrixSize(x: Tensor<DType>): [number, number] {
  const columns = x.shape.at(-1);
  if (!columns)
    throw new Error(`An operation on rows wants a last dimension of at least 1, not ${describe(x)}.`);
  return [x.size / columns, columns];
}

//| 02-attention/4-rows.ipynb#softmax-operation-code
/** Softmax over the last dimension: each row of x [..., columns] becomes positive numbers that add up to 1. */
export function softmax(x: Tensor): Tensor {
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const y = launch(softmaxKernel(rows, columns, facts, inference.on), [x], x.shape);
  return track(y, [x], (gradient) => [
    launch(softmaxBackwardKernel(rows, columns, facts), [y, gradient], x.shape),
  ]);
}

//| 02-attention/4-rows.ipynb#check-columns
/** Throws unless a norm's weight or bias is [columns], with one element for each column of x [..., columns]. */
export function checkColumns(operation: string, x: Tensor, weight: Tensor): void {
  if (weight.shape.length !== 1 || weight.size !== x.shape.at(-1))
    throw new Error(
      `${operation}: ${describe(weight)} must have one element for each column of ${describe(x)}.`,
    );
}

/** The gradient of RMSNorm's weight [columns] from x [..., columns], the kept 1/rms [rows], and the gradient of its result. */
export function rmsNormWeightGradient(x: Tensor, inverse: Tensor, gradient: Tensor): Tensor {
  const [rows, columns] = matrixSize(x);
  const groups = rowGroups(rows);
  const sums = launch(rmsNormWeightKernel(rows, columns), [x, inverse, gradient], [groups, columns]);
  return launch(columnSumKernel(groups, columns, 1), [sums], [columns]);
}

//| 02-attention/4-rows.ipynb#rms-norm-operation
/**
 * RMSNorm over the last dimension (Zhang and Sennrich, 2019): y = x / √(mean(x²) + epsilon) · weight for each row of
 * x [..., columns], with weight [columns]. `epsilon` keeps a row of zeros from a division by zero. Output: x's shape.
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  checkColumns("rmsNorm", x, weight);
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const [y, inverse] = [empty(x.shape), empty([rows])];
  launchInto(rmsNormKernel(rows, columns, epsilon, facts, inference.on), [x, weight], [y, inverse]);
  return track(y, [x, weight], (gradient) => [
    isTracked(x)
      ? launch(rmsNormBackwardKernel(rows, columns, facts), [x, weight, inverse, gradient], x.shape)
      : undefined,
    isTracked(weight) ? rmsNormWeightGradient(x, inverse, gradient) : undefined,
  ]);
}

//| 02-attention/4-rows.ipynb#layer-norm-operation
/**
 * LayerNorm over the last dimension (Ba, Kiros and Hinton, 2016): y = (x − mean(x)) / √(variance(x) + epsilon) · weight +
 * bias for each row of x [..., columns], with weight and bias [columns]. Output: x's shape.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  checkColumns("layerNorm", x, weight);
  checkColumns("layerNorm", x, bias);
  const [rows, columns] = matrixSize(x);
  const { facts } = currentGpu();
  const [y, statistics] = [empty(x.shape), empty([rows, 2])];
  const kernel = layerNormKernel(rows, columns, epsilon, facts, inference.on);
  launchInto(kernel, [x, weight, bias], [y, statistics]);
  const normalized = () => launch(normalizedKernel(rows, columns, facts), [x, statistics], x.shape);
  return track(y, [x, weight, bias], (gradient) => [
    isTracked(x)
      ? launch(layerNormBackwardKernel(rows, columns, facts), [x, weight, statistics, gradient], x.shape)
      : undefined,
    isTracked(weight) ? sumToShape(multiply(gradient, normalized()), weight.shape) : undefined,
    isTracked(bias) ? sumToShape(gradient, bias.shape) : undefined,
  ]);
}

//| 02-attention/4-rows.ipynb#activate-parts
/** Applies one of `activations` to every element of x [...]. */
export function activate(name: keyof typeof activations, x: Tensor): Tensor {
  return applyUnary(name, activations[name], x);
}

//| 02-attention/4-rows.ipynb#activate
/** SiLU of every element of x [...]: x · σ(x) (Elfwing and others, 2017). */
export function silu(x: Tensor): Tensor {
  return activate("silu", x);
}

/** GELU of every element of x [...] in its tanh form (Hendrycks and Gimpel, 2016). */
export function gelu(x: Tensor): Tensor {
  return activate("gelu", x);
}

//| 02-attention/4-rows.ipynb#softcap
/** What softcap is, of x and its bound. Beyond ±15 some drivers' tanh is NaN, and it is ±1. */
export function softcapFunction(cap: number): UnaryFunction {
  const most = wgslNumber(cap);
  const value = `${most} * tanh(clamp(x / ${most}, V(-15), V(15)))`;
  return { value, derivative: `1 - y * y / (${most} * ${most})` };
}

/** cap · tanh(x / cap): x [...] bounded smoothly, as Gemma 2 does with scores. */
export function softcap(x: Tensor, cap: number): Tensor {
  return applyUnary("softcap", softcapFunction(cap), x);
}

/** The gradient of its input from its result [...] and the result's gradient [...], off the tape. */
export function softcapGradient(y: Tensor, gradient: Tensor, cap: number): Tensor {
  const kernel = unaryBackwardKernel("softcap", softcapFunction(cap), y.size);
  return launch(kernel, [y, y, gradient], y.shape);
}

//| 02-attention/4-rows.ipynb#swiglu-operation
/**
 * SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): silu(gate) · up, element by element, from gate [...] and
 * up [...] of one shape to the same shape, in one kernel forward and one back. Throws when the shapes differ.
 */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join())
    throw new Error(`swiglu: gate ${describe(gate)} and up ${describe(up)} must have the same shape.`);
  const y = launch(swigluKernel(gate.size), [gate, up], gate.shape);
  return track(y, [gate, up], (gradient) => {
    const inputGradients = [empty(gate.shape), empty(up.shape)];
    launchInto(swigluBackwardKernel(gate.size), [gate, up, gradient], inputGradients);
    return inputGradients;
  });
}

//| 02-attention/4-rows.ipynb#gated-operation
/** activation(gate) · up, element by element, for any of `activations`: gate [...] and up [...] of one shape, in one kernel each way. */
export function gatedUnit(name: keyof typeof activations, gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join())
    throw new Error(`gatedUnit: gate ${describe(gate)} and up ${describe(up)} must have the same shape.`);
  const y = launch(gatedKernel(name, gate.size), [gate, up], gate.shape);
  return track(y, [gate, up], (gradient) => {
    const inputGradients = [empty(gate.shape), empty(up.shape)];
    launchInto(gatedBackwardKernel(name, gate.size), [gate, up, gradient], inputGradients);
    return inputGradients;
  });
}

//| 02-attention/4-rows.ipynb#clamped-swiglu
/** The clamped SwiGLU of gpt-oss, from gate [...] and up [...] of one shape to the same shape. Throws when the shapes differ. */
export function clampedSwiglu(gate: Tensor, up: Tensor): Tensor {
  if (gate.shape.join() !== up.shape.join())
    throw new Error(`clampedSwiglu: gate ${describe(gate)} and up ${describe(up)} must have the same shape.`);
  const y = launch(clampedSwigluKernel(gate.size), [gate, up], gate.shape);
  return track(y, [gate, up], (gradient) => {
    const inputGradients = [empty(gate.shape), empty(up.shape)];
    launchInto(clampedSwigluBackwardKernel(gate.size), [gate, up, gradient], inputGradients);
    return inputGradients;
  });
}
