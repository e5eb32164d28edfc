// Extracted from chapters/04-training/6-precision.ipynb: edit it there, or here and run `npm run backport`.
import { lossScaleKernel, scaledSeedKernel } from "../kernels/loss-scale.js";
import { type Tensor, launch, launchInto, tensor } from "../tensor/tensor.js";

//| 04-training/6-precision.ipynb#scaled-optimizer-parts
/** Moves a loss scale after a step, by the norm [1] of the step's gradients. */
export function adjustLossScale(lossScale: Tensor, norm: Tensor): void {
  launchInto(lossScaleKernel(), [norm], [lossScale]);
}

/** What `gradients` of a scaled loss start from: the factor times `lossWeight` [1]. */
export function scaledSeed(lossScale: Tensor, lossWeight = 1): Tensor {
  return launch(scaledSeedKernel(lossWeight), [lossScale], [1]);
}

//| 04-training/6-precision.ipynb#scaled-optimizer
/**
 * A loss scale in GPU memory: [factor, finite steps since it changed, steps left out]. Start high: a factor that is too large
 * costs a few steps, one that is too small digits.
 */
export function makeLossScale(factor = 2 ** 16): Tensor {
  return tensor([factor, 0, 0]);
}
