// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import {
  attentionBiasPart,
  expertsPart,
  mlpBiasPart,
  rotaryPart,
  switchedWindowPart,
  upperWindowPart,
  windowPart,
} from "../formats/config-parts.js";
import type { ModelConfig } from "../formats/config.js";
import type { Tensor } from "../tensor/tensor.js";
import { decoderEntries } from "./entries.js";
import {
  type Model,
  type ModelFamily,
  type ModelParameter,
  type ModelWeight,
  type WeightEntry,
  freshModel,
  modelWeights,
  parametersIn,
} from "./structure.js";

//| 03-moe/5-the-families.ipynb#model-families-parts
/** Rotary angles that old software stored in its files: they are computed. */
export const storedAngles = ["model.layers.*.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"];

/** What the three families have in common. */
export const llamaLike = { entries: decoderEntries, redundant: storedAngles };

/** What Qwen's files assume of a window, which counts where they switch it on. */
export const qwenWindow = { sliding_window: 4096, max_window_layers: 28 };

/** The same table for families whose output projection never has a bias. */
export function withoutOutputBias(entries: WeightEntry[]): WeightEntry[] {
  return entries.filter(({ path }) => path !== "blocks.*.attention.o.bias");
}

//| 03-moe/5-the-families.ipynb#model-families
/** The families that the decoder runs, by the `model_type` of their config.json. A new family is a new entry. */
export const modelFamilies: Record<string, ModelFamily> = {
  qwen3_moe: {
    ...llamaLike,
    architecture: "Qwen3MoeForCausalLM",
    qkNorm: "head",
    parts: [rotaryPart, attentionBiasPart, switchedWindowPart, expertsPart],
    defaults: { num_key_value_heads: 4, max_position_embeddings: 32768, sliding_window: 4096 },
    runnable: { hidden_act: ["silu", "swish"] },
  },
  qwen3: {
    ...llamaLike,
    architecture: "Qwen3ForCausalLM",
    qkNorm: "head",
    parts: [rotaryPart, attentionBiasPart, upperWindowPart],
    defaults: { num_key_value_heads: 32, head_dim: 128, max_position_embeddings: 32768, ...qwenWindow },
  },
  llama: {
    ...llamaLike,
    architecture: "LlamaForCausalLM",
    qkNorm: "none",
    headsFillWidth: true,
    parts: [rotaryPart, attentionBiasPart, mlpBiasPart],
    defaults: { max_position_embeddings: 2048, bos_token_id: 1, eos_token_id: 2 },
  },
  qwen2: {
    ...llamaLike,
    entries: withoutOutputBias(decoderEntries),
    architecture: "Qwen2ForCausalLM",
    qkNorm: "none",
    parts: [rotaryPart, upperWindowPart],
    fixed: { attentionBias: true },
    defaults: { num_key_value_heads: 32, max_position_embeddings: 32768, ...qwenWindow },
  },
  mistral: {
    ...llamaLike,
    architecture: "MistralForCausalLM",
    qkNorm: "none",
    parts: [rotaryPart, windowPart],
    defaults: {
      num_key_value_heads: 8,
      max_position_embeddings: 131072,
      sliding_window: 4096,
      bos_token_id: 1,
      eos_token_id: 2,
    },
  },
};

//| 03-moe/5-the-families.ipynb#weights-of
/** The weights of a configuration's models, in a fixed order: from the embedding up to the output. */
export function weightsOf(config: ModelConfig): ModelWeight[] {
  return modelWeights(modelFamilies[config.modelType].entries, config);
}

/** The weights that training changes, with their names and roles, in the order of `weightsOf`. */
export function parametersOf(model: Model): ModelParameter[] {
  return parametersIn(model, modelFamilies[model.config.modelType].entries);
}

/** The same by their names alone, as a checkpoint has them. */
export function parametersByName(model: Model): Map<string, Tensor> {
  return new Map(parametersOf(model).map(({ name, value }) => [name, value]));
}

/** A model with fresh random weights. The same seed gives the same weights. */
export function randomModel(config: ModelConfig, seed: number): Model {
  return freshModel(config, modelFamilies[config.modelType], seed);
}
