// Extracted from chapters/04-training/6-precision.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/commands.js";

//| 04-training/6-precision.ipynb#scale-kernel
/** Steps with finite gradients after which the loss scale is doubled, and the largest that it becomes. */
export const scalePatience = 1000;
export const largestScale = 2 ** 24;

/**
 * The rule of dynamic loss scaling, on the state [factor, finite steps since it changed, steps left out] and the norm [1] of
 * a step's gradients (Micikevicius and others, "Mixed precision training", 2018).
 */
export function lossScaleKernel(patience = scalePatience): Kernel {
  return kernel({
    name: "loss scale",
    reads: ["norm: array<f32>"],
    writes: ["state: array<f32>"],
    workgroupSize: 1,
    workgroups: 1,
    body: `
  if ((bitcast<u32>(norm[0]) & 0x7f800000u) == 0x7f800000u) {
    state[0] = max(1.0, state[0] / 2.0);
    state[1] = 0.0;
    state[2] += 1.0;
    return;
  }
  state[1] += 1.0;
  if (state[1] < ${patience.toFixed(1)}) { return; }
  state[0] = min(${largestScale.toFixed(1)}, state[0] * 2.0);
  state[1] = 0.0;`,
  });
}

/** The gradient of a scaled loss with itself: the factor times a constant. */
export function scaledSeedKernel(lossWeight: number): Kernel {
  return kernel({
    name: "scaled seed",
    reads: ["state: array<f32>"],
    writes: ["seed: array<f32>"],
    workgroupSize: 1,
    workgroups: 1,
    body: `  seed[0] = state[0] * ${lossWeight.toPrecision(9)};`,
  });
}
