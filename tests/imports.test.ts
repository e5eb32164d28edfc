// The house has floors, and the book an order: what a module may import.
import fs from "node:fs";
import { builtinModules } from "node:module";
import path from "node:path";
import { expect, test } from "vitest";
import { importsOf, isLibrary } from "../tools/cells.js";
import { extractLibrary } from "../tools/library.js";
import { isAppendix, notebookNames, repository } from "../tools/notebook.js";
import { floors } from "../tools/rooms.js";

const source = path.join(repository, "lib/src");
const files = fs
  .readdirSync(source, { recursive: true, encoding: "utf8" })
  .map((file) => file.split(path.sep).join("/"))
  .filter((file) => file.endsWith(".ts") && file !== "index.ts");

/** Every module, such as `gpu/device`, with the specifiers it imports; those of the library as modules. */
const imports = new Map(
  files.map((file) => {
    const text = fs.readFileSync(path.join(source, file), "utf8");
    const specifiers = [...new Set(importsOf(text).map(({ from }) => from))];
    return [file.slice(0, -3), specifiers.map((from) => resolved(file, from))];
  }),
);

function resolved(file: string, from: string): string {
  if (!from.startsWith(".")) return from;
  return path.posix.join(path.posix.dirname(file), from).replace(/\.js$/, "");
}

const roomOf = (module: string): string => module.split("/")[0];
const floorOf = (module: string): number => floors.findIndex((rooms) => rooms.includes(roomOf(module)));
const inLibrary = (module: string): boolean => imports.has(module);
const edges = [...imports].flatMap(([from, targets]) =>
  targets.filter(inLibrary).map((to) => [from, to] as const),
);

/** The rooms that run in a browser page as they are. */
const pageRooms = ["gpu", "kernels", "tensor", "tokenizer", "formats", "model", "infer"];

test("every module is in a room, and every import of the library's own leads to a module", () => {
  expect([...imports.keys()].filter((module) => floorOf(module) < 0)).toEqual([]);
  const lost = [...imports].flatMap(([from, targets]) =>
    targets
      .filter((to) => floorOf(to) >= 0 && !inLibrary(to) && to.includes("/"))
      .map((to) => `${from} imports ${to}`),
  );
  expect(lost.filter((line) => !line.endsWith("/index"))).toEqual([]);
});

test("a room imports only from lower floors", () => {
  const wrong = edges.filter(([from, to]) => roomOf(from) !== roomOf(to) && floorOf(from) <= floorOf(to));
  expect(wrong.map(([from, to]) => `${from} imports ${to}`)).toEqual([]);
});

test("no module leads back to itself", () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (module: string, trail: string[]): void => {
    if (trail.includes(module)) circles.push([...trail.slice(trail.indexOf(module)), module].join(" -> "));
    if (done.has(module) || trail.includes(module)) return;
    for (const next of imports.get(module)!.filter(inLibrary)) visit(next, [...trail, module]);
    done.add(module);
  };
  for (const module of imports.keys()) visit(module, []);
  expect(circles).toEqual([]);
});

/** Imports of something that runs. A type may be named before the notebook that defines it: it only describes. */
const runningEdges = files.flatMap((file) => {
  const values = importsOf(fs.readFileSync(path.join(source, file), "utf8")).filter(
    ({ typeOnly }) => !typeOnly,
  );
  return [...new Set(values.map(({ from }) => resolved(file, from)))].map(
    (to) => [file.slice(0, -3), to] as const,
  );
});

test("a module imports only what an earlier notebook, its own or an appendix defines", () => {
  const order = notebookNames(repository);
  const exported = extractLibrary(repository).cells.filter(isLibrary);
  const owner = new Map(exported.map(({ module, notebook }) => [module, notebook]));
  const place = (module: string) => order.indexOf(owner.get(module)!);
  const wrong = runningEdges.filter(
    ([from, to]) =>
      owner.has(from) && owner.has(to) && place(from) < place(to) && !isAppendix(owner.get(to)!),
  );
  expect(runningEdges.length).toBeGreaterThan(files.length);
  expect(wrong.map(([from, to]) => `${from} imports ${to}, which a later notebook defines`)).toEqual([]);
});

test("rooms that run in a page import no Node built-in, and the index nothing but modules", () => {
  const builtIn = (name: string) => name.startsWith("node:") || builtinModules.includes(name);
  const wrong = [...imports].filter(([module]) => pageRooms.includes(roomOf(module)));
  expect(
    wrong.flatMap(([module, targets]) => targets.filter(builtIn).map((to) => `${module} imports ${to}`)),
  ).toEqual([]);
});

test("the library has at most 400 public names", () => {
  const exported = extractLibrary(repository).cells.filter(({ kind }) => kind === "export");
  expect(exported.flatMap(({ declares }) => declares).length).toBeLessThanOrEqual(400);
});
