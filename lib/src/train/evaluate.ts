// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { documentStarts, validationWindows } from "../data/batches.js";
import type { TokenSource } from "../data/shards.js";
import type { Model } from "../model/structure.js";
import { withoutGradients } from "../tensor/autograd.js";
import { type Recording, capture } from "../tensor/capture.js";
import type { Tensor } from "../tensor/tensor.js";
import { type BatchTensors, batchContext, batchLoss, batchTensors, writeBatch } from "./step.js";

//| 04-training/8-the-loop.ipynb#evaluation
/** The model's loss on a batch, recorded once. */
export interface Evaluation {
  batch: BatchTensors;
  recording: Recording<Tensor>;
  /** The token that begins a document, if documents are kept apart. */
  separator?: number;
}

/** Records the loss of a model on batches of one size, without gradients. */
export function recordEvaluation(
  model: Model,
  batchSize: number,
  context: number,
  separator?: number,
): Evaluation {
  const batch = batchTensors(batchSize, context, separator !== undefined);
  const positions = batchContext(model, batch);
  const loss = () => batchLoss(model, batch, positions).loss;
  return { batch, recording: capture(() => withoutGradients(loss)), separator };
}

/** The mean loss in nats a token over up to `maxTokens` tokens, spread evenly over a source: the same windows each time. */
export async function evaluate(
  evaluation: Evaluation,
  source: TokenSource,
  maxTokens?: number,
): Promise<number> {
  const { batch, recording, separator } = evaluation;
  const [batchSize, context] = batch.inputs.shape;
  let [total, tokens] = [0, 0];
  for (const windows of validationWindows(source, { context, batchSize, maxTokens })) {
    const firstKey = separator === undefined ? undefined : documentStarts(windows, separator);
    writeBatch(batch, { ...windows, firstKey });
    total += (await recording.run().value()) * windows.targets.length;
    tokens += windows.targets.length;
  }
  return total / tokens;
}
