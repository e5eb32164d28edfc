// Mutants of the solutions that give the same on every valid input, so that no check can reject them: why.

const DROPPED =
  "what is written behind the end of a Float32Array is dropped, and a row's one too many is overwritten";
const NO_PAIR = "the key of a pair with nothing is NaN, which no merge has";

/** By the notebook's name and the mutant's, as `npm run exercises -- --check` prints them. */
export const equalMutants: { [name: string]: string } = {
  "01-tokenizer/3-encode-by-rank#encode:6: 1 → 2": "any number below 0 says that no place was found",
  "01-tokenizer/3-encode-by-rank#encode:8: i + 1 < result.length → i + 1 <= result.length": NO_PAIR,
  "01-tokenizer/3-encode-by-rank#encode:8: i + 1 → i - 1": NO_PAIR,
  "01-tokenizer/3-encode-by-rank#encode:8: 1 → 0": NO_PAIR,
  "01-tokenizer/4-text-that-pretends#cut:7: at < text.length → at <= text.length":
    "no name stands at the end of the text",
  "01-tokenizer/6-nearly-the-same#minhash:5: 2 → 3": "3³¹ is above every place too",
  "01-tokenizer/6-nearly-the-same#minhash:5: 31 → 32": "2³² is above every place too",
  "01-tokenizer/7-sifting#teaser:6: lines.length > 0 → lines.length >= 0": "0 / 0 is above nothing",
  "02-attention/1-products-by-hand#product:5: i < rows → i <= rows": DROPPED,
  "02-attention/1-products-by-hand#product:6: j < columns → j <= columns": DROPPED,
  "02-attention/1-products-by-hand#gradient:5: i < rows → i <= rows": DROPPED,
  "02-attention/1-products-by-hand#gradient:6: k < inner → k <= inner": DROPPED,
  "02-attention/3-looking-back#shares:5: i < tokens → i <= tokens": DROPPED,
  "02-attention/4-near-and-far#window:5: i < tokens → i <= tokens": DROPPED,
  "02-attention/4-near-and-far#absorb:5: r < rank → r <= rank": DROPPED,
  "03-moe/1-routing#route:5: a - b → a + b":
    "sorting keeps equals in their order, which is that of the index",
  "03-moe/1-routing#route:5: a - b → a": "sorting keeps equals in their order, which is that of the index",
  "04-training/1-surprise-and-steps#schedule:4: step < warmup → step <= warmup":
    "at step `warmup` both formulas give the peak",
  "04-training/2-the-loss-on-the-gpu#loss:7: = 0.0; → = 1.0;":
    "at the first number the sum so far is multiplied by 0",
  "04-training/3-fewer-bits#round:4: if (x === 0) return 0; → ;": "the lines below give 0 for 0 too",
  "04-training/3-fewer-bits#round:11: 65536 → 65535": "no 16-bit float lies between",
  "04-training/3-fewer-bits#round:11: Math.sign(x) → (x)": "infinity times any number above 0 is infinity",
  "05-inference/1-choosing-a-token#draw:5: id < probabilities.length → id <= probabilities.length":
    "behind the end the sum is NaN, and nothing is below that",
  "05-inference/2-keys-and-values#shares:8: 0u → 1u": "the highest starts as number 0",
  "05-inference/6-look-it-up#lookup:4: length > 0 → length >= 0":
    "a run of no tokens is the whole text, which is nowhere",
};
