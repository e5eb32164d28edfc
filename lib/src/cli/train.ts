import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Command } from "commander";
import { type OpenShards, documentSeparator } from "../data/shards.js";
import type { Gpu } from "../gpu/device.js";
import type { Model } from "../model/structure.js";
import {
  type Checkpoint,
  checkpointStep,
  latestCheckpoint,
  listCheckpoints,
  tidyCheckpoints,
  writeCheckpoint,
} from "../train/checkpoint.js";
import { type TrainConfig, settingsThatDiffer, trainingSettings } from "../train/configuration.js";
import { type StepReport, LostRun, train as trainLoop } from "../train/loop.js";
import { type Run, checkpointModel, runFiles, runState, startRun } from "../train/run.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { removeLeftovers, replaceFile, syncFile } from "../data/files.js";
import { type LogState, type RunLog, keptLines, noLines, openLog } from "../train/logs.js";
import { openAdapter } from "./adapter.js";
import { openModel } from "./model.js";
import { openTokenizer } from "./open-tokenizer.js";
import { shardOption } from "./options.js";
import { type Progress, inWords, startProgress } from "./progress.js";
import { advise, examples, printJson, stopSignals, systemErrorSentence } from "./run.js";
import {
  chosenConfig,
  modelOf,
  readRunFile,
  resumeCommand,
  runFileText,
  type RunFile,
  type TrainFlags,
} from "./train-config.js";
import { openRunData } from "./train-data.js";
import { checkFolder, inRunFolder, leavingNothing, otherData } from "./train-folder.js";
import {
  describeStart,
  holds,
  type RunPaths,
  runPaths,
  samplePrompt,
  sampleText,
  writeModelFolder,
  writeReport,
} from "./train-output.js";
import { recallChoices, tuneRun, tunesBy } from "./tuning.js";
import { randomModel } from "../model/families.js";
import { checkRunFits } from "../train/fits.js";
import { expertLoad, metricsOf } from "../train/monitor.js";

/** `tslm train`: a training run in a folder, from its configuration to its report. */
export function configure(command: Command): void {
  command
    .option(
      "--config <file>",
      "the configuration of the run, JSON; with --resume, the run's own unless given",
    )
    .requiredOption("--out <dir>", "the folder of the run")
    .option(
      "--data <dir>",
      "prepared data (tslm data prepare), or a file of documents; instead of the configuration's",
    )
    .option("--init-from <dir>", "begin with the weights, tokenizer and shape of the model in this folder")
    .option("--set <key=value...>", "change a setting, such as steps=200 or optimizer.learning_rate=1e-3")
    .option("--resume", "go on with the run in the folder from its last checkpoint")
    .option(
      "--tune",
      "measure first which kernels are fastest here, and remember it (usual on graphics cards)",
    )
    .option("--no-tune", "take the kernels that a rule of thumb chooses")
    .addOption(shardOption())
    .option("--json", "print what the run reached as one JSON object")
    .action((flags: TrainFlags) => inRunFolder(flags.out, () => train(flags)));
  examples(
    command,
    "npx tslm train --config configs/default.json --out runs/default",
    "npx tslm train --config configs/shakespeare-char.json --data data --out runs/shakespeare --set seed=2",
    "npx tslm train --config configs/default.json --init-from runs/default/model --data more --out runs/more",
    "npx tslm train --out runs/default --resume",
  );
}

async function train(flags: TrainFlags): Promise<void> {
  const checkpoint = flags.resume ? latestCheckpoint(flags.out) : undefined;
  const begun = readRunFile(flags.out, checkpoint);
  const config = await chosenConfig(flags, begun?.config);
  checkFolder(flags, config, begun);
  const gpu = await openAdapter(); // first, so that a machine without one is told at once
  const paths = runPaths(flags.out);
  const kept = linesToKeep(paths, checkpoint);
  const { data, run, runFile } = await leavingNothing(flags.out, async () => {
    for (const folder of [paths.folder, paths.data]) removeLeftovers(folder);
    const opened = await openRunData(config, paths.data);
    const sha256 = checkData(opened, begun);
    samplePrompt({ flags, config, gpu, data: opened }); // to find mistakes at once
    const found = await openRun({ flags, config, gpu, data: opened }, paths, checkpoint);
    const text = runFileText({ config, data_sha256: sha256 });
    if (!holds(paths.run, text)) replaceFile(paths.run, text);
    return { data: opened, run: found, runFile: text };
  });
  try {
    const logs = openLogs(kept);
    const parts = { flags, config, gpu, data, runFile, logs };
    if (checkpoint) takeUp(run, checkpoint, paths, parts, begun?.config);
    await runToEnd(run, paths, parts);
  } catch (error) {
    throw withWhatIsKept(error, flags.out);
  } finally {
    data.close();
  }
}

/** The logs of a run, by the names of their files. */
type Logs = Record<string, RunLog>;

/** The lines of each log that belong to a checkpoint; none of a run that begins. Says so where a log is missing. */
function linesToKeep(paths: RunPaths, checkpoint?: Checkpoint): [string, string[]][] {
  const saved = checkpoint?.files.get("logs.json");
  const states: Record<string, LogState> = saved ? JSON.parse(new TextDecoder().decode(saved)) : {};
  const older = checkpoint && !saved ? { step: checkpoint.state.step } : noLines;
  return [paths.metrics, paths.experts, paths.samples].map((file) => {
    const state = states[path.basename(file)] ?? older;
    const lines = keptLines(file, state);
    if ("lines" in state && lines.length < state.lines)
      process.stderr.write(`${file} is missing: the run goes on without the lines it had.\n`);
    return [file, lines];
  });
}

/** Opens the logs at the lines that they keep. */
function openLogs(kept: [string, string[]][]): Logs {
  return Object.fromEntries(kept.map(([file, lines]) => [file, openLog(file, lines)]));
}

/** Takes a run up again: whatever lies outside of its checkpoint is made what the checkpoint says. */
function takeUp(run: Run, { files }: Checkpoint, paths: RunPaths, parts: Parts, begun?: TrainConfig): void {
  tidyCheckpoints(paths.folder);
  const tuning = files.get("tuning.json");
  if (tuning && !holds(paths.tuning, tuning)) replaceFile(paths.tuning, tuning);
  writeModelFolder(run, files, paths, parts);
  process.stderr.write(`Going on after step ${run.step} of ${run.settings.steps}.\n`);
  for (const { name, was, is } of settingsThatDiffer(begun ?? parts.config, parts.config))
    process.stderr.write(`${name} is ${is} from here on; it was ${was}.\n`);
}

/** The error that ends a run, with what of the run is kept, and how to go on from there. */
export function withWhatIsKept(error: unknown, out: string): unknown {
  advise(error, ""); // it follows below
  const system = systemErrorSentence(error as NodeJS.ErrnoException);
  if (!(error instanceof Error) || (!system && error.name !== "Error")) return error; // a fault of ours is no sentence
  const [before, newest] = [undefined, undefined, ...listCheckpoints(out)].slice(-2);
  const words = `${(system ?? error.message).replace(/\.$/, "")}.`;
  if (newest === undefined && error instanceof LostRun)
    return new Error(`${words} No checkpoint was written yet, so --resume begins again.`, { cause: error });
  if (newest === undefined)
    return new Error(`${words} No checkpoint was written yet: begin again with: ${resumeCommand(out)}`, {
      cause: error,
    });
  const step = checkpointStep(newest);
  const kept = `${words} The run is kept up to step ${step}.`;
  if (error instanceof LostRun && error.step === step + 1)
    return new Error(
      before
        ? `${kept} But its last step may be what went wrong: remove ${path.join(out, newest)} to go on from ${before}.`
        : `${kept} But its last step may be what went wrong, and there is no checkpoint before: begin again.`,
      { cause: error },
    );
  const command = `${resumeCommand(out)}${error instanceof LostRun ? ` ${error.remedy}` : ""}`;
  return new Error(`${kept} ${system ? "When that is mended, go" : "Go"} on with: ${command}`, {
    cause: error,
  });
}

/** Holds the data against what the run was begun with; gives the checksum that stands for it. */
function checkData({ manifest, mixture }: OpenShards, begun: RunFile | undefined): string {
  const weights = mixture?.map(({ name, weight, tokens }) => [name, weight, tokens.length]);
  const facts = weights ? [manifest.splits, weights] : manifest.splits;
  const sha256 = crypto.createHash("sha256").update(JSON.stringify(facts)).digest("hex");
  if (begun && begun.data_sha256 !== sha256) throw otherData();
  return sha256;
}

/** What a run is opened with. */
interface Opened {
  flags: TrainFlags;
  config: TrainConfig;
  gpu: Gpu;
  data: OpenShards;
}

/** What a run is made of, besides itself: also the text of its run.json, and its logs. */
interface Parts extends Opened {
  runFile: string;
  logs: Logs;
}

/** Trains to the end and writes the report, or says how to go on when a signal stops it. */
async function runToEnd(run: Run, paths: RunPaths, parts: Parts): Promise<void> {
  process.stderr.write(`${describeStart(run, parts)}\n`);
  const stopped = await trainWatched(run, paths, parts);
  if (stopped) return sayStopped(run, parts.flags.out, stopped);
  const { text, summary } = writeReport(run, paths, parts);
  if (parts.flags.json) return printJson(summary);
  process.stdout.write(text);
}

/** The run in memory: of its last checkpoint, or with a fresh model. */
async function openRun(parts: Opened, paths: RunPaths, checkpoint?: Checkpoint): Promise<Run> {
  const tunes = tunesBy(parts.flags.tune, parts.gpu.facts);
  recallChoices(savedTuning(checkpoint, paths), tunes && !checkpoint);
  const model = checkpoint ? checkpointModel(checkpoint) : await firstModel(parts);
  const { train, mixture, val, manifest } = parts.data;
  const data = { train: mixture ?? train, val, valSize: manifest.splits.val };
  const settings = trainingSettings(parts.config, separatorOf(parts));
  const run = startRun(model, settings, data, { checkpoint });
  if (tunes && !checkpoint) await tuneRun(run, parts.gpu.facts, paths.tuning);
  return run;
}

/** The choices of kernels that a run was begun with. Older checkpoints do not hold them; then they stand beside them. */
function savedTuning(checkpoint: Checkpoint | undefined, paths: RunPaths): Uint8Array | undefined {
  const isOld = checkpoint && !checkpoint.files.has("run.json") && fs.existsSync(paths.tuning);
  return isOld ? fs.readFileSync(paths.tuning) : checkpoint?.files.get("tuning.json");
}

/** The token between documents, if the configuration keeps them apart. */
function separatorOf({ config, data }: Opened): number | undefined {
  if (!config.separate_documents) return undefined;
  const separator = documentSeparator(data.tokenizer);
  if (separator === undefined)
    throw new Error(
      "separate_documents wants a tokenizer with a token between documents, and this one has none.",
    );
  return separator;
}

/** The model that a run begins with: random, or a given one. It has room for the tokenizer's tokens and the run's context. */
async function firstModel({ config, data, gpu }: Opened): Promise<Model> {
  const { tokenizer } = data;
  const sizes = { vocab_size: tokenizer.vocabSize, max_position_embeddings: config.context };
  const parsed = modelOf(config, sizes);
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
  if (config.init_from === undefined) return randomModel(parsed, config.seed);
  checkSameTokens(config.init_from, tokenizer);
  return openModel(config.init_from);
}

/** Throws unless the tokenizer of the data makes the same of a text as the one beside a model, where there is one. */
function checkSameTokens(folder: string, { vocabSize, encode }: Tokenizer): void {
  if (!fs.existsSync(path.join(folder, "tokenizer.json"))) return;
  const own = openTokenizer(folder);
  const sample = "The quick brown fox, 1234 times; über Größe — naïve 中文.\n\tfunction (x) { return 2 * x }";
  if (own.vocabSize === vocabSize && own.encode(sample).join() === encode(sample).join()) return;
  throw new Error(
    `The data was encoded with another tokenizer than that of ${folder}: prepare it with --tokenizer ${folder}.`,
  );
}

/** A run that is being watched: itself, where it writes, and what it shows. */
interface Watched {
  run: Run;
  paths: RunPaths;
  parts: Parts;
  progress: Progress;
  /** Whether the next step compiles kernels: its time says nothing of the steps after it. */
  compiles: boolean;
}

/** Trains with progress, metrics, checkpoints and samples. Returns the signal that stopped the run, if one did. */
async function trainWatched(run: Run, paths: RunPaths, parts: Parts): Promise<StopSignal | undefined> {
  const { config } = parts;
  const progress = startProgress("Training", run.settings.steps);
  const { newKernels } = run.recorded;
  const watched: Watched = { run, paths, parts, progress, compiles: newKernels > 0 };
  if (newKernels > 0) progress.say(`Compiling ${newKernels} kernels in the first step …`);
  const stop = stopOnSignals(progress);
  const began = performance.now();
  try {
    await trainLoop(run, {
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
    progress.done(
      `step ${run.step} of ${run.settings.steps}, ${inWords((performance.now() - began) / 1000)}`,
    );
    return run.step < run.settings.steps ? stop.signalName() : undefined;
  } finally {
    stop.end();
  }
}

/** A signal that asks the run to stop. */
type StopSignal = keyof typeof stopSignals;

/** Turns Ctrl-C, `kill` and a terminal that closes into a signal for the loop; a second one ends the process at once. */
function stopOnSignals(progress: Progress) {
  const controller = new AbortController();
  let name: StopSignal | undefined;
  let at = 0;
  const stop = (given: NodeJS.Signals) => {
    const signal = given as StopSignal;
    // npm hands on a Ctrl-C that the terminal has sent to us too: two within half a second are one. And a terminal that
    // closes sends SIGHUP and may take the shell along, which sends it again.
    if (name !== undefined && signal !== "SIGHUP" && performance.now() - at > 500)
      process.exit(stopSignals[signal]);
    if (name !== undefined) return;
    [name, at] = [signal, performance.now()];
    progress.say("Stopping after this step, with a checkpoint. Ctrl-C again ends at once.");
    controller.abort();
  };
  const names = Object.keys(stopSignals) as StopSignal[];
  for (const signalName of names) process.on(signalName, stop);
  return {
    signal: controller.signal,
    signalName: () => name,
    end: () => {
      for (const signalName of names) process.off(signalName, stop);
    },
  };
}

function sayStopped(run: Run, out: string, signal: StopSignal): void {
  process.exitCode = stopSignals[signal];
  process.stdout.write(
    `Stopped after step ${run.step} of ${run.settings.steps}. Go on with: ${resumeCommand(out)}\n`,
  );
}

/** Writes down what a step's report says, and shows it. */
function record(report: StepReport, watched: Watched): void {
  const { run, paths, parts, progress, compiles } = watched;
  watched.compiles = false;
  const { logs } = parts;
  const { step, loss, validation, tokensPerSecond, skipped, lossScale } = report;
  if (validation || step % parts.config.log_every === 0) logs[paths.metrics].append(metricsOf(report));
  if (report.load) logs[paths.experts].append(expertLoad(report));
  const speed = `${Math.round(tokensPerSecond)} tokens/s`;
  const left = ((run.settings.steps - step) * report.tokens) / step / tokensPerSecond;
  const pace = compiles ? "kernels compiled" : `${speed}, ${inWords(left)} left`;
  progress.update(step, `loss ${loss.toFixed(3)}, ${pace}`);
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

/**
 * Writes a checkpoint, and the same model under `model`. The checkpoint knows the settings, the kernels and the logs of the run,
 * which it must go on with.
 */
async function save({ run, paths, parts }: Watched): Promise<void> {
  const files = await runFiles(run);
  const states = Object.entries(parts.logs).map(([file, log]) => [path.basename(file), log.state()]);
  const also = (name: string, text: string) => files.set(name, new TextEncoder().encode(text));
  also("run.json", parts.runFile);
  also("logs.json", `${JSON.stringify(Object.fromEntries(states), null, 2)}\n`);
  if (fs.existsSync(paths.tuning)) files.set("tuning.json", fs.readFileSync(paths.tuning));
  // What was appended is on the disk first: a checkpoint must not know of a step that the logs do not.
  for (const file of Object.keys(parts.logs)) if (fs.existsSync(file)) syncFile(file);
  writeCheckpoint(paths.folder, runState(run), files);
  writeModelFolder(run, files, paths, parts);
}

/** Takes a sample of what the model writes, shows it and writes it down. */
async function sample({ run, paths, parts, progress }: Watched): Promise<void> {
  const text = await sampleText(run, parts);
  parts.logs[paths.samples].append({ step: run.step, text });
  progress.say(`sample at step ${run.step}:\n${text.trim().replace(/^/gm, "  ")}`);
}
