// `npm test`: sets up what is missing, then runs every check of the book. The last line counts them all, the linter, the
// extraction and the type check as one test each: `N passed, N failed`. Names after `--` choose phases, as in
// `npm test -- lint unit`; `npm test -- quick` is what needs no GPU and no program but this one.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { gpuEnvironment } from "../lib/bin/machine.mjs";
import { kernelEnvironment } from "./kernelspec.mjs";
import { isScript, readChoice, root, runScript, setUp } from "./setup.mjs";

const bin = (name, file) => path.join(root, "node_modules", name, file);
const tsx = bin("tsx", "dist/cli.mjs");

/** What `npm test` runs, in order: a name, the Node program with its arguments, and how the results are counted. */
const phases = [
  { name: "lint", run: [bin("@biomejs/biome", "bin/biome"), "check"], count: asOne },
  { name: "extract", run: [tsx, "tools/extract.ts", "--check"], count: asOne },
  {
    name: "types",
    run: [
      bin("typescript", "bin/tsc"),
      "--noEmit",
      "-p",
      "tsconfig.json",
      "--incremental",
      "--tsBuildInfoFile",
    ].concat(path.join(root, "node_modules", ".cache", "types.tsbuildinfo")),
    count: asOne,
  },
  {
    name: "unit",
    run: [bin("vitest", "vitest.mjs"), "run", "--reporter=default"],
    count: fromVitest,
    report: true,
  },
  { name: "notebooks", run: [tsx, "tools/notebooks.ts"], count: fromLastLine },
  { name: "exercises", run: [tsx, "tools/exercises.ts", "--check"], count: fromLastLine },
];

/** A phase that is one test: it passes when its program ends well. */
export function asOne({ code }) {
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/**
 * The counts in a program's last line `N passed, N failed`, and what it printed about each failure: the lines from `✗`
 * on, as far as they are indented. A program that ends badly has failed at least once.
 */
export function fromLastLine({ code, output }) {
  const found = [...output.matchAll(/^(\d+) passed, (\d+) failed\b/gm)].at(-1);
  const passed = found ? Number(found[1]) : 0;
  const failed = found ? Number(found[2]) : 0;
  const bad = code !== 0 || passed + failed === 0; // a phase that ran nothing has not passed
  const failures = output.match(/^✗.*(\n[ \t]+.*)*/gm) ?? [];
  return { passed, failed: failed === 0 && bad ? 1 : failed, failures };
}

/** The counts and failures in vitest's JSON report. A file that could not be loaded holds no test, and is one failure. */
export function fromVitest({ code, report }) {
  if (!report) return { passed: 0, failed: 1 };
  const failures = report.testResults.flatMap(({ name, message, assertionResults }) => {
    const tests = assertionResults.filter(({ status }) => status === "failed");
    const file = path.relative(root, name);
    if (tests.length === 0 && message) return [`✗ ${file}\n    ${message.split("\n")[0]}`];
    return tests.map((test) => `✗ ${file}: ${test.fullName}\n    ${test.failureMessages[0]?.split("\n")[0]}`);
  });
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  );
  const failed = report.numFailedTests + broken.length;
  const bad = code !== 0 || report.numPassedTests === 0;
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && bad ? 1 : failed,
    skipped: report.numPendingTests,
    failures,
  };
}

/** Runs one phase, showing what it prints; returns its counts and seconds. */
async function runPhase({ name, run, count, report }) {
  console.log(`\n== ${name}`);
  const began = performance.now();
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "tslm-test-")), "report.json");
  const pipelines = `${file}.pipelines`;
  const args = report ? [...run, "--reporter=json", `--outputFile.json=${file}`] : run;
  const { code, output } = await runAndShow(args, report ? { TSLM_PIPELINES: pipelines } : {});
  const counts = count({ code, output, report: report && readReport(file) });
  for (const line of pipelineLines(pipelines)) console.log(line);
  fs.rmSync(path.dirname(file), { recursive: true });
  return { name, seconds: (performance.now() - began) / 1000, skipped: 0, failures: [], ...counts };
}

function readReport(file) {
  return fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : undefined;
}

/** How many pipelines each test file made, the most first: what was compiled for an earlier file of the same process is not made again. */
function pipelineLines(file) {
  if (!fs.existsSync(file)) return [];
  const notes = fs
    .readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const made = notes.filter(({ pipelines }) => pipelines > 0).sort((a, b) => b.pipelines - a.pipelines);
  const sum = made.reduce((total, { pipelines }) => total + pipelines, 0);
  const lines = made.map(
    ({ test, pipelines }) => `${String(pipelines).padStart(6)}  ${path.relative(root, test)}`,
  );
  return sum > 0 ? [`${sum} pipelines were made:`, ...lines] : [];
}

function runAndShow(args, more) {
  const colour = process.stdout.isTTY ? { FORCE_COLOR: "1" } : { NO_COLOR: "1" };
  const env = { ...kernelEnvironment(root, gpuEnvironment()), ...colour, ...more };
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
    process.stdout.write(chunk);
  });
  child.stderr.on("data", (chunk) => process.stdout.write(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
}

/** What a test file speaks of when it opens a GPU or starts programs. */
const slow =
  /openGpu|openModel|runBody|spawn|execFile|fork\(|Worker|runCells|runNotebooks|proveExercises|buildLibrary|tslm\.ts"|strain|listen\(/;

/** Test files that need neither a GPU nor other processes. */
function quickTests() {
  const files = ["lib/test", "tests"].flatMap((folder) =>
    fs.readdirSync(path.join(root, folder), { recursive: true }).map((name) => path.join(folder, name)),
  );
  return files
    .filter((name) => name.endsWith(".test.ts"))
    .filter((name) => !slow.test(fs.readFileSync(path.join(root, name), "utf8")));
}

/** The phases of `npm test -- quick`. */
const quickPhases = () =>
  phases
    .filter(({ name }) => ["lint", "extract", "types", "unit"].includes(name))
    .map((phase) => (phase.name === "unit" ? { ...phase, run: [...phase.run, ...quickTests()] } : phase));

/** The phases with these names, or all. Test cells are not run twice: where the unit tests run, notebooks leave theirs out. */
function chosenPhases(names) {
  if (names.includes("quick")) return quickPhases();
  const chosen = phases.filter(({ name }) => names.length === 0 || names.includes(name));
  const unit = chosen.some(({ name }) => name === "unit");
  return chosen.map((phase) =>
    phase.name === "notebooks" && unit ? { ...phase, run: [...phase.run, "--without-tests"] } : phase,
  );
}

async function main() {
  const { choice, rest: names } = readChoice(process.argv.slice(2));
  const known = [...phases.map(({ name }) => name), "quick"];
  const unknown = names.find((name) => !known.includes(name));
  if (unknown) {
    console.error(`npm test knows no phase "${unknown}": there are ${known.join(", ")}`);
    return 2;
  }
  await setUp("test", choice);
  const results = [];
  for (const phase of chosenPhases(names))
    if (phase.run.every((part) => !part.endsWith(".ts") || fs.existsSync(path.join(root, part))))
      results.push(await runPhase(phase));
  console.log("");
  for (const { name, failures } of results) // once more at the end, where a long log is looked at first
    for (const failure of failures) console.log(`${name}: ${failure}`);
  for (const { name, seconds, passed, failed, skipped } of results) {
    const left = skipped ? `, ${skipped} skipped` : "";
    console.log(
      `${name.padEnd(10)} ${seconds.toFixed(1).padStart(6)} s  ${passed} passed, ${failed} failed${left}`,
    );
  }
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
  return sum("failed") === 0 ? 0 : 1;
}

if (isScript(import.meta.url)) await runScript(main);
