// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  argmax,
  candidatesFor,
  checkSampling,
  keepMinP,
  keepTopK,
  keepTopP,
  likelierFirst,
  openEnd,
  plainSampling,
  rankedCandidates,
  renormalize,
  sampleFrom,
  sampleToken,
  stopFilter,
} from "../../src/infer/sampling.js";
import { normals, randomBits, uniforms } from "../../src/tensor/random.js";

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
