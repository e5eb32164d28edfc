// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type TopkShape, topkBackwardKernel, topkKernel } from "../../src/kernels/topk.js";
import { relativeError } from "../../src/tensor/check.js";
import { indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/1-why-experts.ipynb#plain-softmax
/** Softmax of one row of logits. */
function plainProbabilities(logits: number[]): number[] {
  const highest = Math.max(...logits);
  const exps = logits.map((x) => Math.exp(x - highest));
  const total = exps.reduce((sum, x) => sum + x, 0);
  return exps.map((x) => x / total);
}

//| 03-moe/1-why-experts.ipynb#plain-choice
/** The places of the k highest scores, highest first; of equal scores the lower place first. */
function plainChoice(scores: number[], k: number): number[] {
  const order = scores.map((_, e) => e).sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, k);
}

//| 03-moe/1-why-experts.ipynb#plain-weights
/** The weights of the chosen: their probabilities, divided by their sum if `normalize`. */
function plainWeights(probabilities: number[], chosen: number[], normalize: boolean): number[] {
  const total = normalize ? chosen.reduce((sum, e) => sum + probabilities[e], 0) : 1;
  return chosen.map((e) => probabilities[e] / total);
}

//| 03-moe/1-why-experts.ipynb#plain-topk
await openGpu();

/** The router on arrays, in 64 bits. */
function plainTopk(logits: ArrayLike<number>, shape: TopkShape, bias?: ArrayLike<number>) {
  const { rows, experts, normalize } = shape;
  const k = shape.expertsPerToken;
  const result = { probabilities: [] as number[], weights: [] as number[], experts: [] as number[] };
  for (let row = 0; row < rows; row++) {
    const p = plainProbabilities(Array.from(logits).slice(row * experts, (row + 1) * experts));
    const chosen = plainChoice(
      p.map((value, e) => value + (bias?.[e] ?? 0)),
      k,
    );
    result.probabilities.push(...p);
    result.experts.push(...chosen);
    result.weights.push(...plainWeights(p, chosen, normalize));
  }
  return result;
}

//| 03-moe/1-why-experts.ipynb#router-shapes
/** Rows, experts, experts a token. */
const routerShapes = [
  [1, 1, 1],
  [7, 3, 3],
  [65, 8, 2],
  [130, 13, 4],
  [3, 128, 8],
];

//| 03-moe/1-why-experts.ipynb#gpu-topk
/** Runs the router's kernel into memory full of what nobody would write. */
async function gpuTopk(logits: Float32Array, shape: TopkShape, bias?: Float32Array) {
  const { rows, experts } = shape;
  const k = shape.expertsPerToken;
  const poison = (size: number) => tensor(new Float32Array(size).fill(Number.NaN));
  const [probabilities, weights] = [poison(rows * experts), poison(rows * k)];
  const chosen = indices(new Uint32Array(rows * k).fill(99999));
  const inputs = bias ? [tensor(logits), tensor(bias)] : [tensor(logits)];
  launchInto(topkKernel(shape), inputs, [probabilities, weights, chosen]);
  return {
    probabilities: await probabilities.array(),
    weights: await weights.array(),
    experts: [...(await chosen.array())],
  };
}

//| 03-moe/1-why-experts.ipynb#topk-test
await test("the router's kernel equals the router on arrays", async () => {
  for (const [rows, experts, expertsPerToken] of routerShapes)
    for (const normalize of [false, true]) {
      const shape = { rows, experts, expertsPerToken, normalize };
      const logits = Float32Array.from({ length: rows * experts }, () => Math.random() * 8 - 4);
      const [actual, expected] = [await gpuTopk(logits, shape), plainTopk(logits, shape)];
      expect(actual.experts, JSON.stringify(shape)).toEqual(expected.experts);
      expect(relativeError(actual.weights, expected.weights)).toBeLessThan(1e-6);
      expect(relativeError(actual.probabilities, expected.probabilities)).toBeLessThan(1e-6);
    }
});

//| 03-moe/1-why-experts.ipynb#topk-bias-test
await test("a bias moves the choice and not the weights", async () => {
  const shape = { rows: 33, experts: 6, expertsPerToken: 2, normalize: true, biased: true };
  const logits = Float32Array.from({ length: 33 * 6 }, () => Math.random() * 4);
  const bias = Float32Array.of(0, 5, 0, 0, -5, 0);
  const [actual, expected] = [await gpuTopk(logits, shape, bias), plainTopk(logits, shape, bias)];
  expect(actual.experts).toEqual(expected.experts);
  expect(relativeError(actual.weights, expected.weights)).toBeLessThan(1e-6);
  for (let row = 0; row < 33; row++) expect(actual.experts[row * 2]).toBe(1);
  expect(actual.experts).not.toContain(4);
});

//| 03-moe/1-why-experts.ipynb#topk-ties-test
await test("of equal scores the lower index comes first, and broken logits stay within bounds", async () => {
  const shape = { rows: 4, experts: 5, expertsPerToken: 3, normalize: true };
  const rows = [
    [2, 2, 2, 2, 2],
    [1, 3, 3, 1, 3],
    [1e38, -1e38, 0, 0, 0],
    [0, 0, 0, 0, 1e30],
  ];
  const actual = await gpuTopk(Float32Array.from(rows.flat()), shape);
  expect(actual.experts).toEqual([0, 1, 2, 1, 2, 4, 0, 1, 2, 4, 0, 1]);
  expect([...actual.weights].every(Number.isFinite)).toBe(true);
  const broken = await gpuTopk(new Float32Array(20).fill(Number.NaN), shape);
  expect(broken.experts.every((e) => e < 5)).toBe(true);
});

//| 03-moe/1-why-experts.ipynb#topk-bounds-test
await test("a token cannot visit more experts than there are", () => {
  const shape = { rows: 1, experts: 4, expertsPerToken: 5, normalize: true };
  expect(() => topkKernel(shape)).toThrow("A token cannot visit 5 of 4 experts: choose between 1 and 4.");
});

//| 03-moe/1-why-experts.ipynb#plain-topk-gradient
/** The slope of each probability, then of each logit through the whole softmax. */
function plainTopkGradient(
  forward: ReturnType<typeof plainTopk>,
  gradient: ArrayLike<number>,
  shape: TopkShape,
) {
  const { rows, experts, normalize } = shape;
  const k = shape.expertsPerToken;
  const result: number[] = [];
  for (let row = 0; row < rows; row++) {
    const p = forward.probabilities.slice(row * experts, (row + 1) * experts);
    const chosen = forward.experts.slice(row * k, (row + 1) * k);
    const total = normalize ? chosen.reduce((sum, e) => sum + p[e], 0) : 1;
    const slope = p.map(() => 0);
    for (const [j, e] of chosen.entries()) {
      slope[e] += gradient[row * k + j] / total;
      if (normalize) for (const other of chosen) slope[other] -= (gradient[row * k + j] * p[e]) / total ** 2;
    }
    const mean = p.reduce((sum, value, e) => sum + value * slope[e], 0);
    result.push(...p.map((value, e) => value * (slope[e] - mean)));
  }
  return result;
}

//| 03-moe/1-why-experts.ipynb#topk-backward-test
await test("the gradient of the logits equals the derivative written out", async () => {
  for (const [rows, experts, expertsPerToken] of routerShapes)
    for (const normalize of [false, true]) {
      const shape = { rows, experts, expertsPerToken, normalize };
      const logits = Float32Array.from({ length: rows * experts }, () => Math.random() * 4);
      const gradient = Float32Array.from({ length: rows * expertsPerToken }, () => Math.random() - 0.5);
      const forward = plainTopk(logits, shape);
      const { probabilities, weights } = forward;
      const inputs = [tensor(probabilities), tensor(weights), indices(forward.experts), tensor(gradient)];
      const result = tensor(new Float32Array(rows * experts).fill(Number.NaN));
      launchInto(topkBackwardKernel(shape), inputs, [result]);
      const expected = plainTopkGradient(forward, gradient, shape);
      expect(relativeError(await result.array(), expected), JSON.stringify(shape)).toBeLessThan(1e-5);
    }
});
