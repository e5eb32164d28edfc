// What `tslm describe` finds out about a model from its configuration.
import type { ModelConfig } from "../formats/config.js";
import type { RopeConfig } from "../formats/rope.js";
import {
  type StoredDtype,
  cacheBytes,
  countParameters,
  flopsPerToken,
  modelOutline,
  storedDtypes,
  weightBytes,
} from "../model/count.js";
import type { Block, Model } from "../model/structure.js";

/** What is known of a model by its configuration alone. */
export type ModelReport = ReturnType<typeof modelReport>;

/** Counts, costs and layers of a model. */
export function modelReport(config: ModelConfig, architecture: string | undefined, context: number) {
  const outline = modelOutline(config);
  const flops = flopsPerToken(config, context);
  return {
    model_type: config.modelType,
    architecture: architecture ?? null,
    parameters: countParameters(config),
    flops_per_token: { context, ...flops },
    weight_bytes: Object.fromEntries(
      (Object.keys(storedDtypes) as StoredDtype[]).map((dtype) => [dtype, weightBytes(config, dtype)]),
    ) as Record<StoredDtype, number>,
    cache: cacheReport(config, context),
    layers: layerGroups(outline),
    vocabulary: config.vocabSize,
    hidden_size: config.hiddenSize,
    tied: config.tied,
    context_length: config.contextLength,
    positions: positionsReport(config, config.rope),
    ...(config.localRope ? { local_positions: positionsReport(config, config.localRope) } : {}),
  };
}

/** Bytes of keys and values: of a token, of one that windows have passed by, and of a whole context. */
function cacheReport(config: ModelConfig, context: number) {
  const inBytes = (numbers: number) => ({ f32: 4 * numbers, bf16: 2 * numbers, int8: numbers });
  const numbers = (tokens: number) => cacheBytes(config, tokens, 1);
  const far = 2 ** 40; // beyond every window
  return {
    bytes_per_token: inBytes(numbers(1)),
    bytes_per_token_beyond_windows: inBytes(numbers(far + 1) - numbers(far)),
    context,
    bytes: inBytes(numbers(context)),
  };
}

/** How a model knows positions: they turn queries and keys by a table, or are learned. */
export interface PositionsReport {
  kind: "rotary" | "learned";
  theta?: number;
  /** Elements of each head that turn. */
  dimensions?: number;
  /** How turns are rescaled for long texts, where they are. */
  scaling?: RopeConfig["scaling"];
}

function positionsReport({ headDim }: ModelConfig, rope: RopeConfig | undefined): PositionsReport {
  if (!rope) return { kind: "learned" };
  const { theta, dimensions = headDim, scaling } = rope;
  return { kind: "rotary", theta, dimensions, ...(scaling ? { scaling } : {}) };
}

/** What the attention of a layer is: with heads, or latent. */
export interface AttentionReport {
  kind: "heads" | "latent";
  heads: number;
  head_dim: number;
  kv_heads?: number;
  /** How many last keys are seen; all where it is null. */
  window?: number | null;
  rotation?: string;
  sinks?: boolean;
  softcap?: number;
  /** Latent: the row that is remembered, what of it turns, and the width of a head's values. */
  rank?: number;
  rope_dim?: number;
  value_dim?: number;
}

/** What the feed-forward half of a layer is: a dense layer, or experts. */
export interface FeedForwardReport {
  kind: "dense" | "experts";
  width: number;
  gated: boolean;
  activation: string;
  experts?: number;
  experts_per_token?: number;
  shared_width?: number;
}

/** Layers that are alike, and what they are. */
export interface LayerGroup {
  layers: number[];
  attention: AttentionReport;
  feed_forward: FeedForwardReport;
}

/** The layers of a model, those that are alike together. */
function layerGroups({ blocks }: Model): LayerGroup[] {
  const groups = new Map<string, LayerGroup>();
  blocks.forEach(({ attention, feedForward }, layer) => {
    const report = {
      attention: attentionReport(attention),
      feed_forward: feedForwardReport(feedForward),
    };
    const key = JSON.stringify(report);
    const group = groups.get(key) ?? { layers: [], ...report };
    group.layers.push(layer);
    groups.set(key, group);
  });
  return [...groups.values()];
}

function attentionReport(attention: Block["attention"]): AttentionReport {
  if (attention.kind === "latent") {
    const { q, kvDown, nopeDim, ropeDim, valueDim } = attention;
    const headDim = nopeDim + ropeDim;
    const rank = kvDown.weight.shape[0];
    const heads = q.weight.shape[0] / headDim;
    return { kind: "latent", heads, head_dim: headDim, rank, rope_dim: ropeDim, value_dim: valueDim };
  }
  const { headDim, q, k, window, rotary, sinks, softcap } = attention;
  return {
    kind: "heads",
    heads: q.weight.shape[0] / headDim,
    head_dim: headDim,
    kv_heads: k.weight.shape[0] / headDim,
    window: window ?? null,
    rotation: rotary,
    ...(sinks ? { sinks: true } : {}),
    ...(softcap === undefined ? {} : { softcap }),
  };
}

function feedForwardReport(feedForward: Block["feedForward"]): FeedForwardReport {
  const { activation } = feedForward;
  if (feedForward.kind === "dense") {
    const gated = feedForward.gate !== undefined;
    return { kind: "dense", width: feedForward.up.weight.shape[0], gated, activation };
  }
  const { up, expertsPerToken, shared } = feedForward;
  const [experts, width] = up.weight.shape;
  const more = shared ? { shared_width: shared.up.weight.shape[0] } : {};
  const visited = { experts, experts_per_token: expertsPerToken, ...more };
  return { kind: "experts", width, gated: true, activation, ...visited };
}
