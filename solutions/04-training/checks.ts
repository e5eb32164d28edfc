// The checks of chapter 4's exercises.
import {
  crossEntropy,
  defaultOptimizer,
  gradients,
  indices,
  learningRate,
  makeOptimizer,
  openGpu,
  parameter,
  restoreState,
  type Schedule,
  scope,
  type Tensor,
  tensor,
  toFloat32,
  tokenLosses,
} from "tslm";
import { type Check, type KernelResult, type Random, type RowKind, runBody, scoreRow } from "tslm/notebook";

const STEPS = "04-training/1-surprise-and-steps";
const KERNELS = "04-training/2-the-loss-on-the-gpu";
const BITS = "04-training/3-fewer-bits";

/** What the library makes of some numbers: opens the GPU, reads the result back, frees everything else. */
async function fromLibrary(work: () => Tensor): Promise<Float32Array> {
  await openGpu();
  const result = scope(work);
  const values = await result.array();
  result.free();
  return values;
}

export const predictLoss: Check<[]> = {
  exercise: STEPS,
  id: "predict-loss",
  title: "Predict a loss, a gradient and a conversion",
  hints: [
    "Equal logits give each of the 1,024 tokens the same probability. The loss is −ln of it.",
    "The gradient is the bet minus what came: four bets of a quarter, and a 1 at the third token.",
    "2 ln 2 nats are 2 bits. They are spread over the 4 bytes of a token.",
  ],
  expected: () => ({ firstLoss: Math.log(1024), gradient: [0.25, 0.25, -0.75, 0.25], perByte: 0.5 }),
  mistakes: [
    {
      says: "10 is the loss in bits. In nats it is ln 1024.",
      makes: () => ({ firstLoss: 10, gradient: [0.25, 0.25, -0.75, 0.25], perByte: 0.5 }),
    },
    {
      says: "The gradient has its sign turned round. The loss rises with every wrong logit and falls with the right one.",
      makes: () => ({ firstLoss: Math.log(1024), gradient: [-0.25, -0.25, 0.75, -0.25], perByte: 0.5 }),
    },
    {
      says: "The right token has a gradient too: its bet of a quarter, minus 1.",
      makes: () => ({ firstLoss: Math.log(1024), gradient: [0.25, 0.25, -1, 0.25], perByte: 0.5 }),
    },
    {
      says: "2 bits are the loss of a token. A token is 4 bytes here, so a byte has a quarter of that.",
      makes: () => ({ firstLoss: Math.log(1024), gradient: [0.25, 0.25, -0.75, 0.25], perByte: 2 }),
    },
  ],
};

type Row = [logits: Float32Array, target: number];

/** Logits and a target; from the fourth on rows lie far from zero, where the naive formula overflows, or reach far. */
function drawRow(random: Random, round: number): Row {
  const columns = round === 0 ? 1 : random.integer(2, 12);
  const kind: RowKind = round < 4 ? "near" : (["wide", "high", "low", "near"] as const)[round % 4];
  return [Float32Array.from(scoreRow(random, columns, 800, kind)), random.integer(0, columns - 1)];
}

const largestOf = (values: Float32Array) => values.reduce((a, b) => Math.max(a, b));

/** ln Σ exp(x − shift). */
const logSumBeyond = (logits: Float32Array, shift: number) =>
  Math.log(logits.reduce((sum, x) => sum + Math.exp(x - shift), 0));

export const writeLoss: Check<Row> = {
  exercise: STEPS,
  id: "write-loss",
  title: "Write the loss of a row",
  names: ["logits", "target"],
  tolerance: 1e-4,
  hints: [
    "The loss is ln Σ exp(x) − x[target]. Write that first and run the check.",
    "Some rows lie around 800, and exp(800) is Infinity. Take the largest logit away from every logit before exp.",
    "What you took away comes back outside: `largest + Math.log(sum) - logits[target]`.",
  ],
  inputs: drawRow,
  expected: async (logits, target) =>
    (await fromLibrary(() => tokenLosses(tensor(logits, [1, logits.length]), indices([target]))))[0],
  mistakes: [
    {
      says: "Rows near zero are right. In rows with large logits exp overflows, and with very small ones the sum is 0: take the largest logit away first.",
      makes: (logits, target) => logSumBeyond(logits, 0) - logits[target],
    },
    {
      says: "You took the first logit away. Where the largest lies far above it, exp overflows all the same: take the largest away.",
      makes: (logits, target) => logits[0] + logSumBeyond(logits, logits[0]) - logits[target],
    },
    {
      says: "The largest logit is not at least 0: where all lie around −800, every exp becomes 0. Start from the first logit, or from −Infinity.",
      makes: (logits, target) => {
        const largest = Math.max(0, largestOf(logits));
        return largest + logSumBeyond(logits, largest) - logits[target];
      },
    },
    {
      says: "You took the largest logit away and did not give it back: add it to the logarithm of the sum.",
      makes: (logits, target) => logSumBeyond(logits, largestOf(logits)) - logits[target],
    },
    {
      says: "The sign is turned round: this is ln p, and the loss is −ln p.",
      makes: (logits, target) => logits[target] - largestOf(logits) - logSumBeyond(logits, largestOf(logits)),
    },
    {
      says: "This is the probability of the target. The loss is minus its logarithm.",
      makes: (logits, target) =>
        Math.exp(logits[target] - largestOf(logits) - logSumBeyond(logits, largestOf(logits))),
    },
    {
      says: "This is in bits. The loss is in nats: `Math.log`, not `Math.log2`.",
      makes: (logits, target) =>
        (largestOf(logits) + logSumBeyond(logits, largestOf(logits)) - logits[target]) / Math.LN2,
    },
  ],
};

const ADAM = { ...defaultOptimizer, betas: [0.9, 0.95] as [number, number], epsilon: 1e-8, weightDecay: 0.1 };

type Element = [p: number, g: number, mean: number, square: number, step: number, rate: number];

/** A weight and its state: of usual size, with a gradient of 0, and with gradients so small that ε tells. */
function drawElement(random: Random, round: number): Element {
  const size = [1, 0, 1e-8, 20][round % 4];
  const step = round < 4 ? 0 : random.integer(0, 40);
  const before = size || 1;
  const [mean, square] =
    step === 0 ? [0, 0] : [0.5 * random.normal() * before, random.real(0.1, 1) * before ** 2];
  return [2 * random.normal(), size * random.normal(), mean, square, step, random.real(0.01, 0.3)];
}

/** One step of the library's AdamW on a single element, a matrix of one row and one column. */
async function libraryStep([p, g, mean, square, step, rate]: Element) {
  await openGpu();
  const weight = tensor([p], [1, 1]);
  const optimizer = makeOptimizer([{ name: "p", role: "matrix", value: weight }], ADAM);
  const state = optimizer.state();
  const saved = { "p.mean": [mean], "p.square": [square] };
  restoreState(state, new Map(Object.entries(saved)));
  optimizer.setStep(step, rate);
  optimizer.update([tensor([g], [1, 1])]);
  return {
    p: await weight.value(),
    mean: await state.get("p.mean")!.value(),
    square: await state.get("p.square")!.value(),
  };
}

/** AdamW's step with its parts open to mistakes. */
function adamBy(
  [p, g, mean, square, step, rate]: Element,
  {
    corrected = true,
    count = 1,
    inGradient = false,
    decay = 0.1,
    squared = true,
    betas = [0.9, 0.95],
    epsilon = 1e-8,
    inRoot = 0,
  } = {},
) {
  const slope = g + (inGradient ? decay * p : 0);
  const m = betas[0] * mean + (1 - betas[0]) * slope;
  const s = betas[1] * square + (1 - betas[1]) * (squared ? slope * slope : slope);
  const correct = (beta: number) => (corrected ? 1 - beta ** (step + count) : 1);
  const move = m / correct(betas[0]) / (Math.sqrt(s / correct(betas[1]) + inRoot) + epsilon);
  return { p: p - rate * (move + (inGradient ? 0 : decay * p)), mean: m, square: s };
}

export const writeAdamStep: Check<Element> = {
  exercise: STEPS,
  id: "write-adam-step",
  title: "Write one step of AdamW",
  names: ["p", "g", "mean", "square", "step", "rate"],
  tolerance: 2e-4,
  hints: [
    "First the two means: `0.9 * mean + 0.1 * g`, and the same with 0.95 for the square of the gradient.",
    "Then the corrections. Steps count from 0, so after this step the mean holds `1 - 0.9 ** (step + 1)` of the gradient: divide by that.",
    "The move is the corrected mean over the root of the corrected square (plus 1e-8).",
    "The weight loses `rate * (move + 0.1 * p)`. Return the means as they are before the correction.",
  ],
  inputs: drawElement,
  expected: (...element) => libraryStep(element),
  mistakes: [
    {
      says: "The means are not corrected. They start at zero, so early on both are too small: divide by 1 − β^(step + 1).",
      makes: (...element) => adamBy(element, { corrected: false }),
    },
    {
      says: "The correction counts from 1, but `step` from 0: at the first step you divide by 1 − β⁰ = 0.",
      makes: (...element) => adamBy(element, { count: 0 }),
    },
    {
      says: "Your decay goes through the gradient, and so is divided by its usual size. In AdamW it is taken from the weight directly.",
      makes: (...element) => adamBy(element, { inGradient: true }),
    },
    {
      says: "The weight does not decay: it loses rate · 0.1 · p besides the move.",
      makes: (...element) => adamBy(element, { decay: 0 }),
    },
    {
      says: "The second mean is of the gradient's square, not of the gradient.",
      makes: (...element) => adamBy(element, { squared: false }),
    },
    {
      says: "The two betas are exchanged: 0.9 is for the mean, 0.95 for the square.",
      makes: (...element) => adamBy(element, { betas: [0.95, 0.9] }),
    },
    {
      says: "Without ε a gradient that was always 0 gives 0 / 0. Add 1e-8 to the root.",
      makes: (...element) => adamBy(element, { epsilon: 0 }),
    },
    {
      says: "ε is added to the root, not inside it: next to the square of a small gradient, 1e-8 is much.",
      makes: (...element) => adamBy(element, { epsilon: 0, inRoot: 1e-8 }),
    },
  ],
};

type Moment = [step: number, warmup: number, steps: number, peak: number, floor: number];

function drawMoment(random: Random, round: number): Moment {
  const warmup = round % 4 === 3 ? 0 : random.integer(1, 10);
  const steps = warmup + random.integer(3, 40);
  const ends = [0, warmup, steps - 1, Math.max(0, warmup - 1), warmup + 1];
  // Every second step lies in the warm-up, which is the shorter part.
  const end = round % 2 === 0 ? Math.max(0, warmup - 1) : steps - 1;
  return [
    ends[round] ?? random.integer(0, end),
    warmup,
    steps,
    random.real(0.5, 2),
    round % 5 === 4 ? 0 : random.real(0.05, 0.3),
  ];
}

/** Warm-up and cosine with their parts open to mistakes. */
function cosineBy(
  [step, warmup, steps, peak, floor]: Moment,
  { up = step + 1, over = warmup + 1, last = steps - 1, from = warmup, bottom = floor } = {},
): number {
  if (step < warmup) return (peak * up) / over;
  return bottom + ((peak - bottom) * (1 + Math.cos((Math.PI * (step - from)) / (last - from)))) / 2;
}

export const writeSchedule: Check<Moment> = {
  exercise: STEPS,
  id: "write-schedule",
  title: "Write warm-up and cosine",
  names: ["step", "warmup", "steps", "peak", "floor"],
  hints: [
    "Two cases: `step < warmup`, and all others.",
    "The warm-up rises by equal amounts to the peak at step `warmup`, and the first step is not 0: `peak * (step + 1) / (warmup + 1)`.",
    "Afterwards let t go from 0 at step `warmup` to 1 at the last step, which is `steps - 1`.",
    "`floor + (peak - floor) * (1 + Math.cos(Math.PI * t)) / 2`.",
  ],
  inputs: drawMoment,
  expected: (step, warmup, steps, peak, floor) => {
    const schedule: Schedule = { kind: "cosine", warmup, steps, peak, floor };
    return learningRate(schedule, step);
  },
  mistakes: [
    {
      says: "Your first step has the rate 0 and learns nothing: count it as the first of `warmup + 1`.",
      makes: (...moment) => cosineBy(moment, { up: moment[0], over: moment[1] }),
    },
    {
      says: "The peak comes twice: at the last step of the warm-up and at step `warmup`. Divide by `warmup + 1`.",
      makes: (...moment) => cosineBy(moment, { over: moment[1] }),
    },
    {
      says: "You reach the floor one step after the run has ended. Its last step is `steps - 1`.",
      makes: (...moment) => cosineBy(moment, { last: moment[2] }),
    },
    {
      says: "Your cosine began at step 0. It begins where the warm-up ends.",
      makes: (...moment) => cosineBy(moment, { from: 0 }),
    },
    {
      says: "You come down to 0 instead of the floor.",
      makes: (...moment) => cosineBy(moment, { bottom: 0 }),
    },
  ],
};

export const predictTraffic: Check<[]> = {
  exercise: KERNELS,
  id: "predict-traffic",
  title: "Predict what an update costs",
  hints: [
    "Which arrays does the update read, and which does it write? A number has 4 bytes.",
    "It reads the weight, the gradient and two means, and writes all of them back but the gradient: 7 numbers.",
    "Of 16 bindings two are taken; the rest is shared by tensors that need four each. Then cut 80 into that many.",
  ],
  expected: () => ({ bytesPerWeight: 28, tensorsTogether: 3, dispatches: 27 }),
  mistakes: [
    {
      says: "You counted each array once. The weight and both means are read and written.",
      makes: () => ({ bytesPerWeight: 16, tensorsTogether: 3, dispatches: 27 }),
    },
    {
      says: "The gradient is read and not written back: seven numbers, not eight.",
      makes: () => ({ bytesPerWeight: 32, tensorsTogether: 3, dispatches: 27 }),
    },
    {
      says: "Two of the 16 bindings hold the step's numbers and the norm: 14 are left, for tensors that need four each.",
      makes: () => ({ bytesPerWeight: 28, tensorsTogether: 4, dispatches: 20 }),
    },
    {
      says: "26 dispatches of 3 are 78 tensors. The last two want a dispatch too.",
      makes: () => ({ bytesPerWeight: 28, tensorsTogether: 3, dispatches: 26 }),
    },
  ],
};

type Batch = [x: Float32Array, targets: Uint32Array, logSums: Float32Array, rows: number, columns: number];

/** Rows of logits with targets; most lie far from zero, as the logits of a model that is sure may, or reach far. */
function drawBatch(random: Random, round: number): Batch {
  const rows = [1, 3, 64, 65, 130][round] ?? random.integer(2, 150);
  const columns = round === 0 ? 3 : random.integer(round % 2 === 0 ? 9 : 2, 30);
  const lines = random.list(rows, () => Float32Array.from(scoreRow(random, columns, 120)));
  const targets = Uint32Array.from(random.list(rows, () => random.integer(0, columns - 1)));
  const sums = lines.map((line) => largestOf(line) + logSumBeyond(line, largestOf(line)));
  const x = Float32Array.from(lines.flatMap((line) => [...line]));
  return [x, targets, Float32Array.from(sums), rows, columns];
}

/** The frame of both kernels: a thread a row. */
const rowFrame = (
  reads: { [name: string]: Float32Array | Uint32Array },
  writes: object,
  [, , , rows, columns]: Batch,
) => ({
  reads,
  writes: writes as { [name: string]: number },
  workgroupSize: 64,
  workgroups: Math.ceil(rows / 64),
  sizes: { rows, columns },
});

/** The gradient kernel with its parts open to mistakes. */
const gradientBody = ({
  guard = "if (thread >= rows) { return; }",
  hit = "j == targets[thread]",
  share = " / f32(rows)",
  difference = "probability - hit",
  shift = " - logSums[thread]",
}) => `
${guard}
let first = thread * columns;
for (var j = 0u; j < columns; j++) {
  let probability = exp(x[first + j]${shift});
  let hit = select(0.0, 1.0, ${hit});
  dx[first + j] = (${difference})${share};
}
`;

export const mendGradient: Check<Batch> = {
  exercise: KERNELS,
  id: "mend-gradient",
  title: "Mend the gradient",
  names: ["x", "targets", "logSums", "rows", "columns"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "The first row of a batch of one row is right. What is different in the second row, and in a batch of many?",
    "A target is a column, from 0 to columns − 1. What is `first + j` in the second row?",
    "The loss is the mean over the rows, so each row has a share of one part in `rows`.",
    "Compare `j` with the target, and divide by `f32(rows)`.",
  ],
  inputs: drawBatch,
  run: (body, ...batch) => {
    const [x, targets, logSums] = batch;
    return runBody(body, rowFrame({ x, targets, logSums }, { dx: x.length }, batch));
  },
  expected: async (x, targets, _, rows, columns): Promise<KernelResult> => ({
    dx: await fromLibrary(() => {
      const logits = parameter(tensor(x, [rows, columns]));
      return gradients(crossEntropy(logits, indices(targets)), [logits])[0];
    }),
  }),
  mistakes: [
    {
      says: "Both faults are still in. One is a place: a target is a column, and `first + j` is a place in the whole array. The other is a size.",
      answer: gradientBody({ hit: "first + j == targets[thread]", share: "" }),
    },
    {
      says: "The targets are found now. But this is the gradient of the sum over the rows: the loss is their mean.",
      answer: gradientBody({ share: "" }),
    },
    {
      says: "The size is right. But only row 0 finds its target: `first + j` is a place in the whole array, and a target is a column.",
      answer: gradientBody({ hit: "first + j == targets[thread]" }),
    },
    {
      says: "You divide by the number of columns. The mean is over the rows.",
      answer: gradientBody({ share: " / f32(columns)" }),
    },
    {
      says: "The sign is turned round: the gradient is the bet minus what came.",
      answer: gradientBody({ difference: "hit - probability" }),
    },
    {
      says: "Some threads have no row, and yours write all the same. Keep the comparison of `thread` with `rows`.",
      answer: gradientBody({ guard: "" }),
    },
  ],
};

/** The loss kernel with its parts open to mistakes. */
const lossBody = ({
  guard = "if (thread >= rows) { return; }",
  start = "-3.4e38",
  rescale = "sum * exp(largest - grown)",
  shift = " - grown",
  loss = "largest + log(sum) - x[first + targets[thread]]",
}) => `
${guard}
let first = thread * columns;
var largest = ${start};
var sum = 0.0;
for (var j = 0u; j < columns; j++) {
  let value = x[first + j];
  let grown = max(largest, value);
  sum = ${rescale} + exp(value${shift});
  largest = grown;
}
losses[thread] = ${loss};
`;

/** The right losses, in two readings. */
const twoReadings = `
if (thread >= rows) { return; }
let first = thread * columns;
var largest = x[first];
for (var j = 0u; j < columns; j++) { largest = max(largest, x[first + j]); }
var sum = 0.0;
for (var j = 0u; j < columns; j++) { sum += exp(x[first + j] - largest); }
losses[thread] = largest + log(sum) - x[first + targets[thread]];
`;

export const writeOnlineLoss: Check<Batch> = {
  exercise: KERNELS,
  id: "write-online-loss",
  title: "Write the loss in one reading",
  names: ["x", "targets", "logSums", "rows", "columns"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "The frame is that of the gradient: leave when there is no row, find `first`, one loop over the row.",
    "Keep `var largest = -3.4e38;` and `var sum = 0.0;`. For each element let `grown` be the larger of `largest` and the element.",
    "What was summed so far belongs to the old maximum: multiply it by `exp(largest - grown)`, then add `exp(value - grown)`.",
    "After the loop: `losses[thread] = largest + log(sum) - x[first + targets[thread]];`",
  ],
  inputs: drawBatch,
  run: (body, ...batch) => {
    const [x, targets] = batch;
    return runBody(body, { ...rowFrame({ x, targets }, { losses: targets.length }, batch), once: "x" });
  },
  expected: async (x, targets, _, rows, columns): Promise<KernelResult> => ({
    losses: await fromLibrary(() => tokenLosses(tensor(x, [rows, columns]), indices(targets))),
  }),
  mistakes: [
    {
      says: "When the maximum grows, what was summed before must be multiplied by `exp(largest - grown)`: it was measured against the old one.",
      answer: lossBody({ rescale: "sum" }),
    },
    {
      says: "Rows near zero are right. In a row around 120 exp overflows: take the running maximum away within exp.",
      answer: lossBody({ rescale: "sum", shift: "", loss: "log(sum) - x[first + targets[thread]]" }),
    },
    {
      says: "You measure against the row's first number. Where the largest lies far above it, exp overflows all the same: keep a running maximum.",
      answer: lossBody({
        start: "x[first]",
        rescale: "sum",
        shift: " - x[first]",
        loss: "x[first] + log(sum) - x[first + targets[thread]]",
      }),
    },
    {
      says: "You go over the row twice: once for the largest number, once for the sum. Keep both as you go, and let the sum follow when the maximum grows.",
      answer: twoReadings,
    },
    {
      says: "The largest number of a row is not at least 0: in a row of −120s every exp becomes 0. Start `largest` very low.",
      answer: lossBody({ start: "0.0" }),
    },
    {
      says: "The maximum that you took away within exp comes back outside: `largest + log(sum) − …`.",
      answer: lossBody({ loss: "log(sum) - x[first + targets[thread]]" }),
    },
    {
      says: "The target's logit is in row `thread`: it is `x[first + targets[thread]]`, not `x[targets[thread]]`.",
      answer: lossBody({ loss: "largest + log(sum) - x[targets[thread]]" }),
    },
    {
      says: "Some threads have no row, and yours write all the same: begin with `if (thread >= rows) { return; }`.",
      answer: lossBody({ guard: "" }),
    },
  ],
};

export const predictBits: Check<[]> = {
  exercise: BITS,
  id: "predict-bits",
  title: "Predict steps and scales",
  hints: [
    "From one power of two to the next there are 2^10 steps. From 2,048 to 4,096 is 2^11.",
    "The next 16-bit float after 1 is 1 + 2^-10, about 1.001. Is 1.0004 nearer to it, or to 1?",
    "The scaled gradient must stay below 65,504: try powers of two times 3.",
  ],
  expected: () => ({ step: 2, weight: 1, factor: 2 ** 14 }),
  mistakes: [
    {
      says: "The step doubles with every power of two. It is 2^-10 at 1, so at 2^11 it is 2.",
      makes: () => ({ step: 1, weight: 1, factor: 2 ** 14 }),
    },
    {
      says: "1.04 is what 32 bits make of the weight. In 16 bits each single update is rounded away.",
      makes: () => ({ step: 2, weight: 1.04, factor: 2 ** 14 }),
    },
    {
      says: "Three times 2^15 is 98,304: more than a 16-bit float can be.",
      makes: () => ({ step: 2, weight: 1, factor: 2 ** 15 }),
    },
  ],
};

/** All positive 16-bit floats in order, as the library reads them from a file; infinity is the last. */
const HALVES = toFloat32({
  dtype: "F16",
  shape: [0x7c01],
  data: new Uint8Array(Uint16Array.from({ length: 0x7c01 }, (_, i) => i).buffer),
});

/** The 16-bit float nearest to x by looking at all of them; where infinity stands, rounding goes on as if 65,536 did. */
function nearestHalf(x: number): number {
  let at = HALVES.findIndex((half) => half > Math.abs(x)) - 1;
  const upper = at + 1 === 0x7c00 ? 65536 : HALVES[at + 1];
  const distance = Math.abs(x) - HALVES[at] - (upper - Math.abs(x));
  if (distance > 0 || (distance === 0 && at % 2 === 1)) at++;
  return Math.sign(x) * HALVES[at];
}

/** Whole steps at the size of x; `least` is the smallest exponent. */
const stepAt = (x: number, least = -14) => 2 ** (Math.max(least, Math.floor(Math.log2(Math.abs(x)))) - 10);

/** The nearest multiple of a step, halves going to the even one. */
function evenMultiple(x: number, step: number): number {
  const below = Math.floor(x / step);
  const rest = x / step - below;
  return (below + (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? 1 : 0)) * step;
}

export const writeRounding: Check<[x: number]> = {
  exercise: BITS,
  id: "write-rounding",
  title: "Round to 16 bits",
  names: ["x"],
  tolerance: 0,
  rounds: 60,
  hints: [
    "A number between 2^e and 2^(e+1) is a multiple of the step 2^(e - 10). `Math.floor(Math.log2(Math.abs(x)))` is e.",
    "Divide by the step, take the whole number below, and look at what is left: above a half goes up, and a half goes to the even one.",
    "e is never taken below -14: `Math.max(-14, …)`. That makes the smallest numbers right too.",
    "If the result is 65,536 or more in size, it is infinite, with the sign of x.",
  ],
  inputs: (random, round) => {
    const first = [
      2049,
      2051,
      -1.00048828125,
      65519,
      65520,
      -3 * 2 ** -25,
      0,
      1,
      2 ** -25,
      -65520,
      1e9,
      -65504,
    ];
    const sign = random.pick([1, -1]);
    const size = 2 ** random.integer(round % 2 ? -27 : -14, round % 2 ? -12 : 17);
    // A tie at any size: a whole number of steps and a half.
    const tie = (random.integer(1024, 2047) + 0.5) * 2 ** random.integer(-24, 5);
    return [first[round] ?? sign * (round % 4 === 0 ? tie : size * random.real(1, 2))];
  },
  expected: (x) => nearestHalf(x),
  mistakes: [
    {
      says: "This cuts the digits off. Rounding goes to the nearest: look at what is left after whole steps.",
      makes: (x) => Math.floor(x / stepAt(x || 1)) * stepAt(x || 1),
    },
    {
      says: "Halfway between two, the even one is taken: 2,049 becomes 2,048, and 2,051 becomes 2,052.",
      makes: (x) =>
        Math.abs(x) < 65520 ? Math.round(x / stepAt(x || 1)) * stepAt(x || 1) : Math.sign(x) * Infinity,
    },
    {
      says: "Below 2^-14 the step stays at 2^-24: an f16 has no smaller one.",
      makes: (x) => (Math.abs(x) < 65520 ? evenMultiple(x, stepAt(x || 1, -1000)) : Math.sign(x) * Infinity),
    },
    {
      says: "Numbers of 65,520 and more are too large for an f16: they become infinite.",
      makes: (x) => evenMultiple(x, stepAt(x || 1)),
    },
  ],
};

type Norms = [norms: number[], factor: number, patience: number];

/** The factor after each step; the rule, with what may be wrong in it. */
function scalesBy(
  [norms, first, patience]: Norms,
  {
    least = 1,
    keepsCount = false,
    keepsGood = false,
    skipped = (norm: number) => !Number.isFinite(norm),
  } = {},
): number[] {
  let [factor, good] = [first, 0];
  return norms.map((norm) => {
    if (skipped(norm)) {
      if (!keepsGood) good = 0;
      factor = Math.max(least, factor / 2);
    } else if (++good >= patience && (keepsCount || good === patience)) {
      if (!keepsCount) good = 0;
      factor *= 2;
    }
    return factor;
  });
}

export const writeLossScale: Check<Norms> = {
  exercise: BITS,
  id: "write-loss-scale",
  title: "Keep the scale",
  names: ["norms", "factor", "patience"],
  hints: [
    "Count the good steps in a variable, and go through the norms with `map`.",
    "`Number.isFinite` is false for infinities and for NaN.",
    "A step that is left out sets the count to 0; so does doubling.",
  ],
  inputs: (random, round) => {
    const bad = () => random.pick([Infinity, Number.NaN]);
    const good = () => random.pick([0, 1e-30, 1e30, random.real(0.1, 9)]);
    const norms = random.list(round < 2 ? 6 : 24, () => (random.next() < 0.25 ? bad() : good()));
    return [round === 1 ? norms.map(bad) : norms, 2 ** random.integer(0, 5), random.integer(1, 4)];
  },
  expected: (...norms) => scalesBy(norms),
  mistakes: [
    { says: "The factor never falls below 1.", makes: (...norms) => scalesBy(norms, { least: 0 }) },
    {
      says: "After doubling, good steps are counted from 0 again.",
      makes: (...norms) => scalesBy(norms, { keepsCount: true }),
    },
    {
      says: "Good steps must come in a row: one that is left out sets the count to 0.",
      makes: (...norms) => scalesBy(norms, { keepsGood: true }),
    },
    {
      says: "NaN is not finite either: such a step is left out too.",
      makes: (...norms) => scalesBy(norms, { skipped: (norm) => norm === Infinity }),
    },
    {
      says: "Infinity is no number to step by either: a step whose norm is infinite is left out too.",
      makes: (...norms) => scalesBy(norms, { skipped: Number.isNaN }),
    },
    {
      says: "A norm of 0 is finite, and its step a good one.",
      makes: (...norms) => scalesBy(norms, { skipped: (norm) => !norm || !Number.isFinite(norm) }),
    },
  ],
};
