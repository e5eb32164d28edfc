// The tokenizer that a command is told to use.
import fs from "node:fs";
import path from "node:path";
import type { ModelConfig } from "../formats/config.js";
import type { Tokenizer } from "../tokenizer/characters.js";
import { loadTiktoken, loadTokenizer } from "../tokenizer/files.js";
import { byteTokenizer } from "../tokenizer/merges.js";
import type { PatternName } from "../tokenizer/pretokenize.js";
import { readBytes, readJson } from "./files.js";
import { ggufTokenizer, isGguf } from "./gguf.js";
import "./limit.js";
import { UsageError } from "./run.js";

/** The patterns by which a .tiktoken file may cut text; the file does not say which. */
export const patternNames: PatternName[] = ["gpt2", "p50k_edit", "cl100k", "o200k", "qwen2", "llama3"];

/**
 * The tokenizer in a tokenizer.json, in a folder with one, or in a .tiktoken file with the name of its pattern; or the one of
 * bytes where `name` is "bytes". A .gguf file has one too. Errors name the file.
 */
export function openTokenizer(name: string, pattern?: PatternName): Tokenizer {
  const isList = name.endsWith(".tiktoken");
  if (pattern && !isList) throw new UsageError(`--pattern is for .tiktoken files, and ${name} is none.`);
  if (name === "bytes") return byteTokenizer();
  const isFolder = fs.existsSync(name) && fs.statSync(name).isDirectory();
  const file =
    isList || isGguf(name) || name.endsWith(".json") || (fs.existsSync(name) && !isFolder)
      ? name
      : path.join(name, "tokenizer.json");
  if (isList && !pattern)
    throw new UsageError(`${file} does not say how to cut text: give --pattern ${patternNames.join("|")}.`);
  try {
    const json = () => (isGguf(file) ? ggufTokenizer(file) : Object(readJson(file)));
    const opened = isList ? loadTiktoken(readBytes(file), pattern!) : loadTokenizer(json());
    for (const note of opened.notes ?? []) process.stderr.write(`${file}: ${note}\n`);
    return opened;
  } catch (error) {
    if (!(error instanceof Error) || "code" in error || error.message.startsWith(file)) throw error;
    throw new Error(`${file}: ${error.message}`);
  }
}

/** Throws for a tokenizer that has tokens of which the model beside it knows nothing. */
export function checkTokenizerFits(name: string, tokenizer: Tokenizer, config: ModelConfig): void {
  if (tokenizer.vocabSize <= config.vocabSize) return;
  const file = isGguf(name) ? "its tokenizer" : "tokenizer.json";
  throw new Error(
    `${name}: ${file} has ${tokenizer.vocabSize} tokens, the model ${config.vocabSize}: they do not belong together.`,
  );
}
