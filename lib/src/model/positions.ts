// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import type {
  DynamicScaling,
  Llama3Scaling,
  LongRopeScaling,
  RopeConfig,
  YarnScaling,
} from "../formats/rope.js";
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
  const end = Math.min(headDim - 1, truncate ? Math.ceil(pairOf(betaSlow)) : pairOf(betaSlow));
  const high = end === low ? low + 1e-3 : end; // a ramp of no length would divide by zero
  return ropeFrequencies(theta, headDim).map((frequency, i) => {
    const stretched = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (stretched * frequency) / factor + (1 - stretched) * frequency;
  });
}

//| 02-attention/6-positions.ipynb#other-frequencies
/**
 * Dynamic scaling for a text of `length` tokens: theta · (factor · length / original − (factor − 1))^(d / (d − 2)), with d =
 * `headDim`, beyond the original context; theta itself within it.
 */
export function dynamicTheta(
  theta: number,
  headDim: number,
  scaling: DynamicScaling,
  length: number,
): number {
  const { factor, originalContextLength } = scaling;
  if (length <= originalContextLength) return theta;
  const growth = (factor * length) / originalContextLength - (factor - 1);
  return theta * growth ** (headDim / (headDim - 2));
}

/** LongRoPE: each frequency is divided by its own factor, from the list for texts of such a length. */
export function longRopeFrequencies(
  theta: number,
  headDim: number,
  scaling: LongRopeScaling,
  length: number,
): number[] {
  const { originalContextLength, shortFactors, longFactors } = scaling;
  const factors = length > originalContextLength ? longFactors : shortFactors;
  return ropeFrequencies(theta, headDim).map((frequency, i) => frequency / factors[i]);
}

//| 02-attention/6-positions.ipynb#scaled-frequencies
/** The frequencies of the pairs that turn, with whatever rescaling is set, for texts of up to `length` tokens. */
export function scaledFrequencies(
  { theta, dimensions, scaling }: RopeConfig,
  headDim: number,
  length = 0,
): number[] {
  const width = dimensions ?? headDim;
  const frequencies = ropeFrequencies(theta, width);
  switch (scaling?.type) {
    case "linear":
      return frequencies.map((frequency) => frequency / scaling.factor);
    case "dynamic":
      return ropeFrequencies(dynamicTheta(theta, width, scaling, length), width);
    case "llama3":
      return frequencies.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn":
      return yarnFrequencies(theta, width, scaling);
    case "longrope":
      return longRopeFrequencies(theta, width, scaling, length);
    default:
      return frequencies;
  }
}

//| 02-attention/6-positions.ipynb#rotary-magnitude
/** YaRN's magnitude for a factor: 0.1 · mscale · ln(factor) + 1. */
export function yarnMagnitude(factor: number, mscale = 1): number {
  return factor > 1 ? 0.1 * mscale * Math.log(factor) + 1 : 1;
}

/** What cosines and sines are multiplied by: above 1 under YaRN and LongRoPE, else 1. */
export function rotaryMagnitude({ scaling }: RopeConfig): number {
  if (scaling?.type !== "yarn" && scaling?.type !== "longrope") return 1;
  const { attentionFactor, factor, originalContextLength } = scaling;
  if (attentionFactor !== undefined) return attentionFactor;
  if (scaling.type === "longrope")
    return factor > 1 ? Math.sqrt(1 + Math.log(factor) / Math.log(originalContextLength)) : 1;
  const { mscale, mscaleAllDim } = scaling;
  if (mscale && mscaleAllDim) return yarnMagnitude(factor, mscale) / yarnMagnitude(factor, mscaleAllDim);
  return yarnMagnitude(factor);
}

//| 02-attention/6-positions.ipynb#rope-table
/**
 * The cosine and sine of every turning pair at positions 0 … length − 1: [length, turning / 2, 2], where `turning` is headDim unless
 * the settings say fewer. Computed in 64 bits, since the angles grow with the position and 32 bits would lose their fractions.
 * `longest` is how long the texts may get, by which some rescalings choose their speeds: all keys of a text must turn alike.
 */
export function ropeTable(settings: RopeConfig, headDim: number, length: number, longest = length): Tensor {
  const turning = settings.dimensions ?? headDim;
  if (turning % 2 !== 0)
    throw new Error(`Rotary positions turn pairs: a head of ${turning} elements must be even.`);
  const magnitude = rotaryMagnitude(settings);
  const frequencies = scaledFrequencies(settings, headDim, longest);
  const values = new Float32Array(length * turning);
  for (let position = 0, at = 0; position < length; position++)
    for (const frequency of frequencies) {
      values[at++] = Math.cos(position * frequency) * magnitude;
      values[at++] = Math.sin(position * frequency) * magnitude;
    }
  return tensor(values, [length, turning / 2, 2]);
}

//| 02-attention/6-positions.ipynb#rope-tables
/** The tables that a model looks its turns up in. */
export interface RopeTables {
  /** Made by `ropeTable`, at least as long as the largest position + 1. */
  ropeTable?: Tensor;
  /** The same for layers that turn by a base of their own. */
  localRopeTable?: Tensor;
}

/** The tables of a configuration's models for positions 0 … length − 1, of texts of up to `longest` tokens. */
export function ropeTables(
  { rope, localRope, headDim }: ModelConfig,
  length: number,
  longest = length,
): RopeTables {
  return {
    ropeTable: rope && ropeTable(rope, headDim, length, longest),
    localRopeTable: localRope && ropeTable(localRope, headDim, length, longest),
  };
}
