// `tslm bench` as a person meets it, and what it makes of measurements. No test asks how long anything takes.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ratesOf } from "../lib/src/cli/bench.ts";
import { decodeConfig, decodeFormats, prefillFlops, weightBytes } from "../lib/src/cli/bench-decode.ts";
import { benchNames } from "../lib/src/cli/bench-names.ts";
import { byOperation, measureStep, operationOf, stepModel, stepShapes } from "../lib/src/cli/bench-steps.ts";
import { benchText, decodeText, readableTime } from "../lib/src/cli/bench-text.ts";
import { openGpu } from "../lib/src/gpu/device.ts";
import { countParameters } from "../lib/src/model/count.ts";
import { tslm, tslmHere } from "./tslm.ts";

const repository = path.dirname(import.meta.dirname);

test("one operation: the ceiling, and every shape with its rate and share, as JSON and as a table for people", () => {
  const { status, stdout, stderr } = tslm(["bench", "--only", "add", "--json"]);
  const report = JSON.parse(stdout);
  const table = benchText(report);
  expect(table).toMatch(/^Ceiling of .+\n {2}multiply-adds f32 +[\d.]+ GFLOP\/s\n/);
  expect(table).toMatch(/\n {2}copy +\S/);
  expect({ status, steps: report.steps }).toEqual({ status: 0, steps: [] });
  expect(stderr).toMatch(/^Measuring: 4 measurements on .*\n$/m);
  expect(report.ceiling).toMatchObject({ gigaflops: expect.any(Number), gigabytes: expect.any(Number) });
  if (report.adapter.kind === "cpu") expect(report.missing["matrix units"]).toEqual(expect.any(String));
  expect("multiply-adds f16" in report.missing).toBe(report.ceiling.gigaflops16 === undefined);
  expect(report.operations.map(({ operation }: { operation: string }) => operation)).toEqual([
    "add",
    "add",
    "add",
  ]);
  for (const { gigabytes, share, seconds } of report.operations) {
    expect(seconds).toBeGreaterThan(0);
    expect(share).toBeCloseTo(gigabytes / report.ceiling.gigabytes, 6);
  }
});

test("a training step: whole, by operation, and its memory", async () => {
  await openGpu();
  const step = await measureStep("dense");
  expect(step).toMatchObject({ name: "dense", batch_size: 12, context: 64, optimizer: "adamw" });
  for (const { seconds, host_seconds, peak_bytes } of [step.captured, step.eager!]) {
    expect(seconds).toBeGreaterThan(host_seconds);
    expect(peak_bytes).toBeGreaterThan(4 * 4 * step.parameters);
  }
  expect(step.captured.peak_bytes).toBeLessThan(step.eager!.peak_bytes);
  if (!step.operations) return; // no timestamps
  const calls = step.operations.reduce((sum, row) => sum + row.calls, 0);
  expect(calls).toBe(step.kernels);
});

test("decoding: tokens, bytes and shares of one combination, as JSON and as a table for people", () => {
  const combination = ["--model", "12m", "--format", "int8", "--context", "16", "--batch", "2"];
  const { status, stdout } = tslm([
    "bench",
    "decode",
    ...combination,
    "--prompt",
    "4",
    "--tokens",
    "1",
    "--json",
  ]);
  const report = JSON.parse(stdout);
  const [decode, prefill] = report.rows;
  expect({ status, rows: report.rows.length }).toEqual({ status: 0, rows: 2 });
  const config = decodeConfig("12m", 17);
  expect(decode).toMatchObject({ task: "decode", model: "12m", format: "int8", batch: 2, context: 16 });
  expect(decode.bytes).toBe(
    weightBytes(config, decodeFormats.int8) + 2 * 16 * 2 * 4 * config.layers * config.hiddenSize,
  );
  expect(decode.tokens_per_second).toBeCloseTo(2 / decode.seconds, 6);
  expect(decode.share).toBeCloseTo(decode.bytes / decode.seconds / 1e9 / report.load_gigabytes, 6);
  expect(prefill).toMatchObject({ task: "prefill", context: 4, gigaflops: expect.any(Number) });
  expect(decodeText(report)).toMatch(/\n {2}decode +12m +int8 +2 +16 /);
});

test("the models of bench decode are as large as their names say, and fewer bits are fewer bytes", () => {
  const sizes = { "12m": 12e6, "124m": 124e6, "0.6b": 596e6 } as const;
  for (const [name, size] of Object.entries(sizes)) {
    const { total } = countParameters(decodeConfig(name as keyof typeof sizes, 64));
    expect(total / size, name).toBeCloseTo(1, 1);
  }
  const config = decodeConfig("124m", 64);
  const bytes = (["f32", "f16", "int8", "int4"] as const).map((name) =>
    weightBytes(config, decodeFormats[name]),
  );
  const shares = bytes.map((each) => each / bytes[0]);
  expect(shares.map((share) => Number(share.toFixed(2)))).toEqual([1, 0.5, 0.25, 0.14]);
  expect(prefillFlops(config, 512) / (2 * 512 * 85e6)).toBeCloseTo(1, 0);
});

test.each([
  [["--format", "int7"], /^tslm: option '--format <names>'.* It must be of f32, f16,.*\n$/],
  [["--context", "0"], /^tslm: option '--context <tokens>'.*at least 1.*\n$/],
])("bad usage of bench decode %j ends with exit code 2 and one sentence", async (args, sentence) => {
  const { status, stdout, stderr } = await tslmHere(["bench", "decode", ...args]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(stderr).toMatch(sentence);
});

test.each([
  [
    ["--only", "matmull"],
    /^tslm: nothing to measure is called "matmull" \(did you mean "matmul"\?\); there are .*\n$/,
  ],
  [["--only"], "tslm: option '--only <name>' argument missing\n"],
  [["matmul"], /^tslm: too many arguments.*\n$/],
])("bad usage %j ends with exit code 2 and one sentence", async (args, sentence) => {
  const { status, stdout, stderr } = await tslmHere(["bench", ...args]);
  expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
  expect(stderr).toMatch(sentence);
});

test("the step called shakespeare-char is that of the configuration of this name", () => {
  const file = path.join(repository, "configs", "shakespeare-char.json");
  const { config } = stepShapes["shakespeare-char"];
  expect(JSON.parse(fs.readFileSync(file, "utf8"))).toMatchObject(config);
});

test("the step called gpt2 has GPT-2's 124 million parameters, moe as many active ones as dense has", () => {
  const count = (name: keyof typeof stepShapes) => countParameters(stepModel(stepShapes[name]));
  expect(count("gpt2").total / 1e6).toBeCloseTo(124, 0);
  expect(count("moe").active / count("dense").active).toBeCloseTo(1, 1);
  expect(benchNames).toEqual(expect.arrayContaining(Object.keys(stepShapes)));
});

test("kernels that differ in sizes alone are one operation", () => {
  expect(operationOf("matmul 12x64x64x32 (B transposed)")).toBe("matmul (B transposed)");
  expect(operationOf("norm, rope, split weight back 768x32")).toBe("norm, rope, split weight back");
  expect(operationOf("counting sort of 1536 pairs, 8 experts")).toBe("counting sort");
  expect(operationOf("mean loss")).toBe("mean loss");
  const rows = byOperation([
    { name: "add 4", calls: 1, microseconds: 10 },
    { name: "norm", calls: 1, microseconds: 20 },
    { name: "add 8", calls: 2, microseconds: 30 },
  ]);
  expect(rows.map(({ operation, calls }) => [operation, calls])).toEqual([
    ["add", 3],
    ["norm", 1],
  ]);
});

test("rates, shares and times", () => {
  const ceiling = { gigaflops: 10, gigabytes: 4 };
  expect(ratesOf({ flops: 5e9 }, 2, ceiling)).toEqual({ gigaflops: 2.5, share: 0.25 });
  expect(ratesOf({ bytes: 5e9 }, 2.5, ceiling)).toEqual({ gigabytes: 2, share: 0.5 });
  expect([2, 0.25, 0.0123, 4.56e-6].map(readableTime)).toEqual(["2.00 s", "250 ms", "12.3 ms", "4.56 µs"]);
});

test("what cannot be measured says why in its place", () => {
  const text = benchText({
    adapter: { name: "none", kind: "gpu", subgroup_size: 0 },
    ceiling: { gigaflops: 1000, gigabytes: 10 },
    missing: { "multiply-adds f16": "this adapter does not offer shader-f16" },
    operations: [
      { operation: "add", shape: "1 x 2", seconds: 0.5, gigabytes: 5, share: 0.5 },
      { operation: "matmul", shape: "9 x 9", why: "it is too large" },
    ],
    steps: [{ name: "gpt2", why: "its logits are too large" }],
  });
  expect(text).toContain("  multiply-adds f16  this adapter does not offer shader-f16\n");
  expect(text).toMatch(/\n {2}add +1 x 2 +500 ms +5.00 GB\/s +50 %\n {2}matmul +9 x 9 +it is too large\n/);
  expect(text).toContain("\nStep gpt2: its logits are too large\n");
});
