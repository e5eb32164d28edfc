// Extracted from chapters/01-tokenizer/7-shards-and-batches.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import {
  type Shard,
  appendTokens,
  isForValidation,
  joinedTokens,
  openShards,
  prepareText,
  textChunks,
  tokenFile,
} from "../../src/data/shards.js";
import { characterTokenizer, textOfBytes } from "../../src/tokenizer/characters.js";
import { trainBpe } from "../../src/tokenizer/merges.js";

//| 01-tokenizer/7-shards-and-batches.ipynb#text-chunks-test
await test("a file read in chunks is the file, and its tokens are those of the whole", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const file = path.join(folder, "text.txt");
  const text = "Grüße aus Köln 🎉,\r\nzwei  Zeilen\n\n\n  und mehr.\n".repeat(40);
  const tokenizer = trainBpe([text], 300);
  fs.writeFileSync(file, text);
  for (const size of [64, 65, 66, 67, 100, 997, 5000]) {
    const chunks = [...textChunks(file, size)];
    expect(chunks.join("")).toBe(text);
    expect(chunks.flatMap((chunk) => [...tokenizer.encode(chunk)])).toEqual([...tokenizer.encode(text)]);
  }
  expect([...textChunks(file, 5)].join("")).toBe(text); // lines longer than a chunk: characters stay whole
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#text-errors-test
await test("what cannot be read as text is named, with the place", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const file = path.join(folder, "bad.txt");
  fs.writeFileSync(file, Buffer.concat([Buffer.from("line é\n".repeat(20)), Buffer.of(0xe9, 0x0a)]));
  for (const size of [7, 16, 1000]) expect(() => [...textChunks(file, size)]).toThrow("0xe9 at offset 160");
  expect(() => [...textChunks(path.join(folder, "no.txt"))]).toThrow("There is no file");
  expect(() => [...textChunks(folder)]).toThrow("is a folder");
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#prepare-test
await test("prepared data is the text, split by characters; of several texts some are for validation, whole", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const texts = [
    "äöü 🎉 one two three\n".repeat(30),
    ...Array.from({ length: 20 }, (_, i) => `file ${i * i}\n`.repeat(11)),
  ];
  const files = texts.map((_, i) => path.join(folder, `${i}.txt`));
  for (const [i, file] of files.entries()) fs.writeFileSync(file, texts[i]);
  const splitOf = (count: number) => {
    const manifest = prepareText(files.slice(0, count), path.join(folder, "out"), {
      tokenizer: trainBpe(texts, 290),
      valFraction: 0.3,
    });
    const { train, val, tokenizer, close } = openShards(path.join(folder, "out"), { verify: true });
    const found = [train, val].map((tokens) => textOfBytes(tokenizer.decode(tokens.read(0, tokens.length))));
    close();
    expect(manifest.splits.train.bytes + manifest.splits.val.bytes).toBe(
      Buffer.byteLength(texts.slice(0, count).join("")),
    );
    expect(manifest.sources.map(({ characters }) => characters)).toEqual(
      texts.slice(0, count).map((text) => [...text].length),
    );
    return found;
  };
  const [first, cut] = [[...texts[0]], Math.floor([...texts[0]].length * 0.7)];
  expect(splitOf(1)).toEqual([first.slice(0, cut).join(""), first.slice(cut).join("")]);
  const sides = [false, true].map((side) => texts.filter((text) => isForValidation(text, 0.3) === side));
  expect(splitOf(21)).toEqual(sides.map((side) => side.join("<|endoftext|>")));
  expect(sides[1].length).toBeGreaterThan(1);
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#plain-text-test
await test("what is not one plain text is not prepared as one", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const refuse = (name: string, content: string | Uint8Array, words: string) => {
    const file = path.join(folder, name);
    fs.writeFileSync(file, content);
    expect(() => prepareText([file], path.join(folder, "out"), { tokenizer: "char" })).toThrow(words);
  };
  refuse("a.jsonl", '{"text": "one"}\n', "a.jsonl is no plain text");
  refuse("a.txt.gz", "one", "a.txt.gz is no plain text");
  refuse("a.tar", "one", "a.tar is a .tar file");
  refuse("b.txt", "PK\x03\x04", "a ZIP archive by its first bytes");
  refuse("c.txt", '{"text": "one"}\n', "holds JSON objects with texts");
  refuse("d.txt", "one\n<|endoftext|>\ntwo\n", "d.txt holds several documents");
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#shard-limit-test
await test("tokens fill shard after shard, with two or four bytes each", () => {
  for (const dtype of ["u16", "u32"] as const) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
    const ids = Uint32Array.from({ length: 1000 }, (_, i) => (i * 977) % (dtype === "u16" ? 65536 : 100_000));
    const shards: Shard[] = [];
    for (let at = 0; at < 1000; at += 90)
      appendTokens(folder, "train", shards, ids.subarray(at, at + 90), dtype, 128);
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

//| 01-tokenizer/7-shards-and-batches.ipynb#damage-test
await test("missing and damaged data is named", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const text = path.join(folder, "a.txt");
  const out = path.join(folder, "out");
  fs.writeFileSync(text, "some text to keep ".repeat(50));
  const make = () => prepareText([text], out, { tokenizer: "char" });
  const damage = (change: () => void, words: string, options = {}) => {
    fs.rmSync(out, { recursive: true, force: true });
    make();
    change();
    expect(() => openShards(out, options)).toThrow(words);
  };
  const shard = path.join(out, "val-00000.bin");
  damage(() => fs.truncateSync(shard, 10), "val-00000.bin is damaged: it has 10 bytes");
  damage(() => fs.rmSync(shard), "There is no file");
  damage(
    () => fs.writeFileSync(shard, fs.readFileSync(shard).reverse()),
    "its checksum is not the manifest's",
    { verify: true },
  );
  const manifest = path.join(out, "manifest.json");
  damage(() => fs.writeFileSync(manifest, "{"), "manifest.json is damaged or was edited: it is not JSON");
  const edited = (change: (content: Record<string, unknown>) => object) => () => {
    const { sha256: _, ...content } = JSON.parse(fs.readFileSync(manifest, "utf8"));
    fs.writeFileSync(manifest, JSON.stringify(change(content)));
  };
  damage(
    edited((content) => ({ ...content, sha256: "0" })),
    "its checksum is not the one it states",
  );
  damage(
    edited((content) => ({ ...content, vocab_size: -1 })),
    "vocab_size must be a whole number from 0 up",
  );
  damage(
    edited((content) => ({ ...content, vocab: 1 })),
    'Unrecognized key: "vocab"',
  );
  damage(
    edited((content) => ({ ...content, splits: null })),
    "splits must be",
  );
  damage(
    edited((content) => ({ ...content, vocab_size: 9999 })),
    "where the manifest says 9999",
  );
  damage(() => fs.writeFileSync(path.join(out, "manifest.json"), "{}"), "is not a manifest");
  expect(() => openShards(folder)).toThrow("holds no prepared data");
  fs.rmSync(out, { recursive: true });
  make();
  const shards = openShards(out);
  fs.truncateSync(shard, 10); // a file may shrink while it is open, and a read then gives less than it was asked for
  expect(() => shards.val.read(0, 20)).toThrow("val-00000.bin is cut short: it ends at byte 10");
  shards.close();
  fs.rmSync(folder, { recursive: true });
});

//| 01-tokenizer/7-shards-and-batches.ipynb#refuse-test
await test("an error leaves nothing behind, and other people's folders alone", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  const [good, bad] = [path.join(folder, "good.txt"), path.join(folder, "bad.txt")];
  fs.writeFileSync(good, "good text ".repeat(20));
  fs.writeFileSync(bad, Buffer.of(0x66, 0xff));
  const prepare = (files: string[], out: string) =>
    prepareText(files, path.join(folder, out), { tokenizer: "char" });
  expect(() => prepare([good, bad], "out")).toThrow("bad.txt is not UTF-8");
  expect(() =>
    prepareText([good], path.join(folder, "out"), { tokenizer: characterTokenizer("go") }),
  ).toThrow("is not among");
  expect(fs.readdirSync(folder).sort()).toEqual(["bad.txt", "good.txt"]);
  expect(() => prepare([good], ".")).toThrow("good.txt is read and lies in");
  expect(() => prepare([], "out")).toThrow("at least one");
  prepare([good], "out");
  prepare([good], "out"); // one's own data may be made again
  expect(fs.readdirSync(path.join(folder, "out")).length).toBe(5);
  fs.rmSync(folder, { recursive: true });
});
