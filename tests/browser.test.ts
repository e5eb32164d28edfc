// One notebook of the book in a real browser: its committed figure before anything runs, the live one after.
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findBrowser, findProgram, findPython, gpuEnvironment, patience } from "../lib/bin/machine.mjs";
import { kernelEnvironment, writeKernelSpec } from "../tools/kernelspec.mjs";
import { notebookNames, readNotebook, repository as root } from "../tools/notebook.js";
import { jupyterArguments, trustNotebooks } from "../tools/start.mjs";

const PLOTLY = "application/vnd.plotly.v1+json";

/** The first notebook, in reading order, with a figure among its outputs, and the cells up to that figure. */
function firstFigure(): { name: string; cells: number } | undefined {
  for (const name of notebookNames(root)) {
    const at = readNotebook(root, name).cells.findIndex(({ outputs = [] }) =>
      outputs.some((output) => output.output_type === "display_data" && PLOTLY in output.data),
    );
    if (at >= 0) return { name, cells: at + 1 };
  }
  return undefined;
}

/** How long to wait for the page, in milliseconds. */
const long = 1000 * patience(600);

const program = findProgram("jupyter-notebook");
const jupyter = program === undefined ? undefined : { kind: "notebook" as const, program };
const browserProgram = findBrowser();
const chosen = firstFigure();

/** What the classic notebook's page offers to scripts. */
interface ClassicPage {
  Jupyter?: {
    notebook: { kernel?: { is_connected(): boolean }; execute_cell_range(from: number, to: number): void };
  };
}

/** Why this test cannot run here, if it cannot. */
function missing(): string | undefined {
  if (!browserProgram) return "there is no Chromium or Chrome on the PATH";
  if (!jupyter) return "there is no Jupyter Notebook on the PATH";
  if (!chosen) return "no notebook has a saved figure";
  return undefined;
}

const reason = missing();
if (reason) console.log(`The browser test is skipped: ${reason}.`);

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address() as net.AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

async function answers(url: string, seconds: number): Promise<void> {
  for (let tries = 0; tries < seconds * 4; tries++) {
    const reply = await fetch(url).catch(() => undefined);
    if (reply?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error(`${url} did not answer within ${seconds} s`);
}

const CHROMIUM = [
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

describe.skipIf(reason !== undefined)("a notebook in a browser", () => {
  let server: ChildProcess;
  let browser: Browser;
  let page: Page;
  let folder: string;
  let scratch: string;
  const elsewhere: string[] = [];

  beforeAll(async () => {
    // A copy inside the clone: it finds the library as the original does, and saving it changes nothing.
    folder = path.join(root, "runs", `browser-${process.pid}`);
    scratch = fs.mkdtempSync(path.join(os.tmpdir(), "tslm-browser-"));
    fs.mkdirSync(folder, { recursive: true });
    fs.copyFileSync(path.join(root, "chapters", chosen!.name), path.join(folder, "book.ipynb"));
    writeKernelSpec(root);
    const data = {
      JUPYTER_DATA_DIR: path.join(scratch, "data"),
      JUPYTER_CONFIG_DIR: path.join(scratch, "config"),
    };
    const env = { ...kernelEnvironment(root, gpuEnvironment()), ...data };
    await trustNotebooks([path.join(folder, "book.ipynb")], findPython("nbformat", root), env);
    const port = await freePort();
    const open = [
      "--no-browser",
      "--ip=127.0.0.1",
      `--port=${port}`,
      "--NotebookApp.token=",
      "--NotebookApp.password=",
    ];
    server = spawn(jupyter!.program, jupyterArguments(jupyter!, open), { cwd: root, env, stdio: "ignore" });
    await answers(`http://127.0.0.1:${port}/api`, patience(300));
    const sandbox = process.getuid?.() !== 0;
    browser = await chromium.launch({
      executablePath: browserProgram,
      args: CHROMIUM,
      chromiumSandbox: sandbox,
    });
    page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    page.on("request", (request) => {
      const { protocol, hostname } = new URL(request.url());
      if (protocol.startsWith("http") && hostname !== "127.0.0.1") elsewhere.push(request.url());
    });
    await page.goto(`http://127.0.0.1:${port}/notebooks/runs/${path.basename(folder)}/book.ipynb`);
  });

  afterAll(async () => {
    await browser?.close();
    const ended = server && new Promise((resolve) => server.once("exit", resolve));
    server?.kill("SIGTERM");
    await ended;
    fs.rmSync(folder, { recursive: true, force: true });
    fs.rmSync(scratch, { recursive: true, force: true });
  });

  /** Keeps a picture of the page where TSLM_SCREENSHOTS names a folder. */
  async function screenshot(name: string): Promise<void> {
    const kept = process.env.TSLM_SCREENSHOTS;
    if (kept) await page.screenshot({ path: path.join(kept, `${name}.png`) });
  }

  test("the committed figure is on screen before anything runs", async () => {
    const picture = page.locator(".output_area .output_svg svg, .output_area svg[role=img]").first();
    await picture.waitFor({ state: "visible", timeout: long });
    await picture.scrollIntoViewIfNeeded();
    const box = await picture.boundingBox();
    expect(box!.width).toBeGreaterThan(300);
    expect(await picture.locator("text").count()).toBeGreaterThan(3);
    const marks = await picture.locator("g[clip-path] :is(rect, path, circle, image)").all();
    const sizes = await Promise.all(marks.map((mark) => mark.boundingBox()));
    expect(sizes.some((size) => size && size.width > 5 && size.height > 1)).toBe(true);
    expect(await page.locator(".js-plotly-plot").count()).toBe(0);
    await screenshot("static");
  });

  test("running the cells brings it to life, from the reader's own server alone", async () => {
    await page.waitForFunction(
      () => (globalThis as unknown as ClassicPage).Jupyter?.notebook?.kernel?.is_connected(),
      undefined,
      {
        timeout: long,
      },
    );
    await page.evaluate(
      (count) => (globalThis as unknown as ClassicPage).Jupyter!.notebook.execute_cell_range(0, count),
      chosen!.cells,
    );
    const live = page.locator(".js-plotly-plot .main-svg").first();
    await live.waitFor({ state: "visible", timeout: long });
    await live.scrollIntoViewIfNeeded();
    const box = await live.boundingBox();
    expect(box!.width).toBeGreaterThan(300);
    const output = page
      .locator(".output_area")
      .filter({ has: page.locator(".js-plotly-plot") })
      .first();
    expect(await output.locator("svg[role=img]").count()).toBe(0);
    await screenshot("live");
    expect(elsewhere).toEqual([]);
  });
});
