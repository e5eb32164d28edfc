// Extracted from chapters/05-inference/2-the-cache.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import { keyValueCache, pagedCache } from "../../src/infer/cache.js";
import { int8Format } from "../../src/kernels/formats.js";
import { floatBits } from "../../src/kernels/wgsl.js";
import { completeModelConfig, parseModelConfig } from "../../src/model/config.js";
import { cacheBytes } from "../../src/model/count.js";
import { forward } from "../../src/model/decoder.js";
import { randomModel } from "../../src/model/families.js";
import { ropeTables } from "../../src/model/positions.js";
import { type KeyValues, attend } from "../../src/tensor/attend.js";
import { withInference, withoutGradients } from "../../src/tensor/autograd.js";
import { normals } from "../../src/tensor/random.js";
import { type Tensor, indices, tensor } from "../../src/tensor/tensor.js";

//| 05-inference/2-the-cache.ipynb#paged-test
await openGpu();

const tinyShape = {
  ...{
    model_type: "llama",
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
  },
  ...{ intermediate_size: 32, tie_word_embeddings: true },
};

/** A model whose layers keep rows of latent attention. */
const latentShape = {
  ...{ model_type: "deepseek_v3", hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4 },
  ...{ head_dim: 8, intermediate_size: 32, n_routed_experts: 4, n_group: 1, topk_group: 1 },
};

//| 05-inference/2-the-cache.ipynb#paged-test-2
/** Reads two texts into a dense cache and into shuffled blocks, chunk by chunk. */
async function readBothWays(shape: Record<string, unknown>): Promise<void> {
  const sizes = { vocab_size: 64, max_position_embeddings: 64 };
  const tiny = randomModel(parseModelConfig(completeModelConfig(shape, sizes)), 3);
  const caches = [
    keyValueCache(tiny.config, 48, 2),
    pagedCache(tiny.config, 9, [
      [7, 2, 4],
      [0, 8, 3],
    ]),
  ];
  const turns = ropeTables(tiny.config, 64);
  for (const [tokens, starts] of [
    [20, [0, 0]],
    [1, [20, 11]],
    [7, [21, 12]],
  ] as const) {
    const ids = indices(
      Array.from({ length: 2 * tokens }, (_, i) => (i * 37) % 64),
      [2, tokens],
    );
    const positions = indices(
      starts.flatMap((start) => Array.from({ length: tokens }, (_, t) => start + t)),
      [2, tokens],
    );
    const [dense, paged] = caches.map((cache) => {
      const context = { positions, ...turns, cache: cache.at(positions) };
      return withoutGradients(() => forward(tiny, ids, context)).logits;
    });
    expect(await paged.array()).toEqual(await dense.array());
  }
  expect(caches[0].bytes).toBe(cacheBytes(tiny.config, 2 * 48));
  expect(() => pagedCache(tiny.config, 4, [[4]])).toThrow("Block 4 is not one of the cache's 4.");
  for (const cache of caches) cache.free();
}

await test("a model reads two texts into shuffled blocks, chunk by chunk, as into a dense cache", async () => {
  await readBothWays(tinyShape);
});

await test("so does one whose layers keep a latent row for each token, and that is all they keep", async () => {
  await readBothWays(latentShape);
  const config = parseModelConfig(
    completeModelConfig(latentShape, { vocab_size: 64, max_position_embeddings: 64 }),
  );
  const { rank, ropeDim } = config.latent!;
  expect(cacheBytes(config, 5)).toBe(2 * (rank + ropeDim) * 5 * 4);
});

//| 05-inference/2-the-cache.ipynb#int8-cache-test
await test("attention on a cache of int8 is that on the numbers which it stands for, to the bit", async () => {
  const [batch, heads, kvHeads, length, width] = [2, 4, 2, 32, 8];
  const draw = (rows: number, stream: number) => normals(5, rows * width, stream);
  const words = (rows: Float32Array) => {
    const codes = int8Format.pack(rows, width);
    return Uint32Array.from({ length: (rows.length / width) * 3 }, (_, i) =>
      i % 3 < 2 ? codes[0][Math.floor(i / 3) * 2 + (i % 3)] : floatBits(codes[1][Math.floor(i / 3)]),
    );
  };
  const rounded = (rows: Float32Array) => int8Format.unpack(int8Format.pack(rows, width), width);
  const [keys, values] = [draw(batch * kvHeads * length, 1), draw(batch * kvHeads * length, 2)];
  for (const tokens of [1, 5]) {
    const queries = tensor(draw(batch * heads * tokens, 3), [batch, heads, tokens, width]);
    const visibility = { positions: indices(Array.from({ length: tokens }, (_, t) => 20 + t)) };
    const attended = async (keyValues: KeyValues) =>
      withInference(() => attend(queries, keyValues, visibility)).array();
    const shape = [batch, kvHeads, length, width];
    const wide = await attended({
      keys: tensor(rounded(keys), shape),
      values: tensor(rounded(values), shape),
    });
    const asWords = (rows: Float32Array) =>
      indices(words(rows), [batch, kvHeads, length, 3]) as unknown as Tensor;
    expect(await attended({ keys: asWords(keys), values: asWords(values), int8: true })).toEqual(wide);
  }
});
