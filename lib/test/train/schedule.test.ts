// Extracted from chapters/04-training/4-schedules-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { ignoredTarget } from "../../src/kernels/cross-entropy.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { crossEntropy } from "../../src/tensor/cross-entropy.js";
import { linear } from "../../src/tensor/products.js";
import { normals } from "../../src/tensor/random.js";
import { indices, tensor, zeros } from "../../src/tensor/tensor.js";
import { accumulateInto } from "../../src/train/optimizers.js";
import { type Schedule, checkSchedule, learningRate } from "../../src/train/schedule.js";

//| 04-training/4-schedules-and-batches.ipynb#ends-test
const testSchedule: Schedule = { kind: "cosine", warmup: 10, steps: 101, peak: 1e-3, floor: 1e-4 };

await test("a schedule is exact at its ends", () => {
  for (const kind of ["cosine", "wsd"] as const) {
    const rate = (step: number) => learningRate({ ...testSchedule, kind }, step);
    expect(rate(0)).toBe(1e-3 / 11);
    expect(rate(10)).toBe(1e-3);
    expect(rate(100)).toBe(1e-4);
    expect(rate(1000)).toBe(1e-4);
  }
  expect(learningRate({ ...testSchedule, kind: "constant" }, 100)).toBe(1e-3);
});

//| 04-training/4-schedules-and-batches.ipynb#between-test
await test("between the ends: half way down at half time, level and then down", () => {
  expect(learningRate(testSchedule, 55)).toBeCloseTo((1e-3 + 1e-4) / 2, 12);
  const wsd: Schedule = { ...testSchedule, kind: "wsd", decaySteps: 16 };
  expect(learningRate(wsd, 84)).toBe(1e-3);
  expect(learningRate(wsd, 88)).toBeCloseTo(1e-4 + 9e-4 * 0.5, 12);
  const rates = Array.from({ length: 101 }, (_, step) => learningRate(testSchedule, step));
  expect(rates.slice(11).every((rate, i) => rate < rates[i + 10])).toBe(true);
});

await test("runs of one step and runs without a warm-up", () => {
  expect(learningRate({ ...testSchedule, warmup: 0, steps: 1 }, 0)).toBe(1e-4);
  expect(learningRate({ ...testSchedule, warmup: 0 }, 0)).toBe(1e-3);
  expect(learningRate({ ...testSchedule, warmup: 100 }, 100)).toBe(1e-4);
});

await test("a schedule that makes no sense is named", () => {
  const wrong = (part: Partial<Schedule>) => () => checkSchedule({ ...testSchedule, ...part });
  expect(wrong({ warmup: 1.5 })).toThrow("warmup must be a whole number of steps, not 1.5");
  expect(wrong({ kind: "linear" as "cosine" })).toThrow("cosine, wsd or constant, not linear");
  expect(wrong({ warmup: 200 })).toThrow("must fit into its 101 steps");
  expect(wrong({ floor: 1 })).toThrow("floor 1 and peak 0.001");
  expect(wrong({})).not.toThrow();
});

//| 04-training/4-schedules-and-batches.ipynb#accumulate-test
await openGpu();

/** How far the accumulated gradient of 24 random rows, `part` at a time, is from that of all of them. */
async function accumulationGap(part: number, skipped: number): Promise<number> {
  const [x, w] = [normals(Math.random() * 1e9, 24 * 10), normals(Math.random() * 1e9, 33 * 10)];
  const targets = Uint32Array.from({ length: 24 }, (_, i) =>
    i < skipped ? ignoredTarget : Math.floor(Math.random() * 33),
  );
  const weight = parameter(tensor(w, [33, 10]));
  const lossOf = (from: number, to: number) =>
    crossEntropy(
      linear(tensor(x.subarray(from * 10, to * 10), [to - from, 10]), weight),
      indices(targets.subarray(from, to)),
    );
  const [whole] = gradients(lossOf(0, 24), [weight]);
  const sum = zeros([33, 10]);
  for (let from = 0; from < 24; from += part) {
    const counts = targets.subarray(from, from + part).filter((target) => target !== ignoredTarget).length;
    accumulateInto([sum], gradients(lossOf(from, from + part), [weight], counts / (24 - skipped)));
  }
  return relativeError(await sum.array(), await whole.array());
}

await test("micro-batches add up to the gradient of the big batch, within a millionth", async () => {
  expect(await accumulationGap(6, 0)).toBeLessThan(1e-6);
  expect(await accumulationGap(1, 0)).toBeLessThan(1e-6);
  expect(await accumulationGap(12, 5)).toBeLessThan(1e-6);
});
