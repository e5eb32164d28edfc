// Extracted from chapters/02-attention/8-the-block.ipynb: edit it there, or here and run `npm run backport`.
import { embedBackwardKernel, embedKernel, linkIdsKernel, zeroKernel } from "../kernels/embedding.js";
import { track } from "./autograd.js";
import { type Tensor, describe, empty, launch, launchInto } from "./tensor.js";

//| 02-attention/8-the-block.ipynb#table-gradient
/** The gradient of the table: for each id the sum over its places, and zeros for ids that do not occur. */
export function tableGradient(ids: Tensor<"u32">, gradient: Tensor, shape: readonly number[]): Tensor {
  const result = empty(shape);
  launchInto(zeroKernel(result.size), [], [result]);
  const links = launch(linkIdsKernel(ids.size), [ids], [ids.size, 2], "u32");
  launchInto(embedBackwardKernel(ids.size, shape[1]), [ids, links, gradient], [result]);
  return result;
}

//| 02-attention/8-the-block.ipynb#embed
/**
 * Looks up a row of the table [vocabulary, columns] for each id: ids [...] give [..., columns]. Ids must be below the
 * vocabulary's size; check them where they come from, since the GPU does not complain.
 */
export function embed(ids: Tensor<"u32">, table: Tensor): Tensor {
  if (table.shape.length !== 2)
    throw new Error(`embed wants a table [vocabulary, columns], not ${describe(table)}.`);
  const columns = table.shape[1];
  const y = launch(embedKernel(ids.size, columns), [ids, table], [...ids.shape, columns]);
  return track(y, [table], (gradient) => [tableGradient(ids, gradient, table.shape)]);
}
