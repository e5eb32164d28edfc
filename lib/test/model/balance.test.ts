// Extracted from chapters/03-moe/3-keeping-balance.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { range } from "../../src/kernels/wgsl.js";
import { balanceLoss, routerZLoss, updateRouterBias } from "../../src/model/balance.js";
import { planDispatch } from "../../src/model/moe.js";
import { route } from "../../src/model/router.js";
import { gradientError } from "../../src/tensor/check.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 03-moe/3-keeping-balance.ipynb#plain-balance
await openGpu();

/** What a router does on arrays: the probabilities of one token, and its k experts. */
function plainRouting(logits: number[], k: number) {
  const exps = logits.map((x) => Math.exp(x));
  const total = exps.reduce((sum, x) => sum + x, 0);
  const order = exps.map((_, e) => e).sort((a, b) => exps[b] - exps[a] || a - b);
  return { probabilities: exps.map((x) => x / total), chosen: order.slice(0, k) };
}

//| 03-moe/3-keeping-balance.ipynb#plain-balance-loss
/** The balance loss on arrays, all layers joined, as transformers' `load_balancing_loss_func` does it. */
function plainBalanceLoss(layers: ArrayLike<number>[], experts: number, k: number): number {
  const rows = layers.flatMap((logits) =>
    range(logits.length / experts).map((row) => range(experts).map((e) => logits[row * experts + e])),
  );
  const [f, p] = [new Float64Array(experts), new Float64Array(experts)];
  for (const row of rows) {
    const { probabilities, chosen } = plainRouting(row, k);
    for (const e of chosen) f[e] += 1 / rows.length;
    for (const [e, probability] of probabilities.entries()) p[e] += probability / rows.length;
  }
  return experts * f.reduce((sum, share, e) => sum + share * p[e], 0);
}

//| 03-moe/3-keeping-balance.ipynb#balance-test-parts
const drawLogits = (rows: number, experts: number) => ({
  shape: [rows, experts],
  values: Float32Array.from({ length: rows * experts }, () => Math.random() * 4 - 2),
});

//| 03-moe/3-keeping-balance.ipynb#loss-of-logits
/** The balance loss as a model has it: from the logits of its layers. */
function lossOfLogits(expertsPerToken: number, ...layers: Tensor[]): Tensor {
  const routed = layers.map((logits) => {
    const routing = route(logits, { expertsPerToken, normalize: true });
    return { routing, load: planDispatch(routing.experts, logits.shape[1]).load };
  });
  return balanceLoss(routed);
}

//| 03-moe/3-keeping-balance.ipynb#balance-test
await test("the balance loss equals the one on arrays, over all layers joined", async () => {
  for (const [layers, rows, experts, k] of [
    [1, 1, 1, 1],
    [3, 130, 6, 2],
    [2, 65, 33, 4],
  ]) {
    const drawn = range(layers).map(() => drawLogits(rows, experts));
    const loss = lossOfLogits(k, ...drawn.map(({ values, shape }) => tensor(values, shape)));
    const expected = plainBalanceLoss(
      drawn.map(({ values }) => values),
      experts,
      k,
    );
    expect(await loss.value()).toBeCloseTo(expected, 4);
  }
  expect(() => balanceLoss([])).toThrow("at least one layer");
});

//| 03-moe/3-keeping-balance.ipynb#balance-extremes-test
await test("balanced experts give the number a token visits, two favourites give nearly all", async () => {
  const isOwn = (i: number) => i % 8 === i >> 3 || (i + 1) % 8 === i >> 3;
  const even = Float32Array.from({ length: 64 }, (_, i) => (isOwn(i) ? 1 : 0));
  const perfect = range(8).flatMap((row) => range(8).map((e) => (e === row || e === (row + 1) % 8 ? 1 : 0)));
  expect(await lossOfLogits(2, tensor(perfect, [8, 8])).value()).toBeCloseTo(2, 5);
  const favourite = even.map((_, i) => (i % 8 < 2 ? 9 : 0));
  expect(await lossOfLogits(2, tensor(favourite, [8, 8])).value()).toBeGreaterThan(7.9);
});

//| 03-moe/3-keeping-balance.ipynb#balance-gradient-test
await test("gradients of the balance loss agree with finite differences", async () => {
  const spread = () => {
    const { values, shape } = drawLogits(37, 5);
    return { shape, values: values.map((value, i) => value / 8 + ((2 * (i % 5) + Math.floor(i / 5)) % 5)) };
  };
  const balance = (...layers: Tensor[]) => lossOfLogits(2, ...layers);
  expect(await gradientError(balance, [spread(), spread()], { step: 1e-1, samples: 12 })).toBeLessThan(2e-2);
});

//| 03-moe/3-keeping-balance.ipynb#z-test
await test("the z-loss is the mean square of log-sum-exp, and large logits do not overflow", async () => {
  const { values, shape } = drawLogits(70, 6);
  let expected = 0;
  for (let first = 0; first < values.length; first += 6)
    expected += Math.log(values.slice(first, first + 6).reduce((sum, x) => sum + Math.exp(x), 0)) ** 2 / 70;
  expect(await routerZLoss(tensor(values, shape)).value()).toBeCloseTo(expected, 4);
  expect(await routerZLoss(tensor([100, 0], [1, 2])).value()).toBeCloseTo(1e4, 2);
  expect(await gradientError(routerZLoss, [drawLogits(70, 6)], { step: 1e-1 })).toBeLessThan(2e-2);
});

//| 03-moe/3-keeping-balance.ipynb#bias-test
await test("the bias moves against the load, and rests where the load is the mean", async () => {
  const bias = tensor([0.5, 0, 0, 0]);
  updateRouterBias(bias, indices([9, 1, 5, 5]), tensor([0.125]));
  expect([...(await bias.array())]).toEqual([0.375, 0.125, 0, 0]);
  const load = Float32Array.from({ length: 130 }, () => Math.floor(Math.random() * 50));
  const many = tensor(new Float32Array(130));
  updateRouterBias(many, indices(load), tensor([0.25]));
  const total = load.reduce((a, b) => a + b, 0);
  expect([...(await many.array())]).toEqual(
    [...load].map((each) => 0.25 * Math.sign(total - each * 130) + 0),
  );
});
