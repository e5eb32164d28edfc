// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { kernelOf } from "../gpu/commands.js";
import type { Kernel } from "../gpu/kernel.js";

//| 02-attention/3-tensors-and-gradients.ipynb#partial-sums
/** How many partial sums a long sum is cut into. */
export const partialSums = 256;

/**
 * Cuts `size` numbers into partial sums of `expression` (of the element `x`), one an invocation, each in a fixed order:
 * the result is the same bits every time, which atomic additions would not give. Output: f32 [min(256, size)].
 */
export function partialSumKernel(size: number, expression = "x"): Kernel {
  const count = Math.min(partialSums, size);
  const name = `partial sums of ${expression} ${size}`;
  return kernelOf(
    `partial sums ${expression}`,
    { name, sizes: { count }, workgroups: Math.ceil(count / 64) },
    () => ({
      reads: ["xs: array<f32>"],
      writes: ["sums: array<f32>"],
      workgroupSize: 64,
      body: `
  if (thread >= sizes.count) { return; }
  var sum = 0.0;
  for (var i = thread; i < arrayLength(&xs); i += sizes.count) {
    let x = xs[i];
    sum += ${expression};
  }
  sums[thread] = sum;`,
    }),
  );
}

/** Adds up all numbers and multiplies the sum by `factor`. Output: f32 [1]. */
export function totalKernel(size: number, factor = "1.0"): Kernel {
  return kernelOf(`total ${factor}`, { name: `total ${size}`, workgroups: 1 }, () => ({
    reads: ["xs: array<f32>"],
    writes: ["total: array<f32>"],
    workgroupSize: 1,
    body: `
  var sum = 0.0;
  for (var i = 0u; i < arrayLength(&xs); i++) { sum += xs[i]; }
  total[0] = sum * ${factor};`,
  }));
}

//| 02-attention/3-tensors-and-gradients.ipynb#column-sums
/**
 * Sums over rows: x [rows, columns] to [groups, columns], each group adding its share of the rows. Two passes (many
 * groups, then one) keep many invocations busy.
 */
export function columnSumKernel(rows: number, columns: number, groups: number): Kernel {
  const sizes = { rows, columns, groups, rowsEach: Math.ceil(rows / groups) };
  const name = `column sums ${rows}x${columns} in ${groups}`;
  const workgroups = Math.ceil((columns * groups) / 64);
  return kernelOf("column sums", { name, sizes, workgroups }, () => ({
    reads: ["x: array<f32>"],
    writes: ["sums: array<f32>"],
    workgroupSize: 64,
    body: `
  if (thread >= sizes.columns * sizes.groups) { return; }
  let column = thread % sizes.columns;
  let first = thread / sizes.columns * sizes.rowsEach;
  let end = min(first + sizes.rowsEach, sizes.rows);
  var sum = 0.0;
  for (var row = first; row < end; row++) { sum += x[row * sizes.columns + column]; }
  sums[thread] = sum;`,
  }));
}

/** Writes one number, times a factor, into every element: the way back from a sum. */
export function repeatKernel(size: number, factor: string): Kernel {
  const instance = { name: `repeat ${size}`, workgroups: Math.ceil(size / 64) };
  return kernelOf(`repeat ${factor}`, instance, () => ({
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    workgroupSize: 64,
    body: `
  if (thread >= arrayLength(&y)) { return; }
  y[thread] = x[0] * ${factor};`,
  }));
}
