// The checks of chapter 1's exercises.
import {
  bitsPerByte,
  cutAtTokens,
  encodePieceByDefinition,
  GRAMMAR,
  learnMergesByDefinition,
  measureParts,
  mergePair,
  pairKey,
  type Part,
  parseTemplate,
} from "tslm";
import type { Check, Random } from "tslm/notebook";

const MERGING = "01-tokenizer/1-one-merge";
const ENTROPY = "01-tokenizer/2-the-entropy-of-a-small-grammar";
const RANKS = "01-tokenizer/3-encode-by-rank";
const SPECIALS = "01-tokenizer/4-text-that-pretends";
const JUDGING = "01-tokenizer/5-a-fair-comparison";

/** Ids in which a pair is likely: few different values, so that runs and repeats occur. */
function idsWithRepeats(random: Random, round: number): number[] {
  return random.list(round < 3 ? round : random.integer(2, 30), () => random.integer(1, 3));
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
  inputs: (random, round) => [idsWithRepeats(random, round)],
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
    const ids = idsWithRepeats(random, round);
    const left = random.integer(1, 3);
    // One time in three both halves are alike, which is where merging is easy to get wrong.
    return [ids, left, round % 3 === 0 ? left : random.integer(1, 3), 256 + random.integer(0, 99)];
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
    if (round === 0) return [[1]];
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
  return random.list(random.integer(1, 3), (): Part => {
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
  ],
};

/** Merges learned from random ids below 4: the key of a pair to the new id. */
function randomMerges(random: Random): Map<number, number> {
  const words = random.list(12, () => ({ ids: random.list(6, () => random.integer(1, 3)), count: 1 }));
  const merges = learnMergesByDefinition(words, random.integer(2, 8));
  return new Map(merges.map(([left, right], i) => [pairKey(left, right), 256 + i]));
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
  inputs: (random, round) => [random.list(round, () => random.integer(1, 3)), randomMerges(random)],
  expected: (ids, merges) => encodePieceByDefinition(Uint8Array.from(ids), merges),
  mistakes: [
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

/** Names that begin alike, so that it matters which is looked for first. */
const NAMES = ["<|end|>", "<|end|><|call|>", "<|start|>", "<|"];

/** The parts of a text with the names found by a pattern as parts of their own. */
const cutByPattern = (text: string, names: string[]) =>
  names.length === 0
    ? [text].filter((part) => part !== "")
    : text
        .split(new RegExp(`(${names.map((name) => name.replace(/[|]/g, "\\$&")).join("|")})`))
        .filter((part) => part !== "");

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
    const parts = random.list(round, () => random.pick([...NAMES, "a", " b", "|>", "<"]));
    return [parts.join(""), NAMES.filter(() => random.next() < 0.6)];
  },
  expected: (text, allowed) => {
    const parts: string[] = [];
    const tokens = allowed.map((content, id) => ({ id, content, special: true }));
    cutAtTokens(
      text,
      tokens,
      (part) => parts.push(part),
      (id) => parts.push(allowed[id]),
    );
    return parts;
  },
  mistakes: [
    {
      says: "You find names that were not allowed. A name that is not in `allowed` is text like any other.",
      makes: (text) =>
        cutByPattern(
          text,
          [...NAMES].sort((a, b) => b.length - a.length),
        ),
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
        const sorted = [...allowed].sort((a, b) => b.length - a.length);
        return cutByPattern(text, sorted).filter((part) => !allowed.includes(part));
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
    return [random.real(0.1, 5), tokens, tokens * random.integer(2, 6)];
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
