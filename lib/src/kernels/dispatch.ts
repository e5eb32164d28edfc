// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { matmulRowTile } from "./products.js";
import { prefersSubgroups, vectorAlias, vectorWidth } from "./wgsl.js";

//| 03-moe/2-dispatch.ipynb#padding
/** What stands for a pair or an expert where there is none: in rows, and in tiles, that only fill up. */
export const padding = 0xffffffff;

//| 03-moe/2-dispatch.ipynb#dispatch-shape
/** The sizes of a dispatch: N tokens that visit k of E experts each, as N·k pairs. */
export interface DispatchShape {
  tokens: number;
  expertsPerToken: number;
  experts: number;
  /** Each expert's rows are padded to whole tiles of this many. */
  tile: number;
}

//| 03-moe/2-dispatch.ipynb#dispatch-tiles
/** The most tiles that any choice of the tokens can need: every expert with a pair may waste a tile but one row. */
export function dispatchTiles({ tokens, expertsPerToken, experts, tile }: DispatchShape): number {
  const pairs = tokens * expertsPerToken;
  return Math.floor((pairs + Math.min(experts, pairs) * (tile - 1)) / tile);
}

//| 03-moe/2-dispatch.ipynb#dispatch-tile
/**
 * Rows of a tile: those of one workgroup of the matrix product, so that it works for one expert. On a processor that is a
 * choice: tall tiles are faster, and low ones hold less padding where experts have few pairs each. Never fewer than there
 * are lanes, so that gradients of weights, in whole rounds, stop where a segment stops.
 */
export function dispatchTile(facts: AdapterFacts, pairsPerExpert: number, f16 = false): number {
  if (!prefersSubgroups(facts)) return matmulRowTile(facts, f16);
  const lanes = facts.subgroupSize;
  const height = pairsPerExpert >= 64 ? 32 : pairsPerExpert >= 16 ? 16 : 8;
  return Math.max(lanes, Math.min(height, 4 * lanes));
}

//| 03-moe/2-dispatch.ipynb#sort-workers
/** Counters that fit in the 16 KiB that the invocations of a workgroup share at least. */
export const sortCounters = 4096;

/** Workers of the counting sort: each has a counter for every expert, and each expert one more for all its pairs. */
export function sortWorkers({ experts }: DispatchShape): number {
  const most = Math.floor(sortCounters / experts) - 1;
  if (most < 1) throw new Error(`The counting sort has room for 2048 experts, not ${experts}.`);
  return Math.min(256, most);
}

//| 03-moe/2-dispatch.ipynb#sort-count
/** Counting sort, first part: each worker counts the experts in its own stretch. (What a workgroup shares begins as zeros.) */
export const countChoices = `
  for (var p = start; p < stop; p++) { counts[chosen[p] * workers + lane] += 1u; }`;

//| 03-moe/2-dispatch.ipynb#sum-counts
/** Second part: how many pairs of an expert the workers before each one have, how many in all, and in how many tiles. */
export const sumCounts = `
  for (var e = lane; e < sizes.experts; e += 256u) {
    var sum = 0u;
    for (var worker = 0u; worker < workers; worker++) {
      let at = e * workers + worker;
      let mine = counts[at];
      counts[at] = sum;
      sum += mine;
    }
    load[e] = sum;
    counts[tiles + e] = (sum + sizes.tile - 1u) / sizes.tile;
  }`;

//| 03-moe/2-dispatch.ipynb#sort-place
/** Third part: where each expert's tiles begin; tiles without an expert come last. */
export const placeExperts = `
  for (var e = lane; e < sizes.experts; e += 256u) {
    var first = 0u;
    for (var before = 0u; before < e; before++) { first += counts[tiles + before]; }
    let end = first + counts[tiles + e];
    segments[e * 2u] = first * sizes.tile;
    segments[e * 2u + 1u] = end * sizes.tile;
    for (var t = first; t < end; t++) { owners[t] = e; }
    if (e == sizes.experts - 1u) {
      for (var t = end; t < arrayLength(&owners); t++) { owners[t] = ${padding}u; }
    }
  }`;

//| 03-moe/2-dispatch.ipynb#place-choices
/** Last part: each worker puts its pairs where they belong, in order. */
export const placeChoices = `
  for (var p = start; p < stop; p++) {
    let e = chosen[p];
    let slot = segments[e * 2u] + counts[e * workers + lane];
    counts[e * workers + lane] += 1u;
    slots[p] = slot;
    pairs[slot] = p;
  }`;

//| 03-moe/2-dispatch.ipynb#sort-body
/** The counting sort's statements: each worker's stretch, then the four parts with a wait between them. */
export const countingSortBody = [
  "  let workers = sizes.workers;",
  "  let tiles = workers * sizes.experts;",
  "  let share = (arrayLength(&chosen) + workers - 1u) / workers;",
  "  let start = min(lane * share, arrayLength(&chosen));",
  "  let stop = min(start + share, arrayLength(&chosen));",
  `  for (var row = lane; row < arrayLength(&pairs); row += 256u) { pairs[row] = ${padding}u; }`,
  countChoices,
  "  workgroupBarrier();",
  sumCounts,
  "  workgroupBarrier();",
  placeExperts,
  "  workgroupBarrier();\n  storageBarrier();",
  placeChoices,
].join("\n");

//| 03-moe/2-dispatch.ipynb#counting-sort
/**
 * Sorts the pairs (token, choice) by expert, keeping their order, in one workgroup. Each worker counts the experts in
 * its own stretch of pairs; sums over the workers before it and the experts before say where its pairs go.
 * experts [pairs] become slots [pairs] (the row of each pair), pairs [rows] (the pair of each row, or `padding`),
 * owners [tiles] (the expert of each tile, or `padding`), segments [experts, 2] (first row and the row after the last
 * tile), load [experts] (pairs of each).
 */
export function countingSortKernel(shape: DispatchShape): Kernel {
  const { tokens, expertsPerToken, experts, tile } = shape;
  const outputs = ["slots", "pairs", "owners", "segments", "load"];
  return kernel({
    name: `counting sort of ${tokens * expertsPerToken} pairs, ${experts} experts`,
    reads: ["chosen: array<u32>"],
    writes: outputs.map((name) => `${name}: array<u32>`),
    sizes: { experts, workers: sortWorkers(shape), tile },
    head: `var<workgroup> counts: array<u32, ${sortCounters}>;`,
    workgroupSize: 256,
    workgroups: 1,
    body: countingSortBody,
  });
}

//| 03-moe/2-dispatch.ipynb#gather-kernel
/**
 * Copies each token's row of x [tokens, width] to the rows of its pairs: [rows, width], zeros in rows of padding.
 * `weighted` multiplies by the pair's weight, which makes it the gradient of `combineKernel`.
 */
export function gatherKernel(shape: DispatchShape, width: number, weighted: boolean): Kernel {
  const rows = dispatchTiles(shape) * shape.tile;
  const element = vectorWidth(width);
  const columns = width / element;
  return kernel({
    name: `gather ${rows}x${width}${weighted ? ", weighted" : ""}`,
    reads: ["x: array<V>", "pairs: array<u32>", ...(weighted ? ["weights: array<f32>"] : [])],
    writes: ["rows: array<V>"],
    head: vectorAlias(element),
    sizes: { columns, choices: shape.expertsPerToken },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * columns) / 256),
    body: `
  for (var step = 0u; step < 4u; step++) {
    let i = workgroup * 256u + step * 64u + lane;
    if (i >= arrayLength(&rows)) { return; }
    let pair = pairs[i / sizes.columns];
    var value = V();
    if (pair != ${padding}u) {
      value = x[pair / sizes.choices * sizes.columns + i % sizes.columns]${weighted ? " * weights[pair]" : ""};
    }
    rows[i] = value;
  }`,
  });
}

//| 03-moe/2-dispatch.ipynb#combine-kernel
/**
 * Adds up the rows of each token's pairs, in the order of its choices: rows [rows, width] to [tokens, width].
 * `weighted` multiplies each by the pair's weight; without, it is the gradient of `gatherKernel`. `residual` adds an array of the
 * result's shape.
 */
export function combineKernel(
  shape: DispatchShape,
  width: number,
  { weighted = false, residual = false } = {},
): Kernel {
  const { tokens, expertsPerToken } = shape;
  const element = vectorWidth(width);
  const columns = width / element;
  return kernel({
    name: `combine ${tokens}x${expertsPerToken}x${width}${weighted ? ", weighted" : ""}${residual ? ", residual" : ""}`,
    reads: [
      "rows: array<V>",
      "slots: array<u32>",
      ...(weighted ? ["weights: array<f32>"] : []),
      ...(residual ? ["residual: array<V>"] : []),
    ],
    writes: ["y: array<V>"],
    head: vectorAlias(element),
    sizes: { columns, choices: expertsPerToken },
    workgroupSize: 64,
    workgroups: Math.ceil((tokens * columns) / 256),
    body: `
  for (var step = 0u; step < 4u; step++) {
    let i = workgroup * 256u + step * 64u + lane;
    if (i >= arrayLength(&y)) { return; }
    let first = i / sizes.columns * sizes.choices;
    var sum = ${residual ? "residual[i]" : "V()"};
    for (var pair = first; pair < first + sizes.choices; pair++) {
      sum += rows[slots[pair] * sizes.columns + i % sizes.columns]${weighted ? " * weights[pair]" : ""};
    }
    y[i] = sum;
  }`,
  });
}

//| 03-moe/2-dispatch.ipynb#weight-gradient-kernel
/** The gradient of each pair's weight: its row of rows [rows, width] times its token's row of the gradient. */
export function weightGradientKernel(shape: DispatchShape, width: number): Kernel {
  const { tokens, expertsPerToken } = shape;
  const element = vectorWidth(width);
  const columns = width / element;
  return kernel({
    name: `gradient of ${tokens}x${expertsPerToken} weights, ${width} wide`,
    reads: ["rows: array<V>", "slots: array<u32>", "gradient: array<V>"],
    writes: ["weights: array<f32>"],
    head: vectorAlias(element),
    sizes: { columns, choices: expertsPerToken },
    workgroupSize: 64,
    workgroups: Math.ceil((tokens * expertsPerToken) / 64),
    body: `
  if (thread >= arrayLength(&weights)) { return; }
  let row = slots[thread] * sizes.columns;
  let token = thread / sizes.choices * sizes.columns;
  var sum = V();
  for (var i = 0u; i < sizes.columns; i++) { sum += rows[row + i] * gradient[token + i]; }
  weights[thread] = ${element === 4 ? "dot(sum, vec4f(1))" : "sum"};`,
  });
}

//| 03-moe/2-dispatch.ipynb#capacity-kernel
/** Keeps the weight of each pair that is among the first `capacity` of its expert, and makes the others zero. */
export function capacityKernel({ tokens, expertsPerToken }: DispatchShape, capacity: number): Kernel {
  return kernel({
    name: `capacity ${capacity} for ${tokens * expertsPerToken} pairs`,
    reads: ["weights: array<f32>", "experts: array<u32>", "slots: array<u32>", "segments: array<u32>"],
    writes: ["kept: array<f32>"],
    sizes: { capacity },
    workgroupSize: 64,
    workgroups: Math.ceil((tokens * expertsPerToken) / 64),
    body: `
  if (thread >= arrayLength(&kept)) { return; }
  let place = slots[thread] - segments[experts[thread] * 2u];
  kept[thread] = select(0.0, weights[thread], place < sizes.capacity);`,
  });
}
