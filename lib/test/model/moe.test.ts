// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { recordDispatches } from "../../src/gpu/commands.js";
import { type AdapterFacts, currentGpu, openGpu } from "../../src/gpu/device.js";
import { dispatchTile } from "../../src/kernels/dispatch.js";
import { bf16Format, int8Format, mxfp4Format } from "../../src/kernels/formats.js";
import { groupedMatmulKernel } from "../../src/kernels/grouped.js";
import { range } from "../../src/kernels/wgsl.js";
import {
  type MoeWeights,
  combineRows,
  dropBeyond,
  expertCapacity,
  gateRows,
  gatherRows,
  groupedLinear,
  moe,
  planDispatch,
} from "../../src/model/moe.js";
import type { RouterSettings } from "../../src/model/router.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, mixingWeights, relativeError } from "../../src/tensor/check.js";
import { add, multiply, sum } from "../../src/tensor/operations.js";
import { withPrecision } from "../../src/tensor/precision.js";
import { type Weight, pack, unpack } from "../../src/tensor/products.js";
import { type Tensor, indices, sizeOf, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/2-dispatch.ipynb#grouped-linear-test
await openGpu();

await test("the products of a plan's rows have its precision, whatever the present one is", () => {
  const { facts } = currentGpu();
  if (!facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  const choose = () => planDispatch(indices([0, 1, 1, 0, 1, 1], [3, 2]), 2);
  const [rows, weight] = [
    tensor(new Float32Array(64 * 4), [64, 4]),
    tensor(new Float32Array(2 * 8 * 4), [2, 8, 4]),
  ];
  const namesOf = (work: () => unknown) =>
    recordDispatches(() => work()).dispatches.map(({ kernel }) => kernel.name);
  const [plan, plan32] = [withPrecision("f16", choose), choose()];
  expect(namesOf(() => groupedLinear(rows, weight, plan))[0]).toContain("16 bits");
  expect(namesOf(() => withPrecision("f16", () => groupedLinear(rows, weight, plan32)))[0]).not.toContain(
    "16 bits",
  );
});

//| 03-moe/2-dispatch.ipynb#grouped-linear-test-2
await test("a product refuses tiles that are not as tall as its own", () => {
  const units = {
    ...currentGpu().facts,
    kind: "gpu",
    f16: true,
    subgroupSize: 32,
    subgroupMatrices: ["f16 f32 16x16x16"],
  } as const;
  const facts: AdapterFacts = { ...units, subgroupMatrices: [...units.subgroupMatrices] };
  const sorted = (f16: boolean) => ({
    tokens: 9,
    expertsPerToken: 2,
    experts: 3,
    tile: dispatchTile(facts, 6, f16),
  });
  const grouped = (f16: boolean) => ({ columns: 8, k: 8, transposeB: true, f16 });
  expect(groupedMatmulKernel(sorted(true), grouped(true), facts).name).toContain("on matrix units");
  expect(() => groupedMatmulKernel(sorted(false), grouped(true), facts)).toThrow(
    "Rows were sorted into tiles of 64, and this product computes 128 at a time.",
  );
  expect(() => groupedMatmulKernel(sorted(true), grouped(false), facts)).toThrow("tiles of 128");
});

//| 03-moe/2-dispatch.ipynb#grouped-linear-test-3
await test("packed experts do what the numbers do that they stand for, forward and back", async () => {
  const plan = planDispatch(indices([0, 2, 2, 0, 2, 1, 1, 2, 0, 2], [5, 2]), 3);
  const random = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  const through = async (values: Float32Array, weight: Weight) => {
    const x = parameter(tensor(values, [5, weight.shape[2]]));
    const mixed = combineRows(
      groupedLinear(gatherRows(x, plan), weight, plan),
      tensor(new Float32Array(10).fill(0.5), [5, 2]),
      plan,
    );
    const [gradient] = gradients(sum(multiply(mixed, mixed)), [x]);
    return [await mixed.array(), await gradient.array()];
  };
  for (const [format, inputs] of [
    [int8Format, 8],
    [bf16Format, 8],
    [mxfp4Format, 64],
  ] as const) {
    const packed = pack(random(3 * 12 * inputs), [3, 12, inputs], format);
    const dense = tensor(await unpack(packed), packed.shape);
    const values = random(5 * inputs);
    const [one, other] = [await through(values, packed), await through(values, dense)];
    for (const i of [0, 1]) expect(relativeError(one[i], other[i]), format.name).toBeLessThan(1e-5);
  }
});

//| 03-moe/2-dispatch.ipynb#capacity-test
await test("pairs beyond an expert's capacity get no weight and no gradient, in the order of tokens", async () => {
  for (const factor of [0.3, 1, 1.25, 4]) {
    const chosen = Array.from({ length: 50 }, (_, token) => [
      token % 7 === 0 ? 2 : 0,
      1 + (token % 4),
    ]).flat();
    const plan = planDispatch(indices(chosen, [50, 2]), 5);
    const capacity = expertCapacity(factor, plan.shape);
    expect(capacity).toBe(Math.ceil(factor * 20));
    const values = chosen.map(() => Math.random() + 0.1);
    const weights = parameter(tensor(values, [50, 2]));
    const kept = dropBeyond(capacity, weights, indices(chosen, [50, 2]), plan);
    const served = [0, 0, 0, 0, 0];
    const expected = values.map((value, pair) => (served[chosen[pair]]++ < capacity ? value : 0));
    expect([...(await kept.array())]).toEqual([...Float32Array.from(expected)]);
    const [slope] = gradients(sum(kept), [weights]);
    expect([...(await slope.array())]).toEqual(expected.map((value) => (value > 0 ? 1 : 0)));
  }
});

//| 03-moe/2-dispatch.ipynb#moe-case
await openGpu();

interface MoeCase extends RouterSettings {
  tokens: number;
  experts: number;
  /** All tokens alike: one expert gets them all. */
  isCollapsed?: boolean;
  /** The router's rows are all zero: every score is a tie. */
  isBlank?: boolean;
}

//| 03-moe/2-dispatch.ipynb#moe-cases
const moeCases: MoeCase[] = [
  { tokens: 1, experts: 1, expertsPerToken: 1, normalize: false },
  { tokens: 40, experts: 5, expertsPerToken: 1, normalize: false, isCollapsed: true },
  { tokens: 70, experts: 4, expertsPerToken: 2, normalize: true },
  { tokens: 3, experts: 9, expertsPerToken: 3, normalize: false, scoring: "sigmoid" },
  { tokens: 9, experts: 4, expertsPerToken: 2, normalize: true, isBlank: true, scale: 2.5 },
];

/** Width and inner width of the cases: one is loaded four at a time, the other is odd. */
const [moeWidth, moeInner] = [12, 7];

//| 03-moe/2-dispatch.ipynb#draw-moe
/** Random inputs of a case: x, router, gate, up, down, and the biases of all four. */
function drawMoe({ tokens, experts, isCollapsed, isBlank }: MoeCase, width = moeWidth, inner = moeInner) {
  const draw = (...shape: number[]) => {
    const values = Float32Array.from({ length: sizeOf(shape) }, () => Math.random() * 2 - 1);
    return { shape, values };
  };
  const x = draw(tokens, width);
  if (isCollapsed)
    for (const [i, value] of x.values.entries()) x.values[i] = x.values[i % width] + 0.01 * value;
  const into = [experts, inner, width];
  const router = draw(experts, width);
  if (isBlank) router.values.fill(0);
  const biases = [draw(experts), draw(experts, inner), draw(experts, inner), draw(experts, width)];
  if (isBlank) biases[0].values.fill(0);
  return [x, router, draw(...into), draw(...into), draw(experts, width, inner), ...biases];
}

//| 03-moe/2-dispatch.ipynb#to-weights
const toWeights = ([router, gate, up, down, ...biases]: Tensor[]): MoeWeights => ({
  router: { weight: router, bias: biases[0] },
  gate: { weight: gate, bias: biases[1] },
  up: { weight: up, bias: biases[2] },
  down: { weight: down, bias: biases[3] },
});

//| 03-moe/2-dispatch.ipynb#dot-product
/** The product of two rows. */
function dotProduct(
  a: ArrayLike<number>,
  i: number,
  b: ArrayLike<number>,
  j: number,
  length: number,
): number {
  let result = 0;
  for (let k = 0; k < length; k++) result += a[i + k] * b[j + k];
  return result;
}

//| 03-moe/2-dispatch.ipynb#plain-moe
/** A mixture of experts on arrays in 64 bits, token by token: no sorting, no padding. */
function plainMoe([x, router, gate, up, down, ...biases]: ArrayLike<number>[], size: MoeCase): number[] {
  const [width, inner] = [moeWidth, moeInner];
  const [routerBias, gateBias, upBias, downBias] = biases;
  return range(size.tokens).flatMap((token) => {
    const into = (matrix: ArrayLike<number>, bias: ArrayLike<number>, row: number) =>
      dotProduct(x, token * width, matrix, row * width, width) + bias[row];
    const exps = range(size.experts).map((e) => Math.exp(into(router, routerBias, e)));
    const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
    const scores = exps.map((value) => value / (size.scoring === "sigmoid" ? 1 + value : sum(exps)));
    const chosen = range(size.experts)
      .sort((a, b) => scores[b] - scores[a] || a - b)
      .slice(0, size.expertsPerToken);
    const factor = (size.scale ?? 1) / (size.normalize ? sum(chosen.map((e) => scores[e])) : 1);
    const output = range(width).map(() => 0);
    for (const e of chosen) {
      const gates = range(inner).map((i) => into(gate, gateBias, e * inner + i));
      const hidden = gates.map((g, i) => (g / (1 + Math.exp(-g))) * into(up, upBias, e * inner + i));
      for (const c of range(width)) {
        const answer = dotProduct(hidden, 0, down, (e * width + c) * inner, inner) + downBias[e * width + c];
        output[c] += scores[e] * factor * answer;
      }
    }
    return output;
  });
}

//| 03-moe/2-dispatch.ipynb#plain-slopes
/** The slope of a mixed loss of the mixture on arrays, for every element of one input. */
function plainSlopes(inputs: Float32Array[], which: number, size: MoeCase): number[] {
  const weights = mixingWeights(size.tokens * moeWidth);
  const wide = inputs.map((values) => Float64Array.from(values));
  const lossAt = (i: number, nudged: number) => {
    wide[which][i] = nudged;
    return plainMoe(wide, size).reduce((total, value, j) => total + value * weights[j], 0);
  };
  return Array.from(inputs[which], (value, i) => {
    const slope = (lossAt(i, value + 1e-5) - lossAt(i, value - 1e-5)) / 2e-5;
    wide[which][i] = value;
    return slope;
  });
}

//| 03-moe/2-dispatch.ipynb#poison-memory
/** Fills free memory with NaN, so that an element nobody writes shows. */
function poisonMemory(): void {
  for (let size = 64; size <= 16384; size += 64) tensor(new Float32Array(size).fill(Number.NaN)).free();
}

//| 03-moe/2-dispatch.ipynb#check-moe
/** Output, load and all gradients of a case, compared with the mixture on arrays. */
async function checkMoe(size: MoeCase): Promise<void> {
  const drawn = drawMoe(size);
  const arrays = drawn.map(({ values }) => values);
  poisonMemory();
  const [x, ...weights] = drawn.map(({ values, shape }) => parameter(tensor(values, shape)));
  const { output, load } = moe(x, toWeights(weights), size);
  const loss = sum(multiply(output, tensor(mixingWeights(output.size), output.shape)));
  const slopes = gradients(loss, [x, ...weights]);
  expect(relativeError(await output.array(), plainMoe(arrays, size)), JSON.stringify(size)).toBeLessThan(
    1e-5,
  );
  const pairs = (await load.array()).reduce((a, b) => a + b, 0);
  expect(pairs).toBe(size.tokens * size.expertsPerToken);
  for (const [i, slope] of slopes.entries()) {
    if (size.isBlank && (i === 1 || i === 5)) continue; // at a tie the least nudge of the router is a jump
    const [actual, expected] = [await slope.array(), plainSlopes(arrays, i, size)];
    if (expected.every((value) => value === 0)) expect(Math.max(...actual.map(Math.abs))).toBeLessThan(1e-6);
    else expect(relativeError(actual, expected), `input ${i} of ${JSON.stringify(size)}`).toBeLessThan(2e-4);
  }
}

//| 03-moe/2-dispatch.ipynb#moe-test
await test("output and every gradient equal the mixture on arrays, on this adapter", async () => {
  for (const size of moeCases) await checkMoe(size);
});

//| 03-moe/2-dispatch.ipynb#moe-other-adapter-test
await test("the same with the kernels for graphics processors", async () => {
  const { facts } = currentGpu();
  const { kind, subgroupSize } = facts;
  Object.assign(facts, { kind: "gpu", subgroupSize: 0 });
  try {
    for (const size of moeCases) await checkMoe(size);
  } finally {
    Object.assign(facts, { kind, subgroupSize });
  }
});

//| 03-moe/2-dispatch.ipynb#moe-idle-test
await test("experts without tokens get gradients of zero", async () => {
  const plan = planDispatch(indices([2, 2, 2, 2, 2], [5, 1]), 4);
  poisonMemory();
  const weight = parameter(tensor(mixingWeights(4 * 12 * 8), [4, 12, 8]));
  const rows = groupedLinear(gatherRows(tensor(mixingWeights(5 * 8), [5, 8]), plan), weight, plan);
  const [slope] = gradients(sum(combineRows(rows, tensor([1, 1, 1, 1, 1], [5, 1]), plan)), [weight]);
  const values = await slope.array();
  for (const e of [0, 1, 3])
    expect(values.slice(e * 96, e * 96 + 96).every((value) => value === 0)).toBe(true);
  expect(values.slice(192, 288).every((value) => value !== 0)).toBe(true);
});

//| 03-moe/2-dispatch.ipynb#moe-difference-test
await test("gradients agree with finite differences on the GPU", async () => {
  const size = { tokens: 24, experts: 3, expertsPerToken: 3, normalize: true };
  const layer = (x: Tensor, ...weights: Tensor[]) => moe(x, toWeights(weights), size).output;
  const inputs = drawMoe(size, 8, 12);
  expect(await gradientError(layer, inputs, { samples: 3 })).toBeLessThan(2e-2);
  const added = (residual: Tensor, x: Tensor, ...weights: Tensor[]) =>
    moe(x, toWeights(weights), size, residual).output;
  const residual = { ...inputs[0], values: inputs[0].values.map((value) => value / 2) };
  expect(await gradientError(added, [residual, ...inputs], { samples: 3 })).toBeLessThan(2e-2);
  const [x, ...weights] = inputs.map(({ values, shape }) => tensor(values, shape));
  const [alone, together] = [layer(x, ...weights), added(x, x, ...weights)];
  expect(relativeError(await together.array(), await add(alone, x).array())).toBeLessThan(1e-6);
});

//| 03-moe/2-dispatch.ipynb#moe-errors-test
await test("weights that do not fit are named", () => {
  const plan = planDispatch(indices([0, 1], [2, 1]), 2);
  const rows = gatherRows(tensor(new Float32Array(6), [2, 3]), plan);
  const weight = tensor(new Float32Array(8), [2, 2, 2]);
  expect(() => groupedLinear(rows, weight, plan)).toThrow("does not fit f32 [2, 2, 2]");
});

//| 03-moe/2-dispatch.ipynb#gate-rows-test
await test("rows are gated by the sigmoid of their scores, and gradients agree with finite differences", async () => {
  for (const width of [12, 7]) {
    const draw = (...shape: number[]) => {
      const values = Float32Array.from({ length: sizeOf(shape) }, () => Math.random() * 2 - 1);
      return { shape, values };
    };
    const drawn = [draw(2, 9, width), draw(2, 9, 1), draw(2, 9, width)];
    const [x, scores, residual] = drawn.map(({ values, shape }) => tensor(values, shape));
    const expected = drawn[0].values.map(
      (value, i) => value / (1 + Math.exp(-drawn[1].values[Math.floor(i / width)])) + drawn[2].values[i],
    );
    expect(relativeError(await gateRows(x, scores, residual).array(), expected)).toBeLessThan(1e-6);
    expect(await gradientError(gateRows, drawn)).toBeLessThan(2e-2);
  }
});
