// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import type { Llama3Scaling } from "../formats/config.js";
import { columnSumKernel } from "../kernels/reduce.js";
import {
  type RotaryShape,
  ropeKernel,
  rotaryHeadsBackwardKernel,
  rotaryHeadsKernel,
  rotaryHeadsWeightKernel,
} from "../kernels/rope.js";
import { rowGroups } from "../kernels/rows.js";
import { isTracked, track } from "../tensor/autograd.js";
import { type DType, type Tensor, describe, empty, launch, launchInto, tensor } from "../tensor/tensor.js";

//| 02-attention/6-positions.ipynb#rope-frequencies
/** Radians a token by which each pair of a head turns: theta^(−2i/headDim) for pair i. */
export function ropeFrequencies(theta: number, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
}

//| 02-attention/6-positions.ipynb#rotary-settings
/** YaRN's rescaling (Peng and others, 2023): slow pairs are stretched, fast ones kept, and scores sharpened a little. */
export interface YarnScaling {
  type: "yarn";
  factor: number;
  /** The context length, in tokens, that the model was first trained with. */
  originalContextLength: number;
  /** Pairs that turn more often than this in the original context are kept; 32 in the paper. */
  betaFast: number;
  /** Pairs that turn less often than this are stretched; 1 in the paper. */
  betaSlow: number;
  /** Whether the ends of the ramp are rounded outward to whole pairs, as most models have it. */
  truncate: boolean;
}

/** How fast pairs turn: the base of the frequencies, and a rescaling for contexts longer than trained. */
export interface RotarySettings {
  theta: number;
  scaling?: Llama3Scaling | YarnScaling;
}

//| 02-attention/6-positions.ipynb#llama3-frequency
/**
 * Llama 3's rescaling of one frequency: wavelengths below original / high are kept, above original / low divided in
 * speed by `factor`, and between the two it goes smoothly from one to the other.
 */
export function llama3Frequency(frequency: number, scaling: Llama3Scaling): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength } = scaling;
  const turns = (originalContextLength * frequency) / (2 * Math.PI);
  const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
  return kept * frequency + ((1 - kept) * frequency) / factor;
}

//| 02-attention/6-positions.ipynb#yarn-frequencies
/** YaRN's rescaling of all frequencies: a ramp over the pairs from those kept to those divided by `factor`. */
export function yarnFrequencies(theta: number, headDim: number, scaling: YarnScaling): number[] {
  const { factor, originalContextLength, betaFast, betaSlow, truncate } = scaling;
  // The pair that turns `turns` times in the original context.
  const pairOf = (turns: number) =>
    (headDim * Math.log(originalContextLength / (2 * Math.PI * turns))) / (2 * Math.log(theta));
  const low = Math.max(0, truncate ? Math.floor(pairOf(betaFast)) : pairOf(betaFast));
  const high = Math.min(headDim - 1, truncate ? Math.ceil(pairOf(betaSlow)) : pairOf(betaSlow));
  return ropeFrequencies(theta, headDim).map((frequency, i) => {
    const stretched = Math.min(1, Math.max(0, (i - low) / Math.max(high - low, 1e-3)));
    return (stretched * frequency) / factor + (1 - stretched) * frequency;
  });
}

//| 02-attention/6-positions.ipynb#scaled-frequencies
/** The frequencies with whatever rescaling is set. */
export function scaledFrequencies({ theta, scaling }: RotarySettings, headDim: number): number[] {
  if (scaling?.type === "yarn") return yarnFrequencies(theta, headDim, scaling);
  const frequencies = ropeFrequencies(theta, headDim);
  return scaling ? frequencies.map((frequency) => llama3Frequency(frequency, scaling)) : frequencies;
}

/** What cosines and sines are multiplied by: 0.1 · ln(factor) + 1 under YaRN, else 1. */
export function rotaryMagnitude({ scaling }: RotarySettings): number {
  return scaling?.type === "yarn" && scaling.factor > 1 ? 0.1 * Math.log(scaling.factor) + 1 : 1;
}

//| 02-attention/6-positions.ipynb#rope-table
/**
 * The cosine and sine of every pair's turn at positions 0 … length − 1: [length, headDim / 2, 2]. Computed in 64 bits,
 * since the angles grow with the position and 32 bits would lose their fractions.
 */
export function ropeTable(settings: RotarySettings, headDim: number, length: number): Tensor {
  if (headDim % 2 !== 0)
    throw new Error(`Rotary positions turn pairs: a head of ${headDim} elements must be even.`);
  const magnitude = rotaryMagnitude(settings);
  const frequencies = scaledFrequencies(settings, headDim);
  const values = new Float32Array(length * headDim);
  for (let position = 0, at = 0; position < length; position++)
    for (const frequency of frequencies) {
      values[at++] = Math.cos(position * frequency) * magnitude;
      values[at++] = Math.sin(position * frequency) * magnitude;
    }
  return tensor(values, [length, headDim / 2, 2]);
}

//| 02-attention/6-positions.ipynb#rotary-shape-check
/** The sizes of heads [batch, heads, tokens, headDim] with their positions. Throws when positions or table do not fit. */
export function rotaryShape(shape: readonly number[], positions: Tensor<"u32">, table: Tensor): RotaryShape {
  const [batch, heads, tokens, headDim] = shape;
  const positionsPerSequence = positions.shape.length === 2;
  const wanted = positionsPerSequence ? [batch, tokens] : [tokens];
  if (positions.shape.join() !== wanted.join() || table.shape.slice(1).join() !== `${headDim / 2},2`)
    throw new Error(
      `Rotary positions on [${shape.join(", ")}] want positions [${tokens}] or [${batch}, ${tokens}] and a table ` +
        `[length, ${headDim / 2}, 2], not ${describe(positions)} and ${describe(table)}.`,
    );
  return { batch, heads, tokens, headDim, positionsPerSequence };
}

//| 02-attention/6-positions.ipynb#rope
/**
 * Turns each pair of x [batch, heads, tokens, headDim] by the angle of its token's position ([tokens] or
 * [batch, tokens]), looked up in a `ropeTable`. Pair i is elements i and i + headDim / 2 (the half-split layout).
 * A position beyond the table is a mistake that the GPU does not notice: make the table as long as the context.
 */
export function rope(x: Tensor, positions: Tensor<"u32">, table: Tensor): Tensor {
  const shape = rotaryShape(x.shape, positions, table);
  const y = launch(ropeKernel(shape, 1), [x, positions, table], x.shape);
  return track(y, [x], (gradient) => [launch(ropeKernel(shape, -1), [gradient, positions, table], x.shape)]);
}

//| 02-attention/6-positions.ipynb#rotary-heads-gradient
/** The gradient of the weight in `rotaryHeads`, from x, 1/rms, the result's gradient, positions and table, in order. */
export function rotaryHeadsWeightGradient(shape: RotaryShape, inputs: Tensor<DType>[]): Tensor {
  const groups = rowGroups(shape.batch * shape.heads * shape.tokens);
  const sums = launch(rotaryHeadsWeightKernel(shape), inputs, [groups, shape.headDim]);
  return launch(columnSumKernel(groups, shape.headDim, 1), [sums], [shape.headDim]);
}

//| 02-attention/6-positions.ipynb#rotary-heads
/**
 * Splits x [batch, tokens, heads · headDim] into heads, normalises each head with RMSNorm and `weight` [headDim], and
 * turns it: `rope(rmsNorm(splitHeads(x)))` in one kernel. Result: [batch, heads, tokens, headDim].
 */
export function rotaryHeads(
  x: Tensor,
  weight: Tensor,
  epsilon: number,
  positions: Tensor<"u32">,
  table: Tensor,
): Tensor {
  const [batch, tokens, width] = x.shape;
  const headDim = weight.size;
  const shape = rotaryShape([batch, width / headDim, tokens, headDim], positions, table);
  const [y, inverse] = [empty([batch, shape.heads, tokens, headDim]), empty([x.size / headDim])];
  launchInto(rotaryHeadsKernel(shape, epsilon), [x, weight, positions, table], [y, inverse]);
  return track(y, [x, weight], (gradient) => {
    const others = [inverse, gradient, positions, table];
    return [
      isTracked(x) ? launch(rotaryHeadsBackwardKernel(shape), [x, weight, ...others], x.shape) : undefined,
      isTracked(weight) ? rotaryHeadsWeightGradient(shape, [x, ...others]) : undefined,
    ];
  });
}
