// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import {
  type FlashShape,
  type FlashTiling,
  blockTokens,
  combinePartsKernel,
  flashKernel,
  flashKeyGradientKernel,
  flashQueryGradientKernel,
  flashTiling,
  groupedRows,
  inferenceTiling,
  isSplit,
  keyParts,
  keyRangesKernel,
  queryTiles,
  rowStatisticsKernel,
} from "../kernels/flash.js";
import { prefersSubgroups } from "../kernels/wgsl.js";
import { attention, checkAttention, checkPositions } from "./attention.js";
import { inference, isTracked, tape, track } from "./autograd.js";
import { sumToShape } from "./operations.js";
import { type DType, type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/7-the-fused-kernel.ipynb#flash-options
/** What is attended to. */
export interface KeyValues {
  /** f32 [batch, kvHeads, length, keyWidth], or paged in blocks of 16 tokens: [blocks, kvHeads, 16, keyWidth]. */
  keys: Tensor;
  /** Like the keys, with a width of their own: [batch, kvHeads, length, valueWidth] or [blocks, kvHeads, 16, valueWidth]. */
  values: Tensor;
  /** u32 [batch, maxBlocks], where paged: the block that holds each 16 tokens of a sequence, in order. */
  blocks?: Tensor<"u32">;
  /** u32 [batch]: the keys that each sequence has. Unless given, all that the positions reach. */
  lengths?: Tensor<"u32">;
  /** Whether keys and values are int8: then their last dimension counts words, four numbers in each, and the row's scale in the last. */
  int8?: boolean;
}

/** Which keys a query sees. */
export interface Visibility {
  /** u32 [tokens] or [batch, tokens]: where each query stands. It sees keys up to its position. */
  positions: Tensor<"u32">;
  /** u32, of the positions' shape: the first key that each query may see, such as the first of its document. */
  firstKey?: Tensor<"u32">;
  /** A query sees the `window` last keys up to its position, itself included, and no earlier ones. */
  window?: number;
}

/** What is done to the scores. */
export interface Scoring {
  /** Scores are multiplied by this; 1/√keyWidth unless given. */
  scale?: number;
  /** Scores are bounded smoothly: softcap · tanh(score / softcap), as in Gemma 2. */
  softcap?: number;
  /** f32 [heads]: a learned score for each head that takes a share and gives no value, as in gpt-oss. */
  sinks?: Tensor;
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-options-helpers
/** All that attention is given: queries are f32 [batch, heads, tokens, keyWidth]. */
export interface AttendInputs {
  queries: Tensor;
  keyValues: KeyValues;
  visibility: Visibility;
  scoring: Scoring;
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-shape-of
/** Numbers of a row of keys or values. */
export function rowWidth({ shape }: Tensor, int8 = false): number {
  return int8 ? 4 * (shape[3] - 1) : shape[3];
}

/** The sizes of fused attention on these tensors. */
export function flashShape({ queries, keyValues, scoring }: AttendInputs): FlashShape {
  const [batch, heads, tokens, keyWidth] = queries.shape;
  const { keys, values, blocks, int8 } = keyValues;
  const [, kvHeads, length] = values.shape;
  const valueWidth = rowWidth(values, int8);
  const tableBlocks = blocks?.shape[1] ?? 0;
  const { scale = keyWidth ** -0.5, softcap = 0, sinks } = scoring;
  const counts = { batch, heads, kvHeads, tokens, length: blocks ? tableBlocks * keys.shape[2] : length };
  return { ...counts, keyWidth, valueWidth, scale, softcap, sinks: sinks !== undefined, tableBlocks, int8 };
}

/** The tables of which keys each query row, and each tile of rows, may see: u32 [sequences, rows, 2] and [sequences, tiles, 2]. */
export function keyRanges(
  shape: FlashShape,
  tiling: FlashTiling,
  { visibility, keyValues }: AttendInputs,
): Tensor<"u32">[] {
  const { positions, firstKey, window = 0 } = visibility;
  const { lengths } = keyValues;
  const positionsPerSequence = positions.shape.length === 2;
  const sequences = positionsPerSequence || lengths ? shape.batch : 1;
  const flags = { firstKey: firstKey !== undefined, lengths: lengths !== undefined };
  const kernel = keyRangesKernel(shape, { sequences, positionsPerSequence, window, ...flags }, tiling);
  const inputs = [positions, firstKey ?? positions, lengths ?? positions];
  const key = [sequences, ...kernel.sizes].join();
  const found = inference.kept.find(
    (kept) =>
      kept.key === key &&
      kept.inputs.every((input, i) => input === inputs[i]) &&
      !kept.results.some(({ freed }) => freed),
  );
  if (found) return found.results;
  const ranges = empty([sequences, groupedRows(shape), 2], "u32");
  const tiles = empty([sequences, queryTiles(shape, tiling), 2], "u32");
  launchInto(kernel, inputs, [ranges, tiles]);
  if (inference.on) inference.kept.push({ key, inputs, results: [ranges, tiles] });
  return [ranges, tiles];
}

//| 02-attention/7-the-fused-kernel.ipynb#check-flash
/** Throws unless keys and values fit the queries. Paged ones are blocks of 16 tokens, with a table of blocks for each sequence. */
export function checkKeyValues(queries: Tensor, { keys, values, blocks, lengths, int8 }: KeyValues): void {
  const [batch] = queries.shape;
  if (lengths && lengths.shape.join() !== `${batch}`)
    throw new Error(`attend wants one length for each of ${batch} sequences, not ${describe(lengths)}.`);
  if (!blocks && !int8) {
    checkAttention(queries, keys, values);
    return;
  }
  const [, heads, , width] = queries.shape;
  const [count, kvHeads, tokens] = keys.shape;
  const fits =
    rowWidth(keys, int8) === width &&
    heads % kvHeads === 0 &&
    (blocks ? tokens === blockTokens : count === batch);
  const same =
    values.shape.length === 4 && values.shape.slice(0, 3).join() === [count, kvHeads, tokens].join();
  if (!fits || !same || (blocks && (blocks.shape.length !== 2 || blocks.shape[0] !== batch)))
    throw new Error(
      `attend: queries ${describe(queries)}, ${blocks ? "paged" : "int8"} keys ${describe(keys)}, values ${describe(values)}${blocks ? ` and blocks ${describe(blocks)}` : ""} ` +
        `do not fit; paged keys and values are [blocks, kvHeads, ${blockTokens}, width], and blocks [batch, blocks of a sequence].`,
    );
}

//| 02-attention/7-the-fused-kernel.ipynb#check-attend
/** Throws unless everything that fused attention is given fits together. */
export function checkAttend({ queries, keyValues, visibility, scoring }: AttendInputs): void {
  checkKeyValues(queries, keyValues);
  const [batch, heads, tokens, keyWidth] = queries.shape;
  const { values, int8 } = keyValues;
  const { sinks } = scoring;
  if (keyWidth % 4 !== 0 || rowWidth(values, int8) % 4 !== 0)
    throw new Error(
      `attend wants heads whose widths are a multiple of 4, not ${describe(queries)} and ${describe(values)}; ` +
        "other widths can be had with dense keys and the causal rule alone.",
    );
  const { positions, firstKey } = visibility;
  for (const places of firstKey ? [positions, firstKey] : [positions]) checkPositions(places, batch, tokens);
  if (firstKey && firstKey.shape.length !== positions.shape.length)
    throw new Error(
      `First keys want the shape of the positions, ${describe(positions)}, not ${describe(firstKey)}.`,
    );
  if (sinks && sinks.shape.join() !== `${heads}`)
    throw new Error(`attend wants one sink for each of ${heads} heads, not ${describe(sinks)}.`);
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-backward
/** What forward leaves for the way back. */
export interface FlashKept {
  inputs: AttendInputs;
  shape: FlashShape;
  tiling: FlashTiling;
  /** See `keyRanges`. */
  ranges: Tensor<"u32">;
  tiles: Tensor<"u32">;
  /** f32 [batch, heads, tokens, valueWidth] and [batch, heads, tokens]. */
  y: Tensor;
  logSums: Tensor;
}

/** The gradients of queries, keys, values and, where there are any, sinks, from that of the result [batch, heads, tokens, valueWidth]. */
export function flashGradients(
  { inputs, shape, tiling, ranges, tiles, y, logSums }: FlashKept,
  gradient: Tensor,
): (Tensor | undefined)[] {
  const { queries, keyValues, scoring } = inputs;
  const { keys, values } = keyValues;
  const sinks = scoring.sinks ? [scoring.sinks] : [];
  const sequences = ranges.shape[0];
  const statistics = empty([...logSums.shape, 4]);
  const sinkParts = sinks.map(() => empty([shape.batch, shape.tokens, shape.heads]));
  const results: Tensor<DType>[] = [y, gradient, logSums, ranges, ...sinks];
  launchInto(rowStatisticsKernel(shape, tiling, sequences), results, [statistics, ...sinkParts]);
  const reads: Tensor<DType>[] = [queries, keys, values, gradient, statistics, tiles];
  const found: (Tensor | undefined)[] = [undefined, undefined, undefined];
  if (isTracked(queries))
    found[0] = launch(flashQueryGradientKernel(shape, tiling, sequences), reads, queries.shape);
  if (isTracked(keys) || isTracked(values)) {
    const both = [empty(keys.shape), empty(values.shape)];
    launchInto(flashKeyGradientKernel(shape, tiling, sequences), reads, both);
    [found[1], found[2]] = both;
  }
  return [...found, ...sinkParts.map((part) => sumToShape(part, [shape.heads]))];
}

//| 02-attention/7-the-fused-kernel.ipynb#split-attention
/** Fused attention whose keys are split over workgroups: what the parts add up to, and then all of them together. */
export function splitAttention(
  shape: FlashShape,
  tiling: FlashTiling,
  reads: Tensor<DType>[],
  sequences: number,
): Tensor {
  const { batch, heads, tokens, valueWidth } = shape;
  const rows = [keyParts(shape, tiling), batch, heads, tokens];
  const [sums, marks] = [empty([...rows, valueWidth]), empty([...rows, 2])];
  launchInto(flashKernel(shape, tiling, sequences), reads, [sums, marks]);
  return launch(combinePartsKernel(shape, tiling), [sums, marks], [batch, heads, tokens, valueWidth]);
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-attention
/** Fused attention on inputs that are known to fit. Nothing is kept for gradients where the keys are split. */
export function fusedAttention(inputs: AttendInputs, shape: FlashShape, tiling: FlashTiling): Tensor {
  const { queries, keyValues, scoring } = inputs;
  const { keys, values, blocks } = keyValues;
  const sinks = scoring.sinks ? [scoring.sinks] : [];
  const [ranges, tiles] = keyRanges(shape, tiling, inputs);
  const tables = blocks ? [ranges, tiles, blocks] : [ranges, tiles];
  const reads: Tensor<DType>[] = [queries, keys, values, ...tables, ...sinks];
  if (isSplit(tiling)) return splitAttention(shape, tiling, reads, ranges.shape[0]);
  const rows = queries.shape.slice(0, 3);
  const [y, logSums] = [empty([...rows, shape.valueWidth]), empty(rows)];
  launchInto(flashKernel(shape, tiling, ranges.shape[0]), reads, [y, logSums]);
  return track(y, [queries, keys, values, ...sinks], (gradient) =>
    flashGradients({ inputs, shape, tiling, ranges, tiles, y, logSums }, gradient),
  );
}

/**
 * Fused attention in a tiling of one's choice; `attend` says what it computes, [batch, heads, tokens, valueWidth]. FlashAttention-2
 * (Dao, 2023), with the running softmax of Milakov and Gimelshein (2018).
 */
export function flashAttention(inputs: AttendInputs, tiling: FlashTiling): Tensor {
  checkAttend(inputs);
  return fusedAttention(inputs, flashShape(inputs), tiling);
}

//| 02-attention/7-the-fused-kernel.ipynb#causal-attention
/** Whether a gradient of attention is wanted. */
export function wantsGradients({ queries, keyValues, scoring }: AttendInputs): boolean {
  const sources = [queries, keyValues.keys, keyValues.values, ...(scoring.sinks ? [scoring.sinks] : [])];
  return tape.paused === 0 && sources.some(isTracked);
}

/** Whether nothing but the causal rule is asked for, on dense keys: what `attention` computes. */
export function isPlainAttention({ keyValues, visibility, scoring }: AttendInputs): boolean {
  const { firstKey, window } = visibility;
  const asked = [
    keyValues.blocks,
    keyValues.lengths,
    keyValues.int8,
    firstKey,
    window,
    ...Object.values(scoring),
  ];
  return asked.every((option) => option === undefined);
}

/** Whether the fused kernel is the right one: not for odd widths, nor for few queries on a graphics processor. */
export function isFused({ queries, keyValues }: AttendInputs): boolean {
  const [, , tokens, width] = queries.shape;
  const wide = width % 4 === 0 && keyValues.values.shape[3] % 4 === 0;
  return wide && (inference.on || prefersSubgroups(currentGpu().facts) || tokens >= 64);
}

//| 02-attention/7-the-fused-kernel.ipynb#attend
/**
 * Attention as models use it: each query head's mixture of values, by softmax of its scores. Queries [batch, heads, tokens, keyWidth];
 * the result is [batch, heads, tokens, valueWidth]. Query head h uses key head h / (heads / kvHeads). Key j is seen by the query at
 * token t if firstKey[t] ≤ j ≤ positions[t] and positions[t] − j < window. Memory grows with the length, not with its square.
 * Paged keys give the bits that dense ones give, and have no gradients.
 */
export function attend(
  queries: Tensor,
  keyValues: KeyValues,
  visibility: Visibility,
  scoring: Scoring = {},
): Tensor {
  const inputs = { queries, keyValues, visibility, scoring };
  const tracked = wantsGradients(inputs);
  if (tracked && (keyValues.blocks || keyValues.int8))
    throw new Error(
      "Keys and values that are paged or int8 have no gradients: call attend inside withoutGradients, or with dense ones.",
    );
  if (isPlainAttention(inputs) && !isFused(inputs))
    return attention(queries, keyValues.keys, keyValues.values, visibility.positions);
  checkAttend(inputs);
  const shape = flashShape(inputs);
  const { facts } = currentGpu();
  const tiling = tracked ? flashTiling(shape, facts) : inferenceTiling(shape, facts, inference.on);
  return fusedAttention(inputs, shape, tiling);
}
