// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { isTexture } from "./textures.js";

//| 02-attention/1-the-first-kernel.ipynb#kernel-interface
/** A program for the GPU with the number of workgroups to start: made by functions from shapes and adapter facts. */
export interface Kernel {
  /** What it does and on which shapes: errors and profiles show it. */
  name: string;
  /** What its compiled form is remembered by: kernels of one key have one source. */
  key: string;
  /** The whole WGSL source. */
  readonly code: string;
  /** The first bindings are read only, the next ones are written (and may be read). */
  reads: number;
  writes: number;
  /** Those of the first bindings that are textures. */
  textures: readonly number[];
  /** Sizes that the source reads as data: kernels that differ in these alone are compiled once. */
  sizes: readonly number[];
  workgroups: readonly [number, number, number];
}

//| 02-attention/1-the-first-kernel.ipynb#kernel-parts
/** What a kernel's author writes; `kernel` adds the frame that is the same for all. */
export interface KernelParts {
  name: string;
  /** Bindings that are only read, as WGSL declarations such as `x: array<f32>`, or by `textureOf`. */
  reads: string[];
  /** Bindings that are written. */
  writes: string[];
  /** Invocations a workgroup. */
  workgroupSize: number;
  /** Workgroups to start: a count, folded over two dimensions when it is long, or the three counts. */
  workgroups: number | [number, number, number];
  /**
   * Sizes by name, u32, which the source reads as `sizes.name` instead of having them written in. Worth it where a kernel
   * is slow to compile and comes in many shapes.
   */
  sizes?: Record<string, number>;
  /** Constants, functions and workgroup variables. */
  head?: string | (() => string);
  /** WGSL extensions to enable, such as `subgroups`. */
  enable?: string[];
  /** The statements of `main`. They see `thread`, `lane`, `workgroup` (all u32) and `group` (vec3u). */
  body: string | (() => string);
  /**
   * A short text that differs wherever the source would. With it, `head` and `body` may be functions that write their part of the
   * source, and are called only when it must be compiled: worth it where the source is long and the kernel asked for often.
   */
  key?: string;
}

//| 02-attention/1-the-first-kernel.ipynb#fold-grid
/** Folds a long row of workgroups over two dimensions: one dimension ends at 65,535. */
export function foldGrid(count: number): [number, number, number] {
  const rows = Math.ceil(count / 65535);
  return [Math.max(1, Math.ceil(count / Math.max(1, rows))), Math.max(1, rows), 1];
}

/** The first line of every kernel's `main`. */
export const mainSignature =
  "fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {";

//| 02-attention/1-the-first-kernel.ipynb#declarations
/** Declares the sizes that a kernel reads as data, in the binding after its arrays. */
export function sizesDeclaration(names: string[], binding: number): string[] {
  if (names.length === 0) return [];
  const fields = names.map((name) => `${name}: u32`).join(", ");
  return [`struct Sizes { ${fields} }`, `@group(0) @binding(${binding}) var<uniform> sizes: Sizes;`];
}

/** Declares an array, or a texture. */
export function bindingDeclaration(
  declaration: string,
  access: "read" | "read_write",
  binding: number,
): string {
  const space = isTexture(declaration) ? "" : `<storage, ${access}>`;
  return `@group(0) @binding(${binding}) var${space} ${declaration};`;
}

//| 02-attention/1-the-first-kernel.ipynb#kernel-source
/** A part of a source, written now where it was not yet. */
export function sourceText(part: string | (() => string)): string {
  return typeof part === "string" ? part : part();
}

/** The whole source of a kernel: the frame around its author's parts. */
export function kernelSource(parts: KernelParts): string {
  const { reads, writes, workgroupSize, sizes = {}, head = "", enable = [], body } = parts;
  const lines = [
    ...enable.map((extension) => `enable ${extension};`),
    ...reads.map((declaration, i) => bindingDeclaration(declaration, "read", i)),
    ...writes.map((declaration, i) => bindingDeclaration(declaration, "read_write", reads.length + i)),
    ...sizesDeclaration(Object.keys(sizes), reads.length + writes.length),
    sourceText(head).trim(),
    `@compute @workgroup_size(${workgroupSize})`,
    mainSignature,
    "  let workgroup = group.x + groups.x * group.y;",
    `  let thread = workgroup * ${workgroupSize}u + lane;`,
    sourceText(body).replace(/^\n+|\s+$/g, ""),
    "}",
  ];
  return lines.filter((line) => line !== "").join("\n");
}

//| 02-attention/1-the-first-kernel.ipynb#kernel
/**
 * Writes the frame around a kernel's statements: bindings in order, then `main` with
 * `group` (which workgroup, three counts), `workgroup` (the same as one number), `lane` (which invocation within it)
 * and `thread` (which invocation of all). A folded grid may start some too many: compare `thread` or `workgroup` with
 * the size.
 */
export function kernel(parts: KernelParts): Kernel {
  const { name, reads, writes, workgroups, sizes = {}, key } = parts;
  let code = key === undefined ? kernelSource(parts) : undefined;
  return {
    name,
    key: `${reads.length} ${writes.length} ${Object.keys(sizes).length} ${key ?? code}`,
    get code() {
      code ??= kernelSource(parts);
      return code;
    },
    reads: reads.length,
    writes: writes.length,
    textures: reads.flatMap((declaration, i) => (isTexture(declaration) ? [i] : [])),
    sizes: Object.values(sizes),
    workgroups: typeof workgroups === "number" ? foldGrid(workgroups) : workgroups,
  };
}
