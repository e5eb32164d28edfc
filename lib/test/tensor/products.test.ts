// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { recordDispatches } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { bf16Format, f16Format, int8Format, mxfp4Format } from "../../src/kernels/formats.js";
import { range } from "../../src/kernels/wgsl.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { PackedWeight, type Weight, linear, matmul, pack, unpack } from "../../src/tensor/products.js";
import { type Tensor, sizeOf, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/3-tensors-and-gradients.ipynb#packed-test
await openGpu();

const randomValues = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);

/** What a layer gives for x and what x's gradient is, of a sum with fixed factors. */
async function throughLayer(values: Float32Array, weight: Weight, factors: Float32Array) {
  const [outputs, inputs] = weight.shape;
  const x = parameter(tensor(values, [values.length / inputs, inputs]));
  const bias = tensor(randomValues(outputs).fill(0.5));
  const y = linear(x, weight, { bias });
  const [gradient] = gradients(sum(multiply(y, tensor(factors, y.shape))), [x]);
  return { y: await y.array(), gradient: await gradient.array() };
}

await test("packed weights do in a layer what the numbers do that they stand for, forward and back", async () => {
  for (const [rows, outputs, inputs] of [
    [1, 12, 8],
    [6, 20, 36],
    [40, 96, 64],
  ])
    for (const format of [f16Format, bf16Format, int8Format, mxfp4Format]) {
      if (inputs % (format.block ?? 4) !== 0) continue;
      const packed = pack(randomValues(outputs * inputs), [outputs, inputs], format);
      const [x, factors] = [randomValues(rows * inputs), randomValues(rows * outputs)];
      const dense = tensor(await unpack(packed), [outputs, inputs]);
      const [through, expected] = [
        await throughLayer(x, packed, factors),
        await throughLayer(x, dense, factors),
      ];
      for (const key of ["y", "gradient"] as const)
        expect(relativeError(through[key], expected[key]), `${key} ${format.name} ${rows}`).toBeLessThan(
          1e-5,
        );
    }
});

//| 02-attention/3-tensors-and-gradients.ipynb#packed-test-2
await test("a packed weight that is too large to bind is used in pieces", async () => {
  const { limits } = currentGpu().facts;
  const usual = limits.maxStorageBufferBindingSize;
  for (const format of [f16Format, mxfp4Format]) {
    const packed = pack(randomValues(200 * 64), [200, 64], format);
    const [x, factors] = [randomValues(4 * 64), randomValues(4 * 200)];
    const whole = await throughLayer(x, packed, factors);
    limits.maxStorageBufferBindingSize = 4096; // 32 rows of f16, 128 of mxfp4
    const inPieces = await throughLayer(x, packed, factors).finally(() => {
      limits.maxStorageBufferBindingSize = usual;
    });
    expect(relativeError(inPieces.y, whole.y), format.name).toBeLessThan(1e-6);
    expect(relativeError(inPieces.gradient, whole.gradient), format.name).toBeLessThan(1e-6);
  }
});

await test("a packed weight has no gradient, and says so", () => {
  const packed = pack(new Float32Array(8), [2, 4], int8Format);
  expect(() => parameter(packed as unknown as Tensor)).toThrow(
    "A weight packed as int8 [2, 4] has no gradient: train an adapter beside it.",
  );
  expect(() => pack(new Float32Array(6), [1, 6], f16Format)).toThrow("packed rows hold whole fours");
  expect(() => linear(tensor(new Float32Array(3), [1, 3]), packed)).toThrow("its weight int8 [2, 4]");
});

//| 02-attention/3-tensors-and-gradients.ipynb#adapter-test
await test("an adapter learns beside a weight that stays as it is, dense or packed", async () => {
  const values = randomValues(12 * 8);
  for (const weight of [tensor(values, [12, 8]), pack(values, [12, 8], int8Format)]) {
    const dense = weight instanceof PackedWeight ? await unpack(weight) : values;
    const layer = (x: Tensor, a: Tensor, b: Tensor, residual: Tensor) =>
      linear(x, weight, { residual, adapter: { a, b, scale: 0.5 } });
    const shapes = [
      [5, 8],
      [2, 8],
      [12, 2],
      [5, 12],
    ];
    const inputs = shapes.map((shape) => ({ shape, values: randomValues(sizeOf(shape)) }));
    expect(await gradientError(layer, inputs)).toBeLessThan(2e-2);
    const [x, a, b, residual] = inputs.map(({ values }) => values);
    const at = (m: Float32Array, width: number, i: number, j: number) => m[i * width + j];
    const expected = range(60).map((place) => {
      const [row, output] = [Math.floor(place / 12), place % 12];
      const low = range(2).map((r) =>
        range(8).reduce((total, i) => total + at(x, 8, row, i) * at(a, 8, r, i), 0),
      );
      const base = range(8).reduce((total, i) => total + at(x, 8, row, i) * at(dense, 8, output, i), 0);
      return base + 0.5 * (low[0] * at(b, 2, output, 0) + low[1] * at(b, 2, output, 1)) + residual[place];
    });
    const tensors = inputs.map(({ shape, values }) => tensor(values, shape)) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    expect(relativeError(await layer(...tensors).array(), expected)).toBeLessThan(1e-5);
  }
});

await test("a product's gradients have its own precision, whatever the present one is", async () => {
  if (!currentGpu().facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  const [a, b] = [tensor(randomValues(12), [3, 4]), tensor(randomValues(20), [4, 5])].map(parameter);
  const { dispatches } = recordDispatches(() => gradients(sum(matmul(a, b, { precision: "f16" })), [a, b]));
  const products = dispatches.map(({ kernel }) => kernel.name).filter((name) => name.startsWith("matmul"));
  expect(products.length).toBe(3);
  for (const name of products) expect(name).toContain("16 bits");
});
