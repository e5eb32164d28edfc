import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import type { Command } from "commander";
import type { OpenShards } from "../data/shards.js";
import type { Gpu } from "../gpu/device.js";
import type { Model } from "../model/decoder.js";
import type { Checkpoint } from "../train/checkpoint.js";
import type { TrainConfig } from "../train/configuration.js";
import type { Run, StepReport } from "../train/loop.js";
import { writeFileAtomically } from "./files.js";
import { type Progress, inWords, startProgress } from "./progress.js";
import { examples, printJson } from "./run.js";
import {
  chosenConfig,
  modelOf,
  readRunFile,
  resumeCommand,
  type RunFile,
  type TrainFlags,
} from "./train-config.js";
import { openRunData } from "./train-data.js";
import {
  describeStart,
  type RunPaths,
  runPaths,
  samplePrompt,
  sampleText,
  syncFiles,
  writeModelFolder,
  writeReport,
} from "./train-output.js";
import { recallChoices, tuneRun, tunesBy } from "./tuning.js";

/** `tslm train`: a training run in a folder, from its configuration to its report. */
export function register(program: Command): void {
  const command = program
    .command("train")
    .description("Train a model; leaves metrics, checkpoints, the model and a report in a folder.")
    .option(
      "--config <file>",
      "the configuration of the run, JSON; with --resume, the run's own unless given",
    )
    .requiredOption("--out <dir>", "the folder of the run")
    .option(
      "--data <dir>",
      "prepared data (tslm data prepare), or a file of documents; instead of the configuration's",
    )
    .option("--set <key=value...>", "change a setting, such as steps=200 or optimizer.learning_rate=1e-3")
    .option("--resume", "go on with the run in the folder from its last checkpoint")
    .option(
      "--tune",
      "measure first which kernels are fastest here, and remember it (usual on graphics cards)",
    )
    .option("--no-tune", "take the kernels that a rule of thumb chooses")
    .option("--json", "print what the run reached as one JSON object")
    .action(train);
  examples(
    command,
    "npx tslm train --config configs/default.json --out runs/default",
    "npx tslm train --config configs/shakespeare-char.json --data data --out runs/shakespeare --set seed=2",
    "npx tslm train --out runs/default --resume",
  );
}

async function train(flags: TrainFlags): Promise<void> {
  const begun = readRunFile(flags.out);
  const config = await chosenConfig(flags, begun?.config);
  await checkFolder(flags, config, begun);
  const { openGpu } = await import("../gpu/device.js");
  const gpu = await openGpu({ robust: false }); // first, so that a machine without one is told at once
  const paths = runPaths(flags.out);
  const { data, run, checkpoint } = await leavingNothing(flags.out, async () => {
    const opened = await openRunData(config, paths.data);
    const sha256 = checkData(opened, begun);
    samplePrompt({ config, gpu, data: opened }); // to find mistakes at once
    const found = await openRun({ flags, config, gpu, data: opened }, paths);
    writeFileAtomically(paths.run, `${JSON.stringify({ config, data_sha256: sha256 }, null, 2)}\n`);
    return { data: opened, ...found };
  });
  try {
    await runToEnd(run, checkpoint !== undefined, paths, { flags, config, gpu, data });
  } finally {
    data.close();
  }
}

/** Does what must be done before a run begins; if that fails, a folder that was not there before is gone again. */
async function leavingNothing<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const existed = fs.existsSync(folder);
  try {
    return await work();
  } catch (error) {
    if (!existed) fs.rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

/** Refuses to write over a run, and to go on with one under other settings. */
async function checkFolder(
  flags: TrainFlags,
  config: TrainConfig,
  begun: RunFile | undefined,
): Promise<void> {
  const { checkSameRun } = await import("../train/configuration.js");
  const { out, resume = false } = flags;
  if (begun && !resume)
    throw new Error(
      `${out} holds a run already. Go on with it: ${resumeCommand(out)}; or name another folder with --out.`,
    );
  if (begun) return checkSameRun(begun.config, config);
  const names = fs.existsSync(out) ? fs.readdirSync(out) : [];
  // A run that was killed while it prepared its data, or wrote its first file, leaves only these.
  const others = names.filter((name) => !["data", "tuning.json"].includes(name) && !name.startsWith("."));
  if (others.length > 0)
    throw new Error(`${out} holds other files (${others[0]}); name a new or an empty folder.`);
  if (resume) process.stderr.write(`There is no run in ${out} yet: beginning it.\n`);
}

/** Holds the data against what the run was begun with; gives the checksum that stands for it. */
function checkData({ manifest, mixture }: OpenShards, begun: RunFile | undefined): string {
  const weights = mixture?.map(({ name, weight, tokens }) => [name, weight, tokens.length]);
  const facts = weights ? [manifest.splits, weights] : manifest.splits;
  const sha256 = crypto.createHash("sha256").update(JSON.stringify(facts)).digest("hex");
  if (begun && begun.data_sha256 !== sha256)
    throw new Error("The data is not what the run was begun with: name the same data, or begin a new run.");
  return sha256;
}

/** What a run is made of. */
interface Parts {
  flags: TrainFlags;
  config: TrainConfig;
  gpu: Gpu;
  data: OpenShards;
}

/** Trains to the end and writes the report, or says how to go on when a signal stops it. */
async function runToEnd(run: Run, resumed: boolean, paths: RunPaths, parts: Parts): Promise<void> {
  const { keepLinesTo } = await import("../train/monitor.js");
  for (const file of [paths.metrics, paths.experts, paths.samples]) keepLinesTo(file, run.step);
  process.stderr.write(`${await describeStart(run, parts)}\n`);
  if (resumed) process.stderr.write(`Going on after step ${run.step} of ${run.plan.steps}.\n`);
  const stopped = await trainWatched(run, paths, parts);
  if (stopped) return sayStopped(run, parts.flags.out, stopped);
  const { text, summary } = await writeReport(run, paths, parts);
  if (parts.flags.json) return printJson(summary);
  process.stdout.write(text);
}

/** The run in memory: of its last checkpoint, or with a fresh model. */
async function openRun(parts: Parts, paths: RunPaths): Promise<{ run: Run; checkpoint?: Checkpoint }> {
  const loop = await import("../train/loop.js");
  const { latestCheckpoint } = await import("../train/checkpoint.js");
  const { planOf } = await import("../train/configuration.js");
  const checkpoint = latestCheckpoint(paths.folder);
  const tunes = tunesBy(parts.flags.tune, parts.gpu.facts);
  await recallChoices(paths.tuning, checkpoint !== undefined, tunes);
  const model = checkpoint ? loop.checkpointModel(checkpoint) : await freshModel(parts);
  const { train, mixture, val, manifest } = parts.data;
  const data = { train: mixture ?? train, val, valSize: manifest.splits.val };
  const plan = planOf(parts.config, await separatorOf(parts));
  const run = loop.startRun(model, plan, data, checkpoint);
  if (tunes && !checkpoint) await tuneRun(run, parts.gpu.facts, paths.tuning);
  return { run, checkpoint };
}

/** The token between documents, if the configuration keeps them apart. */
async function separatorOf({ config, data }: Parts): Promise<number | undefined> {
  if (!config.separate_documents) return undefined;
  const { documentSeparator } = await import("../data/shards.js");
  const separator = documentSeparator(data.tokenizer);
  if (separator === undefined)
    throw new Error(
      "separate_documents wants a tokenizer with a token between documents, and this one has none.",
    );
  return separator;
}

/** A random model of the configuration, with room for the tokenizer's tokens and the run's context. */
async function freshModel({ config, data, gpu }: Parts): Promise<Model> {
  const { tokenizer } = data;
  const { randomModel } = await import("../model/decoder.js");
  const { checkRunFits } = await import("../train/loop.js");
  const sizes = { vocab_size: tokenizer.vocabSize, max_position_embeddings: config.context };
  const parsed = await modelOf(config, sizes);
  if (parsed.vocabSize < tokenizer.vocabSize)
    throw new Error(
      `model.vocab_size is ${parsed.vocabSize}, but the tokenizer has ${tokenizer.vocabSize} tokens.`,
    );
  if (parsed.contextLength < config.context)
    throw new Error(
      `context is ${config.context}, but model.max_position_embeddings is only ${parsed.contextLength}.`,
    );
  // On a software adapter, GPU memory is the machine's own; how much a graphics card has, WebGPU does not say.
  const available = gpu.facts.kind === "cpu" ? os.totalmem() : undefined;
  checkRunFits(parsed, { batchSize: config.batch_size, context: config.context }, available);
  return randomModel(parsed, config.seed);
}

/** A run that is being watched: itself, where it writes, and what it shows. */
interface Watched {
  run: Run;
  paths: RunPaths;
  parts: Parts;
  progress: Progress;
}

/** Trains with progress, metrics, checkpoints and samples. Returns the signal that stopped the run, if one did. */
async function trainWatched(run: Run, paths: RunPaths, parts: Parts): Promise<NodeJS.Signals | undefined> {
  const { train } = await import("../train/loop.js");
  const { config } = parts;
  const progress = startProgress("Training", run.plan.steps);
  const watched = { run, paths, parts, progress };
  const stop = stopOnSignals(progress);
  const began = performance.now();
  try {
    await train(run, {
      validateEvery: config.eval_every,
      validationTokens: config.eval_tokens,
      finalTokens: config.final_eval_tokens,
      saveEvery: config.checkpoint_every,
      loadEvery: config.log_every,
      sampleEvery: config.sample_every,
      signal: stop.signal,
      onStep: (report) => record(report, watched),
      onSave: () => save(watched),
      onSample: () => sample(watched),
    });
    progress.done(`step ${run.step} of ${run.plan.steps}, ${inWords((performance.now() - began) / 1000)}`);
    return run.step < run.plan.steps ? stop.signalName() : undefined;
  } finally {
    stop.end();
  }
}

/** Turns Ctrl-C and `kill` into a signal for the loop; a second one ends the process at once. */
function stopOnSignals(progress: Progress) {
  const controller = new AbortController();
  let name: NodeJS.Signals | undefined;
  let at = 0;
  const stop = (signal: NodeJS.Signals) => {
    // npm hands on a Ctrl-C that the terminal has sent to us too: two within half a second are one.
    if (name !== undefined && performance.now() - at > 500) process.exit(exitCodes[signal] ?? 1);
    if (name !== undefined) return;
    [name, at] = [signal, performance.now()];
    progress.say("Stopping after this step, with a checkpoint. Ctrl-C again ends at once.");
    controller.abort();
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  return {
    signal: controller.signal,
    signalName: () => name,
    end: () => void process.off("SIGINT", stop).off("SIGTERM", stop),
  };
}

/** What a shell says of a program that a signal ended. */
const exitCodes: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 };

function sayStopped(run: Run, out: string, signal: NodeJS.Signals): void {
  process.stdout.write(
    `Stopped after step ${run.step} of ${run.plan.steps}. Go on with: ${resumeCommand(out)}\n`,
  );
  process.exitCode = exitCodes[signal];
}

/** Writes down what a step's report says, and shows it. */
async function record(report: StepReport, { run, paths, parts, progress }: Watched): Promise<void> {
  const { appendLine, expertLoad, metricsOf } = await import("../train/monitor.js");
  const { step, loss, validation, tokensPerSecond, skipped, lossScale } = report;
  if (validation || step % parts.config.log_every === 0) appendLine(paths.metrics, metricsOf(report));
  if (report.load) appendLine(paths.experts, expertLoad(report));
  const speed = `${Math.round(tokensPerSecond)} tokens/s`;
  const left = ((run.plan.steps - step) * report.tokens) / step / tokensPerSecond;
  progress.update(step, `loss ${loss.toFixed(3)}, ${speed}, ${inWords(left)} left`);
  if (skipped)
    progress.say(
      `step ${step} is left out: its gradients are too large for 16 bits; the loss scale is ${lossScale} now`,
    );
  if (!validation) return;
  const bits = `${validation.bitsPerByte.toFixed(4)} bits per byte`;
  progress.say(
    `step ${step}: training ${loss.toFixed(4)}, validation ${validation.loss.toFixed(4)} nats, ${bits}`,
  );
}

/** Writes a checkpoint, and the same model under `model`. */
async function save({ run, paths, parts }: Watched): Promise<void> {
  const { runFiles, runState } = await import("../train/loop.js");
  const { writeCheckpoint } = await import("../train/checkpoint.js");
  const files = await runFiles(run);
  syncFiles([paths.metrics, paths.experts, paths.samples]);
  writeCheckpoint(paths.folder, runState(run), files);
  await writeModelFolder(run, files, paths, parts);
}

/** Takes a sample of what the model writes, shows it and writes it down. */
async function sample({ run, paths, parts, progress }: Watched): Promise<void> {
  const { appendLine } = await import("../train/monitor.js");
  const text = await sampleText(run, parts);
  appendLine(paths.samples, { step: run.step, text });
  progress.say(`sample at step ${run.step}:\n${text.trim().replace(/^/gm, "  ")}`);
}
