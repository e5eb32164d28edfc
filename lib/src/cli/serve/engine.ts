// What the server asks of an engine.
import type { SamplingSettings } from "../../infer/sampling.js";

export interface EngineRequest {
  prompt: ArrayLike<number>;
  maxTokens: number;
  seed: number;
  stopIds: number[];
  vocabSize?: number;
  sampling: SamplingSettings & {
    repetitionPenalty?: number;
    presencePenalty?: number;
    frequencyPenalty?: number;
    bias?: [id: number, bias: number][];
  };
  choices?: number;
  alternatives?: number;
  constraint?: () => TokenConstraint;
}
export interface TokenConstraint {
  mask(): Uint32Array | undefined;
  accept(id: number): void;
}
export interface GeneratedToken {
  id: number;
  logProbability?: number;
  alternatives?: { id: number; logProbability: number }[];
}
export interface Choice {
  tokens: AsyncIterable<GeneratedToken>;
  finishReason: "stop" | "length" | "aborted" | undefined;
  cachedTokens: number;
  abort(): void;
}
export interface EngineState {
  running: number;
  waiting: number;
  blocks: number;
  freeBlocks: number;
  prefixQueries: number;
  prefixHits: number;
  preemptions: number;
  promptTokens: number;
  generatedTokens: number;
  steps: number;
}
export interface Engine {
  submit(request: EngineRequest): Choice[];
  state(): EngineState;
  close(): Promise<void>;
}
