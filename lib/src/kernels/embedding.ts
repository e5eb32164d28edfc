// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import type { OperandFormat } from "./operands.js";
import { vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/9-the-block.ipynb#embed-kernel
/** Rows `first` to `first + rows - 1` of a table: the piece of it that a kernel is given. */
export interface TablePiece {
  first: number;
  rows: number;
}

/** Lanes that copy a row of a table together: they are neighbours, and so is what they read. */
export const tableLanes = 32;

/**
 * Copies row ids[n] of the table to row n of the result: ids [count] and a table [vocabulary, columns] give
 * [count, columns]. Of a table in pieces, each call serves the ids whose rows its piece has; a packed one is in a `format`.
 */
export function embedKernel(
  count: number,
  columns: number,
  { first, rows }: TablePiece,
  format?: OperandFormat,
): Kernel {
  const width = vectorWidth(columns);
  const at = "row * sizes.length + i";
  return kernel({
    name: `embed ${count}x${columns}${format ? ` (table in ${format.name})` : ""}`,
    reads: ["ids: array<u32>", ...(format?.bindings("table") ?? ["table: array<V>"])],
    writes: ["y: array<V>"],
    sizes: { first, rows, length: columns / width },
    head: vectorAlias(width),
    workgroupSize: tableLanes,
    workgroups: count,
    body: `
  let place = workgroup;
  if (place >= arrayLength(&ids)) { return; }
  let row = ids[place] - sizes.first;
  if (row >= sizes.rows) { return; }
  for (var i = lane; i < sizes.length; i += ${tableLanes}u) {
    y[place * sizes.length + i] = ${format?.loadFour("table", `(${at}) * 4u`, "row") ?? `table[${at}]`};
  }`,
  });
}

//| 02-attention/9-the-block.ipynb#link-ids-kernel
/**
 * Strings equal ids together: links[n] is (the next place with the same id, or `count` where there is none; 1 if no
 * earlier place has it). Each place looks forward and back until it finds its like.
 */
export function linkIdsKernel(count: number): Kernel {
  return kernel({
    name: `link equal ids ${count}`,
    reads: ["ids: array<u32>"],
    writes: ["links: array<vec2u>"],
    workgroupSize: 64,
    workgroups: Math.ceil(count / 64),
    body: `
  let count = arrayLength(&ids);
  if (thread >= count) { return; }
  let id = ids[thread];
  var next = thread + 1u;
  while (next < count && ids[next] != id) { next++; }
  var before = thread;
  while (before > 0u && ids[before - 1u] != id) { before--; }
  links[thread] = vec2u(next, select(0u, 1u, before == 0u));`,
  });
}

//| 02-attention/9-the-block.ipynb#zero-kernel
/** Writes `size` zeros: the gradient of the rows whose ids do not occur. */
export function zeroKernel(size: number): Kernel {
  const width = vectorWidth(size);
  return kernel({
    name: `zeros ${size}`,
    reads: [],
    writes: ["y: array<V>"],
    head: vectorAlias(width),
    workgroupSize: 64,
    workgroups: Math.ceil(size / width / 64),
    body: "  if (thread < arrayLength(&y)) { y[thread] = V(); }",
  });
}

//| 02-attention/9-the-block.ipynb#embed-backward-kernel
/**
 * Adds the gradients of all places with one id into the id's row of the table. The first place of an id walks along
 * its links, so the order is fixed (no atomics), and the work is one visit a place whatever the vocabulary's size. The row
 * `fixed`, where there is one, gets nothing.
 */
export function embedBackwardKernel(
  count: number,
  columns: number,
  { first, rows }: TablePiece,
  fixed = 2 ** 32 - 1,
): Kernel {
  const width = vectorWidth(columns);
  return kernel({
    name: `embed backward ${count}x${columns}`,
    reads: ["ids: array<u32>", "links: array<vec2u>", "g: array<V>"],
    writes: ["y: array<V>"],
    sizes: { first, rows, length: columns / width, fixed },
    head: vectorAlias(width),
    workgroupSize: tableLanes,
    workgroups: count,
    body: `
  let place = workgroup;
  if (place >= arrayLength(&ids)) { return; }
  let row = ids[place] - sizes.first;
  if (links[place].y == 0u || row >= sizes.rows || ids[place] == sizes.fixed) { return; }
  for (var i = lane; i < sizes.length; i += ${tableLanes}u) {
    var sum = V();
    for (var at = place; at < arrayLength(&ids); at = links[at].x) { sum += g[at * sizes.length + i]; }
    y[row * sizes.length + i] = sum;
  }`,
  });
}

//| 02-attention/9-the-block.ipynb#distances
/** How far each of `count` places is from another one before it. */
export function distancesKernel(count: number): Kernel {
  return kernel({
    name: `distances ${count}`,
    reads: ["places: array<u32>", "starts: array<u32>"],
    writes: ["y: array<u32>"],
    workgroupSize: 64,
    workgroups: Math.ceil(count / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  y[thread] = places[thread] - min(places[thread], starts[thread]);`,
  });
}
