import path from "node:path";
import type { Command } from "commander";
import { type ModelConfig, strayValues } from "../formats/config.js";
import { isRecord } from "../formats/keys.js";
import { completeModelConfig, parseModelConfig } from "../model/config.js";
import { countParameters } from "../model/count.js";
import { randomModelPieces } from "../model/weights.js";
import { drawInThreads } from "./draw-normals.js";
import { readJson } from "./files.js";
import { checkFileSize, writeModel } from "./model.js";
import { type ModelParts, modelFolder, readChatTemplate } from "./model-folder.js";
import { wholeNumber } from "./options.js";
import { examples, printJson } from "./run.js";
import { openTokenizer } from "./open-tokenizer.js";
import { defaultTrainConfig } from "../train/configuration.js";

/** `tslm init`: a random model. */
export function configure(command: Command): void {
  command
    .requiredOption("--config <file>", "a config.json, or a training configuration with a model in it")
    .option("--seed <s>", "the same seed gives the same bytes", wholeNumber(), 1)
    .requiredOption("--out <dir>", "the folder to write into")
    .option("--json", "print what was written as one JSON object")
    .action(init);
  examples(command, "npx tslm init --config config.json --seed 1 --out model");
}

async function init(options: { config: string; seed: number; out: string; json?: boolean }): Promise<void> {
  const { config, tokenizer, chatTemplate } = await readDescription(options.config);
  const { total, active } = countParameters(config);
  checkFileSize(4 * total, `A model of ${total} parameters`);
  const drawing = drawInThreads();
  try {
    await writeModel(options.out, [options.config], () => {
      const weights = randomModelPieces(config, options.seed, drawing.draw);
      return modelFolder({ config, weights, tokenizer, chatTemplate });
    });
  } finally {
    await drawing.close();
  }
  if (options.json) return printJson({ folder: options.out, parameters: total, active_parameters: active });
  const ofThem = active === total ? "" : `, of which a token meets ${active}`;
  process.stdout.write(`${total} parameters${ofThem}, in ${options.out}\n`);
}

/** A model that a file describes, and the tokenizer that a training configuration names. */
type Description = Pick<ModelParts, "config" | "tokenizer" | "chatTemplate">;

/** The model that a file describes: a config.json, or a training configuration whose `model` is one or names one. */
export async function readDescription(file: string): Promise<Description> {
  const json = readJson(file);
  const given = isRecord(json) ? json.model : undefined;
  if (typeof given === "string") return readDescription(path.resolve(path.dirname(file), given));
  try {
    if (!isRecord(json) || !isRecord(given)) return { config: await checkedConfig(json) };
    return await trainingDescription(json, given, path.dirname(file));
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** Reads a configuration that a person wrote, in which nothing may be left over. */
async function checkedConfig(json: unknown): Promise<ModelConfig> {
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
  const tokenizer = await openTokenizer(name);
  const config = await whole({ vocab_size: tokenizer.vocabSize });
  if (config.vocabSize < tokenizer.vocabSize)
    throw new Error(
      `model.vocab_size is ${config.vocabSize}, but the tokenizer has ${tokenizer.vocabSize} tokens.`,
    );
  return { config, tokenizer, chatTemplate: await readChatTemplate(name) };
}
