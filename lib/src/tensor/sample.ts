// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { copyBlockKernel } from "../kernels/copy.js";
import {
  type SampleShape,
  editKernel,
  editWords,
  likeliestKernel,
  mostTokens,
  sampleKernel,
  settingsWords,
} from "../kernels/sample.js";
import { type Tensor, empty, indices, launch, launchInto } from "./tensor.js";

//| 05-inference/1-sampling.ipynb#sample-inputs
/** What the choice of a token for each row needs besides the scores. It is small, and written before each run. */
export interface SampleInputs {
  /** A row's settings, see `packSettings`: [rows, 9]. */
  settings: Tensor<"u32">;
  /** Which tokens may come, a bit each: [rows, ⌈vocab / 32⌉]. All, unless given. */
  mask?: Tensor<"u32">;
  /** Scores that are changed first, see `packEdit`: [capacity, 4]. */
  edits?: Tensor<"u32">;
}

//| 05-inference/1-sampling.ipynb#sample-rows
/** Room for the settings of `rows` rows, and for masks and a number of edits where asked for. */
export function sampleInputs(rows: number, vocab: number, { masked = false, edits = 0 } = {}): SampleInputs {
  if (vocab > mostTokens)
    throw new Error(`Tokens are drawn from a vocabulary of up to ${mostTokens}, not of ${vocab}.`);
  const words = Math.ceil(vocab / 32);
  return {
    settings: indices(new Uint32Array(rows * settingsWords), [rows, settingsWords]),
    mask: masked ? indices(new Uint32Array(rows * words).fill(0xffffffff), [rows, words]) : undefined,
    edits:
      edits > 0
        ? indices(new Uint32Array(edits * editWords).fill(0xffffffff), [edits, editWords])
        : undefined,
  };
}

//| 05-inference/1-sampling.ipynb#sample-shape
/** How rows of scores are shared out: a software adapter does the work of few lanes in less time than that of many. */
export function sampleShape(scores: Tensor, { mask }: SampleInputs): SampleShape {
  const [rows, vocab] = [scores.size / scores.shape.at(-1)!, scores.shape.at(-1)!];
  return { rows, vocab, lanes: currentGpu().facts.kind === "cpu" ? 64 : 256, masked: mask !== undefined };
}

/** The scores [rows, vocab] after the edits: a copy. */
export function editScores(scores: Tensor, settings: Tensor<"u32">, edits: Tensor<"u32">): Tensor {
  const { rows, vocab } = sampleShape(scores, { settings });
  const place = { start: 0, stride: vocab };
  const copy = launch(copyBlockKernel(rows, vocab, place, place), [scores], scores.shape);
  launchInto(editKernel(rows, vocab, edits.shape[0]), [edits, settings], [copy]);
  return copy;
}

//| 05-inference/1-sampling.ipynb#sample-rows-2
/**
 * Draws one token for each row of scores [rows, vocab] on the GPU: ids [rows]. A row's token depends on its own scores and settings alone, to the bit.
 * In place of an id comes a number above all ids where there is none to be had: see `checkDrawn`.
 */
export function sampleRows(scores: Tensor, inputs: SampleInputs): Tensor<"u32"> {
  const { settings, mask, edits } = inputs;
  const shape = sampleShape(scores, inputs);
  const edited = edits ? editScores(scores, settings, edits) : scores;
  const [ids, list] = [empty([shape.rows], "u32"), empty([shape.rows, shape.vocab], "u32")];
  launchInto(sampleKernel(shape), [edited, settings, ...(mask ? [mask] : [])], [ids, list]);
  return ids;
}

//| 05-inference/1-sampling.ipynb#likeliest-rows
/**
 * The logarithms of probabilities by the scores [rows, vocab] as the model gave them, whatever the settings: that of each row's chosen id [rows], then those of its `count` likeliest tokens,
 * together [rows, 1 + count]; and the ids of the latter [rows, count]. Up to 20, and no more than there are tokens.
 */
export function likeliestRows(
  scores: Tensor,
  ids: Tensor<"u32">,
  { settings }: SampleInputs,
  count: number,
): { logProbabilities: Tensor; likeliest: Tensor<"u32"> } {
  const shape = sampleShape(scores, { settings });
  const likeliest = empty([shape.rows, count], "u32");
  const logProbabilities = empty([shape.rows, 1 + count]);
  const list = empty([shape.rows, shape.vocab], "u32");
  launchInto(likeliestKernel(shape, count), [scores, settings, ids], [likeliest, logProbabilities, list]);
  return { logProbabilities, likeliest };
}
