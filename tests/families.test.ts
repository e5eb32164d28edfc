// Every family in fixtures/families: what transformers computes with a tiny model of it, we compute too, in every way that a model is
// run. A new folder there is picked up by itself.
import fs from "node:fs";
import { expect, test } from "vitest";
import { tokensInMemory } from "../lib/src/data/shards.js";
import {
  type SafetensorsTensor,
  readSafetensors,
  toFloat32,
  toInt32,
  writeSafetensors,
} from "../lib/src/formats/safetensors.js";
import { openGpu } from "../lib/src/gpu/device.js";
import { keyValueCache } from "../lib/src/infer/cache.js";
import { generate, plainGenerate } from "../lib/src/infer/generate.js";
import { ignoredTarget } from "../lib/src/kernels/cross-entropy.js";
import type { BlockContext } from "../lib/src/model/structure.js";
import {
  completeModelConfig,
  configWarnings,
  modelConfigText,
  parseModelConfig,
} from "../lib/src/model/config.js";
import { countParameters } from "../lib/src/model/count.js";
import { forward, sequenceContext } from "../lib/src/model/decoder.js";
import { modelFamilies, parametersOf, randomModel, weightsOf } from "../lib/src/model/families.js";
import { ropeTables } from "../lib/src/model/positions.js";
import { fileNumbers, fileTensors } from "../lib/src/model/stored.js";
import type { Model } from "../lib/src/model/structure.js";
import { loadModel, saveModel } from "../lib/src/model/weights.js";
import { gradients, withoutGradients } from "../lib/src/tensor/autograd.js";
import { relativeError } from "../lib/src/tensor/check.js";
import { indices } from "../lib/src/tensor/tensor.js";
import { evaluate, recordEvaluation } from "../lib/src/train/evaluate.js";
import { train } from "../lib/src/train/loop.js";
import { defaultOptimizer } from "../lib/src/train/optimizers.js";
import { startRun } from "../lib/src/train/run.js";
import { batchLoss } from "../lib/src/train/step.js";

const folder = "tests/fixtures/families";
const families = fs.readdirSync(folder).sort();

await openGpu();

function read(family: string, file: string) {
  return readSafetensors(fs.readFileSync(`${folder}/${family}/${file}.safetensors`)).tensors;
}

function configOf(family: string): Record<string, unknown> {
  return JSON.parse(fs.readFileSync(`${folder}/${family}/config.json`, "utf8"));
}

function open(family: string): Model {
  return loadModel(configOf(family), fs.readFileSync(`${folder}/${family}/model.safetensors`));
}

/** The ids [2, 24] that the reference was given, its logits [2, 24, vocabulary], and its loss. */
function referenceOf(family: string) {
  const expected = read(family, "expected");
  const ids = toInt32(expected.get("input_ids")!);
  const { shape } = expected.get("logits")!;
  const [batch, tokens, vocab] = shape;
  const logits = toFloat32(expected.get("logits")!);
  return { ids, batch, tokens, vocab, logits, loss: toFloat32(expected.get("loss")!)[0] };
}

/** The largest difference of rows [rows, vocab] from those of a reference, whose number `rowOf` tells; rows that it does not know are padding. */
function largestDifference(
  logits: Float32Array,
  reference: { logits: Float32Array; vocab: number },
  rowOf: (row: number) => number | undefined,
): number {
  const { vocab } = reference;
  let largest = 0;
  for (let row = 0; row < logits.length / vocab; row++) {
    const other = rowOf(row);
    if (other === undefined) continue;
    for (let i = 0; i < vocab; i++) {
      const difference = Math.abs(logits[row * vocab + i] - reference.logits[other * vocab + i]);
      if (!(difference <= largest)) largest = difference; // NaN too
    }
  }
  return largest;
}

/** Logits of ids [batch, tokens] in a context. */
function logitsOf(model: Model, ids: ArrayLike<number>, shape: number[], context: BlockContext) {
  return withoutGradients(() => forward(model, indices(ids, shape), context).logits).array();
}

for (const family of families) {
  test(`${family}: logits, loss and the gradient of every weight`, async () => {
    const model = open(family);
    const ignored = configWarnings(configOf(family)).filter(
      (warning) => !warning.endsWith("no token has that id."),
    );
    expect(ignored).toEqual([]);
    const reference = referenceOf(family);
    const { ids, batch, tokens } = reference;
    const context = sequenceContext(model.config, tokens);
    const logits = await logitsOf(model, ids, [batch, tokens], context);
    expect(largestDifference(logits, reference, (row) => row)).toBeLessThan(2e-4);
    const next = ids.map((_, i) => ((i + 1) % tokens === 0 ? ignoredTarget : ids[i + 1]));
    const inputs = indices(ids, [batch, tokens]);
    const { loss } = batchLoss(model, { inputs, targets: indices(next, [batch, tokens]) }, context);
    expect(Math.abs((await loss.value()) - reference.loss)).toBeLessThan(1e-5);
    const parameters = parametersOf(model);
    const found = gradients(
      loss,
      parameters.map(({ value }) => value),
    );
    const values = new Map<string, Float32Array>();
    for (const [i, { name }] of parameters.entries()) values.set(name, await found[i].array());
    const theirs = read(family, "gradients");
    const ours = fileTensors(weightsOf(model.config));
    expect([...ours.keys()].sort()).toEqual([...theirs.keys()].sort());
    for (const [name, tensor] of ours) {
      if (tensor.holds.every(({ weight }) => weight.role === "buffer")) continue; // no gradient reaches it
      const gradient = fileNumbers(tensor, (weight) => values.get(weight.name)!);
      expect(relativeError(gradient, toFloat32(theirs.get(name)!)), name).toBeLessThan(1e-3);
    }
  });

  test(`${family}: token by token through the cache, and in one chunk after another`, async () => {
    const model = open(family);
    const reference = referenceOf(family);
    const { ids, batch, tokens } = reference;
    for (const chunk of [1, 5]) {
      const cache = keyValueCache(model.config, tokens, batch);
      const turns = ropeTables(model.config, tokens);
      for (let from = 0; from < tokens; from += chunk) {
        const count = Math.min(chunk, tokens - from);
        const positions = indices(Array.from({ length: count }, (_, i) => from + i));
        const part = Array.from({ length: batch }, (_, b) => [
          ...ids.subarray(b * tokens + from, b * tokens + from + count),
        ]).flat();
        const context = { positions, ...turns, cache: cache.at(positions) };
        const logits = await logitsOf(model, part, [batch, count], context);
        const rowOf = (row: number) => Math.floor(row / count) * tokens + from + (row % count);
        expect(largestDifference(logits, reference, rowOf)).toBeLessThan(2e-4);
      }
      cache.free();
    }
  });

  for (const side of ["left", "right"])
    test(`${family}: in a batch of unequal lengths, padded on the ${side}`, async () => {
      const model = open(family);
      const reference = referenceOf(family);
      const { ids, tokens } = reference;
      const lengths = [tokens, tokens - 7, 3]; // of the two texts, and of the first again
      const firsts = lengths.map((length) => (side === "left" ? tokens - length : 0));
      const placed = lengths.flatMap((length, b) =>
        Array.from({ length: tokens }, (_, t) => {
          const at = t - firsts[b];
          return at >= 0 && at < length ? ids[(b % 2) * tokens + at] : 0;
        }),
      );
      const positions = indices(
        lengths.flatMap(() => Array.from({ length: tokens }, (_, t) => t)),
        [3, tokens],
      );
      const firstKey = indices(
        firsts.flatMap((first) => Array.from({ length: tokens }, (_, t) => Math.min(first, t))),
        [3, tokens],
      );
      const context = { positions, firstKey, ...ropeTables(model.config, tokens) };
      const logits = await logitsOf(model, placed, [3, tokens], context);
      const rowOf = (row: number) => {
        const [b, at] = [Math.floor(row / tokens), (row % tokens) - firsts[Math.floor(row / tokens)]];
        return at >= 0 && at < lengths[b] ? (b % 2) * tokens + at : undefined;
      };
      expect(largestDifference(logits, reference, rowOf)).toBeLessThan(2e-4);
    });

  test(`${family}: saved, it is the same tensors and the same configuration, and loads to the same model`, async () => {
    const model = open(family);
    const { ids, batch, tokens } = referenceOf(family);
    const saved = await saveModel(model);
    expect(parseModelConfig(JSON.parse(saved.config), { strict: true })).toEqual(model.config);
    expect(parseModelConfig(configOf(family), { strict: true })).toEqual(model.config);
    const [before, after] = [read(family, "model"), readSafetensors(saved.weights).tensors];
    for (const [name, { shape, data }] of after) {
      expect(before.get(name)?.shape, name).toEqual(shape);
      expect(Buffer.compare(before.get(name)!.data, data), name).toBe(0);
    }
    const again = loadModel(JSON.parse(saved.config), saved.weights);
    const context = sequenceContext(model.config, tokens);
    const logits = await logitsOf(model, ids, [batch, tokens], context);
    expect(await logitsOf(again, ids, [batch, tokens], context)).toEqual(logits);
  });
}

test("gpt2: names without their prefix, and the masks that older files carry", async () => {
  const { tensors } = readSafetensors(fs.readFileSync(`${folder}/gpt2/model.safetensors`));
  const bare = new Map([...tensors].map(([name, tensor]) => [name.replace(/^transformer\./, ""), tensor]));
  const mask: SafetensorsTensor = { dtype: "F32", shape: [1, 1, 2, 2], data: new Uint8Array(16) };
  bare
    .set("h.0.attn.bias", mask)
    .set("h.1.attn.masked_bias", { ...mask, shape: [], data: new Uint8Array(4) });
  bare.set("lm_head.weight", bare.get("wte.weight")!);
  const model = loadModel(configOf("gpt2"), writeSafetensors(bare));
  expect(model.warnings).toEqual(configWarnings(configOf("gpt2")));
  expect(await saveModel(model)).toEqual(await saveModel(open("gpt2")));
  bare.delete("wpe.weight");
  expect(() => loadModel(configOf("gpt2"), writeSafetensors(bare))).toThrow(
    "The weights are incomplete: transformer.wpe.weight missing.",
  );
});

/** A small configuration of a family as a person writes it: a few keys, as the family spells them. */
function fewKeys(model_type: string): Record<string, unknown> {
  const keys = { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48 };
  const { spelling = {} } = modelFamilies[model_type];
  const spelled = Object.entries(keys).map(([key, value]) => [spelling[key] ?? key, value]);
  return { model_type, ...Object.fromEntries(spelled), initializer_range: 0.1 };
}

const cycle = tokensInMemory(Uint32Array.from({ length: 400 }, (_, i) => (i % 7) + (i % 3)));

for (const family of Object.keys(modelFamilies))
  test(`${family}: a few keys make a model, which learns, is counted, and writes`, async () => {
    const json = completeModelConfig(fewKeys(family), { vocab_size: 64, max_position_embeddings: 48 });
    const config = parseModelConfig(json, { strict: true });
    expect(parseModelConfig(JSON.parse(modelConfigText(config)), { strict: true })).toEqual(config);
    const model = randomModel(config, 1);
    const numbers = parametersOf(model).reduce((total, { value }) => total + value.size, 0);
    expect(countParameters(config).total).toBe(numbers);
    const schedule = { kind: "constant" as const, warmup: 0, steps: 8, peak: 0.01, floor: 0 };
    const sizes = { steps: 8, batchSize: 2, accumulate: 1, context: 24, seed: 1 };
    const settings = { ...sizes, optimizer: defaultOptimizer, schedule };
    const data = { train: cycle, val: cycle, valSize: { tokens: 1, bytes: 1 } };
    const before = await evaluate(recordEvaluation(model, 2, 24), cycle);
    const last = (await train(startRun(model, settings, data)))!;
    expect(last.validation!.loss).toBeLessThan(before - 0.5);
    const written = [];
    const sampling = { ...plainGenerate, temperature: 0, maxTokens: 30 }; // beyond the context, which begins anew
    for await (const id of generate(model, Array.from(cycle.read(0, 30)), sampling)) written.push(id);
    expect(written.length).toBe(30);
    expect(written.every((id) => id >= 0 && id < 64)).toBe(true);
  });
