// What requests may say. A wrong type is an error that names the field; fields that we do not know are let be, and null means
// "not given".
import { z } from "zod";
import { isRecord, shown, withoutNulls } from "../../formats/keys.js";
import { ApiError, badRequest } from "./errors.js";

/** A schema of what `error` describes. */
const text = { error: "a text" };
const flag = z.boolean({ error: "true or false" });
const whole = (least: number, most: number) => {
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} up` : `${least} to ${most}`;
  const error = { error: `a whole number from ${range}` };
  return z.int(error).min(least, error).max(most, error);
};
const number = (least: number, most: number) => {
  const error = { error: `a number from ${least} to ${most}` };
  return z.number(error).min(least, error).max(most, error);
};
const count = whole(1, Number.MAX_SAFE_INTEGER);
const object = { error: "an object" };

const stops = { error: "a text, or a list of up to 4 texts" };

/** The fields of both endpoints. */
const common = {
  model: z.string(text),
  max_tokens: count,
  temperature: number(0, 2),
  top_p: number(0, 1),
  top_k: whole(-1, Number.MAX_SAFE_INTEGER),
  min_p: number(0, 1),
  presence_penalty: number(-2, 2),
  frequency_penalty: number(-2, 2),
  repetition_penalty: number(0.01, 100),
  logit_bias: z.record(z.string(), number(-100, 100), object),
  seed: whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: z.union([z.string(), z.array(z.string()).max(4)], stops).transform((given) => [given].flat()),
  n: whole(1, 128),
  stream: flag,
  stream_options: z.looseObject({ include_usage: flag.nullish() }, object),
  user: z.string(text),
};

const part = z.looseObject({ type: z.literal("text"), text: z.string() });
const content = z
  .union([z.string(), z.array(part)], {
    error: 'a text, null, or a list of parts {"type": "text", "text": …}',
  })
  .nullish()
  .transform((given) =>
    Array.isArray(given) ? given.map((each) => each.text).join("") : (given ?? undefined),
  );

const functionName = z.string({ error: "a name" }).regex(/^[a-zA-Z0-9_.-]{1,64}$/, {
  error: "a name of up to 64 letters, digits, underscores, dots and dashes",
});

const toolCall = z.looseObject(
  {
    id: z.string(text).optional(),
    function: z.looseObject(
      { name: z.string(text), arguments: z.string({ error: "JSON as a text" }) },
      object,
    ),
  },
  object,
);

const roles = ["system", "developer", "user", "assistant", "tool", "function"] as const;
const message = z.looseObject(
  {
    role: z.enum(roles, { error: roles.map((role) => JSON.stringify(role)).join(", ") }),
    content,
    name: z.string(text).nullish(),
    tool_calls: z.array(toolCall, { error: "a list of calls" }).nullish(),
    tool_call_id: z.string(text).nullish(),
  },
  { error: "an object with a role and a content" },
);

const tool = z.looseObject(
  {
    type: z.literal("function", { error: '"function"' }),
    function: z.looseObject(
      {
        name: functionName,
        description: z.string(text).nullish(),
        parameters: z.record(z.string(), z.unknown(), { error: "a JSON schema" }).nullish(),
        strict: flag.nullish(),
      },
      object,
    ),
  },
  object,
);

const toolChoice = z.union(
  [
    z.enum(["none", "auto", "required"]),
    z.looseObject({ type: z.literal("function"), function: z.looseObject({ name: z.string() }) }),
  ],
  { error: '"none", "auto", "required" or {"type": "function", "function": {"name": …}}' },
);

const responseFormat = z.discriminatedUnion(
  "type",
  [
    z.looseObject({ type: z.literal("text") }),
    z.looseObject({ type: z.literal("json_object") }),
    z.looseObject({
      type: z.literal("json_schema"),
      json_schema: z.looseObject(
        {
          name: z.string(text).nullish(),
          schema: z
            .union([z.record(z.string(), z.unknown()), z.boolean()], { error: "a JSON schema" })
            .nullish(),
          strict: flag.nullish(),
        },
        object,
      ),
    }),
  ],
  {
    error: ({ code }) =>
      code === "invalid_union"
        ? '"text", "json_object" or "json_schema"'
        : 'an object whose type is "text", "json_object" or "json_schema"',
  },
);

/** A request to go on with a conversation. */
const chatSchema = z.looseObject({
  ...z.object(common).partial().shape,
  messages: z
    .array(message, { error: "a list of messages" })
    .min(1, { error: "a list of at least one message" }),
  max_completion_tokens: count.optional(),
  logprobs: flag.optional(),
  top_logprobs: whole(0, 20).optional(),
  response_format: responseFormat.optional(),
  tools: z
    .array(tool, { error: "a list of tools" })
    .max(128, { error: "a list of up to 128 tools" })
    .optional(),
  tool_choice: toolChoice.optional(),
  parallel_tool_calls: flag.optional(),
  reasoning_effort: z.string(text).optional(),
  chat_template_kwargs: z.record(z.string(), z.unknown(), object).optional(),
});

const id = whole(0, 2 ** 32 - 1);
const prompts = { error: "a text, a list of texts, a list of token ids, or a list of such lists" };

/** A request to go on with a text. */
const completionSchema = z.looseObject({
  ...z.object(common).partial().shape,
  prompt: z.union([z.string(), z.array(z.string()), z.array(id), z.array(z.array(id))], prompts),
  logprobs: whole(0, 20).optional(),
  echo: flag.optional(),
  suffix: z.string(text).optional(),
});

export type ChatRequest = z.infer<typeof chatSchema>;
export type CompletionRequest = z.infer<typeof completionSchema>;
export type CommonRequest = Partial<{ [Key in keyof typeof common]: z.infer<(typeof common)[Key]> }>;
export type Message = ChatRequest["messages"][number];
export type Tool = NonNullable<ChatRequest["tools"]>[number];

/** The place of a value in a request, as a program would write it: `messages[0].content`. */
function placeOf(path: PropertyKey[]): string {
  return path
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
}

/** The request in a body. Throws an error that names the first field that is wrong. */
function parsed<T>(schema: z.ZodType<T>, body: unknown): T {
  if (!isRecord(body)) throw badRequest(`The body must be a JSON object, not ${shown(body)}.`);
  const { data, error } = schema.safeParse(withoutNulls(body));
  if (!error) return data;
  const { path, message: expected } = error.issues[0];
  const param = placeOf(path);
  const value = path.reduce<unknown>((inner, key) => Object(inner)[key], body);
  if (value === undefined) throw badRequest(`${param} is missing; it must be ${expected}.`, param);
  throw badRequest(`${param} must be ${expected}, not ${shown(value)}.`, param);
}

/** Fields that would change the answer and that we do not do: to ignore them would be to lie. */
function refuse(body: object, fields: Record<string, string>): void {
  for (const [name, advice] of Object.entries(fields)) {
    const value = (body as Record<string, unknown>)[name];
    const isGiven = value !== undefined && value !== null && value !== "" && value !== false;
    if (isGiven)
      throw new ApiError(400, `${name} is not done here: ${advice}.`, { param: name, code: "unsupported" });
  }
}

/** Reads the body of /v1/chat/completions. */
export function parseChat(body: unknown): ChatRequest {
  const request = parsed(chatSchema, body);
  refuse(request, { functions: "use tools", function_call: "use tool_choice", audio: "answers are text" });
  if (request.top_logprobs !== undefined && request.logprobs !== true)
    throw badRequest("top_logprobs needs logprobs to be true.", "top_logprobs");
  return request;
}

/** Reads the body of /v1/completions. */
export function parseCompletion(body: unknown): CompletionRequest {
  const request = parsed(completionSchema, body);
  refuse(request, { suffix: "the model only continues texts" });
  if (request.echo && request.logprobs !== undefined)
    throw badRequest("echo does not go with logprobs: the tokens of the prompt have none.", "echo");
  if (Array.isArray(request.prompt) && request.prompt.length === 0)
    throw badRequest("prompt must be a text, or a list of at least one.", "prompt");
  return request;
}
