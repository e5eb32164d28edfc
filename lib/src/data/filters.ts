// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import { type HashSet, hashSet, mixBits, wordClass, wordHashes } from "./duplicates.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#text-shape-parts
/** The share of a list for which something holds; 0 of an empty one. */
export function shareOf<T>(list: T[], holds: (item: T) => boolean): number {
  return list.length > 0 ? list.filter(holds).length / list.length : 0;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#text-shape
/** What filters look at. */
export interface TextShape {
  text: string;
  /** Runs of anything but white space. */
  words: string[];
  /** Lines without blanks at their ends; empty ones are left out. */
  lines: string[];
}

/** The words and lines of a text. */
export function textShape(text: string): TextShape {
  const lines = text.split("\n").map((line) => line.trim());
  return { text, words: text.match(/\S+/g) ?? [], lines: lines.filter((line) => line !== "") };
}

/** A rule that drops documents. */
export interface Filter {
  /** What it objects to: "fewer than 50 or more than 100 000 words". */
  objection: string;
  /** Who published it. */
  source: string;
  rejects(shape: TextShape): boolean;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#stop-words
export const GOPHER = "Rae et al. 2021 (Gopher)";
export const STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"];
export const STOP_WORD = new RegExp(`\\b(?:${STOP_WORDS.join("|")})\\b`, "gi");

/** Is it English? */
export const STOP_WORD_FILTER: Filter = {
  objection: `fewer than two of the English words ${STOP_WORDS.join(", ")}`,
  source: GOPHER,
  rejects: ({ text }) => {
    const present = new Set<string>();
    for (const [word] of text.matchAll(STOP_WORD))
      if (present.add(word.toLowerCase()).size === 2) return false;
    return true;
  },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#prose-filters
/** Is it made of words? */
export const PROSE_FILTERS: { [name: string]: Filter } = {
  "gopher-length": {
    objection: "fewer than 50 or more than 100 000 words",
    source: GOPHER,
    rejects: ({ words }) => words.length < 50 || words.length > 100_000,
  },
  "gopher-word-length": {
    objection: "words of fewer than 3 or more than 10 characters on average",
    source: GOPHER,
    rejects: ({ words }) => {
      const mean = words.reduce((sum, word) => sum + word.length, 0) / words.length;
      return !(mean >= 3 && mean <= 10);
    },
  },
  "gopher-letters": {
    objection: "more than 20 % of words have no letter in them",
    source: GOPHER,
    rejects: ({ words }) => shareOf(words, (word) => !/[a-z]/i.test(word) && !/\p{L}/u.test(word)) > 0.2,
  },
  "gopher-stop-words": STOP_WORD_FILTER,
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#mark-filters
/** Is it made of lists and teasers? */
export const MARK_FILTERS: { [name: string]: Filter } = {
  "gopher-symbols": {
    objection: "more than one # or one ellipsis for ten words",
    source: GOPHER,
    rejects: ({ text, words }) => {
      const count = (symbol: RegExp) => (text.match(symbol) ?? []).length;
      return count(/#/g) > 0.1 * words.length || count(/\.\.\.|…/g) > 0.1 * words.length;
    },
  },
  "gopher-bullets": {
    objection: "more than 90 % of lines begin with a bullet",
    source: GOPHER,
    rejects: ({ lines }) => shareOf(lines, (line) => /^[•‣▪●*-]/.test(line)) > 0.9,
  },
  "gopher-ellipses": {
    objection: "more than 30 % of lines end in an ellipsis",
    source: GOPHER,
    rejects: ({ lines }) => shareOf(lines, (line) => /(\.\.\.|…)$/.test(line)) > 0.3,
  },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#repeated-lines
/** The shares of lines, and of characters, that lines hold which stood in the text before. */
export function repeatedLines(lines: string[]): { lines: number; characters: number } {
  const seen = new Set<string>();
  let [count, characters, all] = [0, 0, 0];
  for (const line of lines) {
    all += line.length;
    if (seen.has(line)) {
      count++;
      characters += line.length;
    }
    seen.add(line);
  }
  return { lines: count / Math.max(1, lines.length), characters: characters / Math.max(1, all) };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#word-grams
/** A 32-bit hash of each word, with upper and lower case and punctuation in it. */
export function exactHashes(words: string[]): Int32Array {
  const hashes = new Int32Array(words.length);
  for (let w = 0; w < words.length; w++) {
    let hash = words[w].length;
    for (let i = 0; i < words[w].length; i++) hash = Math.imul(hash ^ words[w].charCodeAt(i), 0x01000193);
    hashes[w] = mixBits(hash);
  }
  return hashes;
}

/** For each run of n words where that run stood first: at itself if it did not stand before. */
export function firstRuns(hashes: Int32Array, n: number): Int32Array {
  const firsts = new Int32Array(Math.max(0, hashes.length - n + 1));
  const table = new Int32Array(2 ** Math.ceil(Math.log2(2 * firsts.length + 2))); // the place of a run + 1, or 0
  const same = (i: number, j: number) => {
    for (let k = 0; k < n; k++) if (hashes[i + k] !== hashes[j + k]) return false;
    return true;
  };
  for (let i = 0; i < firsts.length; i++) {
    let hash = 0;
    for (let k = 0; k < n; k++) hash = Math.imul(hash ^ hashes[i + k], 0x9e3779b1) ^ (hash >>> 15);
    let slot = mixBits(hash) & (table.length - 1);
    while (table[slot] !== 0 && !same(table[slot] - 1, i)) slot = (slot + 1) & (table.length - 1);
    if (table[slot] === 0) table[slot] = i + 1;
    firsts[i] = table[slot] - 1;
  }
  return firsts;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#repeated-runs
/** The share of characters (white space aside) that lie in a run of n words which stood in the text before. */
export function repeatedRuns(words: string[], n: number, hashes = exactHashes(words)): number {
  let [coveredTo, covered, all] = [0, 0, 0];
  const firsts = firstRuns(hashes, n);
  for (let i = 0; i < firsts.length; i++) {
    if (firsts[i] === i) continue;
    for (coveredTo = Math.max(coveredTo, i); coveredTo < i + n; coveredTo++)
      covered += words[coveredTo].length;
  }
  for (const word of words) all += word.length;
  return covered / Math.max(1, all);
}

/** The share of characters (white space aside) that one run of n words takes which comes twice or more: the largest such. */
export function commonestRun(words: string[], n: number, hashes = exactHashes(words)): number {
  const firsts = firstRuns(hashes, n);
  const times = new Int32Array(firsts.length);
  for (const first of firsts) times[first]++;
  let [most, all] = [0, 0];
  for (let i = 0; i < firsts.length; i++) {
    if (times[i] > 1) most = Math.max(most, times[i] * words.slice(i, i + n).join("").length);
  }
  for (const word of words) all += word.length;
  return most / Math.max(1, all);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#repetition-limits
/** Limits for the commonest run of n words, and for all runs of n words that stood there before (Rae et al. 2021, table A1). */
export const COMMONEST_LIMITS: [n: number, share: number][] = [
  [2, 0.2],
  [3, 0.18],
  [4, 0.16],
];
export const REPEATED_LIMITS: [n: number, share: number][] = [
  [5, 0.15],
  [6, 0.14],
  [7, 0.13],
  [8, 0.12],
  [9, 0.11],
  [10, 0.1],
];

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#repetition-filters
/** Does it repeat itself? */
export const REPETITION_FILTERS: { [name: string]: Filter } = {
  "gopher-repeated-lines": {
    objection: "more than 30 % of lines, or lines with more than 20 % of the characters, stood there before",
    source: GOPHER,
    rejects: ({ lines }) => repeatedLines(lines).lines > 0.3 || repeatedLines(lines).characters > 0.2,
  },
  "gopher-common-words": {
    objection: "one run of 2, 3 or 4 words takes more than 20, 18 or 16 % of the characters",
    source: GOPHER,
    rejects: ({ words }) => {
      const hashes = exactHashes(words);
      return COMMONEST_LIMITS.some(([n, limit]) => commonestRun(words, n, hashes) > limit);
    },
  },
  "gopher-repeated-words": {
    objection: "runs of 5 to 10 words that stood there before take more than 15 to 10 % of the characters",
    source: GOPHER,
    rejects: ({ words }) =>
      repeatedRuns(words, 5) > 0.1 && REPEATED_LIMITS.some(([n, limit]) => repeatedRuns(words, n) > limit),
  },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#c4-filters
export const C4 = "Raffel et al. 2020 (C4)";

/** The rules of C4 that judge whole pages. */
export const C4_FILTERS: { [name: string]: Filter } = {
  "c4-lorem-ipsum": {
    objection: "the words lorem ipsum",
    source: C4,
    rejects: ({ text }) => /lorem ipsum/i.test(text),
  },
  "c4-braces": {
    objection: "a curly brace: a program, or a page that failed to run one",
    source: C4,
    rejects: ({ text }) => text.includes("{"),
  },
  "c4-sentences": {
    objection: "fewer than three sentences",
    source: C4,
    rejects: ({ text }) => (text.match(/[.!?]["”’)]*(?=\s|$)/g) ?? []).length < 3,
  },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#fineweb-filters-parts
export const FINEWEB = "Penedo et al. 2024 (FineWeb)";

/** The rules that FineWeb added to those of the others. */
export const FINEWEB_FILTERS: { [name: string]: Filter } = {
  "fineweb-punctuation": {
    objection: "at most 12 % of lines end in a punctuation mark",
    source: FINEWEB,
    rejects: ({ lines }) => shareOf(lines, (line) => /[.!?…;:,"”’)]$/.test(line)) <= 0.12,
  },
  "fineweb-repeated-lines": {
    objection: "lines that stood there before take 10 % of the characters or more",
    source: FINEWEB,
    rejects: ({ lines }) => repeatedLines(lines).characters >= 0.1,
  },
  "fineweb-short-lines": {
    objection: "67 % of lines or more are shorter than 30 characters",
    source: FINEWEB,
    rejects: ({ lines }) => shareOf(lines, (line) => line.length < 30) >= 0.67,
  },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#fineweb-filters
/** All filters, by name. */
export const FILTERS: { [name: string]: Filter } = {
  ...PROSE_FILTERS,
  ...MARK_FILTERS,
  ...REPETITION_FILTERS,
  ...C4_FILTERS,
  ...FINEWEB_FILTERS,
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#choose-filters
/** The names of the filters that a list asks for: names, or groups such as "gopher". Throws, naming all, if one is unknown. */
export function chooseFilters(wanted: string[]): string[] {
  const all = Object.keys(FILTERS);
  return wanted.flatMap((name) => {
    const chosen = all.filter(
      (candidate) =>
        candidate === name ||
        (candidate.startsWith(`${name}-`) && ["gopher", "c4", "fineweb"].includes(name)),
    );
    if (chosen.length === 0)
      throw new Error(`There is no filter "${name}". There are: gopher, c4, fineweb, ${all.join(", ")}.`);
    return chosen;
  });
}

/** The name of the first of the named filters that rejects a text, if one does. */
export function rejectedBy(text: string, names: string[]): string | undefined {
  const shape = textShape(text);
  return names.find((name) => FILTERS[name].rejects(shape));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#gram-hashes
/** The multiplier of a rolling hash to the power n, modulo 2^32. */
export function powerOf(multiplier: number, n: number): number {
  let power = 1;
  for (let i = 0; i < n; i++) power = Math.imul(power, multiplier);
  return power;
}

/** Calls `visit` with a 64-bit hash of each run of n words, and the number of its first word. */
export function eachRun(
  words: Int32Array,
  n: number,
  visit: (high: number, low: number, at: number) => void,
): void {
  const [a, b] = [0x2c9277b5, 0x5f356495]; // odd numbers without pattern
  const [leavingA, leavingB] = [powerOf(a, n), powerOf(b, n)];
  let [high, low] = [0, 0];
  for (let i = 0; i < words.length; i++) {
    high = (Math.imul(high, a) + words[i]) | 0;
    low = (Math.imul(low, b) + mixBits(words[i])) | 0;
    if (i >= n) {
      high = (high - Math.imul(leavingA, words[i - n])) | 0;
      low = (low - Math.imul(leavingB, mixBits(words[i - n]))) | 0;
    }
    if (i >= n - 1) visit(high >>> 0, mixBits(low) >>> 0, i - n + 1);
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#benchmark
/** Texts that must not be in a corpus, as the hashes of their runs of words. */
export interface Benchmark {
  /** Words in a run. */
  words: number;
  runs: HashSet;
  /** How many texts have fewer words than a run, and so cannot be found. */
  tooShort: number;
}

/** The runs of 13 words (unless told otherwise) of the texts of a benchmark. */
export function benchmarkRuns(texts: Iterable<string>, words = 13): Benchmark {
  const benchmark: Benchmark = { words, runs: hashSet(), tooShort: 0 };
  for (const text of texts) addToBenchmark(benchmark, text);
  return benchmark;
}

/** Adds one text to a benchmark. */
export function addToBenchmark(benchmark: Benchmark, text: string): void {
  const hashes = wordHashes(text);
  if (hashes.length < benchmark.words) benchmark.tooShort++;
  eachRun(hashes, benchmark.words, (high, low) => benchmark.runs.add(high, low));
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#word-range
/** The words number `from` to `to` - 1 of a text (as `wordHashes` counts them), in lower case, with all between them. */
export function wordRange(text: string, from: number, to: number): string {
  const lower = text.toLowerCase();
  let [count, start, inWord] = [0, 0, false];
  for (let i = 0; i <= lower.length; i++) {
    const kind = i < lower.length ? wordClass(lower.charCodeAt(i)) : 0;
    if (inWord && kind !== 1 && ++count === to) return lower.slice(start, i);
    if (count === from && kind !== 0 && !inWord) start = i;
    inWord = kind === 1;
    if (kind === 2 && ++count === to) return lower.slice(start, i + 1);
  }
  return lower.slice(start);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#contamination
/** What a document has in common with a benchmark. */
export interface Overlap {
  /** How many of its runs of words are in the benchmark, and how many it has. */
  shared: number;
  runs: number;
  /** The first that is, in lower case. */
  example: string;
}

/** What a text has in common with a benchmark (Brown et al. 2020, appendix C); nothing if no run of words is in both. */
export function overlapWith(benchmark: Benchmark, text: string): Overlap | undefined {
  let [shared, runs, first] = [0, 0, -1];
  eachRun(wordHashes(text), benchmark.words, (high, low, at) => {
    runs++;
    if (!benchmark.runs.has(high, low)) return;
    if (shared++ === 0) first = at;
  });
  if (shared > 0) return { shared, runs, example: wordRange(text, first, first + benchmark.words) };
}
