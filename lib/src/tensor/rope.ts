// Extracted from chapters/02-attention/6-positions.ipynb: edit it there, or here and run `npm run backport`.
import { columnSumKernel } from "../kernels/reduce.js";
import {
  type RotaryShape,
  interleavedRopeKernel,
  ropeKernel,
  rotaryHeadsBackwardKernel,
  rotaryHeadsKernel,
  rotaryHeadsWeightKernel,
} from "../kernels/rope.js";
import { rowGroups } from "../kernels/rows.js";
import { checkPositions } from "./attention.js";
import { isTracked, track } from "./autograd.js";
import { type DType, type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/6-positions.ipynb#rotary-shape-check
/** The sizes of heads [batch, heads, tokens, headDim] with their positions. Throws when positions or table do not fit. */
export function rotaryShape(
  shape: readonly number[],
  positions: Tensor<"u32">,
  table: Tensor,
  from = 0,
): RotaryShape {
  const [batch, heads, tokens, headDim] = shape;
  checkPositions(positions, batch, tokens);
  const [, pairs, two] = table.shape;
  if (table.shape.length !== 3 || two !== 2 || from + 2 * pairs > headDim)
    throw new Error(
      `Rotary positions on [${shape.join(", ")}] want a table [length, ${headDim / 2}, 2], or a narrower one where a part of each head turns, not ${describe(table)}.`,
    );
  const positionsPerSequence = positions.shape.length === 2;
  return { batch, heads, tokens, headDim, turning: 2 * pairs, from, positionsPerSequence };
}

//| 02-attention/6-positions.ipynb#rope
/** Which elements of a head turn, and which two of them make a pair. */
export interface RopeLayout {
  /** The element that the part that turns begins with; 0 unless given. */
  from?: number;
  /** Whether pairs are neighbours, 2i and 2i + 1 of the part that turns. */
  interleaved?: boolean;
}

/**
 * Turns each pair of x [batch, heads, tokens, headDim] by the angle of its token's position ([tokens] or
 * [batch, tokens]), looked up in a `ropeTable`. Pair i is elements i and i + turning / 2 (the half-split layout), where `turning`
 * is twice the pairs of the table: in a head that is wider, the elements before and behind them stay as they are.
 * A position beyond the table is a mistake that the GPU does not notice: make the table as long as the context.
 */
export function rope(x: Tensor, positions: Tensor<"u32">, table: Tensor, layout: RopeLayout = {}): Tensor {
  const shape = rotaryShape(x.shape, positions, table, layout.from);
  const kernel = layout.interleaved ? interleavedRopeKernel : ropeKernel;
  const turned = (source: Tensor, direction: 1 | -1) =>
    launch(kernel(shape, direction), [source, positions, table], x.shape);
  return track(turned(x, 1), [x], (gradient) => [turned(gradient, -1)]);
}

//| 02-attention/6-positions.ipynb#rotary-heads-gradient
/** The gradient of the weight in `rotaryHeads`, from x, 1/rms, the result's gradient, positions and table, in order. */
export function rotaryHeadsWeightGradient(shape: RotaryShape, inputs: Tensor<DType>[]): Tensor {
  const groups = rowGroups(shape.batch * shape.heads * shape.tokens);
  const sums = launch(rotaryHeadsWeightKernel(shape), inputs, [groups, shape.headDim]);
  return launch(columnSumKernel(groups, shape.headDim, 1), [sums], [shape.headDim]);
}

//| 02-attention/6-positions.ipynb#rotary-heads
/**
 * Splits x [batch, tokens, heads · headDim] into heads, normalises each head with RMSNorm and `weight` [headDim], and
 * turns it: `rope(rmsNorm(splitHeads(x)))` in one kernel. Result: [batch, heads, tokens, headDim].
 */
export function rotaryHeads(
  x: Tensor,
  weight: Tensor,
  epsilon: number,
  positions: Tensor<"u32">,
  table: Tensor,
): Tensor {
  const [batch, tokens, width] = x.shape;
  const headDim = weight.size;
  const shape = rotaryShape([batch, width / headDim, tokens, headDim], positions, table);
  if (shape.turning !== headDim)
    throw new Error(
      `rotaryHeads turns whole heads: the table ${describe(table)} is too narrow for ${headDim} elements.`,
    );
  const [y, inverse] = [empty([batch, shape.heads, tokens, headDim]), empty([x.size / headDim])];
  launchInto(rotaryHeadsKernel(shape, epsilon), [x, weight, positions, table], [y, inverse]);
  return track(y, [x, weight], (gradient) => {
    const others = [inverse, gradient, positions, table];
    return [
      isTracked(x) ? launch(rotaryHeadsBackwardKernel(shape), [x, weight, ...others], x.shape) : undefined,
      isTracked(weight) ? rotaryHeadsWeightGradient(shape, [x, ...others]) : undefined,
    ];
  });
}
