// Extracted from chapters/02-attention/7-the-fused-kernel.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import { type Kernel, kernel } from "../gpu/kernel.js";
import { textureFunction, textureOf } from "../gpu/textures.js";
import { wgslNumber } from "./elementwise.js";
import { prefersSubgroups, range } from "./matmul.js";

//| 02-attention/7-the-fused-kernel.ipynb#flash-shape
/** The sizes of fused attention, and what is done to the scores. */
export interface FlashShape {
  batch: number;
  heads: number;
  /** Key and value heads, each shared by heads / kvHeads query heads. */
  kvHeads: number;
  /** Queries of a sequence. */
  tokens: number;
  /** Keys of a sequence. */
  length: number;
  /** A multiple of 4. */
  headDim: number;
  /** Scores are multiplied by this. */
  scale: number;
  /** Scores become softcap · tanh(score / softcap); 0 leaves them as they are. */
  softcap: number;
  /** Each head has a learned score that no key belongs to. */
  sinks: boolean;
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-form
/** How a fused kernel spreads its work: chosen for the adapter and the width of the heads. */
export interface FlashForm {
  /** Whether rows reach all lanes by subgroupShuffle; otherwise through workgroup memory. */
  subgroups: boolean;
  /** Lanes of a workgroup. */
  lanes: number;
  /** Rows that each lane keeps. */
  rows: number;
  /** Whether the rows that are handed round by subgroups are read as images. */
  images: boolean;
}

/** Query rows of one key head. */
export function groupedRows({ heads, kvHeads, tokens }: FlashShape): number {
  return (heads / kvHeads) * tokens;
}

/**
 * The form that suits the adapter. On a processor a lane keeps four rows, so that what is loaded serves them all, unless
 * there are not enough rows to fill the lanes; what sixteen tiles of rows walk through is worth a copy into an image. On a
 * graphics processor a row is all that a lane can keep.
 */
export function flashForm(shape: FlashShape, facts: AdapterFacts): FlashForm {
  if (!prefersSubgroups(facts)) return { subgroups: false, lanes: 64, rows: 1, images: false };
  const lanes = facts.subgroupSize;
  const rows = groupedRows(shape) >= 4 * lanes ? 4 : 1;
  return { subgroups: true, lanes, rows, images: groupedRows(shape) >= 16 * rows * lanes };
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-tile
/** Query rows of a workgroup: the query heads of one key head lie one after the other, and count as rows of one matrix. */
export function flashTile({ lanes, rows }: FlashForm): number {
  return lanes * rows;
}

/** The form in which lanes keep keys: with the sums for two gradients, four wide rows would not stay in the fastest cache. */
export function keyForm({ headDim }: FlashShape, form: FlashForm): FlashForm {
  return { ...form, rows: Math.min(form.rows, headDim > 32 ? 2 : 4) };
}

/** Tiles of query rows of one key head. */
export function queryTiles(shape: FlashShape, form: FlashForm): number {
  return Math.ceil(groupedRows(shape) / flashTile(form));
}

//| 02-attention/7-the-fused-kernel.ipynb#key-ranges-kernel
/** What hides keys from queries. */
export interface KeyRanges {
  /** Sequences with positions of their own; 1 where all share them. */
  sequences: number;
  /** A query sees this many keys, itself included; 0 is no limit. */
  window: number;
  /** Whether each query has a first key of its own, as in packed sequences. */
  starts: boolean;
}

//| 02-attention/7-the-fused-kernel.ipynb#key-ranges-kernel-code
/**
 * The run of keys [first, end) that each query row may see, and that of each tile of rows together:
 * u32 [sequences, rows, 2] and [sequences, tiles, 2]. A row that sees no key gets [0, 0).
 */
export function keyRangesKernel(shape: FlashShape, ranges: KeyRanges, form: FlashForm): Kernel {
  const { tokens, length } = shape;
  const { sequences, window, starts } = ranges;
  const rows = groupedRows(shape);
  const tiles = queryTiles(shape, form);
  const first = starts ? "starts[at]" : "0u";
  const seen = window > 0 ? `max(${first}, end - min(end, ${window}u))` : first;
  return kernel({
    name: `key ranges ${sequences}x${rows}x${length}`,
    reads: ["positions: array<u32>", ...(starts ? ["starts: array<u32>"] : [])],
    writes: ["ranges: array<vec2u>", "tiles: array<vec2u>"],
    workgroupSize: 64,
    workgroups: Math.ceil((sequences * tiles) / 64),
    body: `
  if (thread >= ${sequences * tiles}u) { return; }
  let sequence = thread / ${tiles}u;
  let begin = thread % ${tiles}u * ${flashTile(form)}u;
  var tile = vec2u(0xffffffffu, 0u);
  for (var row = begin; row < min(begin + ${flashTile(form)}u, ${rows}u); row++) {
    let at = sequence * ${tokens}u + row % ${tokens}u;
    let end = positions[at] + 1u;
    var range = vec2u(${seen}, min(end, ${length}u));
    if (range.x < range.y) { tile = vec2u(min(tile.x, range.x), max(tile.y, range.y)); }
    else { range = vec2u(); }
    ranges[sequence * ${rows}u + row] = range;
  }
  tiles[thread] = tile;`,
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#shared-rows
/** Fours of numbers of a row. */
export function foursOf({ headDim }: FlashShape): number {
  return headDim / 4;
}

/** Rows that the workgroup form keeps in workgroup memory at a time, so that two arrays of them take 16 KiB at most. */
export function sharedRows(shape: FlashShape): number {
  return Math.max(2, Math.min(32, 2 ** Math.floor(Math.log2(512 / foursOf(shape)))));
}

/** Declares the workgroup memory for rows of these arrays, or how they are read as images. */
export function sharedHead(names: string[], shape: FlashShape, { subgroups, images }: FlashForm): string {
  const size = sharedRows(shape) * foursOf(shape);
  if (subgroups) return images ? names.map(textureFunction).join("\n") : "";
  return names.map((name) => `var<workgroup> ${name}Tile: array<vec4f, ${size}>;`).join("\n");
}

//| 02-attention/7-the-fused-kernel.ipynb#shared-four
/** WGSL for the four numbers at `c` of row `j` of an array that all lanes walk through. */
export function sharedFour(
  name: string,
  c: number,
  shape: FlashShape,
  { subgroups, lanes }: FlashForm,
): string {
  if (!subgroups) return `${name}Tile[(j - start) * ${foursOf(shape)}u + ${c}u]`;
  return `subgroupShuffle(${name}Part${Math.floor(c / lanes)}, ${c % lanes}u)`;
}

//| 02-attention/7-the-fused-kernel.ipynb#each-shared
/** The rows that all lanes walk through: arrays [matrices, count, headDim] by name, and which rows of them. */
export interface RowWalk {
  names: string[];
  count: string;
  from: string;
  to: string;
}

/** Declares arrays of rows, in fours: those that are walked through as images, where the form has them so. */
export function rowArrays(names: string[], walk: RowWalk, { images }: FlashForm): string[] {
  return names.map((name) =>
    images && walk.names.includes(name) ? textureOf(name) : `${name}: array<vec4f>`,
  );
}

/** Loads row j: each lane a part of it, to be handed round. */
export function loadParts(
  { names, count }: RowWalk,
  shape: FlashShape,
  { lanes, images }: FlashForm,
): string[] {
  const width = foursOf(shape);
  const four = (name: string, at: string) => (images ? `${name}Four(${at})` : `${name}[${at}]`);
  const part = (i: number) =>
    (i + 1) * lanes <= width ? `${i * lanes}u + lane` : `min(${i * lanes}u + lane, ${width - 1}u)`;
  return names.flatMap((name) =>
    range(Math.ceil(width / lanes)).map(
      (i) => `let ${name}Part${i} = ${four(name, `(matrix * ${count} + j) * ${width}u + ${part(i)}`)};`,
    ),
  );
}

//| 02-attention/7-the-fused-kernel.ipynb#fill-shared
/** Fills the workgroup memory with rows from `start` on. */
export function fillShared({ names, count }: RowWalk, shape: FlashShape, { lanes }: FlashForm): string[] {
  const width = foursOf(shape);
  return [
    "workgroupBarrier();",
    `for (var slot = lane; slot < ${sharedRows(shape) * width}u; slot += ${lanes}u) {`,
    `  let at = (matrix * ${count} + min(start + slot / ${width}u, ${count} - 1u)) * ${width}u + slot % ${width}u;`,
    ...names.map((name) => `  ${name}Tile[slot] = ${name}[at];`),
    "}",
    "workgroupBarrier();",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#walk-rows
/** Walks through rows one by one, in every lane at the same time: the statements see the row's number, `j`. */
export function walkRows(walk: RowWalk, shape: FlashShape, form: FlashForm, statements: string[]): string[] {
  const { from, to } = walk;
  if (form.subgroups)
    return [`for (var j = ${from}; j < ${to}; j++) {`, ...loadParts(walk, shape, form), ...statements, "}"];
  return [
    `for (var start = ${from}; start < ${to}; start += ${sharedRows(shape)}u) {`,
    ...fillShared(walk, shape, form),
    `for (var j = start; j < min(start + ${sharedRows(shape)}u, ${to}); j++) {`,
    ...statements,
    "}",
    "}",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#own-rows
/** The number of each lane's row r, which may lie past the end. */
export function ownRow(r: number, { lanes, rows }: FlashForm): string {
  return `group.x * ${lanes * rows}u + ${r * lanes}u + lane`;
}

/** Each lane's rows: their numbers, the last one again where they are past the end. `count` is how many there are. */
export function ownRows(count: string, form: FlashForm): string[] {
  const row = (r: number) => `let row${r} = min(${ownRow(r, form)}, ${count} - 1u);`;
  return ["let matrix = group.y;", ...range(form.rows).map(row)];
}

//| 02-attention/7-the-fused-kernel.ipynb#own-four
/** WGSL for the four numbers at `c` of a lane's row r of an array that it keeps. */
export function ownFour(name: string, r: number, c: number, { subgroups }: FlashForm): string {
  return subgroups ? `${name}${r}[${c}]` : `${name}${r}_${c}`;
}

/** Zeros to add each lane's rows of a result to. */
export function ownSums(name: string, shape: FlashShape, form: FlashForm): string[] {
  const rows = range(form.rows);
  if (form.subgroups) return rows.map((r) => `var ${name}${r}: array<vec4f, ${foursOf(shape)}>;`);
  return rows.flatMap((r) => range(foursOf(shape)).map((c) => `var ${ownFour(name, r, c, form)} = vec4f();`));
}

//| 02-attention/7-the-fused-kernel.ipynb#load-own
/** Takes each lane's rows of an array along, times a factor. */
export function loadOwn(
  name: string,
  count: string,
  shape: FlashShape,
  form: FlashForm,
  factor = 1,
): string[] {
  const times = factor === 1 ? "" : ` * ${wgslNumber(factor)}`;
  const four = (r: number, c: string) =>
    `${name}[(matrix * ${count} + row${r}) * ${foursOf(shape)}u + ${c}]${times};`;
  const rows = range(form.rows);
  if (!form.subgroups)
    return rows.flatMap((r) =>
      range(foursOf(shape)).map((c) => `let ${ownFour(name, r, c, form)} = ${four(r, `${c}u`)}`),
    );
  return [
    ...ownSums(name, shape, form),
    "for (var c = 0u; c < sizes.fours; c++) {",
    ...rows.map((r) => `${name}${r}[c] = ${four(r, "c")}`),
    "}",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#store-own
/** Writes each lane's rows of a result, those that exist, times a factor. */
export function storeOwn(
  name: string,
  count: string,
  shape: FlashShape,
  form: FlashForm,
  factor: (r: number) => string,
): string[] {
  const start = (r: number) => `${name}[(matrix * ${count} + row${r}) * ${foursOf(shape)}u`;
  const each = (r: number) =>
    form.subgroups
      ? [`for (var c = 0u; c < sizes.fours; c++) { ${start(r)} + c] = ${name}${r}[c] * ${factor(r)}; }`]
      : range(foursOf(shape)).map(
          (c) => `${start(r)} + ${c}u] = ${ownFour(name, r, c, form)} * ${factor(r)};`,
        );
  return range(form.rows).flatMap((r) => [`if (${ownRow(r, form)} < ${count}) {`, ...each(r), "}"]);
}

//| 02-attention/7-the-fused-kernel.ipynb#products
/** Dot products of each lane's rows of `own` with row j of `shared`: variables `name`r. */
export function dotProducts(
  name: string,
  own: string,
  shared: string,
  shape: FlashShape,
  form: FlashForm,
): string[] {
  const rows = range(form.rows);
  return [
    ...rows.map((r) => `var ${name}${r} = 0.0;`),
    ...range(foursOf(shape)).flatMap((c) => [
      `let ${name}Four${c} = ${sharedFour(shared, c, shape, form)};`,
      ...rows.map((r) => `${name}${r} += dot(${ownFour(own, r, c, form)}, ${name}Four${c});`),
    ]),
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#add-products
/** Adds row j of `shared`, times `share`r, to each lane's sums. */
export function addProducts(
  sums: string,
  share: string,
  shared: string,
  shape: FlashShape,
  form: FlashForm,
): string[] {
  return range(foursOf(shape)).flatMap((c) => [
    `let ${sums}Four${c} = ${sharedFour(shared, c, shape, form)};`,
    ...range(form.rows).map((r) => `${ownFour(sums, r, c, form)} += ${share}${r} * ${sums}Four${c};`),
  ]);
}

//| 02-attention/7-the-fused-kernel.ipynb#cap-scores
/** Caps the scores, where the model does. tanh of large numbers is not safe everywhere: past 15 it is 1 anyway. */
export function capScores({ softcap }: FlashShape, { rows }: FlashForm): string[] {
  const cap = wgslNumber(softcap);
  return softcap === 0
    ? []
    : range(rows).map((r) => `s${r} = ${cap} * tanh(clamp(s${r} / ${cap}, -15.0, 15.0));`);
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-frame
/** A name such as `flash attention 12x4x64x64x32` for errors and profiles. */
export function flashName(what: string, shape: FlashShape): string {
  const { batch, heads, tokens, length, headDim } = shape;
  return `${what} ${batch}x${heads}x${tokens}x${length}x${headDim}`;
}

/**
 * What the three kernels have in common: how many workgroups there are, `across` for each key head, and the sizes that
 * are read as data, so that all lengths share one compiled kernel. Tables of one sequence serve all.
 */
export function flashFrame(shape: FlashShape, form: FlashForm, sequences: number, across: number) {
  const { batch, kvHeads, length, tokens } = shape;
  const rows = groupedRows(shape);
  const tiles = queryTiles(shape, form);
  const workgroups: [number, number, number] = [across, batch * kvHeads, 1];
  return {
    enable: form.subgroups ? ["subgroups"] : [],
    sizes: {
      rows,
      length,
      tokens,
      kvHeads,
      tiles,
      sequenceStep: sequences === 1 ? 0 : 1,
      fours: foursOf(shape),
    },
    workgroupSize: form.lanes,
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
export function onlineSoftmax(shape: FlashShape, form: FlashForm): string[] {
  return range(form.rows).flatMap((r) => [
    `s${r} = select(-3e38, s${r}, j >= range${r}.x && j < range${r}.y);`,
    `if (s${r} > highest${r}) {`,
    `let decay = exp(highest${r} - s${r});`,
    `highest${r} = s${r};`,
    `sum${r} *= decay;`,
    ...range(foursOf(shape)).map((c) => `${ownFour("y", r, c, form)} *= decay;`),
    "}",
    `let p${r} = exp(s${r} - highest${r});`,
    `sum${r} += p${r};`,
  ]);
}

//| 02-attention/7-the-fused-kernel.ipynb#forward-kernel
/** The keys and values that a workgroup's query rows see together. */
export const keyWalk: RowWalk = { names: ["k", "v"], count: "sizes.length", from: "tile.x", to: "tile.y" };

/** Where the softmax of each lane's rows begins: with nothing, or with a sink, a score before the first key. */
export function beginSoftmax({ sinks }: FlashShape, { rows }: FlashForm): string[] {
  const head = (r: number) => `matrix % sizes.kvHeads * (sizes.rows / sizes.tokens) + row${r} / sizes.tokens`;
  return range(rows).flatMap((r) => [
    `let range${r} = ranges[sequence * sizes.rows + row${r}];`,
    `var highest${r} = ${sinks ? `sinks[${head(r)}]` : "-1e30"};`,
    `var sum${r} = ${sinks ? "1.0" : "0.0"};`,
  ]);
}

/**
 * The share of all that was added, and the logarithm of the sum. A row that sees nothing gets zeros, and a logarithm so large
 * that all its shares are 0 on the way back.
 */
export function endSoftmax(form: FlashForm): string[] {
  return range(form.rows).flatMap((r) => [
    `let share${r} = select(0.0, 1.0 / sum${r}, sum${r} > 0.0);`,
    `if (${ownRow(r, form)} < sizes.rows) {`,
    `logSums[matrix * sizes.rows + row${r}] = select(3e38, highest${r} + log(sum${r}), sum${r} > 0.0);`,
    "}",
  ]);
}

//| 02-attention/7-the-fused-kernel.ipynb#flash-kernel
/** Attention in one pass over the keys. Writes y like q, and the logarithm of each row's sum of powers. */
export function flashKernel(shape: FlashShape, form: FlashForm, sequences: number): Kernel {
  const arrays = rowArrays(["q", "k", "v"], keyWalk, form);
  const tables = ["ranges: array<vec2u>", "tiles: array<vec2u>"];
  return kernel({
    ...flashFrame(shape, form, sequences, queryTiles(shape, form)),
    name: flashName("flash attention", shape),
    reads: [...arrays, ...tables, ...(shape.sinks ? ["sinks: array<f32>"] : [])],
    writes: ["y: array<vec4f>", "logSums: array<f32>"],
    head: sharedHead(keyWalk.names, shape, form),
    body: [
      ...ownRows("sizes.rows", form),
      ...[sequenceOf, ownTile],
      ...loadOwn("q", "sizes.rows", shape, form, shape.scale),
      ...ownSums("y", shape, form),
      ...beginSoftmax(shape, form),
      ...walkRows(keyWalk, shape, form, [
        ...dotProducts("s", "q", "k", shape, form),
        ...capScores(shape, form),
        ...onlineSoftmax(shape, form),
        ...addProducts("y", "p", "v", shape, form),
      ]),
      ...endSoftmax(form),
      ...storeOwn("y", "sizes.rows", shape, form, (r) => `share${r}`),
    ].join("\n"),
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#row-facts-kernel
/**
 * What the backward kernels need to know of each query row, f32 [batch, heads, tokens, 4]: the logarithm of its sum,
 * Σ gradient · y, and its run of keys. With sinks also what the row adds to the gradient of its head's sink,
 * f32 [batch, tokens, heads].
 */
export function rowFactsKernel(shape: FlashShape, sequences: number): Kernel {
  const { batch, heads, tokens, sinks } = shape;
  const [rows, fours] = [batch * heads * tokens, foursOf(shape)];
  const own = sequences === 1 ? "0u" : `thread / ${heads * tokens}u * ${groupedRows(shape)}u`;
  const sinkPart = `
  let head = thread / ${tokens}u % ${heads}u;
  let place = thread / ${heads * tokens}u * ${tokens}u + thread % ${tokens}u;
  sinkParts[place * ${heads}u + head] = -exp(sinks[head] - logSums[thread]) * sum;`;
  return kernel({
    name: flashName("flash row facts", shape),
    reads: [
      ...["y: array<vec4f>", "gradient: array<vec4f>", "logSums: array<f32>", "ranges: array<vec2u>"],
      ...(sinks ? ["sinks: array<f32>"] : []),
    ],
    writes: ["facts: array<vec4f>", ...(sinks ? ["sinkParts: array<f32>"] : [])],
    workgroupSize: 64,
    workgroups: Math.ceil(rows / 64),
    body: `
  if (thread >= ${rows}u) { return; }
  var sum = 0.0;
  for (var i = thread * ${fours}u; i < (thread + 1u) * ${fours}u; i++) { sum += dot(y[i], gradient[i]); }
  let range = ranges[${own} + thread % ${tokens}u];
  facts[thread] = vec4f(logSums[thread], sum, vec2f(range));${sinks ? sinkPart : ""}`,
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#score-gradient
/**
 * WGSL for the share p and the gradient ds of the score s of row r, from the gradient dp of its share and its row's facts;
 * both are 0 unless the row sees the key.
 */
export function scoreGradient({ softcap }: FlashShape, r: number, facts: string, key: string): string[] {
  const slope = softcap === 0 ? "" : ` * (1.0 - s${r} * s${r} * ${wgslNumber(softcap ** -2)})`;
  const sees = `f32(${key}) >= ${facts}.z && f32(${key}) < ${facts}.w`;
  return [
    `let p${r} = select(0.0, exp(s${r} - ${facts}.x), ${sees});`,
    `let ds${r} = p${r} * (dp${r} - ${facts}.y)${slope};`,
  ];
}

/** What both backward kernels read. */
export function backwardReads(walk: RowWalk, form: FlashForm, facts: string): string[] {
  return [
    ...rowArrays(["q", "k", "v", "gradient"], walk, form),
    `facts: array<${facts}>`,
    "tiles: array<vec2u>",
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#query-gradient-kernel
/** The gradient of the queries: each lane keeps query rows and walks through the keys they see, as forward. */
export function flashQueryGradientKernel(shape: FlashShape, form: FlashForm, sequences: number): Kernel {
  return kernel({
    ...flashFrame(shape, form, sequences, queryTiles(shape, form)),
    name: flashName("flash query gradient", shape),
    reads: backwardReads(keyWalk, form, "vec4f"),
    writes: ["dq: array<vec4f>"],
    head: sharedHead(keyWalk.names, shape, form),
    body: [
      ...ownRows("sizes.rows", form),
      ...[sequenceOf, ownTile],
      ...loadOwn("q", "sizes.rows", shape, form, shape.scale),
      ...loadOwn("gradient", "sizes.rows", shape, form),
      ...range(form.rows).map((r) => `let known${r} = facts[matrix * sizes.rows + row${r}];`),
      ...ownSums("dq", shape, form),
      ...walkRows(keyWalk, shape, form, [
        ...dotProducts("s", "q", "k", shape, form),
        ...dotProducts("dp", "gradient", "v", shape, form),
        ...capScores(shape, form),
        ...range(form.rows).flatMap((r) => scoreGradient(shape, r, `known${r}`, "j")),
        ...addProducts("dq", "ds", "k", shape, form),
      ]),
      ...storeOwn("dq", "sizes.rows", shape, form, () => wgslNumber(shape.scale)),
    ].join("\n"),
  });
}

//| 02-attention/7-the-fused-kernel.ipynb#rows-that-see
/** The facts of row j in every lane: in a subgroup four lanes load one number each, and hand them round. */
export function rowFacts({ subgroups }: FlashForm): string[] {
  if (!subgroups) return ["let known = facts[matrix * sizes.rows + j];"];
  const parts = range(4).map((i) => `subgroupShuffle(factsPart, ${i}u)`);
  return [
    "let factsPart = facts[(matrix * sizes.rows + j) * 4u + lane % 4u];",
    `let known = vec4f(${parts.join(", ")});`,
  ];
}

//| 02-attention/7-the-fused-kernel.ipynb#rows-of-head
/** The rows of a head from the first tile that sees any of the workgroup's keys to the last one. */
export function rowsThatSee(shape: FlashShape, form: FlashForm): string[] {
  const tile = flashTile(form);
  const keys = flashTile(keyForm(shape, form));
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
export function flashKeyGradientKernel(shape: FlashShape, form: FlashForm, sequences: number): Kernel {
  const keys = keyForm(shape, form);
  const walk = { names: ["q", "gradient"], count: "sizes.rows", from: "begin", to: "end" };
  return kernel({
    ...flashFrame(shape, form, sequences, Math.ceil(shape.length / flashTile(keys))),
    name: flashName("flash key gradient", shape),
    reads: backwardReads(walk, form, form.subgroups ? "f32" : "vec4f"),
    writes: ["dk: array<vec4f>", "dv: array<vec4f>"],
    head: sharedHead(walk.names, shape, form),
    body: [
      ...[...ownRows("sizes.length", keys), sequenceOf],
      ...loadOwn("k", "sizes.length", shape, keys, shape.scale),
      ...loadOwn("v", "sizes.length", shape, keys),
      ...[...ownSums("dk", shape, keys), ...ownSums("dv", shape, keys)],
      "for (var head = 0u; head < sizes.rows / sizes.tokens; head++) {",
      ...rowsThatSee(shape, form),
      ...walkRows(walk, shape, keys, [
        ...[...dotProducts("s", "k", "q", shape, keys), ...dotProducts("dp", "v", "gradient", shape, keys)],
        ...[...capScores(shape, keys), ...rowFacts(keys)],
        ...range(keys.rows).flatMap((r) => scoreGradient(shape, r, "known", `row${r}`)),
        ...addProducts("dv", "p", "gradient", shape, keys),
        ...addProducts("dk", "ds", "q", shape, keys),
      ]),
      "}",
      ...storeOwn("dk", "sizes.length", shape, keys, () => wgslNumber(shape.scale)),
      ...storeOwn("dv", "sizes.length", shape, keys, () => "1.0"),
    ].join("\n"),
  });
}
