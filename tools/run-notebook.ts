// Runs notebooks, each in a process of its own, as Jupyter would with tslab.
import { fork } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gpuEnvironment } from "../lib/bin/machine.mjs";
import { type Output, parseNotebook, sourceText } from "./notebook.js";

export interface CellSource {
  id: string;
  source: string;
}

export interface RunResult {
  seconds: number;
  /** The cell that failed and what it printed; absent when all went well. */
  failure?: { cell: string; message: string };
  /** Outputs by cell id, as far as the run came. */
  outputs: Map<string, Output[]>;
}

/** What the child process says: that it is ready, which cell runs, that there was output, what became of it all. */
interface Report {
  ready?: boolean;
  running?: string;
  failed?: string;
  outputs?: Output[][];
}

/** Runs a notebook from top to bottom in its own folder; stops at the first cell that fails. */
export function runNotebook(file: string): Promise<RunResult> {
  const { cells } = parseNotebook(fs.readFileSync(file, "utf8"), file);
  const code = cells.filter(({ cell_type }) => cell_type === "code");
  const sources = code.map(({ id, source }) => ({ id, source: sourceText(source) }));
  return runCells(path.dirname(file), sources);
}

/**
 * How long a notebook may be silent, neither beginning a cell nor giving output: so many times as long as the kernel took
 * to start, which says how fast the machine is just then. It takes one to two seconds on a machine without a GPU, where the
 * longest cell takes one minute.
 */
const startsOfSilence = 600;

/**
 * Runs cells in order in a fresh process whose working directory is `folder`. One that is silent for too long is ended:
 * `silence` is how many times as long as the kernel's start that is.
 */
export async function runCells(
  folder: string,
  cells: CellSource[],
  silence = startsOfSilence,
): Promise<RunResult> {
  const start = performance.now();
  const { last, running, end } = await runChild(folder, cells, silence);
  const outputs = new Map(cells.map(({ id }, i) => [id, last.outputs?.[i] ?? []]));
  const result: RunResult = { seconds: (performance.now() - start) / 1000, outputs };
  if (last.failed) result.failure = { cell: last.failed, message: errorText(outputs.get(last.failed)!) };
  else if (!last.outputs) result.failure = { cell: running, message: end };
  return result;
}

/** Lets a child process run the cells: the last it said, the cell it was at, and how it ended if not by its own word. */
async function runChild(folder: string, cells: CellSource[], silence: number) {
  const began = performance.now();
  const child = fork(fileURLToPath(new URL("notebook-child.mjs", import.meta.url)), {
    cwd: folder,
    execArgv: [],
    env: gpuEnvironment(),
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-10_000);
  });
  let last: Report = {};
  let running = "";
  let limit = Number.POSITIVE_INFINITY; // until the kernel has started
  let stuck: string | undefined;
  let watch: NodeJS.Timeout | undefined;
  const giveUp = () => {
    stuck = `was silent for ${Math.round(limit / 1000)} s, and was ended`;
    child.kill("SIGKILL");
  };
  child.on("message", (report: Report) => {
    clearTimeout(watch);
    last = report;
    running = report.running ?? running;
    if (report.ready) limit = silence * (performance.now() - began);
    if (report.outputs)
      child.kill("SIGKILL"); // all is said, and closing a GPU device may take its time
    else watch = setTimeout(giveUp, Math.min(limit, 2 ** 31 - 1));
  });
  child.send({ cells });
  const cause = await new Promise((resolve) =>
    child.once("close", (code, signal) => resolve(signal ?? code)),
  );
  clearTimeout(watch);
  return { last, running, end: `${stuck ?? `its process died (${cause})`}\n${stderr}`.trim() };
}

/** tslab writes an error as text on stderr. */
function errorText(outputs: Output[]): string {
  const texts = outputs.map((output) =>
    output.output_type === "stream" && output.name === "stderr" ? sourceText(output.text) : "",
  );
  return texts.join("").trim() || "failed without a message";
}
