import * as tslm from "../../lib/dist/index.js";
import { factors, trainingStep, tslmNumbers } from "../inputs.mjs";

await tslm.openGpu({ robust: false });

export const adapter = async () => ({ name: tslm.currentGpu().facts.name, ...(await tslm.measureCeiling()) });

export async function matmul(size) {
  const [a, b] = factors(size).map((values) => tslm.tensor(values, [size, size]));
  const recording = tslm.capture(() => tslm.product(a, b));
  const run = async () => {
    recording.run();
    await tslm.finish();
  };
  return { run, read: () => recording.run().array() };
}

export async function step() {
  const { model: config, batch, context, inputs, targets, weights, settings } = trainingStep();
  const parameters = weights.map(({ name, values, shape }) => [
    name,
    tslm.parameter(tslm.tensor(values, shape)),
  ]);
  const model = { config, weights: new Map(parameters) };
  const plan = { batchSize: batch, accumulate: 1, context, optimizer: settings };
  const { parts, numbers, recording } = tslm.recordStep(
    model,
    tslm.makeOptimizer(settings, model.weights),
    plan,
  );
  let done = 0;
  return async () => {
    tslm.writeBatch(parts[0], { inputs, targets });
    numbers.write(tslmNumbers(settings, done++));
    return recording.run().loss.value();
  };
}
