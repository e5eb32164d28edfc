// Extracted from chapters/02-attention/8-local-attention-sinks-latent-caches.ipynb: edit it there, or here and run `npm run backport`.
import { joinColumnsKernel, joinedPartKernel } from "../kernels/columns.js";
import { isTracked, track } from "./autograd.js";
import { columnsOf } from "./products.js";
import { type Tensor, describe, launch, view } from "./tensor.js";

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#join-operation
/** A copy of some columns of x [..., width], off the tape: [..., count]. */
export function someColumns(x: Tensor, from: number, count: number): Tensor {
  const width = x.shape[x.shape.length - 1];
  const copied = columnsOf(view(x, [x.size / width, width]), from, count);
  return view(copied, [...x.shape.slice(0, -1), count]);
}

/** Puts a [batch, heads, tokens, n] and b [batch, heads, tokens, m], or [batch, 1, tokens, m] for all heads, side by side: [batch, heads, tokens, n + m]. */
export function joinColumns(a: Tensor, b: Tensor): Tensor {
  const [batch, heads, tokens, first] = a.shape;
  const [batchB, headsB, tokensB, second] = b.shape;
  const fits =
    b.shape.length === 4 && batch === batchB && tokens === tokensB && (headsB === heads || headsB === 1);
  if (a.shape.length !== 4 || !fits)
    throw new Error(
      `joinColumns wants [batch, heads, tokens, columns] twice, the second perhaps with one head for all, not ${describe(a)} and ${describe(b)}.`,
    );
  const shape = { batch, heads, tokens, first, second, shared: headsB !== heads };
  const y = launch(joinColumnsKernel(shape), [a, b], [batch, heads, tokens, first + second]);
  return track(y, [a, b], (gradient) => [
    isTracked(a) ? someColumns(gradient, 0, first) : undefined,
    isTracked(b) ? launch(joinedPartKernel(shape), [gradient], b.shape) : undefined,
  ]);
}
