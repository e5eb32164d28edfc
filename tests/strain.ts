// A short training run in this process, with a fault at one of its changes of the disk, and what is on the disk after it.
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { buildProgram } from "../lib/src/cli/main.ts";
import { ending } from "../lib/src/cli/run.ts";
import { heldLocks, LOCK_PREFIX } from "../lib/src/data/folders.ts";
import { injectFault } from "./faults.mjs";

/** A run of three steps that checkpoints at each, and validates and samples. */
export const shortRun = {
  model: {
    hidden_size: 16,
    num_hidden_layers: 1,
    num_experts: 2,
    num_experts_per_tok: 1,
    intermediate_size: 16,
    tie_word_embeddings: true,
  },
  tokenizer: "char",
  data: { synthetic: { bytes: 4000, seed: 3 } },
  steps: 3,
  batch_size: 2,
  context: 16,
  eval_every: 2,
  eval_tokens: 64,
  final_eval_tokens: 128,
  checkpoint_every: 1,
  sample_every: 2,
  sample_tokens: 4,
  optimizer: { learning_rate: 0.01 },
  schedule: { warmup: 1 },
};

/** A fault, as `injectFault` takes it; none without. */
export interface Fault {
  kind: "kill" | "torn" | "ENOSPC" | "EIO";
  at: number;
  of?: RegExp;
}

/** Runs `tslm train` in this process, silently and in no time. Gives its error's sentence, if it ended with one, and its calls. */
export async function trainHere(args: string[], fault?: Fault): Promise<{ error?: string; calls: string[] }> {
  const write = [process.stdout.write, process.stderr.write] as const;
  const now = performance.now;
  process.stdout.write = process.stderr.write = () => true;
  performance.now = () => 0; // no timings in what is written
  const { calls, restore } = injectFault(fault);
  try {
    await (await buildProgram(["train"])).parseAsync(["node", "tslm", "train", ...args]);
    return { calls };
  } catch (error) {
    return { error: ending(error).message, calls };
  } finally {
    restore();
    [process.stdout.write, process.stderr.write] = write;
    performance.now = now;
    for (const lock of heldLocks) lock.release(); // as the end of a process does
  }
}

/** Every file in a folder, by its name, with its sha256. */
export function filesIn(folder: string): Record<string, string> {
  const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
  const files = names.filter((name) => fs.statSync(path.join(folder, name)).isFile());
  const hash = (name: string) =>
    crypto
      .createHash("sha256")
      .update(fs.readFileSync(path.join(folder, name)))
      .digest("hex");
  return Object.fromEntries(files.map((name) => [name.split(path.sep).join("/"), hash(name)]));
}

/** Lets a short run under `folder` fail at one point and go on. Gives the failure's sentence and the files at the end. */
export async function failAndResume(folder: string, fault: Fault) {
  const run = path.join(folder, `${fault.kind}-${fault.at}`, "run");
  const config = path.join(folder, "config.json");
  const failed = await trainHere(["--config", config, "--out", run], fault);
  // The process that was killed in play lives on, and so do its locks.
  for (const name of fs.existsSync(run) ? fs.readdirSync(run, { recursive: true, encoding: "utf8" }) : [])
    if (path.basename(name).startsWith(LOCK_PREFIX)) fs.rmSync(path.join(run, name));
  const kept = fs.existsSync(run) && fs.readdirSync(run).some((name) => name.startsWith("step-"));
  const resumed = await trainHere(["--config", config, "--out", run, "--resume"]);
  const files = fs.existsSync(run) ? filesIn(run) : {};
  fs.rmSync(path.dirname(run), { recursive: true, force: true });
  return { failed: failed.error, calls: failed.calls, kept, resumed: resumed.error, files };
}

/** What is wrong with how a failed run said it and ended, if anything is. */
export function problemOf(
  { failed, kept, resumed, files }: Awaited<ReturnType<typeof failAndResume>>,
  expected: Record<string, string>,
  kind: Fault["kind"],
): string | undefined {
  const names = Object.keys({ ...expected, ...files }).filter((name) => expected[name] !== files[name]);
  if (resumed) return `does not go on: ${resumed}`;
  if (names.length > 0) return `ends with ${names.length} other files, such as ${names[0]}`;
  if (failed === undefined || kind === "kill" || kind === "torn") return undefined;
  if (!/: the disk is full|: the disk failed to/.test(failed)) return "is no sentence";
  return kept && !/kept up to step \d.* --resume/.test(failed) ? "does not say what is kept" : undefined;
}
