// Extracted from chapters/02-attention/5-attention.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { wgslNumber } from "./elementwise.js";
import { rowKernel, rowWidth } from "./rows.js";

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
 * [batch, heads, tokens, headDim], where each head has a matrix of its own; `direction` says which way.
 */
export function headsKernel(
  direction: "split" | "merge",
  { batch, tokens, heads, headDim }: HeadsShape,
): Kernel {
  const width = rowWidth(headDim);
  const length = headDim / width;
  const size = batch * tokens * heads * length;
  const apart = "thread";
  const together = `((sequence * ${tokens}u + token) * ${heads}u + head) * ${length}u + i`;
  const [to, from] = direction === "split" ? [apart, together] : [together, apart];
  return kernel({
    name: `${direction} heads ${batch}x${tokens}x${heads}x${headDim}`,
    reads: ["x: array<V>"],
    writes: ["y: array<V>"],
    head: `alias V = ${width === 4 ? "vec4f" : "f32"};`,
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= ${size}u) { return; }
  let i = thread % ${length}u;
  let token = thread / ${length}u % ${tokens}u;
  let head = thread / ${length * tokens}u % ${heads}u;
  let sequence = thread / ${length * tokens * heads}u;
  y[${to}] = x[${from}];`,
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
 * WGSL for a score, or four of them, as the causal softmax sees it: times `factor` where the key is among the first
 * `visible`, else so low that its power is 0.
 */
export function visibleScores(length: number, factor: number): string {
  const [type, column] = rowWidth(length) === 4 ? ["vec4u", "i * 4u + vec4u(0, 1, 2, 3)"] : ["u32", "i"];
  return `fn seen(v: V, i: u32, visible: u32) -> V {
  return select(V(-3e38), v * ${wgslNumber(factor)}, ${column} < ${type}(visible));
}`;
}

//| 02-attention/5-attention.ipynb#causal-softmax-kernel
/**
 * Softmax over the keys that a query may see: those at 0 … its position. The scores are multiplied by `factor` on the
 * way; keys that may not be seen get 0 and their scores are not read. Rows are [batch, heads, tokens].
 */
export function causalSoftmaxKernel(shape: ScoresShape, factor: number, facts: AdapterFacts): Kernel {
  const { batch, heads, tokens, length, positionsPerSequence } = shape;
  const token = `row % ${tokens}u`;
  const at = positionsPerSequence ? `row / ${heads * tokens}u * ${tokens}u + ${token}` : token;
  const body = `
  let visible = min(positions[${at}] + 1u, ${length}u);
  let end = (visible + ${rowWidth(length) - 1}u) / ${rowWidth(length)}u;
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
  const [reads, head] = [["x: array<V>", "positions: array<u32>"], visibleScores(length, factor)];
  const parts = { name: "causal softmax", rows: batch * heads * tokens, columns: length, reads, head, body };
  return rowKernel({ ...parts, writes: ["y: array<V>"] }, facts);
}
