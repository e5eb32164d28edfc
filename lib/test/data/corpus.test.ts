// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { safeCut } from "../../src/data/corpus.js";
import { randomStream } from "../../src/data/random.js";
import { SPLIT_PATTERN } from "../../src/tokenizer/bpe.js";

//| 01-tokenizer/a-the-pipeline.ipynb#safe-cut-test
await test("the pieces of every tokenizer we know end where a text is safely cut", () => {
  const patterns = [
    SPLIT_PATTERN,
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?:'[sS]|'[tT])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ];
  const random = randomStream(21);
  const signs = ["\n", "\n", "\r\n", " ", "\t", "a", "É", "日", "1", "23", ".", "/", "'s", "\u0085"];
  let cuts = 0;
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 14 }, () => signs[Math.floor(random() * signs.length)]).join("");
    const cut = safeCut(text);
    if (cut > 0) cuts++;
    for (const pattern of patterns) {
      const pieces = (part: string) => part.match(new RegExp(pattern, "gu")) ?? [];
      expect([...pieces(text.slice(0, cut)), ...pieces(text.slice(cut))]).toEqual(pieces(text));
    }
  }
  expect(cuts).toBeGreaterThan(1000);
});
