// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
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
import {
  type Model,
  type ModelFamily,
  type ModelParameter,
  type ModelWeight,
  type Role,
  type WeightEntry,
  freshModel,
  modelWeights,
  parametersIn,
} from "./structure.js";

//| 03-moe/4-the-decoder.ipynb#entry-shapes
export type Shape = (config: ModelConfig, layer: number) => number[];

/** Shapes that several rows of a table have. */
export const shapes = {
  hidden: ({ hiddenSize }) => [hiddenSize],
  table: ({ vocabSize, hiddenSize }) => [vocabSize, hiddenSize],
  queries: ({ heads, headDim, hiddenSize }) => [heads * headDim, hiddenSize],
  keys: ({ kvHeads, headDim, hiddenSize }) => [kvHeads * headDim, hiddenSize],
  outputs: ({ heads, headDim, hiddenSize }) => [hiddenSize, heads * headDim],
  up: ({ intermediateSize, hiddenSize }) => [intermediateSize, hiddenSize],
  down: ({ intermediateSize, hiddenSize }) => [hiddenSize, intermediateSize],
  router: ({ moe, hiddenSize }) => [moe!.experts, hiddenSize],
  expertUp: ({ moe, hiddenSize }) => [moe!.experts, moe!.intermediateSize, hiddenSize],
  expertDown: ({ moe, hiddenSize }) => [moe!.experts, hiddenSize, moe!.intermediateSize],
} satisfies Record<string, Shape>;

/** The shape of the bias beside a matrix. */
export function outputsOf(shape: Shape): Shape {
  return (config, layer) => shape(config, layer).slice(0, 1);
}

/** The shape of a norm on projections of a shape: as wide as one head, or as all. */
export function projectionNorm(shape: Shape): Shape {
  return (config, layer) => (config.qkNorm === "head" ? [config.headDim] : [shape(config, layer)[0]]);
}

//| 03-moe/4-the-decoder.ipynb#entry-conditions
export const isSparse = ({ moe }: ModelConfig, layer: number) => moe?.sparseLayers[layer] === true;

/** When a model or a layer has a weight. */
export const conditions = {
  untied: ({ tied }) => !tied,
  biased: ({ attentionBias }) => attentionBias,
  mlpBiased: (config, layer) => config.mlpBias && !isSparse(config, layer),
  normed: ({ qkNorm }) => qkNorm !== "none",
  sparse: isSparse,
  dense: (config, layer) => !isSparse(config, layer),
} satisfies Record<string, (config: ModelConfig, layer: number) => boolean>;

/** Rows of a table. In paths they begin with `blocks.*.` and in files with `model.layers.*.`. */
export function blockRows(
  rows: [path: string, file: string, role: Role, shape: Shape, when?: WeightEntry["when"]][],
): WeightEntry[] {
  return rows.map(([path, file, role, shape, when]) => ({
    path: `blocks.*.${path}`,
    file: `model.layers.*.${file}`,
    role,
    shape,
    when,
  }));
}

//| 03-moe/4-the-decoder.ipynb#attention-entries
export const { queries, keys, outputs, hidden } = shapes;
export const { biased, mlpBiased, normed, sparse, dense, untied } = conditions;

/** Attention with four projections, as Llama names them. */
export const attentionEntries = blockRows([
  ["attention.q.weight", "self_attn.q_proj.weight", "matrix", queries],
  ["attention.k.weight", "self_attn.k_proj.weight", "matrix", keys],
  ["attention.v.weight", "self_attn.v_proj.weight", "matrix", keys],
  ["attention.o.weight", "self_attn.o_proj.weight", "residual", outputs],
  ["attention.q.bias", "self_attn.q_proj.bias", "bias", outputsOf(queries), biased],
  ["attention.k.bias", "self_attn.k_proj.bias", "bias", outputsOf(keys), biased],
  ["attention.v.bias", "self_attn.v_proj.bias", "bias", outputsOf(keys), biased],
  ["attention.o.bias", "self_attn.o_proj.bias", "bias", outputsOf(outputs), biased],
  ["attention.qNorm.weight", "self_attn.q_norm.weight", "norm", projectionNorm(queries), normed],
  ["attention.kNorm.weight", "self_attn.k_norm.weight", "norm", projectionNorm(keys), normed],
]);

//| 03-moe/4-the-decoder.ipynb#feed-forward-entries
/** The dense feed-forward layer and the mixture of experts, as Llama and Qwen name them. */
export const feedForwardEntries = blockRows([
  ["feedForward.router.weight", "mlp.gate.weight", "router", shapes.router, sparse],
  ["feedForward.gate.weight", "mlp.experts.{expert}.gate_proj.weight", "matrix", shapes.expertUp, sparse],
  ["feedForward.up.weight", "mlp.experts.{expert}.up_proj.weight", "matrix", shapes.expertUp, sparse],
  ["feedForward.down.weight", "mlp.experts.{expert}.down_proj.weight", "residual", shapes.expertDown, sparse],
  ["feedForward.gate.weight", "mlp.gate_proj.weight", "matrix", shapes.up, dense],
  ["feedForward.up.weight", "mlp.up_proj.weight", "matrix", shapes.up, dense],
  ["feedForward.down.weight", "mlp.down_proj.weight", "residual", shapes.down, dense],
  ["feedForward.gate.bias", "mlp.gate_proj.bias", "bias", outputsOf(shapes.up), mlpBiased],
  ["feedForward.up.bias", "mlp.up_proj.bias", "bias", outputsOf(shapes.up), mlpBiased],
  ["feedForward.down.bias", "mlp.down_proj.bias", "bias", outputsOf(shapes.down), mlpBiased],
]);

/** The whole table: what a model like Llama or Qwen3 is made of, from the embedding up to the output. */
export const decoderEntries: WeightEntry[] = [
  { path: "embedding", file: "model.embed_tokens.weight", role: "table", shape: shapes.table },
  ...blockRows([["norms.beforeAttention.weight", "input_layernorm.weight", "norm", hidden]]),
  ...attentionEntries,
  ...blockRows([["norms.beforeFeedForward.weight", "post_attention_layernorm.weight", "norm", hidden]]),
  ...feedForwardEntries,
  { path: "norm.weight", file: "model.norm.weight", role: "norm", shape: hidden },
  { path: "head.weight", file: "lm_head.weight", role: "table", shape: shapes.table, when: untied },
];

//| 03-moe/4-the-decoder.ipynb#model-families-parts
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

//| 03-moe/4-the-decoder.ipynb#model-families
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

//| 03-moe/4-the-decoder.ipynb#weights-of
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
