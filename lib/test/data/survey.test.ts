// Extracted from chapters/01-tokenizer/a-the-pipeline.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { PERMUTATIONS } from "../../src/data/duplicates.js";
import { randomStream } from "../../src/data/random.js";
import { readRecords, recordBytes, recordSize } from "../../src/data/survey.js";

//| 01-tokenizer/a-the-pipeline.ipynb#records-test
await test("what was found about documents can be written down and read back", () => {
  const random = randomStream(2);
  const bytes = (count: number) => Uint8Array.from({ length: count }, () => Math.floor(256 * random()));
  for (const checks of [
    { filters: ["x"] },
    { dedup: ["exact" as const] },
    { dedup: ["exact" as const, "near" as const] },
  ]) {
    const size = recordSize(checks);
    const found = {
      verdicts: bytes(9),
      hashes: new Uint32Array(bytes(size > 1 ? 72 : 0).buffer),
      signatures: bytes(size > 9 ? 9 * PERMUTATIONS : 0),
    };
    const written = recordBytes(found, checks);
    expect(written.length).toBe(9 * size);
    expect(readRecords(written, checks)).toEqual(found);
  }
});
