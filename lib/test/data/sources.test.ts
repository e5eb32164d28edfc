// Extracted from chapters/01-tokenizer/6-a-corpus-you-can-answer-for.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as zlib from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { expect, test } from "vitest";
import { randomStream } from "../../src/data/random.js";
import {
  type Document,
  type DocumentOptions,
  NORMAL_STEPS,
  type NormalStep,
  documents,
  normalise,
  textDocuments,
  zstHead,
} from "../../src/data/sources.js";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#stored-zst
/** Bytes as a .zst file that packs nothing: a frame of raw blocks of 1000 bytes (RFC 8878, section 3.1.1). */
function storedZst(bytes: Uint8Array): Buffer {
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0]); // magic number, then the content's size
  head.writeUInt32LE(bytes.length, 5);
  const parts = [head];
  for (let at = 0; at === 0 || at < bytes.length; at += 1000) {
    const block = bytes.subarray(at, at + 1000);
    const header = block.length * 8 + (at + 1000 >= bytes.length ? 1 : 0);
    parts.push(Buffer.from([header & 255, (header >> 8) & 255, header >> 16]), Buffer.from(block));
  }
  return Buffer.concat(parts);
}

/** "Some text, some text, some text.\nGrüße 🎉\n", packed by `zstd -19 --check`. */
const REAL_ZST = "KLUv/QRoDQEA2FNvbWUgdGV4dCwgcy4KR3LDvMOfZSDwn46JCgEATkoSkFemDg==";

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#collect
/** All documents of a file, and what was said of those left out. */
async function readAll(file: string, options: DocumentOptions = {}) {
  const [read, skipped]: [Document[], string[]] = [[], []];
  const told = { ...options, onSkip: (message: string) => void skipped.push(message) };
  for await (const each of documents(file, told)) read.push(each);
  return { read, texts: read.map(({ text }) => text), skipped };
}

/** A folder for one test, removed at its end. */
async function inNewFolder(use: (place: (name: string) => string) => Promise<void>): Promise<void> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-"));
  try {
    await use((name) => path.join(folder, name));
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#forms-test
await test("the same texts come out of every form, packed or not", () =>
  inNewFolder(async (place) => {
    const random = randomStream(1);
    const text = () =>
      ["Grüße\n", "a\r\nb", " <|endoftext|> ", "🎉", "\n\n", '"\\'].filter(() => random() < 0.5).join("") +
      "x\n";
    const texts = Array.from({ length: 300 }, text);
    const lines = texts.map((each) => `${JSON.stringify({ id: 1, text: each })}\n`).join("");
    const columnData = [
      { name: "text", data: texts, type: "STRING" as const },
      { name: "n", data: texts.map((each) => each.length) },
    ];
    const forms = {
      txt: Buffer.from(texts.join("<|endoftext|>\n")),
      jsonl: Buffer.from(lines),
      NDJSON: Buffer.from(lines),
      Json: Buffer.from(lines),
      json: Buffer.from(
        `\ufeff${JSON.stringify(
          texts.map((each) => ({ "[{": '"],', text: each })),
          null,
          1,
        )}\n`,
      ),
      parquet: new Uint8Array(parquetWriteBuffer({ columnData, rowGroupSize: 70 })),
    };
    for (const [kind, bytes] of Object.entries(forms)) {
      fs.writeFileSync(place(`a.${kind}`), bytes);
      fs.writeFileSync(place(`a.${kind}.gz`), zlib.gzipSync(bytes));
      fs.writeFileSync(place(`a.${kind}.zst`), storedZst(bytes));
      for (const ending of ["", ".gz", ".zst"])
        expect((await readAll(place(`a.${kind}${ending}`))).texts).toEqual(texts);
    }
    for await (const { text, continues } of textDocuments(place("a.txt"), {}, 64)) // short ones are never taken apart
      expect([texts.shift(), false]).toEqual([text, continues]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#joined-test
await test("packed files that were put one after the other are all read", () =>
  inNewFolder(async (place) => {
    const real = Buffer.from(REAL_ZST, "base64");
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2]); // a frame of two bytes that mean nothing
    fs.writeFileSync(
      place("a.txt.zst"),
      Buffer.concat([real, storedZst(Buffer.from("and\n")), skippable, real]),
    );
    fs.writeFileSync(place("a.txt.gz"), Buffer.concat(["one\n", "two\n"].map((each) => zlib.gzipSync(each))));
    const text = "Some text, some text, some text.\nGrüße 🎉\n";
    expect((await readAll(place("a.txt.zst"))).texts).toEqual([`${text}and\n${text}`]);
    expect((await readAll(place("a.txt.gz"))).texts).toEqual(["one\ntwo\n"]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#window-test
await test("a .zst file whose window is too large to be unpacked rightly is refused", () =>
  inNewFolder(async (place) => {
    const frame = (head: number[]) => Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...head, ...Array(20).fill(0)]);
    const [single, none] = [0b1010_0000, 0b0000_0000];
    expect(zstHead(storedZst(Buffer.from("x".repeat(70_000))).subarray(4))).toMatchObject({
      length: 5,
      window: 70_000,
      contentSize: 70_000,
    });
    expect(zstHead(Buffer.of(none, 17 << 3)).window).toBe(2 ** 27);
    expect(zstHead(Buffer.of(none, (13 << 3) + 4)).window).toBe(2 ** 23 * 1.5);
    expect(zstHead(Buffer.of(single + 1, 0, 0, 0, 0, 8))).toMatchObject({
      length: 6,
      window: 2 ** 27,
      dictionary: false,
    });
    expect(zstHead(Buffer.of(single | 0b1100_0100, 0, 0, 0, 0, 1, 0, 0, 0))).toMatchObject({
      window: 2 ** 32,
      checksum: true,
    });
    expect(zstHead(Buffer.of(0b0110_0001, 9, 1, 1))).toMatchObject({ contentSize: 513, dictionary: true });
    const skippable = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    for (const [content, large] of [
      [frame([none, 16 << 3]), true],
      [Buffer.concat([skippable, frame([none, 17 << 3])]), true],
      [frame([none, (15 << 3) + 7]), false],
    ] as const) {
      fs.writeFileSync(place("a.txt.zst"), content);
      await expect(readAll(place("a.txt.zst"))).rejects.toThrow(
        large ? "MiB, too large to unpack here" : "cut short or damaged",
      );
    }
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#flips-test
await test("no flipped bit and no hole in a packed file gives another text", () =>
  inNewFolder(async (place) => {
    const text = "Some text, some text, some text.\nGrüße 🎉\n";
    const [zst, gz] = [Buffer.from(REAL_ZST, "base64"), zlib.gzipSync(text)];
    let refused = 0;
    for (const [name, bytes] of Object.entries({ "a.txt.zst": zst, "a.txt.gz": gz })) {
      for (let bit = 0; bit < 8 * bytes.length; bit += 7) {
        const flipped = Buffer.from(bytes);
        flipped[bit >> 3] ^= 1 << (bit & 7);
        fs.writeFileSync(place(name), flipped);
        const texts = await readAll(place(name)).then(
          (found) => found.texts.join(""),
          () => "refused",
        );
        expect(["refused", text]).toContain(texts);
        if (texts === "refused") refused++;
      }
    }
    expect(refused).toBeGreaterThan(60);
    for (const behind of [Buffer.concat([Buffer.alloc(99), gz]), Buffer.from("more"), gz.subarray(0, 30)]) {
      fs.writeFileSync(place("b.txt.gz"), Buffer.concat([gz, behind]));
      await expect(readAll(place("b.txt.gz"))).rejects.toThrow("b.txt.gz is cut short or damaged");
      fs.writeFileSync(place("b.txt.zst"), Buffer.concat([zst, behind]));
      await expect(readAll(place("b.txt.zst"))).rejects.toThrow("b.txt.zst is cut short or damaged");
    }
    fs.writeFileSync(place("b.txt.gz"), Buffer.concat([gz, Buffer.alloc(512)])); // zeros fill a block of a tape
    expect((await readAll(place("b.txt.gz"))).texts).toEqual([text]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#parts-test
await test("a long text comes in parts that join to it, cut where lines end and documents do not run together", () =>
  inNewFolder(async (place) => {
    const long = "Grüße aus Köln 🎉,\r\nzwei  Zeilen\n\n\n  und mehr.\n".repeat(40);
    const texts = [long, "short\n", "no line end ".repeat(50), `${long}of <|endoftext|> it speaks\n`, "end"];
    const content = texts.map((text) => (text.endsWith("\n") ? text : `${text}\n`));
    content[4] = "end";
    fs.writeFileSync(place("a.txt"), `\ufeff<|endoftext|> is\n${content.join("<|endoftext|>\n")}`);
    for (const size of [64, 65, 66, 67, 100, 997, 5000]) {
      const joined = [""];
      for await (const { text, continues } of textDocuments(place("a.txt"), {}, size)) {
        joined[joined.length - 1] += text;
        if (continues) expect(text).toMatch(/[\r\n]$|^no line end/);
        else joined.push("");
      }
      expect(joined).toEqual([`<|endoftext|> is\n${content[0]}`, ...content.slice(1), ""]);
    }
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#plain-documents-test
/** The documents of a text as a whole: what stands between lines that are the separator and nothing else. */
function plainDocuments(text: string): string[] {
  const found = [""];
  for (const line of text.match(/[^\n]*\n|[^\n]+$/g) ?? []) {
    if (/^<\|endoftext\|>(\r?\n)?$/.test(line)) found.push("");
    else found[found.length - 1] += line;
  }
  return found.filter((each) => each !== "");
}

await test("stretches of any size give the documents of the whole text", () =>
  inNewFolder(async (place) => {
    const random = randomStream(12);
    const pieces = [
      "<|endoftext|>",
      "<|endoftext|>\n",
      "\n<|endoftext|>\r\n",
      "\n",
      "\r\n",
      "\r",
      "é",
      "🎉",
      "abc ".repeat(20),
    ];
    for (let round = 0; round < 300; round++) {
      const text = Array.from(
        { length: Math.floor(random() * 30) },
        () => pieces[Math.floor(random() * pieces.length)],
      ).join("");
      fs.writeFileSync(place("a.txt"), text);
      for (const size of [21, 64, 200, 5000]) {
        const joined = [""];
        for await (const part of textDocuments(place("a.txt"), {}, size)) {
          joined[joined.length - 1] += part.text;
          if (!part.continues) joined.push("");
        }
        expect(joined.slice(0, -1)).toEqual(plainDocuments(text));
      }
    }
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#places-test
await test("each document knows its place", () =>
  inNewFolder(async (place) => {
    const places = async (name: string, content: string) => {
      fs.writeFileSync(place(name), content);
      return (await readAll(place(name))).read.map(({ at }) => path.basename(at));
    };
    expect(await places("a.txt", "one\n\n<|endoftext|>\r\ntwo\n<|endoftext|>\n<|endoftext|>\nthree")).toEqual(
      ["a.txt", "a.txt:4", "a.txt:7"],
    );
    expect(await places("a.txt", "")).toEqual([]);
    expect(await places("a.txt", "<|endoftext|>\n")).toEqual([]);
    expect(await places("a.jsonl", '\ufeff{"text":"one"}\r\n\n{"text":""}\n{"text":"two"}')).toEqual([
      "a.jsonl:1",
      "a.jsonl:4",
    ]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#json-faults-test
/** A file that holds something unreadable: reading it fails with `words`; told to skip, it tells them and gives `kept`. */
async function expectFault(
  file: string,
  content: Uint8Array | string,
  words: string,
  kept: string[],
): Promise<void> {
  fs.writeFileSync(file, content);
  await expect(readAll(file)).rejects.toThrow(words);
  const { texts, skipped } = await readAll(file, { onError: "skip" });
  expect([texts, skipped.length]).toEqual([kept, 1]);
  expect(skipped[0]).toContain(words);
}

await test("a line that cannot be read is named, and left out if so told", () =>
  inNewFolder(async (place) => {
    const [file, good] = [place("a.jsonl"), '{"text":"good"}\n'];
    await expectFault(file, `${good}[1]\n${good}`, "a.jsonl:2 is not a JSON object.", ["good", "good"]);
    await expectFault(file, `${good}${good}{"text"`, "a.jsonl:3 is not JSON.", ["good", "good"]);
    const fields = 'a.jsonl:1 has no field "text". Its fields: body, n.';
    await expectFault(file, `{"body":"x","n":1}\n${good}`, fields, ["good"]);
    await expectFault(file, `{"text":7}\n${good}`, 'a.jsonl:1: its field "text" is not text.', ["good"]);
    await expectFault(file, `{"text":"\\ud83c"}\n${good}`, "its text has half a character", ["good"]);
    const bad = Buffer.concat([Buffer.from(good), Buffer.of(0xe9, 10)]);
    await expectFault(file, bad, "the byte 0xe9 at offset 16", ["good"]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#array-faults-test
await test("an array of JSON is read element by element, and must be whole", () =>
  inNewFolder(async (place) => {
    const file = place("a.json");
    const good = '{"text":"a ] , [ \\" \\\\"}';
    const read = async (content: string) => {
      fs.writeFileSync(file, content);
      return (await readAll(file)).texts;
    };
    expect(await read(`\n [ ${good} ,\n${good}]\n`)).toEqual(Array(2).fill('a ] , [ " \\'));
    expect(await read("[]")).toEqual([]);
    await expect(read(`[${good}`)).rejects.toThrow("a.json is cut short or damaged (its array does not end)");
    await expect(read(`[${good}] x`)).rejects.toThrow("something behind its array");
    await expect(read(`[${good}]${good}`)).rejects.toThrow("something behind its array");
    await expectFault(
      file,
      `[${good}, {"text": 1}, [2]]`.replace(", [2]", ""),
      'a.json:2: its field "text" is not text.',
      ['a ] , [ " \\'],
    );
    await expectFault(file, `[${good}, {"text"}]`, "a.json:2 is not JSON.", ['a ] , [ " \\']);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#utf8-faults-test
await test("a document that is not UTF-8 is named, and left out if so told", () =>
  inNewFolder(async (place) => {
    const [before, after] = ["é\n<|endoftext|>\nfine\n", "\n<|endoftext|>\nlast"].map((text) =>
      Buffer.from(text),
    );
    const bad = Buffer.concat([before, Buffer.of(0xff), after]);
    const offset = "a.txt is not UTF-8 text: the byte 0xff at offset 22";
    await expectFault(place("a.txt"), bad, offset, ["é\n", "last"]);
    const data = [Buffer.from("good"), Buffer.of(0x66, 0xff)];
    const table = parquetWriteBuffer({ columnData: [{ name: "text", data, type: "BYTE_ARRAY" }] });
    const row = "a.parquet:2 is not UTF-8 text: the byte 0xff at offset 1";
    await expectFault(place("a.parquet"), new Uint8Array(table), row, ["good"]);
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#broken-files-test
await test("a file that is cut short, missing or of an unknown kind is named, also where documents may be left out", () =>
  inNewFolder(async (place) => {
    const lines = Buffer.from(Array.from({ length: 2000 }, (_, i) => `{"text":"line ${i * i}"}\n`).join(""));
    const table = new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "text", data: ["a", "b"] }] }));
    const whole = { "a.jsonl.gz": zlib.gzipSync(lines), "a.jsonl.zst": storedZst(lines), "a.parquet": table };
    for (const [name, bytes] of Object.entries(whole)) {
      for (const length of [0, 3, 10, bytes.length >> 1, bytes.length - 1]) {
        fs.writeFileSync(place(name), bytes.subarray(0, length));
        await expect(readAll(place(name), { onError: "skip" })).rejects.toThrow(
          `${name} is cut short or damaged`,
        );
      }
    }
    fs.writeFileSync(place("a.parquet"), table);
    await expect(readAll(place("a.parquet"), { textField: "body" })).rejects.toThrow(
      'has no column "body". Its columns: text.',
    );
    for (const name of ["b.txt", "b.txt.gz", "b.jsonl.zst", "b.parquet"])
      await expect(readAll(place(name))).rejects.toThrow("There is no file");
    await expect(readAll(place("b.pdf"))).rejects.toThrow("b.pdf is a .pdf file, which is no text");
    fs.mkdirSync(place("c.txt"));
    await expect(readAll(place("c.txt"))).rejects.toThrow("is a folder");
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#no-text-test
await test("what is no text by its name or by its first bytes is refused, and pipes are", () =>
  inNewFolder(async (place) => {
    const refuse = async (name: string, content: Uint8Array | string, words: string) => {
      fs.writeFileSync(place(name), content);
      await expect(readAll(place(name), { onError: "skip" })).rejects.toThrow(words);
    };
    for (const name of [
      "two.tar.gz",
      "a.ZIP",
      "a.7z",
      "a.txt.bz2",
      "a.txt.xz",
      "a.lz4",
      "a.txt.br",
      "a.PNG",
      "a.pdf",
    ])
      await refuse(name, "some text", "file, which is no text");
    const signed = (sign: string, at = 0) =>
      Buffer.from(" ".repeat(at) + sign + " and so on".repeat(40), "latin1");
    const contents = [
      ...[
        "PK\x03\x04",
        "BZh91AY&SY",
        "\xfd7zXZ\0",
        "7z\xbc\xaf\x27\x1c",
        "\x89PNG\r\n",
        "%PDF-1.7",
        "\xff\xfe",
        "PAR1",
      ].map((sign) => signed(sign)),
      signed("ustar", 257),
      zlib.gzipSync("one"),
    ];
    for (const bytes of contents) {
      for (const name of ["a.txt", "README", "b.jsonl"])
        await refuse(name, bytes, "by its first bytes, and no text");
      await refuse("c.txt.gz", zlib.gzipSync(bytes), "by its first bytes, and no text");
    }
    await refuse("d.txt", Buffer.from("wide text", "utf16le"), "of its first 18 bytes, 9 are zero");
    for (const name of ["e.txt", "e", "e.txt.gz"])
      await refuse(
        name,
        name.endsWith("gz") ? zlib.gzipSync('{"id": 1, "text": "x"}\n') : ' [{"id": 1, "text" : "x"}]',
        "give it the ending .jsonl",
      );
    fs.writeFileSync(place("f.md"), '{"name": "no text in it"}\n');
    expect((await readAll(place("f.md"))).texts).toEqual(['{"name": "no text in it"}\n']);
    if (fs.existsSync("/dev/null"))
      await expect(readAll("/dev/null")).rejects.toThrow("is a pipe or a device");
  }));

//| 01-tokenizer/6-a-corpus-you-can-answer-for.ipynb#normalise-test
await test("normal forms change what they name, and nothing when taken again", () => {
  const all = Object.keys(NORMAL_STEPS) as NormalStep[];
  expect(normalise("e\u0301 \r\n\u0000a\u0085\ufeff\t\rb \t", all)).toBe("é\na\nb");
  expect(normalise("x \r\ny", ["trailing"])).toBe("x\r\ny");
  expect(normalise("x \r\ny", [])).toBe("x \r\ny");
  const random = randomStream(2);
  const pieces = ["e", "\u0301", " ", "\t", "\r", "\n", "\u0000", "\ufeff", "🎉", "\u0327"];
  for (let round = 0; round < 2000; round++) {
    const text = Array.from({ length: 12 }, () => pieces[Math.floor(random() * pieces.length)]).join("");
    const once = normalise(text, all);
    expect(normalise(once, all)).toBe(once);
    expect(once).not.toMatch(/[\r\ufeff]|[ \t]\n/);
    expect(once).not.toContain("\u0000");
  }
});
