import path from "node:path";
import { type Command, Option } from "commander";
import { writeWhole } from "../data/files.js";
import type { ModelConfig } from "../formats/config.js";
import { writableTypes } from "../formats/gguf-blocks.js";
import { ggufModelPieces } from "../model/gguf.js";
import { storedNumbers } from "../model/stored.js";
import { ggufTokenizerKeys } from "../model/gguf-tokenizer.js";
import { weightsOf } from "../model/families.js";
import type { ModelWeight } from "../model/structure.js";
import { withStoredModel } from "./model.js";
import { readChatTemplate, textEnds } from "./model-folder.js";
import { openTokenizer } from "./open-tokenizer.js";
import { startProgress } from "./progress.js";
import { UsageError, examples } from "./run.js";

/** `tslm export`: a model for other programs. */
export function configure(command: Command): void {
  command
    .requiredOption(
      "--model <dir>",
      "a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file",
    )
    .addOption(
      new Option("--format <format>", "the form of the file").choices(["gguf"]).makeOptionMandatory(),
    )
    .addOption(
      new Option("--dtype <type>", "the type of the matrices; what is small and touchy stays f32")
        .choices(Object.keys(writableTypes))
        .default("f16"),
    )
    .requiredOption("--out <file>", "the .gguf file to write")
    .option("--without-tokenizer", "write the model alone: token ids go in and come out")
    .action(run);
  examples(
    command,
    "npx tslm export --model runs/default/model --format gguf --dtype q8_0 --out model.gguf",
    "npx tslm export --model model.gguf --format gguf --dtype q4_0 --out small.gguf",
  );
}

/** The options of `tslm export`. */
interface ExportOptions {
  model: string;
  dtype: keyof typeof writableTypes;
  out: string;
  withoutTokenizer?: boolean;
}

async function run({ model, dtype, out, withoutTokenizer }: ExportOptions): Promise<void> {
  if (!out.endsWith(".gguf")) throw new UsageError(`--out ${out} must end with .gguf.`);
  await withStoredModel(model, async ({ config, tensors }) => {
    const tokenizer = withoutTokenizer ? undefined : tokenizerKeys(model, config);
    const settings = { dtype, name: path.basename(path.resolve(model), ".gguf"), tokenizer };
    const weights = weightsOf(config);
    const progress = startProgress("Writing", weights.length);
    let done = 0;
    const valuesOf = (weight: ModelWeight) => {
      progress.update(done++, weight.path);
      return storedNumbers(weight, tensors);
    };
    writeWhole(out, (write) => {
      for (const piece of ggufModelPieces(config, valuesOf, settings)) write(piece);
    });
    progress.done(out);
  });
}

/** The keys of a model's tokenizer and chat template. */
function tokenizerKeys(model: string, config: ModelConfig) {
  const tokenizer = openTokenizer(model);
  const { bos, eos } = textEnds(config, tokenizer);
  const ends = {
    vocabSize: config.vocabSize,
    bos: bos?.id,
    eos: eos.map(({ id }) => id),
    pad: config.padTokenId,
    chatTemplate: readChatTemplate(model),
  };
  try {
    return ggufTokenizerKeys(tokenizer.toJson(), ends);
  } catch (error) {
    throw new Error(`${model}: ${(error as Error).message} --without-tokenizer writes the model alone.`);
  }
}
