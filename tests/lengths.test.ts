// How much code stands in one piece: a cell is short enough to be read at once, and in the notebooks that tell the story the
// next words are never far.
import ts from "typescript";
import { expect, test } from "vitest";
import { notebookNames, notebookText, readNotebook, repository, sourceText } from "../tools/notebook.js";

const mostCellLines = 40;
const mostLinesWithoutWords = 60;

/** Notebooks that tell the story, by their names without a number. */
const stories = [
  "the-first-kernel",
  "tensors-and-gradients",
  "shards-and-batches",
  "the-loop",
  "the-decoder",
  "optimizers",
];

const notebooks = notebookNames(repository).map((name) => ({
  name,
  cells: (JSON.parse(notebookText(readNotebook(repository, name))) as ReturnType<typeof readNotebook>).cells,
}));

/** The lines of code in a cell: neither blank, nor a comment, an import, text of a string over several lines, or a row of a table. */
function codeLines(source: string): number {
  const tree = ts.createSourceFile("cell.ts", source, ts.ScriptTarget.Latest, true);
  const lineOf = (position: number) => tree.getLineAndCharacterOfPosition(position).line;
  const counted = new Set<number>();
  const isRow = (node: ts.Node): boolean =>
    ts.isLiteralExpression(node) ||
    ts.isPrefixUnaryExpression(node) ||
    (ts.isArrayLiteralExpression(node) && node.elements.every(isRow)) ||
    (ts.isPropertyAssignment(node) && isRow(node.initializer)) ||
    (ts.isObjectLiteralExpression(node) && node.properties.every(isRow));
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || isRow(node)) return;
    if (node.getChildCount(tree) === 0 && node.end > node.getStart(tree)) {
      counted.add(lineOf(node.getStart(tree)));
      if (!ts.isTemplateLiteralToken(node)) counted.add(lineOf(node.end));
    }
    ts.forEachChild(node, visit);
    if (!ts.isTemplateExpression(node)) {
      counted.add(lineOf(node.getStart(tree)));
      counted.add(lineOf(node.end));
    }
  };
  tree.statements.forEach(visit);
  return counted.size;
}

test("a cell has at most 40 lines of code, tables and texts not counted", () => {
  const long = notebooks.flatMap(({ name, cells }) =>
    cells
      .filter(({ cell_type }) => cell_type === "code")
      .map(({ id, source }) => ({ at: `${name}#${id}`, text: sourceText(source) }))
      .filter(({ text }) => text.split("\n").length > mostCellLines)
      .map(({ at, text }) => ({ at, lines: codeLines(text) }))
      .filter(({ lines }) => lines > mostCellLines)
      .map(({ at, lines }) => `${at}: ${lines} lines`),
  );
  expect(long).toEqual([]);
});

test("the notebooks that tell the story show at most 60 lines in a row without words", () => {
  const tooLong = notebooks.flatMap(({ name, cells }) => {
    const story = /\/\d+-(.*)\.ipynb$/.exec(name)?.[1] ?? "";
    if (!stories.includes(story)) return [];
    let lines = 0;
    return cells.flatMap(({ id, cell_type, source, metadata }) => {
      if ((metadata.jupyter as { source_hidden?: boolean } | undefined)?.source_hidden) return [];
      lines = cell_type === "code" ? lines + (sourceText(source).match(/^.*\S/gm) ?? []).length : 0;
      return lines > mostLinesWithoutWords ? [`${name}#${id}: ${lines} lines since the last words`] : [];
    });
  });
  expect(tooLong).toEqual([]);
});
