// The checks of chapter 5's exercises.
import {
  cacheWriteKernel,
  causalSoftmax,
  indices,
  keepMinP,
  keepTopP,
  likelierFirst,
  launchInto,
  lookupDraft,
  openGpu,
  plainGenerate,
  rankedCandidates,
  sampleFrom,
  scope,
  type Tensor,
  tensor,
} from "tslm";
import { settle } from "tslm/infer/speculate";
import { type Check, type KernelResult, type Random, runBody, scoreRow } from "tslm/notebook";

const CHOOSING = "05-inference/1-choosing-a-token";
const CACHE = "05-inference/2-keys-and-values";
const GUESSING = "05-inference/5-guess-and-check";
const LOOKUP = "05-inference/5-look-it-up";

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);

/** Candidates as the library wants them, from probabilities in the order of ids. */
const ranked = (probabilities: number[]) =>
  rankedCandidates(
    probabilities.map((p) => Math.log(p)),
    1,
  );

const FOUR = [0.5, 0.3, 0.15, 0.05];

export const predictCuts: Check<[]> = {
  exercise: CHOOSING,
  id: "predict-cuts",
  title: "Predict what is left",
  hints: [
    "A temperature T raises every probability to the power 1/T, and so the ratio of two of them too.",
    "Top-p goes down from the likeliest and stops as soon as the sum is reached: 0.5, 0.8, 0.95 …",
    "Min-p compares with the likeliest: here with 0.4 · 0.5.",
  ],
  expected: () => ({
    times: FOUR[0] ** 2 / FOUR[3] ** 2,
    topP: keepTopP(ranked(FOUR), 0.9).length,
    minP: keepMinP(ranked(FOUR), 0.4).length,
  }),
  mistakes: [
    {
      says: "At 0.5 the ratio is not doubled: scores are divided by T, so probabilities are raised to the power 1/T.",
      makes: () => ({ times: 20, topP: 3, minP: 2 }),
    },
    {
      says: "Below 1 a temperature makes the likely likelier. You have made them more alike.",
      makes: () => ({ times: Math.sqrt(10), topP: 3, minP: 2 }),
    },
    {
      says: "0.5 and 0.3 are 0.8, which does not reach 0.9: the token that crosses the line is kept too.",
      makes: () => ({ times: 100, topP: 2, minP: 2 }),
    },
    {
      says: "Min-p asks for 0.4 times the highest probability, which is 0.2, not for a probability of 0.4.",
      makes: () => ({ times: 100, topP: 3, minP: 1 }),
    },
  ],
};

/** Probabilities of some tokens, very different from each other: at times by many powers of ten. */
function drawProbabilities(random: Random, count: number): number[] {
  const spread = random.pick([1, 2, 7]);
  const weights = random.list(count, () => Math.exp(spread * random.normal()));
  return weights.map((weight) => weight / sum(weights));
}

/** Whole parts of 16, in any order. They add up to 1 without rounding, and some are 0 or alike. */
function drawSixteenths(random: Random, round: number): number[] {
  const parts = [
    [0, 8, 4, 0, 4, 0],
    [8, 4, 2, 1, 1],
    [0, 16],
    [5, 5, 3, 2, 1],
    [9, 0, 3, 4],
  ][round % 5];
  const order = parts.map((part) => ({ part, place: random.next() })).sort((a, b) => a.place - b.place);
  return order.map(({ part }) => part / 16);
}

/** The sum of the first `count` probabilities. */
const before = (probabilities: number[], count: number) => sum(probabilities.slice(0, count));

export const writeDraw: Check<[probabilities: number[], uniform: number]> = {
  exercise: CHOOSING,
  id: "write-draw",
  title: "Write the draw",
  names: ["probabilities", "uniform"],
  rounds: 36,
  hints: [
    "Go through the ids in order and keep a running sum: how far along the line you are.",
    "The first id with which the running sum gets above `uniform` is the one.",
    "Return the last id after the loop, for a random number that falls off the end.",
  ],
  inputs: (random, round) => {
    // On the border of two tokens, and before and behind those of probability 0.
    if (round % 3 === 1) {
      const exact = drawSixteenths(random, (round - 1) / 3);
      return [exact, before(exact, random.integer(0, exact.lastIndexOf(Math.max(...exact))))];
    }
    const probabilities = drawProbabilities(random, round === 0 ? 1 : random.integer(2, 8));
    // Every third time the sum is well below 1, and the random number behind it.
    if (round % 3 !== 2) return [probabilities, random.next()];
    return [probabilities.map((p) => 0.9 * p), random.real(0.91, 0.99)];
  },
  expected: (probabilities, uniform) =>
    sampleFrom(
      probabilities.map((probability, id) => ({ id, probability })),
      uniform,
    ),
  mistakes: [
    {
      says: "You compare the random number with single probabilities. Add them up as you go: a place on the line, not a length.",
      makes: (probabilities, uniform) => {
        const id = probabilities.findIndex((p) => uniform < p);
        return id < 0 ? probabilities.length - 1 : id;
      },
    },
    {
      says: "A random number behind the end of the line chooses nobody. Return the last id after the loop.",
      makes: (probabilities, uniform) => {
        const id = probabilities.findIndex((_, i) => uniform < before(probabilities, i + 1));
        return id < 0 ? undefined : id;
      },
    },
    {
      says: "You are one token late: ask after adding the token's own probability, and return that token.",
      makes: (probabilities, uniform) => {
        const id = probabilities.findIndex((_, i) => uniform < before(probabilities, i));
        return id < 0 ? probabilities.length - 1 : id;
      },
    },
    {
      says: "A number on the border of two tokens belongs to the second: ask whether it is below the sum. With ≤ even a token of probability 0 can be chosen.",
      makes: (probabilities, uniform) => {
        const id = probabilities.findIndex((_, i) => uniform <= before(probabilities, i + 1));
        return id < 0 ? probabilities.length - 1 : id;
      },
    },
    {
      says: "You always take the likeliest. That is greedy decoding; the random number should decide.",
      makes: (probabilities) => probabilities.indexOf(Math.max(...probabilities)),
    },
  ],
};

/** Probabilities of which only those of `kept` are left, divided by `total`. */
const keptOnly = (probabilities: number[], kept: number[], total: number) =>
  probabilities.map((p, id) => (kept.includes(id) ? p / total : 0));

const totalOf = (probabilities: number[], kept: number[]) => sum(kept.map((id) => probabilities[id]));

/** The ids that top-p keeps when it walks through `ids`. */
function walk(probabilities: number[], ids: number[], mass: number): number[] {
  const end = ids.findIndex((_, i) => totalOf(probabilities, ids.slice(0, i + 1)) >= mass);
  return ids.slice(0, end < 0 ? ids.length : end + 1);
}

const byRank = (probabilities: number[]) =>
  probabilities.map((_, id) => id).sort((a, b) => probabilities[b] - probabilities[a]);

export const writeNucleus: Check<[probabilities: number[], mass: number]> = {
  exercise: CHOOSING,
  id: "write-nucleus",
  title: "Write top-p",
  names: ["probabilities", "mass"],
  hints: [
    "First you need the ids in the order of their probabilities, highest first. Sort a list of ids, not `probabilities` itself.",
    "Walk down that list with a running sum. Keep a token as long as the sum *before* it is below `mass`.",
    "Divide what is kept by the running sum at the end, and put it at its id in `result`.",
  ],
  inputs: (random, round) => {
    if (round % 3 !== 1)
      return [drawProbabilities(random, round === 0 ? 1 : random.integer(2, 9)), random.real(0.3, 0.95)];
    // Masses that are reached exactly, by tokens of which none left out is as likely as one that is kept.
    const exact = drawSixteenths(random, (round - 1) / 3);
    const falling = [...exact].sort((a, b) => b - a);
    const ends = falling.flatMap((p, i) => (p > 0 && p !== falling[i + 1] ? [before(falling, i + 1)] : []));
    return [exact, random.pick(ends)];
  },
  rounds: 36,
  expected: (probabilities, mass) => {
    const candidates = probabilities.map((probability, id) => ({ id, probability }));
    const kept = keepTopP(candidates.sort(likelierFirst), mass);
    return probabilities.map((_, id) => kept.find((candidate) => candidate.id === id)?.probability ?? 0);
  },
  mistakes: [
    {
      says: "What is left does not add up to 1: divide by the sum of what was kept.",
      makes: (probabilities, mass) =>
        keptOnly(probabilities, walk(probabilities, byRank(probabilities), mass), 1),
    },
    {
      says: "The token with which the sum reaches `mass` is kept too. You left it out.",
      makes: (probabilities, mass) => {
        const kept = walk(probabilities, byRank(probabilities), mass).slice(0, -1);
        return keptOnly(probabilities, kept, totalOf(probabilities, kept));
      },
    },
    {
      says: "You walk through the tokens in the order of their ids. The likeliest come first.",
      makes: (probabilities, mass) => {
        const kept = walk(probabilities, [...probabilities.keys()], mass);
        return keptOnly(probabilities, kept, totalOf(probabilities, kept));
      },
    },
    {
      says: "You go on when `mass` is reached exactly. The fewest tokens that reach it are enough.",
      makes: (probabilities, mass) => {
        const ids = byRank(probabilities);
        const end = ids.findIndex((_, i) => totalOf(probabilities, ids.slice(0, i + 1)) > mass);
        const kept = ids.slice(0, end < 0 ? ids.length : end + 1);
        return keptOnly(probabilities, kept, totalOf(probabilities, kept));
      },
    },
    {
      says: "You look ids up by their probabilities. Where two are alike that finds the first one twice: sort a list of ids.",
      makes: (probabilities, mass) => {
        const kept = walk(probabilities, byRank(probabilities), mass);
        const found = kept.map((id) => probabilities.indexOf(probabilities[id]));
        return keptOnly(probabilities, found, totalOf(probabilities, kept));
      },
    },
    {
      says: "You divide by `mass`. What was kept has a little more than that together: divide by its own sum.",
      makes: (probabilities, mass) =>
        keptOnly(probabilities, walk(probabilities, byRank(probabilities), mass), mass),
    },
  ],
};

export const predictCache: Check<[]> = {
  exercise: CACHE,
  id: "predict-cache",
  title: "Predict what a cache costs",
  hints: [
    "A token leaves a key and a value behind, in every layer and every key-value head. Query heads leave nothing.",
    "16 layers · 2 · 8 heads · 64 numbers · 4 bytes.",
    "That is 65,536 bytes. 2³¹ divided by it is 2¹⁵.",
  ],
  expected: () => ({
    kibibytes: (16 * 2 * 8 * 64 * 4) / 1024,
    tokens: 2 ** 31 / (16 * 2 * 8 * 64 * 4),
    times: 32 / 8,
  }),
  mistakes: [
    {
      says: "You counted keys or values, but not both.",
      makes: () => ({ kibibytes: 32, tokens: 65_536, times: 4 }),
    },
    {
      says: "Queries are used once and not kept: count the 8 key-value heads, not the 32 query heads.",
      makes: () => ({ kibibytes: 256, tokens: 8192, times: 4 }),
    },
    {
      says: "That is one layer. Each of the 16 has keys and values of its own.",
      makes: () => ({ kibibytes: 4, tokens: 524_288, times: 4 }),
    },
  ],
};

/** What the library makes of some numbers: opens the GPU, reads the result back, frees everything else. */
async function fromLibrary(work: () => Tensor): Promise<Float32Array> {
  await openGpu();
  const result = scope(work);
  const values = await result.array();
  result.free();
  return values;
}

const normals = (random: Random, length: number, size = 1) =>
  Float32Array.from(random.list(length, () => size * random.normal()));

/** Different positions from `first` to `last`, in any order: tokens need not follow each other. */
function drawPositions(random: Random, tokens: number, first: number, last: number): Uint32Array {
  const places = random.list(last - first + 1, (i) => ({ place: first + i, key: random.next() }));
  return Uint32Array.from(
    places
      .sort((a, b) => a.key - b.key)
      .slice(0, tokens)
      .map(({ place }) => place),
  );
}

interface Sizes {
  rows: number;
  tokens: number;
  width: number;
  capacity: number;
}

type CacheWrite = [x: Float32Array, cache: Float32Array, positions: Uint32Array, sizes: Sizes];

function drawCacheWrite(random: Random, round: number): CacheWrite {
  const tokens = round === 0 ? 1 : random.integer(1, 6);
  const capacity = tokens + random.integer(1, 5);
  const sizes = {
    rows: round === 0 ? 1 : random.integer(2, 5),
    tokens,
    width: random.integer(1, 8),
    capacity,
  };
  // Every second time some of the new tokens stand behind the end, one of them at the first place there.
  const positions =
    round % 2 === 0
      ? drawPositions(random, tokens, 1, capacity - 1)
      : drawPositions(random, tokens, capacity - tokens + 1, capacity + 1);
  if (round % 2 === 1) positions[random.integer(0, tokens - 1)] = capacity;
  const { rows, width } = sizes;
  const [x, cache] = [normals(random, rows * tokens * width), normals(random, rows * capacity * width)];
  return [x, cache, positions, sizes];
}

/** Runs a learner's kernel on a cache with something in it: what it leaves alone stays. */
async function runCacheWrite(
  body: unknown,
  [x, before, positions, sizes]: CacheWrite,
): Promise<KernelResult> {
  const count = x.length;
  const frame = { reads: { x, positions }, writes: { cache: before.length }, sizes: { ...sizes, count } };
  const { cache } = await runBody(body, { ...frame, workgroupSize: 64, workgroups: Math.ceil(count / 64) });
  return { cache: cache.map((value, at) => (Number.isNaN(value) ? before[at] : value)) };
}

/** The cache's kernel with its parts open to mistakes. */
const cacheWriteBody = ({
  guard = "if (thread >= count) { return; }",
  place = "positions[token]",
  fits = "place < capacity",
  row = "row * capacity",
}) => `
${guard}
let column = thread % width;
let token = thread / width % tokens;
let row = thread / (width * tokens);
let place = ${place};
if (${fits}) { cache[(${row} + place) * width + column] = x[thread]; }
`;

export const mendCacheWrite: Check<CacheWrite> = {
  exercise: CACHE,
  id: "mend-cache-write",
  title: "Mend the write",
  names: ["x", "cache", "positions", "sizes"],
  rounds: 12,
  hints: [
    "How long is a row of the cache? It is not as long as a row of `x`.",
    "Row r of the cache begins at r · capacity · width.",
    "A `place` of `capacity` or more is not in this row any more: it would be the next row's beginning. Write only if `place < capacity`.",
  ],
  inputs: drawCacheWrite,
  run: (body, ...args) => runCacheWrite(body, args),
  expected: async (x, before, positions, { rows, tokens, width, capacity }) => ({
    cache: await fromLibrary(() => {
      const cache = tensor(before, [rows, capacity, width]);
      const kernel = cacheWriteKernel({ rows, tokens, width, capacity });
      launchInto(kernel, [tensor(x), indices(positions)], [cache]);
      return cache;
    }),
  }),
  mistakes: [
    {
      says: "Both faults are still in: one spoils every cache of more than one row, the other the end of a text.",
      answer: cacheWriteBody({ row: "row * tokens", fits: "true" }),
    },
    {
      says: "Rows are right now. A token behind the end is written all the same: into the next row's first place.",
      answer: cacheWriteBody({ fits: "true" }),
    },
    {
      says: "The end is right now. Rows are not: a row of the cache is `capacity` tokens long, a row of `x` is `tokens`.",
      answer: cacheWriteBody({ row: "row * tokens" }),
    },
    {
      says: "Tokens need not follow each other: token t belongs at `positions[t]`, not t places behind the first one.",
      answer: cacheWriteBody({ place: "positions[0] + token" }),
    },
    {
      says: "You put token t at place t. It belongs where `positions` says: the text has begun before it.",
      answer: cacheWriteBody({ place: "token" }),
    },
  ],
};

type Looking = [scores: Float32Array, positions: Uint32Array, tokens: number, capacity: number];

/** Scores of some queries, many of them beyond what exp can do; behind what they see lies something else. */
function drawLooking(random: Random, round: number): Looking {
  const tokens = round === 0 ? 1 : random.integer(2, 70);
  const capacity = tokens + random.integer(3, 18);
  const positions = drawPositions(random, tokens, 1, capacity - 2);
  const scores = Array.from(positions, (last) => {
    const seen = scoreRow(random, last + 1, 120, round === 0 ? "near" : undefined);
    return [...seen, ...random.list(capacity - seen.length, () => 400 + random.normal())];
  });
  return [Float32Array.from(scores.flat()), positions, tokens, capacity];
}

/** The softmax of a cache's rows with its parts open to mistakes. */
const sharesBody = ({
  guard = "if (thread >= tokens) { return; }",
  last = "positions[thread]",
  upTo = "j <= last",
  compared = "j <= last",
  shift = " - highest",
  hidden = "y[first + j] = 0.0;",
}) => `
${guard}
let first = thread * capacity;
let last = ${last};
var highest = scores[first];
for (var j = 0u; ${compared}; j++) { highest = max(highest, scores[first + j]); }
var total = 0.0;
for (var j = 0u; ${upTo}; j++) { total += exp(scores[first + j]${shift}); }
for (var j = 0u; j < capacity; j++) {
  ${hidden}
  if (${upTo}) { y[first + j] = exp(scores[first + j]${shift}) / total; }
}
`;

export const writeCacheShares: Check<Looking> = {
  exercise: CACHE,
  id: "write-cache-shares",
  title: "Look into the cache",
  names: ["scores", "positions", "tokens", "capacity"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "Leave if `thread >= tokens`. A row begins at `thread * capacity`, and its query sees the keys up to `positions[thread]`.",
    "Softmax in three loops: the highest score, the sum of `exp(score - highest)`, the shares. The first two go over what is seen only.",
    "The last loop goes over the whole row: a share where `j <= positions[thread]`, else 0.0.",
  ],
  inputs: drawLooking,
  run: (body, scores, positions, tokens, capacity) =>
    runBody(body, {
      reads: { scores, positions },
      writes: { y: tokens * capacity },
      workgroupSize: 64,
      workgroups: Math.ceil(tokens / 64),
      sizes: { tokens, capacity },
    }),
  expected: async (scores, positions, tokens, capacity) => ({
    y: await fromLibrary(() =>
      causalSoftmax(tensor(scores, [1, 1, tokens, capacity]), indices(positions), 1),
    ),
  }),
  mistakes: [
    {
      says: "Your queries see the whole cache. What lies behind a query's position is left over from other texts.",
      answer: sharesBody({ upTo: "j < capacity", compared: "j < capacity" }),
    },
    {
      says: "A query sees its own key too: j ≤ its position, not only j < its position.",
      answer: sharesBody({ upTo: "j < last", compared: "j < last" }),
    },
    {
      says: "Queries need not follow each other: query t stands at `positions[t]`, not t places behind the first one.",
      answer: sharesBody({ last: "positions[0] + thread" }),
    },
    {
      says: "You subtract the row's first score. Where the highest lies far above it, exp overflows all the same: subtract the highest.",
      answer: sharesBody({ shift: " - scores[first]" }),
    },
    {
      says: "Query t does not stand at place t: the text has begun before it. Its place is `positions[thread]`.",
      answer: sharesBody({ last: "thread" }),
    },
    {
      says: "The places that a query does not see were never written. They must be 0: whoever multiplies by them next trusts in it.",
      answer: sharesBody({ hidden: "" }),
    },
    {
      says: "Rows near zero are right. Far from zero exp overflows or vanishes: subtract the highest score first.",
      answer: sharesBody({ shift: "" }),
    },
    {
      says: "You look for the highest score in the whole row, leftovers included. Where those are high, every share vanishes.",
      answer: sharesBody({ compared: "j < capacity" }),
    },
    {
      says: "Some threads have no query, and yours write all the same: begin with `if (thread >= tokens) { return; }`.",
      answer: sharesBody({ guard: "" }),
    },
  ],
};

export const predictKept: Check<[]> = {
  exercise: GUESSING,
  id: "predict-kept",
  title: "Predict what is kept",
  hints: [
    "Of each token's guesses, those that the model would have drawn too are kept: as much of it as p and q have in common.",
    "The share is the sum of the smaller of p and q: 0.2 + 0.3 + 0.2.",
    "Only the first token has more of p than of q. So it is all of the rest.",
  ],
  expected: () => ({ share: 0.7, second: 0.5, instead: 1 }),
  mistakes: [
    {
      says: "0.32 is how often two independent draws agree. A guess is kept more often than that: min(p, q) of each token.",
      makes: () => ({ share: 0.32, second: 0.5, instead: 1 }),
    },
    {
      says: "The second token is kept with p / q, not with p: the draft has guessed it already.",
      makes: () => ({ share: 0.7, second: 0.3, instead: 1 }),
    },
    {
      says: "What is drawn instead comes from what p has more than q, not from all of p.",
      makes: () => ({ share: 0.7, second: 0.5, instead: 0.5 }),
    },
    {
      says: "0.3 is what the rest is before it is scaled up to 1. It is all that there is.",
      makes: () => ({ share: 0.7, second: 0.5, instead: 0.3 }),
    },
  ],
};

/** The token on which a number points, when weights are laid end to end. */
function pointedAt(weights: number[], uniform: number): number {
  const id = weights.findIndex((_, i) => uniform < before(weights, i + 1));
  return id < 0 ? weights.length - 1 : id;
}

/** What is left of p where q is less, scaled up to 1. */
function restOf(p: number[], q: number[]): number[] {
  const rest = p.map((probability, id) => Math.max(0, probability - q[id]));
  return rest.map((more) => more / sum(rest));
}

const candidatesOf = (probabilities: number[]) =>
  probabilities.map((probability, id) => ({ id, probability }));

type Settled = [p: number[], q: number[], guess: number, uniform: number];

/** Tokens that are about equally likely, of which the draft overrates the one that it guesses, which is dropped. */
function drawOverrated(random: Random): Settled {
  const weights = random.list(random.integer(5, 8), () => random.real(1, 1.5));
  const p = weights.map((weight) => weight / sum(weights));
  const [guess, factor] = [random.integer(0, p.length - 1), random.real(1.2, 2.5)];
  const others = (1 - factor * p[guess]) / (1 - p[guess]);
  const q = p.map((probability, id) => probability * (id === guess ? factor : others));
  return [p, q, guess, random.real(1 / factor + 0.001, 0.999)];
}

export const writeSettled: Check<Settled> = {
  exercise: GUESSING,
  id: "write-settled",
  title: "Write the rule",
  names: ["p", "q", "guess", "uniform"],
  rounds: 48,
  hints: [
    "First the quotient: `const kept = p[guess] / q[guess]`. Is the random number below it?",
    "The rest is max(0, p − q) of each token. Divide it by its sum.",
    "A number that is not below `kept` lies between `kept` and 1. `(uniform - kept) / (1 - kept)` lies between 0 and 1.",
  ],
  inputs: (random, round) => {
    // Every fourth time the random number is exactly the chance of being kept.
    if (round % 4 === 1)
      return [[0.25, 0.5, 0.125, 0.125], [0.5, 0.125, 0.25, 0.125], random.pick([0, 2]), 0.5];
    if (round % 4 === 2) return drawOverrated(random);
    if (round === 0) return [[0.3, 0.5, 0.2], [0.2, 0.1, 0.7], 0, 0.9]; // the draft underrates its guess
    const count = random.integer(2, 7);
    const [p, q] = [drawProbabilities(random, count), drawProbabilities(random, count)];
    return [p, q, pointedAt(q, random.next()), random.next()];
  },
  expected: (p, q, guess, uniform) =>
    settle(candidatesOf(p), { id: guess, candidates: candidatesOf(q) }, uniform),
  mistakes: [
    {
      says: "You draw from all of p when a guess is dropped. Tokens that the draft likes would then come too often: draw from what p has more than q.",
      makes: (p, q, guess, uniform) => {
        const kept = p[guess] / q[guess];
        return uniform < kept ? guess : pointedAt(p, (uniform - kept) / (1 - kept));
      },
    },
    {
      says: "Upside down: the guess is kept with p / q, the model's probability divided by the draft's.",
      makes: (p, q, guess, uniform) => {
        const kept = q[guess] / p[guess];
        return uniform < kept ? guess : pointedAt(restOf(p, q), (uniform - kept) / (1 - kept));
      },
    },
    {
      says: "The random number that dropped the guess is a large one. Stretch it before it draws: (uniform − kept) / (1 − kept).",
      makes: (p, q, guess, uniform) =>
        uniform < p[guess] / q[guess] ? guess : pointedAt(restOf(p, q), uniform),
    },
    {
      says: "The rest does not add up to 1. Divide it by its sum before you draw.",
      makes: (p, q, guess, uniform) => {
        const kept = p[guess] / q[guess];
        const rest = p.map((probability, id) => Math.max(0, probability - q[id]));
        return uniform < kept ? guess : pointedAt(rest, (uniform - kept) / (1 - kept));
      },
    },
    {
      says: "A number exactly as large as the chance of being kept does not keep: ask whether it is *below*.",
      makes: (p, q, guess, uniform) => {
        const kept = p[guess] / q[guess];
        return uniform <= kept ? guess : pointedAt(restOf(p, q), (uniform - kept) / (1 - kept));
      },
    },
    {
      says: "You keep every guess. Where the draft thinks more of a token than the model, some of its guesses have to go.",
      makes: (_p, _q, guess) => guess,
    },
  ],
};

export const predictSpeed: Check<[]> = {
  exercise: LOOKUP,
  id: "predict-speed",
  title: "Predict what guesses bring",
  tolerance: 0.006,
  hints: [
    "One token is certain. The first guess adds 0.8, the second 0.8², since it counts only if the first was kept too.",
    "1 + 0.8 + 0.64 + 0.512 tokens. A pass with three steps of the draft takes 1 + 3 · 0.2.",
    "If the draft is as slow as the model, the pass takes 1 + 3.",
  ],
  expected: () => ({ tokens: 2.952, speed: 2.952 / 1.6, slow: 2.952 / 4 }),
  mistakes: [
    {
      says: "The second guess counts only if the first was kept: not three times 0.8, but 0.8 + 0.8² + 0.8³.",
      makes: () => ({ tokens: 3.4, speed: 3.4 / 1.6, slow: 3.4 / 4 }),
    },
    {
      says: "You have forgotten the model's own token: every pass writes one, whatever becomes of the guesses.",
      makes: () => ({ tokens: 1.952, speed: 1.952 / 1.6, slow: 1.952 / 4 }),
    },
    {
      says: "The draft takes three steps a pass, one for each guess. You counted one.",
      makes: () => ({ tokens: 2.952, speed: 2.952 / 1.2, slow: 2.952 / 2 }),
    },
    {
      says: "The pass of the model itself takes time too: 1 + 3 · 0.2, not 3 · 0.2.",
      makes: () => ({ tokens: 2.952, speed: 2.952 / 0.6, slow: 2.952 / 3 }),
    },
  ],
};

/** What followed an earlier place of the last `length` tokens: the latest, or the first; undefined where there is none. */
function followed(text: number[], length: number, count: number, isFirst = false): number[] | undefined {
  const end = text.slice(text.length - length).join();
  const places = Array.from({ length: text.length - length }, (_, at) => at);
  const fitting = places.filter((at) => text.slice(at, at + length).join() === end);
  const at = isFirst ? fitting[0] : fitting[fitting.length - 1];
  return at === undefined ? undefined : text.slice(at + length, at + length + count);
}

const lengthsDown = (text: number[], longest: number) =>
  Array.from({ length: Math.max(0, Math.min(longest, text.length - 1)) }, (_, i) => i + 1).reverse();

/** The first of some lists that is there. */
const firstOf = (lists: (number[] | undefined)[]) => lists.find((list) => list !== undefined) ?? [];

export const writeLookup: Check<[text: number[], count: number, longest: number]> = {
  exercise: LOOKUP,
  id: "write-lookup",
  title: "Write the lookup",
  names: ["text", "count", "longest"],
  rounds: 60,
  hints: [
    "Two loops: over the length of the run, from the longest down to 1, and over the places, from the latest back to the first.",
    "A place fits if the tokens from it on are the last ones of the text. `slice` and `join` compare two runs at once.",
    "What followed begins right behind the run, and ends after `count` tokens or with the text.",
  ],
  inputs: (random, round) => {
    const kinds = random.integer(1, 4);
    const text = random.list(round === 0 ? 1 : random.integer(2, 16), () => random.integer(1, kinds));
    return [text, random.integer(1, 4), random.integer(1, 3)];
  },
  expected: async (text, count, longest) => {
    const guesses = await lookupDraft(longest).guess(text, count, { ...plainGenerate, maxTokens: 1 }, 0);
    return guesses.map(({ id }) => id);
  },
  mistakes: [
    {
      says: "You found an earlier place, but not the latest: go through the places from the end to the beginning.",
      makes: (text, count, longest) =>
        firstOf(lengthsDown(text, longest).map((length) => followed(text, length, count, true))),
    },
    {
      says: "Longer runs come first: three tokens that were seen before say more than one.",
      makes: (text, count, longest) =>
        firstOf(
          lengthsDown(text, longest)
            .reverse()
            .map((length) => followed(text, length, count)),
        ),
    },
    {
      says: "Where the longest run was never there before, try shorter ones.",
      makes: (text, count, longest) => firstOf([followed(text, Math.min(longest, text.length - 1), count)]),
    },
    {
      says: "You return more than `count` tokens.",
      makes: (text, _count, longest) =>
        firstOf(lengthsDown(text, longest).map((length) => followed(text, length, text.length))),
    },
    {
      says: "You have found the end of the text itself, which nothing follows. Look at earlier places only.",
      makes: () => [],
    },
  ],
};
