// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { checkFits, readableBytes } from "../gpu/buffers.js";
import { GpuError } from "../gpu/device.js";
import { countParameters } from "../model/count.js";
import { checkWeightsFit } from "../model/weights.js";
import type { TrainingSettings } from "./step.js";

//| 04-training/a-the-trainers-desk.ipynb#fits
/** Bytes that training takes at the least: each weight, its gradient, and two numbers of the optimizer, all f32. */
export function trainingBytes(config: ModelConfig): number {
  return 16 * countParameters(config).total;
}

/** Numbers that the widest layer makes of one token. */
export function widestLayer({ hiddenSize, heads, headDim, intermediateSize, moe }: ModelConfig): number {
  const experts = moe ? moe.expertsPerToken * Math.max(moe.intermediateSize, hiddenSize) : 0;
  return Math.max(hiddenSize, heads * headDim, intermediateSize, experts);
}

/**
 * Throws one sentence when a run cannot fit, before anything large is made: when a weight or the widest activations of a batch
 * are too large for one array, or when all of it needs more than the `available` bytes (where that is known).
 */
export function checkRunFits(
  config: ModelConfig,
  { batchSize, context }: Pick<TrainingSettings, "batchSize" | "context">,
  available = Number.POSITIVE_INFINITY,
): void {
  checkWeightsFit(config);
  const width = widestLayer(config);
  checkFits(
    4 * batchSize * context * width,
    `A batch of ${batchSize} x ${context} tokens (${width} numbers each)`,
  );
  const needed = trainingBytes(config);
  if (needed <= available) return;
  const parameters = countParameters(config).total.toLocaleString("en");
  throw new GpuError(
    `Training ${parameters} parameters needs at least ${readableBytes(needed)} of memory, and this machine has ` +
      `${readableBytes(available)}: choose a smaller model.`,
  );
}
