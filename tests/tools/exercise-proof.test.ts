// The proof of the exercises must itself fail where something is wrong.
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildExercises } from "../../tools/exercise-files.js";
import { proveExercises } from "../../tools/exercise-proof.js";
import { notebookText, repository } from "../../tools/notebook.js";
import { buildLibrary } from "../../tools/setup.mjs";

let root: string;
beforeAll(() => {
  buildLibrary();
  root = path.join(repository, "runs", `proof-${process.pid}`);
});
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));

const check = (name: string, rest: string) => `export const ${name}: Check<[number]> = {
  exercise: "00-t/1-t", id: "${name}", title: "${name}", hints: [], inputs: (random) => [random.integer(2, 50)], ${rest} };\n`;

function solution(cells: string[]): string {
  const code = cells.map((source, i) => ({
    cell_type: "code" as const,
    id: `c${i}`,
    metadata: {},
    source,
    outputs: [],
  }));
  return notebookText({ cells: code, metadata: {}, nbformat: 4, nbformat_minor: 5 });
}

/** Proves a chapter of one solution; returns what was reported, problems after a colon. */
async function prove(checks: string, cells: string[]): Promise<string[]> {
  const folder = path.join(root, "solutions", "00-t");
  fs.rmSync(folder, { recursive: true, force: true });
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "checks.ts"), `import type { Check } from "tslm/notebook";\n${checks}`);
  fs.writeFileSync(path.join(folder, "1-t.ipynb"), solution(cells));
  const lines: string[] = [];
  await proveExercises(root, buildExercises(root), (name, problem) =>
    lines.push(problem ? `${name}: ${problem}` : name),
  );
  return lines;
}

const IMPORT = 'import { check, todo } from "tslm/notebook";\nimport * as checks from "./checks";';
const answer = (solved: string, starter: string, name: string) =>
  `function f(x: number) {\n  //| solution\n  //| starter: ${starter}\n  ${solved}\n  //| end\n}\nawait check(checks.${name}, f);`;

test("all is proved where all is well", async () => {
  const good = check("good", 'expected: (x) => x + 1, mistakes: [{ says: "One too few.", makes: (x) => x }]');
  const lines = await prove(good, [IMPORT, answer("return x + 1;", "return todo();", "good")]);
  // Besides the mistake: nothing, 0, an empty list, the argument; and x − 1, x + 2, x + 0.
  expect(lines).toEqual([
    "00-t/1-t#good accepts the solution",
    "00-t/1-t#good rejects 5 wrong answers and 3 mutants",
    '00-t/1-t#good answers "not yet"',
  ]);
});

test("weak checks, wrong solutions and exercises that stop are found", async () => {
  const weak = check("weak", 'expected: () => 0, mistakes: [{ says: "Never seen.", makes: () => 0 }]');
  const unseen = check(
    "unseen",
    'expected: (x) => x, mistakes: [{ says: "A.", makes: (x) => x + 1 }, { says: "B.", makes: (x) => x + 1 }]',
  );
  const text = (
    await prove(weak + unseen, [
      IMPORT,
      answer("return 1;", "return 0;", "weak"),
      answer("return x;", 'return JSON.parse("{");', "unseen"),
      '//| solution\n//| starter: throw new Error("stops");\n//| end',
    ])
  ).join("\n");
  expect(text).toContain("#weak: mistake 1: the check lets it pass: Never seen.");
  expect(text).toContain("#weak: the check lets an answer that returns 0 pass");
  expect(text).toContain("#unseen: mistake 2: the check does not recognise it, but says: A.");
  expect(text).toContain("#weak: the check lets a mutant pass: 00-t/1-t#c1:4: 1 → 0");
  expect(text).toMatch(/weak accepts the solution: It gives 1, and should be 0/);
  expect(text).toMatch(/an untouched exercise must run to its end\ncell c3: [\s\S]*Error: stops/);
});
