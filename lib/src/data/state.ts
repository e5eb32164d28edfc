// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as crypto from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { type CorpusOptions, type CorpusSource, fileSize, filesRead } from "./corpus.js";
import { syncFile, writeWhole } from "./files.js";
import type { SourceShare, Split } from "./manifest.js";
import type { Survey } from "./survey.js";

//| 01-tokenizer/a-the-pipeline.ipynb#run-state-type
/** Where a run stands. Plain JSON. */
export interface CorpusState {
  /** What the run is made of: another corpus or other options begin anew. */
  plan: string;
  survey?: Survey;
  tasks: number;
  splits: { train: Split; val: Split };
  mixture: SourceShare[];
}

//| 01-tokenizer/a-the-pipeline.ipynb#corpus-plan
/** A checksum over all that decides what comes out: the files as they are now, how they are read, the tokenizer. */
export function corpusPlan(options: CorpusOptions): string {
  const { tokenizer } = options;
  const fact = (file: string) => [path.resolve(file), fileSize(file), fs.statSync(file).mtimeMs];
  const files = filesRead(options).map(fact);
  const encoder = tokenizer === "char" ? tokenizer : tokenizer.toJson();
  // Functions are no part of JSON; who does the work, who watches and who stops it does not matter.
  const all = {
    ...options,
    split: "by document",
    tokenizer: encoder,
    maker: undefined,
    signal: undefined,
    files,
  };
  return crypto.createHash("sha256").update(JSON.stringify(all)).digest("hex");
}

//| 01-tokenizer/a-the-pipeline.ipynb#fresh-state
/** The state of a run that has not begun. */
export function freshState(plan: string, sources: CorpusSource[]): CorpusState {
  const empty = () => ({ start: 0, tokens: 0, bytes: 0 });
  const split = () => ({ bytes: 0, tokens: 0, shards: [] });
  const mixture = sources.map(({ name, license, url, weight }) => ({
    ...{ name, license, url, weight },
    documents: { read: 0, kept: 0, dropped: {} },
    train: empty(),
    val: empty(),
  }));
  return { plan, tasks: 0, splits: { train: split(), val: split() }, mixture };
}

//| 01-tokenizer/a-the-pipeline.ipynb#save-state
/** Saves where a run stands: first the shards, then the state that speaks of them. */
export function saveState(partial: string, state: CorpusState): void {
  for (const { shards } of [state.splits.train, state.splits.val]) {
    const last = shards.at(-1);
    if (last) syncFile(path.join(partial, last.file));
  }
  writeWhole(path.join(partial, "state.json"), (write) => write(JSON.stringify(state)));
}

//| 01-tokenizer/a-the-pipeline.ipynb#trim-shards
/** Cuts the shards of a killed run down to what its state speaks of. Throws if they are shorter. */
export function trimShards(
  partial: string,
  { train, val }: CorpusState["splits"],
  dtype: "u16" | "u32",
): void {
  const sizes = new Map(
    [...train.shards, ...val.shards].map((shard) => [shard.file, shard.tokens * (dtype === "u16" ? 2 : 4)]),
  );
  for (const name of fs.readdirSync(partial).filter((entry) => /^(train|val)-\d+\.bin$/.test(entry))) {
    const file = path.join(partial, name);
    if (!sizes.has(name)) fs.rmSync(file);
    else if (fs.statSync(file).size < sizes.get(name)!)
      throw new Error(`${file} was cut short: begin again.`);
    else fs.truncateSync(file, sizes.get(name)!);
  }
}

//| 01-tokenizer/a-the-pipeline.ipynb#open-state
/** The state of an unfinished run of the same plan in a folder; none if there is no such, or one of another plan. */
export function unfinishedState(partial: string, plan: string): CorpusState | undefined {
  try {
    const state = JSON.parse(fs.readFileSync(path.join(partial, "state.json"), "utf8"));
    return state.plan === plan ? state : undefined;
  } catch {
    return undefined; // there is none
  }
}
