// `tslm generate` as a person meets it: the real program, what it prints, its sentences.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { characterTokenizer } from "../lib/src/tokenizer/characters.ts";

const bin = path.join(import.meta.dirname, "..", "lib", "bin", "tslm.mjs");
const reference = path.join(import.meta.dirname, "fixtures", "families", "qwen3_moe");
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm generate "));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Runs the program in the test's folder. */
function run(...args: string[]) {
  const options = { encoding: "utf8", cwd: folder } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], options);
  return { status, stdout, stderr: stderr.replace(/^Warning: .*\n/gm, "") }; // Dawn's own words on some drivers
}

/** Letters, some of which take several bytes. */
const alphabet = "abcdefghijklmnopqrstuvwxyz .éüß€😀";

/** A folder with the reference model and a tokenizer of these characters. */
function writeModel(name: string, characters: string): void {
  fs.cpSync(reference, path.join(folder, name), { recursive: true });
  const json = JSON.stringify(characterTokenizer([characters]).toJson());
  fs.writeFileSync(path.join(folder, name, "tokenizer.json"), json);
}

writeModel("model", alphabet);
const generate = (...args: string[]) => run("generate", "--model", "model", ...args);

describe("tslm generate", () => {
  test("the same seed gives the same text, another seed another, and nothing but text is printed", () => {
    const args = ["--prompt", "once", "--max-tokens", "20", "--seed"];
    const one = generate(...args, "1");
    expect(one).toMatchObject({ status: 0, stderr: "" });
    expect(one.stdout).toMatch(/^once/);
    expect([...one.stdout].length).toBe(4 + 20 + 1);
    for (const character of one.stdout.trimEnd()) expect(alphabet).toContain(character);
    expect(generate(...args, "1").stdout).toBe(one.stdout);
    expect(generate(...args, "2").stdout).not.toBe(one.stdout);
  });

  test("with temperature 0, with the likeliest alone, and with hardly any of the mass, the seed has no say", () => {
    const args = ["--prompt", "a", "--max-tokens", "8"];
    const { stdout } = generate(...args, "--temperature", "0");
    for (const only of [
      ["--top-k", "1"],
      ["--top-p", "0.0001"],
      ["--min-p", "0.9999"],
    ])
      expect(generate(...args, ...only, "--seed", "5").stdout).toBe(stdout);
  });

  test("a stop text ends it and is not printed; several may be given", () => {
    const args = ["--prompt", "a", "--max-tokens", "12", "--seed", "3"];
    const whole = [...generate(...args).stdout.trimEnd()];
    const stop = whole.slice(6, 8).join("");
    const { stdout } = generate(...args, "--stop", "nothing like it", "--stop", stop);
    expect(stdout).toBe(`${whole.join("").slice(0, whole.join("").indexOf(stop, 1))}\n`);
  });

  test("it goes on when the model's context of 256 is full", () => {
    const { status, stdout } = generate("--prompt", "a".repeat(255), "--max-tokens", "10");
    expect({ status, length: [...stdout].length }).toEqual({ status: 0, length: 266 });
  });

  test("it ends without a word when whoever reads has had enough", async () => {
    const args = [bin, "generate", "--model", "model", "--prompt", "a", "--max-tokens", "5000"];
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
  ])("a prompt that cannot be continued: %#", (args, sentence) => {
    expect(generate(...args)).toEqual({ status: 1, stdout: "", stderr: `tslm: ${sentence}\n` });
  });

  test("a folder that is not there, and parts that do not belong together", () => {
    const missing = path.join("none", "tokenizer.json");
    expect(run("generate", "--model", "none", "--prompt", "a")).toEqual({
      status: 1,
      stdout: "",
      stderr: `tslm: ${missing}: there is no such file or folder\n`,
    });
    writeModel("mixed", Array.from({ length: 65 }, (_, i) => String.fromCodePoint(97 + i)).join(""));
    expect(run("generate", "--model", "mixed", "--prompt", "a")).toEqual({
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
    [["--max-tokens", "0"], "--max-tokens"],
  ])("a setting that means nothing is bad usage: %s", (args, name) => {
    const { status, stdout, stderr } = generate("--prompt", "a", ...args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toContain(`tslm: option '${name} `);
  });
});
