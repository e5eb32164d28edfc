// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { parseModelConfig } from "../../src/model/config.js";
import { countParameters } from "../../src/model/count.js";

//| 03-moe/5-the-families.ipynb#count-test
/** What the config.json of some released models says. */
const released: Record<string, [Record<string, unknown>, number, number]> = {
  "Qwen3-0.6B": [
    {
      model_type: "qwen3",
      vocab_size: 151936,
      hidden_size: 1024,
      num_hidden_layers: 28,
      num_attention_heads: 16,
      num_key_value_heads: 8,
      head_dim: 128,
      intermediate_size: 3072,
      tie_word_embeddings: true,
    },
    596_049_920,
    596_049_920,
  ],
  "Llama-3.2-1B": [
    {
      model_type: "llama",
      vocab_size: 128256,
      hidden_size: 2048,
      num_hidden_layers: 16,
      num_attention_heads: 32,
      num_key_value_heads: 8,
      intermediate_size: 8192,
      tie_word_embeddings: true,
    },
    1_235_814_400,
    1_235_814_400,
  ],
  "Qwen3-30B-A3B": [
    {
      model_type: "qwen3_moe",
      vocab_size: 151936,
      hidden_size: 2048,
      num_hidden_layers: 48,
      num_attention_heads: 32,
      num_key_value_heads: 4,
      head_dim: 128,
      intermediate_size: 6144,
      num_experts: 128,
      num_experts_per_tok: 8,
      moe_intermediate_size: 768,
    },
    30_532_122_624,
    3_353_032_704,
  ],
};

for (const [name, [json, total, active]] of Object.entries(released))
  await test(`${name} has as many parameters as transformers counts`, () => {
    expect(countParameters(parseModelConfig(json))).toEqual({ total, active });
  });
