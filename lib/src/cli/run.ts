// How every command ends: exit code 0, or 1 with one sentence on stderr for what a person can mend, or 2 for bad usage.
import { type Command, CommanderError } from "commander";

/** A mistake in how a command was called, found by the command itself; exit code 2. */
export class UsageError extends Error {}

const systemErrors: Record<string, string> = {
  ENOENT: "there is no such file or folder",
  EACCES: "you may not read or write it",
  EPERM: "you may not read or write it",
  EISDIR: "it is a folder, not a file",
  ENOTDIR: "a part of its path is a file, not a folder",
  ENOSPC: "the disk is full",
  EDQUOT: "your share of the disk is used up",
  EFBIG: "the disk holds no file of that size",
  EIO: "the disk failed to read or write it",
  EROFS: "the disk is read-only",
  EMFILE: "too many files are open",
  ENFILE: "too many files are open",
  EEXIST: "it exists already",
  ENAMETOOLONG: "its name is too long",
  ELOOP: "its links lead in a circle",
  EBUSY: "another program is using it",
  ENOMEM: "there is not enough memory for it",
};

/** What a person does about a disk that failed, unless a command knows better. */
const mend: Record<string, string> = {
  ENOSPC: "Make room there and run it again.",
  EDQUOT: "Make room there and run it again.",
  EIO: "Look after the disk, then run it again.",
};

/** Adds to an error of the operating system what was kept, and how to go on; other errors stay as they are. */
export function advise(error: unknown, advice: string): void {
  if (error instanceof Error && "syscall" in error) Object.assign(error, { advice });
}

/** What an error from the operating system says, as a sentence that names the file where it is known. */
export function systemErrorSentence(error: NodeJS.ErrnoException & { advice?: string }): string | undefined {
  const { code = "", path: file, syscall, advice = mend[code] } = error;
  const reason = systemErrors[code];
  if (!reason || (syscall === undefined && file === undefined)) return undefined;
  // Errors of an open file do not say which it was.
  return `${file ?? `a ${syscall} failed`}: ${reason}${advice ? `. ${advice}` : ""}`;
}

/** The exit code and the message (none where commander has printed it) for an error that ended a command. */
export function ending(error: unknown): { code: number; message?: string } {
  if (error instanceof CommanderError) return { code: error.exitCode === 0 ? 0 : 2 };
  if (!(error instanceof Error)) return { code: 1, message: `tslm: ${String(error)}` };
  const code = error instanceof UsageError ? 2 : 1;
  if (process.env.TSLM_DEBUG === "1") return { code, message: error.stack ?? error.message };
  const sentence = systemErrorSentence(error) ?? error.message;
  // A TypeError and its kin come from a fault in the program, not from anything a person did.
  const fault = error.name !== "Error" && /^(Type|Range|Reference|Syntax)Error$/.test(error.name);
  const hint = " (a fault in tslm; TSLM_DEBUG=1 shows where)";
  return { code, message: `tslm: ${sentence}${fault ? hint : ""}` };
}

/**
 * Keeps a command alive whose output goes nowhere. What stderr says (progress, advice) is never worth the work that it
 * speaks of. Results go to stdout when all files are written: a reader that had enough, as in `tslm generate | head`, is no
 * failure, and any other loss of them is one.
 */
export function outliveReaders(): void {
  process.stderr.on("error", () => {});
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(process.exitCode ?? 0);
    const reason = systemErrors[error.code ?? ""] ?? error.message;
    process.stderr.write(`tslm: what was to be printed is lost: ${reason}\n`);
    process.exit(1);
  });
}

/** Signals that ask a command to end, with what a shell says of a program that one of them ended. */
export const stopSignals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/** Ends the process once what it printed has gone out. Dawn may keep a process alive, so it does not end by itself. */
export async function finish(code: number): Promise<never> {
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((resolve) => stream.write("", () => resolve()));
  process.exit(code);
}

/** Adds examples to a command's help. Every command has at least one. */
export function examples(command: Command, ...lines: string[]): Command {
  const shown = lines.map((line) => `  $ ${line}`).join("\n");
  return command.addHelpText("after", `\nExample${lines.length > 1 ? "s" : ""}:\n${shown}`);
}

/** Prints a report as one JSON object on stdout. */
export function printJson(report: unknown): void {
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
}
