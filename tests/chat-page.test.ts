// The chat page: how it takes texts and tokens apart, and the whole of it in a real browser, against the real server.
import fs from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { type Browser, type Locator, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findBrowser, patience } from "../lib/bin/machine.mjs";
import * as text from "../lib/chat-page/text.js";
import { type Serving, startServer } from "./serving.ts";
import { testFolder } from "./tslm.ts";

interface Part {
  start: number;
  end: number;
  tag: string;
  place?: number;
}
interface Block {
  kind: string;
  language?: string;
  start: number;
  end: number;
  parts: Part[];
}
interface Place {
  start: number;
  end: number;
  tokens: number[];
}
const textBlocks: (source: string) => Block[] = text.textBlocks;
const tokenPlaces: (source: string, bytes: number[][]) => Place[] = text.tokenPlaces;
const cutAtTokens: (parts: Part[], places: Place[]) => Part[] = text.cutAtTokens;

/** A text's blocks as `kind: part|part`, with the tags of parts that have one. */
const drawn = (source: string) =>
  textBlocks(source).map(({ kind, parts }) => {
    const words = parts.map(
      ({ start, end, tag }) => (tag === "span" ? "" : `${tag} `) + source.slice(start, end),
    );
    return `${kind}: ${words.join("|")}`;
  });

test("a little Markdown becomes blocks; what only looks like it stays as it is", () => {
  expect(drawn("Hi **you**,\nall `of` *you*")).toEqual([
    "paragraph: Hi |strong you|,\nall |code of| |em you",
  ]);
  expect(drawn("## Title\ntext\n\n- one\n- *two*")).toEqual([
    "heading: Title",
    "paragraph: text",
    "item: one",
    "item: em two",
  ]);
  expect(drawn("```ts\nconst a = `*b*`;\n\n# c\n```\nend")).toEqual([
    "code: const a = `*b*`;\n\n# c",
    "paragraph: end",
  ]);
  expect(drawn("```\nnot closed")).toEqual(["code: not closed"]);
  expect(drawn("2 * 3 * 4, a ** b, `open, ** and *")).toEqual([
    "paragraph: 2 * 3 * 4, a ** b, `open, ** and *",
  ]);
  expect(drawn("")).toEqual([]);
  expect(drawn("<think>\nHm, *2*.\nOr 3?\n</think>\n\nTwo.")).toEqual([
    "thought: Hm, |em 2|.\nOr 3?",
    "paragraph: Two.",
  ]);
});

const markdownish = fc.string({
  unit: fc.constantFrom("a", "b", " ", "\n", "*", "`", "#", "-", "🦊", "é"),
  maxLength: 60,
});

test("whatever the text, parts are in order and within it, and nothing but marks is lost", () => {
  fc.assert(
    fc.property(markdownish, (source) => {
      let at = 0;
      for (const { parts } of textBlocks(source))
        for (const { start, end } of parts) {
          expect(start).toBeGreaterThanOrEqual(at);
          expect(source.slice(at, start)).toMatch(/^[\s*`#\-ab]*$/); // a and b: the language of a fence
          at = end;
        }
      expect(at).toBeLessThanOrEqual(source.length);
    }),
    { seed: 13 },
  );
});

test("tokens find their places, also those that share a character, and parts are cut where they begin", () => {
  const cuts = fc.array(fc.nat({ max: 120 }), { maxLength: 12 });
  fc.assert(
    fc.property(markdownish, cuts, (source, at) => {
      const bytes = [...new TextEncoder().encode(source)];
      const ends = [...new Set([...at.filter((cut) => cut > 0 && cut < bytes.length), bytes.length])].sort(
        (a, b) => a - b,
      );
      const tokens = ends.map((end, i) => bytes.slice(i === 0 ? 0 : ends[i - 1], end));
      const places = tokenPlaces(source, tokens);
      if (source !== "" && !source.startsWith(" "))
        expect(places.flatMap((place) => place.tokens)).toEqual([...tokens.keys()]);
      expect(places.map(({ start, end }) => source.slice(start, end)).join("")).toBe(source);
      const parts = textBlocks(source).flatMap((block) => block.parts);
      const cut = cutAtTokens(parts, places);
      expect(cut.map(({ start, end }) => source.slice(start, end)).join("")).toBe(
        parts.map(({ start, end }) => source.slice(start, end)).join(""),
      );
      for (const { start, end, place } of cut) {
        expect(start).toBeLessThan(end);
        expect(places[place!].start <= start && end <= places[place!].end).toBe(true);
      }
    }),
    { seed: 13 },
  );
});

test("tokens of another text have no places; a cut-off text has those of its tokens that it shows", () => {
  const bytes = (...tokens: string[]) => tokens.map((token) => [...new TextEncoder().encode(token)]);
  expect(tokenPlaces("One", bytes("Two"))).toEqual([]);
  expect(tokenPlaces("One two", bytes("<mark>", "One", "<mark>", " two"))).toEqual([
    { start: 0, end: 3, tokens: [1] },
    { start: 3, end: 7, tokens: [3] },
  ]);
  expect(tokenPlaces("One", bytes(" One"))).toEqual([{ start: 0, end: 3, tokens: [0] }]);
  expect(tokenPlaces("One t", bytes("One", " two", "!"))).toEqual([
    { start: 0, end: 3, tokens: [0] },
    { start: 3, end: 5, tokens: [1] },
  ]);
});

const browserProgram = findBrowser();
if (!browserProgram)
  console.log(
    "The test of the chat page in a browser is skipped: there is no Chromium or Chrome on the PATH.",
  );

const stories = path.join(import.meta.dirname, "fixtures", "stories260k");
const { at } = testFolder("chat-page");

/** How long to wait for the page, in milliseconds. */
const long = 1000 * patience(120);

describe.skipIf(!browserProgram)("in a browser", () => {
  let server: Serving;
  let browser: Browser;
  const problems: string[] = [];

  beforeAll(async () => {
    // The model tells stories; its template makes a story of a conversation.
    fs.writeFileSync(
      at("chat.jinja"),
      "{{ bos_token }}{% for message in messages %}{{ message.content }} {% endfor %}",
    );
    server = await startServer(
      "--model",
      stories,
      "--chat-template",
      at("chat.jinja"),
      "--api-key",
      "secret",
    );
    browser = await chromium.launch({
      executablePath: browserProgram,
      args: [
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
      chromiumSandbox: process.getuid?.() !== 0,
    });
  });

  afterAll(async () => {
    await browser?.close();
    await server?.end();
  });

  /** Opens the page in a window of its own, watches what it does, and brings the key. */
  async function openPage(options: Parameters<Browser["newPage"]>[0] = {}): Promise<Page> {
    const page = await browser.newPage({ viewport: { width: 1100, height: 800 }, ...options });
    page.setDefaultTimeout(long);
    page.on("console", (message) => {
      if (message.type() === "error" && !message.text().includes("401")) problems.push(message.text());
    });
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("request", (request) => {
      if (!request.url().startsWith(server.url)) problems.push(request.url());
    });
    await page.goto(server.url);
    await page.getByText("This server wants an API key.").waitFor();
    await page.keyboard.type("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("This API key is not the server's.").waitFor();
    await page.keyboard.type("secret");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Ask something" }).waitFor();
    return page;
  }

  const prompt = (page: Page) => page.getByRole("textbox", { name: "Message" });
  const answerOf = (page: Page) => page.locator("li.assistant .body").last();
  const done = (page: Page) => page.getByRole("button", { name: "Regenerate" }).waitFor();

  /** Sets a field of the settings. */
  async function set(page: Page, values: Record<string, string>): Promise<void> {
    await page.getByRole("button", { name: "Settings" }).click();
    for (const [name, value] of Object.entries(values)) await page.locator(`[name=${name}]`).fill(value);
    await page.getByRole("button", { name: "Close" }).click();
  }

  /** Keeps a picture of the page where TSLM_SCREENSHOTS names a folder. */
  async function screenshot(page: Page, name: string): Promise<void> {
    const kept = process.env.TSLM_SCREENSHOTS;
    if (kept) await page.screenshot({ path: path.join(kept, `${name}.png`) });
  }

  /** The alternatives on screen: the text and percentage of each. */
  async function alternatives(page: Page): Promise<{ rows: string[]; chosen: string }> {
    const tip = page.getByRole("tooltip");
    await tip.waitFor();
    const cells = (rows: Locator) =>
      rows.evaluateAll((all) => all.map((row) => row.querySelector("code")!.textContent!));
    const [chosen] = await cells(tip.locator("li.chosen"));
    return { rows: await cells(tip.locator("li")), chosen };
  }

  test("an answer streams, each of its tokens shows what else could have come, and the same seed gives it again", async () => {
    const page = await openPage();
    await set(page, { max_tokens: "40", seed: "3", temperature: "0.8" });
    await prompt(page).fill("Tom had a red ball.");
    await page.keyboard.press("Enter");
    await done(page);
    const told = await answerOf(page).textContent();
    expect(told!.length).toBeGreaterThan(60);
    await page.getByText("40 tokens ·").waitFor();
    await page.getByText("seed 3 · cut off at the limit of tokens").waitFor();
    expect(await page.locator("#context-use").textContent()).toMatch(/^\d+ of 512 tokens$/);
    const token = answerOf(page).locator(".token").nth(4);
    await token.hover();
    const { rows, chosen } = await alternatives(page);
    expect(rows.length).toBeGreaterThanOrEqual(5);
    expect(chosen.replaceAll("␣", " ").trim()).toBe((await token.textContent())!.trim());
    await screenshot(page, "chat-hover");
    await page.getByRole("button", { name: "Regenerate" }).click();
    await done(page);
    expect(await answerOf(page).textContent()).toBe(told);
    await page.reload();
    await done(page);
    expect(await answerOf(page).textContent()).toBe(told);
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("textbox", { name: "Edit the message" }).fill("Lily had a cat.");
    await page.keyboard.press("Enter");
    await done(page);
    expect(await answerOf(page).textContent()).not.toBe(told);
    expect(await page.locator("li").count()).toBe(2);
    await page.getByRole("button", { name: "New chat" }).click();
    expect(await page.locator("li").count()).toBe(0);
    await page.close();
  });

  test("with the keyboard alone: send, stop with Esc, walk through the tokens, ask for more", async () => {
    const page = await openPage({ colorScheme: "dark" });
    await page.keyboard.type("One day, ");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("a fox");
    await page.keyboard.press("Enter");
    expect(await page.locator("li.user .body").textContent()).toBe("One day, \na fox");
    await answerOf(page).locator(".token").nth(3).waitFor();
    await page.keyboard.press("Escape");
    await done(page);
    await page.getByText(/· stopped$/).waitFor();
    expect(await page.evaluate("document.activeElement.id")).toBe("prompt");
    while (!(await page.evaluate("document.activeElement.matches('.token')")))
      await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Home");
    const first = await alternatives(page);
    await page.keyboard.press("ArrowRight");
    const second = await alternatives(page);
    expect(second).not.toEqual(first);
    const style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
    expect(style).toBe("solid");
    await screenshot(page, "chat-dark");
    await page.keyboard.press("Escape");
    expect(await page.getByRole("tooltip").isHidden()).toBe(true);
    const background = "getComputedStyle(document.body).backgroundColor";
    const dark = await page.evaluate(background);
    await page.emulateMedia({ colorScheme: "light" });
    expect(await page.evaluate(background)).not.toBe(dark);
    await page.close();
    expect(await server.metric("num_requests_running")).toBe(0);
    expect(await server.metric("kv_cache_usage_perc")).toBe(0);
  });

  test("what goes wrong is said in a sentence, with a way out; a narrow window has room for all", async () => {
    const page = await openPage({ viewport: { width: 360, height: 640 } });
    await set(page, { max_tokens: "5" });
    const answers = [
      { status: 429, headers: { "Retry-After": "2" }, json: { error: { message: "The queue is full." } } },
      {
        status: 200,
        contentType: "text/event-stream",
        body: 'data: {"choices":[{"delta":{"content":"Half"}}]}\n\n',
      },
      {
        status: 200,
        contentType: "text/event-stream",
        body: 'data: {"error":{"message":"The GPU was lost.","code":"device_lost"}}\n\n',
      },
    ];
    await page.route("**/v1/chat/completions", (route) => {
      const next = answers.shift();
      return next ? route.fulfill(next) : route.continue();
    });
    problems.length = 0;
    await prompt(page).fill("Once");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("alert").getByText("The server is busy: try again in 2 s.").waitFor();
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("The answer broke off.").waitFor();
    expect(await answerOf(page).textContent()).toBe("Half");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("The GPU was lost.").waitFor();
    await screenshot(page, "chat-narrow");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("5 tokens ·").waitFor();
    expect(await page.getByRole("alert").textContent()).toBe("");
    problems.splice(0, problems.length, ...problems.filter((problem) => !problem.includes("429")));
    await set(page, { max_tokens: "" });
    await prompt(page).fill("long ".repeat(900));
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByRole("button", { name: "New chat" }).waitFor();
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(360);
    problems.splice(0, problems.length, ...problems.filter((problem) => !problem.includes("400")));
    await page.close();
  });

  test("nothing went to the console as an error, and nothing was asked of anybody else", () => {
    expect(problems).toEqual([]);
  });
});
