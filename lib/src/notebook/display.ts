/**
 * How a cell's output reaches the reader: as a Jupyter display message when a tslab kernel runs the
 * program, as text on the console everywhere else (a plain Node program, a vitest run).
 */
import { randomBytes } from "node:crypto";
import { createRequire } from "node:module";

/** One output in several forms, by MIME type. The reader's front end picks the richest that it knows. */
export interface MimeBundle {
  [mime: string]: unknown;
}

/** An output on the page that can be replaced in place. */
export interface Display {
  update(data: MimeBundle): void;
}

type DisplayWriter = (message: object, update?: boolean) => void;

interface KernelModule {
  lastWriteDisplayData: DisplayWriter | null;
}

let kernelModule: KernelModule | undefined;

/**
 * The kernel's own instance of tslab's `dist/jupyter`, if this process is a kernel. It is looked up among
 * the modules already loaded, because a second copy (another node_modules) would not know the socket.
 */
function findKernel(): KernelModule | undefined {
  if (kernelModule) return kernelModule;
  const loaded = createRequire(import.meta.url).cache;
  for (const [path, module] of Object.entries(loaded)) {
    if (/[\\/]tslab[\\/]dist[\\/]jupyter\.js$/.test(path) && module?.exports?.lastWriteDisplayData) {
      kernelModule = module.exports as KernelModule;
      return kernelModule;
    }
  }
  return undefined;
}

/** True when a notebook kernel runs this program, so that pictures and tables can be shown. */
export function inNotebook(): boolean {
  return Boolean(findKernel()?.lastWriteDisplayData);
}

/**
 * Sends one output. `data` should always hold `text/plain`: it is what a console shows.
 * Returns a handle whose `update` replaces this output in place (on a console it does nothing, so that a
 * plain program prints an output once).
 */
export function display(data: MimeBundle): Display {
  const write = findKernel()?.lastWriteDisplayData;
  if (!write) {
    console.log(String(data["text/plain"] ?? ""));
    return { update: () => {} };
  }
  const transient = { display_id: randomBytes(8).toString("hex") };
  const send = (bundle: MimeBundle, update: boolean) =>
    write({ data: bundle, metadata: {}, transient }, update);
  send(data, false);
  return { update: (bundle) => send(bundle, true) };
}

/** `text` with the characters that mean something in HTML and SVG replaced. */
export function escapeHtml(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}
