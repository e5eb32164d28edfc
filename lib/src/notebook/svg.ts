/** The static picture of a figure: what a saved notebook shows where nothing runs. */
import { deflateSync } from "node:zlib";
import * as shape from "d3-shape";
import { format } from "d3-format";
import { type Scale, makeScale, toArray } from "./axes.js";
import { colorStops, contrastingText, DIVERGING, INK, sampleColor, toHex } from "./colors.js";
import type { Annotation, AxisValue, Figure, Layout, Line, Shape, Trace } from "./spec.js";
import { type Drawn, type Frame, heatRange, planFigure, SIZE, titleLeft, titleOf } from "./frame.js";
import { FONT, round, svgText, textLines, textWidth } from "./text.js";

const DASHES: Record<string, string> = { dash: "7 4", dot: "2 3.5", dashdot: "7 3.5 2 3.5" };

function dashOf(line?: Line): string {
  const dash = DASHES[line?.dash ?? ""];
  return dash ? ` stroke-dasharray="${dash}"` : "";
}

const segment = (x1: number, y1: number, x2: number, y2: number, rest: string) =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" ${rest}/>`;

const box = (x: number, y: number, width: number, height: number, rest: string) =>
  `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" ${rest}/>`;

// ---- axes -------------------------------------------------------------------------------------------------

function gridLines(frame: Frame): string {
  const { x, y, margin, width, height, xAxis, yAxis } = frame;
  const stroke = `stroke="${INK.grid}" stroke-width="1"`;
  const faint = `stroke="${INK.grid}" stroke-width="1" stroke-opacity="0.6"`;
  const down = (at: number, rest: string) => segment(at, margin.t, at, height - margin.b, rest);
  const across = (at: number, rest: string) => segment(margin.l, at, width - margin.r, at, rest);
  const xShown = xAxis.visible !== false && (xAxis.showgrid ?? (x.kind !== "category" && !xAxis.ticktext));
  const yShown = yAxis.visible !== false && (yAxis.showgrid ?? (y.kind !== "category" && !yAxis.ticktext));
  return [
    ...(xShown ? x.minor.map((at) => down(at, faint)) : []),
    ...(yShown ? y.minor.map((at) => across(at, faint)) : []),
    ...(xShown ? x.ticks.map((tick) => down(tick.at, stroke)) : []),
    ...(yShown ? y.ticks.map((tick) => across(tick.at, stroke)) : []),
  ].join("");
}

function axisLines(frame: Frame): string {
  const { y, margin, width, height, xAxis, yAxis } = frame;
  const stroke = `stroke="${INK.axis}" stroke-width="1"`;
  const bottom = height - margin.b;
  const lines: string[] = [];
  if (xAxis.visible !== false) lines.push(segment(margin.l, bottom, width - margin.r, bottom, stroke));
  const zero = y.kind === "linear" && y.low < 0 && y.high > 0 && yAxis.zeroline !== false;
  if (zero) lines.push(segment(margin.l, y.position(0), width - margin.r, y.position(0), stroke));
  return lines.join("");
}

function xLabels(frame: Frame): string {
  const { x, margin, width, height, xAxis, tickAngle } = frame;
  if (xAxis.visible === false) return "";
  const top = height - margin.b + 12;
  const anchor = tickAngle ? "end" : "middle";
  const labels = xAxis.showticklabels === false ? [] : x.ticks;
  const texts = labels.map((tick) => {
    const lines = textLines(tick.label).length;
    const y = tickAngle ? top - 1 : top + ((lines - 1) * SIZE.tick * 1.25) / 2;
    return svgText(tick.label, tick.at + (tickAngle ? 4 : 0), y, {
      size: SIZE.tick,
      anchor,
      rotate: tickAngle,
    });
  });
  const title = titleOf(xAxis.title);
  const middle = (margin.l + width - margin.r) / 2;
  if (title) texts.push(svgText(title, middle, height - 15, { size: SIZE.axisTitle, anchor: "middle" }));
  return texts.join("");
}

function yLabels(frame: Frame): string {
  const { y, margin, height, yAxis } = frame;
  if (yAxis.visible === false) return "";
  const labels = yAxis.showticklabels === false ? [] : y.ticks;
  const texts = labels.map((tick) =>
    svgText(tick.label, margin.l - 8, tick.at, { size: SIZE.tick, anchor: "end" }),
  );
  const middle = (margin.t + height - margin.b) / 2;
  const title = titleOf(yAxis.title);
  if (title) texts.push(svgText(title, 14, middle, { size: SIZE.axisTitle, anchor: "middle", rotate: -90 }));
  return texts.join("");
}

function secondLabels(frame: Frame): string {
  const { y2, y2Axis, margin, width, height } = frame;
  if (!y2) return "";
  const right = width - margin.r;
  const texts = y2.ticks.map((tick) => svgText(tick.label, right + 8, tick.at, { size: SIZE.tick }));
  const title = titleOf(y2Axis.title);
  const middle = (margin.t + height - margin.b) / 2;
  if (title)
    texts.push(svgText(title, width - 14, middle, { size: SIZE.axisTitle, anchor: "middle", rotate: 90 }));
  return texts.join("");
}

// ---- lines and points -------------------------------------------------------------------------------------

const CURVES = { linear: shape.curveLinear, hv: shape.curveStepAfter, spline: shape.curveMonotoneX };

/** Coordinates inside a path, to a tenth of a pixel. */
function shorten(path: string | null): string {
  return (path ?? "").replace(/-?\d+\.\d+/g, (number) => String(round(Number(number))));
}

type Point = [number, number];

/** The line drawn before the present one, for areas that reach down to it. */
interface Before {
  drawn: Drawn;
  points: Point[];
}

function pointsOf(d: Drawn, x: Scale, y: Scale): Point[] {
  const length = Math.min(d.x.length, d.y.length);
  return Array.from({ length }, (_, i) => [x.position(d.x[i]), y.position(d.y[i])]);
}

const shown = ([x, y]: Point) => Number.isFinite(x) && Number.isFinite(y);

/** The same curve, walked from its end to its start. */
function backwards(d: Drawn, points: Point[]): string {
  const kind = d.trace.line?.shape ?? "linear";
  const curve = kind === "hv" ? shape.curveStepBefore : CURVES[kind];
  return (shape.line<Point>().curve(curve)([...points].reverse()) ?? "").replace("M", "L");
}

/** The area between a line and zero, or the line before it. */
function fillUnder(d: Drawn, points: Point[], before: Before | undefined, base: number): string {
  if (!d.trace.fill || d.trace.fill === "none") return "";
  const curve = CURVES[d.trace.line?.shape ?? "linear"];
  const onLine = d.trace.fill === "tonexty" && before && [...points, ...before.points].every(shown);
  const path = onLine
    ? `${shape.line<Point>().curve(curve)(points)}${backwards(before.drawn, before.points)}Z`
    : shape
        .area<Point>()
        .defined(shown)
        .curve(curve)
        .x((p) => p[0])
        .y1((p) => p[1])
        .y0(base)(points);
  const opacity = d.trace.fillcolor ? "" : ' fill-opacity="0.16"';
  return `<path d="${shorten(path)}" fill="${d.trace.fillcolor ?? d.color}"${opacity}/>`;
}

function linePath(d: Drawn, points: Point[]): string {
  const line = shape
    .line<Point>()
    .defined(shown)
    .curve(CURVES[d.trace.line?.shape ?? "linear"]);
  const width = d.trace.line?.width ?? 2;
  if (!d.lines || width === 0) return "";
  const join = 'stroke-linejoin="round" stroke-linecap="round"';
  const dash = dashOf(d.trace.line);
  return `<path d="${shorten(line(points))}" fill="none" stroke="${d.color}" stroke-width="${width}" ${join}${dash}/>`;
}

const SYMBOLS: Record<string, shape.SymbolType> = {
  square: shape.symbolSquare,
  diamond: shape.symbolDiamond2,
  cross: shape.symbolCross,
  x: shape.symbolTimes,
  "triangle-up": shape.symbolTriangle,
};

/** One point of a trace; `size` is its diameter in pixels. */
function symbolAt(symbol: string, x: number, y: number, size: number, paint: string): string {
  const kind = SYMBOLS[symbol];
  if (!kind) return `<circle cx="${round(x)}" cy="${round(y)}" r="${round(size / 2)}" ${paint}/>`;
  const path = shorten(shape.symbol(kind, (Math.PI * size * size) / 4)());
  return `<path d="${path}" transform="translate(${round(x)} ${round(y)})" ${paint}/>`;
}

/** The colour of every point: one for all, a list of them, or numbers on a scale. */
function markerColors(d: Drawn, count: number): string[] {
  const color = d.trace.marker?.color;
  if (color === undefined || typeof color === "string") return Array(count).fill(color ?? d.color);
  const values = toArray<unknown>(color as readonly unknown[]);
  if (typeof values[0] === "string") return values as string[];
  const numbers = values.map(Number);
  const low = numbers.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = numbers.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const stops = colorStops(d.trace.marker?.colorscale);
  return numbers.map((value) => toHex(sampleColor(stops, high > low ? (value - low) / (high - low) : 0.5)));
}

const fillOpacity = (opacity?: number) => (opacity === undefined ? "" : ` fill-opacity="${opacity}"`);

function markersOf(d: Drawn, points: Point[]): string {
  if (!d.markers) return "";
  const { size, symbol = "circle", opacity, line } = d.trace.marker ?? {};
  const colors = markerColors(d, points.length);
  const sizes = typeof size === "object" ? toArray<number>(size) : undefined;
  const edge = line ? ` stroke="${line.color ?? "#fff"}" stroke-width="${line.width ?? 1}"` : "";
  const paint = (i: number) => `fill="${colors[i] ?? d.color}"${fillOpacity(opacity)}${edge}`;
  return points
    .map((p, i) =>
      shown(p) ? symbolAt(symbol, p[0], p[1], sizes?.[i] ?? (size as number) ?? 6.5, paint(i)) : "",
    )
    .join("");
}

/** Where "top center", "middle right"… put a text of 11.5 pixels beside its point. */
function beside(position: string): { dx: number; dy: number; anchor: "start" | "middle" | "end" } {
  const dy = position.includes("top") ? -12 : position.includes("bottom") ? 12 : 0;
  if (position.includes("left")) return { dx: dy ? 0 : -8, dy, anchor: "end" };
  if (position.includes("right")) return { dx: dy ? 0 : 8, dy, anchor: "start" };
  return { dx: 0, dy, anchor: "middle" };
}

function pointTexts(d: Drawn, points: Point[]): string {
  if (!d.text || !d.trace.text) return "";
  const words = typeof d.trace.text === "string" ? points.map(() => d.trace.text as string) : d.trace.text;
  const { dx, dy, anchor } = beside(d.trace.textposition ?? "middle center");
  const style = {
    size: d.trace.textfont?.size ?? SIZE.tick,
    color: d.trace.textfont?.color ?? INK.text,
    anchor,
  };
  return points
    .map((p, i) => (shown(p) && words[i] ? svgText(String(words[i]), p[0] + dx, p[1] + dy, style) : ""))
    .join("");
}

function errorBars(d: Drawn, points: Point[], y: Scale): string {
  const errors = d.trace.error_y?.visible === false ? [] : toArray<number>(d.trace.error_y?.array);
  const stroke = `stroke="${d.color}" stroke-width="1.5" stroke-opacity="0.6"`;
  return errors
    .map((error, i) => {
      const [at, value] = [points[i][0], Number(d.y[i])];
      const [low, high] = [y.position(value - error), y.position(value + error)];
      if (![at, low, high].every(Number.isFinite)) return "";
      const caps = segment(at - 4, low, at + 4, low, stroke) + segment(at - 4, high, at + 4, high, stroke);
      return segment(at, low, at, high, stroke) + caps;
    })
    .join("");
}

function scatter(d: Drawn, frame: Frame, before: Before | undefined): string {
  const y = d.second && frame.y2 ? frame.y2 : frame.y;
  const points = pointsOf(d, frame.x, y);
  const zero = y.position(0);
  const base = Number.isFinite(zero) ? zero : y.position(y.low);
  const fill = fillUnder(d, points, before, base);
  return fill + linePath(d, points) + errorBars(d, points, y) + markersOf(d, points) + pointTexts(d, points);
}

// ---- bars -------------------------------------------------------------------------------------------------

interface Bar {
  x: number;
  y: number;
  width: number;
  height: number;
}

function barBox(d: Drawn, i: number, frame: Frame): Bar {
  const { base, end, offset, width } = d.bars!;
  const [place, along] = d.horizontal ? [frame.y, frame.x] : [frame.x, frame.y];
  const value = (d.horizontal ? d.y : d.x)[i];
  // On a log axis a bar's width follows its place: half a unit of the value to either side.
  const at = place.position(value);
  const unit =
    place.unit || Math.abs(place.position(Number(value) * 1.5) - at) / Math.max(0.5 * Number(value), 1e-9);
  const middle = at + offset * unit;
  const from = along.kind === "log" && base[i] <= 0 ? along.position(along.low) : along.position(base[i]);
  const to = along.position(end[i]);
  const thick = Math.abs(width * unit);
  if (d.horizontal)
    return { x: Math.min(from, to), y: middle - thick / 2, width: Math.abs(to - from), height: thick };
  return { x: middle - thick / 2, y: Math.min(from, to), width: thick, height: Math.abs(to - from) };
}

function barText(d: Drawn, i: number, bar: Bar, fill: string): string {
  const words = typeof d.trace.text === "string" ? d.trace.text : d.trace.text?.[i];
  if (!words) return "";
  const text = String(words);
  const size = d.trace.textfont?.size ?? 11;
  const wide = textWidth(text, size);
  const room = d.horizontal ? bar.width - 10 : bar.height - 6;
  const inside =
    d.trace.textposition === "inside" ||
    (d.trace.textposition !== "outside" && room > (d.horizontal ? wide : 16));
  const rgb = [1, 3, 5].map((at) => Number.parseInt(fill.slice(at, at + 2), 16));
  const color = d.trace.textfont?.color ?? (inside && fill.length === 7 ? contrastingText(rgb) : INK.text);
  if (d.horizontal) {
    const at = inside ? bar.x + bar.width - 6 : bar.x + bar.width + 6;
    return svgText(text, at, bar.y + bar.height / 2, { size, color, anchor: inside ? "end" : "start" });
  }
  return svgText(text, bar.x + bar.width / 2, inside ? bar.y + 10 : bar.y - 8, {
    size,
    color,
    anchor: "middle",
  });
}

function bars(d: Drawn, frame: Frame): string {
  const colors = markerColors(d, d.x.length);
  const length = Math.min(d.x.length, d.y.length);
  const opacity = d.trace.marker?.opacity;
  return Array.from({ length }, (_, i) => {
    const bar = barBox(d, i, frame);
    if (![bar.x, bar.y, bar.width, bar.height].every(Number.isFinite)) return "";
    const radius = Math.min(bar.width, bar.height) > 6 && d.bars!.base[i] === 0 ? ' rx="1.5"' : "";
    const paint = `fill="${colors[i]}"${fillOpacity(opacity)}${radius}`;
    return box(bar.x, bar.y, bar.width, bar.height, paint) + barText(d, i, bar, colors[i]);
  }).join("");
}

// ---- heatmaps ---------------------------------------------------------------------------------------------

/** From a cell's value to its colour, with the ends of the scale. */
function heatColors(trace: Trace): {
  color: (value: number) => [number, number, number];
  low: number;
  high: number;
} {
  const [low, high] = heatRange(trace);
  const stops = colorStops(
    trace.colorscale ?? (trace.zmid === undefined ? undefined : DIVERGING),
    trace.reversescale,
  );
  return { color: (value) => sampleColor(stops, (value - low) / (high - low)), low, high };
}

const isNumber = (value: number | null | undefined): value is number =>
  typeof value === "number" && Number.isFinite(value);

/** Pixel edges of the cells along one axis: half-way between neighbours. */
function cellEdges(values: AxisValue[], scale: Scale): number[] {
  const at = values.map((value) => scale.position(value));
  if (at.length === 1) {
    const half = scale.unit / 2 || 10;
    return [at[0] - half, at[0] + half];
  }
  const inner = at.slice(1).map((value, i) => (value + at[i]) / 2);
  return [2 * at[0] - inner[0], ...inner, 2 * at[at.length - 1] - inner[inner.length - 1]];
}

function cellText(trace: Trace, row: number, column: number, value: number): string {
  if (!trace.texttemplate) return "";
  const words = Array.isArray(trace.text) ? (trace.text as string[][])[row]?.[column] : trace.text;
  return trace.texttemplate
    .replace(/%\{text\}/g, String(words ?? ""))
    .replace(/%\{z(?::([^}]*))?\}/g, (_, how) =>
      how ? format(how)(value) : String(Number(value.toPrecision(4))),
    );
}

function heatCells(d: Drawn, frame: Frame): string {
  const { color } = heatColors(d.trace);
  const xs = cellEdges(d.x, frame.x);
  const ys = cellEdges(d.y, frame.y);
  const cells: string[] = [];
  const [across, down] = [d.trace.xgap ?? 0, d.trace.ygap ?? 0];
  (d.trace.z ?? []).forEach((values, row) => {
    toArray<number | null>(values).forEach((value, column) => {
      if (!isNumber(value)) return;
      const rgb = color(value);
      const [x, y] = [Math.min(xs[column], xs[column + 1]), Math.min(ys[row], ys[row + 1])];
      const [w, h] = [Math.abs(xs[column + 1] - xs[column]), Math.abs(ys[row + 1] - ys[row])];
      cells.push(
        box(
          x + across / 2,
          y + down / 2,
          w - across + 0.3 * Number(!across),
          h - down + 0.3 * Number(!down),
          `fill="${toHex(rgb)}"`,
        ),
      );
      const words = cellText(d.trace, row, column, value);
      if (!words) return;
      const size = Math.min(
        d.trace.textfont?.size ?? 12,
        h * 0.6,
        (w * 0.9 * 12) / Math.max(1, textWidth(words, 12)),
      );
      if (size < 5) return;
      const ink = d.trace.textfont?.color ?? contrastingText(rgb);
      cells.push(svgText(words, x + w / 2, y + h / 2, { size: round(size), color: ink, anchor: "middle" }));
    });
  });
  return cells.join("");
}

/** CRC-32 as PNG wants it (ISO 3309). */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

function pngChunk(name: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(data.length, 0);
  ends.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
}

/** A PNG (PNG specification, ISO 15948) of 8-bit red, green, blue, alpha rows. */
export function encodePng(width: number, height: number, rgba: Uint8Array): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 6, 0, 0, 0], 8);
  const rows = Buffer.alloc(height * (width * 4 + 1));
  for (let row = 0; row < height; row++) {
    rows.set(rgba.subarray(row * width * 4, (row + 1) * width * 4), row * (width * 4 + 1) + 1);
  }
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = pngChunk("IDAT", deflateSync(rows, { level: 9 }));
  return Buffer.concat([signature, pngChunk("IHDR", header), data, pngChunk("IEND", new Uint8Array())]);
}

/** Many cells as one picture with a pixel a cell: smaller by far than a rectangle each. */
function heatImage(d: Drawn, frame: Frame): string {
  const { color } = heatColors(d.trace);
  const xs = cellEdges(d.x, frame.x);
  const ys = cellEdges(d.y, frame.y);
  const [width, height] = [d.x.length, d.y.length];
  const rgba = new Uint8Array(width * height * 4);
  const flipX = xs[0] > xs[width];
  const flipY = ys[0] > ys[height];
  (d.trace.z ?? []).forEach((values, row) => {
    toArray<number | null>(values).forEach((value, column) => {
      if (!isNumber(value)) return;
      const at = (flipY ? height - 1 - row : row) * width + (flipX ? width - 1 - column : column);
      rgba.set([...color(value), 255], at * 4);
    });
  });
  const [x, y] = [Math.min(xs[0], xs[width]), Math.min(ys[0], ys[height])];
  const size = `width="${round(Math.abs(xs[width] - xs[0]))}" height="${round(Math.abs(ys[height] - ys[0]))}"`;
  const source = `data:image/png;base64,${encodePng(width, height, rgba).toString("base64")}`;
  const sharp = 'preserveAspectRatio="none" style="image-rendering:pixelated"';
  return `<image x="${round(x)}" y="${round(y)}" ${size} ${sharp} href="${source}"/>`;
}

function heatmap(d: Drawn, frame: Frame): string {
  const cells = d.x.length * d.y.length;
  const even = frame.x.kind !== "log" && frame.y.kind !== "log";
  const plain = even && !d.trace.texttemplate && !d.trace.xgap && !d.trace.ygap;
  return cells > 600 && plain ? heatImage(d, frame) : heatCells(d, frame);
}

function colorBar(d: Drawn, frame: Frame): string {
  const { color, low, high } = heatColors(d.trace);
  const { margin, width, height } = frame;
  const [top, bottom, left] = [margin.t, height - margin.b, width - margin.r + 16];
  const steps = 48;
  const tall = (bottom - top) / steps;
  const cells = Array.from({ length: steps }, (_, i) => {
    const rgb = color(low + ((i + 0.5) / steps) * (high - low));
    return box(left, bottom - (i + 1) * tall, 12, tall + 0.4, `fill="${toHex(rgb)}"`);
  });
  const extent = { values: [low, high], withZero: false, pad: 0, halfCell: 0 };
  const scale = makeScale(
    { range: [low, high] },
    extent,
    [bottom, top],
    Math.max(2, Math.round((bottom - top) / 60)),
  );
  const labels = scale.ticks.map((tick) => svgText(tick.label, left + 18, tick.at, { size: 11 }));
  const title = titleOf(d.trace.colorbar?.title);
  const name = title ? svgText(title, width - 8, top - 10, { size: 11, anchor: "end" }) : "";
  return cells.join("") + labels.join("") + name;
}

// ---- words and reference lines ----------------------------------------------------------------------------

function placeX(frame: Frame, value: AxisValue, ref?: string): number {
  const { margin, width } = frame;
  return ref === "paper" ? margin.l + Number(value) * (width - margin.l - margin.r) : frame.x.position(value);
}

function placeY(frame: Frame, value: AxisValue, ref?: string): number {
  const { margin, height } = frame;
  return ref === "paper"
    ? height - margin.b - Number(value) * (height - margin.t - margin.b)
    : frame.y.position(value);
}

function drawShape(mark: Shape, frame: Frame): string {
  const [x0, x1] = [placeX(frame, mark.x0, mark.xref), placeX(frame, mark.x1, mark.xref)];
  const [y0, y1] = [placeY(frame, mark.y0, mark.yref), placeY(frame, mark.y1, mark.yref)];
  if (![x0, x1, y0, y1].every(Number.isFinite)) return "";
  const stroke = `stroke="${mark.line?.color ?? INK.faint}" stroke-width="${mark.line?.width ?? 1.5}"${dashOf(mark.line)}`;
  const faint = mark.opacity === undefined ? "" : ` opacity="${mark.opacity}"`;
  if (mark.type === "line") return segment(x0, y0, x1, y1, stroke + faint);
  const paint = `fill="${mark.fillcolor ?? "none"}" ${mark.line ? stroke : 'stroke="none"'}${faint}`;
  return box(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0), paint);
}

function arrowTo(x: number, y: number, dx: number, dy: number): string {
  const long = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / long, dy / long];
  const [tipX, tipY] = [x + ux * 3, y + uy * 3];
  const [backX, backY] = [tipX + ux * 7, tipY + uy * 7];
  const head = [
    [tipX, tipY],
    [backX - uy * 3, backY + ux * 3],
    [backX + uy * 3, backY - ux * 3],
  ];
  const corners = head.map((point) => point.map(round).join(",")).join(" ");
  const shaft = segment(backX, backY, x + dx, y + dy, `stroke="${INK.text}" stroke-width="1.2"`);
  return `${shaft}<polygon points="${corners}" fill="${INK.text}"/>`;
}

function drawAnnotation(note: Annotation, frame: Frame): string {
  const [x, y] = [placeX(frame, note.x, note.xref), placeY(frame, note.y, note.yref)];
  if (!Number.isFinite(x) || !Number.isFinite(y)) return "";
  const style = { size: note.font?.size ?? 12, color: note.font?.color ?? INK.text, halo: true };
  const lines = textLines(note.text);
  const tall = lines.length * style.size * 1.25;
  const wide = Math.max(...lines.map((line) => textWidth(line, style.size)));
  const anchors = { left: "start", center: "middle", right: "end", auto: "middle" } as const;
  if (note.showarrow === false) {
    const lift = { top: tall / 2, middle: 0, bottom: -tall / 2, auto: 0 }[note.yanchor ?? "auto"];
    const auto =
      note.xref === "paper" && note.xanchor === undefined
        ? Number(note.x) > 0.66
          ? "right"
          : Number(note.x) < 0.34
            ? "left"
            : "center"
        : "auto";
    return svgText(note.text, x, y + lift, { ...style, anchor: anchors[note.xanchor ?? auto] });
  }
  const [dx, dy] = [note.ax ?? -10, note.ay ?? -30];
  const flat = Math.abs(dx) > Math.abs(dy);
  const tx = x + dx + (flat ? (Math.sign(dx) * wide) / 2 + 3 * Math.sign(dx) : 0);
  const ty = y + dy + (flat ? 0 : (Math.sign(dy) * tall) / 2);
  return arrowTo(x, y, dx, dy) + svgText(note.text, tx, ty, { ...style, anchor: "middle" });
}

function legend(frame: Frame): string {
  const top = frame.margin.t - 16 - (frame.legend.at(-1)?.y ?? 0);
  return frame.legend
    .map(({ drawn: d, label, x, y }) => {
      const [left, middle] = [frame.margin.l + x, top + y];
      const line = `stroke="${d.color}" stroke-width="${d.trace.line?.width ?? 2.5}" stroke-linecap="round"`;
      const paint = `fill="${markerColors(d, 1)[0]}"`;
      const swatch =
        d.type === "bar"
          ? box(left + 4, middle - 5.5, 11, 11, `${paint} rx="2"`)
          : (d.lines ? segment(left, middle, left + 18, middle, line + dashOf(d.trace.line)) : "") +
            (d.markers ? symbolAt(d.trace.marker?.symbol ?? "circle", left + 9, middle, 7, paint) : "");
      return swatch + svgText(label, left + 25, middle, { size: SIZE.legend });
    })
    .join("");
}

function drawTraces(drawn: Drawn[], frame: Frame): string {
  let before: Before | undefined;
  return drawn
    .map((d) => {
      const opacity = d.trace.opacity !== undefined ? ` opacity="${d.trace.opacity}"` : "";
      if (d.type === "bar") return `<g${opacity}>${bars(d, frame)}</g>`;
      if (d.type === "heatmap") return `<g${opacity}>${heatmap(d, frame)}</g>`;
      const picture = scatter(d, frame, before);
      before = { drawn: d, points: pointsOf(d, frame.x, d.second && frame.y2 ? frame.y2 : frame.y) };
      return `<g${opacity}>${picture}</g>`;
    })
    .join("");
}

/** A few pixels of grace so that points on the edge stay whole. */
const edgeOf = (drawn: Drawn[]) => (drawn.some((d) => d.type === "heatmap") ? 0 : 5);

/** The picture inside its frame, cut at the frame's edges. */
function plotArea(drawn: Drawn[], frame: Frame, layout: Layout): string {
  const { margin, width, height } = frame;
  const marks = layout.shapes ?? [];
  const under = marks.filter((mark) => mark.layer === "below").map((mark) => drawShape(mark, frame));
  const over = marks.filter((mark) => mark.layer !== "below").map((mark) => drawShape(mark, frame));
  // Several pictures share a page, and ids are the page's: an equal id must mean an equal rectangle.
  const id = ["plot", margin.l, margin.t, width, height, margin.r, margin.b, edgeOf(drawn)].join("-");
  const edge = edgeOf(drawn);
  const inner = [width - margin.l - margin.r + 2 * edge, height - margin.t - margin.b + 2 * edge];
  const clip = `<clipPath id="${id}">${box(margin.l - edge, margin.t - edge, inner[0], inner[1], "")}</clipPath>`;
  return `${clip}<g clip-path="url(#${id})">${under.join("")}${drawTraces(drawn, frame)}${over.join("")}</g>`;
}

/** Draws a plan; the result is one self-contained `<svg>` on white. */
export function drawFigure(drawn: Drawn[], frame: Frame, layout: Layout): string {
  const { width, height, margin, title } = frame;
  const heat = drawn.find((d) => d.type === "heatmap" && d.trace.showscale !== false);
  const left = titleLeft(margin.l);
  const name = title
    ? svgText(title, left, 22 + (textLines(title).length - 1) * 9, {
        size: SIZE.title,
        weight: 600,
        color: INK.title,
      })
    : "";
  const parts = [
    box(0, 0, width, height, `rx="6" fill="${INK.paper}"`),
    drawn.some((d) => d.type === "heatmap") ? "" : gridLines(frame),
    plotArea(drawn, frame, layout),
    drawn.some((d) => d.type === "heatmap") ? "" : axisLines(frame),
    xLabels(frame),
    yLabels(frame),
    secondLabels(frame),
    heat ? colorBar(heat, frame) : "",
    legend(frame),
    ...(layout.annotations ?? []).map((note) => drawAnnotation(note, frame)),
    name,
  ];
  const view = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  const head = `<svg xmlns="http://www.w3.org/2000/svg" ${view} font-family="${FONT}" role="img">`;
  return `${head}${parts.join("")}</svg>`;
}

/** The static picture of a figure, as SVG. */
export function renderSvg(figure: Figure): string {
  const { drawn, frame } = planFigure(figure);
  return drawFigure(drawn, frame, figure.layout ?? {});
}
