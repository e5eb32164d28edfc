// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { Kernel } from "../gpu/kernel.js";
import { textureOf, textureWidth } from "../gpu/textures.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  type Operand,
  type OperandFormat,
  addSlice,
  f32Format,
  isScaled,
  lastFour,
  operands,
  productKernel,
  sliceLength,
  sliceScale,
} from "./operands.js";
import { range, zeroFrom } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#subgroup-tile
/** What one subgroup of `lanes` computes: a block of `rows` rows and four columns a lane. Rows: a power of two from 4 to 4 · lanes. */
export interface SubgroupTile {
  lanes: number;
  rows: number;
  /** Whether operands that are loaded often are read as textures. */
  textures?: boolean;
}

/** How a subgroup goes through the inner dimension. */
export interface Round {
  /** Inner indices of a round. */
  length: number;
  /** Inner indices that are multiplied at a time: four or eight. */
  step: number;
  /** Fours of A that a lane holds. */
  loads: number;
  /** The inner dimension is whole rounds, so that nothing of it needs to be checked. */
  whole: boolean;
}

/** A round is one step, or longer where the rows are so few that the lanes can hold more of A. */
export function roundOf({ lanes, rows }: SubgroupTile, step: number, k: number): Round {
  const length = Math.max(step, (4 * lanes) / rows);
  return { length, step, loads: (rows * length) / (4 * lanes), whole: k % length === 0 };
}

//| 02-attention/2-matrix-products.ipynb#hold-rows
/** How lanes share rows of A: the loads that it takes to reach all rows, and the fours of one row that a load covers. */
export function rowLoads({ lanes, rows }: SubgroupTile): { groups: number; depth: number } {
  return { groups: Math.ceil(rows / lanes), depth: Math.max(1, lanes / rows) };
}

/** Before the loop: the rows of A that a lane loads from. */
export function findRows(tile: SubgroupTile): string[] {
  return range(rowLoads(tile).groups).map((g) => {
    const own = tile.lanes > tile.rows ? `lane % ${tile.rows}u` : `${g * tile.lanes}u + lane`;
    return `  let aRow${g} = aFirst + min(row + ${own}, sizes.rows - 1u); let aStart${g} = aRow${g} * sizes.k;`;
  });
}

/** Each lane loads fours of its rows of A, neighbours in the inner dimension. Beyond the end they are zero. */
export function loadRows(a: Operand, tile: SubgroupTile, round: Round): string[] {
  const { groups, depth } = rowLoads(tile);
  return range(round.loads).map((h) => {
    const first = `${4 * depth * Math.floor(h / groups)}u`;
    const start = depth > 1 ? `(k + ${first} + lane / ${tile.rows}u * 4u)` : `(k + ${first})`;
    const own = `aRow${h % groups}, aStart${h % groups}`;
    if (round.whole) return `    let a${h} = aFour(${own}, ${start});`;
    return `    let a${h} = ${zeroFrom(`aFour(${own}, ${lastFour(a, start)})`, start, "to", a.vec4)};`;
  });
}

//| 02-attention/2-matrix-products.ipynb#hold-columns
/** Before the loop: where in its rows a lane finds four neighbouring rows of an A that is stored transposed. */
export function findPlace(a: Operand, tile: SubgroupTile): string[] {
  return [`  let aPlace = ${lastFour(a, `row + lane % ${tile.rows / 4}u * 4u`)};`];
}

/** The same from an A that is stored transposed: each lane loads four neighbouring rows at one inner index. */
export function loadTransposedRows(tile: SubgroupTile, round: Round): string[] {
  const across = tile.rows / 4;
  return range(round.loads).map((h) => {
    const index = `(k + ${(h * tile.lanes) / across}u + lane / ${across}u)`;
    const stored = `aFirst + ${round.whole ? index : `min(${index}, sizes.k - 1u)`}`;
    const four = `aFour(${stored}, (${stored}) * sizes.rows, aPlace)`;
    return `    let a${h} = ${round.whole ? four : zeroFrom(four, index, "to", true)};`;
  });
}

//| 02-attention/2-matrix-products.ipynb#hand-round
/** WGSL for the element of A in row `r` of the block at the round's inner index q + i: one lane has it, all get it. */
export function handRound(alongK: boolean, tile: SubgroupTile, r: number, i: number): string {
  const { lanes, rows } = tile;
  const across = rows / 4;
  if (!alongK) {
    const depth = lanes / across; // inner indices that a load covers
    const place = (i % depth) * across + Math.floor(r / 4);
    return `subgroupShuffle(a${Math.floor(i / depth)}[${r % 4}], ${place}u + q * ${across}u)`;
  }
  const { groups, depth } = rowLoads(tile);
  const four = Math.floor(i / 4);
  const load = Math.floor(four / depth) * groups + Math.floor(r / lanes);
  return `subgroupShuffle(a${load}[${i % 4}], ${(four % depth) * rows + (r % lanes)}u + q * ${across}u)`;
}

//| 02-attention/2-matrix-products.ipynb#load-b
/** The step's rows of B, from k + q on, at a lane's four columns: b0, b1 and so on. */
export function loadColumns({ step, whole }: Round): string[] {
  return range(step).map((i) => {
    const stored = `bFirst + ${whole ? `k + q + ${i}u` : `min(k + q + ${i}u, sizes.k - 1u)`}`;
    return `      let b${i} = bFour(${stored}, (${stored}) * sizes.columns, bPlace);`;
  });
}

//| 02-attention/2-matrix-products.ipynb#load-transposed-b
/** Before the loop: where a lane's four columns lie, each in a row of its own where B is stored transposed. */
export function findColumns(b: Operand): string[] {
  if (!b.alongK) return [`  let bPlace = ${lastFour(b, "columns4")};`];
  return range(4).map(
    (j) =>
      `  let bRow${j} = bFirst + min(columns4 + ${j}u, sizes.columns - 1u); let bStart${j} = bRow${j} * sizes.k;`,
  );
}

/** The same rows of B: fours of each column, turned round. */
export function loadTransposedColumns(b: Operand, { step, whole }: Round): string[] {
  return range(step / 4).flatMap((s) => {
    const place = whole ? `k + q + ${4 * s}u` : lastFour(b, `k + q + ${4 * s}u`);
    const turned = (i: number) => range(4).map((j) => `t${4 * s + j}[${i}]`);
    return [
      ...range(4).map((j) => `      let t${4 * s + j} = bFour(bRow${j}, bStart${j}, ${place});`),
      ...range(4).map((i) => `      let b${4 * s + i} = vec4f(${turned(i).join(", ")});`),
    ];
  });
}

//| 02-attention/2-matrix-products.ipynb#subgroup-round
/** One round: the lanes load their parts of A, then multiply a step of inner indices at a time. */
export function subgroupRound(
  [a, b]: [Operand, Operand],
  tile: SubgroupTile,
  round: Round,
  invariant = false,
): string[] {
  const { length, step } = round;
  const term = (r: number, i: number) => {
    const x = handRound(a.alongK, tile, r, i);
    return invariant ? `c${r} = fma(vec4f(${x}), b${i}, c${r});` : `c${r} += ${x} * b${i};`;
  };
  const products = range(tile.rows).map(
    (r) =>
      `      ${range(step)
        .map((i) => term(r, i))
        .join(" ")}`,
  );
  return [
    ...(a.alongK ? loadRows(a, tile, round) : loadTransposedRows(tile, round)),
    length > step ? `    for (var q = 0u; q < ${length}u; q += ${step}u) {` : "    { let q = 0u;",
    ...(b.alongK ? loadTransposedColumns(b, round) : loadColumns(round)),
    ...products,
    "    }",
  ];
}

/** All rounds one after the other: the results are in c0, c1 and so on. */
export function subgroupLoop(
  both: [Operand, Operand],
  { from }: MatmulPlaces,
  tile: SubgroupTile,
  round: Round,
): string[] {
  return [
    `  for (var k = ${from}; k < to; k += ${round.length}u) {`,
    ...subgroupRound(both, tile, round),
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#subgroup-slices
/** The same slice by slice, each added up by itself. A slice is whole rounds. */
export function subgroupSlices(
  both: [Operand, Operand],
  { from }: MatmulPlaces,
  tile: SubgroupTile,
  round: Round,
  scaled: boolean,
): string[] {
  const rows = range(tile.rows);
  return [
    ...rows.map((r) => `  var sum${r} = vec4f();`),
    `  for (var slice = ${from}; slice < to; slice += ${sliceLength}u) {`,
    `  let end = min(slice + ${sliceLength}u, to);`,
    `  for (var k = slice; k < end; k += ${round.length}u) {`,
    ...subgroupRound(both, tile, round, true),
    "  }",
    ...(scaled
      ? [
          `  let scales = vec4f(${range(4)
            .map((j) => sliceScale(both[1], `bRow${j}`, `bStart${j}`, "slice"))
            .join(", ")});`,
        ]
      : []),
    ...rows.map((r) => `  ${addSlice(`sum${r}`, `c${r}`, scaled ? "scales" : undefined)} c${r} = vec4f();`),
    "  }",
    ...rows.map((r) => `  c${r} = sum${r};`),
  ];
}

//| 02-attention/2-matrix-products.ipynb#image-operands
/** Floats that are read through a texture. */
export const textureFormat: OperandFormat = {
  ...f32Format,
  name: "texture",
  bindings: (name) => [textureOf(name)],
  loadFour: (name, at) =>
    `textureLoad(${name}, vec2u(${at} / 4u % ${textureWidth}u, ${at} / 4u / ${textureWidth}u))`,
};

/** Both operands: as textures where the tile allows it, they are floats in fours, and two subgroups or more load each number. */
export function readOperands(
  shape: MatmulShape,
  places: MatmulPlaces,
  tile: SubgroupTile,
): [Operand, Operand] {
  const { batch, rows, columns, sharedB } = shape;
  const across = columns / (4 * tile.lanes);
  const down = ((sharedB ? batch : 1) * rows) / (tile.rows * places.matrices);
  const read = (operand: Operand, times: number): Operand =>
    tile.textures && operand.vec4 && operand.format === f32Format && times >= 2
      ? { ...operand, format: textureFormat }
      : operand;
  const [a, b] = operands(shape);
  return [read(a, across), read(b, down)];
}

//| 02-attention/2-matrix-products.ipynb#subgroup-kernel
/**
 * One subgroup computes a tile. In each round every lane loads a part of the tile's rows of A, and the subgroup hands it
 * round by `subgroupShuffle`, so that an element is loaded once for all lanes.
 */
export function subgroupMatmulKernel(shape: MatmulShape, places: MatmulPlaces, tile: SubgroupTile): Kernel {
  const both = readOperands(shape, places, tile);
  const round = roundOf(tile, both[1].format === textureFormat ? 8 : 4, shape.k);
  const vec4 = shape.columns % 4 === 0;
  return productKernel(shape, places, {
    name: `subgroup ${tile.lanes} ${tile.rows} ${round.whole}`,
    operands: both,
    tile: [tile.rows, tile.lanes * 4],
    workgroupSize: tile.lanes,
    vec4,
    enable: ["subgroups"],
    rounds: true,
    codes: true,
    body: () => [
      "  let columns4 = column + lane * 4u;",
      ...(both[0].alongK ? findRows(tile) : findPlace(both[0], tile)),
      ...findColumns(both[1]),
      ...range(tile.rows).map((r) => `  var c${r} = vec4f();`),
      ...(shape.invariant
        ? subgroupSlices(both, places, tile, round, isScaled(shape, both[1]))
        : subgroupLoop(both, places, tile, round)),
      ...range(tile.rows).map((r) => `  storeFour(cFirst, row + ${r}u, columns4, c${r});`),
      `  finishRows(cFirst, row, ${tile.rows}u, columns4);`,
    ],
  });
}
