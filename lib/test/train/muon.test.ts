// Extracted from chapters/04-training/3-muon.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { relativeError } from "../../src/tensor/check.js";
import { type Tensor, tensor, zeros } from "../../src/tensor/tensor.js";
import { makeOptimizer, orthogonalize } from "../../src/train/muon.js";
import {
  type OptimizerSettings,
  defaultOptimizer,
  restoreState,
  stepNumbers,
} from "../../src/train/optimizers.js";

//| 04-training/3-muon.ipynb#random-values
await openGpu();

function randomNormals(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

//| 04-training/3-muon.ipynb#singular-values
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

//| 04-training/3-muon.ipynb#orthogonal-test
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

//| 04-training/3-muon.ipynb#muon-test
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

//| 04-training/3-muon.ipynb#restore-test
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
