// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import type { Activation, FamilySettings, GatedActivation, ModelConfig } from "../formats/config.js";
import type { KeyValues } from "../tensor/attend.js";
import { parameter } from "../tensor/autograd.js";
import type { Dropout } from "../tensor/dropout.js";
import { type Weight, denseWeight } from "../tensor/products.js";
import { normals, streamOf } from "../tensor/random.js";
import { type Tensor, sizeOf, tensor } from "../tensor/tensor.js";
import { type RopeTables, yarnMagnitude } from "./positions.js";

//| 02-attention/9-the-block.ipynb#weights-type
/** A linear layer: weight [outputs, inputs], dense or packed, bias [outputs]. */
export interface Linear {
  weight: Weight;
  bias?: Tensor;
}

/** A norm over rows: RMSNorm, RMSNorm that multiplies by 1 + weight, or LayerNorm. Weight and bias [columns]. */
export interface Norm {
  kind: "rms" | "rms1p" | "layer";
  weight: Tensor;
  bias?: Tensor;
  epsilon: number;
}

//| 02-attention/9-the-block.ipynb#heads-type
/** Attention with heads: what its four projections are, and how it looks. */
export interface Heads {
  kind: "heads";
  /** The number of its block, by which a cache knows it. */
  layer: number;
  headDim: number;
  q: Linear;
  k: Linear;
  v: Linear;
  o: Linear;
  /** Norms on queries and keys: over each head where they are as wide as one, else over the whole projection. */
  qNorm?: Norm;
  kNorm?: Norm;
  /** How positions turn queries and keys: by the context's table, by its table for local layers, or not at all. */
  rotary: "shared" | "local" | "none";
  /** A query sees so many last keys, itself included; all where it is left out. */
  window?: number;
  /** Scores are multiplied by this; 1/√headDim unless given. */
  scale?: number;
  /** Scores are bounded smoothly: softcap · tanh(score / softcap). */
  softcap?: number;
  /** A learned score for each head that takes a share and gives no value [heads]. */
  sinks?: Tensor;
}

//| 02-attention/9-the-block.ipynb#latent-type
/** Latent attention (DeepSeek-V2, 2024): keys and values of all heads are made from one short row a token, beside a key that turns. */
export interface Latent {
  kind: "latent";
  /** The number of its block, by which a cache knows it. */
  layer: number;
  /** Queries pass through a narrow layer and a norm first, where the model has them. */
  qDown?: Linear;
  qNorm?: Norm;
  /** [heads · (nopeDim + ropeDim), inputs]. */
  q: Linear;
  /** To the row that is remembered [rank, hidden]. */
  kvDown: Linear;
  kvNorm: Norm;
  /** To the part of all heads' keys that turns [ropeDim, hidden]. */
  ropeKey: Linear;
  /** From the row to what does not turn of each head's keys [heads · nopeDim, rank], and to its values [heads · valueDim, rank]. */
  keyUp: Linear;
  valueUp: Linear;
  o: Linear;
  /** Elements of a head's queries and keys that do not turn, that turn, and of its values. */
  nopeDim: number;
  ropeDim: number;
  valueDim: number;
  /** Whether what turns is in the interleaved layout. */
  interleaved: boolean;
  /** Scores are multiplied by this; 1/√(nopeDim + ropeDim) unless given. */
  scale?: number;
}

//| 02-attention/9-the-block.ipynb#feed-forward-types
/** A dense feed-forward layer: down(activation(gate(x)) · up(x)), or down(activation(up(x))) without a gate. */
export interface Dense {
  kind: "dense";
  gate?: Linear;
  up: Linear;
  down: Linear;
  activation: Activation;
}

/** A mixture of E experts: their matrices stacked [E, outputs, inputs] (biases [E, outputs]), and a router [E, hidden]. */
export interface Experts {
  kind: "experts";
  router: Linear;
  gate: Linear;
  up: Linear;
  down: Linear;
  activation: GatedActivation;
  expertsPerToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  normalize: boolean;
  /** What makes scores of the router's logits; softmax over all experts unless given. */
  scoring?: "softmax" | "sigmoid";
  /** Added to the scores for the choice alone [E]. No gradient reaches it: training moves it by the load. */
  choiceBias?: Tensor;
  /** Experts in groups, of which a token keeps the best. */
  groups?: { count: number; kept: number };
  /** Weights are multiplied by this; 1 unless given. */
  scale?: number;
  /** Experts that serve every token, as one layer; `sharedGate` [1, hidden] says how much of it a token takes. */
  shared?: Dense;
  sharedGate?: Linear;
}

//| 02-attention/9-the-block.ipynb#model-type
/** One block: its two halves, and the norms before and after them. */
export interface Block {
  attention: Heads | Latent;
  feedForward: Dense | Experts;
  norms: { beforeAttention?: Norm; afterAttention?: Norm; beforeFeedForward?: Norm; afterFeedForward?: Norm };
}

/** A whole model, as it runs. */
export interface Model {
  config: ModelConfig;
  /** [vocabulary, hidden]. */
  embedding: Weight;
  /** The embeddings are multiplied by this. */
  embeddingScale?: number;
  /** Learned positions, added to the embeddings [positions, hidden]. */
  positions?: Weight;
  blocks: Block[];
  norm?: Norm;
  /** From hidden states to scores; its weight is the embedding where the two are tied. */
  head: Linear;
  /** Scores are bounded smoothly: softcap · tanh(score / softcap). */
  logitSoftcap?: number;
}

//| 02-attention/9-the-block.ipynb#block-context
/** Keys and values of earlier tokens, kept for generating. */
export interface AttentionCache {
  /**
   * Stores the new keys and values [batch, kvHeads, tokens, headDim] of a layer at the context's positions, and gives
   * all of that layer, dense or paged. Latent attention has rows [batch, 1, tokens, width] that are both, and gives no values.
   */
  extend(layer: number, keys: Tensor, values?: Tensor): KeyValues;
}

/** What all blocks of a model share while it runs. */
export interface BlockContext extends RopeTables {
  /** The position of each token: [tokens], or [batch, tokens] where sequences differ. */
  positions: Tensor<"u32">;
  /** [batch, tokens], like the positions then: the first place that each token sees, where its document begins. */
  firstKey?: Tensor<"u32">;
  cache?: AttentionCache;
  /** In training: thins out what each half of a block adds to the stream. */
  dropout?: Dropout;
}

//| 02-attention/9-the-block.ipynb#weight-entry
/**
 * What kind of thing a weight is. "residual" is a matrix that writes into the residual stream; a "buffer" is a vector that no
 * gradient reaches, which training moves by a rule of its own or not at all.
 */
export type Role = "norm" | "bias" | "matrix" | "residual" | "table" | "router" | "buffer";

/** A part of the rows of a tensor in a file: from `first` on `run` rows, then the same again every `step` rows, of `of` rows. */
export interface StoredRows {
  first: number;
  of: number;
  /** Both are 1 unless given. */
  step?: number;
  run?: number;
}

/** A row of a family's table. In path and file, `*` stands for the layer, counted from 0. */
export interface WeightEntry {
  /** Where it belongs in the structure, such as `blocks.*.attention.q.weight`. */
  path: string;
  /** Its name in a file. With `{expert}` in it, each expert's matrix is a tensor of its own there. */
  file: string;
  role: Role;
  shape: (config: ModelConfig, layer: number) => number[];
  /** Whether this model, or this layer of it, has the weight; always where it is left out. */
  when?: (config: ModelConfig, layer: number) => boolean;
  /** Whether the file holds it transposed, [inputs, outputs]. */
  transposed?: boolean;
  /** The rows of the tensor in the file that are this weight, where several share one. */
  rows?: (config: ModelConfig, layer: number) => StoredRows;
  /** Whether it stays in 32 bits whatever is asked for, since it is used otherwise than by `linear`. */
  dense?: boolean;
  /** The value that it begins with, where that is neither random nor usual for its role. */
  start?: number;
}

//| 02-attention/9-the-block.ipynb#model-weight
/** One weight of one model: a row of the table, worked out. */
export interface ModelWeight {
  path: string;
  /** Its name as a parameter: the file's, without the number of an expert, or the path where several share a tensor of the file. */
  name: string;
  role: Role;
  shape: number[];
  /** The tensors of the file that hold it: one, or one for each expert. */
  files: string[];
  perExpert: boolean;
  transposed: boolean;
  rows?: StoredRows;
  dense?: boolean;
  start?: number;
}

//| 02-attention/9-the-block.ipynb#model-weight-helpers
/** The weight that a row of the table describes in one layer. */
export function weightOf(entry: WeightEntry, config: ModelConfig, layer: number): ModelWeight {
  const here = (text: string) => text.replace("*", String(layer));
  const { role, transposed = false, start, dense } = entry;
  const [path, file, shape] = [here(entry.path), here(entry.file), entry.shape(config, layer)];
  const perExpert = file.includes("{expert}");
  const files = perExpert
    ? Array.from({ length: shape[0] }, (_, e) => file.replace("{expert}", String(e)))
    : [file];
  const rows = entry.rows?.(config, layer);
  const name = rows ? path : file.replace(".{expert}", "");
  return { path, name, role, shape, files, perExpert, transposed, rows, dense, start };
}

//| 02-attention/9-the-block.ipynb#model-weights
/** All weights of a model in a fixed order, from the embedding up to the output, by the table of its family. */
export function modelWeights(entries: WeightEntry[], config: ModelConfig): ModelWeight[] {
  const isLayered = ({ path }: WeightEntry) => path.includes("*");
  const inLayers = entries.filter(isLayered);
  const from = entries.findIndex(isLayered);
  const expand = (some: WeightEntry[], layer: number) =>
    some.filter(({ when }) => when?.(config, layer) ?? true).map((entry) => weightOf(entry, config, layer));
  return [
    ...expand(entries.slice(0, from), 0),
    ...Array.from({ length: config.layers }, (_, layer) => expand(inLayers, layer)).flat(),
    ...expand(entries.slice(from + inLayers.length), 0),
  ];
}

//| 02-attention/9-the-block.ipynb#model-family
/** What the blocks of a family share that is neither a weight nor in the configuration. */
export interface ModelFamily extends FamilySettings {
  entries: WeightEntry[];
  /** Tensors that some files of it carry and that say nothing new. */
  redundant?: string[];
  /** RMSNorm unless told. */
  norm?: Norm["kind"];
  embeddingScale?: (config: ModelConfig) => number;
  /** What stands before the names of its tensors in some files and not in others. */
  optionalPrefix?: string;
  /** Layers behind the last that predict further tokens: the keys that count them, and how their tensors' names begin. */
  predictionLayers?: { keys: string[]; names: string };
}

//| 02-attention/9-the-block.ipynb#build-parts
/** What a structure is built from. */
export interface BuildPlan {
  config: ModelConfig;
  family: ModelFamily;
  /** The weights, by their path. */
  tensors: Map<string, Weight>;
}

/** The weight at a path. Throws when the model has none there. */
export function weightAt({ tensors }: BuildPlan, path: string): Weight {
  const weight = tensors.get(path);
  if (!weight) throw new Error(`The model has no weight at ${path}.`);
  return weight;
}

/** The weight at a path, where there is one, which is never packed. */
export function denseAt({ tensors }: BuildPlan, path: string): Tensor | undefined {
  const weight = tensors.get(path);
  return weight && denseWeight(weight, path);
}

export function buildLinear(plan: BuildPlan, path: string): Linear {
  return { weight: weightAt(plan, `${path}.weight`), bias: denseAt(plan, `${path}.bias`) };
}

/** The norm at a path, where there is one. */
export function buildNorm(plan: BuildPlan, path: string): Norm | undefined {
  const { config, family } = plan;
  const weight = denseAt(plan, `${path}.weight`);
  if (!weight) return undefined;
  return { kind: family.norm ?? "rms", weight, bias: denseAt(plan, `${path}.bias`), epsilon: config.normEps };
}

//| 02-attention/9-the-block.ipynb#head-settings
/** What the configuration says of the attention of one layer. */
export function headSettings(
  config: ModelConfig,
  layer: number,
): Pick<Heads, "rotary" | "window" | "scale" | "softcap"> {
  const isLocal = config.localLayers?.[layer] ?? false;
  const turns = config.rope !== undefined && (config.rotatingLayers?.[layer] ?? true);
  return {
    rotary: !turns ? "none" : isLocal && config.localRope ? "local" : "shared",
    window: isLocal ? config.window : undefined,
    scale: config.queryScalar === undefined ? undefined : config.queryScalar ** -0.5,
    softcap: config.attentionSoftcap,
  };
}

//| 02-attention/9-the-block.ipynb#build-latent
/** What scores of latent attention are multiplied by, where YaRN has a say in it: the usual, times the square of its magnitude. */
export function latentScaleOf({ rope, latent }: ModelConfig): number | undefined {
  const scaling = rope?.scaling;
  if (scaling?.type !== "yarn" || !scaling.mscaleAllDim) return undefined;
  const { nopeDim, ropeDim } = latent!;
  return yarnMagnitude(scaling.factor, scaling.mscaleAllDim) ** 2 / Math.sqrt(nopeDim + ropeDim);
}

export function buildLatent(plan: BuildPlan, path: string, layer: number): Latent {
  const { config, tensors } = plan;
  const { nopeDim, ropeDim, valueDim, interleaved } = config.latent!;
  const names = ["q", "kvDown", "ropeKey", "keyUp", "valueUp", "o"];
  const [q, kvDown, ropeKey, keyUp, valueUp, o] = names.map((name) => buildLinear(plan, `${path}.${name}`));
  const qDown = tensors.has(`${path}.qDown.weight`) ? buildLinear(plan, `${path}.qDown`) : undefined;
  const [qNorm, kvNorm] = ["qNorm", "kvNorm"].map((name) => buildNorm(plan, `${path}.${name}`));
  const linears = { qDown, q, kvDown, ropeKey, keyUp, valueUp, o };
  const sizes = { nopeDim, ropeDim, valueDim, interleaved, scale: latentScaleOf(config) };
  return { kind: "latent", layer, ...linears, qNorm, kvNorm: kvNorm!, ...sizes };
}

//| 02-attention/9-the-block.ipynb#build-halves
export function buildHeads(plan: BuildPlan, path: string, layer: number): Heads {
  const { config } = plan;
  const [q, k, v, o] = ["q", "k", "v", "o"].map((letter) => buildLinear(plan, `${path}.${letter}`));
  const [qNorm, kNorm] = ["qNorm", "kNorm"].map((name) => buildNorm(plan, `${path}.${name}`));
  const sinks = denseAt(plan, `${path}.sinks`);
  return {
    kind: "heads",
    layer,
    headDim: config.headDim,
    q,
    k,
    v,
    o,
    qNorm,
    kNorm,
    sinks,
    ...headSettings(config, layer),
  };
}

export function buildDense(plan: BuildPlan, path: string): Dense {
  const [up, down] = ["up", "down"].map((name) => buildLinear(plan, `${path}.${name}`));
  const gate = plan.tensors.has(`${path}.gate.weight`) ? buildLinear(plan, `${path}.gate`) : undefined;
  return { kind: "dense", gate, up, down, activation: plan.config.activation };
}

/** The feed-forward half at a path: a mixture of experts where there is a router. */
export function buildFeedForward(plan: BuildPlan, path: string): Dense | Experts {
  const { config, tensors } = plan;
  if (!tensors.has(`${path}.router.weight`)) return buildDense(plan, path);
  const [router, gate, up, down] = ["router", "gate", "up", "down"].map((name) =>
    buildLinear(plan, `${path}.${name}`),
  );
  const shared = tensors.has(`${path}.shared.up.weight`) ? buildDense(plan, `${path}.shared`) : undefined;
  const sharedGate = tensors.has(`${path}.sharedGate.weight`)
    ? buildLinear(plan, `${path}.sharedGate`)
    : undefined;
  const { expertsPerToken, normalizeTopK: normalize, scoring, groups, scale } = config.moe!;
  const { activation = config.activation } = config.moe!;
  const choiceBias = denseAt(plan, `${path}.choiceBias`);
  const layers = { router, gate, up, down, activation, shared, sharedGate };
  return { kind: "experts", ...layers, expertsPerToken, normalize, scoring, choiceBias, groups, scale };
}

//| 02-attention/9-the-block.ipynb#build-model
export function buildBlock(plan: BuildPlan, layer: number): Block {
  const at = `blocks.${layer}`;
  const norm = (name: string) => buildNorm(plan, `${at}.norms.${name}`);
  return {
    attention: (plan.config.latent ? buildLatent : buildHeads)(plan, `${at}.attention`, layer),
    feedForward: buildFeedForward(plan, `${at}.feedForward`),
    norms: {
      beforeAttention: norm("beforeAttention"),
      afterAttention: norm("afterAttention"),
      beforeFeedForward: norm("beforeFeedForward"),
      afterFeedForward: norm("afterFeedForward"),
    },
  };
}

/** The model of a configuration, by the table of its family; `tensorOf` gives each weight. */
export function buildModel(
  config: ModelConfig,
  family: ModelFamily,
  tensorOf: (weight: ModelWeight) => Weight,
): Model {
  const weights = modelWeights(family.entries, config);
  const tensors = new Map(weights.map((weight) => [weight.path, tensorOf(weight)]));
  const plan = { config, family, tensors };
  const embedding = weightAt(plan, "embedding");
  return {
    config,
    embedding,
    embeddingScale: family.embeddingScale?.(config),
    positions: tensors.get("positions"),
    blocks: Array.from({ length: config.layers }, (_, layer) => buildBlock(plan, layer)),
    norm: buildNorm(plan, "norm"),
    head: config.tied ? { weight: embedding } : buildLinear(plan, "head"),
    logitSoftcap: config.logitSoftcap,
  };
}

//| 02-attention/9-the-block.ipynb#parameters-of-parts
/** What stands at a path of a structure. */
export function partAt(model: Model, path: string): unknown {
  return path.split(".").reduce<unknown>((part, key) => (part as Record<string, unknown>)[key], model);
}

//| 02-attention/9-the-block.ipynb#parameters-of
/** A weight that training changes. */
export interface ModelParameter {
  name: string;
  role: Role;
  value: Tensor;
}

//| 02-attention/9-the-block.ipynb#parameters-of-helpers
/** The weights of a model with their names and roles, in the order of its family's table. Throws where one is packed. */
export function parametersIn(model: Model, entries: WeightEntry[]): ModelParameter[] {
  return modelWeights(entries, model.config).map(({ path, name, role }) => ({
    name,
    role,
    value: denseWeight(partAt(model, path) as Weight, `The weight ${name}`),
  }));
}

//| 02-attention/9-the-block.ipynb#initial-values
/**
 * Fresh values of one weight. Norms are 1, biases and buffers 0, matrices normally distributed with the configuration's standard
 * deviation; those that write into the residual stream are divided by √(2 · layers), so that the stream's size does not
 * grow with depth (GPT-2's rule). Each name draws from a stream of its own, with `draw`.
 */
export function initialValues(
  { initializerRange, layers }: ModelConfig,
  {
    name,
    role,
    shape,
    start = role === "norm" ? 1 : role === "bias" || role === "buffer" ? 0 : undefined,
  }: ModelWeight,
  seed: number,
  draw: typeof normals = normals,
): Float32Array {
  const size = sizeOf(shape);
  if (start !== undefined) return new Float32Array(size).fill(start);
  const values = draw(seed, size, streamOf(name));
  const deviation = initializerRange / (role === "residual" ? Math.sqrt(2 * layers) : 1);
  for (let i = 0; i < size; i++) values[i] *= deviation;
  return values;
}

/** A model with fresh random weights, as parameters to train. The same seed gives the same weights. */
export function freshModel(config: ModelConfig, family: ModelFamily, seed: number): Model {
  return buildModel(config, family, (weight) =>
    parameter(tensor(initialValues(config, weight, seed), weight.shape)),
  );
}
