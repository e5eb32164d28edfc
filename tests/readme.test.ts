// The README says what is so: its links lead somewhere, its commands exist, its dependencies are those we have.
import fs from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { buildProgram, withSubcommands } from "../lib/src/cli/main.ts";
import { notebookNames } from "../tools/notebook.ts";

const repository = path.dirname(import.meta.dirname);
const readme = fs.readFileSync(path.join(repository, "README.md"), "utf8");
const readJson = (file: string) => JSON.parse(fs.readFileSync(path.join(repository, file), "utf8"));

const links = [...readme.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link]) => link);
const broken = (link: string) => !fs.existsSync(path.join(repository, link));

test("every link within the repository leads to something", () => {
  expect(links.length).toBeGreaterThan(5);
  expect(links.filter(broken)).toEqual([]);
});

test("all notebooks are linked, chapter by chapter", () => {
  const notebooks = notebookNames(repository).map((name) => `chapters/${name}`);
  expect(links.filter((link) => link.endsWith(".ipynb"))).toEqual(notebooks);
});

test("every dependency is listed, and none that is not one", () => {
  const ours = ["package.json", "lib/package.json"]
    .map(readJson)
    .flatMap(({ dependencies = {}, devDependencies = {} }) =>
      Object.keys({ ...dependencies, ...devDependencies }),
    );
  const section = readme.slice(readme.indexOf("## Dependencies"), readme.indexOf("## Licence"));
  const rows = [...section.matchAll(/^\| (.+?) \| .+ \| .+ \|$/gm)].map(([, names]) => names);
  const listed = rows.flatMap((names) => names.split(", ")).filter((name) => name !== "package");
  expect(listed.sort()).toEqual(ours.sort());
});

const commands = withSubcommands(await buildProgram());

test("every command is described, and every npm script that is named exists", () => {
  const table = readme.slice(readme.indexOf("## Commands"), readme.indexOf("## How the repository"));
  for (const command of commands.filter(({ commands: below }) => below.length === 0))
    expect(table).toContain(command.name());
  const { scripts } = readJson("package.json");
  for (const [, name] of readme.matchAll(/npm run (\w+)/g)) expect(scripts).toHaveProperty(name);
});

const complete = commands.some((command) => command.name() === "generate");

test.runIf(complete)("what it shows of tslm has the commands and options that exist", () => {
  for (const [, line] of readme.matchAll(/^npx tslm (.+)$/gm)) {
    const [first, second] = line.split(" ");
    const command =
      commands.find((other) => other.parent?.name() === first && other.name() === second) ??
      commands.find((other) => other.parent?.name() === "tslm" && other.name() === first);
    expect(command, line).toBeDefined();
    const options = command?.options.map(({ long }) => long);
    for (const [option] of line.matchAll(/--[a-z-]+/g)) expect(options, line).toContain(option);
  }
});
