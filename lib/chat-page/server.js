// Talking to the server: which model it has, and a request whose answer comes as a stream.

/** An answer of the server that is not what was asked for. `code` is the server's word for it, `status` that of HTTP. */
export class Refusal extends Error {
  constructor(message, { code, status, wait } = {}) {
    super(message);
    Object.assign(this, { code, status, wait });
  }
}

const headers = (key) => ({
  "Content-Type": "application/json",
  ...(key ? { Authorization: `Bearer ${key}` } : {}),
});

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(`There is no answer from ${location.host}.`, { code: "unreachable" });
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const message = error?.message ?? `The server answered with ${response.status} ${response.statusText}.`;
  const wait = Number(response.headers.get("Retry-After")) || undefined;
  throw new Refusal(message, { code: error?.code, status: response.status, wait });
}

/** The first model of the server: `{id, chat, max_model_len}`. */
export async function firstModel(key) {
  const { data } = await (await ask("/v1/models", { headers: headers(key) })).json();
  return data[0];
}

/** The `data:` lines of a stream of events, as they come, without the last one, which says `[DONE]`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (unread + value).split("\n");
    unread = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

const encoder = new TextEncoder();

/** The tokens of a chunk in one form: `{text, bytes, logprob, alternatives}`. */
function chunkTokens(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content)
    return logprobs.content.map(({ token, bytes, logprob, top_logprobs }) => ({
      text: token,
      bytes: bytes ?? Array.from(encoder.encode(token)),
      logprob,
      alternatives: top_logprobs.map((other) => ({ text: other.token, logprob: other.logprob })),
    }));
  return (logprobs.tokens ?? []).map((text, i) => ({
    text,
    bytes: logprobs.bytes?.[i] ?? Array.from(encoder.encode(text)),
    logprob: logprobs.token_logprobs[i],
    alternatives: Object.entries(logprobs.top_logprobs?.[i] ?? {}).map(([token, logprob]) => ({
      text: token,
      logprob,
    })),
  }));
}

/**
 * Sends a request and gives what comes: `{text, thought, tokens, finish, usage}`, each part where the chunk has it. The request has
 * messages where the model knows chats, else a prompt.
 */
export async function* stream(request, { key, signal }) {
  const path = request.messages ? "/v1/chat/completions" : "/v1/completions";
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await ask(path, { method: "POST", headers: headers(key), body, signal });
  for await (const { choices = [], usage, error } of events(response.body)) {
    if (error) throw new Refusal(error.message, error);
    const [choice] = choices;
    const thought = choice?.delta?.reasoning_content ?? "";
    yield {
      text: choice?.delta?.content ?? choice?.text ?? "",
      thought,
      tokens: thought === "" ? chunkTokens(choice?.logprobs) : [],
      finish: choice?.finish_reason ?? undefined,
      usage: usage ?? undefined,
    };
  }
}
