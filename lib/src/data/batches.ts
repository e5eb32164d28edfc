// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import type { TokenSource } from "./shards.js";
import { randomStream } from "./synthetic.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#batch-types
/** Examples for one step: `rows` windows of `context` tokens each, row after row, and for each token the one after it. */
export interface Batch {
  rows: number;
  context: number;
  /** [rows * context] */
  inputs: Uint32Array;
  /** [rows * context]; targets[i] is the token that follows inputs[i] in the text. */
  targets: Uint32Array;
}

/** The windows that begin at `starts`, as one batch. */
export function windowBatch(source: TokenSource, starts: number[], context: number): Batch {
  const rows = starts.length;
  const inputs = new Uint32Array(rows * context);
  const targets = new Uint32Array(rows * context);
  starts.forEach((start, row) => {
    const tokens = source.read(start, context + 1);
    inputs.set(tokens.subarray(0, context), row * context);
    targets.set(tokens.subarray(1), row * context);
  });
  return { rows, context, inputs, targets };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#shuffled
/** The numbers 0 to count - 1 in an order in which every permutation is equally likely (Fisher and Yates). */
export function shuffledNumbers(count: number, random: () => number): Uint32Array {
  const numbers = Uint32Array.from({ length: count }, (_, i) => i);
  for (let last = count - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    const moved = numbers[last];
    numbers[last] = numbers[other];
    numbers[other] = moved;
  }
  return numbers;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#epoch-starts
/**
 * Where the windows of an epoch begin, in the order of the epoch. Windows lie side by side, so that a pass shows every token
 * once (but for less than a window at the ends); each epoch shifts them anew, so that no token is always at an edge.
 */
export function epochStarts(length: number, context: number, seed: number, epoch: number): Float64Array {
  const random = randomStream(seed + epoch * 2 ** 32);
  const room = length - 1 - context; // the last start that leaves a target for every input
  const shift = Math.floor(random() * Math.min(context, room + 1));
  const windows = 1 + Math.floor((room - shift) / context);
  return Float64Array.from(shuffledNumbers(windows, random), (window) => shift + window * context);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#batches
/** Where a stream of batches stands: `position` windows of pass number `epoch` are used up. Plain JSON. */
export interface BatchCursor {
  epoch: number;
  position: number;
}

/** Training batches without end. */
export interface Batches {
  next(): Batch;
  /** Where the stream stands now; `batches(source, options, cursor)` goes on with the same batches. */
  cursor(): BatchCursor;
}

/** How batches are cut. */
export interface BatchOptions {
  batchSize: number;
  context: number;
  seed: number;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#next-batches
/**
 * Batches of windows in random order, each window once an epoch, the same for the same seed. A batch may end one epoch
 * and begin the next, so that all are full. Throws if the source is too short for one window.
 */
export function batches(
  source: TokenSource,
  options: BatchOptions,
  from: BatchCursor = { epoch: 0, position: 0 },
): Batches {
  const { batchSize, context, seed } = options;
  needWindow(source, context);
  let { epoch, position } = from;
  let starts = epochStarts(source.length, context, seed, epoch);
  const nextStart = () => {
    if (position >= starts.length) {
      epoch++;
      position = 0;
      starts = epochStarts(source.length, context, seed, epoch);
    }
    return starts[position++];
  };
  return {
    next: () => windowBatch(source, Array.from({ length: batchSize }, nextStart), context),
    cursor: () => ({ epoch, position }),
  };
}

/** Throws unless the source holds one window and the token after it. */
export function needWindow(source: TokenSource, context: number): void {
  if (source.length > context) return;
  throw new Error(
    `The data has ${source.length} tokens, too few for a context of ${context}: it takes at least ${context + 1}.`,
  );
}

//| 01-tokenizer/7-shards-and-batches.ipynb#validation-windows
/**
 * Windows side by side from the start of a source, for a loss that is the same each time; a rest shorter than a window is left
 * out. With `maxTokens`, only so many windows as fit, spread evenly over the source. The last batch may have fewer rows.
 */
export function* validationWindows(
  source: TokenSource,
  options: { context: number; batchSize?: number; maxTokens?: number },
): Generator<Batch> {
  const { context, batchSize = 1, maxTokens = Number.POSITIVE_INFINITY } = options;
  needWindow(source, context);
  const all = Math.floor((source.length - 1) / context);
  const count = Math.max(1, Math.min(all, Math.floor(maxTokens / context)));
  const starts = Array.from({ length: count }, (_, i) => Math.floor((i * all) / count) * context);
  for (let at = 0; at < count; at += batchSize)
    yield windowBatch(source, starts.slice(at, at + batchSize), context);
}
