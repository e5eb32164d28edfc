/** The colours of the book's figures: one palette, and the named scales that plotly and the static picture share. */
import type { ColorScale } from "./spec.js";

/** The palette: traces take these in turn. Neighbours differ in lightness too, for readers who confuse hues. */
export const PALETTE: readonly string[] = [
  "#2f6fde",
  "#f0803c",
  "#16917a",
  "#c2418c",
  "#7b5cd6",
  "#d29c06",
  "#1fa3c4",
  "#d0453f",
  "#7a869a",
  "#5c8a2f",
];

/** Text, lines and surfaces. */
export const INK = {
  title: "#1b2433",
  text: "#4b5768",
  faint: "#8a94a6",
  grid: "#e9edf3",
  axis: "#c3cbd8",
  paper: "#ffffff",
};

type Stops = readonly (readonly [number, string])[];

const evenly = (...colors: string[]): Stops =>
  colors.map((color, i) => [i / (colors.length - 1), color] as const);

/** The scale of a heatmap that names none: white to deep blue. */
export const SEQUENTIAL: Stops = evenly(
  "#f7f9fd",
  "#d3e1f8",
  "#9dbdf0",
  "#5d93e6",
  "#2f6fde",
  "#1d4ba8",
  "#122f6d",
);

/** The scale of a heatmap with a middle (`zmid`): red, white, blue. */
export const DIVERGING: Stops = evenly(
  "#a8322d",
  "#d9746a",
  "#f3c9c1",
  "#f8f8fa",
  "#bcd0f4",
  "#5d8fe4",
  "#1d4ba8",
);

const NAMED: Record<string, Stops> = {
  blues: SEQUENTIAL,
  rdbu: DIVERGING,
  greys: evenly("#ffffff", "#c9ced6", "#8a94a6", "#4b5768", "#1b2433"),
  greens: evenly("#f4fbf8", "#c4e8dd", "#7fcbb5", "#35a78d", "#16917a", "#0b5c4d"),
  reds: evenly("#fdf5f3", "#f8d0c8", "#ee9b8d", "#e0675a", "#c23b35", "#7f1d1b"),
  oranges: evenly("#fff8f2", "#fde0c8", "#fab987", "#f0803c", "#c75c1c", "#7d360c"),
  viridis: evenly(
    "#440154",
    "#482878",
    "#3e4989",
    "#31688e",
    "#26828e",
    "#1f9e89",
    "#35b779",
    "#6ece58",
    "#b5de2b",
    "#fde725",
  ),
  cividis: evenly(
    "#00224e",
    "#1a386f",
    "#434e6c",
    "#61656f",
    "#7d7c78",
    "#9b9476",
    "#bcae6c",
    "#dec958",
    "#fee838",
  ),
  magma: evenly(
    "#000004",
    "#180f3d",
    "#440f76",
    "#721f81",
    "#9e2f7f",
    "#cd4071",
    "#f1605d",
    "#fd9668",
    "#feca8d",
    "#fcfdbf",
  ),
};

/** The stops of a colour scale, from 0 to 1. Throws when the name is unknown. */
export function colorStops(scale: ColorScale | undefined, reverse = false): Stops {
  const stops = typeof scale === "string" ? NAMED[scale.toLowerCase()] : (scale ?? SEQUENTIAL);
  if (!stops) throw new Error(`Unknown colour scale "${scale}"; known: ${Object.keys(NAMED).join(", ")}.`);
  return reverse ? stops.map(([at, color]) => [1 - at, color] as const).reverse() : stops;
}

/** Red, green and blue (0 to 255) of "#rgb", "#rrggbb" or "rgb(…)"; undefined for other notations. */
export function parseColor(color: string): [number, number, number] | undefined {
  const short = /^#([0-9a-f])([0-9a-f])([0-9a-f])$/i.exec(color);
  if (short) return parseColor(`#${short[1]}${short[1]}${short[2]}${short[2]}${short[3]}${short[3]}`);
  const long = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})/i.exec(color);
  if (long) return [1, 2, 3].map((i) => Number.parseInt(long[i], 16)) as [number, number, number];
  const call = /^rgba?\(([^)]*)\)$/i.exec(color);
  if (call) return call[1].split(",").slice(0, 3).map(Number) as [number, number, number];
  return undefined;
}

/** The colour at `t` (0 to 1) of a scale, as three bytes. */
export function sampleColor(stops: Stops, t: number): [number, number, number] {
  const at = Math.min(1, Math.max(0, t));
  const next = Math.max(
    1,
    stops.findIndex(([position]) => position >= at),
  );
  const [low, from] = stops[next - 1];
  const [high, to] = stops[next];
  const a = parseColor(from) ?? [0, 0, 0];
  const b = parseColor(to) ?? [0, 0, 0];
  const share = high === low ? 0 : (at - low) / (high - low);
  return a.map((value, i) => Math.round(value + share * (b[i] - value))) as [number, number, number];
}

/** "#rrggbb" of three bytes. */
export function toHex(rgb: readonly number[]): string {
  return `#${rgb.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** Black or white text, whichever reads better on a colour (relative luminance of WCAG 2.1). */
export function contrastingText(rgb: readonly number[]): string {
  const [r, g, b] = rgb.map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.36 ? INK.title : "#ffffff";
}
