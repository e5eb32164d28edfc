// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  type SourceCursor,
  batches,
  documentStarts,
  epochOffsets,
  nextSource,
  shuffledNumbers,
  validationWindows,
} from "../../src/data/batches.js";
import { randomStream } from "../../src/data/random.js";
import { tokensInMemory } from "../../src/data/shards.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#shuffled-test
await test("a shuffle is a permutation, and every permutation comes as often as another", () => {
  const random = randomStream(3);
  const counts = new Map<string, number>();
  for (let i = 0; i < 24_000; i++) {
    const order = shuffledNumbers(4, random).join("");
    expect([...order].sort().join("")).toBe("0123");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  expect(counts.size).toBe(24);
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
  expect(chiSquare).toBeLessThan(52); // 23 degrees of freedom: more than 52 once in 2000 seeds
});

//| 01-tokenizer/7-shards-and-batches.ipynb#epoch-test
await test("windows of an epoch lie side by side, each once, and leave out less than two windows", () => {
  for (const [length, context] of [
    [1000, 16],
    [129, 128],
    [130, 128],
    [257, 128],
    [5000, 7],
  ]) {
    for (let epoch = 0; epoch < 20; epoch++) {
      const offsets = [...epochOffsets(length, context, 5, epoch)].sort((a, b) => a - b);
      expect(offsets.length).toBeGreaterThan(0);
      expect(offsets.every((offset, i) => offset === offsets[0] + i * context)).toBe(true);
      expect(offsets[0]).toBeLessThan(context);
      const end = offsets[offsets.length - 1] + context + 1;
      expect(end).toBeLessThanOrEqual(length);
      expect(length - end).toBeLessThan(context);
    }
  }
  const orders = [0, 1].map((epoch) => epochOffsets(5000, 16, 5, epoch).join());
  expect(orders[0]).not.toBe(orders[1]);
});

//| 01-tokenizer/7-shards-and-batches.ipynb#document-starts-test
await test("a document begins behind the last separator of its row, if there is one", () => {
  const random = randomStream(12);
  for (let round = 0; round < 200; round++) {
    const context = 1 + Math.floor(random() * 12);
    const inputs = Uint32Array.from({ length: 3 * context }, () => Math.floor(random() * 4));
    const starts = documentStarts({ batchSize: 3, context, inputs, targets: inputs }, 0);
    starts.forEach((start, at) => {
      const row = at - (at % context);
      const before = [...inputs.subarray(row, at)];
      expect(start).toBe(before.lastIndexOf(0) + 1);
    });
  }
});

//| 01-tokenizer/7-shards-and-batches.ipynb#next-source-test
await test("at every moment each source has given its share to within two windows", () => {
  const random = randomStream(4);
  for (const count of [1, 2, 3, 8]) {
    const weights = Array.from({ length: count }, () => 0.05 + random());
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const taken = weights.map(() => 0);
    for (let windows = 1; windows <= 3000; windows++) {
      taken[nextSource(weights, taken)]++;
      for (const [i, weight] of weights.entries())
        expect(Math.abs(taken[i] - (weight / total) * windows)).toBeLessThan(2);
    }
  }
  expect(nextSource([1, 1], [0, 0])).toBe(0);
});

//| 01-tokenizer/7-shards-and-batches.ipynb#resume-test
await test("a cursor, through JSON, goes on with the very same batches, also across epochs", () => {
  const source = tokensInMemory(Array.from({ length: 1000 }, (_, i) => i));
  const options = { batchSize: 6, context: 16, seed: 9 };
  const stream = batches(source, options);
  for (let step = 0; step < 40; step++) {
    const again = batches(source, options, JSON.parse(JSON.stringify(stream.cursor())));
    const [one, two] = [stream.next(), again.next()];
    expect(two).toEqual(one);
    expect(again.cursor()).toEqual(stream.cursor());
    expect(one.inputs.length).toBe(6 * 16);
    expect(one.targets).toEqual(one.inputs.map((token) => token + 1));
  }
  expect((stream.cursor() as SourceCursor).epoch).toBeGreaterThan(2);
});

//| 01-tokenizer/7-shards-and-batches.ipynb#batches-test
await test("seeds give different orders, and a source that is too short is refused", () => {
  const source = tokensInMemory(Array.from({ length: 500 }, (_, i) => i));
  const first = (seed: number) => batches(source, { batchSize: 8, context: 10, seed }).next().inputs.join();
  expect(first(1)).toBe(first(1));
  expect(first(1)).not.toBe(first(2));
  expect(() => batches(tokensInMemory([1, 2, 3]), { batchSize: 1, context: 3, seed: 0 })).toThrow(
    "it takes at least 4",
  );
  const shortest = batches(tokensInMemory([1, 2, 3, 4]), { batchSize: 2, context: 3, seed: 0 }).next();
  expect([...shortest.inputs]).toEqual([1, 2, 3, 1, 2, 3]);
});

//| 01-tokenizer/7-shards-and-batches.ipynb#mixed-resume-test
await test("mixed sources: every window whole from one source, in its share, and a cursor goes on exactly", () => {
  const sources = [700, 90, 2000].map((length, i) => ({
    name: `source ${i}`,
    weight: [1, 2, 0.5][i],
    tokens: tokensInMemory(Array.from({ length }, (_, at) => 10_000 * i + at)),
  }));
  const options = { batchSize: 5, context: 16, seed: 3, separator: 10_040 };
  const stream = batches(sources, options);
  const counts = [0, 0, 0];
  for (let step = 0; step < 70; step++) {
    const again = batches(sources, options, JSON.parse(JSON.stringify(stream.cursor())));
    const batch = stream.next();
    expect(again.next()).toEqual(batch);
    expect(again.cursor()).toEqual(stream.cursor());
    expect(batch.targets).toEqual(batch.inputs.map((token) => token + 1));
    expect(batch.firstKey).toEqual(documentStarts(batch, 10_040));
    for (let row = 0; row < 5; row++) counts[Math.floor(batch.inputs[16 * row] / 10_000)]++;
  }
  expect(counts).toEqual([100, 200, 50]);
  const cursor = stream.cursor() as { sources: SourceCursor[] };
  expect(cursor.sources[1].epoch).toBeGreaterThan(20); // few tokens, much weight: read again and again
});

//| 01-tokenizer/7-shards-and-batches.ipynb#mixed-refuse-test
await test("a source without a window is named, and a place in other sources is refused", () => {
  const tokens = tokensInMemory(Array.from({ length: 100 }, (_, i) => i));
  const short = { name: "notes", weight: 1, tokens: tokensInMemory([1, 2, 3]) };
  const long = { name: "books", weight: 1, tokens };
  const options = { batchSize: 2, context: 8, seed: 1 };
  expect(() => batches([long, short], options)).toThrow("The source notes has 3 tokens, too few");
  const cursor = batches([long, long], options).cursor();
  expect(() => batches(tokens, options, cursor)).toThrow("other sources");
  expect(() => batches([long, long, long], options, cursor)).toThrow("other sources");
  expect(() => batches([long, long], options, { epoch: 0, position: 3 })).toThrow("other sources");
});

//| 01-tokenizer/7-shards-and-batches.ipynb#validation-test
await test("validation windows cover the source once, in order, and fewer are spread evenly", () => {
  const source = tokensInMemory(Array.from({ length: 1003 }, (_, i) => i));
  const all = [...validationWindows(source, { context: 10, batchSize: 7 })];
  expect(all.map(({ batchSize }) => batchSize)).toEqual([...Array(14).fill(7), 2]);
  expect(all.flatMap(({ inputs }) => [...inputs])).toEqual(Array.from({ length: 1000 }, (_, i) => i));
  expect(all.flatMap(({ targets }) => [...targets])).toEqual(Array.from({ length: 1000 }, (_, i) => i + 1));
  const few = [...validationWindows(source, { context: 10, maxTokens: 49 })];
  expect(few.map(({ inputs }) => inputs[0])).toEqual([0, 250, 500, 750]);
  expect(() => [...validationWindows(tokensInMemory([1]), { context: 1 })]).toThrow("at least 2");
});
