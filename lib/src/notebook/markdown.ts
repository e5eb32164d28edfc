import { marked } from "marked";
import { display } from "./display.js";

/** Shows text written in Markdown, so that a cell can put computed numbers into a sentence. */
export function markdown(text: string): void {
  const html = marked.parse(text, { async: false }) as string;
  display({ "text/html": html, "text/markdown": text, "text/plain": text });
}
