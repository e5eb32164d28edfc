// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { bitsPerByte } from "../data/bits-per-byte.js";
import { dropoutState } from "../tensor/dropout.js";
import { evaluate } from "./evaluate.js";
import { type Run, tokensPerStep } from "./run.js";
import { learningRate } from "./schedule.js";
import { type TrainingSettings, writeBatch } from "./step.js";

//| 04-training/8-the-loop.ipynb#pending
/** A step that the GPU has, and whose results are on their way. */
export interface PendingStep {
  step: number;
  learningRate: number;
  results: Promise<{ loss: number; norm: number; load: Uint32Array[]; lossScale?: number }>;
}

/**
 * Hands the next step to the GPU and asks for its results, waiting for neither (only a hook is waited for). The results are
 * copied on the GPU before the step after it overwrites them.
 */
export async function takeStep(run: Run, withLoad = false): Promise<PendingStep> {
  const { settings, recorded, optimizer } = run;
  const rate = learningRate(settings.schedule, run.step);
  for (const batch of recorded.microBatches) writeBatch(batch, run.batches.next());
  optimizer.setStep(run.step, rate);
  recorded.dropout?.state.write(dropoutState(settings.seed, run.step));
  const running = recorded.run();
  const { loss, norm, load, scale } = running instanceof Promise ? await running : running;
  run.step += 1;
  const loads = withLoad ? load.map((counts) => counts.array()) : [];
  const results = Promise.all([loss.value(), norm.value(), Promise.all(loads), scale?.array()]).then(
    ([loss, norm, load, factors]) => ({ loss, norm, load, ...(factors ? { lossScale: factors[0] } : {}) }),
  );
  results.catch(() => {}); // whoever waits for them gets the error
  return { step: run.step, learningRate: rate, results };
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
  /** Tokens that went to each expert in this step, by layer, where it was asked for. */
  load?: Uint32Array[];
}

//| 04-training/8-the-loop.ipynb#lost-run
/** The error for a run whose numbers have left the real numbers, at a step. */
export class LostRun extends Error {
  /** What to go on with: half the learning rate. */
  readonly remedy: string;

  constructor(
    readonly step: number,
    what: string,
    { schedule }: TrainingSettings,
  ) {
    const rate = Number((schedule.peak / 2).toPrecision(3));
    const remedy = `--set optimizer.learning_rate=${rate}`;
    super(
      `${what} is no number any more at step ${step}: the model is lost. Go on from the last checkpoint with a lower ` +
        `learning rate (--resume ${remedy}) or a smaller optimizer.clip, or begin again with a ` +
        "longer schedule.warmup or with precision f32.",
    );
    this.remedy = remedy;
  }
}

//| 04-training/8-the-loop.ipynb#report-of
/** Waits for a step's results and makes its report. Throws when they are no numbers. */
export async function reportOf(
  { settings }: Run,
  { step, learningRate, results }: PendingStep,
  clock: StepClock,
): Promise<StepReport> {
  const { loss, norm, load, lossScale } = await results;
  const skipped = !Number.isFinite(norm);
  if (!Number.isFinite(loss)) throw new LostRun(step, "The loss", settings);
  if (skipped && !(lossScale && lossScale > 1)) throw new LostRun(step, "The norm of the gradient", settings);
  const counts = { tokens: step * tokensPerStep(settings), tokensPerSecond: clock.tick() };
  const scaled = lossScale === undefined ? {} : { lossScale, skipped };
  return { step, loss, norm, ...scaled, learningRate, ...counts, ...(load.length > 0 ? { load } : {}) };
}

//| 04-training/8-the-loop.ipynb#options-parts
/** Whether something that is done every so many steps is due after this one. */
export function isDue(step: number, every = 0): boolean {
  return every > 0 && step % every === 0;
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

//| 04-training/8-the-loop.ipynb#options-helpers
/** What is due after the step that a run is at; all of it after the last one. */
export function dueAfter(
  { step, settings, evaluation }: Run,
  { validateEvery, sampleEvery, saveEvery }: TrainOptions,
): { validates: boolean; samples: boolean; saves: boolean } {
  const isLast = step === settings.steps;
  return {
    validates: evaluation !== undefined && (isLast || isDue(step, validateEvery)),
    samples: isLast || isDue(step, sampleEvery),
    saves: isLast || isDue(step, saveEvery),
  };
}

//| 04-training/8-the-loop.ipynb#pause
/** The model's loss on the validation split, noted in the run. Throws if there is nothing to validate with. */
export async function validate(run: Run, maxTokens?: number): Promise<{ loss: number; bitsPerByte: number }> {
  const { evaluation, data, step } = run;
  if (!evaluation) throw new Error("This run has no text to validate with.");
  const loss = await evaluate(evaluation, data.val, maxTokens);
  if (!Number.isFinite(loss)) throw new LostRun(step, "The validation loss", run.settings);
  run.last = { step, loss };
  if (!run.best || loss < run.best.loss) run.best = run.last;
  return { loss, bitsPerByte: bitsPerByte(loss, data.valSize) };
}

//| 04-training/8-the-loop.ipynb#train-parts
/** Steps that may be on their way at one time: the GPU always has the next one, and memory of old results stays small. */
export const stepsInFlight = 2;

//| 04-training/8-the-loop.ipynb#train
/**
 * Trains until the last step, or until the signal says stop. Returns the last report, none if there was no step left.
 * Throws when the loss is no number any more; the last checkpoint is then from before.
 */
export async function train(run: Run, options: TrainOptions = {}): Promise<StepReport | undefined> {
  const { signal, loadEvery, validationTokens, finalTokens, onStep, onSample, onSave } = options;
  const { steps } = run.settings;
  const clock = stepClock(tokensPerStep(run.settings));
  const inFlight: PendingStep[] = [];
  let latest: StepReport | undefined;
  const report = async (left: number, validates = false) => {
    while (inFlight.length > left) {
      latest = await reportOf(run, inFlight.shift()!, clock);
      if (validates && inFlight.length === 0) {
        const tokens = run.step === steps ? finalTokens : validationTokens;
        latest.validation = await clock.without(() => validate(run, tokens));
      }
      await onStep?.(latest);
    }
  };
  let saved = run.step;
  while (run.step < steps && !signal?.aborted) {
    inFlight.push(await takeStep(run, isDue(run.step + 1, loadEvery)));
    const { validates, samples, saves } = dueAfter(run, options);
    await report(validates || samples || saves ? 0 : stepsInFlight, validates);
    if (samples) await clock.without(async () => onSample?.(run));
    if (!saves) continue;
    await clock.without(async () => onSave?.(run));
    saved = run.step;
  }
  await report(0);
  if (saved < run.step) await onSave?.(run);
  return latest;
}
