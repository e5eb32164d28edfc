// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import { replaceFile } from "../data/files.js";

//| 04-training/a-the-trainers-desk.ipynb#lines
/** The lines of a .jsonl file that are whole; the last may have been cut by a kill. None if there is no file. */
export function readLines<T>(file: string): T[] {
  if (!fs.existsSync(file)) return [];
  return fs
    .readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .flatMap((line) => {
      try {
        return [JSON.parse(line) as T];
      } catch {
        return []; // cut in the middle, and then written on after a crash of the machine
      }
    });
}

/** Appends one line. */
export function appendLine(file: string, value: unknown): void {
  fs.appendFileSync(file, `${JSON.stringify(value)}\n`);
}

//| 04-training/a-the-trainers-desk.ipynb#logs
/** What a checkpoint knows of a log: how many lines it had, and their sha256. */
export interface LogState {
  lines: number;
  sha256: string;
}

/** A log of a run, one JSON object a line. */
export interface RunLog {
  append(line: object): void;
  state(): LogState;
}

/** What of a line its checksum is over: all but the speed. */
export function lastingPart(line: object): string {
  return `${JSON.stringify({ ...line, tokens_per_second: undefined })}\n`;
}

/** The log that begins with these lines, and with no others. */
export function openLog(file: string, kept: string[]): RunLog {
  const hash = crypto.createHash("sha256");
  for (const line of kept) hash.update(lastingPart(JSON.parse(line)));
  const text = kept.map((line) => `${line}\n`).join("");
  if (fs.existsSync(file) && fs.readFileSync(file, "utf8") !== text) replaceFile(file, text);
  let lines = kept.length;
  return {
    append(line) {
      appendLine(file, line);
      hash.update(lastingPart(line));
      lines += 1;
    },
    state: () => ({ lines, sha256: hash.copy().digest("hex") }),
  };
}

//| 04-training/a-the-trainers-desk.ipynb#kept-lines
/** Of a log that nothing was written to. */
export const noLines: LogState = { lines: 0, sha256: crypto.createHash("sha256").digest("hex") };

/** A line of a log, if it is one: an object with a step, and its speed (if it says one) a number. */
export function logLine(text: string): { step: number } | undefined {
  try {
    const line = JSON.parse(text);
    const speed = line.tokens_per_second ?? 0;
    return Number.isInteger(line.step) && Number.isFinite(speed) && speed >= 0 ? line : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The lines of a log that a checkpoint knows, or (of an older one, which knew none) those up to its step: all that was written
 * later is dropped when a run goes on. None if the file is missing. Throws one sentence if the lines are not those.
 */
export function keptLines(file: string, state: LogState | { step: number }): string[] {
  if (!fs.existsSync(file)) return [];
  const whole = fs.readFileSync(file, "utf8").split("\n").slice(0, -1);
  const advice = "Put it right, or remove it, and resume again: the run then goes on without what it said.";
  const damaged = (what: string) => new Error(`${file} is damaged: ${what}. ${advice}`);
  if ("step" in state) return whole.filter((line) => (logLine(line)?.step ?? Infinity) <= state.step);
  const kept = whole.slice(0, state.lines);
  if (kept.length < state.lines) throw damaged(`it has ${kept.length} of the ${state.lines} lines written`);
  const hash = crypto.createHash("sha256");
  kept.forEach((text, i) => {
    const line = logLine(text);
    if (!line) throw damaged(`line ${i + 1} is none of a log`);
    hash.update(lastingPart(line));
  });
  if (hash.digest("hex") !== state.sha256) throw damaged("its lines are not those that were written");
  return kept;
}
