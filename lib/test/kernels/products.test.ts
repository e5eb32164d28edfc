// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { float16Bits, float16Value } from "../../src/formats/float16.js";
import { allocate, download, release, run, upload } from "../../src/gpu/commands.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import type { Kernel } from "../../src/gpu/kernel.js";
import { tunerChoices } from "../../src/gpu/tuner.js";
import { bf16Format, f16Format, int4Format, int8Format, mxfp4Format } from "../../src/kernels/formats.js";
import { matvecKernel, suitsMatvec } from "../../src/kernels/matvec.js";
import {
  type MatmulShape,
  type OperandFormat,
  type PackedArray,
  batchPlaces,
  f32Format,
} from "../../src/kernels/operands.js";
import {
  matmulKernel,
  matmulQuestion,
  matmulVariants,
  tuneProducts,
  unmeasured,
} from "../../src/kernels/products.js";
import { hasSubgroupMatrix, subgroupMatrixKernel } from "../../src/kernels/subgroup-matrix.js";
import { subgroupMatmulKernel } from "../../src/kernels/subgroup.js";
import { tiledMatmulKernel } from "../../src/kernels/tiled.js";

//| 02-attention/2-matrix-products.ipynb#plain-matmul
await openGpu();

/** The definition: C[i, j] is the sum over k of A[i, k] · B[k, j], for each matrix of the batch, in 64 bits. */
function plainMatmul(a: ArrayLike<number>, b: ArrayLike<number>, shape: MatmulShape): Float64Array {
  const { batch, rows, columns, transposeA, transposeB, sharedB } = shape;
  const inner = shape.k;
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
async function runOn(kernel: Kernel, inputs: PackedArray[], size: number): Promise<Float32Array> {
  const storages = [...inputs.map(({ byteLength }) => byteLength), size * 4].map((bytes) => allocate(bytes));
  [...inputs, new Float32Array(size).fill(Number.NaN)].forEach((values, i) => upload(storages[i], values));
  run(kernel, storages);
  const result = new Float32Array(await download(storages[inputs.length]));
  for (const storage of storages) release(storage);
  return result;
}

/** What a kernel of products is given: A, B as it is stored, bias and residual, or something else in their place. */
function inputsOf(
  shape: MatmulShape,
  a: Float32Array,
  b: Float32Array,
  bias?: Float32Array,
  residual?: Float32Array,
) {
  const stored = shape.format?.pack(b, shape.transposeB ? shape.k : shape.columns) ?? [b];
  const unused = shape.format ? a : b;
  return [a, ...stored, bias ?? unused, residual ?? unused];
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

const randomArray = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);

async function checkVariant(build: (shape: MatmulShape) => Kernel, shapes = oddShapes, stored = storages) {
  for (const [rows, columns, k] of shapes)
    for (const [transposeA, transposeB] of stored) {
      const batch = 1 + Math.floor(Math.random() * 3);
      const shape = { batch, rows, columns, k, transposeA, transposeB, sharedB: Math.random() < 0.3 };
      const a = randomArray(batch * rows * k);
      const b = randomArray((shape.sharedB ? 1 : batch) * columns * k);
      const c = await runOn(build(shape), inputsOf(shape, a, b), batch * rows * columns);
      expect(largestError(c, plainMatmul(a, b, shape)), JSON.stringify(shape)).toBeLessThan(1e-5);
    }
}

function subgroupOf(shape: MatmulShape, rows: number, textures = false): Kernel {
  const { facts } = currentGpu();
  if (facts.subgroupSize < 4) return tiledMatmulKernel(shape, batchPlaces(shape));
  return subgroupMatmulKernel(shape, batchPlaces(shape), { lanes: facts.subgroupSize, rows, textures });
}

//| 02-attention/2-matrix-products.ipynb#matmul-tests
await test("tiled products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => tiledMatmulKernel(shape, batchPlaces(shape))));

await test("subgroup products equal the definition, however the operands are stored", () =>
  checkVariant((shape) => subgroupOf(shape, 4)));

await test("subgroup products whose operands are textures equal it, also where one of the two is none", async () => {
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
  const kernels = shapes.map(([rows, columns, k]) => subgroupOf({ batch: 1, rows, columns, k }, 4, true));
  expect(kernels.map(({ textures }) => textures)).toEqual([[0, 1], [0], [1], [1]]);
});

await test("taller subgroup tiles, which take longer to compile, equal it on shapes that fit nothing", async () => {
  const uneven = [
    [17, 33, 9],
    [20, 72, 16],
  ];
  const bothWays = storages.slice(0, 2); // both ways for each operand
  await checkVariant((shape) => subgroupOf(shape, 16), uneven, bothWays);
  if (currentGpu().facts.subgroupSize < 8) return console.log("32 rows skipped: they need 8 lanes");
  await checkVariant((shape) => subgroupOf(shape, 32), [[40, 36, 12]], bothWays);
  await checkVariant((shape) => subgroupOf(shape, 32, true), [[68, 100, 28]], bothWays);
});

//| 02-attention/2-matrix-products.ipynb#epilogue-test
/** A kernel of each kind that this adapter runs. */
function oneOfEach(shape: MatmulShape): Record<string, Kernel> {
  const { facts } = currentGpu();
  const places = batchPlaces(shape);
  const isFew = shape.rows <= 2 && suitsMatvec(shape, facts); // kernels for more rows are slow to compile
  return {
    tiled: tiledMatmulKernel(shape, places),
    subgroup: subgroupOf(shape, 4),
    ...(isFew ? { "matrix-vector": matvecKernel(shape, places, facts) } : {}),
    ...(isFew && !shape.format
      ? { "without subgroups": matvecKernel(shape, places, { ...facts, subgroupSize: 0 }) }
      : {}),
    ...(shape.f16 && hasSubgroupMatrix(facts) ? { "matrix units": subgroupMatrixKernel(shape, places) } : {}),
  };
}

//| 02-attention/2-matrix-products.ipynb#epilogue-test-2
await test("bias, factors and residual are applied in this order, by every kernel", async () => {
  for (const [rows, columns, k, beta] of [
    [17, 33, 9, -2.5],
    [20, 36, 16, undefined],
    [2, 10, 20, 0.5],
  ] as const)
    for (const alpha of [undefined, 0.75]) {
      const shape = {
        batch: rows > 8 ? 2 : 1,
        rows,
        columns,
        k,
        transposeB: true,
        epilogue: { bias: true, residual: true, alpha, beta },
      };
      const [a, b] = [randomArray(shape.batch * rows * k), randomArray(shape.batch * k * columns)];
      const [bias, residual] = [randomArray(columns), randomArray(shape.batch * rows * columns)];
      const expected = plainMatmul(a, b, shape).map(
        (value, i) => (alpha ?? 1) * (value + bias[i % columns]) + (beta ?? 1) * residual[i],
      );
      for (const [name, kernel] of Object.entries(oneOfEach(shape))) {
        const c = await runOn(kernel, inputsOf(shape, a, b, bias, residual), expected.length);
        expect(largestError(c, expected), `${name} ${JSON.stringify(shape)}`).toBeLessThan(1e-5);
      }
    }
});

await test("products that differ in sizes and epilogue are one compiled kernel, whose source is written when it is asked for", () => {
  const plain = { batch: 1, rows: 3, columns: 8, k: 8, transposeB: true };
  const full = {
    ...plain,
    rows: 5,
    columns: 1204,
    k: 40,
    epilogue: { bias: true, residual: true, alpha: 2, beta: 3 },
  };
  for (const [name, kernel] of Object.entries(oneOfEach(plain))) {
    if (name.startsWith("matrix-vector") || name === "without subgroups") continue; // its text has the number of rows
    const other = oneOfEach(full)[name];
    expect([other.key, other.code], name).toEqual([kernel.key, kernel.code]);
  }
});

//| 02-attention/2-matrix-products.ipynb#rounded-plain
/** The 16-bit float nearest to x. */
const nearestFloat16 = (x: number) => float16Value(float16Bits(x));

await test("the nearest 16-bit float", () => {
  expect([1 / 3, 2049, 2051, -1e-5, 1e-9, 65519, 65520, -Infinity].map(nearestFloat16)).toEqual([
    0.333251953125,
    2048,
    2052,
    -168 * 2 ** -24,
    0,
    65504,
    Infinity,
    -Infinity,
  ]);
  for (let bits = 0; bits < 0x7c00; bits += 7) expect(float16Bits(float16Value(bits))).toBe(bits);
  expect(float16Bits(Number.NaN)).toBe(0x7e00);
});

//| 02-attention/2-matrix-products.ipynb#units-test
await test("products of 16 bits equal the definition on rounded operands, by every kernel", async () => {
  const { facts } = currentGpu();
  if (!facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  if (!hasSubgroupMatrix(facts)) console.log("without matrix units: this adapter has none");
  // Hardware may take numbers below 2^-14 for zero: none of these is so small.
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() + 0.01);
  for (const [rows, columns, k] of [
    [17, 33, 9],
    [144, 272, 40],
  ])
    for (const [transposeA, transposeB] of storages.slice(0, 2)) {
      const shape = { batch: 2, rows, columns, k, transposeA, transposeB, f16: true };
      const [a, b] = [random(2 * rows * k), random(2 * columns * k)];
      const expected = plainMatmul(a.map(nearestFloat16), b.map(nearestFloat16), shape);
      for (const [name, kernel] of Object.entries(oneOfEach(shape))) {
        const c = await runOn(kernel, inputsOf(shape, a, b), 2 * rows * columns);
        expect(largestError(c, expected), `${name} ${JSON.stringify(shape)}`).toBeLessThan(1e-5);
      }
    }
});

//| 02-attention/2-matrix-products.ipynb#formats-test
await test("packed numbers are near the originals, each format as near as its bits allow", () => {
  const values = randomArray(20 * 32);
  for (const [format, error] of [
    [f32Format, 0],
    [f16Format, 2 ** -11],
    [bf16Format, 2 ** -8],
    [int8Format, 0.5 / 127],
    [mxfp4Format, 1 / 4], // 0.99 is 7.92 eighths, of which 6 remain
    [int4Format(32), 1 / 8], // the largest number of the other sign may be as large, where -8 has no counterpart
    [int4Format(32, true), 1 / 15],
  ] as const) {
    const arrays = format.pack(values, 32);
    const [one, ...scales] = format.rowBytes(32);
    expect(arrays.map(({ byteLength }) => byteLength)).toEqual([one, ...scales].map((bytes) => 20 * bytes));
    const near = format
      .unpack(arrays, 32)
      .every((value, i) => Math.abs(value - values[i]) <= error * (1 + 1e-6));
    expect(near, format.name).toBe(true);
  }
  expect([...int8Format.unpack(int8Format.pack(new Float32Array(8), 4), 4)]).toEqual([
    0, 0, 0, 0, 0, 0, 0, 0,
  ]);
});

//| 02-attention/2-matrix-products.ipynb#formats-test-shapes
const packedShapes = [
  [1, 8, 48],
  [5, 36, 20],
  [33, 132, 68],
];

/** Holds every kernel against the definition on what a packed B stands for, stored either way. */
async function checkFormat(
  format: OperandFormat,
  shapes = packedShapes,
  storages = [true, false],
): Promise<void> {
  for (const [rows, columns, k] of shapes)
    for (const transposeB of storages) {
      const shape = { batch: rows > 8 ? 2 : 1, rows, columns, k, transposeB, format };
      const [a, b] = [randomArray(shape.batch * rows * k), randomArray(shape.batch * columns * k)];
      const length = transposeB ? k : columns;
      const expected = plainMatmul(a, format.unpack(format.pack(b, length), length), shape);
      for (const [name, kernel] of Object.entries(oneOfEach(shape))) {
        const c = await runOn(kernel, inputsOf(shape, a, b), expected.length);
        expect(largestError(c, expected), `${name} ${JSON.stringify(shape)}`).toBeLessThan(1e-5);
      }
    }
}

//| 02-attention/2-matrix-products.ipynb#formats-test-2
await test("every kernel multiplies with packed weights of every format, stored either way", async () => {
  for (const format of [f16Format, bf16Format, int8Format]) await checkFormat(format);
  const inBlocks = packedShapes.map(([rows, ...sides]) => [
    rows,
    ...sides.map((n) => 32 * Math.ceil(n / 32)),
  ]);
  await checkFormat(mxfp4Format, inBlocks);
  // Of groups, one shape that every kernel takes: what loads them is the same in all.
  for (const format of [int4Format(32), int4Format(32, true)])
    await checkFormat(format, inBlocks.slice(1, 2), [true]);
});

await test("the numbers of MXFP4: all sixteen codes, halves to even, scales from one end to the other", () => {
  const steps = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
  const block = Float32Array.from({ length: 32 }, (_, i) => steps[i % 8] * (i % 16 < 8 ? 1 : -1));
  for (const power of [-120, -3, 0, 120]) {
    const scaled = block.map((value) => value * 2 ** power);
    expect(mxfp4Format.unpack(mxfp4Format.pack(scaled, 32), 32)).toEqual(scaled);
  }
  const halves = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 7, 4].map((value) =>
    mxfp4Format.pack(
      Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? value : 4)),
      32,
    ),
  ); // prettier-ignore
  expect(halves.map((arrays) => mxfp4Format.unpack(arrays, 32)[0])).toEqual([0, 1, 1, 2, 2, 4, 4, 6, 4]);
});

//| 02-attention/2-matrix-products.ipynb#formats-test-3
await test("halves are rounded from the bits of a 32-bit float as from its value", () => {
  const bits = Uint32Array.from({ length: 20000 }, () => Math.random() * 2 ** 32);
  bits.set([
    0,
    2 ** 31,
    0x7f800000,
    0xff800000,
    0x477fefff,
    0x477ff000,
    0x38800000,
    0x387fffff,
    0x3f801000,
    0x3f803000,
  ]);
  const values = new Float32Array(bits.buffer);
  const [words] = f16Format.pack(values, 4);
  const halves = new Uint16Array(words.buffer);
  values.forEach((value, i) => expect(halves[i], `${value}`).toBe(float16Bits(value)));
});

await test("a format is one object: a toy one runs through every kernel", async () => {
  await checkFormat({
    name: "signs",
    bindings: (name) => [`${name}: array<u32>`],
    loadFour: (name, at) =>
      `(vec4f((vec4u(${name}[${at} / 32u]) >> (vec4u(${at} % 32u) + vec4u(0, 1, 2, 3))) & vec4u(1u)) * 2.0 - 1.0)`,
    rowBytes: (length) => [length / 8],
    pack(values) {
      const words = new Uint32Array(Math.ceil(values.length / 32));
      for (const [i, value] of values.entries()) if (value > 0) words[i >> 5] |= 1 << (i & 31);
      return [words];
    },
    unpack: ([words], length) =>
      Float32Array.from({ length: Math.floor((words.length * 32) / length) * length }, (_, i) =>
        ((words[i >> 5] >>> (i & 31)) & 1) === 1 ? 1 : -1,
      ),
  });
});

//| 02-attention/2-matrix-products.ipynb#formats-test-4
await test("a packed operand of rows that are no whole blocks is refused", () => {
  const shape = { batch: 1, rows: 2, columns: 8, k: 10, transposeB: true };
  for (const [format, blocks] of [
    [int8Format, "fours"],
    [mxfp4Format, "blocks of 32"],
  ] as const)
    expect(() => tiledMatmulKernel({ ...shape, format }, batchPlaces(shape))).toThrow(
      `Rows of 10 numbers cannot be ${format.name}: packed rows hold whole ${blocks}.`,
    );
});

//| 02-attention/2-matrix-products.ipynb#invariant-test
/** Whether two arrays have the same bits. */
function sameBits(a: Float32Array, b: Float32Array): boolean {
  const [bitsA, bitsB] = [a, b].map(({ buffer }) => new Uint32Array(buffer));
  return bitsA.length === bitsB.length && bitsA.every((bits, i) => bits === bitsB[i]);
}

/** The kernels of inference for some rows; those that are made for graphics processors run everywhere, and are slow to compile here. */
function invariantForms(shape: MatmulShape): Record<string, Kernel> {
  const { facts } = currentGpu();
  const places = batchPlaces(shape);
  const lanes = facts.subgroupSize;
  const few = suitsMatvec(shape, facts);
  const shared = few && shape.rows === 1 && shape.format === mxfp4Format;
  return {
    tiled: tiledMatmulKernel(shape, places),
    ...(lanes < 4 ? {} : { "tile of 4": subgroupMatmulKernel(shape, places, { lanes, rows: 4 }) }),
    ...(few ? { "own columns": matvecKernel(shape, places, facts) } : {}),
    ...(shared ? { "shared columns": matvecKernel(shape, places, { ...facts, kind: "gpu" }) } : {}),
  };
}

//| 02-attention/2-matrix-products.ipynb#invariant-bits-test
await test("a row has the same bits in every kernel of inference, whatever rows are beside it, in every format", async () => {
  for (const [format, columns, k, halves] of [
    [f32Format, 37, 44, false],
    [f32Format, 36, 96, true],
    [f16Format, 36, 96, false],
    [int8Format, 36, 96, false],
    [mxfp4Format, 36, 96, false],
    [int4Format(32, true), 36, 96, false],
  ] as const) {
    const f16 = halves && currentGpu().facts.f16;
    const rows = 17 + Math.floor(Math.random() * 8);
    const shape = { batch: 1, rows, columns, k, transposeB: true, format, f16, invariant: true };
    const [a, b] = [randomArray(rows * k), randomArray(columns * k)];
    const tall = subgroupOf(shape, 16);
    const whole = await runOn(tall, inputsOf(shape, a, b), rows * columns);
    for (const count of [1, 1 + Math.floor(Math.random() * 16)]) {
      const first = Math.floor(Math.random() * (rows - count + 1));
      const part = { ...shape, rows: count };
      const inputs = inputsOf(part, a.slice(first * k, (first + count) * k), b);
      for (const [name, kernel] of Object.entries(invariantForms(part))) {
        const c = await runOn(kernel, inputs, count * columns);
        const same = sameBits(c, whole.slice(first * columns, (first + count) * columns));
        expect(same, `${name}, ${count} of ${rows} rows, ${format.name}, k = ${k}`).toBe(true);
      }
    }
  }
});

//| 02-attention/2-matrix-products.ipynb#tuner-forget-test
await openGpu();

await test("a product takes the rule of thumb's kernel until the tuner has measured it, and then the tuner's", async () => {
  const { facts } = currentGpu();
  unmeasured.clear(); // what others asked for is not measured here
  const shape = { batch: 1, rows: 5, columns: 24, k: 8 };
  const [usual, other] = Object.values(matmulVariants(shape, facts)).map((build) => build().code);
  expect(matmulKernel(shape, facts).code).toBe(usual);
  expect([...unmeasured.values()]).toContainEqual(shape);
  const [measured] = (await tuneProducts(facts)).filter(
    ({ question }) => question === matmulQuestion(shape, facts),
  );
  expect(unmeasured.size).toBe(0);
  const names = Object.keys(matmulVariants(shape, facts));
  expect(Object.keys(measured.seconds)).toEqual(names);
  expect(matmulKernel(shape, facts).code).toBe(matmulVariants(shape, facts)[measured.fastest]().code);
  if (other === undefined) return console.log("skipped: this adapter has one kernel only");
  tunerChoices[measured.question] = names[1];
  expect(matmulKernel(shape, facts).code).toBe(other);
  tunerChoices[measured.question] = "of another version";
  expect(matmulKernel(shape, facts).code).toBe(usual);
  delete tunerChoices[measured.question];
});
