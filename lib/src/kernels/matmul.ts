// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { textureFunction, textureOf } from "../gpu/textures.js";

//| 02-attention/2-matrix-products.ipynb#matmul-shape
/** A batch of matrix products C = A·B. A is [rows, inner] and B [inner, columns], unless stored transposed. */
export interface MatmulShape {
  batch: number;
  rows: number;
  columns: number;
  inner: number;
  /** A is stored as [inner, rows]. */
  transposeA?: boolean;
  /** B is stored as [columns, inner], as the weights of linear layers are. */
  transposeB?: boolean;
  /** One B serves the whole batch. */
  sharedB?: boolean;
  /** Operands are rounded to 16-bit floats before they are multiplied. Sums and results keep 32 bits. */
  halves?: boolean;
  /** What else happens to each result before it is stored. */
  epilogue?: Epilogue;
}

/** What a product does to its results y while they are in registers, in this order. */
export interface Epilogue {
  /** Adds a number for each column: one more input [columns]. */
  bias?: boolean;
  /** A WGSL expression of `y`, such as `max(y, V(0.0))`; V is its type, one float or four. */
  activation?: string;
  /** Adds an array of the shape of C, times `beta` (1 unless said): one more input, the last. */
  residual?: boolean;
  beta?: number;
}

//| 02-attention/2-matrix-products.ipynb#matmul-places
/**
 * Where a workgroup's matrices lie, as WGSL expressions of `group` (column tile, row tile, batch), `sizes` (rows,
 * columns, inner) and more bindings:
 * the hook by which products of grouped rows reuse the same loops.
 */
export interface MatmulPlaces {
  name: string;
  /** More read-only bindings, after `a` and `b`. */
  reads: string[];
  /** Statements before anything else, such as an early return. */
  before: string;
  /** First elements of the matrices, u32. */
  a: string;
  b: string;
  c: string;
  /** The range of the inner dimension. */
  from: string;
  to: string;
  /** Matrices B that the rows are divided among. */
  shares: number;
}

/** The matrices of a plain batch: one after the other. */
export function batchPlaces({ sharedB }: MatmulShape): MatmulPlaces {
  return {
    name: "matmul",
    reads: [],
    before: "",
    a: "group.z * sizes.rows * sizes.inner",
    b: sharedB ? "0u" : "group.z * sizes.inner * sizes.columns",
    c: "group.z * sizes.rows * sizes.columns",
    from: "0u",
    to: "sizes.inner",
    shares: 1,
  };
}

//| 02-attention/2-matrix-products.ipynb#matmul-name
/** The numbers 0 to count - 1. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A name such as `matmul 12x64x64x32 (B transposed)` for errors and profiles. */
export function matmulName(places: MatmulPlaces, shape: MatmulShape): string {
  const { batch, rows, columns, inner, transposeA, transposeB, halves, epilogue = {} } = shape;
  const size = `${batch === 1 ? "" : `${batch}x`}${rows}x${columns}x${inner}`;
  const notes = [
    transposeA && "A transposed",
    transposeB && "B transposed",
    halves && "16 bits",
    epilogue.bias && "bias",
    epilogue.activation,
    epilogue.residual && (epilogue.beta === undefined ? "residual" : `${epilogue.beta} * residual`),
  ].filter(Boolean);
  return `${places.name} ${size}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`;
}

//| 02-attention/2-matrix-products.ipynb#fill-tiles
/** How an operand lies in memory. */
export interface Operand {
  name: "a" | "b";
  /** The dimension that it does not share with the other: rows of A, columns of B. */
  side: "rows" | "columns";
  /** Neighbours in memory are neighbours in the inner dimension, and not along the side. */
  alongInner: boolean;
  /** It can be loaded four neighbours at a time. */
  inFours: boolean;
}

/** Both operands of a product. */
export function operands({ rows, columns, inner, transposeA, transposeB }: MatmulShape): [Operand, Operand] {
  const operand = (
    name: "a" | "b",
    side: "rows" | "columns",
    length: number,
    alongInner: boolean,
  ): Operand => ({
    name,
    side,
    alongInner,
    inFours: (alongInner ? inner : length) % 4 === 0,
  });
  return [operand("a", "rows", rows, !transposeA), operand("b", "columns", columns, transposeB === true)];
}

/** The element type of an array that is loaded four at a time or one at a time. */
export function fours(inFours: boolean): string {
  return inFours ? "vec4f" : "f32";
}

//| 02-attention/2-matrix-products.ipynb#load-four
/** The WGSL function that loads four neighbours of an operand. The end `to` of the inner dimension is whole fours where the rows are. */
export function loadFour({ name, side, alongInner, inFours }: Operand): string {
  const ends = { j: `sizes.${side}`, k: "to" };
  const [one, many] = alongInner ? (["j", "k"] as const) : (["k", "j"] as const);
  const at = alongInner ? "first + j * sizes.inner + k" : `first + k * sizes.${side} + j`;
  const loads = inFours
    ? [`  if (${one} < ${ends[one]} && ${many} < ${ends[many]}) { four = ${name}[(${at}) / 4u]; }`]
    : [
        "  for (var i = 0u; i < 4u; i++) {",
        `    if (${one} < ${ends[one]} && ${many} + i < ${ends[many]}) { four[i] = ${name}[${at} + i]; }`,
        "  }",
      ];
  const head = `fn load_${name}(first: u32, k: u32, j: u32, to: u32) -> vec4f {`;
  return [head, "  var four = vec4f();", ...loads, "  return four;", "}"].join("\n");
}

//| 02-attention/2-matrix-products.ipynb#tiles
/** Rows and columns of C that a workgroup of the tiled kernel computes, and its invocations. */
export const tileRows = 64;
export const tileLanes = 128;

/** Inner indices that the tiled kernel keeps in shared memory at a time. */
export const tileInner = 16;

/** Fours in the tile from one inner index to the next. */
export const tileStride = tileRows / 4 + 1;

/** Fours of each operand that an invocation moves. */
export const tileMoves = (tileRows * tileInner) / 4 / tileLanes;

/** Loads an invocation's fours of the strip that starts at inner index `k` into registers. */
export function fetchTile({ name, side, alongInner }: Operand, k: string): string[] {
  const start = side === "rows" ? "row" : "column";
  return range(tileMoves).map((m) => {
    const slot = `(lane + ${m * tileLanes}u)`;
    const [i, j] = alongInner
      ? [`${slot} % ${tileInner / 4}u * 4u`, `${slot} / ${tileInner / 4}u`]
      : [`${slot} / ${tileRows / 4}u`, `${slot} % ${tileRows / 4}u * 4u`];
    return `    ${name}${m} = load_${name}(${name}First, ${k} + ${i}, ${start} + ${j}, to);`;
  });
}

/** Puts them into the tile: whole fours along the side, or one by one when they lie along the inner dimension. */
export function placeTile({ name, alongInner }: Operand): string[] {
  return range(tileMoves).flatMap((m) => {
    const slot = `(lane + ${m * tileLanes}u)`;
    const four = `Four(${name}${m})`;
    if (!alongInner)
      return [
        `    ${name}Tile[${slot} / ${tileRows / 4}u * ${tileStride}u + ${slot} % ${tileRows / 4}u] = ${four};`,
      ];
    const [i, j] = [`${slot} % ${tileInner / 4}u * 4u`, `${slot} / ${tileInner / 4}u`];
    return range(4).map(
      (x) => `    ${name}Tile[(${i} + ${x}u) * ${tileStride}u + ${j} / 4u][${j} % 4u] = ${four}[${x}];`,
    );
  });
}

//| 02-attention/2-matrix-products.ipynb#epilogue
/** The bindings that an epilogue reads, in elements of `type`. */
export function epilogueReads({ epilogue = {} }: MatmulShape, type: string): string[] {
  const inputs = [epilogue.bias && "bias", epilogue.residual && "residual"];
  return inputs.filter(Boolean).map((name) => `${name}: array<${type}>`);
}

/** WGSL for a result, the epilogue applied: `column` is its first column, `at` its place in C. */
export function finished({ epilogue }: MatmulShape, result: string, column: string, at: string): string {
  return epilogue ? `finish(${result}, ${column}, ${at})` : result;
}

/** The type V of the results that are stored at a time, and the WGSL function `finish` that applies the epilogue to them. */
export function finishFunction({ epilogue }: MatmulShape, width: 1 | 4): string {
  const type = `alias V = ${width === 4 ? "vec4f" : "f32"};`;
  if (!epilogue) return type;
  const { bias, activation, residual, beta = 1 } = epilogue;
  const element = (name: string, index: string) => `${name}[${width === 4 ? `${index} / 4u` : index}]`;
  return [
    type,
    "fn finish(result: V, column: u32, at: u32) -> V {",
    "  var y = result;",
    ...(bias ? [`  y += ${element("bias", "column")};`] : []),
    ...(activation ? [`  y = ${activation};`] : []),
    ...(residual ? [`  y += ${beta === 1 ? "" : `f32(${beta}) * `}${element("residual", "at")};`] : []),
    "  return y;",
    "}",
  ].join("\n");
}

//| 02-attention/2-matrix-products.ipynb#store-tile
/** Where the r-th row of an invocation lies in the tile: two groups of four rows, 32 apart. */
export function tileRow(r: number): string {
  return `row + y * 4u + ${r < 4 ? r : 28 + r}u`;
}

/** Writes the 8 × 4 results that exist. */
export function storeTile(shape: MatmulShape): string[] {
  return range(8).flatMap((r) => {
    const start = `cFirst + (${tileRow(r)}) * sizes.columns + column + x * 4u`;
    const exists = (j: number) => `${tileRow(r)} < sizes.rows && column + x * 4u + ${j}u < sizes.columns`;
    const first = "column + x * 4u";
    if (shape.columns % 4 === 0)
      return [`  if (${exists(0)}) { c[(${start}) / 4u] = ${finished(shape, `c${r}`, first, start)}; }`];
    return range(4).map((j) => {
      const at = `${start} + ${j}u`;
      return `  if (${exists(j)}) { c[${at}] = ${finished(shape, `c${r}[${j}]`, `${first} + ${j}u`, at)}; }`;
    });
  });
}

//| 02-attention/2-matrix-products.ipynb#tiled-loop
/** The statements that leave a lane's results in c0 … c7. */
export function tiledLoop(both: Operand[], places: MatmulPlaces): string[] {
  const registers = both.flatMap(({ name }) => range(tileMoves).map((m) => `  var ${name}${m}: vec4f;`));
  return [
    `  let row = group.y * ${tileRows}u;`,
    `  let column = group.x * ${tileRows}u;`,
    "  let x = lane % 16u;",
    "  let y = lane / 16u;",
    `  let aFirst = ${places.a};`,
    `  let bFirst = ${places.b};`,
    `  let cFirst = ${places.c};`,
    `  let to = ${places.to};`,
    ...registers,
    ...range(8).map((r) => `  var c${r} = vec4f();`),
    ...both.flatMap((operand) => fetchTile(operand, places.from)),
    `  for (var k = ${places.from}; k < to; k += ${tileInner}u) {`,
    ...both.flatMap(placeTile),
    "    workgroupBarrier();",
    ...both.flatMap((operand) => fetchTile(operand, `k + ${tileInner}u`)),
    `    for (var i = 0u; i < ${tileInner}u; i++) {`,
    ...range(2).map((g) => `      let rows${g} = vec4f(aTile[i * ${tileStride}u + y + ${g * 8}u]);`),
    `      let columns4 = vec4f(bTile[i * ${tileStride}u + x]);`,
    ...range(8).map((r) => `      c${r} += rows${r >> 2}[${r & 3}] * columns4;`),
    "    }",
    "    workgroupBarrier();",
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#tiled-kernel
/**
 * 128 invocations compute 64 × 64 results, 8 × 4 each: they load a 64 × 16 piece of A and a 16 × 64 piece of B into
 * workgroup memory, wait for each other, and multiply from there. Each element is loaded from far away once a tile.
 */
export function tiledMatmulKernel(shape: MatmulShape, places: MatmulPlaces): Kernel {
  const { batch, rows, columns, halves } = shape;
  const both = operands(shape);
  const width = columns % 4 === 0 ? 4 : 1;
  const tile = (name: string) => `var<workgroup> ${name}Tile: array<Four, ${tileInner * tileStride}>;`;
  const four = `alias Four = ${halves ? "vec4h" : "vec4f"};`;
  return kernel({
    name: matmulName(places, shape),
    reads: [
      ...both.map(({ name, inFours }) => `${name}: array<${fours(inFours)}>`),
      ...places.reads,
      ...epilogueReads(shape, "V"),
    ],
    writes: ["c: array<V>"],
    enable: halves ? ["f16"] : [],
    sizes: { rows, columns, inner: shape.inner },
    head: [
      four,
      ...both.map(({ name }) => tile(name)),
      ...both.map(loadFour),
      finishFunction(shape, width),
    ].join("\n"),
    workgroupSize: tileLanes,
    workgroups: [Math.ceil(columns / tileRows), Math.ceil(rows / tileRows), batch],
    body: [places.before, ...tiledLoop(both, places), ...storeTile(shape)].join("\n"),
  });
}

//| 02-attention/2-matrix-products.ipynb#subgroup-tile
/** What one subgroup of `lanes` computes: a block of `rows` rows and four columns a lane. Rows: a power of two from 4 to 4 · lanes. */
export interface SubgroupTile {
  lanes: number;
  rows: number;
  /** Whether operands that are loaded often are read as images. */
  images?: boolean;
}

/** How a subgroup goes through the inner dimension. */
export interface Round {
  /** Inner indices of a round. */
  length: number;
  /** Inner indices that are multiplied at a time: four or eight. */
  step: number;
  /** Fours of A that a lane holds. */
  loads: number;
}

/** A round is one step, or longer where the rows are so few that the lanes can hold more of A. */
export function roundOf({ lanes, rows }: SubgroupTile, step: number): Round {
  const length = Math.max(step, (4 * lanes) / rows);
  return { length, step, loads: (rows * length) / (4 * lanes) };
}

//| 02-attention/2-matrix-products.ipynb#clamped
/** An index that stays below `size`, with the clamp only where whole tiles do not fit. */
export function clamped(index: string, fits: boolean, size: string): string {
  return fits ? index : `min(${index}, sizes.${size} - 1u)`;
}

/** The same for an index where four neighbours start. */
export function clampedFour(index: string, fits: boolean, size: string): string {
  return fits ? index : `min(${index}, sizes.${size} - 4u)`;
}

/** WGSL that rounds one or four floats to what 16 bits can hold, where the product wants that. */
export function rounded(value: string, halves?: boolean): string {
  return halves ? `quantizeToF16(${value})` : value;
}

//| 02-attention/2-matrix-products.ipynb#hold-rows
/** How lanes share rows of A: the loads that it takes to reach all rows, and the fours of one row that a load covers. */
export function rowLoads({ lanes, rows }: SubgroupTile): { groups: number; depth: number } {
  return { groups: Math.ceil(rows / lanes), depth: Math.max(1, lanes / rows) };
}

/** Before the loop: where the rows of A that a lane loads from begin. */
export function findRows({ rows }: MatmulShape, tile: SubgroupTile): string[] {
  return range(rowLoads(tile).groups).map((g) => {
    const own = tile.lanes > tile.rows ? `lane % ${tile.rows}u` : `${g * tile.lanes}u + lane`;
    const row = clamped(`(row + ${own})`, rows % tile.rows === 0, "rows");
    return `  let aRow${g} = aFirst + ${row} * sizes.inner;`;
  });
}

/** Each lane loads fours of its rows of A, neighbours in the inner dimension. Beyond the end they are zero. */
export function loadRows({ inner, halves }: MatmulShape, tile: SubgroupTile, round: Round): string[] {
  const { groups, depth } = rowLoads(tile);
  const fits = inner % round.length === 0;
  return range(round.loads).map((h) => {
    const [row, first] = [`aRow${h % groups}`, `${4 * depth * Math.floor(h / groups)}u`];
    const start = depth > 1 ? `(k + ${first} + lane / ${tile.rows}u * 4u)` : `(k + ${first})`;
    const one = (i: number) =>
      `select(0.0, a[${row} + min(${start} + ${i}u, sizes.inner - 1u)], ${start} + ${i}u < to)`;
    const four = `aFour((${row} + ${clampedFour(start, fits, "inner")}) / 4u)`;
    const inside = fits ? four : `select(vec4f(), ${four}, ${start} < to)`;
    const value = inner % 4 === 0 ? inside : `vec4f(${range(4).map(one).join(", ")})`;
    return `    let a${h} = ${rounded(value, halves)};`;
  });
}

//| 02-attention/2-matrix-products.ipynb#hold-columns
/** The same from an A that is stored transposed: each lane loads four neighbouring rows at one inner index. */
export function loadTransposedRows(shape: MatmulShape, tile: SubgroupTile, round: Round): string[] {
  const { rows, inner, halves } = shape;
  const across = tile.rows / 4;
  const fits = inner % round.length === 0;
  const whole = rows % tile.rows === 0;
  const first = `(row + lane % ${across}u * 4u)`;
  return range(round.loads).map((h) => {
    const index = `(k + ${(h * tile.lanes) / across}u + lane / ${across}u)`;
    const start = `aFirst + ${clamped(index, fits, "inner")} * sizes.rows`;
    const one = (i: number) => `a[${start} + min(${first} + ${i}u, sizes.rows - 1u)]`;
    const four = `aFour((${start} + ${clampedFour(first, whole, "rows")}) / 4u)`;
    const value = rows % 4 === 0 ? four : `vec4f(${range(4).map(one).join(", ")})`;
    return `    let a${h} = ${rounded(fits ? value : `select(vec4f(), ${value}, ${index} < to)`, halves)};`;
  });
}

//| 02-attention/2-matrix-products.ipynb#hand-round
/** WGSL for the element of A in row `r` of the block at the round's inner index q + i: one lane has it, all get it. */
export function handRound({ transposeA }: MatmulShape, tile: SubgroupTile, r: number, i: number): string {
  const { lanes, rows } = tile;
  const across = rows / 4;
  if (transposeA) {
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
export function loadColumns(shape: MatmulShape, tile: SubgroupTile, round: Round): string[] {
  const { inner, columns, halves } = shape;
  const fits = columns % (tile.lanes * 4) === 0;
  return range(round.step).map((i) => {
    const start = `bFirst + ${clamped(`(k + q + ${i}u)`, inner % round.length === 0, "inner")} * sizes.columns`;
    const one = (j: number) => `b[${start} + min(column + ${j}u, sizes.columns - 1u)]`;
    const four = `bFour((${start} + ${clampedFour("column", fits, "columns")}) / 4u)`;
    const value = columns % 4 === 0 ? four : `vec4f(${range(4).map(one).join(", ")})`;
    return `      let b${i} = ${rounded(value, halves)};`;
  });
}

//| 02-attention/2-matrix-products.ipynb#load-transposed-b
/** Before the loop, for a B that is stored transposed: where a lane's four columns begin. */
export function findColumns({ columns }: MatmulShape, { lanes }: SubgroupTile): string[] {
  const column = (j: number) => clamped(`(column + ${j}u)`, columns % (lanes * 4) === 0, "columns");
  return range(4).map((j) => `  let bRow${j} = bFirst + ${column(j)} * sizes.inner;`);
}

/** The same rows of B: fours of each column, turned round. */
export function loadTransposedColumns(shape: MatmulShape, _tile: SubgroupTile, round: Round): string[] {
  const { inner, halves } = shape;
  return range(round.step / 4).flatMap((s) => {
    const k = `(k + q + ${4 * s}u)`;
    const start = clampedFour(k, inner % round.length === 0, "inner");
    const loads = range(4).map((j) => {
      const one = (i: number) => `b[bRow${j} + min(${k} + ${i}u, sizes.inner - 1u)]`;
      const value =
        inner % 4 === 0 ? `bFour((bRow${j} + ${start}) / 4u)` : `vec4f(${range(4).map(one).join(", ")})`;
      return `      let t${4 * s + j} = ${rounded(value, halves)};`;
    });
    const turned = (i: number) => range(4).map((j) => `t${4 * s + j}[${i}]`);
    return [...loads, ...range(4).map((i) => `      let b${4 * s + i} = vec4f(${turned(i).join(", ")});`)];
  });
}

//| 02-attention/2-matrix-products.ipynb#subgroup-round
/** One round: the lanes load their parts of A, then multiply a step of inner indices at a time. */
export function subgroupRound(shape: MatmulShape, tile: SubgroupTile, round: Round): string[] {
  const { length, step } = round;
  const products = range(tile.rows).map((r) => {
    const terms = range(step).map((i) => `c${r} += ${handRound(shape, tile, r, i)} * b${i};`);
    return `      ${terms.join(" ")}`;
  });
  return [
    ...(shape.transposeA ? loadTransposedRows : loadRows)(shape, tile, round),
    length > step ? `    for (var q = 0u; q < ${length}u; q += ${step}u) {` : "    { let q = 0u;",
    ...(shape.transposeB ? loadTransposedColumns : loadColumns)(shape, tile, round),
    ...products,
    "    }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#store-rows
/** Writes the rows that exist, and of the last columns those that exist. */
export function storeRows(shape: MatmulShape, { rows }: SubgroupTile): string[] {
  const { columns } = shape;
  return range(rows).flatMap((r) => {
    const start = `cFirst + (row + ${r}u) * sizes.columns + column`;
    const exists = `row + ${r}u < sizes.rows`;
    if (columns % 4 === 0) {
      const four = finished(shape, `c${r}`, "column", start);
      return [`  if (${exists} && column < sizes.columns) { c[(${start}) / 4u] = ${four}; }`];
    }
    return range(4).map((j) => {
      const [place, at] = [`column + ${j}u`, `${start} + ${j}u`];
      const one = finished(shape, `c${r}[${j}]`, place, at);
      return `  if (${exists} && ${place} < sizes.columns) { c[${at}] = ${one}; }`;
    });
  });
}

//| 02-attention/2-matrix-products.ipynb#image-operands
/** How a kernel reads an operand: its declaration, and a WGSL function `aFour` or `bFour` that loads four floats of it. */
export interface ReadOperand {
  asImage: boolean;
  declaration: string;
  load: string;
}

/** Both operands: as images where the tile allows it, they are in fours, and two subgroups or more load each number. */
export function readOperands(shape: MatmulShape, places: MatmulPlaces, tile: SubgroupTile): ReadOperand[] {
  const { batch, rows, columns, sharedB } = shape;
  const across = columns / (4 * tile.lanes);
  const down = ((sharedB ? batch : 1) * rows) / (tile.rows * places.shares);
  return operands(shape).map(({ name, inFours }) => {
    const asImage = tile.images === true && inFours && (name === "a" ? across : down) >= 2;
    if (asImage) return { asImage, declaration: textureOf(name), load: textureFunction(name) };
    const load = inFours ? `fn ${name}Four(at: u32) -> vec4f { return ${name}[at]; }` : "";
    return { asImage, declaration: `${name}: array<${fours(inFours)}>`, load };
  });
}

//| 02-attention/2-matrix-products.ipynb#subgroup-kernel
/**
 * One subgroup computes a tile. In each round every lane loads a part of the tile's rows of A, and the subgroup hands it
 * round by `subgroupShuffle`, so that an element is loaded once for all lanes.
 */
export function subgroupMatmulKernel(shape: MatmulShape, places: MatmulPlaces, tile: SubgroupTile): Kernel {
  const { batch, rows, columns, transposeA, transposeB } = shape;
  const both = readOperands(shape, places, tile);
  const round = roundOf(tile, both[1].asImage ? 8 : 4);
  const width = tile.lanes * 4;
  return kernel({
    name: matmulName(places, shape),
    reads: [...both.map(({ declaration }) => declaration), ...places.reads, ...epilogueReads(shape, "V")],
    writes: ["c: array<V>"],
    enable: ["subgroups"],
    head: [...both.map(({ load }) => load), finishFunction(shape, columns % 4 === 0 ? 4 : 1)].join("\n"),
    sizes: { rows, columns, inner: shape.inner },
    workgroupSize: tile.lanes,
    workgroups: [Math.ceil(columns / width), Math.ceil(rows / tile.rows), batch],
    body: [
      places.before,
      `  let row = group.y * ${tile.rows}u;`,
      `  let column = group.x * ${width}u + lane * 4u;`,
      `  let aFirst = ${places.a};`,
      `  let bFirst = ${places.b};`,
      `  let cFirst = ${places.c};`,
      `  let to = ${places.to};`,
      ...(transposeA ? [] : findRows(shape, tile)),
      ...(transposeB ? findColumns(shape, tile) : []),
      ...range(tile.rows).map((r) => `  var c${r} = vec4f();`),
      `  for (var k = ${places.from}; k < to; k += ${round.length}u) {`,
      ...subgroupRound(shape, tile, round),
      "  }",
      ...storeRows(shape, tile),
    ].join("\n"),
  });
}

//| 02-attention/2-matrix-products.ipynb#prefers-subgroups
/** On a processor barriers are dear and lanes are cheap; on a graphics processor shared memory wins. */
export function prefersSubgroups({ kind, subgroupSize }: AdapterFacts): boolean {
  return kind === "cpu" && subgroupSize >= 4;
}
