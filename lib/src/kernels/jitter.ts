// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits } from "./wgsl.js";

//| 03-moe/1-why-experts.ipynb#jitter-kernel
/** WGSL: 32 bits that look random, from 32 others. Source: PCG's RXS-M-XS (O'Neill, 2014), as Jarzynski and Olano use it (2020). */
export const hashFunction = `
fn hash(input: u32) -> u32 {
  let state = input * 747796405u + 2891336453u;
  let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
  return (word >> 22u) ^ word;
}`;

/** Multiplies each of `size` numbers by a factor from 1 − amount to 1 + amount, by its place and the seed [1]. */
export function jitterKernel(size: number, amount: number): Kernel {
  return kernel({
    name: `jitter of ${size}`,
    reads: ["x: array<f32>", "seed: array<u32>"],
    writes: ["y: array<f32>"],
    sizes: { amount: floatBits(amount) },
    head: hashFunction,
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  let uniform = f32(hash(thread + hash(seed[0]))) * ${2 ** -31} - 1.0; // from -1 to 1
  y[thread] = x[thread] * (1.0 + bitcast<f32>(sizes.amount) * uniform);`,
  });
}
