// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { bf16Format, f16Format, int8Format, mxfp4Format } from "../../src/kernels/formats.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { embed, tableGradient } from "../../src/tensor/embedding.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { pack, unpack } from "../../src/tensor/products.js";
import { empty, indices, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/9-the-block.ipynb#embed-test-tools
await openGpu();

const randomArray = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);

const randomIds = (count: number, vocabulary: number) =>
  Uint32Array.from({ length: count }, () => Math.random() * vocabulary);

//| 02-attention/9-the-block.ipynb#embed-test
await test("each id gets its row, and each row the sum of the gradients of its places", async () => {
  for (const [count, vocabulary, columns] of [
    [1, 1, 1],
    [150, 7, 36],
    [130, 1000, 5],
  ]) {
    const [ids, values, mix] = [
      randomIds(count, vocabulary),
      randomArray(vocabulary * columns),
      randomArray(count * columns),
    ];
    const table = parameter(tensor(values, [vocabulary, columns]));
    const y = embed(indices(ids), table);
    const expected = Array.from(ids, (id) => [...values.subarray(id * columns, (id + 1) * columns)]).flat();
    expect([...(await y.array())]).toEqual(expected);
    const [gradient] = gradients(sum(multiply(y, tensor(mix, y.shape))), [table]);
    const sums = new Float64Array(values.length);
    ids.forEach((id, n) => {
      for (let i = 0; i < columns; i++) sums[id * columns + i] += mix[n * columns + i];
    });
    expect(relativeError(await gradient.array(), sums), `${count} of ${vocabulary}`).toBeLessThan(1e-6);
  }
});

await test("a packed table gives the rows that it stands for, whole or in pieces", async () => {
  const ids = randomIds(15, 90);
  for (const format of [f16Format, bf16Format, int8Format, mxfp4Format]) {
    const packed = pack(randomArray(90 * 64), [90, 64], format);
    const rows = tensor(await unpack(packed), [90, 64]);
    const expected = await embed(indices(ids), rows).array();
    expect(await embed(indices(ids), packed).array(), format.name).toEqual(expected);
    const { limits } = currentGpu().facts;
    const usual = limits.maxStorageBufferBindingSize;
    limits.maxStorageBufferBindingSize = 4096; // 32 rows of f16, 64 of int8, 128 of mxfp4
    const inPieces = embed(indices(ids), packed);
    limits.maxStorageBufferBindingSize = usual;
    expect(await inPieces.array(), `${format.name} in pieces`).toEqual(expected);
  }
});

//| 02-attention/9-the-block.ipynb#embed-bits-test
await test("the gradient is written whole, and the same bits every time", async () => {
  const ids = indices(randomIds(200, 50), [4, 50]);
  const g = tensor(randomArray(200 * 8), [4, 50, 8]);
  tensor(new Float32Array(60 * 8).fill(Number.NaN)).free(); // its memory is used again, poisoned
  const first = await tableGradient(ids, g, [60, 8]).array();
  expect(first.some(Number.isNaN)).toBe(false);
  expect(await tableGradient(ids, g, [60, 8]).array()).toEqual(first);
  const [id] = await ids.array();
  const fixed = first.map((value, i) => (Math.floor(i / 8) === id ? 0 : value));
  expect(fixed).not.toEqual(first);
  expect(await tableGradient(ids, g, [60, 8], id).array()).toEqual(fixed);
});

await test("a table that is too large to bind is used in pieces", async () => {
  const { limits } = currentGpu().facts;
  const usual = limits.maxStorageBufferBindingSize;
  limits.maxStorageBufferBindingSize = 4096; // 32 rows
  const [table, ids] = [tensor(randomArray(100 * 32), [100, 32]), randomIds(30, 100)];
  const [y, g] = [embed(indices(ids), table), randomArray(30 * 32)];
  const gradient = tableGradient(indices(ids), tensor(g, [30, 32]), [100, 32]);
  limits.maxStorageBufferBindingSize = usual;
  expect(await y.array()).toEqual(await embed(indices(ids), table).array());
  expect(await gradient.array()).toEqual(
    await tableGradient(indices(ids), tensor(g, [30, 32]), [100, 32]).array(),
  );
});

await test("gradients agree with finite differences", async () => {
  const ids = indices([3, 0, 3, 1, 3, 0], [2, 3]);
  expect(
    await gradientError((table) => embed(ids, table), [{ shape: [5, 4], values: randomArray(20) }]),
  ).toBeLessThan(2e-2);
  expect(() => embed(ids, empty([4]))).toThrow("embed wants a table [vocabulary, columns], not f32 [4].");
});
