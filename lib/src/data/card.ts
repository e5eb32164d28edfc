// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as path from "node:path";
import { fileChecksum } from "./files.js";
import { FILTERS } from "./filters.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#card-types
/** A file that documents came from, or one that was made of them. */
export interface FileRecord {
  file: string;
  /** In hex. */
  sha256: string;
  bytes: number;
}

/** How many documents were read, and what became of them. */
export interface DocumentCounts {
  read: number;
  kept: number;
  /** By the reason: the name of a filter, or one of `DROP_REASONS`. */
  dropped: { [reason: string]: number };
}

/** Where documents came from. */
export interface SourceRecord {
  name: string;
  /** An SPDX identifier such as CC-BY-4.0, or "unknown". */
  license: string;
  /** Where it can be had. */
  url?: string;
  /** How often it is read, against the others; 1 unless told. */
  weight?: number;
  files: FileRecord[];
  documents: DocumentCounts;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#corpus-record
/** A corpus, with all that is known of it. */
export interface CorpusRecord {
  name: string;
  description: string;
  version: string;
  /** The day it was made: 2026-01-31. */
  created: string;
  creator: { type: "Person" | "Organization"; name: string };
  /** Its page; "./" if it is only where this file is. */
  url: string;
  /** Codes of ISO 639: en, de. */
  languages: string[];
  /** What was done to it, one sentence each. */
  steps: string[];
  sources: SourceRecord[];
  /** The files of the corpus itself. */
  files: FileRecord[];
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#count-documents
/** Why documents are dropped, other than by a filter. */
export const DROP_REASONS: { [reason: string]: string } = {
  unreadable: "could not be read",
  "exact-duplicate": "the same text as an earlier document, but for white space",
  "near-duplicate": "nearly the same text as an earlier document",
  contaminated: "has a run of words in common with a benchmark",
};

/** Counts one document: kept, or dropped for a reason. */
export function countDocument(counts: DocumentCounts, reason?: string): void {
  counts.read++;
  if (reason === undefined) counts.kept++;
  else counts.dropped[reason] = (counts.dropped[reason] ?? 0) + 1;
}

/** Counts of several sources together. */
export function totalCounts(sources: SourceRecord[]): DocumentCounts {
  const total: DocumentCounts = { read: 0, kept: 0, dropped: {} };
  for (const { documents } of sources) {
    total.read += documents.read;
    total.kept += documents.kept;
    for (const [reason, count] of Object.entries(documents.dropped))
      total.dropped[reason] = (total.dropped[reason] ?? 0) + count;
  }
  return total;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#file-record
/** What is on record of a file, by its name without the folders. */
export function fileRecord(file: string): FileRecord {
  return { file: path.basename(file), sha256: fileChecksum(file), bytes: fs.statSync(file).size };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#front-matter
/** Hugging Face's word for a number of documents: "10K<n<100K". */
export function sizeCategory(documents: number): string {
  if (documents < 1000) return "n<1K";
  const names = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"];
  const power = Math.min(Math.floor(Math.log10(documents) + 1e-9) - 3, names.length - 1);
  return power === names.length - 1 ? "n>1T" : `${names[power]}<n<${names[power + 1]}`;
}

/** The licences of all sources, each once. */
export function corpusLicences(record: CorpusRecord): string[] {
  return [...new Set(record.sources.map(({ license }) => license))].sort();
}

/** The lines at the head of a dataset card by which Hugging Face's hub finds it. */
export function frontMatter(record: CorpusRecord): string {
  const licences = corpusLicences(record).map((each) => each.toLowerCase()); // the hub's names are SPDX's in lower case
  const values = {
    pretty_name: record.name,
    license: licences.length === 1 ? licences[0] : licences,
    language: record.languages,
    task_categories: ["text-generation"],
    size_categories: [sizeCategory(totalCounts(record.sources).kept)],
  };
  return [
    "---",
    ...Object.entries(values).map(([key, value]) => `${key}: ${JSON.stringify(value)}`),
    "---",
  ].join("\n");
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#card-tables
/** A table in Markdown. */
export function markdownTable(head: string[], rows: (string | number)[][]): string {
  const line = (cells: (string | number)[]) =>
    `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** The sources of a corpus with their licences and counts. */
export function sourcesTable(sources: SourceRecord[]): string {
  const rows = sources.map(({ name, license, url, weight, files, documents }) => {
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    return [
      url ? `[${name}](${url})` : name,
      license,
      weight ?? 1,
      files.length,
      bytes,
      documents.read,
      documents.kept,
    ];
  });
  return markdownTable(["source", "licence", "weight", "files", "bytes", "documents read", "kept"], rows);
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#dropped-table
/** What was dropped, why, and how much of it. */
export function droppedTable(sources: SourceRecord[]): string {
  const { read, dropped } = totalCounts(sources);
  const rows = Object.entries(dropped).sort(([, a], [, b]) => b - a);
  const meaning = (reason: string) => DROP_REASONS[reason] ?? FILTERS[reason]?.objection ?? "";
  return markdownTable(
    ["reason", "meaning", "documents", "of those read"],
    rows.map(([reason, count]) => [reason, meaning(reason), count, `${((100 * count) / read).toFixed(1)} %`]),
  );
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#dataset-card
/** The `README.md` of a corpus: a dataset card as Hugging Face shows it. */
export function datasetCard(record: CorpusRecord): string {
  const { read, kept, dropped } = totalCounts(record.sources);
  const unknown = record.sources.filter(({ license }) => license === "unknown").map(({ name }) => name);
  const checksums = (files: FileRecord[]) =>
    markdownTable(
      ["file", "bytes", "sha256"],
      files.map(({ file, bytes, sha256 }) => [file, bytes, `\`${sha256}\``]),
    );
  const parts = [
    frontMatter(record),
    `# ${record.name}`,
    record.description,
    `Version ${record.version}, made on ${record.created} by ${record.creator.name}. Of ${read} documents ${kept} were kept.`,
    `## Sources\n\n${sourcesTable(record.sources)}`,
    unknown.length > 0
      ? `**The licence of ${unknown.join(", ")} is unknown.** Do not pass this corpus on before it is.`
      : "",
    record.steps.length > 0
      ? `## How it was made\n\n${record.steps.map((step) => `- ${step}`).join("\n")}`
      : "",
    Object.keys(dropped).length > 0 ? `## What was dropped\n\n${droppedTable(record.sources)}` : "",
    `## Files\n\n${checksums(record.files)}`,
    `## Files of the sources\n\n${checksums(record.sources.flatMap(({ files }) => files))}`,
  ];
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant-context
/** Croissant's own words, which stand in a file without a prefix. */
export const CROISSANT_WORDS =
  "citeAs column extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5 " +
  "parentField path recordSet references regex repeated replace separator source subField transform";

/** What the short names in a Croissant file mean: the context that the specification recommends. */
export const CROISSANT_CONTEXT = {
  "@language": "en",
  "@vocab": "https://schema.org/",
  cr: "http://mlcommons.org/croissant/",
  dct: "http://purl.org/dc/terms/",
  sc: "https://schema.org/",
  ...Object.fromEntries(CROISSANT_WORDS.split(" ").map((name) => [name, `cr:${name}`])),
  conformsTo: "dct:conformsTo",
  data: { "@id": "cr:data", "@type": "@json" },
  dataType: { "@id": "cr:dataType", "@type": "@vocab" },
  examples: { "@id": "cr:examples", "@type": "@json" },
};

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant-nodes
/** A licence as Croissant wants it: the address of a known one, else its name. */
export function licenceNode(license: string): string | object {
  if (license === "unknown") return { "@type": "CreativeWork", name: "unknown" };
  return /^https?:/.test(license) ? license : `https://spdx.org/licenses/${license}.html`;
}

/** The media type of a file, by its ending. */
export function mediaType(file: string): string {
  const types: { [ending: string]: string } = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".parquet": "application/vnd.apache.parquet",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
  };
  return types[path.extname(file)] ?? "application/octet-stream";
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant-parts
/** One source as something that the corpus is based on. */
export function sourceNode({ name, license, url, files, documents }: SourceRecord): object {
  const hasPart = files.map(({ file, sha256, bytes }) => ({
    "@type": "MediaObject",
    name: file,
    contentSize: `${bytes} B`,
    sha256,
  }));
  const description = `${documents.kept} of ${documents.read} documents were kept.`;
  const address = url === undefined ? {} : { url };
  return { "@type": "CreativeWork", name, description, license: licenceNode(license), ...address, hasPart };
}

/** One file of the corpus. */
export function fileNode({ file, sha256, bytes }: FileRecord): object {
  const about = { name: file, contentUrl: file, contentSize: `${bytes} B`, encodingFormat: mediaType(file) };
  return { "@type": "cr:FileObject", "@id": file, ...about, sha256 };
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#croissant
/** A corpus as Croissant 1.0 (MLCommons 2024): JSON-LD by which programs find it and load it. To be saved as `croissant.json`. */
export function croissant(record: CorpusRecord): object {
  const { name, description, version, created, creator, url, languages } = record;
  return {
    "@context": CROISSANT_CONTEXT,
    "@type": "sc:Dataset",
    conformsTo: "http://mlcommons.org/croissant/1.0",
    name,
    description,
    version,
    url,
    datePublished: created,
    creator: { "@type": `sc:${creator.type}`, name: creator.name },
    license: corpusLicences(record).map(licenceNode),
    inLanguage: languages,
    isBasedOn: record.sources.map(sourceNode),
    distribution: record.files.map(fileNode),
  };
}
