import type { Command } from "commander";
import { openModel } from "./model.js";
import { numberBetween, wholeNumber } from "./options.js";
import { examples } from "./run.js";
import { openTokenizer } from "./open-tokenizer.js";
import { endOfText, generateText, promptIds } from "../infer/generate.js";

/** The options of `tslm generate`. */
interface GenerateOptions {
  model: string;
  prompt: string;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  seed: number;
  stop: string[];
}

/** `tslm generate`: continue a text. */
export function configure(command: Command): void {
  command
    .requiredOption("--model <dir>", "a folder with config.json, model.safetensors and tokenizer.json")
    .requiredOption("--prompt <text>", "the text to continue")
    .option("--max-tokens <n>", "new tokens at most", wholeNumber(1), 200)
    .option(
      "--temperature <t>",
      "below 1 surer, above 1 bolder; 0: the likeliest each time",
      numberBetween(0, 100),
      1,
    )
    .option("--top-k <k>", "choose among the k likeliest (0: all)", wholeNumber(0), 0)
    .option(
      "--top-p <p>",
      "choose among the likeliest that together have this probability",
      numberBetween(1e-9, 1),
      1,
    )
    .option(
      "--min-p <p>",
      "choose among those at least this fraction as likely as the likeliest",
      numberBetween(0, 0.999999),
      0,
    )
    .option("--seed <s>", "where the random numbers start", wholeNumber(0), 0)
    .option("--stop <text...>", "end before one of these texts appears", [])
    .action(run);
  examples(
    command,
    'npx tslm generate --model runs/default/model --prompt "Once upon a time" --temperature 0.8',
    'npx tslm generate --model runs/default/model --prompt "2 + 3 =" --temperature 0 --stop "."',
  );
}

/** Streams the text to stdout: the prompt, then each piece as it comes. */
async function run({ model: folder, prompt, ...options }: GenerateOptions): Promise<void> {
  const tokenizer = await openTokenizer(folder);
  const ids = promptIds(tokenizer, prompt);
  if (ids.length === 0)
    throw new Error(
      "The prompt is empty, and this tokenizer has no token that begins a text: give some text.",
    );
  const model = await openModel(folder);
  if (tokenizer.vocabSize > model.config.vocabSize)
    throw new Error(
      `${folder}: tokenizer.json has ${tokenizer.vocabSize} tokens, the model ${model.config.vocabSize}: they do not belong together.`,
    );
  const settings = { ...options, stopIds: endOfText(model.config, tokenizer) };
  let shown = prompt;
  for await (const piece of generateText(model, tokenizer, ids, settings)) {
    await print(shown + piece);
    shown = "";
  }
  await print(`${shown}\n`);
}

/** Prints, and waits until whoever reads has taken it. When nobody reads any more, `main` ends the process. */
function print(text: string): Promise<void> {
  return new Promise((resolve) => process.stdout.write(text, () => resolve()));
}
