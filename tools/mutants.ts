// Wrong answers made by rule: a solved cell with one operator, bound, index or constant of its answer changed.
import ts from "typescript";

/** A solved cell with one thing changed. */
export interface Mutant {
  /** `merge:5: 0 → 1`: the cell, the line in it, and what became of what. Unique within a notebook. */
  name: string;
  /** True when what changed is a kernel. */
  kernel: boolean;
  /** The source of the whole cell. */
  source: string;
}

/** Other code for a stretch of a source. */
interface Change {
  start: number;
  end: number;
  text: string;
}

type Stretch = [start: number, end: number];

/** Where the solved parts of a cell lie in it. */
function solvedParts(source: string): Stretch[] {
  const marks = /^[ \t]*\/\/\| solution\n([\s\S]*?)^[ \t]*\/\/\| end$/gm;
  return [...source.matchAll(marks)].map((found) => {
    const start = found.index! + found[0].indexOf("\n") + 1;
    return [start, start + found[1].length];
  });
}

const changed = (source: string, { start, end, text }: Change) =>
  source.slice(0, start) + text + source.slice(end);

// ------------------------------------------------------------------------------------------- TypeScript

const OPERATORS: { [operator: string]: string } = {
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "%": "*",
  "**": "*",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "===": "!==",
  "!==": "===",
  "&&": "||",
  "||": "&&",
  "|": "+",
  "+=": "-=",
  "-=": "+=",
  "*=": "/=",
  "++": "--",
};

/** Functions and methods that a learner may take for each other. */
const NAMES: { [name: string]: string } = {
  max: "min",
  min: "max",
  floor: "ceil",
  log: "log2",
  log2: "log",
  startsWith: "includes",
  endsWith: "includes",
  indexOf: "lastIndexOf",
  find: "findLast",
};

/** Methods that may be forgotten: what they are called on is left. */
const FORGOTTEN = ["filter", "sort", "trim", "slice"];

/** Functions of two numbers that may change places. */
const COMMUTATIVE = ["max", "min", "imul"];

/** Other numbers for a number: one more and one less, or, for a share, what is left of 1; none for a tiny one. */
function otherNumbers(value: number): number[] {
  if (Number.isInteger(value)) return value > 0 ? [value + 1, value - 1] : [value + 1];
  return value < 1e-3 ? [0, value * 1e4] : [Number((1 - value).toPrecision(3))];
}

function changesOfNode(node: ts.Node, tree: ts.SourceFile): string[] {
  const text = (part: ts.Node) => part.getText(tree);
  if (ts.isBinaryExpression(node)) return changesOfBinary(node, text);
  if (ts.isNumericLiteral(node)) return otherNumbers(Number(node.text)).map(String);
  if (ts.isElementAccessExpression(node) && !ts.isNumericLiteral(node.argumentExpression))
    return [`${text(node.expression)}[${text(node.argumentExpression)} + 1]`];
  if (ts.isConditionalExpression(node)) return [`(${text(node.whenTrue)})`, `(${text(node.whenFalse)})`];
  if (ts.isIfStatement(node) && !node.elseStatement) return [text(node.thenStatement), ";"];
  if (ts.isPrefixUnaryExpression(node)) return [text(node.operand)];
  if (ts.isPostfixUnaryExpression(node) && !ts.isForStatement(node.parent)) return ["0"];
  if (ts.isCallExpression(node)) return changesOfCall(node, text);
  if (ts.isArrayLiteralExpression(node) && node.elements.length === 1 && ts.isSpreadElement(node.elements[0]))
    return [text(node.elements[0].expression)];
  if (ts.isExpressionStatement(node)) return [";"];
  return [];
}

function changesOfBinary(
  { left, operatorToken, right }: ts.BinaryExpression,
  text: (node: ts.Node) => string,
) {
  const operator = text(operatorToken);
  const other = OPERATORS[operator];
  const changes = other ? [`${text(left)} ${other} ${text(right)}`] : [];
  // For + 1 and − 1 the number itself is changed.
  if (/^[*/]$/.test(operator) || (/^[-+]$/.test(operator) && !ts.isNumericLiteral(right)))
    changes.push(text(left));
  if (operator === "??") changes.push(text(right));
  // A number that is added to a root moves into it.
  if (operator === "+" && ts.isCallExpression(left) && text(left.expression) === "Math.sqrt")
    changes.push(`Math.sqrt(${text(left.arguments[0])} + ${text(right)})`);
  return changes;
}

function changesOfCall({ expression, arguments: given }: ts.CallExpression, text: (node: ts.Node) => string) {
  const changes: string[] = [];
  const parts = given.map(text);
  const name = ts.isPropertyAccessExpression(expression) ? expression.name.text : "";
  if (parts.length === 2 && !given.some(ts.isFunctionLike) && !COMMUTATIVE.includes(name))
    changes.push(`${text(expression)}(${parts[1]}, ${parts[0]})`);
  if (!ts.isPropertyAccessExpression(expression)) return changes;
  const of = text(expression.expression);
  if (NAMES[name]) changes.push(`${of}.${NAMES[name]}(${parts.join(", ")})`);
  if (FORGOTTEN.includes(name)) changes.push(of);
  if (of === "Math" && parts.length === 1 && !ts.isSpreadElement(given[0])) changes.push(`(${parts[0]})`);
  return changes;
}

function parse(source: string): ts.SourceFile {
  return ts.createSourceFile("cell.ts", source, ts.ScriptTarget.Latest, true);
}

/** All changes to the TypeScript in a stretch, from the outside in. */
function typescriptChanges(source: string, [start, end]: Stretch): Change[] {
  const tree = parse(source);
  const changes: Change[] = [];
  const visit = (node: ts.Node) => {
    const at = node.getStart(tree);
    if (at >= start && node.end <= end)
      for (const text of changesOfNode(node, tree)) changes.push({ start: at, end: node.end, text });
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return changes.filter(({ start, end, text }) => source.slice(start, end) !== text);
}

// ------------------------------------------------------------------------------------------- WGSL

/** What stands in a kernel, and what may stand there instead. `$1` and so on are the pattern's groups. */
const KERNEL_RULES: [pattern: RegExp, becomes: string][] = [
  [/ < /g, " <= "],
  [/ <= /g, " < "],
  [/ >= /g, " > "],
  [/ == /g, " != "],
  [/ \+= /g, " = "],
  [/ \* /g, " + "],
  [/ \/ /g, " * "],
  [/ \+ /g, " - "],
  [/ - /g, " + "],
  [/\bmax\(/g, "min("],
  [/\b0u\b/g, "1u"],
  [/-3\.4e38/g, "0.0"],
  [/ = 0\.0;/g, " = 1.0;"],
  [/0\.0, 1\.0/g, "1.0, 0.0"],
  [/ \+ epsilon\b/g, ""],
  [/ - \w+(?=\))/g, ""],
  [/ \* \w+\[\w+\](?=;)/g, ""],
  [/inverseSqrt\(([^;]*) \+ epsilon\)/g, "(1.0 / (sqrt($1) + epsilon))"],
  [/inverseSqrt\(([^;]*) \+ epsilon\)/g, "(inverseSqrt($1) + epsilon)"],
  [/\brows\b(?!\[)/g, "columns"],
  [/\bcolumns\b/g, "(columns - 1u)"],
  [/\b(\w+)\[thread\]/g, "$1[0]"],
  [/\[first \+ (?=\w+\])/g, "["],
  [/^if [^\n]*\n/gm, "\n"],
];

/** How many mutants of one kernel are tried: each is compiled, which takes as long as a hundred plain functions. */
const KERNEL_MUTANTS = 12;

/** All changes to the kernel in a stretch, in the order of their places. */
function kernelChanges(source: string, [start, end]: Stretch): Change[] {
  const part = source.slice(start, end);
  const all = KERNEL_RULES.flatMap(([pattern, becomes]) =>
    [...part.matchAll(pattern)].map((found) => ({
      start: start + found.index!,
      end: start + found.index! + found[0].length,
      text: becomes.replace("$1", found[1] ?? ""),
    })),
  ).filter(({ start, text }) => {
    const line = source.slice(source.lastIndexOf("\n", start - 1) + 1);
    // A loop that counts up to less than where it begins goes round all 2³² numbers.
    return (
      !/^\s*\/\//.test(line) &&
      !(text === " - " && /^\s*for /.test(line) && start < source.indexOf("{", start - 1))
    );
  });
  return all.sort((a, b) => a.start - b.start);
}

// ------------------------------------------------------------------------------------------- both

/** True when a stretch lies within a string between backticks. */
function inTemplate(source: string, [start, end]: Stretch): boolean {
  let found = false;
  const visit = (node: ts.Node) => {
    if (ts.isNoSubstitutionTemplateLiteral(node) && node.pos < start && node.end > end) found = true;
    ts.forEachChild(node, visit);
  };
  visit(parse(source));
  return found;
}

const oneLine = (text: string) => text.trim().replace(/\s+/g, " ") || "nothing";

/** Every mutant of a solved cell, in the order of the changed places. */
export function mutantsOf(cell: string, source: string): Mutant[] {
  const times = new Map<string, number>();
  return solvedParts(source).flatMap((part) => {
    const kernel = inTemplate(source, part);
    const changes = kernel ? kernelChanges(source, part) : typescriptChanges(source, part);
    return changes.map((change) => {
      const line = source.slice(0, change.start).split("\n").length;
      const name = `${cell}:${line}: ${oneLine(source.slice(change.start, change.end))} → ${oneLine(change.text)}`;
      const time = (times.get(name) ?? 0) + 1;
      times.set(name, time);
      return { name: time > 1 ? `${name} (${time})` : name, kernel, source: changed(source, change) };
    });
  });
}

/** The mutants of one cell that are worth their time: all of a function, and of a kernel some from all over it. */
export function chosenMutants(mutants: Mutant[]): Mutant[] {
  const every = Math.max(1, mutants.filter(({ kernel }) => kernel).length / KERNEL_MUTANTS);
  return mutants.filter(({ kernel }, i) => !kernel || i === Math.ceil(Math.floor(i / every) * every));
}

/** The source with `step()` called in every turn of its loops: whoever gives `step` can end one that goes on for ever. */
function withSteps(source: string): string {
  const tree = parse(source);
  const inserts: [at: number, text: string][] = [];
  const visit = (node: ts.Node) => {
    if (ts.isIterationStatement(node, false))
      inserts.push([node.statement.getStart(tree), "{ step(); "], [node.statement.end, " }"]);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  inserts.sort(([a], [b]) => b - a);
  return inserts.reduce((code, [at, text]) => code.slice(0, at) + text + code.slice(at), source);
}

/** JavaScript of a list of functions: each runs the cell of one mutant. All at once, since a compiler is slow to start. */
export function mutantProgram(mutants: Mutant[]): string {
  const cells = mutants.map(({ source }) => `async () => {\n${withSteps(source)}\n}`);
  const target = ts.ScriptTarget.ES2022;
  return ts.transpileModule(`[${cells.join(",\n")}]`, { compilerOptions: { target } }).outputText;
}
