// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { PERMUTATIONS } from "../../src/data/duplicates.js";
import {
  type CorpusOptions,
  type CorpusPart,
  type CorpusProgress,
  type CorpusWork,
  type WorkSettings,
  inOrder,
  prepareCorpus,
  readRecords,
  recordBytes,
  recordSize,
  safeCut,
  workHere,
} from "../../src/data/prepare.js";
import { type TokenSource, isForValidation, openShards, prepareText } from "../../src/data/shards.js";
import { randomStream, syntheticText } from "../../src/data/synthetic.js";
import { SPLIT_PATTERN } from "../../src/tokenizer/bpe.js";
import { characterTokenizer, textOfBytes } from "../../src/tokenizer/characters.js";
import { trainBpe } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/a-the-pipeline.ipynb#in-order-test
await test("results come in the order of the items, whoever is done first, and never more are on their way than may be", async () => {
  const random = randomStream(6);
  async function* items() {
    for (let i = 0; i < 60; i++) yield i;
  }
  for (const width of [1, 3, 8]) {
    let [busy, most] = [0, 0];
    const work = async (item: number) => {
      most = Math.max(most, ++busy);
      await new Promise((resolve) => setTimeout(resolve, 3 * random()));
      busy--;
      return item * item;
    };
    const results: number[] = [];
    for await (const [item, square] of inOrder(items(), work, width)) {
      expect(square).toBe(item * item);
      results.push(item);
    }
    expect(results).toEqual(Array.from({ length: 60 }, (_, i) => i));
    expect(most).toBe(width);
  }
});

//| 01-tokenizer/a-the-pipeline.ipynb#in-order-error-test
await test("an item that cannot be worked on ends the row with its error, after what came before it", async () => {
  async function* items() {
    for (let i = 0; i < 10; i++) yield i;
  }
  const work = async (item: number) => {
    if (item === 4) throw new Error("item 4 is bad");
    return item;
  };
  const seen: number[] = [];
  const all = async () => {
    for await (const [item] of inOrder(items(), work, 3)) seen.push(item);
  };
  await expect(all()).rejects.toThrow("item 4 is bad");
  expect(seen).toEqual([0, 1, 2, 3]);
});

//| 01-tokenizer/a-the-pipeline.ipynb#safe-cut-test
await test("the pieces of every tokenizer we know end where a text is safely cut", () => {
  const patterns = [
    SPLIT_PATTERN,
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?:'[sS]|'[tT])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ];
  const random = randomStream(21);
  const signs = ["\n", "\n", "\r\n", " ", "\t", "a", "É", "日", "1", "23", ".", "/", "'s", "\u0085"];
  let cuts = 0;
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 14 }, () => signs[Math.floor(random() * signs.length)]).join("");
    const cut = safeCut(text);
    if (cut > 0) cuts++;
    for (const pattern of patterns) {
      const pieces = (part: string) => part.match(new RegExp(pattern, "gu")) ?? [];
      expect([...pieces(text.slice(0, cut)), ...pieces(text.slice(cut))]).toEqual(pieces(text));
    }
  }
  expect(cuts).toBeGreaterThan(1000);
});

//| 01-tokenizer/a-the-pipeline.ipynb#records-test
await test("what was found about documents can be written down and read back", () => {
  const random = randomStream(2);
  const bytes = (count: number) => Uint8Array.from({ length: count }, () => Math.floor(256 * random()));
  for (const checks of [
    { filters: ["x"] },
    { dedup: ["exact" as const] },
    { dedup: ["exact" as const, "near" as const] },
  ]) {
    const size = recordSize(checks);
    const found = {
      verdicts: bytes(9),
      hashes: new Uint32Array(bytes(size > 1 ? 72 : 0).buffer),
      signatures: bytes(size > 9 ? 9 * PERMUTATIONS : 0),
    };
    const written = recordBytes(found, checks);
    expect(written.length).toBe(9 * size);
    expect(readRecords(written, checks)).toEqual(found);
  }
});

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

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-equal-test
await test("a corpus of one text or of several becomes what prepareText makes of them", async () => {
  const { place, options } = smallCorpus(3);
  const [, { files }] = options.sources;
  const out = path.join(place, "out");
  for (const [tokenizer, count] of [
    [options.tokenizer, 1],
    ["char" as const, 1],
    [options.tokenizer, files.length],
  ] as const) {
    const valFraction = count === 1 ? 0.2 : 0.02;
    const plain = prepareText(files.slice(0, count), path.join(place, "plain"), { tokenizer, valFraction });
    const fast = await prepareCorpus(out, {
      ...options,
      sources: [{ name: "texts", files: files.slice(0, count) }],
      tokenizer,
      valFraction,
      shardTokens: undefined,
    });
    expect(fast.splits).toEqual(plain.splits);
    expect(fast.sources).toEqual(plain.sources.map((source) => ({ ...source, source: "texts" })));
    for (const name of [
      "tokenizer.json",
      ...[...fast.splits.train.shards, ...fast.splits.val.shards].map(({ file }) => file),
    ])
      expect(fs.readFileSync(path.join(out, name))).toEqual(fs.readFileSync(path.join(place, "plain", name)));
    openShards(out, { verify: true }).close();
  }
  fs.rmSync(place, { recursive: true });
});

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

//| 01-tokenizer/a-the-pipeline.ipynb#checked-corpus-test
await test("duplicates, filtered and contaminated documents are left out and counted, whatever the workers and stops", async () => {
  const random = randomStream(17);
  const { place, options } = smallCorpus(8);
  const words = () => Array.from({ length: 60 }, () => `w${Math.floor(9000 * random())}`).join(" ");
  const fresh = Array.from({ length: 300 }, words);
  const near = fresh.slice(0, 20).map((text) => `${text} at last`);
  const asked = words();
  const all = [
    ...fresh.slice(0, 200),
    ...fresh.slice(0, 30),
    ...near,
    `${words()} ${asked} ${words()}`,
    "too short",
    ...fresh.slice(200),
  ];
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
