// Made from solutions/05-inference/checks.ts by `npm run exercises`, as 43c70aee4919df25
// The checks of chapter 5's exercises.
import {
  cacheWriteKernel,
  causalSoftmax,
  indices,
  keepMinP,
  keepTopP,
  launchInto,
  likelierFirst,
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
const LOOKUP = "05-inference/6-look-it-up";

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

// ------------------------------------------------------------------------------------------------- Many at once

const BLOCKS = "05-inference/3-blocks-and-owners";
const PREFIX = "05-inference/4-a-known-beginning";

export const predictSharing: Check<[]> = {
  exercise: BLOCKS,
  id: "predict-sharing",
  title: "Predict what is shared",
  hints: [
    "100 tokens are six whole blocks and four tokens.",
    "Each text keeps its own tokens from number 96 on: 4 of the prompt and 20 more.",
    "One text computes the whole prompt, the other three only what no whole block holds.",
  ],
  expected: () => ({
    shared: 6 + 4 * Math.ceil(24 / 16),
    apart: 4 * Math.ceil(120 / 16),
    computed: 100 + 3 * 4,
  }),
  mistakes: [
    {
      says: "The prompt's last four tokens fill no block, so they cannot be shared: each text has them in a block of its own.",
      makes: () => ({ shared: 7 + 4 * 2, apart: 32, computed: 100 }),
    },
    {
      says: "24 tokens need two blocks, the second of which is half empty.",
      makes: () => ({ shared: 10, apart: 32, computed: 112 }),
    },
    {
      says: "Whole blocks that are shared are computed once, for all four.",
      makes: () => ({ shared: 14, apart: 32, computed: 400 }),
    },
  ],
};

type Releasing = [owners: number[], idle: number[], blocks: number[]];

/** Takes owners away from blocks in this order, and lists those that become free at the end, or elsewhere. */
function withoutOwners(
  owners: number[],
  idle: number[],
  blocks: number[],
): { owners: number[]; idle: number[] } {
  const left = owners.map((count, block) => count - (blocks.includes(block) ? 1 : 0));
  return { owners: left, idle: [...idle, ...blocks.filter((block) => left[block] === 0)] };
}

export const releaseBlocks: Check<Releasing> = {
  exercise: BLOCKS,
  id: "release-blocks",
  title: "Give back",
  names: ["owners", "idle", "blocks"],
  hints: [
    "Copy the lists first, and go through the blocks from the last to the first.",
    "A block that still has an owner is not free.",
    "The one that becomes free last stands at the end of `idle`.",
  ],
  inputs: (random, round) => {
    const count = random.integer(4, 10);
    const order = random.list(count, () => random.next());
    const shuffled = [...order.keys()].sort((a, b) => order[a] - order[b]);
    const cut = random.integer(0, count - 1);
    const blocks = shuffled.slice(cut);
    const owners = order.map((_, block) => (blocks.includes(block) ? random.pick([1, 1, 2, 3]) : 0));
    return [owners, shuffled.slice(0, cut), round === 0 ? [] : blocks];
  },
  expected: (owners, idle, blocks) => withoutOwners(owners, idle, [...blocks].reverse()),
  mistakes: [
    {
      says: "The end of the text should go before its beginning: give the last block back first.",
      makes: withoutOwners,
    },
    {
      says: "A block that another text has is not free.",
      makes: (owners, idle, blocks) => ({
        owners: withoutOwners(owners, idle, blocks).owners,
        idle: [...idle, ...[...blocks].reverse()],
      }),
    },
    {
      says: "Blocks that become free now were used a moment ago: they go to the end of `idle`, not to its beginning.",
      makes: (owners, idle, blocks) => {
        const { owners: left } = withoutOwners(owners, idle, blocks);
        return {
          owners: left,
          idle: [...[...blocks].reverse().filter((block) => left[block] === 0), ...idle],
        };
      },
    },
    {
      says: "Only the text that ends gives its blocks up. Others may have them still: take away one owner, not all.",
      makes: (owners, idle, blocks) => ({
        owners: owners.map((count, block) => (blocks.includes(block) ? 0 : count)),
        idle: [...idle, ...[...blocks].reverse()],
      }),
    },
  ],
};

type Admitting = [tokens: number, found: number[], idle: number[]];

/** The blocks of a text, those that are missing taken from `free`. */
function blocksFrom(tokens: number, found: number[], free: number[]): number[] | undefined {
  const missing = Math.ceil(tokens / 16) - found.length;
  return missing > free.length ? undefined : [...found, ...free.slice(0, missing)];
}

export const admitText: Check<Admitting> = {
  exercise: BLOCKS,
  id: "admit-text",
  title: "Let a text in",
  names: ["tokens", "found", "idle"],
  rounds: 36,
  hints: [
    "How many blocks does the text need, and how many of them does it have already?",
    "Leave out of `idle` the blocks that were found.",
    "If too few are left, return `undefined`; otherwise those that were found, and after them the first of the others.",
  ],
  inputs: (random, round) => {
    const count = random.integer(3, 9);
    const order = random.list(count, () => random.next());
    const shuffled = [...order.keys()].sort((a, b) => order[a] - order[b]);
    const idle = shuffled.slice(0, random.integer(1, count));
    const found = random.list(count, () => random.next()).flatMap((x, block) => (x < 0.35 ? [block] : []));
    const room = found.length + idle.filter((block) => !found.includes(block)).length;
    // Just enough, one too few, or any number, at the border of a block and within it.
    const needed = Math.max(
      found.length + (round % 4 === 3 ? 0 : 1),
      round % 3 === 0 ? room : round % 3 === 1 ? room + 1 : random.integer(1, count),
    );
    return [16 * needed - random.pick([0, 0, 5, 15]), found, idle];
  },
  expected: (tokens, found, idle) =>
    blocksFrom(
      tokens,
      found,
      idle.filter((block) => !found.includes(block)),
    ),
  mistakes: [
    {
      says: "You take a block that was found for something else. Leave those out of `idle` first.",
      makes: blocksFrom,
    },
    {
      says: "Blocks that were found are there already: only the others are missing.",
      makes: (tokens, found, idle) => {
        const free = idle.filter((block) => !found.includes(block));
        return Math.ceil(tokens / 16) > free.length ? undefined : blocksFrom(tokens, found, free);
      },
    },
    {
      says: "The last block need not be full: round up.",
      makes: (tokens, found, idle) =>
        blocksFrom(
          Math.max(16 * found.length, 16 * Math.floor(tokens / 16)),
          found,
          idle.filter((block) => !found.includes(block)),
        ),
    },
    {
      says: "The block that has been free for the longest time goes first, and it stands at the beginning of `idle`.",
      makes: (tokens, found, idle) =>
        blocksFrom(
          tokens,
          found,
          [...idle].reverse().filter((block) => !found.includes(block)),
        ),
    },
    {
      says: "Just enough is enough.",
      makes: (tokens, found, idle) => {
        const free = idle.filter((block) => !found.includes(block));
        const missing = Math.ceil(tokens / 16) - found.length;
        return missing >= free.length ? undefined : [...found, ...free.slice(0, missing)];
      },
    },
  ],
};

export const predictBudget: Check<[]> = {
  exercise: PREFIX,
  id: "predict-budget",
  title: "Predict the first token",
  hints: [
    "Five blocks are 80 tokens.",
    "Of the 64 tokens of a step, four go to those that are being written.",
    "60 tokens a step, and 120 to read. Meanwhile each of the four gets a token a step.",
  ],
  expected: () => ({ left: 200 - 5 * 16, steps: Math.ceil(120 / (64 - 4)), others: 4 * 2 }),
  mistakes: [
    {
      says: "What the index knows is not computed again.",
      makes: () => ({ left: 200, steps: 4, others: 16 }),
    },
    {
      says: "Those that are written come first, so 60 tokens of the budget are left.",
      makes: () => ({ left: 120, steps: Math.ceil(120 / 56), others: 12 }),
    },
    {
      says: "They do not wait while the prompt is read: in every step each of the four gets a token.",
      makes: () => ({ left: 120, steps: 2, others: 0 }),
    },
    { says: "There are four of them.", makes: () => ({ left: 120, steps: 2, others: 2 }) },
  ],
};

interface Known {
  before: number;
  tokens: number[];
  block: number;
}

type Finding = [index: Known[], text: number[]];

/** Follows the entries of an index from place to place, as long as `goesOn` and `matches` allow. */
function follow(
  [index, text]: Finding,
  goesOn = (at: number) => at + 16 < text.length,
  matches = (entry: Known, before: number) => entry.before === before,
  skips = false,
): number[] {
  const blocks: number[] = [];
  let before = 0;
  for (let at = 0; goesOn(at); at += 16) {
    const next = text.slice(at, at + 16).join();
    const place = index.findIndex((entry) => matches(entry, before) && entry.tokens.join() === next);
    if (place >= 0) {
      blocks.push(index[place].block);
      before = place + 1;
    } else if (!skips) return blocks;
  }
  return blocks;
}

export const findKnown: Check<Finding> = {
  exercise: PREFIX,
  id: "find-known",
  title: "Find what is known",
  names: ["index", "text"],
  rounds: 40,
  hints: [
    "Begin with `before = 0` and the first sixteen tokens; look for an entry with both.",
    "The number of the entry that you found, its place in the list plus one, is the `before` of the next.",
    "The last token of the text must not be in a block that you return: stop when fewer than 17 tokens are left.",
  ],
  inputs: (random, round) => {
    const pieces = random.list(3, (i) => Array.from({ length: 16 }, (_, t) => (t === 7 ? i : t)));
    const index: Known[] = [];
    const blocks = random.list(20, () => random.next());
    const names = [...blocks.keys()].sort((a, b) => blocks[a] - blocks[b]);
    const size = round === 0 ? 0 : random.integer(2, 9);
    for (let i = 0; i < size; i++) {
      const before = i === 0 ? 0 : random.pick([i, i, random.integer(0, i)]);
      const tokens = random.pick(pieces);
      if (!index.some((entry) => entry.before === before && entry.tokens === tokens))
        index.push({ before, tokens, block: names[i] });
    }
    const text: number[] = [];
    // Along the index, and then on into what it does not know, or to the end of a block exactly.
    let before = 0;
    const nexts = () => index.flatMap((entry, i) => (entry.before === before ? [i] : []));
    while (text.length < 96 && nexts().length > 0 && random.next() < 0.8) {
      const place = random.pick(nexts());
      text.push(...index[place].tokens);
      before = place + 1;
    }
    const unknown = Array.from({ length: 16 }, () => 99);
    const after = nexts().flatMap((place) => index[place].tokens);
    const more = random.pick([[], [], [5], [...random.pick(pieces), 1], [...unknown, ...after, 1]]);
    return [index, text.length + more.length === 0 ? [1] : [...text, ...more]];
  },
  expected: (index, text) => follow([index, text]),
  mistakes: [
    {
      says: "Nothing of the text is left to compute, so there would be no scores for its next token: one token must be left.",
      makes: (index, text) => follow([index, text], (at) => at + 16 <= text.length),
    },
    {
      says: "The same tokens after others are not the same: an entry counts only after the one before it.",
      makes: (index, text) => follow([index, text], undefined, () => true),
    },
    {
      says: "Where the chain breaks, it ends: what comes later has another beginning.",
      makes: (index, text) => follow([index, text], undefined, undefined, true),
    },
    {
      says: "Entries are counted from 1, since 0 is the beginning of a text.",
      makes: (index, text) =>
        follow([index.map((entry) => ({ ...entry, before: entry.before && entry.before + 1 })), text]),
    },
  ],
};

type Planning = [left: number[], budget: number];

/** Gives every text that is written its token, and hands `remaining` out to the others. */
function handOut(left: number[], remaining: number): number[] {
  let rest = remaining;
  return left.map((count) => {
    if (count === 1) return 1;
    const given = Math.min(count, rest);
    rest -= given;
    return given;
  });
}

const writers = (left: number[]) => left.filter((count) => count === 1).length;

export const planTokens: Check<Planning> = {
  exercise: PREFIX,
  id: "plan-tokens",
  title: "Plan a step",
  names: ["left", "budget"],
  rounds: 36,
  hints: [
    "Count the texts that are written first: so much of the budget is gone.",
    "What remains is at least 1. Go through the texts in their order, and take away from it what each one gets.",
    "A text gets what remains, or all that it has left, whichever is less.",
  ],
  inputs: (random, round) => {
    const left = random.list(round === 0 ? 1 : random.integer(2, 7), () => random.pick([1, 1, 2, 9, 40]));
    return [left, random.pick([1, 2, writers(left), writers(left) + 1, 12, 64])];
  },
  expected: (left, budget) => handOut(left, Math.max(1, budget - writers(left))),
  mistakes: [
    {
      says: "The tokens of those that are written count too: take them off the budget.",
      makes: (left, budget) => handOut(left, budget),
    },
    {
      says: "If nothing remains, the first text that is read still gets one token.",
      makes: (left, budget) => handOut(left, Math.max(0, budget - writers(left))),
    },
    {
      says: "The budget is for all texts together, not for each.",
      makes: (left, budget) => left.map((count) => Math.min(count, Math.max(1, budget - writers(left)))),
    },
    {
      says: "Those that are written come before those that are read, wherever they stand, and always get their token.",
      makes: (left, budget) => {
        let rest = budget;
        return left.map((count) => {
          const given = Math.min(count, rest);
          rest -= given;
          return given;
        });
      },
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

// ------------------------------------------------------------------------------------------------- Serving

const STREAM = "05-inference/7-a-stream-of-events";
const MASKS = "05-inference/8-masks-and-calls";

export const predictStream: Check<[]> = {
  exercise: STREAM,
  id: "predict-stream",
  title: "Predict a stream and a queue",
  hints: [
    "Before the tokens comes a chunk that says who speaks. After them come a chunk that says why the answer ended, the usage, and the end of the stream.",
    "A place is free when an answer has got its last token: after 100 steps.",
    "Each step gives 32 tokens, and there are 20 steps in a second.",
  ],
  expected: () => ({ lines: 1 + 12 + 1 + 1 + 1, seconds: 100 * 0.05, rate: 32 / 0.05 }),
  mistakes: [
    {
      says: "Tokens are not all that a stream holds: think of its first chunk and of its last three lines.",
      makes: () => ({ lines: 12, seconds: 5, rate: 640 }),
    },
    {
      says: "The stream's last line, `data: [DONE]`, begins with `data:` too.",
      makes: () => ({ lines: 15, seconds: 5, rate: 640 }),
    },
    {
      says: "The usage was asked for, and comes in a chunk of its own.",
      makes: () => ({ lines: 15, seconds: 0.05, rate: 640 }),
    },
    {
      says: "The engine does not give one token a step, but one to each of the 32 answers.",
      makes: () => ({ lines: 16, seconds: 5, rate: 20 }),
    },
    {
      says: "The 32 answers are written at the same time, not one after the other.",
      makes: () => ({ lines: 16, seconds: 160, rate: 640 }),
    },
  ],
};

/** A stream of events as a text: with comments, empty events, and something after its end, or without an end. */
function drawStream(random: Random, round: number): string {
  const event = () => {
    const text = random.pick(["Hi", " data: ", "\\n", "🦊", "", ": ", "[DONE]"]);
    return random.pick([
      `data: {"text":"${text}"}\n\n`,
      `data: ${text}\n\n`,
      ": still here\n\n",
      ": not data: at all\n",
      "event: ping\n\n",
    ]);
  };
  const count = round === 0 ? 1 : random.integer(2, 6);
  const body = `data: {"text":"Hello"}\n\n${random.list(count, event).join("")}`;
  const end = random.pick(['data: {"text":"cut o', "data: [DONE]\n\n", "data: [DONE]\n\ndata: later\n\n"]);
  return body.replaceAll("data: [DONE]\n", 'data: "[DONE]"\n') + (round % 3 === 0 ? "data: [DONE]\n\n" : end);
}

/** A text cut at random places; sometimes into characters, sometimes with an empty piece. */
function cutUp(random: Random, text: string, round: number): string[] {
  const each = round % 4 === 1 ? 1 : round % 4 === 2 ? text.length : random.integer(2, 9);
  const pieces: string[] = [];
  for (let at = 0; at < text.length; at += each) pieces.push(text.slice(at, at + each));
  if (round % 5 === 4) pieces.splice(1, 0, "");
  return pieces;
}

/** The events of a whole text. */
function eventsOf(text: string): string[] {
  const complete = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
  const end = complete.indexOf("data: [DONE]");
  const lines = end < 0 ? complete : complete.slice(0, end);
  return lines.filter((line) => line.startsWith("data: ")).map((line) => line.replace("data: ", ""));
}

export const readEvents: Check<[pieces: string[]]> = {
  exercise: STREAM,
  id: "read-events",
  title: "Read a stream",
  names: ["pieces"],
  rounds: 36,
  hints: [
    "Keep the end of what you have that is not a whole line yet, and put it before the next piece.",
    'After `split("\\n")` all parts but the last are whole lines: take the last one off with `pop()` and keep it.',
    "Whole lines that begin with `data: ` count; at `data: [DONE]` return what you have.",
  ],
  inputs: (random, round) => [cutUp(random, drawStream(random, round), round)],
  expected: (pieces) => eventsOf(pieces.join("")),
  mistakes: [
    {
      says: "You look at each piece by itself. A line may begin in one and end in the next: keep what has no end yet.",
      makes: (pieces) => pieces.flatMap((piece) => eventsOf(`${piece}\n`)),
    },
    {
      says: "`[DONE]` is no event: it says that the stream is over.",
      makes: (pieces) => {
        const text = pieces.join("");
        const [before] = text.split("data: [DONE]\n");
        return before === text ? eventsOf(text) : [...eventsOf(before), "[DONE]"];
      },
    },
    {
      says: "What comes after `data: [DONE]` does not count: return there.",
      makes: (pieces) => eventsOf(pieces.join("").replaceAll("data: [DONE]\n", "")),
    },
    {
      says: "A line whose end never came is cut off. Do not take it for an event.",
      makes: (pieces) => eventsOf(`${pieces.join("")}\n`),
    },
    {
      says: "Only lines that begin with `data: ` hold events. Comments and other fields do not.",
      makes: (pieces) => {
        const text = pieces.join("").split("data: [DONE]\n")[0];
        const whole = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
        return whole.filter((line) => line !== "").map((line) => line.replace("data: ", ""));
      },
    },
    {
      says: "An event may hold the word `data: ` in its text. Only at the beginning of a line does it begin an event.",
      makes: (pieces) => {
        const text = pieces.join("").split("data: [DONE]\n")[0];
        const whole = text.slice(0, text.lastIndexOf("\n") + 1).split("\n");
        return whole
          .filter((line) => line.includes("data: "))
          .map((line) => line.slice(line.lastIndexOf("data: ") + 6));
      },
    },
  ],
};

type Waits = [bounds: number[], counts: number[], share: number];

/** A histogram with empty buckets, and shares that end in every one of them, at times exactly. */
function drawWaits(random: Random, round: number): Waits {
  const buckets = round === 0 ? 1 : random.integer(2, 6);
  let bound = 0;
  const bounds = random.list(buckets, () => {
    bound += random.pick([0.25, 0.5, 1, 4]);
    return bound;
  });
  const inside = random.list(buckets + 1, () => random.pick([0, 1, 2, 5, 8]));
  if (sum(inside) === 0 || round === 0) inside[0] = 4;
  if (round % 3 === 0) inside[buckets] = 0;
  const counts = inside.map((_, i) => sum(inside.slice(0, i + 1)));
  const total = counts[buckets];
  if (round % 2 === 0) return [bounds, counts, random.integer(1, total) / total];
  return [bounds, counts, random.real(0.02, 1)];
}

/** The quantile by walking through the buckets, with its parts open to mistakes. */
function quantileOf(
  [bounds, counts, share]: Waits,
  {
    start = (i: number) => (i === 0 ? 0 : bounds[i - 1]),
    way = (part: number) => part,
    beyond = bounds.at(-1)!,
  } = {},
): number {
  const place = share * counts.at(-1)!;
  let before = 0;
  for (const [i, bound] of bounds.entries()) {
    const here = counts[i] - before;
    if (counts[i] >= place) return start(i) + (bound - start(i)) * way((place - before) / here);
    before = counts[i];
  }
  return beyond;
}

export const writeQuantile: Check<Waits> = {
  exercise: STREAM,
  id: "write-quantile",
  title: "How long do the slow ones wait?",
  names: ["bounds", "counts", "share"],
  rounds: 48,
  hints: [
    "The place is `share` times the last count. Find the first bound whose count is at least that; there may be none.",
    "In a bucket lie `counts[i] - counts[i - 1]` requests (all of `counts[0]` in the first), between `bounds[i - 1]` (or 0) and `bounds[i]`.",
    "The way through the bucket is `(place - counts[i - 1])` divided by the requests in it.",
  ],
  inputs: drawWaits,
  expected: (...args) => quantileOf(args),
  mistakes: [
    {
      says: "You give the bucket's bound. The place lies on the way to it: go only as far as the share of its requests.",
      makes: (...args) => quantileOf(args, { way: () => 1 }),
    },
    {
      says: "You give where the bucket begins, not how far into it the place lies.",
      makes: (...args) => quantileOf(args, { way: () => 0 }),
    },
    {
      says: "The first bucket begins at 0, the others at the bound before theirs. You begin all at 0.",
      makes: (...args) => quantileOf(args, { start: () => 0 }),
    },
    {
      says: "Beyond the last bound nothing is known but that bound. You say that it takes for ever.",
      makes: (...args) => quantileOf(args, { beyond: Number.POSITIVE_INFINITY }),
    },
    {
      says: "You take the counts for those of single buckets. Each counts all requests up to its bound: subtract the count before.",
      makes: (bounds, counts, share) =>
        quantileOf([bounds, counts.map((_, i) => sum(counts.slice(0, i + 1))), share]),
    },
    {
      says: "Requests slower than the last bound belong to all requests too: the place is a share of the last count.",
      makes: (bounds, counts, share) => {
        const seen = counts.slice(0, -1);
        const total = seen.at(-1)!;
        return total === 0 ? bounds.at(-1) : quantileOf([bounds, [...seen, total], share]);
      },
    },
  ],
};

export const predictMask: Check<[]> = {
  exercise: MASKS,
  id: "predict-mask",
  title: "Predict a mask",
  hints: [
    "70 bits do not fit two words of 32.",
    "33 is 32 + 1: bit 1 of the second word. A bit b is worth 2ᵇ.",
    "69 is 64 + 5.",
  ],
  expected: () => ({ words: Math.ceil(70 / 32), second: 2 ** (33 % 32), third: 2 ** (69 % 32) }),
  mistakes: [
    {
      says: "Two words have 64 bits, and there are 70 tokens.",
      makes: () => ({ words: 2, second: 2, third: 32 }),
    },
    {
      says: "You gave the bits' places. A word is a number: bit b adds 2 to the power b.",
      makes: () => ({ words: 3, second: 1, third: 5 }),
    },
    {
      says: "Bits are counted from the lowest, and from 0.",
      makes: () => ({ words: 3, second: 2 ** 30, third: 2 ** 26 }),
    },
    {
      says: "Bits are counted from 0: bit 0 is worth 1.",
      makes: () => ({ words: 3, second: 1, third: 16 }),
    },
  ],
};

/** Some different ids in any order. */
function drawIds(random: Random, vocabSize: number): number[] {
  const share = random.pick([0.05, 0.5, 1]);
  return random
    .list(vocabSize, (id) => ({ id, key: random.next() }))
    .sort((a, b) => a.key - b.key)
    .slice(0, Math.ceil(share * vocabSize))
    .map(({ id }) => id);
}

/** A mask of a rounded number of words, by the place of a bit. */
function maskWith(
  [allowed, vocabSize]: [number[], number],
  { words = Math.ceil(vocabSize / 32), place = (id: number) => id % 32 } = {},
): Uint32Array {
  const mask = new Uint32Array(words);
  for (const [at] of mask.entries())
    mask[at] = sum(allowed.filter((id) => Math.floor(id / 32) === at).map((id) => 2 ** place(id)));
  return mask;
}

export const writeMask: Check<[allowed: number[], vocabSize: number]> = {
  exercise: MASKS,
  id: "write-mask",
  title: "Write a mask",
  names: ["allowed", "vocabSize"],
  hints: [
    "A `new Uint32Array(…)` is full of zeros. It needs a word for every 32 tokens, rounded up.",
    "`1 << b` is bit b, and `|=` adds it to a word that has others already.",
    "The word of a token is `id >>> 5`, its bit `id & 31`.",
  ],
  inputs: (random, round) => {
    const whole = 32 * random.integer(1, 4);
    const vocabSize = round === 0 ? 1 : [whole, whole + 1, random.integer(2, 140)][round % 3];
    return [round === 1 ? [] : drawIds(random, vocabSize), vocabSize];
  },
  expected: (...args) => maskWith(args),
  mistakes: [
    {
      says: "The last tokens have no word: round the number of words up.",
      makes: (...args) => maskWith(args, { words: Math.floor(args[1] / 32) }),
    },
    {
      says: "Your mask has a word too many where 32 divides the vocabulary: round up, do not add one.",
      makes: (...args) => maskWith(args, { words: Math.floor(args[1] / 32) + 1 }),
    },
    {
      says: "A second token of a word wipes out the first: add its bit to the word with `|=`.",
      makes: (allowed, vocabSize) => {
        const mask = new Uint32Array(Math.ceil(vocabSize / 32));
        for (const id of allowed) mask[id >>> 5] = 1 << (id & 31);
        return mask;
      },
    },
    {
      says: "Your bits stand the wrong way round: token 0 has the lowest bit of its word, not the highest.",
      makes: (...args) => maskWith(args, { place: (id) => 31 - (id % 32) }),
    },
    {
      says: "You have turned the mask around: a bit says that a token is allowed.",
      makes: (allowed, vocabSize) => {
        const others = Array.from({ length: vocabSize }, (_, id) => id).filter((id) => !allowed.includes(id));
        return maskWith([others, vocabSize]);
      },
    },
  ],
};

type Allowing = [tokens: string[], written: string, answers: string[]];

/** Answers that begin alike, tokens that are cut anywhere, and a beginning of one of them, or all of it. */
function drawAllowing(random: Random, round: number): Allowing {
  const answers = random.pick([
    ["yes", "no", "not sure"],
    ["red", "green", "blue", "blueish green"],
    ["10", "100", "1000"],
    ["aa", "aab", "ba"],
  ]);
  const answer = random.pick(answers);
  const written = answer.slice(0, round % 4 === 0 ? answer.length : random.integer(0, answer.length));
  const piece = () => {
    const text = random.pick(answers);
    const at = random.integer(0, text.length - 1);
    return text.slice(at, random.integer(at + 1, text.length));
  };
  const ways = answers.flatMap((text) =>
    text.startsWith(written) && text !== written
      ? [text.slice(written.length), text[written.length], `${text.slice(written.length)}!`]
      : [],
  );
  const pieces = [...ways, ...random.list(5, piece), ...answers].sort(() => random.next() - 0.5);
  return [["", ...new Set(pieces)], written, answers];
}

/** The ids of the tokens that a rule allows. */
function idsWhere(
  [tokens, written, answers]: Allowing,
  mayEnd: boolean,
  may: (text: string, answer: string) => boolean,
) {
  const ids = tokens.map((_, id) => id).slice(1);
  const allowed = ids.filter((id) => answers.some((answer) => may(written + tokens[id], answer)));
  return mayEnd ? [0, ...allowed] : allowed;
}

const isBeginning = (text: string, answer: string) => answer.indexOf(text) === 0;

export const writeAllowed: Check<Allowing> = {
  exercise: MASKS,
  id: "write-allowed",
  title: "Which tokens may come?",
  names: ["tokens", "written", "answers"],
  rounds: 48,
  hints: [
    "Put each token's text behind what is written. Is that the beginning of some answer?",
    "`answer.startsWith(text)` asks it, and `answers.some(…)` asks it of all of them.",
    "The end is another question: `answers.includes(written)`. Token 0 comes first in the list.",
  ],
  inputs: drawAllowing,
  expected: (...args) => idsWhere(args, args[2].includes(args[1]), isBeginning),
  mistakes: [
    {
      says: "You allow only tokens that finish an answer. A token may also leave something to be written.",
      makes: (...args) => idsWhere(args, args[2].includes(args[1]), (text, answer) => text === answer),
    },
    {
      says: "The end may come only when what is written is an answer, not always.",
      makes: (...args) => idsWhere(args, true, isBeginning),
    },
    {
      says: "The end never comes: token 0 is allowed where what is written is one of the answers.",
      makes: (...args) => idsWhere(args, false, isBeginning),
    },
    {
      says: "You forget what is written already: the token goes behind it.",
      makes: (tokens, written, answers) =>
        idsWhere([tokens, "", answers], answers.includes(written), isBeginning),
    },
    {
      says: "A text in the middle of an answer is not a beginning of it: ask with `startsWith`, not `includes`.",
      makes: (tokens, written, answers) =>
        idsWhere([tokens, "", answers], answers.includes(written), (text, answer) =>
          answer.slice(written.length).includes(text),
        ),
    },
    {
      says: "A token may not go beyond the answer: you allow tokens that begin rightly and then write on.",
      makes: (...args) =>
        idsWhere(
          args,
          args[2].includes(args[1]),
          (text, answer) => answer.startsWith(text) || (text.startsWith(answer) && answer !== args[1]),
        ),
    },
    {
      says: "An answer that is complete may still go on to a longer one.",
      makes: (...args) => (args[2].includes(args[1]) ? [0] : idsWhere(args, false, isBeginning)),
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

const SIXTEEN = "05-inference/4-sixteen-values";

export const predictGroups: Check<[]> = {
  exercise: SIXTEEN,
  id: "predict-groups",
  title: "Predict what a group takes",
  hints: [
    "32 weights share 16 bits: that is half a bit for each.",
    "The number of largest size is −0.8. It gets the code 0, which is 8 below the code of zero.",
    "0.7 is 7 scales above zero, so its code is 7 above 8.",
  ],
  expected: () => ({ bitsOf32: 4 + 16 / 32, bitsOf128: 4 + 16 / 128, scale: 0.1, code: 15 }),
  mistakes: [
    {
      says: "A group's scale has 16 bits, and all weights of the group pay for it together: divide by how many they are.",
      makes: () => ({ bitsOf32: 20, bitsOf128: 20, scale: 0.1, code: 15 }),
    },
    {
      says: "The scale costs bits too: a part of it for each weight of the group.",
      makes: () => ({ bitsOf32: 4, bitsOf128: 4, scale: 0.1, code: 15 }),
    },
    {
      says: "The largest is −0.8, and it is 8 steps away from zero, not 7 or 15.",
      makes: () => ({ bitsOf32: 4.5, bitsOf128: 4.125, scale: 0.8 / 7, code: 15 }),
    },
    {
      says: "The code 8 stands for zero: count on from there.",
      makes: () => ({ bitsOf32: 4.5, bitsOf128: 4.125, scale: 0.1, code: 7 }),
    },
  ],
};

/** Words from the places (word and shift) of codes. */
const wordsFrom = (codes: number[], wordOf: (i: number) => number, shiftOf: (i: number) => number) => {
  const words = new Uint32Array(codes.length / 8);
  for (const [i, code] of codes.entries()) words[wordOf(i)] |= code << shiftOf(i);
  return words;
};

export const writePacking: Check<[codes: number[]]> = {
  exercise: SIXTEEN,
  id: "write-packing",
  title: "Pack the codes",
  names: ["codes"],
  hints: [
    "Code i belongs into word floor(i / 8), at place i % 8 of it.",
    "A place is four bits wide: shift the code to the left by 4 · (i % 8).",
    "Put it in with |=, so that what is there already stays.",
  ],
  inputs: (random, round) => [
    random.list(8 * random.integer(1, round === 0 ? 1 : 4), () => random.integer(0, 15)),
  ],
  expected: (codes) =>
    wordsFrom(
      codes,
      (i) => i >> 3,
      (i) => 4 * (i % 8),
    ),
  mistakes: [
    {
      says: "The first code belongs into the lowest four bits; yours is in the highest.",
      makes: (codes) =>
        wordsFrom(
          codes,
          (i) => i >> 3,
          (i) => 28 - 4 * (i % 8),
        ),
    },
    {
      says: "A code has four bits: its place begins at bit 4 · (i % 8), not at bit i % 8.",
      makes: (codes) =>
        wordsFrom(
          codes,
          (i) => i >> 3,
          (i) => i % 8,
        ),
    },
    {
      says: "Only the last code of each word is left: add to the word with |= instead of writing it anew.",
      makes: (codes) => {
        const words = new Uint32Array(codes.length / 8);
        for (const [i, code] of codes.entries()) words[i >> 3] = code << (4 * (i % 8));
        return words;
      },
    },
    {
      says: "Neighbours go into one word, eight of them; you deal the codes out to the words in turn.",
      makes: (codes) =>
        wordsFrom(
          codes,
          (i) => i % (codes.length / 8),
          (i) => 4 * Math.floor(i / (codes.length / 8)),
        ),
    },
  ],
};

/** The best scale by a measure of the error of each weight. */
const scaleBy = (
  group: number[],
  scales: number[],
  errorOf: (error: number, i: number) => number,
  [least, most] = [-8, 7],
) => {
  const errors = scales.map((scale) =>
    sum(group.map((w, i) => errorOf(w - scale * Math.max(least, Math.min(most, Math.round(w / scale))), i))),
  );
  return scales[errors.indexOf(Math.min(...errors))];
};

export const findScale: Check<[group: number[], squares: number[], scales: number[]]> = {
  exercise: SIXTEEN,
  id: "find-scale",
  title: "Find the scale",
  names: ["group", "squares", "scales"],
  rounds: 40,
  hints: [
    "For one scale: the code is round(w / scale), held between −8 and 7; the error is w − scale · code.",
    "Add up squares[i] · error² over the group. That is the number to make small.",
    "Keep the best scale so far and its error; replace both when a scale does better.",
  ],
  inputs: (random, round) => {
    const shares = [0.5, 0.6, 0.7, 0.8, 0.9, 1];
    if (round % 10 === 9) return [Array(8).fill(0), Array(8).fill(1), shares]; // all are equally good
    for (;;) {
      const group = random.list(8, () => random.normal());
      const squares = random.list(8, () => Math.exp(2 * random.normal()));
      const largest = Math.max(...group.map(Math.abs));
      const scales = shares.map((share) => (share * largest) / 8);
      const inputs = [group, squares, scales] as [number[], number[], number[]];
      // What each mistake gives must be told from the rest.
      const given = [
        ...findScale.mistakes!.map(({ makes }) => makes!(...inputs)),
        findScale.expected(...inputs),
      ];
      if (round > 2 || new Set(given).size === given.length) return inputs;
    }
  },
  expected: (group, squares, scales) => scaleBy(group, scales, (error, i) => squares[i] * error ** 2),
  mistakes: [
    {
      says: "You treat all weights alike. Multiply each squared error by the square of its input.",
      makes: (group, _, scales) => scaleBy(group, scales, (error) => error ** 2),
    },
    {
      says: "You multiply by the root: `squares` are squares already, so the squared error is multiplied by them as they are.",
      makes: (group, squares, scales) =>
        scaleBy(group, scales, (error, i) => Math.sqrt(squares[i]) * error ** 2),
    },
    {
      says: "Codes beyond −8 and 7 do not exist: hold them in that range before you measure the error.",
      makes: (group, squares, scales) =>
        scaleBy(group, scales, (error, i) => squares[i] * error ** 2, [-99, 99]),
    },
    {
      says: "You take the scale that lets the largest number through. The point is to try the others too.",
      makes: (_group, _squares, scales) => scales[scales.length - 1],
    },
  ],
};
