// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import {
  type FamilySettings,
  type ModelConfig,
  buildModelConfig,
  checkConfigKeys,
  checkRunnable,
  configConflicts,
  renameAliases,
  runnableOf,
  strayValues,
  withoutPacking,
} from "../formats/config.js";
import { isRecord, shown, withoutNulls } from "../formats/keys.js";
import { configJson, configText } from "../formats/write-config.js";
import { modelFamilies, multimodalFamilies, multimodalFamily } from "./families.js";

//| 03-moe/a-files-of-weights.ipynb#decoder-config
/** Keys that models of text and pictures state for the whole, and that count for the decoder unless it has them itself. */
export const wholeKeys =
  `bos_token_id eos_token_id pad_token_id tie_word_embeddings quantization_config`.split(" ");

/** The configuration of a model's decoder: of a model of text and pictures, the part that is one. */
export function decoderConfig(json: Record<string, unknown>): Record<string, unknown> {
  const multimodal = multimodalFamily(json);
  if (!multimodal) return json;
  const { model_type: type, text_config: part } = json;
  const { text, defaults } = multimodal;
  if (!isRecord(part))
    throw new Error(`text_config must be an object, the configuration of a ${text}, not ${shown(part)}.`);
  const whole = Object.fromEntries(Object.entries(json).filter(([key]) => wholeKeys.includes(key)));
  const keys: Record<string, unknown> = { ...defaults, ...withoutNulls(whole), ...withoutNulls(part) };
  if (keys.model_type === undefined || keys.model_type === text) return { ...keys, model_type: text };
  throw new Error(`text_config.model_type is ${shown(keys.model_type)}, but in a ${type} it is ${text}.`);
}

//| 03-moe/a-files-of-weights.ipynb#parse-config-parts
/** The family of a configuration by its `model_type`. Throws for one that we do not run, naming those that we do. */
export function readModelType(json: Record<string, unknown>): string {
  const type = json.model_type;
  const families = [...Object.keys(modelFamilies), ...Object.keys(multimodalFamilies)].join(", ");
  if (type === undefined) throw new Error(`model_type is missing; it must be one of ${families}.`);
  if (typeof type === "string" && Object.hasOwn(modelFamilies, type)) return type;
  throw new Error(`model_type ${shown(type)} is not run so far; these are: ${families}.`);
}

/** Settings that would change training, and nothing else. */
export const trainingKeys = [
  "attention_dropout",
  "attn_pdrop",
  "embd_pdrop",
  "resid_pdrop",
  "router_jitter_noise",
];

/** The keys of a config.json as most families spell them, with those that it leaves out, and without nulls. */
export function completeKeys(json: Record<string, unknown>, family: FamilySettings): Record<string, unknown> {
  const { defaults, derived, spelling, lacks = [] } = family;
  const own = Object.fromEntries(Object.entries(json).filter(([key]) => !lacks.includes(key)));
  const keys = withoutNulls({ ...defaults, ...renameAliases(own, spelling) });
  return { ...derived?.(keys), ...keys };
}

/** Does something whose complaints name keys as most families spell them: they are thrown in the spelling of this one. */
export function withOwnSpelling<T>({ spelling = {} }: FamilySettings, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const spell = (text: string, [key, own]: [string, string]) => text.replaceAll(key, own);
    throw new Error(Object.entries(spelling).reduce(spell, (error as Error).message));
  }
}

//| 03-moe/a-files-of-weights.ipynb#parse-config
/**
 * Reads a Hugging Face config.json, given as parsed JSON. What it leaves out has the value that transformers gives it.
 * With `strict`, for configurations that a person writes, a key that no model has is refused (naming the nearest one),
 * so is a setting that would change training, and so is one that contradicts another (`configWarnings` lists those
 * otherwise). Throws one sentence that names the key.
 */
export function parseModelConfig(json: unknown, { strict = false } = {}): ModelConfig {
  if (!isRecord(json)) throw new Error("A model configuration must be a JSON object.");
  const own = decoderConfig(json);
  const modelType = readModelType(own);
  const family = modelFamilies[modelType];
  if (strict) checkConfigKeys(own, modelType, family);
  const keys = completeKeys(own, family);
  const config = withOwnSpelling(family, () => {
    checkRunnable(withoutPacking(keys), runnableOf(family));
    if (strict) checkRunnable(keys, Object.fromEntries(trainingKeys.map((key) => [key, [0]])));
    return buildModelConfig(keys, modelType, family);
  });
  const [conflict] = strict ? configConflicts(own, family) : [];
  if (conflict) throw new Error(`${conflict} Give one of them.`);
  return config;
}

//| 03-moe/a-files-of-weights.ipynb#config-warnings-all
/** What is ignored of a config.json that `parseModelConfig` reads: a sentence for each such key; usually none. */
export function configWarnings(json: unknown): string[] {
  const config = parseModelConfig(json);
  const keys = decoderConfig(json as Record<string, unknown>);
  return [...configConflicts(keys, modelFamilies[config.modelType]), ...strayValues(keys, config)];
}

//| 03-moe/a-files-of-weights.ipynb#complete
/**
 * Completes what a person wrote to a whole config.json: what is left out follows from the width and from what the
 * caller knows (`vocab_size` of the tokenizer, `max_position_embeddings`). The choices are Qwen3's proportions: a
 * feed-forward layer three times as wide as the model, shared among the experts that a token visits.
 */
export function completeModelConfig(
  given: Record<string, unknown>,
  sizes: { vocab_size?: number; max_position_embeddings?: number } = {},
): Record<string, unknown> {
  const modelType = String(given.model_type ?? "qwen3_moe");
  const { defaults = {}, spelling = {}, lacks = [], parts = [] } = modelFamilies[modelType] ?? {};
  const stated = (key: string) => given[spelling[key] ?? key];
  const hidden = Number(stated("hidden_size") ?? 128);
  const heads = Number(stated("num_attention_heads") ?? Math.max(1, Math.floor(hidden / 32)));
  const shape = {
    model_type: modelType,
    hidden_size: hidden,
    num_hidden_layers: 4,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    head_dim: Math.max(2, 2 * Math.floor(hidden / heads / 2)),
    intermediate_size: 3 * hidden,
    bos_token_id: null,
    eos_token_id: null,
    ...("pad_token_id" in defaults ? { pad_token_id: null } : {}),
  };
  const whole: Record<string, unknown> = { ...shape, ...sizes, ...given };
  for (const part of parts) Object.assign(whole, { ...part.complete?.(whole), ...given });
  const kept = Object.entries(whole).filter(([key]) => !lacks.includes(key));
  return { ...Object.fromEntries(kept.map(([key, value]) => [spelling[key] ?? key, value])), ...given };
}

//| 03-moe/a-files-of-weights.ipynb#model-config-text-parts
/**
 * The content of the config.json to save beside a model's weights (f32). It opens in transformers, and
 * `parseModelConfig` reads the same configuration back.
 */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  return configJson(config, modelFamilies[config.modelType]);
}

//| 03-moe/a-files-of-weights.ipynb#model-config-text
/** The text of that config.json; `dtype` is how the numbers are written. */
export function modelConfigText(config: ModelConfig, dtype: "F32" | "F16" | "BF16" = "F32"): string {
  const names = { F32: "float32", F16: "float16", BF16: "bfloat16" };
  return configText({ ...modelConfigToJson(config), torch_dtype: names[dtype] });
}
