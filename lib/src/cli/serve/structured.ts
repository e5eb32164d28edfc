// What an answer must look like, as a grammar: a JSON schema, or calls of tools.
import { isRecord, shown } from "../../formats/keys.js";
import { badRequest } from "./errors.js";
import type { ChatRequest, Tool } from "./schema.js";
import type { JsonForm, ToolForm } from "./tool-form.js";
import type { GrammarSource } from "./xgrammar.js";

/** A grammar, and the field of the request that asks for it. */
export interface Demand {
  source: GrammarSource;
  param: string;
}

/** Keywords of JSON Schema that demand something and that the grammars cannot hold an answer to. */
const unheld = [
  ...["not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired"],
  ...["dependentSchemas", "dependencies", "multipleOf", "uniqueItems", "patternProperties", "contentSchema"],
];

/** Keywords that stand for a whole schema: what stands beside them, besides notes, would be passed over. */
const whole = ["$ref", "anyOf", "oneOf", "allOf"];
const notes = ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"];
const atRoot = ["$schema", "$id", "$comment", "$defs", "definitions"];

/** How deep a schema may go. */
const deepest = 100;

/**
 * A schema as the grammars take it: a list of types becomes a choice. Throws an error about `param` for what they would pass over, since an
 * answer might not keep to it.
 */
export function heldSchema(schema: unknown, param: string, depth = 0): unknown {
  if (depth > deepest) throw badRequest(`${param} is nested too deeply.`, param);
  if (Array.isArray(schema)) return schema.map((each) => heldSchema(each, param, depth + 1));
  if (!isRecord(schema)) return schema;
  const refused = unheld.find((key) => Object.hasOwn(schema, key) && schema[key] !== false);
  if (refused !== undefined)
    throw badRequest(`${param} uses ${refused}, and answers cannot be held to that.`, param, "unsupported");
  const main = whole.find((key) => Object.hasOwn(schema, key));
  const beside = Object.keys(schema).find((key) => key !== main && ![...notes, ...atRoot].includes(key));
  if (main !== undefined && beside !== undefined)
    throw badRequest(
      `${param} has ${beside} beside ${main}, and answers cannot be held to both.`,
      param,
      "unsupported",
    );
  const { type, ...others } = schema;
  if (Array.isArray(type)) {
    const branches = type.map((one) => heldSchema({ ...others, type: one }, param, depth + 1));
    return { anyOf: branches };
  }
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      const holdsSchemas = ["properties", "$defs", "definitions"].includes(key) && isRecord(value);
      if (holdsSchemas)
        return [
          key,
          Object.fromEntries(
            Object.entries(value).map(([name, inner]) => [name, heldSchema(inner, param, depth + 1)]),
          ),
        ];
      const isSchema = ["items", "prefixItems", "additionalProperties", "propertyNames", ...whole].includes(
        key,
      );
      return [key, isSchema ? heldSchema(value, param, depth + 1) : value];
    }),
  );
}

const schemaFormat = (schema: unknown) => ({ type: "json_schema", json_schema: schema });

/** What the arguments of a tool are: its parameters, else any object. */
function argumentsOf({ function: { parameters } }: Tool, param: string): unknown {
  return heldSchema(parameters ?? { type: "object" }, param);
}

/** The calls of tools, as structural tags. */
function callTags(form: ToolForm, tools: Tool[], params: string[]) {
  return tools.map((tool, i) => {
    const { name } = tool.function;
    const content = schemaFormat(argumentsOf(tool, params[i]));
    if (form.kind === "harmony")
      return {
        type: "tag",
        begin: `<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>`,
        content,
        end: "",
      };
    const { begin, end, nameKey, argumentsKey } = form;
    const head = `{${JSON.stringify(nameKey)}: ${JSON.stringify(name)}, ${JSON.stringify(argumentsKey)}: `;
    return { type: "tag", begin: begin + head, content, end: `}${end}` };
  });
}

/** Whether several calls may follow each other in a form. */
const takesSeveral = (form: ToolForm): form is JsonForm => form.kind === "json" && form.end !== "";

/** One call, or several where the form has room for them. */
function callsFormat(form: ToolForm, tags: object[], isParallel: boolean): object {
  if (!isParallel || !takesSeveral(form)) return { type: "or", elements: tags };
  return { type: "tags_with_separator", tags, separator: "\n", at_least_one: true, stop_after_first: false };
}

/** An answer in channels may reason first. */
function withReasoning(form: ToolForm | undefined, format: object): object {
  if (form?.kind !== "harmony") return format;
  const reasoning = {
    type: "tag",
    begin: "<|channel|>analysis<|message|>",
    content: { type: "any_text" },
    end: "<|end|><|start|>assistant",
  };
  return { type: "or", elements: [format, { type: "sequence", elements: [reasoning, format] }] };
}

/** The schema that an answer is to be an instance of, if any. */
function answerSchema({
  response_format: format,
}: ChatRequest): { schema: unknown; isStrict: boolean } | undefined {
  if (!format || format.type === "text") return undefined;
  if (format.type === "json_object") return { schema: { type: "object" }, isStrict: false };
  const { schema, strict } = format.json_schema;
  const param = "response_format.json_schema.schema";
  return {
    schema: heldSchema(schema ?? { type: "object" }, param),
    isStrict: strict ?? (schema !== undefined && schema !== null),
  };
}

/** The tools that an answer may or must call. */
function callable(request: ChatRequest): { tools: Tool[]; params: string[]; isForced: boolean } {
  const { tools = [], tool_choice: choice = "auto" } = request;
  const params = tools.map((_, i) => `tools[${i}].function.parameters`);
  if (choice === "none") return { tools: [], params: [], isForced: false };
  if (choice === "required" && tools.length === 0)
    throw badRequest('tool_choice is "required", and there are no tools.', "tool_choice");
  if (typeof choice === "string") return { tools, params, isForced: choice === "required" };
  const { name } = choice.function;
  const at = tools.findIndex((tool) => tool.function.name === name);
  if (at < 0)
    throw badRequest(`tool_choice names ${shown(name)}, which is none of the tools.`, "tool_choice");
  return { tools: [tools[at]], params: [params[at]], isForced: true };
}

/** The grammar that a request asks for, if any. `form` is how the model writes calls. */
export function demandOf(request: ChatRequest, form: ToolForm | undefined): Demand | undefined {
  const { tools, params, isForced } = callable(request);
  const asked = answerSchema(request);
  if (tools.length > 0 && !form)
    throw badRequest(
      "This model's chat template has no form for tools that we read.",
      "tools",
      "unsupported",
    );
  const isParallel = request.parallel_tool_calls ?? true;
  const calls = (areParallel: boolean) => callsFormat(form!, callTags(form!, tools, params), areParallel);
  const formed = (format: object, param: string): Demand => ({
    source: { form: JSON.stringify({ type: "structural_tag", format: withReasoning(form, format) }) },
    param,
  });
  if (isForced) return formed(calls(isParallel), "tools");
  if (asked) {
    const { schema, isStrict } = asked;
    const isPlain = tools.length === 0 && form?.kind !== "harmony";
    if (isPlain) return { source: { schema: JSON.stringify(schema), isStrict }, param: "response_format" };
    const begin = "<|channel|>final<|message|>";
    const content = schemaFormat(schema);
    const answer = form?.kind === "harmony" ? { type: "tag", begin, content, end: "" } : content;
    const format = tools.length === 0 ? answer : { type: "or", elements: [answer, calls(false)] };
    return formed(format, "response_format");
  }
  const isStrict = tools.some((tool) => tool.function.strict === true);
  if (!isStrict || !form || form.kind !== "json" || form.begin.trim() === "") return undefined;
  const tags = callTags(form, tools, params);
  const format = {
    type: "triggered_tags",
    triggers: [form.begin.trim()],
    tags: tags.map((tag) => ({ ...tag, begin: tag.begin.trimStart() })),
    at_least_one: false,
    stop_after_first: !isParallel,
  };
  return formed(format, "tools");
}
