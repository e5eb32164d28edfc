// The training steps that `tslm bench` measures: whole, and taken apart by kernel.
import type { ModelConfig } from "../formats/config.js";
import { dropFreeBuffers, memory } from "../gpu/buffers.js";
import { finish } from "../gpu/commands.js";
import { currentGpu, GpuError } from "../gpu/device.js";
import { profile, type ProfileRow } from "../gpu/profiler.js";
import { completeModelConfig, parseModelConfig } from "../model/config.js";
import { sequenceContext } from "../model/decoder.js";
import { modelFamilies, parametersOf } from "../model/families.js";
import { buildModel, type Model } from "../model/structure.js";
import { countParameters } from "../model/count.js";
import { parameter } from "../tensor/autograd.js";
import { type Tensor, scope, tensorsIn } from "../tensor/tensor.js";
import { parseTrainConfig, trainingSettings } from "../train/configuration.js";
import { checkRunFits } from "../train/fits.js";
import { makeOptimizer } from "../train/muon.js";
import { makeLossScale } from "../train/precision.js";
import { recordStep, trainingStep, type TrainingSettings } from "../train/step.js";
import type { Optimizer } from "../train/optimizers.js";
import type { StepName } from "./bench-names.js";
import { randomIds, randomTensor } from "./bench-operations.js";
import { type RunTime, timeWork } from "./bench-timing.js";

/** A step: so much of a training configuration as decides what it computes, and the vocabulary's size. */
interface StepShape {
  vocabulary: number;
  config: Record<string, unknown>;
}

const small = {
  hidden_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 4,
  head_dim: 32,
  intermediate_size: 384,
  tie_word_embeddings: true,
};
const sizes = { batch_size: 12, context: 64 };
const vocabulary = 65;
const adamw = { kind: "adamw", learning_rate: 1e-3 };

/** GPT-2's smallest in size, with the blocks that we have: 124 million parameters. */
const gpt2Step: StepShape = {
  vocabulary: 50257,
  config: {
    model: {
      model_type: "llama",
      hidden_size: 768,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      intermediate_size: 2048,
      tie_word_embeddings: true,
    },
    batch_size: 8,
    context: 1024,
    optimizer: adamw,
  },
};

/** The steps by name. */
export const stepShapes: Record<StepName, StepShape> = {
  // What configs/shakespeare-char.json says of a step.
  "shakespeare-char": {
    vocabulary,
    config: {
      model: { ...small, model_type: "qwen3", num_key_value_heads: 2 },
      ...sizes,
      optimizer: { kind: "muon", learning_rate: 0.003 },
    },
  },
  // What bench/ holds against other libraries.
  dense: { vocabulary, config: { model: { ...small, model_type: "llama" }, ...sizes, optimizer: adamw } },
  // As many active parameters as the dense one.
  moe: {
    vocabulary,
    config: {
      model: { ...small, num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 192 },
      ...sizes,
      optimizer: adamw,
    },
  },
  gpt2: gpt2Step,
  "gpt2-f16": { ...gpt2Step, config: { ...gpt2Step.config, precision: "f16" } },
};

/** What was measured of a step. */
export interface StepReport {
  name: StepName;
  parameters: number;
  active_parameters: number;
  batch_size: number;
  context: number;
  optimizer: string;
  /** Kernels of a step. */
  kernels: number;
  /** Recorded once and replayed, as training runs it, and operation by operation where that fits. */
  captured: StepTime;
  eager?: StepTime;
  /** GPU time between timestamps by operation, longest first, where the adapter has timestamps. */
  operations?: { operation: string; calls: number; seconds: number }[];
  /** All of that, and what is left of the captured step: the time in which the GPU waits. */
  gpu_seconds?: number;
  gap_seconds?: number;
}

/** How a step runs: as the clock on the wall has it, the program's own share of it, the most GPU memory in use. */
interface StepTime {
  seconds: number;
  host_seconds: number;
  peak_bytes: number;
}

/** All that a step works on. */
interface MeasuredStep {
  model: Model;
  settings: TrainingSettings;
  optimizer: Optimizer;
  lossScale?: Tensor;
}

/** What kernel it is, without the sizes in its name: `matmul 768x384x128 (B transposed)` is `matmul (B transposed)`. */
export function operationOf(kernelName: string): string {
  const [note = ""] = kernelName.match(/ \(.*\)$/) ?? [];
  return kernelName.replace(/ (of |by )?\d.*$/, "") + note;
}

/** GPU time by operation, longest first. */
export function byOperation(rows: ProfileRow[]): NonNullable<StepReport["operations"]> {
  const found = new Map<string, { operation: string; calls: number; seconds: number }>();
  for (const { name, calls, microseconds } of rows) {
    const operation = operationOf(name);
    const row = found.get(operation) ?? { operation, calls: 0, seconds: 0 };
    row.calls += calls;
    row.seconds += microseconds / 1e6;
    found.set(operation, row);
  }
  return [...found.values()].sort((a, b) => b.seconds - a.seconds);
}

/** The configuration of a step's model. */
export function stepModel({ vocabulary, config }: StepShape): ModelConfig {
  const { model, context } = parseTrainConfig(config);
  return parseModelConfig(
    completeModelConfig(model, { vocab_size: vocabulary, max_position_embeddings: context }),
  );
}

/** A model with values that are quick to make. */
function quickModel(config: ModelConfig): Model {
  return buildModel(config, modelFamilies[config.modelType], ({ shape }) =>
    parameter(randomTensor(shape, 0.02)),
  );
}

/** Times a step and says how much memory was in use at most. */
async function timeStep(step: () => void): Promise<StepTime> {
  const { seconds, hostSeconds }: RunTime = await timeWork(step, 3);
  return { seconds, host_seconds: hostSeconds, peak_bytes: memory.peak };
}

/** Forgets earlier peaks and the memory that they left behind. */
function forgetPeak(): void {
  dropFreeBuffers();
  memory.peak = memory.held;
}

/** The shortest of three profiles: what else the machine did can only have made them longer. */
async function shortestProfile(step: () => void): Promise<ProfileRow[]> {
  const total = (rows: ProfileRow[]) => rows.reduce((sum, { microseconds }) => sum + microseconds, 0);
  let shortest = await profile(step);
  for (let i = 0; i < 2; i++) {
    const rows = await profile(step);
    if (total(rows) < total(shortest)) shortest = rows;
  }
  return shortest;
}

/** The step operation by operation, and where its GPU time goes. It takes more memory than the recorded step. */
async function measureEager({ settings, ...parts }: MeasuredStep) {
  const { config } = parts.model;
  const ids = () => randomIds([settings.batchSize, settings.context], config.vocabSize);
  const microBatches = [{ inputs: ids(), targets: ids() }];
  const context = sequenceContext(config, settings.context);
  const { precision } = settings;
  parts.optimizer.setStep(0, 1e-4);
  const step = () => scope(() => void trainingStep({ ...parts, context, microBatches, precision }));
  try {
    forgetPeak();
    const eager = await timeStep(step);
    if (!currentGpu().device.features.has("timestamp-query")) return { eager };
    return { eager, operations: byOperation(await shortestProfile(step)) };
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    return {}; // the recorded step alone fits
  }
}

/** The step recorded once; each run gets its batch and its numbers, as in training. */
async function measureCaptured(parts: MeasuredStep) {
  forgetPeak();
  const recorded = recordStep(parts, parts.settings);
  const { inputs, targets } = recorded.microBatches[0];
  const ids = await randomIds([...inputs.shape], parts.model.config.vocabSize).array();
  const captured = await timeStep(() => {
    inputs.write(ids);
    targets.write(ids);
    parts.optimizer.setStep(0, 1e-4);
    void recorded.run();
  });
  recorded.free();
  await finish();
  return { captured, kernels: recorded.dispatches };
}

/** Measures a training step. Throws a `GpuError` where the adapter cannot hold it. */
export async function measureStep(name: StepName): Promise<StepReport> {
  const shape = stepShapes[name];
  const settings = trainingSettings(parseTrainConfig(shape.config));
  const config = stepModel(shape);
  checkRunFits(config, settings);
  const model = quickModel(config);
  const parts: MeasuredStep = {
    model,
    settings,
    optimizer: makeOptimizer(parametersOf(model), settings.optimizer),
    lossScale: settings.precision === "f16" ? makeLossScale(settings.lossScale) : undefined,
  };
  try {
    const { captured, kernels } = await measureCaptured(parts);
    const { eager, operations } = await measureEager(parts);
    const { total, active } = countParameters(config);
    const gpuSeconds = operations?.reduce((sum, { seconds }) => sum + seconds, 0);
    return {
      name,
      parameters: total,
      active_parameters: active,
      batch_size: settings.batchSize,
      context: settings.context,
      optimizer: settings.optimizer.kind,
      kernels,
      captured,
      ...(eager ? { eager } : {}),
      ...(operations && gpuSeconds !== undefined
        ? { operations, gpu_seconds: gpuSeconds, gap_seconds: Math.max(0, captured.seconds - gpuSeconds) }
        : {}),
    };
  } finally {
    for (const tensor of tensorsIn([model, parts.optimizer.state()])) tensor.free();
  }
}
