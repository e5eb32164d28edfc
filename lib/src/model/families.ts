// Extracted from chapters/03-moe/5-the-families.ipynb: edit it there, or here and run `npm run backport`.
import {
  allExpertsPart,
  alternatingWindowPart,
  attentionBiasPart,
  attentionSoftcapPart,
  clampedExpertsPart,
  expertsPart,
  latentPart,
  logitSoftcapPart,
  mlpBiasPart,
  outsideOriginalPart,
  partialRotaryPart,
  qkvBiasPart,
  queryScalarPart,
  rotaryPart,
  sharedExpertPart,
  sigmoidExpertsPart,
  statedRotaryPart,
  switchedNormPart,
  switchedWindowPart,
  twoBasesPart,
  unrotatedLayersPart,
  upperWindowPart,
  windowPart,
} from "../formats/config-parts.js";
import type { ModelConfig } from "../formats/config.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  type Shape,
  attentionEntries,
  attentionNorm,
  biased,
  blockRows,
  conditions,
  decoderEntries,
  feedForwardEntries,
  feedForwardNorm,
  hidden,
  keys,
  outputs,
  outputsOf,
  queries,
  shapes,
  sparse,
  tableOf,
  untied,
} from "./entries.js";
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

//| 03-moe/5-the-families.ipynb#model-families-parts
/** Rotary angles that old software stored in its files: they are computed. */
export const storedAngles = ["model.layers.*.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"];

/** What most families have in common. Files of the bare decoder, without an output layer, leave the prefix out. */
export const llamaLike = { entries: decoderEntries, redundant: storedAngles, optionalPrefix: "model." };

/** Layers that predict a token after the next (DeepSeek-V3, 2024). Their files have them behind the others. */
export const layersAhead = {
  keys: ["num_nextn_predict_layers", "num_mtp_layers"],
  names: "model.layers.*.",
};

/** What Qwen's files assume of a window, which counts where they switch it on. */
export const qwenWindow = { sliding_window: 4096, max_window_layers: 28 };

/** The same table for families whose output projection never has a bias. */
export function withoutOutputBias(entries: WeightEntry[]): WeightEntry[] {
  return entries.filter(({ path }) => path !== "blocks.*.attention.o.bias");
}

//| 03-moe/5-the-families.ipynb#other-tables
/** OLMo 2: norms after the halves. */
export const postNormEntries = tableOf(
  ...attentionEntries,
  ...blockRows([["norms.afterAttention.weight", "post_attention_layernorm.weight", "norm", hidden]]),
  ...feedForwardEntries,
  ...blockRows([["norms.afterFeedForward.weight", "post_feedforward_layernorm.weight", "norm", hidden]]),
);

/** Gemma 2 and 3: norms before and after, whose weights are what 1 is added to. */
export const fourNormEntries = tableOf(
  attentionNorm,
  ...attentionEntries,
  ...blockRows([
    ["norms.afterAttention.weight", "post_attention_layernorm.weight", "norm", hidden],
    ["norms.beforeFeedForward.weight", "pre_feedforward_layernorm.weight", "norm", hidden],
  ]),
  ...feedForwardEntries,
  ...blockRows([["norms.afterFeedForward.weight", "post_feedforward_layernorm.weight", "norm", hidden]]),
).map((entry): WeightEntry => (entry.role === "norm" ? { ...entry, start: 0 } : entry));

/** Mixtral: experts in every layer. */
export const mixtralEntries = tableOf(
  attentionNorm,
  ...attentionEntries,
  feedForwardNorm,
  ...blockRows(
    [
      ["feedForward.router.weight", "gate.weight", "router", shapes.router],
      ["feedForward.gate.weight", "experts.{expert}.w1.weight", "matrix", shapes.expertUp],
      ["feedForward.up.weight", "experts.{expert}.w3.weight", "matrix", shapes.expertUp],
      ["feedForward.down.weight", "experts.{expert}.w2.weight", "residual", shapes.expertDown],
    ],
    "model.layers.*.block_sparse_moe.",
  ),
);

//| 03-moe/5-the-families.ipynb#fused-tables
/** Weights that lie in one tensor of the file, one below the other. */
export function fusedRows(
  shared: Omit<WeightEntry, "path" | "shape">,
  parts: [path: string, shape: Shape][],
): WeightEntry[] {
  const heights = (config: ModelConfig, layer: number) => parts.map(([, shape]) => shape(config, layer)[0]);
  const sum = (rows: number[]) => rows.reduce((total, count) => total + count, 0);
  return parts.map(([path, shape], i) => ({
    ...shared,
    path: `blocks.*.${path}`,
    shape,
    rows: (config, layer) => {
      const rows = heights(config, layer);
      return { first: sum(rows.slice(0, i)), of: sum(rows) };
    },
  }));
}

/** Phi-3: queries, keys and values in one tensor, gate and up in another. */
export const fusedEntries = tableOf(
  attentionNorm,
  ...fusedRows({ file: "model.layers.*.self_attn.qkv_proj.weight", role: "matrix" }, [
    ["attention.q.weight", queries],
    ["attention.k.weight", keys],
    ["attention.v.weight", keys],
  ]),
  ...blockRows([["attention.o.weight", "self_attn.o_proj.weight", "residual", outputs]]),
  feedForwardNorm,
  ...fusedRows({ file: "model.layers.*.mlp.gate_up_proj.weight", role: "matrix" }, [
    ["feedForward.gate.weight", shapes.up],
    ["feedForward.up.weight", shapes.up],
  ]),
  ...blockRows([["feedForward.down.weight", "mlp.down_proj.weight", "residual", shapes.down]]),
);

//| 03-moe/5-the-families.ipynb#gpt2-table
export const gpt2Layer = "transformer.h.*.";

/** The weight and the bias of a LayerNorm. */
export function layerNormEntries(path: string, file: string): WeightEntry[] {
  return [
    { path: `${path}.weight`, file: `${file}.weight`, role: "norm", shape: hidden },
    { path: `${path}.bias`, file: `${file}.bias`, role: "bias", shape: hidden },
  ];
}

/** A matrix that the file holds transposed, and its bias. */
export function transposedEntries(path: string, file: string, role: Role, shape: Shape): WeightEntry[] {
  const [weight, bias] = blockRows(
    [
      [`${path}.weight`, `${file}.weight`, role, shape],
      [`${path}.bias`, `${file}.bias`, "bias", outputsOf(shape)],
    ],
    gpt2Layer,
  );
  return [{ ...weight, transposed: true }, bias];
}

/** Queries, keys and values in one such matrix. */
export function fusedAttentionEntries(): WeightEntry[] {
  const file = `${gpt2Layer}attn.c_attn`;
  return [
    ...fusedRows({ file: `${file}.weight`, role: "matrix", transposed: true }, [
      ["attention.q.weight", queries],
      ["attention.k.weight", keys],
      ["attention.v.weight", keys],
    ]),
    ...fusedRows({ file: `${file}.bias`, role: "bias" }, [
      ["attention.q.bias", outputsOf(queries)],
      ["attention.k.bias", outputsOf(keys)],
      ["attention.v.bias", outputsOf(keys)],
    ]),
  ];
}

//| 03-moe/5-the-families.ipynb#gpt2-table-2
export const gpt2Entries: WeightEntry[] = [
  { path: "embedding", file: "transformer.wte.weight", role: "table", shape: shapes.table },
  {
    path: "positions",
    file: "transformer.wpe.weight",
    role: "table",
    shape: (c) => [c.contextLength, c.hiddenSize],
  },
  ...layerNormEntries("blocks.*.norms.beforeAttention", `${gpt2Layer}ln_1`),
  ...fusedAttentionEntries(),
  ...transposedEntries("attention.o", "attn.c_proj", "residual", outputs),
  ...layerNormEntries("blocks.*.norms.beforeFeedForward", `${gpt2Layer}ln_2`),
  ...transposedEntries("feedForward.up", "mlp.c_fc", "matrix", shapes.up),
  ...transposedEntries("feedForward.down", "mlp.c_proj", "residual", shapes.down),
  ...layerNormEntries("norm", "transformer.ln_f"),
  { path: "head.weight", file: "lm_head.weight", role: "table", shape: shapes.table, when: untied },
];

/** How GPT-2's files spell what all families have, and what they do not have. */
export const gpt2Keys: Pick<ModelFamily, "spelling" | "lacks" | "idle" | "written" | "derived"> = {
  spelling: {
    hidden_size: "n_embd",
    num_hidden_layers: "n_layer",
    num_attention_heads: "n_head",
    max_position_embeddings: "n_positions",
    intermediate_size: "n_inner",
    rms_norm_eps: "layer_norm_epsilon",
    hidden_act: "activation_function",
  },
  lacks: ["num_key_value_heads", "head_dim", "attention_dropout"],
  derived: ({ hidden_size: width }) => (typeof width === "number" ? { intermediate_size: 4 * width } : {}),
  written: { attn_pdrop: 0, embd_pdrop: 0, resid_pdrop: 0 },
  idle: `n_ctx add_cross_attention reorder_and_upcast_attn scale_attn_by_inverse_layer_idx scale_attn_weights
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    task_specific_params`.split(/\s+/),
};

//| 03-moe/5-the-families.ipynb#expert-entries
/** Experts that serve every token, as one layer with a name of its own. */
export function sharedEntries(name: string): WeightEntry[] {
  return blockRows([
    [
      "feedForward.shared.gate.weight",
      `${name}.gate_proj.weight`,
      "matrix",
      shapes.sharedUp,
      conditions.shared,
    ],
    ["feedForward.shared.up.weight", `${name}.up_proj.weight`, "matrix", shapes.sharedUp, conditions.shared],
    [
      "feedForward.shared.down.weight",
      `${name}.down_proj.weight`,
      "residual",
      shapes.sharedDown,
      conditions.shared,
    ],
  ]);
}

/** Qwen2-MoE's shared expert, and the row that says how much of it a token takes. */
export const gatedSharedEntries = [
  ...sharedEntries("mlp.shared_expert"),
  ...blockRows([
    [
      "feedForward.sharedGate.weight",
      "mlp.shared_expert_gate.weight",
      "matrix",
      ({ hiddenSize }) => [1, hiddenSize],
      sparse,
    ],
  ]),
];

/** The bias for the choice of DeepSeek-V3 and GLM-4, and their shared experts. */
export const correctedEntries = [
  ...blockRows([
    [
      "feedForward.choiceBias",
      "mlp.gate.e_score_correction_bias",
      "buffer",
      outputsOf(shapes.router),
      sparse,
    ],
  ]),
  ...sharedEntries("mlp.shared_experts"),
];

//| 03-moe/5-the-families.ipynb#fused-expert-entries
/** A matrix of all experts in one tensor, stored transposed, and its bias; of gate and up every second row, from `first` on. */
export function fusedExpertEntries(
  path: string,
  file: string,
  role: Role,
  shape: Shape,
  first?: number,
): WeightEntry[] {
  const [weight, bias] = blockRows([
    [`${path}.weight`, file, role, shape],
    [`${path}.bias`, `${file}_bias`, "bias", (config, layer) => shape(config, layer).slice(0, 2)],
  ]);
  const rows: WeightEntry["rows"] =
    first === undefined ? undefined : ({ moe }) => ({ first, of: 2 * moe!.intermediateSize, step: 2 });
  return [
    { ...weight, rows, transposed: true },
    { ...bias, rows },
  ];
}

/** gpt-oss: attention with sinks, a router with a bias, fused experts. */
export const gptOssEntries = tableOf(
  attentionNorm,
  ...attentionEntries,
  feedForwardNorm,
  ...blockRows([
    ["attention.sinks", "self_attn.sinks", "bias", ({ heads }) => [heads]],
    ["feedForward.router.weight", "mlp.router.weight", "router", shapes.router],
    ["feedForward.router.bias", "mlp.router.bias", "bias", outputsOf(shapes.router)],
  ]),
  ...fusedExpertEntries("feedForward.gate", "mlp.experts.gate_up_proj", "matrix", shapes.expertUp, 0),
  ...fusedExpertEntries("feedForward.up", "mlp.experts.gate_up_proj", "matrix", shapes.expertUp, 1),
  ...fusedExpertEntries("feedForward.down", "mlp.experts.down_proj", "residual", shapes.expertDown),
);

//| 03-moe/5-the-families.ipynb#latent-entries
/** Shapes of latent attention. Queries are made from the stream, or from a narrow row of it. */
export const latentShapes = {
  queries: ({ heads, headDim, hiddenSize, latent }) => [heads * headDim, latent!.queryRank ?? hiddenSize],
  queryRow: ({ latent, hiddenSize }) => [latent!.queryRank!, hiddenSize],
  row: ({ latent, hiddenSize }) => [latent!.rank, hiddenSize],
  ropeKey: ({ latent, hiddenSize }) => [latent!.ropeDim, hiddenSize],
  keys: ({ heads, latent }) => [heads * latent!.nopeDim, latent!.rank],
  values: ({ heads, latent }) => [heads * latent!.valueDim, latent!.rank],
  outputs: ({ heads, latent, hiddenSize }) => [hiddenSize, heads * latent!.valueDim],
} satisfies Record<string, Shape>;

export const narrow = ({ latent }: ModelConfig) => latent?.queryRank !== undefined;
export const notNarrow = (config: ModelConfig) => !narrow(config);
export const narrowBiased = (config: ModelConfig) => narrow(config) && config.attentionBias;

/** The queries, norms and output of latent attention (DeepSeek-V2, 2024). */
export const latentProjections = blockRows([
  ["attention.qDown.weight", "self_attn.q_a_proj.weight", "matrix", latentShapes.queryRow, narrow],
  ["attention.qDown.bias", "self_attn.q_a_proj.bias", "bias", outputsOf(latentShapes.queryRow), narrowBiased],
  [
    "attention.qNorm.weight",
    "self_attn.q_a_layernorm.weight",
    "norm",
    outputsOf(latentShapes.queryRow),
    narrow,
  ],
  ["attention.q.weight", "self_attn.q_b_proj.weight", "matrix", latentShapes.queries, narrow],
  ["attention.q.weight", "self_attn.q_proj.weight", "matrix", latentShapes.queries, notNarrow],
  ["attention.kvNorm.weight", "self_attn.kv_a_layernorm.weight", "norm", outputsOf(latentShapes.row)],
  ["attention.o.weight", "self_attn.o_proj.weight", "residual", latentShapes.outputs],
  ["attention.o.bias", "self_attn.o_proj.bias", "bias", outputsOf(latentShapes.outputs), biased],
]);

//| 03-moe/5-the-families.ipynb#latent-entries-2
/** A weight that is some of the rows of a tensor of the file. */
export function rowsEntry(
  rows: WeightEntry["rows"],
  ...row: Parameters<typeof blockRows>[0][number]
): WeightEntry {
  return { ...blockRows([row])[0], rows };
}

/** The first rows of a tensor make the row that is remembered, those behind them the key that turns. */
export const rowRows: WeightEntry["rows"] = ({ latent }) => ({
  first: 0,
  of: latent!.rank + latent!.ropeDim,
});
export const ropeKeyRows: WeightEntry["rows"] = ({ latent }) => ({
  first: latent!.rank,
  of: latent!.rank + latent!.ropeDim,
});

/** Of each head, in turns: its keys, then its values. */
export function headRows(part: "nopeDim" | "valueDim"): WeightEntry["rows"] {
  return ({ heads, latent }) => {
    const step = latent!.nopeDim + latent!.valueDim;
    return { first: part === "nopeDim" ? 0 : latent!.nopeDim, of: heads * step, step, run: latent![part] };
  };
}

//| 03-moe/5-the-families.ipynb#latent-entries-3
export const { row, ropeKey } = latentShapes;
export const [down, up] = ["self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"];

/** Latent attention, as DeepSeek-V3 names its weights. */
export const latentEntries: WeightEntry[] = [
  ...latentProjections,
  rowsEntry(rowRows, "attention.kvDown.weight", `${down}.weight`, "matrix", row),
  rowsEntry(ropeKeyRows, "attention.ropeKey.weight", `${down}.weight`, "matrix", ropeKey),
  rowsEntry(rowRows, "attention.kvDown.bias", `${down}.bias`, "bias", outputsOf(row), biased),
  rowsEntry(ropeKeyRows, "attention.ropeKey.bias", `${down}.bias`, "bias", outputsOf(ropeKey), biased),
  ...[
    rowsEntry(headRows("nopeDim"), "attention.keyUp.weight", `${up}.weight`, "matrix", latentShapes.keys),
    rowsEntry(
      headRows("valueDim"),
      "attention.valueUp.weight",
      `${up}.weight`,
      "matrix",
      latentShapes.values,
    ),
  ].map((entry) => ({ ...entry, dense: true })),
];

//| 03-moe/5-the-families.ipynb#latent-families
/** Families with latent attention. */
export const latentFamilies: Record<string, ModelFamily> = {
  deepseek_v3: {
    ...llamaLike,
    entries: tableOf(
      attentionNorm,
      ...latentEntries,
      feedForwardNorm,
      ...feedForwardEntries,
      ...correctedEntries,
    ),
    architecture: "DeepseekV3ForCausalLM",
    qkNorm: "none",
    parts: [latentPart, attentionBiasPart, sigmoidExpertsPart],
    defaults: {
      ...{ num_key_value_heads: 128, max_position_embeddings: 4096, bos_token_id: 0, eos_token_id: 1 },
      ...{
        q_lora_rank: 1536,
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
      },
      ...{ num_experts: 256, num_experts_per_tok: 8, moe_intermediate_size: 2048, first_k_dense_replace: 3 },
      ...{ n_group: 8, topk_group: 4, routed_scaling_factor: 2.5, norm_topk_prob: true },
    },
    derived: ({ qk_nope_head_dim, qk_rope_head_dim }) => ({
      head_dim: Number(qk_nope_head_dim) + Number(qk_rope_head_dim),
    }),
    spelling: { num_experts: "n_routed_experts" },
    lacks: ["head_dim"], // what its files call so is the part that turns
    runnable: { hidden_act: ["silu", "swish"] },
    predictionLayers: layersAhead,
    idle: [
      "head_dim",
      "num_nextn_predict_layers",
      "num_mtp_layers",
      "ep_size",
      "aux_loss_alpha",
      "seq_aux",
      "auto_map",
    ],
  },
};

//| 03-moe/5-the-families.ipynb#more-families
/** Families of experts in every layer. */
export const moreSparseFamilies: Record<string, ModelFamily> = {
  mixtral: {
    ...llamaLike,
    entries: mixtralEntries,
    architecture: "MixtralForCausalLM",
    qkNorm: "none",
    parts: [rotaryPart, windowPart, allExpertsPart],
    defaults: {
      ...{ num_key_value_heads: 8, max_position_embeddings: 131072, rms_norm_eps: 1e-5, rope_theta: 1e6 },
      ...{ bos_token_id: 1, eos_token_id: 2, norm_topk_prob: true },
    },
    spelling: { num_experts: "num_local_experts" },
    lacks: ["norm_topk_prob"], // always so
    runnable: { hidden_act: ["silu", "swish"] },
    idle: ["router_jitter_noise"],
  },
  olmoe: {
    ...llamaLike,
    architecture: "OlmoeForCausalLM",
    qkNorm: "projection",
    parts: [rotaryPart, attentionBiasPart, allExpertsPart],
    defaults: {
      ...{
        max_position_embeddings: 4096,
        rms_norm_eps: 1e-5,
        eos_token_id: 50279,
        pad_token_id: 1,
        router_aux_loss_coef: 0.01,
      },
    },
    runnable: { hidden_act: ["silu", "swish"] },
    idle: ["clip_qkv"],
  },
};

/** Gemma's attention and activation, and what its files assume. */
export const gemmaLike: Omit<ModelFamily, "architecture" | "parts"> = {
  entries: fourNormEntries,
  optionalPrefix: "model.",
  qkNorm: "none",
  norm: "rms1p",
  embeddingScale: ({ hiddenSize }) => Math.sqrt(hiddenSize),
  headsFillWidth: true,
  defaults: {
    ...{ num_key_value_heads: 4, head_dim: 256, sliding_window: 4096, query_pre_attn_scalar: 256 },
    ...{
      hidden_act: "gelu_pytorch_tanh",
      tie_word_embeddings: true,
      bos_token_id: 2,
      eos_token_id: 1,
      pad_token_id: 0,
    },
  },
  spelling: { hidden_act: "hidden_activation" },
  idle: ["hidden_act", "cache_implementation", "_sliding_window_pattern", "use_bidirectional_attention"],
};

//| 03-moe/5-the-families.ipynb#gemma-families
/** Gemma's generations of plain decoders. */
export const gemmaFamilies: Record<string, ModelFamily> = {
  gemma2: {
    ...gemmaLike,
    architecture: "Gemma2ForCausalLM",
    parts: [
      rotaryPart,
      attentionBiasPart,
      alternatingWindowPart(2),
      queryScalarPart,
      attentionSoftcapPart,
      logitSoftcapPart,
    ],
    defaults: {
      ...gemmaLike.defaults,
      max_position_embeddings: 8192,
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
    },
    lacks: ["sliding_window_pattern"],
  },
  gemma3_text: {
    ...gemmaLike,
    architecture: "Gemma3ForCausalLM",
    qkNorm: "head",
    parts: [twoBasesPart, attentionBiasPart, alternatingWindowPart(6), queryScalarPart, logitSoftcapPart],
    defaults: { ...gemmaLike.defaults, max_position_embeddings: 131072 },
    idle: [...gemmaLike.idle!, "attn_logit_softcapping"],
  },
};

//| 03-moe/5-the-families.ipynb#more-families-2
/** Families of dense layers. */
export const moreDenseFamilies: Record<string, ModelFamily> = {
  phi3: {
    ...llamaLike,
    entries: fusedEntries,
    architecture: "Phi3ForCausalLM",
    qkNorm: "none",
    parts: [outsideOriginalPart, windowPart],
    defaults: {
      ...{ max_position_embeddings: 4096, original_max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
      ...{ bos_token_id: 1, eos_token_id: 32000, pad_token_id: 32000 },
    },
    idle: ["embd_pdrop", "resid_pdrop"],
  },
  smollm3: {
    ...llamaLike,
    architecture: "SmolLM3ForCausalLM",
    qkNorm: "none",
    parts: [rotaryPart, attentionBiasPart, mlpBiasPart, unrotatedLayersPart],
    defaults: {
      ...{ num_key_value_heads: 4, max_position_embeddings: 32768, rope_theta: 2e6 },
      ...{ bos_token_id: 128000, eos_token_id: 128001, pad_token_id: 128004, tie_word_embeddings: true },
    },
  },
  olmo2: {
    ...llamaLike,
    entries: postNormEntries,
    architecture: "Olmo2ForCausalLM",
    qkNorm: "projection",
    parts: [rotaryPart, attentionBiasPart],
    defaults: { max_position_embeddings: 2048, rms_norm_eps: 1e-5, eos_token_id: 50279, pad_token_id: 1 },
  },
  ...gemmaFamilies,
  gpt2: {
    ...gpt2Keys,
    entries: gpt2Entries,
    architecture: "GPT2LMHeadModel",
    qkNorm: "none",
    norm: "layer",
    parts: [],
    fixed: { attentionBias: true, mlpBias: true },
    headsFillWidth: true,
    defaults: {
      ...{ max_position_embeddings: 1024, rms_norm_eps: 1e-5, hidden_act: "gelu_new" },
      ...{ tie_word_embeddings: true, bos_token_id: 50256, eos_token_id: 50256 },
    },
    optionalPrefix: "transformer.",
    redundant: ["transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"],
  },
};

//| 03-moe/5-the-families.ipynb#gpt-oss-positions
/** How positions turn in gpt-oss where its file does not say. */
export const gptOssPositions = {
  ...{ rope_type: "yarn", rope_theta: 150000, factor: 32, beta_fast: 32, beta_slow: 1, truncate: false },
  original_max_position_embeddings: 4096,
};

/** Layers like Qwen2's, dense or with experts: no bias on the output projection. */
export const qwen2Layers = withoutOutputBias([
  attentionNorm,
  ...attentionEntries,
  feedForwardNorm,
  ...feedForwardEntries,
]);

//| 03-moe/5-the-families.ipynb#expert-families
/** Families of experts with something beside the routed ones. Defaults: the configuration classes of transformers 5.18. */
export const expertFamilies: Record<string, ModelFamily> = {
  qwen2_moe: {
    ...llamaLike,
    entries: tableOf(...qwen2Layers, ...gatedSharedEntries),
    architecture: "Qwen2MoeForCausalLM",
    qkNorm: "none",
    parts: [rotaryPart, qkvBiasPart, upperWindowPart, sharedExpertPart],
    defaults: {
      ...{
        num_key_value_heads: 16,
        max_position_embeddings: 32768,
        ...qwenWindow,
        num_experts: 60,
        num_experts_per_tok: 4,
      },
      ...{ moe_intermediate_size: 1408, shared_expert_intermediate_size: 5632 },
    },
    runnable: { hidden_act: ["silu", "swish"] },
  },
  glm4_moe: {
    ...llamaLike,
    entries: tableOf(...qwen2Layers, ...correctedEntries),
    architecture: "Glm4MoeForCausalLM",
    qkNorm: "none",
    parts: [partialRotaryPart, attentionBiasPart, switchedNormPart, sigmoidExpertsPart],
    defaults: {
      ...{
        num_key_value_heads: 8,
        max_position_embeddings: 131072,
        rms_norm_eps: 1e-5,
        partial_rotary_factor: 0.5,
      },
      ...{
        num_experts: 128,
        num_experts_per_tok: 8,
        moe_intermediate_size: 1408,
        norm_topk_prob: true,
        first_k_dense_replace: 1,
      },
    },
    spelling: { num_experts: "n_routed_experts" },
    runnable: { hidden_act: ["silu", "swish"] },
    predictionLayers: layersAhead,
    idle: ["num_nextn_predict_layers"],
  },
  gpt_oss: {
    ...llamaLike,
    entries: gptOssEntries,
    architecture: "GptOssForCausalLM",
    qkNorm: "none",
    parts: [statedRotaryPart, attentionBiasPart, alternatingWindowPart(2), clampedExpertsPart],
    defaults: {
      ...{
        head_dim: 64,
        num_key_value_heads: 8,
        max_position_embeddings: 131072,
        rms_norm_eps: 1e-5,
        rope_theta: 150000,
      },
      ...{ attention_bias: true, sliding_window: 128, num_experts: 128, num_experts_per_tok: 4 },
    },
    derived: ({ rope_scaling, rope_parameters }) =>
      rope_scaling || rope_parameters ? {} : { rope_parameters: gptOssPositions },
    spelling: { num_experts: "num_local_experts" },
    lacks: ["norm_topk_prob"], // always so
    runnable: { hidden_act: ["silu", "swish"], attention_bias: [true] },
    idle: ["experts_per_token", "initial_context_length"],
  },
};

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
  ...expertFamilies,
  ...latentFamilies,
  qwen3: {
    ...llamaLike,
    architecture: "Qwen3ForCausalLM",
    qkNorm: "head",
    parts: [rotaryPart, attentionBiasPart, upperWindowPart],
    defaults: { num_key_value_heads: 32, head_dim: 128, max_position_embeddings: 32768, ...qwenWindow },
  },
  ...moreSparseFamilies,
  ...moreDenseFamilies,
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
    runnable: { attention_bias: [true, false] }, // it is always there
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

//| 03-moe/5-the-families.ipynb#multimodal-families
/** A model in whose files a decoder is one part among others. */
export interface MultimodalFamily {
  /** The family of the decoder, and the values of keys that its part of the configuration leaves out. */
  text: string;
  defaults: Record<string, unknown>;
  /** How the names of its tensors begin, and how they begin in files of the decoder alone. */
  prefixes: Record<string, string>;
  /** How the names of tensors begin that belong to the other parts. */
  others: string[];
}

/** Models of text and pictures, by their `model_type`. Their decoder is run. Source: transformers 5.18. */
export const multimodalFamilies: Record<string, MultimodalFamily> = {
  gemma3: {
    text: "gemma3_text",
    defaults: { vocab_size: 262208, num_attention_heads: 8 },
    prefixes: {
      "language_model.model.": "model.",
      "language_model.lm_head.": "lm_head.",
      "model.language_model.": "model.",
    },
    others: [
      "vision_tower.",
      "multi_modal_projector.",
      "model.vision_tower.",
      "model.multi_modal_projector.",
    ],
  },
};

/** What a config.json is of, if that is a model of text and pictures. */
export function multimodalFamily({
  model_type: type,
}: Record<string, unknown>): MultimodalFamily | undefined {
  const isOne = typeof type === "string" && Object.hasOwn(multimodalFamilies, type);
  return isOne ? multimodalFamilies[type as string] : undefined;
}

//| 03-moe/5-the-families.ipynb#weights-of
/** The weights of a configuration's models, in a fixed order: from the embedding up to the output. */
export function weightsOf(config: ModelConfig): ModelWeight[] {
  return modelWeights(modelFamilies[config.modelType].entries, config);
}

/** All weights of a model with their names and roles, in the order of `weightsOf`: what a file or a checkpoint of it holds. */
export function namedWeights(model: Model): ModelParameter[] {
  return parametersIn(model, modelFamilies[model.config.modelType].entries);
}

/** Those that gradients change: all but buffers. */
export function parametersOf(model: Model): ModelParameter[] {
  return namedWeights(model).filter(({ role }) => role !== "buffer");
}

/** All weights by their names alone, as a checkpoint has them. */
export function parametersByName(model: Model): Map<string, Tensor> {
  return new Map(namedWeights(model).map(({ name, value }) => [name, value]));
}

/** A model with fresh random weights. The same seed gives the same weights. */
export function randomModel(config: ModelConfig, seed: number): Model {
  return freshModel(config, modelFamilies[config.modelType], seed);
}
