// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { keyValueCache } from "../../src/infer/cache.js";
import { openSession, prefillChunk } from "../../src/infer/session.js";
import { cacheBytes } from "../../src/model/count.js";
import { forward, sequenceContext } from "../../src/model/decoder.js";
import { loadModel } from "../../src/model/weights.js";
import { withoutGradients } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { indices, scope } from "../../src/tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#reference-model
await openGpu();

/** A tiny Qwen3-MoE with random weights, found from the repository or from a chapter's folder. */
function referenceModel() {
  const root = ["tests", "../../tests"].find((each) => fs.existsSync(each));
  const folder = `${root}/fixtures/families/qwen3_moe`;
  return loadModel(
    JSON.parse(fs.readFileSync(`${folder}/config.json`, "utf8")),
    fs.readFileSync(`${folder}/model.safetensors`),
  );
}

const model = referenceModel();

const { vocabSize } = model.config;

const someIds = (count: number) => Array.from({ length: count }, (_, i) => (i * 37 + 11) % vocabSize);

//| 05-inference/2-the-cache.ipynb#cache-test
/** Tokens of every text that is computed at once: padded to one length, so that its kernels are compiled once. */
const wholeLength = prefillChunk + 16;

/** The scores after the last token, with the whole text computed at once and no cache. */
async function scoresWithoutCache(ids: number[]): Promise<Float32Array> {
  const padded = Array.from({ length: wholeLength }, (_, i) => ids[i] ?? 0); // no token sees what comes after it
  const logits = await scope(() => {
    const context = sequenceContext(model.config, wholeLength);
    return withoutGradients(() => forward(model, indices(padded, [1, wholeLength]), context)).logits;
  }).array();
  return logits.slice((ids.length - 1) * vocabSize, ids.length * vocabSize);
}

await test("a cache changes nothing: chunks and single tokens give the scores of the whole text", async () => {
  const ids = someIds(prefillChunk + 5);
  const session = openSession(model, 64);
  const pieces = [
    ids.slice(0, 3),
    ids.slice(3, 4),
    ids.slice(4, 4 + prefillChunk),
    ids.slice(4 + prefillChunk),
  ];
  let read: number[] = [];
  for (const piece of pieces) {
    const scores = await session.read(piece);
    read = [...read, ...piece];
    expect(relativeError(scores, await scoresWithoutCache(read))).toBeLessThan(1e-5);
  }
  expect(session.cacheBytes).toBe(cacheBytes(model.config, 64));
  session.free();
});

//| 05-inference/2-the-cache.ipynb#int8-session-test
await test("a cache of int8 gives the same bits in chunks and token by token, and refuses odd widths", async () => {
  const { config } = model;
  const ids = someIds(8);
  const reading = async (chunk: number) => {
    const session = openSession(model, 64, { cache: "int8" });
    let scores: Float32Array | undefined;
    for (let i = 0; i < ids.length; i += chunk) scores = await session.read(ids.slice(i, i + chunk));
    session.free();
    return scores;
  };
  expect(await reading(1)).toEqual(await reading(8));
  expect(keyValueCache(config, 16, 1, "int8").bytes).toBeLessThan(keyValueCache(config, 16).bytes);
  expect(() => keyValueCache({ ...config, headDim: 6 }, 16, 1, "int8")).toThrow("a multiple of 4, not 6");
});
