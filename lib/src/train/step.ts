// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import type { Batch } from "../data/batches.js";
import type { TokenSource, WeightedSource } from "../data/shards.js";
import { ignoredTarget } from "../kernels/cross-entropy.js";
import { balanceLoss } from "../model/balance.js";
import type { BlockContext } from "../model/block.js";
import { hiddenStates, sequenceContext } from "../model/decoder.js";
import { parametersByName } from "../model/families.js";
import type { Model } from "../model/structure.js";
import { gradients, isTracked } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { linearCrossEntropy } from "../tensor/cross-entropy.js";
import { add, scale } from "../tensor/operations.js";
import { type Precision, withPrecision } from "../tensor/precision.js";
import { type Tensor, empty, indices, tensor } from "../tensor/tensor.js";
import {
  type Optimizer,
  type OptimizerSettings,
  accumulateInto,
  globalNorm,
  stepNumbers,
} from "./optimizers.js";
import { scaledSeed } from "./precision.js";
import type { Schedule } from "./schedule.js";

//| 04-training/8-the-loop.ipynb#plan
/** What a run computes, apart from model and data. */
export interface TrainingPlan {
  steps: number;
  batchSize: number;
  /** Batches whose gradients are added up for one step. */
  accumulate: number;
  context: number;
  seed: number;
  optimizer: OptimizerSettings;
  schedule: Schedule;
  /** Of the products in training, f32 unless told. In 16 bits, the loss is scaled; weights and all else keep 32. */
  precision?: Precision;
  /** The token that begins a document, if no token is to see another document than its own. */
  separator?: number;
}

/**
 * Tokens to learn from (of one source, or of several by weight) and tokens to judge by; a run whose `val` is too short for one
 * window does without validation. `valSize` makes bits per byte of a loss per token.
 */
export interface TrainingData {
  train: TokenSource | WeightedSource[];
  val: TokenSource;
  valSize: { tokens: number; bytes: number };
}

//| 04-training/8-the-loop.ipynb#batch-tensors
/**
 * Token ids in GPU memory, that each step's batch is written into, and where each token's document begins, if that is to be
 * heeded: all [batch, context].
 */
export interface BatchTensors {
  inputs: Tensor<"u32">;
  targets: Tensor<"u32">;
  starts?: Tensor<"u32">;
}

/** Room for batches of one size. */
export function batchTensors(rows: number, context: number, withStarts = false): BatchTensors {
  const room = () => empty([rows, context], "u32");
  return { inputs: room(), targets: room(), ...(withStarts ? { starts: room() } : {}) };
}

/** Writes a batch into GPU memory. One with fewer rows than there is room for is filled up with targets that do not count. */
export function writeBatch({ inputs, targets, starts }: BatchTensors, batch: Batch): void {
  const filledUp = (values: Uint32Array, filler: number) => {
    if (values.length === inputs.size) return values;
    const all = new Uint32Array(inputs.size).fill(filler);
    all.set(values);
    return all;
  };
  inputs.write(filledUp(batch.inputs, 0));
  targets.write(filledUp(batch.targets, ignoredTarget));
  starts?.write(filledUp(batch.starts!, 0));
}

//| 04-training/8-the-loop.ipynb#step-result
/**
 * What a step leaves behind to be looked at: the loss [1], the norm of the gradient [1], tokens per expert by layer, and in 16
 * bits the loss scale.
 */
export interface StepResult {
  loss: Tensor;
  norm: Tensor;
  load: Tensor<"u32">[];
  scale?: Tensor;
}

/**
 * The loss of a batch in nats a token [1] and what else its forward pass gives: the balance loss, where there are experts and
 * gradients are wanted, and the tokens that each expert received.
 */
export function batchLoss(model: Model, { inputs, targets, starts }: BatchTensors, context: BlockContext) {
  const { hidden, routed } = hiddenStates(model, inputs, { ...context, starts });
  const loss = linearCrossEntropy(hidden, model.head.weight, targets);
  const balance = routed.length > 0 && isTracked(loss) ? balanceLoss(routed) : undefined;
  return { loss, balance, load: routed.map((layer) => layer.load) };
}

/** The loss that is made small: the cross-entropy, and a little of the balance loss where there are experts. */
export function withBalance({ config }: Model, loss: Tensor, balance?: Tensor): Tensor {
  const coefficient = config.moe?.balanceCoefficient ?? 0;
  return balance && coefficient > 0 ? add(loss, scale(balance, coefficient)) : loss;
}

//| 04-training/8-the-loop.ipynb#training-step
/**
 * One step of training: forward, loss, gradients (added up over the parts), clipping, update. The gradient of each part
 * counts 1 / parts, so that several small batches learn what one large one would. With an optimizer that keeps a loss scale,
 * products are computed in 16 bits.
 */
export function trainingStep(
  model: Model,
  context: BlockContext,
  optimizer: Optimizer & { lossScale?: Tensor },
  parts: BatchTensors[],
  numbers: Tensor,
): StepResult {
  const { lossScale } = optimizer;
  const parameters = [...parametersByName(model).values()];
  const share = 1 / parts.length;
  let sums: Tensor[] | undefined;
  let mean: Tensor | undefined;
  let load: Tensor<"u32">[] = [];
  for (const batch of parts) {
    const output = withPrecision(lossScale ? "f16" : "f32", () => batchLoss(model, batch, context));
    const whole = withBalance(model, output.loss, output.balance);
    const slopes = gradients(whole, parameters, lossScale ? scaledSeed(lossScale, share) : share);
    if (sums) accumulateInto(sums, slopes);
    sums ??= slopes;
    const part = scale(output.loss, share);
    mean = mean ? add(mean, part) : part;
    load = output.load;
  }
  const norm = globalNorm(sums!, lossScale);
  optimizer.update(sums!, numbers, norm);
  return { loss: mean!, norm, load, ...(lossScale ? { scale: lossScale } : {}) };
}

//| 04-training/8-the-loop.ipynb#record-step
/** The step of a run, recorded once. What changes from step to step is written into its tensors. */
export interface RecordedStep {
  parts: BatchTensors[];
  numbers: Tensor;
  recording: Recording<StepResult>;
}

/** Positions and angles for batches of a size; the positions are those of each sequence where documents are kept apart. */
export function batchContext({ config }: Model, { inputs, starts }: BatchTensors): BlockContext {
  const [rows, length] = inputs.shape;
  const context = sequenceContext(config, length);
  if (!starts) return context;
  const places = Uint32Array.from({ length: rows * length }, (_, i) => i % length);
  return { ...context, positions: indices(places, [rows, length]) };
}

/** Records the step of a plan. */
export function recordStep(model: Model, optimizer: Optimizer, plan: TrainingPlan): RecordedStep {
  const { batchSize, separator } = plan;
  const room = () => batchTensors(batchSize, plan.context, separator !== undefined);
  const parts = Array.from({ length: plan.accumulate }, room);
  const numbers = tensor(stepNumbers(plan.optimizer, 0, 0));
  const context = batchContext(model, parts[0]);
  return {
    parts,
    numbers,
    recording: capture(() => trainingStep(model, context, optimizer, parts, numbers)),
  };
}
