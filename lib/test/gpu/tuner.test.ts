// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { copyKernel } from "../../src/gpu/ceiling.js";
import { allocate } from "../../src/gpu/commands.js";
import { openGpu } from "../../src/gpu/device.js";
import { fastestVariant, tunerChoices } from "../../src/gpu/tuner.js";

//| 02-attention/a-the-engine-room.ipynb#tuner-test
await openGpu();

await test("the tuner measures once, remembers, and believes what it is given", async () => {
  const storages = [allocate(2 ** 20), allocate(2 ** 20)];
  const whole = { ...copyKernel(2 ** 16), name: "whole" };
  const variants = { little: { ...whole, workgroups: [1, 1, 1] as const }, whole };
  const measured = await fastestVariant("copying", variants, storages);
  expect(Object.keys(measured.seconds)).toEqual(["little", "whole"]);
  expect(tunerChoices.copying).toBe(measured.name);
  expect(await fastestVariant("copying", variants, storages)).toEqual({ name: measured.name, seconds: {} });
  tunerChoices["read from disk"] = "whole";
  expect((await fastestVariant("read from disk", variants, storages)).name).toBe("whole");
});
