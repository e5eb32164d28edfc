/** The same figure for plotly: the book's template, margins and colours, with numbers kept short. */
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { colorStops, DIVERGING, INK, PALETTE, SEQUENTIAL } from "./colors.js";
import { escapeHtml } from "./display.js";
import type { Annotation, Axis, Figure, Layout, Shape, Trace } from "./spec.js";
import { type Drawn, type Frame, heatRange, titleLeft, titleOf } from "./frame.js";
import { FONT } from "./text.js";

/** How many points a line keeps: more than the pixels it is drawn on. */
export const MOST_LINE_POINTS = 2000;
export const MOST_MARKERS = 5000;
export const MOST_CELLS = 16_384;

const axisStyle = {
  gridcolor: INK.grid,
  linecolor: INK.axis,
  zerolinecolor: INK.axis,
  zerolinewidth: 1,
  tickfont: { size: 11.5, color: INK.text },
  title: { font: { size: 12.5, color: INK.text }, standoff: 10 },
  automargin: true,
  ticks: "",
  autotypenumbers: "strict",
};

/** The house style as a plotly template, so that the interactive figure looks as the static one. */
const TEMPLATE = {
  layout: {
    colorway: PALETTE,
    font: { family: FONT.replace(/'/g, ""), size: 12, color: INK.text },
    paper_bgcolor: INK.paper,
    plot_bgcolor: INK.paper,
    hovermode: "closest",
    bargap: 0.25,
    xaxis: { ...axisStyle, showline: true, zeroline: false },
    yaxis: axisStyle,
  },
};

/**
 * A number short enough to keep in a notebook and close enough to draw: four digits, or as many more as it takes to
 * tell values apart that differ by `span` only. Whole numbers stay as they are.
 */
export function shortNumber(value: number, span = 0): number | null {
  if (!Number.isFinite(value)) return null;
  if (value === 0 || (Number.isInteger(value) && Math.abs(value) < 1e7)) return value;
  const magnitude = (size: number) => Math.floor(Math.log10(size));
  const extra = span > 0 ? magnitude(Math.abs(value)) - magnitude(span) : 0;
  return Number(value.toPrecision(Math.min(15, 4 + Math.max(0, extra))));
}

function spanOf(values: unknown[]): number {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    if (typeof value !== "number" || !Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return high > low ? high - low : 0;
}

/** `value` as plain JSON: typed arrays become lists, numbers short, what is not a number null. */
export function toPlainJson(value: unknown, span = 0): unknown {
  if (typeof value === "number") return shortNumber(value, span);
  if (typeof value === "bigint") return Number(value);
  if (ArrayBuffer.isView(value)) return toPlainJson(Array.from(value as Float32Array), span);
  if (Array.isArray(value)) {
    const range = spanOf(value);
    return value.map((item) => toPlainJson(item, range));
  }
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).filter(
    ([, item]) => item !== undefined && typeof item !== "function",
  );
  return Object.fromEntries(entries.map(([key, item]) => [key, toPlainJson(item)]));
}

/**
 * Which points a long line keeps: of every stretch the lowest and the highest, so that no spike is lost.
 * The first and the last always stay.
 */
export function thinLine(y: ArrayLike<unknown>, most: number): number[] {
  const stretches = Math.max(1, Math.floor((most - 2) / 2));
  const kept = new Set<number>([0, y.length - 1]);
  for (let s = 0; s < stretches; s++) {
    const from = Math.floor((s * y.length) / stretches);
    const to = Math.floor(((s + 1) * y.length) / stretches);
    let [low, high] = [from, from];
    for (let i = from; i < to; i++) {
      if (Number(y[i]) < Number(y[low])) low = i;
      if (Number(y[i]) > Number(y[high])) high = i;
    }
    kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b);
}

/** A trace that is small enough to keep; throws, saying what to do, when points cannot be left out unseen. */
export function limitTrace(trace: Trace): Trace {
  const cells = (trace.z ?? []).reduce((sum, row) => sum + row.length, 0);
  if (cells > MOST_CELLS) {
    throw new Error(
      `A heatmap of ${cells} cells is more than a page shows (${MOST_CELLS}): show a part of it, or averages.`,
    );
  }
  const length = Math.max(trace.x?.length ?? 0, trace.y?.length ?? 0);
  const lines =
    (trace.type ?? "scatter") === "scatter" && (trace.mode === undefined || trace.mode === "lines");
  if (lines && length > MOST_LINE_POINTS) {
    const y = trace.y ?? [];
    const kept = thinLine(y, MOST_LINE_POINTS);
    return { ...trace, x: kept.map((i) => trace.x?.[i] ?? i), y: kept.map((i) => y[i]) };
  }
  if (!cells && length > MOST_MARKERS) {
    throw new Error(
      `${length} points are more than a page shows (${MOST_MARKERS}): show a sample of them, or lines only.`,
    );
  }
  return trace;
}

function plotlyTrace(d: Drawn): object {
  const { trace, type } = d;
  const scale = trace.colorscale ?? (trace.zmid === undefined ? SEQUENTIAL : DIVERGING);
  const scales =
    type === "heatmap"
      ? { colorscale: colorStops(scale), colorbar: plotlyColorBar(trace), ...plotlyHeatRange(trace) }
      : {};
  const line = type === "scatter" && d.lines ? { line: { width: 2, ...trace.line, color: d.color } } : {};
  const several = trace.marker?.color !== undefined && typeof trace.marker.color !== "string";
  const markers = several
    ? { colorscale: colorStops(trace.marker?.colorscale) }
    : { color: trace.marker?.color ?? d.color };
  const size = type === "scatter" ? { size: 6.5 } : {};
  const marker = type === "heatmap" ? {} : { marker: { ...size, ...trace.marker, ...markers } };
  const mode = type === "scatter" ? { mode: modeOf(d) } : {};
  const legend = trace.name ? {} : { showlegend: false };
  const fill = trace.fill && trace.fill !== "none" && !trace.fillcolor ? { fillcolor: `${d.color}29` } : {};
  return { ...trace, ...mode, ...line, ...marker, ...scales, ...legend, ...fill, type, x: d.x, y: d.y };
}

/** Both ends of the colours where a trace says anything of them: one alone plotly takes no notice of. */
function plotlyHeatRange(trace: Trace): object {
  const { zmin, zmax, zmid } = trace;
  if (zmin === undefined && zmax === undefined && zmid === undefined) return {};
  const [low, high] = heatRange(trace);
  return { zmin: low, zmax: high };
}

function modeOf(d: Drawn): string {
  const parts = [d.lines && "lines", d.markers && "markers", d.text && "text"].filter(Boolean);
  return parts.length ? parts.join("+") : "none";
}

function plotlyColorBar(trace: Trace): object {
  const text = titleOf(trace.colorbar?.title);
  return {
    thickness: 12,
    outlinewidth: 0,
    ypad: 0,
    tickfont: { size: 11 },
    title: { text, font: { size: 11 } },
  };
}

/** An axis for plotly, which takes no notice of a range that is to be reversed. */
function plotlyAxis(axis: Axis | undefined, extra: object = {}): object {
  const { range, autorange } = axis ?? {};
  const turned = range && autorange === "reversed" ? { range: [range[1], range[0]], autorange: false } : {};
  return { ...extra, ...axis, ...turned, title: { text: titleOf(axis?.title) } };
}

/** Plotly counts an annotation's place on a log axis in powers of ten; ours are values everywhere. */
function plotlyNote(note: Annotation, layout: Layout): object {
  const power = (value: Annotation["x"], axis?: Axis) =>
    axis?.type === "log" && typeof value === "number" ? Math.log10(value) : value;
  const x = note.xref === "paper" ? note.x : power(note.x, layout.xaxis);
  const y = note.yref === "paper" ? note.y : power(note.y, layout.yaxis);
  const arrow =
    note.showarrow === false ? {} : { arrowhead: 2, arrowwidth: 1.2, arrowcolor: INK.text, arrowsize: 0.8 };
  return { bgcolor: "rgba(255,255,255,0.7)", ...arrow, ...note, x, y };
}

const plotlyShape = (mark: Shape) => ({
  ...mark,
  line: { color: INK.faint, width: mark.line || mark.type === "line" ? 1.5 : 0, ...mark.line },
});

/** The layout for plotly: what was asked for, in the house style, with the static picture's measures. */
function plotlyLayout(figure: Figure, frame: Frame): object {
  const layout = figure.layout ?? {};
  const { width, height, margin } = frame;
  const title = {
    text: frame.title,
    x: titleLeft(margin.l) / width,
    xanchor: "left",
    y: 1 - 12 / height,
    yanchor: "top",
  };
  const grid = (which: "x" | "y") => {
    const scale = frame[which];
    return scale.kind === "category" || layout[`${which}axis`]?.ticktext ? { showgrid: false } : {};
  };
  const wrapped = frame.x.kind === "category" && frame.x.ticks.some(({ label }) => label.includes("<br>"));
  const names = wrapped
    ? { tickvals: frame.x.categories, ticktext: frame.x.ticks.map(({ label }) => label) }
    : {};
  const second = frame.y2
    ? {
        yaxis2: plotlyAxis(layout.yaxis2, {
          ...axisStyle,
          overlaying: "y",
          side: "right",
          showgrid: false,
          zeroline: false,
          tickmode: "auto",
        }),
      }
    : {};
  return {
    template: TEMPLATE,
    ...layout,
    ...second,
    width,
    height,
    margin,
    title: frame.title ? { ...title, font: { size: 15, color: INK.title, weight: 600 } } : undefined,
    showlegend: frame.legend.length > 0,
    legend: {
      orientation: "h",
      x: 0,
      xanchor: "left",
      y: 1.01,
      yanchor: "bottom",
      traceorder: "normal",
      ...layout.legend,
    },
    xaxis: plotlyAxis(layout.xaxis, { ...grid("x"), ...names, tickangle: frame.tickAngle || undefined }),
    yaxis: plotlyAxis(layout.yaxis, grid("y")),
    shapes: layout.shapes?.map(plotlyShape),
    annotations: layout.annotations?.map((note) => plotlyNote(note, layout)),
  };
}

/** A figure as plotly JSON. */
export function toPlotly(figure: Figure, drawn: Drawn[], frame: Frame): object {
  return toPlainJson({ data: drawn.map(plotlyTrace), layout: plotlyLayout(figure, frame) }) as object;
}

/** Where a Jupyter server may serve the library from: below its root, or some folders deeper. */
function libraryPaths(): string[] {
  try {
    const file = createRequire(import.meta.url).resolve("plotly.js-cartesian-dist-min");
    const parts = file.split(/[\\/]/);
    const from = parts.lastIndexOf("node_modules");
    return [0, 1, 2, 3].map(
      (up) =>
        `files/${parts
          .slice(from - up)
          .map(encodeURIComponent)
          .join("/")}`,
    );
  } catch {
    return [];
  }
}

/** Runs in the page: loads the library once, from the reader's own server, and brings figure `id` to life. */
const SCRIPT = `(function(id,paths){
var base=document.body.dataset.baseUrl;
if(!base){var lab=document.getElementById("jupyter-config-data");try{base=JSON.parse(lab.textContent).baseUrl}catch(e){}}
if(!base)return;
function load(i){return new Promise(function(ok,no){
if(window.Plotly)return ok(window.Plotly);
if(i>=paths.length)return no(new Error("plotly is not served here"));
var s=document.createElement("script");s.src=base.replace(/\\/?$/,"/")+paths[i];
s.onload=function(){window.Plotly?ok(window.Plotly):load(i+1).then(ok,no)};
s.onerror=function(){s.remove();load(i+1).then(ok,no)};
document.head.appendChild(s)})}
window.tslmPlotly=window.tslmPlotly||load(0);
window.tslmPlotly.then(function(Plotly){
var box=document.getElementById(id);if(!box||box.dataset.live)return;box.dataset.live="1";
var figure=JSON.parse(box.querySelector("script").textContent),still=box.querySelector("svg");
var live=document.createElement("div");live.style.display="none";box.appendChild(live);
var shown={responsive:false,displaylogo:false,displayModeBar:"hover",modeBarButtonsToRemove:["select2d","lasso2d","autoScale2d"]};
live.style.display="block";live.style.position="absolute";live.style.visibility="hidden";
return Plotly.newPlot(live,figure.data,figure.layout,shown).then(function(){
still.remove();live.style.position="";live.style.visibility=""})
}).catch(function(){window.tslmPlotly.catch(function(){})})})`;

/**
 * The figure as HTML that needs no network: the static picture, which a small script replaces with the
 * interactive figure when the reader's own Jupyter server has the library. No copy of it travels.
 */
export function liveHtml(svg: string, plotly: object): string {
  const json = JSON.stringify(plotly).replace(/</g, "\\u003c");
  const id = `tslm-${createHash("sha256").update(json).digest("hex").slice(0, 10)}-${Math.random().toString(36).slice(2, 8)}`;
  const data = `<script type="application/json">${json}</script>`;
  const paths = escapeHtml(JSON.stringify(libraryPaths())).replace(/&quot;/g, '"');
  const style = "position:relative;max-width:100%;overflow-x:auto";
  return `<div id="${id}" style="${style}">${svg}${data}</div><script>${SCRIPT}("${id}",${paths})</script>`;
}
