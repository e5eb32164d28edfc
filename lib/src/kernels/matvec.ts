// Extracted from chapters/02-attention/2-matrix-products.ipynb: edit it there, or here and run `npm run backport`.
import type { AdapterFacts } from "../gpu/device.js";
import type { Kernel } from "../gpu/kernel.js";
import {
  type MatmulPlaces,
  type MatmulShape,
  type Operand,
  type OperandFormat,
  addSlice,
  isScaled,
  operands,
  productKernel,
  sliceLength,
} from "./operands.js";
import { prefersSubgroups, range } from "./wgsl.js";

//| 02-attention/2-matrix-products.ipynb#matvec-kernel
/** The most rows that the matrix-vector form takes. With more, a processor does better with low tiles, which hand A round as well. */
export function matvecRows(facts: AdapterFacts): number {
  return prefersSubgroups(facts) ? 2 : 8;
}

/** Whether a product has few rows, and weights that are stored along k in whole fours. */
export function suitsMatvec(
  { batch, rows, k, transposeA, transposeB }: MatmulShape,
  facts: AdapterFacts,
): boolean {
  return batch === 1 && rows <= matvecRows(facts) && !transposeA && transposeB === true && k % 4 === 0;
}

/** How the matrix-vector form spreads its work. */
export interface MatvecForm {
  /** Lanes of a workgroup. */
  lanes: number;
  /** Lanes that share the slices of a column. */
  sharing: number;
  /** Rows that the kernel is written for: the next of 1, 2, 4 and 8. */
  rows: number;
  /** Columns of a lane. */
  columns: number;
  /** Whether slices are whole, and B is read 128 bits at a time. */
  whole: boolean;
}

/** On a processor each lane has columns of its own; on a graphics processor sixteen lanes share four columns. */
export function matvecForm(shape: MatmulShape, [, b]: Operand[], facts: AdapterFacts): MatvecForm {
  const rows = 2 ** Math.ceil(Math.log2(shape.rows));
  const whole = shape.k % sliceLength === 0 && b.format.slices !== undefined;
  if (!prefersSubgroups(facts)) return { lanes: 64, sharing: 16, rows, columns: 4, whole };
  const columns = (b.format.slices?.loads ?? 8) < 8 ? 2 : 1;
  return { lanes: facts.subgroupSize, sharing: 1, rows, columns, whole };
}

//| 02-attention/2-matrix-products.ipynb#matvec-slice
/** Whether the lanes of a subgroup load a slice of A together, and hand it round. */
export function holdsSlice({ sharing, lanes, whole }: MatvecForm): boolean {
  return whole && sharing === 1 && lanes >= sliceLength / 4;
}

/** WGSL: multiplies a four of each row of A by a four of each column of B, a product after the other. */
export function multiplyFours({ rows, columns }: MatvecForm): string[] {
  return range(4).flatMap((i) =>
    range(columns).flatMap((c) =>
      range(rows).map((r) => `    s${r}_${c} = fma(a${r}[${i}], b${c}[${i}], s${r}_${c});`),
    ),
  );
}

/** WGSL that adds up a slice, which begins at `slice`, four by four: for rows that are not whole slices. */
export function sliceByFours(form: MatvecForm): string[] {
  return [
    `  for (var k = slice; k < min(slice + ${sliceLength}u, to); k += 4u) {`,
    ...range(form.rows).map((r) => `    let a${r} = aFour(aRow${r}, aStart${r}, k);`),
    ...range(form.columns).map((c) => `    let b${c} = bFour(bRow${c}, bStart${c}, k);`),
    ...multiplyFours(form),
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-whole-slice
/** How the numbers of one load are gone through: in so many turns of a loop, each with `fours` fours from the first `words` words. */
export interface LoadTurns {
  turns: number;
  fours: number;
  words: number;
}

/** A load written out: one turn; or as few fours a turn as are whole words. Written out for many rows it is slow to compile. */
export function loadTurns({ sharing, rows }: MatvecForm, loads: number): LoadTurns {
  const fours = sliceLength / 4 / loads;
  if (sharing === 1 && rows === 1) return { turns: 1, fours, words: 4 };
  const words = Math.max(1, 4 / fours);
  return { turns: 4 / words, fours: (fours * words) / 4, words };
}

/** WGSL that multiplies what one load of each column brought, word0 and so on. `number` is WGSL for a four of the slice, by its number in the turn. */
export function multiplyLoad(
  form: MatvecForm,
  { turns, fours, words }: LoadTurns,
  number: (i: number) => string,
  codes: (c: number, i: number) => string,
): string[] {
  const a = (r: number, i: number) =>
    holdsSlice(form)
      ? `subgroupShuffle(held${r}, ${number(i)})`
      : `aFour(aRow${r}, aStart${r}, slice + 4u * ${number(i)})`;
  const turn = ["", "yzwx", "zwxy", "", "xyzw"][words]; // the next words come first
  return [
    turns > 1 ? `    for (var turn = 0u; turn < ${turns}u; turn++) {` : "    {",
    ...range(fours).flatMap((i) => [
      "    {",
      ...range(form.rows).map((r) => `    let a${r} = ${a(r, i)};`),
      ...range(form.columns).map((c) => `    let b${c} = ${codes(c, i)};`),
      ...multiplyFours(form),
      "    }",
    ]),
    ...(turns > 1 ? range(form.columns).map((c) => `    word${c} = word${c}.${turn};`) : []),
    "    }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-whole-slice-2
/** The same for a whole slice: of B 128 bits are loaded at a time, which hold four numbers or more. */
export function wholeSlice(form: MatvecForm, { format }: Operand, f16 = false): string[] {
  const { loads, codes } = format.slices!;
  const turns = loadTurns(form, loads);
  const fours = sliceLength / 4 / loads;
  const inTurn = turns.turns > 1 ? ` + turn * ${turns.fours}u` : "";
  const number = (i: number) => `(load * ${fours}u${inTurn} + ${i}u)`;
  const four = (c: number, i: number) => {
    const value = codes(`word${c}`, i, `shared${c}`);
    return f16 ? `quantizeToF16(${value})` : value;
  };
  const place = `slice + lane % ${sliceLength / 4}u * 4u`;
  const held = range(form.rows).map((r) => `  let held${r} = aFour(aRow${r}, aStart${r}, ${place});`);
  const loaded = range(form.columns).map(
    (c) => `    var word${c} = b[(bStart${c} + slice) / ${sliceLength}u * ${loads}u + load];`,
  );
  const body = [...loaded, ...multiplyLoad(form, turns, number, four)];
  const writtenOut = turns.turns === 1 && turns.words === 4 && loads < 8;
  return [
    ...(holdsSlice(form) ? held : []),
    ...(writtenOut
      ? range(loads).flatMap((load) => [`  { let load = ${load}u;`, ...body, "  }"])
      : [`  for (var load = 0u; load < ${loads}u; load++) {`, ...body, "  }"]),
  ];
}

/** WGSL that leaves the sums of the slice at `slice` in s0_0 …, and where B has scales, what the slice shares in shared0 … */
export function matvecSlice(form: MatvecForm, b: Operand, { f16 }: MatmulShape): string[] {
  const { rows, columns, whole } = form;
  const { shared } = b.format.slices ?? {};
  const start = (c: number) => `bStart${c} + slice`;
  return [
    ...range(rows).flatMap((r) => range(columns).map((c) => `  var s${r}_${c} = 0.0;`)),
    ...(shared ? range(columns).map((c) => `  let shared${c} = ${shared("b", start(c), `bRow${c}`)};`) : []),
    ...(whole ? wholeSlice(form, b, f16) : sliceByFours(form)),
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-places
/** WGSL: the rows of A, and a lane's columns of B from `first` on, the last one again where they are past the end. */
export function matvecPlaces({ rows, columns }: MatvecForm): string[] {
  return [
    ...range(rows).map(
      (r) => `  let aRow${r} = aFirst + min(${r}u, sizes.rows - 1u); let aStart${r} = aRow${r} * sizes.k;`,
    ),
    ...range(columns).map(
      (c) =>
        `  let bRow${c} = bFirst + min(first + ${c}u, sizes.columns - 1u); let bStart${c} = bRow${c} * sizes.k;`,
    ),
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-own-columns
/** The statements where each lane has columns of its own. */
export function ownColumns(
  form: MatvecForm,
  b: Operand,
  shape: MatmulShape,
  { from }: MatmulPlaces,
): string[] {
  const { rows, columns } = form;
  const every = (statement: (r: number, c: number) => string) =>
    range(rows).flatMap((r) => range(columns).map((c) => statement(r, c)));
  const scale = (c: number) => (isScaled(shape, b) ? `shared${c}.x` : undefined);
  return [
    `  let first = column + lane * ${columns}u;`,
    ...matvecPlaces(form),
    ...every((r, c) => `  var y${r}_${c} = 0.0;`),
    `  for (var slice = ${from}; slice < to; slice += ${sliceLength}u) {`,
    ...matvecSlice(form, b, shape),
    ...every((r, c) => `  ${addSlice(`y${r}_${c}`, `s${r}_${c}`, scale(c))}`),
    "  }",
    ...every((r, c) => `  storeOne(cFirst, ${r}u, first + ${c}u, y${r}_${c});`),
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-shared-columns
/**
 * The statements where lanes share columns: each adds up a slice, and then one lane for each row and four columns adds the slices' sums
 * to those of the slices before, in order.
 */
export function sharedColumns(
  form: MatvecForm,
  b: Operand,
  shape: MatmulShape,
  { from }: MatmulPlaces,
): string[] {
  const { rows, columns, lanes, sharing } = form;
  const groups = lanes / sharing;
  const four = (variable: (c: number) => string) => `vec4f(${range(columns).map(variable).join(", ")})`;
  const scaled = isScaled(shape, b);
  return [
    `  let part = lane % ${sharing}u;`,
    `  let first = column + lane / ${sharing}u * ${columns}u;`,
    ...matvecPlaces(form),
    `  let ownRow = lane / ${groups}u;`,
    `  let ownGroup = lane % ${groups}u;`,
    "  var y = vec4f();",
    `  for (var start = ${from}; start < to; start += ${sharing * sliceLength}u) {`,
    `  let slice = start + part * ${sliceLength}u;`,
    "  if (slice < to) {",
    ...matvecSlice(form, b, shape),
    ...range(rows).map((r) => `  sums[${r * lanes}u + lane] = ${four((c) => `s${r}_${c}`)};`),
    ...(scaled ? [`  scales[lane] = ${four((c) => `shared${c}.x`)};`] : []),
    "  }",
    "  workgroupBarrier();",
    `  if (ownRow < ${rows}u) {`,
    `  for (var p = 0u; p < ${sharing}u && start + p * ${sliceLength}u < to; p++) {`,
    `  let other = ownGroup * ${sharing}u + p;`,
    `  ${addSlice("y", `sums[ownRow * ${lanes}u + other]`, scaled ? "scales[other]" : undefined)}`,
    "  }",
    "  }",
    "  workgroupBarrier();",
    "  }",
    `  if (ownRow < ${rows}u) {`,
    ...range(columns).map(
      (c) => `  storeOne(cFirst, ownRow, column + ownGroup * ${columns}u + ${c}u, y[${c}]);`,
    ),
    "  }",
  ];
}

//| 02-attention/2-matrix-products.ipynb#matvec-kernel-code
/** WGSL: stores a result of the matrix whose first row is `cFirst`. */
export const storeOne = `fn storeOne(cFirst: u32, row: u32, column: u32, value: f32) {
  let at = (cFirst + row) * sizes.columns + column;
  if (row < sizes.rows && column < sizes.columns) { c[at] = finish(value, column, at); }
}`;

/** A format whose numbers are read 128 bits at a time, and in no other way. */
export function wholeFormat(format: OperandFormat): OperandFormat {
  const slices = { ...format.slices!, loadCodes: () => "vec4f()" };
  return { ...format, bindings: slices.bindings, loadFour: slices.loadCodes, slices };
}

/** Workgroup memory for lanes that share columns. */
export function sharedSums({ rows, lanes, sharing }: MatvecForm): string[] {
  if (sharing === 1) return [];
  return [
    `var<workgroup> sums: array<vec4f, ${rows * lanes}>;`,
    `var<workgroup> scales: array<vec4f, ${lanes}>;`,
  ];
}

/** Products of a few rows with a weight [columns, k]. They are invariant, whether that is asked for or not. */
export function matvecKernel(asked: MatmulShape, places: MatmulPlaces, facts: AdapterFacts): Kernel {
  const shape = { ...asked, invariant: true };
  const [a, stored] = operands(shape);
  const form = matvecForm(shape, [a, stored], facts);
  const { lanes, sharing, rows, columns, whole } = form;
  const b = whole ? { ...stored, format: wholeFormat(stored.format) } : stored;
  return productKernel(shape, places, {
    name: `matrix-vector ${Object.values(form)}`,
    operands: [a, b],
    tile: [rows, (lanes / sharing) * columns],
    workgroupSize: lanes,
    vec4: false,
    enable: holdsSlice(form) ? ["subgroups"] : [],
    rounds: true,
    codes: true,
    head: () => [storeOne, ...sharedSums(form)],
    body: () => (sharing === 1 ? ownColumns : sharedColumns)(form, b, shape, places),
  });
}
