// Extracted from chapters/05-inference/4-smaller-numbers.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { int4Format, int8Format } from "../../src/kernels/formats.js";
import { range } from "../../src/kernels/wgsl.js";
import {
  type Fold,
  type FoundFold,
  type InputSquares,
  applyFolds,
  calibrated,
  foldsOf,
  inputSquares,
  outputError,
} from "../../src/model/calibration.js";
import { forward, sequenceContext } from "../../src/model/decoder.js";
import { modelFamilies, weightsOf } from "../../src/model/families.js";
import { quantizedFormat, roundedBy } from "../../src/model/quantize.js";
import { savedFormats, storedNumbers, storedTensors } from "../../src/model/stored.js";
import { type ModelWeight, buildModel } from "../../src/model/structure.js";
import { checkModelFiles } from "../../src/model/weights.js";
import { withoutGradients } from "../../src/tensor/autograd.js";
import { relativeError } from "../../src/tensor/check.js";
import { indices, tensor } from "../../src/tensor/tensor.js";

//| 05-inference/4-smaller-numbers.ipynb#folds-test
await openGpu();

/** The folder of the tiny reference models, seen from the repository or from a chapter. */
const families = ["tests/fixtures/families", "../../tests/fixtures/families"].find((folder) =>
  fs.existsSync(folder),
)!;

/** The configuration and the tensors of a reference model. */
function referenceModel(name: string) {
  const json = JSON.parse(fs.readFileSync(`${families}/${name}/config.json`, "utf8"));
  return checkModelFiles(json, [
    storedTensors(new Uint8Array(fs.readFileSync(`${families}/${name}/model.safetensors`))),
  ]);
}

await test("factors at the folds change nothing, whatever the family", async () => {
  for (const name of ["qwen2_moe", "deepseek_v3", "gpt2", "gemma3", "gpt_oss"]) {
    const { config, tensors } = referenceModel(name);
    const family = modelFamilies[config.modelType];
    const draw = (fold: Fold) => Float32Array.from({ length: fold.factors }, () => 0.5 + 1.5 * Math.random());
    const folds = foldsOf(config).map((fold) => ({ ...fold, values: draw(fold) }));
    const scoresWith = async (some: FoundFold[]) => {
      const model = buildModel(config, family, (weight) =>
        tensor(applyFolds(weight, storedNumbers(weight, tensors), some, family.norm), weight.shape),
      );
      const ids = indices([1, 5, 9, 33, 2, 7, 8, 8], [1, 8]);
      return withoutGradients(() => forward(model, ids, sequenceContext(config, 8)).logits).array();
    };
    expect(folds.length, name).toBeGreaterThan(2 * config.layers);
    expect(relativeError(await scoresWith(folds), await scoresWith([])), name).toBeLessThan(1e-4);
  }
});

//| 05-inference/4-smaller-numbers.ipynb#statistics-test
await test("what experts receive is, all together, what their router receives, once for each visit", async () => {
  const { config, tensors } = referenceModel("qwen3_moe");
  const model = buildModel(config, modelFamilies[config.modelType], (weight) =>
    tensor(storedNumbers(weight, tensors), weight.shape),
  );
  const found = await inputSquares(model, [
    [1, 5, 9, 33, 2, 7, 8, 8],
    [4, 4, 60],
  ]);
  const [router, experts] = ["router", "up"].map((part) => found.get(`blocks.1.feedForward.${part}.weight`)!);
  const { hiddenSize, moe } = config;
  const together = range(hiddenSize).map((j) =>
    range(moe!.experts).reduce((sum, e) => sum + experts[e * hiddenSize + j], 0),
  );
  expect(
    relativeError(
      together,
      router.map((square) => square * moe!.expertsPerToken),
    ),
  ).toBeLessThan(1e-5);
});

//| 05-inference/4-smaller-numbers.ipynb#calibration-test
await test("factors and bounds lower the error that a text sees, and are put on the weights as promised", () => {
  const { config, tensors } = referenceModel("qwen3_moe");
  const numbersOf = (weight: ModelWeight) => storedNumbers(weight, tensors);
  const formatOf = (weight: ModelWeight) =>
    quantizedFormat(weight, { matrices: int4Format(32), tables: int8Format, rest: savedFormats.F32 });
  // A text in which a few inputs of each matrix are strong.
  const squares: InputSquares = new Map();
  for (const { path, role, shape } of weightsOf(config))
    if (role === "matrix" || role === "residual" || role === "router")
      squares.set(
        path,
        Float64Array.from({ length: shape[shape.length - 1] }, (_, j) =>
          j % 7 === 0 ? 400 : 1 + Math.sin(j) ** 2,
        ),
      );
  const before = calibrated({ config, numbersOf, squares: new Map(), formatOf });
  const after = calibrated({ config, numbersOf, squares, formatOf });
  const fold = foldsOf(config)[0];
  const [norm, query] = [fold.divided[0], fold.multiplied[0]].map(
    (path) => weightsOf(config).find((weight) => weight.path === path)!,
  );
  expect(before(query)).toEqual(numbersOf(query));
  const factors = Float32Array.from(numbersOf(norm), (value, j) => value / after(norm)[j]);
  const errorOf = (values: Float32Array, by: (j: number) => number) =>
    outputError(
      query,
      numbersOf(query),
      roundedBy(formatOf(query), values, query.shape[1]).map((value, i) => value / by(i % query.shape[1])),
      squares.get(query.path)!,
    );
  expect(errorOf(after(query), (j) => factors[j])).toBeLessThan(0.7 * errorOf(numbersOf(query), () => 1));
});
