// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 02-attention/4-rows.ipynb#row-lanes
/** Elements that one load brings: four floats where the rows are whole fours, else one. */
export function rowWidth(columns: number): 1 | 4 {
  return columns % 4 === 0 ? 4 : 1;
}

/**
 * Lanes that share a row: the whole subgroup where each of its lanes gets something to do, else one. On a processor
 * many rows fill all lanes by themselves, one row each, and then nothing has to be added up across lanes.
 */
export function rowLanes(rows: number, columns: number, { kind, subgroupSize }: AdapterFacts): number {
  const shareable = subgroupSize > 1 && columns / rowWidth(columns) >= subgroupSize;
  return shareable && !(kind === "cpu" && rows >= 64) ? subgroupSize : 1;
}

//| 02-attention/4-rows.ipynb#row-head
/** Types and functions for rows of `columns` numbers that `lanes` lanes share. */
export function rowHead(columns: number, lanes: number): string {
  const width = rowWidth(columns);
  const across = (operation: string) => (lanes > 1 ? `${operation}(x)` : "x");
  return `alias V = ${width === 4 ? "vec4f" : "f32"};
const LENGTH = ${columns / width}u;
const STEP = ${lanes}u;
const COLUMNS = ${columns}.0;
fn total(v: V) -> f32 { return ${width === 4 ? "v.x + v.y + (v.z + v.w)" : "v"}; }
fn largest(v: V) -> f32 { return ${width === 4 ? "max(max(v.x, v.y), max(v.z, v.w))" : "v"}; }
fn sumOfRow(x: f32) -> f32 { return ${across("subgroupAdd")}; }
fn largestOfRow(x: f32) -> f32 { return ${across("subgroupMax")}; }`;
}

//| 02-attention/4-rows.ipynb#row-kernel-parts
/** What a kernel on the rows of a matrix says; `rowKernel` adds what all of them share. */
export interface RowKernelParts {
  name: string;
  rows: number;
  columns: number;
  reads: string[];
  /** What is written; the first one is `y: array<V>` and has the matrix's shape. */
  writes: string[];
  /** Constants and functions. */
  head?: string;
  /** Statements that see `row`, `start`, `first`, `STEP` and `LENGTH`, and may call the functions of `rowHead`. */
  body: string;
}

//| 02-attention/4-rows.ipynb#row-kernel
/**
 * A kernel in which each row of a matrix is one subgroup's work, or one invocation's where the adapter has no
 * subgroups or the row is short. Barriers are what costs in row kernels, and neither form has any.
 */
export function rowKernel(parts: RowKernelParts, facts: AdapterFacts): Kernel {
  const { name, rows, columns, reads, writes, head = "", body } = parts;
  const lanes = rowLanes(rows, columns, facts);
  return kernel({
    name: `${name} ${rows}x${columns}`,
    reads,
    writes,
    enable: lanes > 1 ? ["subgroups"] : [],
    head: `${rowHead(columns, lanes)}\n${head}`,
    workgroupSize: lanes > 1 ? lanes : 64,
    workgroups: lanes > 1 ? rows : Math.ceil(rows / 64),
    body: `
  let row = ${lanes > 1 ? "workgroup" : "thread"};
  if (row >= arrayLength(&y) / LENGTH) { return; }
  let first = ${lanes > 1 ? "lane" : "0u"};
  let start = row * LENGTH;${body}`,
  });
}

//| 02-attention/4-rows.ipynb#row-groups
/** Groups of rows whose sums are taken apart from each other, so that many invocations have work. */
export function rowGroups(rows: number): number {
  return Math.min(64, rows);
}
