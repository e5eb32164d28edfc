// The routes of the server, and what holds for all of them: keys, sizes, errors, the log.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Context, Hono } from "hono";
import { isRecord, shown } from "../../formats/keys.js";
import { chat } from "./chat.js";
import { completions } from "./completions.js";
import { ApiError, asApiError, badRequest } from "./errors.js";
import type { Service } from "./service.js";
import { type RequestRecord, logLine, requestRecord } from "./log.js";
import type { Reply } from "./reply.js";
import { type Send, streamed } from "./stream.js";

/** How the server treats whoever asks. */
export interface AppSettings {
  /** Whether only this machine reaches the server. */
  isLocal: boolean;
  /** The key that requests must bring, where there is one. */
  apiKey?: string;
  /** Takes the lines of the request log. */
  log(line: string): void;
}

/** The server's routes, and how it comes to its end. */
export interface App {
  fetch(request: Request): Response | Promise<Response>;
  /** Refuses new requests from now on, and waits for those that run. */
  drain(): Promise<void>;
}

type Environment = { Variables: { record: RequestRecord } };
type Endpoint = (
  service: Service,
  body: unknown,
  record: RequestRecord,
  signal: AbortSignal,
) => Promise<Reply>;

/** The files of the chat page, in the package. */
const pageFolder = fileURLToPath(new URL("../../../chat-page/", import.meta.url));
const pageTypes: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".json": "application/json",
};

/** What a browser may do with the page: load what this server has and talk to this server, nothing else. */
const pageHeaders = {
  "cache-control": "no-cache",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** A file of the chat page. */
function pageFile(name: string): Response | undefined {
  const file = path.join(pageFolder, name);
  const type = pageTypes[path.extname(file)];
  if (!type || !/^[\w.-]+$/.test(name) || !fs.existsSync(file)) return undefined;
  return new Response(fs.readFileSync(file), { headers: { ...pageHeaders, "content-type": type } });
}

/** Whether two texts are the same, in a time that does not tell where they differ. */
function isSame(a: string, b: string): boolean {
  const [first, second] = [a, b].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(first, second);
}

/** Throws unless the header brings the key. */
function checkKey(header = "", key: string): void {
  const [, given = ""] = /^Bearer\s+(.+)$/i.exec(header) ?? [];
  if (isSame(given, key)) return;
  const none = "This server wants a key: send the header `Authorization: Bearer KEY`.";
  throw new ApiError(401, given === "" ? none : "The key is not this server's.", { code: "invalid_api_key" });
}

/** Names of this machine, and addresses. */
const ownName = /^(localhost|[\d.]+|\[[\da-f:.]+\])(:\d+)?$/i;

/**
 * Throws where a page of somebody else's reaches a server that only this machine should: its own name leads here, so that the browser
 * takes the two for one.
 */
function checkName(name = "localhost"): void {
  if (!ownName.test(name))
    throw new ApiError(
      403,
      `This server answers to localhost and to addresses, not to ${shown(name)}: start it with --host or --api-key.`,
      { code: "foreign_host" },
    );
}

/** The error of a server that cannot answer just now. */
function unavailable(message: string, code: string): ApiError {
  return new ApiError(503, message, { code, retryAfter: 1 });
}

/** The word for an error in the log. */
function errorWord(error: unknown): string {
  const { facts, status } = asApiError(error);
  return facts.code ?? (status < 500 ? "invalid_request" : "server_error");
}

/** The JSON in a body of at most `most` bytes. */
async function jsonBody(request: Request, most: number): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\b/i.test(type))
    throw new ApiError(
      415,
      `The body must be JSON, with content-type application/json, not ${JSON.stringify(type)}.`,
    );
  const tooLong = () =>
    new ApiError(413, `The body is longer than ${most} bytes, the most that this server takes.`, {
      code: "body_too_large",
    });
  if (Number(request.headers.get("content-length") ?? 0) > most) throw tooLong();
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const piece of (request.body ?? []) as AsyncIterable<Uint8Array>) {
      length += piece.length;
      if (length > most) throw tooLong();
      pieces.push(piece);
    }
  } catch (error) {
    throw error instanceof ApiError ? error : badRequest("The body did not come to its end.");
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(pieces));
  } catch {
    throw badRequest("The body is not UTF-8 text.");
  }
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (error) {
    throw badRequest(`The body is not JSON: ${(error as Error).message.replace(/\s+/g, " ")}`);
  }
  checkDepth(body);
  return body;
}

/** How deep a body may go: far below where anything that walks through it runs out of stack. */
const deepest = 128;

/** Throws for a value that is nested too deeply. */
function checkDepth(value: unknown): void {
  let level = typeof value === "object" && value !== null ? [value as unknown] : [];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > deepest) throw badRequest(`The body is nested deeper than ${deepest} levels.`);
    const inner: unknown[] = [];
    for (const holder of level)
      for (const held of Object.values(holder as object))
        if (typeof held === "object" && held !== null) inner.push(held);
    level = inner;
  }
}

/** A signal that aborts when the client goes or its time is over. */
function requestSignal(request: Request, seconds: number) {
  const controller = new AbortController();
  const gone = () => controller.abort(new ApiError(499, "The client has gone.", { code: "client_gone" }));
  const late = `The request took longer than ${seconds} s, the most that this server gives one.`;
  const timer = setTimeout(
    () => controller.abort(new ApiError(504, late, { code: "timeout" })),
    Math.min(seconds * 1000, 2 ** 31 - 1),
  );
  request.signal.addEventListener("abort", gone);
  const end = () => {
    clearTimeout(timer);
    request.signal.removeEventListener("abort", gone);
  };
  return { signal: controller.signal, gone, end };
}

/** Throws where a body names a model that is not this server's. */
function checkModel(body: unknown, name: string): void {
  const model = isRecord(body) ? body.model : undefined;
  if (typeof model === "string" && model !== name)
    throw new ApiError(404, `The model ${shown(model)} is not here: this server has ${shown(name)}.`, {
      param: "model",
      code: "model_not_found",
    });
}

/** Runs an endpoint and gives its response; `ended` is called when the answer has ended, which a stream's does later. */
async function respond(
  service: Service,
  endpoint: Endpoint,
  request: Request,
  record: RequestRecord,
  ended: (isStream: boolean) => void,
): Promise<Response> {
  const { signal, gone, end } = requestSignal(request, service.limits.seconds);
  const close = (isAnswered: boolean) => {
    end();
    if (isAnswered) service.metrics.wholeRequest.observe((performance.now() - record.begin) / 1000);
    ended(record.stream);
  };
  try {
    const body = await jsonBody(request, service.limits.body);
    checkModel(body, service.name);
    const reply = await endpoint(service, body, record, signal);
    if ("stream" in reply) return await streamed((send) => watched(reply.stream, send), gone);
    const response = Response.json(await reply.whole());
    close(true);
    return response;
  } catch (error) {
    if (!record.stream) close(false);
    throw error;
  }

  async function watched(stream: (send: Send) => Promise<void>, send: Send): Promise<void> {
    try {
      await stream((data) => {
        record.stream = true;
        return send(data);
      });
    } catch (error) {
      record.error = errorWord(error);
      throw error;
    } finally {
      if (record.stream) close(record.error === undefined);
    }
  }
}

/** The application: every route, with what surrounds it. */
export function openApp(service: Service, { isLocal, apiKey, log }: AppSettings): App {
  const app = new Hono<Environment>();
  let running = 0;
  let isEnding = false;
  let drained = () => {};
  const finish = (record: RequestRecord, status: number) => log(logLine(record, status));

  app.use(async (c, next) => {
    const record = requestRecord(randomBytes(12).toString("hex"), c.req.method, c.req.path);
    c.set("record", record);
    await next();
    if (!record.stream) finish(record, c.res.status);
  });
  app.use("/v1/*", async (c, next) => {
    if (apiKey !== undefined) checkKey(c.req.header("authorization"), apiKey);
    else if (isLocal) checkName(c.req.header("host"));
    await next();
  });

  const answering = (prefix: string, endpoint: Endpoint) => (c: Context<Environment>) => {
    const record = c.get("record");
    record.id = `${prefix}-${record.id}`;
    if (isEnding) throw unavailable("The server is ending: it takes no new requests.", "ending");
    running++;
    return respond(service, endpoint, c.req.raw, record, (isStream) => {
      running--;
      if (isStream) finish(record, 200);
      if (running === 0) drained();
    });
  };
  const { name, created, contextLength, template, host, metrics } = service;
  const model = {
    id: name,
    object: "model",
    created,
    owned_by: "tslm",
    max_model_len: contextLength,
    chat: template !== undefined,
  };
  const routes: Record<
    string,
    { method: "GET" | "POST"; answer: (c: Context<Environment>) => Response | Promise<Response> }
  > = {
    "/v1/chat/completions": { method: "POST", answer: answering("chatcmpl", chat) },
    "/v1/completions": { method: "POST", answer: answering("cmpl", completions) },
    "/v1/models": { method: "GET", answer: () => Response.json({ object: "list", data: [model] }) },
    "/v1/models/:id{.+}": {
      method: "GET",
      answer: (c) => {
        checkModel({ model: c.req.param("id") }, name);
        return Response.json(model);
      },
    },
    "/health": {
      method: "GET",
      answer: () => {
        if (isEnding || !host.isReady())
          throw unavailable("The model is not open.", isEnding ? "ending" : "opening");
        return Response.json({ status: "ok" });
      },
    },
    "/metrics": {
      method: "GET",
      answer: async () =>
        new Response(await metrics.text(), { headers: { "content-type": metrics.contentType } }),
    },
    "/": { method: "GET", answer: () => pageFile("index.html") ?? Response.json(model) },
  };
  for (const [path, { method, answer }] of Object.entries(routes)) {
    app.on(method, path, answer);
    app.all(path, (c) => {
      throw new ApiError(405, `${c.req.path} takes ${method}, not ${c.req.method}.`, { allow: method });
    });
  }
  app.get("/:file", (c, next) => pageFile(c.req.param("file")) ?? next());
  app.notFound((c) => {
    const here = Object.keys(routes).filter((path) => !path.includes(":"));
    throw new ApiError(404, `There is nothing at ${c.req.path}: this server has ${here.join(", ")}.`);
  });
  app.onError((error, c) => {
    const answer = asApiError(error);
    const record = c.get("record");
    if (record) record.error = errorWord(error);
    return answer.response();
  });
  return {
    fetch: (request) => app.fetch(request),
    async drain() {
      isEnding = true;
      if (running === 0) return;
      await new Promise<void>((resolve) => {
        drained = resolve;
      });
    },
  };
}
