// Extracted from chapters/02-attention/8-the-block.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/8-the-block.ipynb#multiply-high
/** The high 32 bits of the product of two unsigned 32-bit numbers. */
export function multiplyHigh(a: number, b: number): number {
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const carry = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + (middle >>> 16) + (carry >>> 16)) >>> 0;
}

//| 02-attention/8-the-block.ipynb#philox
/**
 * Philox 4×32 with 10 rounds (Salmon and others, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011): scrambles a
 * counter of four 32-bit numbers with a key of two, in place. There is no state: number n needs no number before it.
 */
export function philox(counter: Uint32Array, key0: number, key1: number): void {
  for (let round = 0; round < 10; round++) {
    const [c0, c1, c2, c3] = counter;
    counter[0] = multiplyHigh(0xcd9e8d57, c2) ^ c1 ^ key0;
    counter[1] = Math.imul(0xcd9e8d57, c2);
    counter[2] = multiplyHigh(0xd2511f53, c0) ^ c3 ^ key1;
    counter[3] = Math.imul(0xd2511f53, c0);
    key0 = (key0 + 0x9e3779b9) >>> 0;
    key1 = (key1 + 0xbb67ae85) >>> 0;
  }
}

//| 02-attention/8-the-block.ipynb#random-bits
/**
 * `count` random 32-bit numbers. Streams of one seed are independent of each other, so each use (a weight's name, a
 * step, a request) can have its own; the same seed and stream always give the same numbers.
 */
export function randomBits(seed: number, count: number, stream = 0): Uint32Array {
  const bits = new Uint32Array(Math.ceil(count / 4) * 4);
  const key1 = Math.floor(seed / 2 ** 32) >>> 0;
  for (let at = 0; at < bits.length; at += 4) {
    const counter = bits.subarray(at, at + 4);
    counter.set([at / 4, 0, stream, Math.floor(stream / 2 ** 32)]);
    philox(counter, seed >>> 0, key1);
  }
  return bits.subarray(0, count);
}

//| 02-attention/8-the-block.ipynb#normals
/** `count` random numbers from 0 up to but not including 1, each a multiple of 2⁻²⁴ (all that an f32 can hold). */
export function uniforms(seed: number, count: number, stream = 0): Float32Array {
  return Float32Array.from(randomBits(seed, count, stream), (bits) => (bits >>> 8) / 2 ** 24);
}

/** `count` random numbers with mean 0 and variance 1, normally distributed (Box and Muller, 1958). */
export function normals(seed: number, count: number, stream = 0): Float32Array {
  const bits = randomBits(seed, Math.ceil(count / 2) * 2, stream);
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((bits[i] + 1) / 2 ** 32));
    const angle = (2 * Math.PI * bits[i + 1]) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values.subarray(0, count);
}

/** A number for a name (FNV-1a, 32 bits): gives each named thing a stream of its own. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
