// Models in fewer bits as a person makes and opens them: every family, every format, in one file or several.
import fs from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { openModel } from "../lib/src/cli/model.ts";
import { int4Format, int8Format, mxfp4Format } from "../lib/src/kernels/formats.ts";
import { parametersOf, weightsOf } from "../lib/src/model/families.ts";
import { storedNumbers } from "../lib/src/model/stored.ts";
import { quantizedFormat } from "../lib/src/model/quantize.ts";
import { savedFormats, storedTensors } from "../lib/src/model/stored.ts";
import { checkModelFiles } from "../lib/src/model/weights.ts";
import { loadTokenizer } from "../lib/src/tokenizer/files.ts";
import { expectRefusal, testFolder, tslmHere } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const families = fs.readdirSync(path.join(fixtures, "families"));
const { folder, at } = testFolder("quantize");
const run = (...args: string[]) => tslmHere(args, folder);
const family = (name: string) => path.join(fixtures, "families", name);

/** The tensors of a model's files, checked against its configuration. */
function opened(model: string) {
  const names = fs.readdirSync(model).filter((name) => /^model.*safetensors$/.test(name));
  const files = names.map((name) => storedTensors(fs.readFileSync(path.join(model, name))));
  return checkModelFiles(JSON.parse(fs.readFileSync(path.join(model, "config.json"), "utf8")), files);
}

/** The bytes of numbers, which compare faster than they. */
const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  Buffer.from(buffer, byteOffset, byteLength);

describe("tslm quantize", () => {
  test.each([
    ["int8", int8Format, [], families],
    ["int4", int4Format(32), [], ["gpt2", "qwen3_moe"]],
    ["int4-asym", int4Format(32, true), ["--group", "32", "--max-shard-size", "20kB"], families],
    ["mxfp4", mxfp4Format, [], ["gpt_oss", "gpt2"]],
  ] as const)("%s: files hold each weight as rounding leaves it", async (name, matrices, more, sources) => {
    const settings = { matrices, tables: int8Format, rest: savedFormats.F32 };
    for (const source of sources) {
      const out = `${source}-${name}`;
      const ended = await run("quantize", "--model", family(source), "--format", name, "--out", out, ...more);
      expect(ended, source).toMatchObject({ status: 0 });
      const [before, after] = [opened(family(source)), opened(at(out))];
      for (const weight of weightsOf(before.config)) {
        const [format, columns] = [quantizedFormat(weight, settings), weight.shape.at(-1)!];
        const values = storedNumbers(weight, before.tensors);
        const rounded = format.unpack(format.pack(values, columns), columns).subarray(0, values.length);
        const isSame = bytesOf(rounded).equals(bytesOf(storedNumbers(weight, after.tensors)));
        expect(isSame, `${source} ${weight.path} in ${format.name}`).toBe(true);
      }
    }
  });

  test("a quantized model is opened packed, scores as its widened weights do, and is neither trained nor quantized again", async () => {
    const ids = at("ids.json");
    fs.writeFileSync(ids, JSON.stringify([[5, 17, 3, 40, 8, 1]]));
    const score = (...more: string[]) =>
      run("score", "--model", at("qwen3_moe-int4"), "--ids", ids, "--json", ...more);
    const [packed, wide] = [await score(), await score("--dtype", "f32")];
    expect(packed.stderr).toContain("matrices are kept in int8 and int4-32");
    expect(wide.stderr).not.toContain("matrices are kept");
    expect(JSON.parse(packed.stdout).loss).toBeCloseTo(JSON.parse(wide.stdout).loss, 5);
    const model = await openModel(at("qwen3_moe-int4"), "auto");
    expect(() => parametersOf(model)).toThrow(
      /is packed as int8 .* which is for reading: open the model with dtype f32/,
    );
    const described = await run("describe", at("qwen3_moe-int4"));
    expect(described.stdout).toMatch(/packed as +int4 in groups of 32, int8/);
    const again = await run("quantize", "--model", at("gpt2-int4"), "--format", "int8", "--out", "again");
    expectRefusal(again, "gpt2-int4 is quantized already: quantize the model that it was made from.");
  });

  test.each([
    [
      "gptq",
      { quant_method: "gptq", bits: 4 },
      'quantization_config is given (quant_method "gptq"), but such models are not run',
    ],
    [
      "awq",
      { quant_method: "awq", bits: 4 },
      'quantization_config is given (quant_method "awq"), but such models are not run',
    ],
    ["none", { load_in_4bit: true }, "quantization_config is given, but such models are not run so far."],
    [
      "floats",
      { quant_method: "compressed-tensors", format: "float-quantized", config_groups: { group_0: {} } },
      'quantization_config asks for the format "float-quantized", but of',
    ],
    [
      "activations",
      {
        quant_method: "compressed-tensors",
        format: "pack-quantized",
        config_groups: { group_0: { input_activations: { num_bits: 8 } } },
      },
      "quantization_config asks for activations of few bits, but of",
    ],
  ])("what is stored otherwise is refused by name: %s", async (name, quantization_config, sentence) => {
    const json = JSON.parse(fs.readFileSync(path.join(family("llama"), "config.json"), "utf8"));
    fs.mkdirSync(at(name));
    fs.writeFileSync(at(name, "config.json"), JSON.stringify({ ...json, quantization_config }));
    expectRefusal(await run("describe", name), sentence);
  });

  test("what does not fit together is refused in a sentence", async () => {
    const bad = (...more: string[]) => run("quantize", "--model", family("llama"), "--out", "bad", ...more);
    expectRefusal(
      await bad("--format", "int8", "--group", "32"),
      "--group is for int4 and int4-asym; int8 has none",
      2,
    );
    expectRefusal(await bad("--format", "int3"), "int3", 2);
    expectRefusal(await run("quantize", "--model", "nothing", "--format", "int8", "--out", "bad"), "nothing");
  });

  test("--calibrate: a model of few bits predicts text that it was not shown better for it", async () => {
    const stories = path.join(fixtures, "stories260k");
    const bytes = fs.readFileSync(path.join(stories, "stories.bin"));
    const ids = Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
    const starts = ids.flatMap((id, i) => (id === 1 ? [i] : []));
    const told = starts.map((from, i) => ids.slice(from, starts[i + 1]));
    const tokenizer = loadTokenizer(
      JSON.parse(fs.readFileSync(path.join(stories, "tokenizer.json"), "utf8")),
    );
    const texts = told
      .slice(0, 20)
      .map((story) => new TextDecoder().decode(tokenizer.decode(story.slice(1))));
    fs.writeFileSync(at("shown.txt"), texts.join("\n\n"));
    fs.writeFileSync(at("others.json"), JSON.stringify(told.slice(20)));
    const loss = async (name: string, ...more: string[]) => {
      const args = ["--format", "int4", "--group", "64", "--out", name, ...more];
      expect(await run("quantize", "--model", stories, ...args)).toMatchObject({ status: 0 });
      const { stdout } = await run(
        "score",
        "--model",
        name,
        "--ids",
        "others.json",
        "--dtype",
        "f32",
        "--json",
      );
      return JSON.parse(stdout).loss;
    };
    const [nearest, calibrated] = [
      await loss("nearest"),
      await loss("calibrated", "--calibrate", "shown.txt"),
    ];
    const whole = JSON.parse(
      (await run("score", "--model", stories, "--ids", at("others.json"), "--json")).stdout,
    ).loss;
    expect(calibrated - whole).toBeGreaterThan(0);
    expect(calibrated - whole).toBeLessThan(0.95 * (nearest - whole));
    const files = fs.readdirSync(at("calibrated")).filter((name) => !name.startsWith("."));
    expect(files).toEqual(
      expect.arrayContaining(["LICENSE.txt", "config.json", "model.safetensors", "tokenizer.json"]),
    );
    expectRefusal(
      await run(
        "quantize",
        "--model",
        stories,
        "--format",
        "int4",
        "--calibrate",
        "none.txt",
        "--out",
        "bad",
      ),
      "none.txt",
    );
  });
});
