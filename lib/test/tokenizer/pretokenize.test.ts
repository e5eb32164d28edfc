// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { splitPieces } from "../../src/tokenizer/bpe.js";
import {
  PATTERNS,
  type PatternName,
  compilePattern,
  patternSplitter,
} from "../../src/tokenizer/pretokenize.js";

//| 01-tokenizer/3-fast-merges.ipynb#splitter-test
/** Random texts of characters at which patterns change their minds. */
function trickyTexts(count: number): string[] {
  const parts = [
    ..." \n\r\t'sStTſaBzZéßÄʰא日1２Ⅷ.,/_-\u0085\ufeff\u00a0\u3000\u200d\u0301🎉",
    "\r\n",
    "  ",
    "'re",
    "'LL",
    "the",
    " The",
  ];
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: 1 + (i % 12) }, () => parts[Math.floor(Math.random() * parts.length)]).join(""),
  );
}

await test("a splitter gives what all matches of its pattern give, and loses nothing", () => {
  const texts = trickyTexts(4000);
  for (const name of Object.keys(PATTERNS) as PatternName[]) {
    const splitter = patternSplitter(PATTERNS[name]);
    const pattern = compilePattern(PATTERNS[name], "gu");
    for (const text of texts) {
      const pieces: string[] = [];
      splitter(text, (_, from, to) => pieces.push(text.slice(from, to)));
      expect(pieces, JSON.stringify([name, text])).toEqual(text.match(pattern));
      expect(pieces.join("")).toBe(text);
      if (name === "house") expect(pieces).toEqual(splitPieces(text));
    }
  }
});

//| 01-tokenizer/3-fast-merges.ipynb#dialect-test
await test("patterns of another dialect keep their meaning, or are refused with the reason", () => {
  const cut = (pattern: string, text: string) => {
    const pieces: string[] = [];
    patternSplitter(pattern)(text, (_, from, to) => pieces.push(text.slice(from, to)));
    return pieces;
  };
  expect(cut("(?i:'s|'k)", "a'S'ſ'\u212a'x")).toEqual(["a", "'S", "'ſ", "'\u212a", "'x"]);
  expect(cut("'(?i:[st]|ll)|(?:a++)bcd++", "'T'LL'ſabcdd")).toEqual(["'T", "'LL", "'ſ", "abcdd"]);
  expect(cut("\\s+", "a\u0085 b\ufeffc")).toEqual(["a", "\u0085 ", "b\ufeffc"]);
  expect(cut("(?:ab)++a|a++b|.", "aabababa")).toEqual(["aab", "ababa"]);
  expect(cut("a++a|.", "aaa")).toEqual(["a", "a", "a"]); // what was taken is not given back
  expect(cut("x*", "axxb")).toEqual(["a", "xx", "b"]); // an empty match is none
  expect(cut("\\d{2}|\\'|[\\-\\.]", "1٢'.-")).toEqual(["1٢", "'", ".", "-"]);
  expect(cut("\\p{N}{1,3}+", "12345")).toEqual(["12345"]); // once or more, not possessive
  expect(cut("^a|b$", "a\na b\nb\n")).toEqual(["a", "\n", "a", " ", "b", "\n", "b", "\n"]);
  expect(cut("[a-z&&[^b]]+|(?i)k", "abc\u212aK")).toEqual(["a", "b", "c", "\u212a", "K"]);
  expect(cut("(?=b)|\\B", "🎉🎉")).toEqual(["🎉", "🎉"]); // never within a character
  expect(() => patternSplitter("(a")).toThrow('The pattern "(a" cannot be used: a group is not closed.');
  expect(() => patternSplitter("a\\Kb")).toThrow("it uses \\K, which tslm does not translate");
  expect(() => patternSplitter("(?i)strasse")).toThrow('it uses "ss" where case is ignored');
  expect(() => patternSplitter(`${"(".repeat(9000)}a`)).toThrow("nested too deeply");
});
