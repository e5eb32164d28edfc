// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import { didYouMean, isRecord, readKeys, shown, withoutNulls } from "./keys.js";
import type { Llama3Scaling, RopeConfig } from "./rope.js";

//| 03-moe/a-files-of-weights.ipynb#model-sizes
/** The sizes of a model, in numbers of elements. */
export interface ModelSizes {
  /** Rows of the embedding table: one for each token id. */
  vocabSize: number;
  /** Width of the residual stream. */
  hiddenSize: number;
  /** Number of blocks. */
  layers: number;
  /** Query heads. */
  heads: number;
  /** Key and value heads; each serves `heads / kvHeads` query heads. */
  kvHeads: number;
  /** Width of one head. `heads * headDim` need not equal `hiddenSize`. */
  headDim: number;
  /** Inner width of a dense feed-forward layer. */
  intermediateSize: number;
  /** The longest sequence that the model was made for, in tokens (`max_position_embeddings`). */
  contextLength: number;
}

//| 03-moe/a-files-of-weights.ipynb#moe-config
/** How the mixture-of-experts layers of a model are made. */
export interface MoeConfig {
  /** Experts in each sparse layer. */
  experts: number;
  /** Experts that each token visits (top-k). */
  expertsPerToken: number;
  /** Inner width of one expert. */
  intermediateSize: number;
  /** Whether the top-k router weights are divided by their sum. */
  normalizeTopK: boolean;
  /** Weight of the load-balance loss in the training loss (`router_aux_loss_coef`). */
  balanceCoefficient: number;
  /** For each block, whether its feed-forward layer is sparse; length `layers`. */
  sparseLayers: boolean[];
}

//| 03-moe/a-files-of-weights.ipynb#model-config
/**
 * Everything the decoder has to know about a model: its sizes, and one setting for each thing in which families
 * differ. The decoder reads these and never asks for the family by name.
 */
export interface ModelConfig extends ModelSizes {
  /** The family that a config.json names as its `model_type`. */
  modelType: string;
  /** Present where some or all feed-forward layers are mixtures of experts. */
  moe?: MoeConfig;
  /** The epsilon of every RMSNorm. */
  normEps: number;
  /** RMSNorm on queries and keys before RoPE: none, over each head, or over the whole projection. */
  qkNorm: "none" | "head" | "projection";
  rope: RopeConfig;
  /** Whether the query, key, value and output projections add a bias. */
  attentionBias: boolean;
  /** Whether the output layer is the embedding table itself (then there is no `lm_head.weight`). */
  tied: boolean;
  /** Standard deviation of freshly drawn weights. */
  initializerRange: number;
  /** The id that starts a document, where the family has one. */
  bosTokenId?: number;
  /** The ids that end a document; often one, none for a model without. */
  eosTokenIds: number[];
}

//| 03-moe/a-files-of-weights.ipynb#families
/** What a family fixes about its config.json. Sources: the configuration classes of transformers 5.18. */
export interface FamilySettings {
  /** Its class in transformers. */
  architecture: string;
  /** Its norm on queries and keys. */
  qkNorm: ModelConfig["qkNorm"];
  /** Whether its layers may be mixtures of experts. */
  sparse: boolean;
  /** Whether the heads together must be as wide as the model. */
  headsFillWidth?: boolean;
  /** What transformers assumes for keys that a config.json leaves out, where it is not the same for all families. */
  defaults: Record<string, unknown>;
  /** How the family spells keys that others call differently, such as `hidden_size: "n_embd"`. */
  spelling?: Record<string, string>;
  /** Values that are run of settings which change what a model computes, where they are not those of `runnableValues`. */
  runnable?: Record<string, unknown[]>;
  /** Keys of the family's own that are written beside the others, such as the name of its activation. */
  written?: Record<string, unknown>;
}

//| 03-moe/a-files-of-weights.ipynb#read-sizes
/** The largest size that a configuration may state: positions and ids are counted with 32 bits. */
export const largestSize = 2 ** 31 - 1;

/** The schema of one size: a whole number above 0 that 32 bits hold. */
export function sizeSchema() {
  const error = "a whole number above 0";
  return z
    .int({ error })
    .positive({ error })
    .max(largestSize, { error: `at most ${largestSize}` });
}

/** The sizes of a config.json, under their own names. */
export interface ConfigSizes {
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads?: number;
  head_dim?: number;
  intermediate_size: number;
  vocab_size: number;
  max_position_embeddings: number;
}

/** Reads the sizes, all whole numbers above 0. */
export function readSizes(json: Record<string, unknown>): ConfigSizes {
  const size = sizeSchema();
  const schema = z.object({
    hidden_size: size,
    num_hidden_layers: size,
    num_attention_heads: size,
    num_key_value_heads: size.optional(),
    head_dim: size.optional(),
    intermediate_size: size,
    vocab_size: size,
    max_position_embeddings: size,
  });
  return readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#parse-heads
/** The three numbers of the heads, checked: `[heads, kvHeads, headDim]`. Left out, headDim is hidden size / heads. */
export function parseHeads(keys: ConfigSizes, headsFillWidth = false): [number, number, number] {
  const hidden = keys.hidden_size;
  const heads = keys.num_attention_heads;
  const kvHeads = keys.num_key_value_heads ?? heads;
  const headDim = keys.head_dim ?? hidden / heads;
  if (heads % kvHeads !== 0) {
    throw new Error(
      `num_attention_heads is ${heads}, not a multiple of num_key_value_heads, which is ${kvHeads}.`,
    );
  }
  if (!Number.isInteger(headDim) || (headsFillWidth && hidden % heads !== 0)) {
    throw new Error(`hidden_size is ${hidden}, not a multiple of num_attention_heads, which is ${heads}.`);
  }
  if (headDim % 2 !== 0) throw new Error(`head_dim is ${headDim}, but rotary positions need an even number.`);
  return [heads, kvHeads, headDim];
}

//| 03-moe/a-files-of-weights.ipynb#parse-sizes
/** The sizes of a model from its config.json. */
export function parseModelSizes(json: Record<string, unknown>, headsFillWidth?: boolean): ModelSizes {
  const keys = readSizes(json);
  const [heads, kvHeads, headDim] = parseHeads(keys, headsFillWidth);
  return {
    vocabSize: keys.vocab_size,
    hiddenSize: keys.hidden_size,
    layers: keys.num_hidden_layers,
    heads,
    kvHeads,
    headDim,
    intermediateSize: keys.intermediate_size,
    contextLength: keys.max_position_embeddings,
  };
}

//| 03-moe/a-files-of-weights.ipynb#read-settings
/** The settings of a config.json that are not sizes and that every family has. */
export interface ConfigSettings {
  rms_norm_eps: number;
  attention_bias: boolean;
  tie_word_embeddings: boolean;
  initializer_range: number;
  bos_token_id?: number;
  eos_token_id?: number | number[];
}

/** Reads the settings; those left out have the values that transformers gives them. */
export function readSettings(json: Record<string, unknown>): ConfigSettings {
  const share = { error: "a number above 0 and up to 1" };
  const small = z.number(share).positive(share).max(1, share);
  const flag = z.boolean({ error: "true or false" }).default(false);
  const notNegative = { error: "a whole number from 0 up" };
  const id = z.int(notNegative).nonnegative(notNegative);
  const schema = z.object({
    rms_norm_eps: small.default(1e-6),
    attention_bias: flag,
    tie_word_embeddings: flag,
    initializer_range: small.default(0.02),
    bos_token_id: id.optional(),
    eos_token_id: z.union([id, z.array(id)], { error: "a token id or a list of token ids" }).optional(),
  });
  return readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#read-experts
/** The keys that say how experts are made and chosen. */
export interface ConfigExperts {
  num_experts: number;
  num_experts_per_tok: number;
  moe_intermediate_size: number;
  norm_topk_prob: boolean;
  router_aux_loss_coef: number;
  decoder_sparse_step: number;
  mlp_only_layers: number[];
}

/** Reads the keys of the experts. */
export function readExperts(json: Record<string, unknown>): ConfigExperts {
  const size = sizeSchema();
  const weight = { error: "a number from 0 to 1000" };
  const layers = { error: "a list of layer numbers" };
  const schema = z.object({
    num_experts: size,
    num_experts_per_tok: size,
    moe_intermediate_size: size,
    norm_topk_prob: z.boolean({ error: "true or false" }).default(false),
    router_aux_loss_coef: z.number(weight).nonnegative(weight).max(1000, weight).default(0.001),
    decoder_sparse_step: size.default(1),
    mlp_only_layers: z.array(z.int(layers).nonnegative(layers), layers).default([]),
  });
  return readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#check-extent
/** The most tensors that a model may be made of. The largest released ones have some 75,000. */
export const largestTensorCount = 500_000;

/** At most how many tensors the sizes of a model make, and how many numbers. */
export function modelExtent(
  sizes: ModelSizes,
  experts?: ConfigExperts,
): { tensors: number; parameters: number } {
  const { hiddenSize: hidden, layers, heads, kvHeads, headDim } = sizes;
  const attention = 2 * hidden * headDim * (heads + kvHeads);
  const dense = 3 * hidden * sizes.intermediateSize;
  const sparse = experts ? experts.num_experts * hidden * (1 + 3 * experts.moe_intermediate_size) : 0;
  return {
    tensors: layers * (16 + 3 * (experts?.num_experts ?? 0)),
    parameters: 2 * sizes.vocabSize * hidden + layers * (attention + Math.max(dense, sparse)),
  };
}

/** Throws if sizes multiply out to more than can be a model. Nothing is made whose length depends on them. */
export function checkExtent(sizes: ModelSizes, experts?: ConfigExperts): void {
  const { tensors, parameters } = modelExtent(sizes, experts);
  if (tensors > largestTensorCount) {
    const [of, or] = experts ? [` of ${experts.num_experts} experts`, " or num_experts"] : ["", ""];
    throw new Error(
      `${sizes.layers} layers${of} make ${tensors} tensors, but a model may have ${largestTensorCount}: lower num_hidden_layers${or}.`,
    );
  }
  if (4 * parameters <= Number.MAX_SAFE_INTEGER) return;
  const gigabytes = (4 * parameters) / 2 ** 30;
  throw new Error(
    `The sizes multiply out to ${parameters.toPrecision(3)} parameters, ${gigabytes.toPrecision(3)} GiB, but at most ${2 ** 23} GiB can be addressed: lower them.`,
  );
}

//| 03-moe/a-files-of-weights.ipynb#parse-moe
/**
 * The mixture-of-experts part of a configuration. Layer i (from 0) is sparse if `decoder_sparse_step` divides i + 1 and
 * `mlp_only_layers` does not name it.
 */
export function parseMoeConfig(keys: ConfigExperts, layers: number): MoeConfig {
  const experts = keys.num_experts;
  const expertsPerToken = keys.num_experts_per_tok;
  if (expertsPerToken > experts) {
    throw new Error(
      `num_experts_per_tok is ${expertsPerToken}, but there are only ${experts} experts (num_experts).`,
    );
  }
  const dense = new Set(keys.mlp_only_layers);
  const isSparse = (i: number) => (i + 1) % keys.decoder_sparse_step === 0 && !dense.has(i);
  return {
    experts,
    expertsPerToken,
    intermediateSize: keys.moe_intermediate_size,
    normalizeTopK: keys.norm_topk_prob,
    balanceCoefficient: keys.router_aux_loss_coef,
    sparseLayers: Array.from({ length: layers }, (_, i) => isSparse(i)),
  };
}

//| 03-moe/a-files-of-weights.ipynb#runnable
/** The values that we run of settings which change what a model computes. Of layer types, each is compared. */
export const runnableValues: Record<string, unknown[]> = {
  hidden_act: ["silu", "swish"],
  mlp_bias: [false],
  use_sliding_window: [false],
  layer_types: ["full_attention"],
  partial_rotary_factor: [1],
  quantization_config: [],
  per_layer_config: [],
  transformers_weights: [],
};

/** Throws, naming the key, if a configuration asks for something that we do not run. */
export function checkRunnable(json: Record<string, unknown>, runnable = runnableValues): void {
  for (const [key, values] of Object.entries(runnable)) {
    const given = json[key] === undefined ? [] : key === "layer_types" ? [json[key]].flat() : [json[key]];
    for (const value of given.filter((value) => !values.includes(value))) {
      if (values.length === 0) throw new Error(`${key} is given, but such models are not run so far.`);
      const stated = `${key} is ${shown(value)}`;
      throw new Error(`${stated}, but only ${JSON.stringify(values[0])} is run so far.`);
    }
  }
}

//| 03-moe/a-files-of-weights.ipynb#check-idle
/** Checks the types of settings that change nothing here, and that there is one layer type for each layer. */
export function checkIdleKeys(json: Record<string, unknown>, layers: number): void {
  const flag = z.boolean({ error: "true or false" }).optional();
  const whole = z.int({ error: "a whole number" }).optional();
  const text = z.string({ error: "text" }).optional();
  const share = { error: "a number from 0 to 1" };
  const names = { error: "a list of names" };
  const types = { error: `a list of ${layers} layer types, one for each layer` };
  const schema = z.object({
    architectures: z.array(z.string(names), names).optional(),
    attention_dropout: z.number(share).min(0, share).max(1, share).optional(),
    dtype: text,
    torch_dtype: text,
    transformers_version: text,
    layer_types: z.array(z.string(types), types).length(layers, types).optional(),
    max_window_layers: whole,
    pad_token_id: whole,
    pretraining_tp: whole,
    sliding_window: whole,
    output_router_logits: flag,
    use_cache: flag,
  });
  readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#parse-llama3
/** Reads the four numbers of Llama 3's rescaling from `json`, which stands under the key `where`. */
export function parseLlama3Scaling(json: Record<string, unknown>, where: string): Llama3Scaling {
  const positive = { error: "a number above 0" };
  const number = z.number(positive).positive(positive).max(1e30, { error: "at most 1e30" });
  const schema = z.object({
    factor: number,
    low_freq_factor: number,
    high_freq_factor: number,
    original_max_position_embeddings: sizeSchema(),
  });
  const keys = readKeys(schema, json, `${where}.`);
  if (keys.high_freq_factor <= keys.low_freq_factor) {
    throw new Error(
      `${where}.high_freq_factor must be above low_freq_factor, which is ${keys.low_freq_factor}.`,
    );
  }
  return {
    type: "llama3",
    factor: keys.factor,
    lowFrequencyFactor: keys.low_freq_factor,
    highFrequencyFactor: keys.high_freq_factor,
    originalContextLength: keys.original_max_position_embeddings,
  };
}

//| 03-moe/a-files-of-weights.ipynb#parse-rope
/** The object that says how positions turn, and its key: `rope_scaling`, unless it is empty, else `rope_parameters`. */
export function ropeObject(json: Record<string, unknown>): { where: string; rope: Record<string, unknown> } {
  const isEmpty = (value: unknown) =>
    value === undefined || (isRecord(value) && Object.keys(value).length === 0);
  const where = isEmpty(json.rope_scaling) ? "rope_parameters" : "rope_scaling";
  const given = json[where] ?? {};
  if (!isRecord(given)) throw new Error(`${where} must be an object, not ${shown(given)}.`);
  return { where, rope: withoutNulls(given) };
}

/**
 * Reads the rotary positions in both spellings: `rope_parameters`, and the older `rope_theta` beside `rope_scaling`
 * (whose type is called `rope_type` or, older still, `type`). `rope_scaling` wins, as in transformers.
 */
export function parseRopeConfig(json: Record<string, unknown>): RopeConfig {
  const { where, rope } = ropeObject(json);
  const positive = { error: "a number above 0" };
  const most = { error: "at most 1e30" };
  const theta = z.object({
    rope_theta: z.number(positive).positive(positive).max(1e30, most).default(10000),
  });
  checkRunnable(rope);
  const nested = Object.keys(rope).find((key) => isRecord(rope[key]));
  if (nested)
    throw new Error(`${where}.${nested} is an object: positions for each layer type are not run so far.`);
  const { rope_theta } =
    rope.rope_theta === undefined ? readKeys(theta, json) : readKeys(theta, rope, `${where}.`);
  const type = rope.rope_type ?? rope.type ?? "default";
  if (type === "default") return { theta: rope_theta };
  if (type === "llama3")
    return {
      theta: rope_theta,
      scaling: parseLlama3Scaling(
        { original_max_position_embeddings: json.max_position_embeddings, ...rope },
        where,
      ),
    };
  throw new Error(`${where} has the rope_type ${shown(type)}; the types run so far are default and llama3.`);
}

//| 03-moe/a-files-of-weights.ipynb#aliases
/** Old and new spellings of the same key: what transformers 5 writes, and what we read. */
export const configAliases: Record<string, string> = { num_local_experts: "num_experts" };

/** Renames aliased keys, and those that a family spells in its own way. Where both stand, transformers takes the alias, and so do we. */
export function renameAliases(
  json: Record<string, unknown>,
  spelling: Record<string, string> = {},
): Record<string, unknown> {
  const renamed = { ...json };
  const own = Object.entries(spelling).map(([key, alias]) => [alias, key]);
  for (const [alias, key] of [...Object.entries(configAliases), ...own]) {
    if (json[alias] === undefined || json[alias] === null) continue;
    delete renamed[alias];
    renamed[key] = json[alias];
  }
  return renamed;
}

//| 03-moe/a-files-of-weights.ipynb#build-config
/** Builds a configuration from keys in their current spelling, nulls removed. */
export function buildModelConfig(
  json: Record<string, unknown>,
  modelType: string,
  family: FamilySettings,
): ModelConfig {
  const sizes = parseModelSizes(json, family.headsFillWidth);
  const settings = readSettings(json);
  const experts = family.sparse ? readExperts(json) : undefined;
  checkExtent(sizes, experts);
  checkIdleKeys(json, sizes.layers);
  return {
    modelType,
    ...sizes,
    ...(experts ? { moe: parseMoeConfig(experts, sizes.layers) } : {}),
    normEps: settings.rms_norm_eps,
    qkNorm: family.qkNorm,
    rope: parseRopeConfig(json),
    attentionBias: settings.attention_bias,
    tied: settings.tie_word_embeddings,
    initializerRange: settings.initializer_range,
    ...(settings.bos_token_id === undefined ? {} : { bosTokenId: settings.bos_token_id }),
    eosTokenIds: [settings.eos_token_id ?? []].flat(),
  };
}

//| 03-moe/a-files-of-weights.ipynb#config-conflicts
/** Keys that `rope_parameters` may have, by the type of positions that uses them. */
export const ropeKeys: Record<string, string[]> = {
  default: ["rope_theta", "rope_type", "type", "partial_rotary_factor"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
};

/** A sentence for each key of positions that is ignored. */
export function ropeConflicts(json: Record<string, unknown>): string[] {
  const { where, rope } = ropeObject(json);
  const type = String(rope.rope_type ?? rope.type ?? "default");
  const used = [...ropeKeys.default, ...(type === "default" ? [] : (ropeKeys[type] ?? []))];
  const unused = Object.keys(rope).filter((key) => !used.includes(key));
  return [
    ...(where === "rope_scaling" ? ignoredKey(json, "rope_parameters", "rope_scaling", rope) : []),
    ...ignoredKey(json, "rope_theta", `${where}.rope_theta`, rope.rope_theta),
    ...ignoredKey(rope, "type", `${where}.rope_type`, rope.rope_type),
    ...unused.map((key) => `${where}.${key} is ignored: positions of the type ${type} have no such setting.`),
  ];
}

/** The sentence that a key is ignored, if it is given and says something else than the one that wins. */
export function ignoredKey(
  json: Record<string, unknown>,
  key: string,
  winner: string,
  value: unknown,
): string[] {
  const given = json[key] ?? undefined;
  if (given === undefined || value === undefined || value === null) return [];
  if (JSON.stringify(given) === JSON.stringify(value)) return [];
  return [`${key} is ${shown(given)} and is ignored, because ${winner} is ${shown(value)}.`];
}

/** A sentence for each key of a config.json that is ignored, since another says the same thing differently. */
export function configConflicts(json: Record<string, unknown>, { architecture }: FamilySettings): string[] {
  const named = Array.isArray(json.architectures) ? json.architectures : [architecture];
  return [
    ...ignoredKey(json, "num_experts", "num_local_experts", json.num_local_experts),
    ...ignoredKey(json, "torch_dtype", "dtype", json.dtype),
    ...ropeConflicts(json),
    ...(named.includes(architecture) ? [] : ignoredKey(json, "architectures", "model_type", json.model_type)),
  ];
}

//| 03-moe/a-files-of-weights.ipynb#config-keys-known
/** Keys that say something about every model that we run. */
export const sharedConfigKeys =
  `architectures model_type vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
  intermediate_size max_position_embeddings rms_norm_eps rope_theta rope_scaling rope_parameters attention_bias
  tie_word_embeddings initializer_range hidden_act bos_token_id eos_token_id`.split(/\s+/);

/** Keys that only a model with experts has. */
export const expertConfigKeys =
  `num_experts num_local_experts num_experts_per_tok moe_intermediate_size norm_topk_prob router_aux_loss_coef
  decoder_sparse_step mlp_only_layers`.split(/\s+/);

/** Keys that transformers writes and that either change nothing here or are refused by `checkRunnable`. */
export const otherConfigKeys =
  `_name_or_path attention_dropout dtype torch_dtype layer_types max_window_layers mlp_bias output_router_logits
  pad_token_id pretraining_tp quantization_config sliding_window transformers_version use_cache
  use_sliding_window`.split(/\s+/);

/** Throws if a configuration has a key that models of its family do not have, naming the nearest one that they have. */
export function checkConfigKeys(
  json: Record<string, unknown>,
  modelType: string,
  family: FamilySettings,
): void {
  const { sparse, spelling = {}, written = {} } = family;
  const shared = [...sharedConfigKeys, ...(sparse ? expertConfigKeys : [])];
  const known = [...shared.map((key) => spelling[key] ?? key), ...Object.keys(written)];
  for (const key of Object.keys(json)) {
    if (known.includes(key) || otherConfigKeys.includes(key)) continue;
    throw new Error(`${key} is not a setting of a ${modelType} model${didYouMean(key, known)}`);
  }
}

//| 03-moe/a-files-of-weights.ipynb#config-warnings
/** A sentence for each value of a configuration that has no meaning in its model: ids that are no tokens, layers that are not there. */
export function strayValues(
  json: Record<string, unknown>,
  { vocabSize, layers, bosTokenId, eosTokenIds }: ModelConfig,
): string[] {
  const ids: [string, number][] = eosTokenIds.map((id) => ["eos_token_id", id]);
  if (bosTokenId !== undefined) ids.push(["bos_token_id", bosTokenId]);
  const others = Array.isArray(json.mlp_only_layers) ? (json.mlp_only_layers as number[]) : [];
  const beyond = others.find((layer) => layer >= layers);
  return [
    ...ids
      .filter(([, id]) => id >= vocabSize)
      .map(
        ([key, id]) => `${key} is ${id}, but the vocabulary ends at ${vocabSize - 1}: no token has that id.`,
      ),
    ...(beyond === undefined
      ? []
      : [`mlp_only_layers names the layer ${beyond}, but there are only ${layers}.`]),
  ];
}
