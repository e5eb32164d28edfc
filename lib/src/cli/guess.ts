// Guessing ahead on the command line: a smaller model, or a lookup in the text itself.
import { type Command, Option } from "commander";
import type { GenerateSettings } from "../infer/generate.js";
import { type Draft, checkVocabulary, lookupDraft, modelDraft, speculate } from "../infer/speculate.js";
import type { Model } from "../model/structure.js";
import type { ModelDtype } from "../model/weights.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { openModel } from "./model.js";
import { checkTokenizerFits, openTokenizer } from "./open-tokenizer.js";
import { wholeNumber } from "./options.js";
import { UsageError } from "./run.js";

/** The options that say who guesses. */
export interface GuessingOptions {
  draft?: string;
  lookup?: boolean;
  draftTokens?: number;
}

/** Guesses where nobody says how many. */
const usualDraftTokens = 4;

/** Adds the options that say who guesses. */
export function addGuessingOptions(command: Command): Command {
  const draft = "a smaller model with the same tokens that guesses ahead: a folder or a .gguf file";
  const lookup =
    "guess ahead by what followed the same words earlier in the text; does not change what is written";
  const tokens = `tokens that are guessed before the model checks them (default: ${usualDraftTokens})`;
  return command
    .addOption(new Option("--draft <dir>", draft).conflicts("lookup"))
    .option("--lookup", lookup)
    .option("--draft-tokens <n>", tokens, wholeNumber(1));
}

/** Writing with guesses, and how often they were right. */
export interface Guessing {
  tokens(model: Model, ids: ArrayLike<number>, settings: GenerateSettings): AsyncGenerator<number>;
  sentence(): string;
}

/** A smaller model that guesses. Errors name its folder. */
async function openDraft(folder: string, dtype: ModelDtype, tokenizer: Tokenizer): Promise<Draft> {
  const own = openTokenizer(folder);
  try {
    checkVocabulary(tokenizer, own);
  } catch (error) {
    throw new Error(`${folder}: ${(error as Error).message}`);
  }
  const model = await openModel(folder, dtype);
  checkTokenizerFits(folder, own, model.config);
  return modelDraft(model);
}

/** Opens the draft that the options ask for; undefined where they ask for none. Throws unless it has the model's tokens. */
export async function openGuessing(
  { draft: folder, lookup, draftTokens, dtype }: GuessingOptions & { dtype: ModelDtype },
  tokenizer: Tokenizer,
): Promise<Guessing | undefined> {
  if (!folder && !lookup) {
    if (draftTokens === undefined) return undefined;
    throw new UsageError("--draft-tokens is for guessing ahead: give --draft or --lookup too.");
  }
  const draft = folder ? await openDraft(folder, dtype, tokenizer) : lookupDraft();
  const counts = { passes: 0, guessed: 0, kept: 0 };
  const onPass = (guessed: number, kept: number) => {
    counts.passes += 1;
    counts.guessed += guessed;
    counts.kept += kept;
  };
  return {
    tokens(model, ids, settings) {
      const more = { vocabSize: tokenizer.vocabSize, draftTokens: draftTokens ?? usualDraftTokens, onPass };
      return speculate(model, ids, { ...settings, ...more }, draft);
    },
    sentence() {
      const { passes, guessed, kept } = counts;
      const share = guessed === 0 ? "" : ` (${Math.round((100 * kept) / guessed)} %)`;
      const perPass = passes === 0 ? 0 : (passes + kept) / passes;
      return `${kept} of ${guessed} guesses were kept${share}: ${perPass.toFixed(2)} tokens a pass.`;
    },
  };
}
