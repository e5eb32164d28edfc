// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { expect, test } from "vitest";
import { reportHtml, reportText, scriptJson } from "../../src/train/report.js";

//| 04-training/a-the-trainers-desk.ipynb#report-test
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
  const withEntropy = reportText(lines, { ...summary, entropy: 0.5 });
  expect(withEntropy.trimEnd().split("\n").pop()).toBe("validation 1.2500 bits per byte, entropy 0.5000");
  const page = reportHtml(lines, [], summary, "/* plotly </script> */");
  expect(page.match(/<script>/g)).toHaveLength(2);
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  expect(scriptJson({ name: "<!--<script>" })).toBe('{"name":"\\u003c!--\\u003cscript>"}');
  expect(page).toContain("a &#60;run&#62;");
  expect(page).not.toMatch(/(src|href)=/);
});
