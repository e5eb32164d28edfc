import type { Command } from "commander";
import type { GenerationConfig } from "../formats/generation.js";
import { plainSampling } from "../infer/sampling.js";
import type { ModelDtype } from "../model/weights.js";
import { openModel, readGenerationConfig, usualSampling } from "./model.js";
import { type GuessingOptions, addGuessingOptions, openGuessing } from "./guess.js";
import { dtypeOption, numberBetween, wholeNumber } from "./options.js";
import { examples } from "./run.js";
import { checkTokenizerFits, openTokenizer } from "./open-tokenizer.js";
import { endOfText, generateText, promptIds, textPieces } from "../infer/generate.js";

/** The options of `tslm generate`. Those that are left out are as the model's generation_config.json says, or as usual. */
interface GenerateOptions extends GuessingOptions {
  model: string;
  prompt: string;
  dtype: ModelDtype;
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed: number;
  stop: string[];
}

/** Tokens that are generated where nobody says how many. */
const usualTokens = 200;

/** `tslm generate`: continue a text. */
export function configure(command: Command): void {
  const usual = (value: number) => `(default: the model's, else ${value})`;
  const { temperature, topK, topP, minP } = plainSampling;
  command
    .requiredOption("--model <dir>", "a folder with config.json, weights and tokenizer.json, or a .gguf file")
    .requiredOption("--prompt <text>", "the text to continue")
    .option("--max-tokens <n>", `new tokens at most ${usual(usualTokens)}`, wholeNumber(1))
    .option(
      "--temperature <t>",
      `below 1 surer, above 1 bolder; 0: the likeliest each time ${usual(temperature)}`,
      numberBetween(0, 100),
    )
    .option("--top-k <k>", `choose among the k likeliest; 0: all ${usual(topK)}`, wholeNumber(0))
    .option(
      "--top-p <p>",
      `choose among the likeliest that together have this probability ${usual(topP)}`,
      numberBetween(1e-9, 1),
    )
    .option(
      "--min-p <p>",
      `choose among those at least this fraction as likely as the likeliest ${usual(minP)}`,
      numberBetween(0, 0.999999),
    )
    .option(
      "--repetition-penalty <r>",
      `above 1, tokens that are in the text already become less likely ${usual(1)}`,
      numberBetween(0.01, 100),
    )
    .option(
      "--presence-penalty <p>",
      "taken from the score of a token that was written already (default: 0)",
      numberBetween(-100, 100),
    )
    .option(
      "--frequency-penalty <p>",
      "taken from the score of a token for each time it was written (default: 0)",
      numberBetween(-100, 100),
    )
    .option("--seed <s>", "where the random numbers start", wholeNumber(0), 0)
    .option("--stop <text...>", "end before one of these texts appears", [])
    .addOption(dtypeOption());
  addGuessingOptions(command)
    .addHelpText(
      "after",
      "\nThe model's own values are those in its generation_config.json, which come with most models; options go before them.",
    )
    .action(run);
  examples(
    command,
    'npx tslm generate --model runs/default/model --prompt "Once upon a time" --temperature 0.8',
    'npx tslm generate --model runs/default/model --prompt "2 + 3 =" --temperature 0 --stop "."',
    'npx tslm generate --model large --draft small --prompt "Once upon a time"',
  );
}

/** How to choose tokens, and how many: by the options, else as the model's generation_config.json says, else as usual. */
export function generationSettings(options: Partial<GenerateOptions>, given: GenerationConfig | undefined) {
  const usual = usualSampling(given);
  return {
    temperature: options.temperature ?? usual.temperature,
    topK: options.topK ?? usual.topK,
    topP: options.topP ?? usual.topP,
    minP: options.minP ?? usual.minP,
    repetitionPenalty: options.repetitionPenalty ?? usual.repetitionPenalty,
    presencePenalty: options.presencePenalty,
    frequencyPenalty: options.frequencyPenalty,
    maxTokens: options.maxTokens ?? given?.maxNewTokens ?? usualTokens,
  };
}

/** Streams the text to stdout: the prompt, then each piece as it comes. */
async function run({ model: folder, prompt, dtype, seed, stop, ...options }: GenerateOptions): Promise<void> {
  const tokenizer = openTokenizer(folder);
  const ids = promptIds(tokenizer, prompt);
  const given = readGenerationConfig(folder);
  const guessing = await openGuessing({ ...options, dtype }, tokenizer);
  const model = await openModel(folder, dtype);
  checkTokenizerFits(folder, tokenizer, model.config);
  const chosen = generationSettings(options, given);
  const settings = { ...chosen, seed, stop, stopIds: endOfText(model.config, tokenizer) };
  const waiting = sayWaiting("Compiling kernels …");
  const pieces = guessing
    ? textPieces(guessing.tokens(model, ids, settings), tokenizer, ids, stop)
    : generateText(model, tokenizer, ids, settings);
  let shown = prompt;
  for await (const piece of pieces) {
    waiting.end();
    await print(shown + piece);
    shown = "";
  }
  waiting.end();
  await print(`${shown}\n`);
  if (guessing) process.stderr.write(`${guessing.sentence()}\n`);
}

/** Says on a terminal what is being waited for, until it has come. */
function sayWaiting(text: string): { end(): void } {
  let isShown = process.stderr.isTTY === true;
  if (isShown) process.stderr.write(text);
  return {
    end() {
      if (isShown) process.stderr.write("\r\x1b[K");
      isShown = false;
    },
  };
}

/** Prints, and waits until whoever reads has taken it. When nobody reads any more, `main` ends the process. */
function print(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}
