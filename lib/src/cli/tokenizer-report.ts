// What `tslm tokenizer inspect` reports: what a tokenizer is, and how it does on a text.
import type { Tokenizer } from "../tokenizer/characters.js";
import { documentLists } from "./read-documents.js";
import { bytesOfToken, tokenCounts, unreachableTokens } from "../tokenizer/measure.js";

/** A value of the report on one line. */
export function shownValue(value: unknown): string {
  if (Array.isArray(value)) return value.map((item) => JSON.stringify(item)).join("  ");
  if (typeof value !== "object" || value === null) return String(value);
  return Object.entries(value)
    .map(([name, id]) => `${name} ${id}`)
    .join("  ");
}

/** How many tokens are given as examples. */
const shownTokens = 10;

/** What can be said of a tokenizer without a text. */
export function vocabularyReport(tokenizer: Tokenizer): object {
  const specials = new Set(Object.values(tokenizer.specials));
  const tokens = Array.from({ length: tokenizer.vocabSize }, (_, id) => ({
    id,
    bytes: bytesOfToken(tokenizer, id),
  }));
  const byLength = tokens
    .filter(({ id, bytes }) => bytes && !specials.has(id))
    .sort((a, b) => b.bytes!.length - a.bytes!.length);
  const unreachable = unreachableTokens(tokenizer);
  const textOf = (id: number) => new TextDecoder().decode(tokens[id].bytes);
  return {
    vocabulary: tokenizer.vocabSize,
    special: tokenizer.specials,
    pattern: patternsOf(tokenizer.toJson()),
    longest: byLength.slice(0, shownTokens).map(({ id }) => textOf(id)),
    unreachable: unreachable.length,
    unreachable_such_as: unreachable.slice(0, shownTokens).map(textOf),
  };
}

/** The patterns in the pre-tokenizer of a tokenizer.json. */
function patternsOf(json: object): string[] {
  const patterns: string[] = [];
  JSON.stringify(Object(json).pre_tokenizer, (key, value) => {
    if (key === "Regex" || key === "String") patterns.push(value);
    return value;
  });
  return patterns;
}

/** How a tokenizer does on the documents of files; nothing without files. */
export async function textReport(tokenizer: Tokenizer, files: string[], textField: string): Promise<object> {
  if (files.length === 0) return {};
  const counts = new Float64Array(tokenizer.vocabSize);
  let bytes = 0;
  for await (const texts of documentLists(files, { textField })) {
    for (const text of texts) bytes += Buffer.byteLength(text);
    tokenCounts(tokenizer, texts).forEach((count, id) => {
      counts[id] += count;
    });
  }
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  if (tokens === 0) throw new Error(`There is no text in ${files.join(", ")}.`);
  const ids = Array.from(counts.keys());
  return {
    bytes,
    tokens,
    bytes_per_token: Number((bytes / tokens).toFixed(4)),
    unused: ids.filter((id) => counts[id] === 0).length,
    used_once: ids.filter((id) => counts[id] === 1).length,
    commonest: ids
      .sort((a, b) => counts[b] - counts[a])
      .slice(0, shownTokens)
      .map((id) => new TextDecoder().decode(bytesOfToken(tokenizer, id))),
  };
}
