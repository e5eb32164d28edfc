// Extracted from chapters/04-training/3-muon.ipynb: edit it there, or here and run `npm run backport`.
import { muonMomentumKernel, muonStepKernel, newtonSchulz, unitNormKernel } from "../kernels/muon.js";
import { updateRules } from "../kernels/optimizers.js";
import { product } from "../tensor/products.js";
import { type Tensor, empty, launch, launchInto, tensor, zeros } from "../tensor/tensor.js";
import {
  type Optimizer,
  type OptimizerSettings,
  type TensorGroup,
  checkGradients,
  groupTensors,
  mostTensors,
  ruleOptimizer,
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
/** Muon's update of matrices of one shape, all together. */
export function muonUpdate(
  group: TensorGroup,
  matrices: Tensor[],
  slopes: Tensor[],
  velocities: Tensor[],
  [numbers, norm, scale]: [Tensor, Tensor, Tensor],
): void {
  const pick = (from: Tensor[]) => group.at.map((at) => from[at]);
  const [rows, columns] = matrices[group.at[0]].shape.slice(-2);
  const count = pick(matrices).reduce((total, { size }) => total + size, 0) / (rows * columns);
  const stack = empty([count, rows, columns]);
  launchInto(
    muonMomentumKernel(group),
    [numbers, norm, scale, ...pick(slopes)],
    [...pick(velocities), stack],
  );
  const factor = Math.sqrt(Math.max(1, rows / columns));
  launchInto(muonStepKernel(group, factor), [numbers, norm, orthogonalize(stack)], pick(matrices));
}

//| 04-training/3-muon.ipynb#muon
/** Whether Muon takes a parameter: a matrix between hidden layers, not one that reads or writes tokens or routes them. */
export function isHiddenMatrix(name: string, { shape }: Tensor): boolean {
  return shape.length > 1 && !/embed_tokens|lm_head|mlp\.gate\./.test(name);
}

/**
 * Muon for hidden matrices (also stacked ones [experts, rows, columns]), AdamW for all else. It moves a matrix along
 * the nearest orthogonal matrix to its averaged gradient: all directions as far as each other.
 */
export function muon(parameters: Map<string, Tensor>, takes = isHiddenMatrix): Optimizer {
  const entries = [...parameters].map(([name, value], at) => ({ name, value, at }));
  const [hidden, rest] = [true, false].map((wanted) =>
    entries.filter(({ name, value }) => takes(name, value) === wanted),
  );
  const matrices = hidden.map(({ value }) => value);
  const velocities = matrices.map(({ shape }) => zeros(shape));
  const others = ruleOptimizer(updateRules.adamw, new Map(rest.map(({ name, value }) => [name, value])));
  const groups = groupTensors(matrices, mostTensors(2, 4), ({ shape }) => shape.slice(-2).join("x"));
  const [noNorm, noScale] = [zeros([1]), tensor([1])];
  return {
    state: () =>
      new Map([
        ...hidden.map(({ name }, k) => [`${name}.velocity`, velocities[k]] as const),
        ...others.state(),
      ]),
    update(gradients, numbers, norm = noNorm, scale = noScale) {
      checkGradients(
        gradients,
        entries.map(({ value }) => value),
      );
      others.update(
        rest.map(({ at }) => gradients[at]),
        numbers,
        norm,
        scale,
      );
      const slopes = hidden.map(({ at }) => gradients[at]);
      for (const group of groups) muonUpdate(group, matrices, slopes, velocities, [numbers, norm, scale]);
    },
  };
}

//| 04-training/3-muon.ipynb#make-optimizer
/** The optimizer of the settings, for parameters by name. */
export function makeOptimizer(
  { kind }: { kind: OptimizerSettings["kind"] },
  parameters: Map<string, Tensor>,
): Optimizer {
  return kind === "muon" ? muon(parameters) : ruleOptimizer(updateRules[kind], parameters);
}
