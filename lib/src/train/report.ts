// Extracted from chapters/04-training/a-the-trainers-desk.ipynb: edit it there, or here and run `npm run backport`.
import { type RunFigure, curveOf, imbalanceFigure, loadFigure, lossFigure, metricFigure } from "./figures.js";
import type { ExpertLoad, Metrics } from "./monitor.js";

//| 04-training/a-the-trainers-desk.ipynb#summary
/** What a report says about a run, besides its metrics. */
export interface RunSummary {
  name: string;
  config: object;
  model: object;
  parameters: { total: number; active: number };
  /** Floating-point operations that a token takes: they turn tokens a second into arithmetic a second. */
  flopsPerToken?: number;
  /** Tokens and bytes of the validation split, or of that to learn from: they turn nats a token into bits a byte. */
  valSize: { tokens: number; bytes: number };
  /** Bits a byte that no model can get below, where the text's distribution is known. */
  entropy?: number;
  environment: Record<string, string>;
  samples: { step: number; text: string }[];
}

/** All figures of a run. */
export function runFigures(metrics: Metrics[], loads: ExpertLoad[], summary: RunSummary): RunFigure[] {
  const figures = [
    lossFigure(metrics, summary.valSize, summary.entropy),
    metricFigure(metrics, "grad_norm", "Norm of the gradient", "norm"),
    metricFigure(metrics, "lr", "Learning rate", "rate"),
    metricFigure(metrics, "tokens_per_second", "Speed", "tokens per second"),
  ];
  const hasExperts = loads.some(({ shares }) => shares.length > 0);
  return hasExperts ? [...figures, loadFigure(loads), imbalanceFigure(loads)] : figures;
}

/** The last line of a report: validation loss, and the entropy where it is known. */
export function verdict(metrics: Metrics[], entropy?: number): string {
  const bits = curveOf(metrics, "val_bpb").at(-1)?.[1];
  const reached =
    bits === undefined ? "validation not measured" : `validation ${bits.toFixed(4)} bits per byte`;
  return entropy === undefined ? reached : `${reached}, entropy ${entropy.toFixed(4)}`;
}

//| 04-training/a-the-trainers-desk.ipynb#summary-rows
/** A number as people write it; a word where there is none. */
export function countText(value?: number): string {
  return value === undefined ? "none" : value.toLocaleString("en");
}

/** How fast a run was: the median rate, and the arithmetic that the model needs at that rate. */
export function speedRows(metrics: Metrics[], flopsPerToken?: number): [string, string][] {
  const speeds = curveOf(metrics, "tokens_per_second")
    .map(([, speed]) => speed)
    .sort((a, b) => a - b);
  const speed = speeds[Math.floor(speeds.length / 2)];
  const rows: [string, string][] = [["tokens a second", countText(speed)]];
  if (speed === undefined || flopsPerToken === undefined) return rows;
  const gigaflops = (flopsPerToken * speed) / 1e9;
  return [
    ...rows,
    ["arithmetic", `${gigaflops.toPrecision(3)} GFLOP/s, ${countText(flopsPerToken)} a token`],
  ];
}

//| 04-training/a-the-trainers-desk.ipynb#summary-rows-2
/** What a report says in figures: a label and a value each. */
export function summaryRows(metrics: Metrics[], summary: RunSummary): [string, string][] {
  const last = metrics.at(-1);
  const measured = metrics.filter(({ val_loss }) => val_loss !== undefined);
  const best = measured.reduce<Metrics | undefined>(
    (a, b) => (a && a.val_loss! <= b.val_loss! ? a : b),
    undefined,
  );
  const { total, active } = summary.parameters;
  const size = total === active ? "" : `, of which a token meets ${countText(active)}`;
  const nats = (loss?: number) => (loss === undefined ? "none" : `${loss.toFixed(4)} nats a token`);
  return [
    ["steps", countText(last?.step)],
    ["tokens seen", countText(last?.tokens)],
    ["parameters", countText(total) + size],
    ["training loss", nats(last?.train_loss)],
    ["validation loss", nats(measured.at(-1)?.val_loss)],
    ["lowest validation", best ? `${best.val_loss!.toFixed(4)} at step ${best.step}` : "none"],
    ...speedRows(metrics, summary.flopsPerToken),
    ...Object.entries(summary.environment),
  ];
}

//| 04-training/a-the-trainers-desk.ipynb#report-text
/** The report as plain text; the verdict is its last line. */
export function reportText(metrics: Metrics[], summary: RunSummary): string {
  const rows = summaryRows(metrics, summary);
  const width = Math.max(...rows.map(([label]) => label.length));
  const samples = summary.samples
    .slice(-1)
    .flatMap(({ step, text }) => ["", `Sample at step ${step}:`, text.trim()]);
  const lines = [
    `Training run ${summary.name}`,
    "",
    ...rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`),
    ...samples,
    "",
    verdict(metrics, summary.entropy),
  ];
  return `${lines.join("\n")}\n`;
}

//| 04-training/a-the-trainers-desk.ipynb#report-style
/** How a report looks. */
export const reportStyle = `
:root { color-scheme: light; --ink: #1b2433; --soft: #4b5768; --line: #e3e8f0; --accent: #2f6fde; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: #f5f7fb; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 10px; }
.verdict { font-size: 19px; color: var(--accent); margin: 0 0 20px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 16px; }
.figures > div, table, pre { background: #fff; border: 1px solid var(--line); border-radius: 8px; }
.figures > div:first-child { grid-column: 1 / -1; }
table { border-collapse: collapse; } td { padding: 5px 14px; border-top: 1px solid var(--line); }
tr:first-child td { border-top: 0; } td:first-child { color: var(--soft); }
pre { padding: 14px 16px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }`;

//| 04-training/a-the-trainers-desk.ipynb#report-script
/** Draws the figures of the page; it is put into the page as text. */
export const reportScript = `
const font = { family: "system-ui, sans-serif", size: 12, color: "#4b5768" };
const blues = [[0, "#f7f9fd"], [0.3, "#9dbdf0"], [0.6, "#2f6fde"], [1, "#122f6d"]];
const axis = (given) => ({ ...given, title: { text: given.title }, gridcolor: "#e9edf3", automargin: true });
const legend = { orientation: "h", y: 1.02, x: 1, xanchor: "right", yanchor: "bottom" };
const colorway = ["#2f6fde", "#f0803c", "#16917a", "#c2418c", "#7b5cd6", "#d29c06"];
const margin = { t: 46, r: 18, b: 10, l: 10 };
figures.forEach(({ data, layout }, i) => {
  const title = { text: layout.title, x: 0.02, font: { size: 15 } };
  const axes = { xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) };
  const coloured = data.map((trace) => (trace.type === "heatmap" ? { ...trace, colorscale: blues } : trace));
  const whole = { ...layout, ...axes, title, font, legend, colorway, margin, height: i === 0 ? 400 : 300 };
  Plotly.newPlot("figure-" + i, coloured, whole, { responsive: true, displayModeBar: false });
});`;

//| 04-training/a-the-trainers-desk.ipynb#report-html
/** Text as HTML shows it literally. */
export function htmlText(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

/** JSON to stand in a script element, which `</script`, but also `<!--<script`, in a text of it would derange. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

/** The report as one HTML page that needs no network: `plotly` is the source of plotly.js. */
export function reportHtml(
  metrics: Metrics[],
  loads: ExpertLoad[],
  summary: RunSummary,
  plotly: string,
): string {
  const figures = runFigures(metrics, loads, summary);
  const rows = summaryRows(metrics, summary).map(
    ([a, b]) => `<tr><td>${htmlText(a)}</td><td>${htmlText(b)}</td></tr>`,
  );
  const samples = summary.samples.map(
    ({ step, text }) => `<p>Step ${step}</p><pre>${htmlText(text.trim())}</pre>`,
  );
  const json = (value: object) => `<pre>${htmlText(JSON.stringify(value, null, 2))}</pre>`;
  // Of code that is our own, only "</" could end its element early.
  const script = (source: string) => `<script>${source.replaceAll("</", "<\\/")}</script>`;
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${htmlText(summary.name)}</title><style>${reportStyle}</style></head><body><main>
<h1>Training run ${htmlText(summary.name)}</h1><p class="verdict">${verdict(metrics, summary.entropy)}</p>
<div class="figures">${figures.map((_, i) => `<div id="figure-${i}"></div>`).join("")}</div>
<h2>The run</h2><table>${rows.join("")}</table>
<h2>Samples</h2>${samples.join("\n") || "<p>None were taken.</p>"}
<h2>Configuration</h2>${json(summary.config)}<h2>Model</h2>${json(summary.model)}
</main>${script(plotly)}${script(`const figures = ${scriptJson(figures)};${reportScript}`)}</body></html>
`;
}
