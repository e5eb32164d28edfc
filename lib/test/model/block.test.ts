// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../src/formats/config.js";
import { readSafetensors, toFloat32, toInt32 } from "../../src/formats/safetensors.js";
import { openGpu } from "../../src/gpu/device.js";
import { applyLinear, normalize, onlyDense, runBlock, selfAttention } from "../../src/model/block.js";
import { parseModelConfig } from "../../src/model/config.js";
import { modelFamilies } from "../../src/model/families.js";
import { ropeTables } from "../../src/model/positions.js";
import {
  type Block,
  type Heads,
  type Model,
  type ModelWeight,
  buildModel,
  freshModel,
  initialValues,
  modelWeights,
  parametersIn,
} from "../../src/model/structure.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { embed } from "../../src/tensor/embedding.js";
import { add, multiply, sum } from "../../src/tensor/operations.js";
import { normals } from "../../src/tensor/random.js";
import { layerNorm, rmsNorm } from "../../src/tensor/rows.js";
import { type Tensor, indices, sizeOf, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/9-the-block.ipynb#fixtures
await openGpu();

/** The tiny models made with transformers: seen from the repository's root, or from this notebook's folder. */
const fixtures = fs.existsSync("tests/fixtures")
  ? "tests/fixtures/families"
  : "../../tests/fixtures/families";

/** The tensors of a fixture's file, as 32-bit floats. */
function fixtureTensors(
  family: string,
  file: string,
): Map<string, { shape: number[]; values: Float32Array }> {
  const { tensors } = readSafetensors(fs.readFileSync(`${fixtures}/${family}/${file}.safetensors`));
  const values = (stored: Parameters<typeof toFloat32>[0]) =>
    stored.dtype === "I32" ? Float32Array.from(toInt32(stored)) : toFloat32(stored);
  return new Map(
    [...tensors].map(([name, stored]) => [name, { shape: stored.shape, values: values(stored) }]),
  );
}

function fixtureConfig(family: string): ModelConfig {
  return parseModelConfig(JSON.parse(fs.readFileSync(`${fixtures}/${family}/config.json`, "utf8")));
}

//| 02-attention/9-the-block.ipynb#plain-decoder
/** Embedding, blocks, last norm, output layer: logits [batch, tokens, vocabulary]. */
function plainDecoder(model: Model, ids: Tensor<"u32">): Tensor {
  const { config } = model;
  const tokens = ids.shape[1];
  const context = {
    positions: indices(Array.from({ length: tokens }, (_, t) => t)),
    ...ropeTables(config, tokens),
  };
  let x = embed(ids, model.embedding);
  for (const block of model.blocks) x = runBlock(x, block, context);
  return applyLinear(normalize(x, model.norm!), model.head);
}

//| 02-attention/9-the-block.ipynb#loss-gradient
/** The gradient of the mean cross-entropy of predicting token t + 1 at t, from logits, in 64 bits. */
function lossGradient(
  logits: Float32Array,
  ids: ArrayLike<number>,
  [batch, tokens, vocabulary]: number[],
): Float32Array {
  const gradient = new Float32Array(logits.length);
  for (let row = 0; row < batch * tokens; row++) {
    if (row % tokens === tokens - 1) continue;
    const powers = Array.from(logits.subarray(row * vocabulary, (row + 1) * vocabulary), Math.exp);
    const total = powers.reduce((a, b) => a + b);
    powers.forEach((power, i) => {
      gradient[row * vocabulary + i] =
        (power / total - (i === ids[row + 1] ? 1 : 0)) / (batch * (tokens - 1));
    });
  }
  return gradient;
}

//| 02-attention/9-the-block.ipynb#check-family
/** Compares logits and the gradient of every weight with what transformers computed. */
async function checkFamily(family: string): Promise<void> {
  const stored = fixtureTensors(family, "model");
  const model = buildModel(fixtureConfig(family), modelFamilies[family], ({ name }) => {
    const { shape, values } = stored.get(name)!;
    return parameter(tensor(values, shape));
  });
  const expected = fixtureTensors(family, "expected");
  const ids = expected.get("input_ids")!;
  const logits = plainDecoder(model, indices(ids.values, ids.shape));
  const { values, shape } = expected.get("logits")!;
  expect(relativeError(await logits.array(), values)).toBeLessThan(1e-5);
  const direction = tensor(lossGradient(values, ids.values, shape), shape);
  const parameters = parametersIn(model, modelFamilies[family].entries);
  const found = gradients(
    sum(multiply(logits, direction)),
    parameters.map(({ value }) => value),
  );
  const theirs = fixtureTensors(family, "gradients");
  expect(parameters.length).toBe(stored.size);
  for (const [i, { name }] of parameters.entries())
    expect(relativeError(await found[i].array(), theirs.get(name)!.values), name).toBeLessThan(2e-4);
}

//| 02-attention/9-the-block.ipynb#family-tests
await test("blocks of qwen3 compute what transformers does, forward and back", () => checkFamily("qwen3"));

await test("blocks of llama compute what transformers does, forward and back", () => checkFamily("llama"));

//| 02-attention/9-the-block.ipynb#shapes-tests
await test("the weights of dense models have the names and shapes of the files that transformers writes", () => {
  for (const family of ["qwen3", "llama"]) {
    const file = new Map([...fixtureTensors(family, "model")].map(([name, { shape }]) => [name, shape]));
    const weights = modelWeights(modelFamilies[family].entries, fixtureConfig(family));
    expect(new Map(weights.map(({ name, shape }) => [name, shape]))).toEqual(file);
    expect(weights.map(({ files }) => files)).toEqual(weights.map(({ name }) => [name]));
  }
});

await test("the experts of a sparse layer are stacked", () => {
  const file = fixtureTensors("qwen3_moe", "model");
  const weights = modelWeights(modelFamilies.qwen3_moe.entries, fixtureConfig("qwen3_moe"));
  expect(weights.flatMap(({ files }) => files).sort()).toEqual([...file.keys()].sort());
  for (const { shape, files, perExpert } of weights) {
    expect(files.length).toBe(perExpert ? shape[0] : 1);
    for (const name of files) expect(perExpert ? shape.slice(1) : shape, name).toEqual(file.get(name)!.shape);
  }
});

//| 02-attention/9-the-block.ipynb#initial-test
await test("fresh weights have the configured spread, the same for the same seed", async () => {
  const config = { ...fixtureConfig("qwen3"), hiddenSize: 64, intermediateSize: 128, attentionBias: true };
  const { qwen3 } = modelFamilies;
  const valuesOf = async (seed: number, name: string) => {
    const parameters = parametersIn(freshModel(config, qwen3, seed), qwen3.entries);
    return parameters.find((parameter) => parameter.name === name)!.value.array();
  };
  const spread = async (name: string) => {
    const values = await valuesOf(5, `model.layers.1.${name}`);
    return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
  };
  expect(await spread("mlp.gate_proj.weight")).toBeCloseTo(0.02, 2.5);
  expect(await spread("mlp.down_proj.weight")).toBeCloseTo(0.01, 2.5);
  expect(await spread("self_attn.q_norm.weight")).toBe(1);
  expect(await spread("self_attn.q_proj.bias")).toBe(0);
  const name = "model.layers.0.self_attn.q_proj.weight";
  expect(await valuesOf(5, name)).toEqual(await valuesOf(5, name));
  expect(await valuesOf(6, name)).not.toEqual(await valuesOf(5, name));
});

//| 02-attention/9-the-block.ipynb#bias-test
/** A tiny model with biases and a norm over the whole projection; `change` may replace a weight. */
function otherModel(change: (weight: ModelWeight) => Tensor | undefined): Model {
  const config = { ...fixtureConfig("qwen3"), attentionBias: true, qkNorm: "projection" as const };
  return buildModel(
    config,
    modelFamilies.qwen3,
    (weight) => change(weight) ?? tensor(initialValues(config, weight, 1), weight.shape),
  );
}

await test("biases and a norm over the whole projection are used where the model has them", async () => {
  const ids = indices([1, 2, 3], [1, 3]);
  const before = await plainDecoder(
    otherModel(() => undefined),
    ids,
  ).array();
  for (const path of ["blocks.0.attention.v.bias", "blocks.0.attention.kNorm.weight"]) {
    const changed = otherModel((weight) => {
      if (weight.path !== path) return undefined;
      return tensor(new Float32Array(sizeOf(weight.shape)).fill(0.5), weight.shape);
    });
    expect(relativeError(await plainDecoder(changed, ids).array(), before), path).toBeGreaterThan(1e-3);
  }
});

//| 02-attention/9-the-block.ipynb#refused-test
await test("a table that lacks a weight is refused, and a block with experts wants a function for them", () => {
  const { qwen3 } = modelFamilies;
  const entries = qwen3.entries.filter(({ path }) => path !== "blocks.*.feedForward.up.weight");
  const zero = ({ shape }: ModelWeight) => tensor(new Float32Array(sizeOf(shape)), shape);
  expect(() => buildModel(fixtureConfig("qwen3"), { ...qwen3, entries }, zero)).toThrow(
    "The model has no weight at blocks.0.feedForward.up.weight.",
  );
  const sparse = buildModel(fixtureConfig("qwen3_moe"), modelFamilies.qwen3_moe, zero);
  expect(() => plainDecoder(sparse, indices([1], [1, 1]))).toThrow("This block has experts");
});

//| 02-attention/9-the-block.ipynb#norms-test
await test("a norm after a half keeps the residual out of the product, and each kind of norm is what it says", async () => {
  const { qwen3 } = modelFamilies;
  const config = { ...fixtureConfig("qwen3"), initializerRange: 0.3 };
  const [block] = freshModel(config, qwen3, 3).blocks;
  const [before, after] = [block.norms.beforeAttention!, block.norms.beforeFeedForward!];
  const x = tensor(normals(2, 3 * config.hiddenSize), [1, 3, config.hiddenSize]);
  const context = { positions: indices([0, 1, 2]), ...ropeTables(config, 3) };
  const otherWay: Block = { ...block, norms: { afterAttention: before, afterFeedForward: after } };
  const attended = add(x, normalize(selfAttention(x, block.attention as Heads, context), before));
  const expected = add(attended, normalize(onlyDense(attended, block.feedForward), after));
  expect(await runBlock(x, otherWay, context).array()).toEqual(await expected.array());
  const weight = tensor(normals(5, config.hiddenSize), [config.hiddenSize]);
  const onePlus = await normalize(x, { kind: "rms1p", weight, epsilon: 1e-6 }).array();
  const shifted = tensor((await weight.array()).map((value) => value + 1));
  expect(relativeError(onePlus, await rmsNorm(x, shifted, 1e-6).array())).toBeLessThan(1e-6);
  const layer = await normalize(x, { kind: "layer", weight, bias: shifted, epsilon: 1e-6 }).array();
  expect(layer).toEqual(await layerNorm(x, weight, shifted, 1e-6).array());
});
