// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { expertLoad, imbalance } from "../../src/train/monitor.js";

//| 04-training/8-the-loop.ipynb#load-test
await test("imbalance is 1 when all experts do the same, and their number when one does everything", () => {
  expect(imbalance([5, 5, 5, 5])).toBe(1);
  expect(imbalance(Uint32Array.of(0, 12, 0))).toBe(3);
  expect(imbalance([0, 0])).toBe(1);
  const report = { step: 3, loss: 1, norm: 1, learningRate: 1, tokens: 1, tokensPerSecond: 1 };
  expect(expertLoad({ ...report, load: [Uint32Array.of(1, 2), Uint32Array.of(3, 0)] })).toEqual({
    step: 3,
    shares: [
      [0.3333, 0.6667],
      [1, 0],
    ],
  });
});
