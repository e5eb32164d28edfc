// Extracted from chapters/02-attention/8-the-block.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { type ModelConfig, parseModelConfig } from "../../src/formats/config.js";
import { readSafetensors, toFloat32, toInt32 } from "../../src/formats/safetensors.js";
import { openGpu } from "../../src/gpu/device.js";
import { type Weights, block, initialWeights, weightShapes } from "../../src/model/block.js";
import { ropeTable } from "../../src/model/positions.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { embed } from "../../src/tensor/embedding.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { linear } from "../../src/tensor/products.js";
import { rmsNorm } from "../../src/tensor/rows.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 02-attention/8-the-block.ipynb#fixtures
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
  const values = (each: Parameters<typeof toFloat32>[0]) =>
    each.dtype === "I32" ? Float32Array.from(toInt32(each)) : toFloat32(each);
  return new Map([...tensors].map(([name, each]) => [name, { shape: each.shape, values: values(each) }]));
}

function fixtureConfig(family: string): ModelConfig {
  return parseModelConfig(JSON.parse(fs.readFileSync(`${fixtures}/${family}/config.json`, "utf8")));
}

//| 02-attention/8-the-block.ipynb#plain-decoder
/** Embedding, blocks, last norm, output layer: logits [batch, tokens, vocabulary]. */
function plainDecoder(config: ModelConfig, weights: Weights, ids: Tensor<"u32">): Tensor {
  const tokens = ids.shape[1];
  const context = {
    positions: indices(Array.from({ length: tokens }, (_, t) => t)),
    ropeTable: ropeTable(config.rope, config.headDim, tokens),
  };
  let x = embed(ids, weights.get("model.embed_tokens.weight")!);
  for (let layer = 0; layer < config.layers; layer++) x = block(config, layer, weights, x, context);
  return linear(
    rmsNorm(x, weights.get("model.norm.weight")!, config.normEps),
    weights.get("lm_head.weight")!,
  );
}

//| 02-attention/8-the-block.ipynb#loss-gradient
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

//| 02-attention/8-the-block.ipynb#check-family
/** Compares logits and the gradient of every weight with what transformers computed. */
async function checkFamily(family: string): Promise<void> {
  const config = fixtureConfig(family);
  const weights: Weights = new Map();
  for (const [name, { shape, values }] of fixtureTensors(family, "model"))
    weights.set(name, parameter(tensor(values, shape)));
  const expected = fixtureTensors(family, "expected");
  const ids = expected.get("input_ids")!;
  const logits = plainDecoder(config, weights, indices(ids.values, ids.shape));
  const { values, shape } = expected.get("logits")!;
  expect(relativeError(await logits.array(), values)).toBeLessThan(1e-5);
  const direction = tensor(lossGradient(values, ids.values, shape), shape);
  const found = gradients(sum(multiply(logits, direction)), [...weights.values()]);
  const wanted = fixtureTensors(family, "gradients");
  for (const [i, name] of [...weights.keys()].entries())
    expect(relativeError(await found[i].array(), wanted.get(name)!.values), name).toBeLessThan(2e-4);
}

//| 02-attention/8-the-block.ipynb#family-tests
await test("blocks of qwen3 compute what transformers does, forward and back", () => checkFamily("qwen3"));

await test("blocks of llama compute what transformers does, forward and back", () => checkFamily("llama"));

//| 02-attention/8-the-block.ipynb#shapes-tests
await test("the shapes of all weights are those of the files that transformers writes", () => {
  for (const family of ["qwen3", "llama"]) {
    const file = new Map([...fixtureTensors(family, "model")].map(([name, { shape }]) => [name, shape]));
    expect(weightShapes(fixtureConfig(family))).toEqual(file);
  }
});

await test("the experts of a sparse layer are stacked", () => {
  const config = fixtureConfig("qwen3_moe");
  const file = fixtureTensors("qwen3_moe", "model");
  for (const [name, shape] of weightShapes(config)) {
    const [before, after] = name.split(".experts.");
    const first = after ? `${before}.experts.0.${after}` : name;
    expect(after ? shape.slice(1) : shape, name).toEqual(file.get(first)?.shape);
    if (after)
      expect(
        file.has(`${before}.experts.${shape[0] - 1}.${after}`) &&
          !file.has(`${before}.experts.${shape[0]}.${after}`),
      ).toBe(true);
  }
});

//| 02-attention/8-the-block.ipynb#initial-test
await test("fresh weights have the configured spread, the same for the same seed", async () => {
  const config = { ...fixtureConfig("qwen3"), hiddenSize: 64, intermediateSize: 128, attentionBias: true };
  const spread = async (weight: Tensor) =>
    Math.sqrt((await weight.array()).reduce((sum, x) => sum + x * x, 0) / weight.size);
  const weights = initialWeights(config, 5);
  expect([...weights.keys()]).toEqual([...weightShapes(config).keys()]);
  expect(await spread(weights.get("model.layers.0.mlp.gate_proj.weight")!)).toBeCloseTo(0.02, 2.5);
  expect(await spread(weights.get("model.layers.1.mlp.down_proj.weight")!)).toBeCloseTo(0.01, 2.5);
  expect(await spread(weights.get("model.layers.1.self_attn.q_norm.weight")!)).toBe(1);
  expect(await spread(weights.get("model.layers.1.self_attn.q_proj.bias")!)).toBe(0);
  const values = (from: Weights, name: string) => from.get(name)!.array();
  const name = "model.layers.0.self_attn.q_proj.weight";
  expect(await values(initialWeights(config, 5), name)).toEqual(await values(weights, name));
  expect(await values(initialWeights(config, 6), name)).not.toEqual(await values(weights, name));
});

//| 02-attention/8-the-block.ipynb#bias-test
await test("biases and a norm over the whole projection are used where the model has them", async () => {
  const config = { ...fixtureConfig("qwen3"), attentionBias: true, qkNorm: "projection" as const };
  const weights = initialWeights(config, 1);
  const ids = indices([1, 2, 3], [1, 3]);
  const before = await plainDecoder(config, weights, ids).array();
  for (const name of ["self_attn.v_proj.bias", "self_attn.k_norm.weight"]) {
    const changed = new Map(weights);
    const { shape, size } = weights.get(`model.layers.0.${name}`)!;
    changed.set(`model.layers.0.${name}`, tensor(new Float32Array(size).fill(0.5), shape));
    expect(relativeError(await plainDecoder(config, changed, ids).array(), before), name).toBeGreaterThan(
      1e-3,
    );
  }
  weights.delete("model.layers.1.mlp.up_proj.weight");
  expect(() => plainDecoder(config, weights, ids)).toThrow(
    "The model has no weight named model.layers.1.mlp.up_proj.weight.",
  );
});
