// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { keptLines, noLines, openLog, readLines } from "../../src/train/logs.js";
import type { Metrics } from "../../src/train/monitor.js";

//| 04-training/a-the-trainers-desk.ipynb#lines-test
await test("a log goes on from where a checkpoint knows it, and damage before that is named", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-lines-"));
  const file = path.join(folder, "metrics.jsonl");
  const log = openLog(file, keptLines(file, noLines));
  expect(readLines(file)).toEqual([]);
  for (let step = 1; step <= 3; step++)
    log.append({ step, train_loss: 1 / step, tokens_per_second: Math.round(performance.now()) });
  const state = log.state();
  log.append({ step: 4 });
  fs.appendFileSync(file, '{"step":5,"train_lo');
  const again = openLog(file, keptLines(file, state));
  expect(again.state()).toEqual(state);
  expect(readLines<Metrics>(file).map(({ step }) => step)).toEqual([1, 2, 3]);
  const text = fs.readFileSync(file, "utf8");
  for (const bad of [text.slice(0, -4), text.replace("0.5", "0.6"), text.slice(text.indexOf("\n") + 1)]) {
    fs.writeFileSync(file, bad);
    expect(() => keptLines(file, state)).toThrow(`${file} is damaged`);
  }
  fs.rmSync(file); // who removes it does without
  expect(keptLines(file, state)).toEqual([]);
  fs.rmSync(folder, { recursive: true });
});
