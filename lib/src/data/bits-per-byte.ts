// Extracted from chapters/01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb: edit it there, or here and run `npm run backport`.

//| 01-tokenizer/2-a-corpus-with-a-known-entropy.ipynb#bits-per-byte
/** A loss in nats a token as bits a byte, for a text of so many tokens and bytes: loss / ln 2 * tokens / bytes. */
export function bitsPerByte(natsPerToken: number, size: { tokens: number; bytes: number }): number {
  return (natsPerToken / Math.LN2) * (size.tokens / size.bytes);
}
