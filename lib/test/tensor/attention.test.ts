// Extracted from chapters/02-attention/5-attention.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { type AdapterFacts, currentGpu, openGpu } from "../../src/gpu/device.js";
import { causalSoftmaxKernel } from "../../src/kernels/attention.js";
import { attention, causalSoftmax, mergeHeads, splitHeads } from "../../src/tensor/attention.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { empty, indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/5-attention.ipynb#plain-visible-softmax
await openGpu();

function randomHeads(...shape: number[]) {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: Float32Array.from({ length: size }, () => Math.random() * 4 - 2) };
}

/** Softmax over the first `visible` of a row of scores, in 64 bits; the others are 0. */
function plainVisibleSoftmax(scores: number[], visible: number): number[] {
  const powers = scores.map((score, j) =>
    j < visible ? Math.exp(score - Math.max(...scores.slice(0, visible))) : 0,
  );
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

const count = (size: number) => Array.from({ length: size }, (_, i) => i);

//| 02-attention/5-attention.ipynb#split-heads-test
await test("splitting heads moves each number to its head, and merging brings it back", async () => {
  const x = randomHeads(2, 3, 20);
  const input = tensor(x.values, x.shape);
  const split = await splitHeads(input, 5).array();
  for (let at = 0; at < split.length; at++) {
    const [i, t, h, b] = [at % 4, Math.floor(at / 4) % 3, Math.floor(at / 12) % 5, Math.floor(at / 60)];
    expect(split[at]).toBe(x.values[(b * 3 + t) * 20 + h * 4 + i]);
  }
  expect(await mergeHeads(splitHeads(input, 5)).array()).toEqual(x.values);
});

//| 02-attention/5-attention.ipynb#causal-softmax-test
await test("causal softmax writes every element, with and without subgroups", async () => {
  for (const subgroupSize of [currentGpu().facts.subgroupSize, 0])
    for (const length of [5, 68]) {
      const scores = randomHeads(2, 3, length, length);
      const shape = { batch: 2, heads: 3, tokens: length, length, positionsPerSequence: false };
      const y = tensor(new Float32Array(scores.values.length).fill(Number.NaN), scores.shape);
      const facts: AdapterFacts = { ...currentGpu().facts, kind: "gpu", subgroupSize };
      const inputs = [tensor(scores.values), indices(count(length))];
      launchInto(causalSoftmaxKernel(shape, 0.3, facts), inputs, [y]);
      const rows = count(6 * length).map((r) =>
        Array.from(scores.values.subarray(r * length, (r + 1) * length), (x) => 0.3 * x),
      );
      const expected = rows.flatMap((row, r) => plainVisibleSoftmax(row, (r % length) + 1));
      expect(relativeError(await y.array(), expected)).toBeLessThan(1e-5);
    }
});

//| 02-attention/5-attention.ipynb#plain-heads
interface PlainHeads {
  shape: number[];
  values: ArrayLike<number>;
}

//| 02-attention/5-attention.ipynb#plain-attention
/** Attention by its definition, one number at a time. */
function plainAttention(
  q: PlainHeads,
  k: PlainHeads,
  v: PlainHeads,
  position: (b: number, t: number) => number,
): number[] {
  const [batch, heads, tokens, headDim] = q.shape;
  const [, kvHeads, length] = k.shape;
  const result: number[] = [];
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < tokens; t++) {
        const query = ((b * heads + h) * tokens + t) * headDim;
        const key = (j: number) => ((b * kvHeads + Math.floor(h / (heads / kvHeads))) * length + j) * headDim;
        const scores = Array.from({ length }, (_, j) => {
          let dot = 0;
          for (let i = 0; i < headDim; i++) dot += q.values[query + i] * k.values[key(j) + i];
          return dot / Math.sqrt(headDim);
        });
        const p = plainVisibleSoftmax(scores, position(b, t) + 1);
        for (let i = 0; i < headDim; i++)
          result.push(p.reduce((sum, share, j) => sum + share * v.values[key(j) + i], 0));
      }
  return result;
}

//| 02-attention/5-attention.ipynb#attention-test
await test("attention equals its definition: grouped queries, odd sizes, one token", async () => {
  for (const [batch, heads, kvHeads, tokens, headDim] of [
    [1, 1, 1, 1, 1],
    [2, 4, 2, 37, 8],
  ]) {
    const q = randomHeads(batch, heads, tokens, headDim);
    const [k, v] = [
      randomHeads(batch, kvHeads, tokens, headDim),
      randomHeads(batch, kvHeads, tokens, headDim),
    ];
    const [a, b, c] = [q, k, v].map(({ values, shape }) => tensor(values, shape));
    const result = await attention(a, b, c, indices(count(tokens))).array();
    expect(
      relativeError(
        result,
        plainAttention(q, k, v, (_, t) => t),
      ),
      `${q.shape}`,
    ).toBeLessThan(1e-5);
  }
});

//| 02-attention/5-attention.ipynb#cache-test
await test("a query sees the keys up to its position in a longer cache, each sequence its own", async () => {
  const [q, k, v] = [randomHeads(2, 4, 3, 8), randomHeads(2, 2, 10, 8), randomHeads(2, 2, 10, 8)];
  const positions = [4, 5, 6, 0, 1, 9];
  const [a, b, c] = [q, k, v].map(({ values, shape }) => tensor(values, shape));
  const result = await attention(a, b, c, indices(positions, [2, 3])).array();
  const expected = plainAttention(q, k, v, (sequence, t) => positions[sequence * 3 + t]);
  expect(relativeError(result, expected)).toBeLessThan(1e-5);
});

//| 02-attention/5-attention.ipynb#gradient-test
await test("gradients of attention and of the head layouts agree with finite differences", async () => {
  const inputs = [randomHeads(2, 4, 6, 8), randomHeads(2, 2, 6, 8), randomHeads(2, 2, 6, 8)];
  expect(await gradientError((q, k, v) => attention(q, k, v, indices(count(6))), inputs)).toBeLessThan(2e-2);
  expect(await gradientError((x) => splitHeads(x, 3), [randomHeads(2, 3, 15)])).toBeLessThan(2e-2);
  expect(await gradientError(mergeHeads, [randomHeads(2, 3, 5, 8)])).toBeLessThan(2e-2);
});

//| 02-attention/5-attention.ipynb#shapes-test
await test("shapes that do not fit are named", () => {
  const [q, k] = [empty([1, 4, 3, 8]), empty([1, 3, 3, 8])];
  expect(() => attention(q, k, k, indices([0, 1, 2]))).toThrow(
    "queries f32 [1, 4, 3, 8], keys f32 [1, 3, 3, 8]",
  );
  expect(() => causalSoftmax(empty([1, 1, 2, 2]), indices([0]), 1)).toThrow(
    "here [2] or [1, 2], not u32 [1].",
  );
  expect(() => splitHeads(empty([1, 2, 9]), 2)).toThrow("a width for 2 heads, not f32 [1, 2, 9].");
});
