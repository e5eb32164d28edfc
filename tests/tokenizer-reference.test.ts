// Patterns and whole files against the answers of Hugging Face's tokenizers, recorded in tests/fixtures/tokenizer (README there).
import fs from "node:fs";
import { gunzipSync } from "node:zlib";
import { type AddedToken, loadTokenizer } from "tslm";
import { patternMatcher } from "tslm/tokenizer/pretokenize";
import { expect, test } from "vitest";

const recorded = (name: string) =>
  JSON.parse(
    gunzipSync(fs.readFileSync(new URL(`fixtures/tokenizer/${name}.json.gz`, import.meta.url))).toString(),
  );

test("every construct of a pattern means what it means to Oniguruma, or is refused", () => {
  const { texts, cases }: { texts: string[]; cases: [string, [string, string][] | null][] } =
    recorded("patterns");
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

test("random steps, flags and texts give the ids of the reference", () => {
  const { base, cases } = recorded("combinations");
  const fields = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"];
  let same = 0;
  for (const { pre, norm, added, im, raw, typed, texts, ids } of cases) {
    const names: string[] = [...base.names, ...(raw ? ["日本", "ab\n"] : [])];
    const file = {
      version: "1.0",
      added_tokens: added.map((values: unknown[]) =>
        Object.fromEntries(fields.map((field, i) => [field, values[i]])),
      ) as AddedToken[],
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
