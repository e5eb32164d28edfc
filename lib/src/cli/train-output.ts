// What a run leaves in its folder besides checkpoints: the model as others read it, samples, and the report.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { libraryVersion } from "../../bin/machine.mjs";
import type { OpenShards } from "../data/shards.js";
import type { Gpu } from "../gpu/device.js";
import type { CheckpointFiles } from "../train/checkpoint.js";
import type { TrainConfig } from "../train/configuration.js";
import type { Run } from "../train/run.js";
import type { ExpertLoad, Metrics } from "../train/monitor.js";
import { type RunSummary, reportHtml, reportText } from "../train/report.js";
import { modelFolder, readChatTemplate } from "./model-folder.js";
import type { TrainFlags } from "./train-config.js";
import { shardsOf } from "./train-data.js";
import { removeLeftovers, replaceFile } from "../data/files.js";
import { splitFile } from "../formats/shards.js";
import { countParameters, flopsPerToken } from "../model/count.js";
import { generateText, plainGenerate } from "../infer/generate.js";
import { readLines } from "../train/logs.js";
import { modelConfigToJson } from "../model/config.js";

/** Where the things of a run lie. */
export interface RunPaths {
  folder: string;
  run: string;
  data: string;
  metrics: string;
  experts: string;
  samples: string;
  model: string;
  /** Which kernels the run computes its products with, where they were measured. */
  tuning: string;
}

/** The places in a run's folder. */
export function runPaths(folder: string): RunPaths {
  const at = (name: string) => path.join(folder, name);
  return {
    folder,
    run: at("run.json"),
    data: at("data"),
    metrics: at("metrics.jsonl"),
    experts: at("experts.jsonl"),
    samples: at("samples.jsonl"),
    model: at("model"),
    tuning: at("tuning.json"),
  };
}

/** What of a run its output needs. */
interface Described {
  flags: Pick<TrainFlags, "maxShardSize">;
  config: TrainConfig;
  data: OpenShards;
  gpu: Gpu;
}

/**
 * Writes the model of a checkpoint under `model`, file by file: each is always the old one or the new one, whole. Files that are
 * as they should be are left alone, so that a run that goes on can make sure that they are. Files of weights that are not among
 * them, since a file may have another size than before, are removed when the others are there.
 */
export function writeModelFolder(
  run: Run,
  files: CheckpointFiles,
  paths: RunPaths,
  { config, data, flags }: Described,
): void {
  const contents = modelFolder({
    config: run.model.config,
    weights: splitFile(files.get("model.safetensors")!, flags.maxShardSize),
    tokenizer: data.tokenizer,
    chatTemplate: readChatTemplate(shardsOf(config, paths.data)),
    card: modelCard(run, data),
  });
  fs.mkdirSync(paths.model, { recursive: true });
  removeLeftovers(paths.model);
  for (const [name, content] of Object.entries(contents)) {
    const file = path.join(paths.model, name);
    const whole = typeof content === "string" ? content : Buffer.concat([...content]);
    if (!holds(file, whole)) replaceFile(file, whole);
  }
  for (const name of fs.readdirSync(paths.model))
    if (/^model[^/]*\.safetensors(\.index\.json)?$/.test(name) && !(name in contents))
      fs.rmSync(path.join(paths.model, name));
}

/** Whether a file has this content and no other. */
export function holds(file: string, content: string | Uint8Array): boolean {
  const bytes = Buffer.from(content);
  const found = fs.statSync(file, { throwIfNoEntry: false });
  return found?.isFile() === true && found.size === bytes.length && fs.readFileSync(file).equals(bytes);
}

/** A short card of the model: what it learned from, how far it came, how to run it. */
function modelCard({ model, step, last, settings }: Run, { manifest }: OpenShards): string {
  const { modelType, layers, hiddenSize } = model.config;
  const licences = new Map<string | undefined, string>();
  for (const { name, license } of manifest.mixture ?? []) if (license) licences.set(name, `, ${license}`);
  const sources = manifest.sources.map(
    ({ file, bytes, sha256, source }) =>
      `- ${file}: ${bytes} bytes, sha256 ${sha256}${licences.get(source) ?? ""}`,
  );
  const loss = last
    ? `Validation loss ${last.loss.toFixed(4)} nats a token at step ${last.step}.`
    : "Not validated.";
  return `---
library_name: transformers
pipeline_tag: text-generation
tags: [tslm, ${modelType}]
---

# A small language model

A ${modelType} model of ${layers} layers, ${hiddenSize} wide, trained with tslm ${libraryVersion()} for ${step} of ${settings.steps} steps
of ${settings.batchSize * settings.accumulate} sequences of ${settings.context} tokens. ${loss}

Trained on:
${sources.join("\n")}

    npx tslm generate --model . --prompt "..."
`;
}

/** What a sample begins with: the configured words, or those that the validation text (if any) begins with. */
export function samplePrompt({ config, data }: Described): string {
  const { tokenizer, train, val } = data;
  const { sample_prompt: prompt, context } = config;
  if (prompt === "") {
    const text = val.length > 0 ? val : train;
    const count = Math.max(1, Math.min(8, Math.floor(context / 2), text.length));
    return new TextDecoder().decode(tokenizer.decode(text.read(0, count)));
  }
  const tokens = encoded(prompt, tokenizer).length;
  if (tokens > context)
    throw new Error(`sample_prompt has ${tokens} tokens, more than the context of ${context}: shorten it.`);
  return prompt;
}

function encoded(prompt: string, tokenizer: OpenShards["tokenizer"]): Uint32Array {
  try {
    return tokenizer.encode(prompt);
  } catch (error) {
    throw new Error(`sample_prompt cannot be encoded: ${(error as Error).message}`);
  }
}

/** What is going to be trained on what, in two lines. */
export function describeStart(run: Run, { data, gpu }: Described): string {
  const { config } = run.model;
  const { train, val } = data.manifest.splits;
  const number = (value: number) => value.toLocaleString("en");
  const text = `${number(train.tokens)} tokens to learn from, ${number(val.tokens)} to validate with, vocabulary ${data.manifest.vocab_size}`;
  const unjudged = run.evaluation
    ? ""
    : `\nWithout validation, which takes more tokens than the context of ${run.settings.context}.`;
  const sources = (data.mixture ?? []).map(({ name, weight }) => `${name} ${weight}`);
  const mixed = sources.length > 0 ? `\nSources by weight: ${sources.join(", ")}.` : "";
  const size = `${number(countParameters(config).total)} parameters in ${config.layers} layers, ${config.hiddenSize} wide`;
  return `Text: ${text}.${mixed}${unjudged}\nModel: ${config.modelType}, ${size}, on ${gpu.facts.name}.`;
}

/** Some text that the model writes, the same for the same weights. */
export async function sampleText({ model }: Run, parts: Described): Promise<string> {
  const prompt = samplePrompt(parts);
  const maxTokens = parts.config.sample_tokens;
  const settings = { ...plainGenerate, maxTokens, temperature: 0.8, topP: 0.95, seed: parts.config.seed };
  let text = prompt;
  for await (const piece of generateText(model, parts.data.tokenizer, prompt, settings)) text += piece;
  return text;
}

/** The source of plotly.js, to be put into a page. */
function plotlySource(): string {
  return fs.readFileSync(createRequire(import.meta.url).resolve("plotly.js-cartesian-dist-min"), "utf8");
}

/** Writes report.html and report.txt; gives the text and what a program wants to know. */
export function writeReport(
  run: Run,
  paths: RunPaths,
  parts: Described,
): { text: string; summary: Record<string, unknown> } {
  const metrics = readLines<Metrics>(paths.metrics);
  const loads = readLines<ExpertLoad>(paths.experts);
  const summary = describeRun(run, paths, parts);
  const text = reportText(metrics, summary);
  replaceFile(path.join(paths.folder, "report.txt"), text);
  replaceFile(path.join(paths.folder, "report.html"), reportHtml(metrics, loads, summary, plotlySource()));
  const measured = metrics.findLast(({ val_loss }) => val_loss !== undefined) ?? {};
  const totals = { entropy: summary.entropy, parameters: summary.parameters.total, model: paths.model };
  return { text, summary: { ...measured, ...totals } };
}

/** The schedule as the run has it: a warm-up that was too long for its steps is shortened. */
function scheduleUsed({ settings }: Run, { schedule }: TrainConfig): TrainConfig["schedule"] {
  return { ...schedule, warmup: settings.schedule.warmup };
}

function describeRun(run: Run, paths: RunPaths, { config, data, gpu }: Described): RunSummary {
  const { manifest } = data;
  return {
    name: path.basename(path.resolve(paths.folder)),
    config: { ...config, model: undefined, schedule: scheduleUsed(run, config) },
    model: modelConfigToJson(run.model.config),
    parameters: countParameters(run.model.config),
    flopsPerToken: flopsPerToken(run.model.config, run.settings.context).training,
    valSize: run.evaluation ? manifest.splits.val : manifest.splits.train,
    entropy: manifest.entropy_bits_per_byte,
    environment: {
      adapter: `${gpu.facts.name} (${gpu.facts.kind === "cpu" ? "software" : "graphics processor"})`,
      software: `tslm ${libraryVersion()}, Node ${process.versions.node}, ${process.platform} ${process.arch}`,
      text: manifest.sources
        .map(({ file, bytes }) => `${file} (${bytes.toLocaleString("en")} bytes)`)
        .join(", "),
    },
    samples: readLines(paths.samples),
  };
}
