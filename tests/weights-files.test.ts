// Weights in files: several of them, in 16 bits or packed, kept on the GPU as they are; damaged in every way; and written again.
import fs from "node:fs";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { describe, expect, test } from "vitest";
import { openModel, weightFiles } from "../lib/src/cli/model.ts";
import { readSafetensors, toFloat32, toInt32 } from "../lib/src/formats/safetensors.ts";
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
      if (uploads++ % 16 === 0) most = Math.max(most, arrayBytes() - before);
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
    console.log(dtype, uploads, most, largest, total);
  }
});

void [expectRefusal, tslmHere, folder];
