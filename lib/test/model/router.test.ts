// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type RouterSettings, jittered, route } from "../../src/model/router.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { sum } from "../../src/tensor/operations.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/1-why-experts.ipynb#spread-logits
await openGpu();

/** Logits so far apart that a small nudge changes no choice: between the jumps the slope is all there is. */
function spreadLogits(rows: number, experts: number) {
  const place = (i: number) => ((i % experts) * 2 + Math.floor(i / experts)) % experts;
  const values = Float32Array.from(
    { length: rows * experts },
    (_, i) => 0.7 * place(i) + 0.2 * Math.random(),
  );
  return { shape: [rows, experts], values };
}

//| 03-moe/1-why-experts.ipynb#route-gradient-test
await test("gradients through a choice agree with finite differences", async () => {
  const recipes: Omit<RouterSettings, "expertsPerToken">[] = [
    { normalize: false },
    { normalize: true },
    { normalize: false, scoring: "sigmoid" },
    { normalize: true, scoring: "sigmoid", scale: 2.5 },
  ];
  for (const recipe of recipes) {
    const settings = { expertsPerToken: 2, ...recipe };
    const weights = (logits: Tensor) => route(logits, settings).weights;
    const probabilities = (logits: Tensor) => route(logits, settings).probabilities;
    for (const f of [weights, probabilities])
      expect(await gradientError(f, [spreadLogits(21, 5)], { step: 3e-2, samples: 20 })).toBeLessThan(2e-2);
  }
});

//| 03-moe/1-why-experts.ipynb#route-errors-test
await test("mistakes in a router's shapes are named", () => {
  const settings = { expertsPerToken: 2, normalize: true };
  expect(() => route(tensor([1, 2, 3]), settings)).toThrow(
    "route wants logits [tokens, experts], not f32 [3].",
  );
  const bias = tensor([1, 2]);
  expect(() => route(tensor([1, 2, 3], [1, 3]), { ...settings, bias })).toThrow(
    "one element for each of 3 experts",
  );
});

//| 03-moe/1-why-experts.ipynb#jitter-test
/** The factor of one place on arrays. */
function plainFactor(at: number, seed: number, amount: number): number {
  const hash = (input: number) => {
    const state = (Math.imul(input, 747796405) + 2891336453) >>> 0;
    const word = Math.imul(((state >>> ((state >>> 28) + 4)) ^ state) >>> 0, 277803737) >>> 0;
    return ((word >>> 22) ^ word) >>> 0;
  };
  return 1 + amount * (hash((at + hash(seed)) >>> 0) / 2 ** 31 - 1);
}

await test("jitter multiplies by the hash's factors, forward and back, evenly spread and new with each seed", async () => {
  const values = Float32Array.from({ length: 3000 }, () => Math.random() + 0.5);
  const factorsOf = async (seed: number) => {
    const x = parameter(tensor(values));
    const y = jittered(x, { amount: 0.1, seed: indices([seed]) });
    const expected = values.map((value, at) => value * plainFactor(at, seed, 0.1));
    expect(relativeError(await y.array(), expected)).toBeLessThan(1e-6);
    return gradients(sum(y), [x])[0].array();
  };
  const [one, again, other] = [await factorsOf(7), await factorsOf(7), await factorsOf(8)];
  expect(again).toEqual(one);
  expect(
    relativeError(
      one,
      values.map((_, at) => plainFactor(at, 7, 0.1)),
    ),
  ).toBeLessThan(1e-6);
  const correlation = one.reduce((total, factor, i) => total + (factor - 1) * (other[i] - 1), 0);
  expect(Math.abs(correlation / 3000)).toBeLessThan(5e-4); // 0.1² / 3 = 0.0033 if they were the same
  for (let tenth = 0; tenth < 10; tenth++) {
    const inside = one.filter((factor) => Math.floor((factor - 0.9) * 50) === tenth).length;
    expect(Math.abs(inside - 300)).toBeLessThan(90);
  }
});
