// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { float16Bits, float16Value } from "../formats/float16.js";
import type { OperandFormat, PackedArray } from "./operands.js";
import { vec4At } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#half-formats-parts
/** The f16 nearest to a 32-bit float that is given by its bits: the exponent moves, and the lower 13 bits are rounded away. */
export function float16OfBits(bits: number): number {
  const [sign, size] = [(bits >>> 16) & 0x8000, bits & 0x7fffffff];
  if (size > 0x7f800000) return 0x7e00; // not a number
  if (size >= 0x477ff000) return sign | 0x7c00; // 65,520 and more
  if (size >= 0x38800000) return sign | ((size - 0x38000000 + 0xfff + ((size >>> 13) & 1)) >>> 13);
  const shift = 126 - (size >>> 23); // below 2^-14 the unit stays the same
  if (shift > 24) return sign;
  const fraction = (size & 0x7fffff) | 0x800000;
  return sign | ((fraction + 2 ** (shift - 1) - 1 + ((fraction >>> shift) & 1)) >>> shift);
}

/** The upper half of a 32-bit float that is given by its bits, rounded to the nearest, of two equally near the even one. */
export function bfloat16OfBits(bits: number): number {
  return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Packs numbers two to a word, by the 16 bits that stand for the 32 of each. */
export function packPairs(values: Float32Array, halfOf: (bits: number) => number): PackedArray[] {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const words = new Uint32Array(Math.ceil(values.length / 2));
  for (let i = 0; i < bits.length; i++) words[i >> 1] |= halfOf(bits[i]) << (16 * (i & 1));
  return [words];
}

/** The 16 bits of each number in words. */
export function pairsOf(words: PackedArray): Uint16Array {
  return new Uint16Array(words.buffer, words.byteOffset, words.length * 2);
}

//| 02-attention/2-matrix-products.ipynb#half-formats
/** 16-bit floats, two to a word. */
export const f16Format: OperandFormat = {
  name: "f16",
  bindings: (name) => [`${name}: array<vec2u>`],
  loadFour: (name, at) =>
    `vec4f(unpack2x16float(${vec4At(name, at)}.x), unpack2x16float(${vec4At(name, at)}.y))`,
  slices: {
    bindings: (name) => [`${name}: array<vec4u>`],
    loads: 4,
    codes: (load, i) => `vec4f(unpack2x16float(${load}[${2 * i}]), unpack2x16float(${load}[${2 * i + 1}]))`,
  },
  rowBytes: (length) => [2 * length],
  pack: (values) => packPairs(values, float16OfBits),
  unpack: ([words]) => Float32Array.from(pairsOf(words), float16Value),
};

/** The upper halves of 32-bit floats, two to a word. */
export const bf16Format: OperandFormat = {
  ...f16Format,
  name: "bf16",
  loadFour: (name, at) =>
    `bitcast<vec4f>((${vec4At(name, at)}.xxyy << vec4u(16, 0, 16, 0)) & vec4u(0xffff0000u))`,
  slices: {
    bindings: (name) => [`${name}: array<vec4u>`],
    loads: 4,
    codes: (load, i) =>
      `bitcast<vec4f>((${load}.${["xxyy", "zzww"][i]} << vec4u(16, 0, 16, 0)) & vec4u(0xffff0000u))`,
  },
  pack: (values) => packPairs(values, bfloat16OfBits),
  unpack: ([words]) => new Float32Array(Uint32Array.from(pairsOf(words), (bits) => bits << 16).buffer),
};

//| 02-attention/2-matrix-products.ipynb#int8-codes
/** WGSL (a vec4f): the four bytes of a word, with their signs. */
export function int8Codes(word: string): string {
  return `vec4f(bitcast<vec4i>(vec4u(${word}) << vec4u(24, 16, 8, 0)) >> vec4u(24))`;
}

//| 02-attention/2-matrix-products.ipynb#int8-format
/** Whole numbers from -127 to 127, four to a word, and a scale for each row: the largest number of the row becomes 127. */
export const int8Format: OperandFormat = {
  name: "int8",
  bindings: (name) => [`${name}: array<u32>`, `${name}Scales: array<f32>`],
  loadFour: (name, at, row) => `${int8Codes(vec4At(name, at))} * ${name}Scales[${row}]`,
  slices: {
    bindings: (name) => [`${name}: array<vec4u>`, `${name}Scales: array<f32>`],
    loads: 2,
    codes: (load, i) => int8Codes(`${load}[${i}]`),
    loadCodes: (name, at) => int8Codes(vec4At(name, at)),
    shared: (name, _, row) => `vec2f(${name}Scales[${row}], 0.0)`,
  },
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
    const factors = new Float32Array(scales.buffer, scales.byteOffset, scales.length);
    return Float32Array.from(codes, (code, i) => code * factors[Math.floor(i / length)]);
  },
};

//| 02-attention/2-matrix-products.ipynb#mxfp4-parts
/** The sizes that three bits say: two bits of exponent, one of fraction. */
export const fp4Sizes = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

/** The four bits nearest to a number (of two equally near, the even ones), which is 6 at most. */
export function fp4Bits(value: number): number {
  const size = Math.abs(value);
  const [above, reached] = [
    [0.25, 1.25, 2.5, 5],
    [0.75, 1.75, 3.5],
  ]; // halfway: down to even, up to even
  const passed = above.filter((half) => size > half).length + reached.filter((half) => size >= half).length;
  return passed | (value < 0 || Object.is(value, -0) ? 8 : 0);
}

/** The byte of a block's scale, a power of two: with it the largest of the block is 4 or more, and perhaps too much. */
export function mxScale(block: Float32Array): number {
  const largest = block.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return largest === 0 ? 127 : Math.max(1, Math.min(254, Math.floor(Math.log2(largest)) - 2 + 127));
}

/** The bytes that an array holds. */
export function bytesIn(words: ArrayBufferView): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

/** So many bytes, in whole words. */
export function wordsFor(bytes: number): Uint32Array {
  return new Uint32Array(Math.ceil(bytes / 4));
}

//| 02-attention/2-matrix-products.ipynb#mxfp4-codes
/** WGSL (a u32): four neighbouring codes from element `at` on, in the lowest 16 bits. */
export function fp4At(name: string, at: string): string {
  return `(${name}[(${at}) / 8u] >> ((${at}) % 8u * 4u))`;
}

/** WGSL (a vec4f): the numbers of the four codes in the lowest 16 bits of a word, not yet scaled. */
export function fp4Codes(word: string): string {
  const codes = `((vec4u(${word}) >> vec4u(0, 4, 8, 12)) & vec4u(15))`;
  const sizes = `vec4f(bitcast<vec4i>((vec4u(0xc8643210u) >> (${codes} % 8u * 4u)) & vec4u(15)))`;
  return `${sizes} * (0.5 - vec4f(bitcast<vec4i>(${codes} / 8u)))`;
}

/** WGSL (an f32): the scale of the block with element `at`. */
export function mxScaleAt(name: string, at: string): string {
  const byte = `((${name}Scales[(${at}) / 128u] >> ((${at}) / 32u % 4u * 8u)) & 255u)`;
  return `bitcast<f32>(${byte} << 23u)`;
}

//| 02-attention/2-matrix-products.ipynb#mxfp4-format
/**
 * MXFP4: four bits a number, eight to a word from the lowest up, and a byte for each block of 32, whose numbers are multiplied by
 * 2 to the power (byte - 127). The Open Compute Project's "OCP Microscaling Formats (MX) Specification".
 */
export const mxfp4Format: OperandFormat = {
  name: "mxfp4",
  block: 32,
  bindings: (name) => [`${name}: array<u32>`, `${name}Scales: array<u32>`],
  loadFour: (name, at) => `${fp4Codes(fp4At(name, at))} * ${mxScaleAt(name, at)}`,
  slices: {
    bindings: (name) => [`${name}: array<vec4u>`, `${name}Scales: array<u32>`],
    loads: 1,
    codes: (load, i) => fp4Codes(`(${load}[${i >> 1}]${i % 2 === 1 ? " >> 16u" : ""})`),
    loadCodes: (name, at) => fp4Codes(fp4At(name, at)),
    shared: (name, at) => `vec2f(${mxScaleAt(name, at)}, 0.0)`,
  },
  rowBytes: (length) => [length / 2, length / 32],
  pack(values) {
    const [codes, scales] = [wordsFor(values.length / 2), wordsFor(values.length / 32)];
    for (let block = 0; 32 * block < values.length; block++) {
      const own = values.subarray(32 * block, 32 * block + 32);
      bytesIn(scales)[block] = mxScale(own);
      const scale = 2 ** (mxScale(own) - 127);
      for (const [i, value] of own.entries())
        codes[4 * block + (i >> 3)] |= fp4Bits(value / scale) << (4 * (i & 7));
    }
    return [codes, scales];
  },
  unpack([codes, scales]) {
    return Float32Array.from({ length: 8 * codes.length }, (_, i) => {
      const code = codes[i >> 3] >>> (4 * (i & 7));
      const size = fp4Sizes[code & 7] * 2 ** (bytesIn(scales)[i >> 5] - 127);
      return code & 8 ? -size : size;
    });
  },
};

//| 02-attention/2-matrix-products.ipynb#int4-parts
/** The f16 nearest to a number; beyond its range, its largest number. */
export function nearestHalf(value: number): number {
  return float16Value(float16Bits(Math.max(-65504, Math.min(65504, value))));
}

/** How a group's codes become numbers: scale · (code - zero). */
export interface GroupScale {
  scale: number;
  zero: number;
}

/** The scale of a group around the code 8: its number of largest size becomes the code 0. */
export function scaleAroundZero(group: Float32Array): GroupScale {
  let largest = 0;
  for (const value of group) if (Math.abs(value) > Math.abs(largest)) largest = value;
  return { scale: nearestHalf(largest / -8), zero: 8 };
}

/** The scale of a group from its smallest number (or 0) to its largest (or 0), and the code that stands for zero. */
export function scaleOfRange(group: Float32Array): GroupScale {
  let [least, most] = [0, 0];
  for (const value of group) [least, most] = [Math.min(least, value), Math.max(most, value)];
  const scale = nearestHalf((most - least) / 15);
  return { scale, zero: scale === 0 ? 0 : Math.round(-least / scale) };
}

//| 02-attention/2-matrix-products.ipynb#int4-format
/** A format whose blocks share a scale, and perhaps a zero point. */
export interface GroupFormat extends OperandFormat {
  block: number;
  zeroPoints: boolean;
}

/** How the scales of groups are stored in words. Codes count from a group's zero point on: `codes` is WGSL (a vec4f) for the four in the lowest 16 bits of a word. */
export interface ScaleStorage {
  bytes: number;
  scaleOf(group: Float32Array): GroupScale;
  store(words: Uint32Array, group: number, scale: GroupScale): void;
  read(words: PackedArray, group: number): GroupScale;
  codes(word: string, zero: string): string;
  /** WGSL for a group's scale and zero point. */
  scale(name: string, group: string): string;
  zero(name: string, group: string): string;
}

//| 02-attention/2-matrix-products.ipynb#int4-scales
/** An f16 for each group, two to a word. Codes less 8 are numbers of four bits with a sign, when their highest bit is turned round. */
export const halfScales: ScaleStorage = {
  bytes: 2,
  scaleOf: scaleAroundZero,
  store: (words, group, { scale }) => pairsOf(words).set([float16Bits(scale)], group),
  read: (words, group) => ({ scale: float16Value(pairsOf(words)[group]), zero: 8 }),
  // With its highest bit turned round, a code is one with a sign.
  codes: (word) => `vec4f(bitcast<vec4i>(vec4u((${word}) ^ 0x8888u) << vec4u(28, 24, 20, 16)) >> vec4u(28))`,
  scale: (name, group) => `unpack2x16float(${name}Scales[(${group}) / 2u] >> ((${group}) % 2u * 16u)).x`,
  zero: () => "8.0",
};

/** A word for each group: the f16 below, the zero point above. */
export const zeroPointScales: ScaleStorage = {
  bytes: 4,
  scaleOf: scaleOfRange,
  store: (words, group, { scale, zero }) => words.set([float16Bits(scale) | (zero << 16)], group),
  read: (words, group) => ({ scale: float16Value(words[group] & 0xffff), zero: words[group] >>> 16 }),
  codes: (word, zero) =>
    `(vec4f(bitcast<vec4i>((vec4u(${word}) >> vec4u(0, 4, 8, 12)) & vec4u(15))) - ${zero})`,
  scale: (name, group) => `unpack2x16float(${name}Scales[${group}]).x`,
  zero: (name, group) => `f32(${name}Scales[${group}] >> 16u)`,
};

//| 02-attention/2-matrix-products.ipynb#int4-pack
/** Numbers in groups as codes, eight to a word, and scales. */
export function packGroups(values: Float32Array, group: number, storage: ScaleStorage): PackedArray[] {
  const codes = wordsFor(values.length / 2);
  const scales = wordsFor((storage.bytes * values.length) / group);
  for (let first = 0; first < values.length; first += group) {
    storage.store(scales, first / group, storage.scaleOf(values.subarray(first, first + group)));
    const { scale, zero } = storage.read(scales, first / group);
    for (let i = first; i < first + group; i++) {
      const code = scale === 0 ? zero : Math.round(values[i] / scale) + zero;
      codes[i >> 3] |= Math.max(0, Math.min(15, code)) << (4 * (i & 7));
    }
  }
  return [codes, scales];
}

/** The numbers that codes and scales stand for. */
export function unpackGroups(
  codes: PackedArray,
  scales: PackedArray,
  group: number,
  storage: ScaleStorage,
): Float32Array {
  const values = new Float32Array(8 * codes.length);
  for (let first = 0; first < values.length; first += group) {
    const { scale, zero } = storage.read(scales, first / group);
    for (let i = first; i < first + group; i++)
      values[i] = scale * (((codes[i >> 3] >>> (4 * (i & 7))) & 15) - zero);
  }
  return values;
}

//| 02-attention/2-matrix-products.ipynb#int4-format-2
/**
 * Whole numbers from 0 to 15, eight to a word from the lowest up, and an f16 scale for each group of neighbours: they stand for
 * scale · (code - 8), or with zero points for scale · (code - the group's own).
 */
export function int4Format(group: number, zeroPoints = false): GroupFormat {
  const storage = zeroPoints ? zeroPointScales : halfScales;
  const groupOf = (at: string) => `(${at}) / ${group}u`;
  const loadCodes = (name: string, at: string) =>
    storage.codes(fp4At(name, at), storage.zero(name, groupOf(at)));
  return {
    name: `int4${zeroPoints ? "-asym" : ""}-${group}`,
    block: group,
    zeroPoints,
    bindings: (name) => [`${name}: array<u32>`, `${name}Scales: array<u32>`],
    loadFour: (name, at) => `${loadCodes(name, at)} * ${storage.scale(name, groupOf(at))}`,
    slices: {
      bindings: (name) => [`${name}: array<vec4u>`, `${name}Scales: array<u32>`],
      loads: 1,
      codes: (load, i, shared) =>
        storage.codes(i % 2 === 0 ? `${load}[${i >> 1}]` : `${load}[${i >> 1}] >> 16u`, `${shared}.y`),
      loadCodes,
      shared: (name, at) => `vec2f(${storage.scale(name, groupOf(at))}, ${storage.zero(name, groupOf(at))})`,
    },
    rowBytes: (length) => [length / 2, (storage.bytes * length) / group],
    pack: (values) => packGroups(values, group, storage),
    unpack: ([codes, scales]) => unpackGroups(codes, scales, group, storage),
  };
}
