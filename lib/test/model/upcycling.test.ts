// Extracted from chapters/03-moe/6-shared-fine-grained-upcycled.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { range } from "../../src/kernels/wgsl.js";
import { parseModelConfig } from "../../src/model/config.js";
import { forward, sequenceContext } from "../../src/model/decoder.js";
import { randomModel } from "../../src/model/families.js";
import { type Model, partAt } from "../../src/model/structure.js";
import { upcycle } from "../../src/model/upcycling.js";
import { withoutGradients } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { type Tensor, indices } from "../../src/tensor/tensor.js";

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#proof-test
await openGpu();

const denseJson = {
  model_type: "qwen3",
  vocab_size: 64,
  hidden_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  intermediate_size: 48,
  max_position_embeddings: 64,
  initializer_range: 0.2,
};

/** The same with experts, each as wide as the dense layer. */
const sparseJson = (experts: number, visited: number, more: object = {}) => ({
  ...denseJson,
  model_type: "qwen3_moe",
  num_experts: experts,
  num_experts_per_tok: visited,
  moe_intermediate_size: 48,
  norm_topk_prob: true,
  ...more,
});

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#proof-test-2
const someIds = indices(
  Array.from({ length: 48 }, (_, i) => (i * i * 7 + i) % 64),
  [2, 24],
);

/** The scores of a model for some ids. */
const scoresOf = (model: Model) =>
  withoutGradients(() => forward(model, someIds, sequenceContext(model.config, 24)).logits).array();

/** The place of the highest score of each token. */
const predictions = (scores: Float32Array) =>
  Array.from({ length: 48 }, (_, row) => {
    const own = scores.subarray(row * 64, (row + 1) * 64);
    return own.indexOf(own.reduce((most, score) => Math.max(most, score)));
  });

await test("an upcycled model computes what the dense one does, but for the rounding of weights that add up to 1", async () => {
  const dense = randomModel(parseModelConfig(denseJson), 3);
  const scores = await scoresOf(dense);
  for (const [experts, visited] of [
    [8, 2],
    [8, 3],
    [4, 4],
  ]) {
    const sparse = await upcycle(dense, parseModelConfig(sparseJson(experts, visited)), { seed: 5 });
    const same = await scoresOf(sparse);
    expect(relativeError(same, scores)).toBeLessThan(1e-6);
    expect(predictions(same)).toEqual(predictions(scores));
  }
  const raw = parseModelConfig(sparseJson(8, 2, { norm_topk_prob: false }));
  expect(relativeError(await scoresOf(await upcycle(dense, raw, { seed: 5 })), scores)).toBeGreaterThan(0.05);
  const half = await upcycle(dense, parseModelConfig(sparseJson(8, 2)), { seed: 5, renewed: 0.5 });
  expect(relativeError(await scoresOf(half), scores)).toBeGreaterThan(0.05);
});

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#copies-test
await test("every expert is a copy, and of a renewed one a share of the inner numbers is fresh, in all three matrices", async () => {
  const dense = randomModel(parseModelConfig(denseJson), 3);
  const config = parseModelConfig(sparseJson(4, 2));
  const matrices = async (model: Model, part: string) =>
    (partAt(model, `blocks.1.feedForward.${part}.weight`) as Tensor).array();
  const [copied, renewed] = [
    await upcycle(dense, config, { seed: 1 }),
    await upcycle(dense, config, { seed: 1, renewed: 0.25 }),
  ];
  for (const part of ["gate", "up", "down"]) {
    const one = await matrices(dense, part);
    const [copies, parts] = [await matrices(copied, part), await matrices(renewed, part)];
    for (let e = 0; e < 4; e++) {
      expect(copies.subarray(e * one.length, (e + 1) * one.length)).toEqual(one);
      const changed = range(one.length).filter((i) => parts[e * one.length + i] !== one[i]);
      const inner = new Set(changed.map((i) => (part === "down" ? i % 48 : Math.floor(i / 32))));
      expect([changed.length, inner.size]).toEqual([12 * 32, 12]);
    }
  }
});

//| 03-moe/6-shared-fine-grained-upcycled.ipynb#refusals-test
await test("what does not fit is refused in one sentence", async () => {
  const dense = randomModel(parseModelConfig(denseJson), 3);
  const refusal = (json: object) => upcycle(dense, parseModelConfig(json), { seed: 1 });
  await expect(refusal(denseJson)).rejects.toThrow("has no experts");
  await expect(refusal(sparseJson(4, 2, { rope_theta: 5e5 }))).rejects.toThrow(
    "The models differ in more than experts: rope is",
  );
  await expect(refusal(sparseJson(4, 2, { moe_intermediate_size: 24 }))).rejects.toThrow(
    "is [48, 32], but an expert's is [24, 32]",
  );
  const biased = randomModel(parseModelConfig({ ...denseJson, attention_bias: true }), 3);
  await expect(upcycle(biased, parseModelConfig(sparseJson(4, 2)), { seed: 1 })).rejects.toThrow(
    "attentionBias is true in the dense one",
  );
});
