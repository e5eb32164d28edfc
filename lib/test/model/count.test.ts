// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../src/formats/config.js";
import { completeModelConfig, parseModelConfig } from "../../src/model/config.js";
import { cacheBytes, countParameters, flopsPerToken } from "../../src/model/count.js";

//| 03-moe/5-the-families.ipynb#count-test
/** The folder of published configurations, seen from the repository or from a chapter. */
const publishedFolder = ["tests/fixtures/configs", "../../tests/fixtures/configs"].find((folder) =>
  fs.existsSync(folder),
)!;

/** A published configuration. */
const publishedConfig = (name: string) =>
  parseModelConfig(JSON.parse(fs.readFileSync(`${publishedFolder}/${name}.json`, "utf8")));

/** All parameters of published models, as transformers counts them. */
const totals: Record<string, number> = {
  "deepseek-v3": 671_026_404_352,
  "gemma-2-2b": 2_614_341_888,
  "gemma-3-1b": 999_885_952,
  "glm-4.5-air": 106_852_245_504,
  "gpt-oss-120b": 116_829_156_672,
  "gpt-oss-20b": 20_914_757_184,
  gpt2: 124_439_808,
  "llama-2-7b": 6_738_415_616,
  "llama-3.1-8b": 8_030_261_248,
  "llama-3.2-1b": 1_235_814_400,
  "mistral-7b": 7_241_732_096,
  "mixtral-8x7b": 46_702_792_704,
  "olmo-2-1b": 1_484_916_736,
  "olmo-2-7b": 7_298_617_344,
  "olmoe-1b-7b": 6_919_161_856,
  "phi-3-mini": 3_821_079_552,
  "qwen1.5-moe-a2.7b": 14_315_784_192,
  "qwen2-0.5b": 494_032_768,
  "qwen3-0.6b": 596_049_920,
  "qwen3-30b-a3b": 30_532_122_624,
  "smollm3-3b": 3_075_098_624,
};

for (const [name, total] of Object.entries(totals))
  await test(`${name} has as many parameters as transformers counts`, () => {
    expect(countParameters(publishedConfig(name)).total).toBe(total);
  });

await test("every published configuration is counted", () => {
  const files = fs.readdirSync(publishedFolder).filter((name) => name.endsWith(".json"));
  expect(files.map((file) => file.replace(".json", "")).sort()).toEqual(Object.keys(totals).sort());
});

await test("of experts those are active that a token visits", () => {
  expect(countParameters(publishedConfig("qwen3-30b-a3b")).active).toBe(3_353_032_704);
  expect(countParameters(publishedConfig("qwen3-0.6b"))).toEqual({ total: 596_049_920, active: 596_049_920 });
});

//| 03-moe/5-the-families.ipynb#flops-test
await test("a table that is only looked up costs no arithmetic, and attention grows with the context, but not beyond a window", () => {
  const shape = {
    model_type: "mistral",
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    head_dim: 8,
    sliding_window: null,
  };
  const configOf = (more: object) =>
    parseModelConfig(
      completeModelConfig({ ...shape, ...more }, { vocab_size: 50, max_position_embeddings: 16 }),
    );
  const [tied, apart] = [true, false].map((tie_word_embeddings) => configOf({ tie_word_embeddings }));
  const training = (config: ModelConfig, context: number) => flopsPerToken(config, context).training;
  expect(training(apart, 16)).toBe(training(tied, 16));
  expect(training(tied, 16) - training(tied, 8)).toBe(6 * 2 * 32 * 8);
  expect(training(tied, 0)).toBe(6 * countParameters(tied).total);
  expect(flopsPerToken(tied, 16).forward * 3).toBe(training(tied, 16));
  const local = configOf({ tie_word_embeddings: true, sliding_window: 4 });
  expect(training(local, 4)).toBe(training(tied, 4));
  expect(training(local, 16) - training(tied, 0)).toBe(3 * 2 * 4 * 32 * (4 - 16 / 32));
});

//| 03-moe/5-the-families.ipynb#cache-bytes-test
await test("a token leaves two rows for each head of keys in every layer, and windows forget", () => {
  const qwen = publishedConfig("qwen3-0.6b");
  expect(cacheBytes(qwen, 10, 2)).toBe(10 * 28 * 2 * 8 * 128 * 2);
  const mistral = publishedConfig("mistral-7b");
  expect(cacheBytes(mistral, 4096)).toBe(4096 * 32 * 2 * 8 * 128 * 4);
  expect(cacheBytes(mistral, 100_000)).toBe(cacheBytes(mistral, 4096));
  expect(cacheBytes(publishedConfig("deepseek-v3"), 10, 2)).toBe(10 * 61 * (512 + 64) * 2);
});
