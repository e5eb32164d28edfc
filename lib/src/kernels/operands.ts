// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import { type Kernel, kernel } from "../gpu/kernel.js";
import { elementType, range, vec4At, vec4Of, zeroFrom } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#operand-format-type
/** How an operand's numbers are stored: all that kernels know of it. Rows are those of the matrix as it is stored. */
export interface OperandFormat {
  /** Kernels are told apart by it: two formats must not have the same. */
  name: string;
  /** What kernels read, as WGSL declarations, for an operand `name`: as many as there are packed arrays. */
  bindings(name: string): string[];
  /** WGSL (a vec4f): four neighbours of row `row`, from element `at` of the whole on, a multiple of four. */
  loadFour(name: string, at: string, row: string): string;
  /** How inference reads slices of 32 neighbours, where that is faster than by `loadFour`. */
  slices?: SliceFormat;
  /** Rows are whole blocks of so many numbers: fours, unless it says so. */
  block?: number;
  /** Bytes that a row of `length` numbers takes in each array. */
  rowBytes(length: number): number[];
  /** Rows of `length` numbers as packed arrays. */
  pack(values: Float32Array, length: number): PackedArray[];
  /** The numbers that packed arrays stand for: the reference that kernels are held against. */
  unpack(arrays: PackedArray[], length: number): Float32Array;
}

/**
 * How slices of 32 neighbours are read, from a multiple of 32 on: 128 bits at a time, and as **codes**, whose sum is scaled once at
 * the end of the slice. Whatever reads it, four codes must be the same numbers.
 */
export interface SliceFormat {
  /** What kernels read: the bindings of the format, its packed numbers as `array<vec4u>` or `array<vec4f>`. */
  bindings(name: string): string[];
  /** Loads of 128 bits that a slice takes: 8 for 32-bit numbers, 1 for those of four bits. */
  loads: number;
  /** WGSL (a vec4f): four `i` of what a load brought, as codes. `shared` is a variable with what `shared` gives. */
  codes(load: string, i: number, shared: string): string;
  /** WGSL (a vec4f): four codes from element `at` of the whole on, as `loadFour` reads them. Those of `loadFour` unless given. */
  loadCodes?(name: string, at: string, row: string): string;
  /** WGSL (a vec2f): the scale of the slice with element `at`, and a number of the format's own, such as a zero point. No scale unless given. */
  shared?(name: string, at: string, row: string): string;
}

/** What a kernel is given of a packed operand. */
export type PackedArray = Float32Array | Uint32Array;

//| 02-attention/2-matrix-products.ipynb#matmul-shape
/** A batch of matrix products C = A·B. A is [rows, k] and B [k, columns], unless stored transposed. */
export interface MatmulShape {
  batch: number;
  rows: number;
  columns: number;
  /** The inner dimension, which is summed over. */
  k: number;
  /** A is stored as [k, rows]. */
  transposeA?: boolean;
  /** B is stored as [columns, k], as the weights of linear layers are. */
  transposeB?: boolean;
  /** One B serves the whole batch. */
  sharedB?: boolean;
  /** Operands are rounded to 16-bit floats before they are multiplied. Sums and results keep 32 bits. */
  f16?: boolean;
  /** How the numbers of B are stored: as 32-bit floats unless given. */
  format?: OperandFormat;
  /** What becomes of each result. */
  epilogue?: Epilogue;
  /** Results are summed in one order, slice by slice, whatever the number of rows and the kernel: as inference wants it. */
  invariant?: boolean;
}

/**
 * Inner indices of a slice. An invariant product adds up each slice by itself, one multiply-add after the other, and then the
 * slices, from the first to the last: every kernel can do that, and rows that are computed alone get the bits that they get among others.
 */
export const sliceLength = 32;

/** Each result y becomes alpha · (y + bias) + beta · residual. Which of it a product wants is data: one kernel serves all. */
export interface Epilogue {
  /** A number for each column [columns]. */
  bias?: boolean;
  /** An array of the shape of C. */
  residual?: boolean;
  /** Both are 1 unless given. */
  alpha?: number;
  beta?: number;
}

//| 02-attention/2-matrix-products.ipynb#matmul-places
/**
 * Which matrices a workgroup multiplies, as WGSL expressions of `group` (column tile, row tile, batch), `sizes` and more
 * bindings: the hook by which products of grouped rows reuse the same loops.
 */
export interface MatmulPlaces {
  name: string;
  /** More read-only bindings, after those of the operands. */
  reads: string[];
  /** Statements before anything else, such as an early return. */
  before: string;
  /** The numbers of the matrices, u32. */
  a: string;
  b: string;
  c: string;
  /** The range of k. */
  from: string;
  to: string;
  /** Matrices B that the rows are divided among. */
  matrices: number;
  /** The first place of the bias, where each matrix has its own. */
  bias?: string;
}

/** The matrices of a plain batch: one after the other. */
export function batchPlaces({ sharedB }: MatmulShape): MatmulPlaces {
  const b = sharedB ? "0u" : "group.z";
  return {
    name: "matmul",
    reads: [],
    before: "",
    a: "group.z",
    b,
    c: "group.z",
    from: "0u",
    to: "sizes.k",
    matrices: 1,
  };
}

//| 02-attention/2-matrix-products.ipynb#matmul-name
/** A name such as `matmul 12x64x64x32 (B transposed)` for errors and profiles. */
export function matmulName(places: MatmulPlaces, shape: MatmulShape): string {
  const { batch, rows, columns, k, transposeA, transposeB, f16, format, invariant, epilogue = {} } = shape;
  const size = `${batch === 1 ? "" : `${batch}x`}${rows}x${columns}x${k}`;
  const notes = [
    transposeA && "A transposed",
    transposeB && "B transposed",
    format && `B in ${format.name}`,
    f16 && "16 bits",
    invariant && "invariant",
    epilogue.bias && "bias",
    epilogue.alpha !== undefined && `times ${epilogue.alpha}`,
    epilogue.residual && (epilogue.beta === undefined ? "residual" : `${epilogue.beta} * residual`),
  ].filter(Boolean);
  return `${places.name} ${size}${notes.length > 0 ? ` (${notes.join(", ")})` : ""}`;
}

//| 02-attention/2-matrix-products.ipynb#operand-format
/** Plain 32-bit floats. */
export const f32Format: OperandFormat = {
  name: "f32",
  bindings: (name) => [`${name}: array<vec4f>`],
  loadFour: (name, at) => vec4At(name, at),
  slices: { bindings: (name) => [`${name}: array<vec4f>`], loads: 8, codes: (load) => load },
  rowBytes: (length) => [4 * length],
  pack: (values) => [values],
  unpack: ([values]) => Float32Array.from(values),
};

//| 02-attention/2-matrix-products.ipynb#fill-tiles
/** How an operand lies in memory. */
export interface Operand {
  name: "a" | "b";
  /** The dimension that it does not share with the other: rows of A, columns of B. */
  side: "rows" | "columns";
  /** Its stored rows run along k, and not along its side. */
  alongK: boolean;
  /** It can be loaded four neighbours at a time. */
  vec4: boolean;
  format: OperandFormat;
}

/** Throws unless a row of `length` numbers is whole blocks of a format. */
export function checkBlocks({ name, block = 4 }: OperandFormat, length: number): void {
  if (length % block === 0) return;
  const blocks = block === 4 ? "fours" : `blocks of ${block}`;
  throw new Error(`Rows of ${length} numbers cannot be ${name}: packed rows hold whole ${blocks}.`);
}

/** Both operands of a product. Throws for a packed one whose rows are no whole blocks. */
export function operands(shape: MatmulShape): [Operand, Operand] {
  const { k, transposeA = false, transposeB = false, format = f32Format } = shape;
  const operand = (
    name: "a" | "b",
    side: "rows" | "columns",
    alongK: boolean,
    stored: OperandFormat,
  ): Operand => {
    const length = alongK ? k : shape[side];
    if (stored !== f32Format) checkBlocks(stored, length);
    return { name, side, alongK, vec4: length % 4 === 0, format: stored };
  };
  return [operand("a", "rows", !transposeA, f32Format), operand("b", "columns", transposeB, format)];
}

/** The bindings of an operand. */
export function operandBindings({ name, vec4, format }: Operand): string[] {
  return vec4 ? format.bindings(name) : [`${name}: array<f32>`];
}

//| 02-attention/2-matrix-products.ipynb#load-four
/** The size, by its name in the kernel, of an operand's stored rows. */
export function rowLength({ alongK, side }: Operand): string {
  return `sizes.${alongK ? "k" : side}`;
}

/** WGSL: where a stored row begins. Loops that stay in a row find it once, before they begin. */
export function storedStart(operand: Operand, row: string): string {
  return `(${row}) * ${rowLength(operand)}`;
}

/**
 * The WGSL function that loads four neighbours of stored row `row`, which begins at `start`, from place `i` on. Whole fours must lie
 * within the row; where rows are not whole fours, its last number stands for what is beyond it. `codes`: before they are scaled.
 */
export function fourFunction(operand: Operand, f16 = false, codes = false): string {
  const { name, vec4, format } = operand;
  const place = (i: number) => `start + min(i + ${i}u, ${rowLength(operand)} - 1u)`;
  const load = (codes ? format.slices?.loadCodes : undefined) ?? format.loadFour;
  const four = vec4 ? load(name, "at", "row") : vec4Of(name, place);
  const at = vec4 ? "  let at = start + i;\n" : "";
  return `fn ${name}Four(row: u32, start: u32, i: u32) -> vec4f {\n${at}  return ${f16 ? `quantizeToF16(${four})` : four};\n}`;
}

/** WGSL: a place in a row, or that of the row's last four where whole fours would begin beyond them. */
export function lastFour(operand: Operand, place: string): string {
  return operand.vec4 ? `min(${place}, ${rowLength(operand)} - 4u)` : place;
}

/** The same by inner index and place on the operand's side, of the matrix that begins at stored row `first`; zeros beyond its ends. */
export function fourInsideFunction(operand: Operand): string {
  const { name, side, alongK, vec4 } = operand;
  const [row, i, end] = alongK ? ["j", "k", "to"] : ["k", "j", `sizes.${side}`];
  return [
    `fn ${name}Inside(first: u32, k: u32, j: u32, to: u32) -> vec4f {`,
    "  var four = vec4f();",
    `  if (k < to && j < sizes.${side}) { four = ${name}Four(first + ${row}, ${storedStart(operand, `first + ${row}`)}, ${i}); }`,
    `  return ${vec4 ? "four" : zeroFrom("four", i, end, false)};`,
    "}",
  ].join("\n");
}

//| 02-attention/2-matrix-products.ipynb#slice-scales
/** Whether kernels of an invariant product read an operand as codes, and scale the sum of each slice. */
export function isScaled({ invariant }: MatmulShape, { vec4, alongK, format }: Operand): boolean {
  return invariant === true && vec4 && alongK && format.slices?.shared !== undefined;
}

/** WGSL: the scale of the slice with inner index `k` in a stored row of B that begins at `start`. */
export function sliceScale({ format }: Operand, row: string, start: string, k: string): string {
  return `${format.slices!.shared!("b", `${start} + ${k}`, row)}.x`;
}

/** WGSL: adds the sums of a slice to what earlier ones add up to, times the scales of four columns where there are any. */
export function addSlice(total: string, sums: string, scales?: string): string {
  return scales ? `${total} = fma(${sums}, ${scales}, ${total});` : `${total} += ${sums};`;
}

//| 02-attention/2-matrix-products.ipynb#epilogue
/** A product's sizes as its kernel reads them: flags say what the epilogue does, and its factors travel as bits. */
export function productSizes({ rows, columns, k, epilogue = {} }: MatmulShape): Record<string, number> {
  const { bias, residual, alpha = 1, beta = 1 } = epilogue;
  const [alphaBits, betaBits] = new Uint32Array(Float32Array.of(alpha, beta).buffer);
  const flags = (bias ? 1 : 0) + (residual ? 2 : 0) + (alpha !== 1 ? 4 : 0);
  return { rows, columns, k, flags, alpha: alphaBits, beta: betaBits };
}

/** WGSL: V, the type of the results that are stored at a time, and the function `finish` that applies the epilogue to them: bias from `biasFirst` on where matrices have their own. */
export function finishFunction(vec4: boolean, ownBias = false): string {
  const per = vec4 ? " / 4u" : "";
  const place = ownBias ? `(biasFirst + column)${per}` : `column${per}`;
  return `alias V = ${elementType(vec4)};${ownBias ? "\nvar<private> biasFirst: u32;" : ""}
fn finish(result: V, column: u32, at: u32) -> V {
  var y = result;
  if ((sizes.flags & 1u) != 0u) { y += bias[${place}]; }
  y *= bitcast<f32>(sizes.alpha);
  if ((sizes.flags & 2u) != 0u) { y += bitcast<f32>(sizes.beta) * residual[at${per}]; }
  return y;
}`;
}

//| 02-attention/2-matrix-products.ipynb#store-tile
/** WGSL: functions that store the results at rows and columns of the matrix whose first row is `cFirst`, and finish what was stored. */
export function storeFunctions(vec4: boolean): string {
  const one = (j: number) => `if (column + ${j}u < sizes.columns) { c[at + ${j}u] = value[${j}]; }`;
  const finishOne = (at: string, column: string) => `c[${at}] = finish(c[${at}], ${column}, at)`;
  const finishFour = vec4
    ? `      ${finishOne("at / 4u", "column")};`
    : `      for (var j = column; j < min(column + 4u, sizes.columns); j++) { ${finishOne("at", "j")}; at++; }`;
  return `fn storeFour(cFirst: u32, row: u32, column: u32, value: vec4f) {
  let at = (cFirst + row) * sizes.columns + column;
  if (row < sizes.rows && column < sizes.columns) { ${vec4 ? "c[at / 4u] = value;" : range(4).map(one).join(" ")} }
}
fn finishRows(cFirst: u32, row: u32, count: u32, column: u32) {
  if (sizes.flags != 0u && column < sizes.columns) {
    for (var r = row; r < min(row + count, sizes.rows); r++) {
      var at = (cFirst + r) * sizes.columns + column;
${finishFour}
    }
  }
}`;
}

//| 02-attention/2-matrix-products.ipynb#product-kernel
/** What tells the kernels of products apart. */
export interface ProductForm {
  /** Name and measures of the kernel, which with the operands' formats determine its text. */
  name: string;
  operands: [Operand, Operand];
  /** Rows and columns of C that a workgroup computes. */
  tile: [number, number];
  workgroupSize: number;
  /** The type of C, bias and residual: four at a time or one. */
  vec4: boolean;
  enable?: string[];
  head?: () => string[];
  body: () => string[];
  /** Operands are rounded when they are loaded: kernels that keep them in 16 bits need not. */
  rounds?: boolean;
  /** Packed operands are read as codes where they can be: the kernel scales the sum of each slice. */
  codes?: boolean;
  /** A grid of its own, instead of one by tiles. */
  workgroups?: number;
  /** What its name ends with. */
  note?: string;
}

/** Where a workgroup begins: its row and column of C, the first stored rows of its matrices, and the end of k. */
export function prologue(
  places: MatmulPlaces,
  { transposeA, transposeB }: MatmulShape,
  tile: [number, number],
): string[] {
  return [
    places.before,
    `  let row = group.y * ${tile[0]}u;`,
    `  let column = group.x * ${tile[1]}u;`,
    `  let aFirst = ${places.a} * sizes.${transposeA ? "k" : "rows"};`,
    `  let bFirst = ${places.b} * sizes.${transposeB ? "columns" : "k"};`,
    `  let cFirst = ${places.c} * sizes.rows;`,
    `  let to = ${places.to};`,
    ...(places.bias === undefined ? [] : [`  biasFirst = ${places.bias};`]),
  ];
}

//| 02-attention/2-matrix-products.ipynb#product-kernel-frame
/** A kernel of products. It works on A, the arrays of B, what its places read, bias, residual, and C. */
export function productKernel(shape: MatmulShape, places: MatmulPlaces, form: ProductForm): Kernel {
  const { operands, vec4, tile, enable, workgroupSize } = form;
  const kinds = operands.map(
    (operand) => `${operand.format.name}${operand.vec4 ? "" : " by ones"} ${operand.alongK}`,
  );
  return kernel({
    name: `${matmulName(places, shape)}${form.note ?? ""}`,
    key: [
      form.name,
      places.name,
      places.b,
      ...kinds,
      vec4,
      shape.f16 === true,
      shape.invariant === true,
    ].join(),
    enable,
    reads: [...operands.flatMap(operandBindings), ...places.reads, "bias: array<V>", "residual: array<V>"],
    writes: ["c: array<V>"],
    sizes: productSizes(shape),
    workgroupSize,
    workgroups: form.workgroups ?? [
      Math.ceil(shape.columns / tile[1]),
      Math.ceil(shape.rows / tile[0]),
      shape.batch,
    ],
    head: () =>
      [
        finishFunction(vec4, places.bias !== undefined),
        storeFunctions(vec4),
        ...operands.map((operand) =>
          fourFunction(operand, form.rounds && shape.f16, form.codes && isScaled(shape, operand)),
        ),
        ...(form.head?.() ?? []),
      ].join("\n"),
    body: () => [...prologue(places, shape, tile), ...form.body()].join("\n"),
  });
}
