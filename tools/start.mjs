// `npm start`: sets up what is missing and opens the book in Jupyter. What follows `--` goes to Jupyter, as in
// `npm start -- --no-browser --port 8899`.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { findPython, gpuEnvironment } from "../lib/bin/machine.mjs";
import { kernelEnvironment } from "./kernelspec.mjs";
import { isScript, readChoice, root, runScript, setUp } from "./setup.mjs";

/**
 * The arguments for Jupyter. The clone is the server's root, because figures load plotly from its node_modules; the page
 * opened is the list of chapters.
 */
export function jupyterArguments({ kind }, given, folder = root) {
  // Notebook 6 and 7 know the page by different names, and each leaves the other's alone.
  const page =
    kind === "lab"
      ? ["--LabApp.default_url=/lab/tree/chapters"]
      : ["--NotebookApp.default_url=/tree/chapters", "--JupyterNotebookApp.default_url=/tree/chapters"];
  const asRoot = process.getuid?.() === 0 ? ["--allow-root"] : [];
  return [`--notebook-dir=${folder}`, ...page, ...asRoot, ...given];
}

const TRUST = `
import sys
from nbformat import read
from nbformat.sign import NotebookNotary
notary = NotebookNotary()
for file in sys.argv[1:]:
    notebook = read(file, 4)
    if not notary.check_signature(notebook):
        notary.sign(notebook)
`;

/**
 * Tells Jupyter that the book's notebooks are the reader's own: of others it shows no picture before they are run. `python`
 * is one with nbformat; without it pictures wait for a run, and that is all.
 */
export function trustNotebooks(files, python, env = process.env) {
  if (!python || files.length === 0) return Promise.resolve();
  const child = spawn(python, ["-c", TRUST, ...files], { env, stdio: "ignore" });
  return new Promise((resolve) => {
    child.on("error", resolve);
    child.on("exit", resolve);
  });
}

/** Every notebook of the book, its exercises and their solutions. */
function bookNotebooks(folder = root) {
  const found = [];
  for (const top of ["chapters", "exercises", "solutions"]) {
    const names = fs.existsSync(path.join(folder, top))
      ? fs.readdirSync(path.join(folder, top), { recursive: true })
      : [];
    found.push(
      ...names.filter((name) => name.endsWith(".ipynb")).map((name) => path.join(folder, top, name)),
    );
  }
  return found.filter((file) => !file.includes(".ipynb_checkpoints"));
}

async function main() {
  const { choice, rest } = readChoice(process.argv.slice(2));
  const { jupyter } = await setUp("start", choice);
  console.log(`Opening the book in Jupyter (${path.basename(jupyter.program)}). Ctrl-C here ends it.`);
  const env = kernelEnvironment(root, gpuEnvironment());
  trustNotebooks(bookNotebooks(), findPython("nbformat", root), env); // while Jupyter starts
  const child = spawn(jupyter.program, jupyterArguments(jupyter, rest), { cwd: root, env, stdio: "inherit" });
  // Ctrl-C reaches Jupyter too, which asks or ends by itself; we wait for it.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code) => resolve(code ?? 1));
  });
}

if (isScript(import.meta.url)) await runScript(main);
