// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { type Batches, batches } from "../data/batches.js";
import type { TokenSource } from "../data/shards.js";
import { parametersOf } from "../model/families.js";
import type { Model } from "../model/structure.js";
import { loadModel, saveModel } from "../model/weights.js";
import type { Tensor } from "../tensor/tensor.js";
import {
  type Checkpoint,
  type CheckpointFiles,
  type RunProgress,
  type RunState,
  savedArrays,
  tensorBytes,
} from "./checkpoint.js";
import { type Evaluation, recordEvaluation } from "./evaluate.js";
import { makeOptimizer } from "./muon.js";
import { type Optimizer, restoreState } from "./optimizers.js";
import { makeLossScale } from "./precision.js";
import {
  type GradientHook,
  type RecordedStep,
  type TrainingData,
  type TrainingSettings,
  recordStep,
} from "./step.js";

//| 04-training/8-the-loop.ipynb#run
/** A run in memory: all that the next step needs. Its `step` counts the steps that were handed to the GPU. */
export interface Run extends RunProgress {
  settings: TrainingSettings;
  data: TrainingData;
  model: Model;
  optimizer: Optimizer;
  /** What the loss is multiplied by in 16 bits, where it is. */
  lossScale?: Tensor;
  batches: Batches;
  hook?: GradientHook;
  recorded: RecordedStep;
  /** None where there is nothing to validate with. */
  evaluation?: Evaluation;
}

//| 04-training/8-the-loop.ipynb#plan-optimizer
/** The evaluation of a run; none if the validation text is too short for one window. */
export function runEvaluation(
  { batchSize, context, separator }: TrainingSettings,
  model: Model,
  val: TokenSource,
): Evaluation | undefined {
  return val.length > context ? recordEvaluation(model, batchSize, context, separator) : undefined;
}

/** Records a run's step and its evaluation anew, as when a tuner has found better kernels for them. */
export function recordAgain(run: Run): void {
  run.recorded.free();
  run.evaluation?.recording.free();
  run.recorded = recordStep(run, run.settings, run.hook);
  run.evaluation = runEvaluation(run.settings, run.model, run.data.val);
}

/** What a run remembers from step to step besides the model, by name: the optimizer's state, and the loss scale. */
export function rememberedTensors({
  optimizer,
  lossScale,
}: Pick<Run, "optimizer" | "lossScale">): Map<string, Tensor> {
  return new Map([...optimizer.state(), ...(lossScale ? [["loss_scale", lossScale] as const] : [])]);
}

//| 04-training/8-the-loop.ipynb#start-run-parts
/** The model in a checkpoint. */
export function checkpointModel({ files }: Checkpoint): Model {
  const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
  return loadModel(config, files.get("model.safetensors")!);
}

//| 04-training/8-the-loop.ipynb#start-run
/**
 * Begins a run with a model, or takes it up again from the state and the optimizer's memory of a checkpoint. With a hook, each
 * step's gradients are handed to it before they are applied.
 */
export function startRun(
  model: Model,
  settings: TrainingSettings,
  data: TrainingData,
  { checkpoint, hook }: { checkpoint?: Checkpoint; hook?: GradientHook } = {},
): Run {
  const { batchSize, context, seed, separator, precision } = settings;
  const factor = settings.lossScale ?? 2 ** 16;
  const optimizer = makeOptimizer(parametersOf(model), settings.optimizer);
  const lossScale = precision === "f16" && factor > 0 ? makeLossScale(factor) : undefined;
  const trained = { model, optimizer, lossScale };
  const saved = checkpoint?.files.get("optimizer.safetensors");
  if (saved) restoreState(rememberedTensors(trained), savedArrays(saved));
  const { step = 0, best, last, cursor } = checkpoint?.state ?? ({} as Partial<RunState>);
  return {
    ...trained,
    ...{ settings, data, hook, step, best, last },
    batches: batches(data.train, { batchSize, context, seed, separator }, cursor),
    recorded: recordStep(trained, settings, hook),
    evaluation: runEvaluation(settings, model, data.val),
  };
}

//| 04-training/8-the-loop.ipynb#run-state
/** Tokens that one step learns from. */
export function tokensPerStep({ batchSize, accumulate, context }: TrainingSettings): number {
  return batchSize * accumulate * context;
}

/** Where a run stands, for a checkpoint. */
export function runState({ step, settings, batches, best, last }: Run): RunState {
  const tokens = step * tokensPerStep(settings);
  const state = { step, tokens, seed: settings.seed, cursor: batches.cursor() };
  return { ...state, ...(best ? { best } : {}), ...(last ? { last } : {}) };
}

/** The files of a checkpoint: the model as others read it, and what the run remembers besides. */
export async function runFiles(run: Run): Promise<CheckpointFiles> {
  const { config, weights } = await saveModel(run.model);
  return new Map([
    ["config.json", new TextEncoder().encode(config)],
    ["model.safetensors", weights],
    ["optimizer.safetensors", await tensorBytes(rememberedTensors(run))],
  ]);
}
