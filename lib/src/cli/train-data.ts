// Where a run's text and tokens come from: prepared shards, or text that is prepared into the run's own folder.
import fs from "node:fs";
import path from "node:path";
import type { OpenShards, PrepareOptions } from "../data/shards.js";
import type { TrainConfig } from "../train/configuration.js";
import { replaceFile } from "../data/files.js";
import { startProgress } from "./progress.js";
import { openTokenizer } from "./tokenizer.js";

/** Opens the data of a configuration, preparing it under `folder` first where that is needed and not yet done. */
export async function openRunData(config: TrainConfig, folder: string): Promise<OpenShards> {
  const { openShards } = await import("../data/shards.js");
  const { data } = config;
  if (data === undefined)
    throw new Error('The run has no data: give --data DIR, or "data" in the configuration.');
  if (typeof data === "string" && !isTextFile(data)) return openShards(data, { verify: true });
  const shards = path.join(folder, "shards");
  const note = path.join(folder, "made-from.json");
  const source = JSON.stringify({ data, tokenizer: config.tokenizer, val_fraction: config.val_fraction });
  if (!fs.existsSync(note) || fs.readFileSync(note, "utf8") !== source) {
    fs.mkdirSync(folder, { recursive: true });
    const text = typeof data === "string" ? data : await synthesize(data.synthetic, folder);
    await prepare(config, text, shards);
    replaceFile(note, source);
  }
  return openShards(shards, { verify: true });
}

function isTextFile(name: string): boolean {
  if (!fs.existsSync(name)) throw new Error(`There is no data at ${name}.`);
  return fs.statSync(name).isFile();
}

/** Writes the synthetic corpus and returns its file. */
async function synthesize({ bytes, seed }: { bytes: number; seed: number }, folder: string): Promise<string> {
  const { writeSynthetic } = await import("../data/synthetic.js");
  const file = path.join(folder, "corpus.txt");
  const progress = startProgress("Writing the synthetic corpus", bytes);
  writeSynthetic(file, seed, bytes, (done) => progress.update(done));
  progress.done(`${bytes} bytes in ${file}`);
  return file;
}

/** Turns a text file into shards, with the tokenizer that the configuration wants. */
async function prepare(config: TrainConfig, file: string, folder: string): Promise<void> {
  const { prepareText } = await import("../data/shards.js");
  const tokenizer = await chosenTokenizer(config.tokenizer, file);
  const progress = startProgress("Encoding", 1);
  const onBytes = (done: number, total: number) => progress.update(done / total);
  const manifest = prepareText([file], folder, { tokenizer, valFraction: config.val_fraction, onBytes });
  progress.done(
    `${manifest.splits.train.tokens} tokens to learn from, ${manifest.splits.val.tokens} to validate with`,
  );
}

async function chosenTokenizer(
  choice: TrainConfig["tokenizer"],
  file: string,
): Promise<PrepareOptions["tokenizer"]> {
  if (typeof choice === "string") return choice === "char" ? "char" : openTokenizer(choice);
  const { trainBpe } = await import("../tokenizer/merges.js");
  const { textChunks } = await import("../data/shards.js");
  const progress = startProgress("Learning a vocabulary", choice.vocab_size);
  const trained = trainBpe(textChunks(file), choice.vocab_size, (done) => progress.update(done + 257));
  progress.done(`${trained.vocabSize} tokens`);
  return trained;
}
