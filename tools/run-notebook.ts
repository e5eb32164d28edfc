// Runs notebooks as Jupyter would with tslab.
import { type ChildProcess, fork } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gpuEnvironment } from "../lib/bin/machine.mjs";
import { type Notebook, type Output, parseNotebook, sourceText } from "./notebook.js";

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
  /** Whether the process may run another notebook. */
  fit?: boolean;
}

/** What runs notebooks one by one in a process that lasts as long as they go well. */
export interface NotebookWorker {
  /** Runs cells in order with a kernel of their own, whose working directory is `folder`. */
  run(folder: string, cells: CellSource[]): Promise<RunResult>;
  end(): void;
}

/** The code cells of a notebook. */
export function codeOf(notebook: Notebook): CellSource[] {
  const code = notebook.cells.filter(({ cell_type }) => cell_type === "code");
  return code.map(({ id, source }) => ({ id, source: sourceText(source) }));
}

/** Runs a notebook from top to bottom in its own folder; stops at the first cell that fails. */
export function runNotebook(file: string, run: NotebookWorker["run"] = runCells): Promise<RunResult> {
  return run(path.dirname(file), codeOf(parseNotebook(fs.readFileSync(file, "utf8"), file)));
}

/** Runs cells in a process that nothing else has used, or will. */
export async function runCells(folder: string, cells: CellSource[], silence?: number): Promise<RunResult> {
  const worker = notebookWorker(silence);
  const result = await worker.run(folder, cells);
  worker.end();
  return result;
}

/**
 * How long a notebook may be silent, neither beginning a cell nor giving output: so many times as long as the kernel took
 * to start, which says how fast the machine is just then. It takes one to two seconds on a machine without a GPU, where the
 * longest cell takes one minute.
 */
const startsOfSilence = 600;

/** A worker. One that is silent for too long is ended: `silence` is how many times as long as its first start that is. */
export function notebookWorker(silence = startsOfSilence): NotebookWorker {
  let child: ChildProcess | undefined;
  let limit: number | undefined;
  const run = async (folder: string, cells: CellSource[]) => {
    const start = performance.now();
    const ready = () => {
      limit ??= silence * (performance.now() - start);
      return limit;
    };
    child ??= startChild();
    const { last, running, end } = await runInChild(child, { folder, cells }, ready);
    if (!last.fit) {
      child.kill("SIGKILL"); // all is said, and closing a GPU device may take its time
      child = undefined;
    }
    const outputs = new Map(cells.map(({ id }, i) => [id, last.outputs?.[i] ?? []]));
    const result: RunResult = { seconds: (performance.now() - start) / 1000, outputs };
    if (last.failed) result.failure = { cell: last.failed, message: errorText(outputs.get(last.failed)!) };
    else if (!last.outputs) result.failure = { cell: running, message: end };
    return result;
  };
  return { run, end: () => child?.kill("SIGKILL") };
}

/** Two workers behind one queue, since compiling kernels keeps one core busy while another waits. */
export function workerPair(): NotebookWorker {
  const workers = [notebookWorker(), notebookWorker()];
  const free = [...workers];
  const waiting: ((worker: NotebookWorker) => void)[] = [];
  const run = async (folder: string, cells: CellSource[]) => {
    const worker = free.pop() ?? (await new Promise<NotebookWorker>((resolve) => waiting.push(resolve)));
    const result = await worker.run(folder, cells);
    const next = waiting.shift();
    if (next) next(worker);
    else free.push(worker);
    return result;
  };
  return { run, end: () => workers.map((worker) => worker.end()) };
}

function startChild(): ChildProcess {
  return fork(fileURLToPath(new URL("notebook-child.mjs", import.meta.url)), {
    execArgv: [],
    env: gpuEnvironment(),
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
}

/**
 * Lets a child process run cells: the last it said, the cell it was at, and how it ended if not by its own word. `ready` is
 * told when the kernel has started, and says for how many milliseconds it may be silent from then on.
 */
async function runInChild(
  child: ChildProcess,
  job: { folder: string; cells: CellSource[] },
  ready: () => number,
) {
  let [stderr, running] = ["", ""];
  let last: Report = {};
  let limit = Number.POSITIVE_INFINITY; // until the kernel has started
  let stuck: string | undefined;
  let watch: NodeJS.Timeout | undefined;
  const hear = (text: string) => {
    stderr = (stderr + text).slice(-10_000);
  };
  const giveUp = () => {
    stuck = `was silent for ${Math.round(limit / 1000)} s, and was ended`;
    child.kill("SIGKILL");
  };
  child.stderr!.setEncoding("utf8").on("data", hear);
  const cause = await new Promise((resolve) => {
    child.once("close", (code, signal) => resolve(signal ?? code));
    child.on("message", (report: Report) => {
      clearTimeout(watch);
      last = report;
      running = report.running ?? running;
      if (report.ready) limit = ready();
      if (report.outputs) resolve(undefined);
      else watch = setTimeout(giveUp, Math.min(limit, 2 ** 31 - 1));
    });
    child.send(job);
  });
  clearTimeout(watch);
  child.removeAllListeners();
  child.stderr!.off("data", hear);
  return { last, running, end: `${stuck ?? `its process died (${cause})`}\n${stderr}`.trim() };
}

/** tslab writes an error as text on stderr. */
function errorText(outputs: Output[]): string {
  const texts = outputs.map((output) =>
    output.output_type === "stream" && output.name === "stderr" ? sourceText(output.text) : "",
  );
  return texts.join("").trim() || "failed without a message";
}
