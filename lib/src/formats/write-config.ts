// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { type FamilySettings, type ModelConfig, activationName } from "./config.js";
import { compareText } from "./keys.js";

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
  const { parts, spelling = {}, lacks = [], written } = family;
  const json: Record<string, unknown> = {
    ...sizesToJson(config),
    architectures: [family.architecture],
    attention_dropout: 0,
    bos_token_id: config.bosTokenId ?? null,
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null),
    hidden_act: activationName(config.activation),
    initializer_range: config.initializerRange,
    model_type: config.modelType,
    rms_norm_eps: config.normEps,
    tie_word_embeddings: config.tied,
    torch_dtype: "float32",
    use_cache: true,
  };
  // Where the family has a default for it, "none" must be said.
  if ((config.padTokenId ?? family.defaults.pad_token_id) !== undefined)
    json.pad_token_id = config.padTokenId ?? null;
  for (const part of parts) Object.assign(json, part.write(config));
  const kept = Object.entries(json).filter(([key]) => !lacks.includes(key));
  const spelled = kept.map(([key, value]): [string, unknown] => [spelling[key] ?? key, value]);
  const all = [...spelled, ...Object.entries(written ?? {})];
  return Object.fromEntries(all.sort(([a], [b]) => compareText(a, b)));
}

//| 03-moe/a-files-of-weights.ipynb#config-text
/**
 * The text of a config.json, ending with a line break. Whole values of fractional settings are written as `0.0`:
 * transformers 5 refuses `0` where it wants a float, and JSON.stringify knows no difference.
 */
export function configText(json: Record<string, unknown>): string {
  const text = JSON.stringify(json, null, 2);
  const fractional =
    "router_aux_loss_coef|initializer_range|rms_norm_eps|layer_norm_epsilon|rope_theta|rope_local_base_freq|factor|routed_scaling_factor|" +
    "\\w+_freq_factor|partial_rotary_factor|attention_factor|mscale|mscale_all_dim|\\w+_softcapping";
  const whole = new RegExp(`^(\\s*"(?:${fractional})": \\d+)(,?)$`, "gm");
  return `${text.replace(whole, "$1.0$2")}\n`;
}
