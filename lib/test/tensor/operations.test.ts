// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { memory } from "../../src/gpu/buffers.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { gradients, parameter, reshape } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { add, mean, multiply, scale, subtract, sum, unary } from "../../src/tensor/operations.js";
import { type Precision, matmulPrecision, withPrecision } from "../../src/tensor/precision.js";
import { linear, matmul, product } from "../../src/tensor/products.js";
import { type Tensor, indices, scope, tensor, view } from "../../src/tensor/tensor.js";

//| 02-attention/3-tensors-and-gradients.ipynb#operation-tests
await openGpu();

function randomInput(...shape: number[]) {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: Float32Array.from({ length: size }, () => Math.random() * 1.5 + 0.25) };
}

const sampleShapes = [[1], [3, 5], [7, 64], [2, 3, 100]];

await test("gradients of element-wise operations agree with finite differences", async () => {
  for (const shape of sampleShapes) {
    const tail = shape.slice(-1);
    const cases: [string, (...inputs: Tensor[]) => Tensor, number[][]][] = [
      ["add", add, [shape, shape]],
      ["add repeated", add, [shape, tail]],
      ["subtract", subtract, [shape, tail]],
      ["multiply", multiply, [shape, shape]],
      ["multiply repeated", multiply, [shape, tail]],
      ["scale", (x) => scale(x, -0.7), [shape]],
      ["sum", sum, [shape]],
      ["mean", mean, [shape]],
      ["reshape", (x) => reshape(x, [x.size]), [shape]],
      ["twice the same", (x) => multiply(x, x), [shape]],
    ];
    for (const [name, f, shapes] of cases)
      expect(
        await gradientError(
          f,
          shapes.map((each) => randomInput(...each)),
        ),
        `${name} ${shape}`,
      ).toBeLessThan(2e-2);
  }
});

//| 02-attention/3-tensors-and-gradients.ipynb#function-test
await test("gradients of functions of one number agree with finite differences", async () => {
  for (const name of ["negate", "exp", "log", "sqrt", "square", "tanh", "sigmoid"] as const)
    expect(
      await gradientError((x) => unary(name, x), [randomInput(5, 13)], { step: 1e-3 * 4 }),
      name,
    ).toBeLessThan(2e-2);
});

//| 02-attention/3-tensors-and-gradients.ipynb#product-test
await test("gradients of products agree with finite differences", async () => {
  for (const transposeA of [false, true])
    for (const transposeB of [false, true]) {
      const a = transposeA ? [2, 7, 5] : [2, 5, 7];
      const b = transposeB ? [2, 9, 7] : [2, 7, 9];
      const f = (x: Tensor, y: Tensor) => matmul(x, y, { transposeA, transposeB });
      expect(await gradientError(f, [randomInput(...a), randomInput(...b)])).toBeLessThan(2e-2);
    }
});

await test("a product scales itself and its residual as gemm does", async () => {
  const [a, b, residual] = [
    [5, 7],
    [7, 8],
    [5, 8],
  ].map((shape) => randomInput(...shape));
  const [x, y, z] = [a, b, residual].map(({ values, shape }) => tensor(values, shape));
  const plain = await product(x, y).array();
  const scaled = await product(x, y, {}, { residual: z, alpha: -2.5, beta: 0.3 }).array();
  const expected = plain.map((value, i) => -2.5 * value + 0.3 * residual.values[i]);
  expect(relativeError(scaled, expected)).toBeLessThan(1e-6);
});

await test("gradients of linear layers agree with finite differences, bias and residual included", async () => {
  const [x, weight, bias, residual] = [[3, 5, 17], [33, 17], [33], [3, 5, 33]].map((shape) =>
    randomInput(...shape),
  );
  expect(await gradientError((a, b) => linear(a, b), [x, weight])).toBeLessThan(2e-2);
  const whole = (a: Tensor, b: Tensor, c: Tensor, d: Tensor) => linear(a, b, { bias: c, residual: d });
  expect(await gradientError(whole, [x, weight, bias, residual])).toBeLessThan(2e-2);
});

//| 02-attention/3-tensors-and-gradients.ipynb#precision-test
await test("products of 16 bits are near those of 32, not equal, and go back in the precision they came in", async () => {
  if (!currentGpu().facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  const [a, b] = [randomInput(8, 16), randomInput(8, 16)].map(({ values, shape }) =>
    parameter(tensor(values, shape)),
  );
  const slopes = async (precision: Precision) => {
    const loss = withPrecision(precision, () => sum(multiply(linear(a, b), linear(a, b))));
    return gradients(loss, [a])[0].array();
  };
  const [singles, halves] = [await slopes("f32"), await slopes("f16")];
  const error = relativeError(halves, singles);
  expect(error).toBeLessThan(2e-3);
  expect(error).toBeGreaterThan(1e-6);
  expect(matmulPrecision.now).toBe("f32");
});

//| 02-attention/3-tensors-and-gradients.ipynb#scope-test
await test("a scope frees what it does not return", async () => {
  const before = memory.held - memory.free;
  const kept = scope(() => {
    const x = tensor([1, 2, 3]);
    return add(add(x, x), view(x, [3]));
  });
  expect([...(await kept.array())]).toEqual([3, 6, 9]);
  kept.free();
  expect(memory.held - memory.free).toBe(before);
});

await test("mistakes in shapes are named", () => {
  const [x, y] = [tensor([1, 2, 3, 4], [2, 2]), tensor([1, 2, 3])];
  expect(() => add(x, y)).toThrow(
    "add: the shape of f32 [3] must be that of f32 [2, 2] or its last dimensions.",
  );
  expect(() => matmul(x, view(y, [3, 1]))).toThrow("matmul: f32 [2, 2] and f32 [3, 1] do not fit.");
  expect(() => view(x, [3])).toThrow("Cannot see f32 [2, 2] as [3]");
  expect(() => gradients(parameter(x), [x])).toThrow("one element");
  expect(() => indices([1, 2]).write([1])).toThrow("write() wants 2 values for u32 [2], not 1.");
});
