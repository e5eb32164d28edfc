// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import type { Batch } from "../data/batches.js";
import type { TokenSource, WeightedSource } from "../data/shards.js";
import { ignoredTarget } from "../kernels/cross-entropy.js";
import { addLoads, balanceLoss, expertLayers, routerZLoss, updateChoiceBiases } from "../model/balance.js";
import { hiddenStates, sequenceContext } from "../model/decoder.js";
import { parametersOf } from "../model/families.js";
import type { MoeResult } from "../model/moe.js";
import type { BlockContext, Model } from "../model/structure.js";
import { gradients } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { linearCrossEntropy } from "../tensor/cross-entropy.js";
import type { Dropout } from "../tensor/dropout.js";
import { add, scale } from "../tensor/operations.js";
import { type Precision, withPrecision } from "../tensor/precision.js";
import { type Tensor, empty, indices, tensor } from "../tensor/tensor.js";
import { type Optimizer, type OptimizerSettings, accumulateInto, globalNorm } from "./optimizers.js";
import { adjustLossScale, scaledSeed } from "./precision.js";
import type { Schedule } from "./schedule.js";

//| 04-training/8-the-loop.ipynb#plan
/** How routers are kept in balance, beside the balance loss that a model's configuration weighs. */
export interface RouterTraining {
  /** How far a step moves the choice biases of a model that has some; 0 for not at all. */
  biasRate: number;
  /** The weight of the router's z-loss. */
  zLoss: number;
}

/** DeepSeek-V3's rate for biases, and no z-loss. */
export const defaultRouterTraining: RouterTraining = { biasRate: 0.001, zLoss: 0 };

/** What a run computes, apart from model and data. */
export interface TrainingSettings {
  steps: number;
  batchSize: number;
  /** Batches whose gradients are added up for one step. */
  accumulate: number;
  context: number;
  seed: number;
  optimizer: OptimizerSettings;
  schedule: Schedule;
  /** A bias rate of 0.001 and no z-loss unless told. */
  router?: RouterTraining;
  /** Of the products in training, f32 unless told. Weights and all else keep 32 bits. */
  precision?: Precision;
  /** In 16 bits, what the loss is multiplied by at first: 65,536 unless told, 0 for a loss that is not scaled. */
  lossScale?: number;
  /** The probability that a number which a block adds to the residual stream is left out in training; 0 unless told. */
  dropout?: number;
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
  firstKey?: Tensor<"u32">;
}

//| 04-training/8-the-loop.ipynb#batch-tensors-helpers
/** Empty tensors [batchSize, context] for batches of one size. */
export function batchTensors(batchSize: number, context: number, withStarts = false): BatchTensors {
  const ids = () => empty([batchSize, context], "u32");
  return { inputs: ids(), targets: ids(), ...(withStarts ? { firstKey: ids() } : {}) };
}

/** Writes a batch into GPU memory. One with fewer rows than the tensors have is filled up with targets that do not count. */
export function writeBatch({ inputs, targets, firstKey }: BatchTensors, batch: Batch): void {
  const filledUp = (values: Uint32Array, filler: number) => {
    if (values.length === inputs.size) return values;
    const all = new Uint32Array(inputs.size).fill(filler);
    all.set(values);
    return all;
  };
  inputs.write(filledUp(batch.inputs, 0));
  targets.write(filledUp(batch.targets, ignoredTarget));
  firstKey?.write(filledUp(batch.firstKey!, 0));
}

//| 04-training/8-the-loop.ipynb#step-result
/** The loss of a batch in nats a token [1], and what happened in each layer with experts. */
export function batchLoss(model: Model, { inputs, targets, firstKey }: BatchTensors, context: BlockContext) {
  const { hidden, routed } = hiddenStates(model, inputs, { ...context, firstKey });
  const { head, logitSoftcap } = model;
  return { loss: linearCrossEntropy(hidden, head.weight, targets, undefined, logitSoftcap), routed };
}

/** The loss that is made small [1]: the cross-entropy and, where there are experts, a little of the balance loss and of the z-loss. */
export function withRouterLosses({ config }: Model, loss: Tensor, routed: MoeResult[], zLoss = 0): Tensor {
  const coefficient = config.moe?.balanceCoefficient ?? 0;
  let sum = loss;
  if (routed.length > 0 && coefficient > 0) sum = add(sum, scale(balanceLoss(routed), coefficient));
  if (zLoss > 0)
    for (const { routing } of routed)
      sum = add(sum, scale(routerZLoss(routing.logits), zLoss / routed.length));
  return sum;
}

//| 04-training/8-the-loop.ipynb#backward-parts
/** What forward and backward leave behind: the mean loss [1], tokens per expert by layer, a gradient for each parameter. */
export interface BackwardResult {
  loss: Tensor;
  load: Tensor<"u32">[];
  /** In the order of the parameters, and of their shapes. They carry the loss scale, where there is one. */
  gradients: Tensor[];
}

//| 04-training/8-the-loop.ipynb#backward
/** What a step works with: how it computes is said here and nowhere else. */
export interface StepParts {
  model: Model;
  optimizer: Optimizer;
  context: BlockContext;
  /** The batches of the step. Each counts 1 / their number, so that several small ones learn what one large one would. */
  microBatches: BatchTensors[];
  /** Of the products, f32 unless told. */
  precision?: Precision;
  /** The weight of the router's z-loss, and how far the step moves choice biases [1]; neither unless given. */
  zLoss?: number;
  biasRate?: Tensor;
  /** What is left out at random; its state is written before each step. */
  dropout?: Dropout;
  /** What the loss is multiplied by before the way back, if it is: see `makeLossScale`. */
  lossScale?: Tensor;
}

//| 04-training/8-the-loop.ipynb#backward-half
/** The context of a step's microbatch: with dropout, each of them leaves out numbers of its own. */
export function microContext({ model, context, dropout }: StepParts, microBatch: number): BlockContext {
  if (!dropout) return context;
  return { ...context, dropout: { ...dropout, place: dropout.place + 2 * model.blocks.length * microBatch } };
}

/** The first half of a step: loss and gradients, added up over the microbatches. */
export function backward(parts: StepParts): BackwardResult {
  const { model, microBatches, precision = "f32", lossScale, zLoss } = parts;
  const parameters = parametersOf(model).map(({ value }) => value);
  const lossWeight = 1 / microBatches.length;
  let sum: BackwardResult | undefined;
  for (const [i, batch] of microBatches.entries()) {
    const context = microContext(parts, i);
    const { loss, routed } = withPrecision(precision, () => batchLoss(model, batch, context));
    const seed = lossScale ? scaledSeed(lossScale, lossWeight) : lossWeight;
    const added = gradients(withRouterLosses(model, loss, routed, zLoss), parameters, seed);
    const part = { loss: scale(loss, lossWeight), load: routed.map(({ load }) => load) };
    if (sum) accumulateInto(sum.gradients, added);
    sum = sum
      ? { ...sum, loss: add(sum.loss, part.loss), load: addLoads(sum.load, part.load) }
      : { ...part, gradients: added };
  }
  return sum!;
}

//| 04-training/8-the-loop.ipynb#training-step
/**
 * What a step leaves behind to be looked at: the loss [1], the norm of the gradient [1], tokens per expert by layer, and where the loss is scaled the scale [3].
 */
export interface StepResult {
  loss: Tensor;
  norm: Tensor;
  load: Tensor<"u32">[];
  scale?: Tensor;
}

/** The second half of a step: the gradients are clipped and applied, group by group, and choice biases moved by the load. */
export function update(
  { model, optimizer, lossScale, biasRate }: StepParts,
  { loss, load, gradients }: BackwardResult,
): StepResult {
  const norm = globalNorm(gradients, lossScale);
  optimizer.update(gradients, norm, lossScale);
  if (biasRate) updateChoiceBiases(model, load, biasRate);
  if (!lossScale) return { loss, norm, load };
  adjustLossScale(lossScale, norm);
  return { loss, norm, load, scale: lossScale };
}

/** One step of training, both halves. */
export function trainingStep(parts: StepParts): StepResult {
  return update(parts, backward(parts));
}

//| 04-training/8-the-loop.ipynb#record-step
/**
 * What is done with gradients between backward and update: averaged over machines, compressed, looked at. It changes them in
 * place, by name, with operations on the GPU or from JavaScript; the update waits for it. They are those of the whole batch,
 * not clipped yet, and where the loss is scaled they carry its scale.
 */
export type GradientHook = (gradients: Map<string, Tensor>) => void | Promise<void>;

/** The step of a run, recorded. What changes from step to step is written into its tensors and set in its optimizer. */
export interface RecordedStep extends Omit<Recording<StepResult>, "run"> {
  microBatches: BatchTensors[];
  /** Where the settings want it: its state is to be written before each step. */
  dropout?: Dropout;
  run(): StepResult | Promise<StepResult>;
}

//| 04-training/8-the-loop.ipynb#record-step-helpers
/** A step in two recordings with a hook between them. */
export function recordHooked(
  parts: StepParts,
  hook: GradientHook,
): Omit<RecordedStep, "microBatches" | "dropout"> {
  let result: BackwardResult | undefined;
  const first = capture(() => (result = backward(parts)));
  const { gradients } = result!;
  const second = capture(() => update(parts, result!));
  const byName = new Map(parametersOf(parts.model).map(({ name }, i) => [name, gradients[i]]));
  return {
    async run() {
      first.run();
      await hook(byName);
      return second.run();
    },
    dispatches: first.dispatches + second.dispatches,
    plannedBytes: first.plannedBytes + second.plannedBytes,
    unplannedBytes: first.unplannedBytes + second.unplannedBytes,
    newKernels: first.newKernels + second.newKernels,
    free: () => [first, second].forEach((recording) => recording.free()),
  };
}

//| 04-training/8-the-loop.ipynb#record-step-2-parts
/** Positions and angles for batches of a size; the positions are those of each sequence where documents are kept apart. */
export function batchContext({ config }: Model, { inputs, firstKey }: BatchTensors): BlockContext {
  const [batchSize, length] = inputs.shape;
  const context = sequenceContext(config, length);
  if (!firstKey) return context;
  const positions = Uint32Array.from({ length: batchSize * length }, (_, i) => i % length);
  return { ...context, positions: indices(positions, [batchSize, length]) };
}

/** Dropout at a rate, its state still to be written; none at a rate of 0. */
export function stepDropout(rate = 0): Dropout | undefined {
  return rate > 0 ? { rate, state: empty([3], "u32"), place: 0 } : undefined;
}

//| 04-training/8-the-loop.ipynb#record-step-2
/** Records a step of the settings: as one recording, or with a hook as two. */
export function recordStep(
  trained: Pick<StepParts, "model" | "optimizer" | "lossScale">,
  settings: Pick<
    TrainingSettings,
    "batchSize" | "accumulate" | "context" | "separator" | "precision" | "router" | "dropout"
  >,
  hook?: GradientHook,
): RecordedStep {
  const { batchSize, accumulate, separator, precision } = settings;
  const microBatches = Array.from({ length: accumulate }, () =>
    batchTensors(batchSize, settings.context, separator !== undefined),
  );
  const context = batchContext(trained.model, microBatches[0]);
  const router = settings.router ?? defaultRouterTraining;
  const isMoved = router.biasRate > 0 && expertLayers(trained.model).some(({ choiceBias }) => choiceBias);
  const biasRate = isMoved ? tensor([router.biasRate]) : undefined;
  const dropout = stepDropout(settings.dropout);
  const parts = { ...trained, context, microBatches, precision, zLoss: router.zLoss, biasRate, dropout };
  const recording = hook ? recordHooked(parts, hook) : capture(() => trainingStep(parts));
  return { microBatches, dropout, ...recording };
}
