// Extracted from chapters/02-attention/3-tensors-and-gradients.ipynb: edit it there, or here and run `npm run backport`.
import { type Synchronous, inContext } from "../gpu/context.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits } from "../kernels/wgsl.js";
import { inPieces } from "./pieces.js";
import { type DType, type Tensor, describe, launch, view } from "./tensor.js";

//| 02-attention/3-tensors-and-gradients.ipynb#tape-parts
/** The tape's state: the number of the next node, and how many calls asked for no gradients. */
export const tape = { next: 0, paused: 0 };

/** Whether gradients flow through a tensor. */
export function isTracked(value: Tensor): boolean {
  return value.trainable || value.node !== undefined;
}

//| 02-attention/3-tensors-and-gradients.ipynb#tape
/** Marks a tensor as one that gradients are wanted for. */
export function parameter(value: Tensor): Tensor {
  value.trainable = true;
  return value;
}

//| 02-attention/3-tensors-and-gradients.ipynb#without-gradients
/** Runs `work`, which is synchronous, without writing the tape: for using a model, not training it. */
export function withoutGradients<T>(work: () => Synchronous<T>): T {
  tape.paused += 1;
  return inContext("withoutGradients", work, () => {
    tape.paused -= 1;
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#inference-parts
/** A result that later calls with the same inputs need not compute again: the ranges of keys are the same in all layers. */
export interface KeptResult {
  key: string;
  inputs: Tensor<DType>[];
  results: Tensor<"u32">[];
}

/** Whether results are to be those of inference, and what has been computed since it began. */
export const inference: { on: boolean; kept: KeptResult[] } = { on: false, kept: [] };

//| 02-attention/3-tensors-and-gradients.ipynb#with-inference
/**
 * Runs `work`, which is synchronous, without writing the tape, and with kernels that are batch-invariant: each row of a result has
 * the same bits whatever rows are computed beside it, in however many parts a text is read, and wherever its keys and values lie.
 * Positions must not be written into meanwhile.
 */
export function withInference<T>(work: () => Synchronous<T>): T {
  const before = { ...inference };
  Object.assign(inference, { on: true, kept: [] });
  return withoutGradients(
    () =>
      inContext("withInference", work, () => {
        Object.assign(inference, before);
      }) as Synchronous<T>,
  );
}

//| 02-attention/3-tensors-and-gradients.ipynb#track
/**
 * Writes on the tape how `output` came from `inputs`, if gradients flow through any of them.
 * `backward` takes the gradient of the output (same shape) and gives those of the inputs, in order.
 */
export function track(
  output: Tensor,
  inputs: Tensor[],
  backward: (gradient: Tensor) => (Tensor | undefined)[],
): Tensor {
  if (tape.paused === 0 && inputs.some(isTracked)) output.node = { order: tape.next++, inputs, backward };
  return output;
}

//| 02-attention/3-tensors-and-gradients.ipynb#tape-of
/** The tensors that `loss` was computed from and that carry a node, latest first. */
export function tapeOf(loss: Tensor): Tensor[] {
  const seen = new Set<Tensor>();
  const waiting = [loss];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (!next.node || seen.has(next)) continue;
    seen.add(next);
    waiting.push(...next.node.inputs);
  }
  return [...seen].sort((a, b) => b.node!.order - a.node!.order);
}

//| 02-attention/3-tensors-and-gradients.ipynb#send-back
/** The sum of two gradients of one tensor, off the tape. */
export function sumOf(a: Tensor, b: Tensor): Tensor {
  return inPieces("add", "a + b", a, b);
}

/** Sends the gradient of one output to the inputs it was made from; gradients that meet are added. */
export function sendBack(output: Tensor, found: Map<Tensor, Tensor>): void {
  const { inputs, backward } = output.node!;
  backward(found.get(output)!).forEach((part, i) => {
    if (!part || !isTracked(inputs[i])) return;
    const earlier = found.get(inputs[i]);
    found.set(inputs[i], earlier ? sumOf(earlier, part) : part);
  });
}

//| 02-attention/3-tensors-and-gradients.ipynb#constant-kernel
/** Writes one number. Output: [1]. */
export function constantKernel(value: number): Kernel {
  return kernel({
    name: `constant ${value}`,
    reads: [],
    writes: ["y: array<f32>"],
    sizes: { value: floatBits(value) },
    workgroupSize: 1,
    workgroups: 1,
    body: "  y[0] = bitcast<f32>(sizes.value);",
  });
}

/** Looks up a parameter's gradient, or says that there is none. */
export function gradientOf(found: Map<Tensor, Tensor>, parameter: Tensor): Tensor {
  const gradient = found.get(parameter);
  if (!gradient)
    throw new Error(
      `The loss does not depend on the parameter ${describe(parameter)}, so it has no gradient.`,
    );
  return gradient;
}

//| 02-attention/3-tensors-and-gradients.ipynb#gradients
/**
 * The gradient of `loss` (one element) with respect to each of `parameters`, in their order and shapes.
 * `seed` is the gradient of the loss itself, 1 unless the loss is scaled: a number, or a tensor [1].
 * Throws for a parameter that the loss does not depend on.
 */
export function gradients(loss: Tensor, parameters: Tensor[], seed: number | Tensor = 1): Tensor[] {
  if (loss.size !== 1)
    throw new Error(`Gradients start from a loss with one element, not ${describe(loss)}: take its mean.`);
  const first = typeof seed === "number" ? launch(constantKernel(seed), [], loss.shape) : seed;
  const found = new Map<Tensor, Tensor>([[loss, first]]);
  for (const output of tapeOf(loss)) sendBack(output, found);
  return parameters.map((parameter) => gradientOf(found, parameter));
}

//| 02-attention/3-tensors-and-gradients.ipynb#reshape
/** The same elements under another shape; gradients flow through. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  return track(view(x, shape), [x], (gradient) => [view(gradient, x.shape)]);
}
