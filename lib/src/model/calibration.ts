// Extracted from chapters/05-inference/4-smaller-numbers.ipynb: edit it there, or here and run `npm run backport`.
import type { ModelConfig } from "../formats/config.js";
import { padding } from "../kernels/dispatch.js";
import type { OperandFormat } from "../kernels/operands.js";
import { withoutGradients } from "../tensor/autograd.js";
import type { Weight } from "../tensor/products.js";
import { indices, scope, sizeOf, tensorsIn } from "../tensor/tensor.js";
import { type LinearInput, watchLinears } from "../tensor/watch.js";
import { modelOutline } from "./count.js";
import { hiddenStates, sequenceContext } from "./decoder.js";
import { modelFamilies, weightsOf } from "./families.js";
import { roundedBy } from "./quantize.js";
import {
  type Block,
  type Dense,
  type Experts,
  type Model,
  type ModelWeight,
  type Norm,
  partAt,
} from "./structure.js";

//| 05-inference/4-smaller-numbers.ipynb#statistics
/** For each matrix, by its path: the sum of the squares of each of its inputs over a text, [inputs] or [experts, inputs]. */
export type InputSquares = Map<string, Float64Array>;

/** Adds the squares of rows [rows, inputs] to sums [experts, inputs], each row's to its expert's. */
export function addSquares(
  sums: Float64Array,
  rows: Float32Array,
  inputs: number,
  expertOf: (row: number) => number,
): void {
  for (let row = 0; row < rows.length / inputs; row++) {
    const expert = expertOf(row);
    if (expert === padding) continue;
    for (let j = 0; j < inputs; j++) sums[expert * inputs + j] += rows[row * inputs + j] ** 2;
  }
}

//| 05-inference/4-smaller-numbers.ipynb#statistics-model
/** What texts (rows of ids) send through the matrices of a model. */
export async function inputSquares(
  model: Model,
  texts: ArrayLike<number>[],
  onText: (done: number) => void = () => {},
): Promise<InputSquares> {
  const pathOf = new Map(weightsOf(model.config).map(({ path }) => [partAt(model, path), path]));
  const sums: InputSquares = new Map();
  for (const [done, text] of texts.entries()) {
    onText(done);
    const ids = indices(Array.from(text), [1, text.length]);
    const seen: LinearInput[] = scope(() => {
      const inputs: LinearInput[] = [];
      const context = sequenceContext(model.config, text.length);
      withoutGradients(() =>
        watchLinears(
          (input) => inputs.push(input),
          () => hiddenStates(model, ids, context),
        ),
      );
      return inputs;
    });
    for (const { x, weight, tiles } of seen) {
      const path = pathOf.get(weight);
      if (path === undefined) continue;
      const { shape } = weight as Weight;
      const inputs = shape[shape.length - 1];
      const sum = sums.get(path) ?? new Float64Array((tiles ? shape[0] : 1) * inputs);
      const owners = await tiles?.owners.array();
      addSquares(sum, await x.array(), inputs, (row) => owners?.[Math.floor(row / tiles!.rows)] ?? 0);
      sums.set(path, sum);
    }
    for (const tensor of new Set(tensorsIn(seen.map(({ x, tiles }) => [x, tiles?.owners])))) tensor.free();
    ids.free();
  }
  return sums;
}

//| 05-inference/4-smaller-numbers.ipynb#folds
/** A place between layers where each channel may be divided by a factor and multiplied by it again: the paths of what is divided, and of what multiplied. */
export interface Fold {
  divided: string[];
  multiplied: string[];
  /** Factors: one for each row that is divided. */
  factors: number;
  /** The factor of each input of what is multiplied, where it is not the one at its own place. */
  factorOf?: (input: number) => number;
}

/** The fold of a norm, where there is one, into the layers that read it. */
export function normFold(norm: Norm | undefined, at: string, multiplied: string[]): Fold[] {
  if (!norm) return [];
  return [{ divided: [`${at}.weight`, `${at}.bias`], multiplied, factors: norm.weight.size }];
}

/** The fold from "up" to "down" of a gated layer: what stands between them is linear in "up", unless it is clamped. */
export function gatedFold({ gate, up, activation }: Dense | Experts, at: string): Fold[] {
  if (!gate || activation === "clamped-silu") return [];
  const factors = sizeOf(up.weight.shape.slice(0, -1));
  return [{ divided: [`${at}.up.weight`, `${at}.up.bias`], multiplied: [`${at}.down.weight`], factors }];
}

//| 05-inference/4-smaller-numbers.ipynb#folds-attention
/** The folds of a block's attention: its norm into what reads it, and values into the output projection. */
export function attentionFolds({ attention, norms }: Block, at: string): Fold[] {
  const path = (name: string) => `${at}.attention.${name}`;
  const inputs =
    attention.kind === "heads" ? ["q", "k", "v"] : [attention.qDown ? "qDown" : "q", "kvDown", "ropeKey"];
  const read = inputs.map((name) => path(`${name}.weight`));
  const before = normFold(norms.beforeAttention, `${at}.norms.beforeAttention`, read);
  const value = attention.kind === "heads" ? "v" : "valueUp";
  const { weight } = attention.kind === "heads" ? attention.v : attention.valueUp;
  const factors = weight.shape[0];
  const width = attention.kind === "heads" ? attention.headDim : attention.valueDim;
  const sharing = attention.o.weight.shape[1] / factors; // query heads that share a head of values
  const factorOf = (input: number) => Math.floor(input / width / sharing) * width + (input % width);
  const divided = [path(`${value}.weight`), path(`${value}.bias`)];
  return [...before, { divided, multiplied: [path("o.weight")], factors, factorOf }];
}

//| 05-inference/4-smaller-numbers.ipynb#folds-model
/** The folds of a block's feed-forward half. */
export function feedForwardFolds({ feedForward, norms }: Block, at: string): Fold[] {
  const path = `${at}.feedForward`;
  const names =
    feedForward.kind === "experts"
      ? ["router", "gate", "up", "shared.gate", "shared.up", "sharedGate"]
      : ["gate", "up"];
  const read = names.map((name) => `${path}.${name}.weight`);
  const shared = feedForward.kind === "experts" && feedForward.shared;
  return [
    ...normFold(norms.beforeFeedForward, `${at}.norms.beforeFeedForward`, read),
    ...gatedFold(feedForward, path),
    ...(shared ? gatedFold(shared, `${path}.shared`) : []),
  ];
}

/** All folds of a model. */
export function foldsOf(config: ModelConfig): Fold[] {
  const { blocks } = modelOutline(config);
  return blocks.flatMap((block, i) => [
    ...attentionFolds(block, `blocks.${i}`),
    ...feedForwardFolds(block, `blocks.${i}`),
  ]);
}

//| 05-inference/4-smaller-numbers.ipynb#apply-folds
/** A fold with its factors. */
export interface FoundFold extends Fold {
  values: Float32Array;
}

/** The factor of the number at each place of a matrix [..., outputs, inputs] that is multiplied. */
export function factorAt(
  { shape }: ModelWeight,
  { factors, factorOf, values }: FoundFold,
): (place: number) => number {
  const inputs = shape[shape.length - 1];
  const ofExpert = shape.length === 3 && factors !== inputs ? inputs : 0;
  const perExpert = inputs * shape[shape.length - 2];
  const inputAt = factorOf ?? ((input: number) => input);
  return (place) => values[Math.floor(place / perExpert) * ofExpert + inputAt(place % inputs)];
}

/** The numbers of a weight when factors stand before and after it. A norm that multiplies by 1 + weight stays one. */
export function applyFolds(
  weight: ModelWeight,
  numbers: Float32Array,
  folds: FoundFold[],
  normKind?: Norm["kind"],
): Float32Array {
  const result = Float32Array.from(numbers);
  const plus = weight.role === "norm" && normKind === "rms1p" ? 1 : 0;
  for (const fold of folds) {
    const columns = numbers.length / fold.factors;
    const factorOf = factorAt(weight, fold);
    if (fold.divided.includes(weight.path))
      for (let i = 0; i < result.length; i++)
        result[i] = (result[i] + plus) / fold.values[Math.floor(i / columns)] - plus;
    if (fold.multiplied.includes(weight.path))
      for (let i = 0; i < result.length; i++) result[i] *= factorOf(i);
  }
  return result;
}

//| 05-inference/4-smaller-numbers.ipynb#search-factors
/**
 * The error that rounding makes in the outputs of a matrix, squared and summed over a text, with its inputs taken one by one: of two
 * roundings one goes up as often as the other goes down, so that what they do together cancels out.
 */
export function outputError(
  weight: ModelWeight,
  exact: Float32Array,
  rounded: Float32Array,
  squares: Float64Array,
): number {
  const inputs = weight.shape[weight.shape.length - 1];
  const perExpert = inputs * weight.shape[weight.shape.length - 2];
  const isPerExpert = squares.length > inputs;
  let error = 0;
  for (let i = 0; i < exact.length; i++) {
    const expert = isPerExpert ? Math.floor(i / perExpert) : 0;
    error += squares[expert * inputs + (i % inputs)] * (rounded[i] - exact[i]) ** 2;
  }
  return error;
}

/** How strong the channels of a fold are on a text: the sum of squares of the inputs that share each factor. */
export function channelSquares(
  { factors, factorOf = (input) => input }: Fold,
  squares: Float64Array,
): Float64Array {
  const sums = new Float64Array(factors);
  for (let j = 0; j < squares.length; j++) sums[factorOf(j)] += squares[j];
  const least = 1e-8 * sums.reduce((most, sum) => Math.max(most, sum), 0) || 1;
  return sums.map((sum) => Math.max(sum, least));
}

/** Factors that are the strengths of channels to a power, with a geometric mean of 1. */
export function factorsOf(squares: Float64Array, power: number): Float32Array {
  const mean = squares.reduce((sum, square) => sum + Math.log(square), 0) / squares.length;
  return Float32Array.from(squares, (square) => Math.exp((power / 2) * (Math.log(square) - mean)));
}

//| 05-inference/4-smaller-numbers.ipynb#search-fold
/** What a calibration works on: the weights by path, their numbers, what a text sends through them, and the format of each. */
export interface CalibrationInputs {
  config: ModelConfig;
  numbersOf(weight: ModelWeight): Float32Array;
  squares: InputSquares;
  formatOf(weight: ModelWeight): OperandFormat;
}

/** The powers that are tried: 0 leaves everything as it is. */
export const triedPowers = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];

//| 05-inference/4-smaller-numbers.ipynb#search-fold-best
/** The best factors of a fold, whose matrices are `matrices`: those with which rounding spoils the outputs least. */
export function bestFactors(
  fold: Fold,
  matrices: ModelWeight[],
  numbersOf: (weight: ModelWeight) => Float32Array,
  { squares, formatOf }: CalibrationInputs,
): FoundFold | undefined {
  const [strengths] = fold.multiplied.flatMap((path) => squares.get(path) ?? []);
  const rounded = matrices.filter(
    (weight) => formatOf(weight).block !== undefined && squares.has(weight.path),
  );
  if (!strengths || rounded.length === 0) return undefined;
  const channels = channelSquares(fold, strengths);
  const exact = new Map(rounded.map((weight) => [weight, numbersOf(weight)]));
  const errorOf = (values: Float32Array) => {
    let error = 0;
    for (const [weight, numbers] of exact) {
      const scaled = applyFolds(weight, numbers, [{ ...fold, divided: [], values }]);
      const back = roundedBy(formatOf(weight), scaled, weight.shape[weight.shape.length - 1]);
      const factor = factorAt(weight, { ...fold, values });
      for (let i = 0; i < back.length; i++) back[i] /= factor(i);
      error += outputError(weight, numbers, back, squares.get(weight.path)!);
    }
    return error;
  };
  const tried = triedPowers
    .map((power) => factorsOf(channels, power))
    .map((values) => ({ values, error: errorOf(values) }));
  return { ...fold, values: tried.reduce((best, other) => (other.error < best.error ? other : best)).values };
}

//| 05-inference/4-smaller-numbers.ipynb#clipping
/** The shares of a group's largest number at which it may be cut off. */
export const triedShares = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7];

/** Numbers, each cut off at the bound of its group. */
export function clipped(numbers: Float32Array, bounds: Float32Array): Float32Array {
  const group = numbers.length / bounds.length;
  return numbers.map((number, i) =>
    Math.max(-bounds[Math.floor(i / group)], Math.min(bounds[Math.floor(i / group)], number)),
  );
}

/** The largest size in each group of so many numbers. */
export function largestOf(numbers: Float32Array, group: number): Float32Array {
  const largest = new Float32Array(numbers.length / group);
  for (let i = 0; i < numbers.length; i++)
    largest[Math.floor(i / group)] = Math.max(largest[Math.floor(i / group)], Math.abs(numbers[i]));
  return largest;
}

//| 05-inference/4-smaller-numbers.ipynb#clipping-best
/** The bound of each group with which rounding spoils the outputs least: some large numbers lose, and all others get a finer scale. */
export function bestBounds(
  weight: ModelWeight,
  numbers: Float32Array,
  squares: Float64Array,
  format: OperandFormat,
): Float32Array {
  const columns = weight.shape[weight.shape.length - 1];
  const group = format.block ?? columns;
  const largest = largestOf(numbers, group);
  const best = largest.map(() => Number.POSITIVE_INFINITY); // errors first, then bounds
  const bounds = Float32Array.from(largest);
  const rows = weight.shape[weight.shape.length - 2] * columns;
  for (const share of triedShares) {
    const cut = largest.map((size) => share * size);
    const rounded = roundedBy(format, clipped(numbers, cut), columns);
    for (let g = 0; g < largest.length; g++) {
      let error = 0;
      for (let i = g * group; i < (g + 1) * group; i++) {
        const expert = squares.length > columns ? Math.floor(i / rows) : 0;
        error += squares[expert * columns + (i % columns)] * (rounded[i] - numbers[i]) ** 2;
      }
      if (error < best[g]) [best[g], bounds[g]] = [error, cut[g]];
    }
  }
  return bounds;
}

//| 05-inference/4-smaller-numbers.ipynb#calibrate
/** The squares of a matrix's inputs when factors have been divided out of them. */
export function dividedSquares(weight: ModelWeight, squares: Float64Array, folds: FoundFold[]): Float64Array {
  const inputs = weight.shape[weight.shape.length - 1];
  const rows = weight.shape[weight.shape.length - 2];
  const factors = folds
    .filter(({ multiplied }) => multiplied.includes(weight.path))
    .map((fold) => factorAt(weight, fold));
  return squares.map((square, j) => {
    const place = Math.floor(j / inputs) * rows * inputs + (j % inputs);
    return factors.reduce((left, factorOf) => left / factorOf(place) ** 2, square);
  });
}

//| 05-inference/4-smaller-numbers.ipynb#calibrate-all
/**
 * The numbers that weights should have before they are rounded, so that the model spoils a text least: channels that the text makes
 * strong are made larger where rounding happens and smaller where it does not, and groups are cut off where that helps the rest.
 */
export function calibrated(inputs: CalibrationInputs): (weight: ModelWeight) => Float32Array {
  const { config, numbersOf, squares, formatOf } = inputs;
  const weights = new Map(weightsOf(config).map((weight) => [weight.path, weight]));
  const { norm } = modelFamilies[config.modelType];
  const folds = new Map<string, FoundFold[]>();
  const folded = (weight: ModelWeight) =>
    applyFolds(weight, numbersOf(weight), folds.get(weight.path) ?? [], norm);
  for (const fold of foldsOf(config)) {
    const found = bestFactors(
      fold,
      fold.multiplied.flatMap((path) => weights.get(path) ?? []),
      folded,
      inputs,
    );
    if (!found) continue;
    for (const path of [...fold.divided, ...fold.multiplied])
      folds.set(path, [...(folds.get(path) ?? []), found]);
  }
  const bounds = new Map<string, Float32Array>();
  return (weight) => {
    const numbers = folded(weight);
    const own = squares.get(weight.path);
    if (!own || formatOf(weight).block === undefined) return numbers;
    const found =
      bounds.get(weight.path) ??
      bestBounds(
        weight,
        numbers,
        dividedSquares(weight, own, folds.get(weight.path) ?? []),
        formatOf(weight),
      );
    bounds.set(weight.path, found);
    return clipped(numbers, found);
  };
}
