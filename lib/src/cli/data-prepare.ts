import fs from "node:fs";
import os from "node:os";
import { type Command, InvalidArgumentError } from "commander";
import { libraryVersion } from "../../bin/machine.mjs";
import type { CorpusOptions, CorpusProgress, CorpusSource } from "../data/corpus.js";
import type { Manifest } from "../data/manifest.js";
import type { NormalStep } from "../data/sources.js";
import { readChatTemplate } from "./model-folder.js";
import { numberBetween, wholeNumber } from "./options.js";
import { type Progress, inWords, readableSize, startProgress } from "./progress.js";
import { endReading, watchedDocuments } from "./read-documents.js";
import { UsageError, advise, examples, printJson, stopSignals } from "./run.js";
import { isStream, keptFiles } from "./streams.js";
import { suggestion } from "./suggest.js";
import { openTokenizer } from "./open-tokenizer.js";
import { type TokenizerChoice, tokenizerOptions } from "./tokenizer.js";
import { prepareCorpus } from "../data/prepare.js";
import { chooseFilters } from "../data/filters.js";
import { workInThreads } from "./prepare-pool.js";
import { checkApart } from "../data/folders.js";

interface PrepareFlags extends TokenizerChoice {
  out: string;
  source?: string[];
  valFraction: number;
  textField: string;
  onError: "skip" | "fail";
  normalise?: NormalStep[];
  dedup?: ("exact" | "near")[];
  filter?: string[];
  contamination?: string[];
  workers: number;
  json?: boolean;
}

const HELP = `
Files are texts, JSON lines (.jsonl, .ndjson, .json), an array of JSON objects (.json) or .parquet, each also packed as .gz or
.zst. A file of any other name is a text; archives, pictures and the like are refused. In a text, lines that hold nothing but
<|endoftext|> separate documents. A pipe, <(...) or - (standard input) is kept in a temporary file while it is needed. Checksums
in packed files are verified; a .zst file without one can only be held against the length of its content.

Sources: after --source come what there is to say of it, and its files. Give --source once for each.
  name=NAME       what it is called in the manifest; needed
  license=ID      its licence, such as CC-BY-SA-4.0
  url=URL         where it is from
  weight=W        its share of training in relation to the others: all sources have one, or none

What is for validation: of a corpus that is a single text, the last part; of several documents, in one file or in many, those
whose SHA-256 says so (the first 32 bits, as a fraction, below --val-fraction), whatever their order.

A document longer than 4 MB comes in parts, and is neither filtered nor compared. Of equal documents the first stays: name the
better source first. "near" compares a document with the last one to two million that stayed, which takes half a gigabyte at
most. Of --contamination, texts of fewer than 13 words cannot be found.

A run that was stopped or killed, or that ended on a full disk, leaves what it did in the folder; the same command goes on from
there. The number of workers changes nothing but the time. A folder that holds anything else is left alone.`;

/** `tslm data prepare`: from piles of text to token shards. */
export function registerPrepare(data: Command): void {
  const command = tokenizerOptions(data.command("prepare [input...]"), "char, bytes")
    .description("Turn text files and documents into token shards and a manifest.")
    .requiredOption("--out <dir>", "the folder to make")
    .option("--source <name=NAME,... file...>", "files as a named source (see below)")
    .option("--val-fraction <f>", "the share that is kept for validation", numberBetween(0, 1), 0.1)
    .option("--text-field <name>", "where the text stands in a JSON object or a row of .parquet", "text")
    .option(
      "--on-error <what>",
      "a document that cannot be read: fail, or skip it",
      oneOf("skip", "fail"),
      "fail",
    )
    .option(
      "--normalise <steps>",
      "clean the text first: newlines, controls, trailing, nfc",
      listOf("newlines", "controls", "trailing", "nfc"),
    )
    .option(
      "--dedup <kinds>",
      "leave out documents seen before: exact, near, or exact,near",
      listOf("exact", "near"),
    )
    .option("--filter <names>", "leave out what these reject: gopher, c4, fineweb, or single ones", listed)
    .option("--contamination <file...>", "leave out documents that share 13 words in a row with these texts")
    .option(
      "--workers <n>",
      "threads that check and encode",
      wholeNumber(1),
      Math.min(8, os.availableParallelism()),
    )
    .option("--json", "print the manifest")
    .action(prepare);
  command.addHelpText("after", HELP);
  examples(
    command,
    "npx tslm data prepare corpus.txt --out data --tokenizer tokenizer",
    "npx tslm data prepare input.txt --out data --tokenizer char --val-fraction 0.1",
    "npx tslm data prepare --out data --tokenizer tokenizer --dedup exact,near --filter gopher \\\n      --source name=wiki,license=CC-BY-SA-4.0,weight=3 wiki/*.jsonl.zst --source name=books,weight=1 books/*.txt",
  );
}

const listed = (text: string) =>
  text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");

function oneOf(...choices: string[]): (text: string) => string {
  return (text) => {
    if (choices.includes(text)) return text;
    throw new InvalidArgumentError(`It must be one of: ${choices.join(", ")}.`);
  };
}

function listOf(...choices: string[]): (text: string) => string[] {
  return (text) => {
    const all = listed(text);
    const other = all.find((word) => !choices.includes(word));
    if (other === undefined && all.length > 0) return all;
    throw new InvalidArgumentError(`It must be some of: ${choices.join(", ")}.`);
  };
}

/** What stands after all `--source` together: descriptions, each with its files behind it. */
export function readSources(words: string[]): CorpusSource[] {
  const sources: CorpusSource[] = [];
  for (const word of words) {
    if (/^(name|license|weight|url)=/.test(word)) sources.push(describedSource(word));
    else if (sources.length === 0) throw new UsageError(`--source begins with name=NAME, not with ${word}`);
    else sources[sources.length - 1].files.push(word);
  }
  for (const { name, files } of sources)
    if (files.length === 0)
      throw new UsageError(`name the files of the source ${name} after its description`);
  return sources;
}

/** A source from `name=wiki,license=CC0-1.0,weight=2`. */
function describedSource(text: string): CorpusSource {
  const keys = ["name", "license", "weight", "url"];
  const fields: Record<string, string> = {};
  for (const part of text.split(/,(?=[a-z]+=)/)) {
    const at = part.indexOf("=");
    const [key, value] = [part.slice(0, at), part.slice(at + 1)];
    if (!keys.includes(key))
      throw new UsageError(`a source has no ${key}${suggestion(key, keys)}: it has ${keys.join(", ")}`);
    fields[key] = value;
  }
  const { name, license, url } = fields;
  if (!name) throw new UsageError(`the source ${text} has no name: begin with name=NAME`);
  const weight = fields.weight === undefined ? undefined : Number(fields.weight);
  if (weight !== undefined && !(weight > 0 && weight < Infinity))
    throw new UsageError(`the weight of ${name} must be a number above 0, not ${fields.weight}`);
  return {
    name,
    files: [],
    ...(license ? { license } : {}),
    ...(url ? { url } : {}),
    ...(weight ? { weight } : {}),
  };
}

/** The sources that the command line names: by --source, or as plain files. */
function chosenSources(inputs: string[], described: string[]): CorpusSource[] {
  if (described.length === 0 && inputs.length === 0)
    throw new UsageError("name text files, or sources with --source name=NAME FILE...");
  if (described.length === 0) return [{ name: "text", files: inputs }];
  if (inputs.length > 0) throw new UsageError(`${inputs[0]} belongs to no source: put it behind one`);
  return readSources(described);
}

async function prepare(inputs: string[], flags: PrepareFlags): Promise<void> {
  if (fs.existsSync(flags.tokenizer)) checkApart(flags.out, [flags.tokenizer]);
  const { textField, onError, valFraction, dedup } = flags;
  const chosen = chosenSources(inputs, flags.source ?? []);
  const streams = chosen.some(({ files }) => files.some(isStream));
  const sources: CorpusSource[] = [];
  for (const source of chosen) sources.push({ ...source, files: await keptFiles(source.files) });
  const contamination = flags.contamination && (await keptFiles(flags.contamination));
  const watch = watchCorpus();
  const stop = stopOnce();
  const options: CorpusOptions = {
    ...{ textField, onError, valFraction, dedup, contamination, normal: flags.normalise },
    sources,
    filters: flags.filter && chooseFilters(flags.filter),
    tokenizer: flags.tokenizer === "char" ? "char" : openTokenizer(flags.tokenizer, flags.pattern),
    chatTemplate: readChatTemplate(flags.tokenizer),
    maker: { by: `tslm ${libraryVersion()}`, on: new Date().toISOString().slice(0, 10) },
    read: (file, how) => watchedDocuments(file, how, stop.signal),
    openWork: (settings) => workInThreads(flags.workers, settings),
    onSkip: watch.skip,
    onProgress: watch.update,
    signal: stop.signal,
  };
  try {
    for (const file of contamination ?? []) for await (const _ of watchedDocuments(file, {}, stop.signal)); // faults are told at once
    const manifest = await prepareCorpus(flags.out, options);
    watch.done(`${flags.out} is ready`);
    if (flags.json) printJson(manifest);
    else process.stdout.write(corpusSummary(manifest));
  } catch (error) {
    watch.done("stopped");
    advise(
      error,
      `What is done is kept in ${flags.out}: mend that and run the same command, which goes on from there.`,
    );
    if (!stop.signal.aborted) throw error;
    const onward = streams
      ? "A stream cannot be read again from where it was: the same command begins anew."
      : `What is done is kept in ${flags.out}; the same command goes on from there.`;
    process.stderr.write(`Stopped. ${onward}\n`);
  } finally {
    await endReading();
  }
}

/** Turns Ctrl-C, `kill` and a terminal that closes into a signal for the run; a second one ends the process at once. */
function stopOnce(): AbortController {
  const stop = new AbortController();
  for (const [name, code] of Object.entries(stopSignals))
    process.once(name, () => {
      process.exitCode = code;
      stop.abort(new Error("Stopped."));
    });
  return stop;
}

/** A bar for each reading of the corpus, with the rate and the time left. */
function watchCorpus() {
  let [bar, phase, began, from]: [Progress | undefined, string, number, number] = [undefined, "", 0, 0];
  let skipped = 0;
  const update = ({ phase: now, done, total }: CorpusProgress) => {
    if (now !== phase) {
      bar?.done(`${readableSize(total)} of text`);
      bar = startProgress(now === "reading" ? "Reading" : "Encoding", total);
      [phase, began, from] = [now, performance.now(), done];
    }
    const seconds = (performance.now() - began) / 1000;
    const rate = (done - from) / Math.max(1e-3, seconds);
    const left = seconds > 1 && rate > 0 ? `, ${inWords((total - done) / rate)} left` : "";
    bar?.update(done, `${readableSize(done)} of ${readableSize(total)}, ${readableSize(rate)}/s${left}`);
  };
  const skip = (message: string) => {
    // A corpus of millions may have thousands of faults: the first few show what they are.
    if (++skipped <= 5) bar?.say(`left out: ${message}`);
    if (skipped === 5) bar?.say("further ones are only counted");
  };
  return { update, skip, done: (text: string) => bar?.done(text) };
}

/** Why there is nothing to validate with. */
export function noValidation({ val_fraction, mixture = [] }: Manifest): string {
  if (val_fraction === 0) return "Nothing is kept for validation, as was asked for.";
  const count = mixture.reduce((sum, { documents }) => sum + documents.kept, 0);
  return `No document was left for validation: chance chose none of ${count} for its share of ${val_fraction}. Training goes without; give more documents, or a larger share, to have one.`;
}

/** What became of the text, in a few lines. */
function corpusSummary(manifest: Manifest): string {
  const { splits, mixture = [], vocab_size } = manifest;
  const { train, val } = splits;
  const lines = [
    `train ${train.tokens} tokens of ${train.bytes} bytes, validation ${val.tokens} tokens of ${val.bytes} bytes, vocabulary ${vocab_size}`,
  ];
  if (val.tokens === 0) lines.push(noValidation(manifest));
  for (const { name, documents } of mixture) {
    const dropped = Object.entries(documents.dropped).map(([reason, count]) => `${count} ${reason}`);
    if (dropped.length > 0)
      lines.push(
        `${name}: kept ${documents.kept} of ${documents.read} documents; left out: ${dropped.join(", ")}`,
      );
  }
  return `${lines.join("\n")}\n`;
}
