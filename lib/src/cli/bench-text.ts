// What `tslm bench` prints for people.
import { readableBytes } from "../gpu/buffers.js";
import type { BenchReport, OperationRow } from "./bench-report.js";
import type { DecodeReport } from "./bench-decode.js";
import type { StepReport } from "./bench-steps.js";

/** The whole report. */
export function benchText({ adapter, ceiling, missing, operations, steps }: BenchReport): string {
  const { gigaflops, gigaflops16, gigabytes } = ceiling;
  const rates: [string, string][] = [
    ["multiply-adds f32", `${rounded(gigaflops)} GFLOP/s`],
    ...(gigaflops16 ? [["multiply-adds f16", `${rounded(gigaflops16)} GFLOP/s`] as [string, string]] : []),
    ["copy", `${rounded(gigabytes)} GB/s`],
    ...Object.entries(missing),
  ];
  const head = ["operation", "shape", "time", "rate", "of the ceiling"];
  const rows = operations.map(({ operation, shape, ...rest }) => [operation, shape, ...measured(rest)]);
  return [
    `Ceiling of ${adapter.name}`,
    ...columns(rates, "ll"),
    ...(rows.length > 0 ? ["", ...columns([head, ...rows], "llrrr")] : []),
    ...steps.flatMap((step) => [
      "",
      ...("why" in step ? [`Step ${step.name}: ${step.why}`] : stepLines(step)),
    ]),
    "",
  ].join("\n");
}

/** What `tslm bench decode` prints. */
export function decodeText({ adapter, load_gigabytes, rows }: DecodeReport): string {
  const head = ["task", "model", "format", "texts", "tokens each", "a step", "tokens/s", "rate", "share"];
  const cells = rows.map(({ task, model, format, batch, context, ...rest }) => {
    const names = [task, model, format, `${batch}`, `${context}`];
    const { seconds, tokens_per_second = 0, gigabytes, gigaflops = 0, share = 0, why } = rest;
    if (seconds === undefined) return [...names, why ?? ""];
    const rate = gigabytes === undefined ? `${rounded(gigaflops)} GFLOP/s` : `${rounded(gigabytes)} GB/s`;
    return [...names, readableTime(seconds), rounded(tokens_per_second), rate, percent(share)];
  });
  return [
    `${adapter.name} loads ${rounded(load_gigabytes)} GB/s where it does nothing else`,
    ...columns([head, ...cells], "lllrrrrrr"),
    "The share of writing (decode) is of that; the share of reading a prompt (prefill) is of a single product's rate.",
    "",
  ].join("\n");
}

/** Three significant digits, and no exponent. */
function rounded(value: number): string {
  return value >= 100 ? Math.round(value).toString() : value.toPrecision(3);
}

/** A time in the unit that suits it. */
export function readableTime(seconds: number): string {
  if (seconds >= 1) return `${rounded(seconds)} s`;
  return seconds >= 1e-3 ? `${rounded(seconds * 1e3)} ms` : `${rounded(seconds * 1e6)} µs`;
}

const percent = (share: number) => `${Math.round(100 * share)} %`;

/** The last three columns of an operation's row, or the reason why there are none. */
function measured({ seconds, gigaflops, gigabytes, share, why }: Partial<OperationRow>): string[] {
  if (seconds === undefined) return [why ?? ""];
  const rate = gigaflops === undefined ? `${rounded(gigabytes ?? 0)} GB/s` : `${rounded(gigaflops)} GFLOP/s`;
  return [readableTime(seconds), rate, share === undefined ? "" : percent(share)];
}

/** Rows as aligned columns, each to the left or to the right. A row that ends early is not padded. */
function columns(rows: string[][], sides: string): string[] {
  const full = rows.filter(({ length }) => length === sides.length);
  const widths = [...sides].map((_, i) => Math.max(0, ...full.map((row) => row[i].length)));
  return rows.map((row) => {
    const cells = row.map((cell, i) =>
      sides[i] === "r" ? cell.padStart(widths[i]) : cell.padEnd(widths[i]),
    );
    return `  ${cells.join("  ")}`.trimEnd();
  });
}

/** How a step runs, in columns. */
function timeRow({ batch_size, context }: StepReport, way: string, time: StepReport["eager"]): string[][] {
  if (!time) return [[way, "out of memory"]];
  const { seconds, host_seconds, peak_bytes } = time;
  const rate = `${Math.round((batch_size * context) / seconds)} tokens/s`;
  const host = `host ${readableTime(host_seconds)} (${((100 * host_seconds) / seconds).toFixed(1)} %)`;
  return [[way, readableTime(seconds), rate, host, `peak ${readableBytes(peak_bytes)}`]];
}

/** A training step: how long, how much memory, and what its time goes into. */
function stepLines(step: StepReport): string[] {
  const { name, parameters, batch_size, context, optimizer, kernels, operations, gpu_seconds, gap_seconds } =
    step;
  const title = `Step ${name}: ${(parameters / 1e6).toPrecision(3)} M parameters, ${batch_size} x ${context} tokens`;
  const times = [...timeRow(step, "captured", step.captured), ...timeRow(step, "eager", step.eager)];
  const lines = [`${title}, ${optimizer}, ${kernels} kernels`, ...columns(times, "lrrll")];
  if (!operations || !gpu_seconds) return lines;
  const parts = operations.map(({ operation, calls, seconds }) => [
    operation,
    readableTime(seconds),
    percent(seconds / gpu_seconds),
    `${calls} calls`,
  ]);
  const gaps = gap_seconds ? `gaps in the captured step ${readableTime(gap_seconds)}` : "no gaps";
  return [
    ...lines,
    `GPU time ${readableTime(gpu_seconds)}, ${gaps}; by operation:`,
    ...columns(parts, "lrrr"),
  ];
}
