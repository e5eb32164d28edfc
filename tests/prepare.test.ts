// `tslm data prepare` and `data inspect` through the real binary: threads, kills, sources, and what they say of bad input.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { readSources } from "../lib/src/cli/data-prepare.js";
import { isForValidation } from "../lib/src/data/shards.js";
import { randomStream } from "../lib/src/data/random.js";
import { binary, testFolder, tslm as program } from "./tslm.ts";

const { folder, at } = testFolder("prepare");

const tslm = (...args: string[]) => program(args, { cwd: folder });

const jsonl = (texts: string[]) => texts.map((text) => `${JSON.stringify({ text })}\n`).join("");
let documents: string[] = [];

beforeAll(() => {
  expect(tslm("data", "synth", "--out", "corpus.txt", "--bytes", "3MB", "--seed", "5").status).toBe(0);
  expect(tslm("tokenizer", "train", "corpus.txt", "--vocab-size", "400", "--out", "bpe").status).toBe(0);
  documents = fs.readFileSync(at("corpus.txt"), "utf8").split("\n\n").slice(0, -1);
  fs.writeFileSync(at("a.jsonl"), jsonl(documents.slice(0, 6000)));
  fs.writeFileSync(at("b.jsonl.gz"), zlib.gzipSync(jsonl(documents.slice(5000, 12_000))));
});

const sources = [
  ...["--source", "name=notes,license=CC0-1.0,url=https://example.org/notes,weight=1", "a.jsonl"],
  ...["--source", "name=more,license=CC-BY-4.0,weight=2", "b.jsonl.gz", "corpus.txt"],
];
const prepare = (out: string, ...more: string[]) => [
  ...["data", "prepare", "--out", out, "--tokenizer", "bpe", "--dedup", "exact,near", ...sources, ...more],
];

/** The names and bytes of all files in a folder. */
const contentOf = (name: string) =>
  fs
    .readdirSync(at(name))
    .filter((file) => file !== ".tslm.json") // has the checksums of the two files that hold the folder's name
    .sort()
    .map((file) => [file, fs.readFileSync(path.join(at(name), file), "latin1")]);

/** Begins to prepare and ends it with a signal when a file has grown. Gives its exit code: null after a kill. */
async function endedWhenGrown(file: string, signal: NodeJS.Signals): Promise<number | null> {
  const before = sizeOf(file);
  const child = spawn(process.execPath, [binary, ...prepare("killed", "--workers", "3")], { cwd: folder });
  const ended = new Promise((resolve) => child.on("close", resolve));
  while (child.exitCode === null && sizeOf(file) <= before)
    await new Promise((resolve) => setTimeout(resolve, 1));
  child.kill(signal);
  await ended;
  return child.exitCode;
}

test("one thread or three, killed on the way or not: the same bytes", async () => {
  expect(tslm(...prepare("whole", "--workers", "1")).status).toBe(0);
  const wanted = contentOf("whole");
  wanted.find(([name]) => name === "README.md")![1] = "";
  const files = wanted.map(([name]) => name);
  expect(files).toEqual(
    [
      "README.md",
      "croissant.json",
      "dropped.jsonl",
      "manifest.json",
      "tokenizer.json",
      "train-00000.bin",
      "val-00000.bin",
    ].sort(),
  );
  const ways = [
    { file: "killed/.tslm-partial/checks.bin", signal: "SIGKILL", code: null },
    { file: "killed/.tslm-partial/train-00000.bin", signal: "SIGINT", code: 130 },
    { file: "killed/.tslm-partial/train-00000.bin", signal: "SIGKILL", code: null },
  ] as const;
  for (const { file, signal, code } of ways) {
    for (let tries = 0; (await endedWhenGrown(file, signal)) !== code; tries++) {
      expect(tries).toBeLessThan(5); // it was done before we came to end it: once more
      fs.rmSync(at("killed"), { recursive: true });
    }
    expect(fs.existsSync(at("killed/manifest.json"))).toBe(false);
    expect(fs.existsSync(at("killed/.tslm-partial/manifest.json"))).toBe(false);
    expect(tslm("data", "inspect", "killed").stderr).toContain("holds no prepared data");
  }
  expect(tslm(...prepare("killed", "--workers", "2")).status).toBe(0);
  const found = contentOf("killed");
  found.find(([name]) => name === "README.md")![1] = ""; // it has the folder's name in it, as has croissant.json
  const renamed = found.map(([name, text]) => [
    name,
    name === "croissant.json" ? text.replace('"killed"', '"whole"') : text,
  ]);
  expect(renamed).toEqual(wanted);
  expect(fs.existsSync(at("killed/.tslm-partial"))).toBe(false);
});

const sizeOf = (name: string) => fs.statSync(at(name), { throwIfNoEntry: false })?.size ?? 0;

test("the manifest keeps account of each source, and so does what inspect says", () => {
  const { mixture, sources: files, splits } = JSON.parse(fs.readFileSync(at("whole/manifest.json"), "utf8"));
  const [notes, more] = mixture;
  expect(notes).toMatchObject({
    name: "notes",
    license: "CC0-1.0",
    url: "https://example.org/notes",
    weight: 1,
  });
  expect(notes.documents.read).toBe(6000);
  expect(more.documents.read).toBe(7001);
  for (const { documents: counts } of mixture) {
    const dropped = Object.values(counts.dropped).reduce((sum: number, count) => sum + Number(count), 0);
    expect(counts.kept + dropped).toBe(counts.read);
  }
  expect(more.documents.dropped["exact-duplicate"]).toBeGreaterThanOrEqual(1000);
  expect(files.map(({ file, source }: Record<string, string>) => [file, source])).toEqual([
    ["a.jsonl", "notes"],
    ["b.jsonl.gz", "more"],
    ["corpus.txt", "more"],
  ]);
  const report = JSON.parse(tslm("data", "inspect", "whole", "--json", "--samples", "3").stdout);
  expect(report.sources.map(({ documents: counts }: typeof notes) => counts)).toEqual(
    mixture.map(({ documents: counts }: typeof notes) => counts),
  );
  expect(report.sources[0].train.tokens + report.sources[1].train.tokens).toBe(splits.train.tokens);
  expect(report.samples.length).toBe(3);
  expect(report.sources[0].lengths.documents).toBeGreaterThan(1000);
  const html = fs.readFileSync(at("whole/inspect.html"), "utf8");
  expect(html).toContain("Plotly.newPlot");
  expect(html.replace(/<script>.*?<\/script>/gs, "")).not.toMatch(/(src|href)=/); // nothing to fetch
  const text = tslm("data", "inspect", "whole").stdout;
  expect(text).toContain("CC-BY-4.0");
  expect(text).toContain("exact-duplicate");
});

test("data of an older version, and of plain texts, can be looked at too", () => {
  expect(tslm("data", "prepare", "corpus.txt", "--out", "plain", "--tokenizer", "bytes").status).toBe(0);
  const file = at("plain/manifest.json");
  const {
    mixture: _,
    separator: __,
    steps: ___,
    sha256: ____,
    ...old
  } = JSON.parse(fs.readFileSync(file, "utf8"));
  fs.writeFileSync(file, JSON.stringify(old));
  const report = JSON.parse(tslm("data", "inspect", "plain", "--json").stdout);
  expect(report.sources).toMatchObject([{ name: "text", train: { tokens: 2_700_000 }, bytes_per_token: 1 }]);
});

test("sources are described in words of their own", () => {
  expect(
    readSources([
      "name=a,license=MIT",
      "x.txt",
      "y.txt",
      "weight=2,name=b,url=https://x.org/?q=1,2",
      "z.txt",
    ]),
  ).toEqual([
    { name: "a", license: "MIT", files: ["x.txt", "y.txt"] },
    { name: "b", weight: 2, url: "https://x.org/?q=1,2", files: ["z.txt"] },
  ]);
  expect(() => readSources(["x.txt", "name=a"])).toThrow("begins with name=NAME");
  expect(() => readSources(["name=a"])).toThrow("name the files of the source a");
  expect(() => readSources(["name=a,licence=MIT", "x"])).toThrow('did you mean "license"');
  expect(() => readSources(["license=MIT", "x"])).toThrow("has no name");
  expect(() => readSources(["name=a,weight=none", "x"])).toThrow("weight of a must be a number above 0");
});

test("what cannot be read is named with its place, and nothing is left; or it is left out and counted", () => {
  fs.writeFileSync(at("bad.jsonl"), '{"text": "one"}\n[1]\n{"text": "two"}\n{"words": "three"}\n');
  fs.writeFileSync(at("short.jsonl"), jsonl(["too short", "far too short"]));
  fs.writeFileSync(at("cut.jsonl.gz"), fs.readFileSync(at("b.jsonl.gz")).subarray(0, 20_000));
  const before = fs.readdirSync(folder).sort();
  const refuse = (words: string, ...args: string[]) => {
    const { status, stderr } = tslm("data", "prepare", "--out", "none", "--tokenizer", "bytes", ...args);
    expect(stderr).toContain(words);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(fs.readdirSync(folder).sort()).toEqual(before);
    return status;
  };
  expect(refuse("bad.jsonl:2 is not a JSON object", "bad.jsonl")).toBe(1);
  expect(refuse("cut.jsonl.gz is cut short or damaged", "cut.jsonl.gz", "--on-error", "skip")).toBe(1);
  expect(refuse('There is no filter "goffer"', "a.jsonl", "--filter", "goffer")).toBe(1);
  expect(refuse("all were dropped", "short.jsonl", "--filter", "gopher-length")).toBe(1);
  expect(refuse("There is no file exam.txt", "a.jsonl", "--contamination", "exam.txt")).toBe(1);
  expect(refuse("belongs to no source", "a.jsonl", "--source", "name=x", "corpus.txt")).toBe(2);
  expect(refuse("It must be some of: exact, near.", "a.jsonl", "--dedup", "fuzzy")).toBe(2);
  expect(refuse("name text files, or sources")).toBe(2);
  const skipped = tslm(
    "data",
    "prepare",
    "bad.jsonl",
    "--out",
    "skipped",
    "--tokenizer",
    "bytes",
    "--on-error",
    "skip",
    "--json",
  );
  expect(skipped.stderr).toContain("left out: bad.jsonl:2 is not a JSON object");
  expect(JSON.parse(skipped.stdout).mixture[0].documents).toEqual({
    read: 4,
    kept: 2,
    dropped: { unreadable: 2 },
  });
});

test("the licence of what data get fetched goes along", () => {
  fs.copyFileSync(at("a.jsonl"), at("got.jsonl"));
  const { sha256 } = JSON.parse(fs.readFileSync(at("whole/manifest.json"), "utf8")).sources[0];
  fs.writeFileSync(
    at("got.jsonl.json"),
    JSON.stringify({ kind: "download", sha256, license: "CC0-1.0", url: "https://example.org/x" }),
  );
  const made = tslm("data", "prepare", "got.jsonl", "--out", "got", "--tokenizer", "bytes", "--json");
  expect(JSON.parse(made.stdout).mixture[0]).toMatchObject({
    license: "CC0-1.0",
    url: "https://example.org/x",
  });
});

test("inspect --overlap counts the validation documents that share 13 words with training", () => {
  const random = randomStream(51);
  const words = (count: number) => Array.from({ length: count }, () => `w${Math.floor(900 * random())}`);
  const passages = Array.from({ length: 5 }, () => words(20).join(" "));
  const texts = Array.from({ length: 300 }, (_, i) => {
    const own = words(30).join(" ");
    return i % 6 === 0 ? `${own} ${passages[i % 5]} ${words(5).join(" ")}` : own;
  });
  fs.writeFileSync(at("overlap.jsonl"), jsonl(texts));
  const done = tslm(
    ..."data prepare overlap.jsonl --out overlap --tokenizer bytes --val-fraction 0.2".split(" "),
  );
  expect(done.stderr).not.toContain("tslm:");
  const runs = (text: string) => {
    const all = text.split(" ");
    return all.slice(12).map((_, i) => all.slice(i, i + 13).join(" "));
  };
  const known = new Set(texts.filter((text) => !isForValidation(text, 0.2)).flatMap(runs));
  const held = texts.filter((text) => isForValidation(text, 0.2));
  const overlapping = held.filter((text) => runs(text).some((run) => known.has(run))).length;
  expect(overlapping).toBeGreaterThan(3);
  const report = JSON.parse(tslm("data", "inspect", "overlap", "--json", "--overlap").stdout);
  expect(report.overlap).toMatchObject({ documents: held.length, overlapping });
  expect(runs(report.overlap.example)).toHaveLength(1);
  expect(tslm("data", "inspect", "overlap", "--overlap").stdout).toContain(
    `${overlapping} of ${held.length} documents (`,
  );
});
