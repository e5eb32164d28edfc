// Made from solutions/01-tokenizer/checks.ts by `npm run exercises`, as 1687850bea2fc762
// The checks of chapter 1's exercises.
import {
  benchmarkRuns,
  bitsPerByte,
  cutAtTokens,
  documentStarts,
  encodePieceByDefinition,
  FILTERS,
  GRAMMAR,
  learnMergesByDefinition,
  measureParts,
  mergePair,
  nextSource,
  overlapWith,
  pairKey,
  parseTemplate,
  type Part,
  textShape,
  tokenFinder,
} from "tslm";
import { decodedText } from "tslm/tokenizer/sentencepiece";
import type { Check, Random } from "tslm/notebook";

const MERGING = "01-tokenizer/1-one-merge";
const ENTROPY = "01-tokenizer/2-the-entropy-of-a-small-grammar";
const RANKS = "01-tokenizer/3-encode-by-rank";
const SPECIALS = "01-tokenizer/4-text-that-pretends";
const JUDGING = "01-tokenizer/5-a-fair-comparison";
const NEARLY = "01-tokenizer/6-nearly-the-same";
const SIFTING = "01-tokenizer/7-sifting";
const TURNS = "01-tokenizer/8-whose-turn";
const BACK = "01-tokenizer/9-back-to-text";

/** Few different ids, so that pairs, runs and repeats occur. Written as text, some hold others: 1 is in 12, and 0 is no id that is missing. */
const ID_POOLS = [
  [1, 2, 3],
  [1, 2, 12, 21],
  [0, 1, 10],
  [1, 11, 111],
  [5, 25, 56, 256],
  [0, 7, 70, 107],
];

const drawIds = (random: Random, length: number, pool: number[]): number[] =>
  random.list(length, () => random.pick(pool));

/** Ids in which a pair is likely, and two ids of them, one time in three the same. */
function idsWithRepeats(random: Random, round: number): { ids: number[]; left: number; right: number } {
  if (round === 3) return { ids: [10, 0, 1, 0, 1, 0, 0, 1, 10, 1, 0], left: 1, right: 0 };
  if (round === 4) return { ids: [0, 7, 7, 7, 0, 7, 7], left: 7, right: 7 };
  const pool = ID_POOLS[round % ID_POOLS.length];
  const ids = drawIds(random, round < 3 ? round : random.integer(2, 40), pool);
  const left = random.pick(pool);
  // Where both halves are alike merging is easy to get wrong.
  return { ids, left, right: random.next() < 1 / 3 ? left : random.pick(pool) };
}

export const predictMerges: Check<[]> = {
  exercise: MERGING,
  id: "predict-merges",
  title: "Predict two merges",
  hints: [
    "A merge reads from left to right and never looks back.",
    "After a pair was merged, reading goes on behind it: both ids are used up.",
    "In 5 5 5 the first two become 9. The last 5 has no partner left.",
  ],
  expected: () => ({ first: mergePair([1, 2, 1, 1, 2], 1, 2, 9), second: mergePair([5, 5, 5], 5, 5, 9) }),
  mistakes: [
    {
      says: "In 5 5 5 the middle 5 was used twice. Once an id is part of a merge it is gone.",
      makes: () => ({ first: [9, 1, 9], second: [9, 9] }),
    },
    {
      says: "You merged only the first pair of 1 2 1 1 2. A merge replaces every occurrence.",
      makes: () => ({ first: [9, 1, 1, 2], second: [9, 5] }),
    },
    {
      says: "Of 5 5 5 the first two merge, because reading starts at the left: the lone 5 is the last one.",
      makes: () => ({ first: [9, 1, 9], second: [5, 9] }),
    },
  ],
};

/** Counts with a function that says which pairs there are. */
function counted(pairs: [number, number][]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const [left, right] of pairs) {
    counts.set(pairKey(left, right), (counts.get(pairKey(left, right)) ?? 0) + 1);
  }
  return counts;
}

const neighbours = (ids: number[]) => ids.slice(1).map((id, i) => [ids[i], id] as [number, number]);

export const countNeighbours: Check<[number[]]> = {
  exercise: MERGING,
  id: "count-neighbours",
  title: "Count the pairs",
  names: ["ids"],
  hints: [
    "n ids have n − 1 neighbouring pairs. Of no ids and of one id there are none.",
    "The key of a pair is `pairKey(left, right)`; a key that is not in the map yet counts as 0.",
    "`counts.set(key, (counts.get(key) ?? 0) + 1)` inside a loop that stops one id before the end.",
  ],
  inputs: (random, round) => [idsWithRepeats(random, round).ids],
  expected: (ids) => counted(neighbours(ids)),
  mistakes: [
    {
      says: "You step over two ids at a time. Neighbouring pairs overlap: 1 2 3 holds (1, 2) and (2, 3).",
      makes: (ids) => counted(neighbours(ids).filter((_, i) => i % 2 === 0)),
    },
    {
      says: "Every count is 1: a pair that occurs again must add to the count that is already there.",
      makes: (ids) => new Map([...counted(neighbours(ids)).keys()].map((key) => [key, 1])),
    },
    {
      says: "The order within a pair matters: (1, 2) and (2, 1) are different pairs.",
      makes: (ids) => counted(neighbours(ids).map(([a, b]) => [Math.min(a, b), Math.max(a, b)])),
    },
  ],
};

/** Merges as a learner might: `step` says how far to go on after a pair. */
function mergeWith(ids: number[], left: number, right: number, merged: number, step: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    const isPair = ids[i] === left && ids[i + 1] === right;
    result.push(isPair ? merged : ids[i]);
    if (isPair) i += step;
  }
  return result;
}

export const writeMerge: Check<[number[], number, number, number]> = {
  exercise: MERGING,
  id: "write-merge",
  title: "Write the merge",
  names: ["ids", "left", "right", "merged"],
  hints: [
    "Go through `ids` with an index and build a new list. Leave `ids` itself as it is.",
    "Ask at every index whether `ids[i]` is `left` and `ids[i + 1]` is `right`.",
    "If so, push `merged` and go on two ids further; else push `ids[i]` and go on one.",
  ],
  inputs: (random, round) => {
    const { ids, left, right } = idsWithRepeats(random, round);
    return [ids, left, right, 300 + random.integer(0, 99)];
  },
  expected: mergePair,
  mistakes: [
    {
      says: "After a merge you read its right half again. Step over both ids.",
      makes: (ids, left, right, merged) => mergeWith(ids, left, right, merged, 0),
    },
    {
      says: "After a merge you step too far, and lose the id behind the pair.",
      makes: (ids, left, right, merged) => mergeWith(ids, left, right, merged, 2),
    },
    {
      says: "You lose the last id when it is not part of a pair. The loop must go to the end of `ids`.",
      makes: (ids, left, right, merged) => {
        const result: number[] = [];
        for (let i = 0; i < ids.length - 1; i++) {
          const isPair = ids[i] === left && ids[i + 1] === right;
          result.push(isPair ? merged : ids[i]);
          if (isPair) i++;
        }
        return result;
      },
    },
    {
      says: "You merge the first occurrence only. Go on to the end of `ids`.",
      makes: (ids, left, right, merged) => {
        const at = ids.findIndex((id, i) => id === left && ids[i + 1] === right);
        return at < 0 ? [...ids] : [...ids.slice(0, at), merged, ...ids.slice(at + 2)];
      },
    },
    {
      says: "You merge in text, where 1 2 is found in 11 2 and in 1 21 as well. Compare the ids themselves.",
      makes: (ids, left, right, merged) => {
        const text = ids.join(",").replaceAll(`${left},${right}`, `${merged}`);
        return text === "" ? [] : text.split(",").map(Number);
      },
    },
  ],
};

/** The templates whose bits are to be predicted. */
const PREDICTED = ["the cat sat", "[red|blue]", "[a|b|c|d] [x|y]", "[a|[b|c]]"];

const bitsOf = (parts: Part[]) => measureParts(parts, GRAMMAR, new Map()).bits;

export const predictBits: Check<[]> = {
  exercise: ENTROPY,
  id: "predict-bits",
  title: "Predict the bits",
  hints: [
    "Text without a choice holds no surprise, so no bits.",
    "A uniform choice of n is worth log2 n bits, and the bits of independent choices add up.",
    "In `[a|[b|c]]` the first choice is worth 1 bit. In half of the cases a second one follows.",
  ],
  expected: () => PREDICTED.map((template) => bitsOf(parseTemplate(template, {}))),
  mistakes: [
    {
      says: "`[a|[b|c]]` is not a choice of three alike: a comes up half of the time.",
      makes: () => [0, 1, 3, Math.log2(3)],
    },
    {
      says: "The second choice of `[a|[b|c]]` is made in half of the cases only, so it counts by half.",
      makes: () => [0, 1, 3, 2],
    },
    {
      says: "You counted the texts that are possible. Bits are the logarithm, base 2, of that.",
      makes: () => [1, 2, 8, 3],
    },
  ],
};

/** −Σ p·f(p) over the outcomes that occur. */
const weighted = (probabilities: number[], log: (p: number) => number) =>
  probabilities.filter((p) => p > 0).reduce((sum, p) => sum - p * log(p), 0);

export const writeEntropy: Check<[number[]]> = {
  exercise: ENTROPY,
  id: "write-entropy",
  title: "Entropy of a list of probabilities",
  names: ["probabilities"],
  hints: [
    "An outcome of probability p carries −log2 p bits of surprise.",
    "The entropy is the mean surprise: each outcome's surprise times how often it comes up.",
    "An outcome that never comes up adds nothing, yet `0 * Math.log2(0)` is NaN: leave it out.",
  ],
  inputs: (random, round) => {
    if (round < 3) return [[[1], [0.996, 0.004], [0, 0.001, 0.999]][round]];
    const weights = random.list(random.integer(2, 6), () => (random.next() < 0.2 ? 0 : random.next()));
    weights[0] += 0.1; // so that the weights never sum to zero
    const sum = weights.reduce((a, b) => a + b, 0);
    return [weights.map((weight) => weight / sum)];
  },
  expected: (probabilities) => weighted(probabilities, Math.log2),
  mistakes: [
    {
      says: "These are nats, not bits: `Math.log` has base e. Bits want `Math.log2`.",
      makes: (probabilities) => weighted(probabilities, Math.log),
    },
    {
      says: "The sign is the wrong way round: the logarithm of a probability is never above zero.",
      makes: (probabilities) => -weighted(probabilities, Math.log2),
    },
    {
      says: "An outcome of probability 0 makes NaN of the whole sum. It adds nothing: leave it out.",
      makes: (probabilities) => -probabilities.reduce((sum, p) => sum + p * Math.log2(p), 0),
    },
    {
      says: "You took every outcome as equally likely. Weigh each surprise by its probability.",
      makes: (probabilities) => Math.log2(probabilities.filter((p) => p > 0).length),
    },
  ],
};

/** A template with choices in choices, at most `depth` deep. */
function randomParts(random: Random, depth: number): Part[] {
  return random.list(random.integer(0, 3), (): Part => {
    if (depth === 0 || random.next() < 0.4)
      return { kind: "text", text: random.pick(["the", "cat", "sat", "on"]) };
    return {
      kind: "choice",
      options: random.list(random.integer(2, 4), () => randomParts(random, depth - 1)),
    };
  });
}

/** The bits of a template, with a choice reckoned as `ofChoice` says from its options' bits. */
function bitsWith(parts: Part[], ofChoice: (bits: number[]) => number): number {
  const bits = parts.map((part) =>
    part.kind === "choice" ? ofChoice(part.options.map((option) => bitsWith(option, ofChoice))) : 0,
  );
  return bits.reduce((a, b) => a + b, 0);
}

const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const mean = (values: number[]) => sum(values) / values.length;
/** The bits of a template as if all its texts were equally likely. */
const bitsOfCount = (parts: Part[]): number =>
  sum(
    parts.map((part) =>
      part.kind === "choice" ? Math.log2(sum(part.options.map((option) => 2 ** bitsOfCount(option)))) : 0,
    ),
  );

export const writeTemplateBits: Check<[Part[]]> = {
  exercise: ENTROPY,
  id: "write-template-bits",
  title: "Entropy of a template",
  names: ["parts"],
  hints: [
    "Parts that follow each other are independent: their bits add up. Text has none.",
    "A choice is worth the bits of choosing, log2 of how many options there are, and what the option then holds.",
    "Each of n options is taken one time in n, so their bits count with weight 1/n. Let `templateBits` call itself on an option.",
  ],
  inputs: (random, round) => [randomParts(random, Math.min(round, 3))],
  rounds: 40,
  expected: bitsOf,
  mistakes: [
    {
      says: "You left out the bits of choosing itself: log2 of the number of options.",
      makes: (parts) => bitsWith(parts, mean),
    },
    {
      says: "Only one of the options is taken: their bits are averaged, not added.",
      makes: (parts) => bitsWith(parts, (bits) => Math.log2(bits.length) + sum(bits)),
    },
    {
      says: "You count the bits of choosing, but not those of the choices inside the option that is taken.",
      makes: (parts) => bitsWith(parts, (bits) => Math.log2(bits.length)),
    },
    {
      says: "You counted the texts that are possible, as if all were equally likely. An option with more texts is not taken more often.",
      makes: bitsOfCount,
    },
  ],
};

export const predictSimilarity: Check<[]> = {
  exercise: NEARLY,
  id: "predict-similarity",
  title: "Predict the similarity",
  hints: [
    "{a, b, c, d} and {c, d, e, f} have two in common, and six different ones together.",
    "54 words make 50 shingles. A word in the middle is in five of them. What is common, and what has either?",
    "Each number agrees with chance 0.5. To agree on at least one of two is 1 less the chance of agreeing on none.",
  ],
  expected: () => [1 / 3, 45 / 55, 0.75, 0.25],
  tolerance: 0.005,
  mistakes: [
    {
      says: "You divided by the size of one of the sets. The similarity is a share of what either has.",
      makes: () => [0.5, 0.9, 0.75, 0.25],
    },
    {
      says: "One changed word spoils five shingles of each text, not one.",
      makes: () => [1 / 3, 49 / 51, 0.75, 0.25],
    },
    {
      says: "More bands make it likelier to agree on one, more numbers in a band make it less likely.",
      makes: () => [1 / 3, 45 / 55, 0.25, 0.75],
    },
  ],
};

/** All runs of n words, in order. */
const runsOf = (words: string[], n: number) =>
  words.slice(0, Math.max(0, words.length - n + 1)).map((_, i) => words.slice(i, i + n).join(" "));

/** What two lists of shingles have in common, as a share that `of` reckons from common, a's and b's number. */
function sharedShare(a: string[], b: string[], of: (common: number, a: number, b: number) => number): number {
  const common = a.filter((shingle) => b.includes(shingle)).length;
  return common === 0 ? 0 : common / of(common, a.length, b.length);
}

const distinct = (values: string[]) => [...new Set(values)];
const either = (common: number, a: number, b: number) => a + b - common;

/** The similarity of two texts by shingles found in another way. */
function similarityBy(a: string[], b: string[], shingles: (words: string[]) => string[]): number {
  return sharedShare(distinct(shingles(a)), distinct(shingles(b)), either);
}

/** Two texts and a number of words: first those that are as short as a run, or shorter. */
function drawShingling(random: Random, round: number): [string[], string[], number] {
  const words = random.list(3, () => random.pick(WORDS));
  const short: [string[], string[], number][] = [
    [["fox"], ["fox"], 2],
    [words, [...words], 3],
    [words.slice(0, 2), words, 3],
    [[], [], 1],
    [["tat", "a"], ["ta", "ta"], 2],
  ];
  return short[round] ?? [...wordsInCommon(random, round), random.integer(1, 3)];
}

/** Words that are parts of each other, so that it matters where one ends. */
const WORDS = ["a", "at", "ta", "tat", "t"];

/** Few different words, so that runs come again, and a second text that shares some of the first. */
function wordsInCommon(random: Random, round: number): [string[], string[]] {
  const draw = (length: number) => random.list(length, () => random.pick(WORDS));
  const first = draw(round < 3 ? round : random.integer(3, 20));
  return [first, [...draw(random.integer(0, 4)), ...first.slice(random.integer(0, 3)), ...draw(round % 4)]];
}

export const writeJaccard: Check<[string[], string[], number]> = {
  exercise: NEARLY,
  id: "write-jaccard",
  title: "Jaccard similarity",
  names: ["a", "b", "n"],
  hints: [
    "A `Set` of strings: each run of n words joined by a blank.",
    "m words have m - n + 1 runs of n, or none if that is below 1.",
    "What either has is the sizes of both sets together, less what they have in common, which was counted twice.",
  ],
  inputs: drawShingling,
  rounds: 40,
  expected: (a, b, n) => similarityBy(a, b, (words) => runsOf(words, n)),
  mistakes: [
    {
      says: "A shingle that comes twice counts once: the shingles of a text are a set.",
      makes: (a, b, n) => sharedShare(runsOf(a, n), runsOf(b, n), either),
    },
    {
      says: "You divided by both sizes together. What is common stands in both and must not count twice.",
      makes: (a, b, n) => sharedShare(distinct(runsOf(a, n)), distinct(runsOf(b, n)), (_, x, y) => x + y),
    },
    {
      says: "You compare words, not runs of n words.",
      makes: (a, b) => sharedShare(distinct(a), distinct(b), either),
    },
    {
      says: "Without a blank between them, the words `tat a` and `ta ta` are the same run. Join with a blank.",
      makes: (a, b, n) =>
        similarityBy(a, b, (words) => runsOf(words, n).map((run) => run.replaceAll(" ", ""))),
    },
    {
      says: "A text with fewer than n words has no shingles. Yours makes a shorter one of all its words.",
      makes: (a, b, n) =>
        similarityBy(a, b, (words) => (words.length < n ? [words.join(" ")] : runsOf(words, n))),
    },
    {
      says: "Two texts without shingles are no division by zero: their similarity is 0.",
      makes: (a, b, n) => {
        const [x, y] = [distinct(runsOf(a, n)), distinct(runsOf(b, n))];
        const common = x.filter((shingle) => y.includes(shingle)).length;
        return common / (x.length + y.length - common);
      },
    },
  ],
};

interface Order {
  multiplier: number;
  addend: number;
}

const placeOf = ({ multiplier, addend }: Order, hash: number) => (Math.imul(multiplier, hash) + addend) | 0;

export const writeMinhash: Check<[number[], Order[]]> = {
  exercise: NEARLY,
  id: "write-minhash",
  title: "MinHash",
  names: ["hashes", "orders"],
  hints: [
    "One number for each order, however many hashes there are.",
    "For each order go through all hashes and keep the smallest place.",
    "Keep the place, `(Math.imul(multiplier, hash) + addend) | 0`, and not the hash that has it.",
  ],
  inputs: (random, round) => {
    // A place as large as there is: whoever starts from a smaller number has that for the smallest.
    if (round === 0) return [[2 ** 31 - 1], [{ multiplier: 1, addend: 0 }]];
    const bits = () => random.integer(-(2 ** 31), 2 ** 31 - 1);
    const orders = random.list(random.integer(1, 5), () => ({ multiplier: bits() | 1, addend: bits() }));
    return [random.list(1 + (round % 12), bits), orders];
  },
  expected: (hashes, orders) =>
    orders.map((order) => Math.min(...hashes.map((hash) => placeOf(order, hash)))),
  mistakes: [
    {
      says: "You give the hash that comes first, not its place in the order.",
      makes: (hashes, orders) =>
        orders.map((order) => hashes.reduce((a, b) => (placeOf(order, b) < placeOf(order, a) ? b : a))),
    },
    {
      says: "These are the largest places. MinHash keeps the smallest.",
      makes: (hashes, orders) =>
        orders.map((order) => Math.max(...hashes.map((hash) => placeOf(order, hash)))),
    },
    {
      says: "Multiply with `Math.imul`: an ordinary product loses its low bits when it is large.",
      makes: (hashes, orders) =>
        orders.map(({ multiplier, addend }) =>
          Math.min(...hashes.map((hash) => (multiplier * hash + addend) | 0)),
        ),
    },
    {
      says: "Where all places are above 0, your smallest is 0: start from more than any place, or from the first one.",
      makes: (hashes, orders) =>
        orders.map((order) => Math.min(0, ...hashes.map((hash) => placeOf(order, hash)))),
    },
    {
      says: "A signature has one number for each order, not one for each hash.",
      makes: (hashes, orders) =>
        hashes.map((hash) => Math.min(...orders.map((order) => placeOf(order, hash)))),
    },
  ],
};

/** Whether more than 30 % of lines are as `holds` says. */
function manyLines(lines: string[], holds: (line: string) => boolean): boolean {
  return lines.length > 0 && lines.filter(holds).length / lines.length > 0.3;
}

const trimmedLines = (text: string) => text.split("\n").map((line) => line.trim());
const endsOpen = (line: string) => line.endsWith("...") || line.endsWith("…");

export const writeTeaserFilter: Check<[string]> = {
  exercise: SIFTING,
  id: "write-teaser-filter",
  title: "A filter for teasers",
  names: ["text"],
  rounds: 60,
  hints: [
    "Split the text at line ends, trim each line, and leave out those that are empty then.",
    '`line.endsWith("...")`, or the one character …',
    "A share of exactly 30 % is not more than 30 %. And 0 / 0 is NaN, which is not more than anything.",
  ],
  inputs: (random, round) => {
    if (round === 0) return [""];
    if (round === 1) return [`${"a...\n".repeat(3)}${"b.\n".repeat(7)}`];
    if (round === 2) return ["And then..."];
    if (round === 4) return [`${"a...\n".repeat(7)}${"b.\n".repeat(16)}`];
    if (round === 3) return [`Well... well...\n${"It was late.\n".repeat(4)}`];
    const open = ["The miller said that...", "and then…", "So it ends... ", "Well... well...", "\tNo…\t"];
    const closed = ["It was late.", "He went... home.", "Then… nothing", "It was so..", "… and on"];
    // About three in ten lines end open, one more or less, among some that are empty.
    const count = random.integer(1, 40);
    const many =
      random.next() < 0.3 ? random.integer(0, count) : Math.floor(0.3 * count) + random.integer(0, 1);
    const lines = random.list(count, (i) => random.pick(i < many ? open : closed));
    for (let empty = random.integer(0, 6); empty > 0; empty--)
      lines.splice(random.integer(0, lines.length), 0, random.pick(["", "  ", "\t"]));
    return [lines.join("\n")];
  },
  expected: (text) => FILTERS["gopher-ellipses"].rejects(textShape(text)),
  mistakes: [
    {
      says: "Empty lines count in your share. Leave them out before you count.",
      makes: (text) => manyLines(trimmedLines(text), endsOpen),
    },
    {
      says: "White space at the end of a line hides its ellipsis. Trim each line first.",
      makes: (text) =>
        manyLines(
          text.split("\n").filter((line) => line.trim() !== ""),
          endsOpen,
        ),
    },
    {
      says: "An ellipsis may also be one character: …",
      makes: (text) => manyLines(textShape(text).lines, (line) => line.endsWith("...")),
    },
    {
      says: "You look for an ellipsis anywhere in the line. It must be at its end.",
      makes: (text) => manyLines(textShape(text).lines, (line) => /\.\.\.|…/.test(line)),
    },
    {
      says: "Exactly 30 % is not more than 30 %.",
      makes: (text) => {
        const { lines } = textShape(text);
        return lines.length > 0 && lines.filter(endsOpen).length / lines.length >= 0.3;
      },
    },
    {
      says: "You count every ellipsis. A line counts once, and only if it ends in one.",
      makes: (text) => {
        const { lines } = textShape(text);
        return lines.length > 0 && (text.match(/\.\.\.|…/g) ?? []).length / lines.length > 0.3;
      },
    },
  ],
};

export const writeSharedRuns: Check<[string[], string[][], number]> = {
  exercise: SIFTING,
  id: "write-shared-runs",
  title: "Shared runs of words",
  names: ["document", "benchmark", "n"],
  rounds: 40,
  hints: [
    "First put the runs of all the benchmark's texts into one set.",
    "A run lies within one text: do not join the texts of the benchmark.",
    "Then go through the document's runs, each place once, and count those that are in the set.",
  ],
  inputs: (random, round) => {
    // A word of a run may begin within a word of the benchmark, or a run in one of its texts and end in the next.
    if (round === 0) return [["at", "a"], [["tat", "at"]], 2];
    if (round === 1) return [["a", "t"], [], 1];
    const [document, second] = wordsInCommon(random, round);
    const cuts = random
      .list(random.integer(0, 3), () => random.integer(0, second.length))
      .sort((a, b) => a - b);
    const benchmark = [0, ...cuts].map((from, i) => second.slice(from, cuts[i]));
    return [document, benchmark, random.integer(1, 4)];
  },
  expected: (document, benchmark, n) =>
    overlapWith(
      benchmarkRuns(
        benchmark.map((words) => words.join(" ")),
        n,
      ),
      document.join(" "),
    )?.shared ?? 0,
  mistakes: [
    {
      says: "A run that comes twice in the document counts twice: it is two places that must go.",
      makes: (document, benchmark, n) => {
        const known = new Set(benchmark.flatMap((words) => runsOf(words, n)));
        return distinct(runsOf(document, n)).filter((run) => known.has(run)).length;
      },
    },
    {
      says: "You joined the benchmark's texts. A run that begins in one text and ends in the next is in neither.",
      makes: (document, benchmark, n) => {
        const known = new Set(runsOf(benchmark.flat(), n));
        return runsOf(document, n).filter((run) => known.has(run)).length;
      },
    },
    {
      says: "The last run is missing: m words have m - n + 1 runs of n.",
      makes: (document, benchmark, n) => {
        const known = new Set(benchmark.flatMap((words) => runsOf(words, n)));
        return runsOf(document.slice(0, -1), n).filter((run) => known.has(run)).length;
      },
    },
    {
      says: "You look for a run in the joined text, where `at a` is found within `tat at`. Compare whole words: put runs into a set.",
      makes: (document, benchmark, n) => {
        const texts = benchmark.map((words) => words.join(" "));
        return runsOf(document, n).filter((run) => texts.some((text) => text.includes(run))).length;
      },
    },
  ],
};

/** The sources that give the first windows when `pick` chooses. */
function turnsBy(weights: number[], count: number, pick: typeof nextSource): number[] {
  const taken = weights.map(() => 0);
  return Array.from({ length: count }, () => {
    const turn = pick(weights, taken);
    taken[turn]++;
    return turn;
  });
}

/** How many windows each source has given after `count`. */
function countsAfter(weights: number[], count: number): number[] {
  const turns = turnsBy(weights, count, nextSource);
  return weights.map((_, source) => turns.filter((turn) => turn === source).length);
}

export const predictTurns: Check<[]> = {
  exercise: TURNS,
  id: "predict-turns",
  title: "Predict six turns",
  hints: [
    "For the first window the sources should have given 2/3 and 1/3, and have given nothing: source 0 lacks more.",
    "For the second they should have given 4/3 and 2/3. Source 0 has given 1 and lacks 1/3, source 1 lacks 2/3.",
    "After three windows both are exactly where they should be, and it begins again.",
  ],
  expected: () => ({ turns: turnsBy([2, 1], 6, nextSource) }),
  mistakes: [
    {
      says: "You let source 0 give its two windows in a row. After the first it lacks only 1/3, and source 1 lacks 2/3.",
      makes: () => ({ turns: [0, 0, 1, 0, 0, 1] }),
    },
    {
      says: "You began with the lighter source. At first the heavier one is further behind: 2/3 of a window.",
      makes: () => ({ turns: [1, 0, 0, 1, 0, 0] }),
    },
    {
      says: "You took turns. With weights 2 and 1, source 0 gives two windows of every three.",
      makes: () => ({ turns: [0, 1, 0, 1, 0, 1] }),
    },
  ],
};

/** The place of the largest, the first or the last of equals. */
const largest = (values: number[], last = false): number =>
  last ? values.lastIndexOf(Math.max(...values)) : values.indexOf(Math.max(...values));

const sumOf = (values: number[]): number => values.reduce((sum, value) => sum + value, 0);

/** What each source lacks, if there were `windows` by now. */
const lacking = (weights: number[], taken: number[], windows: number): number[] =>
  weights.map((weight, i) => (weight / sumOf(weights)) * windows - taken[i]);

export const writeTurn: Check<[number[], number[]]> = {
  exercise: TURNS,
  id: "write-turn",
  title: "Whose turn is it?",
  names: ["weights", "taken"],
  rounds: 60,
  hints: [
    "First the number of windows: all that were given, and the one that is to be given now.",
    "A source should have given `(weight / total) * windows`. It lacks that less what it has given.",
    "`missing.indexOf(Math.max(...missing))` is the first of the largest.",
  ],
  inputs: (random, round) => {
    // The weights add up to a power of two, so that shares are exact and equals are equal whatever the formula.
    const all = [
      [1, 1],
      [3, 1],
      [1, 3],
      [2, 1, 1],
      [1, 2, 5],
      [4, 2, 1, 1],
      [0.25, 0.5, 0.25],
      [24, 40],
      [3, 5],
      [1],
    ];
    const weights = all[round % all.length];
    if (round < all.length) return [weights, weights.map(() => 0)];
    // Counts as the rule itself leaves them, and then a few windows more or less, as after a change of the weights.
    const taken = countsAfter(weights, random.integer(0, 40));
    const off = round % 2 === 0 ? 0 : 3;
    return [weights, taken.map((count) => Math.max(0, count + random.integer(-off, off)))];
  },
  expected: nextSource,
  mistakes: [
    {
      says: "You always take the source with the largest weight. It depends on what each has given so far.",
      makes: (weights) => largest(weights),
    },
    {
      says: "Count the window that is to be given now too: without it nobody lacks anything at the start.",
      makes: (weights, taken) => largest(lacking(weights, taken, sumOf(taken))),
    },
    {
      says: "A weight is no share yet: divide it by the sum of the weights.",
      makes: (weights, taken) => {
        const windows = 1 + sumOf(taken);
        return largest(weights.map((weight, i) => weight * windows - taken[i]));
      },
    },
    {
      says: "Of equals you take the last. Take the first.",
      makes: (weights, taken) => largest(lacking(weights, taken, 1 + sumOf(taken)), true),
    },
  ],
};

/** A row of tokens as a batch has it. */
const rowOf = (row: number[]) => {
  const inputs = Uint32Array.from(row);
  return { batchSize: 1, context: row.length, inputs, targets: inputs };
};

export const writeStarts: Check<[number[], number]> = {
  exercise: TURNS,
  id: "write-starts",
  title: "Where documents begin",
  names: ["row", "separator"],
  hints: [
    "Keep one number: where the present document began. At first it is 0.",
    "A separator still belongs to its document, so note the start before you look whether the token is one.",
    "Behind a separator at place `at` the next document begins at `at + 1`.",
  ],
  inputs: (random, round) => {
    if (round === 4) return [[5, 0, 7, 0, 0, 3], 0];
    if (round === 5) return [[10, 0, 1, 10, 10, 2, 0], 10];
    const pool = ID_POOLS[(2 + round) % ID_POOLS.length];
    return [drawIds(random, round < 4 ? round + 1 : random.integer(2, 20), pool), random.pick(pool)];
  },
  expected: (row, separator) => [...documentStarts(rowOf(row), separator)],
  mistakes: [
    {
      says: "The separator belongs to the document that it ends, not to the next one.",
      makes: (row, separator) => {
        let start = 0;
        return row.map((token, at) => {
          if (token === separator) start = at + 1;
          return start;
        });
      },
    },
    {
      says: "The next document begins behind the separator, not at it.",
      makes: (row, separator) => row.map((_, at) => Math.max(0, row.slice(0, at).lastIndexOf(separator))),
    },
    {
      says: "The separator is not always 0: compare with the argument `separator`.",
      makes: (row) => [...documentStarts(rowOf(row), 0)],
    },
    {
      says: "You say for each token how far its document reaches back. Asked for is the place where it begins.",
      makes: (row, separator) => row.map((_, at) => at - (row.slice(0, at).lastIndexOf(separator) + 1)),
    },
  ],
};

/** Merges learned from random ids: the key of a pair to the new id. The map holds them in any order: the ids say which came first. */
function randomMerges(random: Random, pool: number[]): Map<number, number> {
  const words = random.list(12, () => ({ ids: drawIds(random, 6, pool), count: 1 }));
  const merges = learnMergesByDefinition(words, random.integer(2, 12));
  const entries = merges.map(([left, right], i): [number, number] => [pairKey(left, right), 256 + i]);
  return new Map(random.next() < 0.5 ? entries.reverse() : entries);
}

/** Merges pairs until none is left, each time the one that `choose` takes of the places where one fits. */
function mergeChoosing(
  ids: number[],
  merges: Map<number, number>,
  choose: (places: { at: number; made: number }[]) => { at: number; made: number },
): number[] {
  const result = [...ids];
  for (;;) {
    const places = result.slice(1).flatMap((right, at) => {
      const made = merges.get(pairKey(result[at], right));
      return made === undefined ? [] : [{ at, made }];
    });
    if (places.length === 0) return result;
    const { at, made } = choose(places);
    result.splice(at, 2, made);
  }
}

export const predictRanks: Check<[]> = {
  exercise: RANKS,
  id: "predict-ranks",
  title: "Predict the tokens",
  hints: [
    "Look at the whole piece for the pair with the earliest merge. Where it stands does not matter.",
    "In `bcab` the merge of a and b is the earliest that fits, though b and c come first in the text.",
    "In `abcab` merge every a b before anything else. Then `ab` and `c` are neighbours.",
  ],
  expected: () => ({ first: ["bc", "ab"], second: ["abc", "ab"], third: ["bc", "bc"] }),
  mistakes: [
    {
      says: "In `abcab` a b merges before b c does, for its merge is the earlier one.",
      makes: () => ({ first: ["bc", "ab"], second: ["a", "bc", "ab"], third: ["bc", "bc"] }),
    },
    {
      says: "After the first merges of `abcab` go on: there is a merge for ab and c too.",
      makes: () => ({ first: ["bc", "ab"], second: ["ab", "c", "ab"], third: ["bc", "bc"] }),
    },
  ],
};

export const encodeByRank: Check<[number[], Map<number, number>]> = {
  exercise: RANKS,
  id: "encode-by-rank",
  title: "Encode by rank",
  names: ["ids", "merges"],
  hints: [
    "Repeat: look up every pair of neighbours, and merge the one whose new id is the smallest.",
    "`merges.get(pairKey(ids[i], ids[i + 1]))` is the new id, or undefined where the pair has no merge.",
    "When no pair of neighbours has a merge, the ids are the answer. Work on a copy: `const result = [...ids]`.",
  ],
  inputs: (random, round) => {
    const pool = ID_POOLS[round % 4]; // of bytes
    return [drawIds(random, round, pool), randomMerges(random, pool)];
  },
  expected: (ids, merges) => encodePieceByDefinition(Uint8Array.from(ids), merges),
  mistakes: [
    {
      says: "You make the merges in the order of the map. Which was learned first is told by the new ids: the smallest.",
      makes: (ids, merges) =>
        mergeChoosing(ids, merges, (places) => {
          const first = [...merges.values()].find((made) => places.some((place) => place.made === made));
          return places.find(({ made }) => made === first)!;
        }),
    },
    {
      says: "You merge the first pair from the left that fits. The earliest merge goes first, wherever it stands.",
      makes: (ids, merges) => mergeChoosing(ids, merges, ([first]) => first),
    },
    {
      says: "You take the latest merge first. The smallest new id was learned first, and goes first.",
      makes: (ids, merges) =>
        mergeChoosing(ids, merges, (places) =>
          places.reduce((best, each) => (each.made > best.made ? each : best)),
        ),
    },
    {
      says: "You stop after one merge. Go on until no pair of neighbours has one.",
      makes: (ids, merges) => {
        const made = ids.slice(1).map((right, i) => merges.get(pairKey(ids[i], right)) ?? Infinity);
        const at = made.indexOf(Math.min(...made));
        return at < 0 || made[at] === Infinity
          ? [...ids]
          : [...ids.slice(0, at), made[at], ...ids.slice(at + 2)];
      },
    },
  ],
};

/** Names that begin alike, that overlap, and that mean something else in a regular expression. */
const NAMES = ["<|end|>", "<|end|><|call|>", "<|start|>", "<|", "|end|>", "><|", "[INST]", "(.)", "$&"];

/** The parts of a text with the names found by a pattern as parts of their own. */
const cutByPattern = (text: string, names: string[]) =>
  names.length === 0
    ? [text].filter((part) => part !== "")
    : text
        .split(new RegExp(`(${names.map((name) => name.replace(/[|[\]().$]/g, "\\$&")).join("|")})`))
        .filter((part) => part !== "");

const longestFirst = (names: string[]) => [...names].sort((a, b) => b.length - a.length);

/** The parts of a text cut at one name after the other, in the order given. */
const cutByName = (text: string, names: string[]) =>
  names.reduce(
    (parts, name) => parts.flatMap((part) => (names.includes(part) ? [part] : cutByPattern(part, [name]))),
    [text].filter((part) => part !== ""),
  );

export const cutSpecials: Check<[string, string[]]> = {
  exercise: SPECIALS,
  id: "cut-specials",
  title: "Cut a text at its special tokens",
  names: ["text", "allowed"],
  hints: [
    "Walk through the text. At each place ask which of the allowed names stands there: `text.startsWith(name, at)`.",
    "If several do, the longest is meant: sort the names by their length first.",
    "Before a name, the text since the last name is a part, unless it is empty. Mind the rest at the end.",
  ],
  inputs: (random, round) => {
    const pieces = [...NAMES, "a", " b", "|>", "<", "end", "I", "$", "."];
    const text = random.list(round, () => random.pick(pieces)).join("");
    const allowed = NAMES.filter(() => random.next() < 0.6);
    return [text, random.next() < 0.5 ? allowed.reverse() : allowed];
  },
  expected: (text, allowed) => {
    const parts: string[] = [];
    const tokens = allowed.map((content, id) => ({ id, content, special: true }));
    cutAtTokens(
      text,
      tokenFinder(new Map(tokens.map((token) => [token.content, token]))),
      () => true,
      (part) => parts.push(part),
      (id) => parts.push(allowed[id]),
    );
    return parts;
  },
  mistakes: [
    {
      says: "You find names that were not allowed. A name that is not in `allowed` is text like any other.",
      makes: (text) => cutByPattern(text, longestFirst(NAMES)),
    },
    {
      says: "Where one name is the beginning of another, the longer one is meant. Look for long names first.",
      makes: (text, allowed) =>
        cutByPattern(
          text,
          [...allowed].sort((a, b) => a.length - b.length),
        ),
    },
    {
      says: "The names themselves are missing: they are parts too.",
      makes: (text, allowed) => {
        return cutByPattern(text, longestFirst(allowed)).filter((part) => !allowed.includes(part));
      },
    },
    {
      says: "Of names that overlap, the one that begins first counts. You cut at one name after the other: walk through the text instead.",
      makes: (text, allowed) => cutByName(text, longestFirst(allowed)),
    },
    {
      says: "In a regular expression characters such as `|`, `.`, `(` and `$` mean something else: put a backslash before each, or compare plain text.",
      makes: (text, allowed) => {
        if (allowed.length === 0) return cutByPattern(text, []);
        const pattern = new RegExp(`(${longestFirst(allowed).join("|")})`);
        return text.split(pattern).filter((part) => part);
      },
    },
  ],
};

export const writeBitsPerByte: Check<[number, number, number]> = {
  exercise: JUDGING,
  id: "bits-per-byte",
  title: "From a loss to bits per byte",
  names: ["loss", "tokens", "bytes"],
  hints: [
    "The loss is a mean over the tokens. What does the whole text cost?",
    "A nat is 1 / ln 2 bits: divide by `Math.LN2`.",
    "The bits of the whole text are loss / ln 2 · tokens. Spread them over the bytes.",
  ],
  inputs: (random) => {
    const tokens = random.integer(10, 1000);
    return [random.real(0.1, 5), tokens, random.integer(2 * tokens, 6 * tokens)];
  },
  expected: (loss, tokens, bytes) => bitsPerByte(loss, { tokens, bytes }),
  mistakes: [
    {
      says: "These are nats per byte. A nat is 1 / ln 2 bits.",
      makes: (loss, tokens, bytes) => (loss * tokens) / bytes,
    },
    {
      says: "You multiplied by ln 2. There are more bits than nats: divide by it.",
      makes: (loss, tokens, bytes) => (loss * Math.LN2 * tokens) / bytes,
    },
    {
      says: "Tokens and bytes changed places: a text has more bytes than tokens, so a byte costs less than a token.",
      makes: (loss, tokens, bytes) => ((loss / Math.LN2) * bytes) / tokens,
    },
  ],
};

/** Tokens as SentencePiece names them, among them whole characters in bytes, and bytes that are no character. */
const TOKEN_NAMES = [
  ["\u2581the"],
  ["\u2581"],
  ["\u2581\u2581a"],
  ["cat"],
  ["<0xE6>", "<0xBC>", "<0xA2>"],
  ["<0xC3>", "<0xAF>"],
  ["<0x41>"],
  ["<0xE6>", "<0xBC>"],
  ["<0xFF>"],
];

/** The tokens' text where `ofRow` makes text of a row of bytes, before the first space goes. */
const textOfTokens = (names: string[], ofRow: (row: number[]) => string): string => {
  const parts: string[] = [];
  let row: number[] = [];
  for (const name of [...names, ""]) {
    if (name.startsWith("<0x")) {
      row.push(Number.parseInt(name.slice(3), 16));
      continue;
    }
    if (row.length > 0) parts.push(ofRow(row));
    row = [];
    parts.push(name.replaceAll("\u2581", " "));
  }
  return parts.join("");
};

const lenient = (row: number[]) => new TextDecoder().decode(Uint8Array.from(row));

const strict = (row: number[]) =>
  lenient(row).includes("\ufffd") ? "\ufffd".repeat(row.length) : lenient(row);

export const writeBackToText: Check<[string[]]> = {
  exercise: BACK,
  id: "back-to-text",
  title: "Turn SentencePiece tokens back into text",
  names: ["names"],
  hints: [
    "Gather bytes in a list as long as tokens such as <0xE6> come. Any other token, and the end, closes the row.",
    'A closed row is decoded strictly: `new TextDecoder("utf-8", { fatal: true })` throws where it is not UTF-8, and then the row is "\\ufffd" once for every byte.',
    "Replace every \u2581 of the other tokens by a space. At the very end take one space from the start, if there is one.",
  ],
  inputs: (random, round) => [random.list(round, () => random.pick(TOKEN_NAMES)).flat()],
  expected: (names) =>
    decodedText([...names.keys()], names, [
      { type: "Replace", pattern: { String: "\u2581" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ]),
  mistakes: [
    {
      says: "You decode every byte by itself. The bytes of a character are spread over several tokens: gather the row first.",
      makes: (names) =>
        textOfTokens(names, (row) => row.map((byte) => lenient([byte])).join("")).replace(/^ /, ""),
    },
    {
      says: "In a row that is not UTF-8 every byte becomes U+FFFD, the whole characters in it too. TextDecoder by itself replaces only what is wrong, and several bytes by one.",
      makes: (names) => textOfTokens(names, lenient).replace(/^ /, ""),
    },
    {
      says: "Only one space goes from the start. Further ones are in the text.",
      makes: (names) => textOfTokens(names, strict).trimStart(),
    },
    {
      says: "The first word was given a mark that is not in the text: take one space from the start.",
      makes: (names) => textOfTokens(names, strict),
    },
    {
      says: "A token may have several marks: each becomes a space.",
      makes: (names) => {
        const once = names.map((name) => name.replace("\u2581", "\u0001").replaceAll("\u2581", "\u0002"));
        return textOfTokens(once, strict)
          .replaceAll("\u0001", " ")
          .replaceAll("\u0002", "\u2581")
          .replace(/^ /, "");
      },
    },
    {
      says: "A row that the text ends with is missing: close it after the last token.",
      makes: (names) => {
        const last = names.reduce((at, name, i) => (name.startsWith("<0x") ? at : i + 1), 0);
        return textOfTokens(names.slice(0, last), strict).replace(/^ /, "");
      },
    },
  ],
};
