/** The plan of a static picture: its traces made definite, its margins, its axes, its legend. */
import { type Extent, isCategory, makeScale, type Scale, toArray } from "./axes.js";
import { PALETTE } from "./colors.js";
import type { Axis, AxisValue, Figure, Layout, Trace } from "./spec.js";
import { plainText, textLines, textWidth } from "./text.js";

/** A trace with everything that plotly would assume filled in. */
export interface Drawn {
  trace: Trace;
  type: "scatter" | "bar" | "heatmap";
  x: AxisValue[];
  y: AxisValue[];
  color: string;
  lines: boolean;
  markers: boolean;
  text: boolean;
  horizontal: boolean;
  /** Draws against the second y axis, on the right. */
  second: boolean;
  /** Bars: from where to where each one reaches, and its place beside others of the same x. */
  bars?: { base: number[]; end: number[]; offset: number; width: number };
}

export interface LegendItem {
  drawn: Drawn;
  label: string;
  x: number;
  y: number;
}

export interface Frame {
  width: number;
  height: number;
  margin: { l: number; r: number; t: number; b: number };
  x: Scale;
  y: Scale;
  y2?: Scale;
  xAxis: Axis;
  yAxis: Axis;
  y2Axis: Axis;
  title: string;
  legend: LegendItem[];
  /** Degrees by which the labels under the x axis are turned. */
  tickAngle: number;
}

export const SIZE = { width: 720, height: 400, title: 15, axisTitle: 12.5, tick: 11.5, legend: 12 };

/**
 * The values that a heatmap's first and last colour stand for. What a trace says counts, and what it leaves out comes from
 * its values; plotly takes no notice of one end without the other, and is told both.
 */
export function heatRange({ z, zmin, zmax, zmid }: Trace): [number, number] {
  const values = (z ?? []).flatMap((row) => toArray<number | null>(row)).filter(Number.isFinite) as number[];
  let low = zmin ?? values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  let high = zmax ?? values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (zmid !== undefined) {
    const reach = Math.max(high - zmid, zmid - low);
    [low, high] = [zmid - reach, zmid + reach];
  }
  if (high > low) return [low, high];
  return Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
}

/** A title may be a string or `{ text }`. */
export function titleOf(title: string | { text?: string } | undefined): string {
  return (typeof title === "string" ? title : title?.text) ?? "";
}

/** Where the title starts: above the plot, or at the page's edge when long names push the plot far in. */
export function titleLeft(margin: number): number {
  return margin > 72 ? 16 : margin;
}

const indices = (length: number) => Array.from({ length }, (_, i) => i);

function drawnTrace(trace: Trace, index: number): Drawn {
  const type = trace.type ?? (trace.z ? "heatmap" : "scatter");
  if (!["scatter", "bar", "heatmap"].includes(type)) {
    throw new Error(`show cannot draw a trace of type "${type}"; it knows scatter, bar and heatmap.`);
  }
  const columns = trace.z?.[0] ? trace.z[0].length : 0;
  let x = toArray<AxisValue>(trace.x);
  let y = toArray<AxisValue>(trace.y);
  if (!x.length) x = indices(type === "heatmap" ? columns : y.length);
  if (!y.length) y = indices(type === "heatmap" ? (trace.z?.length ?? 0) : x.length);
  const mode = trace.mode ?? (y.length < 20 ? "lines+markers" : "lines");
  const own = trace.line?.color ?? (typeof trace.marker?.color === "string" ? trace.marker.color : undefined);
  return {
    trace,
    type,
    x,
    y,
    color: own ?? PALETTE[index % PALETTE.length],
    lines: mode.includes("lines"),
    markers: mode.includes("markers"),
    text: mode.includes("text"),
    horizontal: trace.orientation === "h",
    second: trace.yaxis === "y2",
  };
}

/** Bars of one place: beside each other, or each on top of those before it (below zero, downwards). */
function placeBars(drawn: Drawn[], layout: Layout): void {
  const bars = drawn.filter((d) => d.type === "bar");
  const stacked = layout.barmode === "stack" || layout.barmode === "relative";
  const groups = stacked || layout.barmode === "overlay" ? 1 : bars.length;
  const width = (unitOf(bars) * (1 - (layout.bargap ?? 0.25))) / Math.max(1, groups);
  const tops = new Map<string, number>();
  bars.forEach((d, index) => {
    const base: number[] = [];
    const end = (d.horizontal ? d.x : d.y).map((value, i) => {
      const place = (d.horizontal ? d.y : d.x)[i];
      const key = `${place} ${Number(value) < 0}`;
      base.push(stacked ? (tops.get(key) ?? 0) : 0);
      tops.set(key, base[i] + Number(value));
      return base[i] + Number(value);
    });
    const own = d.trace.width ?? width;
    d.bars = { base, end, width: own, offset: groups === 1 ? 0 : (index - (groups - 1) / 2) * width };
  });
}

/** The smallest distance between two bars' places: 1 for names, else what the numbers say. */
function unitOf(bars: Drawn[]): number {
  const places = [...new Set(bars.flatMap((d) => (d.horizontal ? d.y : d.x)))];
  if (places.length < 2 || places.some((place) => typeof place === "string")) return 1;
  const sorted = places.map(Number).sort((a, b) => a - b);
  return sorted
    .slice(1)
    .reduce((least, value, i) => Math.min(least, value - sorted[i]), Number.POSITIVE_INFINITY);
}

function cellUnit(values: AxisValue[]): number {
  const numbers = values.map(Number);
  return numbers.length > 1 ? Math.abs(numbers[1] - numbers[0]) : 1;
}

/** Everything that the axis `which` of the plot must hold. */
function extentOf(drawn: Drawn[], which: "x" | "y", layout: Layout, axis: Axis): Extent {
  const extent: Extent = { values: [], withZero: false, pad: which === "y" ? 0.06 : 0, halfCell: 0 };
  for (const d of drawn) {
    const along = d.horizontal ? "x" : "y";
    if (d.type === "bar" && which === along) {
      extent.values.push(...(d.bars?.end ?? []), ...(d.bars?.base ?? []));
      extent.withZero = true;
      extent.pad = 0.06;
      continue;
    }
    extent.values.push(...d[which]);
    if (d.type === "bar") extent.halfCell = Math.max(extent.halfCell, unitOf([d]) / 2);
    if (d.type === "heatmap") Object.assign(extent, { halfCell: cellUnit(d[which]) / 2, pad: 0 });
    if (d.type === "scatter" && (d.markers || d.text) && which === "x")
      extent.pad = Math.max(extent.pad, 0.04);
    if (d.trace.error_y && d.trace.error_y.visible !== false && which === "y")
      extent.values.push(...errorEnds(d));
    if (which === "y" && d.trace.fill === "tozeroy") extent.withZero = axis.type !== "log";
  }
  for (const shape of layout.shapes ?? []) {
    const paper = (which === "x" ? shape.xref : shape.yref) === "paper";
    if (!paper && drawn.length)
      extent.values.push(...(which === "x" ? [shape.x0, shape.x1] : [shape.y0, shape.y1]));
  }
  return extent;
}

function errorEnds(d: Drawn): number[] {
  const errors = toArray<number>(d.trace.error_y?.array);
  return d.y.flatMap((value, i) => [Number(value) - errors[i], Number(value) + errors[i]]);
}

/** The legend in rows above the plot; only named traces appear, and one alone needs none. */
function legendItems(drawn: Drawn[], layout: Layout, width: number): { items: LegendItem[]; rows: number } {
  const inLegend = drawn.filter((d) => d.trace.name && d.trace.showlegend !== false && d.type !== "heatmap");
  const groups = new Set<string>();
  const items: LegendItem[] = [];
  if (!(layout.showlegend ?? inLegend.length > 1)) return { items, rows: 0 };
  let x = 0;
  let row = 0;
  for (const d of inLegend) {
    if (d.trace.legendgroup && groups.has(d.trace.legendgroup)) continue;
    if (d.trace.legendgroup) groups.add(d.trace.legendgroup);
    const label = d.trace.name ?? "";
    const itemWidth = 26 + textWidth(label, SIZE.legend) + 18;
    if (x > 0 && x + itemWidth > width) {
      x = 0;
      row++;
    }
    items.push({ drawn: d, label, x, y: row * 19 });
    x += itemWidth;
  }
  return { items, rows: items.length ? row + 1 : 0 };
}

const labelWidth = (label: string) => Math.max(...textLines(label).map((line) => textWidth(line, SIZE.tick)));

const widest = (scale: Scale) => Math.max(0, ...scale.ticks.map((tick) => labelWidth(tick.label)));

/** A label over several lines, broken at its spaces; each as long as `room` allows. */
function wrapLabel(label: string, room: number): string {
  const lines: string[] = [];
  for (const word of label.split(" ")) {
    const longer = lines.length ? `${lines[lines.length - 1]} ${word}` : word;
    if (lines.length && textWidth(longer, SIZE.tick) <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.join("<br>");
}

/** Breaks the names under the x axis into lines where they would touch, if three lines are enough. */
function wrapNames(scale: Scale, axis: Axis, pixels: number): void {
  const room = pixels / Math.max(1, scale.ticks.length) - 8;
  const all = scale.ticks.length === scale.categories.length;
  if (scale.kind !== "category" || !all || axis.tickangle !== undefined || widest(scale) <= room) return;
  const wrapped = scale.ticks.map((tick) => wrapLabel(tick.label, room));
  if (wrapped.some((label) => labelWidth(label) > room || textLines(label).length > 3)) return;
  for (const [i, tick] of scale.ticks.entries()) tick.label = wrapped[i];
}

/** How the labels under the x axis must be turned so that they do not touch. */
function angleOf(scale: Scale, axis: Axis, pixels: number): number {
  if (axis.tickangle !== undefined) return axis.tickangle;
  const room = pixels / Math.max(1, scale.ticks.length);
  if (scale.kind !== "category" && !axis.ticktext) return 0;
  return widest(scale) + 6 > room ? -40 : 0;
}

function leftMargin(scale: Scale, axis: Axis): number {
  if (axis.visible === false) return 16;
  const labels = axis.showticklabels === false ? 0 : widest(scale) + 10;
  return Math.ceil(Math.max(24, labels + (titleOf(axis.title) ? 24 : 6)));
}

function bottomMargin(scale: Scale, axis: Axis, angle: number): number {
  if (axis.visible === false) return 16;
  const lines = Math.max(1, ...scale.ticks.map((tick) => textLines(tick.label).length));
  const flat = lines * SIZE.tick * 1.25;
  const turned = angle ? Math.abs(Math.sin((angle * Math.PI) / 180)) * widest(scale) + 8 : flat;
  const labels = axis.showticklabels === false ? 0 : turned + 10;
  return Math.ceil(labels + (titleOf(axis.title) ? 28 : 8));
}

/** About how many ticks fit a length of `pixels`; names need room for the text itself. */
function tickCount(pixels: number, values: AxisValue[], axis: Axis, horizontal: boolean): number {
  if (!isCategory(axis, values)) return Math.max(2, Math.round(pixels / (horizontal ? 95 : 55)));
  const turned = horizontal ? 15 : 14;
  return Math.floor(pixels / turned);
}

/** Lays a figure out. Throws when a trace has a kind that the book does not draw. */
export function planFigure(figure: Figure): { drawn: Drawn[]; frame: Frame } {
  const layout = figure.layout ?? {};
  const width = layout.width ?? SIZE.width;
  const height = layout.height ?? SIZE.height;
  const drawn = figure.data.map(drawnTrace);
  placeBars(drawn, layout);
  const title = titleOf(layout.title);
  const [xAxis, yAxis, y2Axis] = [layout.xaxis ?? {}, layout.yaxis ?? {}, layout.yaxis2 ?? {}];
  const first = drawn.filter((d) => !d.second);
  const second = drawn.filter((d) => d.second);
  const xExtent = extentOf(drawn, "x", layout, xAxis);
  const yExtent = extentOf(first.length ? first : drawn, "y", layout, yAxis);
  const y2Extent = extentOf(second, "y", { ...layout, shapes: [] }, y2Axis);
  // The left margin needs the labels, the labels need a height, and the height needs only the rows above and
  // below: so the y axis is laid out twice, first roughly.
  const count = (pixels: number, horizontal: boolean) =>
    tickCount(pixels, horizontal ? xExtent.values : yExtent.values, horizontal ? xAxis : yAxis, horizontal);
  const roughY = makeScale(yAxis, yExtent, [height - 60, 40], count(height - 100, false));
  const roughY2 = second.length ? makeScale(y2Axis, y2Extent, [height - 60, 40], 6) : undefined;
  const bar = drawn.some((d) => d.type === "heatmap" && d.trace.showscale !== false);
  const margin = { l: leftMargin(roughY, yAxis), r: 24, t: 0, b: 0 };
  if (roughY2) margin.r = leftMargin(roughY2, y2Axis) + 6;
  if (bar) margin.r = 84;
  const inner = width - margin.l - margin.r;
  const legend = legendItems(drawn, layout, inner);
  const titleRows = title ? textLines(title).length : 0;
  margin.t = 14 + (titleRows ? titleRows * 20 + 10 : 0) + legend.rows * 19 + (legend.rows ? 6 : 0);
  const x = makeScale(xAxis, xExtent, [margin.l, width - margin.r], count(inner, true));
  wrapNames(x, xAxis, inner);
  const tickAngle = angleOf(x, xAxis, inner);
  margin.b = bottomMargin(x, xAxis, tickAngle);
  const ends: [number, number] = [height - margin.b, margin.t];
  const y = makeScale(yAxis, yExtent, ends, count(ends[0] - ends[1], false));
  const y2 = second.length ? makeScale(y2Axis, y2Extent, ends, 6) : undefined;
  const frame = {
    width,
    height,
    margin,
    x,
    y,
    y2,
    xAxis,
    yAxis,
    y2Axis,
    title: plainText(title) ? title : "",
  };
  return { drawn, frame: { ...frame, legend: legend.items, tickAngle } };
}
