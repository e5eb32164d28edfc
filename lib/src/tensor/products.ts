// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { bindingLimit, checkFits } from "../gpu/buffers.js";
import { currentGpu } from "../gpu/device.js";
import { copyBlockKernel } from "../kernels/copy.js";
import { elementwiseKernel } from "../kernels/elementwise.js";
import { type Epilogue, type MatmulShape, type OperandFormat, checkBlocks } from "../kernels/operands.js";
import { matmulKernel } from "../kernels/products.js";
import { range } from "../kernels/wgsl.js";
import { inference, isTracked, track } from "./autograd.js";
import { scale, sumToShape } from "./operations.js";
import { pieces, rowWindow } from "./pieces.js";
import { type Precision, matmulPrecision } from "./precision.js";
import {
  type DType,
  type Tensor,
  bytesOf,
  describe,
  empty,
  launch,
  launchInto,
  sizeOf,
  tensor,
  view,
} from "./tensor.js";
import { linearWatcher } from "./watch.js";

//| 02-attention/3-tensors-and-gradients.ipynb#packed-weight
/** A weight [..., outputs, inputs] in an operand format. Gradients go through it, and it has none itself. */
export class PackedWeight {
  constructor(
    readonly format: OperandFormat,
    readonly shape: readonly number[],
    readonly parts: Tensor<DType>[],
  ) {}

  get trainable(): boolean {
    return false;
  }

  set trainable(_: boolean) {
    throw new Error(
      `A weight packed as ${describeWeight(this)} has no gradient: train an adapter beside it.`,
    );
  }

  /** Frees its memory now instead of when it is collected. */
  free(): void {
    for (const part of this.parts) part.free();
  }
}

/** A weight, dense or packed. */
export type Weight = Tensor | PackedWeight;

/** A weight's shape and format as errors show it, such as `int8 [2048, 768]`. */
export function describeWeight(weight: Weight): string {
  return weight instanceof PackedWeight
    ? `${weight.format.name} [${weight.shape.join(", ")}]`
    : describe(weight);
}

//| 02-attention/3-tensors-and-gradients.ipynb#pack
/** Packs the values of a weight [..., outputs, inputs]. Throws where a row is not whole blocks of the format. */
export function pack(
  values: ArrayLike<number>,
  shape: readonly number[],
  format: OperandFormat,
): PackedWeight {
  const inputs = shape[shape.length - 1];
  if (values.length !== sizeOf(shape))
    throw new Error(`${values.length} values cannot be packed as [${shape.join(", ")}]: all must be there.`);
  checkBlocks(format, inputs);
  const arrays = format.pack(Float32Array.from(values), inputs);
  const parts = arrays.map((array) =>
    tensor(array, [array.length], array instanceof Float32Array ? "f32" : "u32"),
  );
  return new PackedWeight(format, [...shape], parts as Tensor<DType>[]);
}

/** The values of a weight [..., outputs, inputs], dense or packed, read back from the GPU in row-major order. */
export async function unpack(weight: Weight): Promise<Float32Array> {
  if (!(weight instanceof PackedWeight)) return weight.array();
  const { format, shape, parts } = weight;
  const arrays = await Promise.all(parts.map((part) => part.array()));
  return format.unpack(arrays, shape[shape.length - 1]).subarray(0, sizeOf(shape));
}

//| 02-attention/3-tensors-and-gradients.ipynb#dense-only
/** A weight that has to be dense; `name` is what an error calls it. */
export function denseWeight(weight: Weight, name: string): Tensor {
  if (!(weight instanceof PackedWeight)) return weight;
  throw new Error(
    `${name} is packed as ${describeWeight(weight)}, which is for reading: open the model with dtype f32.`,
  );
}

//| 02-attention/3-tensors-and-gradients.ipynb#matmul-options-parts
/** The last two dimensions, exchanged when the matrix is stored transposed. */
export function lastTwo(x: Weight, transposed?: boolean): [number, number] {
  if (x.shape.length < 2) throw new Error(`matmul wants at least two dimensions, not ${describeWeight(x)}.`);
  const [rows, columns] = x.shape.slice(-2);
  return transposed ? [columns, rows] : [rows, columns];
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
  /** A number for each column, added to every row [columns]. */
  bias?: Tensor;
  /** A tensor of the result's shape. */
  residual?: Tensor;
}

//| 02-attention/3-tensors-and-gradients.ipynb#matmul-options-helpers
/** The same, and the scales of gemm: alpha times the product, beta times the residual. Both are 1 unless given. */
export interface ProductExtras extends MatmulExtras {
  alpha?: number;
  beta?: number;
}

//| 02-attention/3-tensors-and-gradients.ipynb#product-shape
/** The shape of the product of two tensors whose last two dimensions are matrices. Throws when they do not fit. */
export function matmulShape(a: Tensor, b: Weight, options: MatmulOptions): MatmulShape {
  const { transposeA, transposeB, precision = matmulPrecision.now } = options;
  const [rows, k] = lastTwo(a, transposeA);
  const [bK, columns] = lastTwo(b, transposeB);
  const batch = sizeOf(a.shape.slice(0, -2));
  const batchB = sizeOf(b.shape.slice(0, -2));
  if (k !== bK || (batchB !== batch && batchB !== 1)) {
    const notes = [transposeA && "A transposed", transposeB && "B transposed"].filter(Boolean).join(", ");
    throw new Error(`matmul: ${describe(a)} and ${describeWeight(b)} do not fit${notes && ` (${notes})`}.`);
  }
  const format = b instanceof PackedWeight ? b.format : undefined;
  const sharedB = batchB === 1 && batch > 1;
  const how = { f16: precision === "f16", format, invariant: inference.on };
  return { batch, rows, columns, k, transposeA, transposeB, sharedB, ...how };
}

//| 02-attention/3-tensors-and-gradients.ipynb#product
/** What a kernel of products does to its results: nothing, or what the extras ask for. */
export function epilogueOf({ bias, residual, alpha, beta }: ProductExtras): Epilogue {
  return { bias: bias !== undefined, residual: residual !== undefined, alpha, beta };
}

/** What a kernel of products reads after A: the arrays of B, `reads`, bias and residual, or another tensor in their place. */
export function productInputs(
  a: Tensor,
  b: Weight,
  reads: Tensor<DType>[],
  extras: MatmulExtras = {},
): Tensor<DType>[] {
  const [arrays, unused] = b instanceof PackedWeight ? [b.parts, a] : [[b], b];
  return [a, ...arrays, ...reads, extras.bias ?? unused, extras.residual ?? unused];
}

/**
 * The matrix product off the tape, alpha · (a · b + bias) + beta · residual, as in BLAS's gemm but for the bias, a number for each
 * column: a [..., rows, k] and b [..., k, columns] (or [k, columns] for all) give [..., rows, columns].
 */
export function product(
  a: Tensor,
  b: Weight,
  options: MatmulOptions = {},
  extras: ProductExtras = {},
): Tensor {
  const shape = { ...matmulShape(a, b, options), epilogue: epilogueOf(extras) };
  const kernel = matmulKernel(shape, currentGpu().facts);
  return launch(kernel, productInputs(a, b, [], extras), [
    ...a.shape.slice(0, -2),
    shape.rows,
    shape.columns,
  ]);
}

//| 02-attention/3-tensors-and-gradients.ipynb#matmul
/**
 * The matrix product of the last two dimensions: a [..., rows, k] and b [..., k, columns] give
 * [..., rows, columns]. Leading dimensions are a batch and must agree. Gradients have the precision of the product.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const ta = options.transposeA ?? false;
  const tb = options.transposeB ?? false;
  const precision = options.precision ?? matmulPrecision.now;
  if (matmulShape(a, b, options).sharedB)
    throw new Error(`matmul: use linear() to apply one matrix ${describe(b)} to a batch ${describe(a)}.`);
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

//| 02-attention/3-tensors-and-gradients.ipynb#linear-shape-parts
/** The shape of a linear layer's result. Throws when its tensors do not fit together. */
export function linearShape(x: Tensor, weight: Weight, { bias, residual }: MatmulExtras): number[] {
  const [outputs, inputs] = weight.shape;
  if (weight.shape.length !== 2 || x.shape.at(-1) !== inputs)
    throw new Error(
      `linear: ${describe(x)} must end in the last dimension of its weight ${describeWeight(weight)}.`,
    );
  const shape = [...x.shape.slice(0, -1), outputs];
  if (bias && bias.shape.join() !== `${outputs}`)
    throw new Error(`linear: the bias ${describe(bias)} must be [${outputs}], a number for each output.`);
  if (residual && residual.shape.join() !== shape.join())
    throw new Error(`linear: the residual ${describe(residual)} must have the result's shape [${shape}].`);
  return shape;
}

//| 02-attention/3-tensors-and-gradients.ipynb#linear-shape
/** Two small matrices whose product, scaled, is added to a weight that stays as it is. */
export interface Adapter {
  /** [rank, inputs]. */
  a: Tensor;
  /** [outputs, rank]. */
  b: Tensor;
  scale: number;
}

/** What a linear layer takes in besides its weight. */
export interface LinearExtras extends MatmulExtras {
  adapter?: Adapter;
}

//| 02-attention/3-tensors-and-gradients.ipynb#large-weights
/** The pieces of a packed weight [outputs, inputs]: rows whose arrays all begin at a multiple of 256 bytes. */
export function packedPieces({ format, shape, parts }: PackedWeight): PackedWeight[] {
  const [outputs, inputs] = shape;
  if (parts.every((part) => bytesOf(part.shape, part.dtype) <= bindingLimit()))
    return [new PackedWeight(format, shape, parts)];
  const rowBytes = format.rowBytes(inputs);
  let step = 1;
  while (rowBytes.some((bytes) => (step * bytes) % 256 !== 0)) step *= 2;
  const rows = Math.floor(bindingLimit() / Math.max(...rowBytes) / step) * step;
  if (rows === 0)
    checkFits(step * Math.max(...rowBytes), `A part of a weight ${format.name} [${shape.join(", ")}]`);
  return range(Math.ceil(outputs / rows)).map((i) => {
    const count = Math.min(rows, outputs - i * rows);
    const windows = parts.map((part, p) =>
      rowWindow(part, (i * rows * rowBytes[p]) / 4, Math.ceil((count * rowBytes[p]) / 4)),
    );
    return new PackedWeight(format, [count, inputs], windows);
  });
}

/** The pieces of a weight [outputs, inputs] that kernels can bind, each with the number of its first output. */
export function weightPieces<W extends Weight>(weight: W): { piece: W; from: number }[] {
  const parts = weight instanceof PackedWeight ? packedPieces(weight) : pieces(weight as Tensor);
  let from = 0;
  return (parts as W[]).map((piece) => {
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
/** x [rows, inputs] times the transpose of a weight [outputs, inputs] of any size, off the tape: [rows, outputs]. */
export function timesWeight(x: Tensor, weight: Weight, extras: MatmulExtras = {}): Tensor {
  const parts = weightPieces(weight);
  if (parts.length === 1) return product(x, weight, { transposeB: true }, extras);
  const output = empty([x.shape[0], weight.shape[0]]);
  for (const { piece, from } of parts) putColumns(product(x, piece, { transposeB: true }), output, from);
  const plus = (a: Tensor, b?: Tensor) =>
    b ? launch(elementwiseKernel("add", [a.size, b.size], ["a + b"]), [a, b], a.shape) : a;
  return plus(plus(output, extras.bias), extras.residual);
}

/** A gradient [rows, outputs] times a weight [outputs, inputs] of any size: the gradient [rows, inputs] of what it was applied to. */
export function timesWeightBack(gradient: Tensor, weight: Weight, options: MatmulOptions = {}): Tensor {
  const parts = weightPieces(weight);
  if (parts.length === 1) return product(gradient, weight, options);
  return parts.reduce<Tensor | undefined>((residual, { piece, from }) => {
    const columns = columnsOf(gradient, from, piece.shape[0]);
    return product(columns, piece, options, { residual });
  }, undefined)!;
}

/** The gradient [outputs, inputs] of a weight of any size, from that of the result [rows, outputs] and x [rows, inputs]. */
export function weightGradient(gradient: Tensor, x: Tensor, options: MatmulOptions = {}): Tensor {
  const transposed = { ...options, transposeA: true };
  const shape = [gradient.shape[1], x.shape[1]];
  if (bytesOf(shape, "f32") <= bindingLimit()) return product(gradient, x, transposed);
  const result = empty(shape);
  for (const { piece, from } of weightPieces(result)) {
    const columns = columnsOf(gradient, from, piece.shape[0]);
    const kernel = matmulKernel(matmulShape(columns, x, transposed), currentGpu().facts);
    launchInto(kernel, productInputs(columns, x, []), [piece]);
  }
  return result;
}

//| 02-attention/3-tensors-and-gradients.ipynb#linear
/**
 * A linear layer: x [..., inputs] times the transpose of weight [outputs, inputs], plus what the adapter makes of x, plus bias and
 * residual where given, gives [..., outputs]. All leading dimensions of x are rows of one product.
 */
export function linear(x: Tensor, weight: Weight, { adapter, ...extras }: LinearExtras = {}): Tensor {
  const { bias, residual } = extras;
  if (adapter) return adapted(linear(x, weight, extras), x, adapter);
  linearWatcher.now?.({ x, weight });
  const shape = linearShape(x, weight, extras);
  const precision = matmulPrecision.now;
  const [outputs, inputs] = weight.shape;
  const flat = view(x, [x.size / inputs, inputs]);
  const output = view(timesWeight(flat, weight, extras), shape);
  const learned = weight instanceof PackedWeight ? [] : [weight];
  const added = [bias, residual].flatMap((extra) => extra ?? []);
  return track(output, [x, ...learned, ...added], (gradient) => {
    const g = view(gradient, [flat.shape[0], outputs]);
    return [
      isTracked(x) ? view(timesWeightBack(g, weight, { precision }), x.shape) : undefined,
      ...learned.map((dense) => (isTracked(dense) ? weightGradient(g, flat, { precision }) : undefined)),
      ...(bias ? [isTracked(bias) ? sumToShape(gradient, bias.shape) : undefined] : []),
      ...(residual ? [gradient] : []),
    ];
  });
}

/** What an adapter makes of x [..., inputs], added to what the weight makes of it [..., outputs]. */
export function adapted(base: Tensor, x: Tensor, adapter: Adapter): Tensor {
  return linear(scale(linear(x, adapter.a), adapter.scale), adapter.b, { residual: base });
}
