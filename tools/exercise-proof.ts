// The proof that exercises hold: solutions pass, untouched exercises fail kindly, typical mistakes are caught.
import path from "node:path";
import type { Generated } from "./exercise-files.js";
import { type Notebook, type Output, sourceText } from "./notebook.js";
import { type CellSource, runCells, type RunResult } from "./run-notebook.js";

/** Hears each thing that was proved, or why it was not. */
export type Report = (name: string, problem?: string) => void;

const VERDICT = "application/vnd.tslm.check+json";

interface Verdict {
  key: string;
  passed: boolean;
  says: string[];
}

const codeOf = (notebook: Notebook): CellSource[] =>
  notebook.cells
    .filter(({ cell_type }) => cell_type === "code")
    .map(({ id, source }) => ({ id, source: sourceText(source) }));

/** Everything the cells said through `check` or `rehearse`. */
function said<T>(outputs: Map<string, Output[]>): T[] {
  return [...outputs.values()].flat().flatMap((output) => {
    const value = output.output_type === "display_data" ? output.data[VERDICT] : undefined;
    return value === undefined ? [] : [value as T];
  });
}

const failureText = ({ failure }: RunResult) => failure && `cell ${failure.cell}: ${failure.message}`;

/** From a solution's run: every check in it must pass. */
function proveSolution({ name }: Generated, run: RunResult, report: Report): void {
  const failure = failureText(run);
  const verdicts = said<Verdict>(run.outputs);
  if (failure) report(`solutions/${name}`, failure);
  else if (verdicts.length === 0) report(`solutions/${name}`, "it has no check: `await check(…)` is missing");
  else
    for (const { key, passed, says } of verdicts)
      report(`${key} accepts the solution`, passed ? undefined : says.join("\n"));
}

/** From the run of an exercise as generation gives it: it comes to its end, and every check says "not yet". */
function proveExercise({ name }: Generated, run: RunResult, report: Report): void {
  const failure = failureText(run);
  if (failure) report(`exercises/${name}`, `an untouched exercise must run to its end\n${failure}`);
  else
    for (const { key, passed } of said<Verdict>(run.outputs))
      report(`${key} answers "not yet"`, passed ? "the check passes before anything is written" : undefined);
}

const REHEARSAL = [
  { id: "import", source: 'import * as checks from "./checks";\nimport { rehearse } from "tslm/notebook";' },
  { id: "rehearse", source: "await rehearse(checks);" },
];

/** Gives every check of a chapter the wrong answers it lists. */
async function proveMistakes(folder: string, chapter: string, report: Report): Promise<void> {
  const run = await runCells(folder, REHEARSAL);
  const failure = failureText(run);
  if (failure) return report(`solutions/${chapter}/checks.ts`, failure);
  const [results = []] = said<{ name: string; problem?: string }[]>(run.outputs);
  if (results.length === 0) report(`solutions/${chapter}/checks.ts`, "it lists no mistakes");
  for (const { name, problem } of results) report(name, problem);
}

/**
 * Proves all that can be proved about some exercises, each heard by `report`. An exercise runs beside its solution, at the
 * same time, since most of its time is one thread that compiles, and in the same folder: the checks are the same, and
 * nothing in a learner's folder matters.
 */
export async function proveExercises(root: string, exercises: Generated[], report: Report): Promise<void> {
  const chapters = new Set(exercises.map(({ name }) => name.split("/")[0]));
  for (const chapter of chapters) {
    const folder = path.join(root, "solutions", chapter);
    await proveMistakes(folder, chapter, report);
    for (const generated of exercises.filter(
      ({ name, solution }) => solution && name.startsWith(`${chapter}/`),
    )) {
      const { solution, exercise } = generated;
      const [solved, untouched] = await Promise.all([
        runCells(folder, codeOf(solution!)),
        runCells(folder, codeOf(exercise!)),
      ]);
      proveSolution(generated, solved, report);
      proveExercise(generated, untouched, report);
    }
  }
}
