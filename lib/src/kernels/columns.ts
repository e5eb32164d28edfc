// Extracted from chapters/02-attention/8-local-attention-sinks-latent-caches.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#join-shape
/** The sizes of rows that are put side by side: a part for each head, and one that may be shared by all heads. */
export interface JoinShape {
  batch: number;
  heads: number;
  tokens: number;
  /** Columns of the first part and of the second. */
  first: number;
  second: number;
  /** Whether one second part serves all heads of a sequence. */
  shared: boolean;
}

/** What kernels that join rows read as data, in elements of the width that they load. */
export function joinSizes({ heads, tokens, first, second, shared }: JoinShape, width: 1 | 4) {
  const sharers = shared ? heads : 1;
  return { first: first / width, second: second / width, tokens, sharers };
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#join-kernel
/**
 * Puts a [batch, heads, tokens, first] and b [batch, heads or 1, tokens, second] side by side: y [batch, heads, tokens, first + second].
 * All shapes share one compiled kernel, or two: one loads four numbers at a time.
 */
export function joinColumnsKernel(shape: JoinShape): Kernel {
  const { batch, heads, tokens, first, second } = shape;
  const width = vectorWidth(first, second);
  const size = (batch * heads * tokens * (first + second)) / width;
  return kernel({
    name: `join columns ${batch}x${heads}x${tokens}x${first}+${second}`,
    reads: ["a: array<V>", "b: array<V>"],
    writes: ["y: array<V>"],
    head: vectorAlias(width),
    sizes: joinSizes(shape, width),
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  let width = sizes.first + sizes.second;
  let row = thread / width;
  let column = thread % width;
  let other = row / (sizes.sharers * sizes.tokens) * sizes.tokens + row % sizes.tokens;
  if (column < sizes.first) { y[thread] = a[row * sizes.first + column]; }
  else { y[thread] = b[other * sizes.second + column - sizes.first]; }`,
  });
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#join-back
/** The gradient of the second part, from that of the whole: summed over the heads that share it, always in their order. */
export function joinedPartKernel(shape: JoinShape): Kernel {
  const { batch, heads, tokens, first, second, shared } = shape;
  const width = vectorWidth(first, second);
  const size = (batch * (shared ? 1 : heads) * tokens * second) / width;
  return kernel({
    name: `join columns back ${batch}x${heads}x${tokens}x${first}+${second}`,
    reads: ["g: array<V>"],
    writes: ["y: array<V>"],
    head: vectorAlias(width),
    sizes: joinSizes(shape, width),
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  let row = thread / sizes.second;
  let column = sizes.first + thread % sizes.second;
  let start = row / sizes.tokens * sizes.sharers * sizes.tokens + row % sizes.tokens;
  var sum = V();
  for (var head = 0u; head < sizes.sharers; head++) {
    sum += g[(start + head * sizes.tokens) * (sizes.first + sizes.second) + column];
  }
  y[thread] = sum;`,
  });
}
