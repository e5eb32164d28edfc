// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import { randomStream } from "./random.js";
import type { TokenSource, WeightedSource } from "./shards.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#batch-types
/** Examples for one step: `batchSize` windows of `context` tokens each, one after the other, and for each token the one after it. */
export interface Batch {
  batchSize: number;
  context: number;
  /** [batchSize * context] */
  inputs: Uint32Array;
  /** [batchSize * context]; targets[i] is the token that follows inputs[i] in the text. */
  targets: Uint32Array;
  /** [batchSize * context]: for each token the first place in its window that it may look at, where its document begins. Only where a separator is known. */
  firstKey?: Uint32Array;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#batch-types-helpers
/** The windows that begin at `offsets`, as one batch. */
export function windowBatch(source: TokenSource, offsets: number[], context: number): Batch {
  const batchSize = offsets.length;
  const inputs = new Uint32Array(batchSize * context);
  const targets = new Uint32Array(batchSize * context);
  offsets.forEach((offset, row) => {
    const tokens = source.read(offset, context + 1);
    inputs.set(tokens.subarray(0, context), row * context);
    targets.set(tokens.subarray(1), row * context);
  });
  return { batchSize, context, inputs, targets };
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
export function epochOffsets(length: number, context: number, seed: number, epoch: number): Float64Array {
  const random = randomStream(seed + epoch * 2 ** 32);
  const room = length - 1 - context; // the last start that leaves a target for every input
  const shift = Math.floor(random() * Math.min(context, room + 1));
  const windows = 1 + Math.floor((room - shift) / context);
  return Float64Array.from(shuffledNumbers(windows, random), (window) => shift + window * context);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#batches
/** Where a stream of windows stands: `position` windows of pass number `epoch` are used up. Plain JSON. */
export interface SourceCursor {
  epoch: number;
  position: number;
}

/** Where a stream of batches stands: in its one source, or in each of several, with the windows that each gave. Plain JSON. */
export type BatchCursor = SourceCursor | { sources: (SourceCursor & { windows: number })[] };

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
  /** The token between documents, if batches are to say where documents begin. */
  separator?: number;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#next-batches
/** The offsets of the windows of one source, epoch after epoch, from a cursor on. */
export function windowStream(length: number, context: number, seed: number, from: SourceCursor) {
  let { epoch, position } = from;
  let offsets = epochOffsets(length, context, seed, epoch);
  const next = () => {
    if (position >= offsets.length) {
      epoch++;
      position = 0;
      offsets = epochOffsets(length, context, seed, epoch);
    }
    return offsets[position++];
  };
  return { next, cursor: (): SourceCursor => ({ epoch, position }) };
}

/** Throws unless the source holds one window and the token after it. */
export function needWindow(source: TokenSource, context: number): void {
  if (source.length > context) return;
  throw new Error(
    `The data has ${source.length} tokens, too few for a context of ${context}: it takes at least ${context + 1}.`,
  );
}

//| 01-tokenizer/7-shards-and-batches.ipynb#one-source
/**
 * Batches of windows of one source in random order, each window once an epoch, the same for the same seed. A batch may end
 * one epoch and begin the next, so that all are full. Throws if the source is too short for one window.
 */
export function sourceBatches(source: TokenSource, options: BatchOptions, from: SourceCursor): Batches {
  const { batchSize, context, seed } = options;
  needWindow(source, context);
  const stream = windowStream(source.length, context, seed, from);
  return {
    next: () => windowBatch(source, Array.from({ length: batchSize }, stream.next), context),
    cursor: stream.cursor,
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#document-starts
/**
 * For each token of a batch the place in its window where its document begins, [batchSize * context]: 0 up to the first separator, and
 * then the place behind the last one. Fused attention takes it as `firstKey`, with positions of the shape [batchSize, context].
 */
export function documentStarts({ inputs, context }: Batch, separator: number): Uint32Array {
  const starts = new Uint32Array(inputs.length);
  for (let at = 0; at < inputs.length; at++) {
    const column = at % context;
    if (column > 0) starts[at] = inputs[at - 1] === separator ? column : starts[at - 1];
  }
  return starts;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#next-source
/**
 * The number of the source that gives the next window: the one furthest behind its share of all windows so far and this one;
 * of equals the first. `taken` counts the windows that each gave.
 */
export function nextSource(weights: number[], taken: number[]): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const windows = taken.reduce((sum, count) => sum + count, 1);
  let best = 0;
  let behind = Number.NEGATIVE_INFINITY;
  weights.forEach((weight, i) => {
    const missing = (weight / total) * windows - taken[i];
    if (missing > behind) [best, behind] = [i, missing];
  });
  return best;
}

//| 01-tokenizer/7-shards-and-batches.ipynb#stacked
/** Batches of one context under each other. */
export function stackedBatches(parts: Batch[]): Batch {
  const { context } = parts[0];
  const batchSize = parts.reduce((sum, part) => sum + part.batchSize, 0);
  const [inputs, targets] = [new Uint32Array(batchSize * context), new Uint32Array(batchSize * context)];
  let at = 0;
  for (const part of parts) {
    inputs.set(part.inputs, at);
    targets.set(part.targets, at);
    at += part.inputs.length;
  }
  return { batchSize, context, inputs, targets };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#mixed-batches
/**
 * Batches of windows of several sources in the proportions of their weights. Each source is dealt out as `sourceBatches` does
 * it, in an order of its own. Throws, naming the source, if one is too short for a window.
 */
export function mixedBatches(
  sources: WeightedSource[],
  options: BatchOptions,
  from: (SourceCursor & { windows: number })[],
): Batches {
  const { batchSize, context, seed } = options;
  const streams = sources.map(({ name, tokens }, i) => {
    if (tokens.length <= context)
      throw new Error(`The source ${name} has ${tokens.length} tokens, too few for a context of ${context}.`);
    return windowStream(tokens.length, context, seed + 1_000_003 * i, from[i]); // so that no two shuffle alike
  });
  const taken = from.map(({ windows }) => windows);
  const weights = sources.map(({ weight }) => weight);
  const nextWindow = () => {
    const i = nextSource(weights, taken);
    taken[i]++;
    return windowBatch(sources[i].tokens, [streams[i].next()], context);
  };
  return {
    next: () => stackedBatches(Array.from({ length: batchSize }, nextWindow)),
    cursor: () => ({ sources: streams.map(({ cursor }, i) => ({ ...cursor(), windows: taken[i] })) }),
  };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#all-batches
/**
 * Training batches of one source, or of several by weight, the same for the same seed; with a cursor, those that follow it.
 * Throws if a source is too short for one window, or if the cursor is that of other sources.
 */
export function batches(
  source: TokenSource | WeightedSource[],
  options: BatchOptions,
  from?: BatchCursor,
): Batches {
  const { separator } = options;
  const begun = from && "sources" in from ? from.sources : undefined;
  if (from && (begun?.length ?? 1) !== (Array.isArray(source) ? source.length : 1))
    throw new Error("The place to go on from belongs to a run with other sources.");
  const fresh = { epoch: 0, position: 0 };
  const stream = Array.isArray(source)
    ? mixedBatches(source, options, begun ?? source.map(() => ({ ...fresh, windows: 0 })))
    : sourceBatches(source, options, (from as SourceCursor) ?? fresh);
  if (separator === undefined) return stream;
  const next = () => {
    const batch = stream.next();
    return { ...batch, firstKey: documentStarts(batch, separator) };
  };
  return { next, cursor: stream.cursor };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#validation-windows
/**
 * Windows side by side from the start of a source, for a loss that is the same each time; a rest shorter than a window is left
 * out. With `maxTokens`, only so many windows as fit, spread evenly over the source. The last batch may have fewer windows.
 */
export function* validationWindows(
  source: TokenSource,
  options: { context: number; batchSize?: number; maxTokens?: number },
): Generator<Batch> {
  const { context, batchSize = 1, maxTokens = Number.POSITIVE_INFINITY } = options;
  needWindow(source, context);
  const all = Math.floor((source.length - 1) / context);
  const count = Math.max(1, Math.min(all, Math.floor(maxTokens / context)));
  const offsets = Array.from({ length: count }, (_, i) => Math.floor((i * all) / count) * context);
  for (let at = 0; at < count; at += batchSize)
    yield windowBatch(source, offsets.slice(at, at + batchSize), context);
}
