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

/** What the child process says. */
interface Report {
  running?: string;
  failed?: string;
  outputs?: Output[][];
}

/** Runs a notebook from top to bottom in its own folder; stops at the first cell that fails. */
export function runNotebook(file: string, timeoutSeconds = 300): Promise<RunResult> {
  const { cells } = parseNotebook(fs.readFileSync(file, "utf8"), file);
  const code = cells.filter(({ cell_type }) => cell_type === "code");
  const sources = code.map(({ id, source }) => ({ id, source: sourceText(source) }));
  return runCells(path.dirname(file), sources, timeoutSeconds);
}

/** Runs cells in order in a fresh process whose working directory is `folder`. */
export async function runCells(
  folder: string,
  cells: CellSource[],
  timeoutSeconds = 300,
): Promise<RunResult> {
  const start = performance.now();
  const { last, running, end } = await runChild(folder, cells, timeoutSeconds);
  const outputs = new Map(cells.map(({ id }, i) => [id, last.outputs?.[i] ?? []]));
  const result: RunResult = { seconds: (performance.now() - start) / 1000, outputs };
  if (last.failed) result.failure = { cell: last.failed, message: errorText(outputs.get(last.failed)!) };
  else if (!last.outputs) result.failure = { cell: running, message: end };
  return result;
}

/** Lets a child process run the cells: the last it said, the cell it was at, and how it ended if not by its own word. */
async function runChild(folder: string, cells: CellSource[], timeoutSeconds: number) {
  const child = fork(fileURLToPath(new URL("notebook-child.mjs", import.meta.url)), {
    cwd: folder,
    execArgv: [],
    env: gpuEnvironment(),
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    timeout: timeoutSeconds * 1000,
    killSignal: "SIGTERM",
  });
  let stderr = "";
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-10_000);
  });
  let last: Report = {};
  let running = "";
  child.on("message", (report: Report) => {
    last = report;
    running = report.running ?? running;
    if (report.outputs) child.kill("SIGKILL"); // all is said, and closing a GPU device may take its time
  });
  child.send({ cells });
  const cause = await new Promise((resolve) =>
    child.once("close", (code, signal) => resolve(signal ?? code)),
  );
  const late = cause === "SIGTERM" ? `did not end within ${timeoutSeconds} s` : `its process died (${cause})`;
  return { last, running, end: `${late}\n${stderr}`.trim() };
}

/** tslab writes an error as text on stderr. */
function errorText(outputs: Output[]): string {
  const texts = outputs.map((output) =>
    output.output_type === "stream" && output.name === "stderr" ? sourceText(output.text) : "",
  );
  return texts.join("").trim() || "failed without a message";
}
