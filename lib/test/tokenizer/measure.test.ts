// Extracted from chapters/01-tokenizer/5-judging-a-tokenizer.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { loadTokenizer } from "../../src/tokenizer/files.js";
import { bytesPerToken, fertility, tokenCounts, unreachableTokens } from "../../src/tokenizer/measure.js";
import { byteTokenizer, trainBpe } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/5-judging-a-tokenizer.ipynb#measure-test
await test("measures of a tokenizer are what counting by hand gives", () => {
  const bytes = byteTokenizer();
  expect(bytesPerToken(bytes, "größe")).toBe(1);
  expect(fertility(bytes, " ab  cd\n")).toBe(8 / 2);
  expect(unreachableTokens(bytes)).toEqual([]);
  const pairs = trainBpe(["abab abab"], 300); // "ab", "abab", " abab"
  expect(
    Array.from(tokenCounts(pairs, ["ab", "abab"])).flatMap((count, id) => (count > 0 ? [[id, count]] : [])),
  ).toEqual([
    [256, 1],
    [257, 1],
  ]);
  expect(unreachableTokens(pairs)).toEqual([]);
  const lost = trainBpe(["ab"], 300).toJson() as {
    pre_tokenizer: { pretokenizers: { pattern: { Regex: string } }[] };
  };
  lost.pre_tokenizer.pretokenizers[0].pattern.Regex = "[ab]"; // cuts through the token "ab"
  expect(unreachableTokens(loadTokenizer(lost))).toEqual([256]);
});
