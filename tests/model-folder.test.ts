// What a folder with a model says: to transformers, whose answers are the fixture, and to ourselves when its files disagree.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { openModel, weightFiles, writeModel } from "../lib/src/cli/model.ts";
import { modelFolder, readChatTemplate } from "../lib/src/cli/model-folder.ts";
import { readSafetensors, writeSafetensors } from "../lib/src/formats/safetensors.ts";
import { endOfText, generate, generateText, plainGenerate, promptIds } from "../lib/src/infer/generate.ts";
import { parametersOf } from "../lib/src/model/families.ts";
import { unpack } from "../lib/src/tensor/products.ts";
import { renderChat } from "../lib/src/tokenizer/chat.ts";
import { folderParts } from "./model-folder-parts.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const { texts, folders } = JSON.parse(
  fs.readFileSync(path.join(fixtures, "folders", "expected.json"), "utf8"),
);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm folder "));
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Does something and gives what it wrote to stderr. */
async function saidOn<T>(work: () => T | Promise<T>): Promise<[T, string]> {
  const write = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    const result = await work();
    return [result, write.mock.calls.map(([text]) => String(text)).join("")];
  } finally {
    write.mockRestore();
  }
}

describe("a folder that we leave is to transformers what it is to us", () => {
  for (const [name, parts] of folderParts())
    test(name, async () => {
      const wanted = folders[name];
      const files = modelFolder(parts);
      for (const [file, text] of Object.entries(wanted.files)) expect(files[file], file).toBe(text);
      const tokenizer = parts.tokenizer!;
      const ids = texts.map((text: string) => [...tokenizer.encode(text)]);
      expect(ids).toEqual(wanted.ids);
      expect(wanted.decoded).toEqual(texts); // no blank is lost on the way back
      const eos = tokenizer.specials["<|endoftext|>"] ?? null;
      expect([wanted.eos_token_id, wanted.config_eos, wanted.generation_eos]).toEqual([eos, eos, eos]);
      expect(wanted.chat).toBe(
        parts.chatTemplate === undefined
          ? null
          : renderChat(parts.chatTemplate, [{ role: "user", content: "hi" }]),
      );
      await writeModel(path.join(folder, name), { by: "init", inputs: [] }, () => files);
      const model = await openModel(path.join(folder, name));
      const settings = {
        ...plainGenerate,
        temperature: 0,
        maxTokens: 8,
        stopIds: endOfText(model.config, tokenizer),
      };
      const greedy: number[] = [];
      for await (const id of generate(model, promptIds(tokenizer, "Once"), settings)) greedy.push(id);
      expect(greedy).toEqual(wanted.greedy.filter((id: number) => id !== eos));
      let text = "Once";
      for await (const piece of generateText(model, tokenizer, "Once", settings)) text += piece;
      expect(text).toBe(wanted.pipeline);
    });
});

describe("the files of a folder that disagree", () => {
  const reference = path.join(fixtures, "families", "llama");
  const weights = fs.readFileSync(path.join(reference, "model.safetensors"));
  const { tensors } = readSafetensors(weights);
  const names = [...tensors.keys()];

  /** A folder with the configuration of the reference model, and these files. */
  function place(name: string, files: Record<string, string | Uint8Array | object>): string {
    const made = path.join(folder, name);
    fs.mkdirSync(made);
    fs.copyFileSync(path.join(reference, "config.json"), path.join(made, "config.json"));
    for (const [file, content] of Object.entries(files)) {
      const text =
        typeof content === "string" || content instanceof Uint8Array ? content : JSON.stringify(content);
      fs.writeFileSync(path.join(made, file), text);
    }
    return made;
  }

  /** Half of the weights as a file, and an index over both halves. */
  const half = (rest: number) => writeSafetensors(new Map([...tensors].filter((_, i) => i % 2 === rest)));
  const shard = (i: number) => `model-0000${(i % 2) + 1}-of-00002.safetensors`;
  const index = { weight_map: Object.fromEntries(names.map((name, i) => [name, shard(i)])) };
  const halves = { [shard(0)]: half(0), [shard(1)]: half(1), "model.safetensors.index.json": index };

  test("model.safetensors wins over an index, whether its files are there or not", async () => {
    const zeros = writeSafetensors(
      new Map(
        [...tensors].map(([name, each]) => [name, { ...each, data: new Uint8Array(each.data.length) }]),
      ),
    );
    for (const [name, files] of Object.entries({
      stale: { ...halves, [shard(0)]: zeros },
      alone: { "model.safetensors.index.json": index },
    })) {
      const [model, said] = await saidOn(() =>
        openModel(place(name, { ...files, "model.safetensors": weights })),
      );
      expect(said).toBe(
        `${path.join(folder, name)}: model.safetensors.index.json is ignored, because there is a model.safetensors.\n`,
      );
      const table = await unpack(model.embedding);
      expect(Buffer.from(table.buffer).equals(tensors.get("model.embed_tokens.weight")!.data)).toBe(true);
    }
  });

  test("weights in several files are read; an index that is wrong about a place is said", async () => {
    const [model, said] = await saidOn(() => openModel(place("halves", halves)));
    expect([parametersOf(model).length, said]).toEqual([names.length, ""]);
    const lying = { weight_map: { ...index.weight_map, [names[0]]: shard(1) } };
    const [, warned] = await saidOn(() =>
      openModel(place("lying", { ...halves, "model.safetensors.index.json": lying })),
    );
    expect(warned).toContain(`says that "${names[0]}" is in ${shard(1)}, where it is not`);
  });

  test.each<[string, Record<string, string | Uint8Array | object>, string]>([
    [
      "missing",
      { [shard(0)]: half(0), "model.safetensors.index.json": index },
      `1 of 2 files of weights are missing: ${shard(1)}.`,
    ],
    [
      "outside",
      { "model.safetensors.index.json": { weight_map: { a: "../stale/model.safetensors" } } },
      "which is not a safetensors file in its folder.",
    ],
    [
      "absolute",
      { "model.safetensors.index.json": { weight_map: { a: "/etc/passwd" } } },
      "which is not a safetensors file in its folder.",
    ],
    [
      "number",
      { "model.safetensors.index.json": { weight_map: { a: 7 } } },
      "names 7, which is not a safetensors file",
    ],
    ["empty", { "model.safetensors.index.json": { weight_map: {} } }, "has no weight_map"],
    ["null", { "model.safetensors.index.json": "null" }, "has no weight_map"],
    ["pickle", { "pytorch_model.bin": "x" }, "(but pytorch_model.bin, which is not read)."],
    ["cut", { "model.safetensors": weights.subarray(0, 5000) }, "has 5000 bytes where its head says"],
    ["twice", { ...halves, [shard(1)]: half(0) }, "stands in two files."],
    [
      "generation",
      { "model.safetensors": weights, "generation_config.json": { temperature: "hot" } },
      'temperature must be a number from 0 to 1000, not "hot".',
    ],
  ])("one sentence: %s", async (name, files, sentence) => {
    await expect(openModel(place(`bad-${name}`, files))).rejects.toThrow(sentence);
  });

  test("a folder in the place of a file of weights", async () => {
    const made = place("bad-kind", {});
    fs.mkdirSync(path.join(made, "model.safetensors"));
    await expect(openModel(made)).rejects.toThrow(/model.safetensors is not a file\.$/);
  });

  test("texts end at the ids of config.json and of generation_config.json", async () => {
    const made = place("stops", {
      "model.safetensors": weights,
      "generation_config.json": { eos_token_id: [9, 2] },
    });
    expect((await openModel(made)).config.eosTokenIds).toEqual([2, 9]);
    expect(weightFiles(made).warnings).toEqual([]);
  });

  test("a chat template goes along with its tokenizer; of two, the one of its own file", async () => {
    const made = place("chat", {
      "tokenizer_config.json": { chat_template: "old" },
      "chat_template.jinja": "new",
    });
    const [template, said] = await saidOn(() => readChatTemplate(made));
    expect(template).toBe("new");
    expect(said).toContain("chat_template in tokenizer_config.json is ignored");
    expect((await saidOn(() => readChatTemplate(made)))[1]).toBe(""); // said once
  });
});
