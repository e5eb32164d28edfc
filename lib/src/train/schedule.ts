// Extracted from chapters/04-training/4-schedules-and-batches.ipynb: edit it there, or here and run `npm run backport`.

//| 04-training/4-schedules-and-batches.ipynb#schedule
/** How the learning rate goes over a run, as a training configuration has it. */
export interface Schedule {
  /** After the warm-up: half a cosine down, level and then down (warmup, stable, decay), or level. */
  kind: "cosine" | "wsd" | "constant";
  /** Steps of the warm-up, in which the rate rises by equal amounts. */
  warmup: number;
  /** Steps of the whole run. */
  steps: number;
  /** The highest learning rate, reached at step `warmup`. */
  peak: number;
  /** The learning rate of the last step (cosine and wsd). */
  floor: number;
  /** wsd: the steps of the way down; a fifth of the run unless given. */
  decaySteps?: number;
}

//| 04-training/4-schedules-and-batches.ipynb#height
/**
 * How high between floor (0) and peak (1) the rate is after the warm-up.
 * Cosine: (1 + cos πt) / 2 with t from 0 to 1 over all that follows (Loshchilov and Hutter, "SGDR").
 * wsd: 1, and over the last `decaySteps` steps 1 − √t (Hägele and others, "Scaling laws and compute-optimal training beyond
 * fixed training durations").
 */
export function heightAt(
  { kind, warmup, steps, decaySteps = Math.round(steps / 5) }: Schedule,
  step: number,
): number {
  const last = steps - 1;
  if (kind === "cosine") return (1 + Math.cos((Math.PI * (step - warmup)) / Math.max(1, last - warmup))) / 2;
  const passed = (step - (last - decaySteps)) / Math.max(1, decaySteps);
  return 1 - Math.sqrt(Math.min(1, Math.max(0, passed)));
}

//| 04-training/4-schedules-and-batches.ipynb#learning-rate
/**
 * The learning rate of a step; steps count from 0 to `steps` − 1.
 * Warm-up: peak · (step + 1) / (warmup + 1), so that the first step already learns and step `warmup` has the peak.
 * Afterwards floor + (peak − floor) · `heightAt`, which is exactly the floor at the last step and stays there.
 */
export function learningRate(schedule: Schedule, step: number): number {
  const { warmup, peak, floor, steps } = schedule;
  if (step < warmup) return (peak * (step + 1)) / (warmup + 1);
  if (schedule.kind === "constant") return peak;
  if (step >= steps - 1) return floor;
  return floor + (peak - floor) * heightAt(schedule, step);
}

//| 04-training/4-schedules-and-batches.ipynb#check-schedule
/** Throws one clear sentence when a schedule makes no sense. */
export function checkSchedule({ kind, warmup, steps, peak, floor, decaySteps = 0 }: Schedule): void {
  const counts = { warmup, steps, decay: decaySteps };
  for (const [name, value] of Object.entries(counts))
    if (!Number.isInteger(value) || value < 0)
      throw new Error(`The schedule's ${name} must be a whole number of steps, not ${value}.`);
  if (!["cosine", "wsd", "constant"].includes(kind))
    throw new Error(`The schedule's kind must be cosine, wsd or constant, not ${kind}.`);
  if (steps < 1 || warmup + decaySteps > steps)
    throw new Error(
      `The schedule's warmup (${warmup}) and decay (${decaySteps}) must fit into its ${steps} steps.`,
    );
  if (!(peak > 0 && floor >= 0 && floor <= peak))
    throw new Error(`The schedule wants 0 ≤ floor ≤ peak and peak > 0, not floor ${floor} and peak ${peak}.`);
}
