// The types of machine.mjs, which is plain JavaScript because it runs before the library is built.

/** The version of the npm package `tslm`. */
export function libraryVersion(library?: string): string;
export const libraryFolder: string;
export function findBook(library?: string): string | undefined;
export function libraryState(library?: string): "current" | "stale" | "missing";
export function newestChange(file: string): number;

export function nodeIsEnough(version?: string): boolean;
export function nodeMend(platform?: NodeJS.Platform): string;

/** What /etc/os-release says. */
export interface Distribution {
  id: string;
  like: string[];
  version: number;
  codename: string;
  name: string;
}
/** One enabled entry of apt's sources. */
export interface AptSource {
  suites: string[];
  components: string[];
  uri?: string;
  options?: string;
  fields?: Record<string, { name: string; value: string }>;
}
export function readDistribution(root?: string): Distribution;
export function readAptSources(root?: string): AptSource[];
export function parseSourceLines(text: string): AptSource[];
export function parseSourceStanzas(text: string): AptSource[];
export function backportsSource(
  entries: AptSource[],
  codename: string,
): { path: string; text: string } | null | undefined;

export function needsSudo(): boolean;
export function aptCommands(
  packages: string[],
  options?: { root?: string; backports?: boolean; sudo?: boolean },
): string[] | undefined;

/** What mends something: shell commands in order, and whether set-up may run them itself. */
export interface Mend {
  commands: string[];
  automatic: boolean;
  reason: string;
}
interface Platform {
  platform?: NodeJS.Platform;
  root?: string;
  sudo?: boolean;
}
export function adapterMend(options?: Platform): Mend;
export function jupyterMend(options?: Platform): string;

/** How many seconds to wait before what takes `seconds` on a slow day of a usual machine counts as stuck on this one. */
export function patience(seconds: number): number;

/** What the adapter is, or the reason why there is none. */
export interface AdapterFindings {
  ok: boolean;
  reason?: string;
  name?: string;
  vendor?: string;
  architecture?: string;
  kind?: "cpu" | "integrated" | "discrete" | "unknown";
  driver?: string;
  features?: string[];
  limits?: Record<string, number>;
}
export function probeAdapter(options?: { env?: NodeJS.ProcessEnv; timeoutSeconds?: number }): AdapterFindings;
export function gpuEnvironment(env?: NodeJS.ProcessEnv): NodeJS.ProcessEnv;
export function graphicsCards(root?: string): string[];

export function findPackage(name: string, from?: string): string | undefined;
export function findProgram(name: string, folders?: string[]): string | undefined;
export function environmentFolder(book: string): string;
export function findJupyter(
  book?: string,
  searched?: string[],
): { kind: "lab" | "notebook"; program: string } | undefined;
export function findPython(module: string, book?: string): string | undefined;
export function findBrowser(): string | undefined;
