// Where a run's text and tokens come from: prepared shards, or text that is prepared into the run's own folder.
import fs from "node:fs";
import path from "node:path";
import { type OpenShards, openShards } from "../data/shards.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import type { TrainConfig } from "../train/configuration.js";
import { replaceFile } from "../data/files.js";
import { noValidation } from "./data-prepare.js";
import { readChatTemplate } from "./model-folder.js";
import { startProgress } from "./progress.js";
import { documentLists, endReading, watchedDocuments } from "./read-documents.js";
import { isStream } from "./streams.js";
import { openTokenizer } from "./open-tokenizer.js";
import { writeSynthetic } from "../data/synthetic.js";
import { prepareCorpus } from "../data/prepare.js";
import { addPieceCounts, bpeTokenizer, countPieces, learnMerges, mergesFor } from "../tokenizer/merges.js";
import { PATTERNS, patternSplitter } from "../tokenizer/pretokenize.js";

/** Opens the data of a configuration, preparing it under `folder` first where that is needed and not yet done. */
export async function openRunData(config: TrainConfig, folder: string): Promise<OpenShards> {
  const { data } = config;
  if (data === undefined)
    throw new Error('The run has no data: give --data DIR, or "data" in the configuration.');
  if (typeof data === "string" && !isTextFile(data)) return openShards(data, { verify: true });
  const shards = shardsOf(config, folder);
  const note = path.join(folder, "made-from.json");
  const source = JSON.stringify({ data, tokenizer: config.tokenizer, val_fraction: config.val_fraction });
  if (!fs.existsSync(note) || fs.readFileSync(note, "utf8") !== source) {
    fs.mkdirSync(folder, { recursive: true });
    const text = typeof data === "string" ? data : synthesize(data.synthetic, folder);
    await prepare(config, text, shards);
    replaceFile(note, source);
  }
  return openShards(shards, { verify: true });
}

/** Where the shards of a run lie: prepared elsewhere, or made for it under `folder`. */
export function shardsOf({ data }: TrainConfig, folder: string): string {
  const prepared = typeof data === "string" && fs.statSync(data, { throwIfNoEntry: false })?.isDirectory();
  return prepared ? data : path.join(folder, "shards");
}

function isTextFile(name: string): boolean {
  if (isStream(name))
    throw new Error(
      `${name} is a stream, which a resumed run could not read again. Prepare it first: tslm data prepare ${name} --out DIR`,
    );
  if (!fs.existsSync(name)) throw new Error(`There is no data at ${name}.`);
  return fs.statSync(name).isFile();
}

/** Writes the synthetic corpus and returns its file. */
function synthesize({ bytes, seed }: { bytes: number; seed: number }, folder: string): string {
  const file = path.join(folder, "corpus.txt");
  const progress = startProgress("Writing the synthetic corpus", bytes);
  writeSynthetic(file, seed, bytes, (done) => progress.update(done));
  progress.done(`${bytes} bytes in ${file}`);
  return file;
}

/** Turns a file of documents into shards, with the tokenizer that the configuration wants. */
async function prepare(config: TrainConfig, file: string, folder: string): Promise<void> {
  const tokenizer = await chosenTokenizer(config.tokenizer, file);
  const progress = startProgress("Encoding", 1);
  const manifest = await prepareCorpus(folder, {
    sources: [{ name: "text", files: [file] }],
    tokenizer,
    chatTemplate: typeof config.tokenizer === "string" ? readChatTemplate(config.tokenizer) : undefined,
    valFraction: config.val_fraction,
    read: watchedDocuments,
    onProgress: ({ phase, done, total }) => phase === "encoding" && progress.update(done / total),
  });
  await endReading();
  const { train, val } = manifest.splits;
  progress.done(
    `${train.tokens} tokens to learn from, ${val.tokens === 0 ? "none" : val.tokens} to validate with`,
  );
  if (val.tokens === 0) process.stderr.write(`${noValidation(manifest)}\n`);
}

async function chosenTokenizer(choice: TrainConfig["tokenizer"], file: string): Promise<Tokenizer | "char"> {
  if (typeof choice === "string") return choice === "char" ? "char" : openTokenizer(choice);
  const count = mergesFor(choice.vocab_size);
  const progress = startProgress("Learning a vocabulary", choice.vocab_size);
  const pieces = new Map<string, number>();
  const splitter = patternSplitter(PATTERNS.house);
  for await (const texts of documentLists([file])) addPieceCounts(pieces, countPieces(texts, splitter));
  if (pieces.size === 0) throw new Error(`There is no text in ${file}: nothing to learn from.`);
  const trained = bpeTokenizer(learnMerges(pieces, count, (done) => progress.update(done + 257)));
  progress.done(`${trained.vocabSize} tokens`);
  return trained;
}
