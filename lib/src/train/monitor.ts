// Extracted from chapters/04-training/7-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import { replaceFile } from "../data/files.js";
import type { StepReport, TrainingData } from "./loop.js";

//| 04-training/7-the-loop.ipynb#metrics
/** A line of metrics.jsonl: a step, and what was measured at it. Losses in nats a token. */
export interface Metrics {
  step: number;
  train_loss?: number;
  val_loss?: number;
  val_bpb?: number;
  lr?: number;
  grad_norm?: number;
  /** In 16 bits: the loss scale after the step, and whether the step was left out. */
  loss_scale?: number;
  skipped?: boolean;
  tokens?: number;
  tokens_per_second?: number;
}

/** A step's report as a line of metrics. */
export function metricsOf(report: StepReport): Metrics {
  const { step, loss, norm, lossScale, skipped, learningRate, tokens, tokensPerSecond, validation } = report;
  return {
    step,
    train_loss: loss,
    ...(validation ? { val_loss: validation.loss, val_bpb: validation.bitsPerByte } : {}),
    lr: learningRate,
    ...(skipped ? { skipped } : { grad_norm: norm }),
    ...(lossScale === undefined ? {} : { loss_scale: lossScale }),
    tokens,
    tokens_per_second: Math.round(tokensPerSecond),
  };
}

//| 04-training/7-the-loop.ipynb#lines
/** The lines of a .jsonl file that are whole; the last may have been cut by a kill. None if there is no file. */
export function readLines<T>(file: string): T[] {
  if (!fs.existsSync(file)) return [];
  return fs
    .readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as T];
      } catch {
        return []; // cut in the middle, and then written on after a crash of the machine
      }
    });
}

/** Appends one line. */
export function appendLine(file: string, value: unknown): void {
  fs.appendFileSync(file, `${JSON.stringify(value)}\n`);
}

//| 04-training/7-the-loop.ipynb#logs
/** What a checkpoint knows of a log: how many lines it had, and their sha256. */
export interface LogState {
  lines: number;
  sha256: string;
}

/** A log of a run, one JSON object a line. */
export interface RunLog {
  append(line: object): void;
  state(): LogState;
}

/** What of a line its checksum is over: all but the speed. */
export function lastingPart(line: object): string {
  return `${JSON.stringify({ ...line, tokens_per_second: undefined })}\n`;
}

/** The log that begins with these lines, and with no others. */
export function openLog(file: string, kept: string[]): RunLog {
  const hash = crypto.createHash("sha256");
  for (const line of kept) hash.update(lastingPart(JSON.parse(line)));
  const text = kept.map((line) => `${line}\n`).join("");
  if (fs.existsSync(file) && fs.readFileSync(file, "utf8") !== text) replaceFile(file, text);
  let lines = kept.length;
  return {
    append(line) {
      appendLine(file, line);
      hash.update(lastingPart(line));
      lines += 1;
    },
    state: () => ({ lines, sha256: hash.copy().digest("hex") }),
  };
}

//| 04-training/7-the-loop.ipynb#kept-lines
/** Of a log that nothing was written to. */
export const noLines: LogState = { lines: 0, sha256: crypto.createHash("sha256").digest("hex") };

/** A line of a log, if it is one: an object with a step, and its speed (if it says one) a number. */
export function logLine(text: string): { step: number } | undefined {
  try {
    const line = JSON.parse(text);
    const speed = line.tokens_per_second ?? 0;
    return Number.isInteger(line.step) && Number.isFinite(speed) && speed >= 0 ? line : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The lines of a log that a checkpoint knows, or (of an older one, which knew none) those up to its step: all that was written
 * later is dropped when a run goes on. None if the file is missing. Throws one sentence if the lines are not those.
 */
export function keptLines(file: string, known: LogState | { step: number }): string[] {
  if (!fs.existsSync(file)) return [];
  const whole = fs.readFileSync(file, "utf8").split("\n").slice(0, -1);
  const advice = "Put it right, or remove it, and resume again: the run then goes on without what it said.";
  const damaged = (what: string) => new Error(`${file} is damaged: ${what}. ${advice}`);
  if ("step" in known) return whole.filter((line) => (logLine(line)?.step ?? Infinity) <= known.step);
  const kept = whole.slice(0, known.lines);
  if (kept.length < known.lines) throw damaged(`it has ${kept.length} of the ${known.lines} lines written`);
  const hash = crypto.createHash("sha256");
  kept.forEach((text, i) => {
    const line = logLine(text);
    if (!line) throw damaged(`line ${i + 1} is none of a log`);
    hash.update(lastingPart(line));
  });
  if (hash.digest("hex") !== known.sha256) throw damaged("its lines are not those that were written");
  return kept;
}

//| 04-training/7-the-loop.ipynb#load
/** How unevenly the experts of a layer are used: the share of the busiest times their number. 1 is even. */
export function imbalance(load: ArrayLike<number>): number {
  const counts = Array.from(load);
  const total = counts.reduce((sum, count) => sum + count, 0);
  return total === 0 ? 1 : (Math.max(...counts) * counts.length) / total;
}

/** How the experts were used at a step: by layer, the share of tokens that went to each. */
export interface ExpertLoad {
  step: number;
  shares: number[][];
}

/** The load in a step's report as shares, rounded to four digits. */
export function expertLoad({ step, load = [] }: StepReport): ExpertLoad {
  const shares = load.map((counts) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return Array.from(counts, (count) => Math.round((count / Math.max(1, total)) * 1e4) / 1e4);
  });
  return { step, shares };
}

//| 04-training/7-the-loop.ipynb#curves
/** A curve, points, or the cells of a heatmap. */
export interface RunTrace {
  type: "scatter" | "heatmap";
  name?: string;
  mode?: "lines" | "markers" | "lines+markers";
  x: number[];
  y: number[];
  z?: number[][];
  line?: { dash?: "dash"; color?: string; width?: number };
  /** The values at the two ends of the colour scale; plotly heeds one only together with the other. */
  zmin?: number;
  zmax?: number;
}

/** A figure: plotly traces with a layout, as `show` of tslm/notebook takes it. */
export interface RunFigure {
  data: RunTrace[];
  layout: {
    title: string;
    xaxis: { title: string; dtick?: number };
    yaxis: { title: string; dtick?: number; type?: "linear" | "log"; rangemode?: "tozero" };
    height?: number;
  };
}

/** One measured quantity as a curve over steps; lines without it are left out. */
export function curveOf(metrics: Metrics[], key: keyof Metrics): [number, number][] {
  return metrics.flatMap((line) =>
    line[key] === undefined ? [] : [[line.step, line[key]] as [number, number]],
  );
}

/** A curve as a trace. */
export function lineTrace(name: string, curve: [number, number][], style: Partial<RunTrace> = {}): RunTrace {
  const [x, y] = [curve.map(([step]) => step), curve.map(([, value]) => value)];
  return { type: "scatter", mode: "lines", name, x, y, ...style };
}

/** Means of neighbours, so that a curve with many points has at most `points`: [x, y] pairs in and out. */
export function thinned(curve: [number, number][], points = 400): [number, number][] {
  const width = Math.ceil(curve.length / points);
  if (width <= 1) return curve;
  const groups = Array.from({ length: Math.ceil(curve.length / width) }, (_, i) =>
    curve.slice(i * width, (i + 1) * width),
  );
  const mean = (group: [number, number][], k: 0 | 1) =>
    group.reduce((sum, pair) => sum + pair[k], 0) / group.length;
  return groups.map((group) => [Math.round(mean(group, 0)), mean(group, 1)]);
}

//| 04-training/7-the-loop.ipynb#loss-figure
/**
 * Training and validation loss in bits a byte, over the entropy that no model passes where it is known. `size` is that of the
 * validation text, or of any other text of the kind: it makes bits a byte of the training loss.
 */
export function lossFigure(metrics: Metrics[], size: TrainingData["valSize"], entropy?: number): RunFigure {
  const factor = size.tokens / size.bytes / Math.LN2;
  const train = thinned(curveOf(metrics, "train_loss")).map(([x, y]): [number, number] => [x, y * factor]);
  const validation = curveOf(metrics, "val_bpb");
  const data = [lineTrace("training", train)];
  if (validation.length > 0) data.push(lineTrace("validation", validation, { mode: "lines+markers" }));
  const last = metrics.at(-1)?.step ?? 1;
  const floor: [number, number][] = [
    [0, entropy ?? 0],
    [last, entropy ?? 0],
  ];
  if (entropy !== undefined) data.push(lineTrace("entropy of the text", floor, { line: { dash: "dash" } }));
  const yaxis = { title: "bits per byte", rangemode: "tozero" as const };
  return { data, layout: { title: "Loss", xaxis: { title: "step" }, yaxis } };
}

/** One measured quantity over steps. */
export function metricFigure(metrics: Metrics[], key: keyof Metrics, title: string, unit: string): RunFigure {
  const data = [lineTrace(title, thinned(curveOf(metrics, key)))];
  return { data, layout: { title, xaxis: { title: "step" }, yaxis: { title: unit, rangemode: "tozero" } } };
}

//| 04-training/7-the-loop.ipynb#load-figures
/** The share of tokens of each expert, by layer, at the last step that was looked at. */
export function loadFigure(loads: ExpertLoad[]): RunFigure {
  const { step = 0, shares = [] } = loads.at(-1) ?? {};
  const x = (shares[0] ?? []).map((_, expert) => expert);
  const zmax = Math.max(...shares.flat(), 1 / Math.max(1, x.length));
  const y = shares.map((_, layer) => layer);
  const xaxis = { title: "expert", dtick: 1 };
  const layout = {
    title: `Share of tokens by expert, step ${step}`,
    xaxis,
    yaxis: { title: "layer", dtick: 1 },
  };
  return { data: [{ type: "heatmap", x, y, z: shares, zmin: 0, zmax }], layout };
}

/** How uneven each layer was over the run: the share of its busiest expert times their number. */
export function imbalanceFigure(loads: ExpertLoad[]): RunFigure {
  const layers = loads[0]?.shares.length ?? 0;
  const curve = (layer: number) =>
    loads.map(({ step, shares }): [number, number] => [step, imbalance(shares[layer] ?? [])]);
  const data = Array.from({ length: layers }, (_, layer) =>
    lineTrace(`layer ${layer}`, thinned(curve(layer))),
  );
  const yaxis = { title: "busiest expert / even share", rangemode: "tozero" as const };
  return { data, layout: { title: "Balance of the experts", xaxis: { title: "step" }, yaxis } };
}

//| 04-training/7-the-loop.ipynb#summary
/** What a report says about a run, besides its metrics. */
export interface RunSummary {
  name: string;
  config: object;
  model: object;
  parameters: { total: number; active: number };
  /** Tokens and bytes of the validation split, or of that to learn from: they turn nats a token into bits a byte. */
  valSize: { tokens: number; bytes: number };
  /** Bits a byte that no model can get below, where the text's distribution is known. */
  entropy?: number;
  environment: Record<string, string>;
  samples: { step: number; text: string }[];
}

/** All figures of a run. */
export function runFigures(metrics: Metrics[], loads: ExpertLoad[], summary: RunSummary): RunFigure[] {
  const figures = [
    lossFigure(metrics, summary.valSize, summary.entropy),
    metricFigure(metrics, "grad_norm", "Norm of the gradient", "norm"),
    metricFigure(metrics, "lr", "Learning rate", "rate"),
    metricFigure(metrics, "tokens_per_second", "Speed", "tokens per second"),
  ];
  const hasExperts = loads.some(({ shares }) => shares.length > 0);
  return hasExperts ? [...figures, loadFigure(loads), imbalanceFigure(loads)] : figures;
}

/** The last line of a report: validation loss, and the entropy where it is known. */
export function verdict(metrics: Metrics[], entropy?: number): string {
  const bits = curveOf(metrics, "val_bpb").at(-1)?.[1];
  const reached =
    bits === undefined ? "validation not measured" : `validation ${bits.toFixed(4)} bits per byte`;
  return entropy === undefined ? reached : `${reached}, entropy ${entropy.toFixed(4)}`;
}

//| 04-training/7-the-loop.ipynb#summary-rows
/** What a report says in figures: a label and a value each. */
export function summaryRows(metrics: Metrics[], summary: RunSummary): [string, string][] {
  const last = metrics.at(-1);
  const measured = metrics.filter(({ val_loss }) => val_loss !== undefined);
  const best = measured.reduce<Metrics | undefined>(
    (a, b) => (a && a.val_loss! <= b.val_loss! ? a : b),
    undefined,
  );
  const speeds = curveOf(metrics, "tokens_per_second")
    .map(([, speed]) => speed)
    .sort((a, b) => a - b);
  const { total, active } = summary.parameters;
  const count = (value?: number) => (value === undefined ? "none" : value.toLocaleString("en"));
  return [
    ["steps", count(last?.step)],
    ["tokens seen", count(last?.tokens)],
    [
      "parameters",
      total === active ? count(total) : `${count(total)}, of which a token meets ${count(active)}`,
    ],
    ["training loss", last?.train_loss === undefined ? "none" : `${last.train_loss.toFixed(4)} nats a token`],
    ["validation loss", measured.length ? `${measured.at(-1)!.val_loss!.toFixed(4)} nats a token` : "none"],
    ["lowest validation", best ? `${best.val_loss!.toFixed(4)} at step ${best.step}` : "none"],
    ["tokens a second", count(speeds[Math.floor(speeds.length / 2)])],
    ...Object.entries(summary.environment),
  ];
}

/** The report as plain text; the verdict is its last line. */
export function reportText(metrics: Metrics[], summary: RunSummary): string {
  const rows = summaryRows(metrics, summary);
  const width = Math.max(...rows.map(([label]) => label.length));
  const samples = summary.samples
    .slice(-1)
    .flatMap(({ step, text }) => ["", `Sample at step ${step}:`, text.trim()]);
  const lines = [
    `Training run ${summary.name}`,
    "",
    ...rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`),
    ...samples,
    "",
    verdict(metrics, summary.entropy),
  ];
  return `${lines.join("\n")}\n`;
}

//| 04-training/7-the-loop.ipynb#report-style
/** How a report looks. */
export const reportStyle = `
:root { color-scheme: light; --ink: #1b2433; --soft: #4b5768; --line: #e3e8f0; --accent: #2f6fde; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: #f5f7fb; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
.verdict { font-size: 19px; color: var(--accent); margin: 0 0 20px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
.figures > div, table, pre { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
.figures > div:first-child { grid-column: 1 / -1; }
table { border-collapse: collapse; } td { padding: 5px 14px; border-top: 1px solid var(--line); }
tr:first-child td { border-top: 0; } td:first-child { color: var(--soft); }
pre { padding: 14px 16px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }`;

//| 04-training/7-the-loop.ipynb#report-script
/** Draws the figures of the page; it is put into the page as text. */
export const reportScript = `
const font = { family: "system-ui, sans-serif", size: 12, color: "#4b5768" };
const blues = [[0, "#f7f9fd"], [0.3, "#9dbdf0"], [0.6, "#2f6fde"], [1, "#122f6d"]];
const axis = (given) => ({ ...given, title: { text: given.title }, gridcolor: "#e9edf3", automargin: true });
const legend = { orientation: "h", y: 1.02, x: 1, xanchor: "right", yanchor: "bottom" };
const colorway = ["#2f6fde", "#f0803c", "#16917a", "#c2418c", "#7b5cd6", "#d29c06"];
const margin = { t: 46, r: 18, b: 10, l: 10 };
figures.forEach(({ data, layout }, i) => {
  const title = { text: layout.title, x: 0.02, font: { size: 15 } };
  const axes = { xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) };
  const coloured = data.map((each) => (each.type === "heatmap" ? { ...each, colorscale: blues } : each));
  const whole = { ...layout, ...axes, title, font, legend, colorway, margin, height: i === 0 ? 400 : 300 };
  Plotly.newPlot("figure-" + i, coloured, whole, { responsive: true, displayModeBar: false });
});`;

//| 04-training/7-the-loop.ipynb#report-html
/** Text as HTML shows it literally. */
export function htmlText(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** JSON to stand in a script element, which `</script`, but also `<!--<script`, in a text of it would derange. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

/** The report as one HTML page that needs no network: `plotly` is the source of plotly.js. */
export function reportHtml(
  metrics: Metrics[],
  loads: ExpertLoad[],
  summary: RunSummary,
  plotly: string,
): string {
  const figures = runFigures(metrics, loads, summary);
  const rows = summaryRows(metrics, summary).map(
    ([a, b]) => `<tr><td>${htmlText(a)}</td><td>${htmlText(b)}</td></tr>`,
  );
  const samples = summary.samples.map(
    ({ step, text }) => `<p>Step ${step}</p><pre>${htmlText(text.trim())}</pre>`,
  );
  const json = (value: object) => `<pre>${htmlText(JSON.stringify(value, null, 2))}</pre>`;
  // Of code that is our own, only "</" could end its element early.
  const script = (source: string) => `<script>${source.replaceAll("</", "<\\/")}</script>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${htmlText(summary.name)}</title><style>${reportStyle}</style></head><body><main>
<h1>Training run ${htmlText(summary.name)}</h1><p class="verdict">${verdict(metrics, summary.entropy)}</p>
<div class="figures">${figures.map((_, i) => `<div id="figure-${i}"></div>`).join("")}</div>
<h2>The run</h2><table>${rows.join("")}</table>
<h2>Samples</h2>${samples.join("\n") || "<p>None were taken.</p>"}
<h2>Configuration</h2>${json(summary.config)}<h2>Model</h2>${json(summary.model)}
</main>${script(plotly)}${script(`const figures = ${scriptJson(figures)};${reportScript}`)}</body></html>
`;
}
