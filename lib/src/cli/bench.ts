import { type Command, InvalidArgumentError } from "commander";
import { type Ceiling, measureCeiling } from "../gpu/ceiling.js";
import { type AdapterFacts, GpuError } from "../gpu/device.js";
import { openAdapter } from "./adapter.js";
import { measureDecode } from "./bench-decode.js";
import {
  benchNames,
  type DecodeModelName,
  decodeModelNames,
  type FormatName,
  formatNames,
  type OperationName,
  operationNames,
  stepNames,
} from "./bench-names.js";
import { type Case, operationCases } from "./bench-operations.js";
import type { BenchReport, OperationRow } from "./bench-report.js";
import { startProgress } from "./progress.js";
import { examples, printJson, UsageError } from "./run.js";
import { suggestion } from "./suggest.js";
import { wholeNumber } from "./options.js";
import { benchText, decodeText } from "./bench-text.js";
import { measureStep } from "./bench-steps.js";
import { finish } from "../gpu/commands.js";
import { dropFreeBuffers } from "../gpu/buffers.js";
import { capture } from "../tensor/capture.js";
import { scope } from "../tensor/tensor.js";
import { timeWork } from "./bench-timing.js";

/** `tslm bench`: what the adapter can do, how near to it every hot operation comes, and where a training step's time goes. */
export function configure(command: Command): void {
  command
    .option("--only <name>", `one of ${benchNames.join(", ")}`)
    .option("--json", "print the measurements as one JSON object")
    .action(bench);
  examples(
    command,
    "npx tslm bench",
    "npx tslm bench --only matmul",
    "npx tslm bench --only gpt2 --json",
    "npx tslm bench decode",
  );
  registerDecode(command);
}

/** `tslm bench decode`. */
function registerDecode(bench: Command): void {
  const command = bench
    .command("decode")
    .description(
      "Measure how fast a model of random weights writes and reads, as shares of what this adapter can do.",
    )
    .option("--model <names>", `sizes: ${decodeModelNames.join(", ")}`, oneOf(decodeModelNames))
    .option("--format <names>", `formats of weights: ${formatNames.join(", ")}`, oneOf(formatNames))
    .option("--context <tokens>", "tokens that each text has already", wholeNumbers(1), [64])
    .option("--batch <texts>", "texts that are written at once", wholeNumbers(1), [1, 8])
    .option("--prompt <tokens>", "tokens of a prompt that is read; 0 for none", wholeNumber(), 64)
    .option("--tokens <n>", "tokens that are written for each number", wholeNumber(1), 8)
    .option("--json", "print the measurements as one JSON object")
    // An option that `bench` has too is found there.
    .action((_, self: Command) => benchDecode(self.optsWithGlobals()));
  examples(
    command,
    "npx tslm bench decode",
    "npx tslm bench decode --model 124m --format f32,int8,int4 --context 64,1024 --prompt 512",
  );
}

/** A list of names, each one of some. */
function oneOf<Name extends string>(names: readonly Name[]): (text: string) => Name[] {
  return (text) =>
    text.split(",").map((part) => {
      const name = names.find((one) => one === part.trim());
      if (name === undefined) throw new InvalidArgumentError(`It must be of ${names.join(", ")}.`);
      return name;
    });
}

/** A list of whole numbers. */
function wholeNumbers(least: number): (text: string) => number[] {
  return (text) => text.split(",").map(wholeNumber(least));
}

/** What `tslm bench decode` is asked for. */
interface DecodeOptions {
  model?: DecodeModelName[];
  format?: FormatName[];
  context: number[];
  batch: number[];
  prompt: number;
  tokens: number;
  json?: boolean;
}

async function benchDecode(options: DecodeOptions): Promise<void> {
  const { model, format = ["f32", "int8", "int4"], json = false, ...counts } = options;
  const { facts } = await openAdapter();
  const models = model ?? [facts.kind === "cpu" ? "12m" : "124m"];
  const { context: contexts, batch: batches, prompt, tokens } = counts;
  const count = models.length * format.length * (contexts.length * batches.length + (prompt > 0 ? 1 : 0));
  const progress = startProgress("Measuring", count);
  let done = 0;
  const report = await measureDecode({ models, formats: format, contexts, batches, prompt, tokens }, (what) =>
    progress.update(done++, what),
  );
  progress.done(`${count} measurements on ${facts.name}`);
  if (json) return printJson(report);
  process.stdout.write(decodeText(report));
}

async function bench({ only, json = false }: { only?: string; json?: boolean }): Promise<void> {
  if (only !== undefined && !benchNames.includes(only))
    throw new UsageError(
      `nothing to measure is called "${only}"${suggestion(only, benchNames)}; there are ${benchNames.join(", ")}`,
    );
  const { facts } = await openAdapter();
  const report = await measure(facts, only);
  if (json) return printJson(report);
  process.stdout.write(benchText(report));
}

/** What is measured on an adapter when nothing is named. */
function chosen<Name extends string>(names: readonly Name[], only: string | undefined): Name[] {
  return names.filter((name) => only === undefined || name === only);
}

/** Measures all that was asked for, the ceiling first. */
async function measure(facts: AdapterFacts, only: string | undefined): Promise<BenchReport> {
  const cases = chosen(operationNames, only).flatMap((name: OperationName) =>
    operationCases[name](facts.kind),
  );
  // Hours on a processor.
  const steps = chosen(stepNames, only).filter((name) => only || name !== "gpt2" || facts.kind === "gpu");
  const progress = startProgress("Measuring", cases.length + steps.length + 1);
  progress.update(0, "the ceiling");
  const ceiling = await measureCeiling();
  const report: BenchReport = { ...describeAdapter(facts, ceiling), operations: [], steps: [] };
  let done = 1;
  for (const benchCase of cases) {
    progress.update(done++, `${benchCase.operation} ${benchCase.shape}`);
    report.operations.push(await measureCase(benchCase, ceiling));
  }
  for (const name of steps) {
    progress.update(done++, `the training step ${name}`);
    report.steps.push(await orWhy(() => measureStep(name), { name }));
  }
  progress.done(`${done} measurements on ${facts.name}`);
  return report;
}

/** The adapter and its ceiling, and what is not there. */
function describeAdapter(facts: AdapterFacts, ceiling: Ceiling) {
  const { name, kind, subgroupSize, f16, subgroupMatrices } = facts;
  const missing = {
    ...(f16 ? {} : { "multiply-adds f16": "this adapter does not offer shader-f16" }),
    ...(subgroupMatrices.length > 0
      ? {}
      : { "matrix units": "this adapter does not offer subgroup matrices" }),
  };
  return { adapter: { name, kind, subgroup_size: subgroupSize }, ceiling, missing };
}

/** What `work` gives, or `row` with the reason where the adapter cannot do it. */
async function orWhy<T, R extends object>(
  work: () => Promise<T>,
  row: R,
): Promise<T | (R & { why: string })> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    return { ...row, why: error.message };
  } finally {
    await finish();
    dropFreeBuffers(); // the next one has the whole memory
  }
}

/** Measures one operation at one shape: recorded once, then replayed, so that the program's own time is not measured. */
async function measureCase(
  { operation, shape, needs, unprobed, prepare }: Case,
  ceiling: Ceiling,
): Promise<OperationRow> {
  const row = { operation, shape };
  return orWhy(async () => {
    const recording = scope(() => capture(prepare())); // which keeps what it uses
    try {
      const { seconds } = await timeWork(() => void recording.run());
      const { share, ...rates } = ratesOf(needs, seconds, ceiling);
      return { ...row, seconds, ...rates, ...(unprobed ? {} : { share }) };
    } finally {
      recording.free();
    }
  }, row);
}

/** What an operation's time means as a rate and as a share of the ceiling. */
export function ratesOf(needs: Case["needs"], seconds: number, ceiling: Ceiling) {
  const unit = "flops" in needs ? "gigaflops" : "gigabytes";
  const rate = ("flops" in needs ? needs.flops : needs.bytes) / seconds / 1e9;
  return { [unit]: rate, share: rate / ceiling[unit] };
}
