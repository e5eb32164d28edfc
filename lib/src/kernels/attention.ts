// Extracted from chapters/02-attention/5-attention.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { rowKernel } from "./rows.js";
import { floatBits, vectorWidth } from "./wgsl.js";

//| 02-attention/5-attention.ipynb#heads-shape
/** The sizes of a layout of heads. */
export interface HeadsShape {
  batch: number;
  tokens: number;
  heads: number;
  headDim: number;
}

//| 02-attention/5-attention.ipynb#heads-kernel
/**
 * Copies between [batch, tokens, heads · headDim], where a token's heads lie side by side, and
 * [batch, heads, tokens, headDim], where each head has a matrix of its own; `direction` says which way. A row of workgroups
 * copies a token; only the heads' width is written into the source.
 */
export function headsKernel(
  direction: "split" | "merge",
  { batch, tokens, heads, headDim }: HeadsShape,
): Kernel {
  const width = vectorWidth(headDim);
  const length = headDim / width;
  const apart = `((group.z * sizes.heads + i / ${length}u) * sizes.tokens + token) * ${length}u + i % ${length}u`;
  const together = "(group.z * sizes.tokens + token) * size + i";
  const [to, from] = direction === "split" ? [apart, together] : [together, apart];
  return kernel({
    name: `${direction} heads ${batch}x${tokens}x${heads}x${headDim}`,
    reads: ["x: array<V>"],
    writes: ["y: array<V>"],
    head: `alias V = ${width === 4 ? "vec4f" : "f32"};`,
    sizes: { tokens, heads },
    workgroupSize: 64,
    workgroups: [Math.ceil((heads * length) / 64), Math.min(tokens, 65535), batch],
    body: `
  let i = group.x * 64u + lane;
  let size = sizes.heads * ${length}u;
  if (i >= size) { return; }
  for (var token = group.y; token < sizes.tokens; token += groups.y) { y[${to}] = x[${from}]; }`,
  });
}

//| 02-attention/5-attention.ipynb#scores-shape
/** The sizes of attention scores [batch, heads, tokens, length], and whether positions are [batch, tokens] or [tokens]. */
export interface ScoresShape {
  batch: number;
  heads: number;
  tokens: number;
  length: number;
  positionsPerSequence: boolean;
}

//| 02-attention/5-attention.ipynb#visible-scores
/**
 * WGSL for a score, or four of them, as the causal softmax sees it: times the factor where the key is among the first
 * `visible`, else so low that its power is 0.
 */
export function visibleScores(length: number): string {
  const [type, column] = vectorWidth(length) === 4 ? ["vec4u", "i * 4u + vec4u(0, 1, 2, 3)"] : ["u32", "i"];
  return `fn seen(v: V, i: u32, visible: u32) -> V {
  return select(V(-3e38), v * bitcast<f32>(sizes.factor), ${column} < ${type}(visible));
}`;
}

//| 02-attention/5-attention.ipynb#causal-softmax-kernel
/**
 * Softmax over the keys that a query may see: those at 0 … its position. The scores are multiplied by `factor` on the
 * way; keys that may not be seen get 0 and their scores are not read. Rows are [batch, heads, tokens].
 */
export function causalSoftmaxKernel(shape: ScoresShape, factor: number, facts: AdapterFacts): Kernel {
  const { batch, heads, tokens, length, positionsPerSequence } = shape;
  const body = `
  let sequence = row / (sizes.heads * sizes.tokens);
  let visible = min(positions[sequence * sizes.positionStep + row % sizes.tokens] + 1u, sizes.keys);
  let end = (visible + ${vectorWidth(length) - 1}u) / ${vectorWidth(length)}u;
  var highest = -3.4e38;
  for (var i = first; i < end; i += STEP) { highest = max(highest, largest(seen(x[start + i], i, visible))); }
  highest = largestOfRow(highest);
  var sum = 0.0;
  for (var i = first; i < end; i += STEP) { sum += total(exp(seen(x[start + i], i, visible) - highest)); }
  let share = 1.0 / sumOfRow(sum);
  for (var i = first; i < LENGTH; i += STEP) {
    var p = V();
    if (i < end) { p = exp(seen(x[start + i], i, visible) - highest) * share; }
    y[start + i] = p;
  }`;
  const [reads, head] = [["x: array<V>", "positions: array<u32>"], visibleScores(length)];
  const sizes = {
    heads,
    tokens,
    keys: length,
    positionStep: positionsPerSequence ? tokens : 0,
    factor: floatBits(factor),
  };
  const parts = {
    name: "causal softmax",
    rows: batch * heads * tokens,
    columns: length,
    reads,
    head,
    sizes,
    body,
  };
  return rowKernel({ ...parts, writes: ["y: array<V>"] }, facts);
}
