// The page of plots that `data inspect` leaves.
import fs from "node:fs";
import { createRequire } from "node:module";
import type { DataReport, Inspected, Lengths, SourceReport } from "./inspect-report.js";
import { htmlText, reportScript, reportStyle, scriptJson } from "../train/report.js";

/** A figure as plotly takes it; the page's own script (that of training reports) sets its style. */
interface PageFigure {
  data: object[];
  layout: { title: string; xaxis: object; yaxis: object; barmode?: string };
}

const bars = (name: string, x: string[], y: number[]) => ({ type: "bar", name, x, y });

/** What each source was asked to give to training, and what there is of it. */
function sharesFigure(sources: SourceReport[]): PageFigure {
  const names = sources.map(({ name }) => name);
  const part = (values: number[]) => {
    const total = values.reduce((sum, value) => sum + value, 0);
    return values.map((value) => (100 * value) / Math.max(1e-9, total));
  };
  const data = [bars("of the training tokens", names, part(sources.map(({ train }) => train.tokens)))];
  const weights = sources.map(({ weight }) => weight ?? 0);
  if (weights.some((weight) => weight > 0)) data.unshift(bars("by weight", names, part(weights)));
  const yaxis = { title: "%", rangemode: "tozero" };
  return {
    data,
    layout: { title: "Share of each source", xaxis: { title: "source" }, yaxis, barmode: "group" },
  };
}

/** Documents by their length, in bins that double. */
function lengthsFigure(sources: SourceReport[], lengths: Lengths[]): PageFigure {
  const bin = (length: number) => Math.floor(Math.log2(length));
  const all = lengths.flatMap((counts) => [...counts.keys()].map(bin));
  const [first, last] = [Math.min(...all), Math.max(...all)];
  const bins = all.length === 0 ? [] : Array.from({ length: last - first + 1 }, (_, i) => first + i);
  const label = (power: number) => (power === 0 ? "1" : `${2 ** power} to ${2 ** (power + 1) - 1}`);
  const data = sources.map(({ name }, i) => {
    const counts = bins.map(() => 0);
    for (const [length, count] of lengths[i]) counts[bin(length) - first] += count;
    return bars(name, bins.map(label), counts);
  });
  const yaxis = { title: "documents", rangemode: "tozero" };
  return {
    data,
    layout: { title: "Length of training documents", xaxis: { title: "tokens" }, yaxis, barmode: "group" },
  };
}

/** Why documents were left out. */
function droppedFigure(sources: SourceReport[]): PageFigure | undefined {
  const reasons = [...new Set(sources.flatMap(({ documents }) => Object.keys(documents?.dropped ?? {})))];
  if (reasons.length === 0) return undefined;
  const data = sources.map(({ name, documents }) =>
    bars(
      name,
      reasons,
      reasons.map((reason) => documents?.dropped[reason] ?? 0),
    ),
  );
  const yaxis = { title: "documents", rangemode: "tozero" };
  return { data, layout: { title: "Left out, and why", xaxis: { title: "" }, yaxis, barmode: "stack" } };
}

/** How many bytes a token stands for. */
function bytesFigure(sources: SourceReport[]): PageFigure {
  const data = [
    bars(
      "bytes",
      sources.map(({ name }) => name),
      sources.map(({ bytes_per_token }) => bytes_per_token),
    ),
  ];
  const yaxis = { title: "bytes", rangemode: "tozero" };
  return { data, layout: { title: "Bytes per token", xaxis: { title: "source" }, yaxis } };
}

/** How often tokens occur, by their rank; Zipf's law would be a straight line. */
function ranksFigure(counts: number[]): PageFigure {
  const ranks = [...new Set(Array.from({ length: 200 }, (_, i) => Math.round(counts.length ** (i / 199))))];
  const points = ranks.filter((rank) => rank >= 1 && rank <= counts.length);
  const data = [
    { type: "scatter", mode: "lines", name: "tokens", x: points, y: points.map((rank) => counts[rank - 1]) },
  ];
  const [xaxis, yaxis] = [
    { title: "rank", type: "log" },
    { title: "times", type: "log" },
  ];
  return { data, layout: { title: "How often tokens occur, the commonest first", xaxis, yaxis } };
}

/** A table of the sources. */
function sourceTable(sources: SourceReport[], text: (text: string) => string): string {
  const head = [
    "source",
    "licence",
    "weight",
    "documents read",
    "kept",
    "train tokens",
    "val tokens",
    "from",
  ];
  const rows = sources.map(({ name, license, weight, documents, train, val, url }) => [
    text(name),
    text(license),
    weight ?? "",
    documents?.read.toLocaleString("en") ?? "",
    documents?.kept.toLocaleString("en") ?? "",
    train.tokens.toLocaleString("en"),
    val.tokens.toLocaleString("en"),
    text(url ?? ""),
  ]);
  const line = (cells: (string | number)[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  return `<table>${line(head, "th")}${rows.map((row) => line(row, "td")).join("")}</table>`;
}

const style =
  "th { text-align: left; padding: 5px 14px; color: var(--soft); font-weight: 600; } td + td { font-variant-numeric: tabular-nums; }";

/** Documents shown for each reason to leave them out. */
const SHOWN_DROPS = 3;

/** What of the text is shown: documents that were kept, and some that were not. */
function examplesHtml({ samples, dropped }: DataReport, text: (text: string) => string): string {
  const kept = samples.map((sample) => `<pre>${text(sample.trim())}</pre>`);
  const reasons = [...new Set(dropped.map(({ reason }) => reason))];
  const left = reasons
    .flatMap((asked) => dropped.filter(({ reason }) => reason === asked).slice(0, SHOWN_DROPS))
    .map(
      ({ reason, at, text: words }) => `<p>${text(reason)}, ${text(at)}</p><pre>${text(words.trim())}</pre>`,
    );
  const omitted = left.length > 0 ? `<h2>Left out, for example</h2>${left.join("")}` : "";
  return `<h2>Samples</h2>${kept.join("") || "<p>None were asked for.</p>"}${omitted}`;
}

/** The page, which needs no network. */
export function inspectPage({ report, lengths, counts }: Inspected): string {
  const { sources, folder, steps, vocab_size } = report;
  const figures = [
    sharesFigure(sources),
    lengthsFigure(sources, lengths),
    droppedFigure(sources),
    bytesFigure(sources),
    ranksFigure(counts),
  ].filter((figure) => figure !== undefined);
  const plotly = fs.readFileSync(
    createRequire(import.meta.url).resolve("plotly.js-cartesian-dist-min"),
    "utf8",
  );
  // Of code that is our own, only "</" could end its element early.
  const script = (source: string) => `<script>${source.replaceAll("</", "<\\/")}</script>`;
  const tokens = sources.reduce((sum, { train }) => sum + train.tokens, 0).toLocaleString("en");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${htmlText(folder)}</title><style>${reportStyle}
${style}</style></head><body><main>
<h1>Prepared data ${htmlText(folder)}</h1><p class="verdict">${tokens} tokens to learn from, vocabulary ${vocab_size.toLocaleString("en")}</p>
<div class="figures">${figures.map((_, i) => `<div id="figure-${i}"></div>`).join("")}</div>
<h2>Sources</h2>${sourceTable(sources, htmlText)}
${steps.length > 0 ? `<h2>What was done</h2><ul>${steps.map((step) => `<li>${htmlText(step)}</li>`).join("")}</ul>` : ""}
${examplesHtml(report, htmlText)}
</main>${script(plotly)}${script(`const figures = ${scriptJson(figures)};${reportScript}`)}</body></html>
`;
}
