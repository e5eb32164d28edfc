// The same request gives the same bits, however a text is cut into chunks and whatever is computed beside it.
import fs from "node:fs";
import { expect, test } from "vitest";
import { readSafetensors, toInt32 } from "../lib/src/formats/safetensors.js";
import { openGpu } from "../lib/src/gpu/device.js";
import { type KeyValueCache, keyValueCache, pagedCache } from "../lib/src/infer/cache.js";
import { parseModelConfig } from "../lib/src/model/config.js";
import { forward } from "../lib/src/model/decoder.js";
import { randomModel } from "../lib/src/model/families.js";
import { ropeTables } from "../lib/src/model/positions.js";
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

/** Two texts of 24 tokens. */
function textsOf(family: string): number[][] {
  const { tensors } = readSafetensors(fs.readFileSync(`${folder}/${family}/expected.safetensors`));
  const ids = Array.from(toInt32(tensors.get("input_ids")!));
  return [ids.slice(0, 24), ids.slice(24, 48)];
}

const draw = (most: number) => 1 + Math.floor(Math.random() * most);

/** Reads each text into a cache from token `starts` on, `tokens` of each at a time: logits [texts, tokens, vocabulary]. */
async function readTokens(
  model: Model,
  cache: KeyValueCache,
  texts: number[][],
  starts: number[],
  tokens: number,
) {
  const shape = [texts.length, tokens];
  const places = starts.flatMap((start) => Array.from({ length: tokens }, (_, i) => start + i));
  const positions = indices(places, shape);
  const ids = texts.flatMap((text, t) =>
    Array.from({ length: tokens }, (_, i) => text[(starts[t] + i) % text.length]),
  );
  const context = { positions, ...ropeTables(model.config, 128), cache: cache.at(positions) };
  const logits = await withInference(() => forward(model, indices(ids, shape), context).logits).array();
  const { vocabSize } = model.config;
  return texts.map((_, t) =>
    Array.from({ length: tokens }, (_, i) =>
      logits.slice((t * tokens + i) * vocabSize, (t * tokens + i + 1) * vocabSize),
    ),
  );
}

const bitsOf = (rows: Float32Array[]) => rows.map((row) => Array.from(new Uint32Array(row.buffer)));

/** A model of a family, wider than the fixture, so that its sums have several slices. */
function wider(family: string, more: Record<string, unknown>): Model {
  const config = JSON.parse(fs.readFileSync(`${folder}/${family}/config.json`, "utf8"));
  return randomModel(parseModelConfig({ ...config, ...more }), 1);
}

test("so do mixtures of experts that are wider than the fixtures", async () => {
  for (const [family, more] of [
    ["qwen3_moe", { hidden_size: 160, moe_intermediate_size: 96 }],
    ["gpt_oss", { hidden_size: 96, intermediate_size: 160 }],
  ] as const) {
    const model = wider(family, more);
    const [text] = textsOf(family);
    const [whole, chunks] = [keyValueCache(model.config, 24), keyValueCache(model.config, 60)];
    const [expected] = await readTokens(model, whole, [text], [0], 24);
    for (const [from, tokens] of [
      [0, 1],
      [1, 1],
      [2, 13],
      [15, 1],
      [16, 8],
    ]) {
      const [rows] = await readTokens(model, chunks, [text], [from], tokens);
      expect(bitsOf(rows), `${family}, ${tokens} from ${from} on`).toEqual(
        bitsOf(expected.slice(from, from + tokens)),
      );
    }
  }
});

for (const family of ["qwen3", "qwen3_moe", "gpt_oss", "gemma3", "deepseek_v3", "gpt2", "olmoe"]) {
  test(`${family}: a text read in chunks of any size, alone or beside others, gives the same bits`, async () => {
    const model = open(family);
    const texts = textsOf(family);
    const alone: Float32Array[][] = [];
    for (const text of texts) {
      const cache = keyValueCache(model.config, 24);
      const rows: Float32Array[] = [];
      for (let at = 0; at < 24; at++) rows.push((await readTokens(model, cache, [text], [at], 1))[0][0]);
      alone.push(rows);
      cache.free();
    }
    // In one piece, beside the other, in blocks that lie anywhere.
    const paged = pagedCache(model.config, 8, [
      [5, 2, 7],
      [1, 6, 0],
    ]);
    const together = await readTokens(model, paged, texts, [0, 0], 24);
    for (const t of [0, 1]) expect(bitsOf(together[t])).toEqual(bitsOf(alone[t]));
    // In chunks of random sizes, with more room than it needs.
    const roomy = keyValueCache(model.config, 96);
    for (let at = 0; at < 24; ) {
      const tokens = Math.min(draw(11), 24 - at);
      const [rows] = await readTokens(model, roomy, [texts[0]], [at], tokens);
      expect(bitsOf(rows)).toEqual(bitsOf(alone[0].slice(at, at + tokens)));
      at += tokens;
    }
  });
}
