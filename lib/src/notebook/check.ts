/** Exercises: `check` says whether an answer is right, `hint` helps a step further. */
import { display, escapeHtml } from "./display.js";
import { untilInterrupted } from "./interrupt.js";
import { type Check, judge, type Verdict } from "./judge.js";
import { recall, remember } from "./record.js";

/** The MIME type by which tools read a verdict; front ends do not know it and show the rest. */
export const VERDICT_MIME = "application/vnd.tslm.check+json";

/** What a check is remembered by. */
export const checkKey = (check: Check) => `${check.exercise}#${check.id}`;

const hintsShown = new Map<string, number>();

/** `code` between backticks, set as code. */
function inline(text: string): string {
  return escapeHtml(text)
    .replace(/`([^`]+)`/g, "<code>$1</code>")
    .replace(/\n/g, "<br>");
}

function card(color: string, head: string, paragraphs: string[]): string {
  const style = `border-left:4px solid ${color};padding:6px 14px;margin:6px 0;font-size:14px;line-height:1.5`;
  const title = `<div style="font-weight:600;color:${color}">${escapeHtml(head)}</div>`;
  return `<div style="${style}">${title}${paragraphs.map((text) => `<div>${inline(text)}</div>`).join("")}</div>`;
}

function praise(check: Check, verdict: Verdict): string[] {
  const tried = verdict.rounds > 1 ? [`Right on ${verdict.rounds} fresh inputs.`] : ["Right."];
  return [...tried, `You may now compare with solutions/${check.exercise}.ipynb.`];
}

function show(check: Check, verdict: Verdict): void {
  const head = verdict.passed ? `✓ ${check.title}` : `Not yet: ${check.title}`;
  const left = check.hints.length > (recall(checkKey(check)).hints ?? 0);
  const help = left ? ["There is a hint for this one: run the hint cell below."] : [];
  const says = verdict.passed ? praise(check, verdict) : [...verdict.says, ...help];
  display({
    [VERDICT_MIME]: {
      key: checkKey(check),
      passed: verdict.passed,
      mistake: verdict.mistake ?? null,
      says: verdict.says,
    },
    "text/html": card(verdict.passed ? "#16917a" : "#d98a06", head, says),
    "text/plain": [head, ...says.map((text) => `  ${text}`)].join("\n"),
  });
}

/**
 * Judges `answer` on fresh random inputs and says what it found. It never throws because of the answer, so
 * that a half-written notebook runs to its end.
 */
export async function check(exercise: Check, answer: unknown): Promise<void> {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const verdict = await untilInterrupted((signal) => judge(exercise, answer, seed, signal));
  show(exercise, verdict);
  if (verdict.passed) remember(checkKey(exercise), { passed: true });
}

/** Shows the next hint below those already seen. Run the cell again for one more. */
export async function hint(exercise: Check): Promise<void> {
  const key = checkKey(exercise);
  const before = Math.max(hintsShown.get(key) ?? 0, recall(key).hints ?? 0);
  const count = Math.min(before + 1, exercise.hints.length);
  hintsShown.set(key, count);
  remember(key, { hints: count });
  const last = count === exercise.hints.length;
  const head = `Hint ${count} of ${exercise.hints.length}: ${exercise.title}`;
  const lines = exercise.hints.slice(0, count).map((text, i) => `${i + 1}. ${text}`);
  const more = last ? "That was the last one." : "Run this cell again for the next.";
  display({
    "text/html": card("#2f6fde", head, [...lines, more]),
    "text/plain": [head, ...lines, more].join("\n"),
  });
}

/** A wrong answer that a rehearsal gave to a check. */
export interface Rehearsed {
  /** The check's key. */
  key: string;
  /** What is wrong with the check; absent when all is well. */
  problem?: string;
}

const isCheck = (value: unknown): value is Check =>
  Boolean(value) &&
  typeof value === "object" &&
  "expected" in (value as object) &&
  "mistakes" in (value as object);

/** Answers that nobody should get through with. */
const EMPTY_ANSWERS: [string, unknown][] = [
  ["an answer that returns nothing", () => undefined],
  ["an answer that returns 0", () => 0],
  ["an answer that returns an empty list", () => []],
  ["an answer that returns its first argument", (first: unknown) => first],
];

async function rehearseMistake(exercise: Check, at: number, seed: number): Promise<Rehearsed> {
  const mistake = exercise.mistakes[at];
  const key = checkKey(exercise);
  const asFunction = (...args: unknown[]) => mistake.makes?.(...args);
  const makes = exercise.inputs ? asFunction : mistake.makes?.();
  const answer = mistake.makes ? makes : mistake.answer;
  // A mistake told by its results is put in the place of the learner's answer, around the check's own `run`.
  const played = mistake.makes ? { ...exercise, run: undefined } : exercise;
  const verdict = await judge(played, answer, seed);
  const which = `mistake ${at + 1}`;
  if (verdict.passed) return { key, problem: `${which}: the check lets it pass: ${mistake.says}` };
  if (verdict.mistake === mistake.says) return { key };
  const said = verdict.mistake ?? verdict.says.join(" ");
  return { key, problem: `${which}: the check does not recognise it, but says: ${said}` };
}

/**
 * Proves checks against the mistakes they list: each must be caught with its own sentence, and empty answers must not pass.
 * Takes the checks of one exercise, or all of a chapter. Used by `npm run exercises -- --check`.
 */
export async function rehearse(checks: object, exercise?: string, seed = 1): Promise<void> {
  const results: Rehearsed[] = [];
  const chosen = Object.values(checks).filter(isCheck);
  for (const check of chosen.filter((one) => exercise === undefined || one.exercise === exercise)) {
    for (let at = 0; at < check.mistakes.length; at++) results.push(await rehearseMistake(check, at, seed));
    for (const [what, answer] of check.inputs && !check.run ? EMPTY_ANSWERS : []) {
      const { passed } = await judge(check, answer, seed);
      const key = checkKey(check);
      results.push(passed ? { key, problem: `the check lets ${what} pass` } : { key });
    }
  }
  const lines = results.map(
    ({ key, problem }) => `${problem ? "✗" : "✓"} ${key}${problem ? `: ${problem}` : ""}`,
  );
  display({ [VERDICT_MIME]: results, "text/plain": lines.join("\n") });
}
