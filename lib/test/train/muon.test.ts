// Extracted from chapters/04-training/3-muon.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import type { ModelParameter, Role } from "../../src/model/structure.js";
import { relativeError } from "../../src/tensor/check.js";
import { tensor, zeros } from "../../src/tensor/tensor.js";
import { makeOptimizer, orthogonalize, parameterGroups } from "../../src/train/muon.js";
import { type OptimizerSettings, defaultOptimizer, restoreState } from "../../src/train/optimizers.js";

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
      const [before, after] = [values, result].map((stack) => stack.subarray(m * size, (m + 1) * size));
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
const muonShapes: Record<string, { role: Role; shape: number[] }> = {
  embedding: { role: "table", shape: [10, 8] },
  q: { role: "matrix", shape: [16, 8] },
  k: { role: "matrix", shape: [16, 8] },
  experts: { role: "residual", shape: [3, 16, 8] },
  router: { role: "router", shape: [3, 8] },
  norm: { role: "norm", shape: [8] },
};

/** Parameters of all roles, with zeros in them. */
function zeroParameters(): ModelParameter[] {
  return Object.entries(muonShapes).map(([name, { role, shape }]) => ({ name, role, value: zeros(shape) }));
}

//| 04-training/3-muon.ipynb#muon-test-2
await test("Muon takes hidden matrices, also stacked ones, and leaves the rest to AdamW", async () => {
  const settings = { ...defaultOptimizer, kind: "muon" as const, weightDecay: 0, matrixRate: 1 };
  const shapes = Object.values(muonShapes).map(({ shape }) => shape);
  const given = shapes.map((shape) => randomNormals(shape.reduce((a, b) => a * b, 1)));
  const parameters = zeroParameters();
  const optimizer = makeOptimizer(parameters, settings);
  optimizer.setStep(0, 1);
  optimizer.update(given.map((values, k) => tensor(values, shapes[k])));
  expect([...optimizer.state().keys()].filter((name) => name.endsWith(".velocity"))).toHaveLength(3);
  const moved = await Promise.all(parameters.map(({ value }) => value.array()));
  // AdamW's first step is the sign of the gradient, Muon's is an orthogonal matrix times √(rows / columns).
  for (const k of [0, 4, 5])
    expect(
      relativeError(
        moved[k],
        given[k].map((x) => -Math.sign(x)),
      ),
    ).toBeLessThan(1e-4);
  for (const [k, count] of [
    [2, 1],
    [3, 3],
  ]) {
    const expected = await orthogonalize(tensor(given[k], [count, 16, 8])).array();
    expect(
      relativeError(
        moved[k],
        expected.map((x) => -x * Math.SQRT2),
      ),
    ).toBeLessThan(1e-3);
  }
});

//| 04-training/3-muon.ipynb#groups-test
await test("groups go by role: tables and matrices are decayed, norms are not, and only hidden matrices are Muon's", () => {
  const described = (kind: OptimizerSettings["kind"]) =>
    parameterGroups(zeroParameters(), { ...defaultOptimizer, kind }).map(
      ({ rule, rateFactor, weightDecay, parameters }) =>
        `${rule} x ${rateFactor}, decay ${weightDecay}: ${parameters.map(({ name }) => name).join(" ")}`,
    );
  expect(described("adamw")).toEqual([
    "adamw x 1, decay 0.1: embedding q k experts router",
    "adamw x 1, decay 0: norm",
  ]);
  expect(described("muon")).toEqual([
    "muon x 10, decay 0.1: q k experts",
    "adamw x 1, decay 0.1: embedding router",
    "adamw x 1, decay 0: norm",
  ]);
});

//| 04-training/3-muon.ipynb#restore-test
await test("a restored optimizer goes on with the same bits", async () => {
  const shapes = [[16, 8], [7]];
  const given = shapes.map((shape) => randomNormals(shape.reduce((a, b) => a * b, 1)));
  const make = (values: ArrayLike<number>[]): ModelParameter[] =>
    values.map((array, k) => ({
      name: `p${k}`,
      role: k === 0 ? "matrix" : "norm",
      value: tensor(array, shapes[k]),
    }));
  const read = (parameters: ModelParameter[]) => Promise.all(parameters.map(({ value }) => value.array()));
  for (const kind of ["adamw", "muon"] as const) {
    const settings = { ...defaultOptimizer, kind };
    const step = (optimizer: ReturnType<typeof makeOptimizer>, at: number) => {
      optimizer.setStep(at, 0.01);
      optimizer.update(given.map((values, k) => tensor(values, shapes[k])));
    };
    const parameters = make(given);
    const optimizer = makeOptimizer(parameters, settings);
    step(optimizer, 0);
    const copies = make(await read(parameters));
    const restored = makeOptimizer(copies, settings);
    const saved = await Promise.all(
      [...optimizer.state()].map(async ([name, value]) => [name, await value.array()] as const),
    );
    restoreState(restored.state(), new Map(saved));
    step(optimizer, 1);
    step(restored, 1);
    expect(await read(copies)).toEqual(await read(parameters));
    expect(() => restoreState(restored.state(), new Map())).toThrow(/lacks p0/);
  }
});
