import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Command, Option } from "commander";
import { type Tokenizer, textOfBytes } from "../tokenizer/characters.js";
import type { PatternName } from "../tokenizer/pretokenize.js";
import { countPiecesWithWorkers } from "./count-pieces.js";

import { openTokenizer, patternNames } from "./open-tokenizer.js";
import { wholeNumber } from "./options.js";
import { startProgress } from "./progress.js";
import { documentLists, endReading } from "./read-documents.js";
import { examples, printJson } from "./run.js";
import { keptFiles } from "./streams.js";
import { shownValue, textReport, vocabularyReport } from "./tokenizer-report.js";
import { bpeTokenizer, learnMerges, mergesFor } from "../tokenizer/merges.js";
import { writeWholeFolder } from "../data/folders.js";
import { writeSynced } from "../data/files.js";

/** `tslm tokenizer`: train one, put text through it both ways, and judge it. */
export function configure(tokenizer: Command): void {
  registerTrain(tokenizer);
  registerEncode(tokenizer);
  registerDecode(tokenizer);
  registerInspect(tokenizer);
  examples(tokenizer, "npx tslm tokenizer train corpus.txt --vocab-size 1024 --out tokenizer");
}

/** What says which tokenizer a command uses. */
export interface TokenizerChoice {
  tokenizer: string;
  pattern?: PatternName;
}

/** Adds --tokenizer and --pattern; `words` are the names that stand for a tokenizer without a file. */
export function tokenizerOptions(command: Command, words = "bytes"): Command {
  return command
    .requiredOption(
      "--tokenizer <path>",
      `a tokenizer.json or a folder with one, a .tiktoken file, or: ${words}`,
    )
    .addOption(new Option("--pattern <name>", "how a .tiktoken file cuts text").choices(patternNames));
}

function registerTrain(tokenizer: Command): void {
  const command = tokenizer
    .command("train <input...>")
    .description(
      "Learn a byte-pair vocabulary from documents (.txt, JSON, .parquet, also .gz or .zst) and write tokenizer.json.",
    )
    .requiredOption(
      "--vocab-size <n>",
      "how many tokens: 256 bytes, the merges, and <|endoftext|>",
      wholeNumber(1),
    )
    .requiredOption("--out <dir>", "the folder to write tokenizer.json into")
    .option(
      "--workers <n>",
      "threads that count pieces; the vocabulary is the same for any number",
      wholeNumber(1),
      os.availableParallelism(),
    )
    .option("--text-field <name>", "where the text stands in a JSON object or a row of .parquet", "text")
    .option("--json", "print what was learned as one JSON object")
    .action(train);
  examples(command, "npx tslm tokenizer train corpus.txt --vocab-size 1024 --out tokenizer");
}

async function train(
  inputs: string[],
  options: { vocabSize: number; out: string; workers: number; textField: string; json?: boolean },
): Promise<void> {
  mergesFor(options.vocabSize); // to find mistakes at once
  const how = { by: "tokenizer train", last: "tokenizer.json", inputs };
  const trained = await writeWholeFolder(options.out, how, async (partial) => {
    const tokenizer = await learnTokenizer(inputs, options);
    writeSynced(path.join(partial, "tokenizer.json"), JSON.stringify(tokenizer.toJson()));
    return tokenizer;
  });
  const file = path.join(options.out, "tokenizer.json");
  if (trained.vocabSize < options.vocabSize)
    process.stderr.write(`The text has no more pairs: the vocabulary is ${trained.vocabSize}.\n`);
  if (options.json) printJson({ file, vocab_size: trained.vocabSize });
  else process.stdout.write(`vocabulary ${trained.vocabSize}\n`);
}

/** Counts the pieces of files and merges them, with bars that say how far it is. */
async function learnTokenizer(
  inputs: string[],
  { vocabSize, workers, textField }: { vocabSize: number; workers: number; textField: string },
): Promise<Tokenizer> {
  const pieces = await countFiles(inputs, workers, textField);
  const progress = startProgress("Merging", vocabSize);
  const merges = learnMerges(pieces, mergesFor(vocabSize), (done) => progress.update(done + 257));
  const trained = bpeTokenizer(merges);
  progress.done(`${trained.vocabSize} tokens`);
  return trained;
}

/** The counted pieces of the documents of files. Throws if there is no text in them. */
async function countFiles(
  inputs: string[],
  workers: number,
  textField: string,
): Promise<Map<string, number>> {
  const files = await keptFiles(inputs);
  const total = files.reduce(
    (sum, file) => sum + (fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0),
    0,
  );
  const progress = startProgress("Counting", total);
  let done = 0;
  const pieces = await countPiecesWithWorkers(documentLists(files, { textField }), workers, (texts) => {
    for (const text of texts) done += Buffer.byteLength(text);
    progress.update(Math.min(done, total)); // packed text is longer than its file
  });
  await endReading();
  progress.done(`${pieces.size} different pieces`);
  if (pieces.size === 0) throw new Error(`There is no text in ${inputs.join(", ")}: nothing to learn from.`);
  return pieces;
}

function registerEncode(tokenizer: Command): void {
  const command = tokenizer
    .command("encode")
    .description("UTF-8 text on standard input to a JSON array of ids on standard output.")
    .option("--allow-special", "special tokens in the text become tokens; they are text otherwise");
  tokenizerOptions(command).action(async (options: TokenizerChoice & { allowSpecial?: boolean }) => {
    const opened = openTokenizer(options.tokenizer, options.pattern);
    const text = inputText(await readStandardInput(), textOfBytes);
    const ids = opened.encode(text, { allowed: options.allowSpecial ? "all" : [] });
    process.stdout.write(`[${ids.join(",")}]\n`);
  });
  examples(command, 'echo "Once upon a time" | npx tslm tokenizer encode --tokenizer tokenizer');
}

function registerDecode(tokenizer: Command): void {
  const command = tokenizer
    .command("decode")
    .description("A JSON array of ids on standard input to the bytes they stand for on standard output.");
  tokenizerOptions(command).action(async (options: TokenizerChoice) => {
    const opened = openTokenizer(options.tokenizer, options.pattern);
    process.stdout.write(opened.decode(idsOfJson(await readStandardInput())));
  });
  examples(command, 'echo "[72, 105]" | npx tslm tokenizer decode --tokenizer tokenizer');
}

function registerInspect(tokenizer: Command): void {
  const command = tokenizer
    .command("inspect [text...]")
    .description(
      "Say what a tokenizer holds and wastes; with documents (.txt, JSON, .parquet, also .gz or .zst), how it does on them.",
    )
    .option("--text-field <name>", "where the text stands in a JSON object or a row of .parquet", "text")
    .option("--json", "print it as one JSON object");
  tokenizerOptions(command).action(inspect);
  examples(command, "npx tslm tokenizer inspect corpus.txt --tokenizer tokenizer");
}

async function inspect(
  texts: string[],
  options: TokenizerChoice & { textField: string; json?: boolean },
): Promise<void> {
  const tokenizer = openTokenizer(options.tokenizer, options.pattern);
  const report = {
    ...vocabularyReport(tokenizer),
    ...(await textReport(tokenizer, await keptFiles(texts), options.textField)),
  };
  if (options.json) return printJson(report);
  for (const [name, value] of Object.entries(report))
    process.stdout.write(`${name.replaceAll("_", " ").padEnd(20)} ${shownValue(value)}\n`);
}

/** All bytes of standard input. */
async function readStandardInput(): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Standard input as text, its byte-order mark kept so that decoding gives the same bytes. */
function inputText(bytes: Uint8Array, textOfBytes: (bytes: Uint8Array) => string): string {
  try {
    return textOfBytes(bytes);
  } catch (error) {
    throw new Error(`standard input: ${(error as Error).message}`);
  }
}

/** The ids in a JSON array. */
function idsOfJson(bytes: Uint8Array): number[] {
  let ids: unknown;
  try {
    ids = JSON.parse(Buffer.from(bytes).toString());
  } catch (error) {
    throw new Error(`standard input is not JSON: ${(error as Error).message}`);
  }
  if (Array.isArray(ids) && ids.every((id) => Number.isInteger(id))) return ids;
  throw new Error("standard input is not a JSON array of whole numbers, such as [72, 105].");
}
