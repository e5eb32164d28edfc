// Files of GGUF as a person meets them: exported, opened wherever a model is named, refused in a sentence.
import fs from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { readSafetensors, toFloat32, toInt32 } from "../lib/src/formats/safetensors.ts";
import { readGgufHead } from "../lib/src/formats/gguf.ts";
import { trainBpe } from "../lib/src/tokenizer/merges.ts";
import { PATTERNS } from "../lib/src/tokenizer/pretokenize.ts";
import { testFolder, tslmHere } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const { folder, at } = testFolder("gguf");
const run = (...args: string[]) => tslmHere(args, folder);

/** The head of a file that was written. */
function headOf(name: string) {
  const bytes = new Uint8Array(fs.readFileSync(at(name)));
  return readGgufHead(bytes.length, (begin, end) => bytes.subarray(begin, end));
}

/** A model folder with a tokenizer, a chat template and room for its tokens. */
function writeModel(name: string): void {
  fs.mkdirSync(at(name));
  const config = {
    model_type: "qwen3",
    ...{ hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8 },
    ...{ intermediate_size: 64, vocab_size: 288, max_position_embeddings: 256, initializer_range: 0.5 },
    ...{ bos_token_id: null, eos_token_id: [279, 280], tie_word_embeddings: true },
  };
  fs.writeFileSync(at("config.json"), JSON.stringify(config));
  const json = trainBpe(["the cat and the dog and the bird ".repeat(9)], 280).toJson() as {
    pre_tokenizer: { pretokenizers: [{ pattern: object }] };
  };
  json.pre_tokenizer.pretokenizers[0].pattern = { Regex: PATTERNS.qwen2 };
  fs.writeFileSync(at(name, "tokenizer.json"), JSON.stringify(json));
  fs.writeFileSync(at(name, "chat_template.jinja"), "{{ messages }}");
}

describe("tslm export", () => {
  test("a model of ours says the same from its folder and from its file", async () => {
    writeModel("model");
    expect(
      await run("init", "--config", "config.json", "--tokenizer", "model", "--out", "whole"),
    ).toMatchObject({ status: 0 });
    const written = await run(
      "export",
      "--model",
      "whole",
      "--format",
      "gguf",
      "--dtype",
      "f32",
      "--out",
      "out/whole.gguf",
    );
    expect(written).toMatchObject({ status: 0, stdout: "" });
    const args = ["--prompt", "the cat", "--max-tokens", "8", "--temperature", "0"];
    const [theirs, ours] = [
      await run("generate", "--model", "out/whole.gguf", ...args),
      await run("generate", "--model", "whole", ...args),
    ];
    expect(theirs).toMatchObject({ status: 0, stdout: ours.stdout, stderr: "" });
    const { keys } = headOf("out/whole.gguf");
    const values = [
      "general.architecture",
      "general.name",
      "general.file_type",
      "tokenizer.ggml.pre",
      "tokenizer.ggml.eot_token_id",
    ];
    expect(values.map((key) => keys.get(key)?.value)).toEqual(["qwen3", "whole", 0, "qwen2", 280]);
  });

  test("a file is written again with fewer bits, the touchy parts as f32", async () => {
    const source = path.join(fixtures, "gguf", "stories260k-q8_0.gguf");
    const args = ["--format", "gguf", "--dtype", "q4_0", "--out", "small.gguf", "--without-tokenizer"];
    expect(await run("export", "--model", source, ...args)).toMatchObject({ status: 0 });
    const { tensors, keys } = headOf("small.gguf");
    const types = [
      "token_embd.weight",
      "blk.0.attn_q.weight",
      "blk.0.ffn_down.weight",
      "blk.0.attn_norm.weight",
    ];
    expect(types.map((name) => tensors.get(name)?.type)).toEqual(["Q8_0", "Q4_0", "F16", "F32"]);
    expect(keys.get("tokenizer.ggml.model")?.value).toBe("no_vocab");
  });

  test("what cannot be is said in a sentence", async () => {
    const qwen = path.join(fixtures, "families", "qwen3");
    const refusals: [string[], number, string][] = [
      [
        ["--model", qwen, "--format", "gguf", "--out", "x.bin"],
        2,
        "tslm: --out x.bin must end with .gguf.\n",
      ],
      [["--model", qwen, "--format", "onnx", "--out", "x.gguf"], 2, "Allowed choices are gguf."],
      [
        [
          "--model",
          path.join(fixtures, "families", "mistral"),
          "--format",
          "gguf",
          "--out",
          "x.gguf",
          "--without-tokenizer",
        ],
        1,
        "The model has a window (sliding_window)",
      ],
      [
        ["--model", "nowhere.gguf", "--format", "gguf", "--out", "x.gguf"],
        1,
        "tslm: There is no file nowhere.gguf.",
      ],
    ];
    for (const [args, status, sentence] of refusals) {
      const ended = await run("export", ...args);
      expect(ended.status, sentence).toBe(status);
      expect(ended.stderr).toContain(sentence);
      expect(ended.stderr.trim().split("\n").length).toBe(1);
    }
    expect(fs.existsSync(at("x.gguf"))).toBe(false);
    fs.writeFileSync(
      at("cut.gguf"),
      fs.readFileSync(path.join(fixtures, "gguf", "stories260k-q4_0.gguf")).subarray(0, 90_000),
    );
    const cut = await run("score", "--model", "cut.gguf", "--ids", "-");
    expect(cut.status).toBe(1);
  });
});

test("files of another program: logits within 2e-4 of the weights that their blocks stand for", async () => {
  const expected = readSafetensors(
    fs.readFileSync(path.join(fixtures, "gguf", "expected.safetensors")),
  ).tensors;
  fs.writeFileSync(at("ids.json"), JSON.stringify([[...toInt32(expected.get("input_ids")!)]]));
  for (const kind of ["q8_0", "q4_0"]) {
    const file = path.join(fixtures, "gguf", `stories260k-${kind}.gguf`);
    const ended = await run("score", "--model", file, "--ids", "ids.json", "--logits", "logits.safetensors");
    expect(ended.status, ended.stderr).toBe(0);
    const logits = toFloat32(
      readSafetensors(fs.readFileSync(at("logits.safetensors"))).tensors.get("logits")!,
    );
    const reference = toFloat32(expected.get(`logits.${kind}`)!);
    const furthest = logits.reduce((most, value, i) => Math.max(most, Math.abs(value - reference[i])), 0);
    expect(furthest, kind).toBeLessThan(2e-4);
  }
});
