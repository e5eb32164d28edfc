// npm run notebooks [-- NAME…] [--save] [--jupyter] [--without-tests]: runs the book's notebooks.
import { spawnSync } from "node:child_process";
import path from "node:path";
import { findPython, gpuEnvironment, patience } from "../lib/bin/machine.mjs";
import { BookError, notebookNames, readNotebook, repository, writeNotebook } from "./notebook.js";
import { kernelEnvironment, writeKernelSpec } from "./kernelspec.mjs";
import { type NotebookWorker, type RunResult, runNotebook, workerPair } from "./run-notebook.js";
import { runTool } from "./run-tool.js";
import { buildLibrary } from "./setup.mjs";

const notebookFile = (root: string, name: string): string => path.join(root, "chapters", name);

/**
 * Runs notebooks and reports each on a line when it is done. `save` keeps the outputs of those that pass, and then they run
 * one by one, each in a process of its own: what is in them is what a reader sees on a machine that does nothing else.
 */
export async function runNotebooks(
  root: string,
  names: string[],
  { save = false, log = console.log }: { save?: boolean; log?: (line: string) => void } = {},
): Promise<Map<string, RunResult>> {
  const results = new Map<string, RunResult>();
  const runOne = async (name: string, run?: NotebookWorker["run"]) => {
    const result = await runNotebook(notebookFile(root, name), run);
    results.set(name, result);
    const seconds = `${result.seconds.toFixed(1)} s`.padStart(8);
    if (result.failure)
      log(`✗ ${seconds}  ${name}#${result.failure.cell}\n${indented(result.failure.message)}`);
    else log(`✓ ${seconds}  ${name}`);
    if (save && !result.failure) saveOutputs(root, name, result);
  };
  if (save) for (const name of names) await runOne(name);
  else {
    const workers = workerPair();
    await Promise.all(names.map((name) => runOne(name, workers.run)));
    workers.end();
  }
  return results;
}

const indented = (text: string): string => text.replace(/^/gm, "    ");

function saveOutputs(root: string, name: string, { outputs }: RunResult): void {
  const notebook = readNotebook(root, name);
  for (const cell of notebook.cells) if (cell.cell_type === "code") cell.outputs = outputs.get(cell.id) ?? [];
  writeNotebook(root, name, notebook);
}

/** The notebooks whose names contain one of the words; all of them without a word. */
export function selectNotebooks(names: string[], words: string[]): string[] {
  const unknown = words.filter((word) => !names.some((name) => name.includes(word)));
  if (unknown.length > 0) {
    throw new BookError([
      `no notebook is called ${unknown.join(", ")}; there are:`,
      ...names.map((n) => `  ${n}`),
    ]);
  }
  return names.filter((name) => words.length === 0 || words.some((word) => name.includes(word)));
}

const EXECUTE = `
import os, sys, nbformat, nbclient
file = sys.argv[1]
notebook = nbformat.read(file, 4)
nbformat.validate(notebook)
try:
    nbclient.NotebookClient(notebook, timeout=int(sys.argv[2]), kernel_name="tslab",
        resources={"metadata": {"path": os.path.dirname(file)}}).execute()
except nbclient.exceptions.CellExecutionError as error:
    sys.exit(str(error))
`;

/**
 * Runs a notebook through Jupyter's own protocol, with Python's nbclient and the kernel spec of this clone.
 * Returns what failed, or a reason why it could not be tried; neither when it ran.
 */
export function runInJupyter(file: string): { failure?: string; skipped?: string } {
  const python = findPython("nbclient", repository);
  if (!python) return { skipped: "no Python with nbclient was found" };
  writeKernelSpec(repository);
  const env = kernelEnvironment(repository, gpuEnvironment());
  const { status, stderr } = spawnSync(python, ["-c", EXECUTE, file, String(Math.ceil(patience(600)))], {
    env,
    encoding: "utf8",
  });
  return { failure: status === 0 ? undefined : stderr.trim() };
}

const options = ["--save", "--jupyter", "--without-tests"];

/** Throws for an option that there is none of (without it, all notebooks would run), or that would save what did not run. */
export function checkOptions(args: string[]): void {
  const unknown = args.find((arg) => arg.startsWith("-") && !options.includes(arg));
  const usage = `npm run notebooks [-- NAME…] ${options.map((option) => `[${option}]`).join(" ")}`;
  if (unknown) throw new BookError([`there is no option ${unknown}: ${usage}`]);
  if (args.includes("--without-tests") && args.some((arg) => arg === "--save" || arg === "--jupyter"))
    throw new BookError(["--without-tests is for checking only: leave out --save and --jupyter"]);
}

async function main(args: string[]): Promise<void> {
  checkOptions(args);
  const names = selectNotebooks(
    notebookNames(repository),
    args.filter((arg) => !arg.startsWith("--")),
  );
  buildLibrary();
  if (args.includes("--jupyter")) {
    for (const name of names) jupyterReport(name);
    return;
  }
  if (args.includes("--without-tests")) {
    process.env.TSLM_TEST_BODIES = "skip"; // the processes that run notebooks inherit it
    console.log("The bodies of test cells are left out: the unit tests are the same code.");
  }
  const results = await runNotebooks(repository, names, { save: args.includes("--save") });
  const failed = [...results.values()].filter(({ failure }) => failure).length;
  console.log(`${results.size - failed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}

function jupyterReport(name: string): void {
  const start = performance.now();
  const { failure, skipped } = runInJupyter(notebookFile(repository, name));
  const seconds = `${((performance.now() - start) / 1000).toFixed(1)} s`.padStart(8);
  console.log(`${failure ? "✗" : skipped ? "-" : "✓"} ${seconds}  ${name} in Jupyter`);
  if (failure || skipped) console.log(indented(failure ?? `skipped: ${skipped}`));
  if (failure) process.exitCode = 1;
}

runTool(import.meta.url, main);
