import fs from "node:fs";
import path from "node:path";
import { type Command, Option } from "commander";
import { type ModelConfig, strayValues } from "../formats/config.js";
import { isRecord } from "../formats/keys.js";
import { completeModelConfig, parseModelConfig } from "../model/config.js";
import { countParameters } from "../model/count.js";
import { weightsOf } from "../model/families.js";
import { randomModelPieces } from "../model/weights.js";
import { sizeOf } from "../tensor/tensor.js";
import { drawInThreads } from "./draw-normals.js";
import { readJson } from "./files.js";
import { upcycledPieces } from "../model/upcycling.js";
import { checkArraySize, checkRoom, withStoredModel, writeModel } from "./model.js";
import { type ModelParts, modelFolder, readChatTemplate } from "./model-folder.js";
import { numberBetween, shardOption, wholeNumber } from "./options.js";
import { examples, printJson, UsageError } from "./run.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { openTokenizer } from "./open-tokenizer.js";
import { defaultTrainConfig } from "../train/configuration.js";

/** `tslm init`: a random model. */
export function configure(command: Command): void {
  command
    .requiredOption("--config <file>", "a config.json, or a training configuration with a model in it")
    .option(
      "--tokenizer <file|bytes>",
      "the tokenizer to leave beside the weights (default: what a training configuration names, or a tokenizer.json beside the config.json)",
    )
    .option(
      "--upcycle <dir>",
      "begin as the dense model in this folder: each expert is a copy of its feed-forward layer",
    )
    .option(
      "--renewed <share>",
      "with --upcycle: the share of each expert that begins afresh",
      numberBetween(0, 1),
      0,
    )
    .option("--seed <s>", "the same seed gives the same bytes", wholeNumber(), 1)
    .requiredOption("--out <dir>", "the folder to write into")
    .addOption(
      new Option("--dtype <type>", "the type of the numbers in the file")
        .choices(["f32", "f16", "bf16"])
        .default("f32"),
    )
    .addOption(shardOption())
    .option("--json", "print what was written as one JSON object")
    .action(init);
  examples(
    command,
    "npx tslm init --config config.json --seed 1 --out model",
    "npx tslm init --config config.json --out model --dtype bf16 --max-shard-size 200MB",
    "npx tslm init --config sparse.json --upcycle model --out sparse",
  );
}

/** The options of `tslm init`. */
interface InitOptions {
  config: string;
  tokenizer?: string;
  upcycle?: string;
  renewed: number;
  seed: number;
  out: string;
  dtype: "f32" | "f16" | "bf16";
  maxShardSize: number;
  json?: boolean;
}

async function init(options: InitOptions): Promise<void> {
  const { upcycle } = options;
  if (options.renewed > 0 && upcycle === undefined)
    throw new UsageError("--renewed is for --upcycle: name the folder of a dense model with that");
  const beside = upcycle !== undefined && hasTokenizer(upcycle) ? upcycle : undefined;
  const description = await readDescription(options.config, options.tokenizer ?? beside);
  const { config, tokenizer } = description;
  const { total, active } = countParameters(config);
  const dtype = options.dtype.toUpperCase() as "F32" | "F16" | "BF16";
  for (const { name, shape } of weightsOf(config)) checkArraySize(4 * sizeOf(shape), `The weight ${name}`);
  checkRoom(options.out, (dtype === "F32" ? 4 : 2) * total, `A model of ${total} parameters`);
  await (upcycle === undefined
    ? writeRandom(options, description)
    : writeUpcycled(upcycle, options, description));
  if (options.json) return printJson({ folder: options.out, parameters: total, active_parameters: active });
  const ofThem = active === total ? "" : `, of which a token meets ${active}`;
  process.stdout.write(`${total} parameters${ofThem}, in ${options.out}\n`);
  if (!tokenizer)
    process.stderr.write(
      `${options.out} has no tokenizer: give one with --tokenizer for text to go in and out.\n`,
    );
}

/** How the files of a model are written. */
function savingOf(options: InitOptions) {
  const dtype = options.dtype.toUpperCase() as "F32" | "F16" | "BF16";
  return { dtype, maxShardBytes: options.maxShardSize };
}

/** Writes a model with random weights. */
async function writeRandom(options: InitOptions, description: Description): Promise<void> {
  const saving = savingOf(options);
  const drawing = drawInThreads();
  try {
    await writeModel(options.out, { by: "init", inputs: [options.config] }, () => {
      const weights = randomModelPieces(description.config, options.seed, drawing.draw, saving);
      return modelFolder({ ...description, dtype: saving.dtype, weights });
    });
  } finally {
    await drawing.close();
  }
}

/** Writes a model that begins as the dense one in a folder. */
async function writeUpcycled(folder: string, options: InitOptions, description: Description): Promise<void> {
  const saving = savingOf(options);
  const { seed, renewed } = options;
  await withStoredModel(folder, (dense) => {
    const weights = upcycledPieces(dense, description.config, { ...saving, seed, renewed });
    return writeModel(options.out, { by: "init", inputs: [options.config, folder] }, () =>
      modelFolder({ ...description, dtype: saving.dtype, weights }),
    );
  });
}

/** A model that a file describes, and the tokenizer that a training configuration names. */
type Description = Pick<ModelParts, "config" | "tokenizer" | "chatTemplate">;

/**
 * The model that a file describes: a config.json, or a training configuration whose `model` is one or names one. A tokenizer
 * that is asked for comes before the one that the file names, or that lies beside it.
 */
export async function readDescription(file: string, asked?: string): Promise<Description> {
  const json = readJson(file);
  const folder = path.dirname(file);
  const given = isRecord(json) ? json.model : undefined;
  if (typeof given === "string") return readDescription(path.resolve(folder, given), asked);
  try {
    if (isRecord(json) && isRecord(given))
      return await trainingDescription(
        asked ? { ...json, tokenizer: tokenizerPath(asked) } : json,
        given,
        folder,
      );
    const config = checkedConfig(json);
    const beside = hasTokenizer(folder) ? folder : undefined;
    const name = asked ?? beside;
    return name === undefined ? { config } : withTokenizer(config, openTokenizer(name), name);
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** Whether a folder has a tokenizer beside its weights. */
function hasTokenizer(folder: string): boolean {
  return fs.existsSync(path.join(folder, "tokenizer.json"));
}

/** A tokenizer that was asked for, seen from anywhere. */
function tokenizerPath(name: string): string {
  return name === "bytes" ? name : path.resolve(name);
}

/** A model with a tokenizer, each of whose ids it has a row for. */
function withTokenizer(config: ModelConfig, tokenizer: Tokenizer, name: string): Description {
  if (config.vocabSize < tokenizer.vocabSize)
    throw new Error(
      `vocab_size is ${config.vocabSize}, but the tokenizer has ${tokenizer.vocabSize} tokens.`,
    );
  return { config, tokenizer, chatTemplate: readChatTemplate(name) };
}

/** Reads a configuration that a person wrote, in which nothing may be left over. */
function checkedConfig(json: unknown): ModelConfig {
  const config = parseModelConfig(json, { strict: true });
  const [stray] = strayValues(json as Record<string, unknown>, config);
  if (stray) throw new Error(stray);
  return config;
}

/**
 * What a training configuration says of its model, and in other places: the vocabulary's size and the context's length. File
 * names in it are seen from its `folder`.
 */
async function trainingDescription(
  json: Record<string, unknown>,
  model: Record<string, unknown>,
  folder: string,
): Promise<Description> {
  const { context, tokenizer: choice } = { ...defaultTrainConfig, ...json };
  const length = { max_position_embeddings: Number(context) };
  const whole = (sizes: object) => checkedConfig(completeModelConfig(model, { ...length, ...sizes }));
  if (isRecord(choice)) return { config: await whole({ vocab_size: Number(choice.vocab_size) }) };
  if (typeof choice !== "string" || choice === "char") {
    if (model.vocab_size !== undefined) return { config: await whole({}) };
    throw new Error("model.vocab_size is missing; without data to count characters in it has to be given.");
  }
  const name = choice === "bytes" ? choice : path.resolve(folder, choice);
  const tokenizer = openTokenizer(name);
  return withTokenizer(await whole({ vocab_size: tokenizer.vocabSize }), tokenizer, name);
}
