// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { dropoutKernel } from "../kernels/dropout.js";
import { track } from "./autograd.js";
import { type Tensor, launch } from "./tensor.js";

//| 02-attention/9-the-block.ipynb#dropout
/** How numbers are left out in a step of training. */
export interface Dropout {
  /** The probability that a number is set to zero, from 0 to below 1. */
  rate: number;
  /** The seed in two halves and the number of the step [3], as `dropoutState` has them: written before each step. */
  state: Tensor<"u32">;
  /** Which of the step's uses this is. Each draws numbers of its own. */
  place: number;
}

/**
 * Dropout (Srivastava and others, 2014): sets numbers of x [...] to zero at random and divides the rest by 1 − rate, plus a
 * residual of x's shape where one is given. The same seed, step and place leave out the same numbers. Throws for a rate that is not
 * from 0 to below 1.
 */
export function dropout(x: Tensor, { rate, state, place }: Dropout, residual?: Tensor): Tensor {
  if (!(rate >= 0 && rate < 1)) throw new Error(`dropout wants a rate from 0 to below 1, not ${rate}.`);
  const thinned = (values: Tensor, more: Tensor[]) =>
    launch(dropoutKernel(x.size, { rate, place }, more.length > 0), [values, state, ...more], x.shape);
  const y = thinned(x, residual ? [residual] : []);
  return track(y, residual ? [x, residual] : [x], (gradient) => [thinned(gradient, []), gradient]);
}

//| 02-attention/9-the-block.ipynb#dropout-state
/** What `state` of `Dropout` holds for a step: the seed's lower and upper 32 bits, and the step's number. */
export function dropoutState(seed: number, step: number): Uint32Array {
  return Uint32Array.of(seed % 2 ** 32, Math.floor(seed / 2 ** 32), step);
}
