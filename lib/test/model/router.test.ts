// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { type RouterSettings, route } from "../../src/model/router.js";
import { gradientError } from "../../src/tensor/check.js";
import { type Tensor, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/1-why-experts.ipynb#spread-logits
await openGpu();

/** Logits so far apart that a small nudge changes no choice: between the jumps the slope is all there is. */
function spreadLogits(rows: number, experts: number) {
  const place = (i: number) => ((i % experts) * 2 + Math.floor(i / experts)) % experts;
  const values = Float32Array.from(
    { length: rows * experts },
    (_, i) => 0.7 * place(i) + 0.2 * Math.random(),
  );
  return { shape: [rows, experts], values };
}

//| 03-moe/1-why-experts.ipynb#route-gradient-test
await test("gradients through a choice agree with finite differences", async () => {
  const recipes: Omit<RouterSettings, "expertsPerToken">[] = [
    { normalize: false },
    { normalize: true },
    { normalize: false, scoring: "sigmoid" },
    { normalize: true, scoring: "sigmoid", scale: 2.5 },
  ];
  for (const recipe of recipes) {
    const settings = { expertsPerToken: 2, ...recipe };
    const weights = (logits: Tensor) => route(logits, settings).weights;
    const probabilities = (logits: Tensor) => route(logits, settings).probabilities;
    for (const f of [weights, probabilities])
      expect(await gradientError(f, [spreadLogits(21, 5)], { step: 3e-2, samples: 20 })).toBeLessThan(2e-2);
  }
});

//| 03-moe/1-why-experts.ipynb#route-errors-test
await test("mistakes in a router's shapes are named", () => {
  const settings = { expertsPerToken: 2, normalize: true };
  expect(() => route(tensor([1, 2, 3]), settings)).toThrow(
    "route wants logits [tokens, experts], not f32 [3].",
  );
  const bias = tensor([1, 2]);
  expect(() => route(tensor([1, 2, 3], [1, 3]), { ...settings, bias })).toThrow(
    "one element for each of 3 experts",
  );
});
