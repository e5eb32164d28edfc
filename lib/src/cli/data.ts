import type { Command } from "commander";
import { lockFile } from "../data/folders.js";
import { writeSynthetic } from "../data/synthetic.js";
import { registerGet } from "./data-get.js";
import { registerInspect } from "./data-inspect.js";
import { registerPrepare } from "./data-prepare.js";
import { startProgress } from "./progress.js";
import { examples, printJson } from "./run.js";
import { byteSize, wholeNumber } from "./options.js";

/** `tslm data`: make or fetch a corpus, turn text into token shards, look at them. */
export function configure(data: Command): void {
  registerSynth(data);
  registerGet(data);
  registerPrepare(data);
  registerInspect(data);
  examples(data, "npx tslm data synth --out corpus.txt --bytes 4MB --seed 1");
}

function registerSynth(data: Command): void {
  const command = data
    .command("synth")
    .description(
      "Write text from a seeded grammar whose entropy is known, with what is known about it in FILE.json.",
    )
    .requiredOption("--out <file>", "where to write the text")
    .requiredOption("--bytes <n>", "how much: 500000, 64kB, 4MB", byteSize)
    .option("--seed <s>", "the same seed gives the same text", wholeNumber(), 1)
    .option("--json", "print what was written as one JSON object")
    .action(synth);
  examples(command, "npx tslm data synth --out corpus.txt --bytes 4MB --seed 1");
}

function synth(options: { out: string; bytes: number; seed: number; json?: boolean }): void {
  const lock = lockFile(options.out, "tslm data synth");
  const progress = startProgress("Writing", options.bytes);
  let card: ReturnType<typeof writeSynthetic>;
  try {
    card = writeSynthetic(options.out, options.seed, options.bytes, (done) => progress.update(done));
  } finally {
    lock.release();
  }
  progress.done(`${card.bytes} bytes to ${options.out}`);
  if (options.json) printJson({ file: options.out, ...card });
  else process.stdout.write(`entropy ${card.entropy_bits_per_byte.toFixed(4)} bits per byte\n`);
}
