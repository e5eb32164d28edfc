// Timing for `tslm bench`.
import { finish, flush } from "../gpu/commands.js";
import { currentGpu } from "../gpu/device.js";

/** The middle one of some numbers. */
export function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

/** Seconds of one run as the clock on the wall has it, and of those that the program itself takes to ask for it. */
export interface RunTime {
  seconds: number;
  hostSeconds: number;
}

/** Times `repeats` runs handed over one after the other, without waiting in between, as training does. */
async function timeRuns(work: () => void, repeats: number): Promise<RunTime> {
  const start = performance.now();
  for (let i = 0; i < repeats; i++) work();
  flush();
  const host = performance.now();
  await finish();
  const perRun = 1000 * repeats;
  return { seconds: (performance.now() - start) / perRun, hostSeconds: (host - start) / perRun };
}

/**
 * Medians over `timings` timings of work that is handed to the GPU. Each timing has as many runs as fill a while, since
 * waiting for the GPU is not exact to less than a millisecond.
 */
export async function timeWork(work: () => void, timings = 5): Promise<RunTime> {
  await timeRuns(work, 1); // compiles
  const least = currentGpu().facts.kind === "cpu" ? 0.02 : 0.03;
  const most = 10_000;
  let [repeats, { seconds }] = [1, await timeRuns(work, 1)];
  while (seconds * repeats < least && repeats < most) {
    repeats = Math.min(most, Math.max(2 * repeats, Math.ceil(least / seconds)));
    seconds = (await timeRuns(work, repeats)).seconds;
  }
  const times: RunTime[] = [];
  for (let i = 0; i < timings; i++) times.push(await timeRuns(work, repeats));
  return {
    seconds: median(times.map(({ seconds }) => seconds)),
    hostSeconds: median(times.map(({ hostSeconds }) => hostSeconds)),
  };
}
