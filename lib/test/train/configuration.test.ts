// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  checkSameRun,
  defaultTrainConfig,
  parseTrainConfig,
  settingValue,
  trainingSettings,
  withSetting,
} from "../../src/train/configuration.js";

//| 04-training/a-the-trainers-desk.ipynb#config-test
await test("what is left out has the defaults, and what is given is kept", () => {
  const config = parseTrainConfig({ steps: 20, optimizer: { kind: "muon" }, schedule: { warmup: 300 } });
  expect(config.optimizer).toEqual({ ...defaultTrainConfig.optimizer, kind: "muon" });
  expect(config.batch_size).toBe(defaultTrainConfig.batch_size);
  expect(trainingSettings(config).schedule.warmup).toBe(10); // no longer than half the run
  expect(parseTrainConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
});

await test("mistakes are named, with the nearest setting where there is one", () => {
  const mistake = (json: Record<string, unknown>, words: string) =>
    expect(() => parseTrainConfig(json)).toThrow(words);
  mistake({ stpes: 1 }, "stpes is not a setting of a training run; did you mean steps?");
  mistake({ learning_rate: 1 }, "did you mean optimizer.learning_rate?");
  mistake({ optimizer: { weight_dcay: 1 } }, "did you mean optimizer.weight_decay?");
  mistake({ data: { synthetic: { byte: 1000, seed: 1 } } }, "did you mean data.synthetic.bytes?");
  mistake({ zzzzzzzz: 1 }, "zzzzzzzz is not a setting of a training run.");
  mistake({ optimizer: { betas: [0.9, 1] } }, "optimizer.betas.1 must be a number from 0 to below 1, not 1.");
  mistake({ steps: 1.5 }, "steps must be a whole number of at least 1, not 1.5.");
  mistake({ optimizer: 3 }, "optimizer must be an object");
});

//| 04-training/a-the-trainers-desk.ipynb#set-test
await test("--set reaches inner settings, and leaves the rest as it was", () => {
  const json = { steps: 5, optimizer: { kind: "muon" } };
  expect(withSetting(json, "optimizer.learning_rate", settingValue("1e-3"))).toEqual({
    steps: 5,
    optimizer: { kind: "muon", learning_rate: 0.001 },
  });
  expect(json).toEqual({ steps: 5, optimizer: { kind: "muon" } });
  expect(settingValue("cosine")).toBe("cosine");
  expect(withSetting({}, "a.b.c", [1])).toEqual({ a: { b: { c: [1] } } });
});

await test("a run goes on with its own settings only, but may become longer", () => {
  const begun = parseTrainConfig({});
  expect(() => checkSameRun(begun, { ...begun, steps: 5000, eval_every: 7 })).not.toThrow();
  expect(() => checkSameRun(begun, { ...begun, seed: 2 })).toThrow(
    "begun with seed 1, and cannot go on with 2",
  );
  const slower = withSetting({ ...begun }, "optimizer.learning_rate", 1e-5);
  expect(() => checkSameRun(begun, parseTrainConfig(slower))).not.toThrow(); // as a lost run advises
  const other = withSetting({ ...begun }, "optimizer.momentum", 0.5);
  expect(() => checkSameRun(begun, parseTrainConfig(other))).toThrow("begun with optimizer.momentum");
});
