// Extracted from chapters/02-attention/8-local-attention-sinks-latent-caches.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { range } from "../../src/kernels/wgsl.js";
import { latentAttention } from "../../src/model/latent.js";
import { ropeTable } from "../../src/model/positions.js";
import type { AttentionCache, BlockContext, Latent } from "../../src/model/structure.js";
import { parameter, withoutGradients } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { unpack } from "../../src/tensor/products.js";
import { normals } from "../../src/tensor/random.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#plain-latent
await openGpu();

interface PlainLatent {
  nopeDim: number;
  ropeDim: number;
  valueDim: number;
  interleaved: boolean;
  theta: number;
}

const dot = (a: number[], b: number[]) => a.reduce((total, value, i) => total + value * b[i], 0);

/** A matrix [outputs, inputs], as rows, times a vector. */
const times = (matrix: number[][], x: number[]) => matrix.map((row) => dot(row, x));

const plainNorm = (x: number[]) => x.map((value) => value / Math.sqrt(dot(x, x) / x.length + 1e-6));

/** Turns pairs of neighbours (interleaved), or of element i and i + half, by the angles of a position. */
function plainTurn(x: number[], position: number, { theta, interleaved }: PlainLatent): number[] {
  const half = x.length / 2;
  const turned = [...x];
  for (let i = 0; i < half; i++) {
    const angle = position * theta ** (-i / half);
    const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + half];
    turned[a] = x[a] * Math.cos(angle) - x[b] * Math.sin(angle);
    turned[b] = x[b] * Math.cos(angle) + x[a] * Math.sin(angle);
  }
  return turned;
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#plain-latent-heads
/** The matrices of latent attention as rows, by their names. Norms have weights of 1. */
type PlainMatrices = Record<"qDown" | "q" | "kvDown" | "ropeKey" | "keyUp" | "valueUp" | "o", number[][]>;

/** Latent attention by its definition on one text x [tokens, hidden], each head with keys and values of its own: [tokens, hidden]. */
function plainLatent(x: number[][], matrices: PlainMatrices, sizes: PlainLatent): number[][] {
  const { nopeDim, ropeDim, valueDim } = sizes;
  const { qDown, q, kvDown, ropeKey, keyUp, valueUp, o } = matrices;
  const queries = x.map((row) => times(q, plainNorm(times(qDown, row))));
  const latents = x.map((row) => plainNorm(times(kvDown, row)));
  const turned = x.map((row, j) => plainTurn(times(ropeKey, row), j, sizes));
  const keysAndValues = latents.map((latent) => [times(keyUp, latent), times(valueUp, latent)]);
  const part = (row: number[], h: number, width: number) => row.slice(h * width, (h + 1) * width);
  const attended = x.map((_, i) =>
    Array.from({ length: keyUp.length / nopeDim }, (_, h) => {
      const query = part(queries[i], h, nopeDim + ropeDim);
      const hat = plainTurn(query.slice(nopeDim), i, sizes);
      const powers = latents.slice(0, i + 1).map((_, j) => {
        const score =
          dot(query.slice(0, nopeDim), part(keysAndValues[j][0], h, nopeDim)) + dot(hat, turned[j]);
        return Math.exp(score / Math.sqrt(nopeDim + ropeDim));
      });
      const total = powers.reduce((a, b) => a + b);
      const values = powers.map((_, j) => part(keysAndValues[j][1], h, valueDim));
      return values[0].map((_, c) => powers.reduce((sum, p, j) => sum + (p / total) * values[j][c], 0));
    }).flat(),
  );
  return attended.map((row) => times(o, row));
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#random-latent
const latentSizes = { hidden: 24, heads: 4, rank: 20, nopeDim: 8, ropeDim: 4, valueDim: 12 };

/** Random matrices of a layer, as rows of plain numbers. */
function randomMatrices(seed = 1): PlainMatrices {
  const { hidden, heads, rank, nopeDim, ropeDim, valueDim } = latentSizes;
  const shapes: Record<keyof PlainMatrices, [number, number]> = {
    qDown: [16, hidden],
    q: [heads * (nopeDim + ropeDim), 16],
    kvDown: [rank, hidden],
    ropeKey: [ropeDim, hidden],
    keyUp: [heads * nopeDim, rank],
    valueUp: [heads * valueDim, rank],
    o: [hidden, heads * valueDim],
  };
  const drawn = Object.entries(shapes).map(([name, [outputs, inputs]], i) => {
    const values = normals(seed, outputs * inputs, i).map((x) => (2 * x) / Math.sqrt(inputs));
    return [name, range(outputs).map((r) => [...values.subarray(r * inputs, (r + 1) * inputs)])];
  });
  return Object.fromEntries(drawn) as PlainMatrices;
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#random-latent-2
/** A layer with random weights, and the same as rows of plain numbers. */
function randomLatent(interleaved: boolean) {
  const { rank, nopeDim, ropeDim, valueDim } = latentSizes;
  const matrices = randomMatrices();
  const linears = Object.fromEntries(
    Object.entries(matrices).map(([name, rows]) => [
      name,
      { weight: parameter(tensor(rows.flat(), [rows.length, rows[0].length])) },
    ]),
  ) as Record<keyof PlainMatrices, { weight: Tensor }>;
  const norm = (width: number) => ({
    kind: "rms" as const,
    weight: parameter(tensor(new Float32Array(width).fill(1))),
    epsilon: 1e-6,
  });
  const norms = { qNorm: norm(16), kvNorm: norm(rank) };
  const sizes = { nopeDim, ropeDim, valueDim, interleaved };
  const layer: Latent = { kind: "latent", layer: 0, ...linears, ...norms, ...sizes };
  return { layer, matrices, sizes: { ...sizes, theta: 10_000 } };
}

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#definition-test
/** Random rows x [batch, tokens, hidden], and the context of texts that begin at position 0. */
function latentInputs(batch: number, tokens: number) {
  const { hidden, ropeDim } = latentSizes;
  const values = normals(7, batch * tokens * hidden);
  const context: BlockContext = {
    positions: indices(range(tokens)),
    ropeTable: ropeTable({ theta: 10_000 }, ropeDim, tokens),
  };
  return { x: tensor(values, [batch, tokens, hidden]), values, context };
}

await test("latent attention is what its definition says, made or absorbed, in both layouts", async () => {
  for (const interleaved of [true, false]) {
    const { layer, matrices, sizes } = randomLatent(interleaved);
    const { x, values, context } = latentInputs(2, 9);
    const rows = range(18).map((r) => [
      ...values.subarray(r * latentSizes.hidden, (r + 1) * latentSizes.hidden),
    ]);
    const expected = [rows.slice(0, 9), rows.slice(9)]
      .flatMap((text) => plainLatent(text, matrices, sizes))
      .flat();
    const cache: AttentionCache = { extend: (_, keys) => ({ keys, values: keys }) };
    for (const [form, more] of Object.entries({ made: {}, absorbed: { cache } })) {
      const y = withoutGradients(() => latentAttention(x, layer, { ...context, ...more }, x));
      const added = (await y.array()).map((value, i) => value - values[i]);
      expect(relativeError(added, expected), `${form}, interleaved ${interleaved}`).toBeLessThan(1e-5);
    }
  }
});

//| 02-attention/8-local-attention-sinks-latent-caches.ipynb#latent-gradient-test
await test("gradients of latent attention agree with finite differences, and a cache has none", async () => {
  const { layer } = randomLatent(true);
  const { x, values, context } = latentInputs(1, 5);
  const learned = ["qDown", "q", "kvDown", "ropeKey", "keyUp", "valueUp"] as const;
  const sources = await Promise.all(
    learned.map(async (name) => ({
      shape: [...layer[name]!.weight.shape],
      values: await unpack(layer[name]!.weight),
    })),
  );
  const run = (x: Tensor, ...weights: Tensor[]) => {
    const changed = Object.fromEntries(learned.map((name, i) => [name, { weight: weights[i] }]));
    return latentAttention(x, { ...layer, ...changed }, context);
  };
  expect(await gradientError(run, [{ shape: [...x.shape], values }, ...sources])).toBeLessThan(2e-2);
  const cache: AttentionCache = { extend: (_, keys) => ({ keys, values: keys }) };
  expect(() => latentAttention(parameter(x), layer, { ...context, cache })).toThrow("has no gradients");
  expect(() => latentAttention(x, layer, { positions: context.positions })).toThrow("no table of turns");
});
