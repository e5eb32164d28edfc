// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { bitsPerByte } from "../../src/data/bits-per-byte.js";

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#bits-per-byte-test
await test("nats a token become bits a byte", () => {
  expect(bitsPerByte(Math.LN2, { tokens: 100, bytes: 100 })).toBeCloseTo(1, 12);
  expect(bitsPerByte(3 * Math.LN2, { tokens: 100, bytes: 400 })).toBeCloseTo(0.75, 12);
});
