// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as path from "node:path";
import type { Tokenizer } from "../tokenizer/characters.js";
import { type CorpusRecord, type SourceRecord, croissant, datasetCard } from "./card.js";
import { type CorpusOptions, fileSize } from "./corpus.js";
import { fileChecksum, writeSynced } from "./files.js";
import { type Manifest, SHARD_FORMAT, type SourceShare, type TextSource, jointEntropy } from "./manifest.js";
import { tokenLayout } from "./shards.js";
import type { CorpusState } from "./state.js";
import { surveyedFiles } from "./survey.js";

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-steps
/** What was done to the text of a corpus, one sentence each. */
export function corpusSteps({
  normal = [],
  filters = [],
  dedup = [],
  contamination = [],
}: CorpusOptions): string[] {
  const names = contamination.map((file) => path.basename(file)).join(", ");
  return [
    normal.length > 0 ? `The text was normalised: ${normal.join(", ")}.` : "",
    filters.length > 0 ? `Documents that a filter rejects were left out: ${filters.join(", ")}.` : "",
    contamination.length > 0 ? `Documents with 13 words in a row in common with ${names} were left out.` : "",
    dedup.includes("exact")
      ? "Of documents with the same text (but for white space) the first was kept."
      : "",
    dedup.includes("near")
      ? "Of documents that are nearly the same (Jaccard similarity of about 0.8 or more) the first was kept."
      : "",
  ].filter((step) => step !== "");
}

//| 01-tokenizer/a-the-pipeline.ipynb#known-origin
/** The licence and the address in `file.json` beside a file that `tslm data get` fetched, if it speaks of these very bytes. */
export function knownOrigin(file: string, sha256: string): { license?: string; url?: string } {
  try {
    const card = JSON.parse(fs.readFileSync(`${file}.json`, "utf8"));
    return card.kind === "download" && card.sha256 === sha256 ? { license: card.license, url: card.url } : {};
  } catch {
    return {}; // no such file, or another program's
  }
}

/** The sources with their licence and address; of a source with one file, what is known of that, where nothing was said. */
export function withOrigins({ sources }: CorpusOptions, { mixture, survey }: CorpusState): SourceShare[] {
  const files = surveyedFiles(sources, survey!);
  return mixture.map((share, i) => {
    const [only, ...others] = files.filter(({ source }) => source === i);
    const origin = others.length === 0 ? knownOrigin(only.file, only.about.sha256) : {};
    return { ...share, license: share.license ?? origin.license, url: share.url ?? origin.url };
  });
}

//| 01-tokenizer/a-the-pipeline.ipynb#count-documents
/** Counts per source what was read, kept and dropped. `reasons[v - 1]` is what verdict v says. */
export function countDocuments(
  { sources }: CorpusOptions,
  { mixture, survey }: CorpusState,
  verdicts: Uint8Array,
  reasons: string[],
): void {
  for (const share of mixture) share.documents = { read: 0, kept: 0, dropped: {} };
  for (const { source, count, unreadable, first } of surveyedFiles(sources, survey!)) {
    const { documents } = mixture[source];
    const drop = (reason: string, dropped: number) => {
      if (dropped > 0) documents.dropped[reason] = (documents.dropped[reason] ?? 0) + dropped;
    };
    documents.read += count + unreadable;
    drop("unreadable", unreadable);
    for (let number = first; number < first + count; number++) {
      if (verdicts[number]) drop(reasons[verdicts[number] - 1], 1);
      else documents.kept++;
    }
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-manifest
/** What a finished run says of itself, once the checksums of its shards are known. */
export function corpusManifest(
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
  tokenizer: Tokenizer,
): Manifest {
  const { splits, survey } = state;
  const mixture = withOrigins(options, state);
  for (const shard of [...splits.train.shards, ...splits.val.shards])
    shard.sha256 = fileChecksum(path.join(partial, shard.file));
  const sources = survey!.files.map(({ about }) => about);
  const whole = mixture.every((share) => share.documents.kept === share.documents.read);
  return {
    ...SHARD_FORMAT,
    tokenizer: "tokenizer.json",
    ...tokenLayout(tokenizer),
    val_fraction: options.valFraction ?? 0.1,
    steps: corpusSteps(options),
    sources,
    mixture,
    ...(whole ? jointEntropy(sources) : {}),
    splits,
  };
}

//| 01-tokenizer/a-the-pipeline.ipynb#source-record
/** A source as a dataset card has it; `about` are its files as the manifest knows them. */
export function sourceRecord(share: SourceShare, files: string[], about: TextSource[]): SourceRecord {
  const { name, license = "unknown", url, weight } = share;
  const records = about.map((entry, i) => ({
    file: entry.file,
    sha256: entry.sha256,
    bytes: fileSize(files[i]),
  }));
  return { name, license, url, weight, documents: share.documents, files: records };
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-card
/** Writes README.md and croissant.json into a folder of shards. */
export function writeCards(partial: string, name: string, options: CorpusOptions, manifest: Manifest): void {
  if (!options.maker) return;
  const { mixture = [], splits, steps = [], dtype } = manifest;
  const shards = [...splits.train.shards, ...splits.val.shards];
  const filesOf = (share: SourceShare) => manifest.sources.filter((entry) => entry.source === share.name);
  const record: CorpusRecord = {
    name,
    description: `Token shards: ${splits.train.tokens} tokens to learn from and ${splits.val.tokens} to validate with.`,
    version: "1.0.0",
    created: options.maker.on,
    creator: { type: "Organization", name: options.maker.by },
    url: "./",
    languages: ["und"], // undetermined: nobody said
    steps,
    sources: mixture.map((share, i) => sourceRecord(share, options.sources[i].files, filesOf(share))),
    files: shards.map(({ file, sha256, tokens }) => ({
      file,
      sha256,
      bytes: tokens * (dtype === "u16" ? 2 : 4),
    })),
  };
  writeSynced(path.join(partial, "README.md"), datasetCard(record));
  writeSynced(path.join(partial, "croissant.json"), `${JSON.stringify(croissant(record), null, 2)}\n`);
}
