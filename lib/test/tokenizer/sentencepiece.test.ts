// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { streamDecoder, textOfBytes } from "../../src/tokenizer/characters.js";
import { loadTokenizer } from "../../src/tokenizer/files.js";
import { PairMap, mergeByScan } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spm-tools
const space = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
const lead = { type: "Prepend", prepend: "\u2581" };
const back = [
  { type: "Replace", pattern: { String: "\u2581" }, content: " " },
  { type: "ByteFallback" },
  { type: "Fuse" },
];
const textFile = (words: string[], changes: object = {}, settings: object = {}) => {
  const names = [
    "<unk>",
    "<s>",
    ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
  ];
  const merges: string[][] = [];
  for (const word of words) {
    const [first, ...rest] = word;
    names.push(first, ...rest);
    rest.reduce((left, right) => {
      merges.push([left, right]);
      names.push(left + right);
      return left + right;
    }, first);
  }
  const distinct = [...new Set(names)];
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    added_tokens: [{ id: 1, content: "<s>", ...flags }],
    normalizer: { type: "Sequence", normalizers: [lead, space] } as object | null,
    pre_tokenizer: null as object | null,
    decoder: {
      type: "Sequence",
      decoders: [...back, { type: "Strip", content: " ", start: 1, stop: 0 }],
    } as object,
    model: {
      type: "BPE",
      unk_token: "<unk>" as string | null,
      byte_fallback: true,
      fuse_unk: true,
      vocab: Object.fromEntries(distinct.map((name, id) => [name, id])),
      merges: merges.filter((pair, i) => merges.findIndex((other) => other.join() === pair.join()) === i),
      ...settings,
    },
    ...changes,
  };
};

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spm-stream-test
await test("a stream of any tokens gives the text of the whole, bytes that are no text and words after a prompt included", () => {
  const tokenizer = loadTokenizer(textFile(["\u2581the", "\u2581\u2581", "cat", "\u65e5"]));
  const random = (below: number) => Math.floor(Math.random() * below);
  const whole = (ids: number[]) => textOfBytes(tokenizer.decode(ids));
  const streamed = (ids: number[], before: number[] = []) => {
    const decoder = streamDecoder(tokenizer, before);
    return ids.map((id) => decoder.push(id)).join("") + decoder.end();
  };
  for (let round = 0; round < 500; round++) {
    const ids = Array.from({ length: random(12) }, () => random(tokenizer.vocabSize));
    ids.splice(
      random(ids.length + 1),
      0,
      ...tokenizer.encode(["\u6f22", "\u{1f389}\u00e9", ""][round % 3], { continues: true }),
    );
    expect(streamed(ids), JSON.stringify(ids)).toBe(whole(ids));
  }
  const text = "the cat \u6f22  the";
  const ids = [...tokenizer.encode(text)];
  expect(whole(ids)).toBe(text);
  const words = [...tokenizer.encode("the"), ...tokenizer.encode(" cat", { continues: true })];
  expect(streamed(words.slice(1), [1, words[0]])).toBe(" cat"); // after a prompt the space is text
  expect(streamed(words, [1])).toBe("the cat"); // a special token before it is none
  const bytes = [0xe6, 0xbc, 0xff].map((byte) => byte + 2);
  expect(streamed(bytes)).toBe("\ufffd\ufffd\ufffd"); // one a byte
  expect(() => streamed([9999])).toThrow("outside the vocabulary");
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spm-cut-test
await test("cutting at the marks that no token crosses gives the ids of the whole piece", () => {
  const vocabularies = [
    ["\u2581the", "\u2581a", "he", "\u2581\u2581\u2581"],
    ["\u2581the", "e\u2581a", ">\u2581<", "\u2581\u2581"],
  ];
  for (const words of vocabularies) {
    const file = textFile(words);
    const { vocab, merges } = file.model;
    const ranks = new PairMap(merges.length);
    merges.forEach(([left, right], rank) => ranks.set(vocab[left], vocab[right], rank));
    const made = merges.map(([left, right]) => vocab[left + right]);
    const tokenizer = loadTokenizer(file);
    for (let round = 0; round < 300; round++) {
      const letters = Array.from(
        { length: 30 + round },
        () => "the a<>  \u00e9"[Math.floor(Math.random() * 11)],
      ).join("");
      const marked = `\u2581${letters.replaceAll(" ", "\u2581")}`;
      const symbols = Array.from(marked).flatMap(
        (character) =>
          vocab[character] ?? Array.from(new TextEncoder().encode(character), (byte) => byte + 2),
      );
      expect([...tokenizer.encode(letters)], letters).toEqual(mergeByScan(symbols, { ranks, made }));
    }
    const long = `the ${"hat he".repeat(10_000)}\u00e9`;
    const [head, tail] = [long.slice(0, 4003), long.slice(4003)];
    expect(tail[0]).toBe(" ");
    expect([...tokenizer.encode(head), ...tokenizer.encode(tail, { continues: true })]).toEqual([
      ...tokenizer.encode(long),
    ]);
    expect(textOfBytes(tokenizer.decode(tokenizer.encode(long)))).toBe(long);
    expect(tokenizer.encode("<".repeat(2 ** 18)).length).toBe(2 ** 18 + 1); // no mark to cut at: the queue does it
  }
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#spm-refuse-test
await test("Metaspace and tokens for the unknown; contradictions and what we do not run are named", () => {
  const metaspace = (step: object) => ({
    normalizer: null,
    pre_tokenizer: { type: "Metaspace", replacement: "\u2581", ...step },
  });
  const names = (file: ReturnType<typeof textFile>, text: string) => {
    const byId = Object.keys(file.model.vocab);
    return Array.from(loadTokenizer(file).encode(text, { allowed: "all" }), (id) => byId[id]).join(" ");
  };
  expect(names(textFile(["\u2581a"], metaspace({ prepend_scheme: "first" })), "a<s>a a")).toBe(
    "\u2581a <s> a \u2581a",
  );
  expect(names(textFile(["\u2581a"], metaspace({ prepend_scheme: "always" })), "a<s>a")).toBe(
    "\u2581a <s> \u2581a",
  );
  expect(names(textFile(["\u2581a"], metaspace({ prepend_scheme: "never" })), "a a")).toBe("a \u2581a");
  expect(names(textFile(["a"], {}, { byte_fallback: false }), "ab\u00e9a")).toBe("<unk> a <unk> a");
  expect(names(textFile(["a"], {}, { byte_fallback: false, fuse_unk: false }), "ab\u00e9a")).toBe(
    "<unk> a <unk> <unk> a",
  );
  const refused = (file: object, words: string) => expect(() => loadTokenizer(file)).toThrow(words);
  refused(textFile(["a"], metaspace({ add_prefix_space: false })), "contradict");
  refused(textFile(["a"], metaspace({ replacement: "ab" })), "one character");
  refused(textFile(["a"], {}, { unk_token: "<?>" }), "unk_token");
  refused(textFile(["a"], {}, { type: "Unigram" }), "of type Unigram");
  refused(textFile(["a"], { normalizer: { type: "Precompiled" } }), "Precompiled");
  refused(
    textFile(["a"], { decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true } }),
    "ByteLevel, and",
  );
  const first = { type: "Metaspace", replacement: "\u2581", prepend_scheme: "first" };
  const digits = { type: "Digits", individual_digits: true };
  refused(
    textFile(["a"], { pre_tokenizer: { type: "Sequence", pretokenizers: [digits, first] } }),
    "prepend_scheme first behind",
  );
  const file = textFile(["\u2581a"]);
  expect(loadTokenizer(file).toJson()).toEqual(file);
});
