// Lets a short training run fail at every change that it makes to the disk, in each way that `injectFault` knows, and go on:
//   npx tsx tests/sweep.ts [kill,torn,ENOSPC,EIO [FROM-TO]]
// Prints each point whose files at the end are not those of a run that nothing happened to, and every sentence. Takes minutes.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Fault, failAndResume, filesIn, problemOf, shortRun, trainHere } from "./strain.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-sweep-"));
const config = path.join(folder, "config.json");
const whole = path.join(folder, "whole", "run");
const say = (line: string) => fs.writeSync(1, `${line}\n`);

fs.writeFileSync(config, JSON.stringify(shortRun));
await trainHere(["--config", config, "--out", path.join(folder, "first", "run")]); // compiles the kernels
const { calls } = await trainHere(["--config", config, "--out", whole]);
const expected = filesIn(whole);
const [kinds = "kill,torn,ENOSPC,EIO", range = `1-${calls.length}`] = process.argv.slice(2);
const [from, to] = range.split("-").map(Number);
for (const kind of kinds.split(",") as Fault["kind"][]) {
  const sentences = new Set<string>();
  let [equal, unharmed] = [0, 0];
  for (let at = from; at <= to; at++) {
    const outcome = await failAndResume(folder, { kind, at });
    const problem = problemOf(outcome, expected, kind);
    if (problem) say(`${kind} ${at} (${outcome.calls[at - 1]}): ${problem}; failed with: ${outcome.failed}`);
    else equal += 1;
    if (outcome.failed === undefined) unharmed += 1;
    else
      sentences.add(outcome.failed.replace(/\S*[\\/](?=run)/g, "").replace(/tslm-[0-9a-f]{16}|-\d+\b/g, "…"));
  }
  say(`${kind}: of ${to - from + 1} points ${equal} end alike; ${unharmed} runs did not notice`);
  for (const sentence of sentences) say(`  ${sentence}`);
}
fs.rmSync(folder, { recursive: true });
process.exit(0);
