// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { type Synchronous, inContext } from "../gpu/context.js";
import type { Tensor } from "./tensor.js";

//| 02-attention/a-the-engine-room.ipynb#linear-watch
/** What a linear layer is given: x [..., inputs] and its weight. Rows sorted by expert come in tiles, each with the expert that owns it. */
export interface LinearInput {
  x: Tensor;
  weight: object;
  tiles?: { owners: Tensor<"u32">; rows: number };
}

/** Who is shown the inputs of linear layers at present, if anybody is. */
export const linearWatcher: { now?: (input: LinearInput) => void } = {};

/** Runs `work`, which is synchronous, and shows `see` what each linear layer is given meanwhile. */
export function watchLinears<T>(see: (input: LinearInput) => void, work: () => Synchronous<T>): T {
  const before = linearWatcher.now;
  linearWatcher.now = see;
  return inContext("watchLinears", work, () => {
    linearWatcher.now = before;
  });
}
