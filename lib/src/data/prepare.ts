// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as path from "node:path";
import { characterTokenizer } from "../tokenizer/characters.js";
import { corpusManifest, countDocuments, writeCards } from "./account.js";
import { type CorpusOptions, checkCorpus, filesRead } from "./corpus.js";
import { encodeCorpus } from "./encode.js";
import { checkedJson, writeSynced } from "./files.js";
import { type Claim, claimFolder } from "./folders.js";
import type { Manifest } from "./manifest.js";
import { tokenLayout } from "./shards.js";
import { type CorpusState, corpusPlan, freshState, saveState, trimShards, unfinishedState } from "./state.js";
import { surveyChecked } from "./survey.js";
import { dropReasons } from "./work.js";

//| 01-tokenizer/a-the-pipeline.ipynb#fill-corpus
/** Does what is left to do; `name` is what the corpus is called. */
export async function fillCorpus(
  name: string,
  partial: string,
  options: CorpusOptions,
  state: CorpusState,
): Promise<Manifest> {
  const verdictFile = path.join(partial, "verdicts.bin");
  saveState(partial, state);
  if (!state.survey) {
    const { survey, verdicts } = await surveyChecked(partial, options);
    if (verdicts.every((verdict) => verdict !== 0) && verdicts.length > 0)
      throw new Error("No document was left: all were dropped. Ask for fewer filters.");
    writeSynced(verdictFile, verdicts);
    state.survey = survey;
    saveState(partial, state);
  }
  const verdicts = fs.readFileSync(verdictFile);
  const tokenizer =
    options.tokenizer === "char" ? characterTokenizer(state.survey.alphabet!) : options.tokenizer;
  trimShards(partial, state.splits, tokenLayout(tokenizer).dtype);
  await encodeCorpus(partial, options, state, tokenizer, verdicts);
  if (corpusPlan(options) !== state.plan)
    throw new Error("A file of the corpus was changed while it was read; begin again.");
  countDocuments(options, state, verdicts, dropReasons(options));
  const manifest = corpusManifest(partial, options, state, tokenizer);
  writeSynced(path.join(partial, manifest.tokenizer), JSON.stringify(tokenizer.toJson()));
  writeSynced(path.join(partial, "manifest.json"), checkedJson(manifest));
  writeCards(partial, name, options, manifest);
  return manifest;
}

//| 01-tokenizer/a-the-pipeline.ipynb#prepare-corpus-parts
/** Files that hold where a run stands, and go when it is done. */
export const PROGRESS_FILES = ["state.json", "verdicts.bin", "checks.bin"];

/** Gives prepared data its place. */
export function installCorpus(claim: Claim, { splits }: Manifest, chatTemplate?: string): void {
  claim.check();
  const template = path.join(claim.partial, "chat_template.jinja");
  if (chatTemplate !== undefined) fs.writeFileSync(template, chatTemplate);
  else fs.rmSync(template, { force: true }); // of a run that was killed here
  for (const name of PROGRESS_FILES) fs.rmSync(path.join(claim.partial, name), { force: true });
  const shards = [...splits.train.shards, ...splits.val.shards];
  claim.install("manifest.json", new Map(shards.map(({ file, sha256 }) => [file, sha256])));
}

//| 01-tokenizer/a-the-pipeline.ipynb#prepare-corpus
/**
 * Turns a corpus into a folder of token shards with `manifest.json` and `tokenizer.json`, in little memory. Of a corpus of
 * a single text of n characters the first floor(n * (1 - valFraction)) are for training and the rest for validation; of several
 * documents, those are for validation whose hash says so. A run that was
 * killed, stopped by its signal or ended by a full disk leaves what it did in the folder, under a hidden name, and the next with
 * the same options goes on there, to the same bytes. Throws one sentence on bad input, and then leaves nothing new.
 */
export async function prepareCorpus(folder: string, options: CorpusOptions): Promise<Manifest> {
  checkCorpus(options);
  const plan = corpusPlan(options);
  const claim = claimFolder(folder, "data prepare", filesRead(options));
  try {
    const found = unfinishedState(claim.partial, plan);
    if (!found) claim.discard();
    fs.mkdirSync(claim.partial, { recursive: true });
    const name = path.basename(path.resolve(folder));
    const manifest = await fillCorpus(
      name,
      claim.partial,
      options,
      found ?? freshState(plan, options.sources),
    );
    installCorpus(claim, manifest, options.chatTemplate);
    return manifest;
  } catch (error) {
    const ofSystem = (error as NodeJS.ErrnoException).syscall !== undefined;
    if (!options.signal?.aborted && !ofSystem) claim.discard();
    throw error;
  } finally {
    claim.release();
  }
}
