// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { textureFunction, textureOf } from "../gpu/textures.js";
import { floatBits, prefersSubgroups, range } from "./wgsl.js";

//| 02-attention/7-the-fused-kernel.ipynb#flash-shape
/** The sizes of fused attention, and what is done to the scores. */
export interface FlashShape {
  batch: number;
  heads: number;
  /** Key and value heads, each shared by heads / kvHeads query heads. */
  kvHeads: number;
  /** Queries of a sequence. */
  tokens: number;
  /** Keys of a sequence, at most. */
  length: number;
  /** Numbers of a query and of a key, and of a value: multiples of 4. */
  keyWidth: number;
  valueWidth: number;
  /** Scores are multiplied by this. */
  scale: number;
  /** Scores become softcap · tanh(score / softcap); 0 leaves them as they are. */
  softcap: number;
  /** Each head has a learned score that no key belongs to. */
  sinks: boolean;
  /** Blocks in each sequence's table, where keys and values are paged; 0 where they are dense. */
  tableBlocks: number;
  /** Whether keys and values are int8, each row with its scale behind it. */
  int8?: boolean;
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-form
/** How a fused kernel spreads its work: chosen for the adapter and the shape. */
export interface FlashTiling {
  /** Whether rows reach all lanes by subgroupShuffle; otherwise through workgroup memory. */
  subgroups: boolean;
  /** Lanes of a workgroup. */
  lanes: number;
  /** Rows that each lane keeps. */
  rows: number;
  /** Whether the rows that are handed round by subgroups are read as textures. */
  textures: boolean;
  /** Keys of a part, where the keys of a row are split over workgroups; 0 where one walks through all of them. */
  partKeys: number;
  /** Whether a workgroup walks through all parts and puts them together itself. */
  folds?: boolean;
}

/** Query rows of one key head. */
export function groupedRows({ heads, kvHeads, tokens }: FlashShape): number {
  return (heads / kvHeads) * tokens;
}

/**
 * The tiling that suits the adapter. On a processor a lane keeps four rows, so that what is loaded serves them all, unless
 * there are not enough rows to fill the lanes, or heads are so wide that the compiler would have thousands of lines; what
 * sixteen tiles of rows walk through is worth a copy into a texture. On a graphics processor a row is all that a lane can keep.
 */
export function flashTiling(shape: FlashShape, facts: AdapterFacts): FlashTiling {
  if (!prefersSubgroups(facts)) return { subgroups: false, lanes: 64, rows: 1, textures: false, partKeys: 0 };
  const lanes = facts.subgroupSize;
  const rows = groupedRows(shape) >= 4 * lanes && shape.keyWidth <= 128 ? 4 : 1;
  const textures = groupedRows(shape) >= 16 * rows * lanes && shape.tableBlocks === 0 && !shape.int8;
  return { subgroups: true, lanes, rows, textures, partKeys: 0 };
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-tile
/** Query rows of a workgroup: the query heads of one key head lie one after the other, and count as rows of one matrix. */
export function flashTile({ lanes, rows }: FlashTiling): number {
  return lanes * rows;
}

/** The tiling in which lanes keep keys: with the sums for two gradients, four wide rows would not stay in the fastest cache. */
export function keyTiling({ keyWidth }: FlashShape, tiling: FlashTiling): FlashTiling {
  return { ...tiling, rows: Math.min(tiling.rows, keyWidth > 32 ? 2 : 4) };
}

/** Tiles of query rows of one key head. */
export function queryTiles(shape: FlashShape, tiling: FlashTiling): number {
  return Math.ceil(groupedRows(shape) / flashTile(tiling));
}

//| 02-attention/7-the-fused-kernel.ipynb#key-ranges-kernel
/** What hides keys from queries. */
export interface KeyRanges {
  /** Sequences with ranges of their own; 1 where all share them. */
  sequences: number;
  /** Whether positions are [batch, tokens] and not [tokens]. */
  positionsPerSequence: boolean;
  /** A query sees this many keys, itself included; 0 is no limit. */
  window: number;
  /** Whether each query has a first key of its own, as in packed sequences. */
  firstKey: boolean;
  /** Whether each sequence says how many keys it has. */
  lengths: boolean;
}

//| 02-attention/7-the-fused-kernel.ipynb#key-ranges-kernel-code
/**
 * The run of keys [first, end) that each query row may see, and that of each tile of rows together:
 * u32 [sequences, rows, 2] and [sequences, tiles, 2]. A row that sees no key gets [0, 0). Reads positions, first keys and
 * lengths; in the place of those that do not count anything may be bound. All shapes share one compiled kernel.
 */
export function keyRangesKernel(shape: FlashShape, ranges: KeyRanges, tiling: FlashTiling): Kernel {
  const { tokens, length } = shape;
  const { sequences, window, positionsPerSequence, firstKey, lengths } = ranges;
  const [rows, tiles] = [groupedRows(shape), queryTiles(shape, tiling)];
  const flags = { positionStep: positionsPerSequence ? tokens : 0, firstKey: +firstKey, lengths: +lengths };
  const sizes = {
    rows,
    tokens,
    length,
    tiles,
    tileRows: flashTile(tiling),
    window: window || 0xffffffff,
    ...flags,
  };
  return kernel({
    name: `key ranges ${sequences}x${rows}x${length}`,
    reads: ["positions: array<u32>", "firstKeys: array<u32>", "lengths: array<u32>"],
    writes: ["ranges: array<vec2u>", "tiles: array<vec2u>"],
    sizes,
    workgroupSize: 64,
    workgroups: Math.ceil((sequences * tiles) / 64),
    body: `
  if (thread >= arrayLength(&tiles)) { return; }
  let sequence = thread / sizes.tiles;
  let begin = thread % sizes.tiles * sizes.tileRows;
  var held = sizes.length;
  if (sizes.lengths == 1u) { held = min(held, lengths[sequence]); }
  var token = begin % sizes.tokens;
  var tile = vec2u(0xffffffffu, 0u);
  for (var row = begin; row < min(begin + sizes.tileRows, sizes.rows); row++) {
    let at = sequence * sizes.positionStep + token;
    let end = positions[at] + 1u;
    var range = vec2u(end - min(end, sizes.window), min(end, held));
    if (sizes.firstKey == 1u) { range.x = max(range.x, firstKeys[at]); }
    if (range.x < range.y) { tile = vec2u(min(tile.x, range.x), max(tile.y, range.y)); }
    else { range = vec2u(); }
    ranges[sequence * sizes.rows + row] = range;
    token = select(token + 1u, 0u, token + 1u == sizes.tokens);
  }
  tiles[thread] = tile;`,
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#shared-rows
/** Loads of four numbers that make up a row of an array: queries and keys have one width, values and results another. */
export function vectorsOf(array: string, { keyWidth, valueWidth }: FlashShape): number {
  return (["q", "k", "dq", "dk"].includes(array) ? keyWidth : valueWidth) / 4;
}

/** The size, read as data, that ends a loop over a row of an array. */
export function loopEnd(name: string): string {
  return ["q", "k", "dq", "dk"].includes(name) ? "sizes.keyVectors" : "sizes.valueVectors";
}

/** Whether rows are so wide that a line for each four of their numbers would keep the compiler busy for seconds: loops go over them then. */
export function isWide({ keyWidth, valueWidth }: FlashShape): boolean {
  return Math.max(keyWidth, valueWidth) > 256;
}

/** Which four numbers of a row: by their number, or in a loop by its variable. */
export type Four = number | "c";

/** Rows that the workgroup form keeps in workgroup memory at a time, so that two arrays of them take 16 KiB at most. */
export function sharedRows(shape: FlashShape): number {
  const widest = Math.max(vectorsOf("k", shape), vectorsOf("v", shape));
  return Math.max(2, Math.min(32, 2 ** Math.floor(Math.log2(512 / widest))));
}

/** Declares the workgroup memory for rows of these arrays, or how they are read as textures. */
export function sharedHead(names: string[], shape: FlashShape, { subgroups, textures }: FlashTiling): string {
  if (subgroups) return textures ? names.map(textureFunction).join("\n") : "";
  const size = (name: string) => sharedRows(shape) * vectorsOf(name, shape);
  return names.map((name) => `var<workgroup> ${name}Tile: array<vec4f, ${size(name)}>;`).join("\n");
}

//| 02-attention/7-the-fused-kernel.ipynb#shared-four
/** WGSL for the four numbers at `c` of row `j` of an array that all lanes walk through. */
export function sharedFour(
  name: string,
  c: Four,
  shape: FlashShape,
  { subgroups, lanes }: FlashTiling,
): string {
  if (!subgroups) return `${name}Tile[(j - start) * ${vectorsOf(name, shape)}u + ${c === "c" ? c : `${c}u`}]`;
  if (c === "c") return `subgroupShuffle(${name}Parts[c / ${lanes}u], c % ${lanes}u)`;
  return `subgroupShuffle(${name}Part${Math.floor(c / lanes)}, ${c % lanes}u)`;
}

//| 02-attention/7-the-fused-kernel.ipynb#each-shared
/** The rows that all lanes walk through: arrays by name, where row j of them lies, and which rows. */
export interface RowWalk {
  names: string[];
  /** WGSL for the number of a row in its array, from j. */
  row: (j: string) => string;
  from: string;
  to: string;
  /** Whether the rows are int8. */
  int8?: boolean;
}

/** WGSL: the four numbers of a word of int8, times the scale whose bits are in another word. */
export const int8Function = `fn int8Four(word: u32, scale: u32) -> vec4f {
  return vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24, 16, 8, 0)) >> vec4u(24)) * bitcast<f32>(scale);
}`;

/** WGSL (a vec4f): the i-th four numbers of a row of an array, of `width` fours. Of int8, a four is a word, and the scale one more. */
export function rowFour(name: string, row: string, i: string, width: number, int8 = false): string {
  if (!int8) return `${name}[${row} * ${width}u + ${i}]`;
  const start = `${row} * ${width + 1}u`;
  return `int8Four(${name}[${start} + ${i}], ${name}[${start} + ${width}u])`;
}

/** Declares arrays of rows, in fours: those that are walked through as textures, or as int8, where they are so. */
export function rowArrays(names: string[], walk: RowWalk, { textures }: FlashTiling): string[] {
  return names.map((name) => {
    if (!walk.names.includes(name)) return `${name}: array<vec4f>`;
    return textures ? textureOf(name) : `${name}: array<${walk.int8 ? "u32" : "vec4f"}>`;
  });
}

/** Loads row j: each lane a part of it, to be handed round. */
export function loadParts(
  { names, row, int8 }: RowWalk,
  shape: FlashShape,
  { lanes, textures }: FlashTiling,
): string[] {
  const four = (name: string, i: string, width: number) =>
    textures ? `${name}Four(row * ${width}u + ${i})` : rowFour(name, "row", i, width, int8);
  const parts = names.flatMap((name) => {
    const width = vectorsOf(name, shape);
    const part = (i: number) =>
      (i + 1) * lanes <= width ? `${i * lanes}u + lane` : `min(${i * lanes}u + lane, ${width - 1}u)`;
    if (isWide(shape))
      return [
        `for (var i = 0u; i * ${lanes}u < ${loopEnd(name)}; i++) {`,
        `${name}Parts[i] = ${four(name, `min(i * ${lanes}u + lane, ${width - 1}u)`, width)};`,
        "}",
      ];
    return range(Math.ceil(width / lanes)).map((i) => `let ${name}Part${i} = ${four(name, part(i), width)};`);
  });
  return [`let row = ${row("j")};`, ...parts];
}

//| 02-attention/7-the-fused-kernel.ipynb#fill-shared
/** Fills the workgroup memory with rows from `start` on. */
export function fillShared(
  { names, row, to, int8 }: RowWalk,
  shape: FlashShape,
  { lanes }: FlashTiling,
): string[] {
  const widths = [...new Set(names.map((name) => vectorsOf(name, shape)))];
  const fill = (width: number) => [
    `for (var slot = lane; slot < ${sharedRows(shape) * width}u; slot += ${lanes}u) {`,
    `  let j = min(start + slot / ${width}u, ${to} - 1u);`,
    `  let row = ${row("j")};`,
    ...names
      .filter((name) => vectorsOf(name, shape) === width)
      .map((name) => `  ${name}Tile[slot] = ${rowFour(name, "row", `slot % ${width}u`, width, int8)};`),
    "}",
  ];
  return ["workgroupBarrier();", ...widths.flatMap(fill), "workgroupBarrier();"];
}

//| 02-attention/7-the-fused-kernel.ipynb#walk-rows
/** Walks through rows one by one, in every lane at the same time: the statements see the row's number, `j`. */
export function walkRows(
  walk: RowWalk,
  shape: FlashShape,
  tiling: FlashTiling,
  statements: string[],
): string[] {
  const { from, to, names } = walk;
  const parts = (name: string) => Math.ceil(vectorsOf(name, shape) / tiling.lanes);
  const wide = isWide(shape) ? names.map((name) => `var ${name}Parts: array<vec4f, ${parts(name)}>;`) : [];
  const handedRound = [
    `for (var j = ${from}; j < ${to}; j++) {`,
    ...loadParts(walk, shape, tiling),
    ...statements,
    "}",
  ];
  if (tiling.subgroups) return [...wide, ...handedRound];
  return [
    `for (var start = ${from}; start < ${to}; start += ${sharedRows(shape)}u) {`,
    ...fillShared(walk, shape, tiling),
    `for (var j = start; j < min(start + ${sharedRows(shape)}u, ${to}); j++) {`,
    ...statements,
    "}",
    "}",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#own-rows
/** The number of each lane's row r, which may lie past the end. */
export function ownRow(r: number, { lanes, rows }: FlashTiling): string {
  return `group.x * ${lanes * rows}u + ${r * lanes}u + lane`;
}

/** Each lane's rows: their numbers, the last one again where they are past the end. `count` is how many there are. */
export function ownRows(count: string, tiling: FlashTiling): string[] {
  const row = (r: number) => `let row${r} = min(${ownRow(r, tiling)}, ${count} - 1u);`;
  return ["let matrix = group.y;", "let scale = bitcast<f32>(sizes.scale);", ...range(tiling.rows).map(row)];
}

//| 02-attention/7-the-fused-kernel.ipynb#own-four
/** Whether a lane keeps a row as an array; otherwise as variables, one for each four of its numbers. */
export function keepsArrays(shape: FlashShape, { subgroups }: FlashTiling): boolean {
  return subgroups || isWide(shape);
}

/** WGSL for the four numbers at `c` of a lane's row r of an array that it keeps. */
export function ownFour(name: string, r: number, c: Four, shape: FlashShape, tiling: FlashTiling): string {
  return keepsArrays(shape, tiling) ? `${name}${r}[${c}]` : `${name}${r}_${c}`;
}

/** Zeros to add each lane's rows of a result to. */
export function ownSums(name: string, shape: FlashShape, tiling: FlashTiling): string[] {
  const [rows, width] = [range(tiling.rows), vectorsOf(name, shape)];
  if (keepsArrays(shape, tiling)) return rows.map((r) => `var ${name}${r}: array<vec4f, ${width}>;`);
  return rows.flatMap((r) => range(width).map((c) => `var ${ownFour(name, r, c, shape, tiling)} = vec4f();`));
}

/** Statements for each four numbers of a row of an array: one after the other, or in a loop where rows are wide. */
export function eachFour(name: string, shape: FlashShape, statements: (c: Four) => string[]): string[] {
  if (!isWide(shape)) return range(vectorsOf(name, shape)).flatMap(statements);
  return [`for (var c = 0u; c < ${loopEnd(name)}; c++) {`, ...statements("c"), "}"];
}

//| 02-attention/7-the-fused-kernel.ipynb#load-own
/** Takes each lane's rows of an array along, times a factor (WGSL) where one is given. */
export function loadOwn(
  name: string,
  count: string,
  shape: FlashShape,
  tiling: FlashTiling,
  factor = "",
): string[] {
  const times = factor === "" ? "" : ` * ${factor}`;
  const width = vectorsOf(name, shape);
  const four = (r: number, c: string) => `${name}[(matrix * ${count} + row${r}) * ${width}u + ${c}]${times};`;
  const rows = range(tiling.rows);
  if (!keepsArrays(shape, tiling))
    return rows.flatMap((r) =>
      range(width).map((c) => `let ${ownFour(name, r, c, shape, tiling)} = ${four(r, `${c}u`)}`),
    );
  return [
    ...ownSums(name, shape, tiling),
    `for (var c = 0u; c < ${loopEnd(name)}; c++) {`,
    ...rows.map((r) => `${name}${r}[c] = ${four(r, "c")}`),
    "}",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#store-own
/** Writes each lane's rows of a result, those that exist, times a factor. `matrix` is WGSL for the matrix that they are rows of. */
export function storeOwn(
  name: string,
  count: string,
  shape: FlashShape,
  tiling: FlashTiling,
  { factor, matrix = "matrix" }: { factor: (r: number) => string; matrix?: string },
): string[] {
  const width = vectorsOf(name, shape);
  const start = (r: number) => `${name}[(${matrix} * ${count} + row${r}) * ${width}u`;
  const store = (r: number) =>
    keepsArrays(shape, tiling)
      ? [`for (var c = 0u; c < ${loopEnd(name)}; c++) { ${start(r)} + c] = ${name}${r}[c] * ${factor(r)}; }`]
      : range(width).map(
          (c) => `${start(r)} + ${c}u] = ${ownFour(name, r, c, shape, tiling)} * ${factor(r)};`,
        );
  return range(tiling.rows).flatMap((r) => [`if (${ownRow(r, tiling)} < ${count}) {`, ...store(r), "}"]);
}

//| 02-attention/7-the-fused-kernel.ipynb#products
/** Dot products of each lane's rows of `own` with row j of `shared`: variables `name`r. */
export function dotProducts(
  name: string,
  own: string,
  shared: string,
  shape: FlashShape,
  tiling: FlashTiling,
): string[] {
  const rows = range(tiling.rows);
  return [
    ...rows.map((r) => `var ${name}${r} = 0.0;`),
    ...eachFour(shared, shape, (c) => [
      `let ${name}Four${c} = ${sharedFour(shared, c, shape, tiling)};`,
      ...rows.map((r) => `${name}${r} += dot(${ownFour(own, r, c, shape, tiling)}, ${name}Four${c});`),
    ]),
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#add-products
/** Adds row j of `shared`, times `factor`r, to each lane's sums. */
export function addProducts(
  sums: string,
  factor: string,
  shared: string,
  shape: FlashShape,
  tiling: FlashTiling,
): string[] {
  return eachFour(shared, shape, (c) => [
    `let ${sums}Four${c} = ${sharedFour(shared, c, shape, tiling)};`,
    ...range(tiling.rows).map(
      (r) => `${ownFour(sums, r, c, shape, tiling)} += ${factor}${r} * ${sums}Four${c};`,
    ),
  ]);
}

//| 02-attention/7-the-fused-kernel.ipynb#cap-scores
/** Caps the scores, where the model does. tanh of large numbers is not safe everywhere: past 15 it is 1 anyway. */
export function capScores({ softcap }: FlashShape, { rows }: FlashTiling): string[] {
  const cap = "bitcast<f32>(sizes.softcap)";
  if (softcap === 0) return [];
  return range(rows).map((r) => `s${r} = ${cap} * tanh(clamp(s${r} / ${cap}, -15.0, 15.0));`);
}

//| 02-attention/7-the-fused-kernel.ipynb#key-parts
/**
 * Keys of a part where the keys of a row are taken in parts, 0 where all are one. It is the same for all lengths, so that where a
 * part begins depends on nothing else. On a graphics processor few rows leave most cores idle, and short parts fill them; on a
 * processor putting parts together costs what a thousand keys cost.
 */
export function partKeysFor({ tokens, length }: FlashShape, facts: AdapterFacts, invariant = false): number {
  const keys = prefersSubgroups(facts) ? 2048 : 128;
  return (invariant || tokens <= 8) && length > keys ? keys : 0;
}

/** Whether the parts of a row's keys go to workgroups of their own. */
export function isSplit({ partKeys, folds }: FlashTiling): boolean {
  return partKeys > 0 && !folds;
}

/** Workgroups that share the keys of a row. */
export function keyParts({ length }: FlashShape, tiling: FlashTiling): number {
  return isSplit(tiling) ? Math.ceil(length / tiling.partKeys) : 1;
}

//| 02-attention/7-the-fused-kernel.ipynb#inference-tiling
/**
 * The tiling where no gradients are wanted. Chunks of a prompt that are read into a cache of up to 1,024 keys go row by row, as
 * decoding does, which compiles in a tenth of the time; with more keys four rows a lane soon win that back.
 */
export function inferenceTiling(shape: FlashShape, facts: AdapterFacts, invariant = false): FlashTiling {
  const { tokens, length } = shape;
  const tiling = flashTiling(shape, facts);
  const brief = tokens < length && length <= 1024 && !tiling.textures;
  const partKeys = partKeysFor(shape, facts, invariant);
  return { ...tiling, rows: brief ? 1 : tiling.rows, partKeys, folds: partKeys > 0 && tokens > 8 };
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-frame
/** A name such as `flash attention 12x4x64x64x32` for errors and profiles. */
export function flashName(
  what: string,
  { batch, heads, tokens, length, keyWidth, valueWidth }: FlashShape,
): string {
  const width = keyWidth === valueWidth ? keyWidth : `${keyWidth}/${valueWidth}`;
  return `${what} ${batch}x${heads}x${tokens}x${length}x${width}`;
}

/** What the kernels read as data, so that all lengths, batches and scales share one that is compiled. */
export function flashSizes(
  shape: FlashShape,
  tiling: FlashTiling,
  sequences: number,
): Record<string, number> {
  const { length, tokens, kvHeads, scale, softcap, tableBlocks } = shape;
  const [keyVectors, valueVectors] = [vectorsOf("k", shape), vectorsOf("v", shape)];
  return {
    ...{ rows: groupedRows(shape), length, tokens, kvHeads, tiles: queryTiles(shape, tiling) },
    sequenceStep: sequences === 1 ? 0 : 1,
    ...{ keyVectors, valueVectors, tableBlocks, partKeys: tiling.partKeys },
    ...{ scale: floatBits(scale), softcap: floatBits(softcap) },
  };
}

/** What the three kernels have in common. There are `across` workgroups for each key head, times the parts of the keys. */
export function flashFrame(shape: FlashShape, tiling: FlashTiling, sequences: number, across: number) {
  const workgroups: [number, number, number] = [across, shape.batch * shape.kvHeads, keyParts(shape, tiling)];
  return {
    enable: tiling.subgroups ? ["subgroups"] : [],
    sizes: flashSizes(shape, tiling, sequences),
    workgroupSize: tiling.lanes,
    workgroups,
  };
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-tables
/** The sequence whose tables a workgroup reads. */
export const sequenceOf = "let sequence = matrix / sizes.kvHeads * sizes.sequenceStep;";

/** The run of keys that a workgroup's rows see together. */
export const ownTile = "let tile = tiles[sequence * sizes.tiles + group.x];";

//| 02-attention/7-the-fused-kernel.ipynb#online-softmax
/**
 * Takes a key's scores in: a score above the highest so far scales down all that was added before. The key's shares,
 * relative to the highest score, are `p`.
 */
export function onlineSoftmax(shape: FlashShape, tiling: FlashTiling, sums = "y"): string[] {
  return range(tiling.rows).flatMap((r) => [
    `s${r} = select(-3e38, s${r}, j >= range${r}.x && j < range${r}.y);`,
    `if (s${r} > highest${r}) {`,
    `let decay = exp(highest${r} - s${r});`,
    `highest${r} = s${r};`,
    `sum${r} *= decay;`,
    ...eachFour(sums, shape, (c) => [`${ownFour(sums, r, c, shape, tiling)} *= decay;`]),
    "}",
    `let p${r} = exp(s${r} - highest${r});`,
    `sum${r} += p${r};`,
  ]);
}

//| 02-attention/7-the-fused-kernel.ipynb#key-walk
/** Tokens of a block of paged keys and values. */
export const blockTokens = 16;

/** What `keyWalk` needs to know to find a paged row: the sequence's table, and the head within a block. */
export const ownTable = [
  "let table = matrix / sizes.kvHeads * sizes.tableBlocks;",
  "let kvHead = matrix % sizes.kvHeads;",
];

/**
 * The keys and values that a workgroup's query rows see together. Dense ones [batch, kvHeads, length, width] lie one after the
 * other; paged ones [blocks, kvHeads, 16, width] where the sequence's table says.
 */
export function keyWalk({ tableBlocks, int8 }: FlashShape, { partKeys }: FlashTiling): RowWalk {
  const dense = (j: string) => `matrix * sizes.length + ${j}`;
  const paged = (j: string) =>
    `(blocks[table + ${j} / ${blockTokens}u] * sizes.kvHeads + kvHead) * ${blockTokens}u + ${j} % ${blockTokens}u`;
  const [from, to] = partKeys === 0 ? ["tile.x", "tile.y"] : ["first", "last"];
  return { names: ["k", "v"], row: tableBlocks > 0 ? paged : dense, from, to, int8 };
}

//| 02-attention/7-the-fused-kernel.ipynb#forward-kernel
/** Where the softmax of each lane's rows begins: with nothing, or with a sink, a score before the first key. */
export function beginSoftmax({ sinks }: FlashShape, { rows, partKeys, folds }: FlashTiling): string[] {
  const head = (r: number) => `matrix % sizes.kvHeads * (sizes.rows / sizes.tokens) + row${r} / sizes.tokens`;
  const first = partKeys === 0 ? "true" : folds ? "part == 0u" : "group.z == 0u"; // only the first part begins with the sink
  return range(rows).flatMap((r) => [
    `let range${r} = ranges[sequence * sizes.rows + row${r}];`,
    `var highest${r} = ${sinks ? `select(-1e30, sinks[${head(r)}], ${first})` : "-1e30"};`,
    `var sum${r} = ${sinks ? `select(0.0, 1.0, ${first})` : "0.0"};`,
  ]);
}

/**
 * The share of all that was added, and the logarithm of the sum. A row that sees nothing gets zeros, and a logarithm so large
 * that all its shares are 0 on the way back.
 */
export function endSoftmax(shape: FlashShape, tiling: FlashTiling): string[] {
  const ends = range(tiling.rows).flatMap((r) => [
    `let share${r} = select(0.0, 1.0 / sum${r}, sum${r} > 0.0);`,
    `if (${ownRow(r, tiling)} < sizes.rows) {`,
    `logSums[matrix * sizes.rows + row${r}] = select(3e38, highest${r} + log(sum${r}), sum${r} > 0.0);`,
    "}",
  ]);
  return [...ends, ...storeOwn("y", "sizes.rows", shape, tiling, { factor: (r) => `share${r}` })];
}

//| 02-attention/7-the-fused-kernel.ipynb#end-part
/** The keys of part number `part` (WGSL) among those that a workgroup's rows see. */
export function keysOfPart(part: string): string[] {
  return [
    `let first = max(tile.x, ${part} * sizes.partKeys);`,
    `let last = min(tile.y, (${part} + 1u) * sizes.partKeys);`,
  ];
}

/** Leaves what one part of the keys adds up to: the sums as they are, and their highest score and sum of powers. */
export function endPart(shape: FlashShape, tiling: FlashTiling): string[] {
  const matrix = "(group.z * groups.y + matrix)";
  const marks = range(tiling.rows).flatMap((r) => [
    `if (${ownRow(r, tiling)} < sizes.rows) {`,
    `marks[${matrix} * sizes.rows + row${r}] = vec2f(highest${r}, sum${r});`,
    "}",
  ]);
  return [...marks, ...storeOwn("y", "sizes.rows", shape, tiling, { factor: () => "1.0", matrix })];
}

//| 02-attention/7-the-fused-kernel.ipynb#fold-parts
/**
 * WGSL that adds a part to those before it, of which `most` is the highest score, `whole` the sum of powers and `total` the mixture. A
 * part that saw nothing changes nothing.
 */
export function foldPart(part: { most: string; sum: string }, r: number | "", add: string[]): string[] {
  const { most, sum } = part;
  return [
    `if (${sum} > 0.0) {`,
    `let next = max(most${r}, ${most});`,
    `let before = select(exp(most${r} - next), 1.0, most${r} == next);`,
    `let now = select(exp(${most} - next), 1.0, ${most} == next);`,
    `most${r} = next;`,
    `whole${r} = fma(${sum}, now, whole${r} * before);`,
    ...add,
    "}",
  ];
}

/** A walk through all parts of the keys, one after the other, in one workgroup: it leaves what a walk through one part leaves. */
export function walkParts(
  shape: FlashShape,
  tiling: FlashTiling,
  walk: (sums: string) => string[],
): string[] {
  const rows = range(tiling.rows);
  const addTo = (r: number) =>
    eachFour("y", shape, (c) => {
      const [total, mixed] = ["y", "mixed"].map((name) => ownFour(name, r, c, shape, tiling));
      return [`${total} = fma(${mixed}, vec4f(now), ${total} * before);`];
    });
  return [
    ...rows.map((r) => `var most${r} = -1e30; var whole${r} = 0.0;`),
    `for (var part = ${shape.sinks ? "0u" : "tile.x / sizes.partKeys"}; part * sizes.partKeys < tile.y; part++) {`,
    ...keysOfPart("part"),
    ...ownSums("mixed", shape, tiling),
    ...beginSoftmax(shape, tiling),
    ...walk("mixed"),
    ...rows.flatMap((r) => foldPart({ most: `highest${r}`, sum: `sum${r}` }, r, addTo(r))),
    "}",
    ...rows.map((r) => `let highest${r} = most${r}; let sum${r} = whole${r};`),
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-kernel
/**
 * Attention in one pass over the keys. Writes y [batch, heads, tokens, valueWidth], and the logarithm of each row's sum of powers
 * [batch, heads, tokens]; where the keys are split, what each part adds up to, with a first dimension of parts.
 */
export function flashKernel(shape: FlashShape, tiling: FlashTiling, sequences: number): Kernel {
  const walk = keyWalk(shape, tiling);
  const [paged, split] = [shape.tableBlocks > 0, isSplit(tiling)];
  const walkWith = (sums: string) =>
    walkRows(walk, shape, tiling, [
      ...dotProducts("s", "q", "k", shape, tiling),
      ...capScores(shape, tiling),
      ...onlineSoftmax(shape, tiling, sums),
      ...addProducts(sums, "p", "v", shape, tiling),
    ]);
  const tables = ["ranges: array<vec2u>", "tiles: array<vec2u>"];
  return kernel({
    ...flashFrame(shape, tiling, sequences, queryTiles(shape, tiling)),
    name: flashName("flash attention", shape),
    reads: [
      ...[...rowArrays(["q", "k", "v"], walk, tiling), ...tables],
      ...(paged ? ["blocks: array<u32>"] : []),
      ...(shape.sinks ? ["sinks: array<f32>"] : []),
    ],
    writes: ["y: array<vec4f>", split ? "marks: array<vec2f>" : "logSums: array<f32>"],
    head: [sharedHead(walk.names, shape, tiling), ...(shape.int8 ? [int8Function] : [])].join("\n"),
    body: [
      ...[...ownRows("sizes.rows", tiling), sequenceOf, ownTile],
      ...[...(split ? keysOfPart("group.z") : []), ...(paged ? ownTable : [])],
      ...loadOwn("q", "sizes.rows", shape, tiling, "scale"),
      ...ownSums("y", shape, tiling),
      ...(tiling.folds
        ? walkParts(shape, tiling, walkWith)
        : [...beginSoftmax(shape, tiling), ...walkWith("y")]),
      ...(split ? endPart : endSoftmax)(shape, tiling),
    ].join("\n"),
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#combine-kernel
/**
 * Puts the parts of split keys together: sums [parts, rows, valueWidth] and marks [parts, rows, 2] of all rows to y
 * [rows, valueWidth]. Parts that saw nothing are not read. All shapes share one compiled kernel.
 */
export function combinePartsKernel(shape: FlashShape, tiling: FlashTiling): Kernel {
  const { batch, heads, tokens } = shape;
  const [rows, vectors] = [batch * heads * tokens, vectorsOf("y", shape)];
  return kernel({
    name: flashName("combine parts", shape),
    reads: ["sums: array<vec4f>", "marks: array<vec2f>"],
    writes: ["y: array<vec4f>"],
    sizes: { rows, vectors, parts: keyParts(shape, tiling) },
    workgroupSize: 64,
    workgroups: Math.ceil((rows * vectors) / 64),
    body: `
  if (thread >= sizes.rows * sizes.vectors) { return; }
  let row = thread / sizes.vectors;
  var most = -1e30;
  var whole = 0.0;
  var total = vec4f();
  for (var part = 0u; part < sizes.parts; part++) {
    let mark = marks[part * sizes.rows + row];
    ${foldPart({ most: "mark.x", sum: "mark.y" }, "", [
      "total = fma(sums[part * sizes.rows * sizes.vectors + thread], vec4f(now), total * before);",
    ]).join("\n    ")}
  }
  y[thread] = total * select(0.0, 1.0 / whole, whole > 0.0);`,
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#row-facts-kernel
/**
 * What the backward kernels need to know of each query row, f32 [batch, heads, tokens, 4]: the logarithm of its sum,
 * Σ gradient · y, and its run of keys. With sinks also what the row adds to the gradient of its head's sink,
 * f32 [batch, tokens, heads].
 */
export function rowStatisticsKernel(shape: FlashShape, tiling: FlashTiling, sequences: number): Kernel {
  const { batch, heads, tokens, sinks } = shape;
  const sinkPart = `
  let heads = sizes.kvHeads * (sizes.rows / sizes.tokens);
  let place = (sequence * sizes.tokens + thread % sizes.tokens) * heads + thread / sizes.tokens % heads;
  sinkParts[place] = -exp(sinks[thread / sizes.tokens % heads] - logSums[thread]) * sum;`;
  return kernel({
    name: flashName("flash row statistics", shape),
    reads: [
      ...["y: array<vec4f>", "gradient: array<vec4f>", "logSums: array<f32>", "ranges: array<vec2u>"],
      ...(sinks ? ["sinks: array<f32>"] : []),
    ],
    writes: ["statistics: array<vec4f>", ...(sinks ? ["sinkParts: array<f32>"] : [])],
    sizes: flashSizes(shape, tiling, sequences),
    workgroupSize: 64,
    workgroups: Math.ceil((batch * heads * tokens) / 64),
    body: `
  if (thread >= arrayLength(&statistics)) { return; }
  let sequence = thread / (sizes.rows * sizes.kvHeads);
  let width = sizes.valueVectors;
  var sum = 0.0;
  for (var i = thread * width; i < (thread + 1u) * width; i++) { sum += dot(y[i], gradient[i]); }
  let range = ranges[sequence * sizes.sequenceStep * sizes.rows + thread % sizes.tokens];
  statistics[thread] = vec4f(logSums[thread], sum, vec2f(range));${sinks ? sinkPart : ""}`,
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#score-gradient
/**
 * WGSL for the share p and the gradient ds of the score s of row r, from the gradient dp of its share and its row's statistics;
 * both are 0 unless the row sees the key.
 */
export function scoreGradient({ softcap }: FlashShape, r: number, statistics: string, key: string): string[] {
  const capped = `s${r} / bitcast<f32>(sizes.softcap)`;
  const sees = `f32(${key}) >= ${statistics}.z && f32(${key}) < ${statistics}.w`;
  return [
    `let p${r} = select(0.0, exp(s${r} - ${statistics}.x), ${sees});`,
    `let ds${r} = p${r} * (dp${r} - ${statistics}.y)${softcap === 0 ? "" : ` * (1.0 - (${capped}) * (${capped}))`};`,
  ];
}

/** What both backward kernels read. */
export function backwardReads(walk: RowWalk, tiling: FlashTiling, statistics: string): string[] {
  return [
    ...rowArrays(["q", "k", "v", "gradient"], walk, tiling),
    `statistics: array<${statistics}>`,
    "tiles: array<vec2u>",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#query-gradient-kernel
/** The gradient of the queries: each lane keeps query rows and walks through the keys they see, as forward. */
export function flashQueryGradientKernel(shape: FlashShape, tiling: FlashTiling, sequences: number): Kernel {
  const walk = keyWalk(shape, tiling);
  return kernel({
    ...flashFrame(shape, tiling, sequences, queryTiles(shape, tiling)),
    name: flashName("flash query gradient", shape),
    reads: backwardReads(walk, tiling, "vec4f"),
    writes: ["dq: array<vec4f>"],
    head: sharedHead(walk.names, shape, tiling),
    body: [
      ...ownRows("sizes.rows", tiling),
      ...[sequenceOf, ownTile],
      ...loadOwn("q", "sizes.rows", shape, tiling, "scale"),
      ...loadOwn("gradient", "sizes.rows", shape, tiling),
      ...range(tiling.rows).map((r) => `let row${r}Statistics = statistics[matrix * sizes.rows + row${r}];`),
      ...ownSums("dq", shape, tiling),
      ...walkRows(walk, shape, tiling, [
        ...dotProducts("s", "q", "k", shape, tiling),
        ...dotProducts("dp", "gradient", "v", shape, tiling),
        ...capScores(shape, tiling),
        ...range(tiling.rows).flatMap((r) => scoreGradient(shape, r, `row${r}Statistics`, "j")),
        ...addProducts("dq", "ds", "k", shape, tiling),
      ]),
      ...storeOwn("dq", "sizes.rows", shape, tiling, { factor: () => "scale" }),
    ].join("\n"),
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#rows-that-see
/** The statistics of row j in every lane: in a subgroup four lanes load one number each, and hand them round. */
export function statisticsOfRow({ subgroups }: FlashTiling): string[] {
  if (!subgroups) return ["let rowStatistics = statistics[matrix * sizes.rows + j];"];
  const parts = range(4).map((i) => `subgroupShuffle(statisticsPart, ${i}u)`);
  return [
    "let statisticsPart = statistics[(matrix * sizes.rows + j) * 4u + lane % 4u];",
    `let rowStatistics = vec4f(${parts.join(", ")});`,
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#rows-of-head
/** The rows of a head from the first tile that sees any of the workgroup's keys to the last one. */
export function rowsThatSee(shape: FlashShape, tiling: FlashTiling): string[] {
  const tile = flashTile(tiling);
  const keys = flashTile(keyTiling(shape, tiling));
  return [
    "var begin = 0xffffffffu;",
    "var end = 0u;",
    `for (var t = head * sizes.tokens / ${tile}u; t * ${tile}u < (head + 1u) * sizes.tokens; t++) {`,
    "let tile = tiles[sequence * sizes.tiles + t];",
    `if (tile.x < (group.x + 1u) * ${keys}u && tile.y > group.x * ${keys}u) {`,
    `begin = min(begin, t * ${tile}u);`,
    `end = (t + 1u) * ${tile}u;`,
    "}",
    "}",
    "begin = max(begin, head * sizes.tokens);",
    "end = min(end, (head + 1u) * sizes.tokens);",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#key-gradient-kernel
/** The gradients of keys and values: each lane keeps keys and walks through the query rows, in all heads, that see any. */
export function flashKeyGradientKernel(shape: FlashShape, tiling: FlashTiling, sequences: number): Kernel {
  const keys = keyTiling(shape, tiling);
  const row = (j: string) => `matrix * sizes.rows + ${j}`;
  const walk: RowWalk = { names: ["q", "gradient"], row, from: "begin", to: "end" };
  return kernel({
    ...flashFrame(shape, tiling, sequences, Math.ceil(shape.length / flashTile(keys))),
    name: flashName("flash key gradient", shape),
    reads: backwardReads(walk, tiling, tiling.subgroups ? "f32" : "vec4f"),
    writes: ["dk: array<vec4f>", "dv: array<vec4f>"],
    head: sharedHead(walk.names, shape, tiling),
    body: [
      ...[...ownRows("sizes.length", keys), sequenceOf],
      ...loadOwn("k", "sizes.length", shape, keys, "scale"),
      ...loadOwn("v", "sizes.length", shape, keys),
      ...[...ownSums("dk", shape, keys), ...ownSums("dv", shape, keys)],
      "for (var head = 0u; head < sizes.rows / sizes.tokens; head++) {",
      ...rowsThatSee(shape, tiling),
      ...walkRows(walk, shape, keys, [
        ...[...dotProducts("s", "k", "q", shape, keys), ...dotProducts("dp", "v", "gradient", shape, keys)],
        ...[...capScores(shape, keys), ...statisticsOfRow(keys)],
        ...range(keys.rows).flatMap((r) => scoreGradient(shape, r, "rowStatistics", `row${r}`)),
        ...addProducts("dv", "p", "gradient", shape, keys),
        ...addProducts("dk", "ds", "q", shape, keys),
      ]),
      "}",
      ...storeOwn("dk", "sizes.length", shape, keys, { factor: () => "scale" }),
      ...storeOwn("dv", "sizes.length", shape, keys, { factor: () => "1.0" }),
    ].join("\n"),
  });
}
