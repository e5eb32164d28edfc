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
  stepNumberNames,
  tensorsPerDispatch,
  updateKernel,
} from "../kernels/optimizers.js";
import { constantKernel } from "../tensor/autograd.js";
import { pieces } from "../tensor/pieces.js";
import { type Tensor, describe, launch, launchInto, tensor, zeros } from "../tensor/tensor.js";

//| 04-training/2-optimizers.ipynb#settings
/** The choice of an optimizer and its constants, as a training configuration has them. */
export interface OptimizerSettings {
  kind: "sgd" | "momentum" | "adamw" | "muon";
  /** AdamW: how slowly the mean of the gradients moves, from 0 to 1. */
  beta1: number;
  /** AdamW: how slowly the mean of their squares moves. */
  beta2: number;
  /** AdamW: added to the root of the mean square, so that nothing is divided by zero. */
  epsilon: number;
  /** What matrices lose of themselves a step, as a multiple of the learning rate. */
  decay: number;
  /** Gradients whose global norm is greater are scaled down to it; 0 for never. */
  clip: number;
  /** Momentum and Muon: how slowly the velocity moves. */
  momentum: number;
  /** Muon: the learning rate of hidden matrices as a multiple of that of the rest. */
  matrixRate: number;
}

/** The settings that a run starts from. */
export const defaultOptimizer: OptimizerSettings = {
  kind: "adamw",
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  decay: 0.1,
  clip: 1,
  momentum: 0.95,
  matrixRate: 10,
};

//| 04-training/2-optimizers.ipynb#step-numbers
/**
 * The numbers of one step, in the order of `stepNumberNames`; steps count from 0. Adam's means start at zero and so are
 * too small at first: the corrections 1 / (1 − beta^(step + 1)) undo that.
 */
export function stepNumbers(settings: OptimizerSettings, step: number, learningRate: number): Float32Array {
  const { beta1, beta2, clip } = settings;
  const values = {
    ...settings,
    learningRate,
    correction1: 1 / (1 - beta1 ** (step + 1)),
    correction2: 1 / (1 - beta2 ** (step + 1)),
    maxNorm: clip > 0 ? clip : 3.4e38,
  };
  return Float32Array.from(stepNumberNames.map((name) => values[name]));
}

//| 04-training/2-optimizers.ipynb#optimizer-interface
/** Changes parameters in place after each step, from their gradients. */
export interface Optimizer {
  /**
   * One update. `gradients` are in the order of the parameters, `numbers` is `stepNumbers(…)` as a tensor, and `norm` is
   * the gradients' `globalNorm`; without it they are not clipped. An update whose norm is not finite changes nothing.
   * `scale` [1] is a factor that the gradients carry and that they are divided by.
   */
  update(gradients: Tensor[], numbers: Tensor, norm?: Tensor, scale?: Tensor): void;
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
  tensors.forEach((each, at) => {
    const width = each.size % 4 === 0 ? 4 : 1;
    const key = `${width} ${kind(each)}`;
    let group = open.get(key);
    if (!group || group.count === most) {
      group = { at: [], count: 0, width, largest: 0 };
      open.set(key, group);
      groups.push(group);
    }
    group.at.push(at);
    group.count += 1;
    group.largest = Math.max(group.largest, each.size);
  });
  return groups;
}

//| 04-training/2-optimizers.ipynb#group-facts
/** How many tensors one dispatch can take on this adapter when each needs `each` bindings and `shared` serve all. */
export function mostTensors(each: number, shared = 0): number {
  return tensorsPerDispatch(currentGpu().facts, each, shared);
}

/** Matrices are decayed, vectors (the weights of norms) are not. */
export function isDecayed({ shape }: Tensor): boolean {
  return shape.length > 1;
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
/** An optimizer that does the same for every element: several parameters in one dispatch, as many as can be bound. */
export function ruleOptimizer(rule: UpdateRule, parameters: Map<string, Tensor>): Optimizer {
  const [names, tensors] = [[...parameters.keys()], [...parameters.values()]];
  const states = rule.states.map(() => tensors.map(({ shape }) => zeros(shape)));
  const parts = tensors.flatMap(pieces);
  const stateParts = states.map((each) => each.flatMap(pieces));
  const groups = groupTensors(parts, mostTensors(2 + states.length, 3), (each) => `${isDecayed(each)}`);
  const [noNorm, noScale] = [zeros([1]), tensor([1])];
  return {
    state: () =>
      new Map(rule.states.flatMap((state, s) => names.map((name, k) => [`${name}.${state}`, states[s][k]]))),
    update(gradients, numbers, norm = noNorm, scale = noScale) {
      checkGradients(gradients, tensors);
      const slopes = gradients.flatMap(pieces);
      for (const group of groups) {
        const pick = (from: Tensor[]) => group.at.map((at) => from[at]);
        const kernel = updateKernel(rule, group, isDecayed(parts[group.at[0]]));
        const known = [numbers, norm, scale, ...pick(slopes)];
        launchInto(kernel, known, [...pick(parts), ...stateParts.flatMap(pick)]);
      }
    },
  };
}

//| 04-training/2-optimizers.ipynb#restore-state
/** Writes saved values into an optimizer's state, in place. Throws when one is missing or has another size. */
export function restoreState(optimizer: Optimizer, saved: Map<string, ArrayLike<number>>): void {
  const state = optimizer.state();
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
