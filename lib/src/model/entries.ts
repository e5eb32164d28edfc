// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import type { Role, WeightEntry } from "./structure.js";

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
  sharedUp: ({ moe, hiddenSize }) => [moe!.sharedSize!, hiddenSize],
  sharedDown: ({ moe, hiddenSize }) => [hiddenSize, moe!.sharedSize!],
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
  shared: (config, layer) => isSparse(config, layer) && config.moe?.sharedSize !== undefined,
  dense: (config, layer) => !isSparse(config, layer),
} satisfies Record<string, (config: ModelConfig, layer: number) => boolean>;

/** Rows of a table. In paths they begin with `blocks.*.`, and in files with `layer`. */
export function blockRows(
  rows: [path: string, file: string, role: Role, shape: Shape, when?: WeightEntry["when"]][],
  layer = "model.layers.*.",
): WeightEntry[] {
  return rows.map(([path, file, role, shape, when]) => ({
    path: `blocks.*.${path}`,
    file: `${layer}${file}`,
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

/** A whole table around the rows of its layers, from the embedding up to the output, as nearly all families name the rest. */
export function tableOf(...layers: WeightEntry[]): WeightEntry[] {
  return [
    { path: "embedding", file: "model.embed_tokens.weight", role: "table", shape: shapes.table },
    ...layers,
    { path: "norm.weight", file: "model.norm.weight", role: "norm", shape: hidden },
    { path: "head.weight", file: "lm_head.weight", role: "table", shape: shapes.table, when: untied },
  ];
}

/** The norms before the two halves, as Llama names them. */
export const [attentionNorm] = blockRows([
  ["norms.beforeAttention.weight", "input_layernorm.weight", "norm", hidden],
]);
export const [feedForwardNorm] = blockRows([
  ["norms.beforeFeedForward.weight", "post_attention_layernorm.weight", "norm", hidden],
]);

/** What a model like Llama or Qwen3 is made of. */
export const decoderEntries = tableOf(
  attentionNorm,
  ...attentionEntries,
  feedForwardNorm,
  ...feedForwardEntries,
);
