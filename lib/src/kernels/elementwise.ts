// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 02-attention/3-tensors-and-gradients.ipynb#wgsl-number
/** A number as WGSL writes an f32. Throws for what WGSL cannot write. */
export function wgslNumber(value: number): string {
  if (!Number.isFinite(value)) throw new Error(`WGSL has no way to write ${value}.`);
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** The names that expressions use for their operands, in order. */
export const operandNames = ["a", "b", "c", "d", "e", "f"];

//| 02-attention/3-tensors-and-gradients.ipynb#elementwise-kernel
/**
 * Computes each of `expressions` for every element: operands are called a, b, c … and a shorter one repeats (its length
 * divides the longest). Written for `V`, which is four floats at a time where the sizes allow it, else one.
 * Each invocation takes four steps: loads are what costs, and a loop hides their latency.
 */
export function elementwiseKernel(name: string, sizes: number[], expressions: string[]): Kernel {
  const size = Math.max(...sizes);
  const width = sizes.every((each) => each % 4 === 0) ? 4 : 1;
  const type = width === 4 ? "vec4f" : "f32";
  const names = operandNames.slice(0, sizes.length);
  const loads = names.map((operand, k) => {
    const at = sizes[k] === size ? "i" : `i % arrayLength(&${operand}In)`;
    return `    let ${operand} = ${operand}In[${at}];`;
  });
  const stores = expressions.map((expression, k) => `    y${k}[i] = ${expression};`);
  return kernel({
    name: `${name} ${size}`,
    reads: names.map((operand) => `${operand}In: array<V>`),
    writes: expressions.map((_, k) => `y${k}: array<V>`),
    head: `alias V = ${type};`,
    workgroupSize: 64,
    workgroups: Math.ceil(size / width / 256),
    body: [
      "  for (var step = 0u; step < 4u; step++) {",
      "    let i = workgroup * 256u + step * 64u + lane;",
      "    if (i >= arrayLength(&y0)) { return; }",
      ...loads,
      ...stores,
      "  }",
    ].join("\n"),
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#copy-block
/** A block of numbers within an array: where it starts, and how far it is from one of its rows to the next. */
export interface BlockPlace {
  start: number;
  stride: number;
}

/** Copies a block of rows × columns numbers of 32 bits from its place in one array to its place in another. */
export function copyBlockKernel(rows: number, columns: number, from: BlockPlace, to: BlockPlace): Kernel {
  return kernel({
    name: `copy block ${rows}x${columns}`,
    reads: ["x: array<u32>"],
    writes: ["y: array<u32>"],
    sizes: {
      size: rows * columns,
      columns,
      fromStart: from.start,
      fromStride: from.stride,
      toStart: to.start,
      toStride: to.stride,
    },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * columns) / 64),
    body: `
  if (thread >= sizes.size) { return; }
  let row = thread / sizes.columns;
  let column = thread % sizes.columns;
  y[sizes.toStart + row * sizes.toStride + column] = x[sizes.fromStart + row * sizes.fromStride + column];`,
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#unary-table
/** A function of one number with its derivative, as WGSL expressions of the input `x` and the result `y`. */
export interface UnaryFunction {
  value: string;
  derivative: string;
}

/** Functions applied to every element. Activations have a notebook of their own. */
export const unaryFunctions = {
  negate: { value: "-x", derivative: "V(-1)" },
  exp: { value: "exp(x)", derivative: "y" },
  log: { value: "log(x)", derivative: "1 / x" },
  sqrt: { value: "sqrt(x)", derivative: "0.5 / y" },
  square: { value: "x * x", derivative: "2 * x" },
  tanh: { value: "tanh(x)", derivative: "1 - y * y" },
  sigmoid: { value: "1 / (1 + exp(-x))", derivative: "y * (1 - y)" },
} satisfies Record<string, UnaryFunction>;

//| 02-attention/3-tensors-and-gradients.ipynb#unary-kernels
/** Applies a function to every element. */
export function unaryKernel(name: string, { value }: UnaryFunction, size: number): Kernel {
  return elementwiseKernel(name, [size], [value.replace(/\bx\b/g, "a")]);
}

/** The gradient of the input from input, result and the gradient of the result. */
export function unaryBackwardKernel(name: string, { derivative }: UnaryFunction, size: number): Kernel {
  const expression = `c * (${derivative.replace(/\bx\b/g, "a").replace(/\by\b/g, "b")})`;
  return elementwiseKernel(`${name} backward`, [size, size, size], [expression]);
}
