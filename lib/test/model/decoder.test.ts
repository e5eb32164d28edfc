// Extracted from chapters/03-moe/4-the-decoder.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../src/formats/config.js";
import { readSafetensors, toFloat32, toInt32 } from "../../src/formats/safetensors.js";
import { openGpu } from "../../src/gpu/device.js";
import { parseModelConfig } from "../../src/model/config.js";
import { checkIds, forward, sequenceContext } from "../../src/model/decoder.js";
import { decoderEntries } from "../../src/model/entries.js";
import {
  type Model,
  type ModelFamily,
  buildModel,
  freshModel,
  modelWeights,
  parametersIn,
} from "../../src/model/structure.js";
import { gradients, parameter, withoutGradients } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { multiply, sum } from "../../src/tensor/operations.js";
import { type Tensor, indices, sizeOf, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/4-the-decoder.ipynb#model-of-file
/** The table as a family of models. */
const tableFamily = { entries: decoderEntries } as ModelFamily;

/** The model in the bytes of a file of f32: for each row of the table the tensor of that name, those of all experts stacked. */
function modelOfFile(config: ModelConfig, bytes: Uint8Array): Model {
  const { tensors } = readSafetensors(bytes);
  return buildModel(config, tableFamily, ({ files, shape }) => {
    const values = new Float32Array(sizeOf(shape));
    for (const [i, name] of files.entries())
      values.set(toFloat32(tensors.get(name)!), (i * values.length) / files.length);
    return parameter(tensor(values, shape));
  });
}

//| 03-moe/4-the-decoder.ipynb#plain-loss-test
await openGpu();

/** The folder of reference models, seen from the repository or from a chapter. */
const references = ["tests/fixtures/families", "../../tests/fixtures/families"].find((folder) =>
  fs.existsSync(folder),
)!;

/** The bytes of a reference model's file. */
function referenceFile(family: string, file: string): Uint8Array {
  return fs.readFileSync(`${references}/${family}/${file}`);
}

/** A reference model. */
function referenceModel(family: string): Model {
  const config = JSON.parse(new TextDecoder().decode(referenceFile(family, "config.json")));
  return modelOfFile(parseModelConfig(config), referenceFile(family, "model.safetensors"));
}

//| 03-moe/4-the-decoder.ipynb#next-token-loss-test
/** −log p(target) of one row of scores, and what it changes by for each score: softmax − 1 at the target. */
function plainLoss(scores: Float32Array, target: number): { loss: number; slope: number[] } {
  const largest = scores.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(scores, (score) => Math.exp(score - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  const slope = powers.map((power, i) => power / total - (i === target ? 1 : 0));
  return { loss: Math.log(total) + largest - scores[target], slope };
}

/** The mean loss of predicting each next id, from logits [batch, tokens, vocabulary], and its gradient by the logits. */
function nextTokenLoss(
  logits: Float32Array,
  ids: ArrayLike<number>,
  [batch, tokens, vocab]: readonly number[],
) {
  const slope = new Float32Array(logits.length);
  const count = batch * (tokens - 1);
  let loss = 0;
  for (let at = 0; at < batch * tokens; at++) {
    if ((at + 1) % tokens === 0) continue; // the last token of a sequence has no next one
    const row = plainLoss(logits.subarray(at * vocab, (at + 1) * vocab), ids[at + 1]);
    loss += row.loss / count;
    slope.set(
      row.slope.map((value) => value / count),
      at * vocab,
    );
  }
  return { loss, slope };
}

//| 03-moe/4-the-decoder.ipynb#loss-gradients-test
/** The loss of a model on ids [batch, tokens], with the gradient of every parameter. */
async function lossAndGradients(model: Model, ids: ArrayLike<number>, shape: number[]) {
  const { logits } = forward(model, indices(ids, shape), sequenceContext(model.config, shape[1]));
  const { loss, slope } = nextTokenLoss(await logits.array(), ids, logits.shape);
  const scalar = sum(multiply(logits, tensor(slope, logits.shape)));
  const values = parametersIn(model, decoderEntries).map(({ value }) => value);
  return { logits, loss, found: gradients(scalar, values) };
}

/** The largest relative error of gradients against a reference file, with the name of the tensor it is in. */
async function worstGradient(
  model: Model,
  found: Tensor[],
  reference: Uint8Array,
): Promise<[number, string]> {
  const { tensors } = readSafetensors(reference);
  let worst: [number, string] = [0, ""];
  for (const [i, { files, name }] of modelWeights(decoderEntries, model.config).entries()) {
    const values = await found[i].array();
    const theirs = files.flatMap((file) => [...toFloat32(tensors.get(file)!)]);
    const error = relativeError(values, theirs);
    if (error > worst[0]) worst = [error, name];
  }
  return worst;
}

//| 03-moe/4-the-decoder.ipynb#reference-test
for (const family of ["llama", "qwen3", "qwen3_moe"])
  await test(`${family}: logits, loss and the gradient of every weight are those of transformers`, async () => {
    const expected = readSafetensors(referenceFile(family, "expected.safetensors")).tensors;
    const [ids, shape] = [toInt32(expected.get("input_ids")!), expected.get("input_ids")!.shape];
    const model = referenceModel(family);
    const { logits, loss, found } = await lossAndGradients(model, ids, shape);
    expect(relativeError(await logits.array(), toFloat32(expected.get("logits")!))).toBeLessThan(1e-5);
    expect(loss).toBeCloseTo(toFloat32(expected.get("loss")!)[0], 5);
    const [error] = await worstGradient(model, found, referenceFile(family, "gradients.safetensors"));
    expect(error).toBeLessThan(2e-5);
  });

//| 03-moe/4-the-decoder.ipynb#mixed-test
/** What the reference models leave out: tied and biased, with a dense layer among sparse ones. */
const mixedConfig = {
  ...referenceModel("qwen3_moe").config,
  tied: true,
  attentionBias: true,
  initializerRange: 0.2,
};

mixedConfig.moe = { ...mixedConfig.moe!, sparseLayers: [false, true] };

/** Two sequences of 24 ids. */
const someIds = toInt32(
  readSafetensors(referenceFile("qwen3_moe", "expected.safetensors")).tensors.get("input_ids")!,
);

await test("tied, biased, dense beside sparse: a step along the gradient changes the loss as the gradient says", async () => {
  const model = freshModel(mixedConfig, tableFamily, 7);
  const { loss, found } = await lossAndGradients(model, someIds, [2, 24]);
  const step = 2e-3;
  let promised = 0;
  for (const [i, { value: weight }] of parametersIn(model, decoderEntries).entries()) {
    const [values, gradient] = [await weight.array(), await found[i].array()];
    promised += gradient.reduce((total, slope) => total + slope * slope, 0) * step;
    weight.write(values.map((value, k) => value - step * gradient[k]));
  }
  const after = await lossAndGradients(model, someIds, [2, 24]);
  expect(promised).toBeGreaterThan(1e-3);
  expect((loss - after.loss) / promised).toBeCloseTo(1, 1);
});

//| 03-moe/4-the-decoder.ipynb#look-ahead-test
await test("a later token never changes what was said of an earlier one", async () => {
  const model = freshModel(mixedConfig, tableFamily, 8);
  const run = (ids: ArrayLike<number>) =>
    withoutGradients(
      () => forward(model, indices(ids, [2, 24]), sequenceContext(mixedConfig, 24)).logits,
    ).array();
  const changed = someIds.map((id, at) => (at === 47 ? (id + 1) % 64 : id));
  const [one, other] = [await run(someIds), await run(changed)];
  expect(other.subarray(0, 47 * 64)).toEqual(one.subarray(0, 47 * 64));
  expect(other.subarray(47 * 64)).not.toEqual(one.subarray(47 * 64));
});

//| 03-moe/4-the-decoder.ipynb#load-test
await test("a model with experts reports their load, and a balance loss where gradients are wanted", async () => {
  const model = freshModel(mixedConfig, tableFamily, 9);
  const run = () => forward(model, indices(someIds, [2, 24]), sequenceContext(mixedConfig, 24));
  const { load, balanceLoss } = run();
  expect(load.length).toBe(1);
  expect((await load[0].array()).reduce((a, b) => a + b)).toBe(48 * 2);
  expect(await balanceLoss!.value()).toBeGreaterThan(1);
  expect(withoutGradients(run).balanceLoss).toBeUndefined();
});

//| 03-moe/4-the-decoder.ipynb#learn-test
await test("plain gradient descent makes a tiny model know one batch by heart", async () => {
  const model = freshModel(mixedConfig, tableFamily, 10);
  const parameters = parametersIn(model, decoderEntries).map(({ value }) => value);
  let last = 0;
  for (let step = 0; step < 20; step++) {
    const { loss, found } = await lossAndGradients(model, someIds, [2, 24]);
    const steps = await Promise.all(found.map((gradient) => gradient.array()));
    for (const [i, weight] of parameters.entries()) {
      const values = await weight.array();
      weight.write(values.map((value, k) => value - 0.5 * steps[i][k]));
    }
    for (const gradient of found) gradient.free();
    last = loss;
  }
  expect(last).toBeLessThan(0.2);
});

await test("an id outside of the vocabulary is refused by name", () => {
  checkIds([0, 18], 19);
  expect(() => checkIds([3, 19], 19)).toThrow(
    "The id 19 at place 1 is not in the vocabulary, whose ids are 0 to 18.",
  );
  expect(() => checkIds([-1], 19)).toThrow("The id -1");
  expect(() => checkIds([1.5], 19)).toThrow("The id 1.5");
});
