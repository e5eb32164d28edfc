// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  countWords,
  encodePieceByDefinition,
  learnMergesByDefinition,
  mergePair,
  mergedTokens,
  pairKey,
  splitPieces,
} from "../../src/tokenizer/bpe.js";
import { joinTokens } from "../../src/tokenizer/characters.js";

//| 01-tokenizer/1-bytes-and-pairs.ipynb#merge-pair-test
await test("a merge goes from left to right and never overlaps", () => {
  expect(mergePair([1, 1, 1], 1, 1, 9)).toEqual([9, 1]);
  expect(mergePair([1, 1, 1, 1], 1, 1, 9)).toEqual([9, 9]);
  expect(mergePair([1, 2, 1, 2, 1], 1, 2, 9)).toEqual([9, 9, 1]);
  expect(mergePair([2, 1], 1, 2, 9)).toEqual([2, 1]);
  expect(mergePair([], 1, 2, 9)).toEqual([]);
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#split-test
await test("pieces joined are the text, and a line's end is always a boundary", () => {
  const texts = [
    "",
    "   a  b",
    "x\n\n  y\r\nz",
    "tab\t\tbed",
    "1234.5",
    "\u0085\u00a0 \u2028",
    "e\u0301 हिन्दी",
    "🎉👩‍👧 ok",
  ];
  for (const text of texts) {
    expect(splitPieces(text).join("")).toBe(text);
    for (const other of texts.filter((next) => !/^[\r\n]/.test(next))) {
      expect(splitPieces(`${text}\n${other}`)).toEqual([...splitPieces(`${text}\n`), ...splitPieces(other)]);
    }
  }
  expect(splitPieces("a 12, b")).toEqual(["a", " 1", "2", ",", " b"]);
  expect(() => splitPieces("half \ud83c")).toThrow("half a character");
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#definition-test
await test("training and encoding by definition: ties, exhausted texts, the tokens that training left", () => {
  expect(learnMergesByDefinition(countWords(["low lower lowest"]), 3)).toEqual([
    [108, 111], // "l o" before "o w": a tie goes to the smaller ids
    [256, 119],
    [32, 257],
  ]);
  expect(learnMergesByDefinition(countWords(["abc"]), 99).length).toBe(2); // "ab", "abc", and then there are no pairs
  const words = countWords(["she sells sea shells by the sea shore, she said. ".repeat(3)]);
  const merges = learnMergesByDefinition(words, 60);
  const mergeIds = new Map(merges.map(([left, right], i) => [pairKey(left, right), 256 + i]));
  for (const { ids } of words)
    expect(encodePieceByDefinition(joinTokens(ids, mergedTokens(merges)), mergeIds)).toEqual(ids);
});
