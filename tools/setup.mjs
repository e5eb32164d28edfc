// Brings a fresh clone to where it works: Node packages, a usable WebGPU adapter, the built library, the kernel spec,
// and, where asked for, Jupyter and a browser. `npm run setup` runs it alone; `npm start`, `npm run train` and `npm test`
// run it first. It has no dependencies, since it runs before they are there, and does nothing where nothing is missing.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline/promises";
import { fileURLToPath } from "node:url";
import * as machine from "../lib/bin/machine.mjs";
import { kernelSpecIsCurrent, writeKernelSpec } from "./kernelspec.mjs";

/** The top of the clone. */
export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** A reason to stop that a person can act on; shown as one sentence. */
export class SetUpError extends Error {}

function say(line) {
  console.log(`set-up: ${line}`);
}

/** Runs a program in the clone and shows what it prints; true when it succeeded. */
function runProgram(program, args, options = {}) {
  return spawnSync(program, args, { cwd: root, stdio: "inherit", ...options }).status === 0;
}

/** Runs npm: the one that runs us, when one does. */
function npm(...args) {
  const own = process.env.npm_execpath;
  if (own?.endsWith("js")) return runProgram(process.execPath, [own, ...args]);
  return runProgram("npm", args, { shell: process.platform === "win32" });
}

// -------------------------------------------------------------------------------------------- Node packages

/** Packages that package-lock.json names and node_modules lacks or has in another version, and commands it lacks. */
export function missingPackages(folder = root) {
  const { packages } = JSON.parse(fs.readFileSync(path.join(folder, "package-lock.json"), "utf8"));
  const command = fs.existsSync(path.join(folder, "node_modules", ".bin", "tslm"))
    ? []
    : ["the command tslm"];
  const missing = Object.entries(packages)
    .filter(([name, wanted]) => name.includes("node_modules/") && !wanted.optional && !wanted.devOptional)
    .filter(
      ([name, wanted]) =>
        installedVersion(path.join(folder, name)) !== (wanted.link ? "link" : wanted.version),
    )
    .map(([name]) => name.slice(name.lastIndexOf("node_modules/") + "node_modules/".length));
  return [...missing, ...command];
}

function installedVersion(folder) {
  try {
    if (fs.lstatSync(folder).isSymbolicLink()) return "link";
    return JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8")).version;
  } catch {
    return undefined;
  }
}

function installPackages() {
  const missing = missingPackages();
  if (missing.length === 0) return;
  const few = missing.slice(0, 3).join(", ");
  const more = missing.length > 3 ? ` and ${missing.length - 3} more` : "";
  say(`installing Node packages (${few}${more})`);
  const options = ["--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  if (npm("ci", ...options)) return;
  say("npm ci failed; trying npm install");
  if (npm("install", ...options)) return;
  throw new SetUpError("npm could not install the Node packages: see its message above, and run npm ci");
}

// ------------------------------------------------------------------------------------------- system packages

/** What to do about a change of the system: "run" it, "ask" first, or "refuse" and print the command. Only --yes says yes. */
export function consent({ yes, interactive }) {
  if (yes) return "run";
  return interactive ? "ask" : "refuse";
}

async function mayRun(commands, what, choice) {
  const decision = consent(choice);
  if (decision === "run") return true;
  const shown = commands.join("; ");
  if (decision === "refuse")
    throw new SetUpError(`${what} needs system packages. Run this, or set-up again with --yes: ${shown}`);
  say(`${what} needs system packages: ${shown}`);
  const terminal = readline.createInterface({ input: process.stdin, output: process.stdout });
  // Ctrl-C and Ctrl-D close the terminal and leave the question open for ever.
  const closed = new Promise((resolve) => terminal.once("close", () => resolve("")));
  const answer = await Promise.race([terminal.question("Run this now? [y/N] "), closed]);
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

/** Runs shell commands in order; only the last must succeed, for one dead source makes `apt-get update` complain. */
function runShell(commands) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const results = commands.map((command) => {
    say(command);
    return runProgram("/bin/sh", ["-c", command], { env });
  });
  return results.at(-1);
}

async function installAdapter(choice) {
  let adapter = machine.probeAdapter();
  if (adapter.ok) return adapter;
  const drivers = process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES;
  if (drivers)
    throw new SetUpError(`the drivers that VK_DRIVER_FILES names (${drivers}) give no adapter: unset it`);
  say(`no usable WebGPU adapter: ${adapter.reason}`);
  const { commands, automatic, reason } = machine.adapterMend();
  const shown = commands.join("; ");
  if (!automatic)
    throw new SetUpError(`tslm needs a WebGPU adapter (${reason})${shown && `. Run: ${shown}`}`);
  say(`Mesa's software adapter, lavapipe, can be installed (${reason})`);
  if (!(await mayRun(commands, "a WebGPU adapter", choice)))
    throw new SetUpError(`tslm needs a WebGPU adapter. Run: ${shown}`);
  const installed = runShell(commands);
  adapter = machine.probeAdapter();
  if (adapter.ok) return adapter;
  if (!installed) throw new SetUpError(`the system packages could not be installed. Run: ${shown}`);
  throw new SetUpError(`there is still no usable WebGPU adapter: ${adapter.reason}`);
}

// ------------------------------------------------------------------------------------------------ the library

/** Compiles the library when a source is newer than what was compiled last. */
export function buildLibrary() {
  const state = machine.libraryState();
  if (state === "current") return;
  say(state === "missing" ? "building the library" : "building the library again: its sources have changed");
  const typescript = path.join(root, "node_modules", "typescript", "bin", "tsc");
  if (!runProgram(process.execPath, [typescript, "-p", "lib"]))
    throw new SetUpError(
      "the library could not be built: mend what the compiler names above, then npm run build",
    );
  // The compiler leaves this file alone where nothing differs; its time tells the next set-up that it looked.
  fs.utimesSync(path.join(root, "lib", "dist", ".tsbuildinfo"), new Date(), new Date());
}

function describeKernel() {
  if (kernelSpecIsCurrent(root)) return;
  say("describing the TypeScript kernel to Jupyter (.jupyter/kernels/tslab)");
  writeKernelSpec(root);
}

// ---------------------------------------------------------------------------------------------------- Jupyter

/**
 * Without a package.json of its own, JavaScript in `.venv` would be held for modules of this clone's kind, and JupyterLab,
 * which runs some of its own to start, would crash.
 */
export function separateEnvironment(folder = root) {
  const environment = path.join(folder, ".venv");
  const file = path.join(environment, "package.json");
  if (fs.existsSync(environment) && !fs.existsSync(file)) fs.writeFileSync(file, "{}\n");
}

function installInEnvironment() {
  const python = machine.findProgram("python3") ?? machine.findProgram("python");
  if (!python) return false;
  const folder = path.join(root, ".venv");
  say("installing JupyterLab into .venv (a Python environment of this clone)");
  if (!runProgram(python, ["-m", "venv", folder])) return false;
  separateEnvironment();
  const own = path.join(machine.environmentFolder(root), "python");
  return runProgram(own, ["-m", "pip", "install", "-qq", "--timeout", "15", "--retries", "1", "jupyterlab"]);
}

/** The Jupyter that is there; where none is, a Python environment in the clone, else the system's package. */
async function installJupyter(choice) {
  const found = machine.findJupyter(root);
  if (found) return found;
  if (!installInEnvironment()) {
    say("that did not work; Jupyter as the system's package instead");
    await installAptPackages(["jupyter-notebook"], "Jupyter", choice);
  }
  const installed = machine.findJupyter(root);
  if (installed) return installed;
  throw new SetUpError(`Jupyter is not here and could not be installed. Run: ${machine.jupyterMend()}`);
}

async function installAptPackages(packages, what, choice) {
  if (!machine.findProgram("apt-get")) return;
  const commands = machine.aptCommands(packages);
  if (await mayRun(commands, what, choice)) runShell(commands);
}

/** What the tests through Jupyter's protocol and in a browser need. Without it they are skipped, so nobody is asked. */
async function installForTests(choice) {
  if (consent(choice) !== "run") return;
  const wanted = [];
  if (!machine.findProgram("jupyter-notebook")) wanted.push("jupyter-notebook");
  if (!machine.findPython("nbclient", root)) wanted.push("python3-nbclient");
  if (!machine.findBrowser()) wanted.push("chromium");
  if (wanted.length === 0) return;
  say(`installing ${wanted.join(", ")} for the tests that use them`);
  await installAptPackages(wanted, "the test", choice);
}

// ------------------------------------------------------------------------------------------------- all of it

/**
 * Does all set-up that is missing for `purpose` ("setup", "start", "train" or "test") and returns what is there:
 * `{ adapter, jupyter }`. Throws a SetUpError that says what to do.
 */
export async function setUp(purpose, choice) {
  if (!machine.nodeIsEnough())
    throw new SetUpError(`Node ${process.versions.node} is too old: ${machine.nodeMend()}`);
  installPackages();
  const adapter = await installAdapter(choice);
  buildLibrary();
  describeKernel();
  separateEnvironment();
  const jupyter = purpose === "start" ? await installJupyter(choice) : machine.findJupyter(root);
  if (purpose === "test") await installForTests(choice);
  return { adapter, jupyter };
}

/** Splits what a script was given into set-up's own options and the rest, which it passes on. */
export function readChoice(args) {
  const yes = args.includes("--yes");
  const interactive = Boolean(process.stdin.isTTY && process.stdout.isTTY);
  return { choice: { yes, interactive }, rest: args.filter((argument) => argument !== "--yes") };
}

/** Whether the module at `url` is what Node was asked to run, and not imported by something else. */
export function isScript(url) {
  return Boolean(process.argv[1]) && fileURLToPath(url) === fs.realpathSync(process.argv[1]);
}

/** Runs a script's main function and turns what went wrong into one sentence and exit code 1. */
export async function runScript(main) {
  try {
    process.exitCode = await main();
  } catch (error) {
    console.error(error instanceof SetUpError ? `set-up: ${error.message}` : error);
    process.exitCode = 1;
  }
}

async function main() {
  const { choice } = readChoice(process.argv.slice(2));
  const { adapter, jupyter } = await setUp("setup", choice);
  say(`everything is in place: Node ${process.versions.node}, ${adapter.name} (${adapter.kind})`);
  say(jupyter ? `Jupyter: ${jupyter.program}` : "Jupyter is not here; npm start installs it");
  return 0;
}

if (isScript(import.meta.url)) await runScript(main);
