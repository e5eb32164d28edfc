// npm run exercises [-- --check] [-- NAME…]: makes the exercises from their solutions, or proves that they hold.
import fs from "node:fs";
import path from "node:path";
import { buildExercises, type Generated, staleExercises, writeExercises } from "./exercise-files.js";
import { proveExercises } from "./exercise-proof.js";
import { BookError, repository } from "./notebook.js";
import { runTool } from "./run-tool.js";
import { buildLibrary } from "./setup.mjs";

/** The exercises whose names contain one of the words; all of them without a word. */
function select(exercises: Generated[], words: string[]): Generated[] {
  const chosen = exercises.filter(({ name }) => words.every((word) => name.includes(word)));
  if (exercises.length > 0 && chosen.length === 0)
    throw new BookError([`no exercise is called ${words.join(" ")}`]);
  return chosen;
}

/** Proves everything about the exercises; prints a line for each thing and the counts at the end. */
async function check(exercises: Generated[], words: string[]): Promise<void> {
  const { stale, edited } = staleExercises(repository, exercises);
  let [passed, failed] = [0, 0];
  const report = (name: string, problem?: string, count = 1) => {
    if (problem) failed++;
    else passed += count;
    console.log(`${problem ? "✗" : "✓"} ${name}${problem ? `\n${problem.replace(/^/gm, "    ")}` : ""}`);
  };
  for (const file of edited) console.log(`- ${file} was edited: it is left as it is`);
  report("exercises/ is what solutions/ give", stale.length ? staleText(stale) : undefined);
  buildLibrary();
  await proveExercises(repository, select(exercises, words), report);
  console.log(`${passed} passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}

const staleText = (stale: string[]) => [...stale, "Run `npm run exercises` to make them anew."].join("\n");

async function main(args: string[]): Promise<void> {
  const exercises = buildExercises(repository);
  const words = args.filter((arg) => !arg.startsWith("--"));
  if (args.includes("--check")) return check(exercises, words);
  const { written, edited, removed } = writeExercises(repository, exercises);
  for (const file of written) console.log(`wrote ${file}`);
  for (const file of removed) console.log(`removed ${file}: it has no solution any more`);
  for (const file of edited) console.log(`kept ${file}: you edited it; delete the file to get it fresh`);
  if (written.length + removed.length === 0) console.log(`${exercises.length} exercises are up to date`);
  if (!fs.existsSync(path.join(repository, "solutions"))) console.log("There is no solutions/ folder yet.");
}

runTool(import.meta.url, main);
