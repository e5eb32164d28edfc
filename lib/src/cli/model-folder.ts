// What a folder with a model holds, so that it opens here and in transformers alike: one function for every command that leaves one.
import fs from "node:fs";
import path from "node:path";
import type { ModelConfig } from "../formats/config.js";
import { modelConfigText } from "../model/config.js";
import {
  type TextEnds,
  chatTemplateOf,
  generationConfigToJson,
  tokenizerConfigToJson,
} from "../formats/generation.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { readJson, readText } from "./files.js";
import { ggufChatTemplate, isGguf } from "./gguf.js";
import { documentSeparator } from "../data/shards.js";

/** What a model folder is made of. */
export interface ModelParts<Weights = string | Uint8Array | Iterable<Uint8Array>> {
  config: ModelConfig;
  /** The type of the numbers in the files of weights; F32 unless given. */
  dtype?: "F32" | "F16" | "BF16";
  /** The files of weights by name, and their index where there are several. */
  weights: Record<string, Weights>;
  tokenizer?: Tokenizer;
  chatTemplate?: string;
  /** The text of README.md. */
  card?: string;
}

/**
 * The files of a model folder by their names, always the same for the same parts. Without a tokenizer there are only the
 * model's own; with one, the ids that begin and end a text are named in all files where programs look for them.
 */
export function modelFolder<Weights>(parts: ModelParts<Weights>): Record<string, string | Weights> {
  const { config, dtype, weights, tokenizer, chatTemplate, card } = parts;
  const ends = textEnds(config, tokenizer);
  const whole = { ...config, bosTokenId: ends.bos?.id, eosTokenIds: ends.eos.map(({ id }) => id) };
  const json = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
  return {
    "config.json": modelConfigText(whole, dtype),
    ...weights,
    "generation_config.json": json(generationConfigToJson(ends)),
    ...(tokenizer && {
      "tokenizer.json": JSON.stringify(tokenizer.toJson()),
      "tokenizer_config.json": json(tokenizerConfigToJson(ends, config.contextLength, chatTemplate)),
    }),
    ...(tokenizer && chatTemplate !== undefined && { "chat_template.jinja": chatTemplate }),
    ...(card !== undefined && { "README.md": card }),
  };
}

/** Where texts begin and end: as the configuration says, else as the tokenizer does, with the tokens' names. */
export function textEnds(config: ModelConfig, tokenizer?: Tokenizer): TextEnds {
  const names = new Map(Object.entries(tokenizer?.specials ?? {}).map(([name, id]) => [id, name]));
  const separator = tokenizer && documentSeparator(tokenizer);
  const before = tokenizer?.around?.before ?? [];
  const bos = config.bosTokenId ?? (before.length === 1 ? before[0] : undefined);
  const eos = config.eosTokenIds.length > 0 || separator === undefined ? config.eosTokenIds : [separator];
  const withName = (id: number) => ({ id, name: names.get(id) });
  return { ...(bos === undefined ? {} : { bos: withName(bos) }), eos: eos.map(withName) };
}

const chatTemplates = new Map<string, string | undefined>();

/**
 * The chat template beside a tokenizer (a folder, or a file in one), where there is one. It is read once; what is ignored is
 * said on stderr. Errors name the folder.
 */
export function readChatTemplate(tokenizer: string): string | undefined {
  if (isGguf(tokenizer)) return ggufChatTemplate(tokenizer);
  if (!fs.existsSync(tokenizer)) return undefined; // "char" and "bytes", or data that was prepared elsewhere
  const folder = fs.statSync(tokenizer).isDirectory() ? tokenizer : path.dirname(tokenizer);
  if (chatTemplates.has(folder)) return chatTemplates.get(folder);
  const [config, jinja] = ["tokenizer_config.json", "chat_template.jinja"].map((name) =>
    path.join(folder, name),
  );
  const json = fs.existsSync(config) ? readJson(config) : undefined;
  const text = fs.existsSync(jinja) ? readText(jinja) : undefined;
  try {
    const { template, warnings } = chatTemplateOf(json, text);
    for (const warning of warnings) process.stderr.write(`${folder}: ${warning}\n`);
    chatTemplates.set(folder, template);
    return template;
  } catch (error) {
    throw new Error(`${folder}: ${(error as Error).message}`);
  }
}
