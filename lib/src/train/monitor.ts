// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import type { StepReport } from "./loop.js";

//| 04-training/8-the-loop.ipynb#metrics
/** A line of metrics.jsonl: a step, and what was measured at it. Losses in nats a token. */
export interface Metrics {
  step: number;
  train_loss?: number;
  val_loss?: number;
  val_bpb?: number;
  lr?: number;
  grad_norm?: number;
  /** In 16 bits: the loss scale after the step, and whether the step was left out. */
  loss_scale?: number;
  skipped?: boolean;
  tokens?: number;
  tokens_per_second?: number;
}

//| 04-training/8-the-loop.ipynb#metrics-helpers
/** A step's report as a line of metrics. */
export function metricsOf(report: StepReport): Metrics {
  const { step, loss, norm, lossScale, skipped, learningRate, tokens, tokensPerSecond, validation } = report;
  return {
    step,
    train_loss: loss,
    ...(validation ? { val_loss: validation.loss, val_bpb: validation.bitsPerByte } : {}),
    lr: learningRate,
    ...(skipped ? { skipped } : { grad_norm: norm }),
    ...(lossScale === undefined ? {} : { loss_scale: lossScale }),
    tokens,
    tokens_per_second: Math.round(tokensPerSecond),
  };
}

//| 04-training/8-the-loop.ipynb#load-parts
/** How unevenly the experts of a layer are used: the share of the busiest times their number. 1 is even. */
export function imbalance(load: ArrayLike<number>): number {
  const counts = Array.from(load);
  const total = counts.reduce((sum, count) => sum + count, 0);
  return total === 0 ? 1 : (Math.max(...counts) * counts.length) / total;
}

//| 04-training/8-the-loop.ipynb#load
/** How the experts were used at a step: by layer, the share of tokens that went to each. */
export interface ExpertLoad {
  step: number;
  shares: number[][];
}

//| 04-training/8-the-loop.ipynb#load-helpers
/** The load in a step's report as shares, rounded to four digits. */
export function expertLoad({ step, load = [] }: StepReport): ExpertLoad {
  const shares = load.map((counts) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return Array.from(counts, (count) => Math.round((count / Math.max(1, total)) * 1e4) / 1e4);
  });
  return { step, shares };
}
