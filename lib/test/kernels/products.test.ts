// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { currentGpu, openGpu } from "../../src/gpu/device.js";
import { tunerChoices } from "../../src/gpu/tuner.js";
import {
  matmulKernel,
  matmulQuestion,
  matmulVariants,
  tuneProducts,
  unmeasured,
} from "../../src/kernels/products.js";

//| 02-attention/2-matrix-products.ipynb#tuner-forget-test
await openGpu();

await test("a product takes the rule of thumb's kernel until the tuner has measured it, and then the tuner's", async () => {
  const { facts } = currentGpu();
  unmeasured.clear(); // what others asked for is not measured here
  const shape = { batch: 1, rows: 5, columns: 24, inner: 8 };
  const [usual, other] = Object.values(matmulVariants(shape, facts)).map((build) => build().code);
  expect(matmulKernel(shape, facts).code).toBe(usual);
  expect([...unmeasured.values()]).toContainEqual(shape);
  const [measured] = (await tuneProducts(facts)).filter(
    ({ question }) => question === matmulQuestion(shape, facts),
  );
  expect(unmeasured.size).toBe(0);
  const names = Object.keys(matmulVariants(shape, facts));
  expect(Object.keys(measured.seconds)).toEqual(names);
  expect(matmulKernel(shape, facts).code).toBe(matmulVariants(shape, facts)[measured.fastest]().code);
  if (other === undefined) return console.log("skipped: this adapter has one kernel only");
  tunerChoices[measured.question] = names[1];
  expect(matmulKernel(shape, facts).code).toBe(other);
  tunerChoices[measured.question] = "of another version";
  expect(matmulKernel(shape, facts).code).toBe(usual);
  delete tunerChoices[measured.question];
});
