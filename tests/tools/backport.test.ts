import fc from "fast-check";
import { expect, test } from "vitest";
import { backport } from "../../tools/backport.js";
import { extractLibrary } from "../../tools/library.js";
import { libraryDifferences } from "../../tools/library-files.js";
import { readNotebook, sourceText } from "../../tools/notebook.js";
import * as book from "./small-book.js";
import { type Cell, ONE, TWO } from "./small-book.js";

const FILE = "lib/src/gpu/numbers.ts";
const cells: Cell[] = [
  [
    "imports",
    'import { performance } from "node:perf_hooks";\nimport { expect, test } from "tslm/notebook";',
  ],
  [
    "double",
    '//| export gpu/numbers\nimport { cpus } from "node:os";\n\n/** Twice x. */\nfunction double(x: number): number {\n  return 2 * x + cpus().length;\n}',
  ],
  ["half", "//| export gpu/numbers\nconst half = 0.5;"],
  ["double-test", '//| test gpu/numbers\nawait test("doubles", () => expect(double(1)).toBe(2));'],
];

function extractedBook(): string {
  const root = book.makeBook({ [ONE]: cells });
  book.extract(root);
  return root;
}

const cellText = (root: string, id: string): string =>
  sourceText(readNotebook(root, ONE).cells.find((cell) => cell.id === id)!.source);

/** Ports the library's edits back; checks that extraction then gives the very same file. */
function roundTrip(root: string, file = FILE): string[] {
  const edited = book.read(root, file);
  const lines = backport(root);
  expect(extractLibrary(root).files.get(file)).toBe(edited);
  expect(book.read(root, file)).toBe(edited);
  expect(libraryDifferences(root, extractLibrary(root))).toEqual([]);
  return lines;
}

test("an edit of a library function goes into its cell, and extraction gives the same file", () => {
  const root = extractedBook();
  book.edit(root, FILE, "2 * x", "x + x");
  expect(roundTrip(root)).toEqual([`${ONE}#double now has the edit of ${FILE}`]);
  expect(cellText(root, "double")).toBe(cells[1][1].replace("2 * x", "x + x"));
  expect(cellText(root, "half")).toBe(cells[2][1]);
});

test("a new declaration in a piece becomes part of its cell, without its export", () => {
  const root = extractedBook();
  book.edit(
    root,
    FILE,
    "export const half = 0.5;",
    "export const half = 0.5;\n\n/** A part. */\nexport type Part = typeof half;",
  );
  roundTrip(root);
  expect(cellText(root, "half")).toBe(
    "//| export gpu/numbers\nconst half = 0.5;\n\n/** A part. */\ntype Part = typeof half;",
  );
});

test("a test goes back as it is written", () => {
  const root = extractedBook();
  book.edit(root, "lib/test/gpu/numbers.test.ts", "toBe(2)", "toBe(3)");
  roundTrip(root, "lib/test/gpu/numbers.test.ts");
  expect(cellText(root, "double-test")).toBe(cells[3][1].replace("toBe(2)", "toBe(3)"));
});

test("a use of what the notebook already imports needs no more than its import", () => {
  const root = extractedBook();
  book.edit(root, FILE, "0.5;", "0.5 * performance.now();");
  book.edit(root, FILE, "\n\n//|", '\nimport { performance } from "node:perf_hooks";\n\n//|');
  roundTrip(root);
});

test("whatever a function's body becomes, extraction is the inverse of backport", () => {
  const line = fc.constantFrom(
    "  // a remark",
    "  const y = `x`;",
    "  const exported = 1;",
    "",
    '  const s = "//| no marker";',
  );
  fc.assert(
    fc.property(fc.array(line, { minLength: 1, maxLength: 6 }), (lines) => {
      const root = extractedBook();
      book.edit(
        root,
        FILE,
        "  return 2",
        `  {\n  ${lines.map((text) => `{ ${text.trim()}\n}`).join("\n")}\n  }\n  return 2`,
      );
      roundTrip(root);
    }),
    { numRuns: 15 },
  );
});

test("a cell that was edited and not yet extracted keeps its edit", () => {
  const root = extractedBook();
  book.editCell(root, ONE, "half", "0.5", "0.25");
  book.edit(root, FILE, "2 * x", "x + x");
  expect(backport(root)).toEqual([`${ONE}#double now has the edit of ${FILE}`]);
  expect(cellText(root, "half")).toContain("0.25");
  expect(book.read(root, FILE)).toContain("0.25");
});

test("nothing to carry back is no error", () => {
  expect(backport(extractedBook())).toEqual([]);
});

const refusals: [title: string, from: string, to: string, message: string][] = [
  [
    "code without a marker",
    `\n\n//| ${ONE}#double`,
    `\nexport const odd = 1;\n\n//| ${ONE}#double`,
    `${FILE}: code before the first marker belongs to no cell; put it below the marker of a cell`,
  ],
  [
    "a marker without a cell",
    "//| 01-tokenizer/1-one.ipynb#half",
    "//| 01-tokenizer/1-one.ipynb#third",
    `${FILE}: the marker ${ONE}#third leads to no cell`,
  ],
  [
    "a marker that stands twice",
    "export const half = 0.5;",
    `export const half = 0.5;\n//| ${ONE}#half\nexport const more = 1;`,
    `${FILE}: ${ONE}#half stands there twice`,
  ],
  [
    "a piece that was removed",
    `//| ${ONE}#half\nexport const half = 0.5;\n`,
    "",
    `${FILE}: lacks the cell ${ONE}#half; remove it in the notebook`,
  ],
  [
    "a declaration that is not exported",
    "export const half",
    "const half",
    `${FILE}: every declaration of ${ONE}#half is exported; write \`export\` before each`,
  ],
  [
    "an import of something else",
    '"node:os"',
    '"os"',
    `${FILE}: import cpus from "os" is not in the notebook; imports belong to cells: edit ${ONE}#imports or ${ONE}#double`,
  ],
  [
    "a name that the notebook does not import",
    "0.5;",
    "0.5 * hostname().length;",
    `${ONE}#half: uses \`hostname\`, which no exported cell or import defines`,
  ],
  ["a piece that does not parse", "0.5;", "0.5 +;", `${ONE}#half: does not parse`],
];

test.each(refusals)("backport refuses %s and changes nothing", (_title, from, to, message) => {
  const root = extractedBook();
  const before = book.read(root, `chapters/${ONE}`);
  book.edit(root, FILE, from, to);
  const edited = book.read(root, FILE);
  expect(book.errorOf(() => backport(root))).toContain(message);
  expect(book.read(root, `chapters/${ONE}`)).toBe(before);
  expect(book.read(root, FILE)).toBe(edited);
});

test("backport refuses an edit of both sides", () => {
  const root = extractedBook();
  book.editCell(root, ONE, "double", "2 * x", "3 * x");
  book.edit(root, FILE, "2 * x", "x + x");
  expect(() => backport(root)).toThrow(
    `${ONE}#double: was edited, and so was its piece in ${FILE}; make one like the other`,
  );
});

test("an edit that breaks another notebook is refused", () => {
  const root = book.makeBook({
    [ONE]: cells,
    [TWO]: [["use", '//| export kernels/use\nimport { half } from "tslm";\nconst use = half;']],
  });
  book.extract(root);
  book.edit(root, FILE, "export const half", "export const third");
  expect(() => backport(root)).toThrow(
    `${TWO}#use: imports \`half\` from "tslm", but no exported cell defines it`,
  );
});
