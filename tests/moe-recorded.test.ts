// A mixture of experts inside a recorded step: the choices change from run to run, the recording does not.
import { expect, test } from "vitest";
import { openGpu } from "../lib/src/gpu/device.js";
import { moe } from "../lib/src/model/moe.js";
import { gradients, parameter } from "../lib/src/tensor/autograd.js";
import { capture } from "../lib/src/tensor/capture.js";
import { mean, multiply } from "../lib/src/tensor/operations.js";
import { normals } from "../lib/src/tensor/random.js";
import { sizeOf, tensor } from "../lib/src/tensor/tensor.js";

await openGpu();

test("a recorded mixture gives the same bits as an eager one, also when tokens choose anew", async () => {
  const draw = (seed: number, ...shape: number[]) => parameter(tensor(normals(seed, sizeOf(shape)), shape));
  const [experts, width, inner] = [4, 8, 12];
  const x = draw(1, 50, width);
  const [router, gate, up] = [
    draw(2, experts, width),
    draw(3, experts, inner, width),
    draw(4, experts, inner, width),
  ];
  const down = draw(5, experts, width, inner);
  const weights = {
    router: { weight: router },
    gate: { weight: gate },
    up: { weight: up },
    down: { weight: down },
  };
  const step = () => {
    const { output, load } = moe(x, weights, { expertsPerToken: 2, normalize: true });
    return {
      output,
      load,
      slopes: gradients(mean(multiply(output, output)), [x, router, gate, up, down]),
    };
  };
  const recorded = capture(step);
  const loads: string[] = [];
  for (const seed of [6, 7, 6]) {
    x.write(normals(seed, x.size));
    const [eager, replayed] = [step(), recorded.run()];
    const pairs = [
      [replayed.output, eager.output],
      [replayed.load, eager.load],
      ...eager.slopes.map((slope, i) => [replayed.slopes[i], slope]),
    ];
    for (const [actual, wanted] of pairs) expect(await actual.array()).toEqual(await wanted.array());
    loads.push(String(await replayed.load.array()));
  }
  expect(loads[0]).not.toBe(loads[1]);
  expect(loads[2]).toBe(loads[0]);
  recorded.free();
});
