// Extracted from chapters/03-moe/2-dispatch.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { vectorAlias, vectorWidth } from "./wgsl.js";

//| 03-moe/2-dispatch.ipynb#gate-rows-kernels
/** Each row of x [rows, width] times the sigmoid of its score [rows]; `residual` adds an array of x's shape. */
export function gateRowsKernel(rows: number, width: number, residual = false): Kernel {
  const element = vectorWidth(width);
  const columns = width / element;
  return kernel({
    name: `gate ${rows}x${width}${residual ? ", residual" : ""}`,
    reads: ["x: array<V>", "scores: array<f32>", ...(residual ? ["residual: array<V>"] : [])],
    writes: ["y: array<V>"],
    head: vectorAlias(element),
    sizes: { columns },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * columns) / 64),
    body: `
  if (thread >= arrayLength(&y)) { return; }
  let share = 1 / (1 + exp(-scores[thread / sizes.columns]));
  y[thread] = x[thread] * share${residual ? " + residual[thread]" : ""};`,
  });
}

/** The gradient of each row's score: σ (1 − σ) times the sum of x times the gradient, both [rows, width]. */
export function gateScoresKernel(rows: number, width: number): Kernel {
  const element = vectorWidth(width);
  return kernel({
    name: `gradient of gates ${rows}x${width}`,
    reads: ["x: array<V>", "scores: array<f32>", "gradient: array<V>"],
    writes: ["slopes: array<f32>"],
    head: vectorAlias(element),
    sizes: { columns: width / element },
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: `
  if (thread >= arrayLength(&slopes)) { return; }
  let first = thread * sizes.columns;
  var sum = V();
  for (var i = first; i < first + sizes.columns; i++) { sum += x[i] * gradient[i]; }
  let share = 1 / (1 + exp(-scores[thread]));
  slopes[thread] = share * (1 - share) * ${element === 4 ? "dot(sum, vec4f(1))" : "sum"};`,
  });
}
