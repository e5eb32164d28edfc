// Extracted from chapters/04-training/3-muon.ipynb: edit it there, or here and run `npm run backport`.
import { muonMomentumKernel, muonStepKernel, newtonSchulz, unitNormKernel } from "../kernels/muon.js";
import { updateRules } from "../kernels/optimizers.js";
import type { ModelParameter } from "../model/structure.js";
import { product } from "../tensor/products.js";
import { type Tensor, empty, launch, launchInto, tensor, zeros } from "../tensor/tensor.js";
import {
  type Optimizer,
  type OptimizerSettings,
  type ParameterGroup,
  type TensorGroup,
  checkGradients,
  decayGroups,
  groupTensors,
  joinedOptimizer,
  mostTensors,
  ruleOptimizer,
  stepScalars,
} from "./optimizers.js";

//| 04-training/3-muon.ipynb#orthogonalize
/**
 * Pushes the singular values of each matrix of x [matrices, rows, columns] towards 1 and leaves its directions, by five
 * Newton–Schulz steps X ← a·X + (b·A + c·A²) X with A = X Xᵀ (or the mirror image where that is smaller). They end
 * between about 0.7 and 1.2, which is near enough for Muon.
 */
export function orthogonalize(x: Tensor): Tensor {
  const [count, rows, columns] = x.shape;
  const tall = rows > columns;
  const [a, b, c] = newtonSchulz;
  let result = launch(unitNormKernel(count, rows * columns), [x], x.shape);
  for (let step = 0; step < 5; step++) {
    const gram = product(result, result, tall ? { transposeA: true } : { transposeB: true });
    const mixed = product(gram, gram, {}, { residual: gram, alpha: c, beta: b });
    const [left, right] = tall ? [result, mixed] : [mixed, result];
    result = product(left, right, {}, { residual: result, beta: a });
  }
  return result;
}

//| 04-training/3-muon.ipynb#muon-update
/** What one of Muon's updates works on: the parameters, their gradients and velocities, each [..., rows, columns]. */
export interface MuonTensors {
  matrices: Tensor[];
  gradients: Tensor[];
  velocities: Tensor[];
}

/** Muon's update of matrices of one shape, all together; `scalars`, `norm` and `scale` as every update reads them. */
export function muonUpdate(
  walk: TensorGroup,
  { matrices, gradients, velocities }: MuonTensors,
  [scalars, norm, scale]: [Tensor, Tensor, Tensor],
): void {
  const pick = (from: Tensor[]) => walk.at.map((at) => from[at]);
  const [rows, columns] = matrices[walk.at[0]].shape.slice(-2);
  const count = pick(matrices).reduce((total, { size }) => total + size, 0) / (rows * columns);
  const stack = empty([count, rows, columns]);
  const reads = [scalars, norm, scale, ...pick(gradients)];
  launchInto(muonMomentumKernel(walk), reads, [...pick(velocities), stack]);
  const factor = Math.sqrt(Math.max(1, rows / columns));
  launchInto(muonStepKernel(walk, factor), [scalars, norm, orthogonalize(stack)], pick(matrices));
}

//| 04-training/3-muon.ipynb#muon
/**
 * Muon for a group of matrices [rows, columns], also stacked ones [experts, rows, columns]. It moves each along the nearest
 * orthogonal matrix to its averaged gradient: all directions as far as each other.
 */
export function muonOptimizer(group: ParameterGroup, settings: OptimizerSettings): Optimizer {
  const matrices = group.parameters.map(({ value }) => value);
  const velocities = matrices.map(({ shape }) => zeros(shape));
  const walks = groupTensors(matrices, mostTensors(2, 4), ({ shape }) => shape.slice(-2).join("x"));
  const scalars = tensor(stepScalars(settings, group, 0, 0));
  const [noNorm, noScale] = [zeros([1]), tensor([1])];
  return {
    setStep: (step, learningRate) => scalars.write(stepScalars(settings, group, step, learningRate)),
    state: () => new Map(group.parameters.map(({ name }, k) => [`${name}.velocity`, velocities[k]])),
    update(gradients, norm = noNorm, scale = noScale) {
      checkGradients(gradients, matrices);
      for (const walk of walks) muonUpdate(walk, { matrices, gradients, velocities }, [scalars, norm, scale]);
    },
  };
}

//| 04-training/3-muon.ipynb#make-optimizer-parts
/** How the settings divide parameters into groups. Groups of none are left out. */
export function parameterGroups(parameters: ModelParameter[], settings: OptimizerSettings): ParameterGroup[] {
  const { kind, weightDecay, matrixRate } = settings;
  if (kind !== "muon") return decayGroups(parameters, kind, weightDecay);
  const isHidden = ({ role }: ModelParameter) => role === "matrix" || role === "residual";
  const hidden = parameters.filter(isHidden);
  const others = parameters.filter((parameter) => !isHidden(parameter));
  const matrices: ParameterGroup = { rule: "muon", parameters: hidden, rateFactor: matrixRate, weightDecay };
  return [...(hidden.length > 0 ? [matrices] : []), ...decayGroups(others, "adamw", weightDecay)];
}

//| 04-training/3-muon.ipynb#make-optimizer
/** The optimizer of the settings: each parameter in the group that its role puts it in. */
export function makeOptimizer(parameters: ModelParameter[], settings: OptimizerSettings): Optimizer {
  const parts = parameterGroups(parameters, settings).map((group) => {
    const { rule } = group;
    const optimizer =
      rule === "muon" ? muonOptimizer(group, settings) : ruleOptimizer(updateRules[rule], group, settings);
    return { group, optimizer };
  });
  return joinedOptimizer(parameters, parts);
}
