// How much code stands in one piece: a cell is short enough to be read at once, and in the notebooks that tell the story the
// next words are never far. What was longer when this was written is listed; the lists only become shorter.
import ts from "typescript";
import { expect, test } from "vitest";
import { notebookNames, notebookText, readNotebook, repository, sourceText } from "../tools/notebook.js";

const mostCellLines = 40;
const mostLinesWithoutWords = 60;

/** Cells that are too long, by their ids, which they keep when they move. */
const longCells = new Set([
  "write-synthetic",
  "pattern-groups",
  "pattern-cases",
  "pattern-class-source",
  "pattern-source",
  "piece-memory",
  "tokenizer-file-parts",
  "load-errors-test",
  "zst-frame",
  "parquet-rows",
  "lock-folder",
  "foreign-names",
  "damage-test",
  "checked-corpus-test",
  "prepare",
  "commands-test",
  "out-of-memory-test",
  "checked-test",
  "tensor-class",
  "config-conflicts-test",
  "config-round-trip-test",
  "generation-test",
  "safetensors-layout-test",
  "safetensors-numbers-test",
  "safetensors-faults-test",
  "safetensors-fuzz-test",
  "capture-tests",
  "scaled-test",
  "report",
  "set",
]);

/** Notebooks that tell the story, by their names without a number, with the longest run of code that each may have today. */
const stories: Record<string, number> = {
  "the-first-kernel": 97,
  "tensors-and-gradients": 79,
  "shards-and-batches": 207,
  "the-loop": 127,
  "the-decoder": 113,
  optimizers: 95,
};

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
      .map(({ id, source }) => ({ id, at: `${name}#${id}`, text: sourceText(source) }))
      .filter(({ text }) => text.split("\n").length > mostCellLines)
      .map(({ text, ...cell }) => ({ ...cell, lines: codeLines(text) }))
      .filter(({ lines }) => lines > mostCellLines),
  );
  expect(long.filter(({ id }) => !longCells.has(id)).map(({ at, lines }) => `${at}: ${lines} lines`)).toEqual(
    [],
  );
  const mended = [...longCells].filter((id) => !long.some((cell) => cell.id === id));
  expect(mended, "these are short enough now: strike them off the list").toEqual([]);
});

test("the notebooks that tell the story show at most 60 lines in a row without words", () => {
  const tooLong = notebooks.flatMap(({ name, cells }) => {
    const story = /\/\d+-(.*)\.ipynb$/.exec(name)?.[1] ?? "";
    if (!(story in stories)) return [];
    const most = Math.max(stories[story], mostLinesWithoutWords);
    let lines = 0;
    return cells.flatMap(({ id, cell_type, source, metadata }) => {
      if ((metadata.jupyter as { source_hidden?: boolean } | undefined)?.source_hidden) return [];
      lines = cell_type === "code" ? lines + (sourceText(source).match(/^.*\S/gm) ?? []).length : 0;
      return lines > most ? [`${name}#${id}: ${lines} lines since the last words, and at most ${most}`] : [];
    });
  });
  expect(tooLong).toEqual([]);
});
