import fs from "node:fs";
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import path from "node:path";
import type { Duplex } from "node:stream";
import { createAdaptorServer } from "@hono/node-server";
import { type Command, Option } from "commander";
import type { CacheFormat } from "../infer/cache.js";
import { openEngine } from "../infer/engine.js";
import type { ModelDtype } from "../model/weights.js";
import { readText } from "./files.js";
import { readChatTemplate } from "./model-folder.js";
import { openModel, readGenerationConfig } from "./model.js";
import { checkTokenizerFits, openTokenizer } from "./open-tokenizer.js";
import { byteSize, dtypeOption, numberBetween, wholeNumber } from "./options.js";
import { examples, finish, stopSignals } from "./run.js";
import { type App, openApp } from "./serve/app.js";
import { ApiError } from "./serve/errors.js";
import { hostEngine } from "./serve/host.js";
import { type Service, openService } from "./serve/service.js";

/** The options of `tslm serve`. */
interface ServeOptions {
  model: string;
  host: string;
  port: number;
  name?: string;
  apiKey?: string;
  chatTemplate?: string;
  dtype: ModelDtype;
  cache: CacheFormat;
  log?: string;
  maxBody: number;
  maxSequences: number;
  maxQueue: number;
  maxTokens?: number;
  maxSeconds: number;
}

/** `tslm serve`: answer requests over HTTP, as OpenAI's clients send them. */
export function configure(command: Command): void {
  command
    .requiredOption("--model <dir>", "a folder with config.json, weights and tokenizer.json, or a .gguf file")
    .option("--port <n>", "where to listen; 0: any port that is free", wholeNumber(0, 65535), 8080)
    .option("--host <address>", "the address to listen at: 0.0.0.0 lets other machines in", "127.0.0.1")
    .option("--name <name>", "what the model is called in requests (default: the name of its folder or file)")
    .option(
      "--api-key <key>",
      "requests must bring this key (default: TSLM_API_KEY in the environment, else none)",
    )
    .option(
      "--chat-template <file>",
      "write conversations down by this Jinja template, not by the model's own",
    )
    .addOption(dtypeOption())
    .addOption(
      new Option("--cache <format>", "how keys and values are kept; int8 takes a quarter of the memory")
        .choices(["f32", "int8"])
        .default("f32"),
    )
    .option("--max-body <size>", "the longest body of a request", byteSize, 8e6)
    .option("--max-sequences <n>", "answers that are written at once", wholeNumber(1), 32)
    .option("--max-queue <n>", "answers that may wait for their turn", wholeNumber(0), 256)
    .option(
      "--max-tokens <n>",
      "new tokens that a request may ask for (default: what the context holds)",
      wholeNumber(1),
    )
    .option("--max-seconds <s>", "how long a request may take", numberBetween(0.1, 1e6), 600)
    .option("--log <file>", "append the request log to this file (default: stderr)")
    .addHelpText(
      "after",
      "\nPOST /v1/chat/completions and /v1/completions, GET /v1/models, /health and /metrics (Prometheus); a page to chat at /." +
        "\nThe same request with the same seed gives the same answer, whoever else is being served. Ctrl-C finishes what runs; twice ends at once.",
    )
    .action(run);
  examples(
    command,
    "npx tslm serve --model runs/default/model",
    "npx tslm serve --model model.gguf --host 0.0.0.0 --port 8000 --api-key secret",
  );
}

/** The name of a model by its place. */
function nameOf(model: string): string {
  return path.basename(path.resolve(model)).replace(/\.gguf$/, "");
}

/** Where lines of the request log go. */
function openLog(file: string | undefined): (line: string) => void {
  if (file === undefined) return (line) => void process.stderr.write(`${line}\n`);
  const stream = fs.createWriteStream(file, { flags: "a" });
  stream.on("error", (error) => process.stderr.write(`${file}: ${error.message}\n`));
  return (line) => void stream.write(`${line}\n`);
}

/** Opens the model that the options name, and gives what answers are made with. */
export async function openModelService(options: ServeOptions): Promise<Service> {
  const { model: folder, dtype, cache, name = nameOf(folder), maxSequences } = options;
  const tokenizer = openTokenizer(folder);
  const template = options.chatTemplate ? readText(options.chatTemplate) : readChatTemplate(folder);
  const generation = readGenerationConfig(folder);
  const first = await openModel(folder, dtype);
  const { config } = first;
  checkTokenizerFits(folder, tokenizer, config);
  let model: typeof first | undefined = first;
  const host = hostEngine(
    async () => {
      const opened = model ?? (await openModel(folder, dtype));
      model = undefined; // when its device is lost, so are its weights
      return openEngine(opened, { maxSequences, cache });
    },
    (text) => process.stderr.write(`${folder}: ${text}\n`),
  );
  await host.engine();
  const limits = {
    body: options.maxBody,
    running: maxSequences,
    queue: options.maxQueue,
    tokens: options.maxTokens ?? Number.POSITIVE_INFINITY,
    seconds: options.maxSeconds,
  };
  return openService({ name, config, tokenizer, template, generation, host, limits });
}

/** Answers what is no request of HTTP, or comes too slowly, with an error like all others. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Duplex): void {
  const isAnswered = (socket as Socket).bytesWritten > 0;
  if (isAnswered || !socket.writable) return void socket.destroy();
  const known: Record<string, [status: number, reason: string]> = {
    HPE_HEADER_OVERFLOW: [431, "The headers are too long."],
    ERR_HTTP_REQUEST_TIMEOUT: [408, "The request did not come in time."],
  };
  const [status, reason] = known[error.code ?? ""] ?? [400, "This is no request of HTTP."];
  const body = JSON.stringify(new ApiError(status, reason));
  const head = `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\ncontent-type: application/json\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`);
}

/** Listens, and gives the server and its address. */
async function listen({ fetch }: App, { host, port }: Pick<ServeOptions, "host" | "port">) {
  const server = createAdaptorServer({ fetch, overrideGlobalObjects: false }) as http.Server;
  server.on("clientError", refuseConnection);
  server.keepAliveTimeout = 65_000; // longer than clients keep a connection, so that none is cut as a request comes
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const reason =
        error.code === "EADDRINUSE"
          ? `Port ${port} is taken: choose another with --port.`
          : `${host}:${port} cannot be listened at: ${error.message}.`;
      reject(new Error(reason));
    });
    server.listen(port, host, resolve);
  });
  const shownHost = host.includes(":") ? `[${host}]` : host;
  return { server, url: `http://${shownHost}:${(server.address() as AddressInfo).port}` };
}

/** A server that answers. */
export interface RunningServer {
  url: string;
  /** Takes no new requests, waits for the answers that are being written, and frees everything. */
  close(): Promise<void>;
}

/** Serves what a service answers, until it is closed. */
export async function startServer(
  service: Service,
  options: Pick<ServeOptions, "host" | "port" | "apiKey"> & { log(line: string): void },
): Promise<RunningServer> {
  const isLocal = ["127.0.0.1", "localhost", "::1"].includes(options.host);
  const app = openApp(service, { ...options, isLocal });
  const { server, url } = await listen(app, options);
  return {
    url,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await app.drain();
      // Answers are written by now, but may still be on their way; a client that does not read is not waited for.
      const idle = setInterval(() => server.closeIdleConnections(), 20);
      const late = setTimeout(() => server.closeAllConnections(), 5000);
      await closed;
      clearInterval(idle);
      clearTimeout(late);
      await service.host.close();
    },
  };
}

/** Serves until a signal comes, then finishes what runs; a second signal ends at once. */
async function run(options: ServeOptions): Promise<void> {
  const apiKey = options.apiKey ?? (process.env.TSLM_API_KEY || undefined);
  const service = await openModelService(options);
  const server = await startServer(service, { ...options, apiKey, log: openLog(options.log) });
  process.stdout.write(`Serving ${service.name} at ${server.url} (API at /v1). Ctrl-C ends it.\n`);
  await signalled();
  process.stderr.write("Finishing the answers that are being written; once more ends at once.\n");
  await server.close();
}

/** Waits for a signal to end; the next one ends the process. A server that a program forked ends with that program. */
function signalled(): Promise<void> {
  return new Promise((resolve) => {
    process.once("disconnect", resolve);
    let isSecond = false;
    for (const signal of Object.keys(stopSignals) as (keyof typeof stopSignals)[])
      process.on(signal, () => {
        if (isSecond) void finish(stopSignals[signal]);
        isSecond = true;
        resolve();
      });
  });
}
