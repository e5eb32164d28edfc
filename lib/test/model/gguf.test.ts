// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import type { ModelConfig } from "../../src/formats/config.js";
import { type GgufValue, readGgufHead } from "../../src/formats/gguf.js";
import { joinedBytes } from "../../src/formats/safetensors.js";
import { parseModelConfig } from "../../src/model/config.js";
import { modelFamilies, weightsOf } from "../../src/model/families.js";
import { type GgufExport, ggufArchitectures, ggufModelPieces, openGgufModel } from "../../src/model/gguf.js";
import { ropeFrequencies, scaledFrequencies } from "../../src/model/positions.js";
import { storedNumbers, storedTensors } from "../../src/model/stored.js";

//| 05-inference/a-files-of-gguf.ipynb#model-test
const familyFolder = fs.existsSync("tests/fixtures")
  ? "tests/fixtures/families"
  : "../../tests/fixtures/families";

/** A configuration and the tensors of a family's tiny model. */
function tinyModel(folder: string, changes: Record<string, unknown> = {}) {
  const json = {
    ...JSON.parse(fs.readFileSync(`${familyFolder}/${folder}/config.json`, "utf8")),
    ...changes,
  };
  const tensors = storedTensors(
    new Uint8Array(fs.readFileSync(`${familyFolder}/${folder}/model.safetensors`)),
  );
  return { config: parseModelConfig(json), tensors };
}

/** A tiny model as the bytes of a GGUF file. */
function tinyGguf(
  folder: string,
  changes: Record<string, unknown> = {},
  dtype: GgufExport["dtype"] = "f32",
): Uint8Array {
  const { config, tensors } = tinyModel(folder, changes);
  return joinedBytes([...ggufModelPieces(config, (weight) => storedNumbers(weight, tensors), { dtype })]);
}

/** Opens the bytes of a file. */
function openTiny(bytes: Uint8Array) {
  const read = (begin: number, end: number) => bytes.subarray(begin, end);
  return openGgufModel(readGgufHead(bytes.length, read), read);
}

/** What must be changed of a tiny model for its architecture to run it. */
const exportable: Record<string, Record<string, unknown>> = {
  llama: {},
  mistral: { sliding_window: null },
  mixtral: {},
  qwen2: {},
  qwen3: {},
  qwen3_moe: {},
  qwen3_yarn: {},
  llama_linear: {},
  olmoe: {},
  gpt2: {},
  gemma3: { query_pre_attn_scalar: 8, layer_types: Array.from({ length: 3 }, () => "sliding_attention") },
  gpt_oss: {},
};

//| 05-inference/a-files-of-gguf.ipynb#model-test-2
/** How positions turn, where it is written by name and not as divisors. */
const namedRope = ({ rope }: ModelConfig) =>
  rope?.scaling?.type === "llama3" || rope?.scaling?.type === "longrope" ? rope.theta : rope;

/** The settings of a model that its file keeps. */
function settingsOf(config: ModelConfig) {
  const { layers, heads, kvHeads, headDim, hiddenSize, vocabSize, contextLength, moe, localRope } = config;
  const { normEps, tied, localLayers, attentionBias, mlpBias } = config;
  const sizes = [layers, heads, kvHeads, headDim, hiddenSize, vocabSize, contextLength, moe?.expertsPerToken];
  return { sizes, normEps, tied, localLayers, attentionBias, mlpBias, rope: namedRope(config), localRope };
}

await test("models of every family come back from GGUF as they went in", () => {
  const tried: string[] = [];
  for (const [folder, changes] of Object.entries(exportable)) {
    if (!fs.existsSync(`${familyFolder}/${folder}`)) continue;
    const { config, tensors } = tinyModel(folder, changes);
    if (!Object.hasOwn(ggufArchitectures, config.modelType)) continue;
    const opened = openTiny(tinyGguf(folder, changes));
    const again = parseModelConfig(opened.json);
    expect(settingsOf(again)).toEqual(settingsOf(config));
    const closeness = modelFamilies[config.modelType].norm === "rms1p" ? 1e-7 : 0;
    for (const weight of weightsOf(config)) {
      const [ours, theirs] = [
        storedNumbers(weight, tensors),
        storedNumbers(weightsOf(again).find(({ path }) => path === weight.path)!, opened.tensors),
      ];
      expect(
        ours.every((value, i) => Math.abs(value - theirs[i]) <= closeness),
        `${folder} ${weight.path}`,
      ).toBe(true);
    }
    tried.push(config.modelType);
  }
  expect(tried.length).toBeGreaterThan(9);
});

//| 05-inference/a-files-of-gguf.ipynb#model-rope-test
await test("positions rescaled as Llama 3 does come back as divisors that turn alike", () => {
  const scaling = {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  };
  const changes = { rope_parameters: { rope_theta: 10000, ...scaling } };
  const config = tinyModel("llama", changes).config;
  const again = parseModelConfig(openTiny(tinyGguf("llama", changes)).json);
  const [speeds, theirs] = [config, again].map(({ rope, headDim }) => scaledFrequencies(rope!, headDim, 200));
  expect(
    new Set(speeds.map((speed, i) => Math.round(ropeFrequencies(10000, config.headDim)[i] / speed))).size,
  ).toBeGreaterThan(1);
  theirs.forEach((speed, i) => expect(speed / speeds[i]).toBeCloseTo(1, 6));
  expect(openTiny(tinyGguf("llama", changes, "q8_0")).json.rope_scaling).toMatchObject({
    rope_type: "longrope",
  });
});

//| 05-inference/a-files-of-gguf.ipynb#model-refused-test
await test("what an architecture does not have is refused by name, in both directions", () => {
  expect(() => tinyGguf("mistral")).toThrow(
    "The model has a window (sliding_window), which the architecture llama of GGUF does not have.",
  );
  expect(() => tinyGguf("qwen3_moe", { norm_topk_prob: false })).toThrow("norm_topk_prob");
  expect(() => tinyGguf("phi3")).toThrow(
    "Models of the family phi3 are not written as GGUF; these are: llama, mistral,",
  );
  expect(() =>
    tinyGguf("qwen3", { rope_parameters: { rope_type: "dynamic", factor: 2, rope_theta: 1e4 } }),
  ).toThrow("rescaled");
  const bytes = tinyGguf("qwen3");
  const head = readGgufHead(bytes.length, (begin, end) => bytes.subarray(begin, end));
  const read = (begin: number, end: number) => bytes.subarray(begin, end);
  const changed =
    (keys: [string, GgufValue][], tensors = head.tensors) =>
    () =>
      openGgufModel({ keys: new Map([...head.keys, ...keys]), tensors }, read);
  expect(changed([["general.architecture", { type: "string", value: "rwkv7" }]])).toThrow(
    'The architecture "rwkv7" is not read',
  );
  expect(changed([["qwen3.attention.scale", { type: "f32", value: 2 }]])).toThrow(
    "The file has the key qwen3.attention.scale, which is not run.",
  );
  expect(changed([["qwen3.block_count", { type: "string", value: "2" }]])).toThrow(
    'qwen3.block_count must be one number, not "2".',
  );
  expect(changed([["qwen3.block_count", { type: "u32", value: 3 }]])).toThrow("The weights are incomplete");
  expect(changed([["qwen3.block_count", { type: "u32", value: 1 }]])).toThrow(
    "has no place for the weights blk.1.",
  );
  expect(changed([["qwen3.rope.scaling.type", { type: "string", value: "su" }]])).toThrow(
    "none, linear and yarn are run",
  );
  const [name, first] = [...head.tensors][0];
  const strange = new Map([...head.tensors, [name, { ...first, type: "IQ4_XS" }]]);
  expect(changed([], strange)).toThrow(`The weight ${name} is of type IQ4_XS, which is not read`);
});
