// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import { float16Bits, float16Value } from "./float16.js";
import { toFloat32 } from "./safetensors.js";

//| 05-inference/a-files-of-gguf.ipynb#types
/** The types of tensors by name: their number in a file, numbers in a block, bytes of a block (ggml, `ggml.h` and `ggml-common.h`). */
export const ggufTypes: Record<string, { id: number; numbers: number; bytes: number }> = Object.fromEntries(
  `F32 0 1 4 · F16 1 1 2 · Q4_0 2 32 18 · Q4_1 3 32 20 · Q5_0 6 32 22 · Q5_1 7 32 24 · Q8_0 8 32 34 · Q8_1 9 32 40 ·
  Q2_K 10 256 84 · Q3_K 11 256 110 · Q4_K 12 256 144 · Q5_K 13 256 176 · Q6_K 14 256 210 · Q8_K 15 256 292 ·
  IQ2_XXS 16 256 66 · IQ2_XS 17 256 74 · IQ3_XXS 18 256 98 · IQ1_S 19 256 50 · IQ4_NL 20 32 18 · IQ3_S 21 256 110 ·
  IQ2_S 22 256 82 · IQ4_XS 23 256 136 · I8 24 1 1 · I16 25 1 2 · I32 26 1 4 · I64 27 1 8 · F64 28 1 8 · IQ1_M 29 256 56 ·
  BF16 30 1 2 · TQ1_0 34 256 54 · TQ2_0 35 256 66 · MXFP4 39 32 17 · NVFP4 40 64 36`
    .split("·")
    .map((line) => {
      const [name, id, numbers, bytes] = line.trim().split(/\s+/);
      return [name, { id: Number(id), numbers: Number(numbers), bytes: Number(bytes) }];
    }),
);

//| 05-inference/a-files-of-gguf.ipynb#legacy
/** Unpacks the block of a type that begins at byte `at`, into `values` from `to` on. */
export type UnpackBlock = (bytes: Uint8Array, at: number, values: Float32Array, to: number) => void;

/** The f16 at a byte. */
export function halfAt(bytes: Uint8Array, at: number): number {
  return float16Value(bytes[at] | (bytes[at + 1] << 8));
}

/** Q4_0, Q4_1, Q5_0 and Q5_1: a scale, perhaps the least value, perhaps 32 fifth bits, then halves of bytes. */
export function halvesBlock(isFive: boolean, hasLeast: boolean): UnpackBlock {
  const middle = isFive ? 16 : 8;
  return (bytes, at, values, to) => {
    const scale = halfAt(bytes, at);
    const least = hasLeast ? halfAt(bytes, at + 2) : 0;
    const fifths = at + (hasLeast ? 4 : 2);
    const halves = fifths + (isFive ? 4 : 0);
    for (let i = 0; i < 32; i++) {
      const low = i < 16 ? bytes[halves + i] & 15 : bytes[halves + i - 16] >> 4;
      const fifth = isFive ? ((bytes[fifths + (i >> 3)] >> (i & 7)) & 1) << 4 : 0;
      values[to + i] = hasLeast ? scale * (low | fifth) + least : scale * ((low | fifth) - middle);
    }
  };
}

//| 05-inference/a-files-of-gguf.ipynb#eight
/** Q8_0: a scale, then 32 signed bytes. */
export const unpackBytes: UnpackBlock = (bytes, at, values, to) => {
  const scale = halfAt(bytes, at);
  for (let i = 0; i < 32; i++) values[to + i] = scale * ((bytes[at + 2 + i] << 24) >> 24);
};

/** The values of MXFP4's four bits, doubled so that they are whole (Open Compute Project, *Microscaling Formats*, 2023). */
export const tinyFloats = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** The scale of a block of MXFP4 for those doubled values. */
export function tinyScale(exponent: number): number {
  return 2 ** (exponent - 128);
}

/** MXFP4: an exponent, then halves of bytes. */
export const unpackTiny: UnpackBlock = (bytes, at, values, to) => {
  const scale = tinyScale(bytes[at]);
  for (let i = 0; i < 16; i++) {
    values[to + i] = scale * tinyFloats[bytes[at + 1 + i] & 15];
    values[to + 16 + i] = scale * tinyFloats[bytes[at + 1 + i] >> 4];
  }
};

//| 05-inference/a-files-of-gguf.ipynb#k-four
/** The scale and the least value of the j-th of eight small blocks: six bits each, packed into twelve bytes from `at` on. */
export function sixBits(bytes: Uint8Array, at: number, j: number): [scale: number, least: number] {
  if (j < 4) return [bytes[at + j] & 63, bytes[at + j + 4] & 63];
  const both = bytes[at + j + 4];
  return [(both & 15) | ((bytes[at + j - 4] >> 6) << 4), (both >> 4) | ((bytes[at + j] >> 6) << 4)];
}

/** Q4_K and Q5_K: two f16, twelve bytes of scales, perhaps 32 bytes of fifth bits, then 128 bytes of halves. */
export function halvesOf256(isFive: boolean): UnpackBlock {
  return (bytes, at, values, to) => {
    const [scale, leastScale] = [halfAt(bytes, at), halfAt(bytes, at + 2)];
    const halves = at + (isFive ? 48 : 16);
    for (let j = 0; j < 8; j++) {
      const [factor, least] = sixBits(bytes, at + 4, j);
      for (let i = 0; i < 32; i++) {
        const low = (bytes[halves + 32 * (j >> 1) + i] >> (4 * (j & 1))) & 15;
        const fifth = isFive ? ((bytes[at + 16 + i] >> j) & 1) << 4 : 0;
        values[to + 32 * j + i] = scale * factor * (low | fifth) - leastScale * least;
      }
    }
  };
}

//| 05-inference/a-files-of-gguf.ipynb#k-six
/** Q6_K: 128 bytes of low halves, 64 of upper pairs of bits, 16 signed scales, an f16. */
export const unpackSix: UnpackBlock = (bytes, at, values, to) => {
  const scale = halfAt(bytes, at + 208);
  for (let n = 0; n < 256; n++) {
    const [half, row, i] = [n >> 7, (n >> 5) & 3, n & 31];
    const low = (bytes[at + 64 * half + 32 * (row & 1) + i] >> (4 * (row >> 1))) & 15;
    const upper = (bytes[at + 128 + 32 * half + i] >> (2 * row)) & 3;
    const factor = (bytes[at + 192 + (n >> 4)] << 24) >> 24;
    values[to + n] = scale * factor * ((low | (upper << 4)) - 32);
  }
};

/** Q3_K: 32 bytes of third bits, 64 of pairs of bits, twelve of scales of six bits, an f16. */
export const unpackThree: UnpackBlock = (bytes, at, values, to) => {
  const scale = halfAt(bytes, at + 108);
  for (let n = 0; n < 256; n++) {
    const [half, row, i, j] = [n >> 7, (n >> 5) & 3, n & 31, n >> 4];
    const low = (bytes[at + 32 + 32 * half + i] >> (2 * row)) & 3;
    const third = (bytes[at + i] >> (4 * half + row)) & 1;
    const lowFactor = (bytes[at + 96 + (j & 7)] >> (4 * (j >> 3))) & 15;
    const upperFactor = (bytes[at + 104 + (j & 3)] >> (2 * (j >> 2))) & 3;
    values[to + n] = scale * ((lowFactor | (upperFactor << 4)) - 32) * (low - (third ? 0 : 4));
  }
};

/** Q2_K: 16 bytes with a scale and a least value each, 64 of pairs of bits, two f16. */
export const unpackTwo: UnpackBlock = (bytes, at, values, to) => {
  const [scale, leastScale] = [halfAt(bytes, at + 80), halfAt(bytes, at + 82)];
  for (let n = 0; n < 256; n++) {
    const factors = bytes[at + (n >> 4)];
    const low = (bytes[at + 16 + 32 * (n >> 7) + (n & 31)] >> (2 * ((n >> 5) & 3))) & 3;
    values[to + n] = scale * (factors & 15) * low - leastScale * (factors >> 4);
  }
};

//| 05-inference/a-files-of-gguf.ipynb#unpack
/** The types that are read in blocks. */
export const blockUnpackers: Record<string, UnpackBlock> = {
  Q4_0: halvesBlock(false, false),
  Q4_1: halvesBlock(false, true),
  Q5_0: halvesBlock(true, false),
  Q5_1: halvesBlock(true, true),
  Q8_0: unpackBytes,
  Q2_K: unpackTwo,
  Q3_K: unpackThree,
  Q4_K: halvesOf256(false),
  Q5_K: halvesOf256(true),
  Q6_K: unpackSix,
  MXFP4: unpackTiny,
};

/** The types whose numbers are read. */
export const readableTypes = ["F32", "F16", "BF16", ...Object.keys(blockUnpackers)];

//| 05-inference/a-files-of-gguf.ipynb#unpack-numbers
/** The numbers of a tensor of a GGUF file as f32, row by row. Throws, naming the type, for one that is not read. */
export function ggufNumbers(type: string, bytes: Uint8Array): Float32Array {
  if (type === "F32" || type === "F16" || type === "BF16")
    return toFloat32({ dtype: type, shape: [], data: bytes });
  const unpack = blockUnpackers[type];
  if (!unpack)
    throw new Error(`Numbers of type ${type} are not read; these are: ${readableTypes.join(", ")}.`);
  const numbers = ggufTypes[type].numbers;
  const step = ggufTypes[type].bytes;
  const values = new Float32Array((bytes.length / step) * numbers);
  for (let at = 0, to = 0; at < bytes.length; at += step, to += numbers) unpack(bytes, at, values, to);
  return values;
}

//| 05-inference/a-files-of-gguf.ipynb#pack
/** Packs the numbers from `from` on into the block that begins at byte `at`. */
export type PackBlock = (values: Float32Array, from: number, bytes: Uint8Array, at: number) => void;

export const { fround } = Math;

/** Writes an f16 at a byte. Throws for a number that f16 does not reach. */
export function setHalf(bytes: Uint8Array, at: number, value: number): void {
  const bits = float16Bits(value);
  if ((bits & 0x7c00) === 0x7c00)
    throw new Error(`The number ${value} does not fit 16-bit floats: choose f32.`);
  bytes[at] = bits & 255;
  bytes[at + 1] = bits >> 8;
}

/** 1 / scale in 32-bit floats, 0 where the scale is. */
export function inverseOf(scale: number): number {
  return scale === 0 ? 0 : fround(1 / scale);
}

/** Q8_0: halves are rounded away from zero. */
export const packBytes: PackBlock = (values, from, bytes, at) => {
  let most = 0;
  for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[from + i]));
  const scale = fround(most / 127);
  const inverse = inverseOf(scale);
  setHalf(bytes, at, scale);
  for (let i = 0; i < 32; i++) {
    const scaled = fround(values[from + i] * inverse);
    bytes[at + 2 + i] = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
  }
};

//| 05-inference/a-files-of-gguf.ipynb#pack-four
/** Q4_0: the number furthest from zero (of several, the first) gets the code 0. */
export const packHalves: PackBlock = (values, from, bytes, at) => {
  let furthest = 0;
  for (let i = 0; i < 32; i++)
    if (Math.abs(values[from + i]) > Math.abs(furthest)) furthest = values[from + i];
  const scale = fround(furthest / -8);
  const inverse = inverseOf(scale);
  setHalf(bytes, at, scale);
  const code = (i: number) => Math.min(15, Math.trunc(fround(fround(values[from + i] * inverse) + 8.5)));
  for (let i = 0; i < 16; i++) bytes[at + 2 + i] = code(i) | (code(i + 16) << 4);
};

/** The code of the value of MXFP4 nearest to a number; of two equally near, the first. */
export function nearestTiny(value: number, scale: number): number {
  let [best, least] = [0, Number.POSITIVE_INFINITY];
  for (let code = 0; code < 16; code++) {
    const error = Math.abs(fround(scale * tinyFloats[code] - value));
    if (error < least) [best, least] = [code, error];
  }
  return best;
}

/** MXFP4: the logarithm is rounded to 32 bits too. */
export const packTiny: PackBlock = (values, from, bytes, at) => {
  let most = 0;
  for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[from + i]));
  bytes[at] = most > 0 ? Math.max(0, Math.floor(fround(Math.log2(most))) + 125) : 0;
  const scale = tinyScale(bytes[at]);
  for (let i = 0; i < 16; i++)
    bytes[at + 1 + i] =
      nearestTiny(values[from + i], scale) | (nearestTiny(values[from + 16 + i], scale) << 4);
};

//| 05-inference/a-files-of-gguf.ipynb#pack-numbers
/** Types that are written, as `--dtype` spells them. */
export const writableTypes = { f32: "F32", f16: "F16", q8_0: "Q8_0", q4_0: "Q4_0", mxfp4: "MXFP4" } as const;

/** Numbers (whole rows) as the bytes of a type. Throws for one that is not finite, or does not fit the type. */
export function ggufBytes(type: string, values: Float32Array): Uint8Array {
  const odd = values.find((value) => !Number.isFinite(value));
  if (odd !== undefined) throw new Error(`The number ${odd} cannot be written: the weights are damaged.`);
  if (type === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const pack: PackBlock | undefined = {
    F16: (from: Float32Array, i: number, bytes: Uint8Array, at: number) => setHalf(bytes, at, from[i]),
    Q8_0: packBytes,
    Q4_0: packHalves,
    MXFP4: packTiny,
  }[type];
  if (!pack) throw new Error(`Numbers of type ${type} are not written.`);
  const numbers = ggufTypes[type].numbers;
  const step = ggufTypes[type].bytes;
  const bytes = new Uint8Array((values.length / numbers) * step);
  for (let from = 0, at = 0; from < values.length; from += numbers, at += step) pack(values, from, bytes, at);
  return bytes;
}
