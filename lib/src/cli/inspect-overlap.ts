// How much of the validation text stands in the training text too: a loss on what was learned by heart says nothing.
import { type OpenShards, type TokenSource, documentSeparator } from "../data/shards.js";
import { startProgress } from "./progress.js";
import { hashSet, wordHashes } from "../data/duplicates.js";
import { eachRun, wordRange } from "../data/filters.js";

/** Validation documents that have 13 words in a row in common with a training document. */
export interface OverlapReport {
  /** Validation documents that were looked at: from the first on, up to some two million words. */
  documents: number;
  overlapping: number;
  /** The first such run of words. */
  example?: string;
}

const block = 2 ** 20;
const runWords = 13;
const mostWords = 2 ** 21;

/** The ids of document after document, without separators; one of more than a million tokens comes in parts. */
function* documentIds(source: TokenSource, separator: number | undefined): Generator<Uint32Array> {
  let rest: Uint32Array = new Uint32Array(0);
  const joined = (ids: Uint32Array) => {
    if (rest.length === 0) return ids;
    const all = new Uint32Array(rest.length + ids.length);
    all.set(rest);
    all.set(ids, rest.length);
    return all;
  };
  for (let at = 0; at < source.length; at += block) {
    const ids = source.read(at, Math.min(block, source.length - at));
    let from = 0;
    for (let to = endOf(ids, separator, from); to >= 0; to = endOf(ids, separator, from)) {
      yield joined(ids.subarray(from, to));
      [rest, from] = [new Uint32Array(0), to + 1];
    }
    rest = joined(ids.subarray(from));
    if (rest.length < block) continue;
    yield rest;
    rest = new Uint32Array(0);
  }
  if (rest.length > 0) yield rest;
}

const endOf = (ids: Uint32Array, separator: number | undefined, from: number) =>
  separator === undefined ? -1 : ids.indexOf(separator, from);

/** Holds validation against training, document by document (Brown et al. 2020, appendix C, between the two splits). */
export function splitOverlap({ manifest, tokenizer, train, val }: OpenShards): OverlapReport {
  const separator = manifest.separator ?? documentSeparator(tokenizer);
  const textOf = (ids: Uint32Array) => new TextDecoder().decode(tokenizer.decode(ids));
  const [validationRuns, foundRuns] = [hashSet(), hashSet()];
  let [documents, words] = [0, 0];
  for (const ids of documentIds(val, separator)) {
    if (words > mostWords) break;
    const hashes = wordHashes(textOf(ids));
    words += hashes.length;
    if (hashes.length > 0) documents++;
    eachRun(hashes, runWords, (high, low) => validationRuns.add(high, low));
  }
  const progress = startProgress("Comparing the splits", train.length);
  let done = 0;
  for (const ids of documentIds(train, separator)) {
    eachRun(wordHashes(textOf(ids)), runWords, (high, low) => {
      if (validationRuns.has(high, low)) foundRuns.add(high, low);
    });
    done += ids.length + 1;
    progress.update(Math.min(done, train.length));
  }
  let [seen, overlapping] = [0, 0];
  let example: string | undefined;
  for (const ids of documentIds(val, separator)) {
    if (seen === documents) break;
    const text = textOf(ids);
    const hashes = wordHashes(text);
    if (hashes.length > 0) seen++;
    let first = -1;
    eachRun(hashes, runWords, (high, low, at) => {
      if (first < 0 && foundRuns.has(high, low)) first = at;
    });
    if (first < 0) continue;
    overlapping++;
    example ??= wordRange(text, first, first + runWords);
  }
  progress.done(`${documents.toLocaleString("en")} validation documents against training`);
  return { documents, overlapping, example };
}
