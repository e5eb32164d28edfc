// The engine with every kind of model, with what a client can do to it, and when its device is lost.
import fs from "node:fs";
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../lib/src/gpu/device.js";
import { type Choice, type EngineRequest, type GeneratedToken, openEngine } from "../lib/src/infer/engine.js";
import { argmax, likeliestTokens, plainSampling } from "../lib/src/infer/sampling.js";
import { forward, sequenceContext } from "../lib/src/model/decoder.js";
import type { Model } from "../lib/src/model/structure.js";
import { loadModel } from "../lib/src/model/weights.js";
import { withInference } from "../lib/src/tensor/autograd.js";
import { indices } from "../lib/src/tensor/tensor.js";

const folder = "tests/fixtures/families";
await openGpu();

function open(family: string): Model {
  const config = JSON.parse(fs.readFileSync(`${folder}/${family}/config.json`, "utf8"));
  return loadModel(config, fs.readFileSync(`${folder}/${family}/model.safetensors`));
}

const someIds = (count: number, step = 37) => Array.from({ length: count }, (_, i) => (i * step + 11) % 64);

const requestOf = (prompt: number[], more: Partial<EngineRequest> = {}): EngineRequest => ({
  ...{ prompt, maxTokens: 8, seed: 1, stopIds: [], sampling: plainSampling, alternatives: 20, ...more },
});

async function collect({ tokens }: Choice): Promise<GeneratedToken[]> {
  const all: GeneratedToken[] = [];
  for await (const token of tokens) all.push(token);
  return all;
}

/** Waits until an engine has made so many steps, or has nothing to do. */
async function afterSteps(engine: ReturnType<typeof openEngine>, steps: number): Promise<void> {
  while (engine.state().steps < steps && engine.state().running + engine.state().waiting > 0)
    await new Promise((resolve) => setImmediate(resolve));
}

/** Scores after the last token of a text, computed whole and without a cache. */
async function scoresAfter(model: Model, ids: number[]): Promise<Float32Array> {
  const context = sequenceContext(model.config, ids.length);
  const logits = await withInference(
    () => forward(model, indices(ids, [1, ids.length]), context).logits,
  ).array();
  return logits.slice(-model.config.vocabSize);
}

for (const family of ["qwen3", "deepseek_v3", "gemma3", "gpt_oss", "gpt2", "mixtral"])
  test(`${family}: requests get the tokens and probabilities that they get alone, in few blocks`, async () => {
    const model = open(family);
    const requests = [
      requestOf(someIds(30), { maxTokens: 30 }),
      requestOf(someIds(30), { seed: 2, choices: 2 }),
      requestOf(someIds(41, 5), { sampling: { ...plainSampling, temperature: 0 }, maxTokens: 20 }),
      requestOf(someIds(3, 7)),
    ];
    const together = openEngine(model, { blocks: 8, maxSequences: 3, prefillTokens: 20 });
    const choices = requests.flatMap((request) => together.submit(request));
    const texts = await Promise.all(choices.map(collect));
    expect(together.state().preemptions).toBeGreaterThan(0);
    const single = openEngine(model, { maxSequences: 1, prefixCache: false });
    const alone: GeneratedToken[][] = [];
    for (const request of requests)
      for (const choice of single.submit(request)) alone.push(await collect(choice));
    expect(texts).toEqual(alone);
    await Promise.all([together.close(), single.close()]);
  });

test("windows hold in decoding: far behind its window a model writes what the whole text says", async () => {
  const model = open("mistral");
  const engine = openEngine(model, { maxSequences: 2, prefillTokens: 7 });
  const sampling = { ...plainSampling, temperature: 0 };
  const [other] = engine.submit(requestOf(someIds(5, 3), { maxTokens: 30 }));
  const [choice] = engine.submit(requestOf(someIds(20), { sampling, maxTokens: 12 }));
  const text = someIds(20);
  for (const { id } of await collect(choice)) {
    expect(id).toBe(argmax(await scoresAfter(model, text)));
    text.push(id);
  }
  expect((await collect(other)).length).toBe(30);
  await engine.close();
});

test("probabilities and alternatives are those of the model's own scores", async () => {
  const model = open("qwen3");
  const engine = openEngine(model, { maxSequences: 2 });
  const [choice] = engine.submit(
    requestOf(someIds(9), { alternatives: 3, maxTokens: 2, sampling: { ...plainSampling, topK: 2 } }),
  );
  const [silent] = engine.submit(requestOf(someIds(9), { alternatives: undefined, maxTokens: 1 }));
  const [first] = await collect(choice);
  const expected = likeliestTokens(await scoresAfter(model, someIds(9)), 3);
  first.alternatives!.forEach(({ id, logProbability }, i) => {
    expect(id).toBe(expected[i].id);
    expect(logProbability).toBeCloseTo(expected[i].logProbability, 4);
  });
  expect(first.logProbability).toBe(first.alternatives!.find(({ id }) => id === first.id)!.logProbability);
  expect(Object.keys((await collect(silent))[0])).toEqual(["id"]);
  await engine.close();
});

test("a text keeps to what its constraint allows, and ends with a sentence where that is nothing", async () => {
  const model = open("qwen3");
  const engine = openEngine(model);
  const only = (allowed: number[]) => {
    const mask = new Uint32Array(2);
    for (const id of allowed) mask[id >> 5] |= 1 << (id & 31);
    return mask;
  };
  const accepted: number[] = [];
  const masks = [only([3, 40]), undefined, only([5]), only([])];
  const constraint = () => ({
    mask: () => masks[accepted.length],
    accept: (id: number) => void accepted.push(id),
  });
  const [choice] = engine.submit(requestOf(someIds(4), { constraint }));
  const [free] = engine.submit(requestOf(someIds(4)));
  const ids: number[] = [];
  const reading = async () => {
    for await (const { id } of choice.tokens) ids.push(id);
  };
  await expect(reading()).rejects.toThrow("No token may come next");
  expect([3, 40]).toContain(ids[0]);
  expect(ids[2]).toBe(5);
  expect(ids).toEqual(accepted);
  expect((await collect(free)).length).toBe(8);
  const penalties = {
    ...plainSampling,
    temperature: 0,
    bias: [[7, 50]] as [number, number][],
    presencePenalty: 60,
  };
  const [biased] = engine.submit(requestOf(someIds(4), { sampling: penalties, maxTokens: 2 }));
  const [first, second] = await collect(biased);
  expect(first.id).toBe(7);
  expect(second.id).not.toBe(7);
  expect(engine.state()).toMatchObject({ running: 0, waiting: 0, freeBlocks: engine.state().blocks });
  await engine.close();
});

test("aborts give blocks back at once: those who abort, those who leave, and those who wait", async () => {
  const engine = openEngine(open("qwen3"), { blocks: 6, maxSequences: 3 });
  const long = { maxTokens: 60 };
  const [aborted] = engine.submit(requestOf(someIds(30), long));
  const [left] = engine.submit(requestOf(someIds(20, 3), long));
  const [waiting] = engine.submit(requestOf(someIds(60, 5), long));
  await afterSteps(engine, 3);
  const before = engine.state();
  expect(before).toMatchObject({ running: 2, waiting: 1 });
  aborted.abort();
  expect(engine.state().freeBlocks).toBeGreaterThanOrEqual(before.freeBlocks + 2);
  waiting.abort();
  expect(engine.state().waiting).toBe(0);
  for await (const _ of left.tokens) break;
  expect([aborted, left, waiting].map(({ finishReason }) => finishReason)).toEqual([
    "aborted",
    "aborted",
    "aborted",
  ]);
  expect(engine.state()).toMatchObject({ running: 0, waiting: 0, freeBlocks: 6 });
  expect((await collect(engine.submit(requestOf(someIds(30)))[0])).length).toBe(8);
  expect(engine.state().freeBlocks).toBe(6);
  await engine.close();
});

test("a text ends where its engine or its model has no more room, at a stop, and at once if it may have no tokens", async () => {
  const model = open("qwen3");
  const engine = openEngine(model, { blocks: 3 });
  const prompt = someIds(30);
  const [full] = engine.submit(requestOf(prompt, { maxTokens: 999 }));
  prompt.fill(0); // the engine has its own
  const all = await collect(full);
  expect([all.length, full.finishReason]).toEqual([19, "length"]);
  const [stopped] = engine.submit(requestOf(someIds(30), { stopIds: [all[2].id] }));
  expect(await collect(stopped)).toEqual(
    all.slice(
      0,
      all.findIndex(({ id }) => id === all[2].id),
    ),
  );
  expect(stopped.finishReason).toBe("stop");
  const [none] = engine.submit(requestOf(someIds(3), { maxTokens: 0 }));
  expect([await collect(none), none.finishReason]).toEqual([[], "length"]);
  const refusals: [Partial<EngineRequest>, string][] = [
    [{ prompt: [] }, "give at least one token"],
    [{ prompt: [64] }, "not in the vocabulary"],
    [{ prompt: someIds(49) }, "open it with more blocks"],
    [{ prompt: someIds(257) }, "model's context of 256"],
    [{ alternatives: 21 }, "0 to 20 alternatives"],
    [{ sampling: { ...plainSampling, temperature: -1 } }, "temperature must be"],
  ];
  for (const [more, sentence] of refusals)
    expect(() => engine.submit(requestOf(someIds(3), more))).toThrow(sentence);
  await engine.close();
  expect(() => engine.submit(requestOf(someIds(3)))).toThrow("closed");
});

test("closing ends what runs; a lost device is one clear error for all, and a new engine goes on", async () => {
  const model = open("qwen3");
  const request = requestOf(someIds(30), { maxTokens: 200 });
  const closing = openEngine(model);
  const [closed] = closing.submit(request);
  await afterSteps(closing, 2);
  await closing.close();
  expect(closed.finishReason).toBe("aborted");
  expect((await collect(closed)).length).toBeLessThan(200);
  const engine = openEngine(model, { maxSequences: 1 });
  const choices = [...engine.submit(request), ...engine.submit(request)];
  await afterSteps(engine, 3);
  currentGpu().device.destroy();
  for (const choice of choices) await expect(collect(choice)).rejects.toThrow("device was lost");
  expect(engine.state()).toMatchObject({ running: 0, waiting: 0 });
  expect(engine.state().failed).toContain("device was lost");
  expect(() => engine.submit(request)).toThrow("serves no more requests: The GPU device was lost");
  await engine.close();
  await openGpu();
  const again = openEngine(open("qwen3"));
  expect((await collect(again.submit(requestOf(someIds(3)))[0])).length).toBe(8);
  await again.close();
});
