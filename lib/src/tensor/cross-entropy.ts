// Extracted from chapters/04-training/1-the-loss.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  type RowPlan,
  crossEntropyBackwardKernel,
  crossEntropyKernel,
  meanLossKernel,
  planRows,
} from "../kernels/cross-entropy.js";
import { track } from "./autograd.js";
import { type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 04-training/1-the-loss.ipynb#row-losses
/** How the rows of the logits are shared out. Throws when there is not one target a row. */
export function planLoss(logits: Tensor, targets: Tensor<"u32">): RowPlan {
  const columns = logits.shape.at(-1) ?? 0;
  const rows = logits.size / columns;
  if (targets.size !== rows)
    throw new Error(
      `The loss wants one target for each row of ${describe(logits)}, and was given ${describe(targets)}.`,
    );
  return planRows(rows, columns, currentGpu().facts);
}

/** The loss of every row and the logarithm of its sum of exponentials, off the tape. Both: f32 [rows]. */
export function rowLosses(logits: Tensor, targets: Tensor<"u32">): { losses: Tensor; logSums: Tensor } {
  const plan = planLoss(logits, targets);
  const [losses, logSums] = [empty([plan.rows]), empty([plan.rows])];
  launchInto(crossEntropyKernel(plan), [logits, targets], [losses, logSums]);
  return { losses, logSums };
}

/**
 * The loss of every token: −log p(target) in nats, from logits [..., vocabulary] and target ids [...]. Output: [tokens].
 * An `ignoredTarget` has loss 0; an id outside of the vocabulary gives NaN. No gradients: for evaluation.
 */
export function tokenLosses(logits: Tensor, targets: Tensor<"u32">): Tensor {
  return rowLosses(logits, targets).losses;
}

//| 04-training/1-the-loss.ipynb#cross-entropy
/**
 * The mean of −log p(target) over all tokens, in nats, from logits [..., vocabulary] and target ids [...]. Output: [1].
 * Tokens whose target is `ignoredTarget` do not count; an id outside of the vocabulary makes the loss NaN.
 */
export function crossEntropy(logits: Tensor, targets: Tensor<"u32">): Tensor {
  const plan = planLoss(logits, targets);
  const { losses, logSums } = rowLosses(logits, targets);
  const [mean, share] = [empty([1]), empty([1])];
  launchInto(meanLossKernel(), [losses, targets], [mean, share]);
  return track(mean, [logits], (gradient) => [
    launch(crossEntropyBackwardKernel(plan), [logits, targets, logSums, share, gradient], logits.shape),
  ]);
}
