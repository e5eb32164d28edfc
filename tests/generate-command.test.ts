// `tslm generate` as a person meets it: what it prints, its sentences.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { characterTokenizer } from "../lib/src/tokenizer/characters.ts";
import { binary, testFolder, tslm, tslmHere } from "./tslm.ts";

const reference = path.join(import.meta.dirname, "fixtures", "families", "qwen3_moe");
const { folder, at } = testFolder("generate");

/** Letters, some of which take several bytes. */
const alphabet = "abcdefghijklmnopqrstuvwxyz .éüß€😀";

/** A folder with the reference model and a tokenizer of these characters. */
function writeModel(name: string, characters: string): void {
  fs.cpSync(reference, at(name), { recursive: true });
  const json = JSON.stringify(characterTokenizer([characters]).toJson());
  fs.writeFileSync(at(name, "tokenizer.json"), json);
}

writeModel("model", alphabet);
const generateIn = (model: string, ...args: string[]) =>
  tslmHere(["generate", "--model", model, ...args], folder);
const generate = (...args: string[]) => generateIn("model", ...args);

describe("tslm generate", () => {
  test("the same seed gives the same text, another seed another, and nothing but text is printed", async () => {
    const args = ["--prompt", "once", "--max-tokens", "20", "--seed"];
    const one = await generate(...args, "1");
    expect(one).toMatchObject({ status: 0, stderr: "" });
    expect(one.stdout).toMatch(/^once/);
    expect([...one.stdout].length).toBe(4 + 20 + 1);
    for (const character of one.stdout.trimEnd()) expect(alphabet).toContain(character);
    const other = tslm(["generate", "--model", "model", ...args, "1"], { cwd: folder });
    expect(other).toMatchObject({ status: 0, stdout: one.stdout, stderr: "" }); // in a process of its own
    expect((await generate(...args, "2")).stdout).not.toBe(one.stdout);
  });

  test("with temperature 0, with the likeliest alone, and with hardly any of the mass, the seed has no say", async () => {
    const args = ["--prompt", "a", "--max-tokens", "8"];
    const { stdout } = await generate(...args, "--temperature", "0");
    for (const only of [
      ["--top-k", "1"],
      ["--top-p", "0.0001"],
      ["--min-p", "0.9999"],
    ])
      expect((await generate(...args, ...only, "--seed", "5")).stdout).toBe(stdout);
  });

  test("a model's generation_config.json says how to choose, unless an option does", async () => {
    const args = ["--prompt", "once", "--seed", "4"];
    const withConfig = async (config: object, ...more: string[]) => {
      fs.writeFileSync(at("model", "generation_config.json"), JSON.stringify(config));
      try {
        return await generate(...args, ...more);
      } finally {
        fs.rmSync(at("model", "generation_config.json"));
      }
    };
    const twelve = ["--max-tokens", "12"];
    const chosen = await generate(...args, ...twelve, "--temperature", "3", "--top-k", "5", "--min-p", "0.2");
    const sampling = { do_sample: true, temperature: 3, top_k: 5, min_p: 0.2, max_new_tokens: 12 };
    expect(await withConfig(sampling)).toEqual(chosen);
    const greedy = await generate(...args, ...twelve, "--temperature", "0");
    expect(greedy.stdout).not.toBe(chosen.stdout);
    expect(await withConfig({ ...sampling, do_sample: false })).toEqual(greedy);
    expect(await withConfig({ ...sampling, max_new_tokens: 3 }, "--temperature", "0", ...twelve)).toEqual(
      greedy,
    );
    const penalized = await generate(...args, ...twelve, "--temperature", "0", "--repetition-penalty", "2");
    expect(penalized).toMatchObject({ status: 0, stderr: "" });
    expect(penalized.stdout).not.toBe(greedy.stdout);
    expect(await withConfig({ ...sampling, do_sample: false, repetition_penalty: 2 })).toEqual(penalized);
    expect(await withConfig({ temperature: "hot" })).toMatchObject({ status: 1, stdout: "" });
  });

  test("a penalty that nothing makes up for lets no character come twice; one below 0 lets none but the first", async () => {
    const args = ["--prompt", "once", "--max-tokens", "12", "--temperature", "0"];
    const written = async (...more: string[]) =>
      [...(await generate(...args, ...more)).stdout.replace(/\n$/, "")].slice(4);
    for (const penalty of ["--presence-penalty", "--frequency-penalty"]) {
      expect(new Set(await written(penalty, "100")).size).toBe(12);
      expect(new Set(await written(penalty, "-100")).size).toBe(1);
    }
  });

  test("--dtype keeps weights in 16 bits, and says so", async () => {
    const args = ["--prompt", "a", "--max-tokens", "4", "--temperature", "0"];
    const dense = await generate(...args);
    expect(await generate(...args, "--dtype", "f16")).toEqual({
      status: 0,
      stdout: dense.stdout,
      stderr: "model: matrices are kept in f16, 44.0 KiB.\n",
    });
    expect((await generate(...args, "--dtype", "int3")).status).toBe(2);
  });

  test("a stop text ends it and is not printed; several may be given", async () => {
    const args = ["--prompt", "a", "--max-tokens", "12", "--seed", "3"];
    const whole = [...(await generate(...args)).stdout.trimEnd()];
    const stop = whole.slice(6, 8).join("");
    const { stdout } = await generate(...args, "--stop", "nothing like it", "--stop", stop);
    expect(stdout).toBe(`${whole.join("").slice(0, whole.join("").indexOf(stop, 1))}\n`);
  });

  test("it goes on when the model's context of 256 is full", async () => {
    const { status, stdout } = await generate("--prompt", "a".repeat(255), "--max-tokens", "10");
    expect({ status, length: [...stdout].length }).toEqual({ status: 0, length: 266 });
  });

  test("it ends without a word when whoever reads has had enough", async () => {
    const args = [binary, "generate", "--model", "model", "--prompt", "a", "--max-tokens", "5000"];
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.stdout.destroy();
    const status = await new Promise((resolve) => child.once("exit", resolve));
    expect({ status, said: said.replace(/^Warning: .*\n/gm, "") }).toEqual({ status: 0, said: "" });
  });

  test.each([
    [
      ["--prompt", "Once"],
      '"O" (U+004F), character 1 of the text, is not among the tokenizer\'s 33 characters.',
    ],
    [
      ["--prompt", ""],
      "The prompt is empty, and this tokenizer has no token that begins a text: give some text.",
    ],
    [
      ["--prompt", "a".repeat(257)],
      "257 tokens are more than this model's context of 256: shorten the text.",
    ],
  ])("a prompt that cannot be continued: %#", async (args, sentence) => {
    expect(await generate(...args)).toEqual({ status: 1, stdout: "", stderr: `tslm: ${sentence}\n` });
  });

  test("a folder that is not there, and parts that do not belong together", async () => {
    const missing = path.join("none", "tokenizer.json");
    expect(await generateIn("none", "--prompt", "a")).toEqual({
      status: 1,
      stdout: "",
      stderr: `tslm: ${missing}: there is no such file or folder\n`,
    });
    writeModel("mixed", Array.from({ length: 65 }, (_, i) => String.fromCodePoint(97 + i)).join(""));
    expect(await generateIn("mixed", "--prompt", "a")).toEqual({
      status: 1,
      stdout: "",
      stderr: "tslm: mixed: tokenizer.json has 65 tokens, the model 64: they do not belong together.\n",
    });
  });

  test.each([
    [["--temperature", "-1"], "--temperature"],
    [["--top-p", "0"], "--top-p"],
    [["--min-p", "1"], "--min-p"],
    [["--top-k", "1.5"], "--top-k"],
    [["--repetition-penalty", "0"], "--repetition-penalty"],
    [["--presence-penalty", "much"], "--presence-penalty"],
    [["--frequency-penalty", "101"], "--frequency-penalty"],
    [["--max-tokens", "0"], "--max-tokens"],
  ])("a setting that means nothing is bad usage: %s", async (args, name) => {
    const { status, stdout, stderr } = await generate("--prompt", "a", ...args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toContain(`tslm: option '${name} `);
  });
});
