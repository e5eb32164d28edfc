// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import {
  type ConfigPart,
  type LatentConfig,
  type ModelConfig,
  type ModelSizes,
  type MoeConfig,
  checkRunnable,
  ignoredKey,
  largestSize,
  sizeSchema,
} from "./config.js";
import { isRecord, readKeys, shown, withoutNulls, withoutUndefined } from "./keys.js";
import type { RopeConfig } from "./rope.js";

//| 03-moe/a-files-of-weights.ipynb#part-numbers
/** The schema of a number above 0. */
export function positiveNumber() {
  const positive = { error: "a number above 0" };
  return z.number(positive).positive(positive).max(1e30, { error: "at most 1e30" });
}

/** Reads numbers above 0 under `names`, and under `optional` where they are given; `where` comes before their names. */
export function readNumbers(
  json: Record<string, unknown>,
  names: string[],
  optional: string[] = [],
  where = "",
): Record<string, number> {
  const needed = names.map((name) => [name, positiveNumber()] as const);
  const others = optional.map((name) => [name, positiveNumber().optional()] as const);
  return readKeys(z.object(Object.fromEntries<z.ZodType>([...needed, ...others])), json, where) as Record<
    string,
    number
  >;
}

/** Whether a key says true. Throws for what is neither true nor false; `usual` is what it means where it is left out. */
export function readFlag(json: Record<string, unknown>, key: string, usual = false, where = ""): boolean {
  return readKeys(z.object({ [key]: z.boolean({ error: "true or false" }).default(usual) }), json, where)[
    key
  ] as boolean;
}

//| 03-moe/a-files-of-weights.ipynb#rope-forms
/** What a rescaling needs to know beside its own keys: where those stand, how many pairs turn, and for how long a text. */
export interface RopePlace {
  where: string;
  pairs: number;
  contextLength: number;
}

/** How a kind of rescaling stands in a file. */
export interface RopeForm {
  keys: string[];
  read(rope: Record<string, unknown>, place: RopePlace): NonNullable<RopeConfig["scaling"]>;
}

/** The original context of a rescaling: the context itself, where it is not given. */
export function readOriginal(rope: Record<string, unknown>, { where, contextLength }: RopePlace): number {
  const key = "original_max_position_embeddings";
  const schema = z.object({ [key]: sizeSchema().default(contextLength) });
  return readKeys(schema, rope, `${where}.`)[key] as number;
}

//| 03-moe/a-files-of-weights.ipynb#llama3-form
export const linearForm: RopeForm = {
  keys: ["factor"],
  read: (rope, { where }) => ({
    type: "linear",
    factor: readNumbers(rope, ["factor"], [], `${where}.`).factor,
  }),
};

/** Its original context is what the file calls the context, since it is for texts beyond that. */
export const dynamicForm: RopeForm = {
  keys: ["factor"],
  read: (rope, { where, contextLength }) => {
    const { factor } = readNumbers(rope, ["factor"], [], `${where}.`);
    if (factor < 1) throw new Error(`${where}.factor must be at least 1, not ${factor}.`);
    return { type: "dynamic", factor, originalContextLength: contextLength };
  },
};

export const llama3Form: RopeForm = {
  keys: ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
  read: (rope, place) => {
    const names = ["factor", "low_freq_factor", "high_freq_factor"];
    const {
      factor,
      low_freq_factor: low,
      high_freq_factor: high,
    } = readNumbers(rope, names, [], `${place.where}.`);
    if (high <= low)
      throw new Error(`${place.where}.high_freq_factor must be above low_freq_factor, which is ${low}.`);
    const originalContextLength = readOriginal(rope, place);
    return {
      type: "llama3",
      factor,
      lowFrequencyFactor: low,
      highFrequencyFactor: high,
      originalContextLength,
    };
  },
};

//| 03-moe/a-files-of-weights.ipynb#yarn-form
export const yarnForm: RopeForm = {
  keys: `factor beta_fast beta_slow attention_factor mscale mscale_all_dim truncate
    original_max_position_embeddings`.split(/\s+/),
  read: (rope, place) => {
    const [where, original] = [`${place.where}.`, readOriginal(rope, place)];
    const optional = ["factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"];
    const keys = readNumbers(rope, [], optional, where);
    return withoutUndefined({
      type: "yarn",
      factor: keys.factor ?? place.contextLength / original,
      originalContextLength: original,
      betaFast: keys.beta_fast ?? 32,
      betaSlow: keys.beta_slow ?? 1,
      truncate: readFlag(rope, "truncate", true, where),
      attentionFactor: keys.attention_factor,
      mscale: keys.mscale,
      mscaleAllDim: keys.mscale_all_dim,
    } as const);
  },
};

//| 03-moe/a-files-of-weights.ipynb#longrope-form
/** Reads a list of numbers above 0, one for each pair that turns. */
export function readFactors(
  rope: Record<string, unknown>,
  key: string,
  { where, pairs }: RopePlace,
): number[] {
  const list = { error: `a list of ${pairs} numbers above 0, one for each pair that turns` };
  const number = z.number(list).positive(list).max(1e30, list);
  return readKeys(z.object({ [key]: z.array(number, list).length(pairs, list) }), rope, `${where}.`)[
    key
  ] as number[];
}

export const longRopeForm: RopeForm = {
  keys: ["factor", "attention_factor", "short_factor", "long_factor", "original_max_position_embeddings"],
  read: (rope, place) => {
    const original = readOriginal(rope, place);
    const keys = readNumbers(rope, [], ["factor", "attention_factor"], `${place.where}.`);
    return withoutUndefined({
      type: "longrope",
      factor: keys.factor ?? place.contextLength / original,
      originalContextLength: original,
      shortFactors: readFactors(rope, "short_factor", place),
      longFactors: readFactors(rope, "long_factor", place),
      attentionFactor: keys.attention_factor,
    } as const);
  },
};

/** All kinds of rescaling, by the names that files have for them. */
export const ropeForms: Record<string, RopeForm> = {
  default: { keys: [], read: () => undefined as never },
  linear: linearForm,
  dynamic: dynamicForm,
  llama3: llama3Form,
  yarn: yarnForm,
  longrope: longRopeForm,
  su: longRopeForm, // as the first of its models called it
};

//| 03-moe/a-files-of-weights.ipynb#read-rope
/** How many elements of a head turn: all, or the part that a configuration says. */
export function turningElements(rope: Record<string, unknown>, where: string, headDim: number): number {
  const share = { error: "a number above 0 and up to 1" };
  const schema = z.object({
    partial_rotary_factor: z.number(share).positive(share).max(1, share).default(1),
  });
  const { partial_rotary_factor: part } = readKeys(schema, rope, where);
  const turning = Math.floor(headDim * part);
  if (turning >= 2 && turning % 2 === 0) return turning;
  if (part === 1) throw new Error(`head_dim is ${headDim}, but rotary positions need an even number.`);
  throw new Error(
    `partial_rotary_factor is ${part}, which lets ${turning} of ${headDim} elements turn: it must be an even number of them.`,
  );
}

/** Reads an object that says how positions turn; `where` is the key that it stands under. */
export function readRope(
  rope: Record<string, unknown>,
  where: string,
  { headDim, contextLength }: Pick<ModelSizes, "headDim" | "contextLength">,
): RopeConfig {
  const { rope_theta: theta } = readNumbers({ rope_theta: 10000, ...rope }, ["rope_theta"], [], `${where}.`);
  const turning = turningElements(rope, `${where}.`, headDim);
  const type = rope.rope_type ?? rope.type ?? "default";
  if (typeof type !== "string" || !Object.hasOwn(ropeForms, type)) {
    const types = Object.keys(ropeForms).join(", ");
    throw new Error(`${where} has the rope_type ${shown(type)}; the types run so far are ${types}.`);
  }
  const place = { where, pairs: turning / 2, contextLength };
  const scaling = type === "default" ? undefined : ropeForms[type].read(rope, place);
  const dimensions = turning === headDim ? undefined : turning;
  return withoutUndefined({ theta, dimensions, scaling });
}

//| 03-moe/a-files-of-weights.ipynb#rope-source
/** The object that says how positions turn, and its key: `rope_scaling`, unless it is empty, else `rope_parameters`. */
export function ropeObject(json: Record<string, unknown>): { where: string; rope: Record<string, unknown> } {
  const isEmpty = (value: unknown) =>
    value === undefined || value === null || (isRecord(value) && Object.keys(value).length === 0);
  const where = isEmpty(json.rope_scaling) ? "rope_parameters" : "rope_scaling";
  const given = json[where] ?? {};
  if (!isRecord(given)) throw new Error(`${where} must be an object, not ${shown(given)}.`);
  return { where, rope: withoutNulls(given) };
}

/**
 * Reads the rotary positions in both spellings: `rope_parameters`, and the older `rope_theta` beside `rope_scaling`
 * (whose type is called `rope_type` or, older still, `type`). `rope_scaling` wins, as in transformers; and what stands outside
 * counts where the object does not have it, except for the original context, where the outside wins.
 */
export function parseRopeConfig(
  json: Record<string, unknown>,
  sizes: Pick<ModelSizes, "headDim" | "contextLength">,
): RopeConfig {
  const { where, rope } = ropeObject(json);
  const nested = Object.keys(rope).find((key) => isRecord(rope[key]));
  if (nested)
    throw new Error(
      `${where}.${nested} is an object, but positions do not differ by layer type in this family.`,
    );
  if (rope.rope_theta === undefined && json.rope_theta !== undefined) readNumbers(json, ["rope_theta"]);
  const outside = (key: string) => (json[key] === undefined ? {} : { [key]: json[key] });
  const original = outside("original_max_position_embeddings");
  return readRope(
    { ...outside("rope_theta"), ...outside("partial_rotary_factor"), ...rope, ...original },
    where,
    sizes,
  );
}

//| 03-moe/a-files-of-weights.ipynb#rope-conflicts
/** A sentence for each key of positions that is ignored. */
export function ropeConflicts(json: Record<string, unknown>): string[] {
  const { where, rope } = ropeObject(json);
  const type = String(rope.rope_type ?? rope.type ?? "default");
  const used = ["rope_theta", "rope_type", "type", "partial_rotary_factor", ...(ropeForms[type]?.keys ?? [])];
  const unused = Object.keys(rope).filter((key) => !used.includes(key));
  return [
    ...(where === "rope_scaling" ? ignoredKey(json, "rope_parameters", "rope_scaling", rope) : []),
    ...ignoredKey(json, "rope_theta", `${where}.rope_theta`, rope.rope_theta),
    ...ignoredKey(rope, "type", `${where}.rope_type`, rope.rope_type),
    ...unused.map((key) => `${where}.${key} is ignored: positions of the type ${type} have no such setting.`),
  ];
}

//| 03-moe/a-files-of-weights.ipynb#rope-json
/** A rescaling as a file has it. */
export function ropeScalingToJson(scaling: NonNullable<RopeConfig["scaling"]>): Record<string, unknown> {
  const json: Record<string, unknown> = { rope_type: scaling.type, factor: scaling.factor };
  if (scaling.type === "linear" || scaling.type === "dynamic") return json;
  json.original_max_position_embeddings = scaling.originalContextLength;
  if (scaling.type === "llama3")
    return {
      ...json,
      low_freq_factor: scaling.lowFrequencyFactor,
      high_freq_factor: scaling.highFrequencyFactor,
    };
  json.attention_factor = scaling.attentionFactor;
  if (scaling.type === "longrope")
    return withoutUndefined({
      ...json,
      short_factor: scaling.shortFactors,
      long_factor: scaling.longFactors,
    });
  const {
    betaFast: beta_fast,
    betaSlow: beta_slow,
    truncate,
    mscale,
    mscaleAllDim: mscale_all_dim,
  } = scaling;
  return withoutUndefined({ ...json, beta_fast, beta_slow, truncate, mscale, mscale_all_dim });
}

//| 03-moe/a-files-of-weights.ipynb#rope-json-2
/** The share of a head that turns, such that as many elements are read again. */
export function turningShare(dimensions: number, headDim: number): number {
  const share = dimensions / headDim;
  return Math.floor(headDim * share) === dimensions ? share : (dimensions + 0.5) / headDim;
}

/** The keys about rotary positions, in the older spelling that all readers know. */
export function ropeConfigToJson(
  { theta, dimensions, scaling }: RopeConfig,
  headDim: number,
): Record<string, unknown> {
  return {
    rope_theta: theta,
    rope_scaling: scaling ? ropeScalingToJson(scaling) : null,
    ...(dimensions === undefined ? {} : { partial_rotary_factor: turningShare(dimensions, headDim) }),
  };
}

//| 03-moe/a-files-of-weights.ipynb#rotary-part
/** Rotary positions. Texts may grow beyond the context of the file where they are rescaled dynamically. */
export const partialRotaryPart: ConfigPart = {
  keys: ["rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"],
  read: (json, sizes) => {
    const rope = parseRopeConfig(json, sizes);
    if (rope.scaling?.type !== "dynamic") return { rope };
    const longest = Math.round(sizes.contextLength * rope.scaling.factor);
    return { rope, contextLength: Math.min(longest, largestSize) };
  },
  write: ({ rope, headDim }) => ({
    ...ropeConfigToJson(rope!, headDim),
    ...(rope?.scaling?.type === "dynamic"
      ? { max_position_embeddings: rope.scaling.originalContextLength }
      : {}),
  }),
  conflicts: ropeConflicts,
};

/** The same in families whose heads turn whole. */
export const rotaryPart: ConfigPart = {
  ...partialRotaryPart,
  keys: ["rope_theta", "rope_scaling", "rope_parameters"],
  read: (json, sizes) => {
    checkRunnable(ropeObject(json).rope, { partial_rotary_factor: [1] });
    return partialRotaryPart.read(json, sizes);
  },
};

/** The same in families whose files mean a rescaling where they name none: that there is none is said. */
export const statedRotaryPart: ConfigPart = {
  ...rotaryPart,
  write: (config) => ({
    ...rotaryPart.write(config),
    ...(config.rope!.scaling ? {} : { rope_scaling: { rope_type: "default" } }),
  }),
};

//| 03-moe/a-files-of-weights.ipynb#two-bases-part
/** The objects that say how positions turn in layers of each type, from both spellings. */
export function ropeByLayerType(json: Record<string, unknown>) {
  const both = json.rope_parameters ?? {};
  const scaling = json.rope_scaling ?? {};
  for (const [key, value] of Object.entries({ rope_parameters: both, rope_scaling: scaling }))
    if (!isRecord(value)) throw new Error(`${key} must be an object, not ${shown(value)}.`);
  const types = ["full_attention", "sliding_attention"];
  const [full, local] = types.map((type) => {
    const part = (both as Record<string, unknown>)[type] ?? {};
    if (!isRecord(part)) throw new Error(`rope_parameters.${type} must be an object, not ${shown(part)}.`);
    return withoutNulls(part);
  });
  const stray = Object.keys(both).find((key) => !types.includes(key));
  if (stray)
    throw new Error(`rope_parameters.${stray} stands beside the types of layers; give it for each of them.`);
  return { full: { ...full, ...withoutNulls(scaling as Record<string, unknown>) }, local };
}

//| 03-moe/a-files-of-weights.ipynb#two-bases-part-2
/** Rotary positions with a base for local layers and one for the others. */
export const twoBasesPart: ConfigPart = {
  keys: ["rope_theta", "rope_local_base_freq", "rope_scaling", "rope_parameters"],
  read: (json, sizes) => {
    const { full, local } = ropeByLayerType(json);
    for (const rope of [full, local]) checkRunnable(rope, { partial_rotary_factor: [1] });
    const [theta, localTheta] = [json.rope_theta ?? 1e6, json.rope_local_base_freq ?? 1e4];
    return {
      rope: readRope({ rope_theta: theta, ...full }, "rope_parameters.full_attention", sizes),
      localRope: readRope({ rope_theta: localTheta, ...local }, "rope_parameters.sliding_attention", sizes),
    };
  },
  write: ({ rope, localRope = rope, headDim }) => {
    const [full, local] = [rope!, localRope!].map((config) => ropeConfigToJson(config, headDim));
    if (!localRope?.scaling) return { ...full, rope_local_base_freq: local.rope_theta };
    const nested = ({ rope_theta, rope_scaling }: Record<string, unknown>) => ({
      rope_theta,
      ...((rope_scaling as object | null) ?? { rope_type: "default" }),
    });
    return { rope_parameters: { full_attention: nested(full), sliding_attention: nested(local) } };
  },
  conflicts: (json) => {
    const { full, local } = ropeByLayerType(json);
    return [
      ...ignoredKey(json, "rope_theta", "rope_parameters.full_attention.rope_theta", full.rope_theta),
      ...ignoredKey(
        json,
        "rope_local_base_freq",
        "rope_parameters.sliding_attention.rope_theta",
        local.rope_theta,
      ),
    ];
  },
};

//| 03-moe/a-files-of-weights.ipynb#phi3-rope-part
/** Rotary positions that know two kinds only, and keep the original context outside. */
export const outsideOriginalPart: ConfigPart = {
  ...partialRotaryPart,
  keys: [...partialRotaryPart.keys, "original_max_position_embeddings"],
  read: (json, sizes) => {
    const { rope } = partialRotaryPart.read(json, sizes);
    const type = rope?.scaling?.type ?? "default";
    if (["default", "longrope"].includes(type)) return { rope };
    throw new Error(`rope_type is ${shown(type)}, but only default and longrope are run in this family.`);
  },
  write: (config) => {
    const { scaling } = config.rope!;
    const original = scaling?.type === "longrope" ? scaling.originalContextLength : undefined;
    const keys = { ...partialRotaryPart.write(config), original_max_position_embeddings: original };
    return withoutUndefined(keys);
  },
};

//| 03-moe/a-files-of-weights.ipynb#small-parts
/** Biases of the projections of attention. */
export const attentionBiasPart: ConfigPart = {
  keys: ["attention_bias"],
  read: (json) => ({ attentionBias: readFlag(json, "attention_bias") }),
  write: ({ attentionBias }) => ({ attention_bias: attentionBias }),
};

/** Biases of the projections of dense feed-forward layers. */
export const mlpBiasPart: ConfigPart = {
  keys: ["mlp_bias"],
  read: (json) => ({ mlpBias: readFlag(json, "mlp_bias") }),
  write: ({ mlpBias }) => (mlpBias ? { mlp_bias: true } : {}),
};

//| 03-moe/a-files-of-weights.ipynb#score-parts
/** What scores of attention are divided by the root of. */
export const queryScalarPart: ConfigPart = {
  keys: ["query_pre_attn_scalar"],
  read: (json) => ({ queryScalar: readNumbers(json, ["query_pre_attn_scalar"]).query_pre_attn_scalar }),
  write: ({ queryScalar, headDim }) => ({ query_pre_attn_scalar: queryScalar ?? headDim }),
};

/** The bound of the scores of attention. */
export const attentionSoftcapPart: ConfigPart = {
  keys: ["attn_logit_softcapping"],
  read: (json) =>
    withoutUndefined({
      attentionSoftcap: readNumbers(json, [], ["attn_logit_softcapping"]).attn_logit_softcapping,
    }),
  write: ({ attentionSoftcap }) => ({ attn_logit_softcapping: attentionSoftcap ?? null }),
};

/** The bound of the scores of the next token. */
export const logitSoftcapPart: ConfigPart = {
  keys: ["final_logit_softcapping"],
  read: (json) =>
    withoutUndefined({
      logitSoftcap: readNumbers(json, [], ["final_logit_softcapping"]).final_logit_softcapping,
    }),
  write: ({ logitSoftcap }) => ({ final_logit_softcapping: logitSoftcap ?? null }),
};

//| 03-moe/a-files-of-weights.ipynb#window-parts
/** The window of a config.json, where it has one. */
export function readWindow(json: Record<string, unknown>): number | undefined {
  return readKeys(z.object({ sliding_window: sizeSchema().optional() }), json).sliding_window;
}

/** Which layers are local: as `layer_types` says, or as `isLocal` does where it is not given. */
export function readLocalLayers(
  { layer_types: types }: Record<string, unknown>,
  layers: number,
  isLocal: (layer: number) => boolean,
): boolean[] {
  if (types === undefined) return Array.from({ length: layers }, (_, layer) => isLocal(layer));
  const kinds = ["full_attention", "sliding_attention"];
  const strange = (types as string[]).find((type) => !kinds.includes(type));
  if (strange === undefined) return (types as string[]).map((type) => type === "sliding_attention");
  throw new Error(`layer_types has ${shown(strange)}, but only ${kinds.join(" and ")} are run so far.`);
}

/** The window of a model and its local layers; neither where no layer is local. Throws for local layers without a window. */
export function windowSettings(
  localLayers: boolean[],
  window?: number,
): Pick<ModelConfig, "window" | "localLayers"> {
  if (!localLayers.includes(true)) return {};
  if (window !== undefined) return { window, localLayers };
  throw new Error("Some layers are local (sliding_attention), but there is no sliding_window.");
}

/** The types of the layers, as a config.json has them. */
export function layerTypes({ layers, localLayers }: ModelConfig): string[] {
  return Array.from({ length: layers }, (_, layer) =>
    localLayers?.[layer] ? "sliding_attention" : "full_attention",
  );
}

//| 03-moe/a-files-of-weights.ipynb#window-parts-2
/** A window in every layer, or none. */
export const windowPart: ConfigPart = {
  keys: ["sliding_window"],
  read: (json, { layers }) => {
    const window = readWindow(json);
    return window === undefined ? {} : { window, localLayers: Array.from({ length: layers }, () => true) };
  },
  write: ({ window }) => ({ sliding_window: window ?? null }),
};

/** The same with a switch. */
export const switchedWindowPart: ConfigPart = {
  keys: ["use_sliding_window", "sliding_window"],
  read: (json, sizes) => {
    if (!readFlag(json, "use_sliding_window")) return {};
    if (readWindow(json) === undefined)
      throw new Error("use_sliding_window is true, but there is no sliding_window.");
    return windowPart.read(json, sizes);
  },
  write: ({ window }) => (window === undefined ? {} : { use_sliding_window: true, sliding_window: window }),
};

/** A window with a switch, in the layers that `layer_types` names, or from `max_window_layers` on. */
export const upperWindowPart: ConfigPart = {
  keys: ["use_sliding_window", "sliding_window", "max_window_layers", "layer_types"],
  read: (json, sizes) => {
    const window = switchedWindowPart.read(json, sizes).window;
    const { max_window_layers: from = sizes.layers } = json as { max_window_layers?: number };
    const localLayers = readLocalLayers(json, sizes.layers, (layer) => window !== undefined && layer >= from);
    return windowSettings(localLayers, window);
  },
  write: (config) =>
    config.localLayers
      ? {
          ...switchedWindowPart.write(config),
          layer_types: layerTypes(config),
          max_window_layers: config.localLayers.indexOf(true),
        }
      : {},
};

//| 03-moe/a-files-of-weights.ipynb#window-parts-3
/** Windows in all layers but every `pattern`-th, unless `layer_types` says otherwise: in turns, as Gemma has them. */
export function alternatingWindowPart(pattern: number): ConfigPart {
  return {
    keys: ["sliding_window", "sliding_window_pattern", "layer_types"],
    read: (json, { layers, contextLength }) => {
      const schema = z.object({ sliding_window_pattern: sizeSchema().default(pattern) });
      const { sliding_window_pattern: every } = readKeys(schema, json);
      const localLayers = readLocalLayers(json, layers, (layer) => (layer + 1) % every !== 0);
      // Where no layer is local there is one, too: others want to be told.
      const window = readWindow(json) ?? (localLayers.includes(true) ? undefined : contextLength);
      return withoutUndefined({ window, ...windowSettings(localLayers, window) });
    },
    write: (config) => ({ sliding_window: config.window ?? null, layer_types: layerTypes(config) }),
  };
}

//| 03-moe/a-files-of-weights.ipynb#window-parts-4
/** Layers in which nothing turns, `no_rope_layers`, or every so many-th; and a window in those, with a switch. */
export const unrotatedLayersPart: ConfigPart = {
  keys: [...switchedWindowPart.keys, "no_rope_layers", "no_rope_layer_interval", "layer_types"],
  read: (json, sizes) => {
    const flags = { error: `a list of ${sizes.layers} zeros and ones, one for each layer` };
    const schema = z.object({
      no_rope_layers: z
        .array(z.literal([0, 1], flags), flags)
        .length(sizes.layers, flags)
        .optional(),
      no_rope_layer_interval: sizeSchema().default(4),
    });
    const { no_rope_layers: turns, no_rope_layer_interval: every } = readKeys(schema, json);
    const rotatingLayers = Array.from({ length: sizes.layers }, (_, i) =>
      turns ? turns[i] === 1 : (i + 1) % every !== 0,
    );
    const { window } = switchedWindowPart.read(json, sizes);
    const localLayers = readLocalLayers(
      json,
      sizes.layers,
      (i) => window !== undefined && !rotatingLayers[i],
    );
    return {
      ...windowSettings(localLayers, window),
      ...(rotatingLayers.includes(false) ? { rotatingLayers } : {}),
    };
  },
  write: (config) => ({
    ...switchedWindowPart.write(config),
    layer_types: layerTypes(config),
    no_rope_layers: Array.from({ length: config.layers }, (_, i) =>
      config.rotatingLayers?.[i] === false ? 0 : 1,
    ),
  }),
};

//| 03-moe/a-files-of-weights.ipynb#read-experts
/** What every mixture of experts says of itself. */
export type SharedExpertSettings = Omit<MoeConfig, "intermediateSize" | "sparseLayers">;

/** Reads the keys that files of all mixtures have. */
export function readExperts(json: Record<string, unknown>): SharedExpertSettings {
  const weight = { error: "a number from 0 to 1000" };
  const schema = z.object({
    num_experts: sizeSchema(),
    num_experts_per_tok: sizeSchema(),
    norm_topk_prob: z.boolean({ error: "true or false" }).default(false),
    router_aux_loss_coef: z.number(weight).nonnegative(weight).max(1000, weight).default(0.001),
  });
  const keys = readKeys(schema, json);
  const [experts, expertsPerToken] = [keys.num_experts, keys.num_experts_per_tok];
  if (expertsPerToken > experts)
    throw new Error(
      `num_experts_per_tok is ${expertsPerToken}, but there are only ${experts} experts (num_experts).`,
    );
  return {
    experts,
    expertsPerToken,
    normalizeTopK: keys.norm_topk_prob,
    balanceCoefficient: keys.router_aux_loss_coef,
  };
}

/** The same keys, written. */
export function expertsToJson(moe: SharedExpertSettings): Record<string, unknown> {
  return {
    norm_topk_prob: moe.normalizeTopK,
    num_experts: moe.experts,
    num_experts_per_tok: moe.expertsPerToken,
    router_aux_loss_coef: moe.balanceCoefficient,
  };
}

//| 03-moe/a-files-of-weights.ipynb#sparse-layers
/** Reads which layers have experts: layer i (from 0) if `decoder_sparse_step` divides i + 1 and `mlp_only_layers` does not name it. */
export function readSparseLayers(json: Record<string, unknown>, layers: number): boolean[] {
  const numbers = { error: "a list of layer numbers" };
  const schema = z.object({
    decoder_sparse_step: sizeSchema().default(1),
    mlp_only_layers: z.array(z.int(numbers).nonnegative(numbers), numbers).default([]),
  });
  const { decoder_sparse_step: step, mlp_only_layers: named } = readKeys(schema, json);
  const dense = new Set(named);
  return Array.from({ length: layers }, (_, i) => (i + 1) % step === 0 && !dense.has(i));
}

/** Adds what is left out about experts: 8 of them, 2 a token, as wide together as the dense layer would be. */
export function completeExperts(whole: Record<string, unknown>, width: string): Record<string, unknown> {
  const visited = Number(whole.num_experts_per_tok ?? 2);
  return {
    ...(whole.num_local_experts === undefined ? { num_experts: 8 } : {}),
    num_experts_per_tok: visited,
    [width]: Math.max(1, Math.round(Number(whole.intermediate_size) / visited)),
    norm_topk_prob: true,
  };
}

//| 03-moe/a-files-of-weights.ipynb#experts-parts
/** Experts in some layers, as Qwen3's files describe them. */
export const expertsPart: ConfigPart = {
  keys: `num_experts num_experts_per_tok moe_intermediate_size norm_topk_prob router_aux_loss_coef decoder_sparse_step
    mlp_only_layers`.split(/\s+/),
  read: (json, { layers }) => {
    const { moe_intermediate_size: intermediateSize } = readKeys(
      z.object({ moe_intermediate_size: sizeSchema() }),
      json,
    );
    return { moe: { ...readExperts(json), intermediateSize, sparseLayers: readSparseLayers(json, layers) } };
  },
  write: ({ moe }) => ({
    ...expertsToJson(moe!),
    decoder_sparse_step: 1,
    mlp_only_layers: moe!.sparseLayers.flatMap((sparse, i) => (sparse ? [] : [i])),
    moe_intermediate_size: moe!.intermediateSize,
  }),
  complete: (whole) => completeExperts(whole, "moe_intermediate_size"),
};

/** Experts in all layers, as wide as the dense layer would be. */
export const allExpertsPart: ConfigPart = {
  keys: ["num_experts", "num_experts_per_tok", "norm_topk_prob", "router_aux_loss_coef"],
  read: (json, { layers, intermediateSize }) => ({
    moe: { ...readExperts(json), intermediateSize, sparseLayers: Array.from({ length: layers }, () => true) },
  }),
  write: ({ moe }) => expertsToJson(moe!),
  complete: (whole) => completeExperts(whole, "intermediate_size"),
};

//| 03-moe/a-files-of-weights.ipynb#more-experts-parts
/** Experts as in Qwen3's files, and one that serves every token, as much as the token says. */
export const sharedExpertPart: ConfigPart = {
  ...expertsPart,
  keys: [...expertsPart.keys, "shared_expert_intermediate_size"],
  read: (json, sizes) => {
    const schema = z.object({ shared_expert_intermediate_size: sizeSchema() });
    const sharedSize = readKeys(schema, json).shared_expert_intermediate_size;
    return { moe: { ...expertsPart.read(json, sizes).moe!, sharedSize, sharedGate: true } };
  },
  write: (config) => ({
    ...expertsPart.write(config),
    shared_expert_intermediate_size: config.moe!.sharedSize,
  }),
  complete: (whole) => {
    const routed = completeExperts(whole, "moe_intermediate_size");
    return { ...routed, shared_expert_intermediate_size: routed.moe_intermediate_size };
  },
};

/** Biases of queries, keys and values alone. */
export const qkvBiasPart: ConfigPart = {
  keys: ["qkv_bias"],
  read: (json) => ({ attentionBias: readFlag(json, "qkv_bias", true) }),
  write: ({ attentionBias }) => ({ qkv_bias: attentionBias }),
};

/** gpt-oss's experts: in all layers, with biases, clamped, their weights a softmax over the chosen. */
export const clampedExpertsPart: ConfigPart = {
  ...allExpertsPart,
  keys: ["num_experts", "num_experts_per_tok", "router_aux_loss_coef", "swiglu_limit"],
  read: (json, sizes) => {
    checkRunnable(json, { swiglu_limit: [7] });
    const { moe } = allExpertsPart.read(json, sizes);
    return { moe: { ...moe!, normalizeTopK: true, biased: true, activation: "clamped-silu" } };
  },
  write: (config) => {
    const { norm_topk_prob: _, ...keys } = allExpertsPart.write(config);
    return { ...keys, swiglu_limit: 7 };
  },
};

//| 03-moe/a-files-of-weights.ipynb#sigmoid-experts-part
/** The groups of a router. None where there is one. Throws for groups that do not fit the experts. */
export function readGroups(
  json: Record<string, unknown>,
  experts: number,
  expertsPerToken: number,
): MoeConfig["groups"] {
  const schema = z.object({ n_group: sizeSchema().default(1), topk_group: sizeSchema().default(1) });
  const { n_group: count, topk_group: kept } = readKeys(schema, json);
  if (experts % count !== 0)
    throw new Error(
      `n_group is ${count}, but ${experts} experts cannot be put into so many groups of equal size.`,
    );
  if (count > 1 && experts / count < 2)
    throw new Error(
      `n_group is ${count}, which leaves ${experts / count} of ${experts} experts for each group: it takes two to judge a group.`,
    );
  if (kept > count) throw new Error(`topk_group is ${kept}, but there are only ${count} groups (n_group).`);
  const most = (experts / count) * kept;
  if (expertsPerToken > most)
    throw new Error(
      `num_experts_per_tok is ${expertsPerToken}, but ${kept} of ${count} groups have only ${most} experts.`,
    );
  return count === 1 ? undefined : { count, kept };
}

/** Which layers have experts: all but the first few. */
export function readDenseStart(json: Record<string, unknown>, layers: number): boolean[] {
  const count = { error: "a whole number from 0 up" };
  const schema = z.object({ first_k_dense_replace: z.int(count).nonnegative(count).default(0) });
  const { first_k_dense_replace: first } = readKeys(schema, json);
  return Array.from({ length: layers }, (_, i) => i >= first);
}

//| 03-moe/a-files-of-weights.ipynb#sigmoid-experts-read
/** What such files say of the experts of a model of so many layers. */
export function readSigmoidExperts(json: Record<string, unknown>, layers: number): MoeConfig {
  checkRunnable(json, { scoring_func: ["sigmoid"], topk_method: ["noaux_tc"], moe_layer_freq: [1] });
  const none = { error: "a whole number from 0 up" };
  const schema = z.object({
    moe_intermediate_size: sizeSchema(),
    n_shared_experts: z.int(none).nonnegative(none).default(1),
  });
  const { moe_intermediate_size: intermediateSize, n_shared_experts: shared } = readKeys(schema, json);
  const routed = readExperts(json);
  const factor = "routed_scaling_factor";
  const { [factor]: scale } = readNumbers({ [factor]: 1, ...json }, [factor]);
  const groups = readGroups(json, routed.experts, routed.expertsPerToken);
  const router = withoutUndefined({ scoring: "sigmoid", choiceBias: true, groups, scale } as const);
  const sharedSize = shared > 0 ? { sharedSize: shared * intermediateSize } : {};
  const sparseLayers = readDenseStart(json, layers);
  return { ...routed, balanceCoefficient: 0, ...router, intermediateSize, ...sharedSize, sparseLayers };
}

/** The same keys again. */
export function sigmoidExpertsToJson(moe: MoeConfig, layers: number): Record<string, unknown> {
  const { intermediateSize, groups, scale = 1, sharedSize = 0, sparseLayers } = moe;
  return {
    num_experts: moe.experts,
    num_experts_per_tok: moe.expertsPerToken,
    norm_topk_prob: moe.normalizeTopK,
    moe_intermediate_size: intermediateSize,
    n_shared_experts: sharedSize / intermediateSize,
    n_group: groups?.count ?? 1,
    topk_group: groups?.kept ?? 1,
    routed_scaling_factor: scale,
    first_k_dense_replace: sparseLayers.includes(true) ? sparseLayers.indexOf(true) : layers,
  };
}

//| 03-moe/a-files-of-weights.ipynb#sigmoid-experts
/** Routed and shared experts as the files of DeepSeek-V3 and GLM-4 describe them: sigmoid scores, a bias for the choice, groups. */
export const sigmoidExpertsPart: ConfigPart = {
  keys: `num_experts num_experts_per_tok moe_intermediate_size n_shared_experts n_group topk_group routed_scaling_factor
    norm_topk_prob first_k_dense_replace moe_layer_freq scoring_func topk_method`.split(/\s+/),
  read: (json, { layers }) => ({ moe: readSigmoidExperts(json, layers) }),
  write: ({ moe, layers }) => sigmoidExpertsToJson(moe!, layers),
  complete: (whole) => ({
    ...completeExperts(whole, "moe_intermediate_size"),
    first_k_dense_replace: 1,
    n_group: 1,
    topk_group: 1,
  }),
};

/** A norm on queries and keys, head by head, with a switch. */
export const switchedNormPart: ConfigPart = {
  keys: ["use_qk_norm"],
  read: (json) => ({ qkNorm: readFlag(json, "use_qk_norm") ? "head" : "none" }),
  write: ({ qkNorm }) => ({ use_qk_norm: qkNorm === "head" }),
};

//| 03-moe/a-files-of-weights.ipynb#latent-part
/** The sizes of latent attention, checked: its rows are loaded four numbers at a time. */
export function readLatent(json: Record<string, unknown>): LatentConfig {
  const size = sizeSchema();
  const names = { kv_lora_rank: size, qk_nope_head_dim: size, qk_rope_head_dim: size, v_head_dim: size };
  const keys = readKeys(z.object({ ...names, q_lora_rank: size.optional() }), json);
  const { kv_lora_rank: rank, qk_rope_head_dim: ropeDim } = keys;
  if ((rank + ropeDim) % 4 !== 0)
    throw new Error(
      `kv_lora_rank and qk_rope_head_dim are ${rank + ropeDim} together, but only multiples of 4 are run.`,
    );
  return withoutUndefined({
    rank,
    queryRank: keys.q_lora_rank,
    nopeDim: keys.qk_nope_head_dim,
    ropeDim,
    valueDim: keys.v_head_dim,
    interleaved: readFlag(json, "rope_interleave", true),
  });
}

//| 03-moe/a-files-of-weights.ipynb#latent-part-2
/** Latent attention, as DeepSeek-V3's files describe it, and the positions that turn a part of its heads. */
export const latentPart: ConfigPart = {
  keys: `${rotaryPart.keys.join(" ")} q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim qk_head_dim v_head_dim
    rope_interleave`.split(/\s+/),
  read: (json, sizes) => {
    const latent = readLatent(json);
    const turning = rotaryPart.read(json, { ...sizes, headDim: latent.ropeDim });
    return { ...turning, rope: { ...turning.rope!, dimensions: latent.ropeDim }, latent };
  },
  write: (config) => {
    const { rank, queryRank, nopeDim, ropeDim, valueDim, interleaved } = config.latent!;
    const { dimensions: _, ...rope } = config.rope!;
    return {
      ...rotaryPart.write({ ...config, rope, headDim: ropeDim }),
      kv_lora_rank: rank,
      q_lora_rank: queryRank ?? null,
      qk_nope_head_dim: nopeDim,
      qk_rope_head_dim: ropeDim,
      v_head_dim: valueDim,
      rope_interleave: interleaved,
    };
  },
  conflicts: ropeConflicts,
  complete: ({ head_dim }) => {
    const [width, turning] = [4 * Math.ceil(Number(head_dim) / 4), 4 * Math.ceil(Number(head_dim) / 8)];
    const widths = { qk_nope_head_dim: width, v_head_dim: width, qk_rope_head_dim: turning };
    return { q_lora_rank: null, kv_lora_rank: 2 * width, ...widths };
  },
};
