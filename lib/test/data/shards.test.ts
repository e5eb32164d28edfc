// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import type { Shard } from "../../src/data/manifest.js";
import { prepareCorpus } from "../../src/data/prepare.js";
import {
  appendTokens,
  documentSeparator,
  isForValidation,
  joinedTokens,
  tokenFile,
} from "../../src/data/shards.js";
import { type Tokenizer, characterTokenizer } from "../../src/tokenizer/characters.js";
import { trainBpe } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#split-by-definition
/** The two splits of some texts, by definition: of a single text the end is for validation, of several those whose hash says so. */
function splitByDefinition(texts: string[], valFraction: number): { train: string[]; val: string[] } {
  if (texts.length > 1) {
    const side = (isVal: boolean) => texts.filter((text) => isForValidation(text, valFraction) === isVal);
    return { train: side(false), val: side(true) };
  }
  const characters = [...texts[0]];
  const cut = Math.floor(characters.length * (1 - valFraction));
  return { train: [characters.slice(0, cut).join("")], val: [characters.slice(cut).join("")] };
}

//| 01-tokenizer/7-shards-and-batches.ipynb#shard-by-definition
/** A split as the bytes of its shard: the ids of its texts, a separator between two, as little-endian numbers of 16 bits. */
function shardByDefinition(texts: string[], tokenizer: Tokenizer): Buffer {
  const separator = documentSeparator(tokenizer);
  const ids = texts.flatMap((text, i) => [
    ...(i > 0 && separator !== undefined ? [separator] : []),
    ...tokenizer.encode(text),
  ]);
  return Buffer.from(Uint16Array.from(ids).buffer);
}

//| 01-tokenizer/7-shards-and-batches.ipynb#prepare-test
await test("prepared data is what the definition says: of one text its end is for validation, of several whole ones", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const texts = [
    "äöü 🎉 one two three\n".repeat(30),
    ...Array.from({ length: 20 }, (_, i) => `file ${i * i}\n`.repeat(11)),
  ];
  const files = texts.map((_, i) => path.join(folder, `${i}.txt`));
  for (const [i, file] of files.entries()) fs.writeFileSync(file, texts[i]);
  for (const tokenizer of [trainBpe(texts, 290), "char" as const]) {
    for (const count of [1, 21]) {
      const out = path.join(folder, "out");
      const sources = [{ name: "texts", files: files.slice(0, count) }];
      const manifest = await prepareCorpus(out, { sources, tokenizer, valFraction: 0.3 });
      const splits = splitByDefinition(texts.slice(0, count), 0.3);
      for (const name of ["train", "val"] as const) {
        const { bytes, tokens, shards } = manifest.splits[name];
        const written = fs.readFileSync(path.join(out, shards[0].file));
        const encoder = tokenizer === "char" ? characterTokenizer(texts.slice(0, count).join("")) : tokenizer;
        expect(written.equals(shardByDefinition(splits[name], encoder))).toBe(true);
        expect([bytes, tokens]).toEqual([Buffer.byteLength(splits[name].join("")), written.length / 2]);
      }
      const characters = texts.slice(0, count).map((text) => [...text].length);
      expect(manifest.sources.map((source) => source.characters)).toEqual(characters);
    }
  }
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#shard-limit-test
await test("tokens fill shard after shard, with two or four bytes each", () => {
  for (const dtype of ["u16", "u32"] as const) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
    const ids = Uint32Array.from({ length: 1000 }, (_, i) => (i * 977) % (dtype === "u16" ? 65536 : 100_000));
    const shards: Shard[] = [];
    for (let at = 0; at < 1000; at += 90)
      appendTokens({ folder, name: "train", shards, dtype, limit: 128 }, ids.subarray(at, at + 90));
    expect(shards.map(({ tokens }) => tokens)).toEqual([...Array(7).fill(128), 104]);
    const files = shards.map((shard) => tokenFile(path.join(folder, shard.file), dtype, shard.tokens));
    const all = joinedTokens(files);
    expect(all.read(0, 1000)).toEqual(ids);
    for (const [start, count] of [
      [127, 2],
      [100, 500],
      [999, 1],
      [1000, 0],
    ]) {
      expect(all.read(start, count)).toEqual(ids.slice(start, start + count));
    }
    expect(() => all.read(990, 11)).toThrow("Tokens 990 to 1000 do not exist: there are 1000.");
    for (const file of files) file.close();
    fs.rmSync(folder, { recursive: true });
  }
});
