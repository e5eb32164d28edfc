// The proof that exercises hold: solutions pass, untouched exercises fail kindly, typical mistakes are caught, and so is
// whatever differs from a solution in one place.
import path from "node:path";
import { equalMutants } from "./equal-mutants.js";
import type { Generated } from "./exercise-files.js";
import { chosenMutants, type Mutant, mutantProgram, mutantsOf } from "./mutants.js";
import type { Notebook, Output } from "./notebook.js";
import { type CellSource, codeOf, type NotebookWorker, type RunResult, workerPair } from "./run-notebook.js";

/** Hears each thing that was proved, or why it was not. A line may stand for `count` of them. */
export type Report = (name: string, problem?: string, count?: number) => void;

const VERDICT = "application/vnd.tslm.check+json";

interface Verdict {
  key: string;
  passed: boolean;
  says: string[];
}

/** A wrong answer that a check was given, and what is wrong if the check did not do as it should. */
interface Rejection {
  key: string;
  problem?: string;
  kind: "mistake" | "mutant" | "equal";
}

/** Everything that outputs say to tools. */
function said<T>(outputs: Output[]): T[] {
  return outputs.flatMap((output) => {
    const value = output.output_type === "display_data" ? output.data[VERDICT] : undefined;
    return value === undefined ? [] : [value as T];
  });
}

const verdictsOf = (notebook: Notebook, { outputs }: RunResult): Verdict[] =>
  codeOf(notebook).flatMap(({ id }) => said<Verdict>(outputs.get(id) ?? []));

const failureText = ({ failure }: RunResult) => failure && `cell ${failure.cell}: ${failure.message}`;

/** From a solution's run: every check in it must pass. */
function proveSolution(name: string, verdicts: Verdict[], report: Report): void {
  if (verdicts.length === 0) report(`solutions/${name}`, "it has no check: `await check(…)` is missing");
  for (const { key, passed, says } of verdicts)
    report(`${key} accepts the solution`, passed ? undefined : says.join("\n"));
}

/** From the run of an exercise as generation gives it: it comes to its end, and every check says "not yet". */
function proveExercise({ name, exercise }: Generated, run: RunResult, report: Report): void {
  const failure = failureText(run);
  if (failure) report(`exercises/${name}`, `an untouched exercise must run to its end\n${failure}`);
  else
    for (const { key, passed } of verdictsOf(exercise!, run))
      report(`${key} answers "not yet"`, passed ? "the check passes before anything is written" : undefined);
}

const exerciseOf = (name: string) => name.replace(/\.ipynb$/, "");

/** All mutants of a solution, by cell. */
const mutantsByCell = (solution: Notebook): Mutant[][] =>
  codeOf(solution).map(({ id, source }) => mutantsOf(id, source));

const MISTAKES = "proof-mistakes";
const MUTANTS = "proof-mutants";

/** The cells that give a notebook's checks the wrong answers that they list, and the mutants of its solution. */
function proofCells(name: string, mutants: Mutant[]): CellSource[] {
  const imports = [
    'import * as book from "tslm";',
    'import * as chapter from "./checks";',
    'import { rehearse, tryMutants } from "tslm/notebook";',
  ];
  const program = JSON.stringify(mutantProgram(mutants));
  return [
    { id: "proof-import", source: imports.join("\n") },
    { id: MISTAKES, source: `await rehearse(chapter, "${exerciseOf(name)}");` },
    { id: MUTANTS, source: `await tryMutants({ ...book, checks: chapter }, ${program});` },
  ];
}

/** What became of a mutant. One that is listed as equal must pass, any other must not. */
function mutantRejection(
  name: string,
  { key, passed, problem }: { key?: string; passed?: boolean; problem?: string },
): Rejection {
  const equal = equalMutants[name];
  const result = { key: key ?? name, kind: equal ? ("equal" as const) : ("mutant" as const) };
  if (problem) return { ...result, problem: `the mutant ${name} does not run: ${problem}` };
  if (passed === Boolean(equal)) return result;
  const what = passed ? "the check lets a mutant pass" : "the check rejects a mutant that is listed as equal";
  return { ...result, problem: `${what}: ${name}` };
}

/** From the run of a solution with `proofCells` behind it: what became of each wrong answer. */
function rejectionsOf(name: string, { outputs }: RunResult, mutants: Mutant[]): Rejection[] {
  const [mistakes = []] = said<{ key: string; problem?: string }[]>(outputs.get(MISTAKES) ?? []);
  const [tried = []] = said<{ key?: string; passed?: boolean }[]>(outputs.get(MUTANTS) ?? []);
  return [
    ...mistakes.map((each) => ({ ...each, kind: "mistake" as const })),
    ...tried.map((each, i) => mutantRejection(`${exerciseOf(name)}#${mutants[i].name}`, each)),
  ];
}

/** Says for each check how many wrong answers it rejects, and which it does not. */
function proveRejections(rejections: Rejection[], report: Report): void {
  for (const key of new Set(rejections.map((each) => each.key))) {
    const own = rejections.filter((each) => each.key === key);
    const right = own.filter(({ problem }) => !problem);
    const [mistakes, mutants, equal] = (["mistake", "mutant", "equal"] as const).map(
      (kind) => right.filter((each) => each.kind === kind).length,
    );
    const text = `${key} rejects ${mistakes} wrong answers and ${mutants} mutants`;
    const count = mistakes + mutants;
    if (count > 0) report(equal > 0 ? `${text}; equal to it: ${equal}` : text, undefined, count);
    for (const { problem } of own) if (problem) report(key, problem);
  }
}

/** Mutants that are listed as equal for a notebook, and that it does not have. */
function listedInVain(name: string, all: Mutant[]): string[] {
  const names = new Set(all.map((mutant) => `${exerciseOf(name)}#${mutant.name}`));
  return Object.keys(equalMutants).filter((key) => key.startsWith(`${exerciseOf(name)}#`) && !names.has(key));
}

/** Proves an exercise and its solution. Both begin to run at once; what came of them is told when `before` is. */
async function proveOne(
  folder: string,
  generated: Generated,
  { run }: NotebookWorker,
  before: Promise<void>,
  report: Report,
): Promise<void> {
  const { name, solution, exercise } = generated;
  const all = mutantsByCell(solution!);
  const mutants = all.flatMap(chosenMutants);
  const [solved, untouched] = await Promise.all([
    run(folder, [...codeOf(solution!), ...proofCells(name, mutants)]),
    run(folder, codeOf(exercise!)),
    before,
  ]);
  const failure = failureText(solved);
  if (failure) report(`solutions/${name}`, failure);
  else {
    proveSolution(name, verdictsOf(solution!, solved), report);
    proveRejections(rejectionsOf(name, solved, mutants), report);
  }
  for (const key of listedInVain(name, all.flat())) report(key, "it is listed as equal, and is no mutant");
  proveExercise(generated, untouched, report);
}

/**
 * Proves all that can be proved about some exercises, each heard by `report`. Exercises run in the folder of their
 * solutions: the checks are the same, and nothing in a learner's folder matters.
 */
export async function proveExercises(root: string, exercises: Generated[], report: Report): Promise<void> {
  const workers = workerPair();
  let told = Promise.resolve();
  for (const generated of exercises.filter(({ solution }) => solution)) {
    const folder = path.dirname(path.join(root, "solutions", generated.name));
    told = proveOne(folder, generated, workers, told, report);
  }
  await told;
  workers.end();
}
