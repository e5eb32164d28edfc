// Extracted from chapters/04-training/8-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { completeModelConfig, parseModelConfig } from "../../src/model/config.js";
import { countParameters } from "../../src/model/count.js";
import { expertLoad, flopsPerToken, imbalance } from "../../src/train/monitor.js";

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

//| 04-training/8-the-loop.ipynb#flops-test
await test("a table that is only looked up costs no arithmetic, and attention grows with the context", () => {
  const shape = {
    model_type: "llama",
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    head_dim: 8,
  };
  const [tied, apart] = [true, false].map((tie_word_embeddings) =>
    parseModelConfig(
      completeModelConfig({ ...shape, tie_word_embeddings }, { vocab_size: 50, max_position_embeddings: 16 }),
    ),
  );
  expect(flopsPerToken(apart, 16)).toBe(flopsPerToken(tied, 16));
  expect(flopsPerToken(tied, 16) - flopsPerToken(tied, 8)).toBe(6 * 2 * 32 * 8);
  expect(flopsPerToken(tied, 0)).toBe(6 * countParameters(tied).total);
});
