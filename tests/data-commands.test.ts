// `tslm data` and `tslm tokenizer` through the real binary: what they write, and what they say when they cannot.
import fs from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { expectRefusal, testFolder, tslm as program } from "./tslm.ts";

const { folder, at } = testFolder("data");

const tslm = (args: string[], input?: string | Uint8Array) => program(args, { cwd: folder, input });

beforeAll(() => {
  expect(tslm(["data", "synth", "--out", "corpus.txt", "--bytes", "300kB", "--seed", "7"]).status).toBe(0);
  expect(tslm(["tokenizer", "train", "corpus.txt", "--vocab-size", "400", "--out", "bpe"]).status).toBe(0);
});

test("data synth writes exactly the bytes asked for, the same for the same seed, and prints the entropy", () => {
  const again = tslm(["data", "synth", "--out", "again.txt", "--bytes", "300000", "--seed", "7"]);
  expect(again.stdout).toMatch(/^entropy 0\.\d{4} bits per byte\n$/);
  expect(fs.readFileSync(at("again.txt"))).toEqual(fs.readFileSync(at("corpus.txt")));
  expect(fs.statSync(at("again.txt")).size).toBe(300_000);
  tslm(["data", "synth", "--out", "other.txt", "--bytes", "300000", "--seed", "8"]);
  expect(fs.readFileSync(at("other.txt"))).not.toEqual(fs.readFileSync(at("corpus.txt")));
});

test("tokenizer encode and decode are inverse, byte for byte", () => {
  const texts = [
    "",
    "One morning Mara lost a key.\n",
    "\ufeffGrüße, 日本 🎉\r\n\t  \u0000 <|endoftext|> \u0085",
  ];
  for (const tokenizer of ["bpe", "bytes"]) {
    for (const text of texts) {
      const encoded = tslm(["tokenizer", "encode", "--tokenizer", tokenizer], text);
      const decoded = tslm(["tokenizer", "decode", "--tokenizer", tokenizer], encoded.stdout);
      expect(decoded.bytes).toEqual(Buffer.from(text));
    }
  }
});

test("decode gives any bytes, also ones that are no text", () => {
  const ids = [0, 255, 128, 10, 195];
  const decoded = tslm(["tokenizer", "decode", "--tokenizer", "bpe"], JSON.stringify(ids));
  expect([...decoded.bytes]).toEqual(ids);
});

test("data prepare splits by characters and keeps what is known of the source", () => {
  const made = tslm(["data", "prepare", "corpus.txt", "--out", "shards", "--tokenizer", "bpe", "--json"]);
  const manifest = JSON.parse(made.stdout);
  const { sha256: _, ...saved } = JSON.parse(fs.readFileSync(at("shards/manifest.json"), "utf8"));
  expect(manifest).toEqual(saved);
  expect(manifest.splits.train.bytes).toBe(270_000);
  expect(manifest.splits.val.bytes).toBe(30_000);
  const card = JSON.parse(fs.readFileSync(at("corpus.txt.json"), "utf8"));
  expect(manifest.entropy_bits_per_byte).toBe(card.entropy_bits_per_byte);
  expect(manifest.sources[0].sha256).toBe(card.sha256);
  expect(fs.statSync(at("shards/val-00000.bin")).size).toBe(2 * manifest.splits.val.tokens);
});

test("data prepare makes a tokenizer of the characters it finds, also from several files", () => {
  fs.writeFileSync(at("one.txt"), "abcä".repeat(25));
  fs.writeFileSync(at("two.txt"), "xyz😀".repeat(5));
  const prepare = (...inputs: string[]) =>
    JSON.parse(
      tslm(
        ["data", "prepare", ...inputs, "--out", "characters", "--tokenizer", "char", "--json"].concat([
          "--val-fraction",
          "0.25",
        ]),
      ).stdout,
    );
  const { splits, vocab_size } = prepare("one.txt", "two.txt");
  expect(vocab_size).toBe(8);
  expect(splits.train.tokens + splits.val.tokens).toBe(100 + 20);
  expect([0, 20, 100]).toContain(splits.val.tokens); // of several texts, none is cut
  expect(prepare("one.txt").splits).toMatchObject({
    train: { tokens: 75 },
    val: { tokens: 25, bytes: 25 + 7 },
  });
});

test("what cannot be read is named, and nothing is left half-written", () => {
  fs.writeFileSync(at("bad.txt"), Buffer.from("good\xff", "latin1"));
  const before = fs.readdirSync(folder).sort();
  const prepare = (...inputs: string[]) =>
    tslm(["data", "prepare", ...inputs, "--out", "none", "--tokenizer", "bytes"]);
  expectRefusal(prepare("missing.txt"), "There is no file missing.txt");
  expectRefusal(prepare("corpus.txt", "bad.txt"), "bad.txt is not UTF-8 text: the byte 0xff at offset 4");
  expectRefusal(prepare("bpe"), "bpe is a folder");
  expectRefusal(tslm(["tokenizer", "train", "bad.txt", "--vocab-size", "300", "--out", "none"]), "offset 4");
  expectRefusal(tslm(["tokenizer", "encode", "--tokenizer", "bpe"], Buffer.of(97, 255)), "0xff at offset 1");
  expect(fs.readdirSync(folder).sort()).toEqual(before);
});

test("a folder with other things in it is not replaced", () => {
  fs.mkdirSync(at("mine"), { recursive: true });
  fs.writeFileSync(at("mine/letter.txt"), "dear");
  expectRefusal(
    tslm(["data", "prepare", "corpus.txt", "--out", "mine", "--tokenizer", "char"]),
    "mine holds other files",
  );
  expect(fs.readdirSync(at("mine"))).toEqual(["letter.txt"]);
});

test("ids and vocabulary sizes that cannot be are refused", () => {
  const decode = (input: string) => tslm(["tokenizer", "decode", "--tokenizer", "bpe"], input);
  expectRefusal(decode("[1, 400]"), "Token id 400 is outside the vocabulary: ids run from 0 to 399.");
  expectRefusal(decode("[-1]"), "Token id -1 is outside the vocabulary");
  expectRefusal(decode("[1.5]"), "not a JSON array of whole numbers");
  expectRefusal(decode("hello"), "not JSON");
  const train = tslm(["tokenizer", "train", "corpus.txt", "--vocab-size", "256", "--out", "small"]);
  expectRefusal(train, "must be from 257");
  expect(fs.existsSync(at("small"))).toBe(false);
});

test("bad usage ends with code 2", () => {
  expect(tslm(["data", "synth", "--out", "x", "--bytes", "lots"]).status).toBe(2);
  expect(tslm(["data", "prepare", "corpus.txt", "--tokenizer", "char"]).status).toBe(2);
  expect(tslm(["tokenizer", "encode"]).status).toBe(2);
});
