// Extracted from chapters/04-training/1-the-loss.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { copyBlockKernel } from "../kernels/copy.js";
import {
  type RowPlan,
  addToKernel,
  crossEntropyBackwardKernel,
  crossEntropyKernel,
  meanLossKernel,
  planRows,
} from "../kernels/cross-entropy.js";
import { constantKernel, isTracked, tape, track } from "./autograd.js";
import { blank } from "./embedding.js";
import { multiply } from "./operations.js";
import { inPieces, pieces } from "./pieces.js";
import { linear, timesWeight, timesWeightBack, weightGradient } from "./products.js";
import { softcap, softcapGradient } from "./rows.js";
import { type DType, type Tensor, describe, empty, launch, launchInto, scope, view } from "./tensor.js";

//| 04-training/1-the-loss.ipynb#row-losses-parts
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

//| 04-training/1-the-loss.ipynb#row-losses
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
  const [mean, lossWeight] = [empty([1]), empty([1])];
  launchInto(meanLossKernel(), [losses, targets], [mean, lossWeight]);
  return track(mean, [logits], (gradient) => [
    launch(crossEntropyBackwardKernel(plan), [logits, targets, logSums, lossWeight, gradient], logits.shape),
  ]);
}

//| 04-training/1-the-loss.ipynb#rows-of
/** A copy of `count` rows of x [rows, ...], from row `from` on. */
export function rowsOf<D extends DType>(x: Tensor<D>, from: number, count: number): Tensor<D> {
  const width = x.size / x.shape[0];
  const kernel = copyBlockKernel(
    1,
    count * width,
    { start: from * width, stride: 0 },
    { start: 0, stride: 0 },
  );
  return launch(kernel, [x], [count, ...x.shape.slice(1)], x.dtype);
}

/** Copies rows to where they belong in `whole` [rows, ...], from row `to` on. */
export function putRows(part: Tensor, whole: Tensor, to: number): void {
  const place = { start: to * (whole.size / whole.shape[0]), stride: 0 };
  launchInto(copyBlockKernel(1, part.size, { start: 0, stride: 0 }, place), [part], [whole]);
}

//| 04-training/1-the-loss.ipynb#piece
/** What the pieces of a loss leave behind: the loss of every row, and gradients as though losses were summed. */
export interface LossSums {
  losses: Tensor;
  hidden?: Tensor;
  weight?: Tensor;
}

/** Takes in the rows from `from` on: their logits live in here only, bounded where there is a `cap`. */
export function lossPiece(
  x: Tensor,
  weight: Tensor,
  ids: Tensor<"u32">,
  from: number,
  { sums, cap }: { sums: LossSums; cap?: number },
): void {
  const scores = timesWeight(x, weight);
  const logits = cap === undefined ? scores : softcap(scores, cap);
  const { losses, logSums } = rowLosses(logits, ids);
  putRows(losses, sums.losses, from);
  if (!sums.hidden || !sums.weight) return;
  const [one, plan] = [launch(constantKernel(1), [], [1]), planLoss(logits, ids)];
  const cappedGradient = launch(
    crossEntropyBackwardKernel(plan),
    [logits, ids, logSums, one, one],
    logits.shape,
  );
  const logitGradient = cap === undefined ? cappedGradient : softcapGradient(logits, cappedGradient, cap);
  putRows(timesWeightBack(logitGradient, weight), sums.hidden, from);
  const [added, sum] = [pieces(weightGradient(logitGradient, x)), pieces(sums.weight)];
  added.forEach((piece, i) => launchInto(addToKernel(piece.size), [piece], [sum[i]]));
}

//| 04-training/1-the-loss.ipynb#linear-cross-entropy-parts
/** Bytes of logits that are made at a time: what one array can hold, and no more than is needed to keep an adapter busy. */
export function logitsAtATime(): number {
  return Math.min(currentGpu().facts.limits.maxStorageBufferBindingSize, 2 ** 28);
}

//| 04-training/1-the-loss.ipynb#linear-cross-entropy
/**
 * `crossEntropy(linear(hidden, weight), targets)` for hidden [..., inputs], weight [vocabulary, inputs] and target ids [...],
 * without holding more than `bytes` of logits: where they do not fit, rows are taken in pieces and the gradients made on
 * the way forward. With a `cap`, the logits are bounded by it first, as `softcap` does. Output: [1].
 */
export function linearCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor<"u32">,
  bytes = logitsAtATime(),
  cap?: number,
): Tensor {
  const [vocabulary, inputs] = weight.shape;
  const rows = hidden.size / inputs;
  const piece = Math.max(1, Math.floor(bytes / (4 * vocabulary)));
  if (rows <= piece || targets.size !== rows) {
    const logits = linear(hidden, weight);
    return crossEntropy(cap === undefined ? logits : softcap(logits, cap), targets);
  }
  const learns = tape.paused === 0 && (isTracked(hidden) || isTracked(weight));
  const [x, ids] = [view(hidden, [rows, inputs]), view(targets, [rows])];
  const sumsOfGradients = learns ? { hidden: empty(x.shape), weight: blank(weight.shape) } : {};
  const sums: LossSums = { losses: empty([rows]), ...sumsOfGradients };
  for (let from = 0; from < rows; from += piece)
    scope(() => {
      const count = Math.min(piece, rows - from);
      lossPiece(rowsOf(x, from, count), weight, rowsOf(ids, from, count), from, { sums, cap });
    });
  const [mean, lossWeight] = [empty([1]), empty([1])];
  launchInto(meanLossKernel(), [sums.losses, ids], [mean, lossWeight]);
  return track(mean, [hidden, weight], (gradient) => {
    const factor = multiply(gradient, lossWeight);
    const scaled = (x: Tensor) => inPieces("scaled", "a * b", x, factor);
    return [view(scaled(sums.hidden!), hidden.shape), scaled(sums.weight!)];
  });
}
