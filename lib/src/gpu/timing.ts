// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import type { Storage } from "./buffers.js";
import { finish, run } from "./commands.js";
import type { Kernel } from "./kernel.js";

//| 02-attention/a-the-engine-room.ipynb#seconds-per-run
/** Seconds that one run of a kernel takes: the median of several timings of `repeats` runs each. */
export async function secondsPerRun(
  kernel: Kernel,
  storages: Storage[],
  repeats = 5,
  timings = 5,
): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i <= timings; i++) {
    const start = performance.now();
    for (let k = 0; k < repeats; k++) run(kernel, storages);
    await finish();
    // The first timing includes compilation.
    if (i > 0) times.push((performance.now() - start) / 1000 / repeats);
  }
  return times.sort((a, b) => a - b)[timings >> 1];
}

//| 02-attention/a-the-engine-room.ipynb#shortest-runs
/** The shortest time of each of several kernels in seconds a run, each timed `turns` times over `repeats` runs. */
export async function shortestRuns(
  kernels: Kernel[],
  storages: Storage[],
  repeats = 1,
  turns = 4,
): Promise<number[]> {
  const shortest = kernels.map(() => Infinity);
  for (let turn = 0; turn <= turns; turn++)
    for (const [i, kernel] of kernels.entries()) {
      const start = performance.now();
      for (let k = 0; k < repeats; k++) run(kernel, storages);
      await finish();
      const seconds = (performance.now() - start) / 1000 / repeats;
      // The first turn includes compilation.
      if (turn > 0) shortest[i] = Math.min(shortest[i], seconds);
    }
  return shortest;
}
