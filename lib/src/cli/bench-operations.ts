// The operations that `tslm bench` measures, each called as a model calls it: through the public functions on tensors, so
// that a faster kernel behind one of them is measured without a change here.
import { type AdapterKind, currentGpu } from "../gpu/device.js";
import { hasSubgroupMatrix } from "../kernels/subgroup-matrix.js";
import { groupedLinear, planDispatch } from "../model/moe.js";
import { ropeTable } from "../model/positions.js";
import { attend } from "../tensor/attend.js";
import { gradientOf, parameter, sendBack, tapeOf } from "../tensor/autograd.js";
import { crossEntropy } from "../tensor/cross-entropy.js";
import { dropout, dropoutState } from "../tensor/dropout.js";
import { tableGradient } from "../tensor/embedding.js";
import { add } from "../tensor/operations.js";
import { withPrecision } from "../tensor/precision.js";
import { product } from "../tensor/products.js";
import { normals, uniforms } from "../tensor/random.js";
import { rope } from "../tensor/rope.js";
import { rmsNorm, swiglu } from "../tensor/rows.js";
import { indices, sizeOf, tensor, type Tensor } from "../tensor/tensor.js";
import { makeOptimizer } from "../train/muon.js";
import { defaultOptimizer, globalNorm } from "../train/optimizers.js";
import type { OperationName } from "./bench-names.js";

/** One operation at one shape. */
export interface Case {
  operation: string;
  shape: string;
  /**
   * What has to be done whatever the kernel: multiply-adds counted as two operations each, or bytes that are read and
   * written once. The rate is this over the time, so work that a kernel does on top makes it lower.
   */
  needs: { flops: number } | { bytes: number };
  /** What it runs on has a ceiling of its own, which no probe measures. */
  unprobed?: boolean;
  /** Makes the inputs and gives what is measured. It hands work to the GPU, and returns tensors. */
  prepare(): () => unknown;
}

/** Small, medium and large shapes: a software adapter gets some that it can do in well under a second. */
type Shapes = Record<AdapterKind, [number[], number[], number[]]>;

const block = normals(1, 2 ** 16);

/** Random numbers, the same ones again and again: drawing millions would take longer than what is measured. */
export function randomTensor(shape: number[], deviation = 1): Tensor {
  const values = new Float32Array(sizeOf(shape));
  const scaled = block.map((value) => value * deviation);
  for (let at = 0; at < values.length; at += scaled.length)
    values.set(scaled.subarray(0, Math.min(scaled.length, values.length - at)), at);
  return tensor(values, shape);
}

/** Ids below `below`. */
export function randomIds(shape: number[], below: number): Tensor<"u32"> {
  return indices(
    uniforms(2, sizeOf(shape)).map((value) => Math.floor(value * below)),
    shape,
  );
}

/** What an operation works on: its inputs, the operation itself, and the gradient of its result to send back. */
interface Operands {
  inputs: Tensor[];
  run: () => Tensor;
  slope: Tensor;
}

/** The gradients of all inputs. */
function inputGradients({ inputs, run, slope }: Operands): Tensor[] {
  const output = run();
  const gradients = new Map([[output, slope]]);
  for (const node of tapeOf(output)) sendBack(node, gradients);
  return inputs.map((input) => gradientOf(gradients, input));
}

/** An operation forward, and forward with the gradients of all its inputs, which in all needs `factor` times as much. */
function bothWays(
  { operation, shape, needs }: Omit<Case, "prepare">,
  factor: number,
  prepare: () => Operands,
): Case[] {
  const more = "flops" in needs ? { flops: needs.flops * factor } : { bytes: needs.bytes * factor };
  const withGradients = () => {
    const operands = prepare();
    operands.inputs.forEach(parameter);
    return () => inputGradients(operands);
  };
  return [
    { operation, shape, needs, prepare: () => prepare().run },
    { operation: `${operation} and backward`, shape, needs: more, prepare: withGradients },
  ];
}

/** The three products of training a linear layer: forward, and back to its input and to its weight. */
const transposes = [
  { operation: "matmul A·Bᵀ", options: { transposeB: true } },
  { operation: "matmul A·B", options: {} },
  { operation: "matmul Aᵀ·B", options: { transposeA: true } },
];

function matmulCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [1, 768, 128, 128],
      [1, 256, 256, 256],
      [1, 512, 512, 512],
    ],
    gpu: [
      [1, 768, 128, 128],
      [1, 1024, 1024, 1024],
      [1, 4096, 4096, 4096],
    ],
  };
  const batched: Shapes = {
    cpu: [
      [48, 64, 64, 32],
      [16, 128, 128, 64],
      [8, 256, 256, 64],
    ],
    gpu: [
      [48, 64, 64, 32],
      [96, 512, 512, 64],
      [32, 1024, 1024, 1024],
    ],
  };
  return [...shapes[kind], ...batched[kind]].flatMap(([batch, rows, columns, inner]) =>
    transposes.map(({ operation, options: { transposeA, transposeB } }) => ({
      operation,
      shape: `${batch === 1 ? "" : `${batch} x `}${rows} x ${columns} x ${inner}`,
      needs: { flops: 2 * batch * rows * columns * inner },
      prepare: () => {
        const a = randomTensor([batch, ...(transposeA ? [inner, rows] : [rows, inner])]);
        const b = randomTensor([batch, ...(transposeB ? [columns, inner] : [inner, columns])]);
        return () => product(a, b, { transposeA, transposeB });
      },
    })),
  );
}

/** Square products whose operands are rounded to 16 bits: on matrix units, where the adapter has them. */
function halvesCases(kind: AdapterKind): Case[] {
  const { facts } = currentGpu();
  if (!facts.f16) return [];
  const onUnits = hasSubgroupMatrix(facts);
  const sizes = { cpu: [256, 512], gpu: [1024, 2048, 4096] }[kind];
  return sizes.flatMap((size) =>
    transposes.map(({ operation, options }) => ({
      operation: `${operation} in 16 bits${onUnits ? ", on matrix units" : ""}`,
      shape: `${size} x ${size} x ${size}`,
      needs: { flops: 2 * size ** 3 },
      unprobed: onUnits,
      prepare: () => {
        const [a, b] = [1, 2].map(() => randomTensor([size, size]));
        return () => withPrecision("f16", () => product(a, b, options));
      },
    })),
  );
}

function groupedCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [768, 2, 8, 128, 192],
      [1024, 2, 8, 256, 256],
      [1024, 4, 16, 256, 512],
    ],
    gpu: [
      [768, 2, 8, 128, 192],
      [8192, 2, 8, 768, 1024],
      [16384, 4, 32, 2048, 1024],
    ],
  };
  return shapes[kind].flatMap(([tokens, choices, experts, inner, outputs]) => {
    const shape = `${tokens} tokens x ${choices} of ${experts}, ${inner} to ${outputs}`;
    const needs = { flops: 2 * tokens * choices * inner * outputs };
    return bothWays({ operation: "grouped product", shape, needs }, 3, () => {
      const plan = planDispatch(randomIds([tokens, choices], experts), experts);
      const inputs = [randomTensor([plan.rows, inner]), randomTensor([experts, outputs, inner])];
      const slope = randomTensor([plan.rows, outputs]);
      return { inputs, slope, run: () => groupedLinear(inputs[0], inputs[1], plan) };
    });
  });
}

function attentionCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [12, 4, 2, 64, 32],
      [2, 4, 2, 256, 64],
      [1, 2, 1, 1024, 64],
    ],
    gpu: [
      [12, 4, 2, 64, 32],
      [8, 12, 12, 1024, 64],
      [1, 16, 4, 4096, 128],
    ],
  };
  return shapes[kind].flatMap(([batch, heads, kvHeads, tokens, headDim]) => {
    const shape = `${batch} x ${heads} heads (${kvHeads} for keys) x ${tokens} x ${headDim}`;
    // Two products of which causal attention needs one half; backward has four.
    const needs = { flops: 2 * batch * heads * tokens * tokens * headDim };
    return bothWays({ operation: "attention", shape, needs }, 3, () => {
      const [queries, keys, values] = [heads, kvHeads, kvHeads].map((count) =>
        randomTensor([batch, count, tokens, headDim]),
      );
      const positions = indices(Array.from({ length: tokens }, (_, i) => i));
      return {
        inputs: [queries, keys, values],
        slope: randomTensor([batch, heads, tokens, headDim]),
        run: () => attend(queries, { keys, values }, { positions }),
      };
    });
  });
}

/** Rows and columns of what works on rows. */
const rowShapes: Shapes = {
  cpu: [
    [768, 128],
    [2048, 512],
    [4096, 1024],
  ],
  gpu: [
    [768, 128],
    [8192, 768],
    [16384, 4096],
  ],
};

function rmsNormCases(kind: AdapterKind): Case[] {
  return rowShapes[kind].flatMap(([rows, columns]) => {
    const needs = { bytes: 8 * rows * columns };
    return bothWays({ operation: "RMSNorm", shape: `${rows} x ${columns}`, needs }, 5 / 2, () => {
      const inputs = [randomTensor([rows, columns]), randomTensor([columns])];
      return { inputs, slope: randomTensor([rows, columns]), run: () => rmsNorm(inputs[0], inputs[1], 1e-6) };
    });
  });
}

function swigluCases(kind: AdapterKind): Case[] {
  return rowShapes[kind].flatMap(([rows, columns]) => {
    const needs = { bytes: 12 * rows * columns };
    return bothWays({ operation: "SwiGLU", shape: `${rows} x ${columns}`, needs }, 8 / 3, () => {
      const [gate, up, slope] = [1, 2, 3].map(() => randomTensor([rows, columns]));
      return { inputs: [gate, up], slope, run: () => swiglu(gate, up) };
    });
  });
}

function dropoutCases(kind: AdapterKind): Case[] {
  return rowShapes[kind].flatMap(([rows, columns]) => {
    const needs = { bytes: 12 * rows * columns };
    // Backward reads one array and writes one: the residual's gradient is the gradient itself.
    return bothWays({ operation: "dropout", shape: `${rows} x ${columns}`, needs }, 5 / 3, () => {
      const [x, residual, slope] = [1, 2, 3].map(() => randomTensor([rows, columns]));
      const settings = { rate: 0.1, state: indices(dropoutState(1, 0)), place: 0 };
      return { inputs: [x, residual], slope, run: () => dropout(x, settings, residual) };
    });
  });
}

function addCases(kind: AdapterKind): Case[] {
  return rowShapes[kind].map(([rows, columns]) => ({
    operation: "add",
    shape: `${rows} x ${columns}`,
    needs: { bytes: 12 * rows * columns },
    prepare: () => {
      const [a, b] = [1, 2].map(() => randomTensor([rows, columns]));
      return () => add(a, b);
    },
  }));
}

function ropeCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [12, 4, 64, 32],
      [4, 8, 512, 64],
      [4, 16, 1024, 64],
    ],
    gpu: [
      [12, 4, 64, 32],
      [8, 12, 1024, 64],
      [8, 32, 2048, 128],
    ],
  };
  return shapes[kind].map(([batch, heads, tokens, headDim]) => ({
    operation: "RoPE",
    shape: `${batch} x ${heads} x ${tokens} x ${headDim}`,
    needs: { bytes: 8 * batch * heads * tokens * headDim },
    prepare: () => {
      const x = randomTensor([batch, heads, tokens, headDim]);
      const positions = indices(Array.from({ length: tokens }, (_, i) => i));
      const table = ropeTable({ theta: 10000 }, headDim, tokens);
      return () => rope(x, positions, table);
    },
  }));
}

function crossEntropyCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [768, 65],
      [1024, 1024],
      [512, 8192],
    ],
    gpu: [
      [768, 65],
      [8192, 8192],
      [8192, 50257],
    ],
  };
  return shapes[kind].flatMap(([tokens, vocabulary]) => {
    const shape = `${tokens} tokens x ${vocabulary} words`;
    const needs = { bytes: 4 * tokens * vocabulary };
    return bothWays({ operation: "cross-entropy", shape, needs }, 2, () => {
      const logits = randomTensor([tokens, vocabulary]);
      const targets = randomIds([tokens], vocabulary);
      return { inputs: [logits], slope: tensor([1]), run: () => crossEntropy(logits, targets) };
    });
  });
}

function embeddingCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [768, 65, 128],
      [2048, 1024, 256],
      [4096, 8192, 512],
    ],
    gpu: [
      [768, 65, 128],
      [8192, 50257, 768],
      [16384, 128256, 2048],
    ],
  };
  return shapes[kind].map(([tokens, vocabulary, columns]) => ({
    operation: "embedding backward",
    shape: `${tokens} tokens, ${vocabulary} words x ${columns}`,
    needs: { bytes: 4 * (tokens + vocabulary) * columns },
    prepare: () => {
      const ids = randomIds([tokens], vocabulary);
      const slope = randomTensor([tokens, columns]);
      return () => tableGradient(ids, slope, [vocabulary, columns]);
    },
  }));
}

function adamwCases(kind: AdapterKind): Case[] {
  const shapes: Shapes = {
    cpu: [
      [16, 128, 128],
      [24, 128, 384],
      [8, 512, 1024],
    ],
    gpu: [
      [16, 128, 128],
      [48, 768, 768],
      [16, 2048, 4096],
    ],
  };
  return shapes[kind].map(([count, rows, columns]) => ({
    operation: "clip and AdamW",
    shape: `${count} x ${rows} x ${columns}`,
    // The norm reads the gradients; the update reads them again with three arrays, and writes these.
    needs: { bytes: 32 * count * rows * columns },
    prepare: () => {
      const tensors = Array.from({ length: count }, () => randomTensor([rows, columns]));
      const gradients = Array.from({ length: count }, () => randomTensor([rows, columns]));
      const parameters = tensors.map((value, i) => ({ name: `${i}`, role: "matrix" as const, value }));
      const optimizer = makeOptimizer(parameters, defaultOptimizer);
      optimizer.setStep(0, 1e-4);
      return () => optimizer.update(gradients, globalNorm(gradients));
    },
  }));
}

/** The cases of every operation on a kind of adapter. */
export const operationCases: Record<OperationName, (kind: AdapterKind) => Case[]> = {
  matmul: matmulCases,
  f16: halvesCases,
  grouped: groupedCases,
  attention: attentionCases,
  rmsnorm: rmsNormCases,
  swiglu: swigluCases,
  dropout: dropoutCases,
  rope: ropeCases,
  add: addCases,
  "cross-entropy": crossEntropyCases,
  embedding: embeddingCases,
  adamw: adamwCases,
};
