// Batches say where documents begin, and fused attention takes their word: no token sees another document.
import { expect, test } from "vitest";
import { documentStarts } from "../lib/src/data/batches.js";
import { randomStream } from "../lib/src/data/synthetic.js";
import { openGpu } from "../lib/src/gpu/device.js";
import { flashAttention } from "../lib/src/model/flash.js";
import { tensor } from "../lib/src/tensor/tensor.js";

await openGpu();

test("attention over a packed window is that over each of its documents", async () => {
  const random = randomStream(40);
  const [rows, context, width] = [3, 23, 4];
  const inputs = Uint32Array.from({ length: rows * context }, () => Math.floor(6 * random()));
  const starts = documentStarts({ rows, context, inputs, targets: inputs }, 0);
  const values = () => Float32Array.from({ length: rows * context * width }, () => 2 * random() - 1);
  const [q, k, v] = [values(), values(), values()];
  const heads = (data: Float32Array, count: number, length: number) =>
    tensor(data, [count, 1, length, width]);
  const ids = (data: Uint32Array, count: number) => tensor(data, [count, data.length / count], "u32");
  const places = Uint32Array.from({ length: rows * context }, (_, i) => i % context);
  const options = { starts: ids(starts, rows) };
  const [queries, keys, weights] = [q, k, v].map((data) => heads(data, rows, context));
  const packed = await flashAttention(queries, keys, weights, ids(places, rows), options).array();
  let documents = 0;
  for (let from = 0; from < inputs.length; documents++) {
    const row = Math.floor(from / context) * context;
    let to = from + 1;
    while (to < row + context && starts[to] === starts[from]) to++;
    const part = (data: Float32Array) => heads(data.slice(from * width, to * width), 1, to - from);
    const own = ids(
      Uint32Array.from({ length: to - from }, (_, i) => i),
      1,
    );
    const alone = await flashAttention(part(q), part(k), part(v), own).array();
    alone.forEach((value, i) => expect(packed[from * width + i]).toBeCloseTo(value, 5));
    from = to;
  }
  expect(documents).toBeGreaterThan(2 * rows);
});
