// A real trained model of 260 thousand parameters (tests/fixtures/stories260k) through the command line: it tells its story, and
// predicts a text as well as the reference.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { testFolder, tslmHere } from "./tslm.ts";

const stories = path.join(import.meta.dirname, "fixtures", "stories260k");
const { folder, at } = testFolder("stories");

test("greedy from <s> alone it tells the story that llama2.c's test expects, to the letter", async () => {
  const args = ["--prompt", "", "--temperature", "0", "--max-tokens", "200"];
  const { status, stdout } = await tslmHere(["generate", "--model", stories, ...args], folder);
  expect(status).toBe(0);
  expect(stdout).toBe(`${fs.readFileSync(path.join(stories, "story.txt"), "utf8")}\n`);
  const prompt = "Once upon a time, there was";
  const more = await tslmHere(
    ["generate", "--model", stories, "--prompt", prompt, "--temperature", "0", "--max-tokens", "20"],
    folder,
  );
  expect(stdout.startsWith(more.stdout.trimEnd())).toBe(true); // a space stands between the prompt and what follows
});

test("it predicts a text with the bits a byte of the reference", async () => {
  const text =
    "Once upon a time, there was a big bear who lived in the forest. He liked to eat honey. One day, he saw a little bird. " +
    '"Can you help me?" said the bird. The bear was kind. He helped the bird find its nest. They became good friends and played every day.';
  const { loadTokenizer } = await import("tslm");
  const tokenizer = loadTokenizer(JSON.parse(fs.readFileSync(path.join(stories, "tokenizer.json"), "utf8")));
  fs.writeFileSync(
    at("ids.json"),
    JSON.stringify([[...tokenizer.around!.before, ...tokenizer.encode(text)]]),
  );
  const { stdout } = await tslmHere(["score", "--model", stories, "--ids", at("ids.json"), "--json"], folder);
  const { loss, tokens } = JSON.parse(stdout);
  expect(tokens).toBe(104);
  expect((loss * tokens) / Math.LN2 / Buffer.byteLength(text)).toBeCloseTo(0.61335747891617, 5);
});
