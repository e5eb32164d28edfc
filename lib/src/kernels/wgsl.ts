// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";

//| 02-attention/2-matrix-products.ipynb#wgsl-helpers-parts
/** The element type of an array that is loaded four at a time, or one at a time. */
export function elementType(vec4: boolean): "vec4f" | "f32" {
  return vec4 ? "vec4f" : "f32";
}

/** WGSL (a vec4f): four neighbours of array `name` from element `at` on, which is a multiple of four. */
export function vec4At(name: string, at: string): string {
  return `${name}[(${at}) / 4u]`;
}

/** WGSL (a vec4f): `value`, with zeros for those of its four numbers that stand at `to` or beyond. Whole fours are in or out together. */
export function zeroFrom(value: string, first: string, to: string, vec4: boolean): string {
  const inside = vec4 ? `${first} < ${to}` : `vec4u(${first}) + vec4u(0u, 1u, 2u, 3u) < vec4u(${to})`;
  return `select(vec4f(), ${value}, ${inside})`;
}

//| 02-attention/2-matrix-products.ipynb#wgsl-helpers
/** The numbers 0 to count - 1. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

//| 02-attention/2-matrix-products.ipynb#wgsl-helpers-helpers
/** WGSL (a vec4f): four neighbours of an array of single floats, the i-th `at(i)`. */
export function vec4Of(name: string, at: (i: number) => string): string {
  return `vec4f(${range(4)
    .map((i) => `${name}[${at(i)}]`)
    .join(", ")})`;
}

//| 02-attention/2-matrix-products.ipynb#prefers-subgroups
/** On a processor barriers are dear and lanes are cheap; on a graphics processor shared memory wins. */
export function prefersSubgroups({ kind, subgroupSize }: AdapterFacts): boolean {
  return kind === "cpu" && subgroupSize >= 4;
}

//| 02-attention/2-matrix-products.ipynb#wgsl-text-code-parts
/** The bits of a number as an f32: how it travels among a kernel's sizes, which reads it as `bitcast<f32>(sizes.name)`. */
export function floatBits(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0];
}

//| 02-attention/2-matrix-products.ipynb#wgsl-text-code
/** A number as WGSL writes an f32. Throws for what WGSL cannot write. */
export function wgslNumber(value: number): string {
  if (!Number.isFinite(value)) throw new Error(`WGSL has no way to write ${value}.`);
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? text : `${text}.0`;
}

/** Floats that one load brings from arrays of these lengths: four where all are whole fours, else one. */
export function vectorWidth(...lengths: number[]): 1 | 4 {
  return lengths.every((length) => length % 4 === 0) ? 4 : 1;
}

/** WGSL that calls the element of such arrays `V`. */
export function vectorAlias(width: 1 | 4): string {
  return `alias V = ${width === 4 ? "vec4f" : "f32"};`;
}
