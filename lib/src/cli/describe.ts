import fs from "node:fs";
import path from "node:path";
import type { Command } from "commander";
import type { ModelConfig } from "../formats/config.js";
import { isRecord } from "../formats/keys.js";
import type { RopeConfig } from "../formats/rope.js";
import { configWarnings, parseModelConfig } from "../model/config.js";
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
import { descriptionText } from "./describe-text.js";
import { readJson, readText } from "./files.js";
import { readDescription } from "./init.js";
import { readChatTemplate } from "./model-folder.js";
import { wholeNumber } from "./options.js";
import { examples, printJson } from "./run.js";

/** `tslm describe`: what a model is and what it costs, from its configuration alone. */
export function configure(command: Command): void {
  command
    .argument(
      "<model>",
      "a folder with a config.json, such a file, or a training configuration with a model in it",
    )
    .option(
      "--context <n>",
      "the context length for which arithmetic and cache are told; unless given 4096, or the model's own if that is shorter",
      wholeNumber(1),
    )
    .option("--json", "print it as one JSON object")
    .action(describe);
  examples(command, "npx tslm describe model", "npx tslm describe config.json --context 32768 --json");
}

async function describe(model: string, options: { context?: number; json?: boolean }): Promise<void> {
  const isFolder = fs.existsSync(model) && fs.statSync(model).isDirectory();
  const file = isFolder ? path.join(model, "config.json") : model;
  const { config, architecture } = await readConfig(file);
  const context = options.context ?? Math.min(4096, config.contextLength);
  const report = {
    model,
    ...modelReport(config, architecture, context),
    ...(isFolder ? { tokenizer: await tokenizerReport(model), license: licenseOf(model) } : {}),
  };
  if (options.json) return printJson(report);
  process.stdout.write(descriptionText(report));
}

/** The configuration in a file, and the class that it names; what is ignored in it is said on stderr. Errors name the file. */
async function readConfig(file: string): Promise<{ config: ModelConfig; architecture?: string }> {
  const json = readJson(file);
  if (isRecord(json) && json.model !== undefined) return { config: (await readDescription(file)).config };
  try {
    const config = parseModelConfig(json);
    for (const warning of configWarnings(json)) process.stderr.write(`${file}: ${warning}\n`);
    const [named] = [(json as Record<string, unknown>).architectures ?? []].flat();
    return { config, architecture: named === undefined ? undefined : String(named) };
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** What is known of a model by its configuration alone. */
export type ModelReport = ReturnType<typeof modelReport>;

function modelReport(config: ModelConfig, architecture: string | undefined, context: number) {
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

/** What a folder's tokenizer.json is; null where there is none. */
async function tokenizerReport(folder: string) {
  const file = path.join(folder, "tokenizer.json");
  if (!fs.existsSync(file)) return null;
  const json = Object(readJson(file));
  const added: { id: number; special?: boolean }[] = json.added_tokens ?? [];
  const { type, vocab = {}, byte_fallback } = Object(json.model);
  const ids = Array.isArray(vocab)
    ? vocab.map((_, id) => id)
    : Object.values(vocab as Record<string, number>);
  const largest = [...ids, ...added.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), -1);
  return {
    kind: `${type ?? "unknown"}${byte_fallback ? " with bytes to fall back on" : hasByteLevel(json) ? " on bytes" : ""}`,
    vocabulary: largest + 1,
    specials: added.filter(({ special }) => special).length,
    added: added.length,
    chat_template: (await readChatTemplate(folder)) !== undefined,
  };
}

/** Whether a tokenizer.json works on bytes spelled as letters. */
function hasByteLevel({ pre_tokenizer, decoder }: Record<string, unknown>): boolean {
  return JSON.stringify([pre_tokenizer, decoder]).includes('"ByteLevel"');
}

/** The licence of a model folder and where it is stated: in its README's front matter, or by a LICENSE file; null where it is not. */
function licenseOf(folder: string): { name: string; file: string } | null {
  const readme = path.join(folder, "README.md");
  const front = fs.existsSync(readme) ? /^---\r?\n([\s\S]*?)\r?\n---/.exec(readText(readme))?.[1] : undefined;
  const stated = (key: string) =>
    new RegExp(`^${key}:[ \\t]*(.+?)[ \\t]*$`, "m").exec(front ?? "")?.[1].replace(/^["']|["']$/g, "");
  const license = stated("license");
  if (license)
    return { name: license === "other" ? (stated("license_name") ?? license) : license, file: "README.md" };
  const file = fs.readdirSync(folder).find((name) => /^(licen[cs]e|copying)(\.(md|txt))?$/i.test(name));
  if (!file) return null;
  const title = readText(path.join(folder, file))
    .split("\n")
    .map((line) => line.replace(/^[#\s]+/, "").trim())
    .find((line) => line !== "");
  return { name: title ?? file, file };
}
