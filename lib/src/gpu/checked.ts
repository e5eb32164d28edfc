// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.
import type { Storage } from "./buffers.js";
import { allocate, checkArrays, download, finish, pipelineFor, release, run, upload } from "./commands.js";
import { GpuError, currentGpu } from "./device.js";
import { type Kernel, type KernelParts, kernel, sourceText } from "./kernel.js";

//| 02-attention/a-the-engine-room.ipynb#inside-function
/** Three counters for each way into an array: accesses that missed it, the lowest index of those, the array's length. */
export const outsideCounters = 3;

/** Passes on an index that lies inside. Writes down one that does not, and passes on the last one that does. */
export const insideFunction = `
fn tslm_inside(way: u32, index: u32, length: u32) -> u32 {
  if (index < length) { return index; }
  atomicAdd(&tslm_outside[way * ${outsideCounters}u], 1u);
  atomicMin(&tslm_outside[way * ${outsideCounters}u + 1u], index);
  atomicStore(&tslm_outside[way * ${outsideCounters}u + 2u], length);
  return length - 1u;
}`;

//| 02-attention/a-the-engine-room.ipynb#check-accesses
/** Where the bracket closes that opens at `open`; -1 when it never does. */
export function closingBracket(code: string, open: number): number {
  let depth = 0;
  for (let at = open; at < code.length; at++) {
    if (code[at] === "[") depth += 1;
    if (code[at] === "]" && --depth === 0) return at;
  }
  return -1;
}

/** Whether an access between these two pieces of code writes: something is assigned to it, or its address is taken. */
export function isWritten(before: string, after: string): boolean {
  const assigned = /^(\s*(\.\w+|\[[^\]]*\]))*\s*(=(?!=)|([-+*/%&|^]|<<|>>)=|\+\+|--)/;
  return assigned.test(after) || /(^|[^&])&\s*$/.test(before);
}

/** Sends the index of every access to one of these arrays through `tslm_inside`. */
export function checkAccesses(code: string, arrays: string[]): string {
  if (arrays.length === 0) return code;
  const found = new RegExp(`(?<![\\w.])(${arrays.join("|")})\\s*\\[`).exec(code);
  const open = found ? found.index + found[0].length - 1 : -1;
  const close = closingBracket(code, open);
  if (!found || close < 0) return code;
  const [before, name, after] = [code.slice(0, found.index), found[1], code.slice(close + 1)];
  const way = 2 * arrays.indexOf(name) + Number(isWritten(before, after));
  const index = checkAccesses(code.slice(open + 1, close), arrays);
  const inside = `tslm_inside(${way}u, u32((${index}) | 0), arrayLength(&${name}))`;
  return `${before}${name}[${inside}]${checkAccesses(after, arrays)}`;
}

//| 02-attention/a-the-engine-room.ipynb#checked-kernel
/** The arrays of a kernel, by name, in the order of its bindings. */
export function arrayNames({ reads, writes }: KernelParts): string[] {
  return [...reads, ...writes].flatMap(
    (declaration) => /^(\w+)\s*:\s*array<[^,]*>$/.exec(declaration)?.[1] ?? [],
  );
}

/**
 * The kernel with its array accesses checked: one more array that it writes, behind its own, holds the counters of each
 * array's reads and writes. It finds accesses that are written `name[index]`, not those through a pointer to the array.
 */
export function checkedKernel(parts: KernelParts): Kernel {
  const arrays = arrayNames(parts);
  const comments = /\/\/.*|\/\*[\s\S]*?\*\//g;
  const checked = (code: string) => checkAccesses(code.replace(comments, ""), arrays);
  return kernel({
    ...parts,
    key: undefined, // it stands for the source without the checks
    writes: [...parts.writes, "tslm_outside: array<atomic<u32>>"],
    head: `${checked(sourceText(parts.head ?? ""))}\n${insideFunction}`,
    body: checked(sourceText(parts.body)),
  });
}

//| 02-attention/a-the-engine-room.ipynb#outside-accesses
/** What the counters say, a part of a sentence for each way into an array that led outside. */
export function outsideAccesses(arrays: string[], counters: Uint32Array): string[] {
  return arrays.flatMap((name, a) =>
    ["read", "wrote"].flatMap((did, w) => {
      const [count, lowest, length] = counters.subarray((2 * a + w) * outsideCounters);
      const again = count > 1 ? `, and missed it ${(count - 1).toLocaleString("en")} times more` : "";
      // As a signed number: an index that was counted down below 0 is large without a sign.
      const what = `${did} ${name}[${lowest | 0}], which has ${length} elements (last index ${length - 1})`;
      return count > 0 ? [what + again] : [];
    }),
  );
}

//| 02-attention/a-the-engine-room.ipynb#run-checked
/**
 * Runs a kernel that may be wrong, and waits for it. Throws when it does not compile, and when it reads or writes outside
 * of an array: with the array, the index and the array's length.
 */
export async function runChecked(parts: KernelParts, storages: Storage[]): Promise<void> {
  const [plain, arrays] = [kernel(parts), arrayNames(parts)];
  checkArrays(plain, storages);
  pipelineFor(currentGpu(), plain); // so that mistakes in the source are told with its own lines
  await finish();
  const fresh = arrays.flatMap(() => [0, 0xffffffff, 0, 0, 0xffffffff, 0]);
  const counters = allocate(4 * fresh.length, "The counters of accesses");
  try {
    upload(counters, Uint32Array.from(fresh));
    run(checkedKernel(parts), [...storages, counters]);
    const missed = outsideAccesses(arrays, new Uint32Array(await download(counters)));
    if (missed.length > 0) throw new GpuError(`Kernel "${parts.name}" ${missed.join("; it also ")}.`);
  } finally {
    release(counters);
  }
}
