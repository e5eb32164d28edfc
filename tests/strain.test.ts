// A training run under strain: wherever it dies, and whenever the disk is full or fails, it goes on to the same bytes, and says
// in one sentence what happened and what is kept. `npx tsx tests/sweep.ts` tries every point; here are some of each kind.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { readRunFile } from "../lib/src/cli/train-config.ts";
import { readManifest } from "../lib/src/data/manifest.ts";
import { randomStream } from "../lib/src/data/random.ts";
import { latestCheckpoint, readState } from "../lib/src/train/checkpoint.ts";
import { keptLines } from "../lib/src/train/logs.ts";
import { type Fault, failAndResume, filesIn, problemOf, shortRun, trainHere } from "./strain.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-strain-"));
const config = path.join(folder, "config.json");
const whole = path.join(folder, "whole", "run");
fs.writeFileSync(config, JSON.stringify(shortRun));
await trainHere(["--config", config, "--out", whole]);
const expected = filesIn(whole);
afterAll(() => fs.rmSync(folder, { recursive: true }));

const points: [string, Fault][] = [
  ["before the last sample", { kind: "kill", at: 2, of: /^append.*samples/ }],
  ["in the last line of metrics", { kind: "torn", at: 3, of: /^append.*metrics/ }],
  ["before the last checkpoint has its name", { kind: "kill", at: 1, of: /^rename.*step-000003.partial/ }],
  ["while the oldest checkpoint is removed", { kind: "torn", at: 2, of: /^rm.*step-000001/ }],
  ["before model/ has the last weights", { kind: "kill", at: 3, of: /^rename.*model.safetensors/ }],
  ["just after model/ has the last weights", { kind: "torn", at: 3, of: /^rename.*model.safetensors/ }],
  ["before the report", { kind: "kill", at: 1, of: /^open.*report.txt/ }],
  ["in the last checkpoint", { kind: "ENOSPC", at: 1, of: /^open.*step-000003.partial.model/ }],
  ["as the last checkpoint gets its name", { kind: "EIO", at: 1, of: /^rename.*step-000003.partial/ }],
];

test.each(points)("a fault %s: %o", async (_, fault) => {
  const { kind } = fault;
  const outcome = await failAndResume(folder, fault);
  expect(outcome.failed).toBeDefined();
  expect(problemOf(outcome, expected, kind)).toBeUndefined();
});

test("a chat template goes along with prepared data, and is there when its first folder is gone", async () => {
  const at = (name: string) => path.join(folder, "chat", name);
  fs.mkdirSync(at("tokenizer"), { recursive: true });
  fs.copyFileSync(path.join(whole, "model", "tokenizer.json"), at("tokenizer/tokenizer.json"));
  fs.writeFileSync(at("tokenizer/chat_template.jinja"), "{{ messages }}");
  fs.copyFileSync(path.join(whole, "data", "corpus.txt"), at("corpus.txt"));
  fs.writeFileSync(at("config.json"), JSON.stringify({ ...shortRun, tokenizer: at("tokenizer") }));
  const from = (data: string) => ["--config", at("config.json"), "--data", at(data), "--set", "steps=1"];
  const { prepareCorpus } = await import("../lib/src/data/prepare.ts");
  const { openTokenizer } = await import("../lib/src/cli/open-tokenizer.ts");
  await prepareCorpus(at("data"), {
    sources: [{ name: "text", files: [at("corpus.txt")] }],
    tokenizer: openTokenizer(at("tokenizer")),
    chatTemplate: "{{ messages }}",
  });
  for (const data of ["corpus.txt", "data"])
    expect((await trainHere([...from(data), "--out", at(`run of ${data}`)])).error).toBeUndefined();
  fs.rmSync(at("tokenizer"), { recursive: true });
  for (const data of ["corpus.txt", "data"]) {
    const template = path.join(at(`run of ${data}`), "model", "chat_template.jinja");
    fs.rmSync(template);
    expect((await trainHere(["--out", at(`run of ${data}`), "--resume"])).error).toBeUndefined();
    expect(fs.readFileSync(template, "utf8")).toBe("{{ messages }}");
  }
});

test("whatever lies outside of the checkpoints of a finished run is made anew", async () => {
  const run = path.join(folder, "edited", "run");
  fs.cpSync(whole, run, { recursive: true });
  fs.writeFileSync(path.join(run, "model", "model.safetensors"), "any bytes");
  for (const name of ["model/tokenizer.json", "report.html", "run.json"]) fs.rmSync(path.join(run, name));
  fs.appendFileSync(path.join(run, "samples.jsonl"), '{"step":3,"text":"twice"}\n');
  fs.appendFileSync(path.join(run, "metrics.jsonl"), '{"step":4,"tr');
  expect((await trainHere(["--out", run, "--resume"])).error).toBeUndefined();
  expect(filesIn(run)).toEqual(expected);
});

test("a run.json that is damaged, edited, or of another run is refused, and so is a damaged log", async () => {
  const run = path.join(folder, "odd", "run");
  fs.cpSync(whole, run, { recursive: true });
  const refused = async (name: string, change: (text: string) => string, words: string) => {
    const file = path.join(run, name);
    const text = fs.readFileSync(file, "utf8");
    fs.writeFileSync(file, change(text));
    const { error, calls: made } = await trainHere(["--out", run, "--resume"]);
    expect(error).toContain(words);
    expect(made.filter((call) => !/^mkdir|tslm-lock/.test(call))).toEqual([]); // nothing was touched
    fs.writeFileSync(file, text);
  };
  await refused(
    "run.json",
    (text) => text.slice(1),
    "run.json is damaged or was edited: it is not JSON. Remove it",
  );
  await refused("run.json", (text) => text.replace('"seed": 1', '"seed": 2'), "its checksum is not the one");
  const unsigned = (text: string) => text.replace(/,\n {2}"sha256": .*\n/, "\n");
  await refused(
    "run.json",
    (text) => unsigned(text).replace('"seed": 1', '"seed": 2'),
    "it says seed 2, and the",
  );
  await refused("run.json", (text) => unsigned(text).replace('"steps": 3', '"steps": -3'), "steps must be");
  await refused(
    "metrics.jsonl",
    (text) => text.replace("train_loss", "train_lost"),
    "metrics.jsonl is damaged",
  );
});

test("no bit flip or cut in what a run reads again is taken for the truth, or ends in a fault of ours", async () => {
  const run = path.join(folder, "flipped", "run");
  fs.cpSync(whole, run, { recursive: true });
  const checkpoint = latestCheckpoint(run)!;
  const logs = JSON.parse(new TextDecoder().decode(checkpoint.files.get("logs.json")));
  const readers: [string, () => unknown][] = [
    ["run.json", () => readRunFile(run, checkpoint)],
    ["data/shards/manifest.json", () => readManifest(path.join(run, "data", "shards"))],
    ["step-000003/state.json", () => readState(path.join(run, "step-000003"))],
    ["experts.jsonl", () => keptLines(path.join(run, "experts.jsonl"), logs["experts.jsonl"])],
    ["samples.jsonl", () => keptLines(path.join(run, "samples.jsonl"), logs["samples.jsonl"])],
  ];
  const random = randomStream(10);
  for (const [name, read] of readers) {
    const file = path.join(run, name);
    const good = fs.readFileSync(file);
    const content = JSON.stringify(await read());
    for (let i = 0; i < 60; i++) {
      const at = Math.floor(random() * good.length);
      const bad = i % 2 ? Buffer.from(good) : good.subarray(0, at);
      if (i % 2) bad[at] ^= 1 << (i % 8);
      fs.writeFileSync(file, bad);
      const found = await Promise.resolve()
        .then(read)
        .then(JSON.stringify, (error: Error) => error);
      if (found !== content)
        expect(found).toMatchObject({
          name: "Error",
          message: expect.stringContaining(name.split("/").at(-1)!),
        });
    }
    fs.writeFileSync(file, good);
  }
});
