// Small tokenizer.json files of kinds that people have, with the ids that Hugging Face's tokenizers gives; damaged files; and
// files whose pattern takes for ever.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { loadTiktoken, loadTokenizer } from "tslm";
import { byteCharacters } from "tslm/tokenizer/bpe";
import { timeLimit } from "tslm/tokenizer/files";
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

/** A random number generator (mulberry32), so that a failure can be had again. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) * 2 ** -32 * below);
  };
}

type Place = [{ [key: string]: unknown }, string];

/** Every place of a value, but no more than a few of a long list. */
function placesOf(value: unknown): Place[] {
  if (typeof value !== "object" || value === null) return [];
  const keys = Object.keys(value);
  return keys
    .filter((_, i) => i < 8 || i > keys.length - 4)
    .flatMap((key): Place[] => {
      const place: Place = [value as Place[0], key];
      return [place, ...placesOf(place[0][key])];
    });
}

const ABSURD = [
  null,
  true,
  "",
  "NFC",
  "a",
  [],
  {},
  [null],
  { type: "ByteLevel" },
  -1,
  0.5,
  1e9,
  2 ** 53,
  1e308,
];

/** Damages one place: it goes, comes twice, changes its type, is swapped with another, or loses a character. */
function damage(file: object, random: (below: number) => number): void {
  const places = placesOf(file);
  const [parent, key] = places[random(places.length)];
  const [other, otherKey] = places[random(places.length)];
  const value = parent[key];
  const kind = random(5);
  if (kind === 0) delete parent[key];
  else if (kind === 1) parent[`${key}2`] = value;
  else if (kind === 2) parent[key] = structuredClone(other[otherKey]);
  else if (kind === 3 && typeof value === "string") parent[key] = value.slice(0, random(value.length));
  else parent[key] = ABSURD[random(ABSURD.length)];
}

test("a damaged file is refused in a sentence, or what is accepted gives back every text", () => {
  const random = randomNumbers(Number(process.env.TEST_SEED ?? 1));
  const texts = ["ab, 12345 mill é\n", "½mills 日本 <|endoftext|>"].map((text) => text.normalize());
  const decoder = new TextDecoder();
  let accepted = 0;
  for (let i = 0; i < 400; i++) {
    const file = structuredClone(files[i % files.length][1]);
    damage(file, random);
    const shown = `case ${i}: ${JSON.stringify(file).slice(0, 200)}`;
    try {
      const tokenizer = loadTokenizer(file);
      const isWhole = !JSON.stringify(file).includes("Removed"); // that one drops text
      for (const text of texts) {
        const decoded = decoder.decode(tokenizer.decode(tokenizer.encode(text)));
        if (isWhole) expect(decoded.normalize("NFKC"), shown).toBe(text.normalize("NFKC"));
      }
      accepted++;
    } catch (error) {
      expect((error as Error).constructor, `${shown}: ${error}`).toBe(Error); // no TypeError, no RangeError
      expect((error as Error).message, shown).toMatch(/^[A-Z][^\n]*\.$/);
    }
  }
  expect(accepted).toBeGreaterThan(20);
  expect(accepted).toBeLessThan(200);
});

test("absurd sizes are refused at once, in a short sentence", () => {
  const long = "a".repeat(10_000);
  const thousands = (step: object) => Array.from({ length: 200 }, () => step);
  const template = {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: long, type_id: 0 } }],
    pair: [],
    special_tokens: {},
  };
  for (const [file, words] of [
    [
      fileOf([], [], { pre_tokenizer: sequence(...thousands(STEP)) }),
      "pre_tokenizer has more than a hundred",
    ],
    [
      fileOf([], [], { normalizer: { type: "Sequence", normalizers: thousands({ type: "NFC" }) } }),
      "normalizer",
    ],
    [fileOf([], [], { pre_tokenizer: { type: long } }), "pre_tokenizer has a step of type aaa"],
    [fileOf([], [], { [long]: 1 }), "aaa"],
    [fileOf([], [], { post_processor: template }), "post_processor names"],
    [fileOf([], [`${long} b`]), "A merge needs the token"],
    [
      fileOf([], [], { added_tokens: [token(300, "x", {})] }),
      'added_tokens give "x" the id 300, its model.vocab 120',
    ],
    [fileOf([], [], { added_tokens: [token(2 ** 31, "<x>", {})] }), "added_tokens.0.id"],
    [fileOf([], [], { added_tokens: [token(1_000_000, "<x>", {})] }), "go up to 1000000, for 257 tokens"],
  ] as const) {
    let said = "";
    try {
      loadTokenizer(file);
    } catch (error) {
      said = (error as Error).message;
    }
    expect(said.slice(0, 400)).toContain(words);
    expect(said.length).toBeLessThan(400);
  }
});

test("a pattern that takes for ever is stopped, in the command line and in the threads that prepare data", async () => {
  await import("../lib/src/cli/limit.ts");
  const { run } = timeLimit;
  const limits: number[] = [];
  timeLimit.run = (work, milliseconds) => {
    limits.push(milliseconds);
    return run(work, 20);
  };
  try {
    const tokenizer = loadTokenizer(
      fileOf([], [], { pre_tokenizer: sequence(split("(a|a)+b", "Isolated", false), STEP) }),
    );
    const text = "a".repeat(28); // ended after seconds, were there no limit
    expect(() => tokenizer.encode(text)).toThrow("takes for ever on some text");
    expect(() => tokenizer.encode("b")).toThrow("takes for ever on some text"); // its memory may be half written
    expect(limits).toEqual([10_000 + text.length / 10]);
  } finally {
    timeLimit.run = run;
  }
  for (const program of ["open-tokenizer", "prepare-worker"])
    expect(readFileSync(new URL(`../lib/src/cli/${program}.ts`, import.meta.url), "utf8")).toMatch(
      /import[ (]"\.\/limit\.js"/,
    );
});
