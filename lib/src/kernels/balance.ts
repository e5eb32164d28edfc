// Extracted from chapters/03-moe/3-keeping-balance.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";

//| 03-moe/3-keeping-balance.ipynb#router-totals
/**
 * Adds a layer to the router's statistics [2, experts]: the pairs that each expert received, and the sum over tokens of its
 * probability. One workgroup an expert; 64 partial sums are added in a fixed order.
 */
export function routerTotalsKernel(tokens: number, experts: number, isFirst: boolean): Kernel {
  const before = (at: string) => (isFirst ? "" : ` + before[${at}]`);
  return kernel({
    name: `router totals ${tokens}x${experts}${isFirst ? "" : ", added"}`,
    reads: ["probabilities: array<f32>", "load: array<u32>", ...(isFirst ? [] : ["before: array<f32>"])],
    writes: ["totals: array<f32>"],
    sizes: { tokens, experts },
    head: "var<workgroup> partial: array<f32, 64>;",
    workgroupSize: 64,
    workgroups: experts,
    body: `
  let expert = min(workgroup, sizes.experts - 1u);
  var sum = 0.0;
  for (var token = lane; token < sizes.tokens; token += 64u) { sum += probabilities[token * sizes.experts + expert]; }
  partial[lane] = sum;
  workgroupBarrier();
  if (lane > 0u || workgroup >= sizes.experts) { return; }
  for (var i = 1u; i < 64u; i++) { sum += partial[i]; }
  totals[expert] = f32(load[expert])${before("expert")};
  totals[sizes.experts + expert] = sum${before("sizes.experts + expert")};`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#balance-kernels
/** The balance loss E · Σ f P from totals [2, experts] over `tokens` tokens of all layers together. Output: [1]. */
export function balanceLossKernel(experts: number, tokens: number): Kernel {
  return kernel({
    name: `balance loss of ${experts} experts, ${tokens} tokens`,
    reads: ["totals: array<f32>"],
    writes: ["loss: array<f32>"],
    sizes: { experts, tokens },
    workgroupSize: 1,
    workgroups: 1,
    body: `
  var sum = 0.0;
  let tokens = f32(sizes.tokens);
  for (var e = 0u; e < sizes.experts; e++) { sum += totals[e] / tokens * (totals[sizes.experts + e] / tokens); }
  loss[0] = sum * f32(sizes.experts);`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#balance-loss-backward-kernel
/**
 * The gradient of every probability of one layer, the same for all its tokens: E · f / (tokens of all layers), times
 * the gradient of the loss.
 */
export function balanceLossBackwardKernel(rows: number, experts: number, tokens: number): Kernel {
  return kernel({
    name: `balance loss backward ${rows}x${experts}, ${tokens} tokens`,
    reads: ["totals: array<f32>", "gradient: array<f32>"],
    writes: ["probabilities: array<f32>"],
    sizes: { experts, tokens },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * experts) / 64),
    body: `
  if (thread >= arrayLength(&probabilities)) { return; }
  let share = totals[thread % sizes.experts] / f32(sizes.tokens);
  probabilities[thread] = gradient[0] * share * f32(sizes.experts) / f32(sizes.tokens);`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#log-sum
/** WGSL for `logSum`, the log Σ exp of row `thread` of `logits`; the highest is taken out so that nothing overflows. */
export const logSumOfRow = `
  if (thread >= arrayLength(&logits) / sizes.experts) { return; }
  let first = thread * sizes.experts;
  var highest = logits[first];
  for (var e = 1u; e < sizes.experts; e++) { highest = max(highest, logits[first + e]); }
  var total = 0.0;
  for (var e = 0u; e < sizes.experts; e++) { total += exp(logits[first + e] - highest); }
  let logSum = highest + log(total);`;

//| 03-moe/3-keeping-balance.ipynb#squared-log-sum-kernel
/** The square of log Σ exp(logits) of each row, one row an invocation: [rows, experts] to [rows]. */
export function squaredLogSumKernel(rows: number, experts: number): Kernel {
  return kernel({
    name: `squared log-sum-exp ${rows}x${experts}`,
    reads: ["logits: array<f32>"],
    writes: ["squares: array<f32>"],
    sizes: { experts },
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: `${logSumOfRow}\n  squares[thread] = logSum * logSum;`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#log-sum-backward
/** Its gradient: 2 · logSum · softmax(logits), times the gradient of the row's result. */
export function squaredLogSumBackwardKernel(rows: number, experts: number): Kernel {
  return kernel({
    name: `squared log-sum-exp backward ${rows}x${experts}`,
    reads: ["logits: array<f32>", "gradient: array<f32>"],
    writes: ["result: array<f32>"],
    sizes: { experts },
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: `${logSumOfRow}
  let factor = 2 * logSum * gradient[thread];
  for (var e = 0u; e < sizes.experts; e++) { result[first + e] = factor * exp(logits[first + e] - logSum); }`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#bias-kernel
/** Raises the bias of experts with less than the mean load by `rate`, lowers that of those with more. */
export function routerBiasKernel(experts: number): Kernel {
  return kernel({
    name: `router bias of ${experts} experts`,
    reads: ["load: array<u32>", "rate: array<f32>"],
    writes: ["bias: array<f32>"],
    sizes: { experts },
    workgroupSize: 64,
    workgroups: Math.ceil(experts / 64),
    body: `
  if (thread >= sizes.experts) { return; }
  var total = 0u;
  for (var e = 0u; e < sizes.experts; e++) { total += load[e]; }
  bias[thread] += rate[0] * f32(sign(i32(total) - i32(load[thread] * sizes.experts)));`,
  });
}

//| 03-moe/3-keeping-balance.ipynb#model-biases
/** Adds up two lists of `size` counts. */
export function addCountsKernel(size: number): Kernel {
  return kernel({
    name: `add ${size} counts`,
    reads: ["a: array<u32>", "b: array<u32>"],
    writes: ["sum: array<u32>"],
    workgroupSize: 64,
    workgroups: Math.ceil(size / 64),
    body: `
  if (thread >= arrayLength(&sum)) { return; }
  sum[thread] = a[thread] + b[thread];`,
  });
}
