// Extracted from chapters/04-training/2-optimizers.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { updateRules } from "../../src/kernels/optimizers.js";
import type { ModelParameter } from "../../src/model/structure.js";
import { relativeError } from "../../src/tensor/check.js";
import { scope, tensor, zeros } from "../../src/tensor/tensor.js";
import {
  type Optimizer,
  type OptimizerSettings,
  accumulateInto,
  clearAll,
  decayGroups,
  defaultOptimizer,
  globalNorm,
  joinedOptimizer,
  ruleOptimizer,
} from "../../src/train/optimizers.js";

//| 04-training/2-optimizers.ipynb#plain-update
await openGpu();

/** The update rules on plain arrays in 64 bits, as their papers write them. */
function plainUpdate(
  settings: OptimizerSettings,
  step: number,
  rate: number,
  p: Float64Array,
  g: ArrayLike<number>,
  states: Float64Array[],
  decayed: boolean,
  clip = 1,
) {
  const { betas, epsilon, momentum } = settings;
  const [beta1, beta2] = betas;
  const weightDecay = decayed ? settings.weightDecay : 0;
  for (let i = 0; i < p.length; i++) {
    const gradient = g[i] * clip;
    if (settings.kind === "sgd") p[i] -= rate * (gradient + weightDecay * p[i]);
    if (settings.kind === "momentum") {
      states[0][i] = momentum * states[0][i] + gradient;
      p[i] -= rate * (states[0][i] + weightDecay * p[i]);
    }
    if (settings.kind === "adamw") {
      states[0][i] = beta1 * states[0][i] + (1 - beta1) * gradient;
      states[1][i] = beta2 * states[1][i] + (1 - beta2) * gradient * gradient;
      const mean = states[0][i] / (1 - beta1 ** (step + 1));
      const square = states[1][i] / (1 - beta2 ** (step + 1));
      p[i] -= rate * (mean / (Math.sqrt(square) + epsilon) + weightDecay * p[i]);
    }
  }
}

//| 04-training/2-optimizers.ipynb#test-parameters
/** The parameters of a test: matrices where a shape has two dimensions or more, else vectors that are not decayed. */
function testParameters(values: Float32Array[], shapes: number[][]): ModelParameter[] {
  return shapes.map((shape, k) => ({
    name: `p${k}`,
    role: shape.length > 1 ? "matrix" : "norm",
    value: tensor(values[k], shape),
  }));
}

/** An optimizer of element by element for all of them. */
function testOptimizer(parameters: ModelParameter[], settings: OptimizerSettings): Optimizer {
  const kind = settings.kind as keyof typeof updateRules;
  const groups = decayGroups(parameters, kind, settings.weightDecay);
  return joinedOptimizer(
    parameters,
    groups.map((group) => ({ group, optimizer: ruleOptimizer(updateRules[kind], group, settings) })),
  );
}

function randomNormals(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

//| 04-training/2-optimizers.ipynb#ten-steps-test
const parameterShapes = [[8, 12], [7], [1], [33, 65], [128], [64, 64], [3, 5, 7], [20, 4], [200]];

const sizes = parameterShapes.map((shape) => shape.reduce((a, b) => a * b, 1));

async function tenSteps(kind: keyof typeof updateRules): Promise<void> {
  const settings = { ...defaultOptimizer, kind, clip: 5 };
  const initial = sizes.map(randomNormals);
  const parameters = testParameters(initial, parameterShapes);
  const plain = initial.map((values) => Float64Array.from(values));
  const states = plain.map((values) => [new Float64Array(values.length), new Float64Array(values.length)]);
  const optimizer = testOptimizer(parameters, settings);
  for (let step = 0; step < 10; step++) {
    const rate = 0.1 / (step + 1);
    const given = sizes.map((size) => randomNormals(size).map((value) => value * 0.1 * (step + 1)));
    const squares = given.flatMap((gradient) => [...gradient]).reduce((sum, x) => sum + x * x, 0);
    const clip = Math.min(1, 5 / Math.sqrt(squares));
    for (const [k, p] of plain.entries())
      plainUpdate(settings, step, rate, p, given[k], states[k], parameterShapes[k].length > 1, clip);
    optimizer.setStep(step, rate);
    scope(() => {
      const gradients = given.map((values, k) => tensor(values, parameterShapes[k]));
      optimizer.update(gradients, globalNorm(gradients));
    });
  }
  for (const [k, { value }] of parameters.entries()) {
    const errors = (await value.array()).map((x, i) => Math.abs(x - plain[k][i]));
    expect(Math.max(...errors), `${parameterShapes[k]}`).toBeLessThan(2e-5);
  }
  expect([...optimizer.state().keys()]).toHaveLength(updateRules[kind].states.length * sizes.length);
  if (kind === "adamw")
    expect(relativeError(await optimizer.state().get("p3.square")!.array(), states[3][1])).toBeLessThan(1e-5);
}

for (const kind of ["sgd", "momentum", "adamw"] as const)
  await test(`ten steps of ${kind} equal ten on plain arrays`, () => tenSteps(kind));

//| 04-training/2-optimizers.ipynb#norm-test
await test("the global norm is that of one long vector, and the same bits every time", async () => {
  const values = [...sizes, 100_003, 65_536].map(randomNormals);
  const tensors = values.map((numbers) => tensor(numbers));
  const expected = Math.sqrt(
    values.reduce((total, numbers) => total + numbers.reduce((sum, x) => sum + x * x, 0), 0),
  );
  const first = await globalNorm(tensors).value();
  expect(Math.abs(first / expected - 1)).toBeLessThan(1e-6);
  expect(await globalNorm(tensors).value()).toBe(first);
  expect(await globalNorm([tensor([3]), tensor([4])]).value()).toBe(5);
});

await test("gradients without a norm are not clipped, and a norm of zero divides nothing", async () => {
  const parameters = testParameters([Float32Array.of(1, 2)], [[2]]);
  const p = parameters[0].value;
  const optimizer = testOptimizer(parameters, { ...defaultOptimizer, kind: "sgd" });
  optimizer.setStep(0, 1);
  optimizer.update([tensor([30, 40])]);
  expect([...(await p.array())]).toEqual([-29, -38]);
  const nothing = zeros([2]);
  optimizer.update([nothing], globalNorm([nothing]));
  expect([...(await p.array())]).toEqual([-29, -38]);
  const steep = tensor([30, 40]);
  optimizer.update([steep], globalNorm([steep]));
  expect(relativeError(await p.array(), [-29.6, -38.8])).toBeLessThan(1e-6);
});

//| 04-training/2-optimizers.ipynb#decay-test
await test("decay shrinks matrices and leaves vectors", async () => {
  const twos = new Float32Array(4).fill(2);
  const parameters = testParameters([twos, twos], [[2, 2], [4]]);
  const optimizer = testOptimizer(parameters, defaultOptimizer);
  optimizer.setStep(0, 0.5);
  optimizer.update([zeros([2, 2]), zeros([4])]);
  const [matrix, vector] = parameters.map(({ value }) => value);
  expect(relativeError(await matrix.array(), [1.9, 1.9, 1.9, 1.9])).toBeLessThan(1e-6);
  expect([...(await vector.array())]).toEqual([2, 2, 2, 2]);
});

await test("mistakes in gradients are named", () => {
  const optimizer = testOptimizer(testParameters([new Float32Array(6)], [[2, 3]]), {
    ...defaultOptimizer,
    kind: "sgd",
  });
  expect(() => optimizer.update([])).toThrow("has 1 parameters, and was given 0 gradients");
  expect(() => optimizer.update([zeros([5])])).toThrow("f32 [5] does not fit its parameter f32 [2, 3]");
});

//| 04-training/2-optimizers.ipynb#accumulate-test
await test("sums of gradients start at zero again after they are cleared", async () => {
  const values = sizes.map(randomNormals);
  const sums = parameterShapes.map(zeros);
  const parts = values.map((numbers, k) => tensor(numbers, parameterShapes[k]));
  accumulateInto(sums, parts);
  accumulateInto(sums, parts);
  for (const [k, each] of sums.entries())
    expect([...(await each.array())]).toEqual([...values[k]].map((x) => x + x));
  clearAll(sums);
  for (const each of sums) expect((await each.array()).every((x) => x === 0)).toBe(true);
  expect(() => accumulateInto(sums, [])).toThrow("9 parameters, and was given 0 gradients");
});
