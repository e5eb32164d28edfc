// The folder of a run: one process at a time, nothing of others in it, and everything checked before anything is touched.
import fs from "node:fs";
import path from "node:path";
import { type TrainConfig, checkSameRun } from "../train/configuration.js";
import { resumeCommand, type RunFile, type TrainFlags } from "./train-config.js";
import { checkApart, lockFolder, namesIn, readLedger, writeLedger } from "../data/folders.js";
import { checkpointStep, listCheckpoints } from "../train/checkpoint.js";
import { fileChecksum } from "../data/files.js";
import { readManifest } from "../data/manifest.js";

/** Does some work while no other process may train in a folder. A folder that is empty afterwards and was not there is gone. */
export async function inRunFolder<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const lock = lockFolder(folder, "tslm train");
  try {
    return await work();
  } finally {
    lock.release();
  }
}

/** What a run that was killed before its first checkpoint leaves: the list that says whose it is, and what it had made. */
const beginnings = [".tslm.json", "data", "tuning.json"];

/** Does what must be done before a run begins; if that fails, what it made of these is gone again, and nothing else. */
export async function leavingNothing<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const missing = beginnings.filter((name) => !fs.existsSync(path.join(folder, name)));
  try {
    if (namesIn(folder).length === 0 && !readLedger(folder)) writeLedger(folder, "train", {});
    return await work();
  } catch (error) {
    if (fs.existsSync(path.join(folder, "run.json"))) throw error; // it has begun: all of that belongs to it
    for (const name of missing) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
    throw error;
  }
}

/** The error for data that a run was not begun with. */
export function otherData(): Error {
  return new Error("The data is not what the run was begun with: name the same data, or begin a new run.");
}

/** Refuses to write over a run or anything else, and to go on with one under other settings or with other data. */
export function checkFolder(
  flags: Pick<TrainFlags, "config" | "out" | "resume">,
  config: TrainConfig,
  begun: RunFile | undefined,
): void {
  const { out, resume = false } = flags;
  if (begun && !resume)
    throw new Error(
      `${out} holds a run already. Go on with it: ${resumeCommand(out)}; or name another folder with --out.`,
    );
  if (begun) {
    checkResumed(out, config, begun.config);
    return;
  }
  const inputs = [flags.config, config.data, config.tokenizer, config.init_from].flatMap((input) =>
    typeof input === "string" && fs.existsSync(input) ? [input] : [],
  );
  checkApart(out, inputs);
  const own = readLedger(out)?.made_by === "train" ? beginnings : [];
  const other = namesIn(out).find((name) => !own.includes(name));
  if (other) throw new Error(`${out} holds other files (${other}); name a new or an empty folder.`);
  if (resume) process.stderr.write(`There is no run in ${out} yet: beginning it.\n`);
}

function checkResumed(out: string, config: TrainConfig, begun: TrainConfig): void {
  checkSameRun(begun, config);
  const newest = listCheckpoints(out).pop();
  const done = newest === undefined ? 0 : checkpointStep(newest);
  if (done > config.steps)
    throw new Error(
      `${out} has done ${done} steps already, more than ${config.steps}: name at least so many with --set steps=N.`,
    );
  if (JSON.stringify(config.data) !== JSON.stringify(begun.data)) checkSameText(out, config);
}

/** The run's own shards are written anew only from a text with the same bytes. Shards of others are checked when they are opened. */
function checkSameText(out: string, { data }: TrainConfig): void {
  if (typeof data === "string" && fs.statSync(data, { throwIfNoEntry: false })?.isDirectory()) return;
  const shards = path.join(out, "data", "shards");
  const checksums = fs.existsSync(shards) ? readManifest(shards).sources.map(({ sha256 }) => sha256) : [];
  if (typeof data !== "string" || checksums.length !== 1 || fileChecksum(data) !== checksums[0])
    throw otherData();
}
