// Requests share a process: what one says of tape, scope and precision holds for none of the others.
import { expect, test } from "vitest";
import { scoreRows } from "../lib/src/cli/score.js";
import { completeModelConfig, parseModelConfig } from "../lib/src/model/config.js";
import { openGpu } from "../lib/src/gpu/device.js";
import { randomModel } from "../lib/src/model/families.js";
import { gradients, parameter } from "../lib/src/tensor/autograd.js";
import { multiply, sum } from "../lib/src/tensor/operations.js";
import { tensor } from "../lib/src/tensor/tensor.js";

await openGpu();

test("a request that learns while another scores keeps its tape and its tensors", async () => {
  const sizes = { vocab_size: 64, max_position_embeddings: 16 };
  const small = { hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, head_dim: 8 };
  const model = randomModel(parseModelConfig(completeModelConfig({ ...small, num_experts: 2 }, sizes)), 1);
  // Many rows, so that scoring waits more than once also where all kernels are compiled.
  const rows = Array.from({ length: 1000 }, () => Array.from({ length: 16 }, (_, i) => i));
  let scoring = true;
  const scored = scoreRows(model, rows).finally(() => {
    scoring = false;
  });
  const weight = parameter(tensor([1, 2, 3]));
  const products = [];
  for (let turn = 0; scoring; turn++) {
    const product = multiply(weight, weight);
    products.push(product);
    gradients(sum(product), [weight]);
    await new Promise((resolve) => setTimeout(resolve));
    if (turn > 100_000) throw new Error("the scores never come");
  }
  const { loss } = await scored;
  expect(Number.isFinite(loss)).toBe(true);
  expect(products.length).toBeGreaterThan(1);
  expect(products.filter(({ freed }) => freed)).toEqual([]);
  expect([...(await products.at(-1)!.array())]).toEqual([1, 4, 9]);
});
