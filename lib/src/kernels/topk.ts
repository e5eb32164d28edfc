// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { range, vectorAlias, vectorWidth } from "./wgsl.js";

//| 03-moe/1-why-experts.ipynb#topk-shape
/** What the router's kernels work on. */
export interface TopkShape {
  /** Tokens. */
  rows: number;
  experts: number;
  /** Experts that each token visits. */
  expertsPerToken: number;
  /** Whether the chosen probabilities are divided by their sum. */
  normalize: boolean;
  /** Whether a number for each expert is added to its probability for the choice alone. */
  biased?: boolean;
}

//| 03-moe/1-why-experts.ipynb#check-topk
/** Throws unless every token can visit as many different experts as asked for. */
export function checkTopk({ experts, expertsPerToken }: TopkShape): void {
  if (expertsPerToken >= 1 && expertsPerToken <= experts) return;
  throw new Error(
    `A token cannot visit ${expertsPerToken} of ${experts} experts: choose between 1 and ${experts}.`,
  );
}

//| 03-moe/1-why-experts.ipynb#insert-score
/**
 * WGSL that puts `score` of expert `e` into the list score0 ≥ score1 ≥ … if it belongs there, from the last place up:
 * an entry moves down one place when the new score is above the entry before it. Only a strictly higher score passes
 * another, and experts come in order, so of equal scores the lower index stays first.
 */
export function insertScore(places: number): string[] {
  const lower = range(places - 1).map((above) => {
    const here = above + 1;
    return [
      `    if (score > score${here}) {`,
      `      let passes = score > score${above};`,
      `      score${here} = select(score, score${above}, passes);`,
      `      choice${here} = select(e, choice${above}, passes);`,
      "    }",
    ];
  });
  const first = ["    if (score > score0) { score0 = score; choice0 = e; }"];
  return [...lower.reverse().flat(), ...first];
}

//| 03-moe/1-why-experts.ipynb#row-totals
/**
 * WGSL for the softmax of row `thread` of `logits`, which are read `width` at a time: the `highest`, and the `total` of
 * exp(logit − highest), added up in order.
 */
export function rowTotals(width: 1 | 4): string {
  const parts = width === 4 ? ["v.x", "v.y", "v.z", "v.w"] : ["v"];
  return `
  if (thread >= sizes.rows) { return; }
  let first = thread * sizes.experts;
  let start = thread * sizes.length;
  var most = logits[start];
  for (var i = 1u; i < sizes.length; i++) { most = max(most, logits[start + i]); }
  let highest = ${width === 4 ? "max(max(most.x, most.y), max(most.z, most.w))" : "most"};
  var total = 0.0;
  for (var i = 0u; i < sizes.length; i++) {
    let v = exp(logits[start + i] - highest);
    ${parts.map((part) => `total += ${part};`).join(" ")}
  }`;
}

//| 03-moe/1-why-experts.ipynb#store-choices
/** WGSL that writes the chosen experts of row `thread`, and their weights. */
export function storeChoices(places: number, normalize: boolean): string[] {
  const weight = (j: number) => `probabilities[first + choice${j}]`;
  return [
    `  let chosen = ${normalize ? range(places).map(weight).join(" + ") : "1.0"};`,
    ...range(places).map((j) => `  weights[thread * ${places}u + ${j}u] = ${weight(j)} / chosen;`),
    ...range(places).map((j) => `  experts[thread * ${places}u + ${j}u] = choice${j};`),
  ];
}

//| 03-moe/1-why-experts.ipynb#topk-kernel
/**
 * Routes one token an invocation. logits [rows, experts] become probabilities [rows, experts] (softmax over all experts),
 * the k experts with the highest [rows, k], and their weights [rows, k]: the probabilities, divided by their sum if
 * `normalize`. Compiled once for each k; rows and experts are sizes, and logits are read four at a
 * time where the experts are whole fours.
 * Source: Hugging Face's Qwen3MoeTopKRouter. With a bias [experts], the choice is by probability + bias and the weights
 * are without it (DeepSeek-V3's balancing).
 */
export function topkKernel(shape: TopkShape): Kernel {
  checkTopk(shape);
  const { rows, experts, normalize, biased } = shape;
  const k = shape.expertsPerToken;
  const width = vectorWidth(experts);
  return kernel({
    name: `top ${k} of ${experts} for ${rows}${normalize ? ", normalized" : ""}${biased ? ", biased" : ""}`,
    reads: ["logits: array<V>", ...(biased ? ["bias: array<f32>"] : [])],
    writes: ["probabilities: array<f32>", "weights: array<f32>", "experts: array<u32>"],
    sizes: { rows, experts, length: experts / width },
    head: vectorAlias(width),
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: [
      rowTotals(width),
      ...range(k).map((j) => `  var score${j} = -3e38; var choice${j} = ${j}u;`),
      "  for (var i = 0u; i < sizes.length; i++) {",
      "    let some = exp(logits[start + i] - highest) / total;",
      `    for (var part = 0u; part < ${width}u; part++) {`,
      `    let e = i * ${width}u + part;`,
      `    let probability = some${width === 4 ? "[part]" : ""};`,
      "    probabilities[first + e] = probability;",
      `    let score = probability${biased ? " + bias[e]" : ""};`,
      ...insertScore(k),
      "    }",
      "  }",
      ...storeChoices(k, normalize),
    ].join("\n"),
  });
}

//| 03-moe/1-why-experts.ipynb#topk-backward
/**
 * The gradient of the logits [rows, experts] from that of the weights [rows, k]; the choice itself has none. With gradients g_j of the weights w_j
 * and s = Σ w_j g_j: a chosen expert's logit gets w_j (g_j − s). The others get −p s, or with `normalize` nothing, since
 * then the weights are a softmax over the chosen logits alone.
 */
export function topkBackwardKernel(shape: TopkShape): Kernel {
  const { rows, experts, normalize } = shape;
  const k = shape.expertsPerToken;
  return kernel({
    name: `top ${k} of ${experts} for ${rows}${normalize ? ", normalized" : ""}, backward`,
    reads: [
      "probabilities: array<f32>",
      "weights: array<f32>",
      "experts: array<u32>",
      "gradient: array<f32>",
    ],
    writes: ["logits: array<f32>"],
    sizes: { rows, experts, choices: k },
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
  for (var e = first; e < last; e++) { logits[e] = ${normalize ? "0.0" : "-probabilities[e] * sum"}; }
  for (var j = mine; j < end; j++) { logits[first + experts[j]] = weights[j] * (gradient[j] - sum); }`,
  });
}
