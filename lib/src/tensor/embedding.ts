// Extracted from chapters/02-attention/9-the-block.ipynb: edit it there, or here and run `npm run backport`.
import {
  type TablePiece,
  distancesKernel,
  embedBackwardKernel,
  embedKernel,
  linkIdsKernel,
  zeroKernel,
} from "../kernels/embedding.js";
import { track } from "./autograd.js";
import { pieces } from "./pieces.js";
import { PackedWeight, type Weight, describeWeight, weightPieces } from "./products.js";
import { type Tensor, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/9-the-block.ipynb#table-gradient
/** A tensor of zeros of any size that a kernel writes, so that a recorded step has it anew each time. */
export function blank(shape: readonly number[]): Tensor {
  const result = empty(shape);
  for (const piece of pieces(result)) launchInto(zeroKernel(piece.size), [], [piece]);
  return result;
}

/** Does something for each piece of a table that can be bound. */
export function eachTablePiece<W extends Weight>(
  table: W,
  work: (piece: W, place: TablePiece) => void,
): void {
  for (const { piece, from } of weightPieces(table)) work(piece, { first: from, rows: piece.shape[0] });
}

/** The gradient of the table: for each id the sum over its places, and zeros for ids that do not occur, and for `fixedRow`. */
export function tableGradient(
  ids: Tensor<"u32">,
  gradient: Tensor,
  shape: readonly number[],
  fixedRow?: number,
): Tensor {
  const result = blank(shape);
  const links = launch(linkIdsKernel(ids.size), [ids], [ids.size, 2], "u32");
  eachTablePiece(result, (piece, place) => {
    const kernel = embedBackwardKernel(ids.size, shape[1], place, fixedRow);
    launchInto(kernel, [ids, links, gradient], [piece]);
  });
  return result;
}

//| 02-attention/9-the-block.ipynb#embed
/**
 * Looks up a row of the table [vocabulary, columns], dense or packed, for each id: ids [...] give [..., columns]. Ids must be below
 * the vocabulary's size; check them where they come from, since the GPU does not complain. The row `fixedRow` is looked up like
 * any other, and does not learn from it: that of the id which fills up short texts.
 */
export function embed(ids: Tensor<"u32">, table: Weight, fixedRow?: number): Tensor {
  if (table.shape.length !== 2)
    throw new Error(`embed wants a table [vocabulary, columns], not ${describeWeight(table)}.`);
  const columns = table.shape[1];
  const y = empty([...ids.shape, columns]);
  eachTablePiece(table, (piece, place) => {
    const packed = piece instanceof PackedWeight ? piece : undefined;
    const arrays = packed?.parts ?? [piece as Tensor];
    launchInto(embedKernel(ids.size, columns, place, packed?.format), [ids, ...arrays], [y]);
  });
  const learned = table instanceof PackedWeight ? [] : [table];
  return track(y, learned, (gradient) =>
    learned.map(({ shape }) => tableGradient(ids, gradient, shape, fixedRow)),
  );
}

//| 02-attention/9-the-block.ipynb#distances-operation
/** Places [...] counted from others [...] that stand before them, such as the first of each token's document. */
export function distances(places: Tensor<"u32">, from: Tensor<"u32">): Tensor<"u32"> {
  return launch(distancesKernel(places.size), [places, from], places.shape, "u32");
}
