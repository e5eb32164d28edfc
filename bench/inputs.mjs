// What all peers compute on, made from seeds, so that each process has the same, and how their results are judged.
import { stepModel, stepShapes } from "../lib/dist/cli/bench-steps.js";
import {
  defaultOptimizer,
  initialValues,
  ropeFrequencies,
  uniforms,
  weightShapes,
} from "../lib/dist/index.js";

/** The two factors of a product [size, size]. */
export function factors(size) {
  return [1, 2].map((seed) => uniforms(seed, size * size).map((value) => value - 0.5));
}

/** Throws unless c begins and ends with the rows of a times b, in 64 bits: who computes something else is not compared. */
export function checkProduct(size, [a, b], c) {
  for (const row of [0, size - 1])
    for (let column = 0; column < size; column++) {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += a[row * size + k] * b[k * size + column];
      if (!(Math.abs(sum - c[row * size + column]) < 1e-3)) throw new Error("its result is not the product");
    }
}

/** The training step: sizes, weights by name, one batch, and AdamW's constants. Nothing is clipped. */
export function trainingStep() {
  const { config, vocabulary } = stepShapes.dense;
  const model = stepModel(stepShapes.dense);
  const { batch_size: batch, context } = config;
  const ids = (seed) => Uint32Array.from(uniforms(seed, batch * context), (value) => value * vocabulary);
  const weights = [...weightShapes(model)].map(([name, shape]) => ({
    name,
    shape,
    values: initialValues(model, name, shape, 1),
    decayed: shape.length > 1,
  }));
  const settings = { ...defaultOptimizer, clip: 0, rate: config.optimizer.learning_rate };
  return { model, batch, context, inputs: ids(3), targets: ids(4), weights, settings };
}

/** AdamW's corrections in a step that counts from 0. */
export function corrections({ betas: [beta1, beta2] }, step) {
  return [1 / (1 - beta1 ** (step + 1)), 1 / (1 - beta2 ** (step + 1))];
}

/** Cosines and sines [context, headDim] of rotary positions, both halves of a head alike. */
export function rotation({ rope, headDim }, context) {
  const frequencies = ropeFrequencies(rope.theta, headDim);
  const table = (turn) =>
    Float32Array.from({ length: context * headDim }, (_, i) =>
      turn(Math.floor(i / headDim) * frequencies[i % (headDim / 2)]),
    );
  return [table(Math.cos), table(Math.sin)];
}
