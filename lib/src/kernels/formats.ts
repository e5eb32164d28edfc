// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { float16Bits, float16Value } from "../formats/float16.js";
import type { OperandFormat, PackedArray } from "./operands.js";
import { vec4At } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#half-formats-parts
/** Packs numbers two to a word, by the 16 bits of each. */
export function packPairs(values: Float32Array, bitsOf: (value: number) => number): PackedArray[] {
  const words = new Uint32Array(Math.ceil(values.length / 2));
  for (let i = 0; i < values.length; i++) words[i >> 1] |= bitsOf(values[i]) << (16 * (i & 1));
  return [words];
}

/** The 16 bits of each number in words. */
export function pairsOf(words: PackedArray): Uint16Array {
  return new Uint16Array(words.buffer, words.byteOffset, words.length * 2);
}

/** The upper half of a 32-bit float, rounded to the nearest, of two equally near the even one. */
export function bfloat16Bits(value: number): number {
  const [bits] = new Uint32Array(Float32Array.of(value).buffer);
  return Number.isNaN(value) ? 0x7fc0 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

//| 02-attention/2-matrix-products.ipynb#half-formats
/** 16-bit floats, two to a word. */
export const f16Format: OperandFormat = {
  name: "f16",
  bindings: (name) => [`${name}: array<vec2u>`],
  loadFour: (name, at) =>
    `vec4f(unpack2x16float(${vec4At(name, at)}.x), unpack2x16float(${vec4At(name, at)}.y))`,
  rowBytes: (length) => [2 * length],
  pack: (values) => packPairs(values, float16Bits),
  unpack: ([words]) => Float32Array.from(pairsOf(words), float16Value),
};

/** The upper halves of 32-bit floats, two to a word. */
export const bf16Format: OperandFormat = {
  ...f16Format,
  name: "bf16",
  loadFour: (name, at) =>
    `bitcast<vec4f>((${vec4At(name, at)}.xxyy << vec4u(16, 0, 16, 0)) & vec4u(0xffff0000u))`,
  pack: (values) => packPairs(values, bfloat16Bits),
  unpack: ([words]) => new Float32Array(Uint32Array.from(pairsOf(words), (bits) => bits << 16).buffer),
};

//| 02-attention/2-matrix-products.ipynb#int8-format
/** Whole numbers from -127 to 127, four to a word, and a scale for each row: the largest number of the row becomes 127. */
export const int8Format: OperandFormat = {
  name: "int8",
  bindings: (name) => [`${name}: array<u32>`, `${name}Scales: array<f32>`],
  loadFour: (name, at, row) =>
    `vec4f(bitcast<vec4i>(vec4u(${vec4At(name, at)}) << vec4u(24, 16, 8, 0)) >> vec4u(24)) * ${name}Scales[${row}]`,
  rowBytes: (length) => [length, 4],
  pack(values, length) {
    const codes = new Int8Array(values.length);
    const scales = new Float32Array(values.length / length);
    for (let row = 0; row < scales.length; row++) {
      const own = values.subarray(row * length, (row + 1) * length);
      scales[row] = own.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) / 127;
      for (const [i, value] of own.entries())
        codes[row * length + i] = Math.round(value / (scales[row] || 1));
    }
    return [new Uint32Array(codes.buffer), scales];
  },
  unpack([words, scales], length) {
    const codes = new Int8Array(words.buffer, words.byteOffset, words.length * 4);
    return Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / length)]);
  },
};
