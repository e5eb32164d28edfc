// Patterns and whole files against the answers of Hugging Face's tokenizers, recorded in tests/fixtures/tokenizer (README there).
import fs from "node:fs";
import { gunzipSync } from "node:zlib";
import { type AddedToken, type Tokenizer, loadTokenizer, streamDecoder } from "tslm";
import { patternMatcher } from "tslm/tokenizer/pretokenize";
import { expect, test } from "vitest";

const recorded = (name: string) =>
  JSON.parse(gunzipSync(fs.readFileSync(new URL(`fixtures/${name}.json.gz`, import.meta.url))).toString());

test("every construct of a pattern means what it means to Oniguruma, or is refused", () => {
  const { texts, cases }: { texts: string[]; cases: [string, [string, string][] | null][] } =
    recorded("tokenizer/patterns");
  let same = 0;
  for (const [pattern, answers] of cases) {
    let matcher: ReturnType<typeof patternMatcher>;
    try {
      matcher = patternMatcher(pattern);
    } catch {
      continue;
    }
    expect(answers, pattern).not.toBeNull();
    for (const [i, text] of texts.entries()) {
      const pieces: string[][] = [[], []];
      matcher(text, (from, to, isMatch) => {
        if (to === from) return;
        pieces[0].push(text.slice(from, to));
        if (!isMatch) pieces[1].push(text.slice(from, to));
      });
      expect(
        pieces.map((each) => each.join("\u0001")),
        JSON.stringify([pattern, text]),
      ).toEqual(answers![i]);
    }
    same++;
  }
  expect(same).toBeGreaterThanOrEqual(240);
});

/** Added tokens from rows of their fields. */
function addedTokens(rows: unknown[][]): AddedToken[] {
  const fields = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"];
  return rows.map(
    (values) => Object.fromEntries(fields.map((field, i) => [field, values[i]])) as unknown as AddedToken,
  );
}

test("random steps, flags and texts give the ids of the reference", () => {
  const { base, cases } = recorded("tokenizer/combinations");
  let same = 0;
  for (const { pre, norm, added, im, raw, typed, texts, ids } of cases) {
    const names: string[] = [...base.names, ...(raw ? ["日本", "ab\n"] : [])];
    const file = {
      version: "1.0",
      added_tokens: addedTokens(added),
      normalizer: norm,
      pre_tokenizer: pre,
      model: {
        ...(typed && { type: "BPE" }),
        ignore_merges: im,
        vocab: Object.fromEntries(names.map((name, id) => [name, id])),
        merges: base.merges.map((pair: string[]) => pair.join(" ")),
      },
    };
    let tokenizer: ReturnType<typeof loadTokenizer>;
    try {
      tokenizer = loadTokenizer(file);
    } catch (error) {
      expect((error as Error).message).toContain("twice"); // two tokens that are one once normalised
      continue;
    }
    for (const [i, text] of texts.entries()) {
      const [all, none = all] = ids[i];
      const shown = JSON.stringify([text, pre, norm, added]);
      expect([...tokenizer.encode(text, { allowed: "all" })], shown).toEqual(all);
      expect([...tokenizer.encode(text)], shown).toEqual(none);
      same += 2;
    }
  }
  expect(same).toBeGreaterThan(4700);
});

/** What is given by the ids one at a time. */
function streamed(tokenizer: Tokenizer, ids: number[]): string {
  const decoder = streamDecoder(tokenizer);
  return ids.map((id) => decoder.push(id)).join("") + decoder.end();
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

test("random steps of SentencePiece's form give the ids and the text of the reference, at once and as a stream", () => {
  const { base, cases } = recorded("tokenizer/sentencepiece");
  const byteName = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  const allBytes = Array.from({ length: 256 }, (_, byte) => byte);
  let [same, refused] = [0, 0];
  for (const { bytes, odd, merges, added, norm, pre, dec, set, texts, ids, decode } of cases) {
    const missing = bytes === "none" ? allBytes : bytes;
    const present = allBytes.filter((byte) => !missing.includes(byte)).map(byteName);
    const names: string[] = [...base.names, ...present, ...odd];
    const file = {
      version: "1.0",
      added_tokens: addedTokens(added),
      normalizer: norm,
      pre_tokenizer: pre,
      decoder: dec,
      model: {
        type: "BPE",
        ...set,
        vocab: Object.fromEntries(names.map((name, id) => [name, id])),
        merges:
          merges?.map((merge: number | string[]) =>
            typeof merge === "number" ? base.merges[merge] : merge,
          ) ?? base.merges,
      },
    };
    let tokenizer: ReturnType<typeof loadTokenizer>;
    try {
      tokenizer = loadTokenizer(file);
    } catch (error) {
      expect((error as Error).message).toMatch(/twice|prepend_scheme first behind/);
      refused++;
      continue;
    }
    const steps = JSON.stringify([norm, pre, dec, set, added]);
    for (const [i, text] of texts.entries()) {
      const [all, none = all] = ids[i];
      expect([...tokenizer.encode(text, { allowed: "all" })], JSON.stringify(text) + steps).toEqual(all);
      expect([...tokenizer.encode(text)], JSON.stringify(text) + steps).toEqual(none);
      same += 2;
    }
    for (const [row, text] of decode) {
      expect(utf8.decode(tokenizer.decode(row)), JSON.stringify(row) + steps).toBe(text);
      expect(streamed(tokenizer, row), JSON.stringify(row) + steps).toBe(text);
      same += 2;
    }
  }
  expect(same).toBeGreaterThan(6000);
  expect(refused).toBeLessThan(25);
});

test("every Unicode block, hard texts and random bytes: the ids of the reference for a file of Llama 2's form, and its text back", () => {
  const tokenizer = loadTokenizer(
    JSON.parse(fs.readFileSync(new URL("fixtures/stories260k/tokenizer.json", import.meta.url), "utf8")),
  );
  const rows: [string, string | 0, number[], number[]?][] = recorded("stories260k/ids");
  for (const [text, decoded, all, none = all] of rows) {
    expect([...tokenizer.encode(text, { allowed: "all" })], text).toEqual(all);
    expect([...tokenizer.encode(text)], text).toEqual(none);
    expect(utf8.decode(tokenizer.decode(all)), text).toBe(decoded || text);
    expect(streamed(tokenizer, all), text).toBe(decoded || text);
  }
  expect(rows.length).toBeGreaterThan(600);
});
