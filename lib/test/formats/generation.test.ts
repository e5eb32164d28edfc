// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  chatTemplateOf,
  generationConfigToJson,
  parseGenerationConfig,
  stopTokenIds,
  tokenizerConfigToJson,
} from "../../src/formats/generation.js";
import { parseModelConfig } from "../../src/model/config.js";

//| 03-moe/a-files-of-weights.ipynb#generation-test
/** The least that a configuration must say. */
const minimalJson = {
  model_type: "qwen3",
  vocab_size: 8,
  hidden_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 1,
  num_key_value_heads: 1,
  intermediate_size: 8,
};

await test("the ids that end a text are those of both files", () => {
  const config = { ...parseModelConfig({ ...minimalJson, eos_token_id: 3 }) };
  expect(stopTokenIds(config)).toEqual([3]);
  expect(stopTokenIds(config, parseGenerationConfig({ eos_token_id: [4, 3] }))).toEqual([3, 4]);
  expect(stopTokenIds(config, parseGenerationConfig({ eos_token_id: 5 }))).toEqual([3, 5]);
  expect(stopTokenIds(config, parseGenerationConfig({ eos_token_id: null, top_k: null }))).toEqual([3]);
});

await test("a malformed generation_config.json is one sentence", () => {
  const reading = (json: unknown) => () => parseGenerationConfig(json);
  expect(reading([])).toThrow("must be a JSON object");
  expect(reading({ eos_token_id: "2" })).toThrow(
    'eos_token_id must be a token id or a list of token ids, not "2".',
  );
  expect(reading({ eos_token_id: [-1] })).toThrow("eos_token_id.0 must be");
  expect(reading({ do_sample: 1 })).toThrow("do_sample must be true or false, not 1.");
  expect(reading({ temperature: -1 })).toThrow("temperature must be a number from 0 to 1000, not -1.");
  expect(reading({ top_p: 1.5 })).toThrow("top_p must be a number from 0 to 1, not 1.5.");
  expect(reading({ top_k: 2.5 })).toThrow("top_k must be a whole number from 0 up, not 2.5.");
  expect(reading({ max_new_tokens: "many" })).toThrow("max_new_tokens must be a whole number");
  expect(parseGenerationConfig({ temperature: 0.6, top_k: 20, transformers_version: "5" })).toMatchObject({
    temperature: 0.6,
    topK: 20,
    eosTokenIds: [],
  });
});

//| 03-moe/a-files-of-weights.ipynb#generation-test-2
await test("a chat template stands in one of two files; the one of its own wins", () => {
  expect(chatTemplateOf(undefined)).toEqual({ template: undefined, warnings: [] });
  expect(chatTemplateOf({ chat_template: "a" }).template).toBe("a");
  expect(
    chatTemplateOf({
      chat_template: [
        { name: "tool", template: "t" },
        { name: "default", template: "d" },
      ],
    }),
  ).toEqual({
    template: "d",
    warnings: [],
  });
  expect(chatTemplateOf({ chat_template: "a" }, "a").warnings).toEqual([]);
  const { template, warnings } = chatTemplateOf({ chat_template: "a" }, "b");
  expect([template, warnings.length]).toEqual(["b", 1]);
  expect(() => chatTemplateOf({ chat_template: 7 })).toThrow("chat_template must be text");
});

await test("what is written names the same tokens in both files", () => {
  const ends = { bos: { id: 1, name: "<s>" }, eos: [{ id: 2, name: "</s>" }, { id: 7 }] };
  expect(generationConfigToJson(ends)).toMatchObject({
    bos_token_id: 1,
    eos_token_id: [2, 7],
    pad_token_id: 2,
  });
  expect(tokenizerConfigToJson(ends, 64)).toMatchObject({
    bos_token: "<s>",
    eos_token: "</s>",
    model_max_length: 64,
  });
  expect(generationConfigToJson({ eos: [] }).eos_token_id).toBe(null);
});
