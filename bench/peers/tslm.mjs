import * as tslm from "../../lib/dist/index.js";
import { factors, trainingStep } from "../inputs.mjs";

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
  const optimizer = tslm.makeOptimizer(tslm.parametersOf(model), settings);
  const recorded = tslm.recordStep({ model, optimizer }, { batchSize: batch, accumulate: 1, context });
  let done = 0;
  return async () => {
    tslm.writeBatch(recorded.microBatches[0], { inputs, targets });
    optimizer.setStep(done++, settings.rate);
    return recorded.run().loss.value();
  };
}
