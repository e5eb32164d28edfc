// Extracted from chapters/01-tokenizer/3-fast-merges.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  countWords,
  encodePieceByDefinition,
  learnMergesByDefinition,
  pairKey,
} from "../../src/tokenizer/bpe.js";
import { invalidUtf8, textOfBytes } from "../../src/tokenizer/characters.js";
import {
  Heap,
  IdList,
  PIECE_CACHE,
  PairMap,
  byteTokenizer,
  countPieces,
  encodePiece,
  learnMerges,
  mergeByHeap,
  mergeByScan,
  mergedVocabulary,
  pieceEncoder,
  trainBpe,
} from "../../src/tokenizer/merges.js";
import { PATTERNS, patternSplitter } from "../../src/tokenizer/pretokenize.js";

//| 01-tokenizer/3-fast-merges.ipynb#pair-map-test
await test("the table of pairs and the heap agree with Map and sort", () => {
  const pairs = new PairMap();
  const expected = new Map<string, number>();
  const heap = new Heap<number>((a, b) => a < b);
  for (let i = 0; i < 5000; i++) {
    const [left, right] = [Math.floor(Math.random() * 90), Math.floor(Math.random() * 90)];
    pairs.set(left, right, i);
    expected.set(`${left} ${right}`, i);
    heap.push(left);
  }
  expect(pairs.size).toBe(expected.size);
  for (let left = 0; left < 90; left++)
    for (let right = 0; right < 90; right++)
      expect(pairs.get(left, right)).toBe(expected.get(`${left} ${right}`) ?? -1);
  const sorted = Array.from({ length: 5000 }, () => heap.pop()!);
  expect(sorted).toEqual([...sorted].sort((a, b) => a - b));
  expect(heap.pop()).toBe(undefined);
});

//| 01-tokenizer/3-fast-merges.ipynb#learn-merges-test
await test("the quick training learns what the definition says, from pieces in any order", () => {
  const letters = "aab bbc ab é🎉";
  for (let round = 0; round < 60; round++) {
    const text = Array.from(
      { length: 10 + 10 * round },
      () => [...letters][Math.floor(Math.random() * [...letters].length)],
    ).join("");
    const pieces = countPieces([text], patternSplitter(PATTERNS.house));
    const quick = learnMerges(pieces, 60);
    expect(quick, text).toEqual(learnMergesByDefinition(countWords([text]), 60));
    expect(learnMerges(new Map([...pieces].reverse()), 60)).toEqual(quick);
  }
});

//| 01-tokenizer/3-fast-merges.ipynb#counting-test
await test("blocks add up to the whole, and a limit drops the rarest pieces only", () => {
  const splitter = patternSplitter(PATTERNS.house);
  const words = Array.from(
    { length: 3000 },
    () => `w${"xyz"[Math.floor(Math.random() * 3)].repeat(1 + Math.floor(Math.random() ** 2 * 40))}`,
  );
  const blocks = [0, 1, 2].map((i) => `${words.slice(1000 * i, 1000 * i + 1000).join(" ")}\n`);
  const whole = countPieces([blocks.join("")], splitter);
  expect(new Map([...countPieces(blocks, splitter)].sort())).toEqual(new Map([...whole].sort()));
  const kept = countPieces([blocks.join("")], splitter, 20);
  expect(kept.size).toBeLessThanOrEqual(20);
  const rarestKept = Math.min(...kept.values());
  for (const [piece, count] of whole)
    expect(kept.get(piece)).toBe(kept.has(piece) || count >= rarestKept ? count : undefined);
  const bytes = Uint8Array.of(97, 98, 0xff, 97, 98);
  expect(countPieces([bytes], splitter)).toEqual(new Map([["ab", 2]]));
  expect(() => countPieces(["half \ud83c"], splitter)).toThrow("half a character");
});

//| 01-tokenizer/3-fast-merges.ipynb#encode-piece-test
await test("merging by scan, by heap and by definition gives the same ids", () => {
  const letters = "abcab ba";
  for (let round = 0; round < 100; round++) {
    const draw = (length: number) =>
      Array.from({ length }, () => letters[Math.floor(Math.random() * letters.length)]).join("");
    const merges = learnMerges(countPieces([draw(300)], patternSplitter(PATTERNS.house)), 30);
    const vocabulary = mergedVocabulary(merges);
    const byDefinition = new Map(merges.map(([left, right], i) => [pairKey(left, right), 256 + i]));
    const bytes = new TextEncoder().encode(draw(1 + round).replaceAll(" ", round % 2 ? "c" : "a"));
    const expected = encodePieceByDefinition(bytes, byDefinition);
    expect(mergeByScan([...bytes], vocabulary)).toEqual(expected);
    expect(mergeByHeap([...bytes], vocabulary)).toEqual(expected);
  }
});

//| 01-tokenizer/3-fast-merges.ipynb#piece-encoder-test
await test("a remembered piece has the ids it had, also after the memory was full", () => {
  const vocabulary = mergedVocabulary(
    learnMerges(countPieces(["abcab abc bca cab aa bb"], patternSplitter(PATTERNS.house)), 12),
  );
  const encode = pieceEncoder(vocabulary);
  const encoder = new TextEncoder();
  const texts = Array.from(
    { length: 70_000 },
    (_, i) => `${i.toString(3).replace(/./g, (digit) => "abc"[Number(digit)])}é`,
  );
  texts.push("b".repeat(PIECE_CACHE.longest), "a".repeat(PIECE_CACHE.longest + 1), ...texts.slice(0, 2000));
  for (const text of [...texts, ...texts.slice(-1000)]) {
    const ids = new IdList();
    encode(`(${text})`, 1, text.length + 1, ids);
    expect(Array.from(ids.toArray())).toEqual(encodePiece(encoder.encode(text), vocabulary));
  }
});

//| 01-tokenizer/3-fast-merges.ipynb#tokenizer-test
await test("every row of bytes comes back, text or not", () => {
  const tokenizer = trainBpe([`the cat sat on the mat, the end. ${"Grüße 日本 ".repeat(9)}`], 300);
  const text = new TextEncoder().encode("the Größe 日本語 🎉 the\r\n\u0000<|endoftext|>");
  for (let round = 0; round < 300; round++) {
    const bytes = text.slice(0, round % text.length);
    for (let i = 0; i < round % 5; i++) bytes[Math.floor(Math.random() * bytes.length)] = Math.random() * 256;
    const ids = tokenizer.encodeBytes(bytes);
    expect(tokenizer.decode(ids)).toEqual(bytes);
    if (invalidUtf8(bytes) < 0) expect(ids).toEqual(tokenizer.encode(textOfBytes(bytes)));
  }
});

//| 01-tokenizer/3-fast-merges.ipynb#rules-test
await test("special tokens, ties, exhausted texts, impossible sizes, and a piece of a megabyte", () => {
  const tokenizer = trainBpe(["low lower lowest"], 258 + 2);
  const pairs = ["lo", "low", " low"].map((text) => tokenizer.encode(text).length);
  expect(pairs).toEqual([1, 1, 1]); // "l o" before "o w": a tie goes to the smaller ids
  expect(tokenizer.specials["<|endoftext|>"]).toBe(259);
  expect(Array.from(tokenizer.encode("<|endoftext|>"))).not.toContain(259);
  expect(Array.from(tokenizer.encode("lo<|endoftext|>", { allowed: ["<|endoftext|>"] }))).toEqual([256, 259]);
  expect(textOfBytes(tokenizer.decode([259]))).toBe("<|endoftext|>");
  expect(trainBpe(["abc"], 5000).vocabSize).toBe(259); // "ab", "abc", and then there are no pairs
  expect(trainBpe([Uint8Array.of(0xff, 0xfe, 0xff, 0xfe)], 300).vocabSize).toBe(257);
  expect(() => trainBpe(["abc"], 256)).toThrow("must be from 257");
  expect(() => tokenizer.encode("half \ud83c")).toThrow("half a character");
  expect(byteTokenizer().vocabSize).toBe(257);
  const long = tokenizer.encode("lo".repeat(2 ** 19));
  expect(long.length).toBe(2 ** 19);
});
