// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { rowGroups } from "./rows.js";
import { floatBits, wgslNumber } from "./wgsl.js";

//| 02-attention/6-positions.ipynb#rotary-shape
/** Rows of heads [batch, heads, tokens, headDim], and whether positions are [batch, tokens] or [tokens]. */
export interface RotaryShape {
  batch: number;
  heads: number;
  tokens: number;
  headDim: number;
  /** Elements of a head that turn, from the `from`-th on. The rest is left as it is. */
  turning: number;
  from: number;
  positionsPerSequence: boolean;
}

/** Elements a load brings: heads, the two halves of what turns and the pairs of the table must all be whole fours. */
export function rotaryWidth({ headDim, turning, from }: RotaryShape): 1 | 4 {
  return headDim % 4 === 0 && from % 4 === 0 && turning % 8 === 0 ? 4 : 1;
}

/**
 * What kernels on heads read as data: of the shape only the heads' width is written into their source. Half of it is here too: it
 * ends loops, and one whose end is known would be unrolled, which takes the compiler seconds.
 */
export function rotarySizes(shape: RotaryShape) {
  const { batch, heads, tokens, turning, positionsPerSequence } = shape;
  const half = turning / 2 / rotaryWidth(shape);
  return {
    rows: batch * heads * tokens,
    heads,
    tokens,
    half,
    positionStep: positionsPerSequence ? tokens : 0,
  };
}

//| 02-attention/6-positions.ipynb#rotary-head
/**
 * Types and functions for turning pairs: element i of the first half of what turns and element i of its second half are a point
 * in the plane, and `cosines(position, i)` and `sines(position, i)` say how far it turns. A row is one head of one token.
 */
export function rotaryHead(shape: RotaryShape): string {
  const width = rotaryWidth(shape);
  const half = shape.turning / 2 / width;
  const wide = `fn cosines(position: u32, i: u32) -> V { let at = position * ${half * 2}u + i * 2u; return V(table[at].xz, table[at + 1u].xz); }
fn sines(position: u32, i: u32) -> V { let at = position * ${half * 2}u + i * 2u; return V(table[at].yw, table[at + 1u].yw); }`;
  const narrow = `fn cosines(position: u32, i: u32) -> V { return table[(position * ${half}u + i) * 2u]; }
fn sines(position: u32, i: u32) -> V { return table[(position * ${half}u + i) * 2u + 1u]; }`;
  return `alias V = ${width === 4 ? "vec4f" : "f32"};
const HALF = ${half}u;
const HEAD = ${shape.headDim / width}u;
fn total(v: V) -> f32 { return ${width === 4 ? "v.x + v.y + (v.z + v.w)" : "v"}; }
${width === 4 ? wide : narrow}`;
}

//| 02-attention/6-positions.ipynb#together-start
/**
 * WGSL for the place of a row in [batch, heads, tokens, headDim], from `row`: its token, head and sequence, its position, and
 * where it starts there (`apart`) and in [batch, tokens, heads · headDim] (`together`).
 */
export const rowPlace = `
  let token = row % sizes.tokens;
  let head = row / sizes.tokens % sizes.heads;
  let sequence = row / (sizes.tokens * sizes.heads);
  let position = positions[sequence * sizes.positionStep + token];
  let apart = row * HEAD;
  let together = ((sequence * sizes.tokens + token) * sizes.heads + head) * HEAD;`;

//| 02-attention/6-positions.ipynb#rotary-kernel
/** A kernel on heads, one invocation a row: the body sees `row`, `position`, `apart` and `together` (its first places). */
export function rotaryKernel(
  name: string,
  shape: RotaryShape,
  reads: string[],
  writes: string[],
  { body, sizes = {} }: { body: string; sizes?: Record<string, number> },
): Kernel {
  const { batch, heads, tokens, headDim } = shape;
  return kernel({
    name: `${name} ${batch}x${heads}x${tokens}x${headDim}`,
    reads: [...reads, "positions: array<u32>", "table: array<V>"],
    writes,
    head: rotaryHead(shape),
    sizes: { ...rotarySizes(shape), ...sizes },
    workgroupSize: 64,
    workgroups: Math.ceil((batch * heads * tokens) / 64),
    body: `
  let row = thread;
  if (row >= sizes.rows) { return; }${rowPlace}${body}`,
  });
}

//| 02-attention/6-positions.ipynb#rope-kernel
/** WGSL statements that copy the elements of a head that do not turn. */
export const copyRest = `
  for (var i = 0u; i < HEAD; i++) {
    if (i < sizes.before || i >= sizes.before + sizes.half * 2u) { y[apart + i] = x[apart + i]; }
  }`;

/**
 * Rotary positions (Su and others, "RoFormer", 2021) in the half-split layout: every pair of what turns is turned by its
 * token's angle, forward, or back by the same angle (`direction` −1), which is also the gradient.
 */
export function ropeKernel(shape: RotaryShape, direction: 1 | -1): Kernel {
  const body = `
  let direction = bitcast<f32>(sizes.direction);
  let start = apart + sizes.before;
  for (var i = 0u; i < sizes.half; i++) {
    let a = x[start + i];
    let b = x[start + HALF + i];
    let c = cosines(position, i);
    let s = direction * sines(position, i);
    y[start + i] = a * c - b * s;
    y[start + HALF + i] = b * c + a * s;
  }${shape.turning < shape.headDim ? copyRest : ""}`;
  const name = direction > 0 ? "rope" : "rope back";
  const sizes = { direction: floatBits(direction), before: shape.from / rotaryWidth(shape) };
  return rotaryKernel(name, shape, ["x: array<V>"], ["y: array<V>"], { body, sizes });
}

//| 02-attention/6-positions.ipynb#interleaved-kernel
/** The same in the interleaved layout: pair i of what turns is its elements 2i and 2i + 1. */
export function interleavedRopeKernel(shape: RotaryShape, direction: 1 | -1): Kernel {
  const { batch, heads, tokens, headDim, turning, from } = shape;
  const places = { head: headDim / 2, before: from / 2, pairs: turning / 2 };
  return kernel({
    name: `${direction > 0 ? "rope" : "rope back"}, interleaved ${batch}x${heads}x${tokens}x${headDim}`,
    reads: ["x: array<vec2f>", "positions: array<u32>", "table: array<vec2f>"],
    writes: ["y: array<vec2f>"],
    sizes: { ...rotarySizes(shape), ...places, direction: floatBits(direction) },
    workgroupSize: 64,
    workgroups: Math.ceil((batch * heads * tokens) / 64),
    body: `
  let row = thread;
  if (row >= sizes.rows) { return; }
  let sequence = row / (sizes.tokens * sizes.heads);
  let position = positions[sequence * sizes.positionStep + row % sizes.tokens];
  for (var i = 0u; i < sizes.head; i++) {
    var pair = x[row * sizes.head + i];
    if (i >= sizes.before && i < sizes.before + sizes.pairs) {
      let turn = table[position * sizes.pairs + i - sizes.before] * vec2f(1.0, bitcast<f32>(sizes.direction));
      pair = vec2f(pair.x * turn.x - pair.y * turn.y, pair.y * turn.x + pair.x * turn.y);
    }
    y[row * sizes.head + i] = pair;
  }`,
  });
}

//| 02-attention/6-positions.ipynb#rotary-heads-kernel
/**
 * Everything between the projection of queries or keys and attention in one pass: x [batch, tokens, heads · headDim] is
 * split into heads, each head is RMS-normalised with `weight` [headDim], and turned. Keeps each row's 1/rms.
 */
export function rotaryHeadsKernel(shape: RotaryShape, epsilon: number): Kernel {
  const body = `
  var sum = 0.0;
  for (var i = 0u; i < sizes.half * 2u; i++) { let v = x[together + i]; sum += total(v * v); }
  let r = inverseSqrt(sum / ${wgslNumber(shape.headDim)} + bitcast<f32>(sizes.epsilon));
  inverse[row] = r;
  for (var i = 0u; i < sizes.half; i++) {
    let a = x[together + i] * r * weight[i];
    let b = x[together + HALF + i] * r * weight[HALF + i];
    let c = cosines(position, i);
    let s = sines(position, i);
    y[apart + i] = a * c - b * s;
    y[apart + HALF + i] = b * c + a * s;
  }`;
  const [reads, writes] = [
    ["x: array<V>", "weight: array<V>"],
    ["y: array<V>", "inverse: array<f32>"],
  ];
  return rotaryKernel("norm, rope, split", shape, reads, writes, {
    body,
    sizes: { epsilon: floatBits(epsilon) },
  });
}

//| 02-attention/6-positions.ipynb#rotary-heads-backward
/** WGSL statements that turn pair i of the gradient g back: `a` and `b`. */
export const turnBack = `
    let c = cosines(position, i);
    let s = sines(position, i);
    let a = g[apart + i] * c + g[apart + HALF + i] * s;
    let b = g[apart + HALF + i] * c - g[apart + i] * s;`;

/** The gradient of its input: the result's gradient g is turned back, then goes through RMSNorm, then heads merge. */
export function rotaryHeadsBackwardKernel(shape: RotaryShape): Kernel {
  const body = `
  let r = inverse[row];
  var sum = 0.0;
  for (var i = 0u; i < sizes.half; i++) {${turnBack}
    sum += total(a * weight[i] * x[together + i] + b * weight[HALF + i] * x[together + HALF + i]);
  }
  let along = sum * r * r / ${wgslNumber(shape.headDim)};
  for (var i = 0u; i < sizes.half; i++) {${turnBack}
    y[together + i] = r * (a * weight[i] - x[together + i] * along);
    y[together + HALF + i] = r * (b * weight[HALF + i] - x[together + HALF + i] * along);
  }`;
  const reads = ["x: array<V>", "weight: array<V>", "inverse: array<f32>", "g: array<V>"];
  return rotaryKernel("norm, rope, split back", shape, reads, ["y: array<V>"], { body });
}

//| 02-attention/6-positions.ipynb#rotary-heads-weight
/** The gradient of its weight, summed within groups of rows. Output: [rowGroups(rows), headDim]. */
export function rotaryHeadsWeightKernel(shape: RotaryShape): Kernel {
  const { batch, heads, tokens, headDim } = shape;
  const rows = batch * heads * tokens;
  const [groups, half] = [rowGroups(rows), headDim / 2 / rotaryWidth(shape)];
  return kernel({
    name: `norm, rope, split weight back ${rows}x${headDim}`,
    reads: ["x: array<V>", "inverse: array<f32>", "g: array<V>", "positions: array<u32>", "table: array<V>"],
    writes: ["sums: array<V>"],
    head: rotaryHead(shape),
    sizes: { ...rotarySizes(shape), groupRows: Math.ceil(rows / groups), groups },
    workgroupSize: 64,
    workgroups: Math.ceil((groups * half) / 64),
    body: `
  if (thread >= sizes.groups * HALF) { return; }
  let i = thread % HALF;
  let part = thread / HALF;
  var first = V();
  var second = V();
  for (var row = part * sizes.groupRows; row < min((part + 1u) * sizes.groupRows, sizes.rows); row++) {${rowPlace}${turnBack}
    first += a * x[together + i] * inverse[row];
    second += b * x[together + HALF + i] * inverse[row];
  }
  sums[part * HEAD + i] = first;
  sums[part * HEAD + HALF + i] = second;`,
  });
}
