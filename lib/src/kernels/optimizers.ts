// Extracted from chapters/04-training/2-optimizers.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 04-training/2-optimizers.ipynb#walk
/** Several arrays that one dispatch walks over, one after the other. */
export interface Walk {
  /** How many arrays. */
  count: number;
  /** Elements read at a time: 4 where all sizes allow it. */
  width: 1 | 4;
  /** Elements of the largest: the grid is made for it. */
  largest: number;
}

/** What the kernels of a walk share: the element type V and the grid, some 16 elements an invocation. */
export function walkFrame({ width, largest }: Walk): {
  head: string;
  workgroupSize: number;
  workgroups: number;
} {
  const workgroups = Math.max(1, Math.min(1024, Math.ceil(largest / 64 / 16)));
  return { head: `alias V = ${width === 4 ? "vec4f" : "f32"};`, workgroupSize: 64, workgroups };
}

/** How many tensors one dispatch can take when each needs `bindings` of its own and `shared` more serve all. */
export function tensorsPerDispatch({ limits }: AdapterFacts, bindings: number, shared: number): number {
  return Math.max(
    1,
    Math.min(8, Math.floor(((limits.maxStorageBuffersPerShaderStage ?? 8) - shared) / bindings)),
  );
}

//| 04-training/2-optimizers.ipynb#walk-loop
/** Statements for every element of an array, all invocations taking turns; `i` is the place. */
export function overAll(array: string, statements: string[]): string[] {
  return [
    `  for (var i = thread; i < arrayLength(&${array}); i += groups.x * groups.y * 64u) {`,
    ...statements.map((statement) => `    ${statement}`),
    "  }",
  ];
}

/** The names `a0`, `a1` … of several arrays, as bindings of element type V. */
export function arraysOf(name: string, count: number): string[] {
  return Array.from({ length: count }, (_, k) => `${name}${k}: array<V>`);
}

//| 04-training/2-optimizers.ipynb#step-number-names
/**
 * What an update reads from a small array in GPU memory, in this order. All that changes from step to step is data, so
 * that a recorded step can be replayed with other numbers; and what differs between groups of parameters is data too, so
 * that they share their kernels.
 */
export const stepScalarNames = [
  "learningRate",
  "beta1",
  "beta2",
  "epsilon",
  "weightDecay",
  "correction1",
  "correction2",
  "maxNorm",
  "momentum",
  "rateFactor",
] as const;

/** What every update reads before its arrays: the scalars, the norm of all gradients, and the factor that gradients carry. */
export const stepReads = ["scalars: array<f32>", "norm: array<f32>", "scale: array<f32>"];

/**
 * Statements that leave out a step whose gradients are not all finite (the compiler may take for granted that floats are, so the
 * bits are looked at), name the step's scalars, and the factor that frees gradients of their scale and clips them to `maxNorm`.
 */
export function stepScalarLines(): string[] {
  return [
    "  if ((bitcast<u32>(norm[0]) & 0x7f800000u) == 0x7f800000u) { return; }",
    ...stepScalarNames.map((name, at) => `  let ${name} = scalars[${at}];`),
    "  let clip = select(1.0, maxNorm / norm[0], norm[0] > maxNorm) / scale[0];",
  ];
}

//| 04-training/2-optimizers.ipynb#update-rules
/** How one optimizer changes an element: WGSL on the parameter `p`, the clipped gradient `g` and its own states. */
export interface UpdateRule {
  name: string;
  /** Numbers that are kept for every element from step to step, starting at 0. */
  states: string[];
  statements: string[];
}

/** The optimizers that treat every element alike. Weight decay is subtracted apart from the gradient. */
export const updateRules = {
  /** Straight downhill. */
  sgd: { name: "sgd", states: [], statements: ["p -= learningRate * (rateFactor * g + weightDecay * p);"] },
  /** Downhill with a memory of the way so far (Polyak, "Some methods of speeding up the convergence", 1964). */
  momentum: {
    name: "momentum",
    states: ["velocity"],
    statements: [
      "velocity = momentum * velocity + g;",
      "p -= learningRate * (rateFactor * velocity + weightDecay * p);",
    ],
  },
  /** Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2. */
  adamw: {
    name: "adamw",
    states: ["mean", "square"],
    statements: [
      "mean = beta1 * mean + (1.0 - beta1) * g;",
      "square = beta2 * square + (1.0 - beta2) * g * g;",
      "let step = correction1 * mean / (sqrt(correction2 * square) + epsilon);",
      "p -= learningRate * (rateFactor * step + weightDecay * p);",
    ],
  },
} satisfies Record<string, UpdateRule>;

//| 04-training/2-optimizers.ipynb#update-kernel
/** One update of `count` parameters in place: reads `stepReads` and gradients; writes parameters, then their states. */
export function updateKernel(rule: UpdateRule, walk: Walk): Kernel {
  const { count } = walk;
  const update = (k: number) => [
    `var p = p${k}[i];`,
    `let g = clip * g${k}[i];`,
    ...rule.states.map((state) => `var ${state} = ${state}${k}[i];`),
    ...rule.statements,
    `p${k}[i] = p;`,
    ...rule.states.map((state) => `${state}${k}[i] = ${state};`),
  ];
  return kernel({
    name: `${rule.name} of ${count}`,
    reads: [...stepReads, ...arraysOf("g", count)],
    writes: [...arraysOf("p", count), ...rule.states.flatMap((state) => arraysOf(state, count))],
    ...walkFrame(walk),
    body: [
      ...stepScalarLines(),
      ...Array.from({ length: count }, (_, k) => overAll(`p${k}`, update(k))).flat(),
    ].join("\n"),
  });
}

//| 04-training/2-optimizers.ipynb#square-sums
/** Invocations that share a sum of squares: some 256 elements each, at most 16,384. */
export function squareSums(size: number): number {
  return 64 * Math.max(1, Math.min(256, Math.ceil(size / 64 / 256)));
}

/**
 * Adds the squares of all elements of `count` arrays to the partial sums of the arrays before, each invocation to its
 * own and in a fixed order, so that the bits are always the same.
 */
export function squareSumKernel(walk: Walk, threads: number, continues: boolean): Kernel {
  const { count, width } = walk;
  const add = (k: number) => [
    `let value = x${k}[i];`,
    width === 4 ? "sum += dot(value, value);" : "sum += value * value;",
  ];
  return kernel({
    name: `squares of ${count}`,
    reads: [...arraysOf("x", count), ...(continues ? ["before: array<f32>"] : [])],
    writes: ["sums: array<f32>"],
    ...walkFrame(walk),
    workgroups: threads / 64,
    body: [
      "  if (thread >= arrayLength(&sums)) { return; }",
      `  var sum = ${continues ? "before[thread]" : "0.0"};`,
      ...Array.from({ length: count }, (_, k) => overAll(`x${k}`, add(k))).flat(),
      "  sums[thread] = sum;",
    ].join("\n"),
  });
}

//| 04-training/2-optimizers.ipynb#norm-kernel
/** The square root of the sum of all partial sums, divided by the scale that the gradients carry; in one workgroup. Output: [1]. */
export function normKernel(): Kernel {
  return kernel({
    name: "norm",
    reads: ["sums: array<f32>", "scale: array<f32>"],
    writes: ["norm: array<f32>"],
    head: "var<workgroup> parts: array<f32, 64>;",
    workgroupSize: 64,
    workgroups: 1,
    body: `
  for (var i = lane; i < arrayLength(&sums); i += 64u) { parts[lane] += sums[i]; }
  workgroupBarrier();
  if (lane > 0u) { return; }
  var total = 0.0;
  for (var i = 0u; i < 64u; i++) { total += parts[i]; }
  norm[0] = sqrt(total) / scale[0];`,
  });
}

//| 04-training/2-optimizers.ipynb#accumulate-kernels
/** Adds `count` gradients to their sums in place. */
export function accumulateKernel(walk: Walk): Kernel {
  const { count } = walk;
  return kernel({
    name: `accumulate ${count}`,
    reads: arraysOf("g", count),
    writes: arraysOf("sum", count),
    ...walkFrame(walk),
    body: Array.from({ length: count }, (_, k) => overAll(`sum${k}`, [`sum${k}[i] += g${k}[i];`]))
      .flat()
      .join("\n"),
  });
}

/** Sets all elements of `count` arrays to zero. */
export function clearKernel(walk: Walk): Kernel {
  const { count } = walk;
  return kernel({
    name: `clear ${count}`,
    reads: [],
    writes: arraysOf("x", count),
    ...walkFrame(walk),
    body: Array.from({ length: count }, (_, k) => overAll(`x${k}`, [`x${k}[i] = V(0.0);`]))
      .flat()
      .join("\n"),
  });
}
