// Extracted from chapters/04-training/7-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import {
  type Batch,
  type BatchCursor,
  type Batches,
  batches,
  documentStarts,
  validationWindows,
} from "../data/batches.js";
import type { TokenSource, WeightedSource } from "../data/shards.js";
import { bitsPerByte } from "../data/synthetic.js";
import type { ModelConfig } from "../formats/config.js";
import { checkFits, readableBytes } from "../gpu/buffers.js";
import { GpuError } from "../gpu/device.js";
import { ignoredTarget } from "../kernels/cross-entropy.js";
import { balanceLoss } from "../model/balance.js";
import type { BlockContext } from "../model/block.js";
import { type Model, hiddenStates, outputWeight, parametersOf, sequenceContext } from "../model/decoder.js";
import { checkWeightsFit, countParameters, loadModel, saveModel } from "../model/weights.js";
import { gradients, isTracked, withoutGradients } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import { linearCrossEntropy } from "../tensor/cross-entropy.js";
import { type Precision, add, scale, withPrecision } from "../tensor/operations.js";
import { type Tensor, empty, indices, tensor } from "../tensor/tensor.js";
import {
  type Checkpoint,
  type CheckpointFiles,
  type RunState,
  savedArrays,
  tensorBytes,
} from "./checkpoint.js";
import {
  type Optimizer,
  type OptimizerSettings,
  accumulateInto,
  globalNorm,
  makeOptimizer,
  restoreState,
  stepNumbers,
} from "./optimizers.js";
import { scaledOptimizer, scaledSeed } from "./precision.js";
import { type Schedule, learningRate } from "./schedule.js";

//| 04-training/7-the-loop.ipynb#plan
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

//| 04-training/7-the-loop.ipynb#batch-tensors
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
  starts?.write(filledUp(batch.firstKey!, 0));
}

//| 04-training/7-the-loop.ipynb#step-result
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
  const loss = linearCrossEntropy(hidden, outputWeight(model), targets);
  const balance = routed.length > 0 && isTracked(loss) ? balanceLoss(routed) : undefined;
  return { loss, balance, load: routed.map((layer) => layer.load) };
}

/** The loss that is made small: the cross-entropy, and a little of the balance loss where there are experts. */
export function withBalance({ config }: Model, loss: Tensor, balance?: Tensor): Tensor {
  const coefficient = config.moe?.balanceCoefficient ?? 0;
  return balance && coefficient > 0 ? add(loss, scale(balance, coefficient)) : loss;
}

//| 04-training/7-the-loop.ipynb#training-step
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
  const parameters = [...parametersOf(model).values()];
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

//| 04-training/7-the-loop.ipynb#record-step
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

//| 04-training/7-the-loop.ipynb#evaluation
/** The model's loss on a batch, recorded once. */
export interface Evaluation {
  batch: BatchTensors;
  recording: Recording<Tensor>;
  /** The token that begins a document, if documents are kept apart. */
  separator?: number;
}

/** Records the loss of a model on batches of one size, without gradients. */
export function recordEvaluation(
  model: Model,
  rows: number,
  context: number,
  separator?: number,
): Evaluation {
  const batch = batchTensors(rows, context, separator !== undefined);
  const places = batchContext(model, batch);
  const loss = () => batchLoss(model, batch, places).loss;
  return { batch, recording: capture(() => withoutGradients(loss)), separator };
}

/** The mean loss in nats a token over up to `maxTokens` tokens, spread evenly over a source: the same windows each time. */
export async function evaluate(
  evaluation: Evaluation,
  source: TokenSource,
  maxTokens?: number,
): Promise<number> {
  const { batch, recording, separator } = evaluation;
  const [batchSize, context] = batch.inputs.shape;
  let [total, tokens] = [0, 0];
  for (const windows of validationWindows(source, { context, batchSize, maxTokens })) {
    const starts = separator === undefined ? undefined : documentStarts(windows, separator);
    writeBatch(batch, { ...windows, firstKey: starts });
    total += (await recording.run().value()) * windows.targets.length;
    tokens += windows.targets.length;
  }
  return total / tokens;
}

//| 04-training/7-the-loop.ipynb#fits
/** Bytes that training takes at the least: each weight, its gradient, and two numbers of the optimizer, all f32. */
export function trainingBytes(config: ModelConfig): number {
  return 16 * countParameters(config).total;
}

/** Numbers that the widest layer makes of one token. */
export function widestLayer({ hiddenSize, heads, headDim, intermediateSize, moe }: ModelConfig): number {
  const experts = moe ? moe.expertsPerToken * Math.max(moe.intermediateSize, hiddenSize) : 0;
  return Math.max(hiddenSize, heads * headDim, intermediateSize, experts);
}

/**
 * Throws one sentence when a run cannot fit, before anything large is made: when a weight or the widest activations of a batch
 * are too large for one array, or when all of it needs more than the `available` bytes (where that is known).
 */
export function checkRunFits(
  config: ModelConfig,
  { batchSize, context }: Pick<TrainingPlan, "batchSize" | "context">,
  available = Number.POSITIVE_INFINITY,
): void {
  checkWeightsFit(config);
  const width = widestLayer(config);
  checkFits(
    4 * batchSize * context * width,
    `A batch of ${batchSize} x ${context} tokens (${width} numbers each)`,
  );
  const needed = trainingBytes(config);
  if (needed <= available) return;
  const parameters = countParameters(config).total.toLocaleString("en");
  throw new GpuError(
    `Training ${parameters} parameters needs at least ${readableBytes(needed)} of memory, and this machine has ` +
      `${readableBytes(available)}: choose a smaller model.`,
  );
}

//| 04-training/7-the-loop.ipynb#run
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

//| 04-training/7-the-loop.ipynb#plan-optimizer
/** The optimizer of a plan, with a loss scale where products are computed in 16 bits. */
export function planOptimizer({ optimizer, precision }: TrainingPlan, model: Model): Optimizer {
  const plain = makeOptimizer(optimizer, parametersOf(model));
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

//| 04-training/7-the-loop.ipynb#start-run
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

//| 04-training/7-the-loop.ipynb#run-state
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

//| 04-training/7-the-loop.ipynb#pending
/** A step that the GPU has, and whose numbers are on their way. */
export interface PendingStep {
  step: number;
  learningRate: number;
  numbers: Promise<[Float32Array, Float32Array, Uint32Array[], Float32Array?]>;
}

/**
 * Hands the next step to the GPU and asks for its numbers, waiting for neither. The numbers are copied on the GPU before
 * the step after it overwrites them.
 */
export function nextStep(run: Run, withLoad = false): PendingStep {
  const { plan, recorded } = run;
  const rate = learningRate(plan.schedule, run.step);
  for (const part of recorded.parts) writeBatch(part, run.batches.next());
  recorded.numbers.write(stepNumbers(plan.optimizer, run.step, rate));
  const { loss, norm, load, scale } = recorded.recording.run();
  run.step += 1;
  const loads = Promise.all(withLoad ? load.map((each) => each.array()) : []);
  const numbers = Promise.all([loss.array(), norm.array(), loads, scale?.array()]);
  numbers.catch(() => {}); // whoever waits for them gets the error
  return { step: run.step, learningRate: rate, numbers };
}

//| 04-training/7-the-loop.ipynb#clock
/** Measures the rate of training. */
export interface StepClock {
  /** Called once a step: tokens a second, smoothed over some ten steps. */
  tick(): number;
  /** Leaves out the time that `work` takes. */
  without<T>(work: () => Promise<T>): Promise<T>;
}

/** A clock for steps of so many tokens. */
export function stepClock(tokens: number): StepClock {
  let began = performance.now();
  let mean = 0;
  let ticks = 0;
  return {
    tick() {
      const seconds = (performance.now() - began) / 1000;
      began += seconds * 1000;
      ticks += 1;
      mean = ticks <= 2 ? seconds : 0.9 * mean + 0.1 * seconds; // kernels are compiled during the first
      return tokens / Math.max(1e-9, mean);
    },
    async without(work) {
      const at = performance.now();
      const result = await work();
      began += performance.now() - at;
      return result;
    },
  };
}

//| 04-training/7-the-loop.ipynb#report
/** What is known about a step once its numbers have come back from the GPU. */
export interface StepReport {
  /** Steps done, this one included: the first is step 1. */
  step: number;
  /** Mean loss of the step's batch before its update, in nats a token. */
  loss: number;
  /** Norm of the whole gradient before clipping; no number when the step was left out. */
  norm: number;
  /** In 16 bits: the loss scale after this step, and whether the step changed nothing since its gradients were too large for them. */
  lossScale?: number;
  skipped?: boolean;
  learningRate: number;
  /** Tokens learned from since the run began, and the present rate. */
  tokens: number;
  tokensPerSecond: number;
  /** Validation after this step, where one was due: nats a token, bits a byte. */
  validation?: { loss: number; bitsPerByte: number };
  /** Tokens that went to each expert in this step (its last part), by layer, where it was asked for. */
  load?: Uint32Array[];
}

/** The error for a run whose numbers have left the real numbers, at a step. */
export class LostRun extends Error {
  /** What to go on with: half the learning rate. */
  readonly remedy: string;

  constructor(
    readonly step: number,
    what: string,
    { plan }: Pick<Run, "plan">,
  ) {
    const rate = Number((plan.schedule.peak / 2).toPrecision(3));
    const remedy = `--set optimizer.learning_rate=${rate}`;
    super(
      `${what} is no number any more at step ${step}: the model is lost. Go on from the last checkpoint with a lower ` +
        `learning rate (--resume ${remedy}) or a smaller optimizer.clip, or begin again with a ` +
        "longer schedule.warmup or with precision f32.",
    );
    this.remedy = remedy;
  }
}

/** Waits for a step's numbers and makes its report. Throws when they are no numbers. */
export async function reportOf(
  run: Run,
  { step, learningRate, numbers }: PendingStep,
  clock: StepClock,
): Promise<StepReport> {
  const [[loss], [norm], load, scale] = await numbers;
  const lossScale = scale?.[0];
  const skipped = !Number.isFinite(norm);
  if (!Number.isFinite(loss)) throw new LostRun(step, "The loss", run);
  if (skipped && !(lossScale && lossScale > 1)) throw new LostRun(step, "The norm of the gradient", run);
  const counts = { tokens: step * tokensPerStep(run.plan), tokensPerSecond: clock.tick() };
  const scaled = lossScale === undefined ? {} : { lossScale, skipped };
  return { step, loss, norm, ...scaled, learningRate, ...counts, ...(load.length > 0 ? { load } : {}) };
}

//| 04-training/7-the-loop.ipynb#options
/** When a run does what besides stepping, and who is told. Steps count from 1; 0 means never. */
export interface TrainOptions {
  validateEvery?: number;
  /** Tokens of a validation along the way, and of the one at the end (none: the whole split). */
  validationTokens?: number;
  finalTokens?: number;
  saveEvery?: number;
  /** Steps between two reports that say how the experts were used. */
  loadEvery?: number;
  /** Called for every step, in order; a little after the step itself, since nobody waits for the GPU. */
  onStep?: (report: StepReport) => void | Promise<void>;
  /** Called when a checkpoint is due, at the end, and when the run is stopped. All steps so far were reported. */
  onSave?: (run: Run) => void | Promise<void>;
  /** Steps between two calls of `onSample`, which may run the model but not change it; it is also called at the end. */
  sampleEvery?: number;
  onSample?: (run: Run) => void | Promise<void>;
  /** Stops the run after the step at hand. */
  signal?: AbortSignal;
}

/** Whether something that is done every so many steps is due after this one. */
export function isDue(step: number, every = 0): boolean {
  return every > 0 && step % every === 0;
}

/** Whether a checkpoint is due after this step. */
export function isSaved({ step, plan }: Run, { saveEvery }: TrainOptions): boolean {
  return step === plan.steps || isDue(step, saveEvery);
}

/** Whether the loop has more to do after this step than to go on. */
export function isPause(
  { step, plan }: Run,
  { validateEvery, saveEvery, sampleEvery }: TrainOptions,
): boolean {
  return step === plan.steps || [validateEvery, saveEvery, sampleEvery].some((every) => isDue(step, every));
}

//| 04-training/7-the-loop.ipynb#pause
/** The model's loss on the validation split, noted in the run. Throws if there is nothing to validate with. */
export async function validate(run: Run, maxTokens?: number): Promise<{ loss: number; bitsPerByte: number }> {
  const { evaluation, data, step } = run;
  if (!evaluation) throw new Error("This run has no text to validate with.");
  const loss = await evaluate(evaluation, data.val, maxTokens);
  if (!Number.isFinite(loss)) throw new LostRun(step, "The validation loss", run);
  run.last = { step, loss };
  if (!run.best || loss < run.best.loss) run.best = run.last;
  return { loss, bitsPerByte: bitsPerByte(loss, data.valSize) };
}

/**
 * What is due after a step: validation, the report, a sample, a checkpoint; all of them at the end. The checkpoint comes last:
 * who goes on from it does none of the others again, so all of them must be done.
 */
export async function pause(run: Run, options: TrainOptions, report: StepReport): Promise<StepReport> {
  const { step, plan } = run;
  const atEnd = step === plan.steps;
  const validates = run.evaluation && (atEnd || isDue(step, options.validateEvery));
  const tokens = atEnd ? options.finalTokens : options.validationTokens;
  const complete = validates ? { ...report, validation: await validate(run, tokens) } : report;
  await options.onStep?.(complete);
  if (atEnd || isDue(step, options.sampleEvery)) await options.onSample?.(run);
  if (isSaved(run, options)) await options.onSave?.(run);
  return complete;
}

//| 04-training/7-the-loop.ipynb#train
/** Steps that may be on their way at one time: the GPU always has the next one, and memory of old numbers stays small. */
export const stepsInFlight = 2;

/**
 * Trains until the plan's last step, or until the signal says stop. Returns the last report, none if there was no step left.
 * Throws when the loss is no number any more; the last checkpoint is then from before.
 */
export async function train(run: Run, options: TrainOptions = {}): Promise<StepReport | undefined> {
  const waiting: PendingStep[] = [];
  const clock = stepClock(tokensPerStep(run.plan));
  let latest: StepReport | undefined;
  const reportDownTo = async (left: number) => {
    for (; waiting.length > left; await options.onStep?.(latest))
      latest = await reportOf(run, waiting.shift()!, clock);
  };
  let saved = run.step;
  while (run.step < run.plan.steps && !options.signal?.aborted) {
    waiting.push(nextStep(run, isDue(run.step + 1, options.loadEvery)));
    await reportDownTo(stepsInFlight);
    if (!isPause(run, options)) continue;
    await reportDownTo(1);
    const last = await reportOf(run, waiting.shift()!, clock);
    latest = await clock.without(() => pause(run, options, last));
    if (isSaved(run, options)) saved = run.step;
  }
  await reportDownTo(0);
  if (saved < run.step) await options.onSave?.(run);
  return latest;
}
