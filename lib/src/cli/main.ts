// The command line. Each command lives in a file of its own, which exports `register(program)`. What a command needs
// of the library it imports inside its action, so that `tslm --help` does not open a graphics driver.
import { Command } from "commander";
import { libraryVersion } from "../../bin/machine.mjs";
import * as bench from "./bench.js";
import * as data from "./data.js";
import * as doctor from "./doctor.js";
import * as generate from "./generate.js";
import * as init from "./init.js";
import { ending, examples, finish, outliveReaders } from "./run.js";
import * as score from "./score.js";
import * as tokenizer from "./tokenizer.js";
import * as train from "./train.js";

/**
 * Every command, in the order in which help lists them: doctor, data, tokenizer, init, train, generate, score, bench. To add one,
 * write `cli/NAME.ts` with `register(program)` and name it here.
 */
const commands = [doctor, data, tokenizer, init, train, generate, score, bench];

/** The program with all its commands. */
export function buildProgram(): Command {
  const program = new Command("tslm")
    .description("Train, run and inspect small modern language models on any GPU, or on none.")
    .version(libraryVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageSentence(text)) });
  examples(program, "npx tslm doctor", "npx tslm train --help");
  for (const command of commands) command.register(program);
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

/** Runs the command that `argv` (as in process.argv) names, and ends the process with its exit code. */
export async function main(argv: string[]): Promise<void> {
  outliveReaders();
  try {
    await buildProgram().parseAsync(argv);
    await finish(Number(process.exitCode ?? 0));
  } catch (error) {
    const { code, message } = ending(error);
    if (message) process.stderr.write(`${message}\n`);
    await finish(code);
  }
}
