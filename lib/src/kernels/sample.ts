// Extracted from chapters/05-inference/1-sampling.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { partsOf } from "./topk.js";
import { floatBits, vectorWidth } from "./wgsl.js";

//| 05-inference/1-sampling.ipynb#score-edit
/** A token whose score is changed before the choice: by its bias, and by how often it has come. */
export interface ScoreEdit {
  id: number;
  bias: number;
  /** Whether the token is in the text so far, its prompt included. */
  isUsed: boolean;
  /** How often it was generated. */
  times: number;
}

//| 05-inference/1-sampling.ipynb#sums64
/**
 * WGSL for whole numbers of 64 bits, which it does not have: two of 32, the lower one first. Also what is known of some
 * tokens together, and two parts of a mass: `share` is mass · fraction / 2³², `justBelow` the greatest number below that.
 */
export const longNumbers = `
struct Sum { mass: vec2u, count: u32 }
fn plus(a: vec2u, b: vec2u) -> vec2u {
  let low = a.x + b.x;
  return vec2u(low, a.y + b.y + select(0u, 1u, low < b.x));
}
fn isLess(a: vec2u, b: vec2u) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
fn times(a: u32, b: u32) -> vec2u {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let upper = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2u((upper << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (middle >> 16u) + (upper >> 16u));
}
fn share(mass: vec2u, fraction: u32) -> vec2u {
  return plus(times(mass.y, fraction), vec2u(times(mass.x, fraction).y, 0u));
}
fn justBelow(mass: vec2u, fraction: u32) -> vec2u {
  let part = share(mass, fraction);
  let borrowed = select(0u, 1u, times(mass.x, fraction).x == 0u);
  return vec2u(part.x - borrowed, part.y - select(0u, borrowed, part.x == 0u));
}
fn join(a: Sum, b: Sum) -> Sum { return Sum(plus(a.mass, b.mass), a.count + b.count); }`;

//| 05-inference/1-sampling.ipynb#score-keys
/** How scores are read: one invocation after the other looks at one of `lanes` shares of a row. What comes out does not depend on it. */
export interface SampleShape {
  rows: number;
  vocab: number;
  /** Invocations a row: a power of two from 16 up. */
  lanes: number;
  /** Whether a mask [rows, ⌈vocab / 32⌉] says which tokens may come. */
  masked?: boolean;
}

/**
 * WGSL that makes a key of a score: whole numbers in the same order, both zeros alike. Not a number is above all, and a token that may not
 * come, or has no chance, is `NEVER`.
 */
export const scoreKeys = `
const NEVER = 0x007fffffu; // the key of -∞
const INFINITE = 0xff800000u; // the key of +∞
fn keyOf(bits: u32, id: u32, limit: u32, word: u32) -> u32 {
  let plain = select(bits, 0u, bits == 0x80000000u);
  let key = select(plain | 0x80000000u, ~plain, plain >= 0x80000000u);
  let number = select(key, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
  return select(NEVER, number, id < limit && ((word >> (id % 32u)) & 1u) == 1u);
}
fn scoreOf(key: u32) -> f32 { return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u)); }`;

//| 05-inference/1-sampling.ipynb#fixed-weights
/** The largest vocabulary: the masses of so many tokens add up to less than 2⁶⁴. */
export const mostTokens = 2 ** 19;

/** WGSL for the weight of a token, at most 1, and the same in units of 2⁻⁴⁴. */
export const tokenMass = `
fn weightOf(key: u32, best: u32, temperature: f32) -> f32 {
  let weight = min(exp((scoreOf(key) - scoreOf(best)) / temperature), 1.0);
  return select(select(weight, 1.0, key == best), 0.0, key <= NEVER);
}
fn massOf(weight: f32) -> vec2u {
  let scaled = weight * 4096.0;
  let high = floor(scaled);
  return vec2u(u32((scaled - high) * 4294967296.0), u32(high));
}`;

//| 05-inference/1-sampling.ipynb#each-score
/** WGSL for the key of one token. */
export function keyAt({ masked }: SampleShape, width: 1 | 4): string {
  const bits = width === 4 ? "scores[at / 4u][at % 4u]" : "scores[at]";
  return `
fn keyAt(row: u32, id: u32, limit: u32) -> u32 {
  let at = row * sizes.vocab + id;
  return keyOf(${bits}, id, limit, ${masked ? "mask[row * sizes.words + id / 32u]" : "0xffffffffu"});
}`;
}

/** WGSL that reads a row, some loads of it as `way` says, and does `visit` with the `id` and the `key` of every token. */
export function eachToken({ vocab, masked }: SampleShape, way: string, visit: string): string {
  const width = vectorWidth(vocab);
  const parts = partsOf("loaded", width).map(
    (part, j) => `
    { let id = i * ${width}u + ${j}u; let key = keyOf(${part}, id, limit, word); ${visit} }`,
  );
  return `
  for (${way}) {
    let loaded = scores[row * (sizes.vocab / ${width}u) + i];
    let word = ${masked ? `mask[row * sizes.words + i * ${width}u / 32u]` : "0xffffffffu"};${parts.join("")}
  }`;
}

//| 05-inference/1-sampling.ipynb#bins
/** WGSL for a number of bins in the workgroup's memory, one a lane, into which all lanes put tokens at the same time. */
export function tokenBins(lanes: number): string {
  return `
const LANES = ${lanes}u;
var<workgroup> lows: array<atomic<u32>, ${lanes}>;
var<workgroup> highs: array<atomic<u32>, ${lanes}>;
var<workgroup> counts: array<atomic<u32>, ${lanes}>;
var<workgroup> latest: array<atomic<u32>, ${lanes}>;
fn binAt(bin: u32) -> Sum {
  return Sum(vec2u(atomicLoad(&lows[bin]), atomicLoad(&highs[bin])), atomicLoad(&counts[bin]));
}
fn setBin(bin: u32, sum: Sum) {
  atomicStore(&lows[bin], sum.mass.x);
  atomicStore(&highs[bin], sum.mass.y);
  atomicStore(&counts[bin], sum.count);
}
fn putInto(bin: u32, mass: vec2u, id: u32) {
  let before = atomicAdd(&lows[bin], mass.x);
  atomicAdd(&highs[bin], mass.y + select(0u, 1u, before + mass.x < before));
  atomicAdd(&counts[bin], 1u);
  atomicStore(&latest[bin], id);
}`;
}

//| 05-inference/1-sampling.ipynb#find-bin
/**
 * WGSL that finds the first bin with which the mass (or the number of tokens) passes `need`, counted on from what came `before`
 * all bins. Each of some lanes adds up 16 bins first, so that the one that searches takes steps of 16.
 */
export function findBin(lanes: number): string {
  const groups = lanes / 16;
  return `
struct Found { bin: u32, count: u32, latest: u32, before: Sum }
var<workgroup> groupSums: array<Sum, ${groups}>;
var<workgroup> found: Found;
fn passes(sum: Sum, need: vec2u, byCount: bool) -> bool {
  return isLess(need, select(sum.mass, vec2u(sum.count, 0u), byCount));
}
fn findBin(start: Sum, need: vec2u, byCount: bool, lane: u32) -> Found {
  workgroupBarrier();
  if (lane < ${groups}u) {
    var sum = Sum();
    for (var bin = lane * 16u; bin < lane * 16u + 16u; bin++) { sum = join(sum, binAt(bin)); }
    groupSums[lane] = sum;
  }
  workgroupBarrier();
  if (lane == 0u) {
    var before = start;
    var bin = 0u;
    while (bin < LANES - 16u && !passes(join(before, groupSums[bin / 16u]), need, byCount)) {
      before = join(before, groupSums[bin / 16u]);
      bin += 16u;
    }
    let last = bin + 15u;
    while (bin < last && !passes(join(before, binAt(bin)), need, byCount)) {
      before = join(before, binAt(bin));
      bin++;
    }
    found = Found(bin, atomicLoad(&counts[bin]), atomicLoad(&latest[bin]), before);
  }
  return workgroupUniformLoad(&found);
}`;
}

//| 05-inference/1-sampling.ipynb#agree
/** WGSL for what all lanes of a row must know: the highest key, the mass of all, and how many tokens are on the list. */
export function rowMemory(lanes: number): string {
  return `
var<workgroup> highest: atomic<u32>;
var<workgroup> listed: atomic<u32>;
var<workgroup> totalLow: atomic<u32>;
var<workgroup> totalHigh: atomic<u32>;
var<workgroup> laneHighest: array<u32, ${lanes}>;
var<workgroup> agreed: vec2u;
fn agreeOnHighest(own: u32, lane: u32) -> u32 {
  laneHighest[lane] = own;
  atomicMax(&highest, own);
  workgroupBarrier();
  if (lane == 0u) { agreed = vec2u(atomicLoad(&highest), 0u); }
  return workgroupUniformLoad(&agreed).x;
}
fn agreeOnTotal(own: vec2u, lane: u32) -> vec2u {
  if (lane == 0u) { atomicStore(&totalLow, 0u); atomicStore(&totalHigh, 0u); }
  workgroupBarrier();
  let before = atomicAdd(&totalLow, own.x);
  atomicAdd(&totalHigh, own.y + select(0u, 1u, before + own.x < before));
  workgroupBarrier();
  if (lane == 0u) { agreed = vec2u(atomicLoad(&totalLow), atomicLoad(&totalHigh)); }
  return workgroupUniformLoad(&agreed);
}`;
}

//| 05-inference/1-sampling.ipynb#least-key
/** WGSL for a key that at least `count` tokens of the row reach: the count-th highest of the lanes' own highest, if there are so many lanes. */
export const leastKeyFor = `
fn leastKeyFor(count: u32, lane: u32) -> u32 {
  let own = laneHighest[lane];
  if (lane == 0u) { agreed = vec2u(); }
  workgroupBarrier();
  if (count > 0u && count <= LANES) {
    var rank = 0u;
    for (var other = 0u; other < LANES; other++) {
      rank += select(0u, 1u, laneHighest[other] > own || (laneHighest[other] == own && other < lane));
    }
    if (rank == count - 1u) { agreed = vec2u(own, 0u); }
  }
  return max(workgroupUniformLoad(&agreed).x, NEVER + 1u);
}`;

/** WGSL that lists the tokens of a row that satisfy a `condition`, in any order, and says how many `candidates` there are. */
export function listTokens(shape: SampleShape, condition: string): string {
  const visit = `if (${condition}) { list[row * sizes.vocab + atomicAdd(&listed, 1u)] = id; }`;
  return `${eachToken(shape, "var i = lane; i < loads; i += LANES", visit)}
  storageBarrier();
  workgroupBarrier();
  if (lane == 0u) { agreed = vec2u(atomicLoad(&listed), 0u); }
  let candidates = workgroupUniformLoad(&agreed).x;`;
}

//| 05-inference/1-sampling.ipynb#descent
/**
 * WGSL that finds the listed token with which the mass (or the number) of those before it and its own passes `need`. The order is by
 * score from the highest down, that of equals by id. Each round spreads what is left over all bins and goes on with one of them, until that has
 * one token. Sets `endOrder` (how far its key is below the best), `endId`, and the `mass` up to and with it.
 */
export function descend(lanes: number): string {
  const digits = Math.log2(lanes);
  return `
    before = Sum();
    var order = 0u;
    var areEqual = false;
    var base = 0u;
    var shift = topShift(reach);
    loop {
      setBin(lane, Sum());
      workgroupBarrier();
      for (var c = lane; c < candidates; c += LANES) {
        let id = list[row * sizes.vocab + c];
        let key = keyAt(row, id, limit);
        let place = select(best - key, id, areEqual);
        let bin = (place - base) >> shift;
        if (place >= base && bin < LANES && (!areEqual || best - key == order)) {
          putInto(bin, massOf(weightOf(key, best, temperature)), id);
        }
      }
      let at = findBin(before, need, byCount, lane);
      before = at.before;
      if (at.count == 1u || (areEqual && shift == 0u)) {
        let key = keyAt(row, at.latest, limit);
        endOrder = best - key;
        endId = at.latest;
        mass = plus(before.mass, massOf(weightOf(key, best, temperature)));
        break;
      }
      base += at.bin << shift;
      if (shift > 0u) { shift = max(shift, ${digits}u) - ${digits}u; continue; }
      order = base; // one score, and more than one token: now by their ids
      areEqual = true;
      base = 0u;
      shift = topShift(limit);
    }`;
}

/** WGSL for the number of lower digits that do not count when numbers up to `greatest` are spread over the bins. */
export function topShift(lanes: number): string {
  const digits = Math.log2(lanes);
  return `
fn topShift(greatest: u32) -> u32 { return max(32u - countLeadingZeros(greatest), ${digits}u) - ${digits}u; }`;
}

//| 05-inference/1-sampling.ipynb#draw-by-id
/**
 * WGSL for the `mass` of all tokens and, where nothing is cut off, for the draw in the order of ids. Each lane adds up a share of neighbours. The share in which
 * the draw falls is shared out again, until it is a single load, whose tokens are gone through.
 */
export function drawById(shape: SampleShape, width: 1 | 4): string {
  const add = "sum = plus(sum, massOf(weightOf(key, best, temperature)));";
  return `
  let isWhole = topK == 0u && topP == ALL && minP == 0.0;
  var start = 0u;
  var size = loads;
  while (topK == 0u && size > 0u) {
    let isFirst = size == loads && start == 0u;
    let end = min(start + size, loads);
    size = (end - start + LANES - 1u) / LANES;
    let first = start + lane * size;
    let past = min(first + size, end);
    var sum = vec2u();${eachToken(shape, "var i = first; i < past; i++", add)}
    setBin(lane, Sum(sum, 0u));
    if (isFirst) {
      mass = agreeOnTotal(sum, lane);
      need = share(mass, uniform01);
      if (!isWhole) { break; }
    }
    let at = findBin(before, need, false, lane);
    before = at.before;
    start += at.bin * size;
    if (size == 1u) { break; }
  }
  if (isWhole) {
    if (lane == 0u) {
      var id = start * ${width}u;
      let last = min(id + ${width}u, limit) - 1u;
      var passed = before.mass;
      loop {
        passed = plus(passed, massOf(weightOf(keyAt(row, id, limit), best, temperature)));
        if (id >= last || isLess(need, passed)) { break; }
        id++;
      }
      chosen[row] = id;
    }
    return;
  }`;
}

//| 05-inference/1-sampling.ipynb#min-p-mass
/** WGSL for the `mass` of the listed tokens that are kept so far and, with min-p, likely enough. */
export const keptMass = `
      if (minP > 0.0) {
        var sum = vec2u();
        for (var c = lane; c < candidates; c += LANES) {
          let id = list[row * sizes.vocab + c];
          let key = keyAt(row, id, limit);
          let weight = weightOf(key, best, temperature);
          let order = best - key;
          let isKept = order < endOrder || (order == endOrder && id <= endId);
          if (isKept && weight >= minP) { sum = plus(sum, massOf(weight)); }
        }
        mass = agreeOnTotal(sum, lane);
      }`;

//| 05-inference/1-sampling.ipynb#cut-and-draw
/** WGSL for top-k, top-p and the draw, in this order: each looks for a token in the order of scores, those before it being kept. */
export function cutAndDraw(lanes: number): string {
  return `
  let reach = best - leastKey;
  var endOrder = ALL;
  var endId = ALL;
  for (var stage = 0u; stage < 3u; stage++) {
    if ((stage == 0u && topK == 0u) || (stage == 1u && topP == ALL)) { continue; }
    let byCount = stage == 0u;
    if (stage == 0u) { need = vec2u(min(topK, candidates) - 1u, 0u); }
    if (stage == 1u) { need = justBelow(mass, topP); }
    if (stage == 2u) {${keptMass}
      need = share(mass, uniform01);
    }
${descend(lanes)}
  }`;
}

//| 05-inference/1-sampling.ipynb#sample-frame
/** WGSL for the settings of a row, and words of 32 bits that they take. */
export const rowSettings = `
struct Settings {
  temperature: f32, topK: u32, topP: u32, minP: f32, uniform01: u32, limit: u32,
  repetition: f32, presence: f32, frequency: f32,
}
const ALL = 0xffffffffu;`;
export const settingsWords = 9;

/** What is written in place of an id: the scores were not numbers, or no token may come. */
export const damagedScores = 0xffffffff;
export const nothingAllowed = 0xfffffffe;

/** All functions that a kernel with a workgroup a row needs. */
export function sampleHead(shape: SampleShape): string {
  const { vocab, lanes } = shape;
  const texts = [rowSettings, longNumbers, scoreKeys, tokenMass, keyAt(shape, vectorWidth(vocab))];
  return [...texts, tokenBins(lanes), findBin(lanes), rowMemory(lanes), leastKeyFor, topShift(lanes)].join(
    "\n",
  );
}

/** What such a kernel reads, and how it is laid out. */
export function sampleFrame({ rows, vocab, lanes, masked }: SampleShape) {
  const scores = `scores: array<${vectorWidth(vocab) === 4 ? "vec4u" : "u32"}>`;
  return {
    reads: [scores, "settings: array<Settings>", ...(masked ? ["mask: array<u32>"] : [])],
    sizes: { rows, vocab, words: Math.ceil(vocab / 32) },
    workgroupSize: lanes,
    workgroups: rows,
  };
}

//| 05-inference/1-sampling.ipynb#sample-start
/** WGSL that begins a kernel: the row, its settings, and the `best` key of it. */
export function beginRow(shape: SampleShape): string {
  const width = vectorWidth(shape.vocab);
  return `
  let row = workgroup;
  if (row >= sizes.rows) { return; }
  let limit = settings[row].limit;
  let loads = (limit + ${width - 1}u) / ${width}u;
  var own = NEVER;${eachToken(shape, "var i = lane; i < loads; i += LANES", "own = max(own, key);")}
  let best = agreeOnHighest(own, lane);`;
}

//| 05-inference/1-sampling.ipynb#sample-kernel
/**
 * Draws one token for each row of scores [rows, vocab], a workgroup a row, by the row's own settings: `chosen` [rows]. Masses are whole numbers, which add up to the same
 * in whatever order, so a row's token does not depend on the other rows, on the adapter's lanes, or on who came first. `list` [rows, vocab] is room to work in.
 */
export function sampleKernel(shape: SampleShape): Kernel {
  const { rows, vocab, lanes, masked = false } = shape;
  const width = vectorWidth(vocab);
  const least = "key >= leastKey && weightOf(key, best, temperature) >= leastWeight";
  return kernel({
    name: `sample ${rows}x${vocab}${masked ? ", masked" : ""}`,
    key: `sample ${width} ${lanes} ${masked}`,
    ...sampleFrame(shape),
    writes: ["chosen: array<u32>", "list: array<u32>"],
    head: () => sampleHead(shape),
    body: () => `${beginRow(shape)}
  if (best >= INFINITE || best <= NEVER) {
    if (lane == 0u) { chosen[row] = select(${damagedScores}u, ${masked ? nothingAllowed : damagedScores}u, best <= NEVER); }
    return;
  }
  let temperature = settings[row].temperature;
  let topK = settings[row].topK;
  let topP = settings[row].topP;
  let minP = settings[row].minP;
  let uniform01 = settings[row].uniform01;
  var before = Sum();
  var need = vec2u();
  var mass = vec2u();
${drawById(shape, width)}
  let leastKey = leastKeyFor(topK, lane);
  let beyond = 0.5 * f32(ALL - topP) / 4294967296.0 * f32(mass.y) / 4096.0 / f32(limit);
  let leastWeight = select(select(beyond, minP, topP == ALL), 0.0, topK > 0u);
${listTokens(shape, least)}
${cutAndDraw(lanes)}
  if (lane == 0u) { chosen[row] = endId; }`,
  });
}

//| 05-inference/1-sampling.ipynb#pack-settings
/** How the token of one row is chosen; see `SamplingSettings`. */
export interface RowSampling {
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** A random number in [0, 1). */
  uniform: number;
  /** Only ids below it are chosen. */
  limit: number;
}

/** Settings as a kernel reads them. */
export function packSettings(row: RowSampling): number[] {
  const { temperature, topK, topP, minP, uniform, limit } = row;
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = row;
  const isGreedy = temperature === 0 || topP === 0;
  const cuts = isGreedy
    ? [floatBits(1), 1, 0xffffffff, 0]
    : [floatBits(temperature), topK, fixedPoint(topP), floatBits(minP)];
  const penalties = [repetitionPenalty, presencePenalty, frequencyPenalty].map(floatBits);
  return [...cuts, fixedPoint(uniform), limit, ...penalties];
}

/** A number from 0 to 1 in units of 2⁻³², the last of which stands for 1. */
export function fixedPoint(share: number): number {
  return Math.min(0xffffffff, Math.floor(share * 2 ** 32));
}

//| 05-inference/1-sampling.ipynb#edit-kernel
/** Words of an edit as a kernel reads it. */
export const editWords = 4;

/** An edit of one row as a kernel reads it. */
export function packEdit(row: number, { id, bias, isUsed, times }: ScoreEdit): number[] {
  return [row, id, isUsed ? times + 1 : 0, floatBits(bias)];
}

/** Changes single scores [rows, vocab] in place, as `editedScore` does: one invocation an edit [capacity, 4]. Those of a row that does not exist are skipped. */
export function editKernel(rows: number, vocab: number, capacity: number): Kernel {
  return kernel({
    name: `edit ${capacity} of ${rows}x${vocab} scores`,
    reads: ["edits: array<vec4u>", "settings: array<Settings>"],
    writes: ["scores: array<f32>"],
    sizes: { rows, vocab, capacity },
    head: rowSettings,
    workgroupSize: 64,
    workgroups: Math.ceil(capacity / 64),
    body: `
  if (thread >= sizes.capacity) { return; }
  let edit = edits[thread];
  if (edit.x >= sizes.rows || edit.y >= sizes.vocab) { return; }
  let row = settings[edit.x];
  let at = edit.x * sizes.vocab + edit.y;
  var score = scores[at] + bitcast<f32>(edit.w);
  if (edit.z > 0u) {
    score = select(score * row.repetition, score / row.repetition, score > 0.0);
    score -= row.frequency * f32(edit.z - 1u);
    score -= select(0.0, row.presence, edit.z > 1u);
  }
  scores[at] = score;`,
  });
}

//| 05-inference/1-sampling.ipynb#likeliest-kernel
/** The most tokens that are told with each. */
export const mostAlternatives = 20;

/** WGSL that puts the listed tokens down to a place into `heads`, in any order, and says how many they are. */
export const gatherHeads = `
  for (var c = lane; c < candidates; c += LANES) {
    let id = list[row * sizes.vocab + c];
    let order = best - keyAt(row, id, limit);
    if (order < endOrder || (order == endOrder && id <= endId)) { heads[atomicAdd(&gathered, 1u)] = vec2u(order, id); }
  }
  workgroupBarrier();`;

/** WGSL that writes each of the `heads` to where it belongs: after as many as are before it. */
export const rankHeads = `
  if (lane < count) {
    let mine = heads[lane];
    var rank = 0u;
    for (var other = 0u; other < count; other++) {
      let theirs = heads[other];
      rank += select(0u, 1u, theirs.x < mine.x || (theirs.x == mine.x && theirs.y < mine.y));
    }
    ids[row * sizes.places + rank] = mine.y;
    logarithms[row * (sizes.places + 1u) + rank + 1u] = scoreOf(best - mine.x) - logSum;
  }`;

//| 05-inference/1-sampling.ipynb#likeliest-kernel-2
/**
 * For each row of scores [rows, vocab] as the model gave them: the logarithm of the probability of its token in `chosen` [rows], and those
 * of the likeliest `places` tokens, likeliest first: `ids` [rows, places], `logarithms` [rows, 1 + places]. Places beyond the vocabulary keep what they hold.
 */
export function likeliestKernel(shape: SampleShape, places: number): Kernel {
  const { rows, vocab, lanes } = shape;
  return kernel({
    ...sampleFrame(shape),
    name: `likeliest ${places} of ${rows}x${vocab}`,
    key: `likeliest ${vectorWidth(vocab)} ${lanes}`,
    reads: [...sampleFrame(shape).reads, "chosen: array<u32>"],
    writes: ["ids: array<u32>", "logarithms: array<f32>", "list: array<u32>"],
    sizes: { ...sampleFrame(shape).sizes, places },
    head: () =>
      `${sampleHead(shape)}\nvar<workgroup> gathered: atomic<u32>;\nvar<workgroup> heads: array<vec2u, ${mostAlternatives}>;`,
    body: () => `${beginRow(shape)}
  let temperature = 1.0;
  var sum = vec2u();${eachToken(shape, "var i = lane; i < loads; i += LANES", "sum = plus(sum, massOf(weightOf(key, best, temperature)));")}
  var mass = agreeOnTotal(sum, lane);
  let logSum = scoreOf(best) + log(f32(mass.y) / 4096.0 + f32(mass.x) / 17592186044416.0);
  if (lane == 0u) {
    let key = keyAt(row, min(chosen[row], limit - 1u), limit);
    logarithms[row * (sizes.places + 1u)] = scoreOf(key) - logSum;
  }
  if (best >= INFINITE || best <= NEVER) { return; }
  let leastKey = leastKeyFor(sizes.places, lane);
${listTokens(shape, "key >= leastKey")}
  let count = min(sizes.places, candidates);
  if (count == 0u) { return; }
  let reach = best - leastKey;
  let byCount = true;
  let need = vec2u(count - 1u, 0u);
  var before = Sum();
  var endOrder = ALL;
  var endId = ALL;
${descend(lanes)}
${gatherHeads}
${rankHeads}`,
  });
}
