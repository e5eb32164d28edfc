// Our tokenizers against Hugging Face's: files that their library opened and saved again, and the ids it gives.
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { characterTokenizer, loadTokenizer, textOfBytes, trainBpe } from "tslm";
import { expect, test } from "vitest";

const at = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const json = (name: string) => JSON.parse(fs.readFileSync(at(`fixtures/tokenizer/${name}.json`), "utf8"));
const expected: { texts: string[]; bpe: number[][]; char: number[][] } = json("expected");

test.each(["bpe", "char"] as const)(
  "%s: the same ids as their library, from the file as it saves it",
  (kind) => {
    const tokenizer = loadTokenizer(json(kind));
    for (const [i, text] of expected.texts.entries()) {
      expect([...tokenizer.encode(text)], text).toEqual(expected[kind][i]);
      expect(textOfBytes(tokenizer.decode(expected[kind][i]))).toBe(text);
    }
  },
);

test("training again on the same text gives the same tokenizers", () => {
  const trained = trainBpe([fs.readFileSync(at("../LICENSE"), "utf8")], 500);
  expect(trained.toJson()).toEqual(loadTokenizer(json("bpe")).toJson());
  const characters = characterTokenizer(expected.texts);
  expect(characters.toJson()).toEqual(loadTokenizer(json("char")).toJson());
});
