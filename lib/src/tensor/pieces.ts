// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { bindingLimit, checkFits } from "../gpu/buffers.js";
import { openWindow } from "../gpu/commands.js";
import { elementwiseKernel } from "../kernels/elementwise.js";
import { type DType, Tensor, bytesOf, describe, empty, launchInto } from "./tensor.js";

//| 02-attention/a-the-engine-room.ipynb#pieces-parts
/** Some rows of a tensor as a tensor of their own, on the same memory: nothing is copied. */
export function rowWindow<D extends DType>(source: Tensor<D>, from: number, count: number): Tensor<D> {
  const rowBytes = bytesOf(source.shape.slice(1), source.dtype);
  const window = openWindow(source.storage, from * rowBytes, count * rowBytes);
  return new Tensor(window, [count, ...source.shape.slice(1)], source.dtype);
}

//| 02-attention/a-the-engine-room.ipynb#pieces
/**
 * A tensor in pieces that a kernel can bind, each of whole rows and beginning at a multiple of 256 bytes, as WebGPU wants it.
 * Nearly always that is the tensor itself. Throws when not even a few rows fit.
 */
export function pieces<D extends DType>(x: Tensor<D>): Tensor<D>[] {
  if (bytesOf(x.shape, x.dtype) <= bindingLimit()) return [x];
  const rowBytes = bytesOf(x.shape.slice(1), x.dtype);
  let step = 1; // rows that are together whole blocks of 256 bytes
  while ((step * rowBytes) % 256 !== 0) step *= 2;
  const rows = Math.floor(bindingLimit() / rowBytes / step) * step;
  if (rows === 0) checkFits(step * rowBytes, `A part of the tensor ${describe(x)}`);
  const starts = Array.from({ length: Math.ceil(x.shape[0] / rows) }, (_, i) => i * rows);
  return starts.map((from) => rowWindow(x, from, Math.min(rows, x.shape[0] - from)));
}

//| 02-attention/a-the-engine-room.ipynb#in-pieces
/**
 * Applies an element-wise kernel to tensors of one size (or with a single element), piece by piece where they are too large to
 * bind. Off the tape.
 */
export function inPieces(name: string, expression: string, ...inputs: Tensor[]): Tensor {
  const output = empty(inputs[0].shape);
  const parts = inputs.map(pieces);
  pieces(output).forEach((piece, i) => {
    const part = parts.map((all) => all[i] ?? all[0]);
    launchInto(
      elementwiseKernel(
        name,
        part.map(({ size }) => size),
        [expression],
      ),
      part,
      [piece],
    );
  });
  return output;
}
