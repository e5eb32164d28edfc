// What the syntax tree says about the code cells of the book: what each declares, imports and uses.
import path from "node:path";
import ts from "typescript";
import { BookError, type Notebook, repository, sourceText } from "./notebook.js";
import { bookRooms } from "./rooms.js";

/** A name that an import declaration brings in. `imported` is its name there, `*` for the whole module. */
export interface ImportedName {
  local: string;
  imported: string;
  from: string;
  typeOnly: boolean;
}

/** A name that a cell uses and does not declare. */
export interface Use {
  name: string;
  /** False where only types speak of it, so that the import is erased. */
  asValue: boolean;
  /** JavaScript, Node or WebGPU know it. */
  global: boolean;
}

/** What a cell's marker says: public names, names for sibling modules and tests, a test, or nothing. */
export type CellKind = "export" | "part" | "test" | "narrative";

/** Whether a cell's declarations become a module of the library. */
export const isLibrary = ({ kind }: { kind: CellKind }): boolean => kind === "export" || kind === "part";

export interface CodeCell {
  /** `01-tokenizer/1-bytes-and-pairs.ipynb` */
  notebook: string;
  id: string;
  kind: CellKind;
  /** `tokenizer/bpe`; empty for a narrative cell. */
  module: string;
  source: string;
  imports: ImportedName[];
  /** The import declarations as written. */
  importText: string[];
  declares: string[];
  /** What is said of each declared name in one line, and whether it is a type alone. */
  summaries: Summary[];
  uses: Use[];
  /** What extraction writes: no marker, no imports, declarations of export and part cells exported. */
  body: string;
}

/** A declared name as a reference lists it. */
export interface Summary {
  name: string;
  /** An interface or a type alias: gone when the program runs. */
  isType: boolean;
  /** The first sentence of its documentation; empty where there is none. */
  text: string;
}

/** How messages and markers name a cell. */
export const cellName = (cell: { notebook: string; id: string }): string => `${cell.notebook}#${cell.id}`;

/** The code cells of notebooks given by name, in reading order. Throws a BookError with every problem found. */
export function codeCells(notebooks: Map<string, Notebook>): CodeCell[] {
  const problems: string[] = [];
  const cells = [...notebooks].flatMap(([name, notebook]) => notebookCells(name, notebook, problems));
  const program = parse(new Map(cells.map((cell) => [cellName(cell), cell.source])));
  const checker = program.getTypeChecker();
  for (const cell of cells) {
    const tree = program.getSourceFile(treePath(cellName(cell)))!;
    const [error] = program.getSyntacticDiagnostics(tree);
    if (error) problems.push(`${cellName(cell)}: does not parse: ${diagnosticText(error)}`);
    else describe(cell, tree, checker, problems);
  }
  if (problems.length > 0) throw new BookError(problems);
  return cells;
}

function notebookCells(name: string, notebook: Notebook, problems: string[]): CodeCell[] {
  const ids = new Set<string>();
  return notebook.cells.flatMap(({ id, cell_type, source }) => {
    const at = `${name}#${id}`;
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(id ?? ""))
      problems.push(`${at}: a cell id is 1 to 64 of A-Z a-z 0-9 _ -`);
    if (ids.has(id)) problems.push(`${at}: two cells have this id`);
    if (ids.has(id) || cell_type !== "code") return [];
    ids.add(id);
    const text = sourceText(source);
    const marker = cellMarker(text, at, problems);
    return [
      {
        notebook: name,
        id,
        ...marker,
        source: text,
        imports: [],
        importText: [],
        declares: [],
        summaries: [],
        uses: [],
        body: "",
      },
    ];
  });
}

/** Reads `//| export room/module`, `//| part room/module` or `//| test room/module` from a cell's first line. */
function cellMarker(source: string, at: string, problems: string[]): Pick<CodeCell, "kind" | "module"> {
  const narrative = { kind: "narrative" as const, module: "" };
  if (/\n\/\/\|/.test(source)) problems.push(`${at}: a marker "//|" stands in a cell's first line only`);
  const line = source.split("\n", 1)[0].trim();
  if (!line.startsWith("//|")) return narrative;
  const [, kind, room, module] = /^\/\/\| (export|part|test) ([a-z]+)\/([a-z0-9-]+)$/.exec(line) ?? [];
  if (!kind) problems.push(`${at}: "${line}" is not "//| export room/module", "//| part …" or "//| test …"`);
  else if (bookRooms.includes(room)) return { kind: kind as CellKind, module: `${room}/${module}` };
  else problems.push(`${at}: there is no room "${room}" to extract to; rooms are ${bookRooms.join(", ")}`);
  return narrative;
}

function describe(cell: CodeCell, tree: ts.SourceFile, checker: ts.TypeChecker, problems: string[]): void {
  const declarations = tree.statements.filter(isDeclaration);
  const importDeclarations = tree.statements.filter(ts.isImportDeclaration);
  if (tree.statements.some(hasExport)) {
    problems.push(`${cellName(cell)}: a cell does not write "export"; extraction adds it`);
  }
  cell.imports = importDeclarations.flatMap(importedNames);
  cell.importText = importDeclarations.map((node) => node.getText(tree));
  cell.declares = [...new Set(declarations.flatMap(declaredNames))];
  if (cell.kind === "narrative") return;
  cell.uses = freeNames(tree, checker);
  const exported = isLibrary(cell) ? declarations : [];
  cell.summaries = exported.flatMap((node) => summariesOf(node, tree));
  cell.body = bodyText(tree, importDeclarations, exported);
}

function summariesOf(node: Declaration, tree: ts.SourceFile): Summary[] {
  const isType = ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node);
  const [comment] = ts.getJSDocCommentsAndTags(node).filter(ts.isJSDoc);
  const words = comment
    ? comment
        .getText(tree)
        .replace(/^\/\*\*|\s*\*\/$/g, "")
        .replace(/^\s*\* ?/gm, " ")
    : "";
  const text = firstSentence(words.replace(/\s+/g, " ").trim());
  return declaredNames(node).map((name) => ({ name, isType, text }));
}

/** A sentence ends at a full stop before a capital letter or the end. */
const firstSentence = (text: string): string => text.split(/(?<=[.!?])\s+(?=[A-Z`])/, 1)[0];

/** The cell without its marker line and imports, and with `export` before the given declarations. */
function bodyText(tree: ts.SourceFile, imports: ts.Statement[], exported: ts.Statement[]): string {
  const cuts = [{ start: 0, end: tree.text.indexOf("\n") + 1 || tree.text.length, put: "" }];
  for (const node of imports)
    cuts.push({ start: node.getStart(tree), end: lineEnd(tree.text, node.end), put: "" });
  for (const node of exported)
    cuts.push({ start: node.getStart(tree), end: node.getStart(tree), put: "export " });
  return spliced(tree.text, cuts);
}

const lineEnd = (text: string, position: number): number =>
  text.slice(position).match(/^[ \t]*\n/) ? text.indexOf("\n", position) + 1 : position;

function spliced(text: string, cuts: { start: number; end: number; put: string }[]): string {
  for (const { start, end, put } of cuts.sort((a, b) => b.start - a.start)) {
    text = text.slice(0, start) + put + text.slice(end);
  }
  return text.replace(/^([ \t]*\n)+/, "").trimEnd();
}

/** The inverse on a piece of the library: takes `export` off its declarations. */
export function withoutExports(piece: string): string {
  const tree = ts.createSourceFile("piece.ts", piece, ts.ScriptTarget.Latest, true);
  const cuts = tree.statements.filter(isDeclaration).flatMap((node) => {
    const keyword = node.modifiers?.find(({ kind }) => kind === ts.SyntaxKind.ExportKeyword);
    return keyword ? [{ start: keyword.getStart(tree), end: keyword.end + 1, put: "" }] : [];
  });
  return spliced(piece, cuts);
}

/** The names that a library module written by hand exports. */
export function exportedNames(text: string): string[] {
  const names = statementsOf(text).flatMap((node) => {
    if (isDeclaration(node) && hasExport(node)) return declaredNames(node);
    if (!ts.isExportDeclaration(node) || !node.exportClause || !ts.isNamedExports(node.exportClause))
      return [];
    return node.exportClause.elements.map(({ name }) => name.text);
  });
  return [...new Set(names)];
}

/** The names that a module's text imports. */
export const importsOf = (text: string): ImportedName[] =>
  statementsOf(text).filter(ts.isImportDeclaration).flatMap(importedNames);

/** Whether a text holds nothing but imports and comments. */
export const onlyImports = (text: string): boolean => statementsOf(text).every(ts.isImportDeclaration);

const statementsOf = (text: string): ts.Statement[] => [
  ...ts.createSourceFile("module.ts", text, ts.ScriptTarget.Latest, true).statements,
];

type Declaration =
  | ts.VariableStatement
  | ts.FunctionDeclaration
  | ts.ClassDeclaration
  | ts.TypeAliasDeclaration
  | ts.InterfaceDeclaration
  | ts.EnumDeclaration;

const isDeclaration = (node: ts.Node): node is Declaration =>
  ts.isVariableStatement(node) ||
  ts.isFunctionDeclaration(node) ||
  ts.isClassDeclaration(node) ||
  ts.isTypeAliasDeclaration(node) ||
  ts.isInterfaceDeclaration(node) ||
  ts.isEnumDeclaration(node);

const hasExport = (node: ts.Node): boolean =>
  ts.isExportDeclaration(node) ||
  ts.isExportAssignment(node) ||
  (ts.canHaveModifiers(node) &&
    !!ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword));

function declaredNames(node: Declaration): string[] {
  if (!ts.isVariableStatement(node)) return node.name ? [node.name.text] : [];
  const bound = (name: ts.BindingName): string[] =>
    ts.isIdentifier(name)
      ? [name.text]
      : name.elements.flatMap((element) => (ts.isBindingElement(element) ? bound(element.name) : []));
  return node.declarationList.declarations.flatMap(({ name }) => bound(name));
}

function importedNames(node: ts.ImportDeclaration): ImportedName[] {
  const clause = node.importClause;
  const from = (node.moduleSpecifier as ts.StringLiteral).text;
  if (!clause) return [];
  const typeOnly = clause.isTypeOnly;
  const names: ImportedName[] = clause.name
    ? [{ local: clause.name.text, imported: "default", from, typeOnly }]
    : [];
  const bindings = clause.namedBindings;
  if (!bindings) return names;
  if (ts.isNamespaceImport(bindings))
    return [...names, { local: bindings.name.text, imported: "*", from, typeOnly }];
  const named = bindings.elements.map(({ name, propertyName, isTypeOnly }) => ({
    local: name.text,
    imported: (propertyName ?? name).text,
    from,
    typeOnly: typeOnly || isTypeOnly,
  }));
  return [...names, ...named];
}

/** The names used in a cell that nothing in the cell declares. */
function freeNames(tree: ts.SourceFile, checker: ts.TypeChecker): Use[] {
  const uses = new Map<string, Use>();
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) return;
    if (ts.isIdentifier(node) && isReference(node)) {
      const declarations = declarationsOf(node, checker);
      const outside = declarations.filter((at) => at.getSourceFile() !== tree);
      const use = uses.get(node.text) ?? { name: node.text, asValue: false, global: true };
      if (declarations.length > outside.length && !declarations.some(inImport)) return;
      uses.set(node.text, use);
      use.asValue ||= !inType(node);
      use.global &&= outside.length > 0 || LANGUAGE_NAMES.has(node.text);
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return [...uses.values()];
}

const inImport = (node: ts.Node): boolean =>
  ts.isImportSpecifier(node) || ts.isImportClause(node) || ts.isNamespaceImport(node);

/** Names that the language defines without a declaration. */
const LANGUAGE_NAMES = new Set(["undefined", "arguments", "globalThis"]);

function declarationsOf(node: ts.Identifier, checker: ts.TypeChecker): ts.Declaration[] {
  const symbol = ts.isShorthandPropertyAssignment(node.parent)
    ? checker.getShorthandAssignmentValueSymbol(node.parent)
    : checker.getSymbolAtLocation(node);
  return symbol?.declarations ?? [];
}

/** Whether an identifier speaks of a variable or a type, rather than naming a member, a label or a keyword. */
function isReference(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isQualifiedName(parent)) return parent.left === node;
  if (ts.isBindingElement(parent) && parent.propertyName === node) return false;
  if (ts.isImportTypeNode(parent) || ts.isMetaProperty(parent)) return false;
  if (ts.isLabeledStatement(parent) || ts.isBreakOrContinueStatement(parent)) return false;
  if (ts.isTypeReferenceNode(parent) && ts.isConstTypeReference(parent)) return false;
  const isMember = ts.isPropertyAssignment(parent) || ts.isClassElement(parent) || ts.isTypeElement(parent);
  return !(
    (isMember ||
      ts.isObjectLiteralElement(parent) ||
      ts.isEnumMember(parent) ||
      ts.isNamedTupleMember(parent)) &&
    parent.name === node &&
    !ts.isShorthandPropertyAssignment(parent)
  );
}

function inType(node: ts.Node): boolean {
  while (ts.isQualifiedName(node.parent)) node = node.parent;
  return ts.isPartOfTypeNode(node) || ts.isTypeQueryNode(node.parent);
}

const treePath = (name: string): string => path.join(repository, "chapters", `${name}.ts`);

/** Parses cells as one program over the JavaScript, Node and WebGPU globals, for the checker to resolve names in. */
function parse(texts: Map<string, string>): ts.Program {
  const options: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    lib: ["lib.es2023.d.ts"],
    module: ts.ModuleKind.ESNext,
    moduleDetection: ts.ModuleDetectionKind.Force,
    types: ["node", "@webgpu/types"],
  };
  const sources = new Map([...texts].map(([name, text]) => [treePath(name), text]));
  const host = ts.createCompilerHost(options);
  const { getSourceFile } = host;
  host.getCurrentDirectory = () => repository;
  // Imports are matched with the book by name: what they lead to need not be read.
  host.resolveModuleNameLiterals = (literals) => literals.map(() => ({ resolvedModule: undefined }));
  host.getSourceFile = (file, languageVersion, ...rest) => {
    const text = sources.get(file);
    return text === undefined
      ? cachedTree(file, () => getSourceFile(file, languageVersion, ...rest))
      : ts.createSourceFile(file, text, languageVersion, true);
  };
  return ts.createProgram([...sources.keys()], options, host);
}

const cache = new Map<string, ts.SourceFile | undefined>();

function cachedTree(file: string, read: () => ts.SourceFile | undefined): ts.SourceFile | undefined {
  if (!cache.has(file)) cache.set(file, read());
  return cache.get(file);
}

function diagnosticText({ file, start, messageText }: ts.Diagnostic): string {
  const { line, character } = file!.getLineAndCharacterOfPosition(start!);
  return `line ${line + 1}, column ${character + 1}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`;
}
