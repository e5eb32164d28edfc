// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type BlockPool,
  blockPool,
  enterBlock,
  findPrefix,
  freeBlocks,
  releaseBlocks,
  shareBlock,
  takeBlock,
} from "../../src/infer/blocks.js";

//| 05-inference/3-many-at-once.ipynb#pool-tests
const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);

/** Takes blocks for a text, those that are known first, and makes all whole ones known. */
function store(pool: BlockPool, tokens: number[], root = 0): { blocks: number[]; found: number } {
  const found = findPrefix(pool, root, tokens);
  for (const { block } of found) shareBlock(pool, block);
  const blocks = found.map(({ block }) => block);
  while (blocks.length * 16 < tokens.length) blocks.push(takeBlock(pool)!);
  let last = found[found.length - 1]?.number ?? root;
  for (let at = found.length; (at + 1) * 16 <= tokens.length; at++)
    last = enterBlock(pool, blocks[at], last, tokens, 16 * at);
  return { blocks, found: found.length };
}

await test("a text finds the whole blocks of an equal beginning, and always has a token left to compute", () => {
  const pool = blockPool(20);
  const first = store(pool, numbers(40));
  expect(first).toEqual({ blocks: [0, 1, 2], found: 0 });
  expect(store(pool, numbers(40)).blocks).toEqual([0, 1, 3]);
  expect(store(pool, [...numbers(31), 99, 98]).blocks).toEqual([0, 4, 5]);
  expect(findPrefix(pool, 0, numbers(16)).length).toBe(0); // one block, whose last token is wanted
  expect(findPrefix(pool, 0, numbers(17)).length).toBe(1);
  expect(findPrefix(pool, 0, numbers(32)).length).toBe(1);
  expect(findPrefix(pool, 0, numbers(20, 16)).length).toBe(0); // the same tokens after others are not the same
  expect(findPrefix(pool, -1, numbers(40)).length).toBe(0);
  expect([...pool.owners.slice(0, 6)]).toEqual([3, 2, 1, 1, 1, 1]);
});

await test("free blocks keep what they hold, and the one that was not used for the longest time goes first", () => {
  const pool = blockPool(4);
  const one = store(pool, numbers(34));
  releaseBlocks(pool, one.blocks);
  expect(freeBlocks(pool)).toBe(4);
  releaseBlocks(pool, store(pool, numbers(20, 100)).blocks); // takes the empty ones
  expect(store(pool, numbers(34)).found).toBe(2);
  expect(freeBlocks(pool)).toBe(1);
  expect(takeBlock(pool)).toBeDefined();
  expect(takeBlock(pool)).toBeUndefined();
  expect(findPrefix(pool, 0, numbers(20, 100)).length).toBe(0);
});

//| 05-inference/3-many-at-once.ipynb#pool-property
/** Random comings and goings of texts that begin alike, in a small pool. */
const comings = fc.array(
  fc.record({ begin: fc.nat(2), length: fc.integer({ min: 1, max: 80 }), leaves: fc.nat(5) }),
  { maxLength: 40 },
);

await test("whoever comes and goes: no block has two contents, and those before a known block are known", () => {
  fc.assert(
    fc.property(comings, (texts) => {
      const pool = blockPool(12);
      const here: { tokens: number[]; blocks: number[] }[] = [];
      for (const { begin, length, leaves } of texts) {
        if (leaves < here.length) releaseBlocks(pool, here.splice(leaves, 1)[0].blocks);
        const tokens = [...numbers(33), begin, ...numbers(length)].slice(0, length);
        if (Math.ceil(length / 16) > freeBlocks(pool)) continue;
        here.push({ tokens, blocks: store(pool, tokens).blocks });
        const contents = new Map<number, string>();
        for (const text of here)
          text.blocks.forEach((block, i) => {
            const content = text.tokens.slice(0, 16 * (i + 1)).join();
            expect(contents.get(block) ?? content).toBe(content);
            contents.set(block, content);
          });
        expect(freeBlocks(pool)).toBe(12 - contents.size);
        const known = new Set([0, ...[...pool.index.values()].map((entry) => entry.number)]);
        for (const { key } of pool.index.values()) expect(known).toContain(Number(key.split(":")[0]));
      }
    }),
  );
});
