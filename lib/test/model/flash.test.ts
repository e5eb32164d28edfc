// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import type { FlashForm } from "../../src/kernels/flash.js";
import { range } from "../../src/kernels/matmul.js";
import { flashAttention } from "../../src/model/flash.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { normals } from "../../src/tensor/random.js";
import { type Tensor, empty, indices, scope, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/7-the-fused-kernel.ipynb#row-setting
await openGpu();

/** What one query row is computed from: the keys that it sees, and what is done to its scores. */
interface PlainRow {
  query: number[];
  keys: number[][];
  values: number[][];
  scale: number;
  softcap: number;
  sink?: number;
}

const dot = (a: number[], b: number[]) => a.reduce((sum, each, i) => sum + each * b[i], 0);

function plainScore({ query, scale, softcap }: PlainRow, key: number[]): number {
  const score = scale * dot(query, key);
  return softcap > 0 ? softcap * Math.tanh(score / softcap) : score;
}

//| 02-attention/7-the-fused-kernel.ipynb#row-forward
/** Attention of one row with a running softmax over blocks of 16 keys: the result, and the logarithm of the sum. */
function plainForward(row: PlainRow): { y: number[]; logSum: number } {
  let [highest, sum] = row.sink === undefined ? [Number.NEGATIVE_INFINITY, 0] : [row.sink, 1];
  let y: number[] = row.query.map(() => 0);
  for (let from = 0; from < row.keys.length; from += 16) {
    const scores = row.keys.slice(from, from + 16).map((key) => plainScore(row, key));
    const next = Math.max(highest, ...scores);
    const decay = Math.exp(highest - next);
    const powers = scores.map((score) => Math.exp(score - next));
    sum = sum * decay + powers.reduce((a, b) => a + b);
    y = y.map((each, i) => each * decay + powers.reduce((s, p, j) => s + p * row.values[from + j][i], 0));
    highest = next;
  }
  return sum > 0
    ? { y: y.map((each) => each / sum), logSum: highest + Math.log(sum) }
    : { y, logSum: Number.POSITIVE_INFINITY };
}

//| 02-attention/7-the-fused-kernel.ipynb#row-definition-test
await test("the running softmax is the softmax: blocks, a sink, a cap, no keys at all", () => {
  for (const [count, sink, softcap] of [
    [1, undefined, 0],
    [50, undefined, 0],
    [33, 0.7, 2],
    [0, undefined, 0],
    [0, 1, 0],
  ] as const) {
    const rows = (seed: number) =>
      range(count).map((j) => Array.from(normals(seed + j, 8), (each) => each * 2));
    const row: PlainRow = {
      query: [...normals(5, 8)],
      keys: rows(100),
      values: rows(200),
      scale: 1,
      softcap,
      sink,
    };
    const powers = row.keys.map((key) => Math.exp(plainScore(row, key)));
    const sum = powers.reduce((a, b) => a + b, sink === undefined ? 0 : Math.exp(sink));
    const expected = range(8).map((i) => powers.reduce((s, p, j) => s + (p / sum) * row.values[j][i], 0));
    const { y, logSum } = plainForward(row);
    y.forEach((each, i) => expect(each).toBeCloseTo(expected[i], 12));
    expect(Math.exp(-logSum) * (sum || 1)).toBeCloseTo(sum > 0 ? 1 : 0, 12);
  }
});

//| 02-attention/7-the-fused-kernel.ipynb#row-backward
/** Adds a times the numbers of `row` to those of `sums`. */
function addTimes(sums: number[], a: number, row: number[]): void {
  for (let i = 0; i < sums.length; i++) sums[i] += a * row[i];
}

/** Gradients of one row from that of its result: of the query and the sink; those of keys and values are added to sums. */
function plainBackward(row: PlainRow, dy: number[], dk: number[][], dv: number[][]) {
  const { y, logSum } = plainForward(row);
  const known = dot(dy, y);
  const dq = row.query.map(() => 0);
  row.keys.forEach((key, j) => {
    const score = plainScore(row, key);
    const p = Math.exp(score - logSum);
    const slope = row.softcap > 0 ? 1 - (score / row.softcap) ** 2 : 1;
    const ds = p * (dot(dy, row.values[j]) - known) * slope * row.scale;
    addTimes(dq, ds, key);
    addTimes(dk[j], ds, row.query);
    addTimes(dv[j], p, dy);
  });
  return { y, dq, dSink: row.sink === undefined ? 0 : -Math.exp(row.sink - logSum) * known };
}

//| 02-attention/7-the-fused-kernel.ipynb#case-type
/** One set-up to compare on: sizes, options, and where each query stands. */
interface Case {
  batch: number;
  heads: number;
  kvHeads: number;
  tokens: number;
  length: number;
  headDim: number;
  scale?: number;
  window?: number;
  softcap?: number;
  sinks?: boolean;
  /** By sequence and token; `first` is the start of the query's text. */
  at?: (b: number, t: number) => { position: number; first: number };
}

//| 02-attention/7-the-fused-kernel.ipynb#case-tensors
/** Queries, keys, values, a gradient of the result, and sinks: random, the same each time. */
function caseTensors({ batch, heads, kvHeads, tokens, length, headDim }: Case) {
  const shapes = [
    [batch, heads, tokens, headDim],
    [batch, kvHeads, length, headDim],
    [batch, kvHeads, length, headDim],
    [batch, heads, tokens, headDim],
    [heads],
  ];
  return shapes.map((shape, seed) => ({
    shape,
    values: normals(
      seed + 1,
      shape.reduce((a, b) => a * b, 1),
    ),
  }));
}

//| 02-attention/7-the-fused-kernel.ipynb#plain-flash
/** Result and all gradients of a case, by the reference: y, dq, dk, dv, dSinks. */
function plainFlash(the: Case): number[][] {
  const { batch, heads, kvHeads, tokens, headDim, window = 0, softcap = 0, scale = headDim ** -0.5 } = the;
  const rowsOf = caseTensors(the).map(({ values }) =>
    range(Math.ceil(values.length / headDim)).map((i) => [
      ...values.subarray(i * headDim, (i + 1) * headDim),
    ]),
  );
  const [q, k, v, gradient] = rowsOf;
  const sinks = caseTensors(the)[4].values;
  const [y, dq]: number[][][] = [[], []];
  const [dk, dv] = [k, v].map((rows) => rows.map((row) => row.map(() => 0)));
  const dSinks: number[] = range(heads).map(() => 0);
  for (const row of range(batch * heads * tokens)) {
    const [b, h, t] = [Math.floor(row / heads / tokens), Math.floor(row / tokens) % heads, row % tokens];
    const { position, first } = the.at?.(b, t) ?? { position: t, first: 0 };
    const end = Math.min(position + 1, the.length);
    const from = Math.min(end, Math.max(first, window > 0 ? position + 1 - window : 0));
    const seen = [k, v, dk, dv].map((rows) => {
      const head = (b * kvHeads + Math.floor(h / (heads / kvHeads))) * the.length;
      return rows.slice(head + from, head + end);
    });
    const plain = {
      query: q[row],
      keys: seen[0],
      values: seen[1],
      scale,
      softcap,
      sink: the.sinks ? sinks[h] : undefined,
    };
    const found = plainBackward(plain, gradient[row], seen[2], seen[3]);
    y.push(found.y);
    dq.push(found.dq);
    dSinks[h] += found.dSink;
  }
  return [...[y, dq, dk, dv].map((rows) => rows.flat()), dSinks];
}

//| 02-attention/7-the-fused-kernel.ipynb#run-case
/** Result and all gradients of a case, by the kernels. */
async function fusedCase(the: Case, form?: FlashForm): Promise<Float32Array[]> {
  const results = scope(() => {
    const { batch, tokens, scale, window, softcap, at } = the;
    const [q, k, v, gradient, sinks] = caseTensors(the).map(({ values, shape }) =>
      parameter(tensor(values, shape)),
    );
    const places = at ? range(batch * tokens).map((i) => at(Math.floor(i / tokens), i % tokens)) : [];
    const table = (values: number[]) => indices(values, [batch, tokens]);
    const positions = at ? table(places.map(({ position }) => position)) : indices(range(tokens));
    const starts = at ? table(places.map(({ first }) => first)) : undefined;
    const options = { scale, window, softcap, starts, sinks: the.sinks ? sinks : undefined };
    const y = flashAttention(q, k, v, positions, options, form);
    const found = gradients(sum(multiply(y, gradient)), the.sinks ? [q, k, v, sinks] : [q, k, v]);
    return [y, ...found];
  });
  const arrays = await Promise.all(results.map((result) => result.array()));
  for (const result of results) result.free();
  return arrays;
}

/** Compares all results of a case with the reference. */
async function checkCase(name: string, the: Case, form?: FlashForm): Promise<void> {
  const expected = plainFlash(the);
  for (const [i, actual] of (await fusedCase(the, form)).entries())
    expect(
      relativeError(actual, expected[i]),
      `${name}: ${["y", "dq", "dk", "dv", "dSinks"][i]}`,
    ).toBeLessThan(2e-5);
}

//| 02-attention/7-the-fused-kernel.ipynb#cases
const small: Case = { batch: 2, heads: 2, kvHeads: 2, tokens: 19, length: 19, headDim: 8 };

/** Three texts in one row; the second sequence is divided elsewhere. */
const packed = (b: number, t: number) => {
  const starts = b === 0 ? [0, 5, 14] : [0, 11, 12];
  return { position: t, first: starts.filter((start) => start <= t).at(-1)! };
};

const cases: Record<string, Case> = {
  "one token": { ...small, batch: 1, heads: 1, kvHeads: 1, tokens: 1, length: 1 },
  causal: small,
  "grouped heads": { ...small, heads: 6 },
  "a window": { ...small, window: 5 },
  "a window of one": { ...small, window: 1 },
  "packed texts": { ...small, at: packed },
  scale: { ...small, scale: 0.9 },
  softcap: { ...small, softcap: 0.7 },
  sinks: { ...small, sinks: true },
  "a cache longer than the queries": {
    ...small,
    tokens: 3,
    length: 50,
    at: (b, t) => ({ position: b * 30 + t + 4, first: 0 }),
  },
  "all keys seen": { ...small, at: () => ({ position: 18, first: 0 }) },
  "rows that see nothing": { ...small, at: (_, t) => ({ position: t, first: t % 3 === 0 ? t + 1 : 0 }) },
};

await test("fused attention and its gradients equal the reference, with each option alone", async () => {
  for (const [name, the] of Object.entries(cases)) await checkCase(name, the);
});

//| 02-attention/7-the-fused-kernel.ipynb#all-together-test
const together: Case = {
  ...{ batch: 2, heads: 4, kvHeads: 2, tokens: 70, length: 90, headDim: 12 },
  ...{ scale: 0.4, window: 33, softcap: 1.5, sinks: true },
  at: (b, t) => ({ position: t + 20 * b, first: t > 40 ? 30 + b : 0 }),
};

/** The forms that this adapter can run, each by its name. */
function forms(): Record<string, FlashForm> {
  const { subgroupSize } = currentGpu().facts;
  const inWorkgroup = { "workgroup memory": { subgroups: false, lanes: 64, rows: 1, images: false } };
  if (subgroupSize < 4) return inWorkgroup;
  const form = (rows: number, images = false) => ({ subgroups: true, lanes: subgroupSize, rows, images });
  return {
    ...inWorkgroup,
    "one row a lane": form(1),
    "four rows a lane": form(4),
    "four rows a lane, images": form(4, true),
  };
}

await test("all options together, and heads of 36, in every form", async () => {
  for (const [name, form] of Object.entries(forms())) {
    await checkCase(`together, ${name}`, together, form);
    // Wide heads have fewer keys a lane than queries; how rows are read is the same.
    if (!form.images) await checkCase(`36 wide, ${name}`, { ...together, headDim: 36 }, form);
  }
  await checkCase("36 wide, five tokens", { ...small, batch: 1, tokens: 5, length: 5, headDim: 36 });
});

//| 02-attention/7-the-fused-kernel.ipynb#finite-test
await test("gradients agree with finite differences, those of the sinks too", async () => {
  const [q, k, v, , sinks] = caseTensors({ ...together, tokens: 9, length: 9, headDim: 8 });
  const starts = indices([0, 0, 0, 3, 3, 3, 3, 7, 7]);
  const f = (q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) =>
    flashAttention(q, k, v, indices(range(9)), { sinks, starts, window: 4, softcap: 2, scale: 0.5 });
  expect(await gradientError(f, [q, k, v, sinks])).toBeLessThan(1e-2);
  expect(
    await gradientError((q, k, v) => flashAttention(q, k, v, indices(range(9))), [q, k, v]),
  ).toBeLessThan(1e-2);
});

await test("the same bits come out every time", async () => {
  expect(await fusedCase(together)).toEqual(await fusedCase(together));
});

//| 02-attention/7-the-fused-kernel.ipynb#shapes-test
await test("shapes that do not fit are named", () => {
  const x = empty([1, 2, 3, 8]);
  const positions = indices([0, 1, 2]);
  const odd = empty([1, 2, 3, 6]);
  expect(() => flashAttention(odd, odd, odd, positions)).toThrow("a multiple of 4, not f32 [1, 2, 3, 6]");
  expect(() => flashAttention(x, x, x, indices([0]))).toThrow("here [3] or [1, 3], not u32 [1].");
  expect(() => flashAttention(x, x, x, positions, { starts: indices([0, 0]) })).toThrow("not u32 [2].");
  expect(() => flashAttention(x, x, x, positions, { sinks: tensor([1]) })).toThrow("2 heads, not f32 [1].");
});
