// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { loadFigure, thinned } from "../../src/train/figures.js";

//| 04-training/a-the-trainers-desk.ipynb#load-figure-test
await test("the heat map of the experts begins at none, so that white means a dead one", () => {
  const trace = (shares: number[][]) => loadFigure([{ step: 1, shares }]).data[0];
  expect(trace([[0.2, 0.8]])).toMatchObject({ zmin: 0, zmax: 0.8 });
  expect(trace([[0, 0]])).toMatchObject({ zmin: 0, zmax: 0.5 });
});

//| 04-training/a-the-trainers-desk.ipynb#thinned-test
await test("a thinned curve has few points and the same mean", () => {
  const curve = Array.from({ length: 1200 }, (_, i): [number, number] => [i + 1, Math.sin(i)]);
  const few = thinned(curve, 400);
  expect(few).toHaveLength(400);
  const mean = (pairs: [number, number][]) => pairs.reduce((sum, pair) => sum + pair[1], 0) / pairs.length;
  expect(mean(few)).toBeCloseTo(mean(curve), 12);
  expect(thinned(curve.slice(0, 5))).toEqual(curve.slice(0, 5));
});
