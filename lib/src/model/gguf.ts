// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import { type ModelConfig, sharedConfigKeys } from "../formats/config.js";
import { ggufBytes, ggufNumbers, ggufTypes, readableTypes, writableTypes } from "../formats/gguf-blocks.js";
import {
  type GgufHead,
  type GgufSource,
  type GgufValue,
  type ReadBytes,
  ggufPieces,
} from "../formats/gguf.js";
import { shown, withoutUndefined } from "../formats/keys.js";
import type { RopeConfig } from "../formats/rope.js";
import { joinedBytes } from "../formats/safetensors.js";
import { sizeOf } from "../tensor/tensor.js";
import { parseModelConfig } from "./config.js";
import { modelFamilies, weightsOf } from "./families.js";
import { llama3Frequency, ropeFrequencies, rotaryMagnitude, yarnMagnitude } from "./positions.js";
import { type FileTensor, type StoredTensor, fileNumbers, fileTensors, someOf } from "./stored.js";
import type { ModelWeight } from "./structure.js";

//| 05-inference/a-files-of-gguf.ipynb#names
/** What stands at places of the structure is called in a file. */
export const outerNames: Record<string, string> = {
  embedding: "token_embd.weight",
  positions: "position_embd.weight",
  "norm.weight": "output_norm.weight",
  "norm.bias": "output_norm.bias",
  "head.weight": "output.weight",
};

/** The same within a block, without `weight` or `bias`. */
export const blockNames: Record<string, string> = {
  "norms.beforeAttention": "attn_norm",
  "norms.afterAttention": "post_attention_norm",
  "norms.beforeFeedForward": "ffn_norm",
  "norms.afterFeedForward": "post_ffw_norm",
  "attention.q": "attn_q",
  "attention.k": "attn_k",
  "attention.v": "attn_v",
  "attention.o": "attn_output",
  "attention.qNorm": "attn_q_norm",
  "attention.kNorm": "attn_k_norm",
  "attention.sinks": "attn_sinks",
  "feedForward.router": "ffn_gate_inp",
  "feedForward.gate": "ffn_gate",
  "feedForward.up": "ffn_up",
  "feedForward.down": "ffn_down",
};

//| 05-inference/a-files-of-gguf.ipynb#factors
/** The divisors that a rescaling amounts to, if it is of the kind that is written as a list; false for one that has no such list. */
export function ownFactors(scaling: RopeConfig["scaling"]): number[] | false | undefined {
  if (scaling?.type !== "longrope") return undefined;
  const { shortFactors, longFactors, attentionFactor } = scaling;
  const isOne = attentionFactor === 1 && shortFactors.every((factor, i) => factor === longFactors[i]);
  return isOne && shortFactors;
}

/** The divisor of each pair's speed that goes into `rope_freqs.weight`, where the rescaling is written so. */
export function ropeDivisors({ rope, headDim }: ModelConfig): Float32Array | undefined {
  const { theta, scaling } = rope ?? {};
  if (scaling?.type === "llama3")
    return Float32Array.from(
      ropeFrequencies(theta!, headDim),
      (speed) => speed / llama3Frequency(speed, scaling),
    );
  const factors = ownFactors(scaling);
  return factors ? Float32Array.from(factors) : undefined;
}

//| 05-inference/a-files-of-gguf.ipynb#architecture-type
/** What a configuration may ask for and an architecture cannot do, and how a sentence names it. */
export type Refusal = [what: string, asksFor: (config: ModelConfig) => boolean];

/** How the models of a family stand in a file of GGUF (llama.cpp, `src/models` and `conversion`). */
export interface GgufArchitecture {
  /** `general.architecture`. */
  name: string;
  /** Whether every layer has experts; else none has. */
  isSparse?: boolean;
  turnsRows?: boolean;
  fusesAttention?: boolean;
  localEvery?: number;
  /** Whether YaRN's ramp begins and ends between pairs, not at whole ones. */
  isRampExact?: boolean;
  names?: Record<string, string>;
  refuses: Refusal[];
  /** What the architecture fixes, as keys of a config.json. */
  json?: Record<string, unknown>;
}

/** Layers of which only every so many-th sees everything. */
export const alternates = ({ layers, localLayers }: ModelConfig, every: number) =>
  Array.from({ length: layers }, (_, i) => (localLayers?.[i] ?? false) === ((i + 1) % every !== 0)).every(
    Boolean,
  );

export const asksForWindow: Refusal = [
  "a window (sliding_window)",
  ({ localLayers }) => localLayers?.includes(true) ?? false,
];
export const asksForBias: Refusal = [
  "biases in attention (attention_bias)",
  ({ attentionBias }) => attentionBias,
];
export const asksForPartial: Refusal = [
  "heads that turn in part",
  ({ rope }) => rope?.dimensions !== undefined,
];
export const asksForScaling: Refusal = [
  "positions that are rescaled for each text",
  ({ rope }) => rope?.scaling?.type === "dynamic" || ownFactors(rope?.scaling) === false,
];
export const asksForRawShares: Refusal = [
  "shares of experts that are not made to add up to 1 (norm_topk_prob)",
  ({ moe }) => !moe!.normalizeTopK,
];
export const asksForDenseLayers: Refusal = [
  "layers without experts",
  ({ moe }) => moe!.sparseLayers.includes(false),
];

//| 05-inference/a-files-of-gguf.ipynb#gemma-scalar
/** What llama.cpp divides the scores of Gemma 3 by the root of: it knows the largest by its number of layers. */
export function gemmaScalar({
  layers,
  hiddenSize,
  heads,
  headDim,
}: Pick<ModelConfig, "layers" | "hiddenSize" | "heads" | "headDim">): number {
  return layers === 62 ? hiddenSize / heads : headDim;
}

//| 05-inference/a-files-of-gguf.ipynb#architectures
/** The architectures by the families whose models they run. Reading a file, the first that fits is taken. */
export const ggufArchitectures: Record<string, GgufArchitecture> = {
  llama: { name: "llama", turnsRows: true, refuses: [asksForWindow] },
  mistral: { name: "llama", turnsRows: true, refuses: [asksForWindow] },
  mixtral: { name: "llama", isSparse: true, turnsRows: true, refuses: [asksForWindow, asksForRawShares] },
  qwen2: { name: "qwen2", refuses: [asksForWindow] },
  qwen3: { name: "qwen3", refuses: [asksForWindow, asksForBias] },
  qwen3_moe: {
    name: "qwen3moe",
    isSparse: true,
    refuses: [asksForWindow, asksForBias, asksForRawShares, asksForDenseLayers],
    json: { norm_topk_prob: true },
  },
  olmoe: {
    name: "olmoe",
    isSparse: true,
    refuses: [
      asksForBias,
      ["shares of experts that add up to 1 (norm_topk_prob)", ({ moe }) => moe!.normalizeTopK],
    ],
    json: { norm_topk_prob: false },
  },
  gpt2: { name: "gpt2", fusesAttention: true, refuses: [] },
  gemma3_text: {
    name: "gemma3",
    localEvery: 6,
    refuses: [
      asksForBias,
      [
        "query_pre_attn_scalar other than the architecture's",
        (config) => config.queryScalar !== gemmaScalar(config),
      ],
    ],
  },
  gpt_oss: {
    name: "gpt-oss",
    isSparse: true,
    localEvery: 2,
    isRampExact: true,
    names: { "norms.beforeFeedForward": "post_attention_norm" },
    refuses: [],
  },
};

//| 05-inference/a-files-of-gguf.ipynb#architecture-of
/** Whether a rescaling is a YaRN of other settings than llama.cpp has. */
export function isOwnYarn(
  scaling: RopeConfig["scaling"],
  { isRampExact = false }: GgufArchitecture,
): boolean {
  if (scaling?.type !== "yarn") return false;
  const { betaFast, betaSlow, truncate, mscale, mscaleAllDim } = scaling;
  const magnitude = rotaryMagnitude({ theta: 1, scaling });
  const isUsual = Math.abs(magnitude - yarnMagnitude(scaling.factor)) < 1e-6;
  return (
    betaFast !== 32 ||
    betaSlow !== 1 ||
    truncate === isRampExact ||
    !isUsual ||
    (mscale ?? mscaleAllDim) !== undefined
  );
}

//| 05-inference/a-files-of-gguf.ipynb#architecture-of-2
/** The architecture of a configuration. Throws one sentence for a family, or a setting of it, that no architecture runs. */
export function architectureOf(config: ModelConfig): GgufArchitecture {
  const { modelType } = config;
  const families = Object.keys(ggufArchitectures).join(", ");
  if (!Object.hasOwn(ggufArchitectures, modelType))
    throw new Error(`Models of the family ${modelType} are not written as GGUF; these are: ${families}.`);
  const architecture = ggufArchitectures[modelType];
  const every = architecture.localEvery;
  const refuses: Refusal[] = [
    ...architecture.refuses,
    asksForPartial,
    asksForScaling,
    [
      "positions rescaled by YaRN with settings of its own",
      ({ rope }) => isOwnYarn(rope?.scaling, architecture),
    ],
    [
      "other local layers",
      (pattern) => every !== undefined && pattern.window !== undefined && !alternates(pattern, every),
    ],
    ["layers in which nothing turns", ({ rotatingLayers }) => rotatingLayers?.includes(false) ?? false],
  ];
  const refusal = refuses.find(([, asksFor]) => asksFor(config));
  if (!refusal) return architecture;
  throw new Error(
    `The model has ${refusal[0]}, which the architecture ${architecture.name} of GGUF does not have.`,
  );
}

//| 05-inference/a-files-of-gguf.ipynb#turning
/** Where each row of queries or keys goes when halves become neighbours, for heads of `headDim` rows. */
export function neighbourRow(row: number, headDim: number): number {
  const inHead = row % headDim;
  const half = headDim / 2;
  return row - inHead + (inHead < half ? 2 * inHead : 2 * (inHead - half) + 1);
}

/** Rows of `columns` numbers from halves to neighbours, or (`back`) from neighbours to halves. */
export function turnRows(values: Float32Array, columns: number, headDim: number, back = false): Float32Array {
  const turned = new Float32Array(values.length);
  for (let row = 0; row < values.length / columns; row++) {
    const [from, to] = back ? [neighbourRow(row, headDim), row] : [row, neighbourRow(row, headDim)];
    turned.set(values.subarray(from * columns, (from + 1) * columns), to * columns);
  }
  return turned;
}

//| 05-inference/a-files-of-gguf.ipynb#tensors-of
/** A tensor of a file, and the weights whose rows it holds, one below the other. */
export interface GgufPlace {
  name: string;
  shape: number[];
  weights: ModelWeight[];
}

/** The name of a weight in a file. */
export function ggufName({ path, shape }: ModelWeight, { names, fusesAttention }: GgufArchitecture): string {
  if (Object.hasOwn(outerNames, path)) return outerNames[path];
  const [, layer, half, part, kind = "weight"] = path.split(".");
  const place = `${half}.${part}`;
  const isFused = fusesAttention && ["attention.q", "attention.k", "attention.v"].includes(place);
  const name = isFused ? "attn_qkv" : (names?.[place] ?? blockNames[place]);
  if (name === undefined) throw new Error(`The weight at ${path} has no name in GGUF.`);
  const isStacked = half === "feedForward" && part !== "router" && shape.length === (kind === "bias" ? 2 : 3);
  return `blk.${layer}.${name}${isStacked ? "_exps" : ""}.${kind}`;
}

/** The tensors of a model's file, in the order of its weights. */
export function ggufPlaces(config: ModelConfig): GgufPlace[] {
  const architecture = architectureOf(config);
  const places = new Map<string, GgufPlace>();
  for (const weight of weightsOf(config)) {
    const name = ggufName(weight, architecture);
    const place = places.get(name);
    if (!place) places.set(name, { name, shape: [...weight.shape], weights: [weight] });
    else {
      place.shape[0] += weight.shape[0];
      place.weights.push(weight);
    }
  }
  return [...places.values()];
}

//| 05-inference/a-files-of-gguf.ipynb#stored-values
/** The numbers of a weight as a file holds them (`back`: from there to the structure), changed where the architecture has it otherwise. */
export function inGguf(
  values: Float32Array,
  weight: ModelWeight,
  config: ModelConfig,
  back = false,
): Float32Array {
  const { path, role, shape } = weight;
  const [, , half, part] = path.split(".");
  const isTurned = half === "attention" && (part === "q" || part === "k");
  if (isTurned && ggufArchitectures[config.modelType].turnsRows)
    return turnRows(values, sizeOf(shape) / shape[0], config.headDim, back);
  const isShifted = role === "norm" && modelFamilies[config.modelType].norm === "rms1p";
  return isShifted ? values.map((value) => value + (back ? -1 : 1)) : values;
}

//| 05-inference/a-files-of-gguf.ipynb#write-keys
export const u32 = (value: number): GgufValue => ({ type: "u32", value });
export const f32 = (value: number): GgufValue => ({ type: "f32", value });
export const text = (value: string): GgufValue => ({ type: "string", value });

/** The keys about positions, without the architecture. */
export function ropeKeys({ rope, localRope, headDim }: ModelConfig): Record<string, GgufValue> {
  if (!rope) return {};
  const { theta, scaling } = rope;
  const keys: Record<string, GgufValue> = {
    "attention.key_length": u32(headDim),
    "attention.value_length": u32(headDim),
    "rope.dimension_count": u32(headDim),
    "rope.freq_base": f32(theta),
  };
  if (localRope) keys["rope.freq_base_swa"] = f32(localRope.theta);
  if (scaling?.type !== "linear" && scaling?.type !== "yarn") return keys;
  keys["rope.scaling.type"] = text(scaling.type);
  keys["rope.scaling.factor"] = f32(scaling.factor);
  if (scaling.type === "yarn")
    keys["rope.scaling.original_context_length"] = u32(scaling.originalContextLength);
  return keys;
}

//| 05-inference/a-files-of-gguf.ipynb#write-keys-2
/** The keys of a configuration, without the architecture. */
export function modelKeys(config: ModelConfig): Record<string, GgufValue> {
  const { moe } = config;
  const epsilon =
    modelFamilies[config.modelType].norm === "layer" ? "layer_norm_epsilon" : "layer_norm_rms_epsilon";
  return {
    context_length: u32(config.contextLength),
    embedding_length: u32(config.hiddenSize),
    block_count: u32(config.layers),
    feed_forward_length: u32(config.intermediateSize),
    vocab_size: u32(config.vocabSize),
    "attention.head_count": u32(config.heads),
    "attention.head_count_kv": u32(config.kvHeads),
    [`attention.${epsilon}`]: f32(config.normEps),
    ...ropeKeys(config),
    ...(config.window === undefined ? {} : { "attention.sliding_window": u32(config.window) }),
    ...(config.logitSoftcap === undefined ? {} : { final_logit_softcapping: f32(config.logitSoftcap) }),
    ...(moe && {
      expert_count: u32(moe.experts),
      expert_used_count: u32(moe.expertsPerToken),
      expert_feed_forward_length: u32(moe.intermediateSize),
    }),
  };
}

//| 05-inference/a-files-of-gguf.ipynb#dtypes
/** The types of matrices that are written, as the command line spells them, and their number in `general.file_type`. */
export const fileTypes: Record<keyof typeof writableTypes, number> = {
  f32: 0,
  f16: 1,
  q8_0: 7,
  q4_0: 2,
  mxfp4: 38,
};

/** The type that a tensor of the file gets where `dtype` is asked for. */
export function tensorTypeOf(
  dtype: keyof typeof writableTypes,
  { weights, shape }: GgufPlace,
  { moe }: ModelConfig,
): string {
  const { role, path } = weights[0];
  if (["norm", "bias", "router"].includes(role) || shape.length < 2 || path === "positions") return "F32";
  const isSpared =
    (role === "table" && (dtype === "q4_0" || dtype === "mxfp4")) ||
    (dtype === "mxfp4" && moe !== undefined && shape.length < 3);
  const type = isSpared ? "Q8_0" : writableTypes[dtype];
  return shape[shape.length - 1] % ggufTypes[type].numbers === 0 ? type : "F16";
}

//| 05-inference/a-files-of-gguf.ipynb#exported-tensors
/** The tensors of a model's file. */
export function exportedTensors(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
  dtype: keyof typeof writableTypes,
): GgufSource[] {
  const divisors = ropeDivisors(config);
  const pairs = divisors && { name: "rope_freqs.weight", type: "F32", shape: [divisors.length] };
  const places = ggufPlaces(config).map((place): GgufSource => {
    const type = tensorTypeOf(dtype, place, config);
    const data = () => {
      const parts = place.weights.map((weight) => inGguf(valuesOf(weight), weight, config));
      try {
        return joinedBytes(parts.map((part) => ggufBytes(type, part)));
      } catch (error) {
        throw new Error(`${place.name}: ${(error as Error).message}`);
      }
    };
    return { name: place.name, type, shape: place.shape, data };
  });
  return [...(divisors ? [{ ...pairs!, data: () => ggufBytes("F32", divisors) }] : []), ...places];
}

//| 05-inference/a-files-of-gguf.ipynb#export
/** What is written of a model beside its weights. */
export interface GgufExport {
  dtype: keyof typeof writableTypes;
  name?: string;
  /** Keys of the tokenizer, as `ggufTokenizerKeys` makes them; without them the file has none. */
  tokenizer?: Map<string, GgufValue>;
}

/** A model's file piece by piece; `valuesOf` gives the numbers of a weight of the structure. Throws where GGUF has no place for it. */
export function ggufModelPieces(
  config: ModelConfig,
  valuesOf: (weight: ModelWeight) => Float32Array,
  { dtype, name, tokenizer }: GgufExport,
): Generator<Uint8Array> {
  const architecture = architectureOf(config).name;
  const own = Object.entries(modelKeys(config)).map(([key, value]): [string, GgufValue] => [
    `${architecture}.${key}`,
    value,
  ]);
  const keys = new Map([
    ["general.architecture", text(architecture)],
    ...(name === undefined ? [] : [["general.name", text(name)] as const]),
    ["general.file_type", u32(fileTypes[dtype])],
    ["general.quantization_version", u32(2)],
    ...own,
    ...(tokenizer ?? [["tokenizer.ggml.model", text("no_vocab")] as const]),
  ]);
  return ggufPieces(keys, exportedTensors(config, valuesOf, dtype));
}

//| 05-inference/a-files-of-gguf.ipynb#read-keys
/** The shortest decimal that is the same f32. */
export function shortDecimal(value: number): number {
  for (let digits = 6; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

/** Keys of an architecture that say nothing about what is computed, or what the tensors say as well. */
export const idleKeys = [
  "vocab_size",
  "rope.scaling.finetuned",
  "attention.causal",
  "rope.scaling.yarn_beta_fast",
  "rope.scaling.yarn_beta_slow",
];

/** Reads the keys of an architecture, and knows which were asked for. */
export function keyReader(keys: Map<string, GgufValue>, architecture: string) {
  const asked = new Set<string>(idleKeys);
  const read = (key: string) => {
    asked.add(key);
    return keys.get(`${architecture}.${key}`)?.value;
  };
  return {
    number(key: string): number | undefined {
      const value = read(key);
      if (value === undefined) return undefined;
      if (typeof value === "number") return shortDecimal(value);
      throw new Error(
        `${architecture}.${key} must be one number, not ${shown(typeof value === "bigint" ? String(value) : value)}.`,
      );
    },
    text: (key: string) => read(key) as string | undefined,
    /** A key that nobody asked for. */
    stray: () =>
      [...keys.keys()].find(
        (key) => key.startsWith(`${architecture}.`) && !asked.has(key.slice(architecture.length + 1)),
      ),
  };
}

//| 05-inference/a-files-of-gguf.ipynb#read-config
/** What the keys of a file and its tensors say of rescaled positions, as `rope_scaling` has it. */
export function ropeScalingOf(
  reader: ReturnType<typeof keyReader>,
  { isRampExact = false }: GgufArchitecture,
  divisors?: Float32Array,
): Record<string, unknown> | undefined {
  const type = reader.text("rope.scaling.type") ?? "none";
  const factor = reader.number("rope.scaling.factor") ?? reader.number("rope.scale_linear");
  const original = reader.number("rope.scaling.original_context_length");
  const magnitude = reader.number("rope.scaling.attn_factor") ?? 1;
  if (magnitude !== 1) throw new Error(`rope.scaling.attn_factor is ${magnitude}, which is not run.`);
  if (divisors) {
    const list = [...divisors];
    return { rope_type: "longrope", factor: 1, attention_factor: 1, short_factor: list, long_factor: list };
  }
  if (type === "none")
    return factor === undefined || factor === 1 ? undefined : { rope_type: "linear", factor };
  if (type === "linear") return { rope_type: type, factor };
  if (type === "yarn")
    return withoutUndefined({
      rope_type: type,
      factor,
      original_max_position_embeddings: original,
      truncate: !isRampExact,
    });
  throw new Error(`rope.scaling.type is ${shown(type)}; none, linear and yarn are run.`);
}

/** The family whose models a file of an architecture holds. Throws, naming it, for an architecture that is not read. */
export function familyOfGguf(keys: Map<string, GgufValue>): string {
  const name = keys.get("general.architecture")?.value;
  const isSparse = Number(keys.get(`${name}.expert_count`)?.value ?? 0) > 0;
  const readable = Object.entries(ggufArchitectures).filter(([family]) =>
    Object.hasOwn(modelFamilies, family),
  );
  const found = readable.find(
    ([, architecture]) => architecture.name === name && (architecture.isSparse ?? false) === isSparse,
  );
  if (found) return found[0];
  const names = [...new Set(readable.map(([, architecture]) => architecture.name))].join(", ");
  throw new Error(
    `The architecture ${shown(name)}${isSparse ? " with experts" : ""} is not read; these are: ${names}.`,
  );
}

//| 05-inference/a-files-of-gguf.ipynb#config-of-gguf
/** The keys of sizes and settings, as most families spell them. */
export function commonJson(
  { keys, tensors }: GgufHead,
  reader: ReturnType<typeof keyReader>,
): Record<string, unknown> {
  const id = (name: string) => keys.get(`tokenizer.ggml.${name}_token_id`)?.value;
  const ends = ["eos", "eot", "eom"].map(id).filter((end) => end !== undefined);
  const heads = reader.number("attention.head_count");
  const hidden = reader.number("embedding_length");
  const experts = reader.number("expert_count") || undefined;
  return {
    hidden_size: hidden,
    num_hidden_layers: reader.number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: reader.number("attention.head_count_kv") ?? heads,
    head_dim: reader.number("attention.key_length") ?? Number(hidden) / Number(heads),
    intermediate_size: reader.number("feed_forward_length") ?? reader.number("expert_feed_forward_length"),
    max_position_embeddings: reader.number("context_length"),
    vocab_size: tensors.get("token_embd.weight")?.shape[0],
    rms_norm_eps:
      reader.number("attention.layer_norm_rms_epsilon") ?? reader.number("attention.layer_norm_epsilon"),
    rope_theta: reader.number("rope.freq_base"),
    rope_local_base_freq: reader.number("rope.freq_base_swa"),
    sliding_window: reader.number("attention.sliding_window") || null,
    final_logit_softcapping: reader.number("final_logit_softcapping"),
    num_experts: experts,
    num_experts_per_tok: reader.number("expert_used_count") || undefined,
    moe_intermediate_size: reader.number("expert_feed_forward_length"),
    attention_bias: tensors.has("blk.0.attn_q.bias"),
    mlp_bias: tensors.has("blk.0.ffn_up.bias"),
    tie_word_embeddings: !tensors.has("output.weight"),
    bos_token_id: id("bos") ?? null,
    eos_token_id: ends.length > 1 ? [...new Set(ends)] : (ends[0] ?? null),
  };
}

//| 05-inference/a-files-of-gguf.ipynb#config-of-gguf-2
/** Throws for heads that turn in part, or whose values are of another width: no family here has them. */
export function checkHeads(reader: ReturnType<typeof keyReader>, headDim: unknown): void {
  for (const key of ["attention.value_length", "rope.dimension_count"]) {
    const width = reader.number(key) ?? headDim;
    if (width !== headDim)
      throw new Error(`${key} is ${width}, but only the heads' width, ${headDim}, is run.`);
  }
}

/** The config.json of the model in a file. `divisors` are those of `rope_freqs.weight`. Throws, naming a key that we do not run. */
export function ggufConfigJson(head: GgufHead, divisors?: Float32Array): Record<string, unknown> {
  const modelType = familyOfGguf(head.keys);
  const architecture = ggufArchitectures[modelType];
  const family = modelFamilies[modelType];
  const spelling = family.spelling ?? {};
  const reader = keyReader(head.keys, architecture.name);
  const common = commonJson(head, reader);
  checkHeads(reader, common.head_dim);
  const keys: Record<string, unknown> = {
    ...common,
    rope_scaling: ropeScalingOf(reader, architecture, divisors),
    sliding_window_pattern: architecture.localEvery,
    query_pre_attn_scalar: gemmaScalar({
      layers: Number(common.num_hidden_layers),
      hiddenSize: Number(common.hidden_size),
      heads: Number(common.num_attention_heads),
      headDim: Number(common.head_dim),
    }),
    ...architecture.json,
  };
  const stray = reader.stray();
  if (stray) throw new Error(`The file has the key ${stray}, which is not run.`);
  const keysOfFamily = new Set([...sharedConfigKeys, ...family.parts.flatMap((part) => part.keys)]);
  const own = Object.entries(withoutUndefined(keys)).filter(
    ([key]) => keysOfFamily.has(key) && !family.lacks?.includes(key),
  );
  return {
    model_type: modelType,
    ...Object.fromEntries(own.map(([key, value]) => [spelling[key] ?? key, value])),
  };
}

//| 05-inference/a-files-of-gguf.ipynb#remembered
/** A function that remembers its last result. */
export function rememberingLast<Key, Result>(make: (key: Key) => Result): (key: Key) => Result {
  let last: { key: Key; result: Result } | undefined;
  return (key) => {
    if (last?.key !== key) last = { key, result: make(key) };
    return last.result;
  };
}

/** The numbers of a named tensor of a file. Errors name it. */
export function numbersOfGguf({ tensors }: GgufHead, read: ReadBytes, name: string): Float32Array {
  const { type, begin, end } = tensors.get(name)!;
  try {
    return ggufNumbers(type, read(begin, end));
  } catch (error) {
    throw new Error(`The weight ${name}: ${(error as Error).message}`);
  }
}

/** Throws one sentence unless the file has exactly the tensors that its keys call for, in their shapes, of types that are read. */
export function checkGgufTensors({ tensors }: GgufHead, places: GgufPlace[]): void {
  const missing = places.filter(({ name }) => !tensors.has(name)).map(({ name }) => name);
  if (missing.length > 0) throw new Error(`The weights are incomplete: ${someOf(missing)} missing.`);
  const names = new Set(["rope_freqs.weight", ...places.map(({ name }) => name)]);
  const extra = [...tensors.keys()].filter((name) => !names.has(name));
  if (extra.length > 0) throw new Error(`The architecture has no place for the weights ${someOf(extra)}.`);
  for (const { name, shape } of places) {
    const { type } = tensors.get(name)!;
    const given = tensors.get(name)!.shape;
    if (given.join() !== shape.join())
      throw new Error(
        `The weight ${name} is [${given.join(", ")}], but its keys want [${shape.join(", ")}].`,
      );
    if (!readableTypes.includes(type))
      throw new Error(
        `The weight ${name} is of type ${type}, which is not read; these are: ${readableTypes.join(", ")}.`,
      );
  }
}

//| 05-inference/a-files-of-gguf.ipynb#open-gguf
/** The numbers of the structure's weights in a file, each from its rows of the tensor that holds it. */
export function structureValues(
  config: ModelConfig,
  places: GgufPlace[],
  numbers: (name: string) => Float32Array,
) {
  const found = new Map<string, { name: string; first: number }>();
  for (const { name, weights } of places) {
    let first = 0;
    for (const { path, shape } of weights) {
      found.set(path, { name, first });
      first += sizeOf(shape);
    }
  }
  return rememberingLast((weight: ModelWeight) => {
    const { name, first } = found.get(weight.path)!;
    const values = numbers(name).subarray(first, first + sizeOf(weight.shape));
    return inGguf(values, weight, config, true);
  });
}

//| 05-inference/a-files-of-gguf.ipynb#open-gguf-2
/** A model in a GGUF file: what its config.json would be, and its weights as its family's files have them. */
export interface GgufModel {
  json: Record<string, unknown>;
  tensors: Map<string, StoredTensor>;
}

/** Opens the model of a file. Each weight is read and unpacked when it is asked for. Throws one sentence for what is not run. */
export function openGgufModel(head: GgufHead, read: ReadBytes): GgufModel {
  const numbers = rememberingLast((name: string) => numbersOfGguf(head, read, name));
  const divisors = head.tensors.has("rope_freqs.weight") ? numbers("rope_freqs.weight") : undefined;
  const json = ggufConfigJson(head, divisors);
  const config = parseModelConfig(json);
  const places = ggufPlaces(config);
  checkGgufTensors(head, places);
  const files = fileTensors(weightsOf(config));
  const valuesOf = structureValues(config, places, numbers);
  const bytesOf = rememberingLast((name: string) =>
    ggufBytes("F32", fileNumbers(files.get(name)!, valuesOf)),
  );
  const stored = (name: string, { shape }: FileTensor): StoredTensor => ({
    dtype: "F32",
    shape,
    read: (from = 0, to = 4 * sizeOf(shape)) => bytesOf(name).subarray(from, to),
  });
  return { json, tensors: new Map([...files].map(([name, tensor]) => [name, stored(name, tensor)])) };
}
