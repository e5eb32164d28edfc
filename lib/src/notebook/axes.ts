/** Axes of the static picture: from values to pixels, and the ticks that a person would choose. */
import { format } from "d3-format";
import { scaleLinear, scaleLog } from "d3-scale";
import type { Axis, AxisValue, Values } from "./spec.js";

export interface Tick {
  /** Pixels. */
  at: number;
  label: string;
}

/** An axis with its range settled. */
export interface Scale {
  kind: "linear" | "log" | "category";
  /** The categories in order; empty for numbers. */
  categories: string[];
  /** Pixels of a value; NaN where it cannot be shown (null, or not above zero on a log axis). */
  position(value: unknown): number;
  /** Pixels from one whole number, or one category, to the next; below zero where values grow leftward or down. */
  unit: number;
  ticks: Tick[];
  /** Faint lines between the ticks of a log axis. */
  minor: number[];
  /** The value behind the lower end of the range, where a bar or a filled area stands when zero is out of sight. */
  low: number;
  high: number;
}

/** What an axis must hold. */
export interface Extent {
  values: AxisValue[];
  /** Bars and areas stand on zero. */
  withZero: boolean;
  /** A margin as a share of the range: 0 for the run of a line, 0.06 for points. */
  pad: number;
  /** Cells and bars reach half a unit further than their centres. */
  halfCell: number;
}

/** Any list of values as a plain array. */
export function toArray<T>(values: Values<T> | undefined): T[] {
  return values === undefined ? [] : (Array.from(values as ArrayLike<T>) as T[]);
}

/** A number as a tick's label: 1200, 0.05, 20k, 3M, 1e-6; all ticks of an axis with the same decimals. */
export function tickLabel(value: number, step: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-5) return format(".3~g")(value).replace("+", "");
  if (size >= 10_000) return format(".4~s")(value).replace("G", "B");
  const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  return value.toFixed(decimals).replace("-", "−");
}

/** The labels of a log axis: 0.01, 1, 100, 10k, 1M; all as powers when some would be too long. */
function logLabels(values: number[]): string[] {
  const powers = values.every((value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9);
  const long = values.some((value) => value < 0.9e-3 || value > 1.1e9);
  if (powers && long) {
    return values.map((value) => `10<sup>${String(Math.round(Math.log10(value))).replace("-", "−")}</sup>`);
  }
  return values.map((value) => {
    const short = value >= 1000 ? format(".3~s")(value).replace("G", "B") : format(".3~r")(value);
    const whole =
      Number.isInteger(value) && value < 1e6 && value % 10 ** (Math.floor(Math.log10(value)) - 2) !== 0;
    return whole ? String(value) : short; // 1024, where 1.02k would be another number
  });
}

function decorate(axis: Axis, label: string): string {
  return `${axis.tickprefix ?? ""}${label}${axis.ticksuffix ?? ""}`;
}

function labelOf(axis: Axis, value: number, fallback: string): string {
  return decorate(axis, axis.tickformat ? format(axis.tickformat)(value) : fallback);
}

/** The ticks a specification asks for by itself (`tickvals`, `ticktext`). */
function chosenTicks(
  axis: Axis,
  position: (value: unknown) => number,
  name: (value: AxisValue) => string,
): Tick[] {
  return toArray<AxisValue>(axis.tickvals)
    .map((value, i) => ({ at: position(value), label: axis.ticktext?.[i] ?? name(value) }))
    .filter((tick) => Number.isFinite(tick.at));
}

function linearRange(axis: Axis, extent: Extent): [number, number] {
  if (axis.range) return [Number(axis.range[0]), Number(axis.range[1])];
  const numbers = extent.values.map(Number).filter(Number.isFinite);
  const zero = extent.withZero || axis.rangemode === "tozero";
  let low = numbers.reduce((a, b) => Math.min(a, b), zero ? 0 : Number.POSITIVE_INFINITY);
  let high = numbers.reduce((a, b) => Math.max(a, b), zero ? 0 : Number.NEGATIVE_INFINITY);
  if (low > high) [low, high] = [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high));
  // Too close to tell apart: they stand in the middle. (A cell or a bar has a width by itself, if it can be told.)
  if (high + extent.halfCell - (low - extent.halfCell) <= Math.max(size * 1e-12, 1e-200))
    [low, high] = [low - 0.5 - size / 100, high + 0.5 + size / 100];
  const pad = extent.pad * (high - low);
  const bottom = (zero && low >= 0 ? low : low - pad) - extent.halfCell;
  const top = (zero && high <= 0 ? high : high + pad) + extent.halfCell;
  if (axis.rangemode !== "nonnegative") return [bottom, top];
  return top > 0 ? [Math.max(0, bottom), top] : [0, 1];
}

function linearScale(axis: Axis, extent: Extent, pixels: [number, number], count: number): Scale {
  let [low, high] = linearRange(axis, extent);
  if (axis.autorange === "reversed") [low, high] = [high, low];
  const scale = scaleLinear().domain([low, high]).range(pixels);
  const position = (value: unknown) =>
    value === null || value === undefined ? Number.NaN : scale(Number(value));
  const values = axis.dtick ? everyStep(low, high, axis.dtick) : scale.ticks(count);
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(high - low) || 1;
  const name = (value: AxisValue) => labelOf(axis, Number(value), tickLabel(Number(value), step));
  const ticks = axis.tickvals
    ? chosenTicks(axis, position, name)
    : values.map((value) => ({ at: position(value), label: name(value) }));
  const unit = scale(1) - scale(0);
  return { kind: "linear", categories: [], unit, position, ticks, minor: [], low, high };
}

function everyStep(low: number, high: number, step: number): number[] {
  const [from, to] = low < high ? [low, high] : [high, low];
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.min(first + 200, Math.floor(to / step + 1e-9));
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
}

/** What a log axis takes for zero: its logarithm would be of no use. */
const LEAST = 1e-300;

function logRange(axis: Axis, extent: Extent): [number, number] {
  if (axis.range) return [10 ** Number(axis.range[0]), 10 ** Number(axis.range[1])];
  const numbers = extent.values.map(Number).filter((value) => value > LEAST && Number.isFinite(value));
  const low = numbers.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const high = numbers.reduce((a, b) => Math.max(a, b), 0);
  if (low > high) return [1, 10];
  if (high / low < 1 + 1e-9) return [low / 2, high * 2];
  const margin = (high / low) ** extent.pad;
  return [low / margin, high * margin];
}

/** Powers of ten where several fit; else more digits of each, or plain steps where the range is narrow. */
function logTickValues(low: number, high: number, count: number): number[] {
  const from = Math.floor(Math.log10(low));
  const to = Math.ceil(Math.log10(high));
  const inside = (values: number[]) =>
    values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  const powers = everyStep(from, to, 1).map((power) => 10 ** power);
  const stride = Math.max(1, Math.ceil(inside(powers).length / Math.max(2, count)));
  if (inside(powers).length >= 3) return inside(powers.filter((_, i) => (from + i) % stride === 0));
  for (const digits of [
    [1, 2, 5],
    [1, 2, 3, 4, 5, 7],
  ]) {
    const values = inside(powers.flatMap((power) => digits.map((digit) => digit * power)));
    if (values.length >= 3) return values;
  }
  return scaleLinear().domain([low, high]).ticks(Math.min(6, count));
}

function logScale(axis: Axis, extent: Extent, pixels: [number, number], count: number): Scale {
  let [low, high] = logRange(axis, extent);
  if (axis.autorange === "reversed") [low, high] = [high, low];
  const scale = scaleLog().domain([low, high]).range(pixels);
  const position = (value: unknown) => (Number(value) > LEAST ? scale(Number(value)) : Number.NaN);
  const [from, to] = low < high ? [low, high] : [high, low];
  const powers = () =>
    everyStep(Math.log10(from), Math.log10(to), axis.dtick ?? 1).map((power) => 10 ** power);
  const values = (axis.dtick ? powers() : logTickValues(from, to, count)).filter((value) => value > LEAST);
  const labels = logLabels(values);
  const name = (value: AxisValue) => labelOf(axis, Number(value), logLabels([Number(value)])[0]);
  const ticks = axis.tickvals
    ? chosenTicks(axis, position, name)
    : values.map((value, i) => ({ at: position(value), label: labelOf(axis, value, labels[i]) }));
  const minor = to / from > 1e7 || axis.tickvals ? [] : scale.ticks(10).map(position).filter(Number.isFinite);
  return { kind: "log", categories: [], unit: 0, position, ticks, minor, low: from, high: to };
}

function categoryScale(axis: Axis, extent: Extent, pixels: [number, number], count: number): Scale {
  const categories = [...new Set(extent.values.map(String))];
  const places = new Map(categories.map((name, i) => [name, i]));
  const ends: [number, number] = [-0.5, Math.max(categories.length, 1) - 0.5];
  if (axis.range) [ends[0], ends[1]] = [Number(axis.range[0]), Number(axis.range[1])];
  if (axis.autorange === "reversed") ends.reverse();
  const scale = scaleLinear().domain(ends).range(pixels);
  const areNames = extent.values.every((value) => typeof value === "string");
  // Among names a number is a place: "16" is a name, and 0.5 is half-way between the first and the second.
  const position = (value: unknown) =>
    scale(areNames && typeof value === "number" ? value : (places.get(String(value)) ?? Number(value)));
  const stride = Math.max(1, Math.ceil(categories.length / Math.max(1, count)));
  const shown = categories.filter((_, i) => i % stride === 0);
  const name = (value: AxisValue) => decorate(axis, String(value));
  const ticks = axis.tickvals
    ? chosenTicks(axis, position, name)
    : shown.map((value) => ({ at: position(value), label: name(value) }));
  const unit = scale(1) - scale(0);
  return { kind: "category", categories, unit, position, ticks, minor: [], low: ends[0], high: ends[1] };
}

/** True when the values of an axis are names. As in the plotly template, "12" in quotes is a name. */
export function isCategory(axis: Axis, values: AxisValue[]): boolean {
  return (
    axis.type === "category" || (axis.type === undefined && values.some((value) => typeof value === "string"))
  );
}

/**
 * Settles an axis: `pixels` are its two ends, `count` about how many ticks fit. Throws when a log axis
 * gets names.
 */
export function makeScale(axis: Axis, extent: Extent, pixels: [number, number], count: number): Scale {
  if (isCategory(axis, extent.values)) return categoryScale(axis, extent, pixels, count);
  return axis.type === "log"
    ? logScale(axis, extent, pixels, count)
    : linearScale(axis, extent, pixels, count);
}
