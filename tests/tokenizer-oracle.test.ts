// Our tokenizers against other people's: files that Hugging Face's library opened and saved again with the ids it gives;
// OpenAI's tiktoken (their Rust as WebAssembly) with its published vocabularies; and @huggingface/tokenizers.
import fs from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Tokenizer as Theirs } from "@huggingface/tokenizers";
import fc from "fast-check";
import { get_encoding, type TiktokenEncoding } from "tiktoken";
import {
  characterTokenizer,
  loadTiktoken,
  loadTokenizer,
  type PatternName,
  PATTERNS,
  streamDecoder,
  syntheticText,
  textOfBytes,
  type Tokenizer,
  trainBpe,
} from "tslm";
import { byteCharacters, mergedTokens, visibleBytes } from "tslm/tokenizer/bpe";
import { bpeModelJson } from "tslm/tokenizer/characters";
import { countPieces, learnMerges } from "tslm/tokenizer/merges";
import { patternSplitter } from "tslm/tokenizer/pretokenize";
import { describe, expect, test } from "vitest";

const at = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const json = (name: string) => JSON.parse(fs.readFileSync(at(`fixtures/tokenizer/${name}.json`), "utf8"));
const expected: { texts: string[]; bpe: number[][]; char: number[][] } = json("expected");
const seed = Number(process.env.TEST_SEED ?? 1);

test.each(["bpe", "char"] as const)(
  "%s: the same ids as their library, from the file as it saves it",
  (kind) => {
    const tokenizer = loadTokenizer(json(kind));
    for (const [i, text] of expected.texts.entries()) {
      expect([...tokenizer.encode(text)], text).toEqual(expected[kind][i]);
      expect(textOfBytes(tokenizer.decode(expected[kind][i]))).toBe(text);
    }
  },
);

test("training again on the same text gives the same vocabulary, on every platform", () => {
  const trained = trainBpe([fs.readFileSync(at("../LICENSE"), "utf8")], 500);
  const { model, added_tokens } = trained.toJson() as ReturnType<typeof json>;
  const saved = json("bpe");
  expect(model.vocab).toEqual(saved.model.vocab);
  expect(model.merges).toEqual(saved.model.merges.map((merge: string[]) => merge.join(" ")));
  expect(added_tokens).toEqual(saved.added_tokens);
  expect(characterTokenizer(expected.texts).toJson()).toEqual(loadTokenizer(json("char")).toJson());
});

/** Where gpt-tokenizer keeps OpenAI's vocabularies and test plans. */
const vocabularies = createRequire(import.meta.url)
  .resolve("gpt-tokenizer/package.json")
  .replace("package.json", "data/");

/** Every Unicode block has a multiple of 16 code points, so these texts meet each block, and each place within its rows. */
function* blockTexts(): Generator<string> {
  for (let code = 0; code < 0x110000; code += 16) {
    if ((code >= 0xd800 && code < 0xe000) || (code >= 0x34000 && code < 0xe0000) || code >= 0xe0200) continue;
    const characters = Array.from({ length: 16 }, (_, i) => String.fromCodePoint(code + i));
    yield `${characters.join("")} a${characters[code % 11]}b ${characters[code % 13]}1'${characters[5]}\n${characters[9]}`;
  }
}

/** Letters, marks and numbers that Unicode 17 added: new Nodes know them, and tiktoken, built with Unicode 16, does not. */
const unicode17 =
  "88f-88f c5c-c5c cdc-cdc 1acf-1add 1ae0-1aeb a7ce-a7cf a7d2-a7d2 a7d4-a7d4 a7f1-a7f1 10940-10959 " +
  "10ec5-10ec7 10efa-10efb 11b60-11b67 11db0-11ddb 11de0-11de9 16ea0-16eb8 16ebb-16ed3 16ff2-16ff6 " +
  "187f8-187ff 18d09-18d1e 18d80-18df2 1e6c0-1e6de 1e6e0-1e6f5 1e6fe-1e6ff 2b73a-2b73f 2cea2-2cead " +
  "323b0-33479";
const ranges = unicode17.split(" ").map((range) => range.replace(/(\w+)-(\w+)/, "\\u{$1}-\\u{$2}"));
const tooNew = new RegExp(`[${ranges.join("")}]`, "u");

/** English, other languages, code, numbers and spaces, drawn together. */
const mixedText = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ..." \n\t.,'’/_-()",
        "\r\n",
        "  ",
        "    ",
        "\u0085",
        "\ufeff",
        "\u00a0",
        "'s",
        "'LL",
        "'ſ",
        "'\u212a",
      ),
      fc.constantFrom(
        "the",
        " House",
        "camelCase",
        "HTTPServer",
        "größe",
        "ÄRGER",
        "日本語",
        "हिन्दी",
        "ʰ",
        "Ⅷ",
        "👩‍👧",
        "<|endoftext|>",
      ),
      fc.stringMatching(/^\d{1,8}$/),
      fc
        .string({ unit: "binary", maxLength: 6 })
        .filter((text) => !/\p{Surrogate}/u.test(text) && !tooNew.test(text)),
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(""));

describe.each([
  ["gpt2", "gpt2", "r50k_base"],
  ["cl100k", "cl100k_base", "cl100k_base"],
  ["o200k", "o200k_base", "o200k_base"],
] as [PatternName, TiktokenEncoding, string][])("%s against tiktoken", (pattern, encoding, file) => {
  const ours = loadTiktoken(fs.readFileSync(`${vocabularies}${file}.tiktoken`), pattern);
  const theirs = get_encoding(encoding);
  const expectSame = (text: string) => {
    const ids = ours.encode(text);
    const same = theirs.encode_ordinary(text);
    if (
      Buffer.compare(Buffer.from(ids.buffer), Buffer.from(same.buffer, same.byteOffset, same.byteLength)) !==
      0
    )
      expect([...ids], JSON.stringify(text)).toEqual([...same]);
  };

  test("OpenAI's test plans", () => {
    const plans = fs.readFileSync(`${vocabularies}TestPlans.txt`, "utf8");
    const cases = [...plans.matchAll(/EncodingName: (\S+)\nSample: ([\s\S]*?)\nEncoded: (\[.*\])/g)].filter(
      ([, name]) => name === file,
    );
    expect(cases.length).toBeGreaterThan(50);
    for (const [, , sample, ids] of cases) expect([...ours.encode(sample)], sample).toEqual(JSON.parse(ids));
  });

  test("every Unicode block", () => {
    for (const text of blockTexts()) expectSame(text);
  });

  test("mixed text", () => {
    fc.assert(fc.property(mixedText, expectSame), { seed, numRuns: 1500 });
    expectSame([...syntheticText(seed, 200_000)].join(""));
    expectSame(
      fs.readFileSync(createRequire(import.meta.url).resolve("typescript/lib/lib.es5.d.ts"), "utf8"),
    );
  });

  test("special tokens only where they are allowed by name", () => {
    const [name] = Object.keys(ours.specials);
    const text = `a ${name}b${name}`;
    expect([...ours.encode(text, { allowed: [name] })]).toEqual([...theirs.encode(text, [name], [])]);
    expectSame(text);
  });

  test("every row of bytes comes back, and no stream shows half a character", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      mixedText.map((text) => new TextEncoder().encode(text)),
    );
    const property = fc.property(bytes, (row) => {
      const ids = ours.encodeBytes(row);
      expect(Buffer.compare(ours.decode(ids), row)).toBe(0);
      const stream = streamDecoder(ours);
      const shown = [...ids].map((id) => stream.push(id)).join("") + stream.end();
      expect(shown).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(row));
    });
    fc.assert(property, { seed, numRuns: 1000 });
  });

  test("a long piece", () => {
    for (const letter of ["a", " ", "é", "字", "\n", "="]) expectSame(letter.repeat(3001));
  });
});

/** A small tokenizer.json in the form of a family: what is in these files, with merges learned here. */
function familyFile(
  pattern: PatternName,
  form: object,
  options: { pairs?: boolean; ignore_merges?: boolean },
) {
  const text = [...syntheticText(3, 150_000)].join("") + expected.texts.join("\n").repeat(3);
  const merges = learnMerges(countPieces([text], patternSplitter(PATTERNS[pattern])), 1500);
  const characters = byteCharacters();
  const names = mergedTokens(merges).map((token) => visibleBytes(token, characters));
  const pairs = merges.map(([left, right]) => [names[left], names[right]]);
  // The ids of real files do not follow the order of merges at the beginning: bytes are sorted by their characters.
  const order = [...names.slice(0, 256).sort(), ...names.slice(256)];
  const model = bpeModelJson(
    Object.fromEntries(order.map((name, id) => [name, id])),
    pairs.map((pair) => pair.join(" ")),
  );
  const special = (id: number, content: string, flags = {}) => ({
    id: names.length + id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
    ...flags,
  });
  const split = { type: "Split", pattern: { Regex: PATTERNS[pattern] }, behavior: "Isolated", invert: false };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [special(0, "<|begin|>"), special(1, "<|end|>"), special(2, "<tool>", { special: false })],
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [split, byteLevel] },
    post_processor: null as object | null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    ...form,
    model: {
      ...model,
      ...(options.pairs && { merges: pairs }),
      ignore_merges: options.ignore_merges ?? false,
    },
  };
}

const template = (id: number) => ({
  type: "Sequence",
  processors: [
    { type: "ByteLevel", add_prefix_space: true, trim_offsets: false, use_regex: true },
    {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<|begin|>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<|begin|>": { id: "<|begin|>", ids: [id], tokens: ["<|begin|>"] } },
    },
  ],
});

/**
 * A text without what @huggingface/tokenizers reads otherwise than the Rust that it follows: it ignores case without the long s
 * (tiktoken knows it); its ByteLevel cuts with JavaScript's \s, which lacks U+0085 and has U+FEFF; its Digits are ASCII only.
 */
function withinTheirs(family: string, text: string): string {
  const plain = text.replaceAll("ſ", "s");
  if (family !== "GPT-2" && family !== "SmolLM") return plain;
  return plain.replace(/[\u0085\ufeff]/g, "_").replace(/(?!\d)\p{N}/gu, "x");
}

const digits = { type: "Digits", individual_digits: true };
const gpt2Cut = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const isolated = (Regex: string) => ({
  type: "Split",
  pattern: { Regex },
  behavior: "Isolated",
  invert: false,
});
const deepSeekCut = {
  type: "Sequence",
  pretokenizers: [
    isolated("\\p{N}{1,3}"),
    isolated("[一-龥぀-ゟ゠-ヿ]+"),
    isolated(
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
};
const families = {
  "GPT-2": familyFile("gpt2", { pre_tokenizer: gpt2Cut }, {}),
  Qwen: familyFile("qwen2", { normalizer: { type: "NFC" } }, {}),
  "Llama 3": familyFile("llama3", { post_processor: template(1756) }, { pairs: true, ignore_merges: true }),
  "DeepSeek-V3": familyFile(
    "qwen2",
    { normalizer: { type: "Sequence", normalizers: [] }, pre_tokenizer: deepSeekCut },
    {},
  ),
  SmolLM: familyFile("gpt2", { pre_tokenizer: { type: "Sequence", pretokenizers: [digits, gpt2Cut] } }, {}),
};

describe.each(Object.entries(families))(
  "a tokenizer.json in the form of %s against @huggingface/tokenizers",
  (name, file) => {
    const ours = loadTokenizer(file);
    const theirs = new Theirs(file, {});
    const expectSame = (given: string) => {
      const text = withinTheirs(name, given);
      const ids: ArrayLike<number> = theirs.encode(text, { add_special_tokens: false }).ids;
      expect(Array.from(ours.encode(text, { allowed: "all" })), JSON.stringify(text)).toEqual(
        Array.from(ids),
      );
    };

    test("the same ids", () => {
      for (const text of expected.texts) expectSame(text);
      fc.assert(fc.property(mixedText, expectSame), { seed, numRuns: 400 });
      expectSame(`${[...syntheticText(seed + 4, 60_000)].join("")} <tool>x<|end|> e\u0301`);
    });

    test("what a file puts around a text", () => {
      const { before = [], after = [] } = ours.around ?? {};
      expect(before.length).toBe(name === "Llama 3" ? 1 : 0);
      expect([...before, ...ours.encode("Hello 12"), ...after]).toEqual(
        Array.from(theirs.encode("Hello 12").ids),
      );
    });
  },
);

test("a vocabulary of OpenAI's as a tokenizer.json has the same ids, here and with @huggingface/tokenizers", () => {
  const list: Tokenizer = loadTiktoken(fs.readFileSync(`${vocabularies}r50k_base.tiktoken`), "gpt2");
  const file = JSON.parse(JSON.stringify(list.toJson()));
  const loaded = loadTokenizer(file);
  const theirs = new Theirs(file, {});
  for (const text of [...expected.texts, "  Hello, wonderful tokenizers!  "]) {
    expect(loaded.encode(text)).toEqual(list.encode(text));
    expect(Array.from(list.encode(text, { allowed: "all" }))).toEqual(Array.from(theirs.encode(text).ids));
  }
});
