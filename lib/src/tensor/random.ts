// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/9-the-block.ipynb#multiply-high
/** The high 32 bits of the product of two unsigned 32-bit numbers. No sum here reaches 2³², so 32-bit arithmetic is exact. */
export function multiplyHigh(a: number, b: number): number {
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = (Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16)) | 0;
  const carry = (Math.imul(a0, b1) + (middle & 0xffff)) | 0;
  return (Math.imul(a1, b1) + (middle >>> 16) + (carry >>> 16)) >>> 0;
}

//| 02-attention/9-the-block.ipynb#philox
/**
 * Philox 4×32 with 10 rounds (Salmon and others, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011): scrambles the
 * counter of four 32-bit numbers at a place with a key of two. There is no state: number n needs no number before it.
 */
export function philox(counters: Uint32Array, key0: number, key1: number, at = 0): void {
  // In local 32-bit numbers, which stay in registers: this is where making a model spends its time.
  let [c0, c1, c2, c3] = [counters[at] | 0, counters[at + 1] | 0, counters[at + 2] | 0, counters[at + 3] | 0];
  for (let round = 0; round < 10; round++) {
    const next0 = multiplyHigh(0xcd9e8d57, c2) ^ c1 ^ key0;
    const next2 = multiplyHigh(0xd2511f53, c0) ^ c3 ^ key1;
    c1 = Math.imul(0xcd9e8d57, c2);
    c3 = Math.imul(0xd2511f53, c0);
    c0 = next0;
    c2 = next2;
    key0 = (key0 + 0x9e3779b9) | 0;
    key1 = (key1 + 0xbb67ae85) | 0;
  }
  counters[at] = c0;
  counters[at + 1] = c1;
  counters[at + 2] = c2;
  counters[at + 3] = c3;
}

//| 02-attention/9-the-block.ipynb#random-bits
/**
 * `count` random 32-bit numbers: those of a stream from place `from` on, a multiple of four. Streams of one seed are
 * independent of each other, so each use (a weight's name, a step, a request) can have its own; the same seed and stream
 * always give the same numbers.
 */
export function randomBits(seed: number, count: number, stream = 0, from = 0): Uint32Array {
  const bits = new Uint32Array(Math.ceil(count / 4) * 4);
  const [key0, key1] = [seed | 0, Math.floor(seed / 2 ** 32) | 0];
  const [low, high] = [stream >>> 0, Math.floor(stream / 2 ** 32) >>> 0];
  for (let at = 0; at < bits.length; at += 4) {
    bits[at] = (from + at) / 4;
    bits[at + 2] = low;
    bits[at + 3] = high;
    philox(bits, key0, key1, at);
  }
  return bits.subarray(0, count);
}

//| 02-attention/9-the-block.ipynb#normals-parts
/** A number for a name (FNV-1a, 32 bits): gives each named thing a stream of its own. */
export function streamOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

//| 02-attention/9-the-block.ipynb#normals
/** `count` random numbers from 0 up to but not including 1, each a multiple of 2⁻²⁴ (all that an f32 can hold). */
export function uniforms(seed: number, count: number, stream = 0): Float32Array {
  return Float32Array.from(randomBits(seed, count, stream), (bits) => (bits >>> 8) / 2 ** 24);
}

/**
 * `count` random numbers with mean 0 and variance 1, normally distributed (Box and Muller, 1958): those of a stream from
 * place `from` on, a multiple of four.
 */
export function normals(seed: number, count: number, stream = 0, from = 0): Float32Array {
  const bits = randomBits(seed, Math.ceil(count / 2) * 2, stream, from);
  const values = new Float32Array(bits.buffer, 0, bits.length); // in the same memory: each pair replaces its own bits
  for (let i = 0; i < bits.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((bits[i] + 1) / 2 ** 32));
    const angle = (2 * Math.PI * bits[i + 1]) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values.subarray(0, count);
}
