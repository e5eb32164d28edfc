// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { kernelOf } from "../gpu/commands.js";
import type { Kernel } from "../gpu/kernel.js";

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
  const type = sizes.every((length) => length % 4 === 0) ? "vec4f" : "f32";
  const repeats = sizes.map((length) => length !== size);
  const workgroups = Math.ceil(size / (type === "vec4f" ? 4 : 1) / 256);
  const key = `elementwise ${type} ${repeats} ${expressions.join("; ")}`;
  return kernelOf(key, { name: `${name} ${size}`, workgroups }, () =>
    elementwiseSource(type, repeats, expressions),
  );
}

/** The source of an element-wise kernel: the form of `V`, which operands repeat, and what is computed. */
export function elementwiseSource(type: string, repeats: boolean[], expressions: string[]) {
  const names = operandNames.slice(0, repeats.length);
  const loads = names.map((operand, k) => {
    const at = repeats[k] ? `i % arrayLength(&${operand}In)` : "i";
    return `    let ${operand} = ${operand}In[${at}];`;
  });
  return {
    reads: names.map((operand) => `${operand}In: array<V>`),
    writes: expressions.map((_, k) => `y${k}: array<V>`),
    head: `alias V = ${type};`,
    workgroupSize: 64,
    body: [
      "  for (var step = 0u; step < 4u; step++) {",
      "    let i = workgroup * 256u + step * 64u + lane;",
      "    if (i >= arrayLength(&y0)) { return; }",
      ...loads,
      ...expressions.map((expression, k) => `    y${k}[i] = ${expression};`),
      "  }",
    ].join("\n"),
  };
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
