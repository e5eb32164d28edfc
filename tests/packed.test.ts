// Batches say where documents begin, and fused attention takes their word: no token sees another document.
import { expect, test } from "vitest";
import { documentStarts } from "../lib/src/data/batches.js";
import { tokensInMemory } from "../lib/src/data/shards.js";
import { randomStream } from "../lib/src/data/random.js";
import { completeModelConfig, parseModelConfig } from "../lib/src/model/config.js";
import { openGpu } from "../lib/src/gpu/device.js";
import { randomModel } from "../lib/src/model/families.js";
import { attend } from "../lib/src/tensor/attend.js";
import { tensor } from "../lib/src/tensor/tensor.js";
import { evaluate, recordEvaluation } from "../lib/src/train/evaluate.js";
import { train } from "../lib/src/train/loop.js";
import { startRun } from "../lib/src/train/run.js";
import { defaultOptimizer } from "../lib/src/train/optimizers.js";

await openGpu();

test("attention over a packed window is that over each of its documents", async () => {
  const random = randomStream(40);
  const [rows, context, width] = [3, 23, 4];
  const inputs = Uint32Array.from({ length: rows * context }, () => Math.floor(6 * random()));
  const starts = documentStarts({ batchSize: rows, context, inputs, targets: inputs }, 0);
  const values = () => Float32Array.from({ length: rows * context * width }, () => 2 * random() - 1);
  const [q, k, v] = [values(), values(), values()];
  const heads = (data: Float32Array, count: number, length: number) =>
    tensor(data, [count, 1, length, width]);
  const ids = (data: Uint32Array, count: number) => tensor(data, [count, data.length / count], "u32");
  const places = Uint32Array.from({ length: rows * context }, (_, i) => i % context);
  const visibility = { positions: ids(places, rows), firstKey: ids(starts, rows) };
  const [queries, keys, weights] = [q, k, v].map((data) => heads(data, rows, context));
  const packed = await attend(queries, { keys, values: weights }, visibility).array();
  let documents = 0;
  for (let from = 0; from < inputs.length; documents++) {
    const row = Math.floor(from / context) * context;
    let to = from + 1;
    while (to < row + context && starts[to] === starts[from]) to++;
    const part = (data: Float32Array) => heads(data.slice(from * width, to * width), 1, to - from);
    const own = ids(
      Uint32Array.from({ length: to - from }, (_, i) => i),
      1,
    );
    const alone = await attend(part(q), { keys: part(k), values: part(v) }, { positions: own }).array();
    alone.forEach((value, i) => expect(packed[from * width + i]).toBeCloseTo(value, 5));
    from = to;
  }
  expect(documents).toBeGreaterThan(2 * rows);
});

const tiny = {
  model_type: "llama",
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  tie_word_embeddings: true,
  initializer_range: 0.3,
};
const sizes = { vocab_size: 9, max_position_embeddings: 24 };
const config = parseModelConfig(completeModelConfig(tiny, sizes));

test("a model's loss on packed documents is that on each of them alone", async () => {
  const model = randomModel(config, 1);
  // 0 ends a document; the last token is a target only.
  const lengths = [5, 1, 9, 9];
  const tokens = lengths.flatMap((length) =>
    [...Array(length - 1).keys(), -1].map((i) => (i < 0 ? 0 : 1 + (i % 8))),
  );
  const whole = tokensInMemory([...tokens, 3]);
  const packed = await evaluate(recordEvaluation(model, 1, 24, 0), whole);
  let [sum, from] = [0, 0];
  for (const length of lengths) {
    const alone = tokensInMemory(whole.read(from, length + 1));
    sum += length * (await evaluate(recordEvaluation(model, 1, length), alone));
    from += length;
  }
  expect(packed).toBeCloseTo(sum / 24, 4);
  expect(Math.abs(packed - (await evaluate(recordEvaluation(model, 1, 24), whole)))).toBeGreaterThan(1e-3);
});

test("training that keeps documents apart goes its own way, and validates as it trains", async () => {
  const source = tokensInMemory(Uint32Array.from({ length: 400 }, (_, i) => (i * i + (i >> 3)) % 9));
  const data = { train: source, val: source, valSize: { tokens: 1, bytes: 1 } };
  const schedule = { kind: "constant" as const, warmup: 0, steps: 4, peak: 0.01, floor: 0 };
  const settings = {
    steps: 4,
    batchSize: 3,
    accumulate: 2,
    context: 24,
    seed: 1,
    optimizer: defaultOptimizer,
    schedule,
  };
  const trained = async (separator?: number) => {
    const run = startRun(randomModel(config, 1), { ...settings, separator }, data);
    const last = (await train(run))!;
    const expected = await evaluate(recordEvaluation(run.model, 3, 24, separator), source);
    expect(last.validation!.loss).toBe(expected);
    return last;
  };
  const [apart, together] = [await trained(0), await trained()];
  expect(Math.abs(apart.loss - together.loss)).toBeGreaterThan(1e-3);
});
