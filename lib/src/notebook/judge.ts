/** Judging an answer to an exercise: fresh inputs, the library as oracle, typical mistakes recognised. */
import { copyValue, type Difference, firstDifference, kindOf, poison, showValue } from "./compare.js";
import { guarded } from "./interrupt.js";
import { type Random, randomFrom } from "./random.js";

// biome-ignore lint/suspicious/noExplicitAny: what an answer takes is its check's affair
type Whatever = any;

/** A typical wrong answer, and the sentence that helps whoever gave it. */
export interface Mistake<Args extends unknown[] = Whatever[]> {
  says: string;
  /** What the mistaken answer gives. With `output` set it writes there, as the right answer would. */
  makes?(...args: Args): unknown;
  /** Instead of `makes`: the mistaken answer itself, for checks that `run` it (a kernel's source). */
  answer?: unknown;
}

/** One exercise's check. It lives in `solutions/<chapter>/checks.ts`. */
export interface Check<Args extends unknown[] = Whatever[]> {
  /** The notebook, as "01-tokenizer/1-one-merge", whose solution opens when this is passed. */
  exercise: string;
  /** Unique within the exercise. */
  id: string;
  title: string;
  /** From a nudge to nearly the answer. */
  hints: string[];
  /** The names of the arguments, to say with which input an answer went wrong. */
  names?: string[];
  /**
   * Draws the arguments of one round. Rounds count from 0: let the first ones be the small and odd cases.
   * A check without `inputs` asks for a value, not for a function.
   */
  inputs?(random: Random, round: number): Args;
  /** The right answer, from the library. With `output` set it may return it or write it there. */
  expected(...args: Args): unknown;
  /** Which argument the answer writes its result into. It is poisoned with NaN before every call. */
  output?: number;
  /** How an answer that is no function is put to work, such as a kernel's source. */
  run?(answer: Whatever, ...args: Args): unknown;
  /**
   * By how much numbers may differ: of the expected number, or of 1 when that is smaller. 1e-5 unless told;
   * up to that, whole numbers must be equal.
   */
  tolerance?: number;
  /** How many inputs are drawn; 24 unless told. */
  rounds?: number;
  /**
   * How long one call may take, in milliseconds; 30 000 unless told, and in any case a thousand times as long as the right
   * answer took just before.
   */
  patience?: number;
  mistakes: Mistake<Args>[];
}

/** What became of an answer. */
export interface Verdict {
  passed: boolean;
  /** What to say, a paragraph each. */
  says: string[];
  /** The mistake that was recognised. */
  mistake?: string;
  rounds: number;
}

/** Stands where an answer is to be written: throws, and the check says "not yet". */
export function todo(what = "there is nothing here yet"): never {
  const error = new Error(what);
  error.name = "NotYet";
  throw error;
}

/** What one call gave: a result, or what went wrong. */
interface Outcome {
  result?: unknown;
  error?: unknown;
  /** It was ended before it returned: an interrupt, or the end of our patience. */
  ended?: "interrupted" | "late";
  changed?: Difference & { argument: string };
}

interface Round {
  args: unknown[];
  expected: unknown;
  /** Milliseconds that the answer had. */
  patience: number;
  outcome: Outcome;
  wrong?: Difference;
}

/** Settles when the time is up or the signal is aborted. */
function endOf(milliseconds: number, signal?: AbortSignal): { promise: Promise<Outcome>; stop: () => void } {
  let stop = () => {};
  const promise = new Promise<Outcome>((resolve) => {
    const timer = setTimeout(() => resolve({ ended: "late" }), milliseconds);
    const interrupt = () => resolve({ ended: "interrupted" });
    signal?.addEventListener("abort", interrupt);
    stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", interrupt);
    };
  });
  return { promise, stop };
}

/** How long calls may take, in milliseconds, and what interrupts them. */
interface Limits {
  patience: number;
  signal?: AbortSignal;
}

/** Calls an answer with copies of `args` and never throws. */
async function attempt(
  check: Check,
  call: (...args: unknown[]) => unknown,
  args: unknown[],
  { patience, signal }: Limits,
): Promise<Outcome> {
  if (signal?.aborted) return { ended: "interrupted" };
  const own = args.map(copyValue);
  if (check.output !== undefined) poison(own[check.output]);
  const end = endOf(patience, signal);
  try {
    const called = guarded(() => call(...own), patience);
    if ("ended" in called) return called;
    const work = (async (): Promise<Outcome> => ({ result: await called.result }))();
    const outcome = await Promise.race([work, end.promise]);
    if (outcome.ended) return outcome;
    const result = check.output === undefined ? copyValue(outcome.result) : copyValue(own[check.output]);
    return { result, changed: changedArgument(check, own, args) };
  } catch (error) {
    return { error };
  } finally {
    end.stop();
  }
}

function changedArgument(check: Check, after: unknown[], before: unknown[]): Outcome["changed"] {
  for (const [i, value] of before.entries()) {
    const difference = i === check.output ? undefined : firstDifference(after[i], value);
    if (difference) return { ...difference, argument: check.names?.[i] ?? `argument ${i + 1}` };
  }
  return undefined;
}

/** The oracle's answer to a round. */
async function oracle(check: Check, args: unknown[]): Promise<unknown> {
  const own = args.map(copyValue);
  const result = await check.expected(...own);
  return result === undefined && check.output !== undefined ? own[check.output] : result;
}

/** How an answer is called: as it is, through the check's `run`, or, for a value, not at all. */
function callerOf(check: Check, answer: unknown): (...args: unknown[]) => unknown {
  if (check.run) return (...args) => check.run?.(answer, ...args);
  return check.inputs ? (answer as (...args: unknown[]) => unknown) : () => answer;
}

const tolerance = (check: Check) => check.tolerance ?? 1e-5;

/** A round before anybody answered: its arguments, the right answer to them, and how long an answer may take, in milliseconds. */
type Drawn = Pick<Round, "args" | "expected" | "patience">;

async function drawRound(check: Check, random: Random, round: number): Promise<Drawn> {
  const args = check.inputs?.(random, round) ?? [];
  const asked = performance.now();
  const expected = await oracle(check, args);
  const patience = Math.max(check.patience ?? 30_000, 1000 * (performance.now() - asked));
  return { args, expected, patience };
}

const roundsOf = (check: Check) => (check.inputs ? (check.rounds ?? 24) : 1);

async function playRound(
  check: Check,
  answer: unknown,
  { args, expected, patience }: Drawn,
  signal?: AbortSignal,
): Promise<Round> {
  const outcome = await attempt(check, callerOf(check, answer), args, { patience, signal });
  const compared = !outcome.error && !outcome.ended;
  const wrong = compared ? firstDifference(outcome.result, expected, tolerance(check)) : undefined;
  return { args, expected, patience, outcome, wrong };
}

async function playRounds(
  check: Check,
  answer: unknown,
  seed: number,
  signal?: AbortSignal,
): Promise<Round[]> {
  const random = randomFrom(seed);
  const rounds: Round[] = [];
  const began = performance.now();
  for (let i = 0; i < roundsOf(check); i++) {
    const round = await playRound(check, answer, await drawRound(check, random, i), signal);
    rounds.push(round);
    // After an error or a long wait the next rounds would tell nothing new.
    const { error, ended } = round.outcome;
    if (error || ended || (round.wrong && performance.now() - began > 20_000)) break;
  }
  return rounds;
}

/**
 * Draws a check's rounds from `seed`, and returns what finds out whether an answer fails in one of them: undefined when
 * it is right in all, otherwise what is said of the first that is not. Cheaper than `judge` for many answers.
 */
export function examiner(check: Check, seed: number) {
  const random = randomFrom(seed);
  const drawn: Drawn[] = [];
  return async (answer: unknown): Promise<string[] | undefined> => {
    for (let i = 0; i < roundsOf(check); i++) {
      drawn[i] ??= await drawRound(check, random, i);
      const round = await playRound(check, answer, drawn[i]);
      if (failed(round)) return describeFailure(check, round);
    }
    return undefined;
  };
}

const failed = ({ outcome, wrong }: Round) =>
  Boolean(wrong || outcome.error || outcome.ended || outcome.changed);

/** The mistake whose results are the learner's: alike in every round, and wrong in one at least. */
async function recognise(check: Check, rounds: Round[], signal?: AbortSignal): Promise<string | undefined> {
  if (rounds.some(({ outcome }) => outcome.ended)) return undefined;
  for (const mistake of check.mistakes) {
    const call = mistake.makes
      ? (...args: unknown[]) => mistake.makes?.(...args)
      : callerOf(check, mistake.answer);
    let wrong = false;
    let alike = true;
    for (const round of rounds) {
      const outcome = await attempt(check, call, round.args, { patience: round.patience, signal });
      alike = !outcome.ended && sameOutcome(check, outcome, round.outcome);
      if (!alike) break;
      const { error, changed, result } = outcome;
      wrong ||= Boolean(error || changed || firstDifference(result, round.expected, tolerance(check)));
    }
    if (alike && wrong) return mistake.says;
  }
  return undefined;
}

function sameOutcome(check: Check, a: Outcome, b: Outcome): boolean {
  if (a.error || b.error) return sameKernelError(a.error, b.error);
  if (Boolean(a.changed) !== Boolean(b.changed)) return false;
  return firstDifference(b.result, a.result, tolerance(check)) === undefined;
}

/** Two kernels that miss the same array at the same place, as often, are wrong alike. */
function sameKernelError(a: unknown, b: unknown): boolean {
  const kernels = [a, b].every((error) => error instanceof Error && error.name === "KernelError");
  return kernels && (a as Error).message === (b as Error).message;
}

function inputLine(check: Check, args: unknown[]): string {
  const names = check.names ?? args.map((_, i) => (args.length === 1 ? "the input" : `argument ${i + 1}`));
  const shown = args.map((value, i) => (i === check.output ? "" : `${names[i]} = ${showValue(value)}`));
  return shown.filter(Boolean).join(", ");
}

function errorText(error: unknown): string {
  if (!(error instanceof Error)) return `It threw ${showValue(error)}.`;
  if (error.name === "KernelError") return error.message;
  if (error.name === "NotYet") return `Nothing is written yet: ${error.message}.`;
  return `It stopped with ${error.name}: ${error.message}`;
}

/** What is wrong with a value that came back. */
function differenceText(check: Check, { wrong, expected, outcome }: Round): string {
  const { path, got, because, unwritten } = wrong!;
  const what = check.output === undefined ? "the result" : (check.names?.[check.output] ?? "the output");
  if (path === "" && got === undefined) {
    return `It returns nothing yet (undefined); ${showValue(expected)} is expected.`;
  }
  if (path === "" && got instanceof Promise) return "It returns a promise that was not awaited.";
  if (path === "" && because)
    return `Look at ${what}: ${because}. It is ${showValue(outcome.result)}; expected is ${showValue(expected)}.`;
  // Of an object with named parts the part's own name says enough.
  const spot = path.startsWith(".") ? path.slice(1) : `${what}${path}`;
  const place = path ? `Look at ${spot}: it is ${showValue(got)}` : `It gives ${showValue(got)}`;
  const tail = unwritten ? " (was it ever written?)" : because ? ` (${because})` : "";
  return `${place}, and should be ${showValue(wrong!.expected)}${tail}.`;
}

/** Why a call was ended before it returned. */
function endText({ outcome, patience }: Round): string {
  if (outcome.ended === "interrupted") return "It was interrupted before it returned.";
  const seconds = Number((patience / 1000).toPrecision(2));
  return `It did not finish within ${seconds} s: does every loop end, and every promise resolve?`;
}

function describeFailure(check: Check, round: Round): string[] {
  const { outcome, args, wrong } = round;
  const says: string[] = [];
  if (outcome.error) says.push(errorText(outcome.error));
  else if (outcome.ended) says.push(endText(round));
  else if (wrong) says.push(differenceText(check, round));
  else if (outcome.changed) {
    const { argument, path, got, expected } = outcome.changed;
    says.push(
      `The result is right, but ${argument} was changed: ${argument}${path} was ${showValue(expected)} and is ${showValue(got)} after the call. Work on a copy.`,
    );
  }
  const quiet = outcome.error instanceof Error && outcome.error.name === "NotYet";
  if (args.length && !quiet) says.push(`With ${inputLine(check, args)}.`);
  return says;
}

/**
 * Judges an answer on inputs drawn from `seed`. Never throws because of the answer. An answer that does not return is ended
 * after a while, and at once when the signal is aborted or, in a loop that never waits, by an interrupt.
 */
export async function judge(
  check: Check,
  answer: unknown,
  seed: number,
  signal?: AbortSignal,
): Promise<Verdict> {
  if (check.inputs && !check.run && typeof answer !== "function") {
    return {
      passed: false,
      rounds: 0,
      says: [`A function is expected here, and this is ${kindOf(answer)}.`],
    };
  }
  if (!check.inputs && answer === undefined) {
    return {
      passed: false,
      rounds: 0,
      says: ["Nothing is written yet: put your answer in place of undefined."],
    };
  }
  const rounds = await playRounds(check, answer, seed, signal);
  const first = rounds.find(failed);
  if (!first) return { passed: true, rounds: rounds.length, says: [] };
  const mistake = await recognise(check, rounds, signal);
  const says = check.inputs ? describeFailure(check, first) : valueFailure(check, first);
  return { passed: false, rounds: rounds.length, mistake, says: mistake ? [mistake, ...says] : says };
}

/** A predicted value that is wrong: where, without giving the right one away. */
function valueFailure(_check: Check, round: Round): string[] {
  const { wrong, outcome } = round;
  if (outcome.ended) return [endText(round)];
  if (!wrong) return [errorText(outcome.error)];
  const { path, got, because } = wrong;
  if (got === undefined) return [`Nothing is written yet${path ? ` for ${path.replace(/^\./, "")}` : ""}.`];
  if (because) return [`That is not it${path ? ` at ${path}` : ""}: ${because}.`];
  return [`That is not it: ${path ? `${path} is not ` : "it is not "}${showValue(got)}.`];
}
