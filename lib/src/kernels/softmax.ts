// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import { rowKernel } from "./rows.js";
import { floatBits } from "./wgsl.js";

//| 02-attention/4-rows.ipynb#softmax-kernel
/**
 * Softmax of each row of x [rows, columns]: y = exp(x − max) / Σ exp(x − max). Taking off the largest element changes nothing in exact
 * numbers (it cancels) and keeps exp from overflowing. Three passes: the largest, the sum, the results.
 */
export function softmaxKernel(rows: number, columns: number, facts: AdapterFacts, invariant = false): Kernel {
  const body = `
  var highest = -3.4e38;
  for (var i = first; i < LENGTH; i += STEP) { highest = max(highest, largest(x[start + i])); }
  highest = largestOfRow(highest);
  var sum = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { sum += total(exp(x[start + i] - highest)); }
  let scale = 1.0 / sumOfRow(sum);
  for (var i = first; i < LENGTH; i += STEP) { y[start + i] = exp(x[start + i] - highest) * scale; }`;
  return rowKernel(
    { name: "softmax", rows, columns, reads: ["x: array<V>"], writes: ["y: array<V>"], body, invariant },
    facts,
  );
}

//| 02-attention/4-rows.ipynb#softmax-backward-kernel
/**
 * The gradient of softmax's input from its result p [rows, columns] and the gradient g [rows, columns] of the result,
 * times a constant `factor`: y = factor · p · (g − Σ p·g), from ∂pᵢ/∂xⱼ = pᵢ (δᵢⱼ − pⱼ).
 */
export function softmaxBackwardKernel(
  rows: number,
  columns: number,
  facts: AdapterFacts,
  factor = 1,
): Kernel {
  const body = `
  var sum = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { sum += total(p[start + i] * g[start + i]); }
  let mean = sumOfRow(sum);
  let factor = bitcast<f32>(sizes.factor);
  for (var i = first; i < LENGTH; i += STEP) { y[start + i] = p[start + i] * (g[start + i] - mean) * factor; }`;
  const reads = ["p: array<V>", "g: array<V>"];
  const sizes = { factor: floatBits(factor) };
  return rowKernel(
    { name: "softmax backward", rows, columns, reads, writes: ["y: array<V>"], sizes, body },
    facts,
  );
}
