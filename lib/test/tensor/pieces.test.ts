// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { constantKernel, gradients, parameter } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { add, multiply, sum } from "../../src/tensor/operations.js";
import { pieces } from "../../src/tensor/pieces.js";
import { linear } from "../../src/tensor/products.js";
import { launchInto, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/a-the-engine-room.ipynb#random-input
await openGpu();

/** Random numbers of a shape, between 0.25 and 1.75. */
function randomPieces(...shape: number[]) {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: Float32Array.from({ length: size }, () => Math.random() * 1.5 + 0.25) };
}

//| 02-attention/a-the-engine-room.ipynb#pieces-test
/** What `work` gives on an adapter that binds no more than so many bytes at a time. */
async function withBinding<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  const { limits } = currentGpu().facts;
  const usual = limits.maxStorageBufferBindingSize;
  limits.maxStorageBufferBindingSize = bytes;
  return work().finally(() => {
    limits.maxStorageBufferBindingSize = usual;
  });
}

await test("a weight that is too large to bind is used in pieces, with the same results", async () => {
  const inputs = [[3, 32], [150, 32], [150], [3, 150]].map((shape) => randomPieces(...shape));
  const mix = randomPieces(3, 150);
  const layer = async () => {
    const [x, weight, bias, residual] = inputs.map(({ values, shape }) => parameter(tensor(values, shape)));
    const y = linear(x, weight, { bias, residual });
    const slopes = gradients(sum(multiply(y, tensor(mix.values, mix.shape))), [x, weight, bias, residual]);
    return {
      pieces: pieces(weight).length,
      arrays: await Promise.all([y, ...slopes].map((each) => each.array())),
    };
  };
  const [whole, parts] = [await layer(), await withBinding(8192, layer)];
  expect([whole.pieces, parts.pieces]).toEqual([1, 3]);
  whole.arrays.forEach((array, i) => expect(relativeError(parts.arrays[i], array)).toBeLessThan(1e-6));
});

await test("what cannot be used in pieces is refused by name", async () => {
  await withBinding(1024, async () => {
    const [a, b] = [tensor(new Float32Array(300)), tensor(new Float32Array(300))];
    expect(() => add(a, b)).toThrow(
      /kernel "add 300" needs 1.2 KiB, but one array on .* holds at most 1.0 KiB/,
    );
    expect(() => launchInto(constantKernel(1), [], [a])).toThrow(
      /An array of Kernel "constant 1" needs 1.2 KiB/,
    );
    expect(() => pieces(tensor(new Float32Array(1200), [2, 600]))).toThrow(
      "A part of the tensor f32 [2, 600] needs",
    );
  });
});
