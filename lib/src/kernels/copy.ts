// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 02-attention/a-the-engine-room.ipynb#copy-block
/** A block of numbers within an array: where it starts, and how far it is from one of its rows to the next. */
export interface BlockPlace {
  start: number;
  stride: number;
}

/** Copies a block of rows × columns numbers of 32 bits from its place in one array to its place in another. */
export function copyBlockKernel(rows: number, columns: number, from: BlockPlace, to: BlockPlace): Kernel {
  return kernel({
    name: `copy block ${rows}x${columns}`,
    reads: ["x: array<u32>"],
    writes: ["y: array<u32>"],
    sizes: {
      size: rows * columns,
      columns,
      fromStart: from.start,
      fromStride: from.stride,
      toStart: to.start,
      toStride: to.stride,
    },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * columns) / 64),
    body: `
  if (thread >= sizes.size) { return; }
  let row = thread / sizes.columns;
  let column = thread % sizes.columns;
  y[sizes.toStart + row * sizes.toStride + column] = x[sizes.fromStart + row * sizes.fromStride + column];`,
  });
}
