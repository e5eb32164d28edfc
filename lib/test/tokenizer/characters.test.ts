// Extracted from chapters/01-tokenizer/1-bytes-and-pairs.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import {
  characterTokenizer,
  invalidUtf8,
  streamDecoder,
  textOfBytes,
} from "../../src/tokenizer/characters.js";

//| 01-tokenizer/1-bytes-and-pairs.ipynb#utf8-test
await test("utf8Length and TextDecoder agree on which bytes are text", () => {
  const edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf];
  const leads = [0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff];
  const bytes = [...edges, ...leads];
  const strict = new TextDecoder("utf-8", { fatal: true });
  let valid = 0;
  for (let i = 0; i < 60_000; i++) {
    const row = Uint8Array.from(
      { length: 1 + (i % 4) },
      () => bytes[Math.floor(Math.random() * bytes.length)],
    );
    let theirs = true;
    try {
      strict.decode(row);
    } catch {
      theirs = false;
    }
    expect(invalidUtf8(row) < 0, `bytes ${row}`).toBe(theirs);
    if (theirs) valid++;
  }
  expect(valid).toBeGreaterThan(1000);
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#characters-test
await test("a character tokenizer gives back what it was given", () => {
  const text = "Grüße, 日本語 🎉\r\n\ttabs\u0000 and \ufeff marks";
  const tokenizer = characterTokenizer(text);
  expect(tokenizer.vocabSize).toBe(new Set(text).size);
  const ids = tokenizer.encode(text);
  expect(ids.length).toBe([...text].length);
  expect(textOfBytes(tokenizer.decode(ids))).toBe(text);
  expect(tokenizer.encodeBytes(new TextEncoder().encode(text))).toEqual(ids);
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#characters-errors-test
await test("characters and ids that cannot be are named", () => {
  const tokenizer = characterTokenizer(["abc", "cde"]);
  expect(tokenizer.vocabSize).toBe(5);
  expect(() => tokenizer.encode("abé")).toThrow('"é" (U+00E9), character 3 of the text');
  expect(() => tokenizer.decode([0, 5])).toThrow(
    "Token id 5 is outside the vocabulary: ids run from 0 to 4.",
  );
  expect(() => tokenizer.decode([-1])).toThrow("Token id -1");
  expect(() => tokenizer.encodeBytes(Uint8Array.of(97, 0xc3))).toThrow("byte 0xc3 at offset 1");
  expect(() => characterTokenizer("")).toThrow("at least one character");
  expect(() => characterTokenizer("a\ud83c")).toThrow("half a character");
});

//| 01-tokenizer/1-bytes-and-pairs.ipynb#stream-test
await test("a stream of tokens never shows half a character", () => {
  const text = "aé日🎉\ufeffz";
  const bytes = { ...characterTokenizer("a"), decode: (ids: ArrayLike<number>) => Uint8Array.from(ids) };
  const stream = streamDecoder(bytes);
  const shown = Array.from(new TextEncoder().encode(text), (byte) => stream.push(byte));
  expect(shown.join("")).toBe(text);
  expect(shown.join("")).not.toContain("\ufffd");
  expect(stream.end()).toBe("");
  stream.push(0xf0);
  expect(stream.end()).toBe("\ufffd");
});
