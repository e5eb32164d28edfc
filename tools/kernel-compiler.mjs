// How the kernel compiles. tslab asks TypeScript's watching compiler, which makes two whole programs for every cell, each with
// its own view of all names that the library declares: most of the time that a notebook takes. Here a cell takes one program,
// and files are read, parsed and bound once for all kernels of a process.
import fs from "node:fs";

/** Parsed files of the disk by their names, with what says whether one has changed. */
const parsedFiles = new Map();

/** A file is asked whether it has changed at most so often, in milliseconds: a program has some hundreds of them. */
const trusted = 1000;

/** A file as the disk has it now; undefined where there is none. */
function fileOnDisk(name, parse) {
  const now = performance.now();
  const known = parsedFiles.get(name);
  if (known && now - known.asked < trusted) return known.file;
  const stat = fs.statSync(name, { throwIfNoEntry: false });
  const version = stat && `${stat.mtimeMs} ${stat.size}`;
  const file = known && known.version === version ? known.file : parse(name);
  parsedFiles.set(name, { version, file, asked: now });
  return file;
}

/**
 * A program of the files at hand in the form that tslab asks for. It is made when something is asked that needs it: to see
 * which names a cell declares, parsing the cell is enough.
 */
function lazyProgram(ts, names, options, host, previous) {
  let program;
  const getProgram = () => {
    program ??= ts.createProgram(names, options, host, previous());
    return program;
  };
  const getSourceFile = (name) => {
    if (program || !names.includes(name)) return getProgram().getSourceFile(name);
    const file = host.getSourceFile(name);
    if (!/\.d\.ts$/.test(name)) ts.bindSourceFile(file, options);
    return file;
  };
  /** A file and the sources that it imports, those that are only declared left out. */
  const getAllDependencies = (file, found = new Set()) => {
    getProgram(); // which finds out what the file's imports are
    found.add(file.fileName);
    file.resolvedModules?.forEach(({ resolvedModule } = {}) => {
      const name = resolvedModule?.resolvedFileName;
      const next = name && !/\.d\.ts$/.test(name) && getProgram().getSourceFile(name);
      if (next && !found.has(next.fileName)) getAllDependencies(next, found);
    });
    return [...found];
  };
  const emit = (...args) => getProgram().emit(...args);
  return { getProgram, getSourceFile, getAllDependencies, emit, isMade: () => program !== undefined };
}

/** TypeScript with a compiler for cells in the place of the one that watches; all else is its own. */
export function withCellCompiler(ts) {
  ts.sys.getCurrentDirectory = () => process.cwd(); // its own keeps the first answer
  const createWatchCompilerHost = (names, options, sys) => ({ names, options, sys });
  const createWatchProgram = (asked) => {
    const { options, sys } = asked;
    const { getSourceFile: _, ...host } = ts.createCompilerHostWorker(options, false, sys);
    const parsing = {
      languageVersion: options.target,
      setExternalModuleIndicator: ts.getSetExternalModuleIndicator(options),
    };
    const parse = (name) => {
      const text = sys.readFile(name);
      return text === undefined ? undefined : ts.createSourceFile(name, text, parsing);
    };
    const cells = new Map(); // parsed files that the kernel alone has: a cell, what was declared before it
    host.getSourceFile = (name) => {
      if (!names.includes(name)) return fileOnDisk(name, parse);
      const text = sys.readFile(name);
      const kept = cells.get(name);
      if (kept?.text === text) return kept.file;
      const file = parse(name);
      cells.set(name, { text, file });
      return file;
    };
    let names = asked.names;
    let current;
    let latest; // the latest program that was really made: what did not change is taken over from it
    let timer;
    const watched = new Map();
    const watchSources = (program) => {
      for (const { fileName, isDeclarationFile } of program.getSourceFiles())
        if (!isDeclarationFile && !names.includes(fileName) && !watched.has(fileName))
          watched.set(fileName, sys.watchFile(fileName, schedule, 250));
    };
    const update = () => {
      timer = undefined;
      if (current?.isMade()) {
        latest = current.getProgram();
        watchSources(latest);
        cells.clear(); // tslab writes into trees
      }
      current = lazyProgram(ts, names, options, host, () => latest);
      asked.afterProgramCreate(current);
    };
    const schedule = () => {
      if (timer) sys.clearTimeout(timer);
      timer = sys.setTimeout(update);
    };
    for (const name of names) sys.watchFile(name, schedule, 250);
    update();
    current.getProgram(); // while nobody waits for it yet
    const updateRootFileNames = (given) => {
      names = given;
      schedule();
    };
    const close = () => {
      for (const { close } of watched.values()) close();
    };
    return { close, updateRootFileNames };
  };
  return { ...ts, createWatchCompilerHost, createWatchProgram };
}
