// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.

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
  if (damaged || !Number.isFinite(logits[best]))
    throw new Error("The model's scores are not numbers: it is damaged, or its training diverged.");
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
  /** Keep the likeliest tokens until their probabilities add up to this. 1 keeps all. */
  topP: number;
  /** Keep tokens at least this fraction as likely as the likeliest. 0 keeps all. */
  minP: number;
}

/** Plain sampling from the model's own distribution. */
export const plainSampling: SamplingSettings = { temperature: 1, topK: 0, topP: 1, minP: 0 };

//| 05-inference/1-sampling.ipynb#check-sampling
/** Throws a sentence for a setting that means nothing. */
export function checkSampling({ temperature, topK, topP, minP }: SamplingSettings): void {
  if (!(temperature >= 0)) throw new Error(`The temperature must be 0 or more, not ${temperature}.`);
  if (!Number.isInteger(topK) || topK < 0)
    throw new Error(`top-k must be a whole number, 0 or more, not ${topK}.`);
  if (!(topP > 0 && topP <= 1)) throw new Error(`top-p must be above 0 and at most 1, not ${topP}.`);
  if (!(minP >= 0 && minP < 1)) throw new Error(`min-p must be at least 0 and below 1, not ${minP}.`);
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
  if (temperature === 0) return [{ id: argmax(logits), probability: 1 }];
  const candidates = promisingCandidates(logits, settings);
  if (topK === 0 && topP === 1 && minP === 0) return candidates;
  return keepMinP(keepTopP(keepTopK(candidates.sort(likelierFirst), topK), topP), minP);
}

//| 05-inference/1-sampling.ipynb#sample-token
/** Chooses the next token from scores [vocabulary] with a uniform random number in [0, 1). */
export function sampleToken(logits: ArrayLike<number>, settings: SamplingSettings, uniform: number): number {
  return sampleFrom(candidatesFor(logits, settings), uniform);
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
