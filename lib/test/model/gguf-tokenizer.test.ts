// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { type GgufValue, readGgufHead } from "../../src/formats/gguf.js";
import {
  type TokenizerJson,
  ggufTokenizerJson,
  ggufTokenizerKeys,
  preNames,
  stepsOf,
} from "../../src/model/gguf-tokenizer.js";
import { loadTokenizer } from "../../src/tokenizer/files.js";
import { trainBpe } from "../../src/tokenizer/merges.js";
import { PATTERNS } from "../../src/tokenizer/pretokenize.js";

//| 05-inference/a-files-of-gguf.ipynb#tokenizer-test
const ggufFiles = fs.existsSync("tests/fixtures") ? "tests/fixtures/gguf" : "../../tests/fixtures/gguf";
const hardTexts = [
  "Hello, world! It's 12345 o'clock.",
  "  two  spaces\n\n\tand a tab ",
  "naïve 漢字 🙂 e\u0301",
  "<|im_start|>user\nDON'T<|im_end|>",
];

await test("byte-level tokenizers come back and give the same ids, pattern by pattern", () => {
  const words = "hello world it's 12345 user said don't ".repeat(40);
  const trained = trainBpe([words], 300).toJson() as TokenizerJson;
  for (const [pre, { pattern, isWhole }] of Object.entries(preNames)) {
    const json = structuredClone(trained) as TokenizerJson;
    const [split] = stepsOf(json.pre_tokenizer);
    split.pattern = { Regex: PATTERNS[pattern] };
    json.model.ignore_merges = isWhole;
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    json.added_tokens!.push({ id: 303, content: "<|im_end|>", special: true, ...flags } as never);
    const [before] = [loadTokenizer(json)];
    const keys = ggufTokenizerKeys(json, { vocabSize: 320, eos: [299], chatTemplate: "{{ messages }}" });
    expect([
      keys.get("tokenizer.ggml.pre")!.value,
      (keys.get("tokenizer.ggml.tokens")!.value as string[]).length,
    ]).toEqual([pre, 320]);
    const after = loadTokenizer(ggufTokenizerJson(keys)!);
    for (const sample of hardTexts)
      expect(after.encode(sample.normalize("NFC"), { allowed: "all" }), `${pre}: ${sample}`).toEqual(
        before.encode(sample.normalize("NFC"), { allowed: "all" }),
      );
    expect(after.specials).toEqual(before.specials);
  }
  expect(() => ggufTokenizerKeys(trained, { vocabSize: 320 })).toThrow(
    "a pattern for which GGUF has no name",
  );
  expect(() => ggufTokenizerKeys(trained, { vocabSize: 20 })).toThrow(", but the model only 20.");
});

//| 05-inference/a-files-of-gguf.ipynb#tokenizer-pieces-test
await test("a tokenizer in SentencePiece's form comes back with its scores", () => {
  const bytes = new Uint8Array(fs.readFileSync(`${ggufFiles}/stories260k-q4_0.gguf`));
  const { keys } = readGgufHead(bytes.length, (begin, end) => bytes.subarray(begin, end));
  const json = ggufTokenizerJson(keys) as TokenizerJson;
  expect(json.model.merges.slice(0, 3)).toEqual([
    ["▁", "t"],
    ["h", "e"],
    ["▁", "a"],
  ]);
  expect(json.added_tokens!.map(({ content }) => content)).toEqual(["<unk>", "<s>", "</s>"]);
  const again = ggufTokenizerKeys(json, { vocabSize: 512, bos: 1, eos: [2] });
  for (const key of [
    "model",
    "pre",
    "tokens",
    "token_type",
    "bos_token_id",
    "eos_token_id",
    "unknown_token_id",
    "add_bos_token",
    "add_space_prefix",
  ])
    expect(again.get(`tokenizer.ggml.${key}`), key).toEqual(keys.get(`tokenizer.ggml.${key}`));
  const back = ggufTokenizerJson(again) as TokenizerJson;
  expect(back.model.merges).toEqual(json.model.merges);
});

await test("tokenizers that are not run are refused by name", () => {
  const keys = (model: string, pre: string) =>
    new Map<string, GgufValue>([
      ["tokenizer.ggml.model", { type: "string", value: model }],
      ["tokenizer.ggml.pre", { type: "string", value: pre }],
      ["tokenizer.ggml.tokens", { type: "string", isArray: true, value: ["a"] }],
      ["tokenizer.ggml.token_type", { type: "i32", isArray: true, value: [1] }],
    ]);
  expect(ggufTokenizerJson(keys("no_vocab", ""))).toBe(undefined);
  expect(() => ggufTokenizerJson(keys("bert", ""))).toThrow(
    'tokenizer.ggml.model is "bert", but only gpt2 and llama are run.',
  );
  expect(() => ggufTokenizerJson(keys("gpt2", "tekken"))).toThrow(
    'tokenizer.ggml.pre is "tekken", a way to cut text that is not run',
  );
  expect(() => ggufTokenizerJson(keys("llama", ""))).toThrow(
    "tokenizer.ggml.scores must be a list of f32, one for each of 1 tokens.",
  );
});
