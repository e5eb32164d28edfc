// What `data inspect` finds out about prepared data: all its tokens are read once.
import fs from "node:fs";
import path from "node:path";
import type { Manifest, SourceShare } from "../data/manifest.js";
import { type OpenShards, type TokenSource, documentSeparator } from "../data/shards.js";
import type { OverlapReport } from "./inspect-overlap.js";
import { startProgress } from "./progress.js";

/** Lengths of documents in tokens: how many documents have each. */
export type Lengths = Map<number, number>;

/** What is known of one source. */
export interface SourceReport {
  name: string;
  license: string;
  url?: string;
  weight?: number;
  documents?: SourceShare["documents"];
  train: { tokens: number; bytes: number };
  val: { tokens: number; bytes: number };
  bytes_per_token: number;
  /** Of the training documents, in tokens; the rest of a document that validation took is one too. */
  lengths: { documents: number; mean: number; median: number; p95: number; longest: number };
}

/** What `data inspect` finds. */
export interface DataReport {
  folder: string;
  vocab_size: number;
  steps: string[];
  sources: SourceReport[];
  entropy_bits_per_byte?: number;
  /** Tokens of the vocabulary that training never sees, and the commonest ones with their counts. */
  unused_tokens: number;
  commonest: { text: string; count: number }[];
  dropped: { reason: string; at: string; text: string }[];
  samples: string[];
  /** Where it was asked for: what validation has in common with training. */
  overlap?: OverlapReport;
}

/** A report, and what only its plots need. */
export interface Inspected {
  report: DataReport;
  lengths: Lengths[];
  /** How often each token occurs, the commonest first. */
  counts: number[];
}

/** The sources of a manifest; those of older data are one without a name. */
function sourcesOf({ mixture, splits, sources }: Manifest): SourceShare[] {
  const whole = (split: Manifest["splits"]["train"]) => ({
    start: 0,
    tokens: split.tokens,
    bytes: split.bytes,
  });
  const documents = { read: sources.length, kept: sources.length, dropped: {} };
  return mixture ?? [{ name: "text", documents, train: whole(splits.train), val: whole(splits.val) }];
}

/** Reads all training tokens once. */
export function inspectData(folder: string, opened: OpenShards, samples: number): Inspected {
  const { manifest, tokenizer, train } = opened;
  const separator = manifest.separator ?? documentSeparator(tokenizer);
  const counts = new Float64Array(manifest.vocab_size);
  const progress = startProgress("Counting", train.length);
  const shares = sourcesOf(manifest);
  const lengths = shares.map(({ train: { start, tokens } }) =>
    countTokens(train, start, tokens, separator, counts, (done) => progress.update(done)),
  );
  progress.done(`${train.length.toLocaleString("en")} tokens`);
  const order = Array.from(counts.keys()).sort((a, b) => counts[b] - counts[a]);
  const text = (ids: ArrayLike<number>) => new TextDecoder().decode(tokenizer.decode(ids));
  const { vocab_size, steps = [], entropy_bits_per_byte } = manifest;
  const report: DataReport = {
    folder,
    vocab_size,
    steps,
    sources: shares.map((share, i) => sourceReport(share, lengths[i])),
    entropy_bits_per_byte,
    unused_tokens: order.filter((id) => counts[id] === 0 && id !== separator).length,
    commonest: order.slice(0, 20).map((id) => ({ text: text([id]), count: counts[id] })),
    dropped: droppedDocuments(folder),
    samples: sampleTexts(train, separator, samples, text),
  };
  return { report, lengths, counts: order.map((id) => counts[id]).filter((count) => count > 0) };
}

/** Adds the tokens of a stretch to `counts`, and gives the lengths of the documents in it. */
function countTokens(
  source: TokenSource,
  start: number,
  tokens: number,
  separator: number | undefined,
  counts: Float64Array,
  onTokens: (done: number) => void,
): Lengths {
  const lengths: Lengths = new Map();
  let length = 0;
  const end = () => {
    if (length > 0) lengths.set(length, (lengths.get(length) ?? 0) + 1);
    length = 0;
  };
  for (let at = start; at < start + tokens; at += 2 ** 20) {
    for (const id of source.read(at, Math.min(2 ** 20, start + tokens - at))) {
      counts[id]++;
      if (id === separator) end();
      else length++;
    }
    onTokens(at);
  }
  end();
  return lengths;
}

/** The length that a share `quantile` of documents does not exceed. */
export function lengthAt(lengths: Lengths, quantile: number): number {
  const sorted = [...lengths].sort(([a], [b]) => a - b);
  let left = quantile * sorted.reduce((sum, [, count]) => sum + count, 0);
  for (const [length, count] of sorted) {
    left -= count;
    if (left <= 0) return length;
  }
  return 0;
}

function sourceReport(share: SourceShare, lengths: Lengths): SourceReport {
  const { name, license = "unknown", url, weight, documents, train, val } = share;
  const count = [...lengths.values()].reduce((sum, documentCount) => sum + documentCount, 0);
  const tokens = [...lengths].reduce((sum, [length, documentCount]) => sum + length * documentCount, 0);
  const digits = (value: number) => Number(value.toFixed(3));
  return {
    ...{ name, license, url, weight, documents },
    train: { tokens: train.tokens, bytes: train.bytes },
    val: { tokens: val.tokens, bytes: val.bytes },
    bytes_per_token: digits((train.bytes + val.bytes) / Math.max(1, train.tokens + val.tokens)),
    lengths: {
      documents: count,
      mean: digits(tokens / Math.max(1, count)),
      median: lengthAt(lengths, 0.5),
      p95: lengthAt(lengths, 0.95),
      longest: Math.max(0, ...lengths.keys()),
    },
  };
}

/** Examples of documents that were left out, where preparing kept some. */
function droppedDocuments(folder: string): DataReport["dropped"] {
  const file = path.join(folder, "dropped.jsonl");
  if (!fs.existsSync(file)) return [];
  return fs
    .readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

/** The beginnings of documents spread evenly over a source: each is the first that begins behind its place. */
function sampleTexts(
  source: TokenSource,
  separator: number | undefined,
  count: number,
  text: (ids: ArrayLike<number>) => string,
): string[] {
  return Array.from({ length: count }, (_, i) => {
    const place = Math.floor((i * source.length) / count);
    const ids = source.read(place, Math.min(4096, source.length - place));
    const from = i === 0 || separator === undefined ? 0 : ids.indexOf(separator) + 1;
    const to = separator === undefined ? -1 : ids.indexOf(separator, from);
    return text(ids.subarray(from, Math.min(from + 200, to < 0 ? ids.length : to)));
  });
}
