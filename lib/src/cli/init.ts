import path from "node:path";
import type { Command } from "commander";
import type { ModelConfig } from "../formats/config.js";
import { isRecord } from "../formats/safetensors.js";
import { readJson } from "./files.js";
import { checkFileSize, writeModel } from "./model.js";
import { wholeNumber } from "./options.js";
import { examples, printJson } from "./run.js";
import { openTokenizer } from "./tokenizer.js";

/** `tslm init`: a random model. */
export function register(program: Command): void {
  const command = program
    .command("init")
    .description("Write a model with random weights: config.json and model.safetensors.")
    .requiredOption("--config <file>", "a config.json, or a training configuration with a model in it")
    .option("--seed <s>", "the same seed gives the same bytes", wholeNumber(), 1)
    .requiredOption("--out <dir>", "the folder to write into")
    .option("--json", "print what was written as one JSON object")
    .action(init);
  examples(command, "npx tslm init --config config.json --seed 1 --out model");
}

async function init(options: { config: string; seed: number; out: string; json?: boolean }): Promise<void> {
  const config = await readConfig(options.config);
  const { countParameters, randomModelFiles } = await import("../model/weights.js");
  const { total, active } = countParameters(config);
  checkFileSize(4 * total, `A model of ${total} parameters`);
  writeModel(options.out, [options.config], () => randomModelFiles(config, options.seed));
  if (options.json) return printJson({ folder: options.out, parameters: total, active_parameters: active });
  const ofThem = active === total ? "" : `, of which a token meets ${active}`;
  process.stdout.write(`${total} parameters${ofThem}, in ${options.out}\n`);
}

/** The model that a file describes: a config.json, or a training configuration whose `model` is one or names one. */
async function readConfig(file: string): Promise<ModelConfig> {
  const { completeModelConfig, parseModelConfig } = await import("../formats/config.js");
  const json = readJson(file);
  const given = isRecord(json) ? json.model : undefined;
  if (typeof given === "string") return readConfig(path.resolve(path.dirname(file), given));
  try {
    if (!isRecord(json) || !isRecord(given)) return parseModelConfig(json, { strict: true });
    const sizes = await sizesOf(json, given, path.dirname(file));
    return parseModelConfig(completeModelConfig(given, sizes), { strict: true });
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/**
 * What a training configuration says of its model in other places: the vocabulary's size and the context's length. File
 * names in it are seen from its `folder`.
 */
async function sizesOf(
  json: Record<string, unknown>,
  model: Record<string, unknown>,
  folder: string,
): Promise<{ vocab_size?: number; max_position_embeddings?: number }> {
  const { defaultTrainConfig } = await import("../train/configuration.js");
  const { context, tokenizer } = { ...defaultTrainConfig, ...json };
  const length = { max_position_embeddings: Number(context) };
  if (model.vocab_size !== undefined) return length;
  if (isRecord(tokenizer)) return { ...length, vocab_size: Number(tokenizer.vocab_size) };
  if (typeof tokenizer !== "string" || tokenizer === "char")
    throw new Error("model.vocab_size is missing; without data to count characters in it has to be given.");
  const name = tokenizer === "bytes" ? tokenizer : path.resolve(folder, tokenizer);
  return { ...length, vocab_size: (await openTokenizer(name)).vocabSize };
}
