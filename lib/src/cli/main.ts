// The command line. Each command lives in a file of its own, which exports `configure(command)` and is imported when that command
// is called: help needs none of them, and what a command needs of the library it imports as any module does.
import { Command } from "commander";
import { libraryVersion } from "../../bin/machine.mjs";
import { ending, examples, finish, outliveReaders } from "./run.js";

/** A command as help lists it, and where it is. */
interface Entry {
  description: string;
  load: () => Promise<{ configure(command: Command): void }>;
}

/** Every command, in the order in which help lists them. To add one, write `cli/NAME.ts` with `configure(command)` and name it here. */
const commands: Record<string, Entry> = {
  doctor: {
    description: "Say what this machine has, what is missing, and the command that mends it.",
    load: () => import("./doctor.js"),
  },
  data: {
    description: "Make and prepare the text that a model learns from.",
    load: () => import("./data.js"),
  },
  tokenizer: {
    description: "Train a tokenizer; encode and decode with it; judge it.",
    load: () => import("./tokenizer.js"),
  },
  init: {
    description:
      "Write a model with random weights: config.json, model.safetensors and what belongs to them.",
    load: () => import("./init.js"),
  },
  describe: {
    description:
      "Say what a model is and costs, from its config.json alone: parameters, arithmetic, memory, layers.",
    load: () => import("./describe.js"),
  },
  train: {
    description: "Train a model; leaves metrics, checkpoints, the model and a report in a folder.",
    load: () => import("./train.js"),
  },
  generate: {
    description: "Continue a text with a model, as it comes; the same seed gives the same text.",
    load: () => import("./generate.js"),
  },
  serve: {
    description: "Answer over HTTP as OpenAI's clients ask, many at once; the same seed gives the same text.",
    load: () => import("./serve.js"),
  },
  score: {
    description: "The mean loss, in nats a token, of predicting each next id; and all logits if wanted.",
    load: () => import("./score.js"),
  },
  quantize: {
    description: "Write a model in fewer bits: int8, int4, MXFP4 or halves; it opens as any other.",
    load: () => import("./quantize.js"),
  },
  export: {
    description: "Write a model as one GGUF file, which llama.cpp and the programs around it run.",
    load: () => import("./export.js"),
  },
  bench: {
    description:
      "Measure this adapter's ceiling, every hot operation as a share of it, and training steps part by part.",
    load: () => import("./bench.js"),
  },
};

/** The program with all its commands: those that are named know their options, the others only what help says of them. */
export async function buildProgram(names = Object.keys(commands)): Promise<Command> {
  const program = new Command("tslm")
    .description("Train, run and inspect small modern language models on any GPU, or on none.")
    .version(libraryVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageSentence(text)) });
  examples(program, "npx tslm doctor", "npx tslm train --help");
  for (const [name, { description, load }] of Object.entries(commands)) {
    const command = program.command(name).description(description);
    if (names.includes(name)) (await load()).configure(command);
  }
  return program;
}

/** Commander's word on bad usage, as one sentence like all our others. */
function usageSentence(text: string): string {
  return text.replace(/^error: /, "tslm: ").replace("\n(Did you", " (did you");
}

/** A command and all the commands below it. */
export function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}

/** Runs the command that `argv` (as in process.argv) names, says what went wrong, and gives the code to end with. */
export async function runCommand(argv: string[]): Promise<number> {
  const words = argv.slice(2).filter((word) => !word.startsWith("-"));
  try {
    await (await buildProgram(words.slice(0, 1))).parseAsync(argv);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    const { code, message } = ending(error);
    if (message) process.stderr.write(`${message}\n`);
    return code;
  }
}

/** Runs a command and ends the process with its code. */
export async function main(argv: string[]): Promise<void> {
  outliveReaders();
  await finish(await runCommand(argv));
}
