// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { type BatchCursor, type Batches, batches } from "../data/batches.js";
import type { TokenSource } from "../data/shards.js";
import { parametersByName } from "../model/families.js";
import type { Model } from "../model/structure.js";
import { loadModel, saveModel } from "../model/weights.js";
import {
  type Checkpoint,
  type CheckpointFiles,
  type RunState,
  savedArrays,
  tensorBytes,
} from "./checkpoint.js";
import { type Evaluation, recordEvaluation } from "./evaluate.js";
import { makeOptimizer } from "./muon.js";
import { type Optimizer, restoreState } from "./optimizers.js";
import { scaledOptimizer } from "./precision.js";
import { type RecordedStep, type TrainingData, type TrainingPlan, recordStep } from "./step.js";

//| 04-training/8-the-loop.ipynb#run
/** A run in memory: all that the next step needs. */
export interface Run {
  plan: TrainingPlan;
  data: TrainingData;
  model: Model;
  optimizer: Optimizer;
  batches: Batches;
  recorded: RecordedStep;
  /** None where there is nothing to validate with. */
  evaluation?: Evaluation;
  /** Steps handed to the GPU. */
  step: number;
  best?: { step: number; loss: number };
  last?: { step: number; loss: number };
}

//| 04-training/8-the-loop.ipynb#plan-optimizer
/** The optimizer of a plan, with a loss scale where products are computed in 16 bits. */
export function planOptimizer({ optimizer, precision }: TrainingPlan, model: Model): Optimizer {
  const plain = makeOptimizer(optimizer, parametersByName(model));
  return precision === "f16" ? scaledOptimizer(plain) : plain;
}

/** The evaluation of a plan; none if the validation text is too short for one window. */
export function planEvaluation(plan: TrainingPlan, model: Model, val: TokenSource): Evaluation | undefined {
  if (val.length <= plan.context) return undefined;
  return recordEvaluation(model, plan.batchSize, plan.context, plan.separator);
}

/** Records a run's step and its evaluation anew, as when a tuner has found better kernels for them. */
export function recordAgain(run: Run): void {
  const { model, plan, optimizer, data } = run;
  run.recorded.recording.free();
  run.evaluation?.recording.free();
  run.recorded = recordStep(model, optimizer, plan);
  run.evaluation = planEvaluation(plan, model, data.val);
}

//| 04-training/8-the-loop.ipynb#start-run
/** Begins a run with a model, or takes it up again from the state and the optimizer's memory of a checkpoint. */
export function startRun(model: Model, plan: TrainingPlan, data: TrainingData, checkpoint?: Checkpoint): Run {
  const optimizer = planOptimizer(plan, model);
  const state = checkpoint?.state;
  if (checkpoint) restoreState(optimizer, savedArrays(checkpoint.files.get("optimizer.safetensors")!));
  const { batchSize, context, seed, separator } = plan;
  return {
    plan,
    data,
    model,
    optimizer,
    batches: batches(data.train, { batchSize, context, seed, separator }, state?.cursor),
    recorded: recordStep(model, optimizer, plan),
    evaluation: planEvaluation(plan, model, data.val),
    step: state?.step ?? 0,
    best: state?.best,
    last: state?.last,
  };
}

/** The model in a checkpoint. */
export function checkpointModel({ files }: Checkpoint): Model {
  const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
  return loadModel(config, files.get("model.safetensors")!);
}

//| 04-training/8-the-loop.ipynb#run-state
/** Tokens that one step learns from. */
export function tokensPerStep({ batchSize, accumulate, context }: TrainingPlan): number {
  return batchSize * accumulate * context;
}

/** Where a run stands, for a checkpoint. */
export function runState({ step, plan, batches, best, last }: Run): RunState {
  const cursor: BatchCursor = batches.cursor();
  const known = { step, tokens: step * tokensPerStep(plan), seed: plan.seed, cursor };
  return { ...known, ...(best ? { best } : {}), ...(last ? { last } : {}) };
}

/** The files of a checkpoint: the model as others read it, and what the optimizer remembers. */
export async function runFiles({ model, optimizer }: Run): Promise<CheckpointFiles> {
  const { config, weights } = await saveModel(model);
  return new Map([
    ["config.json", new TextEncoder().encode(config)],
    ["model.safetensors", weights],
    ["optimizer.safetensors", await tensorBytes(optimizer.state())],
  ]);
}
