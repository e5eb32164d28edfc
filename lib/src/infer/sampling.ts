// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import {
  type ScoreEdit,
  damagedScores,
  editWords,
  nothingAllowed,
  packEdit,
  packSettings,
} from "../kernels/sample.js";
import type { SampleInputs } from "../tensor/sample.js";

//| 05-inference/1-sampling.ipynb#refusals
/** What is said when no token can be chosen, here and where the GPU chooses. */
export const damagedSentence = "The model's scores are not numbers: it is damaged, or its training diverged.";
export const nothingAllowedSentence =
  "No token may come next: the mask, or the grammar behind it, allows none.";

//| 05-inference/1-sampling.ipynb#likeliest
/**
 * The id with the highest score, the lowest of equals. Throws when the scores are not numbers. A score of -Infinity is
 * fine, it says "never"; but one token must be possible.
 */
export function argmax(logits: ArrayLike<number>): number {
  let best = 0;
  let damaged = false;
  for (let id = 0; id < logits.length; id++) {
    damaged ||= Number.isNaN(logits[id]);
    if (logits[id] > logits[best]) best = id;
  }
  if (damaged || !Number.isFinite(logits[best])) throw new Error(damagedSentence);
  return best;
}

//| 05-inference/1-sampling.ipynb#ranked-candidates-parts
/** Scores [vocabulary] as weights exp((score − highest) / temperature): as probabilities, but 1 for the likeliest. */
export function tokenWeights(logits: ArrayLike<number>, temperature: number): Float64Array {
  const highest = logits[argmax(logits)];
  const weights = new Float64Array(logits.length);
  for (let id = 0; id < weights.length; id++) weights[id] = Math.exp((logits[id] - highest) / temperature);
  return weights;
}

//| 05-inference/1-sampling.ipynb#ranked-candidates
/** A token that may be chosen, with its probability. */
export interface Candidate {
  id: number;
  probability: number;
}

/** Sorts the likeliest first; equals by their ids. */
export function likelierFirst(a: Candidate, b: Candidate): number {
  return b.probability - a.probability || a.id - b.id;
}

/** Scores [vocabulary] as probabilities at a temperature above 0, likeliest first; equals keep the order of their ids. */
export function rankedCandidates(logits: ArrayLike<number>, temperature: number): Candidate[] {
  const weights = tokenWeights(logits, temperature);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Array.from(weights, (weight, id) => ({ id, probability: weight / total })).sort(likelierFirst);
}

//| 05-inference/1-sampling.ipynb#draw
/** Draws a candidate: `uniform` in [0, 1) points at a place on the line of all probabilities laid end to end. */
export function sampleFrom(candidates: Candidate[], uniform: number): number {
  let passed = 0;
  for (const { id, probability } of candidates) {
    passed += probability;
    if (uniform < passed) return id;
  }
  return candidates[candidates.length - 1].id;
}

//| 05-inference/1-sampling.ipynb#renormalize
/** Makes probabilities add up to 1 again. */
export function renormalize(candidates: Candidate[]): Candidate[] {
  const total = candidates.reduce((sum, { probability }) => sum + probability, 0);
  return candidates.map(({ id, probability }) => ({ id, probability: probability / total }));
}

//| 05-inference/1-sampling.ipynb#top-k
/** Keeps the `count` likeliest; 0 keeps all. */
export function keepTopK(candidates: Candidate[], count: number): Candidate[] {
  return count === 0 ? candidates : renormalize(candidates.slice(0, count));
}

//| 05-inference/1-sampling.ipynb#top-p
/**
 * Keeps the fewest likeliest tokens whose probabilities reach `mass`
 * (Holtzman et al., "The Curious Case of Neural Text Degeneration").
 */
export function keepTopP(candidates: Candidate[], mass: number): Candidate[] {
  if (mass >= 1) return candidates;
  let reached = 0;
  const end = candidates.findIndex(({ probability }) => {
    reached += probability;
    return reached >= mass;
  });
  return renormalize(candidates.slice(0, end < 0 ? candidates.length : end + 1));
}

//| 05-inference/1-sampling.ipynb#min-p
/** Keeps tokens at least `fraction` as likely as the likeliest (Nguyen et al., "Turning Up the Heat: Min-p Sampling"). */
export function keepMinP(candidates: Candidate[], fraction: number): Candidate[] {
  const least = fraction * candidates[0].probability;
  return renormalize(candidates.filter(({ probability }) => probability >= least));
}

//| 05-inference/1-sampling.ipynb#settings
/** How the next token is chosen from the model's scores. */
export interface SamplingSettings {
  /** Scores are divided by it: below 1 likely tokens gain, above 1 unlikely ones. 0 always takes the likeliest. */
  temperature: number;
  /** Keep only this many of the likeliest tokens. 0 keeps all. */
  topK: number;
  /** Keep the likeliest tokens until their probabilities add up to this. 1 keeps all, 0 the likeliest alone. */
  topP: number;
  /** Keep tokens at least this fraction as likely as the likeliest. 0 keeps all. */
  minP: number;
  /** The score of a token that is in the text so far is divided by it, or multiplied where it is below 0. 1 changes nothing. */
  repetitionPenalty?: number;
  /** Taken from the score of a token that was generated. 0 changes nothing. */
  presencePenalty?: number;
  /** Taken from the score of a token for each time that it was generated. 0 changes nothing. */
  frequencyPenalty?: number;
  /** Added to the scores of single tokens. */
  bias?: [id: number, bias: number][];
}

/** Plain sampling from the model's own distribution. */
export const plainSampling: SamplingSettings = { temperature: 1, topK: 0, topP: 1, minP: 0 };

//| 05-inference/1-sampling.ipynb#check-penalties
/** Throws a sentence for a penalty or a bias that means nothing. */
export function checkPenalties(settings: SamplingSettings): void {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, bias = [] } = settings;
  if (!(repetitionPenalty > 0 && Number.isFinite(repetitionPenalty)))
    throw new Error(`The repetition penalty must be above 0, not ${repetitionPenalty}.`);
  for (const [name, penalty] of Object.entries({ presence: presencePenalty, frequency: frequencyPenalty }))
    if (!Number.isFinite(penalty)) throw new Error(`The ${name} penalty must be a number, not ${penalty}.`);
  const wrong = bias.find(([id, added]) => !Number.isInteger(id) || id < 0 || !Number.isFinite(added));
  if (wrong) throw new Error(`A bias is a token id and a number, not ${wrong.join(": ")}.`);
}

//| 05-inference/1-sampling.ipynb#check-sampling
/** Throws a sentence for a setting that means nothing. */
export function checkSampling(settings: SamplingSettings): void {
  const { temperature, topK, topP, minP } = settings;
  if (!(temperature >= 0)) throw new Error(`The temperature must be 0 or more, not ${temperature}.`);
  if (!Number.isInteger(topK) || topK < 0)
    throw new Error(`top-k must be a whole number, 0 or more, not ${topK}.`);
  if (!(topP >= 0 && topP <= 1)) throw new Error(`top-p must be at least 0 and at most 1, not ${topP}.`);
  if (!(minP >= 0 && minP < 1)) throw new Error(`min-p must be at least 0 and below 1, not ${minP}.`);
  checkPenalties(settings);
}

//| 05-inference/1-sampling.ipynb#least-weight
/**
 * The least weight (see `tokenWeights`) with which a token may still be kept. Of the tokens below it none can be among the
 * k likeliest; or all of them together have less than 1 − topP, so the others reach topP without them.
 */
export function leastWeight(weights: Float64Array, { topK, topP, minP }: SamplingSettings): number {
  if (topK > 0) return weights.slice().sort()[Math.max(0, weights.length - topK)];
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Math.max(((1 - topP) * total) / weights.length, minP);
}

//| 05-inference/1-sampling.ipynb#promising-candidates
/** The tokens that are worth sorting, with their probabilities among all, in the order of their ids. */
export function promisingCandidates(logits: ArrayLike<number>, settings: SamplingSettings): Candidate[] {
  const weights = tokenWeights(logits, settings.temperature);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const least = leastWeight(weights, settings);
  const candidates: Candidate[] = [];
  weights.forEach((weight, id) => {
    if (weight >= least) candidates.push({ id, probability: weight / total });
  });
  return candidates;
}

//| 05-inference/1-sampling.ipynb#candidates-for
/**
 * The tokens that may be chosen: temperature first, then top-k, top-p and min-p in this order. Likeliest first, or in the
 * order of their ids where nothing is cut off.
 */
export function candidatesFor(logits: ArrayLike<number>, settings: SamplingSettings): Candidate[] {
  checkSampling(settings);
  const { temperature, topK, topP, minP } = settings;
  if (temperature === 0 || topP === 0) return [{ id: argmax(logits), probability: 1 }];
  const candidates = promisingCandidates(logits, settings);
  if (topK === 0 && topP === 1 && minP === 0) return candidates;
  return keepMinP(keepTopP(keepTopK(candidates.sort(likelierFirst), topK), topP), minP);
}

//| 05-inference/1-sampling.ipynb#sample-token
/** Chooses the next token from scores [vocabulary] with a uniform random number in [0, 1). */
export function sampleToken(logits: ArrayLike<number>, settings: SamplingSettings, uniform: number): number {
  return sampleFrom(candidatesFor(logits, settings), uniform);
}

//| 05-inference/1-sampling.ipynb#token-uses
/** How often each token was generated in a text so far: 0 times for those that only its prompt has. */
export type TokenUses = Map<number, number>;

/** The uses of a text that was `generated` after a `prompt`. */
export function tokenUses(prompt: Iterable<number>, generated: Iterable<number> = []): TokenUses {
  const uses: TokenUses = new Map();
  for (const id of prompt) uses.set(id, 0);
  for (const id of generated) uses.set(id, (uses.get(id) ?? 0) + 1);
  return uses;
}

//| 05-inference/1-sampling.ipynb#score-edits
/** The scores that settings change: those with a bias and, where there is a penalty, those of all tokens of the text. */
export function scoreEdits(settings: SamplingSettings, uses: TokenUses = new Map()): ScoreEdit[] {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, bias = [] } = settings;
  const isPenalized = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
  const edits = new Map<number, ScoreEdit>();
  for (const [id, times] of isPenalized ? uses : []) edits.set(id, { id, bias: 0, isUsed: true, times });
  for (const [id, added] of bias) {
    const edit = edits.get(id) ?? { id, bias: 0, isUsed: false, times: 0 };
    edits.set(id, { ...edit, bias: edit.bias + added });
  }
  return [...edits.values()];
}

//| 05-inference/1-sampling.ipynb#edited-score
/**
 * A score after an edit: the bias is added; then comes the repetition penalty (Keskar and others, "CTRL"), as in transformers; then what OpenAI's API calls
 * frequency and presence penalty.
 */
export function editedScore(
  score: number,
  { bias, isUsed, times }: ScoreEdit,
  settings: SamplingSettings,
): number {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = settings;
  const biased = score + bias;
  if (!isUsed) return biased;
  const repeated = biased > 0 ? biased / repetitionPenalty : biased * repetitionPenalty;
  return repeated - frequencyPenalty * times - (times > 0 ? presencePenalty : 0);
}

/** Whether a mask allows a token: bit id % 32 of word id / 32. */
export function isAllowed(mask: Uint32Array, id: number): boolean {
  return ((mask[id >>> 5] >>> (id % 32)) & 1) === 1;
}

//| 05-inference/1-sampling.ipynb#edited-scores
/** What a choice depends on besides the scores and the settings. */
export interface TextSoFar {
  uses?: TokenUses;
  /** Which tokens may come, a bit each, as long as ⌈vocabulary / 32⌉. */
  mask?: Uint32Array;
}

/** The scores [vocabulary] that tokens are drawn by: after bias and penalties, and −∞ for those that may not come. Throws when none may. */
export function editedScores(
  logits: ArrayLike<number>,
  settings: SamplingSettings,
  { uses, mask }: TextSoFar,
): Float64Array {
  const scores = Float64Array.from(logits);
  for (const edit of scoreEdits(settings, uses))
    if (edit.id < scores.length) scores[edit.id] = editedScore(scores[edit.id], edit, settings);
  if (!mask) return scores;
  const allowed = scores.map((score, id) => (isAllowed(mask, id) ? score : Number.NEGATIVE_INFINITY));
  if (allowed.every((score) => score === Number.NEGATIVE_INFINITY)) throw new Error(nothingAllowedSentence);
  return allowed;
}

//| 05-inference/1-sampling.ipynb#likeliest-tokens
/** A token, and the natural logarithm of the probability that the model gave it. */
export interface TokenLogProbability {
  id: number;
  logProbability: number;
}

/** The logarithms of the probabilities that scores [vocabulary] stand for: log softmax. */
export function logProbabilities(logits: ArrayLike<number>): Float64Array {
  const logSum =
    logits[argmax(logits)] + Math.log(tokenWeights(logits, 1).reduce((sum, weight) => sum + weight, 0));
  return Float64Array.from(logits, (score) => score - logSum);
}

/** The `count` likeliest tokens by scores [vocabulary] as the model gave them, likeliest first. */
export function likeliestTokens(logits: ArrayLike<number>, count: number): TokenLogProbability[] {
  const all = Array.from(logProbabilities(logits), (logProbability, id) => ({ id, logProbability }));
  return all.sort((a, b) => b.logProbability - a.logProbability || a.id - b.id).slice(0, count);
}

//| 05-inference/1-sampling.ipynb#write-rows
/** One row that is to be drawn: what it is drawn by, and the text so far. */
export interface SampledRow extends TextSoFar {
  settings: SamplingSettings;
  /** A random number in [0, 1). */
  uniform: number;
  /** Only ids below it are chosen. */
  vocabSize: number;
}

/** The edits of all rows, as kernels read them: [edits, 4]. */
export function packEdits(rows: (SampledRow | undefined)[]): number[] {
  return rows.flatMap((row, at) =>
    (row ? scoreEdits(row.settings, row.uses) : []).flatMap((edit) => packEdit(at, edit)),
  );
}

/** The masks of all rows [rows, words]: rows without one may have every token. */
export function packMasks(rows: (SampledRow | undefined)[], words: number): Uint32Array {
  const masks = new Uint32Array(rows.length * words).fill(0xffffffff);
  rows.forEach((row, at) => {
    if (row?.mask) masks.set(row.mask.subarray(0, words), at * words);
  });
  return masks;
}

//| 05-inference/1-sampling.ipynb#write-rows-2
/**
 * Writes what the next run of `sampleRows` draws by. Rows that are left out get some token at hardly any cost. Throws when the inputs have no room
 * for a row's mask or for all edits.
 */
export function writeSampling(inputs: SampleInputs, rows: (SampledRow | undefined)[]): void {
  const { settings, mask, edits } = inputs;
  const unused = { ...plainSampling, temperature: 0, uniform: 0, limit: 1 };
  const all = Array.from({ length: settings.shape[0] }, (_, at) => rows[at]);
  settings.write(
    all.flatMap((row) =>
      packSettings(row ? { ...row.settings, uniform: row.uniform, limit: row.vocabSize } : unused),
    ),
  );
  if (!mask && all.some((row) => row?.mask))
    throw new Error("A row has a mask, and these inputs were made without.");
  mask?.write(packMasks(all, mask.shape[1]));
  const packed = packEdits(all);
  if (packed.length > (edits?.size ?? 0))
    throw new Error(
      `${packed.length / editWords} scores are to be changed, and these inputs have room for ${edits?.shape[0] ?? 0}.`,
    );
  edits?.write(Uint32Array.from({ length: edits.size }, (_, i) => packed[i] ?? 0xffffffff));
}

//| 05-inference/1-sampling.ipynb#check-drawn
/** Throws when there is no token to be had: the scores were not numbers, or the mask left none. */
export function checkDrawn(id: number): void {
  if (id === nothingAllowed) throw new Error(nothingAllowedSentence);
  if (id === damagedScores) throw new Error(damagedSentence);
}

//| 05-inference/1-sampling.ipynb#open-end
/** The length of the longest end of `text` that a stop string could begin with. */
export function openEnd(text: string, stops: string[]): number {
  const longest = Math.max(0, ...stops.map((stop) => Math.min(stop.length - 1, text.length)));
  for (let length = longest; length > 0; length--)
    if (stops.some((stop) => stop.startsWith(text.slice(-length)))) return length;
  return 0;
}

//| 05-inference/1-sampling.ipynb#stop-filter
/** Passes text on until a stop string appears, even when that arrives in pieces. */
export interface StopFilter {
  /** The part of all text so far that can no longer belong to a stop string, and whether one appeared. */
  push(text: string): { text: string; stopped: boolean };
  /** What was held back, at the end. */
  end(): string;
}

/** A filter for stop strings. The stop string itself is not passed on. */
export function stopFilter(stops: string[]): StopFilter {
  const strings = stops.filter((stop) => stop !== "");
  let held = "";
  return {
    push(text) {
      held += text;
      const found = strings.map((stop) => held.indexOf(stop)).filter((at) => at >= 0);
      const ready = found.length > 0 ? Math.min(...found) : held.length - openEnd(held, strings);
      const passed = held.slice(0, ready);
      held = found.length > 0 ? "" : held.slice(ready);
      return { text: passed, stopped: found.length > 0 };
    },
    end: () => held,
  };
}
