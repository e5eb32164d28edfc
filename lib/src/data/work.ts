// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import type { Tokenizer } from "../tokenizer/characters.js";
import { loadTokenizer } from "../tokenizer/files.js";
import type {
  CheckedTexts,
  CorpusChecks,
  CorpusPart,
  CorpusWork,
  EncodedParts,
  WorkSettings,
} from "./corpus.js";
import { PERMUTATIONS, contentHash, textSignature } from "./duplicates.js";
import { type Benchmark, addToBenchmark, benchmarkRuns, overlapWith, rejectedBy } from "./filters.js";
import { documentSeparator, isForValidation } from "./shards.js";
import { documents } from "./sources.js";

//| 01-tokenizer/a-the-pipeline.ipynb#in-order
/** The results of `work` on each item, in the order of the items, with up to `width` of them being worked on at a time. */
export async function* inOrder<T, R>(
  items: AsyncIterable<T>,
  work: (item: T) => Promise<R>,
  width: number,
): AsyncGenerator<[item: T, result: R]> {
  const waiting: [T, Promise<R>][] = [];
  const first = async (): Promise<[T, R]> => {
    const [item, result] = waiting.shift()!;
    return [item, await result];
  };
  for await (const item of items) {
    const result = work(item);
    result.catch(() => {}); // whoever waits for it gets the error
    waiting.push([item, result]);
    if (waiting.length >= width) yield await first();
  }
  while (waiting.length > 0) yield await first();
}

//| 01-tokenizer/a-the-pipeline.ipynb#encode-named
/** The ids of a part of a document; an error says where it is from. */
export function encodePart(tokenizer: Tokenizer, { text, at, begins }: CorpusPart): Uint32Array {
  try {
    return tokenizer.encode(text, { continues: !begins });
  } catch (error) {
    throw new Error(`${at}: ${(error as Error).message}`);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#encode-parts
/** The ids of rows of ids, one after the other. */
export function joinedIds(rows: Uint32Array[]): Uint32Array {
  const ids = new Uint32Array(rows.reduce((sum, row) => sum + row.length, 0));
  let at = 0;
  for (const row of rows) {
    ids.set(row, at);
    at += row.length;
  }
  return ids;
}

/** Encodes parts of text. Before each document stands the separator, if the tokenizer has one. */
export function encodeParts(tokenizer: Tokenizer, parts: CorpusPart[], valFraction: number): EncodedParts {
  const separator = [documentSeparator(tokenizer) ?? []].flat();
  const [train, val] = [0, 1].map(() => ({ rows: [] as Uint32Array[], bytes: 0 }));
  for (const part of parts) {
    const { text, begins, split } = part;
    const isVal = split === "by hash" ? isForValidation(text, valFraction) : split === "val";
    const side = isVal ? val : train;
    if (begins) side.rows.push(Uint32Array.from(separator));
    side.rows.push(encodePart(tokenizer, part));
    side.bytes += Buffer.byteLength(text);
  }
  const joined = ({ rows, bytes }: { rows: Uint32Array[]; bytes: number }) => ({
    ids: joinedIds(rows),
    bytes,
  });
  return { train: joined(train), val: joined(val) };
}

//| 01-tokenizer/a-the-pipeline.ipynb#check-texts
/** Why documents are left out, in the order in which it is looked for: verdict v is reason v - 1. */
export function dropReasons({ filters = [] }: CorpusChecks): string[] {
  return [...filters, "contaminated", "exact-duplicate", "near-duplicate"];
}

/** Holds texts against filters and a benchmark, and takes their hashes and signatures. An empty text is not checked. */
export function checkTexts(texts: string[], checks: CorpusChecks, benchmark: Benchmark): CheckedTexts {
  const { filters = [], dedup = [] } = checks;
  const verdicts = new Uint8Array(texts.length);
  const hashes = new Uint32Array(dedup.length > 0 ? 2 * texts.length : 0);
  const signatures = new Uint8Array(dedup.includes("near") ? PERMUTATIONS * texts.length : 0);
  texts.forEach((text, i) => {
    if (text === "") return;
    const filter = filters.length > 0 ? rejectedBy(text, filters) : undefined;
    if (filter !== undefined) verdicts[i] = 1 + filters.indexOf(filter);
    else if (benchmark.runs.size > 0 && overlapWith(benchmark, text)) verdicts[i] = 1 + filters.length;
    if (verdicts[i] !== 0) return;
    if (hashes.length > 0) hashes.set(contentHash(text), 2 * i);
    if (signatures.length > 0) signatures.set(textSignature(text), PERMUTATIONS * i);
  });
  return { verdicts, hashes, signatures };
}

//| 01-tokenizer/a-the-pipeline.ipynb#read-benchmark
/** The texts of some files as a benchmark; a long text counts part by part. */
export async function readBenchmark(files: string[]): Promise<Benchmark> {
  const benchmark = benchmarkRuns([]);
  for (const file of files) for await (const { text } of documents(file)) addToBenchmark(benchmark, text);
  return benchmark;
}

//| 01-tokenizer/a-the-pipeline.ipynb#work-here
/** The work done in the thread that calls. */
export function workHere({ tokenizer, valFraction, checks }: WorkSettings): CorpusWork {
  const encoder = tokenizer && loadTokenizer(tokenizer);
  const benchmark = readBenchmark(checks.contamination ?? []);
  benchmark.catch(() => {}); // whoever checks a text gets the error
  return {
    width: 1,
    encode: async (parts) => encodeParts(encoder!, parts, valFraction),
    check: async (texts) => checkTexts(texts, checks, await benchmark),
    close: async () => {},
  };
}
