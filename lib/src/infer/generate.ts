// Extracted from chapters/05-inference/3-many-at-once.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { blockTokens } from "../kernels/flash.js";
import type { Model } from "../model/structure.js";
import { type Tokenizer, streamDecoder } from "../tokenizer/characters.js";
import { type Engine, openEngine } from "./engine.js";
import { type SamplingSettings, plainSampling, stopFilter } from "./sampling.js";

//| 05-inference/3-many-at-once.ipynb#generate-settings
/** What to generate. */
export interface GenerateSettings extends SamplingSettings {
  /** New tokens at most; fewer when a stop is met. */
  maxTokens: number;
  /** The same seed gives the same text. */
  seed: number;
  /** Tokens that end the text, such as the end of a document. They are not part of it. */
  stopIds: number[];
  /** Only ids below it are chosen: a model may have more rows than its tokenizer has tokens. All, unless given. */
  vocabSize?: number;
}

/** Settings that only need `maxTokens`. */
export const plainGenerate: Omit<GenerateSettings, "maxTokens"> = { ...plainSampling, seed: 0, stopIds: [] };

//| 05-inference/3-many-at-once.ipynb#generate
/**
 * Continues `prompt` (ids) token by token. When the model's context is full, it forgets the earlier half of the text and
 * goes on. Leaving the loop early is fine. Throws for an empty prompt, ids outside of the vocabulary, and a prompt longer
 * than the model's context. Without an `engine` it opens one of its own; a given one stays open.
 */
export async function* generate(
  model: Model,
  prompt: ArrayLike<number>,
  settings: GenerateSettings,
  engine?: Engine,
): AsyncGenerator<number> {
  const { maxTokens, seed, stopIds, vocabSize, ...sampling } = settings;
  const size = Math.min(model.config.contextLength, prompt.length + maxTokens);
  const own = engine ?? openEngine(model, { maxSequences: 1, blocks: Math.ceil(size / blockTokens) });
  let text = Array.from(prompt);
  try {
    for (let drawn = 0; drawn < maxTokens; text = text.slice(-Math.floor(text.length / 2))) {
      const request = {
        prompt: text,
        maxTokens: maxTokens - drawn,
        seed,
        stopIds,
        vocabSize,
        sampling,
        drawn,
      };
      const [choice] = own.submit(request);
      for await (const { id } of choice.tokens) {
        yield id;
        text.push(id);
        drawn += 1;
      }
      if (choice.finishReason !== "length") return;
    }
  } finally {
    if (!engine) await own.close();
  }
}

//| 05-inference/3-many-at-once.ipynb#text-ends
/** The ids that end a text: those of the model's configuration, else the tokenizer's `<|endoftext|>` where it has one. */
export function endOfText({ eosTokenIds }: ModelConfig, { specials }: Tokenizer): number[] {
  if (eosTokenIds.length > 0) return eosTokenIds;
  return "<|endoftext|>" in specials ? [specials["<|endoftext|>"]] : [];
}

/**
 * The ids of a prompt, after those that the tokenizer's file puts before a text. An empty one begins a new document, where the
 * tokenizer can say so. Throws where there is nothing to begin with.
 */
export function promptIds(tokenizer: Tokenizer, prompt: string): Uint32Array {
  const before = tokenizer.around?.before ?? [];
  const start = tokenizer.specials["<|endoftext|>"];
  if (prompt === "" && before.length === 0 && start !== undefined) return Uint32Array.of(start);
  const ids = Uint32Array.from([...before, ...tokenizer.encode(prompt)]);
  if (ids.length > 0) return ids;
  throw new Error("The prompt is empty, and this tokenizer has no token that begins a text: give some text.");
}

//| 05-inference/3-many-at-once.ipynb#text-pieces
/** The text of tokens that follow `ids`, in pieces of whole characters, up to the first of `stop`. */
export async function* textPieces(
  tokens: AsyncIterable<number>,
  tokenizer: Tokenizer,
  ids: ArrayLike<number>,
  stop: string[],
): AsyncGenerator<string> {
  const decoder = streamDecoder(tokenizer, ids);
  const filter = stopFilter(stop);
  for await (const id of tokens) {
    const { text, stopped } = filter.push(decoder.push(id));
    if (text !== "") yield text;
    if (stopped) return;
  }
  const { text, stopped } = filter.push(decoder.end());
  yield stopped ? text : text + filter.end();
}

//| 05-inference/3-many-at-once.ipynb#generate-text
/** Continues a text, or the ids of one, and gives what follows in pieces, whole characters only, up to the first of `stop`. */
export async function* generateText(
  model: Model,
  tokenizer: Tokenizer,
  prompt: string | ArrayLike<number>,
  settings: GenerateSettings & { stop?: string[] },
  engine?: Engine,
): AsyncGenerator<string> {
  const ids = typeof prompt === "string" ? promptIds(tokenizer, prompt) : prompt;
  const tokens = generate(model, ids, { ...settings, vocabSize: tokenizer.vocabSize }, engine);
  yield* textPieces(tokens, tokenizer, ids, settings.stop ?? []);
}
