// The files of the chat page, as the server hands them out at `/`.
import fs from "node:fs";
import path from "node:path";
import { libraryFolder } from "../../bin/machine.mjs";

/** A file of the page: where the server has it, its media type, and its bytes. */
export interface PageFile {
  path: string;
  type: string;
  bytes: Uint8Array<ArrayBuffer>;
}

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** What a browser may do with the page: load what this server has and talk to this server, nothing else. */
export const pageHeaders = {
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
};

/** All files of the page; its HTML is at `/`. */
export function pageFiles(): PageFile[] {
  const folder = path.join(libraryFolder, "chat-page");
  return fs.readdirSync(folder).map((name) => ({
    path: name === "index.html" ? "/" : `/${name}`,
    type: TYPES[path.extname(name)],
    bytes: new Uint8Array(fs.readFileSync(path.join(folder, name))),
  }));
}
