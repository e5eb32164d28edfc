// Made from solutions/02-attention/checks.ts by `npm run exercises`, as b740bf769dc508d4
// The checks of chapter 2's exercises.
import {
  attend,
  causalSoftmax,
  indices,
  matmul,
  openGpu,
  rmsNorm,
  scope,
  softmax,
  type Tensor,
  tensor,
} from "tslm";
import { type Check, type KernelResult, type Random, runBody, scoreRow } from "tslm/notebook";

const HOLDING = "02-attention/5-what-holds-a-model-together";
const PRODUCTS = "02-attention/1-products-by-hand";
const ROWS = "02-attention/2-rows-on-the-gpu";
const LOOKING = "02-attention/3-looking-back";
const NEAR = "02-attention/4-near-and-far";

/** What the library makes of some numbers: opens the GPU, reads the result back, frees everything else. */
async function fromLibrary(work: () => Tensor): Promise<Float32Array> {
  await openGpu();
  const result = scope(work);
  const values = await result.array();
  result.free();
  return values;
}

const normals = (random: Random, length: number) => Float32Array.from(random.list(length, random.normal));

export const predictIndex: Check<[]> = {
  exercise: PRODUCTS,
  id: "predict-index",
  title: "Predict an index, a count and what a tile saves",
  hints: [
    "Row-major: the whole of row 0 comes first, then row 1. Before row 2 stand two rows of five.",
    "A product of [4, 5] and [5, 3] has 4 · 3 elements, each a sum of 5 products.",
    "A tile of 4 × 4 results needs 4 numbers of `a` and 4 of `b` for each step of the sum, and makes 16 multiply-adds of them.",
  ],
  expected: () => ({ index: 2 * 5 + 3, multiplyAdds: 4 * 3 * 5, loads: 8 / 16 }),
  mistakes: [
    {
      says: "You walk down the columns: row-major means that the elements of a row are neighbours.",
      makes: () => ({ index: 3 * 4 + 2, multiplyAdds: 60, loads: 0.5 }),
    },
    {
      says: "You count rows and columns from 1; in memory they count from 0.",
      makes: () => ({ index: 7, multiplyAdds: 60, loads: 0.5 }),
    },
    {
      says: "You counted the elements of the result. Each of them takes as many multiply-adds as the inner size.",
      makes: () => ({ index: 13, multiplyAdds: 12, loads: 0.5 }),
    },
    {
      says: "Two loads a multiply-add is what a thread with one result pays. In a tile each number that was loaded serves four results.",
      makes: () => ({ index: 13, multiplyAdds: 60, loads: 2 }),
    },
  ],
};

type Product = [a: Float32Array, b: Float32Array, rows: number, inner: number, columns: number];

function drawProduct(random: Random, round: number): Product {
  const size = () => (round === 0 ? 1 : random.integer(1, 9));
  const [rows, inner, columns] = round === 1 ? [3, 17, 5] : [size(), size(), size()];
  return [normals(random, rows * inner), normals(random, inner * columns), rows, inner, columns];
}

/** A product whose elements are found by `a` and `b`: how a learner's index may go wrong. */
function productBy(
  [a, b, rows, inner, columns]: Product,
  atA: (i: number, k: number) => number,
  atB: (k: number, j: number) => number,
): Float32Array {
  const result = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let k = 0; k < inner; k++) result[i * columns + j] += a[atA(i, k)] * b[atB(k, j)];
    }
  }
  return result;
}

export const writeProduct: Check<Product> = {
  exercise: PRODUCTS,
  id: "write-product",
  title: "Write the product",
  names: ["a", "b", "rows", "inner", "columns"],
  tolerance: 1e-4,
  hints: [
    "Element (i, j) of the result is the sum over k of a(i, k) · b(k, j). Three loops.",
    "`a` has rows of `inner` elements, so a(i, k) is `a[i * inner + k]`. How long is a row of `b`?",
    "b(k, j) is `b[k * columns + j]`, and the sum goes to `result[i * columns + j]`.",
  ],
  inputs: drawProduct,
  expected: (a, b, rows, inner, columns) =>
    fromLibrary(() => matmul(tensor(a, [rows, inner]), tensor(b, [inner, columns]))),
  mistakes: [
    {
      says: "You read `b` as if its rows were `inner` long. A row of `b` has `columns` elements.",
      makes: (...p) =>
        productBy(
          p,
          (i, k) => i * p[3] + k,
          (k, j) => k * p[3] + j,
        ),
    },
    {
      says: "You read `b` turned round: b(k, j) is in row k. With b(j, k) this is the product with the transpose.",
      makes: (...p) =>
        productBy(
          p,
          (i, k) => i * p[3] + k,
          (k, j) => j * p[3] + k,
        ),
    },
    {
      says: "You read `a` as if its rows were `rows` long. A row of `a` has `inner` elements.",
      makes: (...p) =>
        productBy(
          p,
          (i, k) => i * p[2] + k,
          (k, j) => k * p[4] + j,
        ),
    },
  ],
};

/** The gradient of a from that of the product, its elements found by `atB`. */
function gradientBy(
  [gradient, b, rows, inner, columns]: Product,
  atB: (k: number, j: number) => number,
): Float32Array {
  const result = new Float32Array(rows * inner);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) {
      for (let j = 0; j < columns; j++) result[i * inner + k] += gradient[i * columns + j] * b[atB(k, j)];
    }
  }
  return result;
}

export const writeGradient: Check<Product> = {
  exercise: PRODUCTS,
  id: "write-gradient",
  title: "Send the gradient back",
  names: ["gradient", "b", "rows", "inner", "columns"],
  tolerance: 1e-4,
  hints: [
    "The result has the shape of `a`: rows × inner. Ask for one element, a(i, k): which outputs does it touch?",
    "a(i, k) is multiplied by b(k, j) on its way into output (i, j), for every j. So sum over j.",
    "`result[i * inner + k]` is the sum over j of `gradient[i * columns + j] * b[k * columns + j]`.",
  ],
  inputs: (random, round) => {
    const [, b, rows, inner, columns] = drawProduct(random, round);
    return [normals(random, rows * columns), b, rows, inner, columns];
  },
  expected: (gradient, b, rows, inner, columns) =>
    fromLibrary(() =>
      matmul(tensor(gradient, [rows, columns]), tensor(b, [inner, columns]), { transposeB: true }),
    ),
  mistakes: [
    {
      says: "You used `b` where its transpose is meant: a(i, k) met b(k, j), so sum over j within row k of `b`.",
      makes: (...p) => gradientBy(p, (k, j) => j * p[3] + k),
    },
    {
      says: "You took the gradient's first column only: a(i, k) goes into every output of row i, so sum over j.",
      makes: (...p) => {
        const [gradient, b, rows, inner, columns] = p;
        return gradientBy(
          [gradient.map((value, at) => (at % columns ? 0 : value)), b, rows, inner, columns],
          (k, j) => k * columns + j,
        );
      },
    },
    {
      says: "The slope of a · b is b itself: do not multiply by the output's neighbours of b twice, nor square it.",
      makes: (gradient, b, ...sizes) =>
        gradientBy([gradient, b.map((value) => value * value), ...sizes], (k, j) => k * sizes[2] + j),
    },
  ],
};

export const predictGrid: Check<[]> = {
  exercise: ROWS,
  id: "predict-grid",
  title: "Predict the grid",
  hints: [
    "Workgroups come whole: enough of them must start that every row has a thread.",
    "200 / 64 is a little more than 3, so 3 workgroups are too few.",
    "4 workgroups of 64 are 256 threads, for 200 rows.",
  ],
  expected: () => ({ workgroups: 4, threads: 256, idle: 56 }),
  mistakes: [
    {
      says: "3 workgroups are 192 threads: the last 8 rows would have none. Round up.",
      makes: () => ({ workgroups: 3, threads: 192, idle: 0 }),
    },
    {
      says: "A workgroup always runs whole, so 256 threads start. That is why kernels compare `thread` with the size.",
      makes: () => ({ workgroups: 4, threads: 200, idle: 0 }),
    },
    {
      says: "One workgroup a row would work too, but here a thread takes a row: 64 rows a workgroup.",
      makes: () => ({ workgroups: 200, threads: 12_800, idle: 12_600 }),
    },
  ],
};

type Rows = [x: Float32Array, rows: number, columns: number];

/** How many rows and columns: one of each first, then as many rows as threads, one more, and odd numbers. */
function drawSizes(random: Random, round: number): { rows: number; columns: number } {
  const rows = [1, 3, 64, 65, 130][round] ?? random.integer(1, 150);
  return { rows, columns: round === 0 ? 1 : random.integer(2, 40) };
}

/** Rows of scores; most far from zero, as scores are when a model is sure of itself, and some at both ends at once. */
function drawRows(random: Random, round: number): Rows {
  const { rows, columns } = drawSizes(random, round);
  const x = random.list(rows, () => scoreRow(random, columns, 120));
  return [Float32Array.from(x.flat()), rows, columns];
}

/** The frame that both kernels are written into: a thread a row. */
const rowFrame = (rows: number, columns: number, reads: { [name: string]: Float32Array }) => ({
  reads,
  writes: { y: rows * columns },
  workgroupSize: 64,
  workgroups: Math.ceil(rows / 64),
  sizes: { rows, columns },
});

const wroteRows = async (work: () => Tensor): Promise<KernelResult> => ({
  y: await fromLibrary(work),
});

/** The softmax kernel with its parts open to mistakes. */
const softmaxBody = ({
  guard = "if (thread >= rows) { return; }",
  start = "var highest = x[first];",
  from = "0u",
  shift = " - highest",
}) => `
${guard}
let first = thread * columns;
${start}
for (var j = 0u; j < columns; j++) { highest = max(highest, x[first + j]); }
var total = 0.0;
for (var j = ${from}; j < columns; j++) { total += exp(x[first + j]${shift}); }
for (var j = 0u; j < columns; j++) { y[first + j] = exp(x[first + j]${shift}) / total; }
`;

export const mendSoftmax: Check<Rows> = {
  exercise: ROWS,
  id: "mend-softmax",
  title: "Mend the softmax",
  names: ["x", "rows", "columns"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "Run the check as it is, and look at the first wrong element. Do the rows add up to 1?",
    "The sum below the line must hold every element of the row. Where does its loop start?",
    "exp(120) is larger than any f32. Softmax does not change when the same number is taken from the whole row: take its largest.",
    "Subtract `highest` within both calls of `exp`, and start both loops at 0u.",
  ],
  inputs: drawRows,
  run: (body, x, rows, columns) => runBody(body, rowFrame(rows, columns, { x })),
  expected: (x, rows, columns) => wroteRows(() => softmax(tensor(x, [rows, columns]))),
  mistakes: [
    {
      says: "Both faults are still in: one spoils every row with more than one column, the other only rows with large numbers.",
      answer: softmaxBody({ from: "1u", shift: "" }),
    },
    {
      says: "Rows near zero are right now. Rows with large numbers are not: exp overflows. What is `highest` there for?",
      answer: softmaxBody({ shift: "" }),
    },
    {
      says: "The overflow is mended, but rows do not add up to 1: one element is missing from `total`.",
      answer: softmaxBody({ from: "1u" }),
    },
    {
      says: "The largest number of a row is not at least 0: in a row of −120s every exp becomes 0. Start `highest` at the row's first element.",
      answer: softmaxBody({ start: "var highest = 0.0;" }),
    },
    {
      says: "You subtract the row's first number. Where the largest lies far above it, exp overflows all the same: subtract `highest`.",
      answer: softmaxBody({ shift: " - x[first]" }),
    },
    {
      says: "Some threads have no row, and yours write all the same. Keep the comparison of `thread` with `rows`.",
      answer: softmaxBody({ guard: "" }),
    },
  ],
};

const EPSILON = 1e-5;

/** The RMSNorm kernel with its parts open to mistakes. */
const normBody = ({
  guard = "if (thread >= rows) { return; }",
  add = "squares += x[first + j] * x[first + j];",
  factor = "inverseSqrt(squares / f32(columns) + epsilon)",
  weight = " * weight[j]",
}) => `
${guard}
let first = thread * columns;
var squares = 0.0;
for (var j = 0u; j < columns; j++) { ${add} }
let factor = ${factor};
for (var j = 0u; j < columns; j++) { y[first + j] = x[first + j] * factor${weight}; }
`;

export const writeNorm: Check<[x: Float32Array, rows: number, columns: number, weight: Float32Array]> = {
  exercise: ROWS,
  id: "write-norm",
  title: "Write RMSNorm",
  names: ["x", "rows", "columns", "weight"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "The frame is that of softmax: leave when there is no row, find `first`, go over the row twice.",
    "First loop: add up `x[first + j] * x[first + j]`. The mean is that sum divided by `f32(columns)`.",
    "`inverseSqrt(mean + epsilon)` is the factor. Second loop: `y[first + j] = x[first + j] * factor * weight[j];`",
  ],
  inputs: (random, round) => {
    const { rows, columns } = drawSizes(random, round);
    // Zeros show what epsilon is for, and numbers whose mean square is about as large as epsilon where it belongs.
    const x = random.list(rows, (row) => {
      const size = [1, 3e-3, 0, 120][(round + row) % 4];
      return random.list(columns, () => size * random.normal());
    });
    return [Float32Array.from(x.flat()), rows, columns, normals(random, columns)];
  },
  run: (body, x, rows, columns, weight) => {
    const frame = rowFrame(rows, columns, { x, weight });
    return runBody(body, { ...frame, head: `const epsilon = ${EPSILON};` });
  },
  expected: (x, rows, columns, weight) =>
    wroteRows(() => rmsNorm(tensor(x, [rows, columns]), tensor(weight, [columns]), EPSILON)),
  mistakes: [
    {
      says: "You divide by the root of the sum of squares. It is their mean: divide by `f32(columns)` first.",
      answer: normBody({ factor: "inverseSqrt(squares + epsilon)" }),
    },
    {
      says: "A row of zeros gives NaN: add `epsilon` to the mean before the root.",
      answer: normBody({ factor: "inverseSqrt(squares / f32(columns))" }),
    },
    {
      says: "You add `epsilon` to the root. It belongs inside: it is added to the mean square.",
      answer: normBody({ factor: "1.0 / (sqrt(squares / f32(columns)) + epsilon)" }),
    },
    {
      says: "You add `epsilon` to the sum. Divide by `f32(columns)` first: it is added to the mean square.",
      answer: normBody({ factor: "inverseSqrt((squares + epsilon) / f32(columns))" }),
    },
    {
      says: "The weight is missing: element j of a row is multiplied by `weight[j]`.",
      answer: normBody({ weight: "" }),
    },
    {
      says: "The weight belongs to the column: `weight[j]`, not `weight[first + j]`, which lies behind its end from row 1 on.",
      answer: normBody({ weight: " * weight[first + j]" }),
    },
    {
      says: "Some threads have no row, and yours write all the same: begin with `if (thread >= rows) { return; }`.",
      answer: normBody({ guard: "" }),
    },
  ],
};

export const predictHeads: Check<[]> = {
  exercise: LOOKING,
  id: "predict-heads",
  title: "Predict what heads do",
  hints: [
    "Softmax at temperature T is softmax of the scores divided by T. Dividing ln 9 by 2 gives ln 3.",
    "Without softmax the shares are 1 and −1, and the output is 1 · 10 − 1 · 10.",
    "A hand that goes round in 8 positions points the same way again 8, 16, 24… positions further.",
  ],
  expected: () => ({ hotter: 0.75, withoutSoftmax: 0, confused: [11, 19] }),
  mistakes: [
    {
      says: "A temperature above 1 makes shares more alike, so the larger one shrinks: the scores are divided by it.",
      makes: () => ({ hotter: 81 / 82, withoutSoftmax: 0, confused: [11, 19] }),
    },
    {
      says: "You took the mean of the values, which is what softmax would come to here. Raw scores need not add up to 1.",
      makes: () => ({ hotter: 0.75, withoutSoftmax: 10, confused: [11, 19] }),
    },
    {
      says: "19 is two full turns from 3. Every whole number of turns looks the same.",
      makes: () => ({ hotter: 0.75, withoutSoftmax: 0, confused: [11] }),
    },
    {
      says: "3 and 5 add up to 8, but what matters is how far the positions are apart: a multiple of 8.",
      makes: () => ({ hotter: 0.75, withoutSoftmax: 0, confused: [5] }),
    },
  ],
};

/** Shares with each part open to mistakes: who is seen, and by whom the row is divided. */
function sharesBy(
  scores: Float32Array,
  tokens: number,
  seen: (i: number, j: number) => boolean,
  over = seen,
): Float32Array {
  const shares = new Float32Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) {
    const row = Array.from(scores.subarray(i * tokens, (i + 1) * tokens));
    const total = row.reduce((sum, score, j) => sum + (over(i, j) ? Math.exp(score) : 0), 0);
    for (let j = 0; j < tokens; j++) shares[i * tokens + j] = seen(i, j) ? Math.exp(row[j]) / total : 0;
  }
  return shares;
}

export const writeShares: Check<[scores: Float32Array, tokens: number]> = {
  exercise: LOOKING,
  id: "write-shares",
  title: "Write the causal shares",
  names: ["scores", "tokens"],
  tolerance: 1e-4,
  rounds: 10,
  hints: [
    "Row i belongs to the token that looks. It sees the columns j ≤ i, itself included.",
    "Add up `Math.exp(score)` over those columns only. Then each of them gets its own exp divided by that sum.",
    "The hidden columns of `shares` are 0 from the start: leave them alone.",
  ],
  inputs: (random, round) => {
    const tokens = round === 0 ? 1 : random.integer(2, 9);
    const size = random.pick([1, 8]);
    return [normals(random, tokens * tokens).map((score) => size * score), tokens];
  },
  expected: (scores, tokens) =>
    fromLibrary(() => {
      const positions = indices(Array.from({ length: tokens }, (_, i) => i));
      return causalSoftmax(tensor(scores, [1, 1, tokens, tokens]), positions, 1);
    }),
  mistakes: [
    {
      says: "Everybody sees everything: the columns j > i are the future and stay hidden.",
      makes: (scores, tokens) => sharesBy(scores, tokens, () => true),
    },
    {
      says: "You hid the future after softmax, so what it held is missing and rows do not add up to 1. Sum over what is seen only.",
      makes: (scores, tokens) =>
        sharesBy(
          scores,
          tokens,
          (i, j) => j <= i,
          () => true,
        ),
    },
    {
      says: "You set hidden scores to 0 before softmax, and exp(0) is 1: the future gets a share. Leave it out of the sum.",
      makes: (scores, tokens) => {
        const masked = scores.map((score, at) => (at % tokens > Math.floor(at / tokens) ? 0 : score));
        return sharesBy(masked, tokens, () => true);
      },
    },
    {
      says: "You look forward: token i sees the columns from i on. It should see those up to i.",
      makes: (scores, tokens) => sharesBy(scores, tokens, (i, j) => j >= i),
    },
  ],
};

export const predictReach: Check<[]> = {
  exercise: NEAR,
  id: "predict-reach",
  title: "Predict a reach, a cache and a share",
  hints: [
    "A window of 6 holds the token itself and five before it: each layer carries word five tokens further.",
    "A key and a value, in each key head of each layer, of 64 numbers, two bytes each.",
    "The sink takes part in the sum of powers like a key: exp(0) is 1, and exp(ln 3) is 3.",
  ],
  expected: () => ({ earliest: 40 - 5 * 5, bytes: 2 * 4 * 64 * 20 * 2, share: 0.75 }),
  mistakes: [
    {
      says: "A window of 6 counts the token itself, so that a layer reaches back five tokens and not six.",
      makes: () => ({ earliest: 10, bytes: 20480, share: 0.75 }),
    },
    {
      says: "Each layer reaches further than the one before: the second looks at tokens that have already heard of others.",
      makes: () => ({ earliest: 35, bytes: 20480, share: 0.75 }),
    },
    {
      says: "You counted the keys alone. The values are kept as well.",
      makes: () => ({ earliest: 15, bytes: 10240, share: 0.75 }),
    },
    {
      says: "You counted the query heads. Queries are not kept; keys and values are, in 4 heads.",
      makes: () => ({ earliest: 15, bytes: 81920, share: 0.75 }),
    },
    {
      says: "With a sink, the shares of the keys need not add up to 1.",
      makes: () => ({ earliest: 15, bytes: 20480, share: 1 }),
    },
  ],
};

type Windowed = [scores: Float32Array, tokens: number, window: number, sink: number];

/** Shares in a window with a sink, each part open to mistakes: who is seen, who is counted, and the sink's power. */
const inWindow = (window: number) => (i: number, j: number) => j <= i && i - j < window;

/** The square matrix that changes nothing. */
export const writeWindow: Check<Windowed> = {
  exercise: NEAR,
  id: "write-window",
  title: "Write the shares in a window, with a sink",
  names: ["scores", "tokens", "window", "sink"],
  tolerance: 1e-4,
  rounds: 10,
  hints: [
    "Begin with the causal shares: token i sees the columns j ≤ i. The window hides those with i − j ≥ window.",
    "Where does the sum begin? Without a sink at 0; with one at `Math.exp(sink)`.",
    "The sink has no column: it only makes the sum larger, so that a row adds up to less than 1.",
  ],
  inputs: (random, round) => {
    const tokens = 4 * (round === 0 ? 1 : random.integer(1, 3));
    const window = round === 1 ? 1 : random.integer(1, tokens);
    return [normals(random, tokens * tokens).map((score) => 2 * score), tokens, window, 2 * random.normal()];
  },
  // With the scores as queries, and rows of the unit matrix as keys and as values, what comes out are the shares.
  expected: (scores, tokens, window, sink) =>
    fromLibrary(() => {
      const positions = indices(Array.from({ length: tokens }, (_, i) => i));
      const rows = tensor(unit(tokens), [1, 1, tokens, tokens]);
      const keyValues = { keys: rows, values: rows };
      const scoring = { scale: 1, sinks: tensor([sink]) };
      return attend(tensor(scores, [1, 1, tokens, tokens]), keyValues, { positions, window }, scoring);
    }),
  mistakes: [
    {
      says: "Your window is one too wide: the token itself is one of the keys that it holds.",
      makes: (...w) => windowedBy(w, inWindow(w[2] + 1), Math.exp(w[3])),
    },
    {
      says: "The sink is missing from the sum: your rows add up to 1.",
      makes: (...w) => windowedBy(w, inWindow(w[2]), 0),
    },
    {
      says: "You added the sink's score to the sum of powers. It is a score like the others: its power is Math.exp(sink).",
      makes: (...w) => windowedBy(w, inWindow(w[2]), w[3]),
    },
    {
      says: "You hid what is outside of the window after dividing, so that hidden keys still count in the sum.",
      makes: (...w) => windowedBy(w, inWindow(w[2]), Math.exp(w[3]), inWindow(Number.POSITIVE_INFINITY)),
    },
  ],
};

type Absorbed = [query: Float32Array, keyUp: Float32Array, headDim: number, rank: number];

export const writeAbsorbed: Check<Absorbed> = {
  exercise: NEAR,
  id: "write-absorbed",
  title: "Absorb a matrix into a query",
  names: ["query", "keyUp", "headDim", "rank"],
  tolerance: 1e-4,
  hints: [
    "The result has `rank` numbers, one for each number of a latent row.",
    "Number r of the result says what number r of a latent row adds to the score: a sum over the head's numbers i.",
    "It is the sum over i of query[i] · keyUp[i * rank + r].",
  ],
  inputs: (random, round) => {
    const [headDim, rank] = round === 0 ? [1, 1] : [random.integer(2, 6), random.integer(2, 9)];
    return [normals(random, headDim), normals(random, headDim * rank), headDim, rank];
  },
  expected: (query, keyUp, headDim, rank) =>
    fromLibrary(() => matmul(tensor(query, [1, headDim]), tensor(keyUp, [headDim, rank]))),
  mistakes: [
    {
      says: "You read the matrix as if its rows were `headDim` long. A row makes one number of a key from `rank` numbers of the latent row.",
      makes: (query, keyUp, headDim, rank) =>
        Float32Array.from({ length: rank }, (_, r) =>
          query.reduce((sum, value, i) => sum + value * keyUp[r * headDim + i], 0),
        ),
    },
    {
      says: "You summed the rows of the matrix and left out the query.",
      makes: (query, keyUp, _, rank) =>
        Float32Array.from({ length: rank }, (_, r) =>
          query.reduce((sum, _, i) => sum + keyUp[i * rank + r], 0),
        ),
    },
    {
      says: "The result is as long as the query: it should be as long as a latent row, since that is what it will be compared with.",
      makes: (query, keyUp, headDim, rank) =>
        Float32Array.from({ length: headDim }, (_, i) =>
          query.reduce((sum, value, j) => sum + value * keyUp[i * rank + (j % rank)], 0),
        ),
    },
  ],
};
const unit = (size: number) =>
  Float32Array.from({ length: size * size }, (_, at) => +(at % (size + 1) === 0));

function windowedBy(
  [scores, tokens]: Windowed,
  seen: (i: number, j: number) => boolean,
  sinkPower: number,
  over = seen,
): Float32Array {
  const shares = new Float32Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) {
    const row = Array.from(scores.subarray(i * tokens, (i + 1) * tokens));
    const total = row.reduce((sum, score, j) => sum + (over(i, j) ? Math.exp(score) : 0), sinkPower);
    for (let j = 0; j < tokens; j++) shares[i * tokens + j] = seen(i, j) ? Math.exp(row[j]) / total : 0;
  }
  return shares;
}

export const predictHolding: Check<[]> = {
  exercise: HOLDING,
  id: "predict-holding",
  title: "Predict four numbers",
  hints: [
    "bf16 keeps seven binary digits after the point. Between 1 and 2 its numbers are 1/128 apart.",
    "Half of 1/128 is about 0.0039, and 0.003 is less. The number goes to the nearest one.",
    "What survives dropout is divided by the share that survives, which is 1 − 0.25.",
    "Linear scaling by 4 divides the angle by 4, so a distance looks like a quarter of itself. And √(2L) for eight blocks is √16.",
  ],
  expected: () => ({ rounded: 1, survivor: 4, looksLike: 3, smaller: 4 }),
  mistakes: [
    {
      says: "1.0078125 is the next bf16 number above 1, but 1.003 lies nearer to 1. Rounding goes to the nearest.",
      makes: () => ({ rounded: 1.0078125, survivor: 4, looksLike: 3, smaller: 4 }),
    },
    {
      says: "Left as it is, the expected sum would shrink to three quarters. What survives is divided by 1 − 0.25.",
      makes: () => ({ rounded: 1, survivor: 3, looksLike: 3, smaller: 4 }),
    },
    {
      says: "You divided by the rate: then a rate near 0 would blow everything up. Divide by the share that survives.",
      makes: () => ({ rounded: 1, survivor: 12, looksLike: 3, smaller: 4 }),
    },
    {
      says: "The hands turn four times as slowly, so tokens look nearer to each other, not further apart.",
      makes: () => ({ rounded: 1, survivor: 4, looksLike: 48, smaller: 4 }),
    },
    {
      says: "Each block adds to the stream twice, once for attention and once for the feed-forward layer: √(2 · 8).",
      makes: () => ({ rounded: 1, survivor: 4, looksLike: 3, smaller: Math.sqrt(8) }),
    },
  ],
};

/** The mean over rows of what a head gives to the place `distance` before, with each part open to mistakes. */
function meanBack(
  [shares, tokens, distance]: [Float32Array, number, number],
  place: (i: number) => number,
  over = tokens - distance,
): number {
  let sum = 0;
  for (let i = distance; i < tokens; i++) sum += shares[place(i)];
  return sum / over;
}

export const measureHead: Check<[shares: Float32Array, tokens: number, distance: number]> = {
  exercise: HOLDING,
  id: "measure-head",
  title: "Measure a head",
  names: ["shares", "tokens", "distance"],
  tolerance: 1e-5,
  rounds: 10,
  hints: [
    "Row i holds the shares of token i: `shares[i * tokens + j]` is what it gives to token j.",
    "The place that is asked for is j = i − distance. The first rows have no such place: begin at i = distance.",
    "Divide the sum by the number of rows that you added up: tokens − distance.",
  ],
  inputs: (random, round) => {
    const tokens = random.integer(3, 12);
    const scores = Float32Array.from(random.list(tokens * tokens, () => 2 * random.normal()));
    const shares = sharesBy(scores, tokens, (i, j) => j <= i);
    return [shares, tokens, round === 0 ? 1 : random.integer(1, tokens - 1)];
  },
  expected: (...p) => meanBack(p, (i) => i * p[1] + i - p[2]),
  mistakes: [
    {
      says: "You read the column for the row: token i looks, so its shares are in row i, `shares[i * tokens + j]`.",
      makes: (...p) => meanBack(p, (i) => (i - p[2]) * p[1] + i),
    },
    {
      says: "You divide by the number of all tokens. The first ones have no token so far back: only tokens − distance of them count.",
      makes: (...p) => meanBack(p, (i) => i * p[1] + i - p[2], p[1]),
    },
    {
      says: "You look at the token itself. `distance` tokens back is column i − distance.",
      makes: (...p) => meanBack(p, (i) => i * p[1] + i),
    },
  ],
};

type Thinned = [values: Float32Array, bits: Uint32Array, rate: number];

/** Dropout with each part open to mistakes: who stays, and what it is multiplied by. */
function dropoutBy(
  [values, bits, rate]: Thinned,
  stays: (bits: number) => boolean = (word) => word >= rate * 2 ** 32,
  factor = 1 / (1 - rate),
): Float32Array {
  return values.map((value, i) => (stays(bits[i]) ? value * factor : 0));
}

export const writeDropout: Check<Thinned> = {
  exercise: HOLDING,
  id: "write-dropout",
  title: "Write dropout",
  names: ["values", "bits", "rate"],
  tolerance: 1e-6,
  rounds: 10,
  hints: [
    "`bits[i]` is a whole number from 0 to 2³² − 1. A share `rate` of all such numbers lies below rate · 2³².",
    "Those below are left out: 0. The others stay.",
    "What stays is divided by 1 − rate.",
  ],
  inputs: (random, round) => {
    const length = round === 0 ? 1 : random.integer(8, 40);
    const rate = round === 1 ? 0 : random.pick([0.125, 0.25, 0.5, 0.75]);
    const bits = Uint32Array.from(random.list(length, () => random.integer(0, 2 ** 32 - 1)));
    bits[random.integer(0, length - 1)] = rate * 2 ** 32; // just enough to stay
    return [normals(random, length), bits, rate];
  },
  expected: (...p) => dropoutBy(p),
  mistakes: [
    {
      says: "You keep what should go: with a rate of 0.25, three of four numbers must stay.",
      makes: (...p) => dropoutBy(p, (word) => word < p[2] * 2 ** 32),
    },
    {
      says: "What stays is left as it is, so sums shrink by the rate. Divide by 1 − rate.",
      makes: (...p) => dropoutBy(p, undefined, 1),
    },
    {
      says: "You multiply by 1 − rate: that makes sums smaller still. Divide by it.",
      makes: (...p) => dropoutBy(p, undefined, 1 - p[2]),
    },
    {
      says: "The bits are whole numbers up to 2³², and you compare them with the rate itself, which nearly all of them exceed.",
      makes: (...p) => dropoutBy(p, (word) => word >= p[2]),
    },
    {
      says: "You compare with 2³¹, as if they were signed numbers. They go up to 2³².",
      makes: (...p) => dropoutBy(p, (word) => word >= p[2] * 2 ** 31),
    },
  ],
};
