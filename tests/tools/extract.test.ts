import { expect, test } from "vitest";
import { extractLibrary } from "../../tools/library.js";
import { libraryDifferences, refuseToOverwrite } from "../../tools/library-files.js";
import * as book from "./small-book.js";
import { type Cell, extracted, extractionError, ONE, TWO } from "./small-book.js";

const imports: Cell = [
  "imports",
  `import * as fs from "node:fs";
import { z } from "zod";
import { expect, show, test } from "tslm/notebook";
import { unused } from "somewhere";`,
];
const double: Cell = [
  "double",
  "//| export gpu/numbers\n/** Twice x. */\nfunction double(x: number): number {\n  return 2 * x;\n}",
];

test("a module is its notebook's cells in order, exported, each headed by its cell's name", () => {
  const text = extracted(
    {
      [ONE]: [
        double,
        ["narrative", "double(2)"],
        [
          "more",
          `//| export gpu/numbers

// how many
const count = 1, other = 2;
let [first, { second }] = [1, { second: 2 }];
type Name = string;
interface Shape { name: Name }
enum Kind { A }
abstract class Box { kind = Kind.A }
async function load() { return [count, other, first, second] }
globalThis.setTimeout(load, 1);
`,
        ],
      ],
    },
    "lib/src/gpu/numbers.ts",
  );
  expect(text).toBe(`
//| ${ONE}#double
/** Twice x. */
export function double(x: number): number {
  return 2 * x;
}

//| ${ONE}#more
// how many
export const count = 1, other = 2;
export let [first, { second }] = [1, { second: 2 }];
export type Name = string;
export interface Shape { name: Name }
export enum Kind { A }
export abstract class Box { kind = Kind.A }
export async function load() { return [count, other, first, second] }
globalThis.setTimeout(load, 1);
`);
});

test("a module imports exactly what its pieces use, from where it is defined", () => {
  const text = extracted(
    {
      [ONE]: [
        double,
        [
          "shape",
          "//| export formats/shape\ninterface Shape { size: number }\nconst unit: Shape = { size: 1 };",
        ],
      ],
      [TWO]: [
        imports,
        ["from-book", 'import { double as twice, unit, type Shape } from "tslm";'],
        ["help", "//| export kernels/help\nfunction help(): number {\n  return 1;\n}"],
        [
          "area",
          `//| export kernels/area
import { performance } from "node:perf_hooks";
function area(shape: Shape, stats: fs.Stats): z.ZodType {
  return [twice(shape.size), help(), performance.now(), stats, z] as any;
}`,
        ],
      ],
    },
    "lib/src/kernels/area.ts",
  );
  expect(text.split("\n\n")[0]).toBe(`import type * as fs from "node:fs";
import { performance } from "node:perf_hooks";
import { z } from "zod";
import type { Shape } from "../formats/shape.js";
import { double as twice } from "../gpu/numbers.js";
import { help } from "./help.js";`);
  expect(text).not.toContain('perf_hooks";\nfunction');
});

test("types and values of one module come in one import, broken into lines when it is long", () => {
  const names = [..."abcdefghijklm"].map((letter) => `aLongishName${letter}`);
  const cells: Cell[] = [
    [
      "names",
      `//| export gpu/names\n${names.map((name) => `const ${name} = 1;`).join("\n")}\ntype Size = number;`,
    ],
    ["sum", `//| export gpu/sum\nconst sum: Size = ${names.join(" + ")};`],
    ["few", `//| export gpu/few\nconst few: Size = ${names[0]};`],
  ];
  const lines = ["Size", ...names].map((name) => `  ${name === "Size" ? "type Size" : name},\n`).join("");
  expect(extracted({ [ONE]: cells }, "lib/src/gpu/sum.ts")).toContain(
    `import {\n${lines}} from "./names.js";\n`,
  );
  expect(extracted({ [ONE]: cells }, "lib/src/gpu/few.ts")).toContain(
    `import { type Size, aLongishNamea } from "./names.js";\n`,
  );
});

test("names that only look like uses need no import", () => {
  const source = `//| export gpu/names
function names(count: number): asserts count is 1 {
  const { length: size, ...rest } = { length: 1, name: 2 } as const;
  outer: for (const index of [size]) {
    if (index > 0) break outer;
  }
  const table = { key: rest, method() { return new.target; } };
  type Pair = [left: number, right: { key: string }];
  const pair: Pair | undefined = undefined;
  class Local<T> { field?: T; static of<U extends keyof GPUDevice>(this: Local<U>): void {} }
  console.log(table.key, arguments.length, pair?.[0], Local.of, structuredClone, Buffer, NaN);
}`;
  expect(extracted({ [ONE]: [["names", source]] }, "lib/src/gpu/names.ts")).toMatch(/^\n\/\/\| /);
});

test("a test module takes test and expect from vitest and the rest from the library", () => {
  const text = extracted(
    {
      [ONE]: [
        imports,
        double,
        [
          "double-test",
          `//| test gpu/numbers\nconst two = 2;\nawait test("doubles", () => expect(double(two)).toBe(4));`,
        ],
      ],
    },
    "lib/test/gpu/numbers.test.ts",
  );
  expect(text).toBe(`import { expect, test } from "vitest";
import { double } from "../../src/gpu/numbers.js";

//| ${ONE}#double-test
const two = 2;
await test("doubles", () => expect(double(two)).toBe(4));
`);
});

test("a name of the notebook goes before a global of the same name", () => {
  const cells: Cell[] = [
    ["event", "//| export gpu/event\ninterface Event { time: number }"],
    ["now", "//| export gpu/now\nconst now = (event: Event): number => event.time;"],
  ];
  expect(extracted({ [ONE]: cells }, "lib/src/gpu/now.ts")).toContain(
    'import type { Event } from "./event.js";',
  );
});

test("the index holds every module, room by room, also those not yet in a notebook", () => {
  const root = book.makeBook({ [ONE]: [["add", "//| export kernels/add\nconst sum = 1;"], double] });
  book.write(root, "lib/src/gpu/device.ts", "export const device = 1;\n");
  const library = extractLibrary(root);
  expect(library.handWritten).toEqual(["gpu/device"]);
  expect(library.files.get("lib/src/index.ts")).toBe(`/// <reference types="@webgpu/types" preserve="true" />
// The public names of the library, written by \`npm run extract\`; docs/library.md says what each is.
export * from "./gpu/device.js";
export * from "./gpu/numbers.js";
export * from "./kernels/add.js";
`);
});

test("a module written by hand can be imported from tslm", () => {
  const root = book.makeBook({
    [ONE]: [
      [
        "all",
        '//| export kernels/all\nimport { device, other as another } from "tslm";\nconst all = [device, another];',
      ],
    ],
  });
  book.write(
    root,
    "lib/src/gpu/device.ts",
    "const other = 1;\nexport const device = 1;\nexport { other };\n",
  );
  expect(extractLibrary(root).files.get("lib/src/kernels/all.ts")).toContain(
    'import { device, other as another } from "../gpu/device.js";',
  );
});

test("chapters and notebooks are read in the order of their numbers", () => {
  const cell = (id: string): Cell => [id, `const ${id} = 1;`];
  const root = book.makeBook({
    "02-attention/10-c.ipynb": [cell("c")],
    "02-attention/9-b.ipynb": [cell("b")],
    "01-tokenizer/1-a.ipynb": [cell("a")],
  });
  expect(extractLibrary(root).cells.map(({ id }) => id)).toEqual(["a", "b", "c"]);
});

test("writing is idempotent, and removes what no notebook defines any more but nothing written by hand", () => {
  const root = book.makeBook({ [ONE]: [double] });
  book.write(root, "lib/src/gpu/device.ts", "export const device = 1;\n");
  expect(book.extract(root)).toEqual([
    "wrote lib/src/gpu/numbers.ts",
    "wrote lib/src/index.ts",
    "wrote docs/library.md",
  ]);
  expect(book.extract(root)).toEqual([]);
  book.editCell(root, ONE, "double", "gpu/numbers", "gpu/doubles");
  expect(book.extract(root)).toEqual([
    "wrote lib/src/gpu/doubles.ts",
    "wrote lib/src/index.ts",
    "wrote docs/library.md",
    "removed lib/src/gpu/numbers.ts",
  ]);
  expect(book.read(root, "lib/src/gpu/device.ts")).toBe("export const device = 1;\n");
});

test("an edit of a cell changes the library", () => {
  const root = book.makeBook({ [ONE]: [double] });
  book.extract(root);
  book.editCell(root, ONE, "double", "2 * x", "x + x");
  expect(book.extract(root)).toEqual(["wrote lib/src/gpu/numbers.ts"]);
  expect(book.read(root, "lib/src/gpu/numbers.ts")).toContain("return x + x;");
});

test("the check names the file and the cell of each difference", () => {
  const root = book.makeBook({ [ONE]: [double, ["half", "//| export gpu/numbers\nconst half = 0.5;"]] });
  const differences = () => libraryDifferences(root, extractLibrary(root));
  expect(differences()).toEqual([
    "lib/src/gpu/numbers.ts: is missing",
    "lib/src/index.ts: is missing",
    "docs/library.md: is missing",
  ]);
  book.extract(root);
  expect(differences()).toEqual([]);
  const file = "lib/src/gpu/numbers.ts";
  const check = (from: string, to: string): string[] => {
    book.edit(root, file, from, to);
    const lines = differences();
    book.edit(root, file, to, from);
    return lines;
  };
  expect(check("2 * x", "3 * x")).toEqual([`${file}: differs in ${ONE}#double`]);
  expect(check("// Extracted", "//Extracted")).toEqual([`${file}: differs in its header and imports`]);
  expect(check("#half", "#third")).toEqual([
    `${file}: the marker ${ONE}#third leads to no cell`,
    `${file}: lacks the cell ${ONE}#half`,
  ]);
  expect(check("\n\n//|", "\nconst odd = 1;\n//|")).toContain(
    `${file}: code before the first marker belongs to no cell; put it below the marker of a cell`,
  );
});

test("extraction does not overwrite an edit of the library, nor a file that exists nowhere else", () => {
  const root = book.makeBook({ [ONE]: [double] });
  book.extract(root);
  const refuse = () => refuseToOverwrite(root, extractLibrary(root));
  book.editCell(root, ONE, "double", "2 * x", "x + x");
  refuse(); // the cell is what changed
  book.edit(root, "lib/src/gpu/numbers.ts", "2 * x", "x * 2");
  expect(refuse).toThrow(
    `lib/src/gpu/numbers.ts: was edited since it was extracted (${ONE}#double)\n\`npm run backport\``,
  );
  book.write(root, "lib/src/gpu/numbers.ts", "export const mine = 1;\n");
  expect(refuse).toThrow("lib/src/gpu/numbers.ts: was edited since it was extracted");
});

const errors: [title: string, cells: Cell[], message: string][] = [
  [
    "an unknown room",
    [["a", "//| export garden/tree\nconst a = 1;"]],
    `${ONE}#a: there is no room "garden" to extract to`,
  ],
  [
    "a room written by hand",
    [["a", "//| export cli/main\nconst a = 1;"]],
    `${ONE}#a: there is no room "cli"`,
  ],
  ["a marker that says something else", [["a", "//| exprot gpu/a\n"]], `${ONE}#a: "//| exprot gpu/a" is not`],
  [
    "a second marker in a cell",
    [["a", "//| export gpu/a\n//| test gpu/a"]],
    `${ONE}#a: a marker "//|" stands in a cell's first line only`,
  ],
  [
    "a duplicate cell id",
    [
      ["a", "1"],
      ["a", "2"],
    ],
    `${ONE}#a: two cells have this id`,
  ],
  ["a cell id of other characters", [["a b", "1"]], `${ONE}#a b: a cell id is 1 to 64 of A-Z a-z 0-9 _ -`],
  [
    "a cell that does not parse",
    [["a", "//| export gpu/a\nconst = 1;"]],
    `${ONE}#a: does not parse: line 2, column 7: Variable declaration expected`,
  ],
  [
    "a narrative cell that does not parse",
    [["a", "let x = (1;"]],
    `${ONE}#a: does not parse: line 1, column 11: ')' expected`,
  ],
  [
    "export in a cell",
    [["a", "//| export gpu/a\nexport const a = 1;"]],
    `${ONE}#a: a cell does not write "export"`,
  ],
  [
    "an undefined name",
    [["a", "//| export gpu/a\nconst a = b;"]],
    `${ONE}#a: uses \`b\`, which no exported cell or import defines`,
  ],
  ["an undefined shorthand", [["a", "//| export gpu/a\nconst a = { b };"]], `${ONE}#a: uses \`b\`, which`],
  ["an undefined type", [["a", "//| export gpu/a\nconst a: B<number> = 1;"]], `${ONE}#a: uses \`B\`, which`],
  [
    "a name of a narrative cell",
    [
      ["b", "const b = 1;"],
      ["a", "//| export gpu/a\nconst a = b;"],
    ],
    "#a: uses `b`, which no exported cell or import defines: cell b defines it, but is not exported",
  ],
  [
    "a helper of another test",
    [
      ["b", "//| test gpu/b\nconst b = 1;"],
      ["a", "//| test gpu/a\nb;"],
    ],
    "defines: it belongs to the tests in lib/test/gpu/b.test.ts (cell b)",
  ],
  [
    "a figure in the library",
    [
      ["i", 'import { show } from "tslm/notebook";'],
      ["a", "//| export gpu/a\nconst a = show;"],
    ],
    `${ONE}#a: \`show\` of tslm/notebook is for narrative cells`,
  ],
  [
    "a figure in a test",
    [
      ["i", 'import { show } from "tslm/notebook";'],
      ["a", "//| test gpu/a\nshow;"],
    ],
    `${ONE}#a: \`show\` of tslm/notebook is for narrative cells`,
  ],
  [
    "an import of a file",
    [["a", '//| export gpu/a\nimport { b } from "./b";\nconst a = b;']],
    `${ONE}#a: \`b\` comes from ./b: the library imports packages only`,
  ],
  [
    "an import that tslm does not have",
    [["a", '//| export gpu/a\nimport { b } from "tslm";\nconst a = b;']],
    `${ONE}#a: imports \`b\` from "tslm", but no exported cell defines it`,
  ],
  [
    "a name defined twice",
    [
      ["a", "//| export gpu/a\nconst a = 1;"],
      ["b", "//| export kernels/b\nconst a = 1;"],
    ],
    `${ONE}#b: \`a\` is already defined by ${ONE}#a; exported names are unique`,
  ],
];

test.each(errors)("extraction refuses %s", (_title, cells, message) => {
  expect(extractionError(...cells)).toContain(message);
});

test("extraction says every problem at once", () => {
  const lines = extractionError(
    ["a", "//| export gpu/a\nconst a = one;"],
    ["b", "//| export gpu/b\nconst b = two;"],
  );
  expect(lines.split("\n")).toHaveLength(2);
});

test("a module has one notebook", () => {
  const root = book.makeBook({
    [ONE]: [double],
    [TWO]: [["three", "//| export gpu/numbers\nconst three = 3;"]],
  });
  expect(() => extractLibrary(root)).toThrow(
    `${TWO}#three: lib/src/gpu/numbers.ts belongs to ${ONE}; one notebook owns a module`,
  );
});

test("a name of another notebook must be imported, and the message says so", () => {
  const root = book.makeBook({
    [ONE]: [double],
    [TWO]: [["four", "//| export kernels/four\nconst four = double(2);"]],
  });
  expect(() => extractLibrary(root)).toThrow(
    `${TWO}#four: uses \`double\`, which no exported cell or import defines: import it from "tslm" in a cell (gpu/numbers defines it)`,
  );
});

test("a name of a module written by hand is taken too", () => {
  const root = book.makeBook({ [ONE]: [double] });
  book.write(root, "lib/src/gpu/old.ts", "export const double = 2;\n");
  expect(() => extractLibrary(root)).toThrow(
    `lib/src/gpu/old.ts: \`double\` is already defined by ${ONE}#double`,
  );
});

test("a file that is no notebook is named", () => {
  const root = book.makeBook({ [ONE]: [] });
  book.write(root, `chapters/${ONE}`, "{");
  expect(() => extractLibrary(root)).toThrow(`${ONE}: is not a notebook`);
});

const half: Cell = [
  "half",
  "//| part gpu/numbers\n/** Half of x [n]. Rounds | never. */\nfunction half(x: number): number {\n  return x / 2;\n}\ntype Half = number;",
];

test("a part is exported by its module and not by the library, which lists the other names", () => {
  const { files } = extractLibrary(
    book.makeBook({ [ONE]: [double, half, ["kept", "//| part gpu/kept\nconst kept = 1;"]] }),
  );
  expect(files.get("lib/src/gpu/numbers.ts")).toContain("export function half(x: number)");
  expect(files.get("lib/src/index.ts")).toContain('export { double } from "./gpu/numbers.js";');
  expect(files.get("lib/src/index.ts")).not.toContain("gpu/kept");
  const reference = files.get("docs/library.md")!;
  expect(reference).toContain(`| \`double\` | Twice x. | [double](../chapters/${ONE}) |`);
  expect(reference).toContain("1 names");
  expect(reference).not.toContain("half");
});

test("a type among public names is exported as a type", () => {
  const types: Cell = [
    "types",
    "//| export gpu/numbers\n/** A | B. */\ntype Both = 1 | 2;\nconst one: Both = 1;",
  ];
  const { files } = extractLibrary(book.makeBook({ [ONE]: [types, half] }));
  expect(files.get("lib/src/index.ts")).toContain('export { type Both, one } from "./gpu/numbers.js";');
  expect(files.get("docs/library.md")).toContain("| `Both` | A \\| B. |");
});

test("a part is imported from its module, and two modules may each have a part of one name", () => {
  const { files } = extractLibrary(
    book.makeBook({
      [ONE]: [double, half],
      [TWO]: [
        ["imports", 'import { double } from "tslm";\nimport { half as halved } from "tslm/gpu/numbers";'],
        ["own", "//| part kernels/own\nconst half = (x: number) => halved(double(x));"],
        ["test", "//| test kernels/own\nhalf(halved(1));"],
      ],
    }),
  );
  expect(files.get("lib/src/kernels/own.ts")).toContain(
    'import { double, half as halved } from "../gpu/numbers.js";',
  );
  expect(files.get("lib/test/kernels/own.test.ts")).toContain(
    'import { half } from "../../src/kernels/own.js";',
  );
});

test("a part that is asked of the library, or of a module that lacks it, is a problem that says where it is", () => {
  const uses = (from: string) => () =>
    extractLibrary(
      book.makeBook({
        [ONE]: [double, half],
        [TWO]: [["own", `//| part kernels/own\nimport { half } from "${from}";\nconst own = half(1);`]],
      }),
    );
  for (const from of ["tslm", "tslm/gpu/other"])
    expect(book.errorOf(uses(from))).toContain(
      `imports \`half\` from "${from}", but no exported cell defines it; "tslm/gpu/numbers" has it`,
    );
  expect(extractionError(half, ["again", "//| part gpu/other\nconst half = 1;"])).toContain(
    "`half` is already defined by",
  );
});
