// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/4-rows.ipynb#row-lanes
/**
 * Lanes that share a row of a matrix [rows, columns]: the whole subgroup where each of its lanes gets something to do, else one. On a processor
 * many rows fill all lanes by themselves, one row each, and then nothing has to be added up across lanes; but not where a row is to have
 * the same bits among many as alone (`invariant`).
 */
export function rowLanes(
  rows: number,
  columns: number,
  { kind, subgroupSize }: AdapterFacts,
  invariant = false,
): number {
  const shareable = subgroupSize > 1 && columns / vectorWidth(columns) >= subgroupSize;
  return shareable && (invariant || !(kind === "cpu" && rows >= 64)) ? subgroupSize : 1;
}

//| 02-attention/4-rows.ipynb#row-head
/** Types and functions for rows that are read `width` numbers at a time and shared by `lanes` lanes. */
export function rowHead(width: 1 | 4, lanes: number): string {
  const across = (operation: string) => (lanes > 1 ? `${operation}(x)` : "x");
  return `${vectorAlias(width)}
const STEP = ${lanes}u;
fn total(v: V) -> f32 { return ${width === 4 ? "v.x + v.y + (v.z + v.w)" : "v"}; }
fn largest(v: V) -> f32 { return ${width === 4 ? "max(max(v.x, v.y), max(v.z, v.w))" : "v"}; }
fn sumOfRow(x: f32) -> f32 { return ${across("subgroupAdd")}; }
fn largestOfRow(x: f32) -> f32 { return ${across("subgroupMax")}; }`;
}

//| 02-attention/4-rows.ipynb#row-kernel-parts
/** What a kernel on the rows of a matrix [rows, columns] says; `rowKernel` adds what all of them share. */
export interface RowKernelParts {
  name: string;
  rows: number;
  columns: number;
  reads: string[];
  writes: string[];
  /** A row has the same bits whatever the number of rows. */
  invariant?: boolean;
  /** Its own sizes by name, besides those of the matrix. */
  sizes?: Record<string, number>;
  /** Constants and functions. */
  head?: string;
  /** Statements that see `row`, `start`, `first`, `STEP`, `LENGTH` and `COLUMNS`, and may call the functions of `rowHead`. */
  body: string;
}

//| 02-attention/4-rows.ipynb#row-kernel
/**
 * A kernel in which each row of a matrix is one subgroup's work, or one invocation's where the adapter has no
 * subgroups or the row is short. Barriers are what costs in row kernels, and neither form has any. Rows and columns are
 * sizes, so that one compilation serves matrices of all shapes that are read in the same way.
 */
export function rowKernel(parts: RowKernelParts, facts: AdapterFacts): Kernel {
  const { name, rows, columns, reads, writes, sizes = {}, head = "", body, invariant } = parts;
  const [width, lanes] = [vectorWidth(columns), rowLanes(rows, columns, facts, invariant)];
  return kernel({
    name: `${name} ${rows}x${columns}`,
    reads,
    writes,
    sizes: { rows, columns, length: columns / width, ...sizes },
    enable: lanes > 1 ? ["subgroups"] : [],
    head: `${rowHead(width, lanes)}\n${head}`,
    workgroupSize: lanes > 1 ? lanes : 64,
    workgroups: lanes > 1 ? rows : Math.ceil(rows / 64),
    body: `
  let row = ${lanes > 1 ? "workgroup" : "thread"};
  if (row >= sizes.rows) { return; }
  let LENGTH = sizes.length;
  let COLUMNS = f32(sizes.columns);
  let first = ${lanes > 1 ? "lane" : "0u"};
  let start = row * LENGTH;${body}`,
  });
}

//| 02-attention/4-rows.ipynb#row-groups
/** Groups of `rows` rows whose sums are taken apart from each other, so that many invocations have work. */
export function rowGroups(rows: number): number {
  return Math.min(64, rows);
}
