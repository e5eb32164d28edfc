// Weights in files: several of them, in 16 bits or packed, kept on the GPU as they are; damaged in every way; and written again.
import fs from "node:fs";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { describe, expect, test } from "vitest";
import { openModel, weightFiles } from "../lib/src/cli/model.ts";
import {
  type SafetensorsTensor,
  readSafetensors,
  toFloat32,
  toInt32,
  writeSafetensors,
} from "../lib/src/formats/safetensors.ts";
import { currentGpu, openGpu } from "../lib/src/gpu/device.ts";
import type { ModelConfig } from "../lib/src/formats/config.ts";
import { bf16Format, f16Format } from "../lib/src/kernels/formats.ts";
import type { OperandFormat } from "../lib/src/kernels/operands.ts";
import { completeModelConfig, modelConfigText, parseModelConfig } from "../lib/src/model/config.ts";
import { forward, sequenceContext } from "../lib/src/model/decoder.ts";
import { parametersOf, weightsOf } from "../lib/src/model/families.ts";
import { weightsFiles } from "../lib/src/model/stored.ts";
import { type Model, partAt } from "../lib/src/model/structure.ts";
import { type ModelDtype, saveModel } from "../lib/src/model/weights.ts";
import { withoutGradients } from "../lib/src/tensor/autograd.ts";
import { PackedWeight } from "../lib/src/tensor/products.ts";
import { type Tensor, indices, tensor } from "../lib/src/tensor/tensor.ts";
import { expectRefusal, testFolder, tslmHere } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const { folder, at } = testFolder("weights");
await openGpu();

/** The turns of positions by frequencies that are rounded to 16 bits: the reference's were, when its model was made from 32 bits. */
function roundedTurns({ headDim }: ModelConfig, tokens: number, { pack, unpack }: OperandFormat): Tensor {
  const pairs = headDim / 2;
  const frequencies = Float32Array.from({ length: pairs }, (_, i) => 10000 ** (-i / pairs));
  const rounded = unpack(pack(frequencies, pairs), pairs);
  const angles = Array.from({ length: tokens * pairs }, (_, i) => Math.floor(i / pairs) * rounded[i % pairs]);
  return tensor(
    angles.flatMap((angle) => [Math.cos(angle), Math.sin(angle)]),
    [tokens, pairs, 2],
  );
}

/** How far the logits of a fixture's ids are from the reference's at most. */
async function apart(model: Model, fixture: string): Promise<number> {
  const { tensors } = readSafetensors(fs.readFileSync(path.join(fixtures, fixture, "expected.safetensors")));
  const { shape } = tensors.get("input_ids")!;
  const ids = toInt32(tensors.get("input_ids")!);
  const format = fixture === "sharded_f16" ? f16Format : bf16Format;
  const context = sequenceContext(model.config, shape[1]);
  if (fixture !== "mxfp4") context.ropeTable = roundedTurns(model.config, shape[1], format);
  const { logits } = withoutGradients(() => forward(model, indices(ids, shape), context));
  const expected = toFloat32(tensors.get("logits")!);
  const found = await logits.array();
  expect(found.length).toBe(expected.length);
  return found.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
}

/** The formats in which weights of a model are packed. */
const packedAs = (model: Model) =>
  new Set(
    weightsOf(model.config).flatMap(({ path: place }) => {
      const weight = partAt(model, place);
      return weight instanceof PackedWeight ? [weight.format.name] : [];
    }),
  );

describe("weights in 16 bits", () => {
  test.each<[string, ModelDtype, string[]]>([
    ["sharded_bf16", "f32", []],
    ["sharded_bf16", "auto", ["bf16"]],
    ["sharded_bf16", "bf16", ["bf16"]],
    ["sharded_f16", "f32", []],
    ["sharded_f16", "auto", ["f16"]],
    ["sharded_f16", "f16", ["f16"]],
    ["mxfp4", "f32", []],
    ["mxfp4", "auto", ["bf16", "mxfp4"]],
    ["mxfp4", "bf16", ["bf16"]],
  ])("%s kept as %s: the logits of the widened weights", async (fixture, dtype, formats) => {
    const model = await openModel(path.join(fixtures, fixture), dtype);
    expect([...packedAs(model)]).toEqual(formats);
    expect(await apart(model, fixture)).toBeLessThan(2e-4);
  });

  test("bf16 as f16, and f16 as bf16: what was not in the file is rounded", async () => {
    const one = await openModel(path.join(fixtures, "sharded_bf16"), "f16");
    expect([...packedAs(one)]).toEqual(["f16"]);
    expect(await apart(one, "sharded_bf16")).toBeLessThan(2e-2);
    expect(
      await apart(await openModel(path.join(fixtures, "sharded_f16"), "bf16"), "sharded_f16"),
    ).toBeLessThan(0.2);
  });

  test("a packed model is saved as the numbers that it stands for, and is not trained", async () => {
    const [packed, dense] = [
      await openModel(path.join(fixtures, "sharded_bf16"), "auto"),
      await openModel(path.join(fixtures, "sharded_bf16")),
    ];
    expect(Buffer.compare((await saveModel(packed)).weights, (await saveModel(dense)).weights)).toBe(0);
    expect(() => parametersOf(packed)).toThrow(
      "The weight model.embed_tokens.weight is packed as bf16 [64, 32], which is for reading: open the model with dtype f32.",
    );
  });
});

v8.setFlagsFromString("--expose-gc");
const collect: () => void = vm.runInNewContext("gc");

/** Bytes in arrays of this process that somebody can still reach. */
function arrayBytes(): number {
  for (let time = 0; time < 2; time++) collect(); // the second waits for what the first gives back
  return process.memoryUsage().arrayBuffers;
}

test("a model is opened with less memory than two of its largest tensor, in files of many times that", async () => {
  const given = { model_type: "qwen3", hidden_size: 256, num_hidden_layers: 16, tie_word_embeddings: true };
  const sizes = { vocab_size: 8192, max_position_embeddings: 64 };
  const config = parseModelConfig(completeModelConfig(given, sizes));
  const made = at("large");
  fs.mkdirSync(made);
  fs.writeFileSync(path.join(made, "config.json"), modelConfigText(config));
  const values = ({ shape }: { shape: number[] }) =>
    new Float32Array(shape.reduce((product, length) => product * length, 1)).fill(0.5);
  const files = weightsFiles(config, values, { dtype: "BF16", maxShardBytes: 4e6 });
  for (const [name, content] of Object.entries(files))
    fs.writeFileSync(
      path.join(made, name),
      typeof content === "string" ? content : Buffer.concat([...content]),
    );
  const largest = 2 * sizes.vocab_size * 256;
  const total = weightFiles(made).files.reduce((sum, file) => sum + fs.statSync(file).size, 0);
  expect(total).toBeGreaterThan(6 * largest);
  const { queue } = currentGpu().device;
  const write = queue.writeBuffer;
  for (const dtype of ["auto", "f32", "f16"] as const) {
    await new Promise((resolve) => setTimeout(resolve, 10)); // what was freed is given back between turns
    const before = arrayBytes();
    let [most, uploads] = [Number.NEGATIVE_INFINITY, 0];
    queue.writeBuffer = ((...args: Parameters<typeof write>) => {
      // Read, widened, packed, and not yet forgotten: now there is most of it.
      if (uploads++ % 40 === 0) most = Math.max(most, arrayBytes() - before);
      return write.apply(queue, args);
    }) as typeof write;
    try {
      await openModel(made, dtype);
    } finally {
      queue.writeBuffer = write;
    }
    expect(uploads, dtype).toBeGreaterThan(100);
    expect(most, dtype).toBeGreaterThan(0);
    expect(most, dtype).toBeLessThan(2 * largest);
  }
});

describe("models in several files", () => {
  const config = path.join(fixtures, "families", "qwen3_moe", "config.json");
  const init = (out: string, ...args: string[]) =>
    tslmHere(["init", "--config", config, "--seed", "3", "--out", out, ...args], folder);
  const tensorsOf = (model: string) =>
    new Map(
      weightFiles(at(model)).files.flatMap((file) => [...readSafetensors(fs.readFileSync(file)).tensors]),
    );

  test("init writes as many files as it takes, and an index; they hold what one file holds", async () => {
    await init("whole");
    await init("shards", "--max-shard-size", "30kB");
    const names = fs.readdirSync(at("shards")).filter((name) => name.includes("safetensors"));
    expect(names).toEqual([
      "model-00001-of-00004.safetensors",
      "model-00002-of-00004.safetensors",
      "model-00003-of-00004.safetensors",
      "model-00004-of-00004.safetensors",
      "model.safetensors.index.json",
    ]);
    const [one, many] = [tensorsOf("whole"), tensorsOf("shards")];
    expect([...many.keys()].sort()).toEqual([...one.keys()].sort());
    for (const [name, { data }] of one) expect(Buffer.compare(many.get(name)!.data, data), name).toBe(0);
    for (const name of names.slice(0, 4))
      expect(fs.statSync(at("shards", name)).size).toBeLessThan(30000 + 4000); // and the head
    const index = JSON.parse(fs.readFileSync(at("shards", names[4]), "utf8"));
    expect(index.metadata).toEqual({ total_parameters: 22976, total_size: 91904 });
    expect(Object.keys(index.weight_map).sort()).toEqual([...one.keys()].sort());
    const ids = at("ids.json");
    fs.writeFileSync(ids, JSON.stringify([[5, 17, 3, 8, 1, 1]]));
    const score = (model: string) => tslmHere(["score", "--model", model, "--ids", ids], folder);
    const [first, second] = [await score("whole"), await score("shards")];
    expect(first).toMatchObject({ status: 0, stdout: second.stdout });
  });

  test("a folder that held shards and is written anew holds no old ones", async () => {
    await init("again", "--max-shard-size", "30kB");
    await init("again");
    expect(fs.readdirSync(at("again")).filter((name) => name.includes("safetensors"))).toEqual([
      "model.safetensors",
    ]);
  });

  test("init writes 16 bits, rounded to the nearest, and says so in config.json", async () => {
    await init("halves", "--dtype", "bf16");
    const [one, half] = [tensorsOf("whole"), tensorsOf("halves")];
    for (const [name, tensor] of half) {
      expect(tensor.dtype).toBe("BF16");
      const exact = toFloat32(one.get(name)!);
      toFloat32(tensor).forEach((value, i) => {
        if (Math.abs(value - exact[i]) > Math.abs(exact[i]) / 256) throw new Error(`${name} ${i}`);
      });
    }
    expect(JSON.parse(fs.readFileSync(at("halves", "config.json"), "utf8")).torch_dtype).toBe("bfloat16");
  });

  test("a size that is none is bad usage", async () => {
    expectRefusal(await init("bad", "--max-shard-size", "none"), "--max-shard-size", 2);
    expect(fs.existsSync(at("bad"))).toBe(false);
  });
});

const gate = "model.layers.1.mlp.experts.gate_up_proj";

function reshape(tensors: Map<string, SafetensorsTensor>, name: string, shape: number[]): void {
  tensors.set(name, { ...tensors.get(name)!, shape });
}

describe("files that are damaged or lie", () => {
  const source = path.join(fixtures, "sharded_bf16");
  const index = JSON.parse(fs.readFileSync(path.join(source, "model.safetensors.index.json"), "utf8"));
  const [shard] = Object.values(index.weight_map) as string[];

  /** A copy of the sharded model that `change` has had its way with. */
  function changed(name: string, change: (model: string) => void, from = source): string {
    fs.cpSync(from, at(name), { recursive: true });
    change(at(name));
    return at(name);
  }
  const writeIndex = (model: string, text: string) =>
    fs.writeFileSync(path.join(model, "model.safetensors.index.json"), text);

  test.each<[string, (model: string) => void, string]>([
    [
      "link",
      (model) => {
        fs.renameSync(path.join(model, shard), at("elsewhere.safetensors"));
        fs.symlinkSync(at("elsewhere.safetensors"), path.join(model, shard));
      },
      `names "${shard}", which is a link to a file outside of its folder.`,
    ],
    [
      "twice",
      (model) =>
        writeIndex(
          model,
          JSON.stringify(index).replace('"weight_map":{', '"weight_map":{"lm_head.weight":"x.safetensors",'),
        ),
      'has the key "lm_head.weight" twice.',
    ],
    [
      "config-twice",
      (model) => {
        const file = path.join(model, "config.json");
        fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("{", '{"vocab_size": 64,'));
      },
      'has the key "vocab_size" twice.',
    ],
    [
      "circle",
      (model) => {
        fs.rmSync(path.join(model, shard));
        fs.symlinkSync(shard, path.join(model, shard));
      },
      "files of weights are missing",
    ],
    [
      "head",
      (model) => {
        const bytes = fs.readFileSync(path.join(model, shard));
        bytes.writeBigUInt64LE(2n ** 63n);
        fs.writeFileSync(path.join(model, shard), bytes);
      },
      "it claims a header of 9223372036854775808 bytes; at most 100000000 are allowed.",
    ],
    [
      "long-head",
      (model) => {
        const bytes = fs.readFileSync(path.join(model, shard));
        bytes.writeBigUInt64LE(99_000_000n);
        fs.writeFileSync(path.join(model, shard), bytes);
      },
      "The safetensors header ends at byte 99000008, but there are only",
    ],
  ])("one sentence: %s", async (name, change, sentence) => {
    const before = arrayBytes();
    await expect(openModel(changed(name, change))).rejects.toThrow(sentence);
    expect(arrayBytes() - before).toBeLessThan(2e6); // what a head claims is not reserved
  });

  test("a cache of downloads, in which the index and all files are links into one place, is opened", async () => {
    const blobs = at("blobs");
    const model = changed("snapshot", (made) => {
      fs.mkdirSync(blobs);
      for (const name of fs.readdirSync(made)) {
        fs.renameSync(path.join(made, name), path.join(blobs, `blob-${name}`));
        fs.symlinkSync(path.join("..", "blobs", `blob-${name}`), path.join(made, name));
      }
    });
    expect((await openModel(model)).config.layers).toBe(2);
  });

  test.each<[string, (tensors: Map<string, SafetensorsTensor>) => void, string | RegExp]>([
    [
      "no-scales",
      (tensors) => tensors.delete(`${gate}_scales`),
      `The weight ${gate}_blocks has no ${gate}_scales beside it.`,
    ],
    [
      "no-blocks",
      (tensors) => tensors.delete(`${gate}_blocks`),
      `${gate} missing, and ${gate}_scales is not wanted.`,
    ],
    [
      "count",
      (tensors) => reshape(tensors, `${gate}_blocks`, [4, 64, 1, 32]),
      "blocks of 16 bytes with a scale each are wanted.",
    ],
    [
      "scales",
      (tensors) => reshape(tensors, `${gate}_scales`, [4, 32, 4]),
      "blocks of 16 bytes with a scale each are wanted.",
    ],
    [
      "fewer",
      (tensors) => {
        reshape(tensors, `${gate}_blocks`, [4, 32, 4, 16]);
        reshape(tensors, `${gate}_scales`, [4, 32, 4]);
      },
      `The weight ${gate} is [4, 32, 128], but the configuration wants [4, 64, 64].`,
    ],
    [
      "both",
      (tensors) => tensors.set(gate, { dtype: "F32", shape: [1], data: new Uint8Array(4) }),
      `The configuration has no place for the weights ${gate}_blocks, ${gate}_scales.`,
    ],
    [
      "endless",
      (tensors) => {
        const { data, ...scales } = tensors.get(`${gate}_scales`)!;
        tensors.set(`${gate}_scales`, { ...scales, data: data.map((scale, i) => (i === 9 ? 255 : scale)) });
      },
      `The weight ${gate} has a scale that is no number (255): copy its file again.`,
    ],
  ])("MXFP4 that is none: %s", async (name, change, sentence) => {
    const model = changed(
      `mxfp4-${name}`,
      (made) => {
        const file = path.join(made, "model.safetensors");
        const tensors = new Map(readSafetensors(fs.readFileSync(file)).tensors);
        change(tensors);
        fs.writeFileSync(file, writeSafetensors(tensors));
      },
      path.join(fixtures, "mxfp4"),
    );
    for (const dtype of ["auto", "f32"] as const)
      await expect(openModel(model, dtype)).rejects.toThrow(sentence);
  });
});
