// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  type SampledRow,
  type SamplingSettings,
  argmax,
  candidatesFor,
  checkDrawn,
  checkSampling,
  editedScores,
  keepMinP,
  keepTopK,
  keepTopP,
  likelierFirst,
  likeliestTokens,
  logProbabilities,
  openEnd,
  packEdits,
  plainSampling,
  rankedCandidates,
  renormalize,
  sampleFrom,
  sampleToken,
  stopFilter,
  tokenUses,
  writeSampling,
} from "../../src/infer/sampling.js";
import { editWords, sampleKernel } from "../../src/kernels/sample.js";
import { capture } from "../../src/tensor/capture.js";
import { normals, randomBits, uniforms } from "../../src/tensor/random.js";
import { likeliestRows, sampleInputs, sampleRows, sampleShape } from "../../src/tensor/sample.js";
import { indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 05-inference/1-sampling.ipynb#likeliest-test
await test("the likeliest is the highest score, the first of equals; scores that are not numbers are refused", () => {
  expect(argmax([1, 5, 5, 2])).toBe(1);
  expect(argmax([Number.NEGATIVE_INFINITY, -3])).toBe(1);
  for (const bad of [[0, Number.NaN], [Number.POSITIVE_INFINITY, 0], [Number.NEGATIVE_INFINITY]])
    expect(() => argmax(bad)).toThrow("not numbers");
});

//| 05-inference/1-sampling.ipynb#ranked-test
/** Scores whose softmax is these probabilities. */
const scoresOf = (probabilities: number[]) => probabilities.map((p) => Math.log(p));

await test("temperature 1 gives the model's own probabilities, likeliest first; others their power 1/T", () => {
  const ranked = rankedCandidates(scoresOf([0.1, 0.6, 0.3]), 1);
  expect(ranked.map(({ id }) => id)).toEqual([1, 2, 0]);
  ranked.forEach(({ probability }, i) => expect(probability).toBeCloseTo([0.6, 0.3, 0.1][i], 12));
  const ratio = (temperature: number) => {
    const [first, second] = rankedCandidates(scoresOf([0.8, 0.2]), temperature);
    return first.probability / second.probability;
  };
  expect(ratio(0.5)).toBeCloseTo(16, 9);
  expect(ratio(2)).toBeCloseTo(2, 9);
  expect(rankedCandidates([7, 7, 7], 1).map(({ id }) => id)).toEqual([0, 1, 2]);
});

//| 05-inference/1-sampling.ipynb#draw-test
/** How far counts are from what probabilities lead to expect: Pearson's chi-square. */
function chiSquare(counts: number[], probabilities: number[]): number {
  const all = counts.reduce((sum, count) => sum + count, 0);
  return probabilities.reduce((sum, p, i) => sum + (counts[i] - all * p) ** 2 / (all * p), 0);
}

await test("draws follow the distribution, and no random number falls off its end", () => {
  const probabilities = [0.1, 0.2, 0.3, 0.4];
  const ranked = rankedCandidates(scoresOf(probabilities), 1);
  const counts = [0, 0, 0, 0];
  for (const uniform of uniforms(7, 20_000)) counts[sampleFrom(ranked, uniform)] += 1;
  expect(chiSquare(counts, probabilities)).toBeLessThan(16.27); // 3 degrees of freedom, one in a thousand
  expect(sampleFrom([{ id: 5, probability: 0.999 }], 0.9999)).toBe(5);
});

//| 05-inference/1-sampling.ipynb#cuts-test
await test("top-k, top-p and min-p keep what they promise, and probabilities still add up to 1", () => {
  const ranked = rankedCandidates(scoresOf([0.05, 0.5, 0.15, 0.3]), 1);
  const ids = (kept: { id: number }[]) => kept.map(({ id }) => id);
  expect(ids(keepTopK(ranked, 2))).toEqual([1, 3]);
  expect(ids(keepTopK(ranked, 0))).toEqual([1, 3, 2, 0]);
  expect(ids(keepTopP(ranked, 0.5001))).toEqual([1, 3]);
  expect(ids(keepTopP(ranked, 0.4))).toEqual([1]);
  expect(ids(keepMinP(ranked, 0.25))).toEqual([1, 3, 2]);
  expect(keepTopK(ranked, 2)[0].probability).toBeCloseTo(0.5 / 0.8, 12);
  expect(renormalize([{ id: 3, probability: 0.2 }])).toEqual([{ id: 3, probability: 1 }]);
});

//| 05-inference/1-sampling.ipynb#settings-test
await test("candidates are those of the three cuts one after the other, whatever the settings", () => {
  for (let seed = 0; seed < 300; seed++) {
    const [size, many] = randomBits(seed, 2, 1).map((bits) => bits % 40);
    const [p, fraction, heat] = uniforms(seed, 3, 2);
    const scores = normals(seed, size + 1, 3).map((x) => Math.round(20 * x) / 2); // some of them equal
    const [topK, topP, minP] = [seed % 2 && many, seed % 3 ? Math.max(p, 0.01) : 1, seed % 5 && fraction];
    const temperature = 0.01 + 4 * heat;
    const kept = candidatesFor(scores, { temperature, topK, topP, minP });
    const slowly = keepMinP(keepTopP(keepTopK(rankedCandidates(scores, temperature), topK), topP), minP);
    expect(kept.sort(likelierFirst).map(({ id }) => id)).toEqual(slowly.map(({ id }) => id));
    kept.forEach(({ probability }, i) => expect(probability).toBeCloseTo(slowly[i].probability, 12));
    expect(kept.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 9);
    const greedy = candidatesFor(scores, { temperature: 0, topK, topP, minP });
    expect(greedy).toEqual([{ id: argmax(scores), probability: 1 }]);
  }
});

await test("settings that mean nothing are refused in words", () => {
  expect(() => checkSampling({ ...plainSampling, temperature: -1 })).toThrow("temperature must be 0 or more");
  expect(() => checkSampling({ ...plainSampling, topK: 1.5 })).toThrow("top-k");
  expect(() => checkSampling({ ...plainSampling, topP: 90 })).toThrow("top-p");
  expect(() => checkSampling({ ...plainSampling, minP: 1 })).toThrow("min-p");
  expect(() => sampleToken([1, 2], { ...plainSampling, temperature: Number.NaN }, 0)).toThrow("temperature");
});

//| 05-inference/1-sampling.ipynb#penalties-test
await test("penalties and biases change the scores that they say, by what they say", () => {
  const scores = [2, -2, 3, -1, 0];
  const uses = tokenUses([0, 1, 4], [1, 2, 2]);
  expect([...uses]).toEqual([
    [0, 0],
    [1, 1],
    [4, 0],
    [2, 2],
  ]);
  const edited = (settings: Partial<SamplingSettings>) => [
    ...editedScores(scores, { ...plainSampling, ...settings }, { uses }),
  ];
  expect(edited({})).toEqual(scores);
  expect(edited({ repetitionPenalty: 2 })).toEqual([1, -4, 1.5, -1, 0]);
  expect(edited({ presencePenalty: 0.5 })).toEqual([2, -2.5, 2.5, -1, 0]); // not what only the prompt has
  expect(edited({ frequencyPenalty: 0.5 })).toEqual([2, -2.5, 2, -1, 0]);
  expect(
    edited({
      bias: [
        [3, 4],
        [0, -100],
        [3, 1],
        [99, 1],
      ],
    }),
  ).toEqual([-98, -2, 3, 4, 0]);
  expect(edited({ bias: [[1, 4]], repetitionPenalty: 2 })).toEqual([1, 1, 1.5, -1, 0]); // the bias comes first
  expect(edited({ repetitionPenalty: 2, presencePenalty: 0.25, frequencyPenalty: 0.5 })).toEqual([
    1, -4.75, 0.25, -1, 0,
  ]);
});

await test("a mask leaves only what it allows", () => {
  const mask = Uint32Array.of(0, 0b101);
  const scores = editedScores(new Float32Array(40), plainSampling, { mask });
  expect(candidatesFor(scores, plainSampling).filter(({ probability }) => probability > 0)).toEqual([
    { id: 32, probability: 0.5 },
    { id: 34, probability: 0.5 },
  ]);
});

//| 05-inference/1-sampling.ipynb#log-probabilities-test
await test("log-probabilities are the logarithms of the model's probabilities, the likeliest first", () => {
  const scores = scoresOf([0.1, 0.6, 0.3]).map((score) => score + 7);
  [0.1, 0.6, 0.3].forEach((p, id) => expect(logProbabilities(scores)[id]).toBeCloseTo(Math.log(p), 12));
  expect(likeliestTokens(scores, 2).map(({ id }) => id)).toEqual([1, 2]);
  expect(likeliestTokens([3, 3, 3], 9).map(({ id }) => id)).toEqual([0, 1, 2]);
});

await test("top-p 0 takes the likeliest, as temperature 0 does", () => {
  for (const settings of [{ topP: 0 }, { temperature: 0 }])
    expect(candidatesFor([1, 5, 5], { ...plainSampling, ...settings })).toEqual([{ id: 1, probability: 1 }]);
});

await test("penalties that mean nothing are refused in words", () => {
  const check = (settings: Partial<SamplingSettings>) => () =>
    checkSampling({ ...plainSampling, ...settings });
  expect(check({ repetitionPenalty: 0 })).toThrow("repetition penalty must be above 0");
  expect(check({ presencePenalty: Number.NaN })).toThrow("presence penalty must be a number");
  expect(check({ frequencyPenalty: Number.POSITIVE_INFINITY })).toThrow("frequency penalty must be a number");
  expect(check({ bias: [[1.5, 1]] })).toThrow("bias");
  expect(check({ bias: [[1, Number.NaN]] })).toThrow("bias");
});

//| 05-inference/1-sampling.ipynb#gpu-test-parts
await openGpu();

/** Draws a token for each row with its settings, all rows at once; `lanes` is usually the adapter's business. */
async function drawn(scores: ArrayLike<number>[], rows: SampledRow[], lanes?: number): Promise<number[]> {
  const vocab = scores[0].length;
  const edits = packEdits(rows).length / editWords;
  const inputs = sampleInputs(rows.length, vocab, { masked: rows.some(({ mask }) => mask), edits });
  writeSampling(inputs, rows);
  const logits = tensor(Float32Array.from(scores.flatMap((row) => Array.from(row))), [rows.length, vocab]);
  if (lanes === undefined) return [...(await sampleRows(logits, inputs).array())];
  const [ids, list] = [indices(new Uint32Array(rows.length)), indices(new Uint32Array(logits.size))];
  const shape = { ...sampleShape(logits, inputs), lanes };
  launchInto(
    sampleKernel(shape),
    [logits, inputs.settings, ...(inputs.mask ? [inputs.mask] : [])],
    [ids, list],
  );
  return [...(await ids.array())];
}

/** Whether the plain form could draw this id with settings and a random number that differ by no more than rounding. */
function couldDraw(id: number, logits: ArrayLike<number>, row: SampledRow): boolean {
  const scores = editedScores(logits, row.settings, row).subarray(0, row.vocabSize).map(Math.fround);
  const { topP, minP } = row.settings;
  return [-1e-5, 0, 1e-5].some((little) => {
    const near = {
      ...row.settings,
      topP: topP < 1 && topP > 0 ? topP + little : topP,
      minP: minP * (1 + little),
    };
    const kept = candidatesFor(scores, near);
    const at = kept.findIndex((candidate) => candidate.id === id);
    const before = kept.slice(0, at).reduce((sum, { probability }) => sum + probability, 0);
    return at >= 0 && row.uniform > before - 1e-5 && row.uniform < before + kept[at].probability + 1e-5;
  });
}

//| 05-inference/1-sampling.ipynb#gpu-test
/** Scores and settings of all kinds, from a seed. With an odd one, scores come in steps, so that many are equal. */
function randomRow(vocab: number, seed: number): { scores: Float32Array; row: SampledRow } {
  const [topK, cut, minP, greedy, used, masked] = randomBits(seed, 6, 1);
  const [heat, p, least, uniform] = uniforms(seed, 4, 2);
  const scores = normals(seed, vocab, 3).map((x) => (seed % 2 ? Math.round(4 * x) / 2 : 3 * x));
  const bits = randomBits(seed, Math.ceil(vocab / 32), 4);
  const settings = {
    temperature: greedy % 6 === 0 ? 0 : 0.1 + 3 * heat,
    topK: topK % 3 ? 0 : (topK >>> 8) % Math.min(vocab + 2, 90),
    topP: cut % 2 ? 1 : p,
    minP: minP % 3 ? 0 : 0.5 * least,
    ...(used % 2
      ? {}
      : {
          repetitionPenalty: 1.3,
          presencePenalty: 0.5,
          frequencyPenalty: -0.2,
          bias: [[used % vocab, 2.5]] as [number, number][],
        }),
  };
  const text = Array.from(randomBits(seed, 12, 5), (bits) => bits % vocab);
  const mask = masked % 3 ? undefined : bits.map((word, i) => (i === 0 ? word | 1 : word));
  return {
    scores,
    row: {
      settings,
      uniform,
      vocabSize: vocab - (seed % 5 === 0 && vocab > 2 ? 1 : 0),
      uses: tokenUses(text.slice(0, 6), text.slice(6)),
      mask,
    },
  };
}

//| 05-inference/1-sampling.ipynb#gpu-random-test
await test("the GPU draws what the plain form draws, on random scores, settings, texts and masks", async () => {
  const shapes = fc.record({
    vocab: fc.constantFrom(2, 17, 64, 500),
    rows: fc.integer({ min: 1, max: 40 }),
    seed: fc.nat(2 ** 30),
  });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ vocab, rows, seed }) => {
      const all = Array.from({ length: rows }, (_, i) => randomRow(vocab, seed + i));
      const ids = await drawn(
        all.map(({ scores }) => scores),
        all.map(({ row }) => row),
      );
      ids.forEach((id, i) =>
        expect({ id, ...all[i].row, is: couldDraw(id, all[i].scores, all[i].row) }).toMatchObject({
          is: true,
        }),
      );
    }),
    { numRuns: 30, seed: 5 },
  );
});

//| 05-inference/1-sampling.ipynb#gpu-test-edges
const plainRow: SampledRow = { settings: plainSampling, uniform: 0.5, vocabSize: 50_257 };
const greedyRow: SampledRow = { ...plainRow, settings: { ...plainSampling, temperature: 0 } };
const infinite = Number.POSITIVE_INFINITY;

await test("ties, scores of −∞, masks and the ends of the line are as in the plain form", async () => {
  const scores = [-infinite, 5, -infinite, 5, 5, 2, -0, 0];
  const at = (settings: Partial<SamplingSettings>, uniform: number, mask?: number): SampledRow => ({
    settings: { ...plainSampling, ...settings },
    uniform,
    vocabSize: 8,
    mask: mask === undefined ? undefined : Uint32Array.of(mask),
  });
  const almostOne = 1 - 2 ** -24;
  const cases: [SampledRow, number][] = [
    [at({ temperature: 0 }, almostOne), 1],
    [at({ topP: 0 }, almostOne), 1],
    [at({ topK: 2 }, almostOne), 3], // of three equals the two with the lowest ids
    [at({ topK: 2 }, 0), 1],
    [at({ topP: 0.5, topK: 2 }, almostOne), 1], // the first of two reaches one half exactly
    [at({ minP: 1 - 2 ** -20 }, almostOne), 4],
    [at({ temperature: 100 }, almostOne), 7],
    [at({ temperature: 100 }, 0), 1],
    [at({ topK: 100, temperature: 100 }, almostOne), 7],
    [at({ temperature: 0 }, 0, 0b11000000), 6], // both zeros are equal
    [at({}, almostOne, 0b00000100 | 0b00100000), 5],
    [at({ topK: 3 }, 0, 0b10000), 4],
  ];
  expect(
    await drawn(
      cases.map(() => scores),
      cases.map(([row]) => row),
    ),
  ).toEqual(cases.map(([, id]) => id));
});

//| 05-inference/1-sampling.ipynb#gpu-test-damaged
await test("scores that are no numbers, and masks that allow nothing, give no token but the usual sentence", async () => {
  const row = (mask?: number): SampledRow => ({
    ...greedyRow,
    vocabSize: 3,
    mask: mask === undefined ? undefined : Uint32Array.of(mask),
  });
  const bad = [
    [0, Number.NaN, 1],
    [0, infinite, 1],
    [-infinite, -infinite, -infinite],
  ];
  const ids = await drawn([...bad, [1, 2, 3]], [row(), row(), row(), { ...row(), uniform: 0 }]);
  for (const id of ids.slice(0, 3)) expect(() => checkDrawn(id)).toThrow("not numbers");
  checkDrawn(ids[3]);
  const masked = await drawn(
    [
      [1, 2, 3],
      [1, Number.NaN, 3],
    ],
    [row(0b11000), row(0b101)],
  );
  expect(() => checkDrawn(masked[0])).toThrow("allows none");
  expect(() => editedScores([1, 2, 3], plainSampling, { mask: Uint32Array.of(0b11000) })).toThrow(
    "allows none",
  );
  expect(masked[1]).toBe(2); // what may not come is not looked at
});

//| 05-inference/1-sampling.ipynb#gpu-test-batch
await test("a row's token does not depend on the other rows, nor on the lanes that share it", async () => {
  const all = Array.from({ length: 48 }, (_, seed) => randomRow(64, seed));
  const [scores, rows] = [
    all.map(({ scores }) => scores),
    all.map(({ row }) => ({ ...row, uses: undefined, settings: { ...row.settings, bias: [] } })),
  ];
  const together = await drawn(scores, rows);
  expect(await drawn(scores, rows, 256)).toEqual(together); // as many as a graphics processor takes
  const [reversed, half] = [
    await drawn([...scores].reverse(), [...rows].reverse()),
    await drawn(scores.slice(20, 27), rows.slice(20, 27)),
  ];
  expect(reversed.reverse()).toEqual(together);
  expect(half).toEqual(together.slice(20, 27));
});

await test("the vocabulary of GPT-2, with each kind of setting", async () => {
  const scores = normals(3, 50_257).map((x) => 3 * x);
  const kinds: Partial<SamplingSettings>[] = [
    {},
    { topK: 50 },
    { topK: 5000, topP: 0.9 },
    { topP: 0.95 },
    { temperature: 3, topP: 0.9 },
    { minP: 0.05 },
    { temperature: 0 },
  ];
  const rows = kinds.map(
    (kind, i): SampledRow => ({
      settings: { ...plainSampling, ...kind },
      uniform: uniforms(i, 1, 9)[0],
      vocabSize: 50_257,
    }),
  );
  const ids = await drawn(
    rows.map(() => scores),
    rows,
  );
  ids.forEach((id, i) =>
    expect({ id, ...rows[i], is: couldDraw(id, scores, rows[i]) }).toMatchObject({ is: true }),
  );
});

//| 05-inference/1-sampling.ipynb#gpu-test-draws
await test("draws follow the distribution that the settings leave: chi-square over many random numbers", async () => {
  const scores = scoresOf([0.02, 0.3, 0.05, 0.2, 0.08, 0.25, 0.01, 0.09]);
  const settings: SamplingSettings = {
    temperature: 1.3,
    topK: 6,
    topP: 0.9,
    minP: 0.1,
    presencePenalty: 0.4,
  };
  const text = { uses: tokenUses([1], [5]) };
  const rows = Array.from(
    uniforms(11, 4096),
    (uniform): SampledRow => ({ settings, uniform, vocabSize: 8, ...text }),
  );
  const ids = await drawn(
    rows.map(() => scores),
    rows,
  );
  const kept = candidatesFor(editedScores(scores, settings, text), settings);
  expect(kept.length).toBe(5);
  const counts = kept.map((candidate) => ids.filter((id) => id === candidate.id).length);
  expect(counts.reduce((sum, count) => sum + count)).toBe(4096);
  expect(
    chiSquare(
      counts,
      kept.map(({ probability }) => probability),
    ),
  ).toBeLessThan(18.47); // 4 degrees of freedom, one in a thousand
});

//| 05-inference/1-sampling.ipynb#gpu-test-likeliest
/** The likeliest tokens of each row, and the logarithm of its chosen token, as the GPU finds them. */
async function likeliestOf(scores: ArrayLike<number>[], ids: number[], count: number) {
  const [rows, vocab] = [scores.length, scores[0].length];
  const inputs = sampleInputs(rows, vocab);
  writeSampling(
    inputs,
    scores.map(() => ({ ...plainRow, vocabSize: vocab })),
  );
  const logits = tensor(Float32Array.from(scores.flatMap((row) => Array.from(row))), [rows, vocab]);
  const { likeliest, logProbabilities } = likeliestRows(logits, indices(ids), inputs, count);
  const [found, logarithms] = [await likeliest.array(), await logProbabilities.array()];
  return scores.map((_, row) => ({
    chosen: logarithms[row * (count + 1)],
    tokens: Array.from(found.subarray(row * count, (row + 1) * count), (id, i) => ({
      id,
      logProbability: logarithms[row * (count + 1) + 1 + i],
    })),
  }));
}

//| 05-inference/1-sampling.ipynb#gpu-likeliest-test
await test("the likeliest tokens and their log-probabilities are those of the plain form", async () => {
  for (const [vocab, count] of [
    [17, 5],
    [64, 20],
    [64, 0],
    [500, 3],
  ]) {
    const scores = Array.from({ length: 6 }, (_, seed) => randomRow(vocab, seed + vocab).scores);
    const ids = scores.map((_, row) => row * 2);
    const found = await likeliestOf(scores, ids, count);
    found.forEach(({ chosen, tokens }, row) => {
      const expected = likeliestTokens(scores[row], count);
      expect(chosen).toBeCloseTo(logProbabilities(scores[row])[ids[row]], 4);
      expect(tokens.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
      tokens.forEach(({ logProbability }, i) =>
        expect(logProbability).toBeCloseTo(expected[i].logProbability, 4),
      );
    });
  }
  const [equal] = await likeliestOf([new Float32Array(64).fill(2)], [9], 4);
  expect(equal.tokens.map(({ id }) => id)).toEqual([0, 1, 2, 3]);
  const [few] = await likeliestOf([[0, -infinite, 0, -infinite]], [0], 2);
  expect(few.tokens.map(({ logProbability }) => logProbability)).toEqual([
    Math.fround(-Math.LN2),
    Math.fround(-Math.LN2),
  ]);
});

//| 05-inference/1-sampling.ipynb#gpu-test-capture
await test("a recorded step draws by what is written before each run", async () => {
  const scores = tensor(Float32Array.from([1, 3, 2, 2.5]), [1, 4]);
  const inputs = sampleInputs(1, 4, { masked: true, edits: 4 });
  const recording = capture(() => sampleRows(scores, inputs));
  const next = async (row: Partial<SampledRow>) => {
    writeSampling(inputs, [{ ...greedyRow, vocabSize: 4, ...row }]);
    return recording.run().value();
  };
  expect(await next({})).toBe(1);
  expect(await next({ mask: Uint32Array.of(0b1101) })).toBe(3);
  expect(await next({ settings: { ...greedyRow.settings, bias: [[0, 5]] } })).toBe(0);
  const penalized = { ...greedyRow.settings, presencePenalty: 0.6, frequencyPenalty: 0.1 };
  expect(await next({ settings: penalized, uses: tokenUses([3], [1, 1]) })).toBe(3);
  expect(
    await next({ settings: { ...greedyRow.settings, repetitionPenalty: 2 }, uses: tokenUses([3, 1]) }),
  ).toBe(2);
  expect(await next({})).toBe(1);
  expect(await scores.array()).toEqual(Float32Array.of(1, 3, 2, 2.5)); // the scores themselves stay
  recording.free();
});

await test("inputs that have no room for a mask or for all edits say so", () => {
  const inputs = sampleInputs(1, 40);
  expect(() => writeSampling(inputs, [{ ...greedyRow, mask: new Uint32Array(2) }])).toThrow("has a mask");
  expect(() =>
    writeSampling(inputs, [{ ...greedyRow, settings: { ...plainSampling, bias: [[1, 1]] } }]),
  ).toThrow("room for 0");
  expect(() => sampleInputs(1, 2 ** 21)).toThrow("vocabulary of up to");
});

//| 05-inference/1-sampling.ipynb#stop-test
/** What a filter lets through of a text that comes in pieces of random lengths, up to the stop. */
function filtered(stops: string[], text: string, seed: number): { text: string; stopped: boolean } {
  const filter = stopFilter(stops);
  const lengths = randomBits(seed, 99, 4).map((bits) => bits % 4);
  let passed = "";
  for (let at = 0, i = 0; at < text.length; at += lengths[i++]) {
    const piece = filter.push(text.slice(at, at + lengths[i]));
    passed += piece.text;
    if (piece.stopped) return { text: passed, stopped: true };
  }
  const last = filter.push("");
  return { text: passed + last.text + (last.stopped ? "" : filter.end()), stopped: last.stopped };
}

await test("a stop string is found in whatever pieces it arrives, and nothing else is lost", () => {
  expect(openEnd("ab<|en", ["<|end|>"])).toBe(4);
  expect(openEnd("abc", ["<|end|>"])).toBe(0);
  const stops = ["aab", "bb"];
  for (let seed = 0; seed < 400; seed++) {
    const text = [...randomBits(seed, 12)].map((bits) => "aabc"[bits % 4]).join("");
    const ends = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    const expected = ends.length > 0 ? text.slice(0, Math.min(...ends)) : text;
    expect(filtered(stops, text, seed)).toEqual({ text: expected, stopped: ends.length > 0 });
  }
});
