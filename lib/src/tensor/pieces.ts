// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { bindingLimit, checkFits } from "../gpu/buffers.js";
import { openWindow } from "../gpu/commands.js";
import { type DType, Tensor, describe } from "./tensor.js";

//| 02-attention/a-the-engine-room.ipynb#pieces
/** Some rows of a tensor as a tensor of their own, on the same memory: nothing is copied. */
export function rowWindow<D extends DType>(source: Tensor<D>, from: number, count: number): Tensor<D> {
  const rowBytes = (4 * source.size) / source.shape[0];
  const window = openWindow(source.storage, from * rowBytes, count * rowBytes);
  return new Tensor(window, [count, ...source.shape.slice(1)], source.dtype);
}

/**
 * A tensor in pieces that a kernel can bind, each of whole rows and beginning at a multiple of 256 bytes, as WebGPU wants it.
 * Nearly always that is the tensor itself. Throws when not even a few rows fit.
 */
export function pieces<D extends DType>(x: Tensor<D>): Tensor<D>[] {
  if (4 * x.size <= bindingLimit()) return [x];
  const rowBytes = (4 * x.size) / x.shape[0];
  let step = 1; // rows that are together whole blocks of 256 bytes
  while ((step * rowBytes) % 256 !== 0) step *= 2;
  const rows = Math.floor(bindingLimit() / rowBytes / step) * step;
  if (rows === 0) checkFits(step * rowBytes, `A part of the tensor ${describe(x)}`);
  const starts = Array.from({ length: Math.ceil(x.shape[0] / rows) }, (_, i) => i * rows);
  return starts.map((from) => rowWindow(x, from, Math.min(rows, x.shape[0] - from)));
}
