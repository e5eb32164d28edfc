// Extracted from chapters/04-training/7-the-loop.ipynb: edit it there, or here and run `npm run backport`.
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import {
  type Metrics,
  expertLoad,
  imbalance,
  keptLines,
  loadFigure,
  noLines,
  openLog,
  readLines,
  reportHtml,
  reportText,
  scriptJson,
  thinned,
} from "../../src/train/monitor.js";

//| 04-training/7-the-loop.ipynb#lines-test
await test("a log goes on from where a checkpoint knows it, and damage before that is named", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-lines-"));
  const file = path.join(folder, "metrics.jsonl");
  const log = openLog(file, keptLines(file, noLines));
  expect(readLines(file)).toEqual([]);
  for (let step = 1; step <= 3; step++)
    log.append({ step, train_loss: 1 / step, tokens_per_second: Math.round(performance.now()) });
  const known = log.state();
  log.append({ step: 4 });
  fs.appendFileSync(file, '{"step":5,"train_lo');
  const again = openLog(file, keptLines(file, known));
  expect(again.state()).toEqual(known);
  expect(readLines<Metrics>(file).map(({ step }) => step)).toEqual([1, 2, 3]);
  const text = fs.readFileSync(file, "utf8");
  for (const bad of [text.slice(0, -4), text.replace("0.5", "0.6"), text.slice(text.indexOf("\n") + 1)]) {
    fs.writeFileSync(file, bad);
    expect(() => keptLines(file, known)).toThrow(`${file} is damaged`);
  }
  fs.rmSync(file); // who removes it does without
  expect(keptLines(file, known)).toEqual([]);
  fs.rmSync(folder, { recursive: true });
});

//| 04-training/7-the-loop.ipynb#load-test
await test("imbalance is 1 when all experts do the same, and their number when one does everything", () => {
  expect(imbalance([5, 5, 5, 5])).toBe(1);
  expect(imbalance(Uint32Array.of(0, 12, 0))).toBe(3);
  expect(imbalance([0, 0])).toBe(1);
  const report = { step: 3, loss: 1, norm: 1, learningRate: 1, tokens: 1, tokensPerSecond: 1 };
  expect(expertLoad({ ...report, load: [Uint32Array.of(1, 2), Uint32Array.of(3, 0)] })).toEqual({
    step: 3,
    shares: [
      [0.3333, 0.6667],
      [1, 0],
    ],
  });
});

//| 04-training/7-the-loop.ipynb#load-figure-test
await test("the heat map of the experts begins at none, so that white means a dead one", () => {
  const trace = (shares: number[][]) => loadFigure([{ step: 1, shares }]).data[0];
  expect(trace([[0.2, 0.8]])).toMatchObject({ zmin: 0, zmax: 0.8 });
  expect(trace([[0, 0]])).toMatchObject({ zmin: 0, zmax: 0.5 });
});

//| 04-training/7-the-loop.ipynb#report-test
await test("the report ends with its verdict, and its page loads nothing and shows no markup of others", () => {
  const lines = [
    { step: 1, train_loss: 3 },
    { step: 2, train_loss: 2, val_loss: 2.5, val_bpb: 1.25, tokens: 64 },
  ];
  const summary = {
    name: "a <run>",
    config: { steps: 2 },
    model: {},
    parameters: { total: 10, active: 5 },
    valSize: { tokens: 10, bytes: 30 },
    environment: { adapter: "none" },
    samples: [{ step: 2, text: "</script><script>alert(1)</script>" }],
  };
  expect(reportText(lines, summary).trimEnd().split("\n").pop()).toBe("validation 1.2500 bits per byte");
  const known = reportText(lines, { ...summary, entropy: 0.5 });
  expect(known.trimEnd().split("\n").pop()).toBe("validation 1.2500 bits per byte, entropy 0.5000");
  const page = reportHtml(lines, [], summary, "/* plotly </script> */");
  expect(page.match(/<script>/g)).toHaveLength(2);
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  expect(scriptJson({ name: "<!--<script>" })).toBe('{"name":"\\u003c!--\\u003cscript>"}');
  expect(page).toContain("a &#60;run&#62;");
  expect(page).not.toMatch(/(src|href)=/);
});

//| 04-training/7-the-loop.ipynb#thinned-test
await test("a thinned curve has few points and the same mean", () => {
  const curve = Array.from({ length: 1200 }, (_, i): [number, number] => [i + 1, Math.sin(i)]);
  const few = thinned(curve, 400);
  expect(few).toHaveLength(400);
  const mean = (pairs: [number, number][]) => pairs.reduce((sum, pair) => sum + pair[1], 0) / pairs.length;
  expect(mean(few)).toBeCloseTo(mean(curve), 12);
  expect(thinned(curve.slice(0, 5))).toEqual(curve.slice(0, 5));
});
