// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import type { FamilySettings, ModelConfig, MoeConfig } from "./config.js";
import { compareText } from "./keys.js";
import type { Llama3Scaling, RopeConfig, YarnScaling } from "./rope.js";

//| 03-moe/a-files-of-weights.ipynb#moe-json
/** The keys about experts, as a config.json has them. */
export function moeConfigToJson(moe: MoeConfig): Record<string, unknown> {
  return {
    decoder_sparse_step: 1,
    mlp_only_layers: moe.sparseLayers.flatMap((sparse, i) => (sparse ? [] : [i])),
    moe_intermediate_size: moe.intermediateSize,
    norm_topk_prob: moe.normalizeTopK,
    num_experts: moe.experts,
    num_experts_per_tok: moe.expertsPerToken,
    router_aux_loss_coef: moe.balanceCoefficient,
  };
}

/** The keys of a rescaling that no other has. */
export function ropeScalingToJson(scaling: Llama3Scaling | YarnScaling): Record<string, unknown> {
  if (scaling.type === "yarn")
    return { beta_fast: scaling.betaFast, beta_slow: scaling.betaSlow, truncate: scaling.truncate };
  return { low_freq_factor: scaling.lowFrequencyFactor, high_freq_factor: scaling.highFrequencyFactor };
}

/** The keys about rotary positions, in the older spelling that all readers know. */
export function ropeConfigToJson({ theta, scaling }: RopeConfig): Record<string, unknown> {
  if (scaling === undefined) return { rope_theta: theta, rope_scaling: null };
  const rope_scaling = {
    rope_type: scaling.type,
    factor: scaling.factor,
    ...ropeScalingToJson(scaling),
    original_max_position_embeddings: scaling.originalContextLength,
  };
  return { rope_theta: theta, rope_scaling };
}

//| 03-moe/a-files-of-weights.ipynb#sizes-json
/** The sizes of a model, as a config.json has them. */
export function sizesToJson(config: ModelConfig): Record<string, unknown> {
  return {
    head_dim: config.headDim,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    max_position_embeddings: config.contextLength,
    num_attention_heads: config.heads,
    num_hidden_layers: config.layers,
    num_key_value_heads: config.kvHeads,
    vocab_size: config.vocabSize,
  };
}

//| 03-moe/a-files-of-weights.ipynb#config-json
/** The content of the config.json of a family's model. Keys are sorted. */
export function configJson(config: ModelConfig, family: FamilySettings): Record<string, unknown> {
  const { eosTokenIds } = config;
  const json: Record<string, unknown> = {
    ...sizesToJson(config),
    ...ropeConfigToJson(config.rope),
    ...(config.moe ? moeConfigToJson(config.moe) : {}),
    architectures: [family.architecture],
    attention_bias: config.attentionBias,
    attention_dropout: 0,
    bos_token_id: config.bosTokenId ?? null,
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null),
    hidden_act: "silu",
    initializer_range: config.initializerRange,
    model_type: config.modelType,
    rms_norm_eps: config.normEps,
    tie_word_embeddings: config.tied,
    torch_dtype: "float32",
    use_cache: true,
    ...family.written,
  };
  const spelled = Object.entries(json).map(([key, value]) => [family.spelling?.[key] ?? key, value] as const);
  return Object.fromEntries(spelled.sort(([a], [b]) => compareText(a, b)));
}

//| 03-moe/a-files-of-weights.ipynb#config-text
/**
 * The text of a config.json, ending with a line break. Whole values of fractional settings are written as `0.0`:
 * transformers 5 refuses `0` where it wants a float, and JSON.stringify knows no difference.
 */
export function configText(json: Record<string, unknown>): string {
  const text = JSON.stringify(json, null, 2);
  const fractional = "router_aux_loss_coef|initializer_range|rms_norm_eps|rope_theta|factor|\\w+_freq_factor";
  const whole = new RegExp(`^(\\s*"(?:${fractional})": \\d+)(,?)$`, "gm");
  return `${text.replace(whole, "$1.0$2")}\n`;
}
