// `tslm init` and `tslm score` as a person meets them: the real program, its files, its sentences.
import fs from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { batchesOf } from "../lib/src/cli/score.ts";
import { readSafetensors, toFloat32, toInt32 } from "../lib/src/formats/safetensors.ts";
import { relativeError } from "../lib/src/tensor/check.ts";
import { testFolder, tslm, tslmHere } from "./tslm.ts";

const families = path.join(import.meta.dirname, "fixtures", "families");
const { folder } = testFolder("model");

const run = (args: string[]) => tslmHere(args, folder);
const runWithoutGpu = (args: string[]) =>
  tslm(args, { cwd: folder, env: { VK_DRIVER_FILES: "/nonexistent" } });

/** Writes a value as JSON into the test's folder. */
function writeJson(name: string, value: unknown): string {
  fs.writeFileSync(path.join(folder, name), JSON.stringify(value));
  return name;
}

const bytesOf = (...parts: string[]) => fs.readFileSync(path.join(folder, ...parts));
const reference = path.join(families, "qwen3_moe");
const referenceConfig = JSON.parse(fs.readFileSync(path.join(reference, "config.json"), "utf8"));
const expected = readSafetensors(fs.readFileSync(path.join(reference, "expected.safetensors"))).tensors;
const ids = [...toInt32(expected.get("input_ids")!)];
const rows = [ids.slice(0, 24), ids.slice(24)];

/** −log p(target), in 64 bits. */
function plainLoss(scores: Float32Array, target: number): number {
  return Math.log(scores.reduce((total, score) => total + Math.exp(score), 0)) - scores[target];
}

describe("tslm init", () => {
  test("the same seed gives the same bytes, another seed others, and score runs what it wrote", async () => {
    const config = path.join(reference, "config.json");
    expect(await run(["init", "--config", config, "--seed", "3", "--out", "one"])).toMatchObject({
      status: 0,
      stdout: "22976 parameters, of which a token meets 16832, in one\n",
    });
    await run(["init", "--config", config, "--seed", "3", "--out", "two"]);
    await run(["init", "--config", config, "--seed", "4", "--out", "three"]);
    expect(fs.readdirSync(path.join(folder, "one")).sort()).toEqual([
      ".tslm.json",
      "config.json",
      "generation_config.json",
      "model.safetensors",
    ]);
    expect(bytesOf("two", "model.safetensors").equals(bytesOf("one", "model.safetensors"))).toBe(true);
    expect(bytesOf("three", "model.safetensors").equals(bytesOf("one", "model.safetensors"))).toBe(false);
    const scored = await run(["score", "--model", "one", "--ids", writeJson("rows.json", rows)]);
    expect(scored.status).toBe(0);
    expect(Number.parseFloat(scored.stdout)).toBeCloseTo(Math.log(64), 1); // it knows nothing yet
  });

  test("it needs no GPU, and reports as JSON", async () => {
    const args = ["init", "--config", path.join(reference, "config.json"), "--out", "plain", "--json"];
    const { status, stdout } = runWithoutGpu(args);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ folder: "plain", parameters: 22976, active_parameters: 16832 });
  });

  test("the model of a training configuration is completed", async () => {
    const file = writeJson("train.json", {
      model: { hidden_size: 16, num_hidden_layers: 1 },
      tokenizer: { vocab_size: 300 },
      context: 32,
    });
    expect((await run(["init", "--config", file, "--out", "trained"])).status).toBe(0);
    const config = JSON.parse(bytesOf("trained", "config.json").toString());
    expect(config).toMatchObject({ vocab_size: 300, max_position_embeddings: 32, num_experts: 8 });
    writeJson("named.json", { model: "trained/config.json" });
    expect((await run(["init", "--config", "named.json", "--out", "named"])).status).toBe(0);
    expect(bytesOf("named", "model.safetensors").equals(bytesOf("trained", "model.safetensors"))).toBe(true);
  });

  test("the tokenizer is the one asked for, or the one beside the configuration; without any that is said", async () => {
    const config = writeJson("wide.json", { ...referenceConfig, vocab_size: 300 });
    const bare = await run(["init", "--config", config, "--out", "bare"]);
    expect(bare.stderr).toContain("bare has no tokenizer: give one with --tokenizer");
    await run(["init", "--config", config, "--tokenizer", "bytes", "--out", "bytes-model"]);
    const tokenizer = bytesOf("bytes-model", "tokenizer.json");
    const beside = path.join("bytes-model", "config.json");
    expect(await run(["init", "--config", beside, "--out", "beside"])).toMatchObject({
      status: 0,
      stderr: "",
    });
    expect(bytesOf("beside", "tokenizer.json").equals(tokenizer)).toBe(true);
    const small = path.join(reference, "config.json");
    expect((await run(["init", "--config", small, "--tokenizer", "bytes", "--out", "bad"])).stderr).toContain(
      "vocab_size is 64, but the tokenizer has 257 tokens.",
    );
  });

  test.each([
    [
      { ...referenceConfig, hiden_size: 3 },
      "hiden_size is not a setting of a qwen3_moe model; did you mean hidden_size?",
    ],
    [
      { ...referenceConfig, num_attention_heads: 3 },
      "num_attention_heads is 3, not a multiple of num_key_value_heads, which is 2.",
    ],
    [
      { model: { hidden_size: 16 }, tokenizer: "char" },
      "model.vocab_size is missing; without data to count characters in it has to be given.",
    ],
    [
      { ...referenceConfig, vocab_size: 1e8 },
      /^tslm: The weight model.embed_tokens.weight needs 11.9 GiB, but one array holds at most 2.0 GiB here: choose a smaller size.\n$/,
    ],
    [
      { ...referenceConfig, moe_intermediate_size: 4e6, num_hidden_layers: 5000 },
      /^tslm: A model of \d+ parameters needs \d+\.\d GiB, and the disk of bad has .* left.\n$/,
    ],
    ["text", "A model configuration must be a JSON object."],
  ])("a configuration that cannot be: %#", async (config, sentence) => {
    const { status, stdout, stderr } = await run([
      "init",
      "--config",
      writeJson("bad.json", config),
      "--out",
      "bad",
    ]);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    if (typeof sentence === "string") expect(stderr).toBe(`tslm: bad.json: ${sentence}\n`);
    else expect(stderr).toMatch(sentence);
    expect(fs.existsSync(path.join(folder, "bad"))).toBe(false);
  });

  test("a file that is not there, or is not JSON", async () => {
    expect((await run(["init", "--config", "none.json", "--out", "x"])).stderr).toBe(
      "tslm: none.json: there is no such file or folder\n",
    );
    fs.writeFileSync(path.join(folder, "broken.json"), "{");
    expect((await run(["init", "--config", "broken.json", "--out", "x"])).stderr).toMatch(
      /^tslm: broken.json is not JSON: .*\n$/,
    );
  });
});

describe("tslm init --upcycle", () => {
  const shape = { ...referenceConfig, model_type: "qwen3", architectures: undefined };
  const ofExperts =
    "num_local_experts num_experts_per_tok moe_intermediate_size norm_topk_prob router_aux_loss_coef " +
    "decoder_sparse_step mlp_only_layers output_router_logits";
  for (const key of ofExperts.split(" ")) delete shape[key];
  const experts = { num_experts: 4, num_experts_per_tok: 2, moe_intermediate_size: shape.intermediate_size };
  const sparse = { ...shape, ...experts, model_type: "qwen3_moe", norm_topk_prob: true };

  test("a dense model becomes a sparse one that computes the same, without a GPU; renewed, it does not", async () => {
    await run(["init", "--config", writeJson("dense.json", shape), "--out", "dense"]);
    const args = [
      "init",
      "--config",
      writeJson("sparse.json", sparse),
      "--upcycle",
      "dense",
      "--out",
      "copies",
    ];
    const { status, stderr } = runWithoutGpu(args);
    expect({ status, stderr }).toMatchObject({ status: 0 });
    await run([...args.slice(0, -1), "renewed", "--renewed", "0.5"]);
    const file = writeJson("rows.json", rows);
    const lossOf = async (model: string) =>
      Number.parseFloat((await run(["score", "--model", model, "--ids", file])).stdout);
    const loss = await lossOf("dense");
    expect(Math.abs((await lossOf("copies")) - loss)).toBeLessThan(1e-5);
    expect(Math.abs((await lossOf("renewed")) - loss)).toBeGreaterThan(1e-4);
  });

  test("what does not fit is refused in one sentence, and nothing is written", async () => {
    const other = writeJson("other.json", { ...sparse, num_attention_heads: 2 });
    const refusals: [string[], string][] = [
      [["--config", other, "--upcycle", "dense"], "The models differ in more than experts: heads is 4"],
      [["--config", "dense.json", "--upcycle", "dense"], "has no experts"],
      [["--config", "sparse.json", "--upcycle", "nowhere"], "nowhere"],
      [["--config", "sparse.json", "--renewed", "0.5"], "--renewed is for --upcycle"],
      [["--config", "sparse.json", "--upcycle", "dense", "--renewed", "2"], "a number between 0 and 1"],
    ];
    for (const [args, sentence] of refusals) {
      const { status, stderr } = await run(["init", ...args, "--out", "never"]);
      expect(status, sentence).not.toBe(0);
      expect(stderr).toContain(sentence);
      expect(fs.existsSync(path.join(folder, "never", "config.json"))).toBe(false);
    }
  });
});

describe("tslm score", () => {
  test.each(["llama", "qwen3", "qwen3_moe"])(
    "%s: loss and logits are those of transformers",
    async (family) => {
      const model = path.join(families, family);
      const { tensors } = readSafetensors(fs.readFileSync(path.join(model, "expected.safetensors")));
      const all = [...toInt32(tensors.get("input_ids")!)];
      const file = writeJson("ids.json", [all.slice(0, 24), all.slice(24)]);
      const { status, stdout } = await run([
        "score",
        "--model",
        model,
        "--ids",
        file,
        "--logits",
        "logits.safetensors",
        "--json",
      ]);
      expect(status).toBe(0);
      const { loss, tokens } = JSON.parse(stdout);
      expect(tokens).toBe(46);
      expect(loss).toBeCloseTo(toFloat32(tensors.get("loss")!)[0], 5);
      const logits = readSafetensors(bytesOf("logits.safetensors")).tensors.get("logits")!;
      expect(logits).toMatchObject({ dtype: "F32", shape: tensors.get("logits")!.shape });
      expect(relativeError(toFloat32(logits), toFloat32(tensors.get("logits")!))).toBeLessThan(1e-5);
    },
  );

  test("rows of different lengths are scored too, but have no one shape for logits", async () => {
    const file = writeJson("ragged.json", [rows[0], rows[1].slice(0, 5)]);
    const { status, stdout } = await run(["score", "--model", reference, "--ids", file, "--json"]);
    const logits = toFloat32(expected.get("logits")!);
    const losses = ids.slice(1, 29).map((id, at) => plainLoss(logits.subarray(at * 64, at * 64 + 64), id));
    losses.splice(23, 1); // the first row's last token has no next one
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      tokens: 27,
      loss: expect.closeTo(losses.reduce((a, b) => a + b) / 27, 5),
    });
    expect(
      await run(["score", "--model", reference, "--ids", file, "--logits", "ragged.safetensors"]),
    ).toEqual({
      status: 1,
      stdout: "",
      stderr: "tslm: ragged.json: for --logits all rows must have the same length; score them one by one.\n",
    });
    expect(fs.existsSync(path.join(folder, "ragged.safetensors"))).toBe(false);
  });

  test("rows are shared out into batches of one size", async () => {
    const five = [[1], [2], [3], [4], [5]];
    expect(batchesOf(five, 10, 30)).toEqual([five.slice(0, 3), [[4], [5], []]]);
    expect(batchesOf(five, 10, 5)).toEqual(five.map((row) => [row]));
    expect(batchesOf(five, 10, 1000)).toEqual([five]);
  });

  test.each([
    [[[1, 2, 64]], "bad.json, row 0: The id 64 at place 2 is not in the vocabulary, whose ids are 0 to 63."],
    [
      [
        [1, 2],
        [3, -1],
      ],
      "bad.json, row 1: The id -1 at place 1 is not in the vocabulary, whose ids are 0 to 63.",
    ],
    [[[1, 2], [3]], "bad.json: row 1 has 1 ids; a score needs one to predict the next from."],
    [[1, 2], "bad.json is not a list of rows of ids, such as [[5, 17, 3], [8, 1, 1]]."],
    [[[1.5, 2]], "bad.json is not a list of rows of ids, such as [[5, 17, 3], [8, 1, 1]]."],
    [[Array(257).fill(1)], "bad.json, row 0: 257 ids are more than the model's context of 256."],
  ])("ids that cannot be: %#", async (bad, sentence) => {
    const args = [
      "score",
      "--model",
      reference,
      "--ids",
      writeJson("bad.json", bad),
      "--logits",
      "no.safetensors",
    ];
    expect(await run(args)).toEqual({ status: 1, stdout: "", stderr: `tslm: ${sentence}\n` });
    expect(fs.existsSync(path.join(folder, "no.safetensors"))).toBe(false);
  });

  test("sizes that the adapter cannot hold: what is needed, and what there is", async () => {
    const long = writeJson("long.json", [Array(4_000_000).fill(1)]);
    const { status, stderr } = await run(["score", "--model", reference, "--ids", long]);
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /needs 976.6 MiB, but one array on .* holds at most|more than the model's context/,
    );
  });

  test("a damaged model, a missing one, no GPU at all", async () => {
    const model = path.join(folder, "damaged");
    fs.cpSync(reference, model, { recursive: true });
    fs.truncateSync(path.join(model, "model.safetensors"), 5000);
    const file = writeJson("rows.json", rows);
    expect(await run(["score", "--model", "damaged", "--ids", file])).toEqual({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(
        /^tslm: damaged\/model.safetensors: it has 5000 bytes where its head says \d+: copy it again.\n$/,
      ),
    });
    expect((await run(["score", "--model", "nowhere", "--ids", file])).stderr).toBe(
      "tslm: nowhere/config.json: there is no such file or folder\n",
    );
    const { status, stderr } = runWithoutGpu(["score", "--model", reference, "--ids", file]);
    if (process.platform === "linux")
      expect({ status, stderr }).toMatchObject({ status: 1, stderr: /^tslm: No GPU adapter/ });
  });
});
