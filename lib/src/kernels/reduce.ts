// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits } from "./wgsl.js";

//| 02-attention/3-tensors-and-gradients.ipynb#partial-sums
/** How many partial sums a long sum is cut into. */
export const partialSums = 256;

/**
 * Cuts `size` numbers into partial sums of `expression` (of the element `x`), one an invocation, each in a fixed order:
 * the result is the same bits every time, which atomic additions would not give. Output: f32 [min(256, size)].
 */
export function partialSumKernel(size: number, expression = "x"): Kernel {
  const count = Math.min(partialSums, size);
  return kernel({
    name: `partial sums of ${expression} ${size}`,
    reads: ["xs: array<f32>"],
    writes: ["sums: array<f32>"],
    sizes: { count },
    workgroupSize: 64,
    workgroups: Math.ceil(count / 64),
    body: `
  if (thread >= sizes.count) { return; }
  var sum = 0.0;
  for (var i = thread; i < arrayLength(&xs); i += sizes.count) {
    let x = xs[i];
    sum += ${expression};
  }
  sums[thread] = sum;`,
  });
}

/** Adds up `size` numbers and multiplies the sum by `factor`. Output: f32 [1]. */
export function totalKernel(size: number, factor = 1): Kernel {
  return kernel({
    name: `total ${size}`,
    reads: ["xs: array<f32>"],
    writes: ["total: array<f32>"],
    sizes: { factor: floatBits(factor) },
    workgroupSize: 1,
    workgroups: 1,
    body: `
  var sum = 0.0;
  for (var i = 0u; i < arrayLength(&xs); i++) { sum += xs[i]; }
  total[0] = sum * bitcast<f32>(sizes.factor);`,
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#column-sums
/**
 * Sums over rows: x [rows, columns] to [groups, columns], each group adding its part of the rows. Two passes (many
 * groups, then one) keep many invocations busy.
 */
export function columnSumKernel(rows: number, columns: number, groups: number): Kernel {
  return kernel({
    name: `column sums ${rows}x${columns} in ${groups}`,
    reads: ["x: array<f32>"],
    writes: ["sums: array<f32>"],
    sizes: { rows, columns, groups, rowsPerGroup: Math.ceil(rows / groups) },
    workgroupSize: 64,
    workgroups: Math.ceil((columns * groups) / 64),
    body: `
  if (thread >= sizes.columns * sizes.groups) { return; }
  let column = thread % sizes.columns;
  let first = thread / sizes.columns * sizes.rowsPerGroup;
  let end = min(first + sizes.rowsPerGroup, sizes.rows);
  var sum = 0.0;
  for (var row = first; row < end; row++) { sum += x[row * sizes.columns + column]; }
  sums[thread] = sum;`,
  });
}

/** Writes one number x [1], times a factor, into all `size` elements: the way back from a sum. */
export function repeatKernel(size: number, factor: number): Kernel {
  return kernel({
    name: `repeat ${size}`,
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    sizes: { factor: floatBits(factor) },
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  y[thread] = x[0] * bitcast<f32>(sizes.factor);`,
  });
}
