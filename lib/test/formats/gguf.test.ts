// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ggufNumbers, readableTypes } from "../../src/formats/gguf-blocks.js";
import { type GgufValue, ggufPieces, keyBytes, readGgufHead, scalarBytes } from "../../src/formats/gguf.js";
import { joinedBytes } from "../../src/formats/safetensors.js";

//| 05-inference/a-files-of-gguf.ipynb#file-test
/** Tests run in the root of the repository, notebooks in their chapter. */
const ggufFolder = fs.existsSync("tests/fixtures") ? "tests/fixtures/gguf" : "../../tests/fixtures/gguf";
const ggufFixture = new Uint8Array(fs.readFileSync(`${ggufFolder}/stories260k-q4_0.gguf`));
const openBytes = (bytes: Uint8Array) =>
  readGgufHead(bytes.length, (begin, end) => bytes.subarray(begin, end));

/** The file again from what was read of it. */
function writtenAgain(bytes: Uint8Array): Uint8Array {
  const { keys, tensors } = openBytes(bytes);
  const sources = [...tensors].map(([name, { type, shape, begin, end }]) => ({
    name,
    type,
    shape,
    data: () => bytes.subarray(begin, end),
  }));
  return joinedBytes([...ggufPieces(keys, sources)]);
}

await test("a file of another program is read, and written again byte by byte", () => {
  const { keys, tensors } = openBytes(ggufFixture);
  expect(keys.get("general.architecture")).toEqual({ type: "string", value: "llama" });
  expect(keys.get("llama.rope.freq_base")).toEqual({ type: "f32", value: 10000 });
  expect((keys.get("tokenizer.ggml.tokens")!.value as string[]).slice(0, 4)).toEqual([
    "<unk>",
    "<s>",
    "</s>",
    "<0x00>",
  ]);
  expect(tensors.size).toBe(47);
  expect(tensors.get("blk.0.attn_k.weight")).toMatchObject({ type: "Q4_0", shape: [32, 64] });
  expect(Buffer.compare(writtenAgain(ggufFixture), ggufFixture)).toBe(0);
});

//| 05-inference/a-files-of-gguf.ipynb#file-values-test
await test("values of every type come back as they were written", () => {
  const keys = new Map<string, GgufValue>([
    ["general.alignment", { type: "u32", value: 64 }],
    ["a", { type: "u64", value: 2n ** 63n }],
    ["b", { type: "i64", value: -5 }],
    ["c", { type: "f64", value: Math.PI }],
    ["d", { type: "bool", isArray: true, value: [true, false] }],
    ["e", { type: "string", isArray: true, value: ["", "naïve 漢", "\uFEFFx"] }],
    ["f", { type: "i8", isArray: true, value: [] }],
  ]);
  const data = new Uint8Array(16).fill(7);
  const tensors = ["x", "y"].map((name) => ({ name, type: "F32", shape: [2, 2], data: () => data }));
  const bytes = joinedBytes([...ggufPieces(keys, tensors)]);
  const head = openBytes(bytes);
  expect(head.keys).toEqual(keys);
  const { begin, end } = head.tensors.get("y")!;
  expect([begin % 64, bytes.length % 64, bytes.subarray(begin, end)]).toEqual([0, 0, data]);
});

//| 05-inference/a-files-of-gguf.ipynb#file-refused-test
/** A file of a few bytes, put together by hand. */
const handmade = (tensorCount: bigint, keyCount: bigint, ...rest: Uint8Array[]) =>
  joinedBytes([
    scalarBytes("u32", 0x46554747),
    scalarBytes("u32", 3),
    scalarBytes("u64", tensorCount),
    scalarBytes("u64", keyCount),
    ...rest,
    new Uint8Array(64),
  ]);

/** The entry of a tensor in such a file. */
const entryBytes = (name: string, sizes: bigint[], type: number, offset: bigint) =>
  joinedBytes([
    scalarBytes("string", name),
    scalarBytes("u32", sizes.length),
    ...sizes.map((size) => scalarBytes("u64", size)),
    scalarBytes("u32", type),
    scalarBytes("u64", offset),
  ]);

//| 05-inference/a-files-of-gguf.ipynb#file-sentences
await test("what breaks the format is refused in a sentence", () => {
  const refusals: [Uint8Array, string][] = [
    [new Uint8Array(30), "This is not a GGUF file: it does not begin with GGUF."],
    [new Uint8Array(3), "This is not a GGUF file: it does not begin with GGUF."],
    [handmade(2n ** 60n, 0n), "The file claims 1152921504606846976 tensors, but has room for 3 at most."],
    [handmade(0n, 2n ** 63n), "The file claims 9223372036854775808 keys, but has room for 4 at most."],
    [
      handmade(1n, 0n, entryBytes("x", [2n ** 40n, 2n ** 40n], 0, 0n)),
      'The tensor "x" of shape [1099511627776,1099511627776] is too large to address.',
    ],
    [
      handmade(1n, 0n, entryBytes("x", [31n], 2, 0n)),
      'The tensor "x" of Q4_0 has rows of 31, which are not whole blocks of 32.',
    ],
    [handmade(1n, 0n, entryBytes("x", [0n], 0, 0n)), 'The tensor "x" has a size of 0.'],
    [handmade(1n, 0n, entryBytes("x", [4n], 77, 0n)), 'The tensor "x" is of type 77, which is unknown.'],
    [
      handmade(1n, 0n, entryBytes("x", [4n], 0, 32n)),
      'The tensor "x" begins at byte 32 of the data instead of 0.',
    ],
    [
      handmade(1n, 0n, entryBytes("x", [400n], 0, 0n)),
      'The file is cut off: the tensor "x" ends at byte 1664 of 121. Copy it again.',
    ],
    [
      handmade(2n, 0n, entryBytes("x", [4n], 0, 0n), entryBytes("x", [4n], 0, 32n)),
      'The tensor "x" stands twice in the file.',
    ],
    [
      handmade(0n, 1n, ...keyBytes("general.alignment", { type: "u32", value: 48 })),
      "general.alignment must be a power of two (u32) up to 65536, not 48.",
    ],
    [
      handmade(
        0n,
        2n,
        ...keyBytes("k", { type: "u8", value: 1 }),
        ...keyBytes("k", { type: "u8", value: 1 }),
      ),
      'The key "k" stands twice in the file.',
    ],
    [
      handmade(0n, 1n, scalarBytes("string", "k"), scalarBytes("u32", 13)),
      'The key "k" has a value of type 13, which GGUF does not define.',
    ],
  ];
  for (const [bytes, sentence] of refusals) expect(() => openBytes(bytes), sentence).toThrow(sentence);
});

//| 05-inference/a-files-of-gguf.ipynb#file-sentences-2
await test("files of the other byte order and of the first version are refused by name", () => {
  const swapped = new Uint8Array(ggufFixture);
  swapped.set([0, 0, 0, 3], 4);
  expect(() => openBytes(swapped)).toThrow("big-endian");
  swapped.set([1, 0, 0, 0], 4);
  expect(() => openBytes(swapped)).toThrow("This GGUF file is of version 1; 2 and 3 are read.");
});

//| 05-inference/a-files-of-gguf.ipynb#file-fuzz-test
const headEnd = [...openBytes(ggufFixture).tensors.values()][0].begin;

/** Opens bytes and unpacks what there is; a sentence is fine, anything else is a fault. Says whether it opened. */
function opensSoundly(bytes: Uint8Array): boolean {
  try {
    const { tensors } = openBytes(bytes);
    let last = 0;
    for (const { type, shape, begin, end } of tensors.values()) {
      if (begin < last || end > bytes.length) throw new TypeError("a tensor lies where it may not");
      last = end;
      const size = shape.reduce((product, length) => product * length, 1);
      if (readableTypes.includes(type) && ggufNumbers(type, bytes.subarray(begin, end)).length !== size)
        throw new TypeError("numbers are missing");
    }
    return true;
  } catch (error) {
    if ((error as Error).constructor !== Error) throw error;
    if (!/^[A-Z"g][^\n]*\.$/.test((error as Error).message)) throw new TypeError((error as Error).message);
    return false;
  }
}

//| 05-inference/a-files-of-gguf.ipynb#file-fuzz-run
await test("a file that is cut anywhere is refused", () => {
  for (let length = 0; length < headEnd + 100; length += length < 300 ? 1 : 97)
    expect(opensSoundly(ggufFixture.subarray(0, length)), String(length)).toBe(false);
  expect(opensSoundly(ggufFixture.subarray(0, ggufFixture.length - 33))).toBe(false);
});

await test("flipped and spliced bytes never make the reader stumble", () => {
  const small = ggufFixture.subarray(0, headEnd);
  const place = fc.oneof(
    fc.nat(headEnd - 1),
    fc.nat(900),
    fc.integer({ min: headEnd - 3000, max: headEnd - 1 }),
  );
  const flip = fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 4 });
  const splice = fc.tuple(place, place, fc.nat(64));
  fc.assert(
    fc.property(flip, fc.option(splice), (changes, moved) => {
      const bytes = new Uint8Array(ggufFixture);
      for (const [at, byte] of changes) bytes[at] = byte;
      if (moved) bytes.set(small.subarray(moved[1], Math.min(headEnd, moved[1] + moved[2])), moved[0]);
      opensSoundly(bytes);
    }),
    { numRuns: 400, seed: 1 },
  );
});
