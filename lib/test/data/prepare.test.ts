// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import type {
  CorpusOptions,
  CorpusPart,
  CorpusProgress,
  CorpusWork,
  WorkSettings,
} from "../../src/data/corpus.js";
import { prepareCorpus } from "../../src/data/prepare.js";
import { randomStream } from "../../src/data/random.js";
import { type TokenSource, isForValidation, openShards } from "../../src/data/shards.js";
import { syntheticText } from "../../src/data/synthetic.js";
import { workHere } from "../../src/data/work.js";
import { characterTokenizer, textOfBytes } from "../../src/tokenizer/characters.js";
import { trainBpe } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-tools
/** A corpus of two texts and some documents, in a fresh folder. */
function smallCorpus(seed: number): { place: string; options: CorpusOptions } {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const texts = [...syntheticText(seed, 60_000)].join("").split("\n\n");
  const write = (name: string, content: string) => {
    fs.writeFileSync(path.join(place, name), content);
    return path.join(place, name);
  };
  const lines = texts.slice(0, 150).map((text) => `${JSON.stringify({ text })}\n`);
  const sources = [
    {
      name: "lines",
      license: "CC0-1.0",
      files: [write("a.jsonl", lines.slice(0, 90).join("")), write("b.jsonl", lines.slice(90).join(""))],
    },
    {
      name: "texts",
      files: [write("c.txt", texts.slice(150, 350).join("\n")), write("d.txt", "Grüße 🎉\n".repeat(50))],
    },
  ];
  return {
    place,
    options: { sources, tokenizer: trainBpe([texts.join("\n\n"), "Grüße 🎉"], 320), shardTokens: 5000 },
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#slow-work
/** The names and bytes of all files in a folder. */
function contentOf(folder: string): [string, string][] {
  return fs
    .readdirSync(folder)
    .sort()
    .map((name) => [name, fs.readFileSync(path.join(folder, name), "latin1")]);
}

/** Work that takes its time, by several at once. */
function slowWork(width: number, random: () => number): (settings: WorkSettings) => CorpusWork {
  return (settings) => {
    const work = workHere(settings);
    const encode = async (parts: CorpusPart[]) => {
      await new Promise((resolve) => setTimeout(resolve, 4 * random()));
      return work.encode(parts);
    };
    return { ...work, width, encode };
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#few-documents-test
await test("texts are split whole over the corpus, without any for validation if so few are there, and never without any to learn from", async () => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const texts = Array.from({ length: 50 }, (_, i) => `This is sentence number ${i}, and no more.`);
  const files = texts.map((text, i) => {
    fs.writeFileSync(path.join(place, `${i}.txt`), text);
    return path.join(place, `${i}.txt`);
  });
  const out = path.join(place, "out");
  const prepare = (count: number, valFraction: number) =>
    prepareCorpus(out, {
      sources: [{ name: "t", files: files.slice(0, count) }],
      tokenizer: "char",
      valFraction,
    });
  const sizeOf = (side: boolean) =>
    texts.filter((text) => isForValidation(text, 0.2) === side).join("").length;
  const { splits } = await prepare(50, 0.2);
  expect([splits.train.bytes, splits.val.bytes]).toEqual([sizeOf(false), sizeOf(true)]);
  expect(splits.val.bytes).toBeGreaterThan(0);
  const few = texts.slice(0, 3).filter((text) => !isForValidation(text, 0.05));
  expect(few.length).toBe(3);
  expect((await prepare(3, 0.05)).splits.val).toEqual({ bytes: 0, tokens: 0, shards: [] });
  expect((await prepare(1, 0)).splits.val.tokens).toBe(0);
  const opened = openShards(out, { verify: true });
  expect(opened.val.length).toBe(0);
  opened.close();
  fs.rmSync(out, { recursive: true });
  await expect(prepare(2, 0.999999)).rejects.toThrow("No document was left to learn from");
  expect(fs.existsSync(out)).toBe(false);
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-documents-test
await test("every document is there once, whole, on the side that its hash says, between separators; sources lie where the manifest says", async () => {
  const { place, options } = smallCorpus(4);
  const manifest = await prepareCorpus(path.join(place, "out"), options);
  const opened = openShards(path.join(place, "out"), { verify: true });
  const { train, val, tokenizer } = opened;
  const textsOf = (source: TokenSource) =>
    textOfBytes(tokenizer.decode(source.read(0, source.length))).split("<|endoftext|>");
  const texts = options.sources[0].files.flatMap((file) =>
    fs
      .readFileSync(file, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).text as string),
  );
  const [held, learned] = [true, false].map((side) =>
    texts.filter((text) => isForValidation(text, 0.1) === side),
  );
  expect(textsOf(val).slice(0, held.length)).toEqual(held);
  expect(textsOf(train).slice(0, learned.length)).toEqual(learned);
  const [lines, others] = manifest.mixture!;
  expect(lines.documents).toEqual({ read: texts.length, kept: texts.length, dropped: {} });
  expect(others.train.start).toBe(lines.train.tokens);
  expect(lines.train.tokens + others.train.tokens).toBe(train.length);
  expect(
    textsOf({
      length: others.train.tokens,
      read: () => train.read(others.train.start, others.train.tokens),
    })[1].startsWith(fs.readFileSync(options.sources[1].files[0], "utf8").slice(0, 50)),
  ).toBe(true);
  expect(manifest.splits.train.shards.length).toBeGreaterThan(1);
  opened.close();
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#stopped-run
/** Prepares a corpus and stops it again after some progress events of a phase. Says whether it was stopped. */
async function stoppedRun(
  out: string,
  options: CorpusOptions,
  phase: CorpusProgress["phase"],
  left: number,
): Promise<boolean> {
  const controller = new AbortController();
  const onProgress = (progress: CorpusProgress) => {
    if (progress.phase === phase && left-- === 0) controller.abort(new Error("stopped"));
  };
  try {
    await prepareCorpus(out, { ...options, onProgress, signal: controller.signal });
    return false;
  } catch (error) {
    expect((error as Error).message).toBe("stopped");
    expect(fs.readdirSync(out)).toEqual([".tslm-partial"]);
    // A kill may come after tokens were written and before the state was.
    const shard = path.join(out, ".tslm-partial/train-00000.bin");
    if (fs.existsSync(shard)) fs.appendFileSync(shard, "surplus");
    return true;
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-workers-test
await test("any number of workers, and any number of stops on the way, give the same bytes", async () => {
  const random = randomStream(31);
  const { place, options } = smallCorpus(5);
  const out = path.join(place, "out");
  await prepareCorpus(out, options);
  const wanted = contentOf(out);
  for (const width of [1, 2, 5]) {
    fs.rmSync(out, { recursive: true });
    const slow = { ...options, openWork: slowWork(width, random), taskSize: 3000 };
    expect(await stoppedRun(out, slow, "reading", 100)).toBe(true);
    let stops = 0;
    while (stops < 50 && (await stoppedRun(out, slow, "encoding", Math.floor(4 * random())))) stops++;
    expect(stops).toBeGreaterThan(3);
    expect(contentOf(out)).toEqual(wanted);
    expect(fs.existsSync(path.join(out, ".tslm-partial"))).toBe(false);
  }
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-faults-test
await test("what is wrong with a corpus is said in one sentence, and nothing is left behind", async () => {
  const { place, options } = smallCorpus(6);
  const out = path.join(place, "out");
  const bad = path.join(place, "bad.jsonl");
  fs.writeFileSync(bad, '{"text": "good"}\n{"txt": "bad"}\n{"text": "fine"}\n');
  fs.writeFileSync(path.join(place, "empty.txt"), "");
  const refuse = async (change: Partial<CorpusOptions>, words: string) => {
    await expect(prepareCorpus(out, { ...options, ...change })).rejects.toThrow(words);
    expect(fs.readdirSync(place).filter((name) => name.startsWith("out"))).toEqual([]);
  };
  const source = (name: string, file: string, weight?: number) => ({
    name,
    files: [path.join(place, file)],
    weight,
  });
  await refuse({ sources: [source("a", "bad.jsonl")] }, 'bad.jsonl:2 has no field "text"');
  await refuse({ sources: [source("a", "empty.txt")] }, "empty.txt is empty");
  await refuse({ sources: [source("a", "no.txt")] }, "There is no file");
  await refuse({ sources: [source("a", "c.txt"), source("a", "d.txt")] }, "Two sources are called a");
  await refuse({ sources: [source("a", "c.txt", 1), source("b", "d.txt")] }, "every source a weight");
  await refuse({ sources: [source("a", "c.txt", 0)] }, "must be a number above 0");
  await refuse({ sources: [] }, "at least one");
  await refuse({ tokenizer: characterTokenizer("abc") }, "a.jsonl:1: ");
  const left: string[] = [];
  const { mixture } = await prepareCorpus(out, {
    ...options,
    sources: [source("a", "bad.jsonl")],
    onError: "skip",
    onSkip: (message) => left.push(message),
  });
  expect(mixture![0].documents).toEqual({ read: 3, kept: 2, dropped: { unreadable: 1 } });
  expect(left.length).toBe(1);
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#two-runs-test
await test("a folder that is being filled is left alone, also by a command that is wrong", async () => {
  const { place, options } = smallCorpus(7);
  const out = path.join(place, "out");
  const slow = { ...options, taskSize: 3000, openWork: slowWork(2, randomStream(1)) };
  const first = prepareCorpus(out, slow);
  await expect(prepareCorpus(out, options)).rejects.toThrow(`in use: process ${process.pid}`);
  await expect(prepareCorpus(out, { ...options, tokenizer: "char" })).rejects.toThrow("in use");
  await first;
  openShards(out, { verify: true }).close();
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#repeated-documents
/** 300 fresh documents, and the same among copies, near copies, one that holds a text asked in an exam, and one too short. */
function repeatedDocuments(random: () => number): { fresh: string[]; asked: string; all: string[] } {
  const words = () => Array.from({ length: 60 }, () => `w${Math.floor(9000 * random())}`).join(" ");
  const fresh = Array.from({ length: 300 }, words);
  const near = fresh.slice(0, 20).map((text) => `${text} at last`);
  const asked = words();
  const contaminated = `${words()} ${asked} ${words()}`;
  const all = [
    ...fresh.slice(0, 200),
    ...fresh.slice(0, 30),
    ...near,
    contaminated,
    "too short",
    ...fresh.slice(200),
  ];
  return { fresh, asked, all };
}

//| 01-tokenizer/a-the-pipeline.ipynb#checked-corpus-test
await test("duplicates, filtered and contaminated documents are left out and counted, whatever the workers and stops", async () => {
  const random = randomStream(17);
  const { place, options } = smallCorpus(8);
  const { fresh, asked, all } = repeatedDocuments(random);
  const file = path.join(place, "all.jsonl");
  fs.writeFileSync(file, all.map((text) => `${JSON.stringify({ text })}\n`).join(""));
  fs.writeFileSync(path.join(place, "exam.txt"), asked);
  const checked: CorpusOptions = {
    ...options,
    sources: [{ name: "words", files: [file] }],
    filters: ["gopher-length"],
    dedup: ["exact", "near"],
    contamination: [path.join(place, "exam.txt")],
  };
  const out = path.join(place, "out");
  const { mixture } = await prepareCorpus(out, checked);
  expect(mixture![0].documents).toEqual({
    read: 352,
    kept: 300,
    dropped: { "gopher-length": 1, contaminated: 1, "exact-duplicate": 30, "near-duplicate": 20 },
  });
  const opened = openShards(out, { verify: true });
  const kept = [opened.train, opened.val].flatMap((source) =>
    textOfBytes(opened.tokenizer.decode(source.read(0, source.length))).split("<|endoftext|>"),
  );
  expect(kept.sort()).toEqual([...fresh].sort());
  opened.close();
  const wanted = contentOf(out);
  expect(wanted.map(([name]) => name)).toContain("dropped.jsonl");
  fs.rmSync(out, { recursive: true });
  const slow = { ...checked, openWork: slowWork(3, random), taskSize: 3000 };
  expect(await stoppedRun(out, slow, "reading", 340)).toBe(true);
  expect(await stoppedRun(out, slow, "encoding", 3)).toBe(true);
  expect(await stoppedRun(out, slow, "encoding", 10_000)).toBe(false);
  expect(contentOf(out)).toEqual(wanted);
  fs.rmSync(place, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#damageable
/** A small prepared folder, and ways to damage it. */
function damageable() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const text = path.join(folder, "a.txt");
  const out = path.join(folder, "out");
  fs.writeFileSync(text, "some text to keep ".repeat(50));
  const prepare = async () => {
    fs.rmSync(out, { recursive: true, force: true });
    await prepareCorpus(out, { sources: [{ name: "text", files: [text] }], tokenizer: "char" });
  };
  /** Prepares the folder afresh, damages it, and expects the sentence that says so. */
  const damage = async (change: () => void, words: string, options = {}) => {
    await prepare();
    change();
    expect(() => openShards(out, options)).toThrow(words);
  };
  const [shard, manifest] = ["val-00000.bin", "manifest.json"].map((name) => path.join(out, name));
  return { folder, out, shard, manifest, prepare, damage };
}

//| 01-tokenizer/a-the-pipeline.ipynb#damage-test
await test("missing and damaged shards are named", async () => {
  const { folder, out, shard, prepare, damage } = damageable();
  await damage(() => fs.truncateSync(shard, 10), "val-00000.bin is damaged: it has 10 bytes");
  await damage(() => fs.rmSync(shard), "There is no file");
  await damage(
    () => fs.writeFileSync(shard, fs.readFileSync(shard).reverse()),
    "its checksum is not the manifest's",
    { verify: true },
  );
  expect(() => openShards(folder)).toThrow("holds no prepared data");
  await prepare();
  const shards = openShards(out);
  fs.truncateSync(shard, 10); // a file may shrink while it is open, and a read then gives less than it was asked for
  expect(() => shards.val.read(0, 20)).toThrow("val-00000.bin is cut short: it ends at byte 10");
  shards.close();
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#damage-test-2
await test("a damaged or edited manifest is named with its fault", async () => {
  const { folder, manifest, damage } = damageable();
  await damage(
    () => fs.writeFileSync(manifest, "{"),
    "manifest.json is damaged or was edited: it is not JSON",
  );
  const edited = (change: (content: Record<string, unknown>) => object) => () => {
    const { sha256: _, ...content } = JSON.parse(fs.readFileSync(manifest, "utf8"));
    fs.writeFileSync(manifest, JSON.stringify(change(content)));
  };
  await damage(
    edited((content) => ({ ...content, sha256: "0" })),
    "its checksum is not the one it states",
  );
  await damage(
    edited((content) => ({ ...content, vocab_size: -1 })),
    "vocab_size must be a whole number from 0 up",
  );
  await damage(
    edited((content) => ({ ...content, vocab: 1 })),
    'Unrecognized key: "vocab"',
  );
  await damage(
    edited((content) => ({ ...content, splits: null })),
    "splits must be",
  );
  await damage(
    edited((content) => ({ ...content, vocab_size: 9999 })),
    "where the manifest says 9999",
  );
  await damage(() => fs.writeFileSync(manifest, "{}"), "is not a manifest");
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/a-the-pipeline.ipynb#refuse-test
await test("a file that cannot be read leaves nothing behind; what is read may not lie in what is written", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const at = (name: string) => path.join(folder, name);
  fs.writeFileSync(at("good.txt"), "good text ".repeat(20));
  fs.writeFileSync(at("bad.txt"), Buffer.of(0x66, 0xff));
  const prepare = (names: string[], out: string) =>
    prepareCorpus(at(out), { sources: [{ name: "text", files: names.map(at) }], tokenizer: "char" });
  await expect(prepare(["good.txt", "bad.txt"], "out")).rejects.toThrow("bad.txt is not UTF-8");
  expect(fs.readdirSync(folder).sort()).toEqual(["bad.txt", "good.txt"]);
  await expect(prepare(["good.txt"], ".")).rejects.toThrow("good.txt is read and lies in");
  await prepare(["good.txt"], "out");
  await prepare(["good.txt"], "out"); // one's own data may be made again
  expect(fs.readdirSync(at("out")).length).toBe(5);
  fs.rmSync(folder, { recursive: true });
});
