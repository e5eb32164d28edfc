// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { batches, validationWindows } from "../../src/data/batches.js";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { routerZLoss } from "../../src/model/balance.js";
import { completeModelConfig, parseModelConfig } from "../../src/model/config.js";
import { forward, sequenceContext } from "../../src/model/decoder.js";
import { parametersByName, parametersOf, randomModel } from "../../src/model/families.js";
import type { Model } from "../../src/model/structure.js";
import { gradients, withoutGradients } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { tokenLosses } from "../../src/tensor/cross-entropy.js";
import { dropoutState } from "../../src/tensor/dropout.js";
import { add, scale } from "../../src/tensor/operations.js";
import { unpack } from "../../src/tensor/products.js";
import { latestCheckpoint, savedArrays, writeCheckpoint } from "../../src/train/checkpoint.js";
import { evaluate, recordEvaluation } from "../../src/train/evaluate.js";
import { type StepReport, train } from "../../src/train/loop.js";
import { makeOptimizer } from "../../src/train/muon.js";
import { defaultOptimizer } from "../../src/train/optimizers.js";
import { type Run, checkpointModel, runFiles, runState, startRun } from "../../src/train/run.js";
import { learningRate } from "../../src/train/schedule.js";
import {
  type GradientHook,
  type TrainingSettings,
  backward,
  batchLoss,
  batchTensors,
  recordStep,
  withRouterLosses,
  writeBatch,
} from "../../src/train/step.js";

//| 04-training/8-the-loop.ipynb#tiny-model
/** A small mixture of experts over 50 tokens. */
function tinyModel(seed: number, given: Record<string, unknown> = {}): Model {
  const shape = {
    hidden_size: 32,
    num_hidden_layers: 1,
    num_experts: 4,
    tie_word_embeddings: true,
    ...given,
  };
  const sizes = { vocab_size: 50, max_position_embeddings: 16 };
  return randomModel(parseModelConfig(completeModelConfig(shape, sizes)), seed);
}

/** Tokens that repeat a rule: each is three more than the one before, with a jump now and then. */
function ruleTokens(count: number): { length: number; read(start: number, count: number): Uint32Array } {
  const ids = Uint32Array.from({ length: count }, (_, i) => (3 * i + 7 * Math.floor(i / 11)) % 50);
  return { length: count, read: (start, size) => ids.slice(start, start + size) };
}

function tinySettings(steps: number, given: Partial<TrainingSettings> = {}): TrainingSettings {
  const schedule = { kind: "constant" as const, warmup: 0, steps, peak: 0.01, floor: 0 };
  return {
    steps,
    batchSize: 4,
    accumulate: 1,
    context: 16,
    seed: 3,
    optimizer: defaultOptimizer,
    schedule,
    ...given,
  };
}

//| 04-training/8-the-loop.ipynb#overfit-test
await openGpu();

await test("a tiny model learns one batch by heart", async () => {
  const [model, settings] = [tinyModel(1), tinySettings(60)];
  const optimizer = makeOptimizer(parametersOf(model), settings.optimizer);
  const recorded = recordStep({ model, optimizer }, settings);
  writeBatch(recorded.microBatches[0], batches(ruleTokens(400), settings).next());
  const losses: number[] = [];
  for (let step = 0; step < settings.steps; step++) {
    optimizer.setStep(step, learningRate(settings.schedule, step));
    losses.push(await (await recorded.run()).loss.value());
  }
  expect(losses[0]).toBeGreaterThan(3);
  expect(losses[settings.steps - 1]).toBeLessThan(0.05);
});

//| 04-training/8-the-loop.ipynb#evaluation-test
await test("evaluation is the mean over every token of every window, also when the last batch is not full", async () => {
  const [model, source] = [tinyModel(2), ruleTokens(16 * 7 + 1)];
  const measured = await evaluate(recordEvaluation(model, 4, 16), source);
  const losses: number[] = [];
  for (const { inputs, targets } of validationWindows(source, { context: 16 })) {
    const batch = batchTensors(1, 16);
    writeBatch(batch, { batchSize: 1, context: 16, inputs, targets });
    const { logits } = withoutGradients(() =>
      forward(model, batch.inputs, sequenceContext(model.config, 16)),
    );
    losses.push(...(await tokenLosses(logits, batch.targets).array()));
  }
  expect(losses.length).toBe(16 * 7);
  expect(measured).toBeCloseTo(losses.reduce((sum, loss) => sum + loss, 0) / losses.length, 5);
});

//| 04-training/8-the-loop.ipynb#accumulate-test
await test("four parts of one sequence move the weights as one batch of four does", async () => {
  const weights: Float32Array[] = [];
  for (const [accumulate, batchSize] of [
    [1, 4],
    [4, 1],
  ]) {
    const settings = tinySettings(3, {
      accumulate,
      batchSize,
      optimizer: { ...defaultOptimizer, kind: "sgd", weightDecay: 0 },
    });
    const model = tinyModel(1, { model_type: "qwen3", num_experts: undefined });
    const run = startRun(model, settings, {
      train: ruleTokens(400),
      val: ruleTokens(100),
      valSize: { tokens: 1, bytes: 1 },
    });
    await train(run);
    weights.push(await unpack(model.embedding));
  }
  const largest = Math.max(...weights[0].map((value, i) => Math.abs(value - weights[1][i])));
  expect(largest).toBeLessThan(1e-5);
  expect(largest).toBeGreaterThan(0); // the sums are made in another order: the same number, not the same bits
});

//| 04-training/8-the-loop.ipynb#hook-test
await test("a hook between backward and update sees all gradients by name, and what it makes of them is applied", async () => {
  const data = { train: ruleTokens(400), val: ruleTokens(16), valSize: { tokens: 1, bytes: 1 } };
  const optimizer = { ...defaultOptimizer, kind: "sgd" as const, clip: 0, weightDecay: 0 };
  const trained = async (peak: number, hook?: GradientHook) => {
    const schedule = { kind: "constant" as const, warmup: 0, steps: 3, peak, floor: 0 };
    const run = startRun(tinyModel(1), tinySettings(3, { optimizer, schedule, accumulate: 2 }), data, {
      hook,
    });
    const report = await train(run);
    const weights = await Promise.all(parametersOf(run.model).map(({ value }) => value.array()));
    return { norm: report!.norm, weights, run };
  };
  const seen: string[] = [];
  const halve: GradientHook = async (gradients) => {
    seen.push([...gradients.keys()].join());
    const halved = (values: Float32Array) => values.map((g) => g / 2);
    await Promise.all(
      [...gradients.values()].map(async (gradient) => gradient.write(halved(await gradient.array()))),
    );
  };
  const [plain, hooked, idle] = [await trained(0.1), await trained(0.2, halve), await trained(0.1, () => {})];
  expect(idle.weights).toEqual(plain.weights); // the seam alone changes no bit
  expect(hooked.weights).toEqual(plain.weights); // half the gradients at twice the rate: powers of two round nothing
  expect(hooked.norm).toBe(plain.norm / 2);
  const names = parametersOf(plain.run.model)
    .map(({ name }) => name)
    .join();
  expect(seen).toEqual([names, names, names]);
});

//| 04-training/8-the-loop.ipynb#no-validation-test
await test("a run with too little text for validation trains without", async () => {
  const data = { train: ruleTokens(400), val: ruleTokens(16), valSize: { tokens: 0, bytes: 0 } };
  const run = startRun(tinyModel(1), tinySettings(2), data);
  const last = await train(run, { validateEvery: 1, onSave: ({ step }) => expect(step).toBe(2) });
  expect({ validation: last!.validation, ...runState(run) }).toMatchObject({
    validation: undefined,
    step: 2,
  });
  expect(runState(run)).not.toHaveProperty("best");
});

//| 04-training/8-the-loop.ipynb#resume-test
/** Trains to the end, or until after step `stopAfter`, saving into `folder` and going on from what is there. */
async function tinyTraining(folder: string, stopAfter = Number.POSITIVE_INFINITY): Promise<StepReport[]> {
  const data = { train: ruleTokens(400), val: ruleTokens(100), valSize: { tokens: 99, bytes: 99 } };
  const optimizer = { ...defaultOptimizer, kind: "muon" as const };
  const settings = tinySettings(12, {
    accumulate: 2,
    dropout: 0.1,
    optimizer,
    precision: currentGpu().facts.f16 ? "f16" : "f32",
  });
  const newest = latestCheckpoint(folder);
  const run = startRun(newest ? checkpointModel(newest) : tinyModel(4), settings, data, {
    checkpoint: newest,
  });
  const reports: StepReport[] = [];
  const stop = new AbortController();
  const onStep = (report: StepReport) => {
    reports.push({ ...report, tokensPerSecond: 0 });
    if (report.step >= stopAfter) stop.abort();
  };
  const onSave = async () => void writeCheckpoint(folder, runState(run), await runFiles(run));
  await train(run, { onStep, onSave, validateEvery: 4, saveEvery: 5, loadEvery: 3, signal: stop.signal });
  return reports;
}

//| 04-training/8-the-loop.ipynb#resume-test-2
await test("a run that is stopped and goes on has the bits of one that never was", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-loop-"));
  const [whole, parts] = [path.join(folder, "whole"), path.join(folder, "parts")];
  const expected = await tinyTraining(whole);
  const first = await tinyTraining(parts, 2);
  const second = await tinyTraining(parts, 7);
  expect(first.length).toBeLessThan(7);
  const third = await tinyTraining(parts);
  expect([...first, ...second, ...third]).toEqual(expected);
  expect(expected.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(expected.filter(({ validation }) => validation).map(({ step }) => step)).toEqual([4, 8, 12]);
  if (currentGpu().facts.f16) expect(expected[11]).toMatchObject({ lossScale: 2 ** 16, skipped: false });
  expect(latestCheckpoint(parts)).toEqual(latestCheckpoint(whole));
  expect(await tinyTraining(parts)).toEqual([]); // nothing is left to do
  fs.rmSync(folder, { recursive: true });
});

//| 04-training/8-the-loop.ipynb#router-training-test
/** A model of a family whose routers have a bias for the choice. */
function steeredModel(): Model {
  const shape = {
    model_type: "glm4_moe",
    hidden_size: 32,
    num_hidden_layers: 3,
    n_routed_experts: 8,
    num_experts_per_tok: 2,
  };
  return randomModel(
    parseModelConfig(completeModelConfig(shape, { vocab_size: 50, max_position_embeddings: 16 })),
    1,
  );
}

await test("training moves choice biases by the load of all microbatches and by nothing else, and they are saved", async () => {
  const settings = tinySettings(3, { accumulate: 2, batchSize: 2, router: { biasRate: 0.25, zLoss: 0 } });
  const data = { train: ruleTokens(400), val: ruleTokens(0), valSize: { tokens: 0, bytes: 0 } };
  const run = startRun(steeredModel(), settings, data);
  const loads: number[][][] = [];
  await train(run, {
    loadEvery: 1,
    onStep: ({ load }) => void loads.push(load!.map((counts) => [...counts])),
  });
  const biases = [...parametersByName(run.model)].filter(([name]) => name.includes("correction_bias"));
  expect(biases.length).toBe(2);
  for (const [layer, [name, bias]] of biases.entries()) {
    const moved = loads.map((step) => {
      const total = step[layer].reduce((a, b) => a + b, 0);
      expect(total).toBe(4 * 16 * 2);
      return step[layer].map((count) => 0.25 * Math.sign(total - 8 * count));
    });
    const expected = moved[0].map((_, e) => moved.reduce((sum, step) => sum + step[e], 0));
    expect([...(await bias.array())], name).toEqual(expected);
    const files = await runFiles(run);
    expect([...savedArrays(files.get("model.safetensors")!).get(name)!]).toEqual(expected);
    expect(
      [...savedArrays(files.get("optimizer.safetensors")!).keys()].some((key) => key.includes(name)),
    ).toBe(false);
  }
  expect(parametersOf(run.model).some(({ role }) => role === "buffer")).toBe(false);
});

//| 04-training/8-the-loop.ipynb#z-loss-test
await test("the z-loss pulls the router's logits towards zero, and is not in the loss that is reported", async () => {
  const model = tinyModel(4);
  const context = sequenceContext(model.config, 16);
  const [settings, parameters] = [tinySettings(1), parametersOf(model)];
  const optimizer = makeOptimizer(parameters, settings.optimizer);
  const batch = batchTensors(4, 16);
  writeBatch(batch, batches(ruleTokens(400), settings).next());
  const at = (zLoss: number) => backward({ model, optimizer, context, microBatches: [batch], zLoss });
  const [plain, pulled] = [at(0), at(0.5)];
  expect(await pulled.loss.value()).toBe(await plain.loss.value());
  const { loss, routed } = batchLoss(model, batch, context);
  const values = parameters.map(({ value }) => value);
  const slopes = gradients(
    add(withRouterLosses(model, loss, routed), scale(routerZLoss(routed[0].routing.logits), 0.5)),
    values,
  );
  for (const [i, slope] of slopes.entries())
    expect(
      relativeError(await pulled.gradients[i].array(), await slope.array()),
      parameters[i].name,
    ).toBeLessThan(1e-5);
  const router = parameters.findIndex(({ role }) => role === "router");
  expect(relativeError(await plain.gradients[router].array(), await slopes[router].array())).toBeGreaterThan(
    0.01,
  );
});

//| 04-training/8-the-loop.ipynb#dropout-run-test
await test("dropout changes what is learned, each seed in its own way, and never what is measured", async () => {
  const data = { train: ruleTokens(400), val: ruleTokens(100), valSize: { tokens: 99, bytes: 99 } };
  const rates = { schedule: { kind: "constant" as const, warmup: 0, steps: 3, peak: 0, floor: 0 } };
  const losses = async (given: Partial<TrainingSettings>) => {
    const run = startRun(tinyModel(1), tinySettings(3, { ...rates, ...given }), data);
    const reports: StepReport[] = [];
    await train(run, { onStep: (report) => void reports.push(report), validateEvery: 1 });
    return { training: reports.map(({ loss }) => loss), validation: reports.map((r) => r.validation!.loss) };
  };
  const [none, zero, thinned] = [
    await losses({}),
    await losses({ dropout: 0 }),
    await losses({ dropout: 0.3 }),
  ];
  expect(zero).toEqual(none);
  expect(thinned.training).not.toEqual(none.training);
  expect(await losses({ dropout: 0.3 })).toEqual(thinned);
  expect(thinned.validation).toEqual(none.validation); // nothing is learned at a rate of 0, so only dropout could differ
});

await test("microbatches of one step leave out different numbers", async () => {
  const model = tinyModel(1);
  const optimizer = makeOptimizer(parametersOf(model), defaultOptimizer);
  const settings = { batchSize: 1, accumulate: 2, context: 16, dropout: 0.5 };
  const recorded = recordStep({ model, optimizer }, settings);
  const batch = batches(ruleTokens(400), { ...settings, seed: 1 }).next();
  for (const tensors of recorded.microBatches) writeBatch(tensors, batch);
  recorded.dropout!.state.write(dropoutState(1, 0));
  const together = await (await recorded.run()).loss.value();
  const alone = recordStep({ model, optimizer }, { ...settings, accumulate: 1 });
  writeBatch(alone.microBatches[0], batch);
  alone.dropout!.state.write(dropoutState(1, 0));
  const first = await (await alone.run()).loss.value();
  expect(Math.abs(together - first)).toBeGreaterThan(1e-4); // the second part of the mean is another number
});

//| 04-training/8-the-loop.ipynb#lost-test
await test("a loss that is no number ends the run before a checkpoint is written", async () => {
  const optimizer = { ...defaultOptimizer, kind: "sgd" as const, clip: 0, weightDecay: 0 };
  const schedule = { kind: "constant" as const, warmup: 0, steps: 20, peak: 1e30, floor: 0 };
  const data = { train: ruleTokens(400), val: ruleTokens(100), valSize: { tokens: 1, bytes: 1 } };
  const saved: number[] = [];
  const run = startRun(tinyModel(1), tinySettings(20, { optimizer, schedule }), data);
  const onSave = ({ step }: Run) => void saved.push(step);
  await expect(train(run, { onSave, saveEvery: 10 })).rejects.toThrow(/is no number any more at step \d/);
  expect(saved).toEqual([]);
});
