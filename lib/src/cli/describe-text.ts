// What `tslm describe` says, as text for a terminal.
import { readableBytes } from "../gpu/buffers.js";
import type {
  AttentionReport,
  FeedForwardReport,
  LayerGroup,
  ModelReport,
  PositionsReport,
} from "./describe-report.js";

type Report = ModelReport & {
  model: string;
  packing?: string;
  tokenizer?: {
    kind: string;
    vocabulary: number;
    specials: number;
    added: number;
    chat_template: boolean;
  } | null;
  license?: { name: string; file: string } | null;
};

/** The whole report. */
export function descriptionText(report: Report): string {
  const { parameters, flops_per_token: flops, weight_bytes } = report;
  const rows: [string, string][] = [
    ["model", [report.model_type, report.architecture ? `(${report.architecture})` : ""].join(" ").trim()],
    [
      "sizes",
      `${report.layers.reduce((n, { layers }) => n + layers.length, 0)} layers, ${grouped(report.hidden_size)} wide, ${grouped(report.vocabulary)} tokens${report.tied ? ", output tied to the embedding" : ""}`,
    ],
    [
      "parameters",
      `${grouped(parameters.total)}${parameters.active === parameters.total ? "" : `, of which a token meets ${grouped(parameters.active)}`}`,
    ],
    ["context", `${grouped(report.context_length)} tokens; ${positionsText(report.positions)}`],
    ...(report.local_positions
      ? [["", `in local layers ${positionsText(report.local_positions)}`] as [string, string]]
      : []),
    [
      "a token costs",
      `${flop(flops.forward)} forward, ${flop(flops.training)} in training, at a context of ${grouped(flops.context)}`,
    ],
    [
      "",
      "forward: 2 for each weight it is multiplied with, and 2 · heads · (key + value width) for each key that",
    ],
    ["", "it sees (on average half of the context); training: 3 times as much"],
    [
      "weights take",
      Object.entries(weight_bytes)
        .map(([dtype, bytes]) => `${readableBytes(bytes)} in ${dtype}`)
        .join(", "),
    ],
    ...(report.packing ? [["packed as", report.packing] as [string, string]] : []),
    ...cacheRows(report.cache),
    ...folderRows(report),
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  const lines = rows.map(([label, text]) => `${label.padEnd(width)}  ${text}`.trimEnd());
  return `${[...lines, "", ...layerTable(report.layers)].join("\n")}\n`;
}

const grouped = (count: number) => count.toLocaleString("en");

/** Operations in words: "6.7 GFLOP". */
function flop(count: number): string {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log10(count) / 3)));
  return `${(count / 1000 ** power).toPrecision(3)} ${["", "k", "M", "G", "T"][power]}FLOP`;
}

function positionsText({ kind, theta = 0, dimensions, scaling }: PositionsReport): string {
  if (kind === "learned") return "positions are learned";
  const rescaled = scaling ? `, rescaled for long texts (${scaling.type}, factor ${scaling.factor})` : "";
  return `positions turn ${dimensions} elements of each head with θ ${grouped(theta)}${rescaled}`;
}

function cacheRows({
  bytes_per_token: perToken,
  bytes_per_token_beyond_windows: beyond,
  context,
  bytes,
}: Report["cache"]): [string, string][] {
  const all = (of: Record<string, number>) =>
    Object.entries(of)
      .map(([dtype, count]) => `${readableBytes(count)} in ${dtype}`)
      .join(", ");
  return [
    ["cache", `a token leaves ${all(perToken)}`],
    ...(beyond.f32 === perToken.f32 ? [] : [["", `beyond the windows ${all(beyond)}`] as [string, string]]),
    ["", `${grouped(context)} tokens leave ${all(bytes)}`],
  ];
}

function folderRows({ tokenizer, license }: Report): [string, string][] {
  if (tokenizer === undefined) return [];
  const template = tokenizer?.chat_template ? "with a chat template" : "no chat template";
  const text = tokenizer
    ? `${tokenizer.kind}, ${grouped(tokenizer.vocabulary)} tokens, ${grouped(tokenizer.specials)} of them special, ${template}`
    : "none in the folder";
  return [
    ["tokenizer", text],
    ["licence", license ? `${license.name} (${license.file})` : "not stated"],
  ];
}

/** Numbers as ranges: "0-2, 4, 6-8", or where they go by steps, "0, 2 … 10". */
export function rangesText(numbers: number[]): string {
  const step = numbers[1] - numbers[0];
  if (numbers.length > 3 && step > 1 && numbers.every((n, i) => i === 0 || n - numbers[i - 1] === step))
    return `${numbers[0]}, ${numbers[1]} … ${numbers[numbers.length - 1]}`;
  const runs: [number, number][] = [];
  for (const n of numbers) {
    const last = runs[runs.length - 1];
    if (last && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(", ");
}

function attentionText({
  kind,
  heads,
  head_dim,
  kv_heads,
  window,
  rotation,
  sinks,
  softcap,
  rank,
  rope_dim,
  value_dim,
}: AttentionReport): string {
  if (kind === "latent")
    return `latent: ${heads} heads of ${head_dim} (values ${value_dim}) from a row of ${rank} + ${rope_dim}`;
  return [
    `${heads} heads of ${head_dim}, ${kv_heads} for keys`,
    typeof window === "number" ? `the last ${grouped(window)} keys` : "all keys",
    ...(rotation === "none" ? ["no rotation"] : rotation === "local" ? ["local rotation"] : []),
    ...(sinks ? ["sinks"] : []),
    ...(softcap === undefined ? [] : [`softcap ${softcap}`]),
  ].join(", ");
}

function feedForwardText({
  kind,
  width,
  gated,
  activation,
  experts,
  experts_per_token,
  shared_width,
}: FeedForwardReport): string {
  const bent = `${activation}${gated ? ", gated" : ""}`;
  if (kind === "dense") return `dense, ${grouped(width)} wide, ${bent}`;
  const shared = shared_width === undefined ? "" : `, and ${grouped(shared_width)} for all`;
  return `${experts_per_token} of ${experts} experts ${grouped(width)} wide${shared}, ${bent}`;
}

/** The layers as a table with a line for each kind. */
function layerTable(groups: LayerGroup[]): string[] {
  const rows = [
    ["layers", "attention", "feed-forward"],
    ...groups.map(({ layers, attention, feed_forward }) => [
      rangesText(layers),
      attentionText(attention),
      feedForwardText(feed_forward),
    ]),
  ];
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map(
    ([layers, attention, feedForward]) =>
      `${layers.padEnd(widths[0])}  ${attention.padEnd(widths[1])}  ${feedForward}`,
  );
}
