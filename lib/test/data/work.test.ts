// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { randomStream } from "../../src/data/random.js";
import { inOrder } from "../../src/data/work.js";

//| 01-tokenizer/a-the-pipeline.ipynb#in-order-test
await test("results come in the order of the items, whoever is done first, and never more are on their way than may be", async () => {
  const random = randomStream(6);
  async function* items() {
    for (let i = 0; i < 60; i++) yield i;
  }
  for (const width of [1, 3, 8]) {
    let [busy, most] = [0, 0];
    const work = async (item: number) => {
      most = Math.max(most, ++busy);
      await new Promise((resolve) => setTimeout(resolve, 3 * random()));
      busy--;
      return item * item;
    };
    const results: number[] = [];
    for await (const [item, square] of inOrder(items(), work, width)) {
      expect(square).toBe(item * item);
      results.push(item);
    }
    expect(results).toEqual(Array.from({ length: 60 }, (_, i) => i));
    expect(most).toBe(width);
  }
});

//| 01-tokenizer/a-the-pipeline.ipynb#in-order-error-test
await test("an item that cannot be worked on ends the row with its error, after what came before it", async () => {
  async function* items() {
    for (let i = 0; i < 10; i++) yield i;
  }
  const work = async (item: number) => {
    if (item === 4) throw new Error("item 4 is bad");
    return item;
  };
  const seen: number[] = [];
  const all = async () => {
    for await (const [item] of inOrder(items(), work, 3)) seen.push(item);
  };
  await expect(all()).rejects.toThrow("item 4 is bad");
  expect(seen).toEqual([0, 1, 2, 3]);
});
