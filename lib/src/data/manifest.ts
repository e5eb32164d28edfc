// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as path from "node:path";
import { z } from "zod";
import { parseChecked } from "./files.js";
import type { SyntheticCard } from "./synthetic.js";

//| 01-tokenizer/a-the-pipeline.ipynb#text-source
/** A text file as the manifest records it. */
export interface TextSource {
  file: string;
  sha256: string;
  /** Of its text, unpacked. */
  bytes: number;
  /** Unicode code points. */
  characters: number;
  /** Known only if the file was made by `tslm data synth` and is unchanged. */
  entropy_bits_per_byte?: number;
  /** The named source that it belongs to, where there are such. */
  source?: string;
}

//| 01-tokenizer/a-the-pipeline.ipynb#manifest
/** One file of tokens. */
export interface Shard {
  file: string;
  tokens: number;
  sha256: string;
}

/** The training or the validation part: `bytes` of text became `tokens`. */
export interface Split {
  bytes: number;
  tokens: number;
  shards: Shard[];
}

//| 01-tokenizer/a-the-pipeline.ipynb#source-share
/** A named source of text: what it is, what became of its documents, and where its tokens lie in the two splits. */
export interface SourceShare {
  name: string;
  license?: string;
  url?: string;
  /** Its share of training in relation to the others; without weights, sources count by their size. */
  weight?: number;
  /** Documents by the thousand or one book: how many were read, how many kept, and why the others were not. */
  documents: { read: number; kept: number; dropped: { [reason: string]: number } };
  train: { start: number; tokens: number; bytes: number };
  val: { start: number; tokens: number; bytes: number };
}

//| 01-tokenizer/a-the-pipeline.ipynb#manifest-type-parts
/** How `manifest.json` begins, so that a later version can tell. */
export const SHARD_FORMAT = { format: "tslm shards", version: 1 } as const;

//| 01-tokenizer/a-the-pipeline.ipynb#manifest-type
/** The content of `manifest.json`: what is in a folder of shards, and where it came from. */
export interface Manifest {
  format: "tslm shards";
  version: 1;
  tokenizer: string;
  vocab_size: number;
  /** The token that stands between documents, where the tokenizer has one; older data does not say. */
  separator?: number;
  /** Little-endian numbers of 16 or 32 bits. */
  dtype: "u16" | "u32";
  val_fraction: number;
  /** What was done to the text besides, one sentence each; older data does not say. */
  steps?: string[];
  /** Every file. */
  sources: TextSource[];
  /** The named sources that the files belong to, in the order of their tokens; older data has none. */
  mixture?: SourceShare[];
  /** Of all sources together, if each is synthetic. */
  entropy_bits_per_byte?: number;
  splits: { train: Split; val: Split };
}

//| 01-tokenizer/a-the-pipeline.ipynb#known-entropy
/** The entropy that stands in `file.json` beside a synthetic corpus, if it speaks of these very bytes. */
export function knownEntropy(file: string, sha256: string): { entropy_bits_per_byte?: number } {
  try {
    const card = JSON.parse(fs.readFileSync(`${file}.json`, "utf8")) as Partial<SyntheticCard>;
    if (card.kind !== "synthetic" || card.sha256 !== sha256) return {};
    return { entropy_bits_per_byte: card.entropy_bits_per_byte };
  } catch {
    return {}; // no such file, or another program's
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#joint-entropy
/** The entropy of sources together: the mean over their bytes, if it is known of each. */
export function jointEntropy(sources: TextSource[]): { entropy_bits_per_byte?: number } {
  let [bits, bytes] = [0, 0];
  for (const source of sources) {
    if (source.entropy_bits_per_byte === undefined) return {};
    bits += source.entropy_bits_per_byte * source.bytes;
    bytes += source.bytes;
  }
  return { entropy_bits_per_byte: bits / bytes };
}

//| 01-tokenizer/a-the-pipeline.ipynb#manifest-schema
/** What a manifest must hold; its type is `Manifest`. */
export const manifestSchema = (() => {
  const count = z
    .int({ error: "a whole number from 0 up" })
    .nonnegative({ error: "a whole number from 0 up" });
  const text = z.string({ error: "text" });
  const name = z
    .string({ error: "the name of a file" })
    .regex(/^\w[\w.-]*$/, { error: "the name of a file" });
  const sha256 = z.hex({ error: "a sha256" }).length(64, { error: "a sha256" });
  const split = z.strictObject({
    bytes: count,
    tokens: count,
    shards: z.array(z.strictObject({ file: name, tokens: count, sha256 })),
  });
  const bits = z.number({ error: "a number from 0 to 8" }).min(0).max(8).optional();
  const place = z.strictObject({ start: count, tokens: count, bytes: count });
  const documents = z.strictObject({ read: count, kept: count, dropped: z.record(z.string(), count) });
  const share = {
    ...{ name: text, license: text.optional(), url: text.optional(), documents, train: place, val: place },
    weight: z.number({ error: "a number above 0" }).positive({ error: "a number above 0" }).optional(),
  };
  const source = { file: text, sha256, bytes: count, characters: count, source: text.optional() };
  return z.strictObject({
    ...{ tokenizer: name, vocab_size: count, separator: count.optional() },
    dtype: z.enum(["u16", "u32"], { error: "u16 or u32" }),
    val_fraction: z.number({ error: "a number from 0 to below 1" }).min(0).lt(1),
    steps: z.array(text).optional(),
    sources: z.array(z.strictObject({ ...source, entropy_bits_per_byte: bits })),
    mixture: z.array(z.strictObject(share)).optional(),
    entropy_bits_per_byte: bits,
    splits: z.strictObject({ train: split, val: split }),
  });
})();

//| 01-tokenizer/a-the-pipeline.ipynb#check-manifest
/** What in a manifest contradicts the rest of it, in a few words; nothing if all agrees. */
export function contradiction({
  vocab_size,
  dtype,
  separator,
  splits,
  mixture = [],
}: Manifest): string | undefined {
  for (const [name, { tokens, shards }] of Object.entries(splits)) {
    if (shards.reduce((sum, shard) => sum + shard.tokens, 0) !== tokens)
      return `splits.${name}.tokens is not the sum over its shards`;
    const places = mixture.map((source) => source[name as "train" | "val"]);
    if (places.some(({ start, tokens: length }) => start + length > tokens))
      return `a source reaches beyond the tokens of ${name}`;
  }
  if (dtype === "u16" && vocab_size > 2 ** 16) return `vocab_size ${vocab_size} does not fit into 16 bits`;
  if (separator !== undefined && separator >= vocab_size) return `separator ${separator} is no token`;
  return undefined;
}

//| 01-tokenizer/a-the-pipeline.ipynb#read-manifest
/** The JSON in a file, or one sentence on why there is none. */
export function readJson(file: string): unknown {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new Error(`There is no file ${file}.`);
    throw new Error(`${file} cannot be read as JSON: ${(error as Error).message}`);
  }
}

/** The manifest of a folder of shards, every value checked. Throws one sentence that names the file and what is wrong in it. */
export function readManifest(folder: string): Manifest {
  const file = path.join(folder, "manifest.json");
  if (!fs.existsSync(file))
    throw new Error(`${folder} holds no prepared data (no manifest.json); make it with: tslm data prepare`);
  const wrong = (what: string) =>
    new Error(`${file} is damaged or was edited: ${what}. Prepare the data again.`);
  let json: Record<string, unknown>;
  try {
    json = parseChecked(fs.readFileSync(file, "utf8"), { unsigned: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall) throw error;
    throw wrong((error as Error).message);
  }
  const { format, version, ...content } = json;
  if (format !== SHARD_FORMAT.format || version !== SHARD_FORMAT.version)
    throw new Error(`${file} is not a manifest of token shards of version 1; prepare the data again.`);
  const { data, error } = manifestSchema.safeParse(content);
  if (error) {
    const [{ path: where, message }] = error.issues;
    throw wrong(where.length > 0 ? `${where.join(".")} must be ${message}` : message);
  }
  const manifest: Manifest = { ...SHARD_FORMAT, ...data };
  const problem = contradiction(manifest);
  if (problem) throw wrong(problem);
  return manifest;
}
