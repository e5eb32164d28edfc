import fs from "node:fs";
import { type Command, InvalidArgumentError } from "commander";
import { replaceFile } from "../data/files.js";
import { byteSize } from "./options.js";
import { download, hashFile, partialOf } from "./download.js";
import { inWords, readableSize, startProgress } from "./progress.js";
import { UsageError, advise, examples, printJson } from "./run.js";
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
  maxSize: number;
  json?: boolean;
}

/** `tslm data get`: a public text by name, or any file by its URL. */
export function registerGet(data: Command): void {
  const command = data
    .command("get <name-or-url>")
    .description("Download a text: checked by its sha256, taken up again where a connection broke.")
    .requiredOption("--out <file>", "where to put it; what is known about it goes to FILE.json")
    .option("--sha256 <hex>", "for a URL: what the file must hash to", sha256Text)
    .option("--max-size <n>", "for a URL: the most that is taken, such as 20GB", byteSize, 1e9)
    .option("--json", "print what was downloaded as one JSON object")
    .action(get);
  const names = Object.entries(publicSets).map(
    ([name, set]) => `  ${name}  ${set.about}, ${readableSize(set.bytes)}, ${set.license} (${set.page})`,
  );
  command.addHelpText(
    "after",
    `\nKnown by name:\n${names.join("\n")}\n\nA run that was stopped goes on when it is called again. Proxies are Node's own: NODE_USE_ENV_PROXY=1\nmakes it use HTTPS_PROXY and NO_PROXY (from Node 24 on). Nothing that is there already is written over.`,
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

/** What is known about the file that a name or a URL stands for, before it is downloaded. */
function downloadOf(
  what: string,
  { sha256, maxSize }: GetOptions,
): Omit<DownloadCard, "bytes" | "sha256" | "kind"> & { sha256?: string; maxBytes: number } {
  const set = Object.hasOwn(publicSets, what) ? publicSets[what] : undefined;
  if (set) {
    if (sha256 && sha256 !== set.sha256)
      throw new UsageError(`the sha256 of ${what} is known, and it is ${set.sha256}`);
    const { url, license, page } = set;
    return { name: what, url, sha256: set.sha256, license, page, maxBytes: set.bytes };
  }
  if (/^https?:\/\//i.test(what) && URL.canParse(what)) return { url: what, sha256, maxBytes: maxSize };
  const names = Object.keys(publicSets);
  throw new UsageError(
    `${what} is neither a URL nor a name that is known${suggestion(what, names)}; the names are: ${names.join(", ")}`,
  );
}

async function get(what: string, options: GetOptions): Promise<void> {
  const { sha256, maxBytes, ...origin } = downloadOf(what, options);
  const note = `${options.out}.json`;
  const before = readCard(note);
  const found =
    (await alreadyThere(options.out, sha256)) ??
    (await fetchWatched(origin.url, options.out, { sha256, maxBytes }));
  const card: DownloadCard = { kind: "download", ...origin, ...found };
  // What somebody has added to the card of this very file stays.
  if (before?.sha256 !== card.sha256) replaceFile(note, `${JSON.stringify(card, null, 2)}\n`);
  if (options.json) return printJson({ file: options.out, ...card });
  process.stdout.write(`${options.out}: ${found.bytes} bytes, sha256 ${found.sha256}\n`);
  if (!sha256)
    process.stderr.write(
      "There was no checksum to hold it against: give this one with --sha256 next time.\n",
    );
}

/** What `data get` wrote beside a file. Throws if something else lies there. */
function readCard(file: string): DownloadCard | undefined {
  if (!fs.existsSync(file)) return undefined;
  try {
    const card = JSON.parse(fs.readFileSync(file, "utf8"));
    if (card.kind === "download" && typeof card.url === "string") return card;
  } catch {} // it is not JSON
  throw new Error(
    `${file} is not tslm's, and what is known about the download would be written there: name another file.`,
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
async function fetchWatched(url: string, file: string, expected: { sha256?: string; maxBytes: number }) {
  const began = performance.now();
  const before = fs.statSync(partialOf(file).file, { throwIfNoEntry: false })?.size ?? 0;
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
    const got = await download(url, file, { ...expected, onBytes, onRetry });
    progress?.done(`${readableSize(got.bytes)} in ${inWords((performance.now() - began) / 1000)}`);
    return got;
  } catch (error) {
    progress?.done("stopped");
    advise(error, "What has arrived is kept: mend that and run it again to go on.");
    throw error;
  }
}
