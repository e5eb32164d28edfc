// The files of a model, damaged at random: cut, flipped, spliced, their values changed. Whatever happens to a file, it is read for what
// it says or refused in one sentence; nothing crashes, hangs, or is taken for something else. FUZZ_RUNS=20000 looks longer.
import fs from "node:fs";
import path from "node:path";
import * as fc from "fast-check";
import { expect, test, vi } from "vitest";
import { openModel } from "../lib/src/cli/model.ts";
import { chatTemplateOf, parseGenerationConfig } from "../lib/src/formats/generation.ts";
import { findDuplicateKey, readSafetensors } from "../lib/src/formats/safetensors.ts";
import { openGpu } from "../lib/src/gpu/device.ts";
import { modelConfigText, parseModelConfig } from "../lib/src/model/config.ts";
import { namedWeights, weightsOf } from "../lib/src/model/families.ts";
import { testFolder } from "./tslm.ts";

const fixtures = path.join(import.meta.dirname, "fixtures");
const runs = Number(process.env.FUZZ_RUNS ?? 120);
const seed = Number(process.env.FUZZ_SEED ?? 11);
const { at } = testFolder("damaged");
await openGpu();
vi.spyOn(process.stderr, "write").mockReturnValue(true);

/** Values that a file might hold where another was meant. */
const strange = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom(
    0,
    -1,
    1.5,
    1e308,
    2 ** 53,
    2 ** 31,
    1e9,
    4096,
    3,
    true,
    false,
    null,
    "",
    "64",
    [],
    {},
    [[]],
    [1, -1],
    "__proto__",
  ),
);

const damage = fc.record({
  way: fc.constantFrom("cut", "flip", "splice", "value", "copy", "drop", "double"),
  places: fc.tuple(fc.nat(), fc.nat(), fc.nat(), fc.nat()),
  value: strange,
});
type Damage = typeof damage extends fc.Arbitrary<infer D> ? D : never;

/** All places in a JSON value: the object or list, and the key. */
function placesIn(value: unknown): [Record<string, unknown>, string][] {
  if (typeof value !== "object" || value === null) return [];
  const holder = value as Record<string, unknown>;
  return Object.keys(holder).flatMap((key) => [
    [holder, key] as [typeof holder, string],
    ...placesIn(holder[key]),
  ]);
}

/** Bytes of a file after damage; `donor` is another file, of which a piece may get into it. */
function damaged(
  bytes: Uint8Array,
  { way, places: [a, b, c, d], value }: Damage,
  donor: Uint8Array,
): Uint8Array {
  const from = a % (bytes.length + 1);
  if (way === "cut")
    return joined(
      bytes.subarray(0, from),
      bytes.subarray(b % 2 ? bytes.length : Math.min(bytes.length, from + (b % 64))),
    );
  if (way === "splice") {
    const piece = donor.subarray(c % donor.length, (c % donor.length) + (d % 80));
    return joined(bytes.subarray(0, from), piece, bytes.subarray(Math.min(bytes.length, from + (b % 80))));
  }
  if (way === "flip") {
    const flipped = Uint8Array.from(bytes);
    for (const place of [a, b, c].slice(0, 1 + (d % 3))) flipped[place % bytes.length] ^= 1 << (place % 8);
    return flipped;
  }
  const text = new TextDecoder().decode(bytes);
  const json = JSON.parse(text);
  const all = placesIn(json);
  const [holder, key] = all[a % all.length];
  const [other, source] = all[b % all.length];
  if (way === "value") holder[key] = value;
  if (way === "copy") holder[key] = structuredClone(other[source]);
  if (way === "drop") delete holder[key];
  if (way === "double")
    return new TextEncoder().encode(
      text.replace("{", `{${JSON.stringify(source)}: ${JSON.stringify(value)},`),
    );
  return new TextEncoder().encode(JSON.stringify(json));
}

function joined(...pieces: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}

/** What a reader makes of something: its result, or nothing where it refused in one sentence. */
function readOrRefused<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    checkSentence(error);
    return undefined;
  }
}

function checkSentence(error: unknown): void {
  const { name, message } = error as Error;
  expect(["Error", "GpuError"], `${(error as Error).stack}`).toContain(name);
  expect(message).toMatch(/^[^\n]{10,700}$/);
}

/** The JSON in bytes, or nothing where it is none: what the program says of that is its own. */
function jsonIn(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

const families = fs.readdirSync(path.join(fixtures, "families"));
const configs = families.map((family) =>
  fs.readFileSync(path.join(fixtures, "families", family, "config.json")),
);

test("config.json: what is read is whole, and is read again from what we write", () => {
  let accepted = 0;
  fc.assert(
    fc.property(damage, fc.nat(), fc.nat(), (what, one, other) => {
      const json = jsonIn(damaged(configs[one % configs.length], what, configs[other % configs.length]));
      const config = json === undefined ? undefined : readOrRefused(() => parseModelConfig(json));
      if (!config) return;
      accepted++;
      expect(parseModelConfig(JSON.parse(modelConfigText(config)))).toEqual(config);
      for (const { shape } of weightsOf(config))
        for (const length of shape) expect(Number.isSafeInteger(length) && length > 0).toBe(true);
    }),
    { numRuns: 2 * runs, seed },
  );
  expect(accepted).toBeGreaterThan(runs / 10);
  expect(accepted).toBeLessThan(2 * runs);
});

const generation = new TextEncoder().encode(
  '{"bos_token_id": 1, "do_sample": true, "eos_token_id": [2, 3], "max_new_tokens": 20, "min_p": 0.1, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "pad_token_id": 0, "transformers_version": "5.18.0"}',
);
const tokenizerConfig = new TextEncoder().encode(
  '{"add_bos_token": false, "added_tokens_decoder": {"5": {"content": "<s>", "special": true}}, "bos_token": "<s>", "chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "tools", "template": "y"}], "eos_token": null, "model_max_length": 100, "tokenizer_class": "PreTrainedTokenizerFast"}',
);

test("generation_config.json and tokenizer_config.json", () => {
  const isCount = (value: unknown) =>
    value === undefined || (Number.isSafeInteger(value) && (value as number) >= 0);
  fc.assert(
    fc.property(damage, (what) => {
      const json = jsonIn(damaged(generation, what, tokenizerConfig));
      const read = json === undefined ? undefined : readOrRefused(() => parseGenerationConfig(json));
      if (read) {
        for (const id of [...read.eosTokenIds, read.bosTokenId, read.topK, read.maxNewTokens])
          expect(isCount(id)).toBe(true);
        for (const number of [read.temperature, read.topP, read.minP, read.repetitionPenalty])
          expect(number === undefined || Number.isFinite(number)).toBe(true);
      }
      const other = jsonIn(damaged(tokenizerConfig, what, generation));
      const chat = other === undefined ? undefined : readOrRefused(() => chatTemplateOf(other, "z"));
      if (chat) expect([typeof chat.template, Array.isArray(chat.warnings)]).toEqual(["string", true]);
    }),
    { numRuns: 2 * runs, seed },
  );
});

const source = path.join(fixtures, "sharded_bf16");
const shards = fs.readdirSync(source).filter((name) => name.startsWith("model-"));
const files = new Map(
  ["config.json", "model.safetensors.index.json", ...shards].map((name) => [
    name,
    fs.readFileSync(path.join(source, name)),
  ]),
);

/** The weights of the folder's files, as what stands in each tensor. */
function tensorsIn(folder: string): Map<string, string> {
  const all = new Map<string, string>();
  for (const shard of shards)
    for (const [name, { dtype, shape }] of readSafetensors(fs.readFileSync(path.join(folder, shard))).tensors)
      all.set(name, `${dtype} ${shape}`);
  return all;
}

const whole = tensorsIn(source);

test("a folder with a damaged file is opened for what it says, or refused", async () => {
  const folder = at("model");
  fs.mkdirSync(folder);
  for (const [name, bytes] of files) fs.writeFileSync(path.join(folder, name), bytes);
  const names = [...files.keys()];
  let opened = 0;
  await fc.assert(
    fc.asyncProperty(damage, fc.nat(), fc.nat(), async (what, one, other) => {
      const [name, donor] = [names[one % names.length], names[other % names.length]];
      const isText = name.endsWith(".json");
      if (!isText && ["value", "copy", "drop", "double"].includes(what.way)) return;
      const bytes = files.get(name)!;
      const head = isText ? bytes.length : 8 + Number(bytes.readBigUInt64LE());
      const changed =
        what.way === "cut"
          ? damaged(bytes, what, bytes)
          : joined(
              damaged(bytes.subarray(0, head), what, files.get(donor)!.subarray(0, 2000)),
              bytes.subarray(head),
            );
      fs.writeFileSync(path.join(folder, name), changed);
      try {
        const model = await openModel(folder, what.places[3] % 2 ? "auto" : "f32");
        opened++;
        // It has a file for each weight, all of them whole; and no JSON in which a key stands twice.
        expect(tensorsIn(folder)).toEqual(whole);
        expect(weightsOf(model.config).length).toBe(27);
        if (isText) expect(findDuplicateKey(new TextDecoder().decode(changed))).toBeUndefined();
        if (what.places[3] % 2 === 0) for (const { value } of namedWeights(model)) value.free();
      } catch (error) {
        if ((error as Error).name === "AssertionError") throw error;
        checkSentence(error);
      } finally {
        fs.writeFileSync(path.join(folder, name), bytes);
      }
    }),
    { numRuns: runs, seed },
  );
  expect(opened).toBeGreaterThan(runs / 50);
  expect(opened).toBeLessThan(runs);
});
