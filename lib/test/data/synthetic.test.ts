// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { writeWhole } from "../../src/data/files.js";
import {
  DOCUMENT_END,
  DOMAINS,
  type Grammar,
  type Item,
  type Part,
  documentBits,
  drawable,
  measureParts,
  parseTemplate,
  syntheticDocuments,
  syntheticEntropy,
  syntheticText,
  utf8Bytes,
  wordForm,
  wordsOf,
  writeSynthetic,
} from "../../src/data/synthetic.js";

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#enumerate
/** Every text that the parts can write, with its probability, by trying every choice. */
function allTexts(
  parts: Part[],
  grammar: Grammar,
  bound = new Map<string, Item>(),
): { text: string; p: number }[] {
  if (parts.length === 0) return [{ text: "", p: 1 }];
  const [part, ...rest] = parts;
  const goOn = (text: string, p: number, now = bound) =>
    allTexts(rest, grammar, now).map((end) => ({ text: text + end.text, p: p * end.p }));
  if (part.kind === "text") return goOn(part.text, 1);
  if (part.kind === "again") return goOn(wordForm(bound.get(part.variable)!, part.form), 1);
  if (part.kind === "choice") {
    return part.options.flatMap((option) =>
      allTexts([...option, ...rest], grammar, bound).map((end) => ({
        text: end.text,
        p: end.p / part.options.length,
      })),
    );
  }
  const items = drawable(part, grammar, bound);
  return items.flatMap((item) =>
    goOn(wordForm(item, part.form), 1 / items.length, new Map(bound).set(part.variable, item)),
  );
}

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#enumerate-test
await test("the entropy from the grammar is the entropy of the list of all its texts", () => {
  const grammar: Grammar = {
    lists: { n: ["Ann", "Bo", "Caroline"].map((it) => ({ it, she: `${it}e` })), t: wordsOf("ü, xyz") },
    rules: { r: ["<b:n-a> and <a.She>[.|!]", "\\[<x>\\]", "none"] },
  };
  const parts = parseTemplate("<a:n> [has|is|was] <x:t>: @r <a>", grammar.rules);
  const texts = allTexts(parts, grammar);
  expect(new Set(texts.map(({ text }) => text)).size).toBe(texts.length);
  const { bits, bytes } = measureParts(parts, grammar, new Map());
  expect(bits).toBeCloseTo(
    texts.reduce((sum, { p }) => sum - p * Math.log2(p), 0),
    10,
  );
  expect(bytes).toBeCloseTo(
    texts.reduce((sum, { text, p }) => sum + p * utf8Bytes(text), 0),
    10,
  );
});

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#templates-test
await test("templates that make no sense are refused", () => {
  expect(() => parseTemplate("[a|b", {})).toThrow("not closed");
  expect(() => parseTemplate("a]b", {})).toThrow("Unexpected ]");
  expect(() => parseTemplate("@nobody", {})).toThrow("no rule named nobody");
  const grammar: Grammar = { lists: { t: wordsOf("x, y") }, rules: {} };
  const measure = (template: string) => measureParts(parseTemplate(template, {}), grammar, new Map());
  expect(() => measure("<a> before")).toThrow("a is used before it is drawn");
  expect(() => measure("[<a:t>|none] <a>")).toThrow("a is used before it is drawn");
  expect(measure("[<a:t>|some <a:t>] <a>").bits).toBe(2);
});

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#corpus-test
await test("the exact entropy agrees with 4000 documents, and each document is written in one way only", () => {
  const exact = syntheticEntropy();
  const sums = new Map<string, { n: number; bits: number; squares: number; bytes: number }>();
  for (const { domain, text, bits } of syntheticDocuments(99)) {
    const sum = sums.get(domain) ?? { n: 0, bits: 0, squares: 0, bytes: 0 };
    const own = bits + Math.log2(DOMAINS.find(({ name }) => name === domain)!.share);
    sums.set(domain, {
      n: sum.n + 1,
      bits: sum.bits + own,
      squares: sum.squares + own ** 2,
      bytes: sum.bytes + text.length,
    });
    expect(documentBits(text)).toBeCloseTo(bits, 6);
    if ([...sums.values()].reduce((count, { n }) => count + n, 0) === 4000) break;
  }
  for (const [domain, { n, bits, squares, bytes }] of sums) {
    const error = Math.sqrt((squares / n - (bits / n) ** 2) / n);
    expect(Math.abs(bits / n - exact.domains[domain].bitsPerDocument)).toBeLessThan(4.5 * error);
    expect(Math.abs(bytes / n / exact.domains[domain].bytesPerDocument - 1)).toBeLessThan(0.02);
  }
});

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#corpus-form-test
await test("documents are ASCII, end in an empty line and have none inside; impossible ones are infinitely surprising", () => {
  let count = 0;
  for (const { text } of syntheticDocuments(5)) {
    expect(text).toMatch(/^[\n\x20-\x7e]+$/);
    expect(text.indexOf(DOCUMENT_END)).toBe(text.length - 2);
    if (++count === 500) break;
  }
  expect(documentBits("Once upon a time.\n\n")).toBe(Number.POSITIVE_INFINITY);
  expect(documentBits("What is 11 + 11? Tens: 10 + 10 = 20. Ones: 1 + 1 = 2. Sum: 23.\n\n")).toBe(
    Number.POSITIVE_INFINITY,
  );
});

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#write-test
await test("a corpus on disk has exactly the bytes asked for, and its card beside it", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const file = path.join(folder, "new", "corpus.txt");
  const card = writeSynthetic(file, 42, 50_001);
  const bytes = fs.readFileSync(file);
  expect(bytes.length).toBe(50_001);
  expect(bytes.toString().startsWith([...syntheticText(42, 50_000)].join(""))).toBe(true);
  expect(card.sha256).toBe(crypto.createHash("sha256").update(bytes).digest("hex"));
  expect(JSON.parse(fs.readFileSync(`${file}.json`, "utf8"))).toEqual(card);
  const fail = () =>
    writeWhole(path.join(folder, "never.txt"), () => {
      throw new Error("stop");
    });
  expect(fail).toThrow("stop");
  expect(fs.readdirSync(folder)).toEqual(["new"]);
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#keep-test
await test("nothing but a corpus of ours, unchanged, is written over; links are followed", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const at = (name: string) => path.join(folder, name);
  const refuse = (name: string) => {
    const before = fs.readdirSync(folder).map((each) => [each, fs.readFileSync(at(each), "utf8")]);
    expect(() => writeSynthetic(at(name), 1, 1000)).toThrow("name another file");
    expect(fs.readdirSync(folder).map((each) => [each, fs.readFileSync(at(each), "utf8")])).toEqual(before);
  };
  fs.writeFileSync(at("notes.txt"), "mine");
  refuse("notes.txt");
  fs.writeFileSync(at("notes.md.json"), '{"mine": true}');
  refuse("notes.md");
  writeSynthetic(at("ours.txt"), 1, 1000);
  writeSynthetic(at("ours.txt"), 2, 2000); // one's own may be made again
  expect(fs.readFileSync(at("ours.txt"), "utf8")).toBe([...syntheticText(2, 2000)].join(""));
  fs.appendFileSync(at("ours.txt"), "and mine");
  refuse("ours.txt");
  fs.writeFileSync(at("x.partial"), "mine");
  fs.symlinkSync(at("far.txt"), at("x"));
  writeSynthetic(at("x"), 3, 500);
  expect(fs.lstatSync(at("x")).isSymbolicLink()).toBe(true);
  expect(fs.statSync(at("far.txt")).size).toBe(500);
  expect(fs.readFileSync(at("x.partial"), "utf8")).toBe("mine");
  fs.rmSync(folder, { recursive: true });
});
