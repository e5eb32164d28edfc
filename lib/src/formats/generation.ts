// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import { z } from "zod";
import type { ModelConfig } from "./config.js";
import { isRecord, readKeys, shown, withoutNulls } from "./keys.js";

//| 03-moe/a-files-of-weights.ipynb#generation-config
/** What a generation_config.json says of how a model continues a text. */
export interface GenerationConfig {
  /** The ids that end a text. */
  eosTokenIds: number[];
  bosTokenId?: number;
  /** Whether the next token is drawn (true) or the likeliest. */
  doSample?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  maxNewTokens?: number;
}

//| 03-moe/a-files-of-weights.ipynb#parse-generation-parts
/** The schema of the keys of a generation_config.json that we read. */
export function generationSchema() {
  const count = { error: "a whole number from 0 up" };
  const id = z.int(count).nonnegative(count);
  const share = { error: "a number from 0 to 1" };
  const unit = z.number(share).min(0, share).max(1, share).optional();
  const zeroUp = { error: "a number from 0 to 1000" };
  const factor = z.number(zeroUp).min(0, zeroUp).max(1000, zeroUp).optional();
  return z.object({
    eos_token_id: z.union([id, z.array(id)], { error: "a token id or a list of token ids" }).optional(),
    bos_token_id: id.optional(),
    do_sample: z.boolean({ error: "true or false" }).optional(),
    temperature: factor,
    top_k: id.optional(),
    top_p: unit,
    min_p: unit,
    repetition_penalty: factor,
    max_new_tokens: id.optional(),
  });
}

/** The ids that end a text: those of config.json and those of generation_config.json, each once. */
export function stopTokenIds(config: ModelConfig, generation?: GenerationConfig): number[] {
  return [...new Set([...config.eosTokenIds, ...(generation?.eosTokenIds ?? [])])];
}

//| 03-moe/a-files-of-weights.ipynb#parse-generation
/**
 * Reads a generation_config.json, given as parsed JSON; null means "not given". Throws one sentence that names the key that
 * is malformed. Keys that we do not know are let be.
 */
export function parseGenerationConfig(json: unknown): GenerationConfig {
  if (!isRecord(json)) throw new Error("It must be a JSON object.");
  const keys = readKeys(generationSchema(), withoutNulls(json));
  return {
    eosTokenIds: [keys.eos_token_id ?? []].flat(),
    bosTokenId: keys.bos_token_id,
    doSample: keys.do_sample,
    temperature: keys.temperature,
    topK: keys.top_k,
    topP: keys.top_p,
    minP: keys.min_p,
    repetitionPenalty: keys.repetition_penalty,
    maxNewTokens: keys.max_new_tokens,
  };
}

//| 03-moe/a-files-of-weights.ipynb#chat-template
/**
 * The chat template of a model: of chat_template.jinja, else of tokenizer_config.json (parsed), where it is a text, or a list in
 * which one is named "default". `warnings` says what was ignored if the two differ. Throws one sentence for a malformed one.
 */
export function chatTemplateOf(
  tokenizerConfig: unknown,
  jinja?: string,
): { template?: string; warnings: string[] } {
  const given = (isRecord(tokenizerConfig) ? tokenizerConfig.chat_template : undefined) ?? undefined;
  const defaultTemplate = Array.isArray(given)
    ? given.find((entry) => isRecord(entry) && entry.name === "default")
    : undefined;
  const inside = Array.isArray(given)
    ? (defaultTemplate as { template?: unknown } | undefined)?.template
    : given;
  if (inside !== undefined && typeof inside !== "string")
    throw new Error(`chat_template must be text, or a list of named templates, not ${shown(given)}.`);
  const text = inside as string | undefined;
  if (jinja === undefined || text === undefined || text === jinja)
    return { template: jinja ?? text, warnings: [] };
  const warning =
    "chat_template in tokenizer_config.json is ignored, because chat_template.jinja says something else.";
  return { template: jinja, warnings: [warning] };
}

//| 03-moe/a-files-of-weights.ipynb#folder-json
/** The special tokens of a model, as others want to be told of them. */
export interface TextEnds {
  /** The id that begins a text, and its name. */
  bos?: { id: number; name?: string };
  /** The ids that end a text, the usual one first, and their names. */
  eos: { id: number; name?: string }[];
}

/** The content of generation_config.json: where a text begins and ends, and sampling that suits a small model. */
export function generationConfigToJson({ bos, eos }: TextEnds): Record<string, unknown> {
  const ids = eos.map(({ id }) => id);
  return {
    ...(bos ? { bos_token_id: bos.id } : {}),
    do_sample: true,
    eos_token_id: ids.length > 1 ? ids : (ids[0] ?? null),
    ...(ids.length > 0 ? { pad_token_id: ids[0] } : {}),
    temperature: 0.8,
    top_p: 0.95,
  };
}

/**
 * The content of the tokenizer_config.json beside a tokenizer.json: the file is to be taken as it is, `contextLength` tokens are
 * the most, and no blank is removed from a decoded text. Texts of a batch are filled up on their left, with the token that ends one.
 */
export function tokenizerConfigToJson(
  { bos, eos }: TextEnds,
  contextLength: number,
  chatTemplate?: string,
): Record<string, unknown> {
  return {
    ...(bos?.name === undefined ? {} : { bos_token: bos.name }),
    ...(chatTemplate === undefined ? {} : { chat_template: chatTemplate }),
    clean_up_tokenization_spaces: false,
    ...(eos[0]?.name === undefined ? {} : { eos_token: eos[0].name }),
    model_max_length: contextLength,
    ...(eos[0]?.name === undefined ? {} : { pad_token: eos[0].name }),
    padding_side: "left",
    tokenizer_class: "PreTrainedTokenizerFast",
  };
}
