// What people hand to the commands: the same documents come out of the same file whatever the command, streams are read once and
// leave nothing behind, and what cannot be read is refused, also where a reader would never come to an end.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import zlib from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { documents } from "../lib/src/data/sources.js";
import { binary, testFolder, tslm as program } from "./tslm.ts";

const fixture = (name: string) => fileURLToPath(new URL(`fixtures/inputs/${name}`, import.meta.url));
const { folder, at } = testFolder("inputs");
const env = { ...process.env, TMPDIR: at("tmp") };
const texts = Array.from({ length: 40 }, (_, i) => `document ${i * i} with words\n`);
const records = texts.map((text) => ({ text }));
const lines = records.map((record) => `${JSON.stringify(record)}\n`).join("");

const tslm = (args: string[], input?: string | Uint8Array) => program(args, { cwd: folder, input, env });

/** One sentence on stderr, no stack trace, exit code 1; and nothing is left. */
function expectRefusal(result: ReturnType<typeof tslm>, words: string): void {
  expect(result.stderr).toContain(words);
  expect(result.stderr).not.toMatch(/\n\s+at /);
  expect(result.status).toBe(1);
  expect(fs.readdirSync(at("tmp"))).toEqual([]);
}

const prepare = (file: string, out: string) => [
  "data",
  "prepare",
  file,
  "--out",
  out,
  "--tokenizer",
  "bytes",
  "--json",
];
const merges = (out: string) => JSON.parse(fs.readFileSync(at(`${out}/tokenizer.json`), "utf8")).model.merges;

beforeAll(() => {
  fs.mkdirSync(at("tmp"));
  fs.writeFileSync(at("a.NDJSON"), lines);
  fs.writeFileSync(at("b.json.gz"), zlib.gzipSync(JSON.stringify(records)));
  fs.writeFileSync(at("c.txt"), texts.join("<|endoftext|>\n"));
});

test("every command reads the same documents from the same file, and a stream is a file", () => {
  const files = ["a.NDJSON", "b.json.gz", "c.txt"];
  const manifests = files.map((file) => JSON.parse(tslm(prepare(file, `data of ${file}`)).stdout));
  for (const { mixture, splits } of manifests) {
    expect(mixture[0].documents.read).toBe(40);
    expect(splits).toEqual(manifests[0].splits);
  }
  const streamed = JSON.parse(tslm(prepare("-", "data of -"), lines).stdout);
  expect(streamed.splits).toEqual(manifests[0].splits);
  const train = (file: string, input = "") =>
    expect(
      tslm(["tokenizer", "train", file, "--vocab-size", "270", "--out", `bpe of ${file}`], input).status,
    ).toBe(0);
  train("c.txt");
  train("b.json.gz");
  train("-", lines);
  expect(merges("bpe of c.txt")).toEqual(merges("bpe of b.json.gz"));
  expect(merges("bpe of c.txt")).toEqual(merges("bpe of -"));
  expect(JSON.stringify(merges("bpe of c.txt"))).not.toContain("<");
  const report = JSON.parse(
    tslm(["tokenizer", "inspect", "b.json.gz", "--tokenizer", "bytes", "--json"]).stdout,
  );
  expect(report.bytes).toBe(texts.join("").length);
  expect(fs.readdirSync(at("tmp"))).toEqual([]);
});

test("what is no text, what is damaged and what is empty is refused by every command", () => {
  fs.writeFileSync(at("two.tar.gz"), zlib.gzipSync("two"));
  fs.writeFileSync(at("empty.jsonl"), '\n{"text": ""}\n');
  expectRefusal(tslm(prepare("two.tar.gz", "none")), "two.tar.gz is a .tar file, which is no text");
  const flipped = fixture("pay-flipped.txt.zst");
  expectRefusal(tslm(prepare(flipped, "none")), "its checksum is not that of its content");
  const train = (file: string) => tslm(["tokenizer", "train", file, "--vocab-size", "270", "--out", "none"]);
  expectRefusal(train(flipped), "its checksum is not that of its content");
  expectRefusal(tslm(prepare("empty.jsonl", "none")), "empty.jsonl is empty");
  expectRefusal(tslm(prepare("-", "none")), "Nothing came out of -");
  expectRefusal(train("empty.jsonl"), "There is no text in empty.jsonl");
  expect(fs.existsSync(at("none"))).toBe(false);
});

/** Starts a command, ends it with a signal when it has something in its temporary folder, and gives what it ended with. */
async function signalled(args: string[], signal: NodeJS.Signals, tmp = at("tmp")) {
  fs.mkdirSync(tmp, { recursive: true });
  const child = spawn(process.execPath, [binary, ...args], { cwd: folder, env: { ...env, TMPDIR: tmp } });
  const ended = new Promise((resolve) => child.on("close", (code, by) => resolve(by ?? code)));
  while (child.exitCode === null && fs.readdirSync(tmp).length === 0)
    await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill(signal);
  return ended;
}

test("a file whose reading never ends is refused, and signals are heard meanwhile", async () => {
  const loops = fixture("loops.parquet");
  const [refused, first, second] = await Promise.all([
    new Promise<string>((resolve) => {
      const other = { ...env, TMPDIR: folder };
      const child = spawn(process.execPath, [binary, ...prepare(loops, "none")], { cwd: folder, env: other });
      let said = "";
      child.stderr.on("data", (chunk) => {
        said += chunk;
      });
      child.on("close", () => resolve(said));
    }),
    signalled(prepare(loops, "stopped"), "SIGTERM", at("first")),
    signalled(
      ["tokenizer", "train", loops, "--vocab-size", "270", "--out", "untrained"],
      "SIGINT",
      at("second"),
    ),
  ]);
  expect(refused).toContain("loops.parquet is damaged: reading it does not come to an end");
  expect([first, second]).toEqual([143, 130]);
  expect([...fs.readdirSync(at("first")), ...fs.readdirSync(at("second"))]).toEqual([]);
  for (const name of ["none", "untrained"]) expect(fs.existsSync(at(name))).toBe(false);
});

test.skipIf(process.platform === "win32")(
  "a pipe that nobody writes to is waited for, and signals are heard",
  async () => {
    expect(spawnSync("mkfifo", [at("pipe")]).status).toBe(0);
    expect(await signalled(prepare("pipe", "none"), "SIGTERM")).toBe(143);
    expect(fs.readdirSync(at("tmp"))).toEqual([]);
    const child = spawn(process.execPath, [binary, ...prepare("pipe", "data of pipe")], { cwd: folder, env });
    fs.writeFileSync(at("pipe"), lines); // waits for the reader
    expect(await new Promise((resolve) => child.on("close", resolve))).toBe(0);
    const splits = (name: string) => JSON.parse(fs.readFileSync(at(`${name}/manifest.json`), "utf8")).splits;
    expect(splits("data of pipe")).toEqual(splits("data of -"));
  },
);

test("a bit that is flipped in a page with a checksum is noticed", async () => {
  const whole = fs.readFileSync(fixture("checked.parquet"));
  const file = at("flipped.parquet");
  const read = async (bytes: Uint8Array) => {
    fs.writeFileSync(file, bytes);
    const texts: string[] = [];
    for await (const { text } of documents(file)) texts.push(text);
    return texts;
  };
  expect(await read(whole)).toHaveLength(40);
  // Documents that are neither the first nor the last of their group: those stand in its statistics, too.
  for (const document of [7, 12, 18, 25, 33]) {
    const flipped = Uint8Array.from(whole);
    flipped[whole.indexOf(`document ${document} of`)] ^= 1;
    await expect(read(flipped)).rejects.toThrow('a page of the column "text" does not have the checksum');
  }
});
