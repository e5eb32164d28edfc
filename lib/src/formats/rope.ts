// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/6-positions.ipynb#rotary-settings
/** Llama 3's rescaling: wavelengths above the original context are stretched by `factor`, short ones are kept. */
export interface Llama3Scaling {
  type: "llama3";
  factor: number;
  lowFrequencyFactor: number;
  highFrequencyFactor: number;
  /** The context length, in tokens, that the model was first trained with. */
  originalContextLength: number;
}

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

/** Rotary positions: pair i of a head turns by `theta ** (-2 i / headDim)` radians a token, unless rescaled for long contexts. */
export interface RopeConfig {
  theta: number;
  scaling?: Llama3Scaling | YarnScaling;
}
