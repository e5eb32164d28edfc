// `tslm describe` as a person meets it: what it says of published models, of folders, and of what it cannot read.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { rangesText } from "../lib/src/cli/describe-text.ts";
import { testFolder, tslm, tslmHere } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const { folder, at } = testFolder("describe");

/** The report on a model as an object. */
async function reportOn(model: string, ...options: string[]) {
  const { status, stdout, stderr } = await tslmHere(["describe", model, "--json", ...options], folder);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout);
}

const published = (name: string) => path.join(fixtures, "configs", `${name}.json`);

test("a published model: counts, costs and layers, without a GPU and without its weights", () => {
  const { status, stdout } = tslm(["describe", published("qwen3-30b-a3b"), "--json"], {
    env: { VK_DRIVER_FILES: "/nonexistent" },
  });
  expect(status).toBe(0);
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({
    model_type: "qwen3_moe",
    architecture: "Qwen3MoeForCausalLM",
    parameters: { total: 30_532_122_624, active: 3_353_032_704 },
    context_length: 40960,
    positions: { kind: "rotary", theta: 1e6, dimensions: 128 },
    cache: { bytes_per_token: { f32: 48 * 2 * 4 * 128 * 4, bf16: 48 * 2 * 4 * 128 * 2 } },
  });
  // A multiplication and an addition for all that a token meets but the row that it looks up, and attention to half of the context.
  const products = 2 * (3_353_032_704 - 151936 * 2048);
  const attention = 48 * 2 * (32 * 128 * 2) * 2048;
  expect(report.flops_per_token).toEqual({
    context: 4096,
    forward: products + attention,
    training: 3 * (products + attention),
  });
  expect(report.weight_bytes.f32).toBe(4 * 30_532_122_624);
  expect(report.weight_bytes.bf16).toBe(2 * 30_532_122_624);
  expect(report.layers).toEqual([
    {
      layers: Array.from({ length: 48 }, (_, layer) => layer),
      attention: { kind: "heads", heads: 32, head_dim: 128, kv_heads: 4, window: null, rotation: "shared" },
      feed_forward: {
        kind: "experts",
        width: 768,
        gated: true,
        activation: "silu",
        experts: 128,
        experts_per_token: 8,
      },
    },
  ]);
});

test("windows are counted: beyond them a token leaves nothing in a local layer", async () => {
  const { cache, layers, flops_per_token } = await reportOn(published("mistral-7b"), "--context", "32768");
  expect(layers[0].attention.window).toBe(4096);
  expect(cache.bytes_per_token_beyond_windows.f32).toBe(0);
  expect(cache.bytes.bf16).toBe(4096 * cache.bytes_per_token.bf16);
  const inWindow = await reportOn(published("mistral-7b"), "--context", "4096");
  expect(flops_per_token.forward).toBeGreaterThan(inWindow.flops_per_token.forward);
});

test("latent attention keeps one row a token, and what turns beside it", async () => {
  const { cache, layers } = await reportOn(published("deepseek-v3"));
  expect(cache.bytes_per_token.bf16).toBe(61 * (512 + 64) * 2);
  expect(layers.map(({ layers }: { layers: number[] }) => layers.length)).toEqual([3, 58]);
  expect(layers[1].attention).toEqual({
    kind: "latent",
    heads: 128,
    head_dim: 192,
    rank: 512,
    rope_dim: 64,
    value_dim: 128,
  });
  expect(layers[1].feed_forward).toMatchObject({ experts: 256, experts_per_token: 8, shared_width: 2048 });
});

test("a folder is described with its tokenizer and its licence, wherever that is stated", async () => {
  for (const file of ["config.json"])
    fs.copyFileSync(path.join(fixtures, "families", "qwen3", file), at(file));
  expect(await reportOn(folder)).toMatchObject({ tokenizer: null, license: null });
  fs.writeFileSync(
    at("LICENSE"),
    "\n                                 Apache License\n                           Version 2.0, January 2004\n",
  );
  const tokenizer = {
    model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, byte_fallback: true },
    added_tokens: [
      { id: 3, content: "<s>", special: true },
      { id: 7, content: "<tool>", special: false },
    ],
  };
  fs.writeFileSync(at("tokenizer.json"), JSON.stringify(tokenizer));
  fs.writeFileSync(at("chat_template.jinja"), "{{ messages }}");
  expect(await reportOn(folder)).toMatchObject({
    tokenizer: {
      kind: "BPE with bytes to fall back on",
      vocabulary: 8,
      specials: 1,
      added: 2,
      chat_template: true,
    },
    license: { name: "Apache License", file: "LICENSE" },
  });
  fs.writeFileSync(
    at("README.md"),
    "---\nlanguage: en\nlicense: other\nlicense_name: gemma\n---\n# A model\nlicense: mit\n",
  );
  expect((await reportOn(folder)).license).toEqual({ name: "gemma", file: "README.md" });
  const { stdout } = await tslmHere(["describe", folder]);
  expect(stdout).toContain(
    "BPE with bytes to fall back on, 8 tokens, 1 of them special, with a chat template",
  );
  expect(stdout).toContain("licence        gemma (README.md)");
  expect(stdout).toMatch(/^0-1 +4 heads of 8, 2 for keys, all keys +dense, 48 wide, silu, gated$/m);
});

test("a training configuration is described as the model that it would train", async () => {
  const report = await reportOn(path.join(import.meta.dirname, "..", "configs", "default.json"));
  expect(report).toMatchObject({ vocabulary: 1024, context_length: 128, flops_per_token: { context: 128 } });
});

test("layers are named by ranges, or by steps", () => {
  expect(rangesText([0])).toBe("0");
  expect(rangesText([0, 1, 2, 4, 6, 7])).toBe("0-2, 4, 6-7");
  expect(rangesText([1, 3, 5, 7, 9])).toBe("1, 3 … 9");
});

test("what cannot be described is said in one sentence", async () => {
  fs.writeFileSync(at("other.json"), JSON.stringify({ model_type: "mamba" }));
  const refusal = async (...args: string[]) => {
    const { status, stderr } = await tslmHere(["describe", ...args], folder);
    return { status, stderr: stderr.trim().split("\n") };
  };
  expect(await refusal("other.json")).toMatchObject({
    status: 1,
    stderr: [expect.stringContaining('other.json: model_type "mamba" is not run so far')],
  });
  expect(await refusal("nowhere")).toMatchObject({
    status: 1,
    stderr: [expect.stringContaining("nowhere: there is no such file or folder")],
  });
  expect(await refusal(".", "--context", "0")).toMatchObject({ status: 2 });
});
