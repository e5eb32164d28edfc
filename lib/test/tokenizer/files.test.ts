// Extracted from chapters/01-tokenizer/4-tokenizers-of-the-world.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { END_OF_TEXT, mergedTokens } from "../../src/tokenizer/bpe.js";
import { characterTokenizer, textOfBytes } from "../../src/tokenizer/characters.js";
import { loadTiktoken, loadTokenizer } from "../../src/tokenizer/files.js";
import { byteTokenizer, countPieces, learnMerges, trainBpe } from "../../src/tokenizer/merges.js";
import { PATTERNS, type PatternName, patternSplitter } from "../../src/tokenizer/pretokenize.js";

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-test
await test("a tokenizer comes back from its file with the same ids", () => {
  const text = "const answer = 42; // the answer, häufig 日本 🎉 __proto__ constructor 0 1\n\n";
  for (const tokenizer of [trainBpe([text.repeat(3)], 320), byteTokenizer(), characterTokenizer(text)]) {
    const loaded = loadTokenizer(JSON.parse(JSON.stringify(tokenizer.toJson())));
    expect(loaded.vocabSize).toBe(tokenizer.vocabSize);
    expect(loaded.specials).toEqual(tokenizer.specials);
    expect(loaded.encode(text)).toEqual(tokenizer.encode(text));
    expect(textOfBytes(loaded.decode(loaded.encode(text)))).toBe(text);
    expect(loadTokenizer(loaded.toJson()).encode(text)).toEqual(tokenizer.encode(text));
  }
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#refuse-tools
type ByRule = {
  model: { [key: string]: unknown; vocab: { [token: string]: number }; merges: unknown[] };
  [part: string]: unknown;
};
const goodFile = () => JSON.parse(JSON.stringify(trainBpe(["low lower lowest"], 262).toJson())) as ByRule;
const refuse = (change: (file: ByRule) => void, words: string) => {
  const file = goodFile();
  change(file);
  expect(() => loadTokenizer(file)).toThrow(words);
};

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-errors-test
await test("what a file asks for and we do not run is named, and so is what is damaged", () => {
  expect(loadTokenizer(goodFile()).vocabSize).toBe(262);
  refuse(
    (file) => Object.assign(file.model, { type: "Unigram" }),
    "model is of type Unigram, which tslm does not run",
  );
  refuse((file) => Object.assign(file.model, { dropout: 0.1 }), "model uses dropout");
  refuse((file) => Object.assign(file.model, { merges: ["Ā zz"] }), 'needs the token "zz", which has no id');
  refuse(({ model }) => model.merges.push(["l", "constructor"]), 'needs the token "constructor"');
  refuse(({ model }) => model.merges.push(["l", "l"]), 'needs the token "ll", which has no id');
  refuse((file) => Object.assign(file.model, { merges: [7] }), "not pairs of tokens");
  refuse((file) => Object.assign(file, { added_tokens: [{ id: "1" }] }), "Its added_tokens.0.id is damaged");
  refuse((file) => Object.assign(file.model.vocab, { "!": 34 }), "taken");
  refuse((file) => delete file.model.vocab["\u0100"], "no token for the byte 0x00");
  refuse(
    (file) => Object.assign(file, { normalizer: { type: "Lowercase" } }),
    "normalizer has a step of type Lowercase",
  );
  refuse(
    (file) => Object.assign(file, { decoder: { type: "WordPiece", prefix: "##", cleanup: true } }),
    "decoder has a step of type WordPiece",
  );
  refuse((file) => Object.assign(file, { decoder: { type: "Fuse" } }), "Fuse for a pre_tokenizer of bytes");
  refuse((file) => Object.assign(file, { pre_tokenizer: { type: "UnicodeScripts" } }), "UnicodeScripts");
  refuse(
    (file) => Object.assign(file, { post_processor: { type: "BertProcessing" } }),
    "post_processor has a step of type BertProcessing",
  );
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#load-steps-test
await test("steps, patterns and settings that we do not run are named", () => {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  const split = (step: object) => (file: ByRule) =>
    Object.assign(file, {
      pre_tokenizer: { type: "Sequence", pretokenizers: [step, byteLevel] },
    });
  refuse(split({ type: "Whitespace" }), "pre_tokenizer has a step of type Whitespace");
  refuse(
    split({ type: "Split", pattern: { Regex: "(" }, behavior: "Isolated", invert: false }),
    'The pattern "(" cannot be used',
  );
  refuse(
    split({ type: "Split", pattern: { Regex: "a" }, behavior: "Kept", invert: false }),
    "pre_tokenizer.behavior",
  );
  refuse(
    split({ type: "Split", pattern: { Regex: "a" }, behavior: "Removed" }),
    "Its pre_tokenizer.invert is",
  );
  refuse((file) => Object.assign(file.model, { ignore_merges: "yes" }), "Its model.ignore_merges is");
  refuse((file) => Object.assign(file.model, { capcode: 2 }), "capcode");
  refuse((file) => Object.assign(file.model.vocab, { zz: 999_999 }), "Its ids go up to 999999");
  expect(() => loadTokenizer({})).toThrow("Its model is damaged");
  const characters = JSON.parse(JSON.stringify(characterTokenizer("abc").toJson()));
  const digits = loadTokenizer(JSON.parse(JSON.stringify(characterTokenizer("b 1a0").toJson())));
  expect(() => digits.encode("a~")).toThrow('"~" (U+007E), character 2 of the text, is not among');
  characters.normalizer = { type: "NFC" };
  const composed = loadTokenizer(characters);
  expect([...composed.encode("a\u0301bc")]).toEqual([1, 2]); // á is no character of its own, and is dropped
  expect(composed.notes).toEqual([expect.stringContaining("leaves out")]);
  const cut = { truncation: { max_length: 2, strategy: "LongestFirst", stride: 0 } };
  const padded = { ...cut, padding: { strategy: "BatchLongest", pad_id: 0 } };
  expect(loadTokenizer(Object.assign(goodFile(), padded)).notes).toHaveLength(2);
  refuse((file) => Object.assign(file, { truncation: {} }), "Its truncation.max_length is");
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#unspelled-test
await test("names that spell no bytes may be merged, and are found in no text; a list in any order is read alike", () => {
  const file = goodFile();
  const { vocab, merges } = file.model;
  Object.assign(vocab, { 日: 261, 本: 262, 日本: 263 });
  file.added_tokens = [];
  merges.push(["日", "本"]);
  const text = "low lower 日本";
  const ids = loadTokenizer(file).encode(text);
  expect([...ids].filter((id) => id > 260)).toEqual([]);
  const [shuffled, last] = [merges.slice(0, -1), merges.slice(-1)];
  file.model.merges = [...last, ...shuffled.map((merge) => String(merge).split(" "))];
  expect(loadTokenizer(file).encode(text)).toEqual(ids);
  merges.push(["日", "low"]);
  file.model.merges = merges;
  expect(() => loadTokenizer(file)).toThrow('A merge needs the token "日low", which has no id.');
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#tiktoken-test
await test("a list of tokens is a tokenizer, also by way of tokenizer.json; a damaged one names its line", () => {
  const text = "It's 1234 small\n\n  tokens, isn't it? Größe 日本 🎉 the theme then ".repeat(2);
  for (const pattern of Object.keys(PATTERNS) as PatternName[]) {
    const tokens = mergedTokens(learnMerges(countPieces([text], patternSplitter(PATTERNS[pattern])), 60));
    const lines = tokens.map((token, id) => `${btoa(String.fromCharCode(...token))} ${id}\n`).join("");
    const tokenizer = loadTiktoken(new TextEncoder().encode(lines), pattern);
    expect(tokenizer.specials).toEqual({ [END_OF_TEXT]: tokens.length });
    expect(textOfBytes(tokenizer.decode(tokenizer.encode(text)))).toBe(text);
    const loaded = loadTokenizer(JSON.parse(JSON.stringify(tokenizer.toJson())));
    expect(loaded.encode(text)).toEqual(tokenizer.encode(text));
    expect(loaded.specials).toEqual(tokenizer.specials);
    const damaged = new TextEncoder().encode(lines.replace("\n", "\nno token\n"));
    expect(() => loadTiktoken(damaged, pattern)).toThrow(
      'Line 2 of the .tiktoken file is not a token in base64 and a new id: "no token"',
    );
  }
  expect(() => loadTiktoken(new TextEncoder().encode("YQ= 0\n"), "gpt2")).toThrow("Line 1 of the .tiktoken");
  expect(() => loadTiktoken(new TextEncoder().encode("YQ== 0\n"), "gpt2")).toThrow(
    "no token for the byte 0x00",
  );
});

//| 01-tokenizer/4-tokenizers-of-the-world.ipynb#special-test
await test("special tokens stay text unless they are allowed by name; added tokens keep their flags", () => {
  const token = (id: number, content: string, flags: object) => ({
    id,
    content,
    ...{ special: true, single_word: false, lstrip: false, rstrip: false, normalized: false },
    ...flags,
  });
  const file = JSON.parse(JSON.stringify(byteTokenizer().toJson()));
  file.added_tokens = [
    token(256, "<|end|>", {}),
    token(257, "<|end|><|x|>", { rstrip: true }),
    token(258, "<tool>", { special: false }),
    token(259, "cat", { special: false, single_word: true }),
    token(260, "<|mask|>", { lstrip: true }),
    token(261, "é!", { normalized: true, special: false }),
  ];
  file.normalizer = { type: "NFC" };
  const tokenizer = loadTokenizer(file);
  const marks = (text: string, allowed: "all" | string[] = []) =>
    Array.from(tokenizer.encode(text, { allowed }), (id) => (id < 256 ? String.fromCharCode(id) : id)).join(
      "",
    );
  expect(marks("a<|end|>b")).toBe("a<|end|>b");
  expect(marks("a<|end|>b<|mask|>", ["<|end|>"])).toBe("a256b<|mask|>");
  expect(marks("<|end|><|x|> \n b", "all")).toBe("257b"); // the longest wins, and takes the space after it
  expect(marks("a  <|mask|> b", "all")).toBe("a260 b");
  expect(marks("<|end|><|x|>  <|mask|>", "all")).toBe("257260");
  expect(marks("<tool>cat, cats")).toBe("258259, cats");
  expect(marks("e\u0301!")).toBe("261");
  expect(() => tokenizer.encode("", { allowed: ["<|nd|>"] })).toThrow(
    'no special token "<|nd|>": it has <|end|>',
  );
  expect(() => characterTokenizer("ab").encode("a", { allowed: ["<|end|>"] })).toThrow("it has none");
  expect(Array.from(trainBpe(["ab"], 258).encode("a<|endoftext|>", { allowed: "all" }))).toEqual([97, 257]);
});
