// `tslm serve` as its clients meet it: OpenAI's own and the AI SDK's, against a small model that tells stories.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { afterAll, describe, expect, test } from "vitest";
import { serveHere, writeServed } from "./serve-parts.ts";
import { testFolder } from "./tslm.ts";

const { at } = testFolder("serve");
const { url, lines, service, close } = await serveHere(writeServed(at("model")), {
  maxBody: 20_000,
  maxQueue: 100,
});
afterAll(close);

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const sdk = createOpenAICompatible({ baseURL: `${url}/v1`, name: "tslm", includeUsage: true });
const prompt = "Once upon a time, there was a little";
const greedy = { model: "stories", temperature: 0, max_tokens: 16 };
const ask = { ...greedy, prompt };
const chatAsk = { ...greedy, messages: [{ role: "user" as const, content: "Tell a story." }] };
const utf8 = new TextDecoder();

type Chunk = OpenAI.ChatCompletionChunk;

/** All chunks of a stream. */
async function chunksOf<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const chunks: T[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** The text that chunks give of one answer. */
const textOf = (chunks: Chunk[], index = 0) =>
  chunks
    .flatMap(({ choices }) => choices)
    .map((choice) => (choice.index === index ? (choice.delta.content ?? "") : ""))
    .join("");

/** The reason that an answer's last chunk gives. */
const finishOf = (chunks: Chunk[]) =>
  chunks.flatMap(({ choices }) => choices).findLast((each) => each)?.finish_reason;

/** Waits until the server writes nothing. */
async function untilQuiet(): Promise<void> {
  while ((service.host.state()?.running ?? 0) + (service.host.state()?.waiting ?? 0) > 0)
    await new Promise((resolve) => setTimeout(resolve, 5));
}

/** A request by hand: what it gives, whatever its status. */
async function raw(path: string, init: RequestInit = {}) {
  const response = await fetch(url + path, init);
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    error: text.startsWith('{"error"') ? JSON.parse(text).error : undefined,
  };
}
const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  raw(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });

describe("texts", () => {
  test("whole and streamed they are the same, and as generate has them", async () => {
    const whole = await client.completions.create(ask);
    expect(whole).toMatchObject({ object: "text_completion", model: "stories" });
    expect(whole.choices).toEqual([
      { index: 0, text: expect.stringContaining("girl named"), finish_reason: "length", logprobs: null },
    ]);
    expect(whole.usage).toMatchObject({
      completion_tokens: 16,
      total_tokens: whole.usage!.prompt_tokens + 16,
    });
    const chunks = await chunksOf(await client.completions.create({ ...ask, stream: true }));
    expect(chunks.map(({ choices }) => choices[0].text).join("")).toBe(whole.choices[0].text);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.at(-1)?.choices[0].finish_reason).toBe("length");
  });

  test("several prompts, as texts and as ids, and several answers to each", async () => {
    const other = "Tim had a";
    const one = await client.completions.create(ask);
    const two = await client.completions.create({ ...ask, prompt: other });
    const both = await client.completions.create({ ...ask, prompt: [prompt, other], n: 2 });
    const [a, b] = [one, two].map(({ choices }) => choices[0].text);
    expect(both.choices.map(({ text }) => text)).toEqual([a, a, b, b]);
    expect(both.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(both.usage?.prompt_tokens).toBe(one.usage!.prompt_tokens + two.usage!.prompt_tokens);
    const ids = [1, ...service.tokenizer.encode(prompt)];
    expect((await client.completions.create({ ...ask, prompt: ids })).choices[0].text).toBe(a);
    const echoed = await client.completions.create({ ...ask, echo: true });
    expect(echoed.choices[0].text).toBe(prompt + a);
  });

  test("log-probabilities in the older form: texts and places that fit the answer", async () => {
    const { choices } = await client.completions.create({ ...ask, logprobs: 2 });
    const { tokens, token_logprobs: own, top_logprobs: top, text_offset: places } = choices[0].logprobs!;
    expect(tokens!.join("")).toBe(choices[0].text);
    for (const [i, token] of tokens!.entries()) {
      expect(choices[0].text.slice(places![i]).startsWith(token)).toBe(true);
      expect(top![i][token]).toBe(own![i]); // the likeliest was taken
      expect(Object.keys(top![i]).length).toBe(2);
      expect(own![i]).toBe(Math.max(...Object.values(top![i])));
    }
  });
});

describe("chats", () => {
  test("a stream: one id, the role first, the reason last, then the usage", async () => {
    const whole = await client.chat.completions.create(chatAsk);
    expect(whole).toMatchObject({
      object: "chat.completion",
      choices: [{ index: 0, finish_reason: "length" }],
    });
    const { data, response } = await client.chat.completions
      .create({ ...chatAsk, stream: true, stream_options: { include_usage: true } })
      .withResponse();
    expect(response.headers.get("content-type")).toMatch(/^text\/event-stream/);
    const chunks = await chunksOf(data);
    expect(new Set(chunks.map(({ id, object }) => `${id} ${object}`))).toEqual(
      new Set([`${chunks[0].id} chat.completion.chunk`]),
    );
    expect(chunks[0].choices[0]).toMatchObject({
      delta: { role: "assistant", content: "" },
      finish_reason: null,
    });
    expect(textOf(chunks)).toBe(whole.choices[0].message.content);
    expect(chunks.at(-2)?.choices[0]).toMatchObject({ delta: {}, finish_reason: "length" });
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 16 } });
    const plain = await chunksOf(await client.chat.completions.create({ ...chatAsk, stream: true }));
    expect(plain.filter(({ usage, choices }) => usage || choices.length === 0)).toEqual([]);
    const body = { ...chatAsk, stream: true };
    expect((await post("/v1/chat/completions", body)).text).toMatch(/\n\ndata: \[DONE\]\n\n$/);
  });

  test("content may be a text, a list of parts, or null", async () => {
    const [text] = await Promise.all(
      [
        "Tell a story.",
        [
          { type: "text" as const, text: "Tell a " },
          { type: "text" as const, text: "story." },
        ],
      ].map(async (content) => {
        const messages = [{ role: "user" as const, content }];
        return (await client.chat.completions.create({ ...greedy, messages })).choices[0].message.content;
      }),
    );
    expect(text).toBe((await client.chat.completions.create(chatAsk)).choices[0].message.content);
    const messages = [
      ...chatAsk.messages,
      { role: "assistant" as const, content: null },
      ...chatAsk.messages,
    ];
    expect((await client.chat.completions.create({ ...greedy, messages })).choices[0].finish_reason).toBe(
      "length",
    );
  });

  test("log-probabilities: the bytes of the tokens join to the text, also behind a stop text", async () => {
    const wish = { ...chatAsk, logprobs: true, top_logprobs: 3 };
    const whole = (await client.chat.completions.create(wish)).choices[0];
    const tokens = whole.logprobs!.content!;
    expect(utf8.decode(Uint8Array.from(tokens.flatMap(({ bytes }) => bytes ?? [])))).toBe(
      whole.message.content,
    );
    for (const { token, bytes, logprob, top_logprobs: top } of tokens) {
      expect(utf8.decode(Uint8Array.from(bytes!))).toBe(token);
      expect(logprob).toBeLessThanOrEqual(0);
      expect(top.map((other) => other.logprob)).toEqual(
        top.map((other) => other.logprob).sort((a, b) => b - a),
      );
      expect(top[0]).toEqual({ token, bytes, logprob });
      expect(top.length).toBe(3);
    }
    const stop = whole.message.content!.slice(9, 12);
    const stream = await client.chat.completions.create({ ...wish, stop, stream: true });
    const chunks = await chunksOf(stream);
    const streamed = chunks.flatMap(({ choices }) => choices[0].logprobs?.content ?? []);
    expect(textOf(chunks)).toBe(whole.message.content!.slice(0, whole.message.content!.indexOf(stop)));
    expect(finishOf(chunks)).toBe("stop");
    expect(utf8.decode(Uint8Array.from(streamed.flatMap(({ bytes }) => bytes ?? [])))).toBe(textOf(chunks));
    const none = (await client.chat.completions.create({ ...chatAsk, logprobs: true })).choices[0].logprobs!
      .content!;
    expect(none[0].top_logprobs).toEqual([]);
  });

  test("a seed fixes the draws; n answers differ, each as itself again", async () => {
    const wish = { ...chatAsk, temperature: 1, seed: 11, n: 3 };
    const texts = async (more: object) =>
      (await client.chat.completions.create({ ...wish, ...more })).choices.map(
        ({ message }) => message.content,
      );
    const first = await texts({});
    expect(new Set(first).size).toBe(3);
    expect(await texts({})).toEqual(first);
    expect(await texts({ n: 1 })).toEqual([first[0]]);
    expect(await texts({ seed: 12 })).not.toEqual(first);
    const chunks = await chunksOf(await client.chat.completions.create({ ...wish, stream: true }));
    expect([0, 1, 2].map((index) => textOf(chunks, index))).toEqual(first);
    const unseeded = { seed: undefined, n: 1 };
    expect(await texts(unseeded)).not.toEqual(await texts(unseeded));
    for (const more of [{ top_p: 0 }, { temperature: 0 }, { top_k: 1 }])
      expect(await texts({ ...more, n: 1 })).toEqual([
        (await client.chat.completions.create(chatAsk)).choices[0].message.content,
      ]);
  });

  test("max_completion_tokens and max_tokens, and no more than the context holds", async () => {
    const { max_tokens: _, ...open } = chatAsk;
    const count = async (more: object) =>
      (await client.chat.completions.create({ ...open, ...more })).usage!.completion_tokens;
    expect(await count({ max_tokens: 3 })).toBe(3);
    expect(await count({ max_completion_tokens: 4, max_tokens: 9 })).toBe(4);
    const ids = [1, ...service.tokenizer.encode(prompt.repeat(99))].slice(0, service.contextLength - 9);
    const { choices, usage } = await client.completions.create({ ...ask, prompt: ids, max_tokens: 100_000 });
    expect(choices[0].finish_reason).toBe("length");
    expect(usage!.total_tokens).toBe(service.contextLength);
  });
});

test("single tokens can be made likely or impossible, and repeating costs", async () => {
  const text = async (more: object) => (await client.completions.create({ ...ask, ...more })).choices[0].text;
  const plain = await text({});
  const [id] = service.tokenizer.encode("x", { continues: true });
  expect(await text({ logit_bias: { [id]: 100 }, max_tokens: 3 })).toBe("xxx");
  const [first] = service.tokenizer.encode(plain, { continues: true });
  expect(await text({ logit_bias: { [first]: -100 } })).not.toBe(plain);
  const likely = { logit_bias: { [id]: 100 }, max_tokens: 4 };
  expect(await text({ ...likely, repetition_penalty: 100 })).toMatch(/^x(?!xxx)/); // 100 and more divided by 100
  const long = { max_tokens: 48 };
  expect(await text({ ...long, presence_penalty: 2, frequency_penalty: 2 })).not.toBe(await text(long));
});

describe("many at once", () => {
  test("32 requests get what each gets alone", async () => {
    const wish = (i: number) => ({
      ...ask,
      temperature: 1,
      seed: i,
      max_tokens: 4 + (i % 9),
      prompt: prompt.slice(0, 12 + i),
    });
    const alone = await client.completions.create(wish(7));
    const all = await Promise.all(Array.from({ length: 32 }, (_, i) => client.completions.create(wish(i))));
    expect(all[7].choices).toEqual(alone.choices);
    expect(all.map(({ usage }) => usage!.completion_tokens <= 12)).toEqual(all.map(() => true));
    expect(service.host.state()).toMatchObject({ running: 0, waiting: 0 });
  });

  test("more than the queue holds are told to come back", async () => {
    const body = { ...ask, n: 128 };
    const outcomes = await Promise.all([
      post("/v1/completions", { ...body, n: 100 }),
      post("/v1/completions", body),
    ]);
    const refused = outcomes.filter(({ status }) => status === 429);
    expect(refused.length).toBe(1);
    expect(refused[0].headers.get("retry-after")).toBe("1");
    expect(refused[0].error).toMatchObject({ type: "rate_limit_error", code: "queue_full" });
  });

  test("a client that goes away is no more served", async () => {
    const endless = { ...chatAsk, max_tokens: 480, temperature: 1, seed: 5, stream: true as const };
    const stream = await client.chat.completions.create(endless);
    for await (const chunk of stream) if (textOf([chunk]) !== "") break; // which closes the connection
    await untilQuiet();
    const generated = service.host.state()!.generatedTokens;
    const controller = new AbortController();
    const gone = client.completions.create(
      { ...ask, max_tokens: 480, seed: 5 },
      { signal: controller.signal },
    );
    while (service.host.state()!.running === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    controller.abort();
    await expect(gone).rejects.toThrow(/abort/i);
    await untilQuiet();
    expect(service.host.state()!.generatedTokens - generated).toBeLessThan(400);
    const { blocks, freeBlocks } = service.host.state()!;
    expect(freeBlocks).toBe(blocks);
    expect(lines.map((line) => JSON.parse(line)).filter(({ error }) => error === "client_gone").length).toBe(
      2,
    );
  });
});

const pet = {
  type: "object" as const,
  properties: {
    name: { type: "string" as const, maxLength: 8 },
    age: { type: ["integer" as const, "null" as const] },
    kind: { enum: ["cat", "dog"] },
  },
  required: ["name", "age", "kind"],
  additionalProperties: false,
};
const isPet = (value: unknown) => {
  expect(value).toEqual({
    name: expect.any(String),
    age: expect.toSatisfy((age) => age === null || Number.isInteger(age)),
    kind: expect.stringMatching(/^(cat|dog)$/),
  });
};
const weather = {
  type: "function" as const,
  function: { name: "weather", description: "", parameters: pet },
};
const clock = { type: "function" as const, function: { name: "clock" } };
const drawn = { ...chatAsk, temperature: 1, max_tokens: 120 };

describe("structured answers", () => {
  test("an answer is an instance of its JSON schema, whatever the model would rather say", async () => {
    const format = { type: "json_schema" as const, json_schema: { name: "pet", schema: pet, strict: true } };
    for (const seed of [1, 2]) {
      const { choices } = await client.chat.completions.create({
        ...drawn,
        seed,
        n: 2,
        response_format: format,
      });
      for (const { message, finish_reason: reason } of choices) {
        expect(reason).toBe("stop");
        isPet(JSON.parse(message.content!));
      }
    }
  });

  test("json_object is an object, as far as it gets", async () => {
    const wish = { ...drawn, seed: 1, response_format: { type: "json_object" as const } };
    const { message, finish_reason: reason } = (await client.chat.completions.create(wish)).choices[0];
    expect(message.content).toMatch(/^\{/);
    if (reason === "stop") expect(typeof JSON.parse(message.content!)).toBe("object");
  });

  test("a schema that no answer can be held to is refused, and the next is not", async () => {
    const wish = (schema: object) =>
      post("/v1/chat/completions", {
        ...chatAsk,
        response_format: { type: "json_schema", json_schema: { name: "x", schema } },
      });
    expect((await wish({ type: "integer", not: { const: 3 } })).error).toMatchObject({
      param: "response_format.json_schema.schema",
      message: "response_format.json_schema.schema uses not, and answers cannot be held to that.",
    });
    expect((await wish({ type: "thing" })).error.message).toBe(
      'response_format cannot be used: Unsupported type "thing".',
    );
    expect((await wish({ $ref: "#/$defs/missing" })).status).toBe(400);
    expect((await wish({ type: "boolean" })).status).toBe(200);
  });

  test("the AI SDK's generateObject", async () => {
    const { object } = await generateObject({
      model: createOpenAICompatible({ baseURL: `${url}/v1`, name: "tslm", supportsStructuredOutputs: true })(
        "stories",
      ),
      schema: jsonSchema<object>(pet),
      prompt: "Tell of a pet.",
      seed: 4,
    });
    isPet(object);
  });
});

describe("tools", () => {
  test("required and named ones are called, with arguments that fit", async () => {
    for (const choice of ["required", { type: "function", function: { name: "weather" } }] as const) {
      const wish = {
        ...drawn,
        seed: 2,
        tools: choice === "required" ? [weather] : [clock, weather],
        tool_choice: choice,
      };
      const { message, finish_reason: reason } = (
        await client.chat.completions.create({ ...wish, parallel_tool_calls: false })
      ).choices[0];
      expect(reason).toBe("tool_calls");
      expect(message.content).toBe(null);
      expect(message.tool_calls).toEqual([
        {
          id: expect.stringMatching(/^call_/),
          type: "function",
          function: { name: "weather", arguments: expect.any(String) },
        },
      ]);
      const [call] = message.tool_calls!;
      if (call.type === "function") isPet(JSON.parse(call.function.arguments));
      const chunks = await chunksOf(
        await client.chat.completions.create({ ...wish, parallel_tool_calls: false, stream: true }),
      );
      const deltas = chunks.flatMap(({ choices }) => choices[0].delta.tool_calls ?? []);
      expect(deltas[0]).toMatchObject({
        index: 0,
        id: expect.stringMatching(/^call_/),
        function: { name: "weather" },
      });
      expect(deltas.map((delta) => delta.function?.arguments).join("")).toBe(
        call.type === "function" && call.function.arguments,
      );
      expect(finishOf(chunks)).toBe("tool_calls");
    }
  });

  test("none: they are not even shown to the model, and an empty list is no tools", async () => {
    const plain = await client.chat.completions.create(chatAsk);
    for (const more of [{ tools: [weather], tool_choice: "none" as const }, { tools: [] }]) {
      const { choices, usage } = await client.chat.completions.create({ ...chatAsk, ...more });
      expect(choices[0].message).toEqual(plain.choices[0].message);
      expect(usage!.prompt_tokens).toBe(plain.usage!.prompt_tokens);
    }
    const offered = await client.chat.completions.create({ ...chatAsk, tools: [clock] });
    expect(offered.usage!.prompt_tokens).toBeGreaterThan(plain.usage!.prompt_tokens);
  });

  test("the AI SDK calls a tool, gives its result, and goes on; whole and as a stream", async () => {
    const asked: unknown[] = [];
    const settings = {
      model: sdk("stories"),
      prompt: "What is the weather?",
      seed: 3,
      maxOutputTokens: 120,
      providerOptions: { tslm: { parallel_tool_calls: false } },
      tools: {
        weather: tool({
          inputSchema: jsonSchema<object>(pet),
          execute: async (input) => {
            asked.push(input);
            return "rain";
          },
        }),
      },
      stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }: { stepNumber: number }) => ({
        toolChoice: stepNumber === 0 ? ("required" as const) : ("none" as const),
      }),
    };
    const { steps } = await generateText(settings);
    expect(steps.length).toBe(2);
    expect(steps[0].finishReason).toBe("tool-calls");
    const streamed = streamText(settings);
    const text = (await chunksOf(streamed.textStream)).join("");
    expect(text).toBe(steps[1].text);
    expect(asked.length).toBe(2);
    expect(asked[0]).toEqual(asked[1]);
    isPet(asked[0]);
    expect((await streamed.totalUsage).outputTokens).toBeGreaterThan(0);
  });
});

describe("what is wrong is said", () => {
  test.each([
    [
      { prompt: 5 },
      "prompt",
      "prompt must be a text, a list of texts, a list of token ids, or a list of such lists, not 5.",
    ],
    [
      {},
      "prompt",
      "prompt is missing; it must be a text, a list of texts, a list of token ids, or a list of such lists.",
    ],
    [
      { prompt: "a", temperature: "hot" },
      "temperature",
      'temperature must be a number from 0 to 2, not "hot".',
    ],
    [{ prompt: "a", n: 0 }, "n", "n must be a whole number from 1 to 128, not 0."],
    [
      { prompt: "a", stop: ["1", "2", "3", "4", "5"] },
      "stop",
      'stop must be a text, or a list of up to 4 texts, not ["1","2","3","4","5"].',
    ],
    [
      { prompt: "a", logit_bias: { "9999": 1 } },
      "logit_bias",
      'logit_bias names "9999", which is no token id below 512.',
    ],
    [{ prompt: [1, 99999] }, "prompt", "prompt has the id 99999, and ids run from 0 to 511."],
    [{ prompt: "a", suffix: "b" }, "suffix", "suffix is not done here: the model only continues texts."],
    [
      { prompt: "a", max_tokens: null, stream_options: { include_usage: 1 } },
      "stream_options.include_usage",
      "stream_options.include_usage must be true or false, not 1.",
    ],
  ])("a completion with %j", async (body, param, message) => {
    const { status, error } = await post("/v1/completions", body);
    expect({ status, error }).toEqual({
      status: 400,
      error: {
        message,
        type: "invalid_request_error",
        param,
        code: expect.toSatisfy((code) => code === null || code === "unsupported"),
      },
    });
  });

  test.each([
    [{ messages: [] }, "messages"],
    [{ messages: [{ role: "king", content: "" }] }, "messages[0].role"],
    [{ messages: [{ role: "user", content: 5 }] }, "messages[0].content"],
    [
      { messages: [{ role: "user", content: [{ type: "image_url", image_url: {} }] }] },
      "messages[0].content",
    ],
    [{ ...chatAsk, top_logprobs: 2 }, "top_logprobs"],
    [
      { ...chatAsk, tools: [{ type: "function", function: { name: "no good name" } }] },
      "tools[0].function.name",
    ],
    [{ ...chatAsk, tool_choice: "required" }, "tool_choice"],
    [
      { ...chatAsk, tools: [clock], tool_choice: { type: "function", function: { name: "other" } } },
      "tool_choice",
    ],
    [{ ...chatAsk, functions: [{ name: "old" }] }, "functions"],
    [{ ...chatAsk, response_format: { type: "xml" } }, "response_format.type"],
  ])("a chat with %j", async (body, param) => {
    const { status, error } = await post("/v1/chat/completions", body);
    expect({ status, param: error.param }).toEqual({ status: 400, param });
    expect(error.message).toMatch(/^[^\n]+\.$/);
  });

  test("unknown fields are ignored, and null means nothing was said", async () => {
    const plain = await client.completions.create(ask);
    const more = {
      best_of: null,
      user: "me",
      metadata: { a: 1 },
      whatever: [1],
      logprobs: null,
      stop: null,
      seed: null,
    };
    const { status, text } = await post("/v1/completions", { ...ask, ...more });
    expect(status).toBe(200);
    expect(JSON.parse(text).choices[0].text).toBe(plain.choices[0].text);
  });

  test("a prompt that is longer than the context, as the clients' error", async () => {
    const long = client.chat.completions.create({
      ...chatAsk,
      messages: [{ role: "user", content: "word ".repeat(2000) }],
    });
    await expect(long).rejects.toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      param: "messages",
    });
    const ids = Array.from({ length: 600 }, () => 5);
    await expect(client.completions.create({ ...ask, prompt: ids })).rejects.toMatchObject({
      code: "context_length_exceeded",
    });
  });

  test("bodies that are too long, no JSON, or none at all; paths and methods that there are not", async () => {
    const big = JSON.stringify({ ...ask, prompt: "x".repeat(30_000) });
    expect(await post("/v1/completions", big)).toMatchObject({
      status: 413,
      error: { code: "body_too_large" },
    });
    const stream = new ReadableStream({
      pull(controller) {
        controller.enqueue(new TextEncoder().encode("x".repeat(10_000)));
      },
    });
    const chunked = {
      method: "POST",
      body: stream,
      duplex: "half",
      headers: { "content-type": "application/json" },
    };
    expect(
      await raw("/v1/completions", chunked as RequestInit).then(
        ({ status }) => status,
        () => 413,
      ),
    ).toBe(413);
    expect(await post("/v1/completions", "{")).toMatchObject({ status: 400 });
    expect(await post("/v1/completions", "[1]")).toMatchObject({
      status: 400,
      error: { message: "The body must be a JSON object, not [1]." },
    });
    expect(await post("/v1/completions", "{}", { "content-type": "text/plain" })).toMatchObject({
      status: 415,
    });
    expect(await raw("/v1/nothing")).toMatchObject({ status: 404, error: { type: "invalid_request_error" } });
    const wrong = await raw("/v1/completions");
    expect(wrong).toMatchObject({ status: 405, error: { message: "/v1/completions takes POST, not GET." } });
    expect(wrong.headers.get("allow")).toBe("POST");
    await expect(client.completions.create({ ...ask, model: "other" })).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
    });
  });
});

describe("around the answers", () => {
  test("models, health, the page", async () => {
    const models = await client.models.list();
    expect(models.data).toEqual([
      {
        id: "stories",
        object: "model",
        created: expect.any(Number),
        owned_by: "tslm",
        max_model_len: 512,
        chat: true,
      },
    ]);
    expect((await client.models.retrieve("stories")).id).toBe("stories");
    expect(await raw("/health")).toMatchObject({ status: 200, text: '{"status":"ok"}' });
    const page = await raw("/");
    expect(page.headers.get("content-type")).toMatch(/^text\/html/);
    expect((await raw("/..%2fpackage.json")).status).toBe(404);
  });

  test("metrics, under the names that dashboards know", async () => {
    const { text, headers } = await raw("/metrics");
    expect(headers.get("content-type")).toMatch(/^text\/plain/);
    const value = (name: string) => Number(new RegExp(`^tslm:${name}\\{.*\\} (\\S+)$`, "m").exec(text)?.[1]);
    for (const name of [
      "num_requests_running",
      "num_requests_waiting",
      "num_preemptions_total",
      "kv_cache_usage_perc",
    ])
      expect(value(name), name).toBe(0);
    const { promptTokens, generatedTokens, prefixQueries, prefixHits } = service.host.state()!;
    expect(value("prompt_tokens_total")).toBe(promptTokens);
    expect(value("generation_tokens_total")).toBe(generatedTokens);
    expect(value("prefix_cache_queries_total")).toBe(prefixQueries);
    expect(value("prefix_cache_hits_total")).toBe(prefixHits);
    for (const name of ["time_to_first_token", "inter_token_latency", "e2e_request_latency"])
      expect(value(`${name}_seconds_count`), name).toBeGreaterThan(10);
  });

  test("the log: a JSON line for each request, and nothing of what was written", async () => {
    const { id } = await client.chat.completions.create({ ...chatAsk, user: "somebody" });
    const line = lines.find((each) => each.includes(id))!;
    expect(JSON.parse(line)).toMatchObject({
      method: "POST",
      path: "/v1/chat/completions",
      status: 200,
      stream: false,
      completion_tokens: 16,
      finish_reasons: ["length"],
      first_token_ms: expect.any(Number),
      duration_ms: expect.any(Number),
    });
    for (const each of lines) expect(each).not.toMatch(/story|Once|girl|somebody/i);
  });
});
