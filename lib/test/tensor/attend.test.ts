// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { type FlashTiling, flashTiling, inferenceTiling } from "../../src/kernels/flash.js";
import { range } from "../../src/kernels/wgsl.js";
import { type KeyValues, attend, flashAttention, flashShape } from "../../src/tensor/attend.js";
import { gradients, parameter, withoutGradients } from "../../src/tensor/autograd.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { normals, randomBits } from "../../src/tensor/random.js";
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
/** Attention of one row with a running softmax over blocks of 16 keys: the result [valueWidth], and the logarithm of the sum. */
function plainForward(row: PlainRow, valueWidth = row.query.length): { y: number[]; logSum: number } {
  let [highest, sum] = row.sink === undefined ? [Number.NEGATIVE_INFINITY, 0] : [row.sink, 1];
  let y: number[] = new Array(valueWidth).fill(0);
  for (let from = 0; from < row.keys.length; from += 16) {
    const scores = row.keys.slice(from, from + 16).map((key) => plainScore(row, key));
    const next = Math.max(highest, ...scores);
    const decay = Math.exp(highest - next);
    const powers = scores.map((score) => Math.exp(score - next));
    sum = sum * decay + powers.reduce((a, b) => a + b);
    y = y.map((mixed, i) => mixed * decay + powers.reduce((s, p, j) => s + p * row.values[from + j][i], 0));
    highest = next;
  }
  return sum > 0
    ? { y: y.map((mixed) => mixed / sum), logSum: highest + Math.log(sum) }
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
function plainBackward(row: PlainRow, valueWidth: number, dy: number[], dk: number[][], dv: number[][]) {
  const { y, logSum } = plainForward(row, valueWidth);
  const along = dot(dy, y);
  const dq = row.query.map(() => 0);
  row.keys.forEach((key, j) => {
    const score = plainScore(row, key);
    const p = Math.exp(score - logSum);
    const slope = row.softcap > 0 ? 1 - (score / row.softcap) ** 2 : 1;
    const ds = p * (dot(dy, row.values[j]) - along) * slope * row.scale;
    addTimes(dq, ds, key);
    addTimes(dk[j], ds, row.query);
    addTimes(dv[j], p, dy);
  });
  return { y, dq, dSink: row.sink === undefined ? 0 : -Math.exp(row.sink - logSum) * along };
}

//| 02-attention/7-the-fused-kernel.ipynb#case-type
/** One set-up to compare on: sizes, options, and where each query stands. */
interface Case {
  batch: number;
  heads: number;
  kvHeads: number;
  tokens: number;
  length: number;
  keyWidth: number;
  valueWidth?: number;
  scale?: number;
  window?: number;
  softcap?: number;
  sinks?: boolean;
  /** By sequence and token; `first` is the start of the query's text. */
  at?: (b: number, t: number) => { position: number; first: number };
}

//| 02-attention/7-the-fused-kernel.ipynb#case-tensors
/** Queries, keys, values, a gradient of the result, and sinks: random, the same each time. */
function caseTensors({ batch, heads, kvHeads, tokens, length, keyWidth, valueWidth = keyWidth }: Case) {
  const shapes = [
    [batch, heads, tokens, keyWidth],
    [batch, kvHeads, length, keyWidth],
    [batch, kvHeads, length, valueWidth],
    [batch, heads, tokens, valueWidth],
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
  const { batch, heads, kvHeads, tokens, keyWidth, window = 0, softcap = 0, scale = keyWidth ** -0.5 } = the;
  const inRows = ({ values, shape }: { values: Float32Array; shape: number[] }) =>
    range(values.length / shape.at(-1)!).map((i) => [
      ...values.subarray(i * shape.at(-1)!, (i + 1) * shape.at(-1)!),
    ]);
  const [q, k, v, gradient] = caseTensors(the).slice(0, 4).map(inRows);
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
    const found = plainBackward(plain, v[0].length, gradient[row], seen[2], seen[3]);
    y.push(found.y);
    dq.push(found.dq);
    dSinks[h] += found.dSink;
  }
  return [...[y, dq, dk, dv].map((rows) => rows.flat()), dSinks];
}

//| 02-attention/7-the-fused-kernel.ipynb#run-case
/** What attention is given in a case, and the gradient of its result. */
function caseInputs(the: Case) {
  const { batch, tokens, scale, window, softcap, at } = the;
  const [queries, keys, values, gradient, sinks] = caseTensors(the).map(({ values, shape }) =>
    parameter(tensor(values, shape)),
  );
  const places = at ? range(batch * tokens).map((i) => at(Math.floor(i / tokens), i % tokens)) : [];
  const table = (numbers: number[]) => indices(numbers, [batch, tokens]);
  const positions = at ? table(places.map(({ position }) => position)) : indices(range(tokens));
  const firstKey = at ? table(places.map(({ first }) => first)) : undefined;
  const scoring = { scale, softcap, sinks: the.sinks ? sinks : undefined };
  const inputs = {
    queries,
    keyValues: { keys, values },
    visibility: { positions, firstKey, window },
    scoring,
  };
  return { inputs, gradient, sources: the.sinks ? [queries, keys, values, sinks] : [queries, keys, values] };
}

/** Result and all gradients of a case, by the kernels. */
async function fusedCase(the: Case, tiling?: FlashTiling): Promise<Float32Array[]> {
  const results = scope(() => {
    const { inputs, gradient, sources } = caseInputs(the);
    const chosen = tiling ?? flashTiling(flashShape(inputs), currentGpu().facts);
    const y = flashAttention(inputs, chosen);
    return [y, ...gradients(sum(multiply(y, gradient)), sources)];
  });
  const arrays = await Promise.all(results.map((result) => result.array()));
  for (const result of results) result.free();
  return arrays;
}

/** Compares all results of a case with the reference. */
async function checkCase(name: string, the: Case, tiling?: FlashTiling): Promise<void> {
  const expected = plainFlash(the);
  for (const [i, actual] of (await fusedCase(the, tiling)).entries())
    expect(
      relativeError(actual, expected[i]),
      `${name}: ${["y", "dq", "dk", "dv", "dSinks"][i]}`,
    ).toBeLessThan(2e-5);
}

//| 02-attention/7-the-fused-kernel.ipynb#cases
const small: Case = { batch: 2, heads: 2, kvHeads: 2, tokens: 19, length: 19, keyWidth: 8 };

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
  ...{ batch: 2, heads: 4, kvHeads: 2, tokens: 70, length: 90, keyWidth: 12 },
  ...{ scale: 0.4, window: 33, softcap: 1.5, sinks: true },
  at: (b, t) => ({ position: t + 20 * b, first: t > 40 ? 30 + b : 0 }),
};

/** The tilings that this adapter can run, each by its name. */
function tilings(): Record<string, FlashTiling> {
  const { subgroupSize } = currentGpu().facts;
  const whole = { textures: false, partKeys: 0 };
  const inWorkgroup = { "workgroup memory": { subgroups: false, lanes: 64, rows: 1, ...whole } };
  if (subgroupSize < 4) return inWorkgroup;
  const tiling = (rows: number, textures = false) => ({
    ...whole,
    subgroups: true,
    lanes: subgroupSize,
    rows,
    textures,
  });
  return {
    ...inWorkgroup,
    "one row a lane": tiling(1),
    "four rows a lane": tiling(4),
    "four rows a lane, textures": tiling(4, true),
  };
}

await test("all options together, and values wider or narrower than keys, in every tiling", async () => {
  for (const [name, tiling] of Object.entries(tilings())) {
    await checkCase(`together, ${name}`, together, tiling);
    // Rows of more numbers than the lanes load at once: how they are read does not depend on how many rows a lane keeps.
    if (tiling.rows === 1)
      await checkCase(`36 and 20 wide, ${name}`, { ...together, keyWidth: 36, valueWidth: 20 }, tiling);
  }
  await checkCase("values of 20, five tokens", { ...small, batch: 1, tokens: 5, length: 5, valueWidth: 20 });
});

//| 02-attention/7-the-fused-kernel.ipynb#random-test
/** A random set-up of sizes and options: heads in groups, keys before the queries, windows, first keys. */
function randomCase(seed: number): Case {
  const bits = randomBits(seed, 16, 5);
  const pick = (i: number, from: number, to: number) => from + (bits[i] % (to - from + 1));
  const [kvHeads, tokens, earlier] = [pick(0, 1, 3), pick(1, 1, 60), pick(2, 0, 40)];
  const places = range(2).map((b) => ({ before: pick(3 + b, 0, earlier), first: pick(5 + b, 0, 20) }));
  return {
    ...{
      batch: 2,
      heads: kvHeads * pick(7, 1, 3),
      kvHeads,
      tokens,
      length: tokens + earlier,
      keyWidth: 12,
      valueWidth: 8,
    },
    ...{
      scale: 0.1 + pick(8, 0, 9) / 10,
      softcap: 0.5 + pick(9, 0, 9),
      window: pick(10, 0, 1) * pick(11, 1, 50),
      sinks: true,
    },
    at: (b, t) => ({ position: places[b].before + t, first: places[b].first }),
  };
}

await test("random shapes and options equal the reference", async () => {
  for (const seed of range(12)) await checkCase(`seed ${seed}`, randomCase(seed));
});

//| 02-attention/7-the-fused-kernel.ipynb#split-test
/** The result of a case with keys in parts of so many, or whole (0); `folds`: one workgroup walks through all parts. */
async function splitCase(the: Case, partKeys: number, folds = false): Promise<Float32Array> {
  const { inputs } = caseInputs(the);
  const tiling = flashTiling(flashShape(inputs), currentGpu().facts);
  return flashAttention(inputs, { ...tiling, partKeys, folds }).array();
}

await test("keys in parts give what whole ones give, and in one part the same bits", async () => {
  const decoding: Case = {
    ...together,
    tokens: 3,
    length: 100,
    at: (b, t) => ({ position: 90 - 40 * b + t, first: 0 }),
  };
  for (const the of [
    decoding,
    { ...decoding, window: 0, sinks: false },
    { ...decoding, tokens: 20, keyWidth: 8 },
  ]) {
    const whole = await splitCase(the, 0);
    expect(relativeError(await splitCase(the, 16), whole)).toBeLessThan(1e-5);
    expect(relativeError(await splitCase(the, 16), plainFlash(the)[0])).toBeLessThan(2e-5);
    expect(await splitCase(the, 128)).toEqual(whole);
    expect(await splitCase(the, 16, true)).toEqual(await splitCase(the, 16));
  }
});

await test("how keys are split depends on a sequence's own length: a larger cache gives the same bits", async () => {
  const the: Case = { ...small, batch: 1, tokens: 1, length: 90, at: () => ({ position: 89, first: 0 }) };
  const { inputs } = caseInputs(the);
  const roomy = caseTensors(the).map(({ values }) =>
    // 150 places where there are 90 keys; the places behind them hold what must not be seen
    tensor(
      range(2 * 150 * 8).map((i) => (i % 1200 < 720 ? values[Math.floor(i / 1200) * 720 + (i % 1200)] : 7)),
      [1, 2, 150, 8],
    ),
  );
  const tiling = { ...flashTiling(flashShape(inputs), currentGpu().facts), partKeys: 32 };
  const decoded = (keyValues: KeyValues) => flashAttention({ ...inputs, keyValues }, tiling).array();
  expect(await decoded({ keys: roomy[1], values: roomy[2] })).toEqual(await decoded(inputs.keyValues));
});

//| 02-attention/7-the-fused-kernel.ipynb#rows-test
await test("a row's bits do not depend on how many rows its lane keeps", async () => {
  for (const seed of [3, 4]) {
    const { inputs } = caseInputs(randomCase(seed));
    const tiling = flashTiling(flashShape(inputs), currentGpu().facts);
    const [one, four] = [1, 4].map((rows) => flashAttention(inputs, { ...tiling, rows }).array());
    expect(await one).toEqual(await four);
  }
});

test("a chunk of a prompt goes row by row into a short cache, and four rows a lane into a long one", () => {
  const sizes = { batch: 1, heads: 2, kvHeads: 1, tokens: 32, keyWidth: 64, valueWidth: 64 };
  const facts = { ...currentGpu().facts, kind: "cpu" as const, subgroupSize: 8 };
  const rows = (length: number) =>
    inferenceTiling({ ...sizes, length, scale: 1, softcap: 0, sinks: false, tableBlocks: 0 }, facts).rows;
  expect([33, 1024, 1025, 32].map(rows)).toEqual([1, 1, 4, 4]);
});

//| 02-attention/7-the-fused-kernel.ipynb#paged-test
/** Rows [batch, kvHeads, length, width] in shuffled blocks of 16 tokens, some of them unused, and the table of blocks. */
function inBlocks(values: Float32Array, [batch, kvHeads, length, width]: number[]) {
  const perSequence = Math.ceil(length / 16);
  const count = batch * perSequence + 3;
  const order = range(count).sort((a, b) => randomBits(a, 1, 9)[0] - randomBits(b, 1, 9)[0]);
  const paged = new Float32Array(count * kvHeads * 16 * width).fill(1000);
  for (let at = 0; at < values.length; at++) {
    const [i, j, matrix] = [at % width, Math.floor(at / width) % length, Math.floor(at / width / length)];
    const block = order[Math.floor(matrix / kvHeads) * perSequence + Math.floor(j / 16)];
    paged[((block * kvHeads + (matrix % kvHeads)) * 16 + (j % 16)) * width + i] = values[at];
  }
  const blocks = indices(order.slice(0, batch * perSequence), [batch, perSequence]);
  return { rows: tensor(paged, [count, kvHeads, 16, width]), blocks };
}

//| 02-attention/7-the-fused-kernel.ipynb#paged-test-2
await test("a paged cache of shuffled blocks gives the same bits as the dense one", async () => {
  const decoding = (b: number, t: number) => ({ position: 70 - 41 * b + t, first: 2 * b });
  for (const [partKeys, tokens] of [
    [0, 20],
    [0, 1],
    [32, 2],
  ])
    for (const options of [{}, { window: 33, softcap: 1.5, sinks: true }]) {
      const the: Case = {
        batch: 2,
        heads: 4,
        kvHeads: 2,
        tokens,
        length: 90,
        keyWidth: 12,
        valueWidth: 8,
        ...options,
        at: decoding,
      };
      const { inputs } = caseInputs(the);
      const [, keys, values] = caseTensors(the).map(({ values, shape }) =>
        inBlocks(values, shape.length === 4 ? shape : [1, 1, 1, 4]),
      );
      const keyValues = { keys: keys.rows, values: values.rows, blocks: keys.blocks };
      const tiling = { ...flashTiling(flashShape(inputs), currentGpu().facts), partKeys };
      const dense = await flashAttention(inputs, tiling).array();
      const paged = await withoutGradients(() => flashAttention({ ...inputs, keyValues }, tiling)).array();
      expect(paged).toEqual(dense);
      expect(() => attend(inputs.queries, keyValues, inputs.visibility)).toThrow("have no gradients");
    }
});

//| 02-attention/7-the-fused-kernel.ipynb#paged-test-3
await test("each sequence sees no more keys than it has", async () => {
  const the: Case = { ...small, tokens: 1, at: () => ({ position: 18, first: 0 }) };
  const { queries, keyValues, visibility } = caseInputs(the).inputs;
  const seen = await attend(queries, { ...keyValues, lengths: indices([19, 7]) }, visibility).array();
  const positions = indices([18, 6], [2, 1]);
  expect(seen).toEqual(await attend(queries, keyValues, { positions }).array());
});

//| 02-attention/7-the-fused-kernel.ipynb#options-test
await test("each option, and all together, equal the reference with paged and split keys", async () => {
  const all = { window: 33, softcap: 1.5, sinks: true };
  const options = {
    none: {},
    window: { window: 33 },
    softcap: { softcap: 1.5 },
    sinks: { sinks: true },
    together: all,
  };
  const sizes = { batch: 2, heads: 4, kvHeads: 2, tokens: 2, length: 90, keyWidth: 12, valueWidth: 8 };
  // The queries of the second sequence stand in the middle of its keys, and both texts begin behind the first key.
  const at = (b: number, t: number) => ({ position: 88 - 41 * b + t, first: 5 + 13 * b });
  for (const [name, option] of Object.entries(options)) {
    const the: Case = { ...sizes, ...option, at };
    const [expected] = plainFlash(the);
    const { inputs } = caseInputs(the);
    const [, keys, values] = caseTensors(the).map(({ values, shape }) =>
      inBlocks(values, shape.length === 4 ? shape : [1, 1, 1, 4]),
    );
    const paged = { keys: keys.rows, values: values.rows, blocks: keys.blocks };
    for (const partKeys of [0, 32]) {
      const tiling = { ...flashTiling(flashShape(inputs), currentGpu().facts), partKeys };
      const y = withoutGradients(() => flashAttention({ ...inputs, keyValues: paged }, tiling));
      expect(relativeError(await y.array(), expected), `${name}, parts of ${partKeys}`).toBeLessThan(2e-5);
    }
  }
});

//| 02-attention/7-the-fused-kernel.ipynb#wide-test
await test("one wide key head for all query heads, whose rows may be keys and values at once", async () => {
  const wide: Case = {
    batch: 2,
    heads: 4,
    kvHeads: 1,
    tokens: 9,
    length: 9,
    keyWidth: 40,
    valueWidth: 32,
    scale: 0.2,
  };
  await checkCase("40 and 32 wide", wide);
  const { queries, keyValues, visibility } = caseInputs({ ...wide, valueWidth: 40 }).inputs;
  const values = tensor(await keyValues.keys.array(), keyValues.keys.shape);
  const apart = await attend(queries, { ...keyValues, values }, visibility).array();
  expect(await attend(queries, { ...keyValues, values: keyValues.keys }, visibility).array()).toEqual(apart);
});

await test("rows so wide that loops go over them: those of DeepSeek-V3, and gradients of narrower ones", async () => {
  const sizes = { batch: 1, heads: 4, kvHeads: 1, length: 20 };
  const last = () => ({ position: 18, first: 3 });
  const deepest: Case = { ...sizes, tokens: 1, keyWidth: 576, valueWidth: 512, sinks: true, at: last };
  const { inputs } = caseInputs(deepest);
  const y = withoutGradients(() =>
    attend(inputs.queries, inputs.keyValues, inputs.visibility, inputs.scoring),
  );
  expect(relativeError(await y.array(), plainFlash(deepest)[0])).toBeLessThan(2e-5);
  await checkCase("264 and 260 wide", { ...sizes, tokens: 20, keyWidth: 264, valueWidth: 260, window: 7 });
});

//| 02-attention/7-the-fused-kernel.ipynb#finite-test
await test("gradients agree with finite differences, those of the sinks too", async () => {
  const [q, k, v, , sinks] = caseTensors({ ...together, tokens: 9, length: 9, keyWidth: 8, valueWidth: 4 });
  const firstKey = indices([0, 0, 0, 3, 3, 3, 3, 7, 7]);
  const positions = indices(range(9));
  const visibility = { positions, firstKey, window: 4 };
  const f = (q: Tensor, keys: Tensor, values: Tensor, sinks: Tensor) =>
    attend(q, { keys, values }, visibility, { sinks, softcap: 2, scale: 0.5 });
  expect(await gradientError(f, [q, k, v, sinks])).toBeLessThan(1e-2);
  const plain = (q: Tensor, keys: Tensor, values: Tensor) => attend(q, { keys, values }, { positions });
  expect(await gradientError(plain, [q, k, v])).toBeLessThan(1e-2);
});

await test("the same bits come out every time", async () => {
  expect(await fusedCase(together)).toEqual(await fusedCase(together));
});

//| 02-attention/7-the-fused-kernel.ipynb#shapes-test
await test("shapes that do not fit are named", () => {
  const x = empty([1, 2, 3, 8]);
  const keyValues = { keys: x, values: x };
  const positions = indices([0, 1, 2]);
  const odd = empty([1, 2, 3, 6]);
  const window = 2;
  expect(() => attend(odd, { keys: odd, values: odd }, { positions, window })).toThrow(
    "a multiple of 4, not f32 [1, 2, 3, 6]",
  );
  expect(() => attend(x, keyValues, { positions: indices([0]), window })).toThrow(
    "here [3] or [1, 3], not u32 [1].",
  );
  expect(() => attend(x, keyValues, { positions, firstKey: indices([0, 0]) })).toThrow("not u32 [2].");
  expect(() => attend(x, keyValues, { positions, firstKey: indices([0, 0, 0], [1, 3]) })).toThrow(
    "the shape of the positions",
  );
  expect(() => attend(x, keyValues, { positions }, { sinks: tensor([1]) })).toThrow("2 heads, not f32 [1].");
  expect(() => attend(x, { ...keyValues, lengths: indices([1, 2]) }, { positions })).toThrow(
    "each of 1 sequences, not u32 [2].",
  );
  expect(() => attend(x, { ...keyValues, blocks: indices([0], [1, 1]) }, { positions })).toThrow(
    "[blocks, kvHeads, 16, width]",
  );
  // Heads of any width are served by the form that writes the scores down.
  expect(attend(odd, { keys: odd, values: odd }, { positions }).shape).toEqual([1, 2, 3, 6]);
});
