// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import type { Llama3Scaling, RopeConfig, YarnScaling } from "../formats/rope.js";
import { type Tensor, tensor } from "../tensor/tensor.js";

//| 02-attention/6-positions.ipynb#rope-frequencies
/** Radians a token by which each pair of a head turns: theta^(−2i/headDim) for pair i. */
export function ropeFrequencies(theta: number, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
}

//| 02-attention/6-positions.ipynb#llama3-frequency
/**
 * Llama 3's rescaling of one frequency: wavelengths below original / high are kept, above original / low divided in
 * speed by `factor`, and between the two it goes smoothly from one to the other.
 */
export function llama3Frequency(frequency: number, scaling: Llama3Scaling): number {
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalContextLength } = scaling;
  const turns = (originalContextLength * frequency) / (2 * Math.PI);
  const kept = Math.min(
    1,
    Math.max(0, (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor)),
  );
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
export function scaledFrequencies({ theta, scaling }: RopeConfig, headDim: number): number[] {
  if (scaling?.type === "yarn") return yarnFrequencies(theta, headDim, scaling);
  const frequencies = ropeFrequencies(theta, headDim);
  return scaling ? frequencies.map((frequency) => llama3Frequency(frequency, scaling)) : frequencies;
}

/** What cosines and sines are multiplied by: 0.1 · ln(factor) + 1 under YaRN, else 1. */
export function rotaryMagnitude({ scaling }: RopeConfig): number {
  return scaling?.type === "yarn" && scaling.factor > 1 ? 0.1 * Math.log(scaling.factor) + 1 : 1;
}

//| 02-attention/6-positions.ipynb#rope-table
/**
 * The cosine and sine of every pair's turn at positions 0 … length − 1: [length, headDim / 2, 2]. Computed in 64 bits,
 * since the angles grow with the position and 32 bits would lose their fractions.
 */
export function ropeTable(settings: RopeConfig, headDim: number, length: number): Tensor {
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
