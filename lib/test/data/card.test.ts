// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import {
  type CorpusRecord,
  type DocumentCounts,
  type FileRecord,
  type SourceRecord,
  countDocument,
  croissant,
  datasetCard,
  fileRecord,
  sizeCategory,
  totalCounts,
} from "../../src/data/card.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#card-sample
/** A record with two sources, one of them of unknown licence. */
function sampleRecord(): CorpusRecord {
  const file = (name: string): FileRecord => ({
    file: name,
    sha256: crypto.createHash("sha256").update(name).digest("hex"),
    bytes: name.length,
  });
  const stories: SourceRecord = {
    name: "stories",
    license: "CC-BY-4.0",
    url: "https://example.org/stories",
    files: [file("a.jsonl.gz"), file("b|c.txt")],
    documents: { read: 1500, kept: 1100, dropped: { "near-duplicate": 300, "gopher-length": 100 } },
  };
  const crawl: SourceRecord = {
    name: "crawl",
    license: "unknown",
    weight: 0.5,
    files: [file("d.parquet")],
    documents: { read: 10, kept: 0, dropped: { unreadable: 10 } },
  };
  return {
    name: 'A "small" corpus: for tests',
    description: "Stories.",
    version: "1.0.0",
    created: "2026-01-31",
    creator: { type: "Person", name: "A. Reader" },
    url: "./",
    languages: ["en"],
    steps: ["Unicode in composed form."],
    sources: [stories, crawl],
    files: [file("train-00000.bin"), file("manifest.json")],
  };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#card-test
await test("a dataset card has readable front matter, every source, every reason and every checksum", () => {
  const record = sampleRecord();
  const [, head, body] = /^---\n([\s\S]*?)\n---\n([\s\S]*)$/.exec(datasetCard(record))!;
  const values = Object.fromEntries(
    head.split("\n").map((line) => [line.split(": ", 1)[0], JSON.parse(line.slice(line.indexOf(": ") + 2))]),
  );
  expect(values).toEqual({
    pretty_name: record.name,
    license: ["cc-by-4.0", "unknown"],
    language: ["en"],
    task_categories: ["text-generation"],
    size_categories: ["1K<n<10K"],
  });
  expect(body).toContain("| [stories](https://example.org/stories) | CC-BY-4.0 | 1 | 2 | 17 | 1500 | 1100 |");
  expect(body).toContain("| near-duplicate | nearly the same text as an earlier document | 300 | 19.9 % |");
  expect(body).toContain("| gopher-length | fewer than 50 or more than 100 000 words | 100 | 6.6 % |");
  expect(body).toContain("**The licence of crawl is unknown.**");
  expect(body).toContain("b\\|c.txt");
  for (const { sha256 } of [...record.files, ...record.sources.flatMap(({ files }) => files)])
    expect(body).toContain(sha256);
  expect([0, 999, 1000, 9999, 10_000, 2e6, 3e12].map(sizeCategory)).toEqual([
    "n<1K",
    "n<1K",
    "1K<n<10K",
    "1K<n<10K",
    "10K<n<100K",
    "1M<n<10M",
    "n>1T",
  ]);
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant-test
/** A name of a Croissant file in full, by its context. */
function expandName(file: ReturnType<typeof JSON.parse>, name: string): string {
  const context = file["@context"];
  const [prefix, rest] = (typeof context[name] === "string" ? context[name] : name).split(":");
  return rest === undefined ? context["@vocab"] + prefix : context[prefix] + rest;
}

await test("a Croissant file has all that version 1.0 requires", () => {
  const file = JSON.parse(JSON.stringify(croissant(sampleRecord())));
  const required =
    "@context @type conformsTo description license name url creator datePublished distribution";
  for (const property of required.split(" ")) expect(Object.keys(file)).toContain(property);
  expect(expandName(file, file["@type"])).toBe("https://schema.org/Dataset");
  expect(expandName(file, "conformsTo")).toBe("http://purl.org/dc/terms/conformsTo");
  expect(expandName(file, "distribution")).toBe("https://schema.org/distribution");
  expect(file.conformsTo).toBe("http://mlcommons.org/croissant/1.0");
  expect(file.datePublished).toMatch(/^\d{4}-\d\d-\d\d$/);
  expect(expandName(file, file.creator["@type"])).toMatch(/^https:\/\/schema\.org\/(Person|Organization)$/);
  expect(file.license).toEqual([
    "https://spdx.org/licenses/CC-BY-4.0.html",
    { "@type": "CreativeWork", name: "unknown" },
  ]);
  expect(file.isBasedOn.map(({ name }: { name: string }) => name)).toEqual(["stories", "crawl"]);
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant-files-test
await test("each file in a Croissant file has an identifier of its own, a place, a format and a checksum", () => {
  const file = JSON.parse(JSON.stringify(croissant(sampleRecord())));
  const ids = file.distribution.map((each: { "@id": string }) => each["@id"]);
  expect(ids).toEqual(["train-00000.bin", "manifest.json"]);
  for (const each of file.distribution) {
    expect(expandName(file, each["@type"])).toBe("http://mlcommons.org/croissant/FileObject");
    expect(each.contentUrl).toBe(each.name);
    expect(each.encodingFormat).toMatch(/^\w+\/[\w.-]+$/);
    expect(each.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(each.contentSize).toMatch(/^\d+ B$/);
  }
});

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#counts-test
await test("documents are counted by what became of them", () => {
  const record = sampleRecord();
  const counts: DocumentCounts = { read: 0, kept: 0, dropped: {} };
  for (const reason of [undefined, "unreadable", undefined, "c4-braces", "unreadable"])
    countDocument(counts, reason);
  expect(counts).toEqual({ read: 5, kept: 2, dropped: { unreadable: 2, "c4-braces": 1 } });
  record.sources[0].documents = counts;
  expect(totalCounts(record.sources)).toEqual({
    read: 15,
    kept: 2,
    dropped: { unreadable: 12, "c4-braces": 1 },
  });
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  fs.writeFileSync(path.join(folder, "abc.txt"), "abc");
  expect(fileRecord(path.join(folder, "abc.txt"))).toEqual({
    file: "abc.txt",
    sha256: crypto.createHash("sha256").update("abc").digest("hex"),
    bytes: 3,
  });
  fs.rmSync(folder, { recursive: true });
});
