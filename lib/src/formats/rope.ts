// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/6-positions.ipynb#rotary-settings
/** Position interpolation: every pair turns `factor` times more slowly. */
export interface LinearScaling {
  type: "linear";
  factor: number;
}

/** Dynamic scaling: in texts longer than the original context theta grows with their length, so that slow pairs slow down most. */
export interface DynamicScaling {
  type: "dynamic";
  factor: number;
  /** The context length, in tokens, that the model was first trained with. */
  originalContextLength: number;
}

/** Llama 3's rescaling: wavelengths above the original context are stretched by `factor`, short ones are kept. */
export interface Llama3Scaling {
  type: "llama3";
  factor: number;
  lowFrequencyFactor: number;
  highFrequencyFactor: number;
  /** The context length, in tokens, that the model was first trained with. */
  originalContextLength: number;
}

//| 02-attention/6-positions.ipynb#rotary-settings-yarn
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
  /** What cosines and sines are multiplied by, where it does not follow from the factor. */
  attentionFactor?: number;
  /** Where both are given: that magnitude is (0.1 · mscale · ln(factor) + 1) / (0.1 · mscaleAllDim · ln(factor) + 1). */
  mscale?: number;
  mscaleAllDim?: number;
}

//| 02-attention/6-positions.ipynb#rotary-settings-long
/** LongRoPE (Ding and others, 2024): a factor for each pair, found by search; other ones for texts beyond the original context. */
export interface LongRopeScaling {
  type: "longrope";
  /** How much longer the context has become. */
  factor: number;
  /** The context length, in tokens, that the model was first trained with. */
  originalContextLength: number;
  shortFactors: number[];
  longFactors: number[];
  /** What cosines and sines are multiplied by, where it does not follow from the factor. */
  attentionFactor?: number;
}

/** Rotary positions: pair i of a head turns by `theta ** (-2 i / dimensions)` radians a token, unless rescaled for long contexts. */
export interface RopeConfig {
  theta: number;
  /** The first so many elements of a head turn; all where it is left out. */
  dimensions?: number;
  scaling?: LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | LongRopeScaling;
}
