// Extracted from chapters/03-moe/a-files-of-weights.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { float16Value } from "../../src/formats/float16.js";
import {
  type SafetensorsDtype,
  type SafetensorsTensor,
  float32Tensor,
  readSafetensors,
  readSafetensorsHeader,
  safetensorsBits,
  safetensorsHeaderLength,
  toFloat32,
  toInt32,
  writeSafetensors,
} from "../../src/formats/safetensors.js";

//| 03-moe/a-files-of-weights.ipynb#safetensors-test
/** The reference models: tests run in the root of the repository, notebooks in their chapter. */
const families = fs.existsSync("tests/fixtures")
  ? "tests/fixtures/families"
  : "../../tests/fixtures/families";

/** A file with this header, given as text or as a value, and this many zero bytes of data. */
function fileWith(header: unknown, dataBytes = 0): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

/** One entry of a header. */
function entry(dtype: string, shape: unknown, begin: unknown, end: unknown) {
  return { dtype, shape, data_offsets: [begin, end] };
}

/** The bytes of tensor files from any names, dtypes, shapes (also [] and zero sizes), contents and metadata. */
const anyTensor = fc
  .tuple(
    fc.constantFrom(
      ...(Object.keys(safetensorsBits) as SafetensorsDtype[]).filter((d) => !d.startsWith("F6")),
    ),
    fc.array(fc.nat(4), { maxLength: 3 }),
    fc.nat(255),
  )
  .filter(([dtype, shape]) => (shape.reduce((a, b) => a * b, 1) * safetensorsBits[dtype]) % 8 === 0)
  .map(([dtype, shape, fill]): SafetensorsTensor => {
    const length = (shape.reduce((a, b) => a * b, 1) * safetensorsBits[dtype]) / 8;
    return { dtype, shape, data: Uint8Array.from({ length }, (_, i) => fill + 7 * i) };
  });

await test("what was written is read back: names, dtypes, shapes, bytes, metadata", () => {
  const name = fc.string({ unit: "grapheme" }).filter((text) => text !== "__metadata__");
  const tensors = fc.array(fc.tuple(name, anyTensor), { maxLength: 6 });
  fc.assert(
    fc.property(tensors, fc.dictionary(name, fc.string({ unit: "grapheme" })), (list, metadata) => {
      const given = new Map(list);
      const file = readSafetensors(writeSafetensors(given, metadata));
      expect(new Map(file.tensors)).toEqual(given);
      expect(Object.entries(file.metadata).sort()).toEqual(Object.entries(metadata).sort());
    }),
  );
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-layout-test
await test("names that JavaScript objects treat specially are names like any other", () => {
  const names = ["__proto__", "constructor", "10", "2", 'quote " and {', "ключ"];
  const tensors = new Map(names.map((name, i) => [name, float32Tensor([1], Float32Array.of(i))]));
  const read = readSafetensors(writeSafetensors(tensors)).tensors;
  for (const [i, name] of names.entries()) expect(toFloat32(read.get(name)!)).toEqual(Float32Array.of(i));
});

await test("the order in which tensors and metadata are given does not change a byte", () => {
  const a: [string, SafetensorsTensor] = ["a", float32Tensor([2], Float32Array.of(1, 2))];
  const b: [string, SafetensorsTensor] = ["b", { dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) }];
  const one = writeSafetensors(new Map([a, b]), { x: "1", y: "2" });
  expect(writeSafetensors(new Map([b, a]), { y: "2", x: "1" })).toEqual(one);
});

await test("the header is padded to 8 and wide elements come first, so every tensor is aligned", () => {
  const bytes = writeSafetensors(
    new Map<string, SafetensorsTensor>([
      ["a", { dtype: "U8", shape: [3], data: Uint8Array.of(1, 2, 3) }],
      ["b", float32Tensor([1], Float32Array.of(1))],
      ["c", { dtype: "I64", shape: [], data: new Uint8Array(8) }],
    ]),
  );
  const { tensors } = readSafetensorsHeader(bytes);
  expect([...tensors.keys()]).toEqual(["c", "b", "a"]);
  for (const { dtype, begin } of tensors.values()) expect(begin % (safetensorsBits[dtype] / 8)).toBe(0);
  expect(safetensorsHeaderLength(bytes) % 8).toBe(0);
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-layout-test-2
await test("the header alone says where each tensor lies", () => {
  const bytes = fs.readFileSync(`${families}/qwen3_moe/model.safetensors`);
  const head = bytes.subarray(0, safetensorsHeaderLength(bytes));
  const { tensors, metadata, fileLength } = readSafetensorsHeader(head);
  expect(fileLength).toBe(bytes.length);
  expect(metadata).toEqual({ format: "pt" });
  const { dtype, shape, begin, end } = tensors.get("model.norm.weight")!;
  expect([dtype, shape, end - begin]).toEqual(["F32", [32], 128]);
});

await test("a model written by other software is rewritten byte for byte", () => {
  for (const family of ["qwen3_moe", "qwen3", "llama"]) {
    for (const name of ["model", "expected", "gradients"]) {
      const bytes = fs.readFileSync(`${families}/${family}/${name}.safetensors`);
      const { tensors, metadata } = readSafetensors(bytes);
      expect(Buffer.compare(writeSafetensors(tensors, metadata), bytes)).toBe(0);
    }
  }
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-numbers-test
await test("tensors are found at any offset, in a Node Buffer too", () => {
  const file = writeSafetensors(new Map([["x", float32Tensor([2], Float32Array.of(1.5, -2))]]));
  for (let shift = 0; shift < 4; shift++) {
    const memory = new ArrayBuffer(file.length + 4);
    const shifted = Buffer.from(memory, shift, file.length);
    shifted.set(file);
    expect(toFloat32(readSafetensors(shifted).tensors.get("x")!)).toEqual(Float32Array.of(1.5, -2));
  }
});

await test("an aligned f32 tensor is a view, so a large model is not held twice", () => {
  const tensor = float32Tensor([2], Float32Array.of(1, 2));
  expect(toFloat32(tensor).buffer).toBe(tensor.data.buffer);
});

await test("bf16, f16 and f64 become the f32 they stand for", () => {
  const tensor = (dtype: SafetensorsDtype, values: Uint16Array | Float64Array): SafetensorsTensor => ({
    dtype,
    shape: [values.length],
    data: new Uint8Array(values.buffer),
  });
  const numbers = Float32Array.of(1, -2.5, 0, Number.POSITIVE_INFINITY);
  expect(toFloat32(tensor("BF16", Uint16Array.of(0x3f80, 0xc020, 0, 0x7f80)))).toEqual(numbers);
  expect(toFloat32(tensor("F16", Uint16Array.of(0x3c00, 0xc100, 0, 0x7c00)))).toEqual(numbers);
  expect(toFloat32(tensor("F64", Float64Array.from(numbers)))).toEqual(numbers);
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-numbers-test-2
await test("f16 at its edges: smallest subnormal, largest subnormal, smallest normal, largest, -0, NaN", () => {
  const bits = [0x0001, 0x03ff, 0x0400, 0x7bff, 0x8000, 0x7e00];
  expect(bits.map(float16Value)).toEqual([2 ** -24, 1023 * 2 ** -24, 2 ** -14, 65504, -0, Number.NaN]);
});

await test("token ids are read from i32 and i64, and an i64 that does not fit is refused", () => {
  const ids = (dtype: SafetensorsDtype, values: Int32Array | BigInt64Array): SafetensorsTensor => ({
    dtype,
    shape: [values.length],
    data: new Uint8Array(values.buffer),
  });
  expect(toInt32(ids("I32", Int32Array.of(3, -1)))).toEqual(Int32Array.of(3, -1));
  expect(toInt32(ids("I64", BigInt64Array.of(3n, -1n)))).toEqual(Int32Array.of(3, -1));
  expect(() => toInt32(ids("I64", BigInt64Array.of(2n ** 31n)))).toThrow("2147483648 does not fit");
  expect(() => toInt32(float32Tensor([0], new Float32Array(0)))).toThrow("F32");
  expect(() => toFloat32(ids("I32", Int32Array.of(1)))).toThrow("I32");
});

await test("single numbers and empty tensors are legal, and so is a file without tensors", () => {
  const file = fileWith({ a: entry("F32", [], 0, 4), b: entry("F32", [3, 0], 4, 4) }, 4);
  expect([...readSafetensors(file).tensors.keys()]).toEqual(["a", "b"]);
  const together = fileWith({ a: entry("F32", [1], 0, 4), none: entry("F32", [0], 0, 0) }, 4);
  expect([...readSafetensors(together).tensors.keys()]).toEqual(["none", "a"]);
  expect(readSafetensors(fileWith("{}")).tensors.size).toBe(0);
  expect(readSafetensors(fileWith("{}     ")).tensors.size).toBe(0);
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-head-test
await test("a head that is not one is refused", () => {
  expect(() => readSafetensors(new Uint8Array(7))).toThrow("has at least 8 bytes, but this has 7");
  expect(() => readSafetensors(new Uint8Array(8))).toThrow("does not begin with {");
  expect(() => readSafetensors(new Uint8Array(16).fill(0xff))).toThrow("claims a header of");
  expect(() => readSafetensors(fileWith("{}").subarray(0, 9))).toThrow(
    "ends at byte 10, but there are only 9",
  );
  expect(() => readSafetensors(fileWith(" {}"))).toThrow("does not begin with {");
  expect(() => readSafetensors(fileWith("[]"))).toThrow("does not begin with {");
  expect(() => readSafetensors(fileWith("{} {}"))).toThrow("not valid JSON");
  expect(() => readSafetensors(fileWith('{"a":'))).toThrow("not valid JSON");
  const badText = fileWith('{"?":0}');
  badText[10] = 0xff;
  expect(() => readSafetensors(badText)).toThrow("not valid UTF-8");
});

await test("a key that stands twice is refused, however it is spelled and wherever it stands", () => {
  const a = JSON.stringify(entry("F32", [], 0, 4));
  const twice = (text: string) => () => readSafetensors(fileWith(text, 4));
  expect(twice(`{"a":${a},"a":${a}}`)).toThrow('the key "a" twice');
  expect(twice(`{"a" : ${a},"\\u0061":${a}}`)).toThrow('the key "a" twice');
  expect(twice(`{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}`)).toThrow(
    '"dtype" twice',
  );
  expect(twice(`{"__metadata__":{"x":"1","x":"2"},"a":${a}}`)).toThrow('the key "x" twice');
  expect(twice(`{"__metadata__":{"a":"a","b":"{\\"a\\":","c":"\\\\"},"a":${a}}`)).not.toThrow();
});

await test("a long header text is scanned without running out of stack", () => {
  const long = `${"x".repeat(5_000_000)}\\\\`;
  expect(readSafetensors(fileWith(`{"__metadata__":{"k":"${long}"}}`)).metadata.k.length).toBe(5_000_001);
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-faults-test
await test("each fault of an entry is named", () => {
  const reading =
    (value: unknown, dataBytes = 4) =>
    () =>
      readSafetensors(fileWith({ w: value }, dataBytes));
  expect(reading(7)).toThrow('"w" states no dtype');
  expect(reading(null)).toThrow('"w" states no dtype');
  expect(reading(entry("F33", [], 0, 4))).toThrow('the dtype "F33", which');
  expect(reading(entry("toString", [], 0, 4))).toThrow('the dtype "toString", which');
  for (const shape of [undefined, 3, [-1], [1.5], ["1"], [2 ** 53]]) {
    expect(reading(entry("F32", shape, 0, 4))).toThrow('"w" has no valid shape');
  }
  for (const [begin, end] of [
    [-4, 0],
    [0, 4.5],
    [0, "4"],
    [null, 4],
  ]) {
    expect(reading(entry("F32", [], begin, end))).toThrow('"w" has no valid data_offsets');
  }
  expect(reading({ dtype: "F32", shape: [], data_offsets: [0, 4, 8] })).toThrow("no valid data_offsets");
  expect(reading(entry("F32", [2], 0, 4))).toThrow("takes 8 bytes, but has data_offsets 0 to 4");
  expect(reading(entry("F32", [1], 4, 0))).toThrow("takes 4 bytes");
  expect(reading(entry("F32", [2 ** 40, 2 ** 40, 0], 0, 0))).toThrow("too large to address");
  expect(reading(entry("F4", [3], 0, 2))).toThrow("does not fill whole bytes");
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-faults-test-2
await test("holes, overlaps, missing and left-over bytes are refused", () => {
  const reading = (header: unknown, dataBytes: number) => () => readSafetensors(fileWith(header, dataBytes));
  const a = entry("U8", [4], 0, 4);
  expect(reading({ a, b: entry("U8", [4], 2, 6) }, 6)).toThrow('"b" overlaps');
  expect(reading({ a, b: entry("U8", [4], 0, 4) }, 4)).toThrow('"b" overlaps');
  expect(reading({ a, b: entry("U8", [4], 6, 10) }, 10)).toThrow('2 bytes before tensor "b" belong to none');
  expect(reading({ a: entry("U8", [4], 1, 5) }, 5)).toThrow('1 bytes before tensor "a"');
  expect(reading({ a }, 3)).toThrow("is cut off");
  expect(reading({ a }, 6)).toThrow("has 2 bytes after its last tensor");
  expect(reading({}, 1)).toThrow("has 1 bytes after its last tensor");
});

await test("metadata other than text by name is refused", () => {
  expect(() => readSafetensors(fileWith({ __metadata__: { n: 1 } }))).toThrow('key "n" must hold text');
  expect(() => readSafetensors(fileWith({ __metadata__: ["x"] }))).toThrow("must be an object");
});

await test("no damaged file is accepted in silence or crashes the reader: cut at every length", () => {
  const whole = writeSafetensors(new Map([["w", float32Tensor([2, 2], Float32Array.of(1, 2, 3, 4))]]), {
    k: "v",
  });
  for (let length = 0; length < whole.length; length++) {
    expect(() => readSafetensors(whole.subarray(0, length))).toThrow(/safetensors/);
  }
});

await test("a tensor whose bytes do not match its shape is not written", () => {
  const wrong: SafetensorsTensor = { dtype: "F32", shape: [2], data: new Uint8Array(4) };
  expect(() => writeSafetensors(new Map([["w", wrong]]))).toThrow('"w" of F32 [2] takes 8 bytes, but has 4');
  const taken = new Map([["__metadata__", float32Tensor([0], new Float32Array(0))]]);
  expect(() => writeSafetensors(taken)).toThrow('cannot be named "__metadata__"');
});

//| 03-moe/a-files-of-weights.ipynb#safetensors-fuzz-test
/** A file of three tensors, damaged: its header changed at one place as a value, or its bytes cut, flipped, doubled. */
const damaged = fc
  .record({
    key: fc.constantFrom("dtype", "shape", "data_offsets"),
    value: fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.array(fc.integer({ min: -2, max: 40 }), { maxLength: 3 }),
      fc.constantFrom("F64", "U8", "F4", "F6_E2M3"),
      fc.constantFrom([2 ** 53], [1e300], [2 ** 31, 2 ** 31], [0, 2 ** 40], [4, 4], [0], []),
    ),
    way: fc.constantFrom("value", "cut", "flip", "double", "length"),
    at: fc.nat(),
  })
  .map(({ key, value, way, at }) => {
    const header: Record<string, Record<string, unknown>> = {
      a: entry("F32", [2], 0, 8),
      b: entry("BF16", [2, 2], 8, 16),
      c: entry("U8", [3], 16, 19),
    };
    if (way === "value") header["abc"[at % 3]][key] = value;
    const bytes = fileWith(header, 19);
    const place = at % bytes.length;
    if (way === "cut") return bytes.slice(0, place);
    if (way === "double") return new Uint8Array([...bytes.slice(0, place), ...bytes.slice(place >> 1)]);
    if (way === "flip") bytes[place] ^= 1 << (at % 8);
    if (way === "length") new DataView(bytes.buffer).setBigUint64(0, BigInt(at) ** 2n, true);
    return bytes;
  });

//| 03-moe/a-files-of-weights.ipynb#safetensors-fuzz-test-2
await test("whatever happens to a file, it is read whole or refused in one sentence", () => {
  const run = (bytes: Uint8Array) => {
    let file: ReturnType<typeof readSafetensors>;
    try {
      file = readSafetensors(bytes);
    } catch (error) {
      expect((error as Error).constructor.name).toBe("Error");
      expect((error as Error).message).toMatch(/^[^\n]{10,400}\.$/);
      return;
    }
    const total = [...file.tensors.values()].reduce((sum, { data }) => sum + data.length, 0);
    expect(total).toBe(bytes.length - safetensorsHeaderLength(bytes)); // every byte belongs to one tensor
  };
  fc.assert(fc.property(damaged, run), { numRuns: 600, seed: 7 });
});

await test("a header of one long text, or of a long shape, is no trouble", () => {
  const long = "x".repeat(30_000_000); // longer than a regular expression could cross
  expect(readSafetensors(fileWith({ __metadata__: { long } })).metadata.long.length).toBe(long.length);
  const shape = Array.from({ length: 10_000 }, () => 1);
  expect(() => readSafetensors(fileWith({ a: entry("F32", shape, 0, 8) }, 8))).toThrow(/^.{1,300}$/);
});
