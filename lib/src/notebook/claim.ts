/** Sentences about results, held against the results: text and output of a notebook never disagree. */
import { markdown } from "./markdown.js";

/**
 * Shows a sentence about a result, written in Markdown, if the result bears it out. Otherwise it throws, so that the
 * cell fails: whoever changes the computation, or runs it on another machine, has to change the text too.
 */
export function claim(holds: boolean, sentence: string): void {
  if (!holds) throw new Error(`The result says otherwise: ${sentence}`);
  markdown(sentence);
}

/**
 * The shortest time of each work, in milliseconds, over several rounds in which the works take turns: what else the
 * machine was doing can only have made a time longer, and a slow second is then slow for all of them. One more round
 * goes before, unmeasured, in which kernels are compiled.
 */
export async function shortestInTurns<Name extends string>(
  works: Record<Name, () => unknown>,
  rounds = 5,
): Promise<Record<Name, number>> {
  const entries = Object.entries<() => unknown>(works);
  const shortest = new Map<string, number>();
  for (let round = 0; round <= rounds; round++) {
    for (const [name, work] of entries) {
      const start = performance.now();
      await work();
      const milliseconds = performance.now() - start;
      if (round > 0) shortest.set(name, Math.min(milliseconds, shortest.get(name) ?? Infinity));
    }
  }
  return Object.fromEntries(shortest) as Record<Name, number>;
}

/**
 * How fast something is beside something else, from the time of each, in words that go on with the other's name:
 * "2.1 times as fast as", "about as fast as" (within a tenth) or "1.5 times as slow as".
 */
export function asFastAs(time: number, otherTime: number): string {
  const ratio = otherTime / time;
  if (ratio >= 1.1) return `${ratio.toFixed(1)} times as fast as`;
  return ratio > 1 / 1.1 ? "about as fast as" : `${(1 / ratio).toFixed(1)} times as slow as`;
}
