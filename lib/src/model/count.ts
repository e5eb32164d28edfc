// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { sizeOf } from "../tensor/tensor.js";
import { weightsOf } from "./families.js";

//| 03-moe/4-the-decoder.ipynb#count-parameters
/** How many numbers a model has: `total`, and `active`, those that one token meets on its way. */
export interface ParameterCount {
  total: number;
  active: number;
}

/**
 * Counts the parameters of a model: what gradients change, so no buffers. Experts that a token does not visit are not active; a tied
 * table counts once.
 */
export function countParameters(config: ModelConfig): ParameterCount {
  const count = { total: 0, active: 0 };
  const { expertsPerToken = 1 } = config.moe ?? {};
  for (const { shape, role } of weightsOf(config).filter(({ role }) => role !== "buffer")) {
    const isStacked = shape.length === (role === "bias" ? 2 : 3); // those of all experts of a layer
    count.total += sizeOf(shape);
    count.active += isStacked ? (sizeOf(shape) / shape[0]) * expertsPerToken : sizeOf(shape);
  }
  return count;
}
