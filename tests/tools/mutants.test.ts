import { expect, test } from "vitest";
import { chosenMutants, mutantProgram, mutantsOf } from "../../tools/mutants.js";

const cell = (lines: string) =>
  `function f(x: number) {\n  //| solution\n${lines}\n  //| end\n  return 1 + 1;\n}`;

test("only what is solved is changed, each time in one place", () => {
  const source = cell("  if (x < 3) x = Math.sqrt(x) + 1e-8;");
  const mutants = mutantsOf("c", source);
  const names = mutants.map(({ name }) => name);
  expect(names).toContain("c:3: x < 3 → x <= 3");
  expect(names).toContain("c:3: 3 → 4");
  expect(names).toContain("c:3: 1e-8 → 0");
  expect(names).toContain("c:3: Math.sqrt(x) + 1e-8 → Math.sqrt(x + 1e-8)");
  expect(new Set(names).size).toBe(names.length);
  for (const mutant of mutants) {
    expect(mutant.source).not.toBe(source);
    expect(mutant.source).toContain("return 1 + 1;");
  }
});

test("a kernel is changed as text; of its many mutants some are chosen, from all over it", () => {
  const line = "for (var j = 0u; j < rows; j++) { y[first + j] = inverseSqrt(x[first + j] + epsilon); }\n";
  const mutants = mutantsOf("k", `const k = \`\n//| solution\n${line.repeat(4)}//| end\n\`;`);
  expect(mutants.map(({ name }) => name)).toContain(
    "k:3: inverseSqrt(x[first + j] + epsilon) → (1.0 / (sqrt(x[first + j]) + epsilon))",
  );
  expect(mutants.some(({ source }) => /j < rows - |j >= rows/.test(source))).toBe(false);
  const chosen = chosenMutants(mutants);
  expect(chosen).toHaveLength(12);
  expect(new Set(chosen.map(({ name }) => name.split(":")[1]))).toEqual(new Set(["3", "4", "5", "6"]));
});

test("a mutant that goes round for ever can be ended", async () => {
  const mutants = mutantsOf("c", cell("  for (let i = 0; i < 9; i++) for (;;) { x += 1; break; }"));
  let steps = 0;
  const step = () => {
    if (++steps > 100) throw new Error("enough");
  };
  const program = mutantProgram([
    ...mutants,
    { name: "endless", kernel: false, source: "for (;;);\nawait check(f);" },
  ]);
  const runs: (() => Promise<void>)[] = new Function("step", `return ${program}`)(step);
  expect(runs).toHaveLength(mutants.length + 1);
  await expect(runs.at(-1)!()).rejects.toThrow("enough");
});
