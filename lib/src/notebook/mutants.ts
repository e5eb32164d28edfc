/** Trying many changed answers on a check: it should reject every one of them. */
import { checkKey, VERDICT_MIME } from "./check.js";
import { display } from "./display.js";
import { type Check, examiner, todo } from "./judge.js";

/** What became of one changed answer. */
export interface Tried {
  /** The check that was asked, and whether it let the answer pass. */
  key?: string;
  passed?: boolean;
  /** Why no check could be asked: the answer does not even run. */
  problem?: string;
}

/** So many turns of its loops has a changed answer before it counts as one that goes on for ever. */
const MOST_STEPS = 1_000_000;

/**
 * Runs every function of a program, `[async () => { a cell }, …]` in JavaScript, with the names of `scope`. What a cell
 * hands to `check` is tried on rounds drawn from `seed`, the same for all. Shows what became of each, for tools to read.
 */
export async function tryMutants(scope: object, program: string, seed = 1): Promise<void> {
  const examiners = new Map<Check, ReturnType<typeof examiner>>();
  let [steps, tried] = [0, {} as Tried];
  const step = () => {
    if (++steps > MOST_STEPS) throw new Error("It goes on for ever.");
  };
  const check = async (exercise: Check, answer: unknown) => {
    const examine = examiners.get(exercise) ?? examiner(exercise, seed);
    examiners.set(exercise, examine);
    const [said] = (await examine(answer)) ?? [];
    tried = { key: checkKey(exercise), passed: said === undefined };
    if (said?.startsWith("Your kernel does not compile")) tried.problem = said;
  };
  const { default: _, ...given } = scope as { default?: unknown }; // a module may have it, and it is no name to give
  const names = { ...given, check, todo, step };
  const make = new Function(...Object.keys(names), `"use strict"; return ${program}`);
  const results: Tried[] = [];
  for (const run of make(...Object.values(names)) as (() => Promise<void>)[]) {
    [steps, tried] = [0, { problem: "it asks no check" }];
    try {
      await run();
    } catch (error) {
      tried = { problem: String(error) };
    }
    results.push(tried);
  }
  display({ [VERDICT_MIME]: results, "text/plain": `${results.length} changed answers were tried` });
}
