// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { type ExpertLoad, type Metrics, imbalance } from "./monitor.js";
import type { TrainingData } from "./step.js";

//| 04-training/a-the-trainers-desk.ipynb#curves
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

//| 04-training/a-the-trainers-desk.ipynb#curves-2
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

//| 04-training/a-the-trainers-desk.ipynb#loss-figure
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

//| 04-training/a-the-trainers-desk.ipynb#load-figures
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
