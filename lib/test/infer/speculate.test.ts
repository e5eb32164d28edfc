// Extracted from chapters/05-inference/5-guessing-ahead.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { generate, plainGenerate } from "../../src/infer/generate.js";
import {
  type Candidate,
  type SamplingSettings,
  candidatesFor,
  plainSampling,
  sampleFrom,
} from "../../src/infer/sampling.js";
import { openSession } from "../../src/infer/session.js";
import {
  type Draft,
  type Guess,
  type SpeculateSettings,
  type TextReader,
  checkVocabulary,
  guessAndCheck,
  lookupDraft,
  modelDraft,
  openReader,
  probabilityOf,
  readerDraft,
  remainder,
  settle,
  speculate,
} from "../../src/infer/speculate.js";
import type { Model } from "../../src/model/structure.js";
import { loadModel } from "../../src/model/weights.js";
import { normals, randomBits, uniforms } from "../../src/tensor/random.js";
import { characterTokenizer } from "../../src/tokenizer/characters.js";

//| 05-inference/5-guessing-ahead.ipynb#reader-test
await openGpu();

/** The folder of fixtures: tests run in the root of the repository, notebooks in their chapter. */
const testFiles = fs.existsSync("tests/fixtures") ? "tests/fixtures" : "../../tests/fixtures";

/** A tiny model of a family, with random weights. */
function familyModel(family: string): Model {
  const folder = `${testFiles}/families/${family}`;
  const json = JSON.parse(fs.readFileSync(`${folder}/config.json`, "utf8"));
  return loadModel(json, fs.readFileSync(`${folder}/model.safetensors`));
}

/** Random ids of a vocabulary. */
const randomIds = (seed: number, count: number, vocabSize: number) =>
  Array.from(randomBits(seed, count), (bits) => bits % vocabSize);

await test("whatever was read before, a reader gives the bits that reading the text token by token gives", async () => {
  const model = familyModel("qwen3_moe");
  const { vocabSize } = model.config;
  const [reader, session] = [openReader(model, 64, 5), openSession(model, 64)];
  const trunk = randomIds(1, 50, vocabSize);
  for (const [kept, count] of [
    [9, 1],
    [9, 5],
    [12, 3],
    [40, 2],
    [38, 5],
    [0, 4],
  ]) {
    const text = [...trunk.slice(0, kept), ...randomIds(kept + count, 5, vocabSize)];
    const rows = await reader.scoresAfter(text, count);
    expect(rows.length).toBe(count);
    session.clear();
    await session.read(text.slice(0, text.length - count + 1));
    for (let i = 0; i < count; i++) {
      session.length = text.length - count + i;
      expect(rows[i]).toEqual(await session.read([text[session.length]])); // to the last bit
    }
  }
  await expect(reader.scoresAfter([vocabSize], 1)).rejects.toThrow("not in the vocabulary");
  for (const owned of [reader, session]) owned.free();
});

//| 05-inference/5-guessing-ahead.ipynb#lookup-test
await test("a lookup takes the longest run, of several places the latest, and nothing where there is none", async () => {
  const guessed = async (text: number[], count = 3, longest = 3) =>
    (await lookupDraft(longest).guess(text, count, { ...plainGenerate, maxTokens: 1 }, 0)).map(
      ({ id }) => id,
    );
  expect(await guessed([1, 2, 3, 4, 9, 3, 5, 1, 2, 3])).toEqual([4, 9, 3]);
  expect(await guessed([1, 2, 3, 4, 9, 3, 5, 1, 2, 3], 3, 1)).toEqual([5, 1, 2]);
  expect(await guessed([7, 1, 8, 1, 9, 1], 2)).toEqual([9, 1]);
  expect(await guessed([5, 5, 5, 5])).toEqual([5]); // the latest place overlaps its own end
  expect(await guessed([1, 2, 3])).toEqual([]);
  expect(await guessed([1])).toEqual([]);
});

//| 05-inference/5-guessing-ahead.ipynb#settle-test
/** How far counts are from what probabilities lead to expect: Pearson's chi-square; events that are expected rarely count as one. */
function chiSquare(counts: number[], probabilities: number[]): { value: number; degrees: number } {
  const all = counts.reduce((sum, count) => sum + count, 0);
  const rare = probabilities.map((p) => p * all < 5);
  const pooled = (values: number[]) => values.reduce((sum, value, i) => sum + (rare[i] ? value : 0), 0);
  const cells = counts.flatMap((count, i) => (rare[i] ? [] : [[count, probabilities[i] * all]]));
  const [count, expected] = [pooled(counts), all * pooled(probabilities)];
  if (expected >= 5) cells.push([count, expected]);
  const missed = expected < 5 ? Math.max(0, count - 30) : 0; // what should hardly ever happen, and happens
  const value = cells.reduce((sum, [seen, mean]) => sum + (seen - mean) ** 2 / mean, 10 * missed);
  return { value, degrees: cells.length - 1 };
}

/** What a fair draw exceeds once in a hundred thousand times (Wilson and Hilferty's approximation). */
const chiLimit = (degrees: number) =>
  degrees * (1 - 2 / (9 * degrees) + 4.265 * Math.sqrt(2 / (9 * degrees))) ** 3;

/** Chi-square over its limit: above 1, the counts do not come from these probabilities. */
function misfit(counts: number[], probabilities: number[]): number {
  const { value, degrees } = chiSquare(counts, probabilities);
  return degrees > 0 ? value / chiLimit(degrees) : value;
}

/** Candidates as probabilities in the order of ids. */
const asList = (candidates: Candidate[], size: number) =>
  Array.from({ length: size }, (_, id) => probabilityOf(candidates, id));

//| 05-inference/5-guessing-ahead.ipynb#settle-test-2
type Rule = (p: Candidate[], guess: Guess, uniform: number, again: number) => number;

const wrongRules: Record<string, Rule> = {
  "draws from all of p": (p, guess, uniform, again) => {
    const kept = probabilityOf(p, guess.id) / probabilityOf(guess.candidates!, guess.id);
    return uniform < kept ? guess.id : sampleFrom(p, again);
  },
  "keeps by q / p": (p, guess, uniform, again) => {
    const kept = probabilityOf(guess.candidates!, guess.id) / probabilityOf(p, guess.id);
    return uniform < kept ? guess.id : sampleFrom(remainder(p, guess.candidates!), again);
  },
  "takes p for q": (p, guess, uniform) => settle(p, { id: guess.id, candidates: p }, uniform),
};

/** How far tokens that a rule gives are from p, for guesses drawn from q. */
function ruleMisfit(rule: Rule, p: Candidate[], q: Candidate[], size: number, draws = 8000): number {
  const counts = new Array<number>(size).fill(0);
  const uniform = uniforms(5, 3 * draws, size);
  for (let i = 0; i < 3 * draws; i += 3)
    counts[rule(p, { id: sampleFrom(q, uniform[i]), candidates: q }, uniform[i + 1], uniform[i + 2])] += 1;
  return misfit(counts, asList(p, size));
}

await test("tokens come out as p says, whatever q is and however both are cut; wrong rules are found out", () => {
  for (let seed = 0; seed < 12; seed++) {
    const size = 3 + (seed % 8);
    const [scores, others] = [normals(seed, size, 1), normals(seed, size, 2)];
    const settings = {
      ...plainSampling,
      temperature: 0.5 + (seed % 3),
      topK: seed % 4 ? 0 : 3,
      topP: seed % 5 ? 1 : 0.8,
    };
    const [p, q] = [candidatesFor(scores, settings), candidatesFor(others, settings)];
    expect(ruleMisfit(settle, p, q, size)).toBeLessThan(1);
    if (settings.topK > 0 || settings.topP < 1) continue; // p may then be one token, which every rule gets right
    for (const [name, rule] of Object.entries(wrongRules))
      expect(ruleMisfit(rule, p, q, size), name).toBeGreaterThan(1);
  }
});

//| 05-inference/5-guessing-ahead.ipynb#settle-test-3
await test("a guess is kept as often as p and q overlap, and what is certain or greedy needs no luck", () => {
  const [p, q] = [3, 4].map((seed) => candidatesFor(normals(seed, 7), plainSampling));
  const overlap = p.reduce(
    (sum, { id, probability }) => sum + Math.min(probability, probabilityOf(q, id)),
    0,
  );
  const uniform = uniforms(9, 40_000);
  let kept = 0;
  for (let i = 0; i < 40_000; i += 2) {
    const id = sampleFrom(q, uniform[i]);
    kept += settle(p, { id, candidates: q }, uniform[i + 1]) === id ? 1 : 0;
  }
  expect(Math.abs(kept / 20_000 - overlap)).toBeLessThan(0.015); // four standard deviations
  for (const u of uniforms(2, 50)) {
    expect(settle(p, { id: 3 }, u)).toBe(sampleFrom(p, u));
    expect(settle(p, undefined, u)).toBe(sampleFrom(p, u));
    const [one, other] = [[{ id: 4, probability: 1 }], [{ id: 2, probability: 1 }]];
    expect(settle(one, { id: 4, candidates: one }, u)).toBe(4);
    expect(settle(one, { id: 2, candidates: other }, u)).toBe(4);
    expect(settle(p, { id: 1, candidates: p }, u)).toBe(1);
  }
});

//| 05-inference/5-guessing-ahead.ipynb#greedy-test
/** All tokens of a text. */
async function tokensOf(tokens: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of tokens) ids.push(id);
  return ids;
}

/** A draft that knows a text by heart and gets about every third token wrong. */
const forgetful = (whole: number[], vocabSize: number): Draft => ({
  guess: (text, count) =>
    whole.slice(text.length, text.length + count).map((id, i) => {
      const [chance, other] = randomBits(text.length + i, 2);
      return { id: chance % 3 === 0 ? other % vocabSize : id };
    }),
  free() {},
});

await test("greedy text is the same for models of all kinds, whoever guesses and however much", async () => {
  for (const [seed, family] of ["llama", "qwen3_moe", "gpt2", "gemma3", "gpt_oss", "deepseek_v3"].entries()) {
    const model = familyModel(family);
    const { vocabSize } = model.config;
    const prompt = randomIds(seed, 5, vocabSize);
    const settings = { ...plainGenerate, maxTokens: 18, temperature: 0 };
    const plain = await tokensOf(generate(model, prompt, settings));
    const own = modelDraft(model, 40);
    const passes: number[] = [];
    for (const draft of [forgetful([...prompt, ...plain], vocabSize), lookupDraft(), own]) {
      const onPass = (_: number, kept: number) => passes.push(kept);
      const guessed = { ...settings, draftTokens: 4, onPass };
      expect(await tokensOf(speculate(model, prompt, guessed, draft)), family).toEqual(plain);
    }
    own.free();
    expect(Math.max(...passes), family).toBe(4); // its own guesses are right
  }
});

//| 05-inference/5-guessing-ahead.ipynb#property-test
await test("certain guesses never change a text: random settings, numbers of guesses, stops, ends of the context", async () => {
  const model = familyModel("llama");
  const { vocabSize, contextLength } = model.config;
  for (let seed = 0; seed < 16; seed++) {
    const [a, b, c, d] = randomBits(seed, 4, 7);
    const maxTokens = 1 + (a % 20);
    const prompt = randomIds(seed, seed % 3 === 0 ? contextLength - (b % 9) : 1 + (b % 9), vocabSize);
    const temperature = [0, 0.6, 1, 2][c % 4];
    const cut = { topK: seed % 4 ? 0 : 5, topP: seed % 5 ? 1 : 0.7, minP: seed % 7 ? 0 : 0.1 };
    const settings = {
      ...plainGenerate,
      ...cut,
      maxTokens,
      temperature,
      seed,
      vocabSize: vocabSize - (d % 3),
    };
    const whole = await tokensOf(generate(model, prompt, settings));
    const stopIds = seed % 2 ? [whole[d % whole.length]] : [];
    const plain = await tokensOf(generate(model, prompt, { ...settings, stopIds }));
    const draft = seed % 4 === 3 ? lookupDraft(1 + (d % 3)) : forgetful([...prompt, ...whole], vocabSize);
    const guessed = { ...settings, stopIds, draftTokens: [1, 2, 4, 7][d % 4] };
    expect(await tokensOf(speculate(model, prompt, guessed, draft)), String(seed)).toEqual(plain);
  }
});

//| 05-inference/5-guessing-ahead.ipynb#penalties-test
await test("penalties count the guesses that were kept, in the text and in the draft", async () => {
  const [model, prompt] = [familyModel("llama"), [5, 6, 5, 7]];
  const penalties = { repetitionPenalty: 1.5, frequencyPenalty: 0.4, presencePenalty: 0.3 };
  const settings = { ...plainGenerate, ...penalties, maxTokens: 16, seed: 3, vocabSize: 12 };
  const withGuesses = async (draft: Draft, more: Partial<SpeculateSettings>) =>
    tokensOf(speculate(model, prompt, { ...settings, draftTokens: 4, ...more }, draft));
  const plain = await withGuesses(lookupDraft(), { draftTokens: 0 });
  expect(await withGuesses(forgetful([...prompt, ...plain], 12), {})).toEqual(plain);
  expect(await withGuesses(lookupDraft(), { ...plainSampling, repetitionPenalty: 1 })).not.toEqual(plain);
  const [own, judged] = [modelDraft(model, 40), [] as boolean[]];
  await withGuesses(own, { onPass: (guessed, kept) => judged.push(guessed === kept) });
  own.free();
  expect(judged).not.toContain(false); // p is q only if both are penalised alike
});

await test("prompts that cannot be continued are refused as by generate, and leaving early frees the reader", async () => {
  const model = familyModel("llama");
  const settings = { ...plainGenerate, maxTokens: 5, draftTokens: 2 };
  const first = (ids: number[]) => speculate(model, ids, settings, lookupDraft()).next();
  await expect(first([])).rejects.toThrow("There is nothing to continue");
  await expect(first([model.config.vocabSize])).rejects.toThrow("not in the vocabulary");
  await expect(first(randomIds(1, model.config.contextLength + 1, 9))).rejects.toThrow("model's context of");
  for await (const id of speculate(model, [1, 2, 3], settings, lookupDraft())) if (id >= 0) break;
});

//| 05-inference/5-guessing-ahead.ipynb#vocabulary-test
await test("a draft with other tokens is refused in a sentence", () => {
  const [one, other, longer] = ["abc", "abd", "abcd"].map((text) => characterTokenizer([text]));
  checkVocabulary(one, characterTokenizer(["cab"]));
  expect(() => checkVocabulary(one, other)).toThrow(
    'Token 2 is "d" in the draft and "c" in the model: a draft needs',
  );
  expect(() => checkVocabulary(one, longer)).toThrow("The draft has 4 tokens and the model 3");
});

//| 05-inference/5-guessing-ahead.ipynb#table-reader
/** A "model" whose scores after each text are random numbers. */
const tableReader = (seed: number, vocabSize: number): TextReader => ({
  capacity: 99,
  scoresAfter: async (text, count) =>
    Array.from({ length: count }, (_, i) => {
      const read = text.slice(0, text.length - count + i + 1);
      const hash = read.reduce((sum, id) => (sum * 31 + id + 1) % 1_000_003, 7);
      return normals(seed, vocabSize, hash).map((score) => 1.5 * score);
    }),
  free() {},
});

/** The exact probability of each text of `length` tokens after a prompt. */
async function exactTexts(
  reader: TextReader,
  prompt: number[],
  length: number,
  settings: SamplingSettings & { vocabSize?: number },
): Promise<Map<string, number>> {
  let texts = [{ ids: [] as number[], probability: 1 }];
  for (let t = 0; t < length; t++) {
    const longer: typeof texts = [];
    for (const { ids, probability } of texts) {
      const [scores] = await reader.scoresAfter([...prompt, ...ids], 1);
      for (const next of candidatesFor(scores.subarray(0, settings.vocabSize), settings))
        longer.push({ ids: [...ids, next.id], probability: probability * next.probability });
    }
    texts = longer;
  }
  return new Map(texts.map(({ ids, probability }) => [ids.join(), probability]));
}

//| 05-inference/5-guessing-ahead.ipynb#text-misfit
/** How often each of the texts comes out, over many seeds; texts that should never come count as one more. */
async function countTexts(
  { reader, draft, prompt }: { reader: TextReader; draft: Draft; prompt: number[] },
  exact: Map<string, number>,
  settings: SpeculateSettings,
  seeds: number,
): Promise<number[]> {
  const keys = [...exact.keys()];
  const counts = new Array<number>(keys.length + 1).fill(0);
  for (let seed = 0; seed < seeds; seed++) {
    const text = await tokensOf(guessAndCheck(reader, prompt, { ...settings, seed }, draft));
    const place = keys.indexOf(text.join());
    counts[place < 0 ? keys.length : place] += 1;
  }
  return counts;
}

/** A draft that takes the likeliest token, and says that it drew it. */
const lyingDraft = (reader: TextReader): Draft => {
  const [honest, greedy] = [readerDraft(reader), readerDraft(reader)];
  return {
    async guess(text, _, settings, written) {
      const taken = await greedy.guess(text, 1, { ...settings, temperature: 0 }, written);
      const said = await honest.guess(text, 1, settings, written);
      return [{ id: taken[0].id, candidates: said[0].candidates }];
    },
    free() {},
  };
};

//| 05-inference/5-guessing-ahead.ipynb#table-test
await test("short texts come with their exact probabilities, over many seeds; a draft that lies is found out", async () => {
  for (const [seed, more] of [{}, { temperature: 0.7, topK: 3 }, { topP: 0.9 }, { minP: 0.1 }].entries()) {
    const sampling = { ...plainSampling, ...more };
    const [reader, other] = [tableReader(seed, 4), tableReader(seed + 50, 4)];
    const prompt = [seed % 4];
    const exact = await exactTexts(reader, prompt, 3, sampling);
    const probabilities = [...exact.values(), 0];
    const settings = { ...plainGenerate, ...sampling, maxTokens: 3, draftTokens: 1 + (seed % 3) };
    const of = async (draft: Draft, seeds: number) =>
      misfit(await countTexts({ reader, draft, prompt }, exact, settings, seeds), probabilities);
    expect(await of(readerDraft(other), 1500)).toBeLessThan(1);
    expect(await of(lookupDraft(), 600)).toBeLessThan(1);
    expect(await of(lyingDraft(other), 1500)).toBeGreaterThan(1);
  }
});

//| 05-inference/5-guessing-ahead.ipynb#gpu-exact-test
await test("two real models: texts come with their exact probabilities, and a draft that lies is found out", async () => {
  const [model, small] = [familyModel("llama"), familyModel("qwen3")];
  const [reader, draftReader] = [openReader(model, 64, 3), openReader(small, 64, 1)];
  const prompt = randomIds(3, 4, Math.min(model.config.vocabSize, small.config.vocabSize));
  const sampling = { ...plainSampling, vocabSize: 3 };
  const exact = await exactTexts(reader, prompt, 3, sampling);
  const settings = { ...plainGenerate, ...sampling, maxTokens: 3, draftTokens: 2 };
  const of = async (draft: Draft) =>
    misfit(await countTexts({ reader, draft, prompt }, exact, settings, 100), [...exact.values(), 0]);
  expect(await of(readerDraft(draftReader))).toBeLessThan(1);
  expect(await of(lyingDraft(draftReader))).toBeGreaterThan(1);
  reader.free();
  draftReader.free();
});
