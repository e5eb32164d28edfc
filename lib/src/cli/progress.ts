// Progress on stderr: a bar that is drawn in place when a terminal watches, plain lines a few seconds apart when not.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** How far a long command is. */
export interface Progress {
  /** Says how much is done, out of the total, with a few words about it. */
  update(done: number, text?: string): void;
  /** Prints a line above the bar. */
  say(line: string): void;
  /** Ends the bar; the last state stays as a line. */
  done(text?: string): void;
}

/** Where progress goes: process.stderr, or what a test gives. */
export interface ProgressStream {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

/** A bar of `width` characters, filled to `fraction`. */
export function drawBar(fraction: number, width = 24): string {
  const filled = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return "█".repeat(filled) + "░".repeat(width - filled);
}

/** Starts progress towards `total`. Without a terminal a line is printed at most every `seconds`. */
export function startProgress(
  label: string,
  total: number,
  { stream = process.stderr as ProgressStream, seconds = 5 } = {},
): Progress {
  // A terminal that says it has no columns would have ora clear endless lines.
  const canDraw = stream.isTTY && (stream.columns ?? 80) > 0;
  return canDraw ? barProgress(label, total) : lineProgress(label, total, stream, seconds);
}

const percent = (done: number, total: number) => `${Math.floor((100 * done) / Math.max(1, total))} %`;

function barProgress(label: string, total: number): Progress {
  const { default: ora } = require("ora") as typeof import("ora"); // slow to load, and only for a terminal
  const spinner = ora({ text: label, discardStdin: false }).start();
  let last = "";
  let drawn = 0;
  return {
    update(done, text = "") {
      last = text;
      spinner.text = `${label} ${drawBar(done / Math.max(1, total))} ${percent(done, total)} ${text}`;
      if (performance.now() - drawn < 80) return;
      drawn = performance.now();
      spinner.render(); // a loop that never waits gives the spinner's own timer no turn
    },
    say(line) {
      spinner.clear();
      process.stderr.write(`${line}\n`);
      spinner.render();
    },
    done(text = last) {
      spinner.stop();
      process.stderr.write(`${label}: ${text || "done"}\n`);
    },
  };
}

function lineProgress(label: string, total: number, stream: ProgressStream, seconds: number): Progress {
  let printed = performance.now();
  let last = "";
  const print = (line: string) => stream.write(`${line}\n`);
  return {
    update(done, text = "") {
      last = text;
      if (performance.now() - printed < seconds * 1000) return;
      printed = performance.now();
      print(`${label}: ${percent(done, total)} ${text}`.trimEnd());
    },
    say: print,
    done: (text = last) => print(`${label}: ${text || "done"}`),
  };
}

/** Seconds as a person says them. */
export function inWords(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A number of bytes as a person says it: 1.1 MB. */
export function readableSize(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power > 0 && bytes / 1000 ** power < 100 ? 1 : 0)} ${units[power]}`;
}
