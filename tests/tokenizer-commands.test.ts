// `tslm tokenizer` through the real binary: other people's files, workers, the report, and what it says when it cannot.
import fs from "node:fs";
import { createRequire } from "node:module";
import { beforeAll, expect, test } from "vitest";
import { expectRefusal, testFolder, tslm as program } from "./tslm.ts";

const { folder, at } = testFolder("tokenizer");
const gpt2 = createRequire(import.meta.url)
  .resolve("gpt-tokenizer/package.json")
  .replace("package.json", "data/r50k_base.tiktoken");

const tslm = (args: string[], input?: string | Uint8Array) => program(args, { cwd: folder, input });

const train = (...args: string[]) => tslm(["tokenizer", "train", ...args]);

beforeAll(() => {
  expect(tslm(["data", "synth", "--out", "corpus.txt", "--bytes", "9MB"]).status).toBe(0);
  expect(train("corpus.txt", "--vocab-size", "500", "--out", "bpe").status).toBe(0);
});

test("any number of workers learns the same vocabulary", () => {
  for (const workers of ["1", "2", "5"])
    expect(
      train("corpus.txt", "--vocab-size", "500", "--out", `by ${workers}`, "--workers", workers).status,
    ).toBe(0);
  const learned = fs.readFileSync(at("bpe/tokenizer.json"));
  for (const workers of ["1", "2", "5"])
    expect(fs.readFileSync(at(`by ${workers}/tokenizer.json`)).equals(learned)).toBe(true);
});

test("a folder, its file under any name, and a .tiktoken file with its pattern are tokenizers", () => {
  fs.copyFileSync(at("bpe/tokenizer.json"), at("other"));
  const ids = (...args: string[]) => tslm(["tokenizer", "encode", ...args], "It's a cat.\n").stdout;
  expect(ids("--tokenizer", "bpe/tokenizer.json")).toBe(ids("--tokenizer", "bpe"));
  expect(ids("--tokenizer", "other")).toBe(ids("--tokenizer", "bpe"));
  expect(JSON.parse(ids("--tokenizer", gpt2, "--pattern", "gpt2"))).toEqual([1026, 338, 257, 3797, 13, 198]);
  const decoded = tslm(
    ["tokenizer", "decode", "--tokenizer", gpt2, "--pattern", "gpt2"],
    "[1026,338,257,3797]",
  );
  expect(decoded.stdout).toBe("It's a cat");
});

test("special tokens in a text are text unless they are allowed", () => {
  const encode = (...args: string[]) =>
    JSON.parse(
      tslm(["tokenizer", "encode", "--tokenizer", gpt2, "--pattern", "gpt2", ...args], "a<|endoftext|>")
        .stdout,
    );
  expect(encode()).not.toContain(50256);
  expect(encode("--allow-special")).toEqual([64, 50256]);
});

test("inspect says what a tokenizer holds, wastes, and does on a text", () => {
  fs.writeFileSync(at("line.txt"), "the the the\n");
  const report = JSON.parse(
    tslm(["tokenizer", "inspect", "line.txt", "--tokenizer", "bpe", "--json"]).stdout,
  );
  expect(report).toMatchObject({
    vocabulary: 500,
    special: { "<|endoftext|>": 499 },
    bytes: 12,
    unreachable: 0,
  });
  expect(report.bytes_per_token).toBeCloseTo(12 / report.tokens, 3);
  expect(report.commonest[0]).toBe(" the");
  expect(report.pattern).toHaveLength(1);
  expect(report.unused).toBeGreaterThan(400);
  const lines = tslm(["tokenizer", "inspect", "--tokenizer", gpt2, "--pattern", "gpt2"]).stdout;
  expect(lines).toMatch(/^vocabulary +50257$/m);
  expect(lines).toMatch(/^special +<\|endoftext\|> 50256$/m);
  expect(lines).toMatch(/^unreachable +\d+$/m);
});

test("what is not a tokenizer is refused with the reason and the file, and nothing is written", () => {
  const before = fs.readdirSync(folder).sort();
  const encode = (...args: string[]) => tslm(["tokenizer", "encode", ...args], "a");
  const write = (name: string, change: (file: { [part: string]: object }) => void) => {
    const file = JSON.parse(fs.readFileSync(at("bpe/tokenizer.json"), "utf8"));
    change(file);
    fs.writeFileSync(at(name), JSON.stringify(file));
    const result = encode("--tokenizer", name);
    fs.rmSync(at(name));
    return result;
  };
  expectRefusal(
    write("u.json", (file) => Object.assign(file.model, { type: "Unigram" })),
    "u.json: Its model is of type Unigram, which tslm does not run",
  );
  const bad = { type: "Split", pattern: { Regex: "a(" }, behavior: "Isolated", invert: false };
  expectRefusal(
    write("r.json", (file) =>
      Object.assign(file.pre_tokenizer, {
        pretokenizers: [bad, { type: "ByteLevel", add_prefix_space: false, trim_offsets: true }],
      }),
    ),
    'r.json: The pattern "a(" cannot be used: a group is not closed.',
  );
  fs.writeFileSync(at("small.tiktoken"), "YQ== 0\n");
  expectRefusal(encode("--tokenizer", "small.tiktoken", "--pattern", "gpt2"), "at least 256 tokens");
  fs.rmSync(at("small.tiktoken"));
  expectRefusal(encode("--tokenizer", gpt2), "does not say how to cut text: give --pattern", 2);
  expectRefusal(encode("--tokenizer", "bpe", "--pattern", "gpt2"), "--pattern is for .tiktoken files", 2);
  expectRefusal(encode("--tokenizer", gpt2, "--pattern", "gpt5"), "Allowed choices are gpt2", 2);
  expectRefusal(encode("--tokenizer", "nowhere"), "nowhere");
  fs.writeFileSync(at("empty.txt"), "");
  expectRefusal(train("empty.txt", "--vocab-size", "300", "--out", "none"), "There is no text in empty.txt");
  expectRefusal(train("missing.txt", "--vocab-size", "300", "--out", "none"), "There is no file missing.txt");
  expectRefusal(train("corpus.txt", "--vocab-size", "200", "--out", "none"), "must be from 257");
  expectRefusal(
    train("corpus.txt", "--vocab-size", "300", "--out", "none", "--workers", "0"),
    "--workers",
    2,
  );
  fs.rmSync(at("empty.txt"));
  expect(fs.readdirSync(folder).sort()).toEqual(before);
});
