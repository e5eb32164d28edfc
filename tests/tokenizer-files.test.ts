// Small tokenizer.json files of kinds that people have, with the ids that Hugging Face's tokenizers gives; damaged files; and
// files whose pattern takes for ever.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { byteCharacters, loadTiktoken, loadTokenizer } from "tslm";
import { expect, test } from "vitest";

const STEP = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
const split = (Regex: string, behavior: string, invert: boolean) => ({
  type: "Split",
  pattern: { Regex },
  behavior,
  invert,
});
const sequence = (...pretokenizers: object[]) => ({ type: "Sequence", pretokenizers });
const token = (id: number, content: string, flags: object) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: false,
  ...flags,
});

/** A file of the 256 bytes, the given names after them, and what else is given. */
function fileOf(names: string[], merges: string[], parts: object = {}, settings: object = { type: "BPE" }) {
  const vocab = Object.fromEntries([...byteCharacters(), ...names].map((name, id) => [name, id]));
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [] as object[],
    normalizer: null as object | null,
    pre_tokenizer: STEP as object,
    post_processor: null as object | null,
    decoder: STEP,
    model: { ...settings, vocab, merges },
    ...parts,
  };
}

const digits = ["12", "123", "1234", "12345", "123456", "1234567", "12345678", "45", "456"];
const files: [string, object, [string, number[]][]][] = [
  [
    "without a model.type, as the oldest are",
    fileOf(["ab"], ["a b"], {}, { dropout: null, continuing_subword_prefix: "", fuse_unk: false }),
    [["ab c", [256, 32, 99]]],
  ],
  [
    "with an interval followed by +, which repeats it",
    fileOf(
      digits,
      [...digits.slice(0, 7).map((name) => `${name.slice(0, -1)} ${name.at(-1)}`), "4 5", "45 6"],
      { pre_tokenizer: sequence(split("\\p{L}++|\\p{N}{1,3}+|[^\\p{L}\\p{N}]", "Isolated", false), STEP) },
    ),
    [
      ["12345678", [262]],
      ["ab 12345 c", [97, 98, 32, 259, 32, 99]],
    ],
  ],
  [
    "with Removed and invert",
    fileOf(["ab"], ["a b"], { pre_tokenizer: sequence(split("\\p{L}+", "Removed", true), STEP) }),
    [["ab, ab!", [256, 256]]],
  ],
  [
    "with single_word, where a word is Unicode's",
    fileOf(["fe", "fee"], ["f e", "fe e"], {
      added_tokens: [
        token(258, "mill", { single_word: true }),
        token(259, "millstone", { single_word: true }),
        token(260, "mills", {}),
      ],
    }),
    [
      ["½mill", [194, 189, 258]],
      ["mill² mill", [258, 194, 178, 32, 258]],
      ["mill\u200dmill", [...Buffer.from("mill\u200dmill")]],
      ["mill‿mill", [...Buffer.from("mill‿mill")]],
    ],
  ],
  [
    "with normalized added tokens and NFC",
    fileOf([], [], {
      normalizer: { type: "NFC" },
      added_tokens: [
        token(256, "\u09ac\u09be\u09dc\u09bf", { normalized: true }),
        token(257, "\u00e9x", { normalized: true }),
      ],
    }),
    [
      ["\u09ac\u09be\u09dc\u09bf", [256]],
      ["e\u0301x", [257]],
    ],
  ],
  [
    "with ignore_merges and a name that does not spell bytes",
    fileOf(["日本"], [], {}, { type: "BPE", ignore_merges: true }),
    [["日本", [230, 151, 165, 230, 156, 172]]],
  ],
  [
    "with Digits after ByteLevel",
    fileOf(["Â½"], ["Â ½"], {
      pre_tokenizer: sequence({ ...STEP, use_regex: true }, { type: "Digits", individual_digits: true }),
    }),
    [
      ["½", [194, 189]],
      ["é½ 1", [195, 169, 194, 189, 32, 49]],
    ],
  ],
];

test.each(files)("a file %s gives the ids of the reference", (_, file, texts) => {
  const tokenizer = loadTokenizer(file);
  for (const [text, ids] of texts) expect([...tokenizer.encode(text)], text).toEqual(ids);
});

test("the special token of a .tiktoken list stands where it was published, not at its end", () => {
  const list = createRequire(import.meta.url)
    .resolve("gpt-tokenizer/package.json")
    .replace("package.json", "data/p50k_base.tiktoken");
  const ids = loadTiktoken(readFileSync(list), "gpt2").encode("hi<|endoftext|>", { allowed: "all" });
  expect([...ids]).toEqual([5303, 50256]);
});
