// `tslm generate` with guesses ahead: the text stays the same, and what cannot be is said in a sentence.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { characterTokenizer } from "../lib/src/tokenizer/characters.ts";
import { testFolder, tslmHere } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const stories = path.join(fixtures, "stories260k");
const inFourBits = path.join(fixtures, "gguf", "stories260k-q4_0.gguf");
const { folder, at } = testFolder("guess");
const generate = (...args: string[]) => tslmHere(["generate", "--model", stories, ...args], folder);

/** The sentence about guesses: how many of how many were kept, and tokens a pass. */
function countsOf(stderr: string): { kept: number; guessed: number; perPass: number } {
  const [, kept, guessed, perPass] = /(\d+) of (\d+) guesses were kept.*: ([\d.]+) tokens a pass\.\n$/.exec(
    stderr,
  )!;
  return { kept: Number(kept), guessed: Number(guessed), perPass: Number(perPass) };
}

test("greedy text is the same to the letter with a draft and with a lookup, in fewer passes", async () => {
  const args = ["--prompt", "", "--temperature", "0", "--max-tokens", "80"];
  const plain = await generate(...args);
  expect(fs.readFileSync(path.join(stories, "story.txt"), "utf8").startsWith(plain.stdout.trimEnd())).toBe(
    true,
  );
  for (const [more, least] of [
    [["--draft", inFourBits], 2.5],
    [["--draft", inFourBits, "--draft-tokens", "2"], 2],
    [["--lookup"], 1],
  ] as const) {
    const { status, stdout, stderr } = await generate(...args, ...more);
    expect({ status, stdout }, stderr).toEqual({ status: 0, stdout: plain.stdout });
    expect(countsOf(stderr).perPass).toBeGreaterThan(least);
  }
});

test("a lookup does not change what is drawn, and a stop text ends it in the midst of guesses", async () => {
  const args = ["--prompt", "Once upon a time", "--seed", "3", "--max-tokens", "60"];
  const plain = await generate(...args);
  const { stdout, stderr } = await generate(...args, "--lookup", "--draft-tokens", "6");
  expect(stdout).toBe(plain.stdout);
  expect(countsOf(stderr).guessed).toBeGreaterThan(0);
  const stop = plain.stdout.slice(60, 66);
  const stopped = await generate(...args, "--lookup", "--stop", stop);
  expect(stopped.stdout).toBe((await generate(...args, "--stop", stop)).stdout);
});

test("a draft with other tokens, two drafts at once and guesses by nobody are refused in a sentence", async () => {
  const reference = path.join(fixtures, "families", "qwen3_moe");
  fs.cpSync(reference, at("other"), { recursive: true });
  fs.writeFileSync(at("other", "tokenizer.json"), JSON.stringify(characterTokenizer(["abc"]).toJson()));
  const args = ["--prompt", "Once"];
  const other = await generate(...args, "--draft", "other");
  expect(other).toMatchObject({ status: 1, stdout: "" });
  expect(other.stderr).toContain(
    "other: The draft has 3 tokens and the model 512: a draft needs the model's own",
  );
  const both = await generate(...args, "--draft", inFourBits, "--lookup");
  expect(both.status).toBe(2);
  const nobody = await generate(...args, "--draft-tokens", "3");
  expect(nobody.status).toBe(2);
  expect(nobody.stderr).toContain("give --draft or --lookup too");
});
