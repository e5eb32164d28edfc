// Rotary positions of every kind, in every spelling, turn as they do in transformers (fixtures/rope).
import fs from "node:fs";
import { expect, test } from "vitest";
import { parseModelConfig, modelConfigText } from "../lib/src/model/config.js";
import type { RopeConfig } from "../lib/src/formats/rope.js";
import { rotaryMagnitude, scaledFrequencies } from "../lib/src/model/positions.js";

interface Turns {
  frequencies: number[];
  magnitude: number;
}

const cases: (Turns & { config: Record<string, unknown>; length: number; local?: Turns })[] = JSON.parse(
  fs.readFileSync("tests/fixtures/rope/frequencies.json", "utf8"),
);

/** The largest relative difference from the reference, whose numbers have 24 bits. */
function difference(
  rope: RopeConfig,
  headDim: number,
  length: number,
  { frequencies, magnitude }: Turns,
): number {
  const ours = scaledFrequencies(rope, headDim, length);
  expect(ours.length).toBe(frequencies.length);
  const differences = ours.map((frequency, i) => Math.abs(frequency / frequencies[i] - 1));
  return Math.max(...differences, Math.abs(rotaryMagnitude(rope) / magnitude - 1));
}

test("random settings of every kind of positions give the frequencies of transformers, also after saving", () => {
  const kinds = new Set<string>();
  for (const { config: json, length, local, ...turns } of cases) {
    const config = parseModelConfig(json);
    const saved = parseModelConfig(JSON.parse(modelConfigText(config)), { strict: true });
    for (const { rope, localRope, headDim } of [config, saved]) {
      expect(difference(rope!, headDim, length, turns), JSON.stringify(json)).toBeLessThan(2e-5);
      if (local)
        expect(difference(localRope!, headDim, length, local), JSON.stringify(json)).toBeLessThan(2e-5);
      kinds.add(`${rope?.scaling?.type} ${rope?.dimensions === undefined}`);
    }
  }
  expect([...kinds].sort()).toEqual(
    [
      "dynamic true",
      "linear true",
      "llama3 true",
      "longrope false",
      "longrope true",
      "undefined true",
      "yarn true",
    ].sort(),
  );
});
