// The checks of chapter 3's exercises.
import {
  combineKernel,
  type DispatchShape,
  dispatchTiles,
  gatherKernel,
  gradients,
  indices,
  launch,
  multiply,
  openGpu,
  padding,
  parameter,
  route,
  sum,
  tensor,
} from "tslm";
import { dropBeyond, planDispatch } from "tslm/model/moe";
import { type Check, type KernelResult, type Random, runBody } from "tslm/notebook";

const ROUTING = "03-moe/1-routing";
const CARRYING = "03-moe/2-there-and-back";
const CROWDS = "03-moe/3-crowds";

const total = (values: number[]) => values.reduce((a, b) => a + b, 0);

export const predictChoice: Check<[]> = {
  exercise: ROUTING,
  id: "predict-choice",
  title: "Predict a choice",
  hints: [
    "The two highest probabilities are both 0.4. Of equals, the lower index comes first.",
    "The weights of the chosen are their probabilities divided by the sum of the chosen ones.",
    "The third place is a tie as well: 0.1 and 0.1.",
  ],
  expected: () => ({ two: [0, 2], weightsOfTwo: [0.5, 0.5], three: [0, 2, 1] }),
  mistakes: [
    {
      says: "The weights of the chosen must add up to 1: divide 0.4 by 0.4 + 0.4.",
      makes: () => ({ two: [0, 2], weightsOfTwo: [0.4, 0.4], three: [0, 2, 1] }),
    },
    {
      says: "Of equal probabilities the lower index comes first: 0 before 2, and 1 before 3.",
      makes: () => ({ two: [2, 0], weightsOfTwo: [0.5, 0.5], three: [2, 0, 3] }),
    },
    {
      says: "The chosen stand in the order of their probabilities, so expert 1 with 0.1 comes last.",
      makes: () => ({ two: [0, 2], weightsOfTwo: [0.5, 0.5], three: [0, 1, 2] }),
    },
  ],
};

/** Logits in steps of a half, so that equal ones occur and different ones are clearly different; at times all far from 0. */
function drawLogits(random: Random, round: number): [number[], number] {
  const experts = [1, 2, 4][round] ?? random.integer(3, 12);
  const k = round === 0 ? 1 : random.integer(1, Math.min(4, experts));
  const middle = random.pick([0, 0, 40, -40]);
  return [random.list(experts, () => middle + random.integer(-4, 4) / 2), k];
}

/** The router on arrays with its parts open to mistakes. */
function routeWith(
  logits: number[],
  k: number,
  { later = false, divide = true, byIndex = false, raw = false },
): { experts: number[]; weights: number[] } {
  const exps = logits.map((x) => Math.exp(x));
  const p = raw ? logits : exps.map((x) => x / total(exps));
  const order = p.map((_, e) => e).sort((a, b) => p[b] - p[a] || (later ? b - a : a - b));
  const experts = order.slice(0, k);
  if (byIndex) experts.sort((a, b) => a - b);
  const share = divide ? total(experts.map((e) => p[e])) : 1;
  return { experts, weights: experts.map((e) => p[e] / share) };
}

export const writeRouter: Check<[number[], number]> = {
  exercise: ROUTING,
  id: "write-router",
  title: "Route one token",
  names: ["logits", "k"],
  hints: [
    "Three steps: probabilities from the logits, the k highest, their weights.",
    "Make a list of the indices 0, 1, 2, … and sort it by probability: `(a, b) => p[b] - p[a] || a - b` puts the lower index first among equals.",
    "Take the first k of the sorted indices, and divide each one's probability by the sum over those k.",
  ],
  inputs: drawLogits,
  expected: async (logits, k) => {
    await openGpu();
    const routed = route(tensor(logits, [1, logits.length]), { expertsPerToken: k, normalize: true });
    return { experts: [...(await routed.experts.array())], weights: [...(await routed.weights.array())] };
  },
  mistakes: [
    {
      says: "The weights do not add up to 1: divide them by the sum over the chosen experts.",
      makes: (logits, k) => routeWith(logits, k, { divide: false }),
    },
    {
      says: "Of equal probabilities the lower index comes first. Yours takes the higher one.",
      makes: (logits, k) => routeWith(logits, k, { later: true }),
    },
    {
      says: "The right experts in the wrong order: the likeliest comes first, whatever its index.",
      makes: (logits, k) => routeWith(logits, k, { byIndex: true }),
    },
    {
      says: "You divide logits by their sum. Weights come from probabilities: take exp of the logits first.",
      makes: (logits, k) => routeWith(logits, k, { raw: true }),
    },
  ],
};

/** Weights that add up to 1, at times all the same, and a gradient for each. */
function drawWeights(random: Random, round: number): [number[], number[]] {
  const spread = random.pick([0, 1, 3]);
  const logits = random.list([1, 2][round] ?? random.integer(2, 6), () => spread * random.normal());
  const exps = logits.map((x) => Math.exp(x)).sort((a, b) => b - a);
  return [exps.map((x) => x / total(exps)), random.list(exps.length, () => 3 * random.normal())];
}

export const writeRouterGradient: Check<[number[], number[]]> = {
  exercise: ROUTING,
  id: "write-router-gradient",
  title: "The gradient of the chosen logits",
  names: ["weights", "gradient"],
  tolerance: 1e-4,
  hints: [
    "Normalised weights are a softmax over the chosen logits alone, so this is the gradient of softmax.",
    "One number is the same for all: s, the sum of weight times gradient.",
    "The logit of each chosen expert gets its weight times (its gradient − s).",
  ],
  inputs: drawWeights,
  expected: async (weights, gradient) => {
    await openGpu();
    // Every expert is visited, so the logits are the logarithms of the weights.
    const logits = parameter(tensor(weights.map(Math.log), [1, weights.length]));
    const routed = route(logits, { expertsPerToken: weights.length, normalize: true });
    const loss = sum(multiply(routed.weights, tensor(gradient, [1, gradient.length])));
    const [slopes, experts] = [await gradients(loss, [logits])[0].array(), await routed.experts.array()];
    return [...experts].map((e) => slopes[e]);
  },
  mistakes: [
    {
      says: "You left out s: a weight can only grow at the cost of the others.",
      makes: (weights, gradient) => weights.map((w, j) => w * gradient[j]),
    },
    {
      says: "s is a *weighted* sum: each gradient counts by its weight, not one like the other.",
      makes: (weights, gradient) =>
        weights.map((w, j) => w * (gradient[j] - total(gradient) / weights.length)),
    },
    {
      says: "The difference to s must still be multiplied by the weight.",
      makes: (weights, gradient) => gradient.map((g) => g - total(weights.map((w, j) => w * gradient[j]))),
    },
  ],
};

type Grouping = [logits: number[], bias: number[], groups: { count: number; kept: number }, k: number];

/** In every second round few different scores and no bias, so that groups and experts tie; else none do, or rounding would decide. */
function drawGroups(random: Random, round: number): Grouping {
  const ties = round % 2 === 0;
  const [count, members] = round === 0 ? [2, 1] : [random.integer(2, 5), random.integer(3, 4)];
  const kept = random.integer(1, Math.min(2, count - 1));
  const k = round === 0 ? 1 : random.integer(2, 3);
  const logits = random.list(count * members, () => (ties ? random.integer(0, 1) : 2 * random.normal()));
  const bias = random.list(count * members, () => (ties ? 0 : 0.4 * random.normal()));
  return [logits, bias, { count, kept }, k];
}

/** The router with sigmoids, bias and groups, its parts open to mistakes. */
function groupsWith(
  [logits, bias, { count, kept }, k]: Grouping,
  { two = true, biasedGroups = true, grouped = true, biasedWeights = false, divided = true, later = false },
): { experts: number[]; weights: number[] } {
  const scores = logits.map((x) => 1 / (1 + Math.exp(-x)));
  const forChoice = scores.map((score, e) => score + bias[e]);
  const best = (values: number[], some: number) =>
    values
      .map((_, i) => i)
      .sort((a, b) => values[b] - values[a] || (later ? b - a : a - b))
      .slice(0, some);
  const members = logits.length / count;
  const worth = Array.from({ length: count }, (_, group) => {
    const own = (biasedGroups ? forChoice : scores).slice(group * members, (group + 1) * members);
    return total(best(own, two ? 2 : 1).map((i) => own[i]));
  });
  const groups = best(worth, kept);
  const isKept = (e: number) => !grouped || groups.includes(Math.floor(e / members));
  const experts = best(
    forChoice.map((value, e) => (isKept(e) ? value : -Infinity)),
    k,
  );
  const counted = experts.map((e) => (biasedWeights ? forChoice : scores)[e]);
  return { experts, weights: counted.map((score) => (divided ? score / total(counted) : score)) };
}

export const writeGroups: Check<Grouping> = {
  exercise: ROUTING,
  id: "write-groups",
  title: "Route in groups",
  names: ["logits", "bias", "groups", "k"],
  rounds: 30,
  tolerance: 1e-4,
  hints: [
    "Four steps: scores and scores for the choice, what each group is worth, the k highest in the kept groups, their weights.",
    "Make a helper that gives the places of the highest of some values, lower place first among equals: you need it for groups and for experts.",
    "Give the experts of groups that are not kept the value −Infinity before you choose. The weights are `scores[e]` divided by their sum, without the bias.",
  ],
  inputs: drawGroups,
  expected: async (logits, bias, groups, k) => {
    await openGpu();
    const settings = { expertsPerToken: k, normalize: true, scoring: "sigmoid" as const, groups };
    const routed = route(tensor(logits, [1, logits.length]), { ...settings, bias: tensor(bias) });
    return { experts: [...(await routed.experts.array())], weights: [...(await routed.weights.array())] };
  },
  mistakes: [
    {
      says: "The bias is for the choice alone: weights come from the scores without it.",
      makes: (...given) => groupsWith(given, { biasedWeights: true }),
    },
    {
      says: "A group is worth the sum of its two best experts, not its best one alone.",
      makes: (...given) => groupsWith(given, { two: false }),
    },
    {
      says: "What a group is worth is counted with the bias, as the choice is.",
      makes: (...given) => groupsWith(given, { biasedGroups: false }),
    },
    {
      says: "Experts of groups that are not kept are out of the game, however high they score.",
      makes: (...given) => groupsWith(given, { grouped: false }),
    },
    {
      says: "The weights do not add up to 1: divide them by the sum over the chosen experts.",
      makes: (...given) => groupsWith(given, { divided: false }),
    },
    {
      says: "Of equals the lower index comes first, among groups and among experts.",
      makes: (...given) => groupsWith(given, { later: true }),
    },
  ],
};

export const predictBias: Check<[]> = {
  exercise: CROWDS,
  id: "predict-bias",
  title: "Predict a bias",
  hints: [
    "The mean load is 40 / 4 = 10.",
    "Above the mean a bias goes down by the rate, below it goes up; how far above or below makes no difference.",
    "Expert 1 has exactly the mean: its bias stays.",
  ],
  expected: () => [0.375, 0.25, -0.125, -0.125],
  mistakes: [
    {
      says: "The wrong way round: crowded experts become less attractive, idle ones more.",
      makes: () => [0.625, 0.25, 0.125, -0.375],
    },
    {
      says: "Only the sign counts. Expert 3 is nine pairs below the mean and moves as far as any other.",
      makes: () => [0.5 - 6 * 0.125, 0.25, -3 * 0.125, -0.25 + 9 * 0.125],
    },
    {
      says: "An expert whose load is the mean keeps its bias: the sign of 0 is 0.",
      makes: () => [0.375, 0.375, -0.125, -0.125],
    },
  ],
};

type Crowd = [experts: number[], weights: number[], capacity: number];

/** Pairs with their experts, some of which are crowded. */
function drawCrowd(random: Random, round: number): Crowd {
  const pairs = [1, 6][round] ?? random.integer(6, 30);
  const experts = random.integer(2, 5);
  const chosen = random.list(pairs, () =>
    Math.min(random.integer(0, experts - 1), random.integer(0, experts - 1)),
  );
  return [
    chosen,
    random.list(pairs, () => random.integer(1, 99) / 100),
    round === 0 ? 1 : random.integer(1, 4),
  ];
}

/** The door with its parts open to mistakes. */
function doorWith(
  [experts, weights, capacity]: Crowd,
  { extra = 0, last = false, shared = false, removed = false },
): number[] {
  const taken = new Map<number, number>();
  const order = experts.map((_, pair) => pair);
  if (last) order.reverse();
  const kept = weights.map(() => 0);
  for (const pair of order) {
    const expert = shared ? 0 : experts[pair];
    const before = taken.get(expert) ?? 0;
    taken.set(expert, before + 1);
    if (before < capacity + extra) kept[pair] = weights[pair];
  }
  return removed ? kept.filter((weight) => weight > 0) : kept;
}

export const writeCapacity: Check<Crowd> = {
  exercise: CROWDS,
  id: "write-capacity",
  title: "Close the door",
  names: ["experts", "weights", "capacity"],
  rounds: 10,
  hints: [
    "Go through the pairs in order and remember how many each expert has taken.",
    "A pair is served when its expert has taken fewer than `capacity` before it.",
    "A `Map` from the expert to its count, and `weights.map((weight, pair) => …)`.",
  ],
  inputs: drawCrowd,
  expected: async (experts, weights, capacity) => {
    await openGpu();
    const chosen = indices(experts, [experts.length, 1]);
    const plan = planDispatch(chosen, 5);
    return [...(await dropBeyond(capacity, tensor(weights, [experts.length, 1]), chosen, plan).array())];
  },
  mistakes: [
    {
      says: "One too many: an expert that has taken `capacity` pairs is full.",
      makes: (...given) => doorWith(given, { extra: 1 }),
    },
    {
      says: "The first come are the first served. Yours serves the last.",
      makes: (...given) => doorWith(given, { last: true }),
    },
    {
      says: "Each expert has a door of its own: count the pairs of every expert apart.",
      makes: (...given) => doorWith(given, { shared: true }),
    },
    {
      says: "A dropped pair keeps its place in the list, with a weight of zero.",
      makes: (...given) => doorWith(given, { removed: true }),
    },
  ],
};

export const predictSort: Check<[]> = {
  exercise: CARRYING,
  id: "predict-sort",
  title: "Predict a counting sort",
  hints: [
    "Expert 0 has the pairs 1 and 4, expert 1 has 0, 2, 3 and 5.",
    "Expert 0 needs 2 rows and gets a whole tile of 4. Expert 1 begins behind that tile.",
    "Pairs of one expert keep their order: 0, 2, 3, 5 go to rows 4, 5, 6, 7.",
  ],
  expected: () => ({ load: [2, 4], rows: 8, slots: [4, 0, 5, 6, 1, 7] }),
  mistakes: [
    {
      says: "No tile may hold rows of two experts: expert 1 begins at row 4, behind expert 0's padding.",
      makes: () => ({ load: [2, 4], rows: 6, slots: [2, 0, 3, 4, 1, 5] }),
    },
    {
      says: "`slots` says for each *pair* which row it gets. You wrote which pair each row holds.",
      makes: () => ({ load: [2, 4], rows: 8, slots: [1, 4, 0, 2, 3, 5] }),
    },
    {
      says: "Pairs of one expert keep their order: pair 0 is the first of expert 1, so it gets row 4.",
      makes: () => ({ load: [2, 4], rows: 8, slots: [7, 1, 6, 5, 0, 4] }),
    },
  ],
};

/** Tokens, the experts they chose, and how wide a row is. */
function drawDispatch(random: Random, round: number) {
  const tokens = [1, 5, 70][round] ?? random.integer(2, 60);
  const experts = random.integer(2, 9);
  const expertsPerToken = round < 2 ? 2 : random.integer(1, Math.min(3, experts));
  const chosen = random.list(tokens, () => {
    const first = random.integer(0, experts - 1);
    return random.list(expertsPerToken, (j) => (first + j) % experts);
  });
  const shape: DispatchShape = { tokens, expertsPerToken, experts, tile: 4 };
  return { shape, ...sortPairs(chosen.flat(), shape), columns: round === 0 ? 1 : random.integer(2, 9) };
}

/** A stable counting sort on arrays: the row of each pair, and the pair of each row. */
function sortPairs(chosen: number[], shape: DispatchShape): { slots: Uint32Array; pairs: Uint32Array } {
  const { experts, tile } = shape;
  const pairs = new Uint32Array(dispatchTiles(shape) * tile).fill(padding);
  const slots = new Uint32Array(chosen.length);
  let row = 0;
  for (let e = 0; e < experts; e++) {
    for (const [pair, expert] of chosen.entries()) {
      if (expert !== e) continue;
      slots[pair] = row;
      pairs[row++] = pair;
    }
    row = Math.ceil(row / tile) * tile;
  }
  return { slots, pairs };
}

const floats = (random: Random, length: number) => Float32Array.from(random.list(length, random.normal));

type Gathering = [x: Float32Array, pairs: Uint32Array, choices: number, columns: number];

/** The gather kernel with its parts open to mistakes. */
const gatherBody = ({
  guard = "if (thread >= rows * columns) { return; }",
  token = "pair / choices",
  none = "if (pair == padding) { y[thread] = 0.0; return; }",
  column = "thread % columns",
}) => `
${guard}
let pair = pairs[thread / columns];
${none}
let token = ${token};
y[thread] = x[token * columns + ${column}];
`;

export const mendGather: Check<Gathering> = {
  exercise: CARRYING,
  id: "mend-gather",
  title: "Mend the gather",
  names: ["x", "pairs", "choices", "columns"],
  rounds: 7,
  hints: [
    "With two choices a token, pairs 0 and 1 belong to token 0, pairs 2 and 3 to token 1. Which operation on the pair's number gives that?",
    "Rows of padding hold `padding` instead of a pair. What must stand there, and what does the kernel read for it?",
    "`let token = pair / choices;`, and before it `if (pair == padding) { y[thread] = 0.0; return; }`.",
  ],
  inputs: (random, round) => {
    const { shape, pairs, columns } = drawDispatch(random, round);
    return [floats(random, shape.tokens * columns), pairs, shape.expertsPerToken, columns];
  },
  run: (body, x, pairs, choices, columns) =>
    runBody(body, {
      reads: { x, pairs },
      writes: { y: pairs.length * columns },
      workgroupSize: 64,
      workgroups: Math.ceil((pairs.length * columns) / 64),
      sizes: { rows: pairs.length, columns, choices },
      head: `const padding = ${padding}u;`,
    }),
  expected: async (x, pairs, choices, columns): Promise<KernelResult> => {
    await openGpu();
    // The kernel goes by the lengths of its arrays; this shape only makes the grid large enough.
    const shape = { tokens: pairs.length, expertsPerToken: choices, experts: 1, tile: 1 };
    const kernel = gatherKernel(shape, columns, false);
    const gathered = launch(kernel, [tensor(x), indices(pairs)], [pairs.length, columns]);
    return { y: await gathered.array() };
  },
  mistakes: [
    {
      says: "Both faults are still in: tokens get the rows of others, and padding is not zero.",
      answer: gatherBody({ token: "pair % choices", none: "" }),
    },
    {
      says: "Rows of padding must be zero. There `pair` is `padding`, and no token has that number.",
      answer: gatherBody({ none: "" }),
    },
    {
      says: "`pair % choices` is which choice of its token a pair is. Which token it belongs to is `pair / choices`.",
      answer: gatherBody({ token: "pair % choices" }),
    },
    {
      says: "Leaving a row of padding out is not enough: memory holds whatever was there before. Write the zero.",
      answer: gatherBody({ none: "if (pair == padding) { return; }" }),
    },
    {
      says: "More threads start than there are elements. Keep the first line.",
      answer: gatherBody({ guard: "" }),
    },
  ],
};

type Combining = [
  rows: Float32Array,
  slots: Uint32Array,
  weights: Float32Array,
  choices: number,
  columns: number,
];

/** The combine kernel with its parts open to mistakes. */
const combineBody = ({
  guard = "if (thread >= tokens * columns) { return; }",
  row = "slots[pair]",
  weight = "weights[pair] * ",
  first = "token * choices",
}) => `
${guard}
let token = thread / columns;
var sum = 0.0;
for (var j = 0u; j < choices; j++) {
  let pair = ${first} + j;
  sum += ${weight}rows[${row} * columns + thread % columns];
}
y[thread] = sum;
`;

export const writeCombine: Check<Combining> = {
  exercise: CARRYING,
  id: "write-combine",
  title: "Write the combine",
  names: ["rows", "slots", "weights", "choices", "columns"],
  tolerance: 1e-4,
  rounds: 7,
  hints: [
    "One thread makes one element: its token is `thread / columns`, its column `thread % columns`.",
    "The pairs of a token are `token * choices + j`, with j from 0 to `choices - 1`. Add up over them.",
    "The row of a pair is `slots[pair]`: its element is `rows[slots[pair] * columns + thread % columns]`, times `weights[pair]`.",
  ],
  inputs: (random, round) => {
    const { shape, slots, pairs, columns } = drawDispatch(random, round);
    const weights = floats(random, slots.length);
    return [floats(random, pairs.length * columns), slots, weights, shape.expertsPerToken, columns];
  },
  run: (body, rows, slots, weights, choices, columns) => {
    const tokens = slots.length / choices;
    return runBody(body, {
      reads: { rows, slots, weights },
      writes: { y: tokens * columns },
      workgroupSize: 64,
      workgroups: Math.ceil((tokens * columns) / 64),
      sizes: { tokens, columns, choices },
    });
  },
  expected: async (rows, slots, weights, choices, columns): Promise<KernelResult> => {
    await openGpu();
    const tokens = slots.length / choices;
    const shape = { tokens, expertsPerToken: choices, experts: 1, tile: 1 };
    const kernel = combineKernel(shape, columns, { weighted: true });
    const combined = launch(kernel, [tensor(rows), indices(slots), tensor(weights)], [tokens, columns]);
    return { y: await combined.array() };
  },
  mistakes: [
    {
      says: "The weights are missing: each row counts by the weight of its pair.",
      answer: combineBody({ weight: "" }),
    },
    {
      says: "Rows are sorted by expert, not by token: a pair's row is `slots[pair]`.",
      answer: combineBody({ row: "pair" }),
    },
    {
      says: "The pairs of a token begin at `token * choices`. Yours begin at `token`.",
      answer: combineBody({ first: "token" }),
    },
    {
      says: "More threads start than there are elements: begin with `if (thread >= tokens * columns) { return; }`.",
      answer: combineBody({ guard: "" }),
    },
  ],
};
