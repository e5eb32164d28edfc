// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { bitsPerByte } from "../data/synthetic.js";
import { evaluate } from "./evaluate.js";
import { stepNumbers } from "./optimizers.js";
import { type Run, tokensPerStep } from "./run.js";
import { learningRate } from "./schedule.js";
import { writeBatch } from "./step.js";

//| 04-training/8-the-loop.ipynb#pending
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

//| 04-training/8-the-loop.ipynb#clock
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

//| 04-training/8-the-loop.ipynb#report
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

//| 04-training/8-the-loop.ipynb#options
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

//| 04-training/8-the-loop.ipynb#pause
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

//| 04-training/8-the-loop.ipynb#train
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
