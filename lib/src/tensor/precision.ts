// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { type Synchronous, inContext } from "../gpu/context.js";
import { currentGpu } from "../gpu/device.js";

//| 02-attention/a-the-engine-room.ipynb#precision
/** The bits of the operands of matrix products. Everything else is computed in 32. */
export type Precision = "f32" | "f16";

/** The precision of the products that are asked for now. */
export const matmulPrecision: { now: Precision } = { now: "f32" };

/**
 * Runs `work`, which is synchronous, with matrix products in a precision: their gradients will have the same. With `f16`, operands are rounded to
 * 16-bit floats (those above 65,504 become infinite); sums and results keep 32 bits. Throws where the adapter has no 16-bit floats.
 */
export function withPrecision<T>(precision: Precision, work: () => Synchronous<T>): T {
  if (precision === "f16" && !currentGpu().facts.f16)
    throw new Error(
      `The adapter ${currentGpu().facts.name} has no 16-bit floats (shader-f16): choose precision f32.`,
    );
  const before = matmulPrecision.now;
  matmulPrecision.now = precision;
  return inContext("withPrecision", work, () => {
    matmulPrecision.now = before;
  });
}
