// Extracted from chapters/04-training/6-precision.ipynb: edit it there, or here and run `npm run backport`.
import { lossScaleKernel, scaledSeedKernel } from "../kernels/loss-scale.js";
import { type Tensor, launch, launchInto, tensor } from "../tensor/tensor.js";
import { type Optimizer, globalNorm } from "./optimizers.js";

//| 04-training/6-precision.ipynb#scaled-optimizer
/** An optimizer for gradients of a scaled loss. `lossScale` is [factor, finite steps since it changed, steps left out]. */
export interface ScaledOptimizer extends Optimizer {
  lossScale: Tensor;
}

/** Puts a loss scale beside an optimizer. Start high: a factor that is too large costs a few steps, one that is too small digits. */
export function scaledOptimizer(optimizer: Optimizer, factor = 2 ** 16): ScaledOptimizer {
  const lossScale = tensor([factor, 0, 0]);
  return {
    lossScale,
    state: () => new Map([...optimizer.state(), ["loss_scale", lossScale]]),
    update(slopes, numbers, norm = globalNorm(slopes, lossScale)) {
      optimizer.update(slopes, numbers, norm, lossScale);
      launchInto(lossScaleKernel(), [norm], [lossScale]);
    },
  };
}

/** What `gradients` of a scaled loss start from: the factor times `share` [1]. */
export function scaledSeed(lossScale: Tensor, share = 1): Tensor {
  return launch(scaledSeedKernel(share), [lossScale], [1]);
}
