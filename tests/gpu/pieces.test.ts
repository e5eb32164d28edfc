// Training with weights that are larger than what a kernel can bind: an adapter of today with a limit that is made small.
import {
  completeModelConfig,
  currentGpu,
  openGpu,
  parseModelConfig,
  pieces,
  parametersOf,
  randomModel,
  startRun,
  train,
} from "tslm";
import { defaultOptimizer, type Tensor, type TrainingSettings } from "tslm";
import { expect, test } from "vitest";

await openGpu();

const settings: TrainingSettings = {
  steps: 3,
  batchSize: 2,
  accumulate: 2,
  context: 12,
  seed: 1,
  optimizer: defaultOptimizer,
  schedule: { kind: "constant", warmup: 0, steps: 3, peak: 0.01, floor: 0 },
};
const ids = Uint32Array.from({ length: 300 }, (_, i) => (i * i + 5 * i) % 257);
const source = {
  length: ids.length,
  read: (start: number, count: number) => ids.slice(start, start + count),
};
const data = { train: source, val: source, valSize: { tokens: 1, bytes: 1 } };

/** Losses and weights of a short training on an adapter that binds so many bytes. */
async function trained(bytes: number, tied: boolean) {
  const { limits } = currentGpu().facts;
  const usual = limits.maxStorageBufferBindingSize;
  limits.maxStorageBufferBindingSize = bytes;
  try {
    const shape = {
      model_type: "llama",
      hidden_size: 32,
      intermediate_size: 48,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      tie_word_embeddings: tied,
    };
    const config = parseModelConfig(
      completeModelConfig(shape, { vocab_size: 257, max_position_embeddings: 12 }),
    );
    const model = randomModel(config, 1);
    const run = startRun(model, settings, data);
    const last = await train(run);
    const arrays = await Promise.all(parametersOf(model).map(({ value }) => value.array()));
    return { last: last!, pieces: pieces(model.embedding as Tensor).length, arrays };
  } finally {
    limits.maxStorageBufferBindingSize = usual;
  }
}

test.each([true, false])("a step in pieces moves weights as a whole one does (tied: %s)", async (tied) => {
  const whole = await trained(2 ** 27, tied);
  const parts = await trained(8192, tied);
  expect([whole.pieces, parts.pieces]).toEqual([1, 5]);
  expect(parts.last.loss).toBeCloseTo(whole.last.loss, 4);
  expect(parts.last.norm / whole.last.norm).toBeCloseTo(1, 3);
  for (const [i, array] of whole.arrays.entries()) {
    const largest = array.reduce((most, value, k) => Math.max(most, Math.abs(value - parts.arrays[i][k])), 0);
    expect(largest).toBeLessThan(2e-3); // a fifteenth of what three steps move; Adam amplifies rounding where slopes are near zero
  }
});
