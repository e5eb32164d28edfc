// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { openEngine } from "../../src/infer/engine.js";
import {
  type GenerateSettings,
  endOfText,
  generate,
  generateText,
  plainGenerate,
  promptIds,
} from "../../src/infer/generate.js";
import { argmax } from "../../src/infer/sampling.js";
import { openSession } from "../../src/infer/session.js";
import { loadModel } from "../../src/model/weights.js";
import { characterTokenizer } from "../../src/tokenizer/characters.js";

//| 05-inference/3-many-at-once.ipynb#reference-model-2
await openGpu();

/** A tiny Qwen3-MoE with random weights, found from the repository or from a chapter's folder. */
function referenceModel() {
  const root = ["tests", "../../tests"].find((path) => fs.existsSync(path));
  const folder = `${root}/fixtures/families/qwen3_moe`;
  return loadModel(
    JSON.parse(fs.readFileSync(`${folder}/config.json`, "utf8")),
    fs.readFileSync(`${folder}/model.safetensors`),
  );
}

const model = referenceModel();

const { vocabSize, contextLength } = model.config;

const someIds = (count: number) => Array.from({ length: count }, (_, i) => (i * 37 + 11) % vocabSize);

/** The likeliest token after a text, which a session reads whole. */
async function likeliestAfter(ids: number[]): Promise<number> {
  const session = openSession(model, ids.length);
  const scores = await session.read(ids);
  session.free();
  return argmax(scores);
}

//| 05-inference/3-many-at-once.ipynb#generate-tests
/** All tokens that follow a prompt. */
async function newTokens(prompt: number[], settings: GenerateSettings): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of generate(model, prompt, settings)) ids.push(id);
  return ids;
}

await test("greedy generation takes the likeliest token of the whole text, each time", async () => {
  const text = someIds(4);
  for await (const id of generate(model, text.slice(), { ...plainGenerate, maxTokens: 6, temperature: 0 })) {
    expect(id).toBe(await likeliestAfter(text));
    text.push(id);
  }
  expect(text.length).toBe(10);
});

await test("the same seed gives the same tokens, another seed others", async () => {
  const tokens = (seed: number) => newTokens(someIds(3), { ...plainGenerate, maxTokens: 12, seed });
  expect(await tokens(1)).toEqual(await tokens(1));
  expect(await tokens(1)).not.toEqual(await tokens(2));
});

//| 05-inference/3-many-at-once.ipynb#generate-end-tests
await test("generation ends at a stop id, which is not part of the text", async () => {
  const settings = { ...plainGenerate, maxTokens: 8, temperature: 0 };
  const all = await newTokens(someIds(2), settings);
  expect(await newTokens(someIds(2), { ...settings, stopIds: [all[3]] })).toEqual(
    all.slice(0, all.indexOf(all[3])),
  );
});

await test("when the context is full, the text goes on from its later half", async () => {
  const settings = { ...plainGenerate, maxTokens: 4, temperature: 0 };
  const prompt = someIds(contextLength - 1);
  const ids = await newTokens(prompt, settings);
  expect(ids.length).toBe(4);
  // Two tokens more and the context is full: the third is chosen after half a context of text.
  const text = [...prompt, ...ids.slice(0, 2)].slice(-contextLength / 2);
  expect(ids.slice(2)).toEqual(await newTokens(text, { ...settings, maxTokens: 2 }));
});

await test("prompts that cannot be continued are refused in words", async () => {
  const first = (ids: number[]) => generate(model, ids, { ...plainGenerate, maxTokens: 1 }).next();
  await expect(first([])).rejects.toThrow("give at least one token");
  await expect(first([vocabSize])).rejects.toThrow("not in the vocabulary");
  await expect(first(someIds(contextLength + 1))).rejects.toThrow("model's context of");
});

//| 05-inference/3-many-at-once.ipynb#generate-together-test
await test("texts written side by side do not disturb each other, and an engine serves one after the other", async () => {
  const settings = { ...plainGenerate, maxTokens: 8 };
  const alone = [
    await newTokens(someIds(3), settings),
    await newTokens(someIds(5), { ...settings, seed: 2 }),
  ];
  const both = [newTokens(someIds(3), settings), newTokens(someIds(5), { ...settings, seed: 2 })];
  expect(await Promise.all(both)).toEqual(alone);
  const engine = openEngine(model, { blocks: 2 });
  for (const [i, count] of [3, 5].entries()) {
    const ids: number[] = [];
    for await (const id of generate(model, someIds(count), { ...settings, seed: 2 * i }, engine))
      ids.push(id);
    expect(ids).toEqual(alone[i]);
  }
  await engine.close();
});

//| 05-inference/3-many-at-once.ipynb#text-tests
await test("text comes in pieces that make up the whole, and ends before a stop string", async () => {
  const letters = Array.from({ length: vocabSize }, (_, i) =>
    String.fromCodePoint(i % 2 === 0 ? 97 + i : 0x1f600 + i),
  );
  const tokenizer = characterTokenizer([letters.join("")]);
  const textWith = async (stop: string[]) => {
    let text = "";
    for await (const piece of generateText(model, tokenizer, letters[0], {
      ...plainGenerate,
      maxTokens: 9,
      stop,
    }))
      text += piece;
    return text;
  };
  const whole = await textWith([]);
  expect([...whole].length).toBe(9);
  const stop = [...whole].slice(4, 6).join("");
  expect(await textWith([stop])).toBe(whole.slice(0, whole.indexOf(stop)));
  expect(promptIds(tokenizer, letters[0])).toEqual(tokenizer.encode(letters[0]));
});

await test("an empty prompt begins a document where the tokenizer can say so; tokens without text are never chosen", async () => {
  const tokenizer = { ...characterTokenizer(["abcdefgh"]), specials: { "<|endoftext|>": 3 } };
  expect([...promptIds(tokenizer, "")]).toEqual([3]);
  const around = { before: [2], after: [3] };
  expect([...promptIds({ ...tokenizer, around }, "ba")]).toEqual([2, 1, 0]);
  expect([...promptIds({ ...tokenizer, around }, "")]).toEqual([2]);
  expect(endOfText(model.config, tokenizer)).toEqual([3]);
  expect(endOfText({ ...model.config, eosTokenIds: [9] }, tokenizer)).toEqual([9]);
  let text = "";
  for await (const piece of generateText(model, tokenizer, "", { ...plainGenerate, maxTokens: 40 }))
    text += piece;
  expect(text).toMatch(/^[a-h]{40}$/); // the model has 64 tokens, the tokenizer 8
});
