// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";

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
    workgroupSize: 64,
    workgroups: Math.ceil(count / 64),
    body: `
  if (thread >= ${count}u) { return; }
  var sum = 0.0;
  for (var i = thread; i < arrayLength(&xs); i += ${count}u) {
    let x = xs[i];
    sum += ${expression};
  }
  sums[thread] = sum;`,
  });
}

/** Adds up all numbers and multiplies the sum by `factor`. Output: f32 [1]. */
export function totalKernel(size: number, factor = "1.0"): Kernel {
  return kernel({
    name: `total ${size}`,
    reads: ["xs: array<f32>"],
    writes: ["total: array<f32>"],
    workgroupSize: 1,
    workgroups: 1,
    body: `
  var sum = 0.0;
  for (var i = 0u; i < arrayLength(&xs); i++) { sum += xs[i]; }
  total[0] = sum * ${factor};`,
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#column-sums
/**
 * Sums over rows: x [rows, columns] to [groups, columns], each group adding its share of the rows. Two passes (many
 * groups, then one) keep many invocations busy.
 */
export function columnSumKernel(rows: number, columns: number, groups: number): Kernel {
  const share = Math.ceil(rows / groups);
  return kernel({
    name: `column sums ${rows}x${columns} in ${groups}`,
    reads: ["x: array<f32>"],
    writes: ["sums: array<f32>"],
    workgroupSize: 64,
    workgroups: Math.ceil((columns * groups) / 64),
    body: `
  if (thread >= ${columns * groups}u) { return; }
  let column = thread % ${columns}u;
  let first = thread / ${columns}u * ${share}u;
  var sum = 0.0;
  for (var row = first; row < min(first + ${share}u, ${rows}u); row++) { sum += x[row * ${columns}u + column]; }
  sums[thread] = sum;`,
  });
}

/** Writes one number, times a factor, into every element: the way back from a sum. */
export function repeatKernel(size: number, factor: string): Kernel {
  return kernel({
    name: `repeat ${size}`,
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  y[thread] = x[0] * ${factor};`,
  });
}
