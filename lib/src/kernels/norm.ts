// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { rowGroups, rowKernel } from "./rows.js";
import { floatBits, vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/4-rows.ipynb#rms-norm-kernel
/**
 * RMSNorm of each row of x [rows, columns] with weight [columns] (Zhang and Sennrich, "Root Mean Square Layer
 * Normalization", 2019): y = x · r · weight with r = 1 / √(mean(x²) + epsilon). The r of each row is kept for the way
 * back, as inverse [rows].
 */
export function rmsNormKernel(
  rows: number,
  columns: number,
  epsilon: number,
  facts: AdapterFacts,
  invariant = false,
): Kernel {
  const body = `
  var sum = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { let v = x[start + i]; sum += total(v * v); }
  let r = inverseSqrt(sumOfRow(sum) / COLUMNS + bitcast<f32>(sizes.epsilon));
  for (var i = first; i < LENGTH; i += STEP) { y[start + i] = x[start + i] * r * weight[i]; }
  if (first == 0u) { inverse[row] = r; }`;
  const reads = ["x: array<V>", "weight: array<V>"];
  const writes = ["y: array<V>", "inverse: array<f32>"];
  const sizes = { epsilon: floatBits(epsilon) };
  return rowKernel({ name: "RMSNorm", rows, columns, reads, writes, sizes, body, invariant }, facts);
}

//| 02-attention/4-rows.ipynb#rms-norm-backward
/**
 * The gradient of RMSNorm's input x [rows, columns], from that of its result, g [rows, columns]. With
 * n = x·r and h = g·weight it is y = r · (h − n · mean(h·n)): the part of h that would only make the row longer is taken
 * off, since the length does not matter to the result.
 */
export function rmsNormBackwardKernel(rows: number, columns: number, facts: AdapterFacts): Kernel {
  const body = `
  let r = inverse[row];
  var sum = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { sum += total(g[start + i] * weight[i] * x[start + i]); }
  let along = sumOfRow(sum) * r * r / COLUMNS;
  for (var i = first; i < LENGTH; i += STEP) {
    y[start + i] = r * (g[start + i] * weight[i] - x[start + i] * along);
  }`;
  const reads = ["x: array<V>", "weight: array<V>", "inverse: array<f32>", "g: array<V>"];
  return rowKernel({ name: "RMSNorm backward", rows, columns, reads, writes: ["y: array<V>"], body }, facts);
}

//| 02-attention/4-rows.ipynb#rms-norm-weight-kernel
/**
 * The sums over the rows of each group of g·x·r (g and x [rows, columns], r [rows]), which added up are the gradient of
 * RMSNorm's weight. Output: [rowGroups(rows), columns].
 */
export function rmsNormWeightKernel(rows: number, columns: number): Kernel {
  const width = vectorWidth(columns);
  const [length, groups] = [columns / width, rowGroups(rows)];
  return kernel({
    name: `RMSNorm weight backward ${rows}x${columns}`,
    reads: ["x: array<V>", "inverse: array<f32>", "g: array<V>"],
    writes: ["sums: array<V>"],
    sizes: { rows, length, groups, rowsPerGroup: Math.ceil(rows / groups) },
    head: vectorAlias(width),
    workgroupSize: 64,
    workgroups: Math.ceil((groups * length) / 64),
    body: `
  if (thread >= sizes.groups * sizes.length) { return; }
  let column = thread % sizes.length;
  let first = thread / sizes.length * sizes.rowsPerGroup;
  var sum = V();
  for (var row = first; row < min(first + sizes.rowsPerGroup, sizes.rows); row++) {
    let at = row * sizes.length + column;
    sum += g[at] * x[at] * inverse[row];
  }
  sums[thread] = sum;`,
  });
}

//| 02-attention/4-rows.ipynb#layer-norm-kernel
/**
 * LayerNorm of each row of x [rows, columns] with weight and bias [columns] (Ba, Kiros and Hinton, "Layer
 * Normalization", 2016): y = (x − mean(x)) · r · weight + bias with r = 1 / √(variance + epsilon). Mean and r of each row
 * are kept for the way back, as statistics [rows, 2].
 */
export function layerNormKernel(
  rows: number,
  columns: number,
  epsilon: number,
  facts: AdapterFacts,
  invariant = false,
): Kernel {
  const body = `
  var sum = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { sum += total(x[start + i]); }
  let mean = sumOfRow(sum) / COLUMNS;
  var squares = 0.0;
  for (var i = first; i < LENGTH; i += STEP) { let v = x[start + i] - mean; squares += total(v * v); }
  let r = inverseSqrt(sumOfRow(squares) / COLUMNS + bitcast<f32>(sizes.epsilon));
  for (var i = first; i < LENGTH; i += STEP) { y[start + i] = (x[start + i] - mean) * r * weight[i] + bias[i]; }
  if (first == 0u) { statistics[row] = vec2f(mean, r); }`;
  const reads = ["x: array<V>", "weight: array<V>", "bias: array<V>"];
  const writes = ["y: array<V>", "statistics: array<vec2f>"];
  const sizes = { epsilon: floatBits(epsilon) };
  return rowKernel({ name: "LayerNorm", rows, columns, reads, writes, sizes, body, invariant }, facts);
}

//| 02-attention/4-rows.ipynb#layer-norm-backward
/**
 * The gradient of LayerNorm's input x [rows, columns], from that of its result, g [rows, columns]. With
 * n = (x − mean)·r and h = g·weight it is y = r · (h − mean(h) − n · mean(h·n)).
 */
export function layerNormBackwardKernel(rows: number, columns: number, facts: AdapterFacts): Kernel {
  const body = `
  let kept = statistics[row];
  var sum = vec2f();
  for (var i = first; i < LENGTH; i += STEP) {
    let h = g[start + i] * weight[i];
    sum += vec2f(total(h), total(h * ((x[start + i] - kept.x) * kept.y)));
  }
  let meanGradient = sumOfRow(sum.x) / COLUMNS;
  let along = sumOfRow(sum.y) / COLUMNS;
  for (var i = first; i < LENGTH; i += STEP) {
    y[start + i] = kept.y * (g[start + i] * weight[i] - meanGradient - (x[start + i] - kept.x) * kept.y * along);
  }`;
  const reads = ["x: array<V>", "weight: array<V>", "statistics: array<vec2f>", "g: array<V>"];
  return rowKernel(
    { name: "LayerNorm backward", rows, columns, reads, writes: ["y: array<V>"], body },
    facts,
  );
}

//| 02-attention/4-rows.ipynb#normalized-kernel
/** (x − mean) · r of each row of x [rows, columns] again, from the mean and r that LayerNorm kept [rows, 2]. */
export function normalizedKernel(rows: number, columns: number, facts: AdapterFacts): Kernel {
  const body = `
  let kept = statistics[row];
  for (var i = first; i < LENGTH; i += STEP) { y[start + i] = (x[start + i] - kept.x) * kept.y; }`;
  const reads = ["x: array<V>", "statistics: array<vec2f>"];
  return rowKernel({ name: "normalized rows", rows, columns, reads, writes: ["y: array<V>"], body }, facts);
}
