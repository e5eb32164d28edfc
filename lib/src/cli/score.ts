import type { Command } from "commander";
import { float32Tensor, writeSafetensors } from "../formats/safetensors.js";
import type { ModelConfig } from "../formats/config.js";
import { checkIds, forward, sequenceContext } from "../model/decoder.js";
import type { Model } from "../model/structure.js";
import type { ModelDtype } from "../model/weights.js";
import { replaceFile } from "../data/files.js";
import { readJson } from "./files.js";
import { checkArraySize, openModel } from "./model.js";
import { dtypeOption } from "./options.js";
import { startProgress } from "./progress.js";
import { examples, printJson } from "./run.js";
import { checkFits } from "../gpu/buffers.js";
import { withoutGradients } from "../tensor/autograd.js";
import { tokenLosses } from "../tensor/cross-entropy.js";
import { ignoredTarget } from "../kernels/cross-entropy.js";
import { indices, scope } from "../tensor/tensor.js";

/** `tslm score`: how well a model predicts given ids. */
export function configure(command: Command): void {
  command
    .requiredOption(
      "--model <dir>",
      "a folder with config.json and weights (model.safetensors, or several files with an index), or a .gguf file",
    )
    .requiredOption(
      "--ids <file>",
      "a JSON array of rows of token ids: [[5, 17, 3], [8, 1, 1]]; - for standard input",
    )
    .option(
      "--logits <file>",
      "write the logits [batch, time, vocab] as the tensor `logits` of a safetensors file",
    )
    .addOption(dtypeOption())
    .option("--json", "print the result as one JSON object")
    .action(score);
  examples(command, "npx tslm score --model model --ids ids.json --logits logits.safetensors");
}

/** The options of `tslm score`. */
interface ScoreOptions {
  model: string;
  ids: string;
  logits?: string;
  dtype: ModelDtype;
  json?: boolean;
}

async function score(options: ScoreOptions): Promise<void> {
  const rows = readRows(options.ids);
  if (options.logits && rows.some(({ length }) => length !== rows[0].length))
    throw new Error(
      `${options.ids}: for --logits all rows must have the same length; score them one by one.`,
    );
  const model = await openModel(options.model, options.dtype);
  checkRows(model.config, rows, options.ids);
  const [tokens, vocab] = [rows[0].length, model.config.vocabSize];
  if (options.logits) checkArraySize(4 * rows.length * tokens * vocab, "The file of logits");
  const logits = options.logits ? new Float32Array(rows.length * tokens * vocab) : undefined;
  const result = await scoreRows(model, rows, logits);
  if (options.logits && logits) {
    const stored = float32Tensor([rows.length, tokens, vocab], logits);
    replaceFile(options.logits, writeSafetensors(new Map([["logits", stored]])));
  }
  if (options.json) printJson(result);
  else
    process.stdout.write(`${result.loss.toFixed(6)} nats a token over ${result.tokens} predicted tokens\n`);
}

/** Reads rows of ids. Throws unless each is a list of whole numbers with at least one to predict. */
function readRows(file: string): number[][] {
  const rows = readJson(file);
  const isRow = (row: unknown) => Array.isArray(row) && row.every((id) => Number.isInteger(id));
  if (!Array.isArray(rows) || rows.length === 0 || !rows.every(isRow))
    throw new Error(`${file} is not a list of rows of ids, such as [[5, 17, 3], [8, 1, 1]].`);
  const short = rows.findIndex((row) => row.length < 2);
  if (short >= 0)
    throw new Error(
      `${file}: row ${short} has ${rows[short].length} ids; a score needs one to predict the next from.`,
    );
  return rows;
}

/** Throws for a row that the model cannot run: an id outside of its vocabulary, or more ids than its context. */
function checkRows({ vocabSize, contextLength }: ModelConfig, rows: number[][], file: string): void {
  for (const [i, row] of rows.entries()) {
    try {
      checkIds(row, vocabSize);
      checkFits(4 * row.length * vocabSize, `The logits of ${row.length} tokens`);
    } catch (error) {
      throw new Error(`${file}, row ${i}: ${(error as Error).message}`);
    }
    if (row.length > contextLength)
      throw new Error(
        `${file}, row ${i}: ${row.length} ids are more than the model's context of ${contextLength}.`,
      );
  }
}

/**
 * Rows that run together: as many as have up to `most` tokens, each taken as `length` long. All batches have the same
 * number of rows; the last is filled up with empty ones.
 */
export function batchesOf(rows: number[][], length: number, most = 1024): number[][][] {
  const size = Math.min(rows.length, Math.max(1, Math.floor(most / length)));
  return Array.from({ length: Math.ceil(rows.length / size) }, (_, i) => {
    const batch = rows.slice(i * size, (i + 1) * size);
    return [...batch, ...Array.from({ length: size - batch.length }, () => [])];
  });
}

/** The mean loss over all rows, summed in 64 bits; the logits of every row are put one after the other into `logits`. */
export async function scoreRows(
  model: Model,
  rows: number[][],
  logits?: Float32Array,
): Promise<{ loss: number; tokens: number }> {
  const progress = startProgress("Scoring", rows.length);
  const length = rows.reduce((most, row) => Math.max(most, row.length), 0);
  let [total, done, at] = [0, 0, 0];
  for (const batch of batchesOf(rows, length)) {
    const one = await scoreBatch(model, batch, length, logits !== undefined);
    if (one.logits) logits?.set(one.logits.subarray(0, logits.length - at), at);
    at += one.logits?.length ?? 0;
    total += one.losses.reduce((sum, loss) => sum + loss, 0);
    done = Math.min(rows.length, done + batch.length);
    progress.update(done);
  }
  progress.done(`${rows.length} rows`);
  if (!Number.isFinite(total)) throw new Error("The loss is not a finite number: the weights are damaged.");
  const tokens = rows.reduce((count, row) => count + row.length - 1, 0);
  return { loss: total / tokens, tokens };
}

/**
 * The loss of every token of a batch, 0 where there is no next one; and its logits if wanted. Rows are filled up to
 * `length`, so that all batches have one shape: what comes after a token changes nothing for it.
 */
async function scoreBatch(model: Model, batch: number[][], length: number, wantsLogits: boolean) {
  const filled = (row: number[], value: number) => Array.from({ length }, (_, i) => row[i] ?? value);
  const ids = batch.flatMap((row) => filled(row, 0));
  const targets = batch.flatMap((row) => filled(row.slice(1), ignoredTarget));
  const shape = [batch.length, length];
  const result = scope(() =>
    withoutGradients(() => {
      const { logits } = forward(model, indices(ids, shape), sequenceContext(model.config, length));
      return { losses: tokenLosses(logits, indices(targets, shape)), ...(wantsLogits ? { logits } : {}) };
    }),
  );
  const [losses, logits] = await Promise.all([result.losses.array(), result.logits?.array()]);
  result.losses.free();
  result.logits?.free();
  return { losses, logits };
}
