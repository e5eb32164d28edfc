// `tslm serve` as its clients meet it: OpenAI's own and the AI SDK's, against a small model.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";
import { afterAll, describe, expect, test } from "vitest";
import { serveHere, writeServed } from "./serve-parts.ts";
import { testFolder } from "./tslm.ts";

const { at } = testFolder("serve");
const { url, lines, service, close } = await serveHere(writeServed(at("model")));
afterAll(close);

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ask = { model: "stories", temperature: 0, max_tokens: 24 };
const prompt = "Once upon a time, there was a little";
const messages = [{ role: "user" as const, content: "Tell a story." }];

/** The text, the reasons and the usage of a stream of chunks. */
async function gather(stream: AsyncIterable<OpenAI.ChatCompletionChunk>) {
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = chunks.map(({ choices: [first] }) => first?.delta.content ?? "").join("");
  return { chunks, text };
}

describe("texts", () => {
  test("a completion: whole and streamed, the same text", async () => {
    const whole = await client.completions.create({ ...ask, prompt });
    expect(whole).toMatchObject({ object: "text_completion", model: "stories" });
    expect(whole.choices[0]).toMatchObject({ index: 0, finish_reason: "length", logprobs: null });
    expect(whole.choices[0].text).toContain("girl");
    expect(whole.usage).toMatchObject({ completion_tokens: 24 });
    let text = "";
    const ids = new Set<string>();
    for await (const chunk of await client.completions.create({ ...ask, prompt, stream: true })) {
      text += chunk.choices[0].text;
      ids.add(chunk.id);
    }
    expect(text).toBe(whole.choices[0].text);
    expect(ids.size).toBe(1);
  });
});
