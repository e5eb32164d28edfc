// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { type Kernel, allocate, download, release, run, upload } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import {
  type MatmulShape,
  batchPlaces,
  matmulKernel,
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

async function checkVariant(build: (shape: MatmulShape) => Kernel, shapes = oddShapes) {
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  for (const [rows, columns, inner] of shapes)
    for (const [transposeA, transposeB] of [
      [false, false],
      [false, true],
      [true, false],
      [true, true],
    ]) {
      const batch = 1 + Math.floor(Math.random() * 3);
      const shape = { batch, rows, columns, inner, transposeA, transposeB, sharedB: Math.random() < 0.3 };
      const a = random(batch * rows * inner);
      const b = random((shape.sharedB ? 1 : batch) * columns * inner);
      const c = await runOn(build(shape), [a, b], batch * rows * columns);
      expect(largestError(c, plainMatmul(a, b, shape)), JSON.stringify(shape)).toBeLessThan(1e-5);
    }
}

function subgroupOf(shape: MatmulShape, rows: number, width: number): Kernel {
  const { facts } = currentGpu();
  if (facts.subgroupSize < 4) return matmulKernel(shape, facts);
  return subgroupMatmulKernel(shape, batchPlaces(shape), { lanes: facts.subgroupSize, rows, width });
}

//| 02-attention/2-matrix-products.ipynb#matmul-tests
await test("tiled products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => tiledMatmulKernel(shape, batchPlaces(shape))));

await test("subgroup products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => subgroupOf(shape, 4, 2)));

await test("taller subgroup tiles, which take longer to compile, equal it on shapes that fit nothing", async () => {
  await checkVariant(
    (shape) => subgroupOf(shape, 16, 1),
    [
      [17, 33, 9],
      [3, 5, 70],
    ],
  );
  await checkVariant(
    (shape) => subgroupOf(shape, 16, 2),
    [
      [17, 33, 9],
      [20, 72, 16],
    ],
  );
});

//| 02-attention/2-matrix-products.ipynb#units-test
await test("products on matrix units equal the definition, however the operands are stored", async () => {
  if (!hasSubgroupMatrix(currentGpu().facts)) return console.log("skipped: this adapter has no matrix units");
  const eighths = (size: number) =>
    Float32Array.from({ length: size }, () => Math.round(Math.random() * 16 - 8) / 8);
  for (const [rows, columns, inner] of [
    [1, 1, 1],
    [17, 33, 9],
    [128, 128, 64],
    [144, 272, 40],
    [130, 4, 100],
  ])
    for (const transposeA of [false, true])
      for (const transposeB of [false, true]) {
        const shape = { batch: 2, rows, columns, inner, transposeA, transposeB };
        const [a, b] = [eighths(2 * rows * inner), eighths(2 * columns * inner)];
        const c = await runOn(subgroupMatrixKernel(shape, batchPlaces(shape)), [a, b], 2 * rows * columns);
        expect(largestError(c, plainMatmul(a, b, shape)), JSON.stringify(shape)).toBeLessThan(1e-5);
      }
});
