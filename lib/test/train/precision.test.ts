// Extracted from chapters/04-training/6-precision.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { batches } from "../../src/data/batches.js";
import { tokensInMemory } from "../../src/data/shards.js";
import { syntheticText } from "../../src/data/synthetic.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { lossScaleKernel } from "../../src/kernels/loss-scale.js";
import { completeModelConfig, parseModelConfig } from "../../src/model/config.js";
import { forward, sequenceContext } from "../../src/model/decoder.js";
import { parametersOf, randomModel } from "../../src/model/families.js";
import type { Model } from "../../src/model/structure.js";
import { gradients } from "../../src/tensor/autograd.js";
import { capture } from "../../src/tensor/capture.js";
import { crossEntropy } from "../../src/tensor/cross-entropy.js";
import { type Precision, withPrecision } from "../../src/tensor/precision.js";
import { type Tensor, indices, launchInto, tensor } from "../../src/tensor/tensor.js";
import { byteTokenizer } from "../../src/tokenizer/merges.js";
import { makeOptimizer } from "../../src/train/muon.js";
import { defaultOptimizer, globalNorm } from "../../src/train/optimizers.js";
import { adjustLossScale, makeLossScale, scaledSeed } from "../../src/train/precision.js";

//| 04-training/6-precision.ipynb#setup
const windowTokens = 32;
const rows = 8;
const config = parseModelConfig(
  completeModelConfig(
    { model_type: "llama", hidden_size: 64, num_hidden_layers: 1 },
    { vocab_size: 257, max_position_embeddings: windowTokens },
  ),
);
const text = [...syntheticText(1, 200_000)].join("");
const source = tokensInMemory(byteTokenizer().encode(text));
const first = batches(source, { batchSize: rows, context: windowTokens, seed: 1 }).next();

//| 04-training/6-precision.ipynb#plain-scale
/** The loss scale after a step: [factor, finite steps since it last changed, steps left out], from the norm of the gradients. */
function plainNextScale([factor, good, skipped]: number[], norm: number, patience: number): number[] {
  if (!Number.isFinite(norm)) return [Math.max(1, factor / 2), 0, skipped + 1];
  if (good + 1 < patience) return [factor, good + 1, skipped];
  return [Math.min(2 ** 24, factor * 2), 0, skipped];
}

//| 04-training/6-precision.ipynb#scale-test
await openGpu();

await test("the loss scale follows its rule through finite and infinite steps", async () => {
  let expected = [2 ** 23, 0, 0];
  const state = tensor(expected);
  for (let step = 0; step < 60; step++) {
    const norm = [0.5, 3e38, Infinity, Number.NaN][Math.random() < 0.85 ? step % 2 : 2 + (step % 2)];
    expected = plainNextScale(expected, norm, 3);
    launchInto(lossScaleKernel(3), [tensor([norm])], [state]);
    expect([...(await state.array())]).toEqual(expected);
  }
  expect(expected[2]).toBeGreaterThan(0);
});

//| 04-training/6-precision.ipynb#scaled-test
const eightByEight = (values: ArrayLike<number>) => tensor(values, [8, 8]);

/** A matrix of one parameter with its optimizer, and an update of it from gradients that carry a loss scale, or none. */
function scaledMatrix(kind: "adamw" | "muon", lossScale?: Tensor) {
  const value = eightByEight(Array.from({ length: 64 }, (_, i) => Math.sin(i)));
  const settings = { ...defaultOptimizer, kind, clip: 5 };
  const optimizer = makeOptimizer([{ name: "w", role: "matrix", value }], settings);
  optimizer.setStep(0, 0.01);
  const update = (values: ArrayLike<number>) => {
    const gradients = [eightByEight(values)];
    const norm = globalNorm(gradients, lossScale);
    optimizer.update(gradients, norm, lossScale);
    if (lossScale) adjustLossScale(lossScale, norm);
  };
  return { value, update };
}

await test("a scaled step moves weights as an unscaled one, and one that overflows moves nothing", async () => {
  for (const kind of ["adamw", "muon"] as const) {
    const lossScale = makeLossScale();
    const [plain, scaled] = [scaledMatrix(kind), scaledMatrix(kind, lossScale)];
    const gradient = Array.from({ length: 64 }, () => Math.random() - 0.5);
    plain.update(gradient);
    scaled.update(gradient.map((g) => g * 2 ** 16));
    const moved = await plain.value.array();
    expect(await scaled.value.array()).toEqual(moved);
    for (const broken of [Infinity, Number.NaN]) {
      scaled.update(gradient.map((g, i) => (i === 9 ? broken : g)));
      expect(await scaled.value.array()).toEqual(moved);
    }
    expect([...(await lossScale.array())]).toEqual([2 ** 14, 0, 2]);
  }
});

//| 04-training/6-precision.ipynb#make-run
/** A recorded step of a fresh model; in 16 bits its loss is scaled, at first by `factor`. */
function makeRun(precision: Precision, factor = 2 ** 16) {
  const model: Model = randomModel(config, 1);
  const parameters = parametersOf(model);
  const optimizer = makeOptimizer(parameters, defaultOptimizer);
  const lossScale = precision === "f16" ? makeLossScale(factor) : undefined;
  const places = sequenceContext(config, windowTokens);
  const [ids, targets] = [indices(first.inputs, [rows, windowTokens]), indices(first.targets)];
  const values = parameters.map(({ value }) => value);
  const recording = capture(() => {
    const loss = withPrecision(precision, () => crossEntropy(forward(model, ids, places).logits, targets));
    const found = gradients(loss, values, lossScale ? scaledSeed(lossScale) : 1);
    const norm = globalNorm(found, lossScale);
    optimizer.update(found, norm, lossScale);
    if (lossScale) adjustLossScale(lossScale, norm);
    return loss;
  });
  return { ids, targets, optimizer, recording, lossScale };
}

//| 04-training/6-precision.ipynb#run-steps
/** The losses of some steps, and the loss scale after each. */
async function runSteps(
  { ids, targets, optimizer, recording, lossScale }: ReturnType<typeof makeRun>,
  steps: number,
) {
  const stream = batches(source, { batchSize: rows, context: windowTokens, seed: 1 });
  const [losses, factors]: [number[], number[]] = [[], []];
  for (let step = 0; step < steps; step++) {
    const batch = stream.next();
    ids.write(batch.inputs);
    targets.write(batch.targets);
    optimizer.setStep(step, 3e-3);
    losses.push(await recording.run().value());
    if (lossScale) factors.push((await lossScale.array())[0]);
  }
  return { losses, factors };
}

//| 04-training/6-precision.ipynb#curve-test
await test("200 steps in 16 bits lie within 0.05 nats of 200 in 32 on average, and are no worse by more than 0.02", async () => {
  if (!currentGpu().facts.f16) return console.log("skipped: this adapter has no 16-bit floats");
  const singles = await runSteps(makeRun("f32"), 200);
  const halves = await runSteps(makeRun("f16"), 200);
  const differences = halves.losses.map((loss, i) => loss - singles.losses[i]);
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const distance = mean(differences.map(Math.abs));
  console.log(
    `difference of the losses: ${distance.toFixed(4)} in size, ${mean(differences).toFixed(4)} on balance`,
  );
  expect(distance).toBeLessThan(0.05);
  expect(distance).toBeGreaterThan(0); // it did compute in 16 bits
  expect(Math.abs(mean(differences))).toBeLessThan(0.02);
  expect(singles.losses[199]).toBeLessThan(0.75 * singles.losses[0]);
});
