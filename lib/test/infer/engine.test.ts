// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { freeBlocks } from "../../src/infer/blocks.js";
import {
  type EngineParts,
  type EngineRequest,
  type EngineSettings,
  type Sequence,
  type StepRun,
  engineParts,
  engineStep,
  enqueue,
  freeEngine,
} from "../../src/infer/engine.js";
import { plainSampling } from "../../src/infer/sampling.js";
import { loadModel } from "../../src/model/weights.js";
import { rowWindow } from "../../src/tensor/pieces.js";

//| 05-inference/3-many-at-once.ipynb#engine-model
await openGpu();

/** The little Qwen3 of our tests, found from the repository or from a chapter's folder. */
function testModel() {
  const root = ["tests", "../../tests"].find((path) => fs.existsSync(path));
  const folder = `${root}/fixtures/families/qwen3`;
  return loadModel(
    JSON.parse(fs.readFileSync(`${folder}/config.json`, "utf8")),
    fs.readFileSync(`${folder}/model.safetensors`),
  );
}

const model = testModel();

/** Some tokens; those with the same number begin alike. */
const tokensOf = (count: number, number = 0) =>
  Array.from({ length: count }, (_, i) =>
    i < 33 ? (i * 37 + 11) % 64 : (i * (7 + 2 * number) + number) % 64,
  );

/** A request, plain unless said otherwise. */
const requestOf = (prompt: number[], more: Partial<EngineRequest> = {}): EngineRequest => ({
  ...{ prompt, maxTokens: 6, seed: 1, stopIds: [], sampling: plainSampling, ...more },
});

//| 05-inference/3-many-at-once.ipynb#drive-engine
/** A request that comes at a step, and how many tokens each of its choices may have until it is aborted. */
interface Arrival {
  step: number;
  request: EngineRequest;
  patience: number;
}

/** A text as it was written: its tokens, and the bits of the scores by which each was drawn. */
interface Written {
  sequence: Sequence;
  scores: string[];
}

/** Serves requests step by step, and gives what was written for each choice, and the runs of each step. */
async function drive(
  parts: EngineParts,
  arrivals: Arrival[],
): Promise<{ texts: Written[]; steps: StepRun[][] }> {
  const [texts, steps]: [Written[], StepRun[][]] = [[], []];
  const patience = new Map<Sequence, number>();
  let coming = arrivals;
  while (coming.length + parts.running.length + parts.waiting.length > 0) {
    for (const { request, patience: most } of coming.filter(({ step }) => step <= steps.length))
      for (const sequence of enqueue(parts, request)) {
        texts.push({ sequence, scores: [] });
        patience.set(sequence, most);
      }
    coming = coming.filter(({ step }) => step > steps.length);
    const { runs, drawn } = await engineStep(parts);
    const { vocabSize } = parts.model.config;
    const scores =
      drawn.length > 0 ? await rowWindow(parts.scores, 0, drawn.length).array() : new Float32Array();
    drawn.forEach((sequence, row) => {
      const bits = new Uint32Array(scores.slice(row * vocabSize, (row + 1) * vocabSize).buffer);
      texts.find((text) => text.sequence === sequence)!.scores.push(bits.join());
      if (writtenBy(sequence).length >= patience.get(sequence)!) sequence.choice.abort();
    });
    steps.push(runs);
  }
  return { texts, steps };
}

/** The tokens that were written after a prompt. */
const writtenBy = ({ tokens, request }: Sequence) => tokens.slice(request.prompt.length);

//| 05-inference/3-many-at-once.ipynb#same-alone
const single = engineParts(model, { maxSequences: 1, prefixCache: false });

/** What requests get alone, by themselves. */
const answers = new Map<string, Written[]>();

/** What a request gets alone: no other text, no cache, and its prompt read in chunks as large as can be. */
async function alone(request: EngineRequest): Promise<Written[]> {
  const key = JSON.stringify(request);
  const { texts } = answers.has(key)
    ? { texts: answers.get(key)! }
    : await drive(single, [{ step: 0, request, patience: 99 }]);
  answers.set(key, texts);
  return texts;
}

/** Serves arrivals with an engine of some sizes, and holds everything against what each request gets alone. */
async function serveAndCompare(settings: EngineSettings, arrivals: Arrival[]) {
  const parts = engineParts(model, settings);
  const { texts, steps } = await drive(parts, arrivals);
  for (const { sequence, scores } of texts) {
    const expected = (await alone(sequence.request))[sequence.number];
    const tokens = writtenBy(expected.sequence);
    const isWhole = sequence.choice.finishReason !== "aborted";
    const count = isWhole ? tokens.length : writtenBy(sequence).length;
    expect(writtenBy(sequence)).toEqual(tokens.slice(0, count));
    expect(scores).toEqual(expected.scores.slice(0, isWhole ? undefined : count));
    if (isWhole) expect(sequence.choice.finishReason).toBe(expected.sequence.choice.finishReason);
  }
  expect(freeBlocks(parts.pool)).toBe(parts.settings.blocks);
  expect(parts.pool.owners.every((count) => count === 0)).toBe(true);
  freeEngine(parts);
  return { steps, counts: parts.counts, texts };
}

//| 05-inference/3-many-at-once.ipynb#invariance-property
/** Engines, some with hardly enough blocks. */
const someSettings = fc.record({
  maxSequences: fc.integer({ min: 1, max: 5 }),
  prefillTokens: fc.constantFrom(1, 7, 16, 40, 256),
  blocks: fc.integer({ min: 5, max: 16 }),
  prefixCache: fc.boolean(),
});

const someRequest = fc
  .record({
    length: fc.integer({ min: 1, max: 60 }),
    number: fc.nat(2),
    seed: fc.nat(2),
    temperature: fc.constantFrom(0, 1),
    choices: fc.integer({ min: 1, max: 3 }),
    maxTokens: fc.integer({ min: 0, max: 12 }),
  })
  .map(({ length, number, temperature, ...more }) =>
    requestOf(tokensOf(length, number), { ...more, sampling: { ...plainSampling, temperature } }),
  );

const someArrivals = fc.array(
  fc.record({ step: fc.nat(12), request: someRequest, patience: fc.constantFrom(1, 3, 99, 99) }),
  { minLength: 1, maxLength: 6 },
);

await test("whoever else is served, in blocks however few: each request has the bits that it has alone", async () => {
  await fc.assert(
    fc.asyncProperty(someSettings, someArrivals, async (settings, arrivals) => {
      await serveAndCompare(settings, arrivals);
    }),
    { numRuns: 12 },
  );
});

//| 05-inference/3-many-at-once.ipynb#engine-faults
const now = (request: EngineRequest): Arrival => ({ step: 0, request, patience: 99 });

await test("a prompt that is known to its last block still has tokens to compute", async () => {
  for (const length of [16, 32]) {
    const later = { ...now(requestOf(tokensOf(length), { seed: 2 })), step: 9 };
    const { counts, texts, steps } = await serveAndCompare({ blocks: 8 }, [
      now(requestOf(tokensOf(length))),
      later,
    ]);
    expect(texts[1].sequence.choice.cachedTokens).toBe(length - 16);
    expect([counts.prefixQueries, counts.prefixHits]).toEqual([2 * length, length - 16]);
    expect(steps[9][0].parts[0]).toMatchObject({ start: length - 16, count: 16 });
  }
});

await test("a text that lost its blocks finds them again, as far as they are still there", async () => {
  const requests = [tokensOf(62), tokensOf(62).reverse()].map((prompt) =>
    requestOf(prompt, { maxTokens: 20 }),
  );
  const { counts, steps, texts } = await serveAndCompare({ blocks: 9, maxSequences: 2 }, requests.map(now));
  expect(counts.preemptions).toBe(1);
  const parts = steps
    .flatMap((runs) => runs.flatMap((run) => run.parts))
    .filter(({ sequence }) => sequence === texts[1].sequence);
  const again = parts.findIndex(({ start }, i) => i > 0 && start < parts[i - 1].start);
  expect(parts[again].start).toBe(48); // the first text took the last of its four whole blocks
});

await test("choices share the blocks of their prompt, and each draws its own first token", async () => {
  const request = requestOf(tokensOf(40), { choices: 6, maxTokens: 2 });
  for (const prefixCache of [true, false]) {
    const { steps, texts } = await serveAndCompare({ blocks: 8, prefixCache }, [now(request)]);
    expect(new Set(texts.map(({ sequence }) => writtenBy(sequence)[0])).size).toBeGreaterThan(2);
    expect(new Set(texts.map(({ scores }) => scores[0])).size).toBe(1);
    const read = steps.flatMap((runs) => runs.flatMap((run) => run.parts)).map(({ count }) => count);
    expect(read.reduce((a, b) => a + b)).toBe(40 + 5 * 8 + 6); // the prompt once, of which five more read what no whole block holds
  }
  const [first] = await alone(requestOf(tokensOf(40), { maxTokens: 2 }));
  expect(writtenBy(first.sequence)).toEqual(writtenBy((await alone(request))[0].sequence));
});
