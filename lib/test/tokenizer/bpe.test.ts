// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  type CountedWord,
  bpeTokenizer,
  byteTokenizer,
  countWords,
  learnMerges,
  loadTokenizer,
  mergePair,
  mostFrequentPair,
  pairKey,
  pairOfKey,
  splitPieces,
  trainBpe,
} from "../../src/tokenizer/bpe.js";
import { characterTokenizer, invalidUtf8, textOfBytes } from "../../src/tokenizer/characters.js";

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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#train-slowly
/** The definition, word for word: every pair is counted again for every merge. */
function learnMergesByDefinition(words: CountedWord[], count: number): [number, number][] {
  const merges: [number, number][] = [];
  for (let next = 256; next < 256 + count; next++) {
    const counts = new Map<number, number>();
    for (const { ids, count } of words) {
      for (let i = 0; i + 1 < ids.length; i++) {
        const key = pairKey(ids[i], ids[i + 1]);
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    }
    const best = mostFrequentPair(counts);
    if (best === undefined) break;
    const [left, right] = pairOfKey(best);
    for (const word of words) word.ids = mergePair(word.ids, left, right, next);
    merges.push([left, right]);
  }
  return merges;
}

//| 01-tokenizer/1-bytes-and-pairs.ipynb#learn-merges-test
await test("the quick training learns what the definition says", () => {
  const letters = "aab bbc ab ";
  for (let round = 0; round < 30; round++) {
    const text = Array.from(
      { length: 20 + 20 * round },
      () => letters[Math.floor(Math.random() * letters.length)],
    ).join("");
    const quick = learnMerges(countWords([text]), 40, () => {});
    expect(quick, text).toEqual(learnMergesByDefinition(countWords([text]), 40));
  }
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#bpe-roundtrip-test
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

//| 01-tokenizer/1-bytes-and-pairs.ipynb#bpe-rules-test
await test("special tokens, ties, exhausted texts and impossible sizes", () => {
  const tokenizer = trainBpe(["low lower lowest"], 258 + 2);
  const pairs = ["lo", "low", " low"].map((text) => tokenizer.encode(text).length);
  expect(pairs).toEqual([1, 1, 1]); // "l o" before "o w": a tie goes to the smaller ids
  expect(tokenizer.specials["<|endoftext|>"]).toBe(259);
  expect(Array.from(tokenizer.encode("<|endoftext|>"))).not.toContain(259);
  expect(textOfBytes(tokenizer.decode([259]))).toBe("<|endoftext|>");
  expect(trainBpe(["abc"], 5000).vocabSize).toBe(259); // "ab", "abc", and then there are no pairs
  expect(trainBpe([Uint8Array.of(0xff, 0xfe, 0xff, 0xfe)], 300).vocabSize).toBe(257);
  expect(() => trainBpe(["abc"], 256)).toThrow("must be from 257");
  expect(byteTokenizer().vocabSize).toBe(257);
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#encode-order-test
await test("encoding a training text again gives the tokens that training left", () => {
  const text = "she sells sea shells by the sea shore, she said. ".repeat(3);
  const words = countWords([text]);
  const merges = learnMerges(words, 60, () => {});
  const tokenizer = bpeTokenizer(merges);
  for (const { ids } of words) {
    const piece = tokenizer.decode(ids);
    expect(Array.from(tokenizer.encodeBytes(piece))).toEqual(ids);
  }
  expect(tokenizer.encode("e".repeat(100_000)).length).toBeGreaterThan(0); // a piece of any length, in good time
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#load-test
await test("a tokenizer comes back from its file with the same ids", () => {
  const text = "const answer = 42; // the answer, häufig 日本 🎉 __proto__ constructor 0 1\n\n";
  for (const tokenizer of [trainBpe([text.repeat(3)], 320), byteTokenizer(), characterTokenizer(text)]) {
    const loaded = loadTokenizer(JSON.parse(JSON.stringify(tokenizer.toJson())));
    expect(loaded.vocabSize).toBe(tokenizer.vocabSize);
    expect(loaded.specials).toEqual(tokenizer.specials);
    expect(loaded.encode(text)).toEqual(tokenizer.encode(text));
    expect(textOfBytes(loaded.decode(loaded.encode(text)))).toBe(text);
  }
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#load-errors-test
await test("a tokenizer.json with other rules, or a damaged one, is refused", () => {
  const good = () => JSON.parse(JSON.stringify(trainBpe(["low lower lowest"], 262).toJson()));
  const refuse = (change: (file: ReturnType<typeof good>) => void, words: string) => {
    const file = good();
    change(file);
    expect(() => loadTokenizer(file)).toThrow(words);
  };
  expect(loadTokenizer(good()).vocabSize).toBe(262);
  refuse((file) => {
    file.model.type = "Unigram";
  }, "no byte-pair model");
  refuse((file) => {
    file.normalizer = { type: "NFC" };
  }, "rules that tslm does not know");
  refuse((file) => {
    file.pre_tokenizer.pretokenizers[0].pattern.Regex = ".";
  }, "rules that tslm does not know");
  refuse((file) => {
    file.model.vocab["!"] = 34;
  }, "rules that tslm does not know");
  refuse((file) => {
    file.model.merges[0] = "Ā zz";
  }, "has no id");
  expect(() => loadTokenizer({})).toThrow("no byte-pair model");
});
