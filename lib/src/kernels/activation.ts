// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import type { Kernel } from "../gpu/kernel.js";
import { type UnaryFunction, elementwiseKernel } from "./elementwise.js";

//| 02-attention/4-rows.ipynb#gelu-parts
/** √(2/π), of GELU's tanh form. */
export const geluScale = Math.sqrt(2 / Math.PI);

/** tanh(u) of GELU's tanh form, as a WGSL expression of `x`. Beyond ±15 some drivers' tanh is NaN, and it is ±1. */
export const geluTanh = `tanh(clamp(${geluScale} * (x + 0.044715 * x * x * x), V(-15), V(15)))`;

//| 02-attention/4-rows.ipynb#activations
/** The activations between two linear layers, as WGSL expressions of the input `x`, with their derivatives. */
export const activations = {
  relu: { value: "max(x, V(0))", derivative: "select(V(0), V(1), x > V(0))" },
  /** SiLU, also called swish: x · σ(x) (Elfwing and others, 2017). */
  silu: {
    value: "x / (1 + exp(-x))",
    derivative: "1 / (1 + exp(-x)) * (1 + x - x / (1 + exp(-x)))",
  },
  /** GELU in its tanh form (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016), as GPT-2 has it. */
  gelu: {
    value: `0.5 * x * (1 + ${geluTanh})`,
    derivative: `0.5 * (1 + ${geluTanh}) + 0.5 * x * (1 - ${geluTanh} * ${geluTanh}) * ${geluScale} * (1 + 0.134145 * x * x)`,
  },
} satisfies Record<string, UnaryFunction>;

//| 02-attention/4-rows.ipynb#swiglu-kernels
/** silu(gate) · up over `size` elements: the gated unit of Shazeer, "GLU Variants Improve Transformer", 2020. */
export function swigluKernel(size: number): Kernel {
  return elementwiseKernel("SwiGLU", [size, size], ["a / (1 + exp(-a)) * b"]);
}

/** The gradients of gate and up from gate (a), up (b) and the gradient of the result (c), `size` elements each, in one pass. */
export function swigluBackwardKernel(size: number): Kernel {
  const sigmoid = "(1 / (1 + exp(-a)))";
  const gate = `c * b * ${sigmoid} * (1 + a - a * ${sigmoid})`;
  return elementwiseKernel("SwiGLU backward", [size, size, size], [gate, `c * a * ${sigmoid}`]);
}

//| 02-attention/4-rows.ipynb#gated-kernels
/** activation(gate) · up over `size` elements, for any of `activations`: with GELU it is GeGLU, as Gemma has it. */
export function gatedKernel(name: keyof typeof activations, size: number): Kernel {
  const value = activations[name].value.replace(/\bx\b/g, "a");
  return elementwiseKernel(`gated ${name}`, [size, size], [`(${value}) * b`]);
}

/** The gradients of gate and up, as in `swigluBackwardKernel`. */
export function gatedBackwardKernel(name: keyof typeof activations, size: number): Kernel {
  const [value, derivative] = [activations[name].value, activations[name].derivative].map((text) =>
    text.replace(/\bx\b/g, "a"),
  );
  const expressions = [`c * b * (${derivative})`, `c * (${value})`];
  return elementwiseKernel(`gated ${name} backward`, [size, size, size], expressions);
}

//| 02-attention/4-rows.ipynb#clamped-swiglu-kernels
/** The pieces of gpt-oss's gated unit, as WGSL of the gate `a` and of `b`, up. Source: openai/gpt-oss, `torch/model.py`. */
export const clampedPieces = (() => {
  const gate = "min(a, V(7))";
  return { gate, up: "(clamp(b, V(-7), V(7)) + 1)", sigmoid: `(1 / (1 + exp(-1.702 * ${gate})))` };
})();

/** g · σ(1.702 g) · (u + 1) with g = min(gate, 7) and u = clamp(up, −7, 7), over `size` elements. */
export function clampedSwigluKernel(size: number): Kernel {
  const { gate, up, sigmoid } = clampedPieces;
  return elementwiseKernel("clamped SwiGLU", [size, size], [`${gate} * ${sigmoid} * ${up}`]);
}

/** The gradients of gate and up from gate (a), up (b) and the gradient of the result (c); zero where they were clamped. */
export function clampedSwigluBackwardKernel(size: number): Kernel {
  const { gate, up, sigmoid } = clampedPieces;
  const gateSlope = `c * ${up} * ${sigmoid} * (1 + 1.702 * ${gate} * (1 - ${sigmoid}))`;
  return elementwiseKernel(
    "clamped SwiGLU backward",
    [size, size, size],
    [`select(V(0), ${gateSlope}, a <= V(7))`, `select(V(0), c * ${gate} * ${sigmoid}, abs(b) <= V(7))`],
  );
}
