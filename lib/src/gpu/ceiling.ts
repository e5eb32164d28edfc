// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import type { Storage } from "./buffers.js";
import { type Kernel, allocate, finish, kernel, release, run } from "./commands.js";

//| 02-attention/1-the-first-kernel.ipynb#ceiling-types
/** What the adapter can do at best, as measured by kernels that do nothing else. */
export interface Ceiling {
  /** Multiply-adds in 32-bit floats, counted as two operations each, in 10⁹ operations a second. */
  gigaflops: number;
  /** Bytes read plus bytes written by a copy, in 10⁹ bytes a second. */
  gigabytes: number;
}

//| 02-attention/1-the-first-kernel.ipynb#seconds-per-run
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

//| 02-attention/1-the-first-kernel.ipynb#multiply-add-probe
/** Rounds of 32 multiply-adds that each invocation of the arithmetic probe makes. */
export const probeRounds = 2048;

/** A kernel of multiply-adds alone: eight independent chains of four, so that no result is waited for. */
export function multiplyAddKernel(workgroups: number): Kernel {
  const chains = [0, 1, 2, 3, 4, 5, 6, 7];
  return kernel({
    name: "multiply-add probe",
    reads: [],
    writes: ["y: array<f32>"],
    workgroupSize: 64,
    workgroups,
    body: [
      "  let x = f32(lane) * 1e-9 + 0.999;",
      ...chains.map((c) => `  var c${c} = vec4f(f32(thread + ${c}u));`),
      `  for (var i = 0u; i < ${probeRounds}u; i++) {`,
      ...chains.map((c) => `    c${c} = c${c} * x + 0.001;`),
      "  }",
      `  y[thread] = dot(${chains.map((c) => `c${c}`).join(" + ")}, vec4f(1.0));`,
    ].join("\n"),
  });
}

//| 02-attention/1-the-first-kernel.ipynb#copy-probe
/** A kernel that copies `fours` groups of four floats, eight groups an invocation. */
export function copyKernel(fours: number): Kernel {
  return kernel({
    name: "copy probe",
    reads: ["x: array<vec4f>"],
    writes: ["y: array<vec4f>"],
    workgroupSize: 64,
    workgroups: Math.ceil(fours / 512),
    body: `
  for (var step = 0u; step < 8u; step++) {
    let i = workgroup * 512u + step * 64u + lane;
    if (i < arrayLength(&y)) { y[i] = x[i]; }
  }`,
  });
}

//| 02-attention/1-the-first-kernel.ipynb#measure-ceiling
/** Measures the adapter's ceiling: takes about a second. A fast adapter is given more work, so that starting it costs nothing. */
export async function measureCeiling(): Promise<Ceiling> {
  let workgroups = 64;
  let seconds = 0;
  let sums = allocate(4);
  for (; seconds < 0.02 && workgroups <= 2 ** 20; workgroups *= 4) {
    release(sums);
    sums = allocate(workgroups * 64 * 4);
    seconds = await secondsPerRun(multiplyAddKernel(workgroups), [sums], 1, 3);
  }
  const operations = (workgroups / 4) * 64 * probeRounds * 8 * 4 * 2;
  const bytes = 64 * 2 ** 20;
  const [from, to] = [allocate(bytes), allocate(bytes)];
  const copySeconds = await secondsPerRun(copyKernel(bytes / 16), [from, to], 3, 3);
  for (const storage of [sums, from, to]) release(storage);
  return { gigaflops: operations / seconds / 1e9, gigabytes: (2 * bytes) / copySeconds / 1e9 };
}
