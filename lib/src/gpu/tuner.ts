// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import type { Storage } from "./buffers.js";
import type { Kernel } from "./kernel.js";
import { secondsPerRun } from "./timing.js";

//| 02-attention/a-the-engine-room.ipynb#tuner
/** Which variant won, by question: an adapter, an operation and a shape. Plain data, so that it can be kept on disk. */
export type TunerChoices = Record<string, string>;

/** What has been measured so far in this process, or was read from disk at its start. */
export const tunerChoices: TunerChoices = {};

/**
 * The fastest of several kernels that compute the same: measured the first time a question is asked, remembered after.
 * `question` names adapter, operation and shape; `variants` are the candidates by name, all for the same `storages`,
 * whose contents are overwritten. The first candidate stays unless another is faster by a twentieth: less may be noise.
 */
export async function fastestVariant(
  question: string,
  variants: Record<string, Kernel>,
  storages: Storage[],
): Promise<{ name: string; seconds: Record<string, number> }> {
  const choice = tunerChoices[question];
  if (choice !== undefined && choice in variants) return { name: choice, seconds: {} };
  const seconds: Record<string, number> = {};
  for (const [name, kernel] of Object.entries(variants))
    seconds[name] = await secondsPerRun(kernel, storages, 3, 3);
  const [usual] = Object.keys(variants);
  const [fastest] = Object.entries(seconds).reduce((best, timed) => (timed[1] < best[1] ? timed : best));
  const name = seconds[fastest] < 0.95 * seconds[usual] ? fastest : usual;
  tunerChoices[question] = name;
  return { name, seconds };
}
