import path from "node:path";
import type { Command } from "commander";
import { replaceFile } from "../data/files.js";
import { type OverlapReport, splitOverlap } from "./inspect-overlap.js";
import { inspectPage } from "./inspect-page.js";
import { type DataReport, type SourceReport, inspectData } from "./inspect-report.js";
import { wholeNumber } from "./options.js";
import { readableSize } from "./progress.js";
import { examples, printJson } from "./run.js";
import { openShards } from "../data/shards.js";

/** `tslm data inspect`: what is in a folder of prepared data. */
export function registerInspect(data: Command): void {
  const command = data
    .command("inspect <dir>")
    .description(
      "Say what prepared data holds: counts, lengths, sources, what was left out; with a page of plots.",
    )
    .option("--samples <n>", "documents to show", wholeNumber(0), 5)
    .option("--overlap", "count validation documents that share 13 words in a row with training")
    .option("--json", "print it as one JSON object")
    .action(inspect);
  command.addHelpText("after", "\nReads every token once, and writes the page of plots to DIR/inspect.html.");
  examples(command, "npx tslm data inspect data", "npx tslm data inspect data --overlap");
}

interface InspectFlags {
  samples: number;
  overlap?: boolean;
  json?: boolean;
}

function inspect(folder: string, flags: InspectFlags): void {
  const opened = openShards(folder);
  try {
    const found = inspectData(folder, opened, flags.samples);
    if (flags.overlap) found.report.overlap = splitOverlap(opened);
    const page = path.join(folder, "inspect.html");
    replaceFile(page, inspectPage(found));
    if (flags.json) printJson(found.report);
    else process.stdout.write(`${inspectText(found.report)}\nPlots: ${page}\n`);
  } finally {
    opened.close();
  }
}

const number = (value: number) => value.toLocaleString("en");

/** Columns under each other, the first to the left and the others to the right. */
function columns(rows: string[][]): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join("  ")
      .trimEnd(),
  );
}

/** The report for people. */
export function inspectText({
  folder,
  vocab_size,
  sources,
  steps,
  samples,
  unused_tokens,
  overlap,
}: DataReport): string {
  const rows = sources.map(({ name, license, weight, train, val, bytes_per_token, lengths }) => [
    name,
    license,
    weight === undefined ? "" : String(weight),
    number(train.tokens),
    number(val.tokens),
    bytes_per_token.toFixed(2),
    number(lengths.documents),
    number(lengths.median),
    number(lengths.p95),
    number(lengths.longest),
  ]);
  const head = [
    "source",
    "licence",
    "weight",
    "train tokens",
    "val tokens",
    "bytes/token",
    "documents",
    "median",
    "95 %",
    "longest",
  ];
  const bytes = sources.reduce((sum, { train, val }) => sum + train.bytes + val.bytes, 0);
  const lines = [
    `${folder}: ${readableSize(bytes)} of text, vocabulary ${number(vocab_size)}, of which ${number(unused_tokens)} are never used in training`,
    "",
    ...columns([head, ...rows]),
    ...sources.flatMap(droppedLines),
    ...(overlap ? ["", overlapLine(overlap)] : []),
    ...(steps.length > 0 ? ["", ...steps] : []),
    ...samples.flatMap((sample, i) => ["", `Sample ${i + 1}:`, sample.trim().replace(/^/gm, "  ")]),
  ];
  return `${lines.join("\n")}\n`;
}

/** What validation has in common with training. */
function overlapLine({ documents, overlapping, example }: OverlapReport): string {
  const share = `${((100 * overlapping) / Math.max(1, documents)).toFixed(1)} %`;
  const shown = example === undefined ? "" : `, such as: ${example.replace(/\s+/g, " ")}`;
  return `validation: ${number(overlapping)} of ${number(documents)} documents (${share}) share 13 words in a row with training${shown}`;
}

/** What of a source was left out and why, the most frequent reason first. */
function droppedLines({ name, documents }: SourceReport): string[] {
  const dropped = Object.entries(documents?.dropped ?? {}).sort(([, a], [, b]) => b - a);
  if (!documents || dropped.length === 0) return [];
  const share = (count: number) => `${((100 * count) / documents.read).toFixed(1)} %`;
  return [
    "",
    `${name}: kept ${number(documents.kept)} of ${number(documents.read)} documents; left out:`,
    ...columns(dropped.map(([reason, count]) => [`  ${reason}`, number(count), share(count)])),
  ];
}
