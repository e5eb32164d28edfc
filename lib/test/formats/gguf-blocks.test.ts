// Extracted from chapters/05-inference/a-files-of-gguf.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import { expect, test } from "vitest";
import { ggufBytes, ggufNumbers, readableTypes } from "../../src/formats/gguf-blocks.js";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.js";

//| 05-inference/a-files-of-gguf.ipynb#unpack-test
/** Tests run in the root of the repository, notebooks in their chapter. */
const blocksFolder = fs.existsSync("tests/fixtures") ? "tests/fixtures/gguf" : "../../tests/fixtures/gguf";
const blockFixture = readSafetensors(fs.readFileSync(`${blocksFolder}/blocks.safetensors`)).tensors;
/** Numbers by their bits, so that 0 and −0 differ. */
const bitsOf = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);
const blockTypes = [...blockFixture.keys()]
  .filter((name) => name.endsWith(".blocks"))
  .map((name) => name.replace(".blocks", ""));

await test("blocks of every type stand for the numbers of the reference, to the bit", () => {
  expect([...blockTypes, "F32"].sort()).toEqual([...readableTypes].sort());
  for (const type of blockTypes) {
    const values = ggufNumbers(type, blockFixture.get(`${type}.blocks`)!.data);
    expect(bitsOf(values), type).toEqual(bitsOf(toFloat32(blockFixture.get(`${type}.values`)!)));
  }
  expect(() => ggufNumbers("IQ4_XS", new Uint8Array(136))).toThrow("Numbers of type IQ4_XS are not read");
});

//| 05-inference/a-files-of-gguf.ipynb#pack-test
const packFixture = readSafetensors(fs.readFileSync(`${blocksFolder}/packed.safetensors`)).tensors;

await test("numbers are packed as the reference packs them, to the bit", () => {
  const values = toFloat32(packFixture.get("values")!);
  for (const type of ["F16", "Q8_0", "Q4_0", "MXFP4"])
    expect(ggufBytes(type, values), type).toEqual(new Uint8Array(packFixture.get(type)!.data));
});

await test("what MXFP4 holds, it holds again after unpacking and packing: nothing is lost the second time", () => {
  const { data } = blockFixture.get("MXFP4.blocks")!;
  const values = ggufNumbers("MXFP4", data);
  expect(ggufNumbers("MXFP4", ggufBytes("MXFP4", values))).toEqual(values);
});

await test("what cannot be packed is refused", () => {
  expect(() => ggufBytes("F16", Float32Array.of(70_000))).toThrow("does not fit 16-bit floats");
  expect(() => ggufBytes("Q8_0", new Float32Array(32).fill(Number.NaN))).toThrow(
    "The number NaN cannot be written",
  );
  expect(() => ggufBytes("Q4_K", new Float32Array(256))).toThrow("Numbers of type Q4_K are not written.");
});
