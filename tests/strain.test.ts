// A training run under strain: wherever it dies, and whenever the disk is full or fails, it goes on to the same bytes, and says
// in one sentence what happened and what is kept. `npx tsx tests/sweep.ts` tries every point; here are some of each kind.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { type Fault, failAndResume, filesIn, problemOf, shortRun, trainHere } from "./strain.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-strain-"));
const config = path.join(folder, "config.json");
const whole = path.join(folder, "whole", "run");
fs.writeFileSync(config, JSON.stringify(shortRun));
const { calls } = await trainHere(["--config", config, "--out", whole]);
const expected = filesIn(whole);
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Where a call on such a file stands among all, the last of them. */
function lastCall(words: RegExp): number {
  const at = calls.findLastIndex((call) => words.test(call)) + 1;
  expect(at, `a call like ${words}`).toBeGreaterThan(0);
  return at;
}

const points: [Fault["kind"], string, RegExp][] = [
  ["kill", "before the last sample", /^append.*samples/],
  ["torn", "in the last line of metrics", /^append.*metrics/],
  ["kill", "before the last checkpoint has its name", /^rename.*step-000003.partial/],
  ["torn", "while the oldest checkpoint is removed", /^rm.*step-000001/],
  ["kill", "before model/ has the last weights", /^rename.*model.safetensors/],
  ["torn", "just after model/ has the last weights", /^rename.*model.safetensors/],
  ["kill", "before the report", /^open.*report.txt/],
  ["ENOSPC", "in the last checkpoint", /^open.*step-000003.partial.model/],
  ["EIO", "as the last checkpoint gets its name", /^rename.*step-000003.partial/],
];

test.each(points)("%s %s", async (kind, _, words) => {
  const outcome = await failAndResume(folder, { kind, at: lastCall(words) });
  expect(outcome.failed).toBeDefined();
  expect(problemOf(outcome, expected, kind)).toBeUndefined();
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
    expect(made).toEqual([]); // nothing was touched
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
