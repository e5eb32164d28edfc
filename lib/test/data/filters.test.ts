// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  FILTERS,
  benchmarkRuns,
  chooseFilters,
  commonestRun,
  overlapWith,
  rejectedBy,
  repeatedLines,
  repeatedRuns,
} from "../../src/data/filters.js";
import { randomStream } from "../../src/data/random.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#filter-samples
/** A page of prose that every filter lets pass. */
const PROSE = [
  "The old mill stands by the river, and nobody has worked in it for a hundred years.",
  "Children say that a fox lives there with her young ones, and that you can hear them in the evening.",
  "My grandmother laughed when I told her that. She had been to the mill as a girl, to have the corn ground.",
  "In those days the miller was a man with flour in his beard, who knew all that happened in the valley.",
  "He would not take money from the poor. They brought him eggs, or a hen, or helped to clean the channel.",
].join("\n");

/** The page with something done to it that one filter objects to. */
const SPOILT: { [filter: string]: string } = {
  "gopher-length": PROSE.split(" ").slice(0, 40).join(" "),
  "gopher-word-length": PROSE.replace(/\w+/g, (word) => word.repeat(4)),
  "gopher-symbols": PROSE.replace(/ (\w)/g, " #$1"),
  "gopher-bullets": PROSE.replace(/^/gm, "- "),
  "gopher-ellipses": PROSE.replace(/\.$/gm, "..."),
  "gopher-letters": PROSE.replace(/ (\w+)/g, " $1 - +"),
  "gopher-stop-words": PROSE.replace(/\b(the|be|to|of|and|that|have|with)\b/gi, "le"),
  "gopher-repeated-lines": `${PROSE}\n`.repeat(2),
  "gopher-common-words": PROSE.replace(/ (\w+) (\w+)/g, " $1 cheap shoes $2 cheap shoes"),
  "gopher-repeated-words": PROSE.replace(/\.\n/g, ". Click here to read about all our many offers today.\n"),
  "c4-lorem-ipsum": `${PROSE}\nLorem ipsum dolor sit amet.`,
  "c4-braces": `${PROSE}\nfunction page() { return 1; }`,
  "c4-sentences": PROSE.replace(/[.]/g, ","),
  "fineweb-punctuation": PROSE.replace(/[.,?!]/g, ""),
  "fineweb-repeated-lines": `${PROSE}\n${PROSE.split("\n")[1]}`,
  "fineweb-short-lines": PROSE.replace(/ (\w+) (\w+) /g, " $1 $2\n"),
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#filters-test
await test("each filter lets prose pass and rejects what it is there for", () => {
  const names = Object.keys(FILTERS);
  expect(Object.keys(SPOILT).sort()).toEqual([...names].sort());
  expect(rejectedBy(PROSE, names)).toBeUndefined();
  for (const name of names) expect([name, rejectedBy(SPOILT[name], [name])]).toEqual([name, name]);
  expect(rejectedBy("", ["gopher-word-length"])).toBe("gopher-word-length");
  for (const name of names) expect([undefined, name]).toContain(rejectedBy("", [name])); // nothing throws
  expect(chooseFilters(["c4", "gopher-length"])).toEqual([
    "c4-lorem-ipsum",
    "c4-braces",
    "c4-sentences",
    "gopher-length",
  ]);
  expect(() => chooseFilters(["gopher", "langth"])).toThrow(
    'There is no filter "langth". There are: gopher, c4, fineweb, gopher-length,',
  );
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#repetition-test
await test("repetition is measured as a plain count of characters measures it", () => {
  expect(repeatedLines(["aa", "bbb", "aa", "aa", "c"])).toEqual({ lines: 2 / 5, characters: 4 / 10 });
  expect(repeatedRuns("a b c d a b c e".split(" "), 3)).toBe(3 / 8);
  expect(repeatedRuns("a a a a a a".split(" "), 2)).toBe(5 / 6); // runs that overlap count once
  expect(commonestRun("a bb a bb a bb c".split(" "), 2)).toBe(9 / 10);
  const random = randomStream(9);
  for (let round = 0; round < 500; round++) {
    const words = Array.from({ length: 30 }, () => "abc"[Math.floor(random() * 3)]);
    const text = words.join("");
    for (const n of [2, 3, 5]) {
      const marked = words.map(() => 0);
      for (let i = 0; i + n <= 30; i++) if (text.indexOf(text.slice(i, i + n)) < i) marked.fill(1, i, i + n);
      expect(repeatedRuns(words, n)).toBe(marked.reduce<number>((sum, each) => sum + each, 0) / 30);
    }
    for (let n = 5; n < 10; n++)
      expect(repeatedRuns(words, n + 1)).toBeLessThanOrEqual(repeatedRuns(words, n));
  }
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#contamination-test
await test("shared runs are those that a plain set of words finds", () => {
  const random = randomStream(10);
  const vocabulary = ["The", "fox", "ran", "é", "日", "home", "42", "x"];
  const draw = () =>
    Array.from(
      { length: Math.floor(random() * 25) },
      () => vocabulary[Math.floor(random() * vocabulary.length)],
    ).join(random() < 0.5 ? " " : ", ");
  const runsOf = (text: string) => {
    const words = text.toLowerCase().match(/日|[a-zé\d]+/g) ?? [];
    return Array.from({ length: Math.max(0, words.length - 2) }, (_, i) => words.slice(i, i + 3).join(" "));
  };
  let found = 0;
  for (let round = 0; round < 1000; round++) {
    const [texts, document] = [[draw(), draw()], draw()];
    const plain = new Set(texts.flatMap(runsOf));
    const shared = runsOf(document).filter((run) => plain.has(run));
    const overlap = overlapWith(benchmarkRuns(texts, 3), document);
    expect([overlap?.shared ?? 0, overlap?.runs ?? 0]).toEqual([
      shared.length,
      shared.length > 0 ? runsOf(document).length : 0,
    ]);
    if (overlap) expect(runsOf(overlap.example)).toEqual([shared[0]]);
    found += shared.length;
  }
  expect(found).toBeGreaterThan(200);
  expect(benchmarkRuns(["one two", "one two three"], 3)).toMatchObject({ tooShort: 1, words: 3 });
});
