// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { randomStream } from "../../src/data/random.js";

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#random-test
await test("random streams repeat for a seed, differ between seeds, and are even", () => {
  const take = (seed: number, count: number) => Array.from({ length: count }, randomStream(seed));
  expect(take(5, 20)).toEqual(take(5, 20));
  const firsts = new Set([0, 1, 2, 3, 2 ** 32, 2 ** 33].map((seed) => take(seed, 1)[0]));
  expect(firsts.size).toBe(6);
  const bins = new Array(50).fill(0);
  for (const number of take(7, 100_000)) bins[Math.floor(number * 50)]++;
  const chiSquare = bins.reduce((sum, count) => sum + (count - 2000) ** 2 / 2000, 0);
  expect(chiSquare).toBeLessThan(95); // 49 degrees of freedom: beyond 95 once in 10 000 seeds
});
