import fs from "node:fs";
import { type Command, InvalidArgumentError } from "commander";
import { download, hashFile } from "./download.js";
import { writeFileAtomically } from "./files.js";
import { inWords, startProgress } from "./progress.js";
import { UsageError, examples, printJson } from "./run.js";
import { suggestion } from "./suggest.js";

/** A public text that can be had by name. */
export interface PublicSet {
  url: string;
  sha256: string;
  bytes: number;
  license: string;
  /** The page that tells about it. */
  page: string;
  about: string;
}

/** The texts that `data get` knows. */
export const publicSets: Record<string, PublicSet> = {
  tinyshakespeare: {
    url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    bytes: 1115394,
    license: "public domain",
    page: "https://github.com/karpathy/char-rnn",
    about: "40,000 lines of Shakespeare's plays",
  },
};

/** What `data get` leaves beside a file as FILE.json; `data prepare` reads licence and origin from it. */
export interface DownloadCard {
  kind: "download";
  name?: string;
  url: string;
  bytes: number;
  sha256: string;
  license?: string;
  page?: string;
}

interface GetOptions {
  out: string;
  sha256?: string;
  json?: boolean;
}

/** `tslm data get`: a public text by name, or any file by its URL. */
export function registerGet(data: Command): void {
  const command = data
    .command("get <name-or-url>")
    .description("Download a text: checked by its sha256, taken up again where a connection broke.")
    .requiredOption("--out <file>", "where to put it; what is known about it goes to FILE.json")
    .option("--sha256 <hex>", "for a URL: what the file must hash to", sha256Text)
    .option("--json", "print what was downloaded as one JSON object")
    .action(get);
  const names = Object.entries(publicSets).map(
    ([name, set]) => `  ${name}  ${set.about}, ${readableSize(set.bytes)}, ${set.license} (${set.page})`,
  );
  command.addHelpText(
    "after",
    `\nKnown by name:\n${names.join("\n")}\n\nA run that was stopped goes on when it is called again. Proxies are Node's own: NODE_USE_ENV_PROXY=1\nmakes it use HTTPS_PROXY and NO_PROXY (from Node 24 on).`,
  );
  examples(
    command,
    "npx tslm data get tinyshakespeare --out input.txt",
    "npx tslm data get https://example.org/corpus.jsonl.zst --out corpus.jsonl.zst --sha256 9f86d0...",
  );
}

function sha256Text(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError("It must be 64 hexadecimal digits.");
}

/** A number of bytes as a person says it: 1.1 MB. */
export function readableSize(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power > 0 && bytes / 1000 ** power < 100 ? 1 : 0)} ${units[power]}`;
}

/** What is known about the file that a name or a URL stands for, before it is downloaded. */
function wanted(
  what: string,
  sha256: string | undefined,
): Omit<DownloadCard, "bytes" | "sha256" | "kind"> & { sha256?: string } {
  const set = Object.hasOwn(publicSets, what) ? publicSets[what] : undefined;
  if (set) {
    if (sha256 && sha256 !== set.sha256)
      throw new UsageError(`the sha256 of ${what} is known, and it is ${set.sha256}`);
    const { url, license, page } = set;
    return { name: what, url, sha256: set.sha256, license, page };
  }
  if (/^https?:\/\//i.test(what) && URL.canParse(what)) return { url: what, sha256 };
  const names = Object.keys(publicSets);
  throw new UsageError(
    `${what} is neither a URL nor a name that is known${suggestion(what, names)}; the names are: ${names.join(", ")}`,
  );
}

async function get(what: string, options: GetOptions): Promise<void> {
  const { sha256, ...known } = wanted(what, options.sha256);
  const found =
    (await alreadyThere(options.out, sha256)) ?? (await fetchWatched(known.url, options.out, sha256));
  const card: DownloadCard = { kind: "download", ...known, ...found };
  writeFileAtomically(`${options.out}.json`, `${JSON.stringify(card, null, 2)}\n`);
  if (options.json) return printJson({ file: options.out, ...card });
  process.stdout.write(`${options.out}: ${found.bytes} bytes, sha256 ${found.sha256}\n`);
  if (!sha256)
    process.stderr.write(
      "There was no checksum to hold it against: give this one with --sha256 next time.\n",
    );
}

/** The file, where it was downloaded before. A file that cannot be told to be it is not written over. */
async function alreadyThere(
  file: string,
  sha256: string | undefined,
): Promise<{ bytes: number; sha256: string } | undefined> {
  const there = fs.statSync(file, { throwIfNoEntry: false });
  if (!there) return undefined;
  if (there.isFile() && sha256 && (await hashFile(file)) === sha256) {
    process.stderr.write(`${file} is there already, and its checksum holds.\n`);
    return { bytes: there.size, sha256 };
  }
  throw new Error(`${file} exists and is something else: name another file, or delete it first.`);
}

/** Downloads with a bar that says how fast it goes and how long it still takes. */
async function fetchWatched(url: string, file: string, sha256: string | undefined) {
  const began = performance.now();
  const before = fs.statSync(`${file}.partial`, { throwIfNoEntry: false })?.size ?? 0;
  let progress: ReturnType<typeof startProgress> | undefined;
  const bar = (total?: number) => {
    progress ??= startProgress("Downloading", total ?? Number.POSITIVE_INFINITY);
    return progress;
  };
  const onBytes = (done: number, total: number | undefined) => {
    const rate = Math.max(0, done - before) / ((performance.now() - began) / 1000);
    const left = total === undefined || rate === 0 ? "" : `, ${inWords((total - done) / rate)} left`;
    const of = total === undefined ? "" : ` of ${readableSize(total)}`;
    bar(total).update(done, `${readableSize(done)}${of}, ${readableSize(rate)}/s${left}`);
  };
  const onRetry = (reason: string, seconds: number) => bar().say(`${reason}; trying again in ${seconds} s`);
  try {
    const got = await download(url, file, { sha256, onBytes, onRetry });
    progress?.done(`${readableSize(got.bytes)} in ${inWords((performance.now() - began) / 1000)}`);
    return got;
  } catch (error) {
    progress?.done("stopped");
    throw error;
  }
}
