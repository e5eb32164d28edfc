// What the tests of the server share: a small model with a chat template, served in this process.
import fs from "node:fs";
import path from "node:path";
import { openModelService, startServer } from "../lib/src/cli/serve.ts";

const stories = path.join(import.meta.dirname, "fixtures", "stories260k");

/** A chat template with calls as Hermes and Qwen write them. Turns end with `</s>`, the model's own end. */
export const hermesTemplate = `{{ bos_token }}
{%- if tools %}You may call: {% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.role == "assistant" %}{{ "assistant: " + message.content }}
{%- for call in message.tool_calls or [] %}{{ "<tool_call>\\n" }}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}{{ "\\n</tool_call>" }}{% endfor %}{{ eos_token }}
{%- else %}{{ message.role + ": " + message.content + "\\n" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "assistant: " }}{% endif %}`;

/** Writes the small model with a chat template into a folder. */
export function writeServed(folder: string, template = hermesTemplate): string {
  fs.cpSync(stories, folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "chat_template.jinja"), template);
  return folder;
}

type ServiceOptions = Parameters<typeof openModelService>[0];

/** The options of the command as they are where none is given. */
export const usualOptions: Omit<ServiceOptions, "model"> = {
  host: "127.0.0.1",
  port: 0,
  dtype: "auto",
  cache: "f32",
  maxBody: 1e6,
  maxSequences: 32,
  maxQueue: 256,
  maxSeconds: 600,
};

/** Serves a model folder in this process; `lines` is the request log. */
export async function serveHere(model: string, more: Partial<ServiceOptions> = {}) {
  const options = { ...usualOptions, model, name: "stories", ...more };
  const lines: string[] = [];
  const service = await openModelService(options);
  const server = await startServer(service, { ...options, log: (line) => lines.push(line) });
  return { service, lines, ...server };
}
