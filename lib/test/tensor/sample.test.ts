// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { openGpu } from "../../src/gpu/device.js";
import {
  type SampledRow,
  candidatesFor,
  editedScores,
  packEdits,
  tokenUses,
  writeSampling,
} from "../../src/infer/sampling.js";
import { editWords, sampleKernel } from "../../src/kernels/sample.js";
import { normals, randomBits, uniforms } from "../../src/tensor/random.js";
import { sampleInputs, sampleRows, sampleShape } from "../../src/tensor/sample.js";
import { indices, launchInto, tensor } from "../../src/tensor/tensor.js";

//| 05-inference/1-sampling.ipynb#gpu-test-parts
await openGpu();

/** Draws a token for each row with its settings, all rows at once; `lanes` is usually the adapter's business. */
async function drawn(scores: ArrayLike<number>[], rows: SampledRow[], lanes?: number): Promise<number[]> {
  const vocab = scores[0].length;
  const edits = packEdits(rows).length / editWords;
  const inputs = sampleInputs(rows.length, vocab, { masked: rows.some(({ mask }) => mask), edits });
  writeSampling(inputs, rows);
  const logits = tensor(Float32Array.from(scores.flatMap((row) => Array.from(row))), [rows.length, vocab]);
  if (lanes === undefined) return [...(await sampleRows(logits, inputs).array())];
  const [ids, list] = [indices(new Uint32Array(rows.length)), indices(new Uint32Array(logits.size))];
  const shape = { ...sampleShape(logits, inputs), lanes };
  launchInto(
    sampleKernel(shape),
    [logits, inputs.settings, ...(inputs.mask ? [inputs.mask] : [])],
    [ids, list],
  );
  return [...(await ids.array())];
}

/** Whether the plain form could draw this id with settings and a random number that differ by no more than rounding. */
function couldDraw(id: number, logits: ArrayLike<number>, row: SampledRow): boolean {
  const scores = editedScores(logits, row.settings, row).subarray(0, row.vocabSize).map(Math.fround);
  const { topP, minP } = row.settings;
  return [-1e-5, 0, 1e-5].some((little) => {
    const near = {
      ...row.settings,
      topP: topP < 1 && topP > 0 ? topP + little : topP,
      minP: minP * (1 + little),
    };
    const kept = candidatesFor(scores, near);
    const at = kept.findIndex((candidate) => candidate.id === id);
    const before = kept.slice(0, at).reduce((sum, { probability }) => sum + probability, 0);
    return at >= 0 && row.uniform > before - 1e-5 && row.uniform < before + kept[at].probability + 1e-5;
  });
}

//| 05-inference/1-sampling.ipynb#gpu-test
/** Scores and settings of all kinds, from a seed. With an odd one, scores come in steps, so that many are equal. */
function randomRow(vocab: number, seed: number): { scores: Float32Array; row: SampledRow } {
  const [topK, cut, minP, greedy, used, masked] = randomBits(seed, 6, 1);
  const [heat, p, least, uniform] = uniforms(seed, 4, 2);
  const scores = normals(seed, vocab, 3).map((x) => (seed % 2 ? Math.round(4 * x) / 2 : 3 * x));
  const bits = randomBits(seed, Math.ceil(vocab / 32), 4);
  const settings = {
    temperature: greedy % 6 === 0 ? 0 : 0.1 + 3 * heat,
    topK: topK % 3 ? 0 : (topK >>> 8) % Math.min(vocab + 2, 90),
    topP: cut % 2 ? 1 : p,
    minP: minP % 3 ? 0 : 0.5 * least,
    ...(used % 2
      ? {}
      : {
          repetitionPenalty: 1.3,
          presencePenalty: 0.5,
          frequencyPenalty: -0.2,
          bias: [[used % vocab, 2.5]] as [number, number][],
        }),
  };
  const text = Array.from(randomBits(seed, 12, 5), (bits) => bits % vocab);
  const mask = masked % 3 ? undefined : bits.map((word, i) => (i === 0 ? word | 1 : word));
  return {
    scores,
    row: {
      settings,
      uniform,
      vocabSize: vocab - (seed % 5 === 0 && vocab > 2 ? 1 : 0),
      uses: tokenUses(text.slice(0, 6), text.slice(6)),
      mask,
    },
  };
}

await test("the GPU draws what the plain form draws, on random scores, settings, texts and masks", async () => {
  const shapes = fc.record({
    vocab: fc.constantFrom(2, 17, 64, 500),
    rows: fc.integer({ min: 1, max: 40 }),
    seed: fc.nat(2 ** 30),
  });
  await fc.assert(
    fc.asyncProperty(shapes, async ({ vocab, rows, seed }) => {
      const all = Array.from({ length: rows }, (_, i) => randomRow(vocab, seed + i));
      const ids = await drawn(
        all.map(({ scores }) => scores),
        all.map(({ row }) => row),
      );
      ids.forEach((id, i) =>
        expect({ id, ...all[i].row, is: couldDraw(id, all[i].scores, all[i].row) }).toMatchObject({
          is: true,
        }),
      );
    }),
    { numRuns: 30, seed: 5 },
  );
});
