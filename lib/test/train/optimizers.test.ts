// Extracted from chapters/04-training/2-optimizers.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { updateRules } from "../../src/kernels/adamw.js";
import { relativeError } from "../../src/tensor/check.js";
import { type Tensor, scope, tensor, zeros } from "../../src/tensor/tensor.js";
import {
  type OptimizerSettings,
  accumulateInto,
  clearAll,
  defaultOptimizer,
  globalNorm,
  makeOptimizer,
  orthogonalize,
  restoreState,
  ruleOptimizer,
  stepNumbers,
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
  const { beta1, beta2, epsilon, momentum } = settings;
  const decay = decayed ? settings.decay : 0;
  for (let i = 0; i < p.length; i++) {
    const slope = g[i] * clip;
    if (settings.kind === "sgd") p[i] -= rate * (slope + decay * p[i]);
    if (settings.kind === "momentum") {
      states[0][i] = momentum * states[0][i] + slope;
      p[i] -= rate * (states[0][i] + decay * p[i]);
    }
    if (settings.kind === "adamw") {
      states[0][i] = beta1 * states[0][i] + (1 - beta1) * slope;
      states[1][i] = beta2 * states[1][i] + (1 - beta2) * slope * slope;
      const mean = states[0][i] / (1 - beta1 ** (step + 1));
      const square = states[1][i] / (1 - beta2 ** (step + 1));
      p[i] -= rate * (mean / (Math.sqrt(square) + epsilon) + decay * p[i]);
    }
  }
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

async function tenSteps(kind: "sgd" | "momentum" | "adamw"): Promise<void> {
  const settings = { ...defaultOptimizer, kind, clip: 5 };
  const starts = sizes.map(randomNormals);
  const parameters = new Map(starts.map((values, k) => [`p${k}`, tensor(values, parameterShapes[k])]));
  const plain = starts.map((values) => Float64Array.from(values));
  const states = plain.map((values) => [new Float64Array(values.length), new Float64Array(values.length)]);
  const optimizer = ruleOptimizer(updateRules[kind], parameters);
  const numbers = tensor(stepNumbers(settings, 0, 0));
  for (let step = 0; step < 10; step++) {
    const rate = 0.1 / (step + 1);
    const slopes = sizes.map((size) => randomNormals(size).map((value) => value * 0.1 * (step + 1)));
    const clip = Math.min(
      1,
      5 / Math.sqrt(slopes.reduce((total, each) => total + each.reduce((sum, x) => sum + x * x, 0), 0)),
    );
    for (const [k, p] of plain.entries())
      plainUpdate(settings, step, rate, p, slopes[k], states[k], parameterShapes[k].length > 1, clip);
    numbers.write(stepNumbers(settings, step, rate));
    scope(() => {
      const gradients = slopes.map((values, k) => tensor(values, parameterShapes[k]));
      optimizer.update(gradients, numbers, globalNorm(gradients));
    });
  }
  for (const [k, value] of [...parameters.values()].entries()) {
    const errors = (await value.array()).map((x, i) => Math.abs(x - plain[k][i]));
    expect(Math.max(...errors), `${parameterShapes[k]}`).toBeLessThan(2e-5);
  }
  const names = [...optimizer.state().keys()];
  expect(names).toHaveLength(updateRules[kind].states.length * sizes.length);
  if (kind === "adamw")
    expect(relativeError(await optimizer.state().get("p3.square")!.array(), states[3][1])).toBeLessThan(1e-5);
}

for (const kind of ["sgd", "momentum", "adamw"] as const)
  await test(`ten steps of ${kind} equal ten on plain arrays`, () => tenSteps(kind));

//| 04-training/2-optimizers.ipynb#norm-test
await test("the global norm is that of one long vector, and the same bits every time", async () => {
  const values = [...sizes, 100_003, 65_536].map(randomNormals);
  const tensors = values.map((each) => tensor(each));
  const expected = Math.sqrt(
    values.reduce((total, each) => total + each.reduce((sum, x) => sum + x * x, 0), 0),
  );
  const first = await globalNorm(tensors).value();
  expect(Math.abs(first / expected - 1)).toBeLessThan(1e-6);
  expect(await globalNorm(tensors).value()).toBe(first);
  expect(await globalNorm([tensor([3]), tensor([4])]).value()).toBe(5);
});

await test("gradients without a norm are not clipped, and a norm of zero divides nothing", async () => {
  const settings: OptimizerSettings = { ...defaultOptimizer, kind: "sgd", decay: 0 };
  const p = tensor([1, 2]);
  const optimizer = ruleOptimizer(updateRules.sgd, new Map([["p", p]]));
  const numbers = tensor(stepNumbers(settings, 0, 1));
  optimizer.update([tensor([30, 40])], numbers);
  expect([...(await p.array())]).toEqual([-29, -38]);
  const nothing = zeros([2]);
  optimizer.update([nothing], numbers, globalNorm([nothing]));
  expect([...(await p.array())]).toEqual([-29, -38]);
  const steep = tensor([30, 40]);
  optimizer.update([steep], numbers, globalNorm([steep]));
  expect(relativeError(await p.array(), [-29.6, -38.8])).toBeLessThan(1e-6);
});

//| 04-training/2-optimizers.ipynb#decay-test
await test("decay shrinks matrices and leaves vectors", async () => {
  const [matrix, vector] = [tensor([2, 2, 2, 2], [2, 2]), tensor([2, 2, 2, 2])];
  const optimizer = ruleOptimizer(
    updateRules.adamw,
    new Map([
      ["matrix", matrix],
      ["vector", vector],
    ]),
  );
  optimizer.update([zeros([2, 2]), zeros([4])], tensor(stepNumbers(defaultOptimizer, 0, 0.5)));
  expect(relativeError(await matrix.array(), [1.9, 1.9, 1.9, 1.9])).toBeLessThan(1e-6);
  expect([...(await vector.array())]).toEqual([2, 2, 2, 2]);
});

await test("mistakes in gradients are named", () => {
  const optimizer = ruleOptimizer(updateRules.sgd, new Map([["p", zeros([2, 3])]]));
  expect(() => optimizer.update([], zeros([10]))).toThrow("has 1 parameters, and was given 0 gradients");
  expect(() => optimizer.update([zeros([5])], zeros([10]))).toThrow(
    "f32 [5] does not fit its parameter f32 [2, 3]",
  );
});

//| 04-training/2-optimizers.ipynb#accumulate-test
await test("sums of gradients start at zero again after they are cleared", async () => {
  const values = sizes.map(randomNormals);
  const sums = parameterShapes.map(zeros);
  const parts = values.map((each, k) => tensor(each, parameterShapes[k]));
  accumulateInto(sums, parts);
  accumulateInto(sums, parts);
  for (const [k, each] of sums.entries())
    expect([...(await each.array())]).toEqual([...values[k]].map((x) => x + x));
  clearAll(sums);
  for (const each of sums) expect((await each.array()).every((x) => x === 0)).toBe(true);
  expect(() => accumulateInto(sums, [])).toThrow("9 parameters, and was given 0 gradients");
});

//| 04-training/2-optimizers.ipynb#singular-values
/** The singular values of a matrix [rows, columns], largest first. */
function singularValues(x: ArrayLike<number>, rows: number, columns: number): number[] {
  const columnsOf = Array.from({ length: columns }, (_, j) =>
    Array.from({ length: rows }, (_, i) => x[i * columns + j]),
  );
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  for (let sweep = 0; sweep < 12; sweep++)
    for (let p = 0; p < columns; p++)
      for (let q = p + 1; q < columns; q++) {
        const [a, b] = [columnsOf[p], columnsOf[q]];
        const overlap = dot(a, b);
        if (Math.abs(overlap) < 1e-14) continue;
        const tau = (dot(b, b) - dot(a, a)) / (2 * overlap);
        const tangent = (tau < 0 ? -1 : 1) / (Math.abs(tau) + Math.sqrt(1 + tau * tau));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        columnsOf[p] = a.map((value, i) => cosine * (value - tangent * b[i]));
        columnsOf[q] = b.map((value, i) => cosine * (value + tangent * a[i]));
      }
  return columnsOf
    .map((column) => Math.sqrt(dot(column, column)))
    .sort((a, b) => b - a)
    .slice(0, Math.min(rows, columns));
}

//| 04-training/2-optimizers.ipynb#orthogonal-test
await test("orthogonalised matrices have singular values near 1 and keep their directions", async () => {
  for (const [count, rows, columns] of [
    [3, 16, 8],
    [1, 8, 16],
  ]) {
    const size = rows * columns;
    const values = randomNormals(count * size);
    const result = await orthogonalize(tensor(values, [count, rows, columns])).array();
    for (let m = 0; m < count; m++) {
      const [before, after] = [values, result].map((each) => each.subarray(m * size, (m + 1) * size));
      const found = singularValues(after, rows, columns);
      expect(found[0]).toBeLessThan(1.25);
      expect(found.at(-1)).toBeGreaterThan(0.4);
      // Directions stay: the product with the matrix itself is the sum of all its singular values, up to those factors.
      const total = singularValues(before, rows, columns).reduce((sum, s) => sum + s, 0);
      const along = after.reduce((sum, value, i) => sum + value * before[i], 0);
      expect(Math.abs(along / total - 1)).toBeLessThan(0.35);
    }
  }
});

//| 04-training/2-optimizers.ipynb#muon-test
await test("Muon takes hidden matrices, also stacked ones, and leaves the rest to AdamW", async () => {
  const settings: OptimizerSettings = { ...defaultOptimizer, kind: "muon", decay: 0, matrixRate: 1 };
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [10, 8],
    "model.layers.0.self_attn.q_proj.weight": [16, 8],
    "model.layers.1.self_attn.q_proj.weight": [16, 8],
    "model.layers.0.mlp.experts.up_proj.weight": [3, 16, 8],
    "model.layers.0.mlp.gate.weight": [3, 8],
    "model.norm.weight": [8],
  };
  const slopes = Object.values(shapes).map((shape) => randomNormals(shape.reduce((a, b) => a * b, 1)));
  const parameters = new Map(Object.entries(shapes).map(([name, shape]) => [name, zeros(shape)]));
  const optimizer = makeOptimizer(settings, parameters);
  optimizer.update(
    Object.values(shapes).map((shape, k) => tensor(slopes[k], shape)),
    tensor(stepNumbers(settings, 0, 1)),
  );
  expect([...optimizer.state().keys()].filter((name) => name.endsWith(".velocity"))).toHaveLength(3);
  const moved = async (name: string) => parameters.get(name)!.array();
  // AdamW's first step is the sign of the gradient, Muon's is an orthogonal matrix times √(rows / columns).
  expect(
    relativeError(
      await moved("model.norm.weight"),
      slopes[5].map((x) => -Math.sign(x)),
    ),
  ).toBeLessThan(1e-4);
  for (const [name, k, count] of [
    ["model.layers.1.self_attn.q_proj.weight", 2, 1],
    ["model.layers.0.mlp.experts.up_proj.weight", 3, 3],
  ] as const) {
    const expected = await orthogonalize(tensor(slopes[k], [count, 16, 8])).array();
    expect(
      relativeError(
        await moved(name),
        expected.map((x) => -x * Math.SQRT2),
      ),
      name,
    ).toBeLessThan(1e-3);
  }
});

//| 04-training/2-optimizers.ipynb#restore-test
await test("a restored optimizer goes on with the same bits", async () => {
  for (const kind of ["adamw", "muon"] as const) {
    const settings = { ...defaultOptimizer, kind };
    const shapes = [[16, 8], [7]];
    const make = (values: ArrayLike<number>[]) =>
      new Map(values.map((each, k) => [`p${k}`, tensor(each, shapes[k])]));
    const slopes = shapes.map((shape) => randomNormals(shape.reduce((a, b) => a * b, 1)));
    const step = (optimizer: ReturnType<typeof makeOptimizer>, at: number) =>
      optimizer.update(
        slopes.map((each, k) => tensor(each, shapes[k])),
        tensor(stepNumbers(settings, at, 0.01)),
      );
    const read = async (tensors: Map<string, Tensor>) =>
      new Map(
        await Promise.all([...tensors].map(async ([name, each]) => [name, await each.array()] as const)),
      );
    const parameters = make(slopes);
    const optimizer = makeOptimizer(settings, parameters);
    step(optimizer, 0);
    const copies = make([...(await read(parameters)).values()]);
    const restored = makeOptimizer(settings, copies);
    restoreState(restored, await read(optimizer.state()));
    step(optimizer, 1);
    step(restored, 1);
    expect(await read(copies)).toEqual(await read(parameters));
    expect(() => restoreState(restored, new Map())).toThrow(/lacks p0/);
  }
});
