/** A learner's kernel, put to work with care: poisoned outputs, a guarded end, errors in the learner's own lines. */
import { allocate, download, finish, kernel, release, run, upload } from "../gpu/commands.js";
import { GpuError, openGpu } from "../gpu/device.js";

/** Numbers that a kernel reads or writes. */
export type KernelArray = Float32Array | Uint32Array;

/** What stands around the statements that a learner writes. */
export interface KernelFrame {
  /** The arrays that the kernel reads, by name. */
  reads: { [name: string]: KernelArray };
  /** How many floats it is to write, by name. */
  writes: { [name: string]: number };
  workgroupSize: number;
  workgroups: number;
  /** Whole numbers that the statements may use, such as `rows`. They are data: the kernel is compiled once for all. */
  sizes: { [name: string]: number };
  /** Constants and functions that the statements may use. */
  head?: string;
}

/** What a learner's kernel wrote. `pastTheEnd` counts the elements written behind the end of an array. */
export interface KernelResult {
  [name: string]: Float32Array | number;
  pastTheEnd: number;
}

const GUARD = 64;
const POISON = 0x7fc0dead; // a NaN that no arithmetic gives

/** Says an error of the driver in the learner's own lines: the frame above them is not theirs. */
function inOwnLines(error: unknown, code: string, body: string): Error {
  const found = error instanceof GpuError && /does not compile: line (\d+): ([\s\S]*)/.exec(error.message);
  const kind = (message: string) => Object.assign(new Error(message), { name: "KernelError" });
  if (!found)
    return kind(`The GPU stopped your kernel: ${error instanceof Error ? error.message : String(error)}`);
  const above = code.slice(0, code.indexOf(body)).split("\n").length - 1;
  const line = Number(found[1]) - above;
  const text = body.split("\n")[line - 1]?.trim();
  // A missing brace is noticed only where the frame goes on.
  const where =
    text === undefined ? "At its end (is a brace or a semicolon missing?)" : `Line ${line}, \`${text}\``;
  return kind(`Your kernel does not compile. ${where}: ${found[2]}`);
}

const declared = (name: string, array: KernelArray) =>
  `${name}: array<${array instanceof Float32Array ? "f32" : "u32"}>`;

/** Splits what came back into the array itself and what was written behind it. */
function splitGuard(bytes: ArrayBuffer, length: number): { values: Float32Array; past: number } {
  const guard = new Uint32Array(bytes, length * 4);
  return {
    values: new Float32Array(bytes.slice(0, length * 4)),
    past: guard.filter((word) => word !== POISON).length,
  };
}

/**
 * Runs the statements `body` of a WGSL kernel, with the driver's bounds checks on. They see the arrays by name, `thread`,
 * `lane`, `workgroup` and `group`. Every output starts as NaN. Throws a sentence when the kernel does not compile.
 */
export async function runBody(body: unknown, frame: KernelFrame): Promise<KernelResult> {
  if (typeof body !== "string") {
    throw Object.assign(new Error("The statements of a kernel are expected, as a string of WGSL."), {
      name: "KernelError",
    });
  }
  await openGpu();
  const { writes, sizes, head, workgroupSize, workgroups } = frame;
  const reads = { given_sizes: Uint32Array.from(Object.values(sizes)), ...frame.reads };
  const given = Object.keys(sizes).map((name, i) => `let ${name} = given_sizes[${i}];`);
  const own = body.replace(/^\n+|\s+$/g, "");
  const program = kernel({
    name: "your kernel",
    reads: Object.entries(reads).map(([name, array]) => declared(name, array)),
    writes: Object.keys(writes).map((name) => `${name}: array<f32>`),
    workgroupSize,
    workgroups,
    head,
    body: [...given, own].join("\n"),
  });
  const inputs = Object.values(reads).map((array) => ({ array, storage: allocate(array.byteLength) }));
  const lengths = Object.values(writes);
  const outputs = lengths.map((length) => allocate((length + GUARD) * 4));
  try {
    for (const { array, storage } of inputs) upload(storage, array);
    for (const [i, storage] of outputs.entries())
      upload(storage, new Uint32Array(lengths[i] + GUARD).fill(POISON));
    run(program, [...inputs.map(({ storage }) => storage), ...outputs]);
    await finish();
    const parts: { values: Float32Array; past: number }[] = [];
    for (const [i, storage] of outputs.entries()) parts.push(splitGuard(await download(storage), lengths[i]));
    const arrays = Object.fromEntries(Object.keys(writes).map((name, i) => [name, parts[i].values]));
    return { ...arrays, pastTheEnd: parts.reduce((sum, { past }) => sum + past, 0) };
  } catch (error) {
    throw inOwnLines(error, program.code, own);
  } finally {
    for (const storage of [...inputs.map(({ storage }) => storage), ...outputs]) release(storage);
  }
}
