// Extracted from chapters/04-training/2-optimizers.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  type UpdateRule,
  type Walk,
  accumulateKernel,
  clearKernel,
  normKernel,
  squareSumKernel,
  squareSums,
  stepScalarNames,
  tensorsPerDispatch,
  updateKernel,
} from "../kernels/optimizers.js";
import type { ModelParameter } from "../model/structure.js";
import { constantKernel } from "../tensor/autograd.js";
import { pieces } from "../tensor/pieces.js";
import { type Tensor, describe, launch, launchInto, tensor, zeros } from "../tensor/tensor.js";

//| 04-training/2-optimizers.ipynb#settings
/** The choice of an optimizer and its constants, as a training configuration has them. */
export interface OptimizerSettings {
  kind: "sgd" | "momentum" | "adamw" | "muon";
  /** AdamW: how slowly the mean of the gradients moves, and the mean of their squares; each from 0 to 1. */
  betas: [number, number];
  /** AdamW: added to the root of the mean square, so that nothing is divided by zero. */
  epsilon: number;
  /** What matrices lose of themselves a step, as a multiple of the learning rate. */
  weightDecay: number;
  /** Gradients whose global norm is greater are scaled down to it; 0 for never. */
  clip: number;
  /** Momentum and Muon: how slowly the velocity moves. */
  momentum: number;
  /** Muon: how much faster than the rest hidden matrices move. */
  matrixRate: number;
}

/** The settings that a run starts from. */
export const defaultOptimizer: OptimizerSettings = {
  kind: "adamw",
  betas: [0.9, 0.95],
  epsilon: 1e-8,
  weightDecay: 0.1,
  clip: 1,
  momentum: 0.95,
  matrixRate: 10,
};

//| 04-training/2-optimizers.ipynb#parameter-group
/** Parameters that are updated alike. */
export interface ParameterGroup {
  rule: OptimizerSettings["kind"];
  parameters: ModelParameter[];
  /** How much faster than the schedule's learning rate they move. */
  rateFactor: number;
  /** What they lose of themselves a step, as a multiple of the schedule's learning rate. */
  weightDecay: number;
}

//| 04-training/2-optimizers.ipynb#decay-groups
/** Whether a parameter is decayed: tables and matrices of all kinds are, the vectors of norms and biases are not. */
export function isDecayed({ role }: ModelParameter): boolean {
  return role !== "norm" && role !== "bias";
}

/** Those that are decayed and those that are not, as two groups of one rule; a group of none is left out. */
export function decayGroups(
  parameters: ModelParameter[],
  rule: ParameterGroup["rule"],
  weightDecay: number,
): ParameterGroup[] {
  const [decayed, others] = [true, false].map((decays) =>
    parameters.filter((parameter) => isDecayed(parameter) === decays),
  );
  const groups = [
    { rule, parameters: decayed, rateFactor: 1, weightDecay },
    { rule, parameters: others, rateFactor: 1, weightDecay: 0 },
  ];
  return groups.filter(({ parameters }) => parameters.length > 0);
}

//| 04-training/2-optimizers.ipynb#step-numbers
/**
 * The scalars of one step for one group, in the order of `stepScalarNames`; steps count from 0. Adam's means start at zero
 * and so are too small at first: the corrections 1 / (1 − beta^(step + 1)) undo that.
 */
export function stepScalars(
  { betas, epsilon, clip, momentum }: OptimizerSettings,
  { rateFactor, weightDecay }: Pick<ParameterGroup, "rateFactor" | "weightDecay">,
  step: number,
  learningRate: number,
): Float32Array {
  const [beta1, beta2] = betas;
  const values = {
    learningRate,
    beta1,
    beta2,
    epsilon,
    weightDecay,
    correction1: 1 / (1 - beta1 ** (step + 1)),
    correction2: 1 / (1 - beta2 ** (step + 1)),
    maxNorm: clip > 0 ? clip : 3.4e38,
    momentum,
    rateFactor,
  };
  return Float32Array.from(stepScalarNames.map((name) => values[name]));
}

//| 04-training/2-optimizers.ipynb#optimizer-interface
/** Changes parameters in place after each step, from their gradients. */
export interface Optimizer {
  /** Says which step comes next, counted from 0, and how far it goes: written into GPU memory before the step runs. */
  setStep(step: number, learningRate: number): void;
  /**
   * One update. `gradients` are in the order of the parameters, and `norm` [1] is their `globalNorm`; without it they are
   * not clipped. An update whose norm is not finite changes nothing. `scale` [1] is a factor that the gradients carry and
   * that they are divided by.
   */
  update(gradients: Tensor[], norm?: Tensor, scale?: Tensor): void;
  /** What it remembers from step to step, by name: saved with a checkpoint, written back by `restoreState`. */
  state(): Map<string, Tensor>;
}

//| 04-training/2-optimizers.ipynb#groups
/** Some of a list of tensors, by their places in it, that one dispatch walks over. */
export interface TensorGroup extends Walk {
  at: number[];
}

/** Groups tensors for kernels that take at most `most`: only those of one width and one `kind` go together. */
export function groupTensors(tensors: Tensor[], most: number, kind = (_: Tensor) => ""): TensorGroup[] {
  const open = new Map<string, TensorGroup>();
  const groups: TensorGroup[] = [];
  tensors.forEach((tensor, at) => {
    const width = tensor.size % 4 === 0 ? 4 : 1;
    const key = `${width} ${kind(tensor)}`;
    let group = open.get(key);
    if (!group || group.count === most) {
      group = { at: [], count: 0, width, largest: 0 };
      open.set(key, group);
      groups.push(group);
    }
    group.at.push(at);
    group.count += 1;
    group.largest = Math.max(group.largest, tensor.size);
  });
  return groups;
}

//| 04-training/2-optimizers.ipynb#group-facts
/** How many tensors one dispatch can take on this adapter when each needs `bindings` of its own and `shared` serve all. */
export function mostTensors(bindings: number, shared = 0): number {
  return tensorsPerDispatch(currentGpu().facts, bindings, shared);
}

/** Checks that there is one gradient for each parameter, of its size. */
export function checkGradients(gradients: Tensor[], parameters: Tensor[]): void {
  if (gradients.length !== parameters.length)
    throw new Error(
      `The optimizer has ${parameters.length} parameters, and was given ${gradients.length} gradients.`,
    );
  gradients.forEach((gradient, k) => {
    if (gradient.size !== parameters[k].size)
      throw new Error(
        `The gradient ${describe(gradient)} does not fit its parameter ${describe(parameters[k])}.`,
      );
  });
}

//| 04-training/2-optimizers.ipynb#rule-optimizer
/** An optimizer of one group that does the same for every element: several parameters in one dispatch, as many as can be bound. */
export function ruleOptimizer(
  rule: UpdateRule,
  group: ParameterGroup,
  settings: OptimizerSettings,
): Optimizer {
  const tensors = group.parameters.map(({ value }) => value);
  const states = rule.states.map(() => tensors.map(({ shape }) => zeros(shape)));
  const parts = tensors.flatMap(pieces);
  const stateParts = states.map((tensors) => tensors.flatMap(pieces));
  const walks = groupTensors(parts, mostTensors(2 + states.length, 3));
  const scalars = tensor(stepScalars(settings, group, 0, 0));
  const [noNorm, noScale] = [zeros([1]), tensor([1])];
  const withNames = (state: string, s: number) =>
    group.parameters.map(({ name }, k): [string, Tensor] => [`${name}.${state}`, states[s][k]]);
  return {
    setStep: (step, learningRate) => scalars.write(stepScalars(settings, group, step, learningRate)),
    state: () => new Map(rule.states.flatMap(withNames)),
    update(gradients, norm = noNorm, scale = noScale) {
      checkGradients(gradients, tensors);
      const gradientParts = gradients.flatMap(pieces);
      for (const walk of walks) {
        const pick = (from: Tensor[]) => walk.at.map((at) => from[at]);
        const reads = [scalars, norm, scale, ...pick(gradientParts)];
        launchInto(updateKernel(rule, walk), reads, [...pick(parts), ...stateParts.flatMap(pick)]);
      }
    },
  };
}

//| 04-training/2-optimizers.ipynb#joined-optimizer
/**
 * One optimizer of several, each of its own group: `gradients` are in the order of `parameters`, and each part is given
 * those of its group.
 */
export function joinedOptimizer(
  parameters: ModelParameter[],
  parts: { group: ParameterGroup; optimizer: Optimizer }[],
): Optimizer {
  const values = parameters.map(({ value }) => value);
  const places = parts.map(({ group }) => group.parameters.map((parameter) => parameters.indexOf(parameter)));
  return {
    setStep: (step, learningRate) => {
      for (const { optimizer } of parts) optimizer.setStep(step, learningRate);
    },
    state: () => new Map(parts.flatMap(({ optimizer }) => [...optimizer.state()])),
    update(gradients, norm, scale) {
      checkGradients(gradients, values);
      parts.forEach(({ optimizer }, i) =>
        optimizer.update(
          places[i].map((at) => gradients[at]),
          norm,
          scale,
        ),
      );
    },
  };
}

//| 04-training/2-optimizers.ipynb#restore-state
/** Writes saved values into an optimizer's state, in place. Throws when one is missing or has another size. */
export function restoreState(state: Map<string, Tensor>, saved: Map<string, ArrayLike<number>>): void {
  for (const [name, target] of state) {
    const values = saved.get(name);
    if (!values)
      throw new Error(`The saved state of the optimizer lacks ${name}: it is of another model or optimizer.`);
    if (values.length !== target.size)
      throw new Error(`The saved ${name} has ${values.length} values, but ${describe(target)} is wanted.`);
  }
  for (const [name, target] of state) target.write(saved.get(name)!);
}

//| 04-training/2-optimizers.ipynb#global-norm
/**
 * The norm of all gradients taken as one long vector, divided by the factor `scale` [1] if they carry one. Output: [1]. The same
 * bits every time.
 */
export function globalNorm(gradients: Tensor[], scale = launch(constantKernel(1), [], [1])): Tensor {
  const parts = gradients.flatMap(pieces);
  const threads = squareSums(parts.reduce((total, { size }) => total + size, 0));
  let sums: Tensor[] = [];
  for (const group of groupTensors(parts, mostTensors(1, 2))) {
    const kernel = squareSumKernel(group, threads, sums.length > 0);
    sums = [launch(kernel, [...group.at.map((at) => parts[at]), ...sums], [threads])];
  }
  return launch(normKernel(), [...sums, scale], [1]);
}

//| 04-training/2-optimizers.ipynb#accumulate
/** Adds gradients to their sums in place: how several small batches make the gradient of a large one. */
export function accumulateInto(sums: Tensor[], gradients: Tensor[]): void {
  checkGradients(gradients, sums);
  const [added, parts] = [gradients.flatMap(pieces), sums.flatMap(pieces)];
  for (const group of groupTensors(parts, mostTensors(2))) {
    const pick = (from: Tensor[]) => group.at.map((at) => from[at]);
    launchInto(accumulateKernel(group), pick(added), pick(parts));
  }
}

/** Sets tensors to zero in place: sums of gradients after an update. */
export function clearAll(tensors: Tensor[]): void {
  const parts = tensors.flatMap(pieces);
  for (const group of groupTensors(parts, mostTensors(1)))
    launchInto(
      clearKernel(group),
      [],
      group.at.map((at) => parts[at]),
    );
}
