// From cells to modules: which file each cell goes to, and what that file imports.
import fs from "node:fs";
import path from "node:path";
import {
  type CodeCell,
  cellName,
  codeCells,
  exportedNames,
  type ImportedName,
  isLibrary,
  type Summary,
  type Use,
} from "./cells.js";
import { BookError, type Notebook, notebookNames, readNotebook } from "./notebook.js";
import { referenceText } from "./reference.js";
import { bookRooms } from "./rooms.js";

/** The book as extraction sees it. */
export interface Library {
  /** Path from the root, such as `lib/src/tokenizer/bpe.ts`, to the file's text. */
  files: Map<string, string>;
  /** Modules such as `gpu/device` that stand in lib/src without a notebook. */
  handWritten: string[];
  cells: CodeCell[];
}

export const HEADER = "// Extracted from chapters/";

/** Where a cell of this kind and module goes. */
export const filePath = ({ kind, module }: Pick<CodeCell, "kind" | "module">): string =>
  kind === "test" ? `lib/test/${module}.test.ts` : `lib/src/${module}.ts`;

/** Reads every notebook under `root`. */
export const readBook = (root: string): Map<string, Notebook> =>
  new Map(notebookNames(root).map((name) => [name, readNotebook(root, name)]));

/** The library that the notebooks define. Throws a BookError that names every problem with its notebook and cell. */
export function extractLibrary(root: string, book = readBook(root)): Library {
  const cells = codeCells(book);
  const files = groupBy(
    cells.filter(({ kind }) => kind !== "narrative"),
    filePath,
  );
  const handWritten = handWrittenModules(root, files);
  const problems = [...files].flatMap(([file, pieces]) => ownerProblems(file, pieces));
  const owners = nameOwners(cells, handWritten, problems);
  const modules = moduleNames(cells, handWritten, problems);
  const texts = new Map<string, string>();
  const context = { cells, owners, modules, problems };
  for (const [file, pieces] of files) texts.set(file, moduleText(file, pieces, context));
  const index = [...publicNames(cells), ...[...handWritten.keys()].map((module) => [module, "all"] as const)];
  texts.set(INDEX, indexText(new Map(index)));
  texts.set(REFERENCE, referenceText(cells));
  if (problems.length > 0) throw new BookError(problems);
  return { files: texts, handWritten: [...handWritten.keys()], cells };
}

function groupBy<T>(items: T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

/** What extraction writes beside modules and tests: the names of `"tslm"`, and their reference. */
export const INDEX = "lib/src/index.ts";
const REFERENCE = "docs/library.md";

/** Files that hold no pieces of cells. */
export const isWhole = (file: string): boolean => file === INDEX || file === REFERENCE;

/** Each module's public names, "all" where it has no others. A module of parts alone has none. */
function publicNames(cells: CodeCell[]): Map<string, Summary[] | "all"> {
  const modules = groupBy(cells.filter(isLibrary), ({ module }) => module);
  return new Map(
    [...modules].map(([module, pieces]) => [
      module,
      pieces.every(({ kind }) => kind === "export")
        ? "all"
        : pieces.filter(({ kind }) => kind === "export").flatMap(({ summaries }) => summaries),
    ]),
  );
}

/** The names of each module, public or not, which `tslm/room/module` gives. They are unique in a notebook. */
function moduleNames(
  cells: CodeCell[],
  handWritten: Map<string, string[]>,
  problems: string[],
): Map<string, Set<string>> {
  const places = new Map<string, string>();
  const modules = new Map([...handWritten].map(([module, names]) => [module, new Set(names)]));
  for (const cell of cells.filter(isLibrary)) {
    const names = modules.get(cell.module) ?? new Set();
    modules.set(cell.module, names);
    for (const name of cell.declares) {
      const other = places.get(`${cell.notebook} ${name}`);
      if (other && cell.kind === "part")
        problems.push(`${cellName(cell)}: \`${name}\` is already defined by ${other} in this notebook`);
      places.set(`${cell.notebook} ${name}`, cellName(cell));
      names.add(name);
    }
  }
  return modules;
}

/** Modules of the book's rooms that no notebook owns, with the names they export. */
function handWrittenModules(root: string, files: Map<string, unknown>): Map<string, string[]> {
  const modules = new Map<string, string[]>();
  for (const file of typeScriptFiles(root, "lib/src")) {
    const text = fs.readFileSync(path.join(root, file), "utf8");
    if (!files.has(file) && !text.startsWith(HEADER)) modules.set(file.slice(8, -3), exportedNames(text));
  }
  return modules;
}

/** The TypeScript files in the book's rooms under a folder, as paths from the root. */
export function typeScriptFiles(root: string, folder: string): string[] {
  return bookRooms.flatMap((room) => {
    const inside = path.join(root, folder, room);
    const names = fs.existsSync(inside) ? fs.readdirSync(inside).sort() : [];
    return names.filter((name) => name.endsWith(".ts")).map((name) => `${folder}/${room}/${name}`);
  });
}

function ownerProblems(file: string, pieces: CodeCell[]): string[] {
  const stranger = pieces.find(({ notebook }) => notebook !== pieces[0].notebook);
  return stranger
    ? [`${cellName(stranger)}: ${file} belongs to ${pieces[0].notebook}; one notebook owns a module`]
    : [];
}

/** Which module defines each public name; those are unique in the whole library. */
function nameOwners(
  cells: CodeCell[],
  handWritten: Map<string, string[]>,
  problems: string[],
): Map<string, string> {
  const owners = new Map<string, string>();
  const places = new Map<string, string>();
  const claim = (name: string, module: string, place: string) => {
    const other = places.get(name);
    if (other)
      problems.push(`${place}: \`${name}\` is already defined by ${other}; exported names are unique`);
    owners.set(name, module);
    places.set(name, place);
  };
  for (const cell of cells.filter(({ kind }) => kind === "export")) {
    for (const name of cell.declares) claim(name, cell.module, cellName(cell));
  }
  for (const [module, names] of handWritten)
    for (const name of names) claim(name, module, `lib/src/${module}.ts`);
  return owners;
}

interface Context {
  cells: CodeCell[];
  /** Public names, and the module that defines each. */
  owners: Map<string, string>;
  /** Modules, and the names that each defines. */
  modules: Map<string, Set<string>>;
  problems: string[];
}

function moduleText(file: string, pieces: CodeCell[], context: Context): string {
  const { notebook } = pieces[0];
  const imports = importStatements(file, pieces, context);
  const head = [
    `${HEADER}${notebook}: edit it there, or here and run \`npm run backport\`.`,
    ...imports,
  ].join("\n");
  return `${[head, ...pieces.map(pieceText)].join("\n\n")}\n`;
}

/** A cell as it stands in its module: the marker that names it, and its body. */
export const pieceText = (cell: CodeCell): string => `//| ${cellName(cell)}\n${cell.body}`.trimEnd();

/** The import declarations of a module: what its pieces use and do not define, from where it is defined. */
function importStatements(file: string, pieces: CodeCell[], context: Context): string[] {
  const declared = new Set(pieces.flatMap(({ declares }) => declares));
  const wanted = new Map<string, ImportedName>();
  for (const cell of pieces) {
    for (const use of cell.uses.filter(({ name }) => !declared.has(name))) {
      const found = findImport(use, file, cell, context);
      if (typeof found === "string") context.problems.push(`${cellName(cell)}: ${found}`);
      else if (found) {
        const typeOnly = found.typeOnly || !use.asValue;
        wanted.set(use.name, { ...found, typeOnly: typeOnly && (wanted.get(use.name)?.typeOnly ?? true) });
      }
    }
  }
  return formatImports([...wanted.values()]);
}

/** Where a name comes from: an import, nothing for a global, or a sentence about what is wrong. */
function findImport(
  use: Use,
  file: string,
  cell: CodeCell,
  context: Context,
): ImportedName | string | undefined {
  const { name } = use;
  const same = context.cells.filter(({ notebook }) => notebook === cell.notebook);
  const definer = same.find((other) => isLibrary(other) && other.declares.includes(name));
  const imported = definer
    ? { local: name, imported: name, from: `tslm/${definer.module}`, typeOnly: false }
    : same.flatMap(({ imports }) => imports).find(({ local }) => local === name);
  if (imported) return libraryImport(imported, file, cell, context);
  return use.global ? undefined : undefinedName(name, same, context);
}

function libraryImport(
  name: ImportedName,
  file: string,
  cell: CodeCell,
  { owners, modules }: Context,
): ImportedName | string {
  if (name.from === "tslm/notebook") {
    if (cell.kind === "test" && TEST_NAMES.has(name.imported)) return { ...name, from: "vitest" };
    return `\`${name.local}\` of tslm/notebook is for narrative cells: the library and its tests do without`;
  }
  if (name.from.startsWith("."))
    return `\`${name.local}\` comes from ${name.from}: the library imports packages only`;
  if (name.from !== "tslm" && !name.from.startsWith("tslm/")) return name;
  const module = name.from === "tslm" ? owners.get(name.imported) : name.from.slice(5);
  if (!module || !modules.get(module)?.has(name.imported)) {
    const from = modulesWith(name.imported, modules);
    const advice = from.length > 0 ? `; "${from.join('" or "')}" has it` : "";
    return `imports \`${name.imported}\` from "${name.from}", but no exported cell defines it${advice}`;
  }
  return { ...name, from: relativeImport(file, `lib/src/${module}.js`) };
}

const TEST_NAMES = new Set("test it describe expect beforeAll afterAll beforeEach afterEach".split(" "));

function relativeImport(from: string, to: string): string {
  const relative = path.posix.relative(path.posix.dirname(from), to);
  return relative.startsWith(".") ? relative : `./${relative}`;
}

/** The specifiers of the modules that define a name. */
const modulesWith = (name: string, modules: Map<string, Set<string>>): string[] =>
  [...modules].filter(([, names]) => names.has(name)).map(([module]) => `tslm/${module}`);

function undefinedName(name: string, notebook: CodeCell[], { owners, modules }: Context): string {
  const missing = `uses \`${name}\`, which no exported cell or import defines`;
  const cell = notebook.find(({ declares }) => declares.includes(name));
  if (cell?.kind === "test")
    return `${missing}: it belongs to the tests in ${filePath(cell)} (cell ${cell.id})`;
  if (cell) return `${missing}: cell ${cell.id} defines it, but is not exported`;
  if (owners.has(name)) return `${missing}: import it from "tslm" in a cell (${owners.get(name)} defines it)`;
  const [part] = modulesWith(name, modules);
  if (part) return `${missing}: import it from "${part}" in a cell`;
  return missing;
}

/** Import declarations as the formatter writes them: Node's own modules, packages, then the library's. */
function formatImports(names: ImportedName[]): string[] {
  const rank = (from: string) => (from.startsWith("node:") ? 0 : from.startsWith(".") ? 2 : 1);
  const modules = [...groupBy(names, ({ from }) => from)];
  modules.sort(([a], [b]) => rank(a) - rank(b) || compare(a, b));
  return modules.flatMap(([from, imports]) => {
    const whole = imports.filter(({ imported }) => imported === "*" || imported === "default");
    const named = imports
      .filter((name) => !whole.includes(name))
      .sort((a, b) => compare(a.imported, b.imported));
    return [...whole.map(wholeImport), ...(named.length > 0 ? [namedImport(from, named)] : [])];
  });
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

const wholeImport = ({ local, imported, from, typeOnly }: ImportedName): string =>
  `import ${typeOnly ? "type " : ""}${imported === "*" ? "* as " : ""}${local} from "${from}";`;

function namedImport(from: string, names: ImportedName[]): string {
  const allTypes = names.every(({ typeOnly }) => typeOnly);
  const list = names.map(({ local, imported, typeOnly }) => {
    const name = local === imported ? local : `${imported} as ${local}`;
    return typeOnly && !allTypes ? `type ${name}` : name;
  });
  const start = allTypes ? "import type {" : "import {";
  const line = `${start} ${list.join(", ")} } from "${from}";`;
  return line.length <= 110
    ? line
    : `${start}\n${list.map((name) => `  ${name},\n`).join("")}} from "${from}";`;
}

function indexText(modules: Map<string, Summary[] | "all">): string {
  const room = (module: string) => bookRooms.indexOf(module.split("/")[0]);
  const sorted = [...modules].sort(([a], [b]) => room(a) - room(b) || compare(a, b));
  const lines = sorted.flatMap(([module, names]) => reexport(module, names));
  return [
    `/// <reference types="@webgpu/types" preserve="true" />`,
    "// The public names of the library, written by `npm run extract`; docs/library.md says what each is.",
    ...(lines.length > 0 ? lines : ["export {};"]),
    "",
  ].join("\n");
}

function reexport(module: string, names: Summary[] | "all"): string[] {
  const from = `"./${module}.js"`;
  if (names === "all") return [`export * from ${from};`];
  if (names.length === 0) return [];
  const allTypes = names.every(({ isType }) => isType);
  const list = [...names]
    .sort((a, b) => compare(a.name, b.name))
    .map(({ name, isType }) => (isType && !allTypes ? `type ${name}` : name));
  const start = allTypes ? "export type {" : "export {";
  const line = `${start} ${list.join(", ")} } from ${from};`;
  return [
    line.length <= 110 ? line : `${start}\n${list.map((name) => `  ${name},\n`).join("")}} from ${from};`,
  ];
}
