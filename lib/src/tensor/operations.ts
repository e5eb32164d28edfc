// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { copyBlockKernel } from "../kernels/copy.js";
import {
  type UnaryFunction,
  elementwiseKernel,
  unaryBackwardKernel,
  unaryFunctions,
  unaryKernel,
  wgslNumber,
} from "../kernels/elementwise.js";
import type { Epilogue, MatmulShape } from "../kernels/matmul.js";
import { matmulKernel } from "../kernels/products.js";
import {
  columnSumKernel,
  partialSumKernel,
  partialSums,
  repeatKernel,
  totalKernel,
} from "../kernels/reduce.js";
import { isTracked, track } from "./autograd.js";
import { pieces } from "./pieces.js";
import { type Precision, matmulPrecision } from "./precision.js";
import { type Tensor, describe, empty, launch, launchInto, sizeOf, view } from "./tensor.js";

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
/** x multiplied by a number that never changes (it is compiled into the kernel). */
export function scale(x: Tensor, factor: number): Tensor {
  const scaled = (source: Tensor) =>
    launch(
      elementwiseKernel(`scale by ${factor}`, [x.size], [`a * ${wgslNumber(factor)}`]),
      [source],
      x.shape,
    );
  return track(scaled(x), [x], (gradient) => [scaled(gradient)]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#add-multiply
/** a + b, element by element; b may be a smaller tensor that repeats over a's leading dimensions. */
export function add(a: Tensor, b: Tensor): Tensor {
  checkRepeats("add", a, b);
  const output = launch(elementwiseKernel("add", [a.size, b.size], ["a + b"]), [a, b], a.shape);
  return track(output, [a, b], (gradient) => [gradient, sumToShape(gradient, b.shape)]);
}

/** a − b, element by element; b may repeat as in `add`. */
export function subtract(a: Tensor, b: Tensor): Tensor {
  return add(a, scale(b, -1));
}

//| 02-attention/3-tensors-and-gradients.ipynb#multiply
/** a · b, element by element; b may repeat as in `add`. */
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

//| 02-attention/3-tensors-and-gradients.ipynb#unary
/** Applies any function with its derivative to every element. */
export function applyUnary(name: string, definition: UnaryFunction, x: Tensor): Tensor {
  const y = launch(unaryKernel(name, definition, x.size), [x], x.shape);
  return track(y, [x], (gradient) => [
    launch(unaryBackwardKernel(name, definition, x.size), [x, y, gradient], x.shape),
  ]);
}

/** Applies one of `unaryFunctions` to every element. */
export function unary(name: keyof typeof unaryFunctions, x: Tensor): Tensor {
  return applyUnary(name, unaryFunctions[name], x);
}

//| 02-attention/3-tensors-and-gradients.ipynb#sums
/** The sum of `expression` (of `x`) over all elements, times a factor; off the tape. Output: [1]. */
export function reduceAll(x: Tensor, expression = "x", factor = 1): Tensor {
  const partial = launch(partialSumKernel(x.size, expression), [x], [Math.min(partialSums, x.size)]);
  return launch(totalKernel(partial.size, wgslNumber(factor)), [partial], [1]);
}

/** A tensor filled with factor · scalar, off the tape. */
export function repeatScalar(scalar: Tensor, shape: readonly number[], factor: number): Tensor {
  const kernel = repeatKernel(sizeOf(shape), wgslNumber(factor));
  return launch(kernel, [scalar], shape);
}

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

//| 02-attention/3-tensors-and-gradients.ipynb#matmul-options
/** Options of a matrix product: which operand is stored transposed, and its precision if it is not the present one. */
export interface MatmulOptions {
  transposeA?: boolean;
  transposeB?: boolean;
  precision?: Precision;
}

/** What a product may add to its result in the same kernel. */
export interface MatmulExtras {
  /** A number for each column, added to every row. */
  bias?: Tensor;
  /** A tensor of the result's shape. */
  residual?: Tensor;
}

/** The same, and the scales of gemm: alpha times the product, beta times the residual. Both are 1 unless given. */
export interface ProductExtras extends MatmulExtras {
  alpha?: number;
  beta?: number;
}

/** The last two dimensions, turned round when the matrix is stored transposed. */
export function lastTwo(x: Tensor, transposed?: boolean): [number, number] {
  if (x.shape.length < 2) throw new Error(`matmul wants at least two dimensions, not ${describe(x)}.`);
  const [rows, columns] = x.shape.slice(-2);
  return transposed ? [columns, rows] : [rows, columns];
}

/** The shape of the product of two tensors whose last two dimensions are matrices. Throws when they do not fit. */
export function matmulShape(a: Tensor, b: Tensor, options: MatmulOptions): MatmulShape {
  const { transposeA, transposeB, precision = matmulPrecision.now } = options;
  const [aRows, aInner] = lastTwo(a, transposeA);
  const [bInner, columns] = lastTwo(b, transposeB);
  const batch = sizeOf(a.shape.slice(0, -2));
  const batchB = sizeOf(b.shape.slice(0, -2));
  if (aInner !== bInner || (batchB !== batch && batchB !== 1)) {
    const notes = [transposeA && "A transposed", transposeB && "B transposed"].filter(Boolean).join(", ");
    throw new Error(`matmul: ${describe(a)} and ${describe(b)} do not fit${notes && ` (${notes})`}.`);
  }
  return {
    batch,
    rows: aRows,
    columns,
    inner: aInner,
    transposeA,
    transposeB,
    sharedB: batchB === 1 && batch > 1,
    halves: precision === "f16",
  };
}

//| 02-attention/3-tensors-and-gradients.ipynb#product
/** What a kernel of products does to its results: nothing, or what the extras ask for. */
export function epilogueOf({ bias, residual, alpha, beta }: ProductExtras): Epilogue | undefined {
  if (!bias && !residual && alpha === undefined) return undefined;
  const activation = alpha === undefined ? undefined : `f32(${alpha}) * y`;
  return { bias: bias !== undefined, activation, residual: residual !== undefined, beta };
}

/**
 * The matrix product off the tape, alpha · a · b + beta · residual as in BLAS's gemm. A bias, a number for each column, is
 * added before alpha multiplies.
 */
export function product(
  a: Tensor,
  b: Tensor,
  options: MatmulOptions = {},
  extras: ProductExtras = {},
): Tensor {
  const shape = { ...matmulShape(a, b, options), epilogue: epilogueOf(extras) };
  return launch(
    matmulKernel(shape, currentGpu().facts),
    [a, b, extras.bias, extras.residual].flatMap((each) => each ?? []),
    [...a.shape.slice(0, -2), shape.rows, shape.columns],
  );
}

//| 02-attention/3-tensors-and-gradients.ipynb#matmul
/**
 * The matrix product of the last two dimensions: a [..., rows, inner] and b [..., inner, columns] give
 * [..., rows, columns]. Leading dimensions are a batch and must agree.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const ta = options.transposeA ?? false;
  const tb = options.transposeB ?? false;
  if (matmulShape(a, b, options).sharedB)
    throw new Error(`matmul: use linear() to apply one matrix ${describe(b)} to a batch ${describe(a)}.`);
  const precision = matmulPrecision.now;
  return track(product(a, b, options), [a, b], (g) => [
    isTracked(a)
      ? ta
        ? product(b, g, { transposeA: tb, transposeB: true, precision })
        : product(g, b, { transposeB: !tb, precision })
      : undefined,
    isTracked(b)
      ? tb
        ? product(g, a, { transposeA: true, transposeB: ta, precision })
        : product(a, g, { transposeA: !ta, precision })
      : undefined,
  ]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#linear-shape
/** The shape of a linear layer's result. Throws when its tensors do not fit together. */
export function linearShape(x: Tensor, weight: Tensor, { bias, residual }: MatmulExtras): number[] {
  const [outputs, inputs] = weight.shape;
  if (weight.shape.length !== 2 || x.shape.at(-1) !== inputs)
    throw new Error(
      `linear: ${describe(x)} must end in the last dimension of its weight ${describe(weight)}.`,
    );
  const shape = [...x.shape.slice(0, -1), outputs];
  if (bias && bias.shape.join() !== `${outputs}`)
    throw new Error(`linear: the bias ${describe(bias)} must be [${outputs}], a number for each output.`);
  if (residual && residual.shape.join() !== shape.join())
    throw new Error(`linear: the residual ${describe(residual)} must have the result's shape [${shape}].`);
  return shape;
}

//| 02-attention/3-tensors-and-gradients.ipynb#large-weights
/** The pieces of a weight [outputs, inputs] that kernels can bind, each with the number of its first output. */
export function weightPieces(weight: Tensor): { piece: Tensor; from: number }[] {
  let from = 0;
  return pieces(weight).map((piece) => {
    const start = from;
    from += piece.shape[0];
    return { piece, from: start };
  });
}

/** A copy of some columns of x [rows, columns]. */
export function columnsOf(x: Tensor, from: number, count: number): Tensor {
  const [rows, columns] = x.shape;
  const kernel = copyBlockKernel(rows, count, { start: from, stride: columns }, { start: 0, stride: count });
  return launch(kernel, [x], [rows, count]);
}

/** Copies columns to where they belong in `whole` [rows, columns]. */
export function putColumns(part: Tensor, whole: Tensor, to: number): void {
  const [rows, columns] = part.shape;
  const place = { start: to, stride: whole.shape[1] };
  launchInto(copyBlockKernel(rows, columns, { start: 0, stride: columns }, place), [part], [whole]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#weight-products
/** x [rows, inputs] times the transpose of a weight [outputs, inputs] of any size, off the tape. */
export function timesWeight(x: Tensor, weight: Tensor, extras: MatmulExtras = {}): Tensor {
  const parts = weightPieces(weight);
  if (parts.length === 1) return product(x, weight, { transposeB: true }, extras);
  const output = empty([x.shape[0], weight.shape[0]]);
  for (const { piece, from } of parts) putColumns(product(x, piece, { transposeB: true }), output, from);
  const plus = (a: Tensor, b?: Tensor) =>
    b ? launch(elementwiseKernel("add", [a.size, b.size], ["a + b"]), [a, b], a.shape) : a;
  return plus(plus(output, extras.bias), extras.residual);
}

/** A gradient [rows, outputs] times a weight [outputs, inputs] of any size: the gradient of what the weight was applied to. */
export function timesWeightBack(gradient: Tensor, weight: Tensor, options: MatmulOptions = {}): Tensor {
  const parts = weightPieces(weight);
  if (parts.length === 1) return product(gradient, weight, options);
  return parts.reduce<Tensor | undefined>((residual, { piece, from }) => {
    const columns = columnsOf(gradient, from, piece.shape[0]);
    return product(columns, piece, options, { residual });
  }, undefined)!;
}

/** The gradient of a weight of any size, from that of the result [rows, outputs] and x [rows, inputs]. */
export function weightGradient(gradient: Tensor, x: Tensor, options: MatmulOptions = {}): Tensor {
  const transposed = { ...options, transposeA: true };
  const result = empty([gradient.shape[1], x.shape[1]]);
  const parts = weightPieces(result);
  for (const { piece, from } of parts) {
    const columns = parts.length === 1 ? gradient : columnsOf(gradient, from, piece.shape[0]);
    const shape = matmulShape(columns, x, transposed);
    launchInto(matmulKernel(shape, currentGpu().facts), [columns, x], [piece]);
  }
  return result;
}

//| 02-attention/3-tensors-and-gradients.ipynb#linear
/**
 * A linear layer: x [..., inputs] times the transpose of weight [outputs, inputs], plus bias and residual where given,
 * gives [..., outputs]. All leading dimensions of x are rows of one product.
 */
export function linear(x: Tensor, weight: Tensor, extras: MatmulExtras = {}): Tensor {
  const { bias, residual } = extras;
  const shape = linearShape(x, weight, extras);
  const precision = matmulPrecision.now;
  const flat = view(x, [x.size / weight.shape[1], weight.shape[1]]);
  const output = view(timesWeight(flat, weight, extras), shape);
  const added = [bias, residual].flatMap((each) => each ?? []);
  return track(output, [x, weight, ...added], (gradient) => {
    const g = view(gradient, [flat.shape[0], weight.shape[0]]);
    return [
      isTracked(x) ? view(timesWeightBack(g, weight, { precision }), x.shape) : undefined,
      isTracked(weight) ? weightGradient(g, flat, { precision }) : undefined,
      ...(bias ? [isTracked(bias) ? sumToShape(gradient, bias.shape) : undefined] : []),
      ...(residual ? [gradient] : []),
    ];
  });
}
