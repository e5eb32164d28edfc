// Requests that are wrong in every way we can think of: the server says so with a 4xx and an error object, never fails itself,
// and has all blocks of its cache back at the end. TSLM_FUZZ says how many requests to send in all.
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Serving, startServer } from "./serving.ts";
import { testFolder } from "./tslm.ts";

const stories = path.join(import.meta.dirname, "fixtures", "stories260k");
const { at } = testFolder("fuzz");

/** Requests of one property: there are ten, and a few fixed ones besides. */
const numRuns = Math.ceil(Number(process.env.TSLM_FUZZ ?? 200) / 10);
const plan = { numRuns, seed: 2026 };

let server: Serving;
let sent = 0;
let told: string;

beforeAll(async () => {
  fs.writeFileSync(
    at("chat.jinja"),
    "{{ bos_token }}{% for message in messages %}{{ message.content }} {% endfor %}",
  );
  server = await startServer("--model", stories, "--chat-template", at("chat.jinja"), "--max-body", "300KB");
  told = await story();
});

afterAll(() => server?.end());

/** A text that the model tells when all is well. */
async function story(): Promise<string> {
  const reply = await server.ask("/v1/completions", {
    prompt: "Once upon a time",
    max_tokens: 8,
    temperature: 0,
  });
  return ((await reply.json()) as { choices: [{ text: string }] }).choices[0].text;
}

const endpoints = ["/v1/chat/completions", "/v1/completions"] as const;
type Endpoint = (typeof endpoints)[number];

/** A small request that is right. */
const right = (endpoint: Endpoint): Record<string, unknown> => ({
  max_tokens: 1,
  ...(endpoint === "/v1/completions" ? { prompt: "One" } : { messages: [{ role: "user", content: "One" }] }),
});

/** Expects a 4xx whose body is an error object, and gives that object. */
async function expectRefusal(reply: Response, what: unknown) {
  const body = await reply.text();
  const shown = `${reply.status} ${body.slice(0, 300)} for ${JSON.stringify(what)?.slice(0, 300)}`;
  expect(reply.status >= 400 && reply.status < 500, shown).toBe(true);
  const { error } = JSON.parse(body) as {
    error: { message: string; param: string; type: string; code: string };
  };
  expect(typeof error.message === "string" && error.message.length > 10, shown).toBe(true);
  expect(error.message, shown).not.toMatch(/\n|\bat \w+ \(|\[object/);
  expect(error, shown).toMatchObject({ type: expect.any(String) });
  expect(Object.keys(error).sort(), shown).toEqual(["code", "message", "param", "type"]);
  return error;
}

/** Expects an answer, or a refusal; nothing in between. */
async function expectEither(reply: Response, what: unknown): Promise<void> {
  if (reply.status !== 200) return void (await expectRefusal(reply, what));
  await reply.text();
}

function post(
  endpoint: string,
  body: string | Uint8Array | object,
  headers: Record<string, string> = {},
): Promise<Response> {
  sent++;
  const isPlain = Object.getPrototypeOf(body) === Object.prototype;
  return server.ask(endpoint, undefined, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: isPlain || Array.isArray(body) ? JSON.stringify(body) : (body as string | Uint8Array),
  });
}

/** Values of JSON by their kind. */
const kinds = {
  text: fc.string({ maxLength: 12 }),
  number: fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(1e308, -1e308, 2 ** 53, -1, 0.5, 1e-320),
  ),
  boolean: fc.boolean(),
  list: fc.array(fc.oneof(fc.constant(null), fc.boolean(), fc.constant({})), { minLength: 1, maxLength: 3 }),
  object: fc.dictionary(fc.string({ maxLength: 5 }), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 3 }),
};
type Kind = keyof typeof kinds;

/** What each field may be: any other kind is wrong. */
const shared: Record<string, Kind[]> = {
  model: ["text"],
  max_tokens: ["number"],
  temperature: ["number"],
  top_p: ["number"],
  top_k: ["number"],
  min_p: ["number"],
  presence_penalty: ["number"],
  frequency_penalty: ["number"],
  repetition_penalty: ["number"],
  logit_bias: ["object"],
  seed: ["number"],
  stop: ["text", "list"],
  n: ["number"],
  stream: ["boolean"],
  stream_options: ["object"],
  user: ["text"],
};
const fields: Record<Endpoint, Record<string, Kind[]>> = {
  "/v1/chat/completions": {
    ...shared,
    messages: [],
    max_completion_tokens: ["number"],
    logprobs: ["boolean"],
    top_logprobs: ["number"],
    response_format: [],
    tools: [],
    tool_choice: ["text"],
    parallel_tool_calls: ["boolean"],
  },
  "/v1/completions": { ...shared, prompt: ["text"], logprobs: ["number"], echo: ["boolean"] },
};

/** An endpoint, one of its fields, and a value of a wrong kind for it. */
const wrongKind = fc
  .constantFrom(...endpoints)
  .chain((endpoint) => fc.tuple(fc.constant(endpoint), fc.constantFrom(...Object.keys(fields[endpoint]))))
  .chain(([endpoint, field]) => {
    const allowed = fields[endpoint][field];
    const wrong = (Object.keys(kinds) as Kind[]).filter((kind) => !allowed.includes(kind));
    return fc.record({
      endpoint: fc.constant(endpoint),
      field: fc.constant(field),
      value: fc.oneof(...wrong.map((kind) => kinds[kind] as fc.Arbitrary<unknown>)),
    });
  });

test("a value of a wrong type is refused with the name of its field", async () => {
  await fc.assert(
    fc.asyncProperty(wrongKind, async ({ endpoint, field, value }) => {
      const error = await expectRefusal(await post(endpoint, { ...right(endpoint), [field]: value }), {
        field,
        value,
      });
      expect(error.param, `${field}: ${JSON.stringify(value)}`).toMatch(new RegExp(`^${field}\\b`));
      expect(error.type).toBe("invalid_request_error");
    }),
    plan,
  );
});

test("any values in any fields: an answer, or a refusal", async () => {
  const body = fc.constantFrom(...endpoints).chain((endpoint) =>
    fc.tuple(
      fc.constant(endpoint),
      fc.record(
        Object.fromEntries(
          Object.keys(fields[endpoint])
            .filter((field) => !["max_tokens", "max_completion_tokens", "n"].includes(field))
            .map((field) => [
              field,
              fc.oneof(
                kinds.text,
                kinds.number,
                kinds.boolean,
                kinds.object,
                fc.constant(null),
                fc.jsonValue(),
              ),
            ]),
        ),
        { requiredKeys: [] },
      ),
    ),
  );
  await fc.assert(
    fc.asyncProperty(body, async ([endpoint, given]) => {
      await expectEither(await post(endpoint, { ...right(endpoint), ...given }), given);
    }),
    plan,
  );
});

/** Values that are right for their fields, up to the ends of their ranges. */
const fitting = {
  temperature: fc.constantFrom(0, 1e-9, 0.7, 1, 2),
  top_p: fc.constantFrom(0, 1e-12, 0.5, 1),
  top_k: fc.constantFrom(-1, 0, 1, 40, 2 ** 31, Number.MAX_SAFE_INTEGER),
  min_p: fc.constantFrom(0, 0.1, 1),
  presence_penalty: fc.constantFrom(-2, 0, 2),
  frequency_penalty: fc.constantFrom(-2, 0, 2),
  repetition_penalty: fc.constantFrom(0.01, 1, 1.3, 100),
  logit_bias: fc.dictionary(
    fc.integer({ min: 0, max: 511 }).map(String),
    fc.integer({ min: -100, max: 100 }),
    { maxKeys: 5 },
  ),
  seed: fc.constantFrom(0, -1, 2 ** 32, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER),
  stop: fc.oneof(fc.constantFrom("", " ", "."), fc.array(fc.string({ maxLength: 3 }), { maxLength: 4 })),
  n: fc.constantFrom(1, 2, 3),
  stream: fc.boolean(),
  max_tokens: fc.constantFrom(1, 3, 100000, Number.MAX_SAFE_INTEGER).map((count) => (count > 3 ? 3 : count)),
};

test("right values at the ends of their ranges never fail the server", async () => {
  const request = fc.tuple(
    fc.constantFrom(...endpoints),
    fc.record(fitting, { requiredKeys: [] }),
    fc.boolean(),
  );
  await fc.assert(
    fc.asyncProperty(request, async ([endpoint, given, withLogprobs]) => {
      const isChat = endpoint === "/v1/chat/completions";
      const logprobs = isChat ? { logprobs: true, top_logprobs: 3 } : { logprobs: 3 };
      const body = { ...right(endpoint), ...given, ...(withLogprobs && logprobs) };
      const reply = await post(endpoint, body);
      const answer = await reply.text();
      expect(reply.status, `${answer.slice(0, 300)} for ${JSON.stringify(body)}`).toBe(200);
      expect(answer, JSON.stringify(body)).not.toContain('"error":{');
    }),
    plan,
  );
});

test("messages, tools and schemas of any shape", async () => {
  const value = fc.jsonValue({ maxDepth: 3 });
  const odd = fc.oneof(
    fc.record({
      messages: fc.array(
        fc.record(
          {
            role: fc.oneof(fc.constantFrom("user", "assistant", "tool"), value),
            content: value,
            tool_calls: value,
          },
          { requiredKeys: [] },
        ),
        { maxLength: 3 },
      ),
    }),
    fc.record({
      tools: fc.array(
        fc.record({
          type: fc.oneof(fc.constant("function"), value),
          function: fc.oneof(
            fc.record({ name: fc.oneof(fc.constant("f"), value), parameters: value }),
            value,
          ),
        }),
        { maxLength: 2 },
      ),
      tool_choice: fc.oneof(fc.constantFrom("auto", "none", "required"), value),
    }),
    fc.record({
      response_format: fc.oneof(
        fc.record({
          type: fc.constant("json_schema"),
          json_schema: fc.record({
            name: value,
            schema: fc.oneof(
              value,
              fc.record(
                { type: value, properties: value, required: value, items: value, enum: value, $ref: value },
                { requiredKeys: [] },
              ),
            ),
          }),
        }),
        value,
      ),
    }),
  );
  await fc.assert(
    fc.asyncProperty(odd, async (given) => {
      await expectEither(await post(endpoints[0], { ...right(endpoints[0]), ...given }), given);
    }),
    plan,
  );
});

test("a body that is no JSON object is refused", async () => {
  const notObject = fc.oneof(
    fc
      .jsonValue()
      .filter((value) => typeof value !== "object" || value === null || Array.isArray(value))
      .map((value) => JSON.stringify(value)),
    fc.constantFrom(
      "",
      "{",
      '{"prompt":',
      "NaN",
      "undefined",
      "{'prompt': 'a'}",
      '{"prompt":"a",}',
      "\0",
      '{"a":1}{"b":2}',
      "[".repeat(100_000),
    ),
    fc.string().filter((text) => !/^\s*\{/.test(text)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...endpoints), notObject, async (endpoint, body) => {
      await expectRefusal(await post(endpoint, body), body);
    }),
    plan,
  );
});

test("a request that is cut off, or with bytes changed, is answered or refused", async () => {
  const damaged = fc.tuple(
    fc.constantFrom(...endpoints),
    fc.nat(),
    fc.option(fc.integer({ min: 0, max: 255 })),
  );
  await fc.assert(
    fc.asyncProperty(damaged, async ([endpoint, where, byte]) => {
      const body = Buffer.from(JSON.stringify({ ...right(endpoint), user: "é🦊" }));
      const place = where % body.length;
      if (byte !== null) body[place] = byte;
      await expectEither(
        await post(endpoint, byte === null ? body.subarray(0, place) : body),
        body.toString(),
      );
    }),
    plan,
  );
});

test("bytes that are not UTF-8 are refused", async () => {
  const broken = fc.constantFrom(
    [0xff],
    [0xc3],
    [0xe2, 0x82],
    [0xf0, 0x9f, 0xa6],
    [0xc0, 0x80],
    [0xed, 0xa0, 0x80],
    [0x80],
  );
  await fc.assert(
    fc.asyncProperty(broken, fc.constantFrom(...endpoints), async (bytes, endpoint) => {
      const [before, after] = JSON.stringify({ ...right(endpoint), user: "HERE" }).split("HERE");
      const body = Buffer.concat([Buffer.from(before), Buffer.from(bytes), Buffer.from(after)]);
      const { message } = await expectRefusal(await post(endpoint, body), bytes);
      expect(message).toContain("UTF-8");
    }),
    plan,
  );
});

test("other methods, paths and content types are refused", async () => {
  const odd = fc.oneof(
    fc.record({
      path: fc.constantFrom(...endpoints, "/v1/models", "/health", "/metrics", "/", "/chat.js"),
      method: fc.constantFrom("PUT", "DELETE", "PATCH", "OPTIONS"),
    }),
    fc.record({ path: fc.constantFrom(...endpoints), method: fc.constantFrom("GET") }),
    fc.record({
      path: fc.oneof(
        fc.constantFrom(
          "/v1",
          "/v1/",
          "/v1/chat",
          "/v2/completions",
          "/v1/completions/",
          "/v1/completions/x",
          "/..%2f..%2fetc%2fpasswd",
          "/%2e%2e/%2e%2e/package.json",
          "/%00",
          "/%ff",
          "//",
          "/package.json",
          "/v1/models/none",
          `/${"a".repeat(8000)}`,
        ),
        fc.webPath().map((text) => `/v1/none${text}`),
      ),
      method: fc.constantFrom("GET", "POST"),
    }),
    fc.record({
      path: fc.constantFrom(...endpoints),
      method: fc.constant("POST"),
      type: fc.constantFrom(
        "text/plain",
        "",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "json",
        "text/json;application/json",
      ),
    }),
  );
  await fc.assert(
    fc.asyncProperty(odd, async (given: { path: string; method: string; type?: string }) => {
      const { path: where, method, type = "application/json" } = given;
      sent++;
      const body = method === "GET" ? undefined : JSON.stringify(right("/v1/completions"));
      await expectRefusal(
        await server.ask(where, undefined, { method, headers: { "content-type": type }, body }),
        given,
      );
    }),
    plan,
  );
});

/** `depth` lists or objects within each other, as text. */
const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth);

test("deep and long requests are refused, or answered", async () => {
  const deep = fc.constantFrom(10, 1000, 20_000).chain((depth) =>
    fc.constantFrom(
      `"messages":[{"role":"user","content":${nested("[", "]", depth)}}]`,
      `"messages":[{"role":"user","content":"a","x":${nested('{"a":', "1}", depth).replace('{"a":1}', '{"a":{}}').replace("1}", "}")}}]`,
      `"logit_bias":{"1":${nested("[", "]", depth)}}`,
      `"stop":${nested("[", "]", depth)}`,
      `"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":${'{"items":'.repeat(depth)}{}${"}".repeat(depth)}}}`,
      `"tools":[{"type":"function","function":{"name":"f","parameters":${'{"not":'.repeat(depth)}{}${"}".repeat(depth)}}}]`,
      `"messages":[${Array(depth)
        .fill('{"role":"user","content":"a"}')
        .join(",")
        .slice(0, 290_000)
        .replace(/,?[^}]*$/, "")}]`,
      `"messages":[{"role":"user","content":"${"ab ".repeat(depth)}"}]`,
    ),
  );
  await fc.assert(
    fc.asyncProperty(deep, async (field) => {
      const base = JSON.stringify(right(endpoints[0])).slice(0, -1);
      await expectEither(await post(endpoints[0], `${base},${field}}`), field.slice(0, 100));
    }),
    { ...plan, numRuns: Math.ceil(numRuns / 2) },
  );
  await expectRefusal(await post(endpoints[1], { prompt: "a".repeat(400_000) }), "long");
  const long = await post(endpoints[1], { ...right(endpoints[1]), prompt: "word ".repeat(2000) });
  expect((await expectRefusal(long, "context")).code).toBe("context_length_exceeded");
});

/** Sends bytes over a connection of its own, and gives what comes back; leaves it after that, or after a while. */
function raw(bytes: string | Buffer, leave = false): Promise<string> {
  sent++;
  return new Promise((resolve) => {
    const { hostname, port } = new URL(server.url);
    let reply = "";
    const socket = net.connect(Number(port), hostname, () => {
      if (leave) socket.write(bytes, () => socket.destroy());
      else socket.end(bytes);
    });
    socket.setEncoding("utf8").on("data", (text) => {
      reply += text;
    });
    socket.on("error", () => {}).on("close", () => resolve(reply));
  });
}

test("what is hardly HTTP is refused, and clients that go in the middle leave nothing behind", async () => {
  const body = JSON.stringify({ prompt: "Once", max_tokens: 400, temperature: 0, stream: true });
  const head = (more: string[], method = "POST /v1/completions HTTP/1.1") =>
    `${[method, "Host: x", "Content-Type: application/json", ...more].join("\r\n")}\r\n\r\n`;
  const whole = head([`Content-Length: ${body.length}`]) + body;
  const wrong = fc.oneof(
    fc.constantFrom(
      "GARBAGE\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "POST /v1/completions HTTP/1.1\r\n\r\n",
      head(["Content-Length: abc"]),
      head(["Content-Length: -5"]) + body,
      head([`Content-Length: ${body.length}`, "Content-Length: 3"]) + body,
      head([`Content-Length: ${body.length}`, "Transfer-Encoding: chunked"]) + body,
      `${head(["Transfer-Encoding: chunked"])}zz\r\n${body}\r\n0\r\n\r\n`,
      head(["Transfer-Encoding: gzip"]) + body,
      head([`X-Long: ${"a".repeat(20_000)}`, "Content-Length: 0"]),
      head(["Content-Length: 0", "Bad Header"]),
      head(["Content-Length: 0", "X: a\0b"]),
      head(["Content-Length: 99999999999999999999"]) + body,
      head(["Content-Length: 400000"]),
    ),
    fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  );
  await fc.assert(
    fc.asyncProperty(wrong, async (bytes) => {
      const reply = await raw(bytes);
      if (reply === "") return; // closed without a word
      expect(reply, bytes.toString().slice(0, 200)).toMatch(/^HTTP\/1\.1 4\d\d /);
      const said = reply.slice(reply.indexOf("\r\n\r\n") + 4);
      if (!said.includes("{")) return; // Node's own answer where the header Host is missing
      expect(JSON.parse(said.slice(said.indexOf("{"), said.lastIndexOf("}") + 1)).error.message).toBeTruthy();
    }),
    plan,
  );
  const cut = fc.nat({ max: whole.length });
  await fc.assert(
    fc.asyncProperty(cut, async (length) => {
      await raw(whole.slice(0, length), true);
    }),
    { ...plan, numRuns: Math.ceil(numRuns / 2) },
  );
});

test("after all of that nothing runs, every block is free, nothing failed, and the model tells the same story", async () => {
  const metrics = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"];
  await expect
    .poll(async () => Promise.all(metrics.map(server.metric)), { timeout: 30_000 })
    .toEqual([0, 0, 0]);
  expect(await story()).toBe(told);
  const lines = server
    .said()
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("Warning: "));
  for (const line of lines) expect(JSON.parse(line).status, line).toBeLessThan(500);
  expect(server.said()).not.toMatch(/server_error|\n\s+at /);
  console.log(`${sent} malformed or odd requests were sent.`);
});

test("told to end while it answers, the server finishes what it writes, and then ends well", async () => {
  const last = server.ask("/v1/completions", { prompt: "One day", max_tokens: 150, temperature: 0 });
  const stream = server.ask("/v1/completions", {
    prompt: "Once",
    max_tokens: 120,
    temperature: 0,
    stream: true,
  });
  await expect.poll(() => server.metric("num_requests_running"), { timeout: 30_000, interval: 5 }).toBe(2);
  const ended = server.end();
  const answer = (await (await last).json()) as { usage: { completion_tokens: number } };
  expect(answer.usage.completion_tokens).toBe(150);
  expect(await (await stream).text()).toMatch(/"finish_reason":"length".*\n\ndata: \[DONE\]\n\n$/s);
  expect(await ended).toBe(0);
  await expect(server.ask("/health")).rejects.toThrow();
});
