import { display, escapeHtml } from "./display.js";

/** One row of a table: column name to value. */
export interface TableRow {
  [column: string]: string | number | boolean | bigint | null | undefined;
}

export interface TableOptions {
  /** A line above the table that says what it shows. */
  caption?: string;
}

/** A cell of a table as text: whole numbers with thin thousands, others to four significant digits. */
export function formatCell(value: TableRow[string]): string {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "∞");
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return groupDigits(String(value));
  if (size >= 1e7 || size < 1e-4)
    return value
      .toExponential(3)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  const digits = Math.max(0, 3 - Math.floor(Math.log10(size)));
  return groupDigits(value.toFixed(digits));
}

/** Thousands apart, from 10 000 on: a space that does not break. */
function groupDigits(text: string): string {
  const [whole, fraction] = text.split(".");
  const grouped = whole.replace("-", "").length < 5 ? whole : whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** Columns in order of first appearance, so that a row may leave some out. */
function columnsOf(rows: TableRow[]): string[] {
  return [...new Set(rows.flatMap((row) => Object.keys(row)))];
}

/** A column of numbers is set right-aligned. */
function isNumeric(rows: TableRow[], column: string): boolean {
  const values = rows.map((row) => row[column]).filter((value) => value !== null && value !== undefined);
  return values.length > 0 && values.every((value) => typeof value === "number" || typeof value === "bigint");
}

function htmlTable(rows: TableRow[], columns: string[], caption?: string): string {
  const line = "border:0;border-bottom:1px solid rgba(128,140,160,.35);";
  const align = new Map(columns.map((c) => [c, isNumeric(rows, c) ? "right" : "left"]));
  const cell = (tag: string, column: string, text: string, style = "") =>
    `<${tag} style="${line}padding:4px 14px;text-align:${align.get(column)};${style}">${escapeHtml(text)}</${tag}>`;
  const head = columns.map((c) => cell("th", c, c, "font-weight:600;border-bottom-width:2px;")).join("");
  const figures = "font-variant-numeric:tabular-nums;white-space:pre-wrap;";
  const body = rows.map(
    (row) => `<tr>${columns.map((c) => cell("td", c, formatCell(row[c]), figures)).join("")}</tr>`,
  );
  const title = caption
    ? `<caption style="caption-side:top;text-align:left;padding:4px 14px;font-weight:600;color:inherit">${escapeHtml(caption)}</caption>`
    : "";
  const style = "border-collapse:collapse;margin:8px 0;font-size:13px";
  return `<table style="${style}">${title}<thead><tr>${head}</tr></thead><tbody>${body.join("")}</tbody></table>`;
}

function markdownTable(rows: TableRow[], columns: string[], caption?: string): string {
  const text = (value: string) => value.replace(/\|/g, "\\|").replace(/\n/g, "⏎");
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  const rule = columns.map((c) => (isNumeric(rows, c) ? "---:" : "---"));
  const body = rows.map((row) => line(columns.map((c) => text(formatCell(row[c])))));
  return [...(caption ? [`**${caption}**`, ""] : []), line(columns.map(text)), line(rule), ...body].join(
    "\n",
  );
}

function plainTable(rows: TableRow[], columns: string[], caption?: string): string {
  const grid = [columns, ...rows.map((row) => columns.map((c) => formatCell(row[c]).replace(/\n/g, "⏎")))];
  const widths = columns.map((_, i) => Math.max(...grid.map((row) => [...row[i]].length)));
  const pad = (text: string, i: number) => {
    const space = " ".repeat(widths[i] - [...text].length);
    return isNumeric(rows, columns[i]) ? space + text : text + space;
  };
  const lines = grid.map((row) => row.map(pad).join("  ").trimEnd());
  lines.splice(1, 0, widths.map((w) => "─".repeat(w)).join("  "));
  return [...(caption ? [caption] : []), ...lines].join("\n");
}

/** Shows rows as a table. Numbers are rounded to four significant digits and set right-aligned. */
export function table(rows: TableRow[], options: TableOptions = {}): void {
  const columns = columnsOf(rows);
  display({
    "text/html": htmlTable(rows, columns, options.caption),
    "text/markdown": markdownTable(rows, columns, options.caption),
    "text/plain": plainTable(rows, columns, options.caption),
  });
}
