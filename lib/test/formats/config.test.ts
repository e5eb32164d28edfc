// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../src/formats/config.js";
import { didYouMean, nearestName } from "../../src/formats/keys.js";
import {
  completeModelConfig,
  configWarnings,
  modelConfigText,
  modelConfigToJson,
  parseModelConfig,
} from "../../src/model/config.js";
import { modelFamilies } from "../../src/model/families.js";

//| 03-moe/a-files-of-weights.ipynb#config-test
/** The reference models: tests run in the root of the repository, notebooks in their chapter. */
const families = fs.existsSync("tests/fixtures")
  ? "tests/fixtures/families"
  : "../../tests/fixtures/families";

/** The config.json of a reference model, as transformers 5 saved it. */
function configOf(family: string): Record<string, unknown> {
  return JSON.parse(fs.readFileSync(`${families}/${family}/config.json`, "utf8"));
}

/** Reads the configuration of a reference model with some keys changed; undefined removes a key. */
function parsing(family: string, changes: Record<string, unknown>, strict = false): () => ModelConfig {
  return () => parseModelConfig(JSON.parse(JSON.stringify({ ...configOf(family), ...changes })), { strict });
}

await test("a Qwen3-MoE model of transformers 5", () => {
  expect(parseModelConfig(configOf("qwen3_moe"))).toEqual({
    modelType: "qwen3_moe",
    vocabSize: 64,
    hiddenSize: 32,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headDim: 8,
    intermediateSize: 48,
    contextLength: 256,
    moe: {
      experts: 4,
      expertsPerToken: 2,
      intermediateSize: 16,
      normalizeTopK: true,
      balanceCoefficient: 0.001,
      sparseLayers: [true, true],
    },
    normEps: 1e-6,
    activation: "silu",
    qkNorm: "head",
    rope: { theta: 10000 },
    attentionBias: false,
    mlpBias: false,
    tied: false,
    initializerRange: 0.02,
    eosTokenIds: [],
  });
});

await test("dense models differ by their settings", () => {
  const { modelType, qkNorm, moe, eosTokenIds } = parseModelConfig(configOf("qwen3"));
  expect({ modelType, qkNorm, moe, eosTokenIds }).toEqual({
    modelType: "qwen3",
    qkNorm: "head",
    moe: undefined,
    eosTokenIds: [],
  });
  const llama = parseModelConfig(configOf("llama"));
  expect([llama.qkNorm, llama.bosTokenId, llama.eosTokenIds]).toEqual(["none", 1, [2]]);
  expect(llama.rope).toEqual({
    theta: 500000,
    scaling: {
      type: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 32,
    },
  });
});

//| 03-moe/a-files-of-weights.ipynb#config-released-test
await test("released configurations of older spelling: Qwen3-30B-A3B, Llama 3.2 1B", () => {
  const qwen = parseModelConfig(
    {
      architectures: ["Qwen3MoeForCausalLM"],
      attention_bias: false,
      attention_dropout: 0.0,
      bos_token_id: 151643,
      decoder_sparse_step: 1,
      eos_token_id: 151645,
      head_dim: 128,
      hidden_act: "silu",
      hidden_size: 2048,
      initializer_range: 0.02,
      intermediate_size: 6144,
      max_position_embeddings: 40960,
      max_window_layers: 48,
      mlp_only_layers: [],
      model_type: "qwen3_moe",
      moe_intermediate_size: 768,
      norm_topk_prob: true,
      num_attention_heads: 32,
      num_experts: 128,
      num_experts_per_tok: 8,
      num_hidden_layers: 48,
      num_key_value_heads: 4,
      output_router_logits: false,
      rms_norm_eps: 1e-6,
      rope_scaling: null,
      rope_theta: 1000000.0,
      router_aux_loss_coef: 0.001,
      sliding_window: null,
      tie_word_embeddings: false,
      torch_dtype: "bfloat16",
      transformers_version: "4.51.0",
      use_cache: true,
      use_sliding_window: false,
      vocab_size: 151936,
    },
    { strict: true },
  );
  expect([qwen.moe?.experts, qwen.moe?.expertsPerToken, qwen.rope?.theta, qwen.headDim]).toEqual([
    128, 8, 1e6, 128,
  ]);
  const llama = parseModelConfig(
    {
      architectures: ["LlamaForCausalLM"],
      attention_bias: false,
      attention_dropout: 0.0,
      bos_token_id: 128000,
      eos_token_id: [128001, 128008, 128009],
      head_dim: 64,
      hidden_act: "silu",
      hidden_size: 2048,
      initializer_range: 0.02,
      intermediate_size: 8192,
      max_position_embeddings: 131072,
      mlp_bias: false,
      model_type: "llama",
      num_attention_heads: 32,
      num_hidden_layers: 16,
      num_key_value_heads: 8,
      pretraining_tp: 1,
      rms_norm_eps: 1e-5,
      rope_theta: 500000.0,
      tie_word_embeddings: true,
      torch_dtype: "bfloat16",
      rope_scaling: {
        factor: 32.0,
        high_freq_factor: 4.0,
        low_freq_factor: 1.0,
        original_max_position_embeddings: 8192,
        rope_type: "llama3",
      },
      transformers_version: "4.45.0.dev0",
      use_cache: true,
      vocab_size: 128256,
    },
    { strict: true },
  );
  expect([llama.tied, llama.rope?.scaling?.factor, llama.eosTokenIds.length]).toEqual([true, 32, 3]);
});

//| 03-moe/a-files-of-weights.ipynb#config-spellings-test
await test("both spellings of positions mean the same", () => {
  const llama = configOf("llama");
  const { rope_theta, rope_type, ...scaling } = llama.rope_parameters as Record<string, unknown>;
  const older = { rope_parameters: undefined, rope_theta, rope_scaling: { type: rope_type, ...scaling } };
  expect(parsing("llama", older)()).toEqual(parseModelConfig(llama));
  expect(parsing("qwen3", { rope_parameters: undefined, rope_theta: 5000 })().rope).toEqual({ theta: 5000 });
  expect(parsing("qwen3", { rope_parameters: undefined })().rope).toEqual({ theta: 10000 });
});

await test("num_experts and num_local_experts mean the same", () => {
  expect(parsing("qwen3_moe", { num_local_experts: undefined, num_experts: 4 })().moe?.experts).toBe(4);
  expect(parsing("qwen3_moe", { num_experts: 4 })().moe?.experts).toBe(4);
  expect(parsing("qwen3_moe", { num_experts: 8 })().moe?.experts).toBe(4); // as in transformers
});

await test("what is left out has the value that transformers gives it", () => {
  expect(parsing("qwen3_moe", { head_dim: undefined })().headDim).toBe(8);
  expect(parsing("qwen3", { head_dim: undefined })().headDim).toBe(128);
  expect(parsing("qwen3", { head_dim: null })().headDim).toBe(8);
  expect(parsing("llama", { num_key_value_heads: undefined })().kvHeads).toBe(4);
  expect(parsing("qwen3_moe", { norm_topk_prob: undefined })().moe?.normalizeTopK).toBe(false);
  expect(parsing("qwen3_moe", { router_aux_loss_coef: undefined })().moe?.balanceCoefficient).toBe(0.001);
  expect(parsing("qwen3", { tie_word_embeddings: undefined })().tied).toBe(false);
  expect(parsing("llama", { max_position_embeddings: undefined })().contextLength).toBe(2048);
});

await test("decoder_sparse_step and mlp_only_layers choose the sparse layers", () => {
  const sparse = (changes: Record<string, unknown>) => parsing("qwen3_moe", changes)().moe?.sparseLayers;
  const [yes, no] = [true, false];
  expect(sparse({ num_hidden_layers: 5, decoder_sparse_step: 2 })).toEqual([no, yes, no, yes, no]);
  expect(sparse({ num_hidden_layers: 4, mlp_only_layers: [0, 2] })).toEqual([no, yes, no, yes]);
  expect(sparse({ num_hidden_layers: 4, mlp_only_layers: [1], decoder_sparse_step: 2 })).toEqual([
    no,
    no,
    no,
    yes,
  ]);
});

//| 03-moe/a-files-of-weights.ipynb#config-faults-test
await test("a key that is missing or of the wrong type is named", () => {
  expect(parsing("qwen3", { hidden_size: undefined })).toThrow(
    "hidden_size is missing; it must be a whole number above 0.",
  );
  expect(parsing("qwen3", { hidden_size: "64" })).toThrow(
    'hidden_size must be a whole number above 0, not "64".',
  );
  for (const value of [0, -8, 1.5, 1e300, true, [8], {}]) {
    expect(parsing("qwen3", { vocab_size: value })).toThrow("vocab_size must be a whole number above 0, not");
  }
  expect(parsing("qwen3", { rms_norm_eps: 0 })).toThrow(
    "rms_norm_eps must be a number above 0 and up to 1, not 0.",
  );
  expect(parsing("qwen3", { tie_word_embeddings: 1 })).toThrow(
    "tie_word_embeddings must be true or false, not 1.",
  );
  expect(parsing("qwen3", { eos_token_id: ["a"] })).toThrow(
    "eos_token_id must be a token id or a list of token ids",
  );
  expect(parsing("qwen3_moe", { num_experts_per_tok: undefined })).toThrow("num_experts_per_tok is missing");
  expect(parsing("qwen3_moe", { mlp_only_layers: [0, "1"] })).toThrow(
    "mlp_only_layers.1 must be a list of layer numbers",
  );
  for (const json of [null, 7, "text", []])
    expect(() => parseModelConfig(json)).toThrow("must be a JSON object");
});

await test("numbers that contradict each other are refused", () => {
  expect(parsing("qwen3", { num_key_value_heads: 3 })).toThrow(
    "not a multiple of num_key_value_heads, which is 3",
  );
  expect(parsing("qwen3", { num_key_value_heads: 8 })).toThrow(
    "not a multiple of num_key_value_heads, which is 8",
  );
  expect(parsing("qwen3_moe", { num_experts_per_tok: 5 })).toThrow(
    "num_experts_per_tok is 5, but there are only 4",
  );
  expect(parsing("qwen3_moe", { head_dim: null, hidden_size: 30 })).toThrow(
    "hidden_size is 30, not a multiple",
  );
  expect(parsing("llama", { hidden_size: 30 })).toThrow("hidden_size is 30, not a multiple");
  expect(parsing("qwen3", { head_dim: 7 })).toThrow(
    "head_dim is 7, but rotary positions need an even number",
  );
  const scaling = {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 4,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  expect(parsing("llama", { rope_scaling: scaling })).toThrow("rope_scaling.high_freq_factor must be above");
});

//| 03-moe/a-files-of-weights.ipynb#config-refused-test
await test("what we do not run is refused by name, not ignored", () => {
  expect(parsing("qwen3", { model_type: "bloom" })).toThrow(
    'model_type "bloom" is not run so far; these are: qwen3_moe',
  );
  expect(parsing("qwen3", { model_type: "toString" })).toThrow('model_type "toString" is not run');
  expect(parsing("qwen3", { model_type: undefined })).toThrow("model_type is missing");
  expect(parsing("qwen3", { hidden_act: "mish" })).toThrow('hidden_act is "mish", but only these');
  expect(parsing("qwen3", { mlp_bias: true })).toThrow("mlp_bias is true, but only false");
  expect(parsing("qwen3_moe", { hidden_act: "relu" })).toThrow(
    'hidden_act is "relu", but only "silu" is run',
  );
  expect(parsing("qwen3", { use_sliding_window: true })).toThrow("use_sliding_window is true");
  expect(parsing("qwen3", { layer_types: ["full_attention", "sliding_attention"] })).toThrow(
    "Some layers are local (sliding_attention), but there is no sliding_window.",
  );
  expect(parsing("qwen3", { quantization_config: { bits: 4 } })).toThrow("quantization_config is given");
  expect(parsing("qwen3", { rope_scaling: { type: "spiral", factor: 4 } })).toThrow(
    'rope_scaling has the rope_type "spiral"',
  );
  expect(parsing("qwen3", { partial_rotary_factor: 0.5 })).toThrow("partial_rotary_factor is 0.5");
  expect(parsing("qwen3", { rope_scaling: { partial_rotary_factor: 0.5 } })).toThrow(
    "partial_rotary_factor is 0.5",
  );
});

await test("positions of a wrong form are named with the key they stand under", () => {
  expect(parsing("llama", { rope_scaling: "llama3" })).toThrow(
    'rope_scaling must be an object, not "llama3"',
  );
  expect(parsing("llama", { rope_scaling: { rope_type: "llama3" } })).toThrow(
    "rope_scaling.factor is missing",
  );
  expect(parsing("qwen3", { rope_parameters: { rope_theta: "1e6" } })).toThrow(
    "rope_parameters.rope_theta must be",
  );
  expect(parsing("qwen3", { rope_parameters: undefined, rope_theta: 0 })).toThrow(
    "rope_theta must be a number above 0, not 0",
  );
});

//| 03-moe/a-files-of-weights.ipynb#config-strict-test
await test("strict: a key that no such model has is refused, with the nearest name", () => {
  expect(parsing("qwen3_moe", { num_expert: 4 }, true)).toThrow(
    "num_expert is not a setting of a qwen3_moe model; did you mean num_experts?",
  );
  expect(parsing("qwen3", { hiddenSize: 4 }, true)).toThrow("did you mean hidden_size?");
  expect(parsing("llama", { num_experts: 4 }, true)).toThrow(/num_experts is not a setting of a llama model/);
  expect(parsing("llama", { num_local_experts: 4 }, true)).toThrow(
    "num_local_experts is not a setting of a llama",
  );
  expect(parsing("qwen3", { zebra: 4 }, true)).toThrow("zebra is not a setting of a qwen3 model.");
  expect(parsing("qwen3", { zebra: 4 })).not.toThrow();
  expect(parsing("qwen3", { attention_dropout: 0.1 }, true)).toThrow("attention_dropout is 0.1, but only 0");
  expect(parsing("qwen3", { attention_dropout: 0.1 })).not.toThrow();
});

await test("all reference configurations are strictly valid", () => {
  for (const family of ["qwen3_moe", "qwen3", "llama"]) expect(parsing(family, {}, true)).not.toThrow();
});

//| 03-moe/a-files-of-weights.ipynb#config-conflicts-test
/** What is ignored of a reference configuration with some keys changed. */
function ignored(family: string, changes: Record<string, unknown>): string[] {
  return configWarnings(JSON.parse(JSON.stringify({ ...configOf(family), ...changes })));
}

const llama3 = {
  rope_type: "llama3",
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 32,
};

await test("where two keys contradict each other, the one wins that wins in transformers", () => {
  const theta = (changes: Record<string, unknown>) => parsing("qwen3", changes)().rope?.theta;
  const parameters = { rope_theta: 7000, rope_type: "default" };
  // Each value was asked of transformers 5.18.
  expect(theta({ rope_theta: 5000, rope_parameters: parameters })).toBe(7000);
  expect(theta({ rope_theta: 5000, rope_parameters: { rope_type: "default" } })).toBe(5000);
  expect(theta({ rope_scaling: llama3, rope_parameters: parameters })).toBe(10000);
  expect(theta({ rope_scaling: llama3, rope_parameters: parameters, rope_theta: 123 })).toBe(123);
  expect(theta({ rope_scaling: {}, rope_parameters: parameters })).toBe(7000);
  expect(parsing("qwen3", { rope_parameters: { ...parameters, type: "llama3" } })().rope?.scaling).toBe(
    undefined,
  );
  const { original_max_position_embeddings: _, ...rest } = llama3;
  expect(parsing("qwen3", { rope_parameters: rest })().rope?.scaling).toMatchObject({
    originalContextLength: 256,
  });
});

//| 03-moe/a-files-of-weights.ipynb#config-conflicts-test-2
await test("what is ignored is said", () => {
  for (const family of ["llama", "qwen3", "qwen3_moe"]) expect(ignored(family, {})).toEqual([]);
  expect(ignored("qwen3_moe", { num_experts: 8 })).toEqual([
    "num_experts is 8 and is ignored, because num_local_experts is 4.",
  ]);
  expect(ignored("qwen3_moe", { num_experts: 4 })).toEqual([]);
  expect(ignored("qwen3", { rope_theta: 5000 })).toEqual([
    "rope_theta is 5000 and is ignored, because rope_parameters.rope_theta is 10000.",
  ]);
  expect(ignored("qwen3", { rope_scaling: llama3 })[0]).toMatch(/^rope_parameters is .* and is ignored/);
  expect(ignored("qwen3", { rope_parameters: { rope_theta: 10000, factor: 8 } })).toEqual([
    "rope_parameters.factor is ignored: positions of the type default have no such setting.",
  ]);
  expect(ignored("qwen3", { torch_dtype: "bfloat16" })).toEqual([
    'torch_dtype is "bfloat16" and is ignored, because dtype is "float32".',
  ]);
  expect(ignored("qwen3", { architectures: ["LlamaForCausalLM"] })[0]).toMatch(/^architectures is/);
  expect(ignored("llama", { eos_token_id: [2, 64] })).toEqual([
    "eos_token_id is 64, but the vocabulary ends at 63: no token has that id.",
  ]);
  expect(ignored("qwen3_moe", { mlp_only_layers: [7] })).toEqual([
    "mlp_only_layers names the layer 7, but there are only 2.",
  ]);
  expect(parsing("qwen3_moe", { num_experts: 8 }, true)).toThrow("num_local_experts is 4. Give one of them.");
});

//| 03-moe/a-files-of-weights.ipynb#config-conflicts-test-3
await test("settings that change nothing must have their type", () => {
  expect(parsing("qwen3", { use_cache: "yes" })).toThrow('use_cache must be true or false, not "yes".');
  expect(parsing("qwen3", { mlp_bias: [] })).toThrow("mlp_bias is []");
  expect(parsing("qwen3", { layer_types: ["full_attention"] })).toThrow(
    "layer_types must be a list of 2 layer types, one for each layer",
  );
  expect(parsing("qwen3", { rope_parameters: { full_attention: { rope_theta: 7 } } })).toThrow(
    "rope_parameters.full_attention is an object",
  );
  expect(parsing("qwen3", { initializer_range: 2 })).toThrow(
    "initializer_range must be a number above 0 and up to 1",
  );
});

//| 03-moe/a-files-of-weights.ipynb#config-extent-test
await test("sizes are multiplied out before anything is made of them", () => {
  const most = 2 ** 31 - 1;
  for (const key of ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim"])
    for (const value of [most + 1, 2 ** 40, Number.MAX_SAFE_INTEGER])
      expect(parsing("llama", { [key]: value })).toThrow(`${key} must be at most ${most}, not ${value}.`);
  for (const key of ["num_experts_per_tok", "moe_intermediate_size", "max_position_embeddings"])
    expect(parsing("qwen3_moe", { [key]: 2 ** 31 })).toThrow(`${key} must be at most ${most}`);
  const layers = { layer_types: null, num_hidden_layers: 1e6 };
  for (const family of ["llama", "qwen3"])
    expect(parsing(family, layers)).toThrow(
      "1000000 layers make 16000000 tensors, but a model may have 500000: lower num_hidden_layers.",
    );
  expect(parsing("qwen3_moe", { num_local_experts: 1e6 })).toThrow(
    "2 layers of 1000000 experts make 6000032 tensors, but a model may have 500000: lower num_hidden_layers or num_experts.",
  );
  expect(parsing("llama", { hidden_size: 2 ** 30, vocab_size: 2 ** 30 })).toThrow(
    /^The sizes multiply out to 2\.31e\+18 parameters, 8\.59e\+9 GiB, but at most 8388608 GiB can be addressed: lower them\.$/,
  );
  expect(parsing("qwen3", { intermediate_size: most, hidden_size: most - 3 })).toThrow("multiply out to");
});

//| 03-moe/a-files-of-weights.ipynb#config-parts-test
/** What a configuration is made from below: small factors of its sizes, and settings in all combinations. */
const anyConfigParts = fc.record({
  modelType: fc.constantFrom("qwen3_moe" as const, "qwen3" as const, "llama" as const),
  group: fc.integer({ min: 1, max: 4 }),
  kvHeads: fc.integer({ min: 1, max: 4 }),
  half: fc.integer({ min: 1, max: 16 }),
  width: fc.integer({ min: 1, max: 8 }),
  sparseLayers: fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
  flags: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
  theta: fc.integer({ min: 1, max: 10_000_000 }),
  eosTokenIds: fc.uniqueArray(fc.nat(1000), { maxLength: 3 }),
});

//| 03-moe/a-files-of-weights.ipynb#any-config-test
/** Any configuration that can be: its sizes fit each other. */
const anyConfig = anyConfigParts.map(
  ({ modelType, group, kvHeads, half, width, sparseLayers, flags, theta, eosTokenIds }): ModelConfig => ({
    modelType,
    vocabSize: 64 * width,
    hiddenSize: group * kvHeads * width,
    layers: sparseLayers.length,
    heads: group * kvHeads,
    kvHeads,
    headDim: 2 * half,
    intermediateSize: 3 * width,
    contextLength: 16 * width,
    ...(modelType === "qwen3_moe"
      ? {
          moe: {
            experts: 4 * width,
            expertsPerToken: width,
            intermediateSize: half,
            normalizeTopK: flags[0],
            balanceCoefficient: 0.01 * width,
            sparseLayers,
          },
        }
      : {}),
    normEps: 1e-5,
    activation: "silu",
    qkNorm: modelType === "llama" ? "none" : "head",
    rope: flags[1]
      ? {
          theta,
          scaling: {
            type: "llama3",
            factor: width,
            lowFrequencyFactor: 1,
            highFrequencyFactor: 4,
            originalContextLength: 32,
          },
        }
      : { theta },
    attentionBias: flags[2],
    mlpBias: modelType === "llama" && flags[0],
    tied: flags[3],
    initializerRange: 0.01 * width,
    ...(flags[0] ? { bosTokenId: width } : {}),
    eosTokenIds,
  }),
);

//| 03-moe/a-files-of-weights.ipynb#config-round-trip-test
await test("a configuration that was saved is read back as it was, and is strictly valid", () => {
  fc.assert(
    fc.property(anyConfig, (config) => {
      expect(parseModelConfig(modelConfigToJson(config), { strict: true })).toEqual(config);
      expect(parseModelConfig(JSON.parse(modelConfigText(config)))).toEqual(config);
    }),
  );
});

//| 03-moe/a-files-of-weights.ipynb#config-fuzz-test
/** A value that a damaged or hostile config.json may have in place of another. */
const oddValue = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    "",
    "x",
    [],
    {},
    [[]],
    [null],
    0,
    -1,
    1.5,
    1e300,
    1e9,
    2 ** 31,
    2 ** 53,
    -(2 ** 53),
  ),
  fc.integer({ min: -3, max: 300 }),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Positions that are nearly right. */
const oddRope = fc.record(
  {
    rope_type: fc.constantFrom("linear", "dynamic", "llama3", "yarn", "longrope", "default"),
    factor: fc.oneof(fc.double({ min: 0.5, max: 40, noNaN: true }), oddValue),
    ...{
      rope_theta: fc.oneof(fc.integer({ min: 1, max: 1e7 }), oddValue),
      partial_rotary_factor: fc.constantFrom(0.5, 1),
    },
    ...{ low_freq_factor: fc.constant(1), high_freq_factor: fc.oneof(fc.constant(4), oddValue) },
    ...{
      original_max_position_embeddings: fc.oneof(fc.constant(16), oddValue),
      mscale: oddValue,
      truncate: oddValue,
    },
    ...{
      short_factor: fc.constant([1, 2, 3, 4]),
      long_factor: fc.oneof(fc.constant([5, 6, 7, 8]), oddValue),
    },
  },
  { requiredKeys: ["rope_type"] },
);

//| 03-moe/a-files-of-weights.ipynb#config-fuzz-test-2
await test("whatever stands in a config.json, it is read or refused in one sentence", () => {
  const fuzzed = fs
    .readdirSync(families)
    .filter((family) => Object.hasOwn(modelFamilies, String(configOf(family).model_type)));
  const keys = [...new Set(fuzzed.flatMap((family) => Object.keys(configOf(family))))];
  const changes = fc.dictionary(
    fc.constantFrom(...keys, "num_experts", "rope_theta", "rope_scaling", "rope_parameters", "rope_scaling"),
    fc.oneof(oddValue, oddRope),
    {
      minKeys: 1,
      maxKeys: 3,
    },
  );
  fc.assert(
    fc.property(fc.constantFrom(...fuzzed), changes, fc.boolean(), (family, changed, strict) => {
      try {
        const json = { ...configOf(family), ...changed };
        const config = parseModelConfig(json, { strict });
        configWarnings(json);
        expect(config.layers * (16 + (config.moe?.experts ?? 0))).toBeLessThan(1e6);
        expect(parseModelConfig(JSON.parse(modelConfigText(config)))).toEqual(config);
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
        expect((error as Error).constructor.name).toBe("Error");
        expect((error as Error).message).toMatch(/^[^\n]{10,600}[.?]$/);
      }
    }),
    { numRuns: 800, seed: 7 },
  );
});

//| 03-moe/a-files-of-weights.ipynb#config-complete-test
await test("a few keys are enough for a whole model of each family", () => {
  const sizes = { vocab_size: 300, max_position_embeddings: 64 };
  const moe = parseModelConfig(completeModelConfig({ hidden_size: 96, num_hidden_layers: 3 }, sizes), {
    strict: true,
  });
  expect(moe).toMatchObject({
    modelType: "qwen3_moe",
    hiddenSize: 96,
    layers: 3,
    heads: 3,
    kvHeads: 3,
    headDim: 32,
  });
  expect(moe).toMatchObject({ vocabSize: 300, contextLength: 64, intermediateSize: 288, eosTokenIds: [] });
  expect(moe.moe).toMatchObject({
    experts: 8,
    expertsPerToken: 2,
    intermediateSize: 144,
    normalizeTopK: true,
  });
  for (const model_type of ["qwen3", "llama"]) {
    const dense = parseModelConfig(completeModelConfig({ model_type, hidden_size: 64 }, sizes), {
      strict: true,
    });
    expect([dense.heads, dense.headDim, dense.moe, dense.bosTokenId]).toEqual([2, 32, undefined, undefined]);
  }
});

await test("what a person wrote is never replaced when a configuration is completed", () => {
  const written = {
    vocab_size: 80,
    num_local_experts: 6,
    num_experts_per_tok: 3,
    tie_word_embeddings: true,
    head_dim: 10,
  };
  const config = parseModelConfig(
    completeModelConfig(written, { vocab_size: 300, max_position_embeddings: 8 }),
  );
  expect([config.vocabSize, config.tied, config.headDim, config.moe?.experts]).toEqual([80, true, 10, 6]);
  expect(() =>
    parseModelConfig(
      completeModelConfig({ hidden_size: "64" }, { vocab_size: 2, max_position_embeddings: 8 }),
    ),
  ).toThrow('not "64"');
  expect(() => parseModelConfig(completeModelConfig({}))).toThrow("vocab_size is missing");
});

//| 03-moe/a-files-of-weights.ipynb#config-families-test
await test("each family reads its own spellings", () => {
  const sizes = { vocab_size: 64, max_position_embeddings: 64 };
  const read = (model_type: string, keys: Record<string, unknown> = {}) =>
    parseModelConfig({ ...completeModelConfig({ model_type, ...keys }, sizes), ...keys });
  const gpt2 = read("gpt2", { n_embd: 32, n_layer: 2, n_head: 4, n_inner: null });
  expect(gpt2).toMatchObject({
    hiddenSize: 32,
    layers: 2,
    headDim: 8,
    intermediateSize: 128,
    contextLength: 64,
  });
  expect([gpt2.activation, gpt2.rope, gpt2.tied]).toEqual(["gelu", undefined, true]);
  expect(() => read("gpt2", { n_embd: 30, n_head: 4 })).toThrow(
    "n_embd is 30, not a multiple of n_head, which is 4.",
  );
  expect(() => parseModelConfig({ model_type: "gpt2", hidden_size: 32 }, { strict: true })).toThrow(
    "hidden_size is not a setting of a gpt2 model; it is called n_embd there.",
  );
  // Gemma's activation has its own key; the one that others have says nothing there.
  expect(read("gemma2", { hidden_act: "silu", hidden_activation: "gelu_pytorch_tanh" }).activation).toBe(
    "gelu",
  );
  const gemma = read("gemma3_text", { num_hidden_layers: 7, rope_local_base_freq: 5000, sliding_window: 9 });
  expect(gemma.localLayers).toEqual([true, true, true, true, true, false, true]);
  expect([gemma.window, gemma.rope?.theta, gemma.localRope?.theta]).toEqual([9, 1e6, 5000]);
  const [yes, no] = [true, false];
  const qwen = { num_hidden_layers: 3, use_sliding_window: true, sliding_window: 9, max_window_layers: 1 };
  expect(read("qwen2", qwen).localLayers).toEqual([no, yes, yes]);
  expect(read("qwen2", { ...qwen, use_sliding_window: false }).window).toBeUndefined();
  expect(read("mistral", { sliding_window: 9 }).localLayers).toEqual([yes, yes, yes, yes]);
  expect(read("mistral", { sliding_window: null }).window).toBeUndefined();
  expect(read("smollm3", { no_rope_layer_interval: 2 }).rotatingLayers).toEqual([yes, no, yes, no]);
  const mixtral = read("mixtral", { num_local_experts: 5, norm_topk_prob: false });
  expect([mixtral.moe?.experts, mixtral.moe?.normalizeTopK]).toEqual([5, true]);
  expect([read("olmoe").qkNorm, read("olmoe").moe?.balanceCoefficient]).toEqual(["projection", 0.01]);
  const dynamic = read("llama", { rope_scaling: { type: "dynamic", factor: 4 } });
  expect([dynamic.contextLength, dynamic.rope?.scaling]).toMatchObject([256, { originalContextLength: 64 }]);
});

//| 03-moe/a-files-of-weights.ipynb#config-refused-table-test
/** Settings that change what a model computes, with values that ask for the change. */
const changesWanted: Record<string, unknown> = {
  ...{
    attention_bias: true,
    mlp_bias: true,
    use_sliding_window: true,
    sliding_window: 8,
    partial_rotary_factor: 0.5,
  },
  ...{
    layer_types: ["chunked_attention", "full_attention"],
    no_rope_layers: [1, 2],
    attention_chunk_size: 64,
  },
  ...{ attn_logit_softcapping: 50, final_logit_softcapping: 30, query_pre_attn_scalar: 64, clip_qkv: 8 },
  ...{ attention_multiplier: 0.5, embedding_multiplier: 12, residual_multiplier: 0.22, logits_scaling: 8 },
  ...{
    lm_head_bias: true,
    logit_scale: 0.06,
    use_bidirectional_attention: true,
    alibi: true,
    is_encoder_decoder: true,
  },
  ...{ add_cross_attention: true, scale_attn_weights: false, scale_attn_by_inverse_layer_idx: true },
  ...{ quantization_config: { bits: 4 }, per_layer_config: {}, transformers_weights: "other.bin" },
};

await test("a family that has no part for a setting refuses it by name, in one sentence", () => {
  const sizes = { vocab_size: 64, max_position_embeddings: 64 };
  let refusals = 0;
  for (const [model_type, { parts, runnable = {}, lacks = [] }] of Object.entries(modelFamilies)) {
    const json = completeModelConfig({ model_type, num_hidden_layers: 2 }, sizes);
    const own = [...parts.flatMap(({ keys }) => keys), ...Object.keys(runnable), ...lacks];
    for (const [key, value] of Object.entries(changesWanted)) {
      const read = () => parseModelConfig({ ...json, n_layer: 2, [key]: value });
      if (own.includes(key) && !["layer_types", "no_rope_layers"].includes(key)) continue;
      expect(read, `${model_type}: ${key}`).toThrow(new RegExp(`^[^\\n]*${key}[^\\n]*\\.$`));
      refusals++;
    }
  }
  expect(refusals).toBeGreaterThan(20 * Object.keys(modelFamilies).length);
});

//| 03-moe/a-files-of-weights.ipynb#config-refused-part-test
await test("what a part does not run is refused as well", () => {
  const refused = (model_type: string, changes: Record<string, unknown>) => () =>
    parseModelConfig({
      ...completeModelConfig({ model_type }, { vocab_size: 64, max_position_embeddings: 64 }),
      ...changes,
    });
  const scaling = (rope_type: string, more = {}) => ({ rope_scaling: { rope_type, factor: 2, ...more } });
  expect(refused("llama", scaling("axial"))).toThrow(
    'rope_scaling has the rope_type "axial"; the types run so far',
  );
  expect(refused("phi3", scaling("linear"))).toThrow("only default and longrope are run in this family");
  expect(refused("phi3", scaling("longrope", { short_factor: [1], long_factor: [1] }))).toThrow(
    "rope_scaling.short_factor must be a list of 16 numbers above 0, one for each pair that turns, not [1].",
  );
  expect(refused("phi3", { partial_rotary_factor: 0.1 })).toThrow("lets 3 of 32 elements turn");
  expect(refused("llama", scaling("yarn", { truncate: 1 }))).toThrow(
    "rope_scaling.truncate must be true or false",
  );
  expect(refused("qwen3", { layer_types: Array(4).fill("linear_attention") })).toThrow("layer_types has");
  expect(refused("qwen3", { use_sliding_window: true, sliding_window: null })).toThrow(
    "there is no sliding_window",
  );
  expect(refused("gemma3_text", { rope_parameters: { rope_theta: 7 } })).toThrow(
    "rope_parameters.rope_theta stands",
  );
  expect(refused("gemma3_text", { sliding_window: null })).toThrow("there is no sliding_window");
  expect(refused("gemma2", { hidden_activation: "mish" })).toThrow(
    'hidden_activation is "mish", but only these',
  );
  expect(refused("smollm3", { no_rope_layers: [1] })).toThrow(
    "no_rope_layers must be a list of 4 zeros and ones",
  );
  expect(refused("mixtral", { num_experts_per_tok: 9 })).toThrow("there are only 8 experts");
});

//| 03-moe/a-files-of-weights.ipynb#config-text-test
await test("the nearest of the known names, where one is near", () => {
  expect(nearestName("eval_evry", ["seed", "eval_every"])).toBe("eval_every");
  expect(nearestName("EVAL_EVERY", ["seed", "eval_every"])).toBe("eval_every");
  expect(nearestName("eval_evry", [])).toBe(undefined);
  expect(didYouMean("seeds", ["eval_every", "seed"])).toBe("; did you mean seed?");
  expect(didYouMean("zebra", ["eval_every", "seed"])).toBe(".");
});

await test("the text of config.json marks fractional settings, whole ones too", () => {
  const { moe, ...rest } = parseModelConfig(configOf("qwen3_moe"));
  const config: ModelConfig = { ...rest, moe: { ...moe!, balanceCoefficient: 0 }, initializerRange: 1 };
  const lines = modelConfigText(config)
    .split("\n")
    .map((line) => line.trim());
  expect(lines).toContain('"router_aux_loss_coef": 0.0,');
  expect(lines).toContain('"initializer_range": 1.0,');
  expect(lines).toContain('"rope_theta": 10000.0,');
  expect(lines).toContain('"hidden_size": 32,');
  expect(parseModelConfig(JSON.parse(modelConfigText(config)))).toEqual(config);
});
