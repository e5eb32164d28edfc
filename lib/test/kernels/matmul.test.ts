// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { allocate, download, release, run, upload } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import type { Kernel } from "../../src/gpu/kernel.js";
import {
  type MatmulShape,
  batchPlaces,
  subgroupMatmulKernel,
  tiledMatmulKernel,
} from "../../src/kernels/matmul.js";
import { hasSubgroupMatrix, subgroupMatrixKernel } from "../../src/kernels/subgroup-matrix.js";

//| 02-attention/2-matrix-products.ipynb#plain-matmul
await openGpu();

/** The definition: C[i, j] is the sum over k of A[i, k] · B[k, j], for each matrix of the batch, in 64 bits. */
function plainMatmul(a: ArrayLike<number>, b: ArrayLike<number>, shape: MatmulShape): Float64Array {
  const { batch, rows, columns, inner, transposeA, transposeB, sharedB } = shape;
  const c = new Float64Array(batch * rows * columns);
  for (let n = 0; n < batch; n++)
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++)
        for (let k = 0; k < inner; k++) {
          const x = a[n * rows * inner + (transposeA ? k * rows + i : i * inner + k)];
          const y = b[(sharedB ? 0 : n * inner * columns) + (transposeB ? j * inner + k : k * columns + j)];
          c[(n * rows + i) * columns + j] += x * y;
        }
  return c;
}

//| 02-attention/2-matrix-products.ipynb#run-on
/** Runs a kernel from arrays to one array of `size` floats that starts out as garbage. */
async function runOn(kernel: Kernel, inputs: Float32Array[], size: number): Promise<Float32Array> {
  const storages = [...inputs.map(({ byteLength }) => byteLength), size * 4].map((bytes) => allocate(bytes));
  [...inputs, new Float32Array(size).fill(Number.NaN)].forEach((values, i) => upload(storages[i], values));
  run(kernel, storages);
  const result = new Float32Array(await download(storages[inputs.length]));
  for (const storage of storages) release(storage);
  return result;
}

/** The largest difference, relative to the largest value. */
function largestError(actual: ArrayLike<number>, expected: Float64Array): number {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return expected.reduce((most, value, i) => Math.max(most, Math.abs(actual[i] - value)), 0) / largest;
}

//| 02-attention/2-matrix-products.ipynb#matmul-variants
const oddShapes = [
  [1, 1, 1],
  [17, 33, 9],
  [3, 5, 70],
  [64, 64, 64],
  [65, 4, 100],
];

/** The ways in which both operands can be stored, as they are or transposed. */
const storages = [
  [false, false],
  [true, true],
  [false, true],
  [true, false],
];

async function checkVariant(build: (shape: MatmulShape) => Kernel, shapes = oddShapes, stored = storages) {
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  for (const [rows, columns, inner] of shapes)
    for (const [transposeA, transposeB] of stored) {
      const batch = 1 + Math.floor(Math.random() * 3);
      const shape = { batch, rows, columns, inner, transposeA, transposeB, sharedB: Math.random() < 0.3 };
      const a = random(batch * rows * inner);
      const b = random((shape.sharedB ? 1 : batch) * columns * inner);
      const c = await runOn(build(shape), [a, b], batch * rows * columns);
      expect(largestError(c, plainMatmul(a, b, shape)), JSON.stringify(shape)).toBeLessThan(1e-5);
    }
}

function subgroupOf(shape: MatmulShape, rows: number, images = false): Kernel {
  const { facts } = currentGpu();
  if (facts.subgroupSize < 4) return tiledMatmulKernel(shape, batchPlaces(shape));
  return subgroupMatmulKernel(shape, batchPlaces(shape), { lanes: facts.subgroupSize, rows, images });
}

//| 02-attention/2-matrix-products.ipynb#matmul-tests
await test("tiled products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => tiledMatmulKernel(shape, batchPlaces(shape))));

await test("subgroup products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => subgroupOf(shape, 4)));

await test("subgroup products whose operands are images equal it, also where one of the two is none", async () => {
  const { subgroupSize } = currentGpu().facts;
  if (subgroupSize < 4) return console.log("skipped: this adapter has no subgroups");
  const wide = 16 * subgroupSize + 4;
  const shapes = [
    [20, wide, 12],
    [4, wide, 36],
    [33, wide, 9],
    [20, 4, 8],
  ];
  await checkVariant((shape) => subgroupOf(shape, 4, true), shapes);
  const kernels = shapes.map(([rows, columns, inner]) =>
    subgroupOf({ batch: 1, rows, columns, inner }, 4, true),
  );
  expect(kernels.map(({ textures }) => textures)).toEqual([[0, 1], [0], [1], [1]]);
});

await test("taller subgroup tiles, which take longer to compile, equal it on shapes that fit nothing", async () => {
  const uneven = [
    [17, 33, 9],
    [20, 72, 16],
  ];
  const each = storages.slice(0, 2); // both ways for each operand
  await checkVariant((shape) => subgroupOf(shape, 16), uneven, each);
  if (currentGpu().facts.subgroupSize < 8) return console.log("32 rows skipped: they need 8 lanes");
  await checkVariant((shape) => subgroupOf(shape, 32), [[40, 36, 12]], each);
  await checkVariant((shape) => subgroupOf(shape, 32, true), [[68, 100, 28]], each);
});

//| 02-attention/2-matrix-products.ipynb#epilogue-test
/** What the epilogue bias, square, residual makes of the product c, and its two inputs. */
function finishedPlain(c: Float64Array, { columns, epilogue }: MatmulShape) {
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  const [bias, residual] = [random(columns), random(c.length)];
  const expected = c.map(
    (value, i) => (value + bias[i % columns]) ** 2 + (epilogue?.beta ?? 1) * residual[i],
  );
  return { inputs: [bias, residual], expected };
}

/** A kernel of each kind that this adapter runs. */
function oneOfEach(shape: MatmulShape): Record<string, Kernel> {
  const units = shape.halves === true && hasSubgroupMatrix(currentGpu().facts);
  return {
    tiled: tiledMatmulKernel(shape, batchPlaces(shape)),
    subgroup: subgroupOf(shape, 4),
    ...(units ? { "matrix units": subgroupMatrixKernel(shape, batchPlaces(shape)) } : {}),
  };
}

await test("bias, activation and residual are applied in this order, by every kernel", async () => {
  const squared = { bias: true, activation: "y * y", residual: true };
  for (const [rows, columns, inner, beta] of [
    [17, 33, 9, -2.5],
    [20, 36, 16, undefined],
  ] as const) {
    const epilogue = { ...squared, beta };
    const shape = { batch: 2, rows, columns, inner, epilogue };
    const a = Float32Array.from({ length: 2 * rows * inner }, () => Math.random() - 0.5);
    const b = Float32Array.from({ length: 2 * inner * columns }, () => Math.random() - 0.5);
    const { inputs, expected } = finishedPlain(plainMatmul(a, b, shape), shape);
    for (const kernel of Object.values(oneOfEach(shape))) {
      const c = await runOn(kernel, [a, b, ...inputs], expected.length);
      expect(largestError(c, expected)).toBeLessThan(1e-5);
    }
  }
});

//| 02-attention/2-matrix-products.ipynb#rounded-plain
/** The 16-bit float nearest to x, as long as it is not too large for one (65,504). */
function nearestHalf(x: number): number {
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(x)))) - 10);
  const below = Math.floor(x / step);
  const rest = x / step - below;
  const up = rest > 0.5 || (rest === 0.5 && below % 2 !== 0);
  return x === 0 ? 0 : (below + (up ? 1 : 0)) * step;
}

await test("the nearest 16-bit float", () => {
  expect([1 / 3, 2049, 2051, -1e-5, 1e-9].map(nearestHalf)).toEqual([
    0.333251953125,
    2048,
    2052,
    -168 * 2 ** -24,
    0,
  ]);
});

//| 02-attention/2-matrix-products.ipynb#units-test
await test("products of 16 bits equal the definition on rounded operands, by every kernel", async () => {
  const { facts } = currentGpu();
  if (!facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  if (!hasSubgroupMatrix(facts)) console.log("without matrix units: this adapter has none");
  // Hardware may take numbers below 2^-14 for zero: none of these is so small.
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() + 0.01);
  for (const [rows, columns, inner] of [
    [17, 33, 9],
    [144, 272, 40],
  ])
    for (const [transposeA, transposeB] of storages.slice(0, 2)) {
      const shape = { batch: 2, rows, columns, inner, transposeA, transposeB, halves: true };
      const [a, b] = [random(2 * rows * inner), random(2 * columns * inner)];
      const expected = plainMatmul(a.map(nearestHalf), b.map(nearestHalf), shape);
      for (const [name, kernel] of Object.entries(oneOfEach(shape))) {
        const c = await runOn(kernel, [a, b], 2 * rows * columns);
        expect(largestError(c, expected), `${name} ${JSON.stringify(shape)}`).toBeLessThan(1e-5);
      }
    }
});
