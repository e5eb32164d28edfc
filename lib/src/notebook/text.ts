/** Words in a static picture: how wide they are, and plotly's few tags turned into SVG. */
import { escapeHtml } from "./display.js";

/** The book's typeface: what the reader's system has. */
export const FONT =
  "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif";

/** About how many pixels a line of text takes (average widths of a sans-serif; there is no font here to ask). */
export function textWidth(text: string, size: number): number {
  let em = 0;
  for (const char of plainText(text)) {
    if (/[ijlI.,:;'|!()[\]ftr ]/.test(char)) em += 0.36;
    else if (/[mwMW@%—…]/.test(char)) em += 0.92;
    else if (/[A-Z]/.test(char)) em += 0.7;
    else em += char.charCodeAt(0) > 0x2e7f ? 1 : 0.62;
  }
  return em * size;
}

/** The text without plotly's tags. */
export function plainText(text: string): string {
  return text.replace(/<br\s*\/?>/gi, " ").replace(/<\/?(b|i|sub|sup)>/gi, "");
}

/** The lines of a text: plotly breaks them at `<br>`. */
export function textLines(text: string): string[] {
  return text.split(/<br\s*\/?>|\n/i);
}

const STYLES: Record<string, string> = {
  b: 'font-weight="600"',
  i: 'font-style="italic"',
  sub: 'baseline-shift="sub" font-size="75%"',
  sup: 'baseline-shift="super" font-size="75%"',
};

/** One line of text as SVG content; `<b> <i> <sub> <sup>` become spans, everything else is escaped. */
export function svgLine(line: string): string {
  return line
    .split(/(<\/?(?:b|i|sub|sup)>)/i)
    .map((part) => {
      const tag = /^<(\/?)(b|i|sub|sup)>$/i.exec(part);
      if (!tag) return escapeHtml(part);
      return tag[1] ? "</tspan>" : `<tspan ${STYLES[tag[2].toLowerCase()]}>`;
    })
    .join("");
}

export interface TextStyle {
  size?: number;
  color?: string;
  anchor?: "start" | "middle" | "end";
  weight?: number;
  /** Degrees, clockwise around the text's own position. */
  rotate?: number;
  /** White around the letters, for words that lie over lines. */
  halo?: boolean;
}

/** A text whose lines are centred vertically on `y`. */
export function svgText(text: string, x: number, y: number, style: TextStyle = {}): string {
  const { size = 12, color = "#4b5768", anchor = "start", weight, rotate, halo } = style;
  const lines = textLines(text);
  const spin = rotate ? ` transform="rotate(${rotate} ${round(x)} ${round(y)})"` : "";
  const bold = weight ? ` font-weight="${weight}"` : "";
  const around = halo ? ' stroke="#fff" stroke-width="3.5" stroke-linejoin="round" paint-order="stroke"' : "";
  const attributes = `text-anchor="${anchor}" font-size="${size}" fill="${color}"${bold}${around}${spin}`;
  const top = y + size * 0.35 - ((lines.length - 1) * size * 1.25) / 2;
  if (lines.length === 1)
    return `<text x="${round(x)}" y="${round(top)}" ${attributes}>${svgLine(text)}</text>`;
  const spans = lines.map((line, i) => {
    return `<tspan x="${round(x)}" y="${round(top + i * size * 1.25)}">${svgLine(line)}</tspan>`;
  });
  return `<text ${attributes}>${spans.join("")}</text>`;
}

/** A coordinate to a tenth of a pixel: as fine as eyes need, as short as files like. */
export function round(value: number): number {
  return Math.round(value * 10) / 10;
}
