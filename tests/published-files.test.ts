// What files of published models carry beside a plain decoder: layers that guess ahead, the parts that see pictures, names without
// their prefix, keys that change nothing. Other software opens them, and so do we.
import fs from "node:fs";
import { expect, test } from "vitest";
import { type SafetensorsTensor, readSafetensors, writeSafetensors } from "../lib/src/formats/safetensors.js";
import {
  completeModelConfig,
  configWarnings,
  modelConfigText,
  parseModelConfig,
} from "../lib/src/model/config.js";
import { storedTensors } from "../lib/src/model/stored.js";
import { checkModelFiles } from "../lib/src/model/weights.js";

const folder = "tests/fixtures/families";

const configOf = (family: string): Record<string, unknown> =>
  JSON.parse(fs.readFileSync(`${folder}/${family}/config.json`, "utf8"));
const weightsIn = (family: string) =>
  readSafetensors(fs.readFileSync(`${folder}/${family}/model.safetensors`)).tensors;
const one: SafetensorsTensor = { dtype: "F32", shape: [1], data: new Uint8Array(4) };

/** The decoder in files: its configuration as it is saved, its tensors by name, and what was ignored. */
function decoderIn(json: unknown, files: Map<string, SafetensorsTensor>) {
  const { config, tensors, warnings } = checkModelFiles(json, [storedTensors(writeSafetensors(files))]);
  const numbers = [...tensors].map(([name, { shape, read }]) => [name, { shape, bytes: [...read()] }]);
  return { config: modelConfigText(config), tensors: Object.fromEntries(numbers), warnings };
}

for (const family of ["deepseek_v3", "glm4_moe"])
  test(`${family}: layers that predict the token after the next are left out, which is said once`, () => {
    const json: Record<string, unknown> = { ...configOf(family), num_nextn_predict_layers: 1 };
    const layers = json.num_hidden_layers as number;
    const tensors = weightsIn(family);
    const plain = decoderIn(json, tensors);
    const ahead = [
      "eh_proj.weight",
      "enorm.weight",
      "mlp.experts.0.up_proj.weight",
      "shared_head.head.weight",
    ];
    for (const name of ahead) tensors.set(`model.layers.${layers}.${name}`, one);
    const { warnings, ...decoder } = decoderIn(json, tensors);
    expect(warnings.slice(configWarnings(json).length)).toEqual([
      `4 tensors of model.layers.${layers} are left out: what predicts the token after the next is not used so far.`,
    ]);
    expect(decoder).toEqual({ config: plain.config, tensors: plain.tensors });
    expect(Object.keys(JSON.parse(plain.config))).not.toContain("num_nextn_predict_layers");
    // Layers beyond those that the configuration counts, and the same without the key, are one too many.
    expect(() => decoderIn({ ...json, num_nextn_predict_layers: 0 }, tensors)).toThrow(
      `The configuration has no place for the weights model.layers.${layers}.`,
    );
    tensors.set(`model.layers.${layers + 1}.enorm.weight`, one);
    expect(() => decoderIn(json, tensors)).toThrow(
      `no place for the weights model.layers.${layers + 1}.enorm.weight.`,
    );
  });

/** A fixture's decoder as the part of a model that sees pictures: its configuration, and its tensors under longer names. */
function withEyes(rename: (name: string) => string, eyes: string) {
  const { bos_token_id, eos_token_id, pad_token_id, ...text } = configOf("gemma3");
  const json = { model_type: "gemma3", bos_token_id, eos_token_id, pad_token_id, text_config: text };
  const tensors = new Map([...weightsIn("gemma3")].map(([name, tensor]) => [rename(name), tensor]));
  tensors.set(`${eyes}vision_tower.vision_model.post_layernorm.weight`, one);
  tensors.set(`${eyes}multi_modal_projector.mm_input_projection_weight`, one);
  return { json: { ...json, vision_config: { model_type: "siglip_vision_model" } }, tensors };
}

test("gemma3: the decoder of a model that sees pictures, under the names of both kinds of files", () => {
  const plain = decoderIn(configOf("gemma3"), weightsIn("gemma3"));
  const older = withEyes((name) => `language_model.${name}`, "");
  const newer = withEyes((name) => name.replace("model.", "model.language_model."), "model.");
  for (const [{ json, tensors }, where] of [[older, ""] as const, [newer, "model."] as const]) {
    const { warnings, ...decoder } = decoderIn(json, tensors);
    expect(warnings.slice(configWarnings(configOf("gemma3")).length)).toEqual([
      `2 tensors of ${where}multi_modal_projector and ${where}vision_tower are left out: of such a model the decoder alone is run.`,
    ]);
    expect(decoder).toEqual({ config: plain.config, tensors: plain.tensors });
  }
  const strange = { ...older.json, text_config: { ...older.json.text_config, model_type: "llama" } };
  expect(() => parseModelConfig(strange)).toThrow('text_config.model_type is "llama", but in a gemma3 it is');
  expect(() => parseModelConfig({ ...older.json, text_config: undefined })).toThrow(
    "text_config must be an object",
  );
  const packed = { ...older.json, quantization_config: { quant_method: "fp8" } };
  expect(() => parseModelConfig(packed)).toThrow('quantization_config is given (quant_method "fp8")');
});

test("files of the bare decoder leave the first part of the names out", () => {
  for (const family of ["qwen3", "olmo2", "gemma2"]) {
    const json = { ...configOf(family), tie_word_embeddings: true };
    const tensors = weightsIn(family);
    tensors.delete("lm_head.weight");
    const bare = new Map([...tensors].map(([name, tensor]) => [name.replace(/^model\./, ""), tensor]));
    expect(decoderIn(json, bare), family).toEqual(decoderIn(json, tensors));
  }
});

/** Configurations as they are published: what they have that our fixtures do not. */
const published: Record<string, Record<string, unknown>> = {
  "Phi-4-mini": {
    ...{ model_type: "phi3", architectures: ["Phi3ForCausalLM"], hidden_size: 3072, intermediate_size: 8192 },
    ...{ num_attention_heads: 24, num_hidden_layers: 32, num_key_value_heads: 8, vocab_size: 200064 },
    ...{
      partial_rotary_factor: 0.75,
      max_position_embeddings: 131072,
      original_max_position_embeddings: 4096,
    },
    ...{
      full_attn_mod: 1,
      interpolate_factor: 1,
      lm_head_bias: false,
      mlp_bias: false,
      attention_bias: false,
    },
    ...{ auto_map: { AutoConfig: "configuration_phi3.Phi3Config" }, sliding_window: 262144, embd_pdrop: 0 },
    rope_scaling: {
      type: "longrope",
      short_factor: Array.from({ length: 48 }, () => 1),
      long_factor: Array.from({ length: 48 }, (_, i) => 1 + i),
    },
    ...{
      tie_word_embeddings: true,
      torch_dtype: "bfloat16",
      use_cache: true,
      transformers_version: "4.45.0",
    },
  },
  "Moonlight-16B-A3B": {
    ...{ model_type: "deepseek_v3", hidden_size: 2048, intermediate_size: 11264, num_hidden_layers: 27 },
    ...{ num_attention_heads: 16, num_key_value_heads: 16, vocab_size: 163840, rope_theta: 50000 },
    ...{ q_lora_rank: null, kv_lora_rank: 512, n_routed_experts: 64, num_experts_per_tok: 6, n_group: 1 },
    ...{
      topk_group: 1,
      moe_intermediate_size: 1408,
      n_shared_experts: 2,
      first_k_dense_replace: 1,
      ep_size: 1,
    },
    ...{ routed_scaling_factor: 2.446, scoring_func: "sigmoid", topk_method: "noaux_tc", moe_layer_freq: 1 },
    ...{
      aux_loss_alpha: 0.001,
      seq_aux: true,
      num_nextn_predict_layers: 0,
      pretraining_tp: 1,
      rope_scaling: null,
    },
    ...{ max_position_embeddings: 8192, norm_topk_prob: true, hidden_act: "silu", attention_bias: false },
  },
  "Mistral-Nemo": {
    ...{
      model_type: "mistral",
      hidden_size: 5120,
      head_dim: 128,
      num_attention_heads: 32,
      vocab_size: 131072,
    },
    ...{ num_key_value_heads: 8, num_hidden_layers: 40, intermediate_size: 14336, sliding_window: null },
    ...{ rope_theta: 1000000.0, rms_norm_eps: 1e-5, max_position_embeddings: 131072, attention_dropout: 0.0 },
  },
  "Qwen2.5-7B-Instruct": {
    ...{ model_type: "qwen2", hidden_size: 3584, intermediate_size: 18944, num_attention_heads: 28 },
    ...{ num_key_value_heads: 4, num_hidden_layers: 28, vocab_size: 152064, max_position_embeddings: 32768 },
    ...{ use_mrope: false, use_sliding_window: false, sliding_window: 131072, max_window_layers: 28 },
    ...{ rope_theta: 1000000.0, rms_norm_eps: 1e-6, eos_token_id: 151645, bos_token_id: 151643 },
  },
  "gemma-2-27b": {
    ...{ model_type: "gemma2", hidden_size: 4608, intermediate_size: 36864, num_attention_heads: 32 },
    ...{
      head_dim: 128,
      num_key_value_heads: 16,
      num_hidden_layers: 46,
      vocab_size: 256000,
      sliding_window: 4096,
    },
    ...{
      query_pre_attn_scalar: 144,
      hidden_act: "gelu_pytorch_tanh",
      hidden_activation: "gelu_pytorch_tanh",
    },
    ...{ cache_implementation: "hybrid", attn_logit_softcapping: 50.0, final_logit_softcapping: 30.0 },
    ...{ max_position_embeddings: 8192, sliding_window_size: 4096, _attn_implementation: "eager" },
  },
  "gemma-3-4b-it": {
    ...{ model_type: "gemma3", architectures: ["Gemma3ForConditionalGeneration"], eos_token_id: [1, 106] },
    ...{
      boi_token_index: 255999,
      eoi_token_index: 256000,
      image_token_index: 262144,
      mm_tokens_per_image: 256,
    },
    ...{ initializer_range: 0.02, torch_dtype: "bfloat16", transformers_version: "4.50.0.dev0" },
    text_config: {
      ...{ hidden_size: 2560, intermediate_size: 10240, model_type: "gemma3_text", num_hidden_layers: 34 },
      ...{ rope_scaling: { factor: 8.0, rope_type: "linear" }, sliding_window: 1024 },
    },
    vision_config: { hidden_size: 1152, model_type: "siglip_vision_model", num_hidden_layers: 27 },
  },
  "SmolLM2-135M": {
    ...{
      model_type: "llama",
      hidden_size: 576,
      intermediate_size: 1536,
      num_attention_heads: 9,
      vocab_size: 49152,
    },
    ...{ num_key_value_heads: 3, num_hidden_layers: 30, is_llama_config: true, rope_interleaved: false },
    ...{ pretraining_tp: 1, tie_word_embeddings: true, "transformers.js_config": {}, rope_theta: 100000 },
    ...{ attention_bias: false, attention_dropout: 0.0, bos_token_id: 0, eos_token_id: 0, mlp_bias: false },
  },
  "LLaMA-7B of 2023": {
    ...{
      model_type: "llama",
      architectures: ["LLaMAForCausalLM"],
      hidden_size: 4096,
      intermediate_size: 11008,
    },
    ...{ num_attention_heads: 32, num_hidden_layers: 32, vocab_size: 32000, max_sequence_length: 2048 },
    ...{
      _name_or_path: "decapoda-research/llama-7b-hf",
      pad_token_id: -1,
      rms_norm_eps: 1e-6,
      use_cache: true,
    },
  },
};

test("configurations of published models are read, whatever else stands in them", () => {
  const sizes = (name: string) => {
    const { layers, hiddenSize, heads, kvHeads, headDim, vocabSize } = parseModelConfig(published[name]);
    return [layers, hiddenSize, heads, kvHeads, headDim, vocabSize];
  };
  expect(Object.fromEntries(Object.keys(published).map((name) => [name, sizes(name)]))).toEqual({
    "Phi-4-mini": [32, 3072, 24, 8, 128, 200064],
    "Moonlight-16B-A3B": [27, 2048, 16, 16, 192, 163840],
    "Mistral-Nemo": [40, 5120, 32, 8, 128, 131072],
    "Qwen2.5-7B-Instruct": [28, 3584, 28, 4, 128, 152064],
    "gemma-2-27b": [46, 4608, 32, 16, 128, 256000],
    "gemma-3-4b-it": [34, 2560, 8, 4, 256, 262208],
    "SmolLM2-135M": [30, 576, 9, 3, 64, 49152],
    "LLaMA-7B of 2023": [32, 4096, 32, 32, 128, 32000],
  });
  expect(parseModelConfig(published["gemma-3-4b-it"])).toMatchObject({ eosTokenIds: [1, 106], tied: true });
  const fp8 = {
    activation_scheme: "dynamic",
    fmt: "e4m3",
    quant_method: "fp8",
    weight_block_size: [128, 128],
  };
  const original = JSON.parse(fs.readFileSync("tests/fixtures/configs/deepseek-v3.json", "utf8"));
  expect(() => parseModelConfig({ ...original, quantization_config: fp8 })).toThrow(
    'quantization_config is given (quant_method "fp8"), but such models are not run so far.',
  );
});

/** What we write for a configuration of a family as a person writes it: its text, which reads back as the same. */
function writtenFor(given: Record<string, unknown>): string {
  const sizes = { vocab_size: 64, max_position_embeddings: 48 };
  const keys = { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, ...given };
  const config = parseModelConfig(completeModelConfig(keys, sizes));
  const text = modelConfigText(config);
  expect(parseModelConfig(JSON.parse(text))).toEqual(config);
  return text;
}

test("what is written says what other software would assume otherwise, or cannot do without", () => {
  // Without a word on positions other software takes gpt-oss's own rescaling.
  const unscaled = JSON.parse(writtenFor({ model_type: "gpt_oss", rope_parameters: {} }));
  expect(unscaled).toMatchObject({ rope_scaling: { rope_type: "default" }, rope_theta: 150000 });
  expect(JSON.parse(writtenFor({ model_type: "gpt_oss" })).rope_scaling.rope_type).toBe("yarn");
  // It asks these families for a window, also where no layer has one.
  const layer_types = ["full_attention", "full_attention"];
  for (const model_type of ["gemma2", "gemma3_text", "gpt_oss"])
    expect(JSON.parse(writtenFor({ model_type, layer_types, sliding_window: null })).sliding_window).toBe(48);
  // It judges a group by its two best experts, and wants a fraction where it expects one.
  expect(writtenFor({ model_type: "glm4_moe" })).toContain('"routed_scaling_factor": 1.0');
  expect(JSON.parse(writtenFor({ model_type: "deepseek_v3" }))).toMatchObject({
    n_routed_experts: 8,
    n_group: 1,
  });
  expect(() => writtenFor({ model_type: "deepseek_v3", n_group: 8, topk_group: 4 })).toThrow(
    "n_group is 8, which leaves 1 of 8 experts for each group: it takes two to judge a group.",
  );
});
