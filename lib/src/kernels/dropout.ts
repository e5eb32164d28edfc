// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits, vectorAlias, vectorWidth } from "./wgsl.js";

//| 02-attention/9-the-block.ipynb#philox-wgsl
/** WGSL: Philox 4×32 with 10 rounds, as `philox` of tensor/random; `highHalf` is the upper 32 bits of a product. */
export const philoxWgsl = `
fn highHalf(a: u32, b: u32) -> u32 {
  let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
  let carry = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (carry >> 16u);
}
fn philox(counter: vec4u, seed: vec2u) -> vec4u {
  var c = counter;
  var key = seed;
  for (var round = 0u; round < 10u; round++) {
    let first = highHalf(0xcd9e8d57u, c.z) ^ c.y ^ key.x;
    let third = highHalf(0xd2511f53u, c.x) ^ c.w ^ key.y;
    c = vec4u(first, 0xcd9e8d57u * c.z, third, 0xd2511f53u * c.x);
    key += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}`;

//| 02-attention/9-the-block.ipynb#dropout-kernel
/** How a dropout kernel draws: `rate` from 0 to below 1, and the number of the place in the model. */
export interface DropoutPlace {
  rate: number;
  place: number;
}

/**
 * Sets each of `size` numbers to zero with probability `rate` and multiplies the rest by 1 / (1 − rate) (Srivastava and others,
 * "Dropout", 2014); with `added`, adds another array to that. Number i stays if word i of the stream (place, step) of the seed is at
 * least rate · 2³². Seed and step are data: state is [seed's low half, its high half, step].
 */
export function dropoutKernel(size: number, { rate, place }: DropoutPlace, added: boolean): Kernel {
  const width = vectorWidth(size);
  const kept =
    width === 4
      ? "select(V(), V(factor), bits >= V4(sizes.threshold))"
      : "select(0.0, factor, bits[k] >= sizes.threshold)";
  const line = `y[i] = x[i] * ${kept}${added ? " + residual[i]" : ""};`;
  return kernel({
    name: `dropout ${size}`,
    reads: ["x: array<V>", "state: array<u32>", ...(added ? ["residual: array<V>"] : [])],
    writes: ["y: array<V>"],
    sizes: { threshold: Math.round(rate * 2 ** 32), factor: floatBits(1 / (1 - rate)), place },
    head: `${vectorAlias(width)}\nalias V4 = vec4u;${philoxWgsl}`,
    workgroupSize: 64,
    workgroups: Math.ceil(size / 256),
    body: `
  let bits = philox(vec4u(thread, 0u, sizes.place, state[2]), vec2u(state[0], state[1]));
  let factor = bitcast<f32>(sizes.factor);
  for (var k = 0u; k < ${4 / width}u; k++) {
    let i = thread * ${4 / width}u + k;
    if (i < arrayLength(&y)) { ${line} }
  }`,
  });
}
