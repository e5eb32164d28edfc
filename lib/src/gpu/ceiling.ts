// Extracted from chapters/02-attention/1-the-first-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { allocate, release } from "./commands.js";
import { currentGpu } from "./device.js";
import { type Kernel, kernel } from "./kernel.js";
import { shortestRuns } from "./timing.js";

//| 02-attention/1-the-first-kernel.ipynb#ceiling-types
/** What the adapter can do at best, as measured by kernels that do nothing else. */
export interface Ceiling {
  /** Multiply-adds in 32-bit floats, counted as two operations each, in 10⁹ operations a second. */
  gigaflops: number;
  /** The same in 16-bit floats, where shaders may compute in them. */
  gigaflops16?: number;
  /** Bytes read plus bytes written by a copy, in 10⁹ bytes a second. */
  gigabytes: number;
}

//| 02-attention/1-the-first-kernel.ipynb#probe-forms
/** One form of the arithmetic probe: so many independent chains of multiply-adds on vectors of `width` numbers. */
export interface ProbeForm {
  chains: number;
  width: 1 | 4;
}

/** The forms that are tried: the fastest differs from adapter to adapter. */
export const probeForms: ProbeForm[] = [
  { chains: 8, width: 1 },
  { chains: 12, width: 1 },
  { chains: 16, width: 1 },
  { chains: 2, width: 4 },
  { chains: 4, width: 4 },
  { chains: 8, width: 4 },
];

/** Rounds of the probe's loop, and multiply-adds on single numbers that an invocation makes in each. */
export const probeRounds = 512;
export const probeRound = 96;

//| 02-attention/1-the-first-kernel.ipynb#multiply-add-probe
/** A kernel of multiply-adds alone. All workgroups write the same 64 sums, so that hardly any memory is involved. */
export function multiplyAddKernel(
  type: "f32" | "f16",
  { chains, width }: ProbeForm,
  workgroups: number,
): Kernel {
  const names = Array.from({ length: chains }, (_, c) => `c${c}`);
  const chain = width === 1 ? type : `vec${width}<${type}>`;
  const step = names.map((c) => `    ${c} = ${c} * x + 0.001;`);
  const steps = Array.from({ length: probeRound / (chains * width) }, () => step).flat();
  const total = names.join(" + ");
  return kernel({
    name: `multiply-add probe ${chains} x ${chain}`,
    reads: [],
    writes: ["y: array<f32>"],
    enable: type === "f16" ? ["f16"] : [],
    workgroupSize: 64,
    workgroups,
    body: [
      `  let x = ${type}(f32(lane) * 1e-9 + 0.999);`,
      ...names.map((c, i) => `  var ${c} = ${chain}(${type}(lane + ${i}u));`),
      `  for (var i = 0u; i < ${probeRounds}u; i++) {`,
      ...steps,
      "  }",
      `  y[lane] = f32(${width === 1 ? total : `dot(${total}, ${chain}(1.0))`});`,
    ].join("\n"),
  });
}

//| 02-attention/1-the-first-kernel.ipynb#multiply-add-rates
/** The rate of every form of the arithmetic probe, in 10⁹ operations a second. */
export async function multiplyAddRates(type: "f32" | "f16"): Promise<number[]> {
  const y = allocate(64 * 4);
  let workgroups = 16;
  const time = (forms: ProbeForm[], turns?: number) =>
    shortestRuns(
      forms.map((form) => multiplyAddKernel(type, form, workgroups)),
      [y],
      1,
      turns,
    );
  // A fast adapter is given more work, so that starting it costs nothing.
  while (workgroups < 2 ** 20 && (await time(probeForms.slice(0, 1), 1))[0] < 0.02) workgroups *= 4;
  const seconds = await time(probeForms);
  release(y);
  const operations = 2 * probeRound * probeRounds * 64 * workgroups;
  return seconds.map((duration) => operations / duration / 1e9);
}

//| 02-attention/1-the-first-kernel.ipynb#copy-probe
/** A kernel that copies `fours` groups of four floats, eight an invocation: in a row, or side by side with its neighbours'. */
export function copyKernel(fours: number, inRow = false): Kernel {
  return kernel({
    name: "copy probe",
    reads: ["x: array<vec4f>"],
    writes: ["y: array<vec4f>"],
    workgroupSize: 64,
    workgroups: Math.ceil(fours / 512),
    body: `
  for (var step = 0u; step < 8u; step++) {
    let i = workgroup * 512u + ${inRow ? "lane * 8u + step" : "step * 64u + lane"};
    if (i < arrayLength(&y)) { y[i] = x[i]; }
  }`,
  });
}

//| 02-attention/1-the-first-kernel.ipynb#copy-rate
/** The rate of the faster copy in 10⁹ bytes a second, those read and those written together. */
export async function copyRate(): Promise<number> {
  const { kind, limits } = currentGpu().facts;
  // More than the caches of a graphics processor hold.
  const bytes = kind === "cpu" ? 2 ** 26 : Math.min(2 ** 28, limits.maxStorageBufferBindingSize);
  const storages = [allocate(bytes), allocate(bytes)];
  const kernels = [false, true].map((inRow) => copyKernel(bytes / 16, inRow));
  const [once] = await shortestRuns(kernels.slice(0, 1), storages, 1, 1);
  const seconds = await shortestRuns(kernels, storages, Math.max(1, Math.round(0.02 / once)));
  for (const storage of storages) release(storage);
  return (2 * bytes) / Math.min(...seconds) / 1e9;
}

//| 02-attention/1-the-first-kernel.ipynb#measure-ceiling
/** Measures the adapter's ceiling, the best that any probe reaches. Takes two or three seconds. */
export async function measureCeiling(): Promise<Ceiling> {
  const best = async (type: "f32" | "f16") => Math.max(...(await multiplyAddRates(type)));
  return {
    gigaflops: await best("f32"),
    ...(currentGpu().facts.f16 ? { gigaflops16: await best("f16") } : {}),
    gigabytes: await copyRate(),
  };
}
