// Extracted from chapters/04-training/1-the-loss.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  crossEntropyBackwardKernel,
  crossEntropyKernel,
  ignoredTarget,
} from "../../src/kernels/cross-entropy.js";
import { bf16Format } from "../../src/kernels/formats.js";
import { gradients, parameter } from "../../src/tensor/autograd.js";
import { capture } from "../../src/tensor/capture.js";
import { gradientError, relativeError } from "../../src/tensor/check.js";
import { crossEntropy, linearCrossEntropy, tokenLosses } from "../../src/tensor/cross-entropy.js";
import { scale } from "../../src/tensor/operations.js";
import { pack, unpack } from "../../src/tensor/products.js";
import { type Tensor, indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 04-training/1-the-loss.ipynb#plain-cross-entropy
await openGpu();

/** Losses and gradients of the mean in 64 bits, the plain way. */
function plainCrossEntropy(logits: ArrayLike<number>, targets: ArrayLike<number>, columns: number) {
  const rows = targets.length;
  const counted = Array.from(targets).filter((target) => target !== ignoredTarget).length;
  const losses = new Float64Array(rows);
  const gradient = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    if (targets[row] === ignoredTarget) continue;
    const x = Array.from({ length: columns }, (_, j) => logits[row * columns + j]);
    const largest = x.reduce((a, b) => Math.max(a, b));
    const sum = x.reduce((total, each) => total + Math.exp(each - largest), 0);
    losses[row] = largest + Math.log(sum) - x[targets[row]];
    x.forEach((each, j) => {
      gradient[row * columns + j] = (Math.exp(each - largest) / sum - (j === targets[row] ? 1 : 0)) / counted;
    });
  }
  return { losses, gradient, mean: losses.reduce((a, b) => a + b, 0) / Math.max(1, counted) };
}

function randomRows(rows: number, columns: number, spread = 4) {
  const logits = Float32Array.from({ length: rows * columns }, () => (Math.random() * 2 - 1) * spread);
  const targets = Uint32Array.from({ length: rows }, () => Math.floor(Math.random() * columns));
  return { logits, targets };
}

//| 04-training/1-the-loss.ipynb#shapes-test
const rowShapes = [
  [1, 1],
  [1, 7],
  [3, 64],
  [33, 65],
  [70, 300],
  [2, 4096],
  [5, 1001],
];

await test("loss and gradient equal the plain ones", async () => {
  for (const [rows, columns] of rowShapes) {
    const { logits, targets } = randomRows(rows, columns);
    if (rows > 2) targets[1] = ignoredTarget;
    const expected = plainCrossEntropy(logits, targets, columns);
    const x = parameter(tensor(logits, [rows, columns]));
    const loss = crossEntropy(x, indices(targets));
    const [gradient] = gradients(loss, [x]);
    expect(await loss.value(), `${rows}x${columns}`).toBeCloseTo(expected.mean, 5);
    expect(relativeError(await tokenLosses(x, indices(targets)).array(), expected.losses)).toBeLessThan(1e-6);
    if (columns > 1) expect(relativeError(await gradient.array(), expected.gradient)).toBeLessThan(2e-6);
  }
});

//| 04-training/1-the-loss.ipynb#lanes-test
await test("both ways of sharing out rows give the same", async () => {
  for (const [rows, columns] of [
    [9, 65],
    [3, 1000],
  ]) {
    const { logits, targets } = randomRows(rows, columns, 30);
    const expected = plainCrossEntropy(logits, targets, columns);
    const [x, ids, lossWeight, one] = [tensor(logits), indices(targets), tensor([1 / rows]), tensor([1])];
    for (const lanes of [1, 64, 256]) {
      const [losses, logSums, gradient] = [
        tensor(new Float32Array(rows).fill(NaN)),
        tensor(new Float32Array(rows)),
        tensor(new Float32Array(logits.length).fill(NaN)),
      ];
      launchInto(crossEntropyKernel({ rows, columns, lanes }), [x, ids], [losses, logSums]);
      launchInto(
        crossEntropyBackwardKernel({ rows, columns, lanes }),
        [x, ids, logSums, lossWeight, one],
        [gradient],
      );
      expect(relativeError(await losses.array(), expected.losses), `${lanes} lanes`).toBeLessThan(1e-6);
      expect(relativeError(await gradient.array(), expected.gradient), `${lanes} lanes`).toBeLessThan(3e-6);
    }
  }
});

//| 04-training/1-the-loss.ipynb#gradient-test
await test("the gradient agrees with finite differences, also of a scaled loss", async () => {
  const { logits, targets } = randomRows(6, 20, 2);
  const f = (x: Tensor) => scale(crossEntropy(x, indices(targets, [2, 3])), 3);
  expect(await gradientError(f, [{ values: logits, shape: [2, 3, 20] }], { samples: 24 })).toBeLessThan(2e-2);
});

//| 04-training/1-the-loss.ipynb#extremes-test
await test("huge logits neither overflow nor lose the answer", async () => {
  const x = tensor([1000, 0, -1000, 0, -3e38, 88, 89, 90, Number.NEGATIVE_INFINITY, 0, 0, 0], [3, 4]);
  const losses = await tokenLosses(x, indices([0, 3, 1])).array();
  expect(
    [...losses].every(
      (loss, i) => Math.abs(loss - [0, Math.log(1 + Math.exp(-1) + Math.exp(-2)), Math.log(3)][i]) < 1e-5,
    ),
  ).toBe(true);
});

await test("targets outside of the vocabulary show as NaN, ignored ones as nothing", async () => {
  const x = parameter(tensor(new Float32Array(6), [2, 3]));
  expect(await crossEntropy(x, indices([0, 3])).value()).toBeNaN();
  expect([...(await tokenLosses(x, indices([0xfffffffe, ignoredTarget])).array())]).toEqual([NaN, 0]);
  const none = crossEntropy(x, indices([ignoredTarget, ignoredTarget]));
  expect(await none.value()).toBe(0);
  expect([...(await gradients(none, [x])[0].array())]).toEqual([0, 0, 0, 0, 0, 0]);
  expect(() => crossEntropy(x, indices([1]))).toThrow("one target for each row of f32 [2, 3]");
});

//| 04-training/1-the-loss.ipynb#pieces-test
await test("a loss in pieces is the loss of the whole, and so are its gradients", async () => {
  const [rows, words, inputs] = [13, 37, 6];
  const values = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  const hidden = parameter(tensor(values(rows * inputs), [1, rows, inputs]));
  const weight = parameter(tensor(values(words * inputs), [words, inputs]));
  const ids = randomRows(rows, words).targets;
  ids[4] = ignoredTarget;
  const targets = indices(ids, [1, rows]);
  for (const cap of [undefined, 0.8]) {
    const results = [];
    for (const atATime of [rows, 1, 5, 12]) {
      // Recorded, as training does it.
      const recording = capture(() => {
        const loss = scale(linearCrossEntropy(hidden, weight, targets, atATime * words * 4, cap), 3);
        return [loss, ...gradients(loss, [hidden, weight])];
      });
      results.push(await Promise.all(recording.run().map((each) => each.array())));
      recording.free();
    }
    for (const [loss, a, b] of results) {
      expect(relativeError(loss, results[0][0])).toBeLessThan(1e-5);
      expect(relativeError(a, results[0][1])).toBeLessThan(1e-5);
      expect(relativeError(b, results[0][2])).toBeLessThan(1e-5);
    }
  }
});

//| 04-training/1-the-loss.ipynb#packed-pieces-test
await test("a packed table gives the loss and the gradient of the numbers that it stands for, in pieces too", async () => {
  const [rows, words, inputs] = [13, 40, 8];
  const values = (size: number) => Float32Array.from({ length: size }, () => Math.random() * 2 - 1);
  const packed = pack(values(words * inputs), [words, inputs], bf16Format);
  const dense = tensor(await unpack(packed), [words, inputs]);
  const hidden = parameter(tensor(values(rows * inputs), [rows, inputs]));
  const targets = indices(randomRows(rows, words).targets);
  for (const atATime of [rows, 5]) {
    const results = [packed, dense].map((weight) => {
      const loss = linearCrossEntropy(hidden, weight, targets, atATime * words * 4);
      return [loss, ...gradients(loss, [hidden])];
    });
    const [one, other] = await Promise.all(results.map((pair) => Promise.all(pair.map((x) => x.array()))));
    for (const i of [0, 1]) expect(relativeError(one[i], other[i])).toBeLessThan(1e-5);
  }
});
