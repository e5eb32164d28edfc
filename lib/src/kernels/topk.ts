// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { floatBits, range, vectorAlias, vectorWidth } from "./wgsl.js";

//| 03-moe/1-why-experts.ipynb#topk-shape
/** Experts in groups of neighbours, of which only the best few may be chosen from. */
export interface ExpertGroups {
  /** Groups of equal size. */
  count: number;
  /** How many of them a token may choose from. */
  kept: number;
}

/** What the router's kernels work on. */
export interface TopkShape {
  /** Tokens. */
  rows: number;
  experts: number;
  /** Experts that each token visits. */
  expertsPerToken: number;
  /** Whether the scores of the chosen are divided by their sum. */
  normalize: boolean;
  /** What makes scores of logits: softmax over all experts unless given, or the sigmoid of each by itself. */
  scoring?: "softmax" | "sigmoid";
  /** Whether a number for each expert is added to its score for the choice alone. */
  biased?: boolean;
  groups?: ExpertGroups;
  /** Weights are multiplied by this at the end, 1 unless given. */
  scale?: number;
}

//| 03-moe/1-why-experts.ipynb#check-topk
/** Throws unless every token can visit as many different experts as asked for. */
export function checkTopk({ experts, expertsPerToken, groups = { count: 1, kept: 1 } }: TopkShape): void {
  const { count, kept } = groups;
  if (!(count >= 1 && experts % count === 0))
    throw new Error(`${experts} experts cannot be put into ${count} groups of equal size.`);
  if (!(kept >= 1 && kept <= count))
    throw new Error(`A token cannot keep ${kept} of ${count} groups: choose between 1 and ${count}.`);
  const most = (experts / count) * kept;
  if (expertsPerToken >= 1 && expertsPerToken <= most) return;
  const from = kept < count ? `${most} experts in ${kept} of ${count} groups` : `${experts} experts`;
  throw new Error(`A token cannot visit ${expertsPerToken} of ${from}: choose between 1 and ${most}.`);
}

//| 03-moe/1-why-experts.ipynb#insert-score
/** WGSL for an empty list of the best: its places name the first entries, so that they always point at something that exists. */
export function emptyList(list: string, places: number): string[] {
  return range(places).map((j) => `  var ${list}Score${j} = -3e38; var ${list}${j} = ${j}u;`);
}

/**
 * WGSL that puts `score` of entry `at` into a list with listScore0 ≥ listScore1 ≥ … if it belongs there, from the last place
 * up: an entry moves down one place when the new score is above the entry before it. Only a strictly higher score passes
 * another, and entries come in order, so of equal scores the lower index stays first.
 */
export function insertScore(list: string, places: number, at: string): string[] {
  const [score, entry] = [`${list}Score`, list];
  const lower = range(places - 1).map((above) => {
    const here = above + 1;
    return [
      `    if (score > ${score}${here}) {`,
      `      let passes = score > ${score}${above};`,
      `      ${score}${here} = select(score, ${score}${above}, passes);`,
      `      ${entry}${here} = select(${at}, ${entry}${above}, passes);`,
      "    }",
    ];
  });
  const first = [`    if (score > ${score}0) { ${score}0 = score; ${entry}0 = ${at}; }`];
  return [...lower.reverse().flat(), ...first];
}

//| 03-moe/1-why-experts.ipynb#row-totals
/** The parts of an element that is loaded `width` numbers at a time. */
export function partsOf(value: string, width: 1 | 4): string[] {
  return width === 4 ? ["x", "y", "z", "w"].map((part) => `${value}.${part}`) : [value];
}

/** WGSL: the first place of row `thread`, in numbers and in elements. */
export const rowStart = `
  if (thread >= sizes.rows) { return; }
  let first = thread * sizes.experts;
  let start = thread * sizes.length;`;

/**
 * WGSL for what a row's scores are made with: the `total` of `each` element `v`, added up in order, and for softmax the
 * `highest` logit, which is taken out first so that nothing overflows.
 */
export function rowTotals({ scoring }: TopkShape, width: 1 | 4, length: string): string {
  const total = (each: string) => `
  var total = 0.0;
  for (var i = 0u; i < ${length}; i++) {
    let v = ${each};
    ${partsOf("v", width)
      .map((part) => `total += ${part};`)
      .join(" ")}
  }`;
  if (scoring === "sigmoid") return total("1 / (1 + exp(-logits[start + i]))");
  return `
  var most = logits[start];
  for (var i = 1u; i < ${length}; i++) { most = max(most, logits[start + i]); }
  let highest = ${partsOf("most", width).reduce((a, b) => `max(${a}, ${b})`)};${total("exp(logits[start + i] - highest)")}`;
}

//| 03-moe/1-why-experts.ipynb#store-choices
/** WGSL that writes the chosen experts of row `thread`, and their weights. */
export function storeChoices({ expertsPerToken, normalize, scoring }: TopkShape): string[] {
  const places = expertsPerToken;
  const least = scoring === "sigmoid" ? " + 1e-20" : ""; // sigmoids may all be zero, as probabilities cannot
  return [
    ...range(places).map((j) => `  let weight${j} = scoreOf(first + choice${j});`),
    `  let chosen = ${
      normalize
        ? range(places)
            .map((j) => `weight${j}`)
            .join(" + ") + least
        : "1.0"
    };`,
    ...range(places).map(
      (j) => `  weights[thread * ${places}u + ${j}u] = weight${j} / chosen * bitcast<f32>(sizes.scale);`,
    ),
    ...range(places).map((j) => `  experts[thread * ${places}u + ${j}u] = choice${j};`),
  ];
}

//| 03-moe/1-why-experts.ipynb#score-for-choice
/** WGSL for the score by which an expert is chosen: its own, plus its bias, which may be −∞ and then counts as very low. */
export function scoreForChoice({ biased }: TopkShape, score: string, expert: string): string {
  return biased ? `${score} + max(bias[${expert}], -1e38)` : score;
}

/** WGSL that finds the groups whose two best experts have the highest sums, `kept0`, `kept1` and so on. */
export function keepGroups(shape: TopkShape, { kept }: ExpertGroups): string[] {
  return [
    "  let members = sizes.experts / sizes.groups;",
    ...emptyList("kept", kept),
    "  for (var g = 0u; g < sizes.groups; g++) {",
    "    var best = -1e38; var second = -1e38;",
    "    for (var e = g * members; e < (g + 1u) * members; e++) {",
    `      let score = ${scoreForChoice(shape, "scoreOf(first + e)", "e")};`,
    "      second = max(second, min(best, score));",
    "      best = max(best, score);",
    "    }",
    "    let score = best + select(second, 0.0, members == 1u);",
    ...insertScore("kept", kept, "g"),
    "  }",
  ];
}

//| 03-moe/1-why-experts.ipynb#choose-experts
/** WGSL that writes the probabilities of row `thread`, `width` at a time. What `then` says is done with each `score`. */
export function writeProbabilities(
  { scoring }: TopkShape,
  width: 1 | 4,
  length: string,
  then: string[],
): string[] {
  const isSigmoid = scoring === "sigmoid";
  return [
    `  for (var i = 0u; i < ${length}; i++) {`,
    `    let raw = ${isSigmoid ? "1 / (1 + exp(-logits[start + i]))" : "exp(logits[start + i] - highest) / total"};`,
    `    for (var part = 0u; part < ${width}u; part++) {`,
    `    let e = i * ${width}u + part;`,
    `    let own = raw${width === 4 ? "[part]" : ""};`,
    `    probabilities[first + e] = own${isSigmoid ? " / total" : ""};`,
    ...then,
    "    }",
    "  }",
  ];
}

/** WGSL that chooses `choice0`, `choice1` and so on: from all experts on the way, or afterwards from those of the kept groups. */
export function chooseExperts(shape: TopkShape, width: 1 | 4, length: string): string[] {
  const k = shape.expertsPerToken;
  const { groups } = shape;
  const insert = (score: string) => [
    `    let score = ${scoreForChoice(shape, score, "e")};`,
    ...insertScore("choice", k, "e"),
  ];
  if (!groups) return [...emptyList("choice", k), ...writeProbabilities(shape, width, length, insert("own"))];
  const isKept = range(groups.kept)
    .map((j) => `e / members == kept${j}`)
    .join(" || ");
  return [
    ...writeProbabilities(shape, width, length, []),
    ...keepGroups(shape, groups),
    ...emptyList("choice", k),
    "  for (var e = 0u; e < sizes.experts; e++) {",
    `    if (!(${isKept})) { continue; }`,
    ...insert("scoreOf(first + e)"),
    "  }",
  ];
}

//| 03-moe/1-why-experts.ipynb#topk-kernel
/**
 * Routes one token an invocation. logits [rows, experts] become probabilities [rows, experts] (softmax, or sigmoids divided by
 * their sum), the k experts with the highest scores [rows, k], and their weights [rows, k]: the scores, divided by their sum if
 * `normalize`, times `scale`. With a bias [experts] the choice is by score + bias; with groups, among the experts of the best.
 * Compiled once for each k and recipe: rows and experts are sizes, but for a few experts, whose loops are worth unrolling.
 * Sources: Hugging Face's Qwen3MoeTopKRouter and DeepseekV3TopkRouter.
 */
export function topkKernel(shape: TopkShape): Kernel {
  checkTopk(shape);
  const { rows, experts, normalize, biased, groups } = shape;
  const k = shape.expertsPerToken;
  const scoring = shape.scoring ?? "softmax";
  const width = vectorWidth(experts);
  const length = width === 4 && experts <= 8 ? `${experts / width}u` : "sizes.length";
  const notes = [
    normalize && "normalized",
    biased && "biased",
    groups && `best ${groups.kept} of ${groups.count} groups`,
  ];
  const logit = width === 4 ? "logits[i / 4u][i % 4u]" : "logits[i]";
  const score = scoring === "sigmoid" ? `1 / (1 + exp(-${logit}))` : "probabilities[i]";
  return kernel({
    name: [`top ${k} of ${experts} for ${rows}`, scoring, ...notes.filter(Boolean)].join(", "),
    reads: ["logits: array<V>", ...(biased ? ["bias: array<f32>"] : [])],
    writes: ["probabilities: array<f32>", "weights: array<f32>", "experts: array<u32>"],
    sizes: {
      rows,
      experts,
      length: experts / width,
      groups: groups?.count ?? 1,
      scale: floatBits(shape.scale ?? 1),
    },
    head: `${vectorAlias(width)}\nfn scoreOf(i: u32) -> f32 { return ${score}; }`,
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: [
      rowStart,
      rowTotals(shape, width, length),
      ...chooseExperts(shape, width, length),
      ...storeChoices(shape),
    ].join("\n"),
  });
}

//| 03-moe/1-why-experts.ipynb#topk-backward
/**
 * The gradient of the logits [rows, experts] from that of the weights [rows, k]; the choice itself has none. With gradients g_j of the weights w_j,
 * s = Σ w_j g_j and the scale c: a chosen expert's logit gets w_j (g_j − s/c), and the others −p s, or with `normalize` nothing, since
 * then the weights are a softmax over the chosen logits alone. A sigmoid has a slope of its own, 1 − score, and no others:
 * without `normalize` not even the chosen hear of each other. Reads the probabilities, or the logits of sigmoids.
 */
export function topkBackwardKernel(shape: TopkShape): Kernel {
  const { rows, experts, normalize } = shape;
  const k = shape.expertsPerToken;
  const scoring = shape.scoring ?? "softmax";
  const isSigmoid = scoring === "sigmoid";
  const others = normalize || isSigmoid ? "0.0" : "-given[e] * sum";
  const common = normalize || !isSigmoid ? " - mean" : "";
  const slope = isSigmoid ? " / (1 + exp(given[first + experts[j]]))" : "";
  return kernel({
    name: [
      `top ${k} of ${experts} for ${rows}`,
      scoring,
      ...(normalize ? ["normalized"] : []),
      "backward",
    ].join(", "),
    reads: ["given: array<f32>", "weights: array<f32>", "experts: array<u32>", "gradient: array<f32>"],
    writes: ["logits: array<f32>"],
    sizes: { rows, experts, choices: k, scale: floatBits(shape.scale ?? 1) },
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: `
  if (thread >= sizes.rows) { return; }
  let first = thread * sizes.experts;
  let last = first + sizes.experts;
  let mine = thread * sizes.choices;
  let end = mine + sizes.choices;
  var sum = 0.0;
  for (var j = mine; j < end; j++) { sum += weights[j] * gradient[j]; }
  let mean = sum / bitcast<f32>(sizes.scale);
  for (var e = first; e < last; e++) { logits[e] = ${others}; }
  for (var j = mine; j < end; j++) { logits[first + experts[j]] = weights[j] * (gradient[j]${common})${slope}; }`,
  });
}
