// How answers become what clients get: text in pieces, calls of tools, channels, grammars. Engines here say what the test tells them to.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { answer } from "../lib/src/cli/serve/answer.ts";
import { openApp } from "../lib/src/cli/serve/app.ts";
import { chatTemplate } from "../lib/src/cli/serve/conversation.ts";
import { channelReader } from "../lib/src/cli/serve/harmony.ts";
import { hostEngine } from "../lib/src/cli/serve/host.ts";
import { openService } from "../lib/src/cli/serve/service.ts";
import { heldSchema } from "../lib/src/cli/serve/structured.ts";
import { type JsonForm, learnToolForm } from "../lib/src/cli/serve/tool-form.ts";
import { jsonToolReader } from "../lib/src/cli/serve/tool-reader.ts";
import { completeModelConfig, parseModelConfig } from "../lib/src/model/config.ts";
import type { Engine, EngineRequest } from "../lib/src/infer/engine.ts";
import { byteTokens, scriptedChoice, scriptedHost } from "./scripted.ts";
import { hermesTemplate } from "./serve-parts.ts";

const utf8 = new TextDecoder();
const wide = new TextEncoder();

/** A configuration for this many tokens. */
const configOf = (vocabSize: number) =>
  parseModelConfig(
    completeModelConfig({ num_experts: 2 }, { vocab_size: vocabSize, max_position_embeddings: 4096 }),
  );

describe("texts in pieces", () => {
  const tokenizer = byteTokens();
  const end = 256;
  const request = (more: Partial<EngineRequest> = {}): EngineRequest => ({
    prompt: [65],
    maxTokens: 1000,
    seed: 0,
    stopIds: [end],
    sampling: { temperature: 0, topK: 0, topP: 1, minP: 0 },
    alternatives: 0,
    ...more,
  });

  /** The events of an answer that consists of these bytes. */
  async function events(bytes: number[], stop: string[] = [], more = {}) {
    const choice = scriptedChoice(bytes, request(more));
    const all = [];
    for await (const event of answer(choice, choice.tokens, { tokenizer, before: [65], stop }))
      all.push(event);
    const finish = all.find((event) => event.finish)?.finish;
    return { pieces: all.flatMap((event) => (event.finish ? [] : [event])), finish };
  }

  const letters = fc.constantFrom("a", "b", "ab", "é", "€", "😀", " ");
  const texts = fc.array(letters, { maxLength: 12 }).map((parts) => parts.join(""));
  const stops = fc.array(
    fc.array(letters, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("")),
    { maxLength: 3 },
  );

  test("no stop text and no beginning of one gets out, nothing else is lost, and the tokens are those of the text", async () => {
    await fc.assert(
      fc.asyncProperty(texts, stops, async (text, stop) => {
        const { pieces, finish } = await events([...wide.encode(text)], stop);
        const at = Math.min(
          text.length,
          ...stop.map((one) => text.indexOf(one)).filter((place) => place >= 0),
        );
        expect(pieces.map((piece) => piece.text).join("")).toBe(text.slice(0, at));
        expect(finish).toBe("stop");
        let [shown, bytes] = ["", [] as number[]];
        for (const piece of pieces) {
          expect(piece.text).not.toContain("\ufffd");
          shown += piece.text;
          bytes = [...bytes, ...piece.tokens.flatMap((token) => token.bytes)];
          expect(utf8.decode(Uint8Array.from(bytes))).toBe(shown); // after each piece, not only at the end
        }
      }),
    );
  });

  test("bytes that are no text, and a character that is cut by the end, become U+FFFD", async () => {
    const { pieces } = await events([97, 0xff, 98, 0xf0, 0x9f]);
    expect(pieces.map((piece) => piece.text).join("")).toBe("a\ufffdb\ufffd");
    expect(pieces.flatMap((piece) => piece.tokens.flatMap((token) => token.bytes))).toEqual([
      97, 0xff, 98, 0xf0, 0x9f,
    ]);
    const cut = await events([...wide.encode("a😀")], [], { maxTokens: 3 });
    expect(cut.pieces.map((piece) => piece.text)).toEqual(["a", "\ufffd"]);
    expect(cut.finish).toBe("length");
  });

  test("text that was held back for a stop text comes at the end", async () => {
    const { pieces } = await events([...wide.encode("one, tw")], ["two"]);
    expect(pieces.map((piece) => piece.text).join("")).toBe("one, tw");
  });
});

/** Templates as model families have them, shortened to what matters here. */
const header = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n";
const llamaTemplate = `{{ bos_token }}{% for m in messages %}${header}{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}{% else %}{% if tools and loop.first %}Given the following functions: {{ tools | tojson }}
{% endif %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}`;
const qwenTemplate = `{% if tools %}<|im_start|>system
# Tools{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
return a json object within <tool_call></tool_call> tags: {"name": <function-name>, "arguments": <args-json-object>}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}{% if m.content %}
{{ m.content }}{% endif %}{% for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`;
const mistralTemplate = `{{ bos_token }}{% for m in messages %}{% if m.role == "user" %}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}[INST] {{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}{% endfor %}]{{ eos_token }}{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}`;
const harmonyTemplate = `{% for m in messages %}{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}<|start|>assistant to=functions.{{ f.name }}<|channel|>commentary json<|message|>{{ f.arguments | tojson }}<|call|>{% elif m.role == "assistant" %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}`;
const harmonyTokens = byteTokens(
  ...["start", "end", "message", "channel", "constrain", "call", "return"].map((name) => `<|${name}|>`),
);

/** The form that a template is found to have. */
const formOf = (
  template: string,
  tokenizer = byteTokens("<s>", "</s>"),
  ends = ["</s>", "<|eot_id|>", "<|im_end|>", "<|call|>"],
) =>
  learnToolForm(
    chatTemplate(template, { ...configOf(300), bosTokenId: 257, eosTokenIds: [258] }, tokenizer),
    tokenizer,
    ends,
  );

describe("how a model writes calls, learned from its template", () => {
  test.each([
    ["Hermes", hermesTemplate, { begin: "<tool_call>\n", end: "\n</tool_call>", argumentsKey: "arguments" }],
    ["Qwen", qwenTemplate, { begin: "<tool_call>\n", end: "\n</tool_call>", argumentsKey: "arguments" }],
    ["Llama 3", llamaTemplate, { begin: "", end: "", argumentsKey: "parameters" }],
    ["Mistral", mistralTemplate, { begin: "[TOOL_CALLS] [", end: "]", argumentsKey: "arguments" }],
  ])("%s", (_, template, form) => {
    expect(formOf(template)).toEqual({ kind: "json", nameKey: "name", ...form });
  });

  test("harmony, and templates that have no form or refuse calls", () => {
    expect(formOf(harmonyTemplate, harmonyTokens)).toEqual({ kind: "harmony" });
    expect(formOf("{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson }}")).toBe(undefined);
    expect(formOf("{% for m in messages %}{{ m.content }}{% endfor %}{{ raise_exception('no') }}")).toBe(
      undefined,
    );
    expect(formOf("{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}")).toBe(undefined);
  });
});

describe("calls in a text", () => {
  const hermes = formOf(hermesTemplate) as JsonForm;
  const llama = formOf(llamaTemplate) as JsonForm;
  const mistral = formOf(mistralTemplate) as JsonForm;

  /** The text and the calls in a text that comes in these pieces. */
  function read(form: JsonForm, pieces: string[]) {
    const reader = jsonToolReader(form);
    const parts = [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()];
    const calls: { name: string; json: string }[] = [];
    let text = "";
    for (const part of parts) {
      if ("text" in part) text += part.text;
      else if ("name" in part) calls.push({ name: part.name, json: "" });
      else calls[calls.length - 1].json += part.json;
    }
    return { text, calls };
  }

  const nested = '{"a": "}{\\"", "b": [1, {"c": 2}]}';
  test.each([
    [
      "text before and between",
      hermes,
      `Well.\n<tool_call>\n{"name": "f", "arguments": ${nested}}\n</tool_call>\n<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>`,
      "Well.",
      [
        ["f", nested],
        ["g", "{}"],
      ],
    ],
    ["no call at all", hermes, "a < b, <tool", "a < b, <tool", []],
    ["a mark with no JSON behind it", hermes, "see <tool_call> there", "see <tool_call> there", []],
    [
      "JSON that is no call",
      hermes,
      '<tool_call>{"x": 1}</tool_call>',
      '<tool_call>{"x": 1}</tool_call>',
      [],
    ],
    [
      "keys in another order",
      hermes,
      '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>',
      "",
      [["f", '{"a":1}']],
    ],
    ["no arguments", hermes, '<tool_call>{"name": "f"}</tool_call>', "", [["f", "{}"]]],
    [
      "a call that is cut off",
      hermes,
      '<tool_call>{"name": "f", "arguments": {"a": "x',
      "",
      [["f", '{"a": "x']],
    ],
    [
      "text behind a call",
      hermes,
      '<tool_call>{"name": "f", "arguments": {}}</tool_call> done',
      " done",
      [["f", "{}"]],
    ],
    ["the whole answer", llama, `{"name": "f", "parameters": ${nested}}`, "", [["f", nested]]],
    [
      "the whole answer, its arguments under another name",
      llama,
      '\n{"name": "f", "arguments": {}}',
      "",
      [["f", "{}"]],
    ],
    [
      "two of them",
      llama,
      '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
      "",
      [
        ["f", "{}"],
        ["g", "{}"],
      ],
    ],
    ["plain text", llama, "Hello {name}", "Hello {name}", []],
    ["JSON as an answer", llama, '{"city": "Rome"}', '{"city": "Rome"}', []],
    [
      "a list with ids",
      mistral,
      '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "x"}, {"name": "g", "arguments": {}, "id": "y"}]',
      "",
      [
        ["f", '{"a": 1}'],
        ["g", "{}"],
      ],
    ],
  ] as [string, JsonForm, string, string, [string, string][]][])(
    "%s, in whatever pieces",
    (_, form, whole, text, calls) => {
      const expected = { text, calls: calls.map(([name, json]) => ({ name, json })) };
      expect(read(form, [whole])).toEqual(expected);
      expect(read(form, [...whole])).toEqual(expected);
      fc.assert(
        fc.property(
          fc.array(fc.integer({ min: 1, max: 9 }), { minLength: whole.length, maxLength: whole.length }),
          (lengths) => {
            const pieces: string[] = [];
            for (let at = 0, i = 0; at < whole.length; at += lengths[i++])
              pieces.push(whole.slice(at, at + lengths[i]));
            expect(read(form, pieces)).toEqual(expected);
          },
        ),
        { numRuns: 20 },
      );
    },
  );
});

/** A server without sockets, whose model says what `say` is told; special tokens may be in it. */
function served(template: string, tokenizer: ReturnType<typeof byteTokens>, ends: string[]) {
  let said = "";
  const config = {
    ...configOf(tokenizer.vocabSize),
    eosTokenIds: ends.map((name) => tokenizer.specials[name]),
    bosTokenId: undefined,
  };
  const asked: EngineRequest[] = [];
  const host = scriptedHost((request) => {
    asked.push(request);
    return [...tokenizer.encode(said, { allowed: "all" })];
  });
  const limits = { body: 1e6, running: 32, queue: 100, tokens: 4096, seconds: 60 };
  const service = openService({ name: "scripted", config, tokenizer, template, host, limits });
  const app = openApp(service, { isLocal: true, log: () => {} });
  const post = async (body: object) =>
    app.fetch(
      new Request("http://x/v1/chat/completions", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages: [{ role: "user", content: "?" }], ...body }),
      }),
    );
  return {
    asked,
    fetch: app.fetch,
    say(text: string) {
      said = text;
    },
    prompt: () => utf8.decode(tokenizer.decode(asked.at(-1)!.prompt)),
    async whole(body: object) {
      return (await (await post(body)).json()) as {
        error?: { message: string };
        choices: { message: Record<string, unknown>; finish_reason: string }[];
      };
    },
    /** The message that the pieces of a stream make. */
    async streamed(body: object) {
      const events = (await (await post({ ...body, stream: true })).text())
        .split("\n\n")
        .filter((line) => line !== "");
      expect(events.at(-1)).toBe("data: [DONE]");
      const chunks = events.slice(0, -1).map((line) => JSON.parse(line.slice("data: ".length)));
      const text = (key: string) => chunks.map(({ choices }) => choices[0].delta[key] ?? "").join("");
      const calls: { name: string; arguments: string }[] = [];
      for (const { choices } of chunks)
        for (const { index, function: piece } of choices[0].delta.tool_calls ?? []) {
          calls[index] ??= { name: piece.name, arguments: "" };
          calls[index].arguments += piece.arguments;
        }
      return {
        content: text("content"),
        reasoning: text("reasoning_content"),
        calls,
        finish: chunks.at(-1).choices[0].finish_reason,
      };
    },
  };
}

const tools = [
  {
    type: "function",
    function: {
      name: "f",
      parameters: { type: "object", properties: { a: { type: "integer" } }, required: ["a"] },
    },
  },
];

describe("calls over HTTP", () => {
  const tokenizer = byteTokens("<|im_start|>", "<|im_end|>");
  const qwen = served(qwenTemplate, tokenizer, ["<|im_end|>"]);
  const harmony = served(harmonyTemplate, harmonyTokens, ["<|return|>", "<|call|>"]);

  test("Qwen's: told to the model, found in its answer, whole and streamed, and written down again", async () => {
    const { say, whole, streamed, prompt, asked } = qwen;
    say('Let me see.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>');
    const { message, finish_reason: finish } = (await whole({ tools })).choices[0];
    const call = { name: "f", arguments: '{"a": 1}' };
    expect(message).toMatchObject({
      content: "Let me see.",
      tool_calls: [{ type: "function", function: call }],
    });
    expect(finish).toBe("tool_calls");
    expect(prompt()).toContain('"name": "f"');
    expect(await streamed({ tools })).toEqual({
      content: "Let me see.",
      reasoning: "",
      calls: [call],
      finish: "tool_calls",
    });
    const result = { role: "tool", content: "<|im_end|>", tool_call_id: "x" };
    await whole({ tools, messages: [{ role: "user", content: "?" }, message, result] });
    expect(prompt()).toContain(
      '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n<|im_start|>tool<|im_end|><|im_end|>',
    );
    const ends = Array.from(asked.at(-1)!.prompt).filter((id) => id === tokenizer.specials["<|im_end|>"]);
    expect(ends.length).toBe(4); // of the tools, the question, the call and its result; the word in the result is text
    expect((await whole({ tools, tool_choice: "none" })).choices[0].message.content).toContain("<tool_call>");
  });

  test("harmony's: the reasoning apart, the call with its arguments as they come", async () => {
    const { say, whole, streamed } = harmony;
    const reasoned = (text: string) => `<|channel|>analysis<|message|>${text}<|end|><|start|>assistant`;
    say(
      `${reasoned("Hm é.")}<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>`,
    );
    const call = { name: "f", arguments: '{"a": 1}' };
    expect((await whole({ tools })).choices[0]).toMatchObject({
      message: { content: null, reasoning_content: "Hm é.", tool_calls: [{ function: call }] },
      finish_reason: "tool_calls",
    });
    expect(await streamed({ tools })).toEqual({
      content: "",
      reasoning: "Hm é.",
      calls: [call],
      finish: "tool_calls",
    });
    say(`${reasoned("no stop.")}<|channel|>final<|message|>Rome. The end<|return|>`);
    expect((await whole({ stop: "." })).choices[0].message).toMatchObject({
      content: "Rome",
      reasoning_content: "no stop.",
    });
  });

  test("harmony's when they are demanded: it may reason first, and the form is held", async () => {
    const { say, whole } = harmony;
    const call = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 12}<|call|>';
    for (const before of ["", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"]) {
      say(before + call);
      const { message } = (await whole({ tools, tool_choice: "required" })).choices[0];
      expect(message.tool_calls).toMatchObject([{ function: { name: "f", arguments: '{"a": 12}' } }]);
    }
    say("<|channel|>final<|message|>No.<|return|>");
    expect((await whole({ tools, tool_choice: "required" })).error?.message).toContain("may not come");
    const format = { type: "json_schema", json_schema: { name: "x", schema: { type: "integer" } } };
    say("<|channel|>final<|message|>12<|return|>");
    expect((await whole({ response_format: format })).choices[0].message.content).toBe("12");
    say("<|channel|>final<|message|>no<|return|>");
    expect((await whole({ response_format: format })).error?.message).toContain("may not come");
  });

  test("a strict tool's arguments are held to their schema once a call has begun", async () => {
    const { say, whole } = qwen;
    const strict = [{ ...tools[0], function: { ...tools[0].function, strict: true } }];
    const call = (json: string) =>
      say(`Hm.<tool_call>\n{"name": "f", "arguments": ${json}}\n</tool_call><|im_end|>`);
    call('{"a": 3}');
    expect((await whole({ tools: strict })).choices[0].finish_reason).toBe("tool_calls");
    call('{"b": 3}');
    expect((await whole({ tools: strict })).error?.message).toContain("may not come");
    expect((await whole({ tools })).choices[0].finish_reason).toBe("tool_calls");
  });

  test("with a schema for the answer and tools, it may be either", async () => {
    const { say, whole } = qwen;
    const format = { type: "json_schema", json_schema: { name: "x", schema: { type: "integer" } } };
    say("7<|im_end|>");
    expect((await whole({ tools, response_format: format })).choices[0].message.content).toBe("7");
    say('<tool_call>\n{"name": "f", "arguments": {"a": 3}}\n</tool_call><|im_end|>');
    expect((await whole({ tools, response_format: format })).choices[0].finish_reason).toBe("tool_calls");
    say("Hm.<|im_end|>");
    expect((await whole({ tools, response_format: format })).error?.message).toContain("may not come");
  });

  test("a page elsewhere whose name leads to this machine is told off", async () => {
    const status = async (host: string) =>
      (await harmony.fetch(new Request("http://x/v1/models", { headers: { host } }))).status;
    for (const own of ["localhost:8080", "127.0.0.1", "[::1]:8080"]) expect(await status(own)).toBe(200);
    for (const other of ["evil.example", "localhost.evil.example:80"]) expect(await status(other)).toBe(403);
  });

  test("a template without a form for calls takes no tools", async () => {
    const template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    const { say, whole } = served(template, byteTokens("</s>"), ["</s>"]);
    say("x</s>");
    const refused = "This model's chat template has no form for tools that we read.";
    expect((await whole({ tools })).error?.message).toBe(refused);
    expect((await whole({})).choices[0].message.content).toBe("x");
  });
});

test("a reader of channels copes with what is no channel", () => {
  const reader = channelReader(harmonyTokens);
  const read = (text: string) =>
    [...harmonyTokens.encode(text, { allowed: "all" })].map((id) => reader.push(id)?.text ?? "").join("");
  expect(read("no head<|end|><|end|><|message|>text<|start|><|message|><|message|>more")).toBe("textmore");
});

describe("schemas", () => {
  test("what an answer cannot be held to is refused by name, and lists of types become choices", () => {
    const held = (schema: unknown) => heldSchema(schema, "s");
    expect(held({ type: ["string", "null"], maxLength: 3 })).toEqual({
      anyOf: [
        { type: "string", maxLength: 3 },
        { type: "null", maxLength: 3 },
      ],
    });
    expect(held({ properties: { not: { type: "string" } }, items: true })).toEqual({
      properties: { not: { type: "string" } },
      items: true,
    });
    for (const [schema, word] of [
      [{ properties: { a: { uniqueItems: true } } }, "uniqueItems"],
      [{ $defs: { a: { items: { if: {} } } } }, "if"],
      [{ anyOf: [{ multipleOf: 2 }] }, "multipleOf"],
      [{ anyOf: [], properties: {} }, "properties beside anyOf"],
    ] as const)
      expect(() => held(schema)).toThrow(word);
  });
});

describe("an engine that is lost", () => {
  const state = {
    running: 0,
    waiting: 0,
    blocks: 1,
    freeBlocks: 1,
    prefixQueries: 3,
    prefixHits: 2,
    preemptions: 0,
    promptTokens: 5,
    generatedTokens: 7,
    steps: 9,
  };

  test("is opened again, once for all who ask; counts go on", async () => {
    let opened = 0;
    const engines: (Engine & { failed?: string })[] = [];
    const said: string[] = [];
    const host = hostEngine(
      async () => {
        opened++;
        const engine: (typeof engines)[number] = {
          submit: () => [],
          close: async () => {},
          state: () => ({ ...state, failed: engine.failed }),
        };
        engines.push(engine);
        return engine;
      },
      (text) => said.push(text),
    );
    expect(host.isReady()).toBe(false);
    expect(await host.engine()).toBe(engines[0]);
    expect(await host.engine()).toBe(engines[0]);
    engines[0].failed = "The GPU device was lost.";
    expect(host.isReady()).toBe(false);
    const again = await Promise.all([host.engine(), host.engine()]);
    expect(again).toEqual([engines[1], engines[1]]);
    expect(opened).toBe(2);
    expect(said).toEqual(["The GPU device was lost. The model is being opened again."]);
    expect(host.state()).toMatchObject({ promptTokens: 10, generatedTokens: 14, prefixHits: 4 });
  });
});
