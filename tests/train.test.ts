// `tslm train` through the real binary: a run that is stopped, killed or damaged goes on to the same bits, and mistakes are
// told in one sentence.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import { withWhatIsKept } from "../lib/src/cli/train.js";
import type { RunFile } from "../lib/src/cli/train-config.js";
import { checkFolder, inRunFolder, leavingNothing } from "../lib/src/cli/train-folder.js";
import { readSafetensors } from "../lib/src/formats/safetensors.js";
import { LostRun } from "../lib/src/train/loop.js";
import type { TrainingSettings } from "../lib/src/train/step.js";
import { shortRun } from "./strain.js";
import { binary, expectRefusal, testFolder, tslm as program } from "./tslm.ts";

const { folder, at } = testFolder("train");
const steps = 60;

const config = {
  model: shortRun.model,
  tokenizer: "char",
  data: { synthetic: { bytes: 20000, seed: 3 } },
  steps,
  batch_size: 2,
  context: 16,
  eval_every: 9,
  eval_tokens: 64,
  final_eval_tokens: 128,
  checkpoint_every: 5,
  sample_tokens: 8,
  optimizer: { kind: "muon", learning_rate: 0.01 },
  schedule: { warmup: 3 },
};

const tslm = (...args: string[]) => program(args, { cwd: folder });

/** Starts a run and calls `look` again and again until it says that it has seen enough. */
async function startUntil(args: string[], look: (child: ChildProcess) => boolean) {
  const child = spawn(process.execPath, [binary, ...args], { cwd: folder });
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null; out: string }>(
    (resolve) => {
      child.on("close", (code, signal) => resolve({ code, signal, out }));
    },
  );
  while (child.exitCode === null && !look(child)) await new Promise((resolve) => setTimeout(resolve, 1));
  return ended;
}

/** The lines of a run's metrics so far, without what depends on the clock. */
function metrics(run: string): Record<string, number>[] {
  const file = at(run, "metrics.jsonl");
  if (!fs.existsSync(file)) return [];
  const lines = fs.readFileSync(file, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => ({ ...JSON.parse(line), tokens_per_second: 0 }));
}

/** Everything that must be the same in two runs: the model's and the optimizer's bytes, the state, the metrics. */
function outcome(run: string) {
  const last = `step-${String(steps).padStart(6, "0")}`;
  return {
    model: fs.readFileSync(at(run, "model", "model.safetensors")),
    optimizer: fs.readFileSync(at(run, last, "optimizer.safetensors")),
    state: fs.readFileSync(at(run, last, "state.json"), "utf8"),
    metrics: metrics(run),
    experts: fs.readFileSync(at(run, "experts.jsonl"), "utf8"),
  };
}

const begin = (run: string, ...more: string[]) => ["train", "--config", "run.json", "--out", run, ...more];

beforeAll(() => {
  fs.writeFileSync(at("run.json"), JSON.stringify(config));
  const whole = tslm(...begin("whole"));
  expect(whole.stderr).not.toContain("tslm:");
  expect(whole.status).toBe(0);
});

test("a run leaves metrics with the agreed keys, two checkpoints, the model and a report", () => {
  const lines = metrics("whole");
  expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
  const usual = ["grad_norm", "lr", "step", "tokens", "tokens_per_second", "train_loss"];
  expect(Object.keys(lines[0]).sort()).toEqual(usual);
  expect(Object.keys(lines[8]).sort()).toEqual([...usual, "val_bpb", "val_loss"].sort());
  expect(lines.filter((line) => "val_loss" in line).map(({ step }) => step)).toEqual([
    9, 18, 27, 36, 45, 54, 60,
  ]);
  expect(lines.at(-1)!.tokens).toBe(steps * 2 * 16);
  expect(lines.at(-1)!.train_loss).toBeLessThan(lines[0].train_loss - 0.3);
  const names = fs.readdirSync(at("whole"), { encoding: "utf8" });
  expect(names.filter((name) => name.includes("step-"))).toEqual(["step-000055", "step-000060"]);
  expect(fs.readdirSync(at("whole", "model")).sort()).toEqual(
    [
      "README.md",
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ].sort(),
  );
  expect(fs.readFileSync(at("whole", "step-000060", "model.safetensors"))).toEqual(
    fs.readFileSync(at("whole", "model", "model.safetensors")),
  );
  const lastLine = fs.readFileSync(at("whole", "report.txt"), "utf8").trimEnd().split("\n").at(-1);
  expect(lastLine).toMatch(/^validation \d+\.\d{4} bits per byte, entropy 0\.\d{4}$/);
  const html = fs.readFileSync(at("whole", "report.html"), "utf8");
  expect(html).toContain("Plotly.newPlot");
  expect(html.replace(/<script>.*?<\/script>/gs, "")).not.toMatch(/(src|href)=/); // nothing to fetch
  expect(html).toContain("&#34;warmup&#34;: 3,");
});

test("the model is written in several files where they may not be larger", async () => {
  fs.cpSync(at("whole"), at("sharded"), { recursive: true });
  expect(tslm("train", "--out", "sharded", "--resume", "--max-shard-size", "3kB").status).toBe(0);
  const names = fs.readdirSync(at("sharded", "model")).filter((name) => name.includes("safetensors"));
  expect(names.length).toBeGreaterThan(2);
  expect(names.at(-1)).toBe("model.safetensors.index.json"); // and no file of all, which would be read instead
  const one = readSafetensors(fs.readFileSync(at("whole", "model", "model.safetensors"))).tensors;
  const many = names.slice(0, -1).flatMap((name) => {
    expect(name).toMatch(/^model-\d{5}-of-\d{5}\.safetensors$/);
    return [...readSafetensors(fs.readFileSync(at("sharded", "model", name))).tensors];
  });
  expect(many.map(([name]) => name).sort()).toEqual([...one.keys()].sort());
  for (const [name, { data }] of many) expect(Buffer.compare(data, one.get(name)!.data), name).toBe(0);
});

test("Ctrl-C saves, though it has ended whoever read what stderr says, and the run ends with the same bits", async () => {
  const stopped = await startUntil(begin("stopped"), (child) => {
    child.stderr!.destroy(); // as in `tslm train 2>&1 | tee log`
    const enough = metrics("stopped").length >= 3;
    if (enough) child.kill("SIGINT");
    return enough;
  });
  expect(stopped.code).toBe(130);
  expect(stopped.out).toContain("npx tslm train --out stopped --resume");
  const saved = metrics("stopped").length;
  expect(saved).toBeLessThan(steps);
  expect(fs.existsSync(at("stopped", `step-${String(saved).padStart(6, "0")}`, "state.json"))).toBe(true);
  expect(tslm("train", "--out", "stopped", "--resume").status).toBe(0);
  expect(outcome("stopped")).toEqual(outcome("whole"));
});

test("sources are mixed by their weights, and a stopped run of them goes on to the same bits", async () => {
  const lines = (words: string) =>
    Array.from({ length: 400 }, (_, i) => `${words} number ${i}.\n`).join("<|endoftext|>\n");
  fs.writeFileSync(at("songs.txt"), lines("a song of"));
  fs.writeFileSync(at("lists.txt"), lines("item"));
  const weighted = (name: string, weight: number) => [
    "--source",
    `name=${name},weight=${weight}`,
    `${name}.txt`,
  ];
  const sources = [...weighted("songs", 1), ...weighted("lists", 3)];
  expect(tslm("data", "prepare", "--out", "mixed", "--tokenizer", "char", ...sources).status).toBe(0);
  const whole = tslm(...begin("mixed-whole", "--data", "mixed"));
  expect(whole.stderr).toContain("Sources by weight: songs 1, lists 3.");
  const stopped = await startUntil(begin("mixed-stopped", "--data", "mixed"), (child) => {
    const enough = metrics("mixed-stopped").length >= 7;
    if (enough) for (const stream of [child.stdout!, child.stderr!]) stream.destroy();
    if (enough) child.kill("SIGHUP"); // as a terminal does that closes
    return enough;
  });
  expect(stopped.code).toBe(129);
  expect(tslm("train", "--out", "mixed-stopped", "--data", "mixed", "--resume").status).toBe(0);
  expect(outcome("mixed-stopped")).toEqual(outcome("mixed-whole"));
  const { cursor } = JSON.parse(outcome("mixed-whole").state);
  expect(cursor.sources.map(({ windows }: { windows: number }) => windows)).toEqual([30, 90]);
});

test("kill -9 while a checkpoint is being written, and again later: the same bits", async () => {
  const unfinished = () =>
    fs.existsSync(at("killed")) && fs.readdirSync(at("killed")).some((name) => name.endsWith(".partial"));
  const kill = (when: () => boolean) => (child: ChildProcess) => when() && child.kill("SIGKILL");
  fs.mkdirSync(at("killed"));
  fs.writeFileSync(at("killed", ".run.json.tslm-0123456789abcdef"), "{"); // as of a kill before the run began
  const first = await startUntil(begin("killed"), kill(unfinished));
  expect(first.signal).toBe("SIGKILL");
  const second = await startUntil(
    begin("killed", "--resume"),
    kill(() => metrics("killed").length >= 13),
  );
  expect(second.signal).toBe("SIGKILL");
  fs.appendFileSync(at("killed", "metrics.jsonl"), '{"step":14,"train_l'); // a line that the kill cut
  expect(tslm(...begin("killed", "--resume")).status).toBe(0);
  expect(outcome("killed")).toEqual(outcome("whole"));
  expect(fs.readdirSync(at("killed")).filter((name) => name.startsWith(".step"))).toEqual([]);
});

test("a damaged checkpoint is named, an older one is never taken silently, and the way out works", () => {
  fs.cpSync(at("whole"), at("damaged"), { recursive: true });
  const file = at("damaged", "step-000060", "optimizer.safetensors");
  const bytes = fs.readFileSync(file);
  bytes[bytes.length - 9] ^= 4;
  fs.writeFileSync(file, bytes);
  const refused = tslm("train", "--out", "damaged", "--resume");
  expectRefusal(refused, "damaged/step-000060/optimizer.safetensors is damaged");
  expect(refused.stderr).toContain("step-000055");
  fs.rmSync(at("damaged", "step-000060"), { recursive: true });
  expect(tslm("train", "--out", "damaged", "--resume").status).toBe(0);
  expect(outcome("damaged")).toEqual(outcome("whole"));
});

test("a run with measured kernels, and without validation, goes on with them, whatever was measured since", () => {
  const cache = at("cache", "tuning.json");
  const tuned = (...args: string[]) =>
    spawnSync(process.execPath, [binary, ...args], {
      cwd: folder,
      env: { ...process.env, TSLM_CACHE: at("cache") },
    });
  const tiny = ["--set", "steps=2", "checkpoint_every=1", "optimizer.kind=adamw", "val_fraction=0"];
  const begun = tuned(...begin("tuned", "--tune", ...tiny));
  expect(begun.stderr.toString()).toMatch(/Measuring products: \d+ new ones, \d+ faster/);
  expect(begun.stderr.toString()).toContain("Without validation, which takes more tokens than");
  expect(fs.readFileSync(at("tuned", "report.txt"), "utf8")).toMatch(
    /\nvalidation not measured, entropy 0\.\d+\n$/,
  );
  const { choices } = JSON.parse(fs.readFileSync(at("tuned", "tuning.json"), "utf8"));
  expect(Object.keys(choices).join()).toMatch(/matmul \d+x\d+x\d+ \(B transposed\)/);
  expect(JSON.parse(fs.readFileSync(cache, "utf8")).choices).toEqual(choices);
  fs.writeFileSync(cache, "damaged");
  const on = tuned("train", "--out", "tuned", "--resume", "--tune", "--set", "steps=3");
  expect({ status: on.status, words: on.stderr.toString().includes("Measuring") }).toEqual({
    status: 0,
    words: false,
  });
  expect(fs.readFileSync(cache, "utf8")).toBe("damaged");
  expect(metrics("tuned").map(({ step }) => step)).toEqual([1, 2, 3]);
  const page = fs.readFileSync(at("tuned", "report.html"), "utf8");
  expect(page).toContain("&#34;warmup&#34;: 1,"); // of the 3 that were asked for
});

test("a run is not written over, and goes on only as it was begun", () => {
  expectRefusal(tslm(...begin("whole")), "npx tslm train --out whole --resume");
  expectRefusal(
    tslm(...begin("whole", "--resume", "--set", "batch_size=4")),
    "begun with batch_size 2, and cannot go on with 4",
  );
  fs.mkdirSync(at("mine"));
  fs.writeFileSync(at("mine", "letter.txt"), "dear");
  expectRefusal(tslm(...begin("mine")), "mine holds other files");
});

test("everything is checked before anything is touched: other data, fewer steps, files of others", async () => {
  const look = (name: string) =>
    fs
      .readdirSync(at(name), { recursive: true, encoding: "utf8" })
      .sort()
      .map((each) => {
        const { size, mtimeMs, ino } = fs.statSync(at(name, each));
        return [each, size, mtimeMs, ino];
      });
  const before = look("whole");
  const begun: RunFile = JSON.parse(fs.readFileSync(at("whole", "run.json"), "utf8"));
  const resume = { out: at("whole"), resume: true };
  fs.writeFileSync(at("wrong.txt"), "another text ".repeat(2000));
  const other = { ...begun.config, data: at("wrong.txt") };
  expect(() => checkFolder(resume, other, begun)).toThrow("The data is not what the run was begun with");
  const fewer = { ...begun.config, steps: 20 };
  expect(() => checkFolder(resume, fewer, begun)).toThrow("has done 60 steps already, more than 20");
  fs.copyFileSync(at("whole", "data", "corpus.txt"), at("moved.txt"));
  checkFolder(resume, { ...begun.config, data: at("moved.txt") }, begun); // the same text in another place
  fs.mkdirSync(at("theirs", "data"), { recursive: true });
  fs.writeFileSync(at("theirs", "data", "corpus.txt"), "mine");
  const fresh = () => checkFolder({ out: at("theirs") }, begun.config, undefined);
  expect(fresh).toThrow("holds other files (data)");
  const inside = () => checkFolder({ out: folder }, { ...begun.config, data: at("wrong.txt") }, undefined);
  expect(inside).toThrow("is read and lies in");
  const mistake = leavingNothing(at("theirs"), () => Promise.reject(new Error("a mistake")));
  await expect(mistake).rejects.toThrow("a mistake");
  expect(look("theirs").map(([name]) => name)).toEqual(["data", path.join("data", "corpus.txt")]);
  await inRunFolder(at("whole"), async () => {
    const second = tslm("train", "--config", "run.json", "--out", "whole", "--resume");
    expectRefusal(second, `whole is in use: process ${process.pid} on`);
  });
  expect(look("whole")).toEqual(before);
});

test("mistakes in a configuration are named with what may be meant, and leave nothing behind", () => {
  const before = fs.readdirSync(folder).sort();
  const set = (...pairs: string[]) => tslm(...begin("none", ...pairs.flatMap((pair) => ["--set", pair])));
  expectRefusal(set("optimizer.learning_rat=1"), "did you mean optimizer.learning_rate?");
  expectRefusal(set("learning_rate=1"), "did you mean optimizer.learning_rate?");
  expectRefusal(set("stpes=1"), "stpes is not a setting of a training run; did you mean steps?");
  expectRefusal(set("model.hiden_size=8"), "did you mean hidden_size?");
  expectRefusal(set("steps=many"), "steps must be a whole number of at least 1");
  expectRefusal(
    set("optimizer.kind=adam"),
    'optimizer.kind must be adamw, muon, momentum or sgd, not "adam"',
  );
  expectRefusal(set("data=nowhere"), "nowhere");
  expectRefusal(set("sample_prompt=~"), "sample_prompt cannot be encoded");
  expectRefusal(set("model.vocab_size=5"), "but the tokenizer has");
  expectRefusal(
    set("separate_documents=true"),
    "separate_documents wants a tokenizer with a token between documents",
  );
  expectRefusal(set("precision=f64"), 'precision must be f32 or f16, not "f64"');
  expectRefusal(set("model.hidden_size=200000"), "holds at most");
  expectRefusal(set("batch_size=1000000"), "A batch of 1000000 x");
  expectRefusal(tslm("train", "--config", "missing.json", "--out", "none"), "missing.json");
  expect(tslm("train", "--out", "none").status).toBe(2);
  expect(set("steps").status).toBe(2);
  expect(fs.readdirSync(folder).sort()).toEqual(before);
});

test("a run that is lost some steps after a checkpoint is told the command that goes on otherwise", async () => {
  fs.mkdirSync(at("lost", "step-000002"), { recursive: true });
  const lost = new LostRun(5, "The loss", { schedule: { peak: 0.004 } } as TrainingSettings);
  const { message } = withWhatIsKept(lost, at("lost")) as Error;
  expect(message).toMatch(
    / Go on with: npx tslm train --out .+ --resume --set optimizer\.learning_rate=0\.002$/,
  );
});

test("a loss that is no number stops the run with a sentence, and the last checkpoint stays", () => {
  const wild = [
    "optimizer.kind=sgd",
    "optimizer.learning_rate=1e30",
    "optimizer.clip=0",
    "checkpoint_every=1",
  ];
  const result = tslm(...begin("wild", ...wild.flatMap((pair) => ["--set", pair])));
  expectRefusal(result, "is no number any more at step");
  expect(fs.existsSync(at("wild", "report.txt"))).toBe(false);
});

test("a run begins with a given model: its weights, its shape, its tokenizer; and is taken up like any other", () => {
  const write = (name: string, json: unknown) => fs.writeFileSync(at(name), JSON.stringify(json));
  const { model: shape, ...others } = config;
  write("given.json", { model: { ...shape, vocab_size: 300 }, tokenizer: "bytes", context: 16 });
  expect(tslm("init", "--config", "given.json", "--seed", "9", "--out", "given").status).toBe(0);
  const still = { ...others, steps: 1, optimizer: { kind: "adamw", learning_rate: 1e-12 } };
  write("still.json", { ...still, model: { hidden_size: 8 }, tokenizer: { vocab_size: 400 } });
  const { status, stderr } = tslm(
    "train",
    "--config",
    "still.json",
    "--init-from",
    "given",
    "--out",
    "further",
  );
  expect(status, stderr).toBe(0);
  const numbers = (folder: string) => {
    const { tensors } = readSafetensors(fs.readFileSync(at(folder, "model.safetensors")));
    return [...tensors].map(([name, { data }]) => [name, new Float32Array(data.slice().buffer)] as const);
  };
  const after = new Map(numbers("further/model"));
  for (const [name, values] of numbers("given"))
    for (const [i, value] of values.entries())
      expect(Math.abs(after.get(name)![i] - value), name).toBeLessThan(1e-6);
  expect(fs.readFileSync(at("further", "model", "tokenizer.json"))).toEqual(
    fs.readFileSync(at("given", "tokenizer.json")),
  );
  expect(JSON.parse(fs.readFileSync(at("further", "run.json"), "utf8")).config.init_from).toBe(at("given"));
  const resumed = tslm("train", "--out", "further", "--resume", "--set", "steps=2");
  expect(resumed.status, resumed.stderr).toBe(0);
  // Data that was encoded in another way, and a folder without a model.
  const wrong = tslm("train", "--config", "still.json", "--init-from", "nowhere", "--out", "never");
  expectRefusal(wrong, "nowhere");
  fs.writeFileSync(at("text.txt"), "some words that are there to be encoded, again and again. ".repeat(20));
  tslm("data", "prepare", "text.txt", "--tokenizer", "char", "--out", "letters");
  const other = tslm(
    "train",
    "--config",
    "still.json",
    "--init-from",
    "given",
    "--data",
    "letters",
    "--out",
    "never",
  );
  expectRefusal(other, "The data was encoded with another tokenizer than that of");
});
