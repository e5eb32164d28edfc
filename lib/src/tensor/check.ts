// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { gradients, parameter } from "./autograd.js";
import { multiply, sum } from "./operations.js";
import { type Tensor, scope, tensor } from "./tensor.js";

//| 02-attention/3-tensors-and-gradients.ipynb#check-tools
/** ‖actual − expected‖ / ‖expected‖: one number for how far two arrays differ, whatever their scale. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let [difference, norm] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-30));
}

/** A fixed row of numbers between −1 and 1 that look random: weights for turning any output into one loss. */
export function mixingWeights(size: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => Math.sin(i * 12.9898 + 1) * 0.9 + 0.1);
}

//| 02-attention/3-tensors-and-gradients.ipynb#mixed-loss
/** Inputs of a function under test: what is in each, and its shape. */
export type TestInput = { values: Float32Array; shape: number[] };

/** The mixed loss of `f`, summed in 64 bits. */
export async function mixedLoss(f: (...inputs: Tensor[]) => Tensor, inputs: TestInput[]): Promise<number> {
  const result = scope(() => f(...inputs.map(({ values, shape }) => tensor(values, shape))));
  const output = await result.array();
  result.free();
  const weights = mixingWeights(output.length);
  return output.reduce((total, value, i) => total + value * weights[i], 0);
}

/** The gradients the tape gives for the mixed loss of `f`. */
export async function tapeGradients(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: TestInput[],
): Promise<Float32Array[]> {
  const found = scope(() => {
    const parameters = inputs.map(({ values, shape }) => parameter(tensor(values, shape)));
    const output = f(...parameters);
    const loss = sum(multiply(output, tensor(mixingWeights(output.size), output.shape)));
    return gradients(loss, parameters);
  });
  const arrays = await Promise.all(found.map((gradient) => gradient.array()));
  for (const gradient of found) gradient.free();
  return arrays;
}

//| 02-attention/3-tensors-and-gradients.ipynb#gradient-error
/** A finite difference: how fast the mixed loss of `f` changes with element `at` of input `k`. */
export async function finiteDifference(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: TestInput[],
  { k, at, step }: { k: number; at: number; step: number },
): Promise<number> {
  const lossAt = (offset: number) => {
    const nudged = Float32Array.from(inputs[k].values);
    nudged[at] += offset;
    return mixedLoss(
      f,
      inputs.map((input, i) => (i === k ? { ...input, values: nudged } : input)),
    );
  };
  return ((await lossAt(step)) - (await lossAt(-step))) / (2 * step);
}

/**
 * Compares the tape's gradients of `f` with finite differences: nudges up to `samples` elements of each input by
 * ±`step` and sees what the output does. Gives the relative error over all samples; rounding in 32 bits leaves some 1e-3.
 */
export async function gradientError(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: TestInput[],
  { step = 1e-2, samples = 8 } = {},
): Promise<number> {
  const found = await tapeGradients(f, inputs);
  const [actual, expected]: [number[], number[]] = [[], []];
  for (const [k, { values }] of inputs.entries()) {
    const count = Math.min(samples, values.length);
    for (let s = 0; s < count; s++) {
      const at = Math.floor(((s + 0.5) / count) * values.length);
      actual.push(found[k][at]);
      expected.push(await finiteDifference(f, inputs, { k, at, step }));
    }
  }
  return relativeError(actual, expected);
}
