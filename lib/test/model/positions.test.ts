// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import type { RopeConfig } from "../../src/formats/rope.js";
import { openGpu } from "../../src/gpu/device.js";
import {
  llama3Frequency,
  ropeFrequencies,
  ropeTable,
  rotaryMagnitude,
  scaledFrequencies,
} from "../../src/model/positions.js";
import { splitHeads } from "../../src/tensor/attention.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { rope, rotaryHeads } from "../../src/tensor/rope.js";
import { rmsNorm } from "../../src/tensor/rows.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/6-positions.ipynb#plain-rope
await openGpu();

/** Turns one head as a row of complex numbers: element i + half is the imaginary part of element i. */
function plainRope(head: number[], position: number, frequencies: number[]): number[] {
  const half = head.length / 2;
  const turned = frequencies.map((f, i) => {
    const [c, s] = [Math.cos(position * f), Math.sin(position * f)];
    return [head[i] * c - head[i + half] * s, head[i + half] * c + head[i] * s];
  });
  return [...turned.map(([real]) => real), ...turned.map(([, imaginary]) => imaginary)];
}

//| 02-attention/6-positions.ipynb#llama3-test
await test("Llama 3's rescaling keeps short wavelengths and stretches long ones", () => {
  const scaling = {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContextLength: 8192,
  } as const;
  const ofWavelength = (length: number) => (2 * Math.PI) / length;
  expect(llama3Frequency(ofWavelength(2000), scaling)).toBeCloseTo(ofWavelength(2000), 12);
  expect(llama3Frequency(ofWavelength(9000), scaling)).toBeCloseTo(ofWavelength(72000), 12);
  // Half way in turns: (2.5 − 1) / (4 − 1) = 0.5 of each.
  const middle = ofWavelength(8192 / 2.5);
  expect(llama3Frequency(middle, scaling)).toBeCloseTo(0.5 * middle + 0.5 * (middle / 8), 12);
});

//| 02-attention/6-positions.ipynb#yarn-test
await test("YaRN's rescaling has the ends and the ramp that gpt-oss has", () => {
  const yarnSettings: RopeConfig = {
    theta: 150000,
    scaling: {
      type: "yarn",
      factor: 32,
      originalContextLength: 4096,
      betaFast: 32,
      betaSlow: 1,
      truncate: false,
    },
  };
  const [scaled, plain] = [scaledFrequencies(yarnSettings, 64), scaledFrequencies({ theta: 150000 }, 64)];
  // Between the pairs 8.09 and 17.40: the pairs that turn 32 times and once in 4096 tokens.
  expect(scaled.slice(0, 9)).toEqual(plain.slice(0, 9));
  expect(scaled[18]).toBeCloseTo(plain[18] / 32, 12);
  expect(scaled[12]).toBeLessThan(plain[12]);
  expect(scaled[12]).toBeGreaterThan(plain[12] / 32);
  expect(rotaryMagnitude(yarnSettings)).toBeCloseTo(1.3465735902799727, 12);
});

//| 02-attention/6-positions.ipynb#other-frequencies-test
await test("interpolation slows all, dynamic scaling the slowest most, LongRoPE each by its own factor", () => {
  const plain = ropeFrequencies(10000, 8);
  const speeds = (scaling: RopeConfig["scaling"], length: number) =>
    scaledFrequencies({ theta: 10000, scaling }, 8, length).map((frequency, i) => frequency / plain[i]);
  const near = (actual: number[], expected: number[]) =>
    actual.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 10));
  near(speeds({ type: "linear", factor: 4 }, 8), [0.25, 0.25, 0.25, 0.25]);
  const dynamic = { type: "dynamic", factor: 3, originalContextLength: 100 } as const;
  near(speeds(dynamic, 100), [1, 1, 1, 1]);
  const growth = 3 * 1.5 - 2; // at 150 tokens
  near(speeds(dynamic, 150), [1, growth ** (-1 / 3), growth ** (-2 / 3), 1 / growth]);
  const [shortFactors, longFactors] = [
    [1, 1, 2, 2],
    [1, 4, 8, 10],
  ];
  const long = {
    type: "longrope",
    factor: 16,
    originalContextLength: 256,
    shortFactors,
    longFactors,
  } as const;
  near(speeds(long, 256), [1, 1, 0.5, 0.5]);
  near(speeds(long, 257), [1, 0.25, 0.125, 0.1]);
  expect(rotaryMagnitude({ theta: 1, scaling: long })).toBeCloseTo(Math.sqrt(1.5), 10); // ln 16 is half of ln 256
  expect(rotaryMagnitude({ theta: 1, scaling: { ...long, attentionFactor: 2 } })).toBe(2);
  expect(rotaryMagnitude({ theta: 1, scaling: dynamic })).toBe(1);
});

//| 02-attention/6-positions.ipynb#test-tools
function randomHeads(...shape: number[]) {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: Float32Array.from({ length: size }, () => Math.random() * 4 - 2) };
}

const settings = { theta: 10000 };

//| 02-attention/6-positions.ipynb#rope-test
await test("rope equals the plain rotation, with positions shared and for each sequence", async () => {
  for (const headDim of [2, 6, 32])
    for (const positions of [
      [0, 3, 41, 7, 8],
      [5, 6, 7, 8, 9, 0, 99, 2, 1, 1],
    ]) {
      const x = randomHeads(2, 3, 5, headDim);
      const given = indices(positions, positions.length === 5 ? [5] : [2, 5]);
      const y = await rope(tensor(x.values, x.shape), given, ropeTable(settings, headDim, 100)).array();
      const expected = Array.from({ length: 30 }, (_, row) => {
        const head = Array.from(x.values.subarray(row * headDim, (row + 1) * headDim));
        const token = positions.length === 5 ? row % 5 : Math.floor(row / 15) * 5 + (row % 5);
        return plainRope(head, positions[token], scaledFrequencies(settings, headDim));
      }).flat();
      expect(relativeError(y, expected), `${headDim}`).toBeLessThan(1e-6);
    }
});

//| 02-attention/6-positions.ipynb#rope-partial-test
await test("where the table is narrower than a head, its first elements turn and the rest stays, and back", async () => {
  for (const [headDim, dimensions] of [
    [8, 2],
    [12, 8],
    [32, 16],
  ]) {
    const x = randomHeads(2, 3, 5, headDim);
    const [positions, partial] = [[5, 6, 7, 8, 9, 0, 99, 2, 1, 1], { theta: 10000, dimensions }];
    const table = ropeTable(partial, headDim, 100);
    const y = await rope(tensor(x.values, x.shape), indices(positions, [2, 5]), table).array();
    const expected = Array.from({ length: 30 }, (_, row) => {
      const head = Array.from(x.values.subarray(row * headDim, (row + 1) * headDim));
      const position = positions[Math.floor(row / 15) * 5 + (row % 5)];
      const turned = plainRope(head.slice(0, dimensions), position, ropeFrequencies(10000, dimensions));
      return [...turned, ...head.slice(dimensions)];
    }).flat();
    expect(relativeError(y, expected), `${dimensions} of ${headDim}`).toBeLessThan(1e-6);
    const few = ropeTable(partial, headDim, 8);
    const error = await gradientError(
      (heads) => rope(heads, indices([1, 4, 7]), few),
      [randomHeads(2, 2, 3, headDim)],
    );
    expect(error).toBeLessThan(2e-2);
  }
});

//| 02-attention/6-positions.ipynb#distance-test
await test("a dot product of turned heads depends on the distance alone", async () => {
  const [q, k] = [randomHeads(1, 1, 1, 16), randomHeads(1, 1, 1, 16)];
  const table = ropeTable(settings, 16, 64);
  const score = async (m: number, n: number) => {
    const [a, b] = [
      rope(tensor(q.values, q.shape), indices([m]), table),
      rope(tensor(k.values, k.shape), indices([n]), table),
    ];
    return sum(multiply(a, b)).value();
  };
  expect(await score(12, 7)).toBeCloseTo(await score(55, 50), 4);
  expect(Math.abs((await score(12, 7)) - (await score(12, 8)))).toBeGreaterThan(1e-4);
});

//| 02-attention/6-positions.ipynb#rope-gradient-test
await test("gradients of rope agree with finite differences", async () => {
  for (const headDim of [6, 16]) {
    const table = ropeTable(settings, headDim, 8);
    expect(
      await gradientError((x) => rope(x, indices([1, 4, 7]), table), [randomHeads(2, 2, 3, headDim)]),
    ).toBeLessThan(2e-2);
  }
});

//| 02-attention/6-positions.ipynb#interleaved-test
/** A head's even elements first, then its odd ones: what makes the interleaved layout the half-split one. */
const evensBefore = (head: number[]) => [0, 1].flatMap((odd) => head.filter((_, i) => i % 2 === odd));

await test("both layouts turn the same pairs, in any part of a head, and back", async () => {
  for (const [headDim, from, turning] of [
    [8, 0, 8],
    [12, 8, 4],
    [24, 4, 16],
    [10, 2, 6],
  ]) {
    const x = randomHeads(2, 3, 4, headDim);
    const positions = indices([5, 0, 7, 2, 1, 9, 3, 8], [2, 4]);
    const table = ropeTable(settings, turning, 10);
    const frequencies = scaledFrequencies(settings, turning);
    const places = await positions.array();
    for (const interleaved of [false, true]) {
      const y = await rope(tensor(x.values, x.shape), positions, table, { from, interleaved }).array();
      for (let row = 0; row < 24; row++) {
        const [before, after] = [x.values, y].map((all) => [
          ...all.subarray(row * headDim, (row + 1) * headDim),
        ]);
        const part = before.slice(from, from + turning);
        const place = places[Math.floor(row / 12) * 4 + (row % 4)];
        const turned = plainRope(interleaved ? evensBefore(part) : part, place, frequencies);
        const actual = after.slice(from, from + turning);
        expect(relativeError(interleaved ? evensBefore(actual) : actual, turned)).toBeLessThan(1e-6);
        expect([...after.slice(0, from), ...after.slice(from + turning)]).toEqual([
          ...before.slice(0, from),
          ...before.slice(from + turning),
        ]);
      }
      const f = (x: Tensor) => rope(x, positions, table, { from, interleaved });
      expect(await gradientError(f, [x]), `${headDim}, interleaved ${interleaved}`).toBeLessThan(2e-2);
    }
  }
  expect(() =>
    rope(tensor(new Float32Array(8), [1, 1, 1, 8]), indices([0]), ropeTable(settings, 4, 1), { from: 6 }),
  ).toThrow("want a table");
});

//| 02-attention/6-positions.ipynb#rotary-heads-test
/** The three steps one after the other: what `rotaryHeads` does in one kernel. */
const steps = (x: Tensor, weight: Tensor, positions: Tensor<"u32">, table: Tensor) =>
  rope(rmsNorm(splitHeads(x, x.shape[2] / weight.size), weight, 1e-3), positions, table);

await test("the fused kernel equals its three steps, forward and back", async () => {
  for (const [headDim, positions] of [
    [6, indices([2, 9, 4])],
    [32, indices([5, 6, 7, 1, 2, 3], [2, 3])],
  ] as const) {
    const table = ropeTable(settings, headDim, 10);
    const [x, w, mix] = [randomHeads(2, 3, headDim * 3), randomHeads(headDim), randomHeads(2, 3, 3, headDim)];
    const results = [rotaryHeads, undefined].map(async (fused) => {
      const [input, weight] = [parameter(tensor(x.values, x.shape)), parameter(tensor(w.values))];
      const y = fused
        ? rotaryHeads(input, weight, 1e-3, positions, table)
        : steps(input, weight, positions, table);
      const parts = gradients(sum(multiply(y, tensor(mix.values, y.shape))), [input, weight]);
      return Promise.all([y, ...parts].map((each) => each.array()));
    });
    const [fused, plain] = await Promise.all(results);
    for (const i of [0, 1, 2])
      expect(relativeError(fused[i], plain[i]), `${headDim}, result ${i}`).toBeLessThan(1e-5);
  }
});

//| 02-attention/6-positions.ipynb#rotary-heads-gradient-test
await test("gradients of the fused kernel agree with finite differences", async () => {
  const table = ropeTable(settings, 8, 10);
  const f = (x: Tensor, weight: Tensor) => rotaryHeads(x, weight, 1e-3, indices([3, 8]), table);
  expect(await gradientError(f, [randomHeads(2, 2, 24), randomHeads(8)])).toBeLessThan(2e-2);
});

await test("positions and tables that do not fit are named", () => {
  const x = tensor(new Float32Array(24), [1, 2, 3, 4]);
  expect(() => rope(x, indices([1]), ropeTable(settings, 4, 5))).toThrow("here [3] or [1, 3], not u32 [1]");
  expect(() => rope(x, indices([0, 1, 2]), ropeTable(settings, 6, 5))).toThrow("[length, 2, 2]");
  expect(() => ropeTable(settings, 5, 5)).toThrow("must be even");
});
