// Which kernel is fastest for which product: measured once on this machine, remembered in the user's cache folder and in the run.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { AdapterFacts } from "../gpu/device.js";
import { type Run, recordAgain } from "../train/run.js";
import { replaceFile } from "../data/files.js";
import { startProgress } from "./progress.js";
import { tunerChoices } from "../gpu/tuner.js";
import { tuneProducts, unmeasured } from "../kernels/products.js";

/** What a tuning file holds. Choices of another version of the kernels do not count. */
interface TuningFile {
  format: "tslm tuning 1";
  choices: Record<string, string>;
}

const format = "tslm tuning 1";

/** Where choices are remembered from run to run. */
export function tuningCache(): string {
  const { TSLM_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  const home = XDG_CACHE_HOME ?? LOCALAPPDATA ?? path.join(os.homedir(), ".cache");
  return path.join(TSLM_CACHE ?? path.join(home, "tslm"), "tuning.json");
}

/** The choices in a file: none if there is no such file, or one that we did not write. */
export function readChoices(file: string): Record<string, string> {
  try {
    return choicesIn(fs.readFileSync(file, "utf8"));
  } catch {
    return {}; // it can be measured again
  }
}

/** The choices in the text of such a file; what is no choice is left out, and can be measured again. */
export function choicesIn(text: string): Record<string, string> {
  const content = JSON.parse(text) as Partial<TuningFile> | null;
  if (content?.format !== format) return {};
  const choices = Object.entries(content.choices ?? {}).filter(([, name]) => typeof name === "string");
  return Object.fromEntries(choices);
}

/** Adds choices to those in a file. One that cannot be written is no reason to stop: they are measured again next time. */
export function rememberChoices(file: string, choices: Record<string, string>): void {
  const content: TuningFile = { format, choices: { ...readChoices(file), ...choices } };
  try {
    replaceFile(file, `${JSON.stringify(content, null, 2)}\n`);
  } catch (error) {
    process.stderr.write(`What was measured cannot be kept in ${file}: ${(error as Error).message}\n`);
  }
}

/**
 * Lets kernels be chosen by what this machine has measured. A run that goes on takes the choices that it was begun with,
 * and measures nothing: other kernels would round differently.
 */
export function recallChoices(saved: Uint8Array | undefined, tunes: boolean): void {
  if (saved) Object.assign(tunerChoices, choicesIn(new TextDecoder().decode(saved)));
  else if (tunes) Object.assign(tunerChoices, readChoices(tuningCache()));
}

/** Whether a run tunes: if it is told to, and else on graphics processors. On a processor the rule of thumb knows well. */
export function tunesBy(flag: boolean | undefined, { kind }: AdapterFacts): boolean {
  return flag ?? kind === "gpu";
}

/** Measures the products of a run that nobody has measured yet, keeps what was found, and records the step with it. */
export async function tuneRun(run: Run, facts: AdapterFacts, runFile: string): Promise<void> {
  const asked = unmeasured.size;
  const progress = startProgress("Measuring products", Math.max(1, asked));
  const measured = await tuneProducts(facts, (_, left) => progress.update(asked - left));
  const better = measured.filter(({ usual, fastest }) => usual !== fastest);
  if (better.length > 0) recordAgain(run);
  progress.done(
    `${measured.length} new ones, ${better.length} faster with another kernel than the usual one`,
  );
  const found = measured.map(({ question, fastest }) => [question, fastest]);
  if (found.length > 0) rememberChoices(tuningCache(), Object.fromEntries(found));
  rememberChoices(runFile, tunerChoices);
}
