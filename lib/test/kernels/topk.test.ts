// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type ExpertGroups, type TopkShape, topkBackwardKernel, topkKernel } from "../../src/kernels/topk.js";
import { range } from "../../src/kernels/wgsl.js";
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

//| 03-moe/1-why-experts.ipynb#plain-groups
/** The scores with those of experts outside of the best groups made −∞: a group is as good as its two best together. */
function plainGroups(scores: number[], { count, kept }: ExpertGroups): number[] {
  const members = scores.length / count;
  const best = (group: number) =>
    scores
      .slice(group * members, (group + 1) * members)
      .sort((a, b) => b - a)
      .slice(0, 2)
      .reduce((sum, score) => sum + score, 0);
  const keptGroups = plainChoice(range(count).map(best), kept);
  return scores.map((score, e) => (keptGroups.includes(Math.floor(e / members)) ? score : -Infinity));
}

//| 03-moe/1-why-experts.ipynb#plain-topk
await openGpu();

/** The router on arrays, in 64 bits. */
function plainTopk(logits: ArrayLike<number>, shape: TopkShape, bias?: ArrayLike<number>) {
  const { rows, experts, normalize, scoring, groups } = shape;
  const k = shape.expertsPerToken;
  const factor = shape.scale ?? 1;
  const result = { probabilities: [] as number[], weights: [] as number[], experts: [] as number[] };
  for (let row = 0; row < rows; row++) {
    const own = Array.from(logits).slice(row * experts, (row + 1) * experts);
    const scores = scoring === "sigmoid" ? own.map((x) => 1 / (1 + Math.exp(-x))) : plainProbabilities(own);
    const total = scores.reduce((sum, score) => sum + score, 0);
    const forChoice = scores.map((score, e) => score + (bias?.[e] ?? 0));
    const chosen = plainChoice(groups ? plainGroups(forChoice, groups) : forChoice, k);
    result.probabilities.push(...scores.map((score) => score / total));
    result.experts.push(...chosen);
    result.weights.push(...plainWeights(scores, chosen, normalize).map((weight) => weight * factor));
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

//| 03-moe/1-why-experts.ipynb#topk-random-test
const routerRecipes: Partial<TopkShape>[] = [
  { scoring: "softmax", normalize: true },
  { scoring: "softmax", normalize: false, scale: 16, groups: { count: 3, kept: 1 } },
  { scoring: "softmax", normalize: true, biased: true },
  { scoring: "sigmoid", normalize: false, expertsPerToken: 3 },
  { scoring: "sigmoid", normalize: true, biased: true, scale: 2.5, groups: { count: 4, kept: 2 } },
];

/** A router of one recipe, of a size drawn at random: from one token to many, from few experts to more than tokens. */
function drawRouter(recipe: Partial<TopkShape>): TopkShape {
  const below = (most: number) => Math.floor(Math.random() * most);
  const { expertsPerToken = 2, groups = { count: 1, kept: 1 } } = recipe;
  const experts = groups.count * 3 * (1 + below(7));
  return { rows: 1 + below(70), experts, expertsPerToken, normalize: true, ...recipe };
}

await test("routers of random sizes and recipes equal the router on arrays, ties included", async () => {
  for (const recipe of [...routerRecipes, ...routerRecipes, ...routerRecipes, ...routerRecipes]) {
    const shape = drawRouter(recipe);
    // A few whole numbers: most rows have ties. A row of zeros is nothing but ties.
    const logits = Float32Array.from({ length: shape.rows * shape.experts }, () =>
      Math.floor(Math.random() * 4),
    );
    logits.fill(0, 0, shape.experts);
    const bias = shape.biased ? Float32Array.from({ length: shape.experts }, Math.random) : undefined;
    const [actual, expected] = [await gpuTopk(logits, shape, bias), plainTopk(logits, shape, bias)];
    expect(actual.experts, JSON.stringify(shape)).toEqual(expected.experts);
    expect(relativeError(actual.weights, expected.weights), JSON.stringify(shape)).toBeLessThan(1e-6);
    expect(relativeError(actual.probabilities, expected.probabilities)).toBeLessThan(1e-6);
  }
});

await test("choosing logits and then softmax over the chosen is softmax, choosing and dividing", async () => {
  const shape = { rows: 65, experts: 8, expertsPerToken: 2, normalize: true };
  const logits = Float32Array.from({ length: 65 * 8 }, () => Math.random() * 8 - 4);
  const actual = await gpuTopk(logits, shape);
  for (let row = 0; row < 65; row++) {
    const own = [...logits.subarray(row * 8, row * 8 + 8)];
    const chosen = plainChoice(own, 2);
    expect(actual.experts.slice(row * 2, row * 2 + 2)).toEqual(chosen);
    const weights = plainProbabilities(chosen.map((e) => own[e]));
    expect(relativeError(actual.weights.slice(row * 2, row * 2 + 2), weights)).toBeLessThan(1e-6);
  }
});

//| 03-moe/1-why-experts.ipynb#topk-bias-test
await test("a bias moves the choice and not the weights", async () => {
  for (const scoring of ["softmax", "sigmoid"] as const) {
    const shape = { rows: 33, experts: 6, expertsPerToken: 2, normalize: true, biased: true, scoring };
    const logits = Float32Array.from({ length: 33 * 6 }, () => Math.random() * 4);
    const bias = Float32Array.of(0, 5, 0, 0, -5, 0);
    const [actual, expected] = [await gpuTopk(logits, shape, bias), plainTopk(logits, shape, bias)];
    expect(actual.experts).toEqual(expected.experts);
    expect(relativeError(actual.weights, expected.weights)).toBeLessThan(1e-6);
    for (let row = 0; row < 33; row++) expect(actual.experts[row * 2]).toBe(1);
    expect(actual.experts).not.toContain(4);
  }
});

await test("an expert with a bias of −∞ is chosen last, lower index first, and never twice", async () => {
  const logits = Float32Array.from({ length: 8 * 6 }, () => Math.random() * 4);
  const shape = { rows: 8, experts: 6, expertsPerToken: 3, normalize: true, biased: true };
  for (const scoring of ["softmax", "sigmoid"] as const)
    for (const groups of [undefined, { count: 2, kept: 2 }]) {
      const [never, two] = [
        [0, 0, -Infinity, 0, 0, 0],
        [0, -Infinity, 0, -Infinity, -Infinity, -Infinity],
      ];
      for (const bias of [never, two].map((values) => Float32Array.from(values))) {
        const router = { ...shape, scoring, groups };
        const [actual, expected] = [await gpuTopk(logits, router, bias), plainTopk(logits, router, bias)];
        expect(actual.experts, JSON.stringify(router)).toEqual(expected.experts);
        expect(relativeError(actual.weights, expected.weights)).toBeLessThan(1e-6);
      }
    }
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
await test("a token cannot visit more experts than there are, nor keep groups that are not there", () => {
  const shape = { rows: 1, experts: 4, expertsPerToken: 5, normalize: true };
  expect(() => topkKernel(shape)).toThrow("A token cannot visit 5 of 4 experts: choose between 1 and 4.");
  const grouped = (count: number, kept: number, k = 1) =>
    topkKernel({ ...shape, expertsPerToken: k, groups: { count, kept } });
  expect(() => grouped(3, 1)).toThrow("4 experts cannot be put into 3 groups of equal size.");
  expect(() => grouped(2, 3)).toThrow("A token cannot keep 3 of 2 groups: choose between 1 and 2.");
  expect(() => grouped(2, 1, 3)).toThrow(
    "A token cannot visit 3 of 2 experts in 1 of 2 groups: choose between 1 and 2.",
  );
});

//| 03-moe/1-why-experts.ipynb#plain-topk-gradient
/** The slope of each score, then of each logit: through the whole softmax, or through its own sigmoid. */
function plainTopkGradient(
  logits: ArrayLike<number>,
  forward: ReturnType<typeof plainTopk>,
  gradient: ArrayLike<number>,
  shape: TopkShape,
) {
  const { rows, experts, normalize, scoring } = shape;
  const k = shape.expertsPerToken;
  const factor = shape.scale ?? 1;
  const result: number[] = [];
  for (let row = 0; row < rows; row++) {
    const own = Array.from(logits).slice(row * experts, (row + 1) * experts);
    const sigmoids = own.map((x) => 1 / (1 + Math.exp(-x)));
    const p = scoring === "sigmoid" ? sigmoids : plainProbabilities(own);
    const chosen = forward.experts.slice(row * k, (row + 1) * k);
    const total = normalize ? chosen.reduce((sum, e) => sum + p[e], 0) : 1;
    const slope = p.map(() => 0);
    for (const [j, e] of chosen.entries()) {
      const g = gradient[row * k + j] * factor;
      slope[e] += g / total;
      if (normalize) for (const other of chosen) slope[other] -= (g * p[e]) / total ** 2;
    }
    const mean = p.reduce((sum, value, e) => sum + value * slope[e], 0);
    if (scoring === "sigmoid") result.push(...p.map((value, e) => value * (1 - value) * slope[e]));
    else result.push(...p.map((value, e) => value * (slope[e] - mean)));
  }
  return result;
}

//| 03-moe/1-why-experts.ipynb#topk-backward-test
await test("the gradient of the logits equals the derivative written out", async () => {
  for (const [rows, experts, expertsPerToken] of routerShapes)
    for (const normalize of [false, true])
      for (const scoring of ["softmax", "sigmoid"] as const) {
        const scale = scoring === "sigmoid" ? 2.5 : 1.5;
        const shape = { rows, experts, expertsPerToken, normalize, scoring, scale };
        const logits = Float32Array.from({ length: rows * experts }, () => Math.random() * 4);
        const gradient = Float32Array.from({ length: rows * expertsPerToken }, () => Math.random() - 0.5);
        const forward = plainTopk(logits, shape);
        const { probabilities, weights } = forward;
        const given = tensor(scoring === "sigmoid" ? logits : probabilities);
        const inputs = [given, tensor(weights), indices(forward.experts), tensor(gradient)];
        const result = tensor(new Float32Array(rows * experts).fill(Number.NaN));
        launchInto(topkBackwardKernel(shape), inputs, [result]);
        const expected = plainTopkGradient(logits, forward, gradient, shape);
        if (expected.every((value) => Math.abs(value) < 1e-12))
          expect(Math.max(...(await result.array()).map(Math.abs)), JSON.stringify(shape)).toBeLessThan(1e-6);
        else expect(relativeError(await result.array(), expected), JSON.stringify(shape)).toBeLessThan(1e-5);
      }
});
