// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { type SafetensorsTensor, readSafetensors, writeSafetensors } from "../../src/formats/safetensors.js";
import { openGpu } from "../../src/gpu/device.js";
import { parseModelConfig } from "../../src/model/config.js";
import { parametersByName, parametersOf, randomModel } from "../../src/model/families.js";
import { loadModel, randomModelFiles, saveModel } from "../../src/model/weights.js";
import { unpack } from "../../src/tensor/products.js";

//| 03-moe/a-files-of-weights.ipynb#weights-test
await openGpu();

/** The folder of a reference model with experts, seen from the repository or from a chapter. */
const referenceFolder = ["tests/fixtures/families/qwen3_moe", "../../tests/fixtures/families/qwen3_moe"].find(
  (folder) => fs.existsSync(folder),
)!;

const referenceConfig = JSON.parse(fs.readFileSync(`${referenceFolder}/config.json`, "utf8"));

const referenceWeights = fs.readFileSync(`${referenceFolder}/model.safetensors`);

/** Loads the reference model after `change` has had its way with the tensors of the file. */
function loadChanged(change: (tensors: Map<string, SafetensorsTensor>) => void, config = {}) {
  const { tensors } = readSafetensors(referenceWeights);
  change(tensors);
  return loadModel({ ...referenceConfig, ...config }, writeSafetensors(tensors));
}

await test("a model that is loaded and saved has the same tensors, bit for bit, and the same configuration", async () => {
  const model = loadModel(referenceConfig, referenceWeights);
  const saved = await saveModel(model);
  const [before, after] = [readSafetensors(referenceWeights).tensors, readSafetensors(saved.weights).tensors];
  expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
  for (const [name, { shape, data }] of before) {
    expect(after.get(name)!.shape).toEqual(shape);
    expect(Buffer.compare(after.get(name)!.data, data)).toBe(0);
  }
  expect(parseModelConfig(JSON.parse(saved.config))).toEqual(model.config);
});

//| 03-moe/a-files-of-weights.ipynb#weights-stack-test
await test("experts are stacked in their order", async () => {
  const weights = parametersByName(loadModel(referenceConfig, referenceWeights));
  const stacked = weights.get("model.layers.1.mlp.experts.down_proj.weight")!;
  expect(stacked.shape).toEqual([4, 32, 16]);
  const third = readSafetensors(referenceWeights).tensors.get(
    "model.layers.1.mlp.experts.2.down_proj.weight",
  )!;
  const values = (await stacked.array()).subarray(2 * 512, 3 * 512);
  expect(Buffer.compare(Buffer.from(values.buffer, values.byteOffset, 2048), third.data)).toBe(0);
});

await test("a random model is the same made on the GPU or without one, and differs by seed", async () => {
  const config = parseModelConfig(referenceConfig);
  const files = randomModelFiles(config, 5);
  const saved = await saveModel(randomModel(config, 5));
  expect(saved.config).toBe(files.config);
  expect(Buffer.compare(saved.weights, files.weights)).toBe(0);
  expect(Buffer.compare(randomModelFiles(config, 6).weights, files.weights)).not.toBe(0);
});

await test("fresh weights have the deviation that the configuration asks for, less towards the residual stream", () => {
  const config = { ...parseModelConfig(referenceConfig), initializerRange: 0.1 };
  const { tensors } = readSafetensors(randomModelFiles(config, 1).weights);
  const deviation = (name: string) => {
    const { data } = tensors.get(name)!;
    const values = new Float32Array(new Uint8Array(data).buffer);
    return Math.sqrt(values.reduce((total, value) => total + value * value, 0) / values.length);
  };
  expect(deviation("model.embed_tokens.weight") / 0.1).toBeCloseTo(1, 1);
  expect(deviation("model.layers.0.self_attn.o_proj.weight") / 0.05).toBeCloseTo(1, 1);
  expect(deviation("model.layers.1.post_attention_layernorm.weight")).toBe(1);
});

//| 03-moe/a-files-of-weights.ipynb#weights-files-test
await test("numbers of 16 bits are read as well", async () => {
  const name = "lm_head.weight";
  const upper = (data: Uint8Array) => data.filter((_, i) => i % 4 >= 2); // an f32 cut to its upper half is a bf16
  const model = loadChanged((tensors) => {
    const { shape, data } = tensors.get(name)!;
    tensors.set(name, { dtype: "BF16", shape, data: upper(data) });
  });
  const exact = await unpack(loadModel(referenceConfig, referenceWeights).head.weight);
  const read = await unpack(model.head.weight);
  expect(read.every((value, i) => Math.abs(value - exact[i]) <= Math.abs(exact[i]) / 128)).toBe(true);
  expect(read.some((value, i) => value !== exact[i])).toBe(true);
});

await test("weights may come in several files", () => {
  const { tensors } = readSafetensors(referenceWeights);
  const half = (rest: number) => writeSafetensors(new Map([...tensors].filter((_, i) => i % 2 === rest)));
  expect(parametersOf(loadModel(referenceConfig, half(0), half(1))).length).toBe(27);
  expect(() => loadModel(referenceConfig, half(0), half(0))).toThrow(
    /^The weight \S+ stands in two files\.$/,
  );
});

//| 03-moe/a-files-of-weights.ipynb#weights-head-test
await test("a tied model whose file has another output layer keeps it, as transformers does, and says so", async () => {
  const tied = { tie_word_embeddings: true };
  const other = loadChanged(() => {}, tied);
  expect(other.config.tied).toBe(false);
  expect(other.warnings).toEqual([
    "tie_word_embeddings is true and is ignored, because the file has a lm_head.weight of other values than model.embed_tokens.weight.",
  ]);
  const [table, head] = ["model.embed_tokens.weight", "lm_head.weight"];
  const same = loadChanged((tensors) => tensors.set(head, tensors.get(table)!), tied);
  expect([same.config.tied, parametersByName(same).has(head), same.warnings]).toEqual([true, false, []]);
  const alone = loadChanged((tensors) => tensors.delete(table), tied);
  expect([alone.config.tied, alone.warnings]).toEqual([true, []]);
  expect(await unpack(alone.embedding)).toEqual(await unpack(other.head.weight));
  const short: SafetensorsTensor = { dtype: "F32", shape: [2, 32], data: new Uint8Array(256) };
  expect(() => loadChanged((tensors) => tensors.set(head, short), tied)).toThrow(
    "The weight lm_head.weight is [2, 32], but the configuration wants [64, 32].",
  );
});

//| 03-moe/a-files-of-weights.ipynb#weights-refused-test
await test("weights that do not belong to the configuration are refused in one sentence", () => {
  const gate = "model.layers.0.mlp.gate.weight";
  expect(() => loadChanged((tensors) => tensors.delete(gate))).toThrow(
    `The weights are incomplete: ${gate} missing.`,
  );
  expect(() => loadChanged(() => {}, { num_local_experts: 5 })).toThrow(
    /^The weights are incomplete: model.layers.0.mlp.experts.4.gate_proj.weight and 5 more missing\.$/,
  );
  expect(() => loadChanged(() => {}, { num_local_experts: 3 })).toThrow(
    /^The configuration has no place for the weights model.layers.0.mlp.experts.3\S+ and 5 more\.$/,
  );
  expect(() => loadChanged(() => {}, { vocab_size: 65 })).toThrow(
    "The weight model.embed_tokens.weight is [64, 32], but the configuration wants [65, 32].",
  );
  const integers: SafetensorsTensor = { dtype: "I32", shape: [4, 32], data: new Uint8Array(512) };
  expect(() => loadChanged((tensors) => tensors.set(gate, integers))).toThrow(
    `The weight ${gate}: Numbers of dtype I32 cannot be read as f32; F32, BF16, F16 and F64 can.`,
  );
});

await test("a tied model has no output layer of its own, and a file that has one all the same is read", () => {
  const model = loadChanged(
    (tensors) => tensors.set("lm_head.weight", tensors.get("model.embed_tokens.weight")!),
    {
      tie_word_embeddings: true,
    },
  );
  expect(parametersByName(model).has("lm_head.weight")).toBe(false);
  expect(readSafetensors(randomModelFiles(model.config, 1).weights).tensors.has("lm_head.weight")).toBe(
    false,
  );
});
