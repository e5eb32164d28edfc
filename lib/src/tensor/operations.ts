// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import {
  type UnaryFunction,
  elementwiseKernel,
  unaryBackwardKernel,
  unaryFunctions,
  unaryKernel,
} from "../kernels/elementwise.js";
import {
  columnSumKernel,
  partialSumKernel,
  partialSums,
  repeatKernel,
  totalKernel,
} from "../kernels/reduce.js";
import { isTracked, track } from "./autograd.js";
import { type Tensor, describe, launch, sizeOf, view } from "./tensor.js";

//| 02-attention/3-tensors-and-gradients.ipynb#repeats
/** Checks that b's shape equals the last dimensions of a's, so that b repeats over the leading ones. */
export function checkRepeats(operation: string, a: Tensor, b: Tensor): void {
  const tail = a.shape.slice(a.shape.length - b.shape.length);
  if (b.shape.length > a.shape.length || b.shape.some((length, i) => length !== tail[i]))
    throw new Error(
      `${operation}: the shape of ${describe(b)} must be that of ${describe(a)} or its last dimensions.`,
    );
}

/** Sums a gradient over the leading dimensions that a smaller operand was repeated over. */
export function sumToShape(gradient: Tensor, shape: readonly number[]): Tensor {
  const columns = sizeOf(shape);
  if (gradient.size === columns) return view(gradient, shape);
  const rows = gradient.size / columns;
  const groups = Math.min(32, rows);
  const partial = launch(columnSumKernel(rows, columns, groups), [gradient], [groups, columns]);
  return launch(columnSumKernel(groups, columns, 1), [partial], shape);
}

//| 02-attention/3-tensors-and-gradients.ipynb#scale
/** x [...] multiplied by a number that is the same each time. */
export function scale(x: Tensor, factor: number): Tensor {
  const scaled = (source: Tensor) =>
    launch(elementwiseKernel("scale", [x.size], ["a * factor"], { factor }), [source], x.shape);
  return track(scaled(x), [x], (gradient) => [scaled(gradient)]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#add-multiply
/** a + b, element by element: a [..., n] keeps its shape; b has it too, or is a smaller tensor [n] that repeats over a's leading dimensions. */
export function add(a: Tensor, b: Tensor): Tensor {
  checkRepeats("add", a, b);
  const output = launch(elementwiseKernel("add", [a.size, b.size], ["a + b"]), [a, b], a.shape);
  return track(output, [a, b], (gradient) => [gradient, sumToShape(gradient, b.shape)]);
}

/** a − b, element by element: a [..., n] keeps its shape; b may repeat as in `add`. */
export function subtract(a: Tensor, b: Tensor): Tensor {
  return add(a, scale(b, -1));
}

//| 02-attention/3-tensors-and-gradients.ipynb#multiply
/** a · b, element by element: a [..., n] keeps its shape; b may repeat as in `add`. */
export function multiply(a: Tensor, b: Tensor): Tensor {
  checkRepeats("multiply", a, b);
  const output = launch(elementwiseKernel("multiply", [a.size, b.size], ["a * b"]), [a, b], a.shape);
  return track(output, [a, b], (gradient) => [
    isTracked(a)
      ? launch(elementwiseKernel("multiply", [a.size, b.size], ["a * b"]), [gradient, b], a.shape)
      : undefined,
    isTracked(b)
      ? sumToShape(
          launch(elementwiseKernel("multiply", [a.size, a.size], ["a * b"]), [gradient, a], a.shape),
          b.shape,
        )
      : undefined,
  ]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#unary-parts
/** Applies any function with its derivative to every element. */
export function applyUnary(name: string, definition: UnaryFunction, x: Tensor): Tensor {
  const y = launch(unaryKernel(name, definition, x.size), [x], x.shape);
  return track(y, [x], (gradient) => [
    launch(unaryBackwardKernel(name, definition, x.size), [x, y, gradient], x.shape),
  ]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#unary
/** Applies one of `unaryFunctions` to every element of x [...], which keeps its shape. */
export function unary(name: keyof typeof unaryFunctions, x: Tensor): Tensor {
  return applyUnary(name, unaryFunctions[name], x);
}

//| 02-attention/3-tensors-and-gradients.ipynb#sums-parts
/** The sum of `expression` (of `x`) over all elements, times a factor; off the tape. Output: [1]. */
export function reduceAll(x: Tensor, expression = "x", factor = 1): Tensor {
  const partial = launch(partialSumKernel(x.size, expression), [x], [Math.min(partialSums, x.size)]);
  return launch(totalKernel(partial.size, factor), [partial], [1]);
}

/** A tensor filled with factor · scalar, off the tape. */
export function repeatScalar(scalar: Tensor, shape: readonly number[], factor: number): Tensor {
  const kernel = repeatKernel(sizeOf(shape), factor);
  return launch(kernel, [scalar], shape);
}

//| 02-attention/3-tensors-and-gradients.ipynb#sums
/** The sum of all elements. Output: [1]. */
export function sum(x: Tensor): Tensor {
  return track(reduceAll(x), [x], (gradient) => [repeatScalar(gradient, x.shape, 1)]);
}

/** The mean of all elements. Output: [1]. */
export function mean(x: Tensor): Tensor {
  return track(reduceAll(x, "x", 1 / x.size), [x], (gradient) => [
    repeatScalar(gradient, x.shape, 1 / x.size),
  ]);
}
