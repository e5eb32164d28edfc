// Extracted from chapters/02-attention/4-rows.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { type AdapterFacts, currentGpu, openGpu } from "../../src/gpu/device.js";
import { layerNormKernel, rmsNormKernel } from "../../src/kernels/norm.js";
import { softmaxBackwardKernel, softmaxKernel } from "../../src/kernels/softmax.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { sum } from "../../src/tensor/operations.js";
import {
  activate,
  clampedSwiglu,
  gatedUnit,
  gelu,
  layerNorm,
  rmsNorm,
  silu,
  softcap,
  softmax,
  swiglu,
} from "../../src/tensor/rows.js";
import { empty, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/4-rows.ipynb#softmax-row
function plainSoftmax(row: number[]): number[] {
  const most = Math.max(...row);
  const powers = row.map((x) => Math.exp(x - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

//| 02-attention/4-rows.ipynb#test-tools-code
await openGpu();

/** Applies a function of one row to each row, in 64 bits. */
function mapRows(x: ArrayLike<number>, columns: number, f: (row: number[]) => number[]): number[] {
  const values = Array.from(x);
  const rows = Array.from({ length: values.length / columns }, (_, r) =>
    values.slice(r * columns, (r + 1) * columns),
  );
  return rows.flatMap(f);
}

function randomRows(...shape: number[]) {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: Float32Array.from({ length: size }, () => Math.random() * 4 - 2) };
}

//| 02-attention/4-rows.ipynb#test-cases
/** A tensor full of what is not a number: whatever a kernel forgets to write shows. */
const poisoned = (...shape: number[]) =>
  tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(Number.NaN), shape);

const rowShapes = [
  [1, 1],
  [70, 13],
  [2, 65, 64],
];

/** The adapter as one that shares rows among lanes, and as one without subgroups. */
const adapters = (): AdapterFacts[] => [
  { ...currentGpu().facts, kind: "gpu" },
  { ...currentGpu().facts, subgroupSize: 0 },
];

//| 02-attention/4-rows.ipynb#softmax-kernel-test
await test("softmax equals the plain one, with and without subgroups, also for large numbers", async () => {
  for (const shape of rowShapes)
    for (const facts of adapters()) {
      const { values } = randomRows(...shape);
      for (let i = 0; i < values.length; i++) values[i] *= 30;
      const columns = shape.at(-1)!;
      const y = poisoned(...shape);
      launchInto(softmaxKernel(values.length / columns, columns, facts), [tensor(values)], [y]);
      expect(relativeError(await y.array(), mapRows(values, columns, plainSoftmax)), `${shape}`).toBeLessThan(
        1e-5,
      );
    }
});

//| 02-attention/4-rows.ipynb#softmax-backward-test
await test("softmax's way back equals the plain one, with and without subgroups", async () => {
  for (const facts of adapters()) {
    const [p, g] = [randomRows(9, 64), randomRows(9, 64)];
    const expected = mapRows(p.values, 64, (row) => row).map((value, i) => {
      const start = i - (i % 64);
      let sum = 0;
      for (let k = start; k < start + 64; k++) sum += p.values[k] * g.values[k];
      return 0.5 * value * (g.values[i] - sum);
    });
    const y = poisoned(9, 64);
    launchInto(softmaxBackwardKernel(9, 64, facts, 0.5), [tensor(p.values), tensor(g.values)], [y]);
    expect(relativeError(await y.array(), expected)).toBeLessThan(1e-5);
  }
});

//| 02-attention/4-rows.ipynb#plain-rms-norm
function plainRmsNorm(row: number[], weight: ArrayLike<number>, epsilon: number): number[] {
  const square = row.reduce((sum, x) => sum + x * x, 0) / row.length;
  return row.map((x, i) => (x / Math.sqrt(square + epsilon)) * weight[i]);
}

//| 02-attention/4-rows.ipynb#plain-layer-norm
function plainLayerNorm(
  row: number[],
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  epsilon: number,
): number[] {
  const mean = row.reduce((sum, x) => sum + x, 0) / row.length;
  const variance = row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / row.length;
  return row.map((x, i) => ((x - mean) / Math.sqrt(variance + epsilon)) * weight[i] + bias[i]);
}

//| 02-attention/4-rows.ipynb#norm-kernel-test
await test("norms equal the plain ones, with and without subgroups", async () => {
  for (const shape of rowShapes)
    for (const facts of adapters()) {
      const columns = shape.at(-1)!;
      const [x, weight, bias] = [randomRows(...shape), randomRows(columns), randomRows(columns)];
      const rows = x.values.length / columns;
      const inputs = [x, weight, bias].map(({ values }) => tensor(values));
      const [y, inverse, statistics] = [poisoned(...shape), poisoned(rows), poisoned(rows, 2)];
      launchInto(rmsNormKernel(rows, columns, 1e-3, facts), inputs.slice(0, 2), [y, inverse]);
      const rms = mapRows(x.values, columns, (row) => plainRmsNorm(row, weight.values, 1e-3));
      expect(relativeError(await y.array(), rms), `RMSNorm ${shape}`).toBeLessThan(1e-5);
      launchInto(layerNormKernel(rows, columns, 1e-3, facts), inputs, [y, statistics]);
      const layer = mapRows(x.values, columns, (row) =>
        plainLayerNorm(row, weight.values, bias.values, 1e-3),
      );
      expect(relativeError(await y.array(), layer), `LayerNorm ${shape}`).toBeLessThan(1e-5);
    }
});

//| 02-attention/4-rows.ipynb#norm-gradient-test
await test("gradients of softmax and the norms agree with finite differences", async () => {
  for (const shape of [
    [7, 64],
    [2, 70, 13],
  ]) {
    const [x, weight, bias] = [randomRows(...shape), randomRows(shape.at(-1)!), randomRows(shape.at(-1)!)];
    expect(await gradientError(softmax, [x]), `softmax ${shape}`).toBeLessThan(2e-2);
    expect(await gradientError((a, b) => rmsNorm(a, b, 1e-3), [x, weight]), `rmsNorm ${shape}`).toBeLessThan(
      2e-2,
    );
    const layer = await gradientError((a, b, c) => layerNorm(a, b, c, 1e-3), [x, weight, bias]);
    expect(layer, `layerNorm ${shape}`).toBeLessThan(2e-2);
  }
});

//| 02-attention/4-rows.ipynb#norm-weight-test
await test("the weight of RMSNorm gets the sum over all rows", async () => {
  const x = randomRows(333, 12);
  const weight = parameter(tensor(randomRows(12).values));
  const [gradient] = gradients(sum(rmsNorm(tensor(x.values, x.shape), weight, 1e-5)), [weight]);
  const normalized = mapRows(x.values, 12, (row) => plainRmsNorm(row, new Array(12).fill(1), 1e-5));
  const expected = new Float64Array(12);
  for (const [i, value] of normalized.entries()) expected[i % 12] += value;
  expect(relativeError(await gradient.array(), expected)).toBeLessThan(1e-5);
});

//| 02-attention/4-rows.ipynb#plain-activations
const plainActivations = {
  relu: (x: number) => Math.max(x, 0),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

//| 02-attention/4-rows.ipynb#activation-test
await test("activations equal the plain ones, also far from zero", async () => {
  const values = Float32Array.from([-1000, -90, -20, -3, -1, -0.1, 0.1, 1, 3, 20, 90, 1000, 0.5]);
  for (const [name, f] of Object.entries(plainActivations)) {
    const y = await activate(name as keyof typeof plainActivations, tensor(values)).array();
    expect(relativeError(y, Array.from(values, f)), name).toBeLessThan(1e-6);
  }
  const capped = await softcap(tensor(values), 3).array();
  expect(
    relativeError(
      capped,
      Array.from(values, (x) => 3 * Math.tanh(x / 3)),
    ),
  ).toBeLessThan(1e-6);
  const wide = await gatedUnit("gelu", tensor(values), tensor(values)).array();
  expect(
    relativeError(
      wide,
      Array.from(values, (x) => plainActivations.gelu(x) * x),
    ),
  ).toBeLessThan(1e-6);
  const gated = await swiglu(tensor(values), tensor(values)).array();
  expect(
    relativeError(
      gated,
      Array.from(values, (x) => plainActivations.silu(x) * x),
    ),
  ).toBeLessThan(1e-6);
});

//| 02-attention/4-rows.ipynb#activation-gradient-test
await test("gradients of activations agree with finite differences", async () => {
  for (const shape of [[1], [5, 52]]) {
    const [x, up] = [randomRows(...shape), randomRows(...shape)];
    expect(await gradientError(silu, [x])).toBeLessThan(2e-2);
    expect(await gradientError(gelu, [x])).toBeLessThan(2e-2);
    expect(await gradientError(swiglu, [x, up])).toBeLessThan(2e-2);
    expect(await gradientError((a, b) => gatedUnit("gelu", a, b), [x, up])).toBeLessThan(2e-2);
    expect(await gradientError((a) => softcap(a, 1.5), [x])).toBeLessThan(2e-2);
  }
  expect(
    await gradientError((x) => activate("relu", x), [{ shape: [4], values: Float32Array.of(-2, -1, 1, 2) }]),
  ).toBeLessThan(2e-2);
});

//| 02-attention/4-rows.ipynb#clamped-swiglu-test
await test("the clamped SwiGLU and its gradients equal the formula, inside of its bounds and beyond them", async () => {
  const numbers = [-1000, -20, -7.5, -6.5, -1, -0.1, 0, 0.4, 2, 6.5, 7.5, 20, 1000];
  const pairs = numbers.flatMap((gate) => numbers.map((up) => [gate, up]));
  const [gate, up] = [0, 1].map((i) => parameter(tensor(pairs.map((pair) => pair[i]))));
  const slopes = gradients(sum(clampedSwiglu(gate, up)), [gate, up]);
  const expected = pairs.map(([wide, high]) => {
    const [g, u] = [Math.min(wide, 7), Math.max(-7, Math.min(high, 7))];
    const s = 1 / (1 + Math.exp(-1.702 * g));
    return [g * s * (u + 1), wide > 7 ? 0 : (u + 1) * s * (1 + 1.702 * g * (1 - s)), u === high ? g * s : 0];
  });
  const results = [clampedSwiglu(gate, up), ...slopes];
  for (const [i, result] of results.entries())
    expect(
      relativeError(
        await result.array(),
        expected.map((row) => row[i]),
      ),
      `result ${i}`,
    ).toBeLessThan(1e-6);
  expect(() => clampedSwiglu(empty([2, 4]), empty([4, 2]))).toThrow("clampedSwiglu: gate f32 [2, 4]");
});

//| 02-attention/4-rows.ipynb#shapes-test
await test("shapes that do not fit are named", () => {
  expect(() => rmsNorm(empty([2, 4]), empty([3]), 1e-6)).toThrow(
    "rmsNorm: f32 [3] must have one element for each column of f32 [2, 4].",
  );
  expect(() => swiglu(empty([2, 4]), empty([4, 2]))).toThrow("swiglu: gate f32 [2, 4] and up f32 [4, 2]");
});
