// Extracted from chapters/04-training/3-muon.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { type Walk, arraysOf, overAll, stepReads, stepScalarLines, walkFrame } from "./optimizers.js";

//| 04-training/3-muon.ipynb#newton-plain
/** The numbers a, b, c of Muon's polynomial (Jordan, "Muon: an optimizer for hidden layers in neural networks"). */
export const newtonSchulz = [3.4445, -4.775, 2.0315] as const;

//| 04-training/3-muon.ipynb#stack-walk
/** Statements for each of several arrays whose elements lie one after the other in a stack, from `first` on. */
export function eachInStack(count: number, array: string, statements: (k: number) => string[]): string[] {
  const parts = Array.from({ length: count }, (_, k) => [
    ...overAll(`${array}${k}`, statements(k)),
    `  first += arrayLength(&${array}${k});`,
  ]);
  return ["  var first = 0u;", ...parts.flat()];
}

/**
 * Muon's momentum with Nesterov's look ahead, for `count` parameters of one matrix shape. The results lie one after the
 * other in `stack`, so that all matrices are made orthogonal together.
 */
export function muonMomentumKernel(walk: Walk): Kernel {
  const { count } = walk;
  const update = (k: number) => [
    `let g = clip * g${k}[i];`,
    `let velocity = mix(g, velocity${k}[i], momentum);`,
    `velocity${k}[i] = velocity;`,
    "stack[first + i] = mix(g, velocity, momentum);",
  ];
  return kernel({
    name: `muon momentum of ${count}`,
    reads: [...stepReads, ...arraysOf("g", count)],
    writes: [...arraysOf("velocity", count), "stack: array<V>"],
    ...walkFrame(walk),
    body: [...stepScalarLines(), ...eachInStack(count, "g", update)].join("\n"),
  });
}

//| 04-training/3-muon.ipynb#unit-norm
/** Divides each of the matrices x [matrices, size] by its own norm: one workgroup a matrix. */
export function unitNormKernel(matrices: number, size: number): Kernel {
  return kernel({
    name: `unit norm ${matrices}x${size}`,
    reads: ["x: array<f32>"],
    writes: ["y: array<f32>"],
    head: "var<workgroup> parts: array<f32, 64>;",
    workgroupSize: 64,
    workgroups: matrices,
    body: `
  if (workgroup >= ${matrices}u) { return; }
  let first = workgroup * ${size}u;
  for (var i = lane; i < ${size}u; i += 64u) { parts[lane] += x[first + i] * x[first + i]; }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < 64u; i++) { total += parts[i]; }
  let factor = 1.0 / (sqrt(total) + 1e-7);
  for (var i = lane; i < ${size}u; i += 64u) { y[first + i] = x[first + i] * factor; }`,
  });
}

//| 04-training/3-muon.ipynb#muon-step
/** Subtracts the orthogonal matrices in `stack`, times a factor for their shape, from `count` parameters. */
export function muonStepKernel(walk: Walk, factor: number): Kernel {
  const { count } = walk;
  const update = (k: number) => [
    `let p = p${k}[i];`,
    `p${k}[i] = p - learningRate * (rateFactor * ${factor.toFixed(6)} * stack[first + i] + weightDecay * p);`,
  ];
  return kernel({
    name: `muon step of ${count}`,
    reads: ["scalars: array<f32>", "norm: array<f32>", "stack: array<V>"],
    writes: arraysOf("p", count),
    ...walkFrame(walk),
    body: [...stepScalarLines().slice(0, -1), ...eachInStack(count, "p", update)].join("\n"),
  });
}
