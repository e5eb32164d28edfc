// Extracted from chapters/04-training/1-the-loss.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { vectorAlias, vectorWidth } from "./wgsl.js";

//| 04-training/1-the-loss.ipynb#plan-parts
/** How the rows of [rows, columns] are shared out: one invocation a row, or a workgroup of `lanes` a row. */
export interface RowPlan {
  rows: number;
  columns: number;
  /** Invocations that work on one row; 1 needs no barrier. */
  lanes: number;
}

/**
 * The plan that suits the adapter. A processor runs many rows side by side and pays for barriers, so there each
 * invocation takes a row of its own, unless rows are few and long. A graphics processor has thousands of invocations to
 * feed, and neighbours should read neighbours: a workgroup a row.
 */
export function planRows(rows: number, columns: number, { kind }: AdapterFacts): RowPlan {
  const enoughRows = rows >= 32 || columns <= 512;
  if (kind === "cpu") return { rows, columns, lanes: enoughRows ? 1 : 64 };
  return { rows, columns, lanes: columns <= 1024 ? 64 : 256 };
}

//| 04-training/1-the-loss.ipynb#plan
/** The target of a position that does not count: its loss and its gradient are zero. */
export const ignoredTarget = 0xffffffff;

//| 04-training/1-the-loss.ipynb#row-frame
/** Arrays in workgroup memory, with a place for each lane. */
export function laneMemory(names: string[], lanes: number): string[] {
  return names.map((name) => `var<workgroup> ${name}: array<f32, ${lanes}>;`);
}

/** The sizes of a row kernel: the rows, their columns, and the loads that bring a row. */
export function rowSizes({ rows, columns }: RowPlan): Record<"rows" | "columns" | "length", number> {
  return { rows, columns, length: columns / vectorWidth(columns) };
}

/** The first statements of a row kernel: which row, where it starts, and which of its elements are this lane's. */
export function rowStart({ lanes }: RowPlan): string[] {
  return [
    `  let row = ${lanes === 1 ? "thread" : "workgroup"};`,
    "  if (row >= sizes.rows) { return; }",
    "  let start = row * sizes.length;",
    `  let first = ${lanes === 1 ? "0u" : "lane"};`,
  ];
}

/** The grid of a row kernel. Eight rows a workgroup keep all cores of a processor busy with few rows. */
export function rowGrid({ rows, lanes }: RowPlan): { workgroupSize: number; workgroups: number } {
  return lanes === 1
    ? { workgroupSize: 8, workgroups: Math.ceil(rows / 8) }
    : { workgroupSize: lanes, workgroups: rows };
}

//| 04-training/1-the-loss.ipynb#merge
/** Merges four running maxima and sums into those of the row, or names the only ones. */
export function mergeLoads(width: 1 | 4): string[] {
  if (width === 1) return ["  var rowLargest = largest;", "  var rowSum = sum;"];
  return [
    "  var rowLargest = max(max(largest.x, largest.y), max(largest.z, largest.w));",
    "  var rowSum = dot(sum, exp(largest - rowLargest));",
  ];
}

/** Merges the maxima and sums of all lanes, halving their number each time. */
export function mergeLanes(lanes: number): string[] {
  return [
    "  maxima[lane] = rowLargest;",
    "  sums[lane] = rowSum;",
    `  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {`,
    "    workgroupBarrier();",
    "    if (lane < half) {",
    "      let grown = max(maxima[lane], maxima[lane + half]);",
    "      sums[lane] = sums[lane] * exp(maxima[lane] - grown) + sums[lane + half] * exp(maxima[lane + half] - grown);",
    "      maxima[lane] = grown;",
    "    }",
    "  }",
    "  workgroupBarrier();",
    "  rowLargest = maxima[0];",
    "  rowSum = sums[0];",
  ];
}

//| 04-training/1-the-loss.ipynb#running-sums
/** Statements that read a row once and keep the running maximum and the running sum, one of each per place in V. */
export function runningSums({ columns, lanes }: RowPlan): string[] {
  return [
    "  var largest = V(-3.4e38);",
    "  var sum = V(0.0);",
    `  for (var i = first; i < sizes.length; i += ${lanes}u) {`,
    "    let value = x[start + i];",
    "    let grown = max(largest, value);",
    "    sum = sum * exp(largest - grown) + exp(value - grown);",
    "    largest = grown;",
    "  }",
    ...mergeLoads(vectorWidth(columns)),
    ...(lanes === 1 ? [] : mergeLanes(lanes)),
    "  let logSum = rowLargest + log(rowSum);",
  ];
}

//| 04-training/1-the-loss.ipynb#target-loss
/**
 * Statements that make the loss from the logarithm of the sum. An `ignoredTarget` has loss 0; any other target outside of
 * the row gives NaN, so that it cannot go unnoticed. Neither reads beyond the row.
 */
export function targetLoss(columns: number): string[] {
  const width = vectorWidth(columns);
  return [
    "  let label = targets[row];",
    "  let at = min(label, sizes.columns - 1u);",
    `  let logit = x[start + at / ${width}u]${width === 4 ? "[at % 4u]" : ""};`,
    "  let notANumber = bitcast<f32>((label >> 31u) | 0x7fc00000u);",
    "  let loss = select(notANumber, logSum - logit, label < sizes.columns);",
    `  losses[row] = select(loss, 0.0, label == ${ignoredTarget}u);`,
  ];
}

//| 04-training/1-the-loss.ipynb#cross-entropy-kernel
/**
 * The loss of every row of logits x [rows, columns] in one reading: log Σ exp(x_j) − x_target, from targets [rows]. The sum runs beside a running maximum and is rescaled
 * whenever that grows, so that nothing overflows (Milakov and Gimelshein, "Online normalizer calculation for softmax").
 * Writes losses [rows] and log Σ exp(x_j) [rows], from which the way back gets every probability.
 */
export function crossEntropyKernel(plan: RowPlan): Kernel {
  const { rows, columns, lanes } = plan;
  return kernel({
    name: `cross-entropy ${rows}x${columns}`,
    reads: ["x: array<V>", "targets: array<u32>"],
    writes: ["losses: array<f32>", "logSums: array<f32>"],
    sizes: rowSizes(plan),
    head: [
      vectorAlias(vectorWidth(columns)),
      ...(lanes === 1 ? [] : laneMemory(["maxima", "sums"], lanes)),
    ].join("\n"),
    ...rowGrid(plan),
    body: [...rowStart(plan), ...runningSums(plan), ...targetLoss(columns), "  logSums[row] = logSum;"].join(
      "\n",
    ),
  });
}

//| 04-training/1-the-loss.ipynb#mean-kernel
/** Invocations that add up the losses of all rows. */
export const meanLanes = 64;

/**
 * The mean of the losses of the rows that count, and 1 / their number, in one workgroup: each lane adds some, then the
 * first adds the lanes. losses [rows] and targets [rows] give mean [1] and 1 / count [1]; both are 0 where no row counts.
 */
export function meanLossKernel(): Kernel {
  return kernel({
    name: "mean loss",
    reads: ["losses: array<f32>", "targets: array<u32>"],
    writes: ["mean: array<f32>", "perRow: array<f32>"],
    head: laneMemory(["sums", "counts"], meanLanes).join("\n"),
    workgroupSize: meanLanes,
    workgroups: 1,
    body: `
  for (var i = lane; i < arrayLength(&losses); i += ${meanLanes}u) {
    sums[lane] += losses[i];
    counts[lane] += select(1.0, 0.0, targets[i] == ${ignoredTarget}u);
  }
  workgroupBarrier();
  if (lane > 0u) { return; }
  var sum = 0.0;
  var count = 0.0;
  for (var i = 0u; i < ${meanLanes}u; i++) {
    sum += sums[i];
    count += counts[i];
  }
  perRow[0] = select(0.0, 1.0 / count, count > 0.0);
  mean[0] = sum * perRow[0];`,
  });
}

//| 04-training/1-the-loss.ipynb#gradient-row
/** Statements that write a row of (probability − [is the target]) · scale, from `logSum`, the target `label` and `scale`. */
export function gradientRow({ columns, lanes }: RowPlan): string[] {
  const four = vectorWidth(columns) === 4;
  return [
    `  for (var i = first; i < sizes.length; i += ${lanes}u) {`,
    `    let isTarget = ${four ? "vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) == vec4u(label)" : "i == label"};`,
    "    let probability = exp(x[start + i] - logSum);",
    "    dx[start + i] = (probability - select(V(0.0), V(1.0), isTarget)) * scale;",
    "  }",
  ];
}

//| 04-training/1-the-loss.ipynb#backward-kernel
/**
 * The gradient of the mean loss with respect to x [rows, columns]: (softmax(x)_j − [j is the target]) · scale, where scale is the gradient of the mean
 * divided by the number of rows that count, and 0 for a row that does not.
 */
export function crossEntropyBackwardKernel(plan: RowPlan): Kernel {
  const factors = ["logSums: array<f32>", "perRow: array<f32>", "gradient: array<f32>"];
  return kernel({
    name: `cross-entropy backward ${plan.rows}x${plan.columns}`,
    reads: ["x: array<V>", "targets: array<u32>", ...factors],
    writes: ["dx: array<V>"],
    sizes: rowSizes(plan),
    head: vectorAlias(vectorWidth(plan.columns)),
    ...rowGrid(plan),
    body: [
      ...rowStart(plan),
      "  let label = targets[row];",
      "  let logSum = logSums[row];",
      `  let scale = select(gradient[0] * perRow[0], 0.0, label == ${ignoredTarget}u);`,
      ...gradientRow(plan),
    ].join("\n"),
  });
}

//| 04-training/1-the-loss.ipynb#add-to
/** Adds x to y, number by number. */
export function addToKernel(count: number): Kernel {
  return kernel({
    name: `add to ${count}`,
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    sizes: { count },
    workgroupSize: 64,
    workgroups: Math.ceil(count / 64),
    body: "  if (thread < sizes.count) { y[thread] += x[thread]; }",
  });
}
