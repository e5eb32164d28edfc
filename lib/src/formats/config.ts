// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import { didYouMean, isRecord, readKeys, shown } from "./keys.js";
import type { RopeConfig } from "./rope.js";

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
/** One of `activations`, by its name. */
export type Activation = "silu" | "gelu" | "relu" | "geluExact" | "relu2";

/** The same, and gpt-oss's gated unit, whose gate and up are clamped. */
export type GatedActivation = Activation | "clamped-silu";

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
  /** What makes scores of the router's logits; softmax over all experts unless given. */
  scoring?: "softmax" | "sigmoid";
  /** Whether a bias for each expert is added to the scores for the choice alone. */
  choiceBias?: boolean;
  /** Experts in `count` groups, of which a token keeps `kept`. */
  groups?: { count: number; kept: number };
  /** The weights are multiplied by this; 1 unless given. */
  scale?: number;
  /** Inner width of the experts that serve every token, all together; and whether each token says how much it takes of them. */
  sharedSize?: number;
  sharedGate?: boolean;
  /** Whether the router and the experts' projections add biases. */
  biased?: boolean;
  /** Between the experts' layers, where it is not the model's. */
  activation?: "clamped-silu";
  /** Weight of the load-balance loss in the training loss (`router_aux_loss_coef`). */
  balanceCoefficient: number;
  /** For each block, whether its feed-forward layer is sparse; length `layers`. */
  sparseLayers: boolean[];
}

//| 03-moe/a-files-of-weights.ipynb#attention-config
/** The sizes of latent attention. Positions turn `ropeDim` elements of each head's queries and keys; `headDim` counts the others too. */
export interface LatentConfig {
  /** Width of the row that a token leaves behind, and of the one that queries pass through, where there is one. */
  rank: number;
  queryRank?: number;
  nopeDim: number;
  ropeDim: number;
  valueDim: number;
  /** Whether the pairs that turn are neighbours. */
  interleaved: boolean;
}

/** What the attention of some models has beside the usual. Lists have an entry for each layer. */
export interface AttentionConfig {
  /** Which layers are local: see only the `window` last keys, the token itself included. None where it is left out. */
  localLayers?: boolean[];
  window?: number;
  /** How positions turn in local layers, where they turn differently. */
  localRope?: RopeConfig;
  /** In which layers positions turn queries and keys. All where it is left out. */
  rotatingLayers?: boolean[];
  /** Scores are divided by the root of this; of the heads' width where it is left out. */
  queryScalar?: number;
  /** What latent attention has in the place of heads with keys and values of their own. */
  latent?: LatentConfig;
  /** Scores of attention, and those of the next token, are bounded smoothly: softcap · tanh(score / softcap). */
  attentionSoftcap?: number;
  logitSoftcap?: number;
}

//| 03-moe/a-files-of-weights.ipynb#model-config
/**
 * Everything the decoder has to know about a model: its sizes, and one setting for each thing in which families
 * differ. The decoder reads these and never asks for the family by name.
 */
export interface ModelConfig extends ModelSizes, AttentionConfig {
  /** The family that a config.json names as its `model_type`. */
  modelType: string;
  /** Present where some or all feed-forward layers are mixtures of experts. */
  moe?: MoeConfig;
  /** The epsilon of every norm. */
  normEps: number;
  /** Between the linear layers of the feed-forward half. */
  activation: Activation;
  /** RMSNorm on queries and keys before RoPE: none, over each head, or over the whole projection. */
  qkNorm: "none" | "head" | "projection";
  /** How positions turn queries and keys; none where the model learns its positions instead. */
  rope?: RopeConfig;
  /** Whether the query, key and value projections add a bias, and the output's where the family has one. */
  attentionBias: boolean;
  /** Whether the projections of dense feed-forward layers do. */
  mlpBias: boolean;
  /** Whether the output layer is the embedding table itself (then there is no `lm_head.weight`). */
  tied: boolean;
  /** Standard deviation of freshly drawn weights. */
  initializerRange: number;
  /** The id that starts a document, where the family has one. */
  bosTokenId?: number;
  /** The id that fills up short texts, where there is one: its row of the embedding does not learn from being looked up. */
  padTokenId?: number;
  /** The ids that end a document; often one, none for a model without. */
  eosTokenIds: number[];
}

//| 03-moe/a-files-of-weights.ipynb#config-part
/** A group of keys of a config.json that some families have. */
export interface ConfigPart {
  /** Their names, as most families spell them. */
  keys: string[];
  /** What they say about a model of such sizes. Nulls are removed, and what may be left out has its default. */
  read(json: Record<string, unknown>, sizes: ModelSizes): Partial<ModelConfig>;
  /** The same keys again. */
  write(config: ModelConfig): Record<string, unknown>;
  /** A sentence for each of them that is ignored, since another says the same thing differently. */
  conflicts?(json: Record<string, unknown>): string[];
  /** What follows for a person who writes only some keys. */
  complete?(given: Record<string, unknown>): Record<string, unknown>;
}

//| 03-moe/a-files-of-weights.ipynb#families
/** What a family fixes about its config.json. Sources: the configuration classes of transformers 5.18. */
export interface FamilySettings {
  /** Its class in transformers. */
  architecture: string;
  /** Its norm on queries and keys. */
  qkNorm: ModelConfig["qkNorm"];
  /** The groups of keys that its files have beside those of all families. */
  parts: ConfigPart[];
  /** What its files need not say, since it is always so. */
  fixed?: Partial<ModelConfig>;
  /** Whether the heads together must be as wide as the model. */
  headsFillWidth?: boolean;
  /** What transformers assumes for keys that a config.json leaves out, where it is not the same for all families. */
  defaults: Record<string, unknown>;
  /** The same for keys whose value follows from others. */
  derived?: (json: Record<string, unknown>) => Record<string, unknown>;
  /** How the family spells keys that others call differently, such as `hidden_size: "n_embd"`. */
  spelling?: Record<string, string>;
  /** Keys of all other families that it does not have: they say nothing in its files. */
  lacks?: string[];
  /** Values that are run of settings which change what a model computes, where they are not those of `runnableValues`. */
  runnable?: Record<string, unknown[]>;
  /** Keys of the family's own that are written beside the others, always the same. */
  written?: Record<string, unknown>;
  /** Further keys of its files, which change nothing here or are refused by name. */
  idle?: string[];
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
  tie_word_embeddings: boolean;
  initializer_range: number;
  bos_token_id?: number;
  eos_token_id?: number | number[];
  pad_token_id?: number;
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
    tie_word_embeddings: flag,
    initializer_range: small.default(0.02),
    bos_token_id: id.optional(),
    pad_token_id: z.int({ error: "a whole number" }).optional(),
    eos_token_id: z.union([id, z.array(id)], { error: "a token id or a list of token ids" }).optional(),
  });
  return readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#read-activation
/** The names that files have for activations, and ours. GELU's exact form and its tanh form differ in the fourth digit. */
export const activationNames: Record<string, Activation> = {
  silu: "silu",
  swish: "silu",
  gelu_pytorch_tanh: "gelu",
  gelu_new: "gelu",
  gelu_fast: "gelu",
  gelu: "geluExact",
  relu: "relu",
  relu2: "relu2",
};

/** The activation that a config.json names. Throws for one that we do not run. */
export function readActivation({ hidden_act: name = "silu" }: Record<string, unknown>): Activation {
  if (typeof name === "string" && Object.hasOwn(activationNames, name)) return activationNames[name];
  const names = Object.keys(activationNames).join(", ");
  throw new Error(`hidden_act is ${shown(name)}, but only these are run so far: ${names}.`);
}

/** The name that is written for an activation. */
export function activationName(activation: Activation): string {
  return Object.keys(activationNames).find((name) => activationNames[name] === activation)!;
}

//| 03-moe/a-files-of-weights.ipynb#check-extent
/** The most tensors that a model may be made of. The largest released ones have some 75,000. */
export const largestTensorCount = 500_000;

/** At most how many tensors the sizes of a model make, and how many numbers. */
export function modelExtent(sizes: ModelSizes, moe?: MoeConfig): { tensors: number; parameters: number } {
  const { hiddenSize: hidden, layers, heads, kvHeads, headDim } = sizes;
  const attention = 2 * hidden * headDim * (heads + kvHeads);
  const dense = 3 * hidden * sizes.intermediateSize;
  const sparse = moe ? moe.experts * hidden * (1 + 3 * moe.intermediateSize) : 0;
  return {
    tensors: layers * (16 + 3 * (moe?.experts ?? 0)),
    parameters: 2 * sizes.vocabSize * hidden + layers * (attention + Math.max(dense, sparse)),
  };
}

/** Throws if sizes multiply out to more than can be a model. Nothing is made before whose length depends on them, but lists of layers. */
export function checkExtent(sizes: ModelSizes, moe?: MoeConfig): void {
  const { tensors, parameters } = modelExtent(sizes, moe);
  if (tensors > largestTensorCount) {
    const [of, or] = moe ? [` of ${moe.experts} experts`, " or num_experts"] : ["", ""];
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

//| 03-moe/a-files-of-weights.ipynb#runnable
/**
 * Settings that change what a model computes, and the values of them that say "as usual" (those without are not to be given). They
 * are refused with another value in files of families that have no part for them.
 */
export const runnableValues: Record<string, unknown[]> = {
  attention_bias: [false],
  mlp_bias: [false],
  lm_head_bias: [false],
  use_sliding_window: [false],
  sliding_window: [],
  layer_types: ["full_attention"],
  no_rope_layers: [1],
  partial_rotary_factor: [1],
  attn_logit_softcapping: [],
  final_logit_softcapping: [],
  query_pre_attn_scalar: [],
  attention_multiplier: [],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  logits_scaling: [1],
  logit_scale: [1],
  clip_qkv: [],
  use_qk_norm: [false],
  use_bidirectional_attention: [false],
  attention_chunk_size: [],
  dual_chunk_attention_config: [],
  alibi: [false],
  add_cross_attention: [false],
  scale_attn_weights: [true],
  scale_attn_by_inverse_layer_idx: [false],
  is_encoder_decoder: [false],
  quantization_config: [],
  per_layer_config: [],
  transformers_weights: [],
};

//| 03-moe/a-files-of-weights.ipynb#runnable-of
/** Those of a family: the keys of its parts are for its parts to judge. */
export function runnableOf({ parts, runnable }: FamilySettings): Record<string, unknown[]> {
  const own = new Set(parts.flatMap(({ keys }) => keys));
  const others = Object.entries(runnableValues).filter(([key]) => !own.has(key));
  return { ...Object.fromEntries(others), ...runnable };
}

/** Throws, naming the key, if a configuration asks for something that we do not run. Of a list, each value is compared. */
export function checkRunnable(json: Record<string, unknown>, runnable: Record<string, unknown[]>): void {
  for (const [key, values] of Object.entries(runnable)) {
    const isList = ["layer_types", "no_rope_layers"].includes(key);
    const given = json[key] === undefined ? [] : isList ? [json[key]].flat() : [json[key]];
    for (const value of given.filter((value) => !values.includes(value))) {
      const method =
        isRecord(value) && value.quant_method ? ` (quant_method ${shown(value.quant_method)})` : "";
      if (values.length === 0)
        throw new Error(`${key} is given${method}, but such models are not run so far.`);
      const stated = `${key} is ${shown(value)}`;
      throw new Error(`${stated}, but only ${JSON.stringify(values[0])} is run so far.`);
    }
  }
}

//| 03-moe/a-files-of-weights.ipynb#packing-note
/** What a note of packed weights asks for that we do not run, as the end of a sentence; nothing where it is all run. */
export function refusedPacking(stored: Record<string, unknown>): string | undefined {
  const { quant_method: method, config_groups: groups, kv_cache_scheme: cache } = stored;
  if (method === "mxfp4") return undefined;
  for (const group of Object.values(Object(groups)).map(Object)) {
    const format = group.format ?? stored.format;
    if (format !== "pack-quantized") return `the format ${shown(format)}`;
    if (group.input_activations || group.output_activations) return "activations of few bits";
  }
  return cache ? "a cache of few bits" : undefined;
}

/** The same without a note of how weights are packed that we run: their tensors say so themselves. */
export function withoutPacking(json: Record<string, unknown>): Record<string, unknown> {
  const { quantization_config: stored, ...others } = json;
  if (!isRecord(stored) || !["compressed-tensors", "mxfp4"].includes(String(stored.quant_method)))
    return json;
  const refused = refusedPacking(stored);
  if (refused === undefined) return others;
  throw new Error(
    `quantization_config asks for ${refused}, but of compressed-tensors only pack-quantized weights are run so far.`,
  );
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
    pretraining_tp: whole,
    sliding_window: whole,
    output_router_logits: flag,
    use_cache: flag,
  });
  readKeys(schema, json);
}

//| 03-moe/a-files-of-weights.ipynb#aliases
/** Old and new spellings of the same key: what transformers 5 writes, and what we read. */
export const configAliases: Record<string, string> = { num_local_experts: "num_experts" };

/**
 * Renames aliased keys (where both stand, transformers takes the alias, and so do we), and those that a family spells in its own
 * way: what is spelled as others do says nothing in its files.
 */
export function renameAliases(
  json: Record<string, unknown>,
  spelling: Record<string, string> = {},
): Record<string, unknown> {
  const renamed = { ...json };
  for (const key of Object.keys(spelling)) if (!(spelling[key] in configAliases)) delete renamed[key];
  const own = Object.entries(spelling).map(([key, alias]) => [alias, key]);
  for (const [alias, key] of [...Object.entries(configAliases), ...own]) {
    if (json[alias] === undefined) continue;
    delete renamed[alias];
    if (json[alias] !== null || renamed[key] === undefined) renamed[key] = json[alias];
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
  const pad = settings.pad_token_id; // some files say −1 for none
  checkExtent(sizes);
  checkIdleKeys(json, sizes.layers);
  const config: ModelConfig = {
    modelType,
    ...sizes,
    normEps: settings.rms_norm_eps,
    activation: readActivation(json),
    qkNorm: family.qkNorm,
    attentionBias: false,
    mlpBias: false,
    tied: settings.tie_word_embeddings,
    initializerRange: settings.initializer_range,
    ...(settings.bos_token_id === undefined ? {} : { bosTokenId: settings.bos_token_id }),
    ...(pad !== undefined && pad >= 0 ? { padTokenId: pad } : {}),
    eosTokenIds: [settings.eos_token_id ?? []].flat(),
    ...family.fixed,
  };
  for (const part of family.parts) Object.assign(config, part.read(json, sizes));
  checkExtent(config, config.moe);
  return config;
}

//| 03-moe/a-files-of-weights.ipynb#config-conflicts
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
export function configConflicts(json: Record<string, unknown>, family: FamilySettings): string[] {
  const { architecture, parts, spelling = {} } = family;
  const others = Object.entries(spelling).filter(([, own]) => !(own in configAliases));
  const architectures = Array.isArray(json.architectures) ? json.architectures : [architecture];
  return [
    ...Object.entries(configAliases).flatMap(([alias, key]) => ignoredKey(json, key, alias, json[alias])),
    ...ignoredKey(json, "torch_dtype", "dtype", json.dtype),
    ...others.flatMap(([key, own]) => ignoredKey(json, key, own, json[own])),
    ...parts.flatMap((part) => part.conflicts?.(json) ?? []),
    ...(architectures.includes(architecture)
      ? []
      : ignoredKey(json, "architectures", "model_type", json.model_type)),
  ];
}

//| 03-moe/a-files-of-weights.ipynb#config-keys-known
/** Keys that say something about every model that we run. */
export const sharedConfigKeys =
  `architectures model_type vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
  intermediate_size max_position_embeddings rms_norm_eps tie_word_embeddings initializer_range hidden_act bos_token_id
  eos_token_id pad_token_id attention_dropout`.split(/\s+/);

/** Keys that files have and that either change nothing here or are refused by `checkRunnable`. */
export const otherConfigKeys = [
  ..."_name_or_path auto_map dtype torch_dtype max_window_layers output_router_logits".split(" "),
  ..."pretraining_tp transformers_version use_cache".split(" "),
  ...Object.keys(runnableValues),
];

/** The keys that models of a family have, as it spells them. */
export function configKeysOf({ parts, spelling = {}, lacks = [], written = {} }: FamilySettings): string[] {
  const keys = [...sharedConfigKeys, ...parts.flatMap((part) => part.keys)].filter(
    (key) => !lacks.includes(key),
  );
  return [...keys.map((key) => spelling[key] ?? key), ...Object.keys(written)];
}

/** Throws if a configuration has a key that models of its family do not have, naming the nearest one that they have. */
export function checkConfigKeys(
  json: Record<string, unknown>,
  modelType: string,
  family: FamilySettings,
): void {
  const own = configKeysOf(family);
  const aliases = Object.keys(configAliases).filter((alias) => own.includes(configAliases[alias]));
  const allowed = [...own, ...aliases];
  for (const key of Object.keys(json)) {
    if (allowed.includes(key) || otherConfigKeys.includes(key) || family.idle?.includes(key)) continue;
    const spelled = family.spelling?.[key];
    const hint = spelled ? `; it is called ${spelled} there.` : didYouMean(key, allowed);
    throw new Error(`${key} is not a setting of a ${modelType} model${hint}`);
  }
}

//| 03-moe/a-files-of-weights.ipynb#config-warnings
/** A sentence for each value of a configuration that has no meaning in its model: ids that are no tokens, layers that are not there. */
export function strayValues(
  json: Record<string, unknown>,
  { vocabSize, layers, bosTokenId, eosTokenIds, padTokenId }: ModelConfig,
): string[] {
  const ids: [string, number][] = eosTokenIds.map((id) => ["eos_token_id", id]);
  if (bosTokenId !== undefined) ids.push(["bos_token_id", bosTokenId]);
  if (padTokenId !== undefined) ids.push(["pad_token_id", padTokenId]);
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
