// npx tsx tools/picture.ts RUN FILE.svg: draws the loss of a run, as its report shows it, for a page where nothing runs.
import fs from "node:fs";
import path from "node:path";
import type { Manifest } from "../lib/src/data/manifest.js";
import { renderSvg } from "../lib/src/notebook/svg.js";
import { lossFigure } from "../lib/src/train/figures.js";
import { readLines } from "../lib/src/train/logs.js";
import type { Metrics } from "../lib/src/train/monitor.js";
import { BookError } from "./notebook.js";
import { runTool } from "./run-tool.js";

function main([run, file]: string[]): void {
  if (!run || !file)
    throw new BookError(["Name a run's folder and the picture: runs/default docs/training-run.svg"]);
  const manifest = path.join(run, "data", "shards", "manifest.json");
  const { splits, entropy_bits_per_byte }: Manifest = JSON.parse(fs.readFileSync(manifest, "utf8"));
  const metrics = readLines<Metrics>(path.join(run, "metrics.jsonl"));
  const figure = lossFigure(metrics, splits.val, entropy_bits_per_byte);
  fs.writeFileSync(file, renderSvg(figure));
}

runTool(import.meta.url, main);
