// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits, vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/3-tensors-and-gradients.ipynb#wgsl-number
/** The names that expressions use for their operands, in order. */
export const operandNames = ["a", "b", "c", "d", "e", "f"];

//| 02-attention/3-tensors-and-gradients.ipynb#elementwise-kernel-parts
/** The statements of an element-wise kernel: which operands repeat, what is computed, and the constants' names. */
export function elementwiseBody(repeats: boolean[], expressions: string[], constants: string[]): string {
  const loads = repeats.map((repeat, k) => {
    const operand = operandNames[k];
    return `    let ${operand} = ${operand}In[${repeat ? `i % arrayLength(&${operand}In)` : "i"}];`;
  });
  return [
    ...constants.map((name) => `  let ${name} = bitcast<f32>(sizes.${name});`),
    "  for (var step = 0u; step < 4u; step++) {",
    "    let i = workgroup * 256u + step * 64u + lane;",
    "    if (i >= arrayLength(&y0)) { return; }",
    ...loads,
    ...expressions.map((expression, k) => `    y${k}[i] = ${expression};`),
    "  }",
  ].join("\n");
}

//| 02-attention/3-tensors-and-gradients.ipynb#elementwise-kernel
/**
 * Computes each of `expressions` for every element: operands are called a, b, c … and a shorter one repeats (its length
 * divides the longest). Written for `V`, which is four floats at a time where the lengths allow it, else one.
 * `constants` are numbers that expressions use by name; they are data, so that others need no other compilation.
 * Each invocation takes four steps: loads are what costs, and a loop hides their latency.
 */
export function elementwiseKernel(
  name: string,
  lengths: number[],
  expressions: string[],
  constants: Record<string, number> = {},
): Kernel {
  const longest = Math.max(...lengths);
  const width = vectorWidth(...lengths);
  const repeats = lengths.map((length) => length !== longest);
  const operands = operandNames.slice(0, lengths.length);
  return kernel({
    name: `${name} ${longest}`,
    key: `elementwise ${width} ${repeats} ${Object.keys(constants)} ${expressions.join("; ")}`,
    reads: operands.map((operand) => `${operand}In: array<V>`),
    writes: expressions.map((_, k) => `y${k}: array<V>`),
    sizes: Object.fromEntries(Object.entries(constants).map(([key, value]) => [key, floatBits(value)])),
    head: vectorAlias(width),
    workgroupSize: 64,
    workgroups: Math.ceil(longest / width / 256),
    body: () => elementwiseBody(repeats, expressions, Object.keys(constants)),
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
