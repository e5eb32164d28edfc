// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#random-stream
/** A stream of numbers in [0, 1) that is the same for the same seed: Chris Doty-Humphrey's sfc32, 128 bits of state. */
export function randomStream(seed: number): () => number {
  let [a, b, c, d] = [0x9e3779b9, 0x243f6a88, seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  const next = () => {
    const sum = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 20; i++) next(); // let the seed reach every bit of the state
  return next;
}
