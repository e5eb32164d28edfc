/** A learner's kernel, put to work with care: poisoned outputs, checked accesses, errors in the learner's own lines. */
import { closingBracket, runChecked } from "../gpu/checked.js";
import { allocate, download, release, upload } from "../gpu/commands.js";
import { type KernelParts, kernel } from "../gpu/kernel.js";
import { GpuError, openGpu } from "../gpu/device.js";
import { POISON } from "./compare.js";

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
  /** An array that every thread is to go over once: a kernel that does so again is told. */
  once?: string;
}

/** What a learner's kernel wrote, by the names of the arrays. */
export interface KernelResult {
  [name: string]: Float32Array;
}

/**
 * How often a loop of a learner's kernel may go round before it counts as one that never ends. Kernels are given it as data:
 * a compiler that knows how often a loop goes round may write out all of its rounds.
 */
const MOST_TURNS = 2 ** 16;

/** The code without comments, on as many lines. */
const withoutComments = (code: string) =>
  code.replace(/\/\/.*|\/\*[\s\S]*?\*\//g, (text) => text.replace(/./g, " "));

/** The statements with every loop counted, on the same lines: one that does not end would hold the GPU for ever. */
function endLoops(body: string): string {
  let count = 0;
  return withoutComments(body).replace(/\b(?:for|while|loop)\b[^{}]*\{/g, (head) => {
    const turns = `your_turns_${count++}`;
    const leave = `if (${turns} >= your_most_turns) { your_loops[0] = 1.0; break; }`;
    return `var ${turns} = 0u; ${head} ${leave} ${turns} += 1u;`;
  });
}

/**
 * Says an error of the GPU's in the learner's own words and lines: the frame above them is not theirs. `placed` is `body` as
 * it stands in `code`.
 */
function inOwnLines(error: unknown, code: string, placed: string, body: string): Error {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && error.name === "KernelError") return error;
  const kind = (text: string) => Object.assign(new Error(text), { name: "KernelError" });
  const missed = /^Kernel "your kernel" ((?:read|wrote) [\s\S]*)/.exec(message);
  if (missed) return kind(`Your kernel ${missed[1]}`);
  const found = error instanceof GpuError && /does not compile: line (\d+): ([\s\S]*)/.exec(message);
  if (!found) return kind(`The GPU stopped your kernel: ${message}`);
  const above = code.slice(0, code.indexOf(placed)).split("\n").length - 1;
  const line = Number(found[1]) - above;
  const text = body.split("\n")[line - 1]?.trim();
  // A missing brace is noticed only where the frame goes on.
  const where =
    text === undefined ? "At its end (is a brace or a semicolon missing?)" : `Line ${line}, \`${text}\``;
  return kind(`Your kernel does not compile. ${where}: ${found[2]}`);
}

/** Passes on an index, and counts where a thread goes on to another element. */
const GOING = `
var<private> your_last: u32 = 0xffffffffu;
fn your_going(index: u32) -> u32 {
  if (index != your_last) { atomicAdd(&your_reads[0], 1u); }
  your_last = index;
  return index;
}`;

/** The code with the accesses to an array counted, on as many lines. */
function countAccesses(code: string, array: string): string {
  const found = new RegExp(`(?<![\\w.])${array}\\s*\\[`).exec(code);
  const open = found ? found.index + found[0].length - 1 : -1;
  const close = closingBracket(code, open);
  if (!found || close < 0) return code;
  const index = countAccesses(code.slice(open + 1, close), array);
  const rest = countAccesses(code.slice(close + 1), array);
  return `${code.slice(0, open + 1)}your_going(u32(${index}))]${rest}`;
}

/** Throws if all threads together went to more elements than an array has, and some to spare for each. */
function checkReadings(name: string, reads: number, elements: number, threads: number): void {
  if (reads <= elements + 2 * threads) return;
  const [often, many] = [reads, elements].map((count) => count.toLocaleString("en"));
  const text = `Your kernel goes over ${name} more than once: it reads ${often} times from ${many} elements.`;
  throw Object.assign(new Error(text), { name: "KernelError" });
}

const declared = (name: string, array: KernelArray) =>
  `${name}: array<${array instanceof Float32Array ? "f32" : "u32"}>`;

/**
 * Runs the statements `body` of a WGSL kernel, with every array access checked. They see the arrays by name, `thread`,
 * `lane`, `workgroup` and `group`. Every output starts as NaN. Throws a sentence when the kernel does not compile, and when
 * it reads or writes outside of an array.
 */
export async function runBody(body: unknown, frame: KernelFrame): Promise<KernelResult> {
  if (typeof body !== "string") {
    throw Object.assign(new Error("The statements of a kernel are expected, as a string of WGSL."), {
      name: "KernelError",
    });
  }
  await openGpu();
  const { writes, head = "", once, workgroupSize, workgroups } = frame;
  const sizes = { ...frame.sizes, your_most_turns: MOST_TURNS };
  const reads = { given_sizes: Uint32Array.from(Object.values(sizes)), ...frame.reads };
  const given = Object.keys(sizes).map((name, i) => `let ${name} = given_sizes[${i}];`);
  const own = body.replace(/^\n+|\s+$/g, "");
  const ending = endLoops(own);
  const placed = once ? countAccesses(ending, once) : ending;
  const parts: KernelParts = {
    name: "your kernel",
    reads: Object.entries(reads).map(([name, array]) => declared(name, array)),
    writes: [
      ...[...Object.keys(writes), "your_loops"].map((name) => `${name}: array<f32>`),
      ...(once ? ["your_reads: array<atomic<u32>>"] : []),
    ],
    workgroupSize,
    workgroups,
    head: once ? `${head}${GOING}` : head,
    body: [...given, placed].join("\n"),
  };
  const inputs = Object.values(reads).map((array) => ({ array, storage: allocate(array.byteLength) }));
  const outputs = Object.entries(writes).map(([name, length]) => ({
    name,
    length,
    storage: allocate(length * 4),
  }));
  const loops = allocate(4);
  const counter = once ? [allocate(4, "The counter of reads")] : [];
  const storages = [...[...inputs, ...outputs].map(({ storage }) => storage), loops, ...counter];
  try {
    for (const { array, storage } of inputs) upload(storage, array);
    for (const { length, storage } of outputs) upload(storage, new Uint32Array(length).fill(POISON));
    upload(loops, new Float32Array(1));
    for (const storage of counter) upload(storage, Uint32Array.of(0));
    await runChecked(parts, storages);
    if (new Float32Array(await download(loops))[0])
      throw new GpuError(
        `one of its loops does not end: it went round ${MOST_TURNS.toLocaleString("en")} times.`,
      );
    for (const storage of counter) {
      const [reads] = new Uint32Array(await download(storage));
      checkReadings(once!, reads, frame.reads[once!].length, workgroups * workgroupSize);
    }
    const result: KernelResult = {};
    for (const { name, storage } of outputs) result[name] = new Float32Array(await download(storage));
    return result;
  } catch (error) {
    throw inOwnLines(error, kernel(parts).code, placed, own);
  } finally {
    for (const storage of storages) release(storage);
  }
}
