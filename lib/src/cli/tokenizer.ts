import path from "node:path";
import type { Command } from "commander";
import type { Tokenizer } from "../tokenizer/characters.js";
import { readJson, writeFileAtomically } from "./files.js";
import { wholeNumber } from "./options.js";
import { startProgress } from "./progress.js";
import { examples, printJson } from "./run.js";

/** `tslm tokenizer`: train one, and put text through it both ways. */
export function register(program: Command): void {
  const tokenizer = program.command("tokenizer").description("Train a tokenizer; encode and decode with it.");
  registerTrain(tokenizer);
  registerEncode(tokenizer);
  registerDecode(tokenizer);
  examples(tokenizer, "npx tslm tokenizer train corpus.txt --vocab-size 1024 --out tokenizer");
}

/** The tokenizer in `folder/tokenizer.json`, or the one of bytes where `name` is "bytes". */
export async function openTokenizer(name: string): Promise<Tokenizer> {
  const { byteTokenizer, loadTokenizer } = await import("../tokenizer/bpe.js");
  if (name === "bytes") return byteTokenizer();
  const file = name.endsWith(".json") ? name : path.join(name, "tokenizer.json");
  const json = readJson(file);
  try {
    return loadTokenizer(Object(json));
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

function registerTrain(tokenizer: Command): void {
  const command = tokenizer
    .command("train <input...>")
    .description("Learn a byte-pair vocabulary from UTF-8 text files and write tokenizer.json.")
    .requiredOption(
      "--vocab-size <n>",
      "how many tokens: 256 bytes, the merges, and <|endoftext|>",
      wholeNumber(1),
    )
    .requiredOption("--out <dir>", "the folder to write tokenizer.json into")
    .option("--json", "print what was learned as one JSON object")
    .action(train);
  examples(command, "npx tslm tokenizer train corpus.txt --vocab-size 1024 --out tokenizer");
}

async function train(
  inputs: string[],
  options: { vocabSize: number; out: string; json?: boolean },
): Promise<void> {
  const { trainBpe } = await import("../tokenizer/bpe.js");
  const { textChunks } = await import("../data/shards.js");
  const progress = startProgress("Merging", options.vocabSize);
  function* texts(): Generator<string> {
    for (const input of inputs) yield* textChunks(input);
  }
  const trained = trainBpe(texts(), options.vocabSize, (done) => progress.update(done + 257));
  const file = path.join(options.out, "tokenizer.json");
  writeFileAtomically(file, JSON.stringify(trained.toJson()));
  progress.done(`${trained.vocabSize} tokens in ${file}`);
  if (trained.vocabSize < options.vocabSize)
    process.stderr.write(`The text has no more pairs: the vocabulary is ${trained.vocabSize}.\n`);
  if (options.json) printJson({ file, vocab_size: trained.vocabSize });
  else process.stdout.write(`vocabulary ${trained.vocabSize}\n`);
}

function registerEncode(tokenizer: Command): void {
  const command = tokenizer
    .command("encode")
    .description("UTF-8 text on standard input to a JSON array of ids on standard output.")
    .requiredOption("--tokenizer <dir>", "a folder with tokenizer.json, or: bytes")
    .action(async (options: { tokenizer: string }) => {
      const { textOfBytes } = await import("../tokenizer/characters.js");
      const opened = await openTokenizer(options.tokenizer);
      const ids = opened.encode(inputText(await readStandardInput(), textOfBytes));
      process.stdout.write(`[${ids.join(",")}]\n`);
    });
  examples(command, 'echo "Once upon a time" | npx tslm tokenizer encode --tokenizer tokenizer');
}

function registerDecode(tokenizer: Command): void {
  const command = tokenizer
    .command("decode")
    .description("A JSON array of ids on standard input to the bytes they stand for on standard output.")
    .requiredOption("--tokenizer <dir>", "a folder with tokenizer.json, or: bytes")
    .action(async (options: { tokenizer: string }) => {
      const opened = await openTokenizer(options.tokenizer);
      process.stdout.write(opened.decode(idsOfJson(await readStandardInput())));
    });
  examples(command, 'echo "[72, 105]" | npx tslm tokenizer decode --tokenizer tokenizer');
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
