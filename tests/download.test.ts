// `tslm data get` against a server of our own that does what servers do: cuts, changes its files, knows no ranges.
import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import zlib from "node:zlib";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { publicSets } from "../lib/src/cli/data-get.js";
import { type DownloadOptions, download, partialOf } from "../lib/src/cli/download.js";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tslm get "));
const file = path.join(folder, "file.txt");
const hashOf = (bytes: Uint8Array) => crypto.createHash("sha256").update(bytes).digest("hex");
const version = (seed: number) =>
  Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * i * seed) >> 3));

/** How the server behaves, and what it was asked. */
let served = { bytes: version(1), ranges: true, validator: "etag" as "etag" | "date" | "none", length: true };
/** Where each request's answer breaks off (bytes sent), or a status instead of an answer; then all go through. */
let faults: (
  | { cut: number }
  | { status: number; headers?: Record<string, string> }
  | { after: () => void; cut: number }
  | { send: (response: http.ServerResponse) => void }
)[] = [];
let asked: http.IncomingHttpHeaders[] = [];

function answer(request: http.IncomingMessage, response: http.ServerResponse): void {
  asked.push(request.headers);
  const fault = faults.shift();
  if (fault && "status" in fault) return void response.writeHead(fault.status, fault.headers).end("no");
  if (fault && "send" in fault) return void fault.send(response);
  const { bytes, ranges, length } = served;
  const validator = {
    etag: `"${hashOf(bytes)}"`,
    date: `Thu, 01 Jan 2026 00:00:${bytes[9] % 60} GMT`,
    none: "",
  }[served.validator];
  const headers: Record<string, string> = {};
  if (validator) headers[served.validator === "etag" ? "etag" : "last-modified"] = validator;
  const condition = request.headers["if-range"];
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const partial = ranges && from > 0 && (condition === undefined || condition === validator);
  if (partial && from >= bytes.length)
    return void response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
  const body = partial ? bytes.subarray(from) : bytes;
  if (partial) headers["content-range"] = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
  if (length) headers["content-length"] = `${body.length}`;
  response.writeHead(partial ? 206 : 200, headers);
  if (!fault) return void response.end(body);
  response.write(body.subarray(0, fault.cut), () => setTimeout(() => response.destroy(), 200));
  if ("after" in fault) fault.after();
}

const server = http.createServer(answer);
let url = "";
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/file.txt`;
});
afterEach(() => {
  served = { bytes: version(1), ranges: true, validator: "etag", length: true };
  [faults, asked] = [[], []];
  for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name), { recursive: true });
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  fs.rmSync(folder, { recursive: true });
});

const waits: number[] = [];
const fetchIt = (options: DownloadOptions = {}) =>
  download(url, file, {
    wait: async (seconds) => void waits.push(seconds),
    sha256: hashOf(served.bytes),
    ...options,
  });
const left = () => fs.readdirSync(folder).sort();

test("a file arrives whole, under its name only when its checksum holds, and nothing beside it", async () => {
  const seen: [number, number | undefined][] = [];
  const got = await fetchIt({ onBytes: (done, total) => seen.push([done, total]) });
  expect(got).toEqual({ bytes: 300_000, sha256: hashOf(served.bytes) });
  expect(seen.at(-1)).toEqual([300_000, 300_000]);
  expect(fs.readFileSync(file)).toEqual(served.bytes);
  expect(left()).toEqual(["file.txt"]);
});

test("a connection that is cut is taken up where it broke, however often", async () => {
  for (const validator of ["etag", "date", "none"] as const) {
    served.validator = validator;
    faults = [{ cut: 1000 }, { cut: 70_000 }, { cut: 1 }, { status: 503 }, { cut: 100_000 }];
    await fetchIt();
    expect(fs.readFileSync(file)).toEqual(served.bytes);
    expect(asked.map(({ range }) => range)).toEqual([
      undefined,
      "bytes=1000-",
      "bytes=71000-",
      "bytes=71001-",
      "bytes=71001-",
      "bytes=171001-",
    ]);
    asked = [];
    fs.rmSync(file);
  }
});

test("a server without ranges, or without versions where no checksum is known, is begun with again", async () => {
  served.ranges = false;
  faults = [{ cut: 5000 }];
  await fetchIt();
  expect(fs.readFileSync(file)).toEqual(served.bytes);
  served = { ...served, ranges: true, validator: "none" };
  faults = [{ cut: 5000 }];
  fs.rmSync(file);
  await fetchIt({ sha256: undefined });
  expect(asked.at(-1)?.range).toBeUndefined();
  expect(fs.readFileSync(file)).toEqual(served.bytes);
});

test("of a file that changed between two tries nothing old is kept", async () => {
  const change = () => {
    served.bytes = version(5);
  };
  for (const validator of ["etag", "date", "none"] as const) {
    served = { bytes: version(1), ranges: true, validator, length: true };
    faults = [{ cut: 100_000, after: change }];
    await fetchIt({ sha256: hashOf(version(5)) });
    expect(fs.readFileSync(file)).toEqual(version(5));
    fs.rmSync(file);
  }
  const shorten = () => {
    served.bytes = version(5).subarray(0, 50_000);
  };
  served.validator = "etag";
  faults = [{ cut: 100_000, after: shorten }];
  await fetchIt({ sha256: undefined }); // it became shorter than what had arrived
  expect(fs.statSync(file).size).toBe(50_000);
});

test("a stopped download is gone on with by the next call, and one of another address is not", async () => {
  faults = Array.from({ length: 5 }, (_, i) => (i === 0 ? { cut: 40_000 } : { status: 500 }));
  await expect(fetchIt()).rejects.toThrow(
    "the server answered 500 Internal Server Error. Run it again to go on.",
  );
  expect(left()).toEqual([".file.txt.tslm-partial", ".file.txt.tslm-partial.json"]);
  asked = [];
  await fetchIt();
  expect(asked.map(({ range }) => range)).toEqual(["bytes=40000-"]);
  fs.renameSync(file, partialOf(file).file); // all of it, but not yet under its name
  fs.writeFileSync(partialOf(file).note, JSON.stringify({ url, validator: `"${hashOf(served.bytes)}"` }));
  await fetchIt();
  expect(fs.readFileSync(file)).toEqual(served.bytes);
  fs.renameSync(file, partialOf(file).file);
  fs.writeFileSync(partialOf(file).note, JSON.stringify({ url: `${url}?other`, validator: "x" }));
  await fetchIt();
  expect(asked.at(-1)?.range).toBeUndefined();
});

test("waiting grows, and a server that asks for time gets it", async () => {
  waits.length = 0;
  faults = [
    { status: 503 },
    { status: 502 },
    { status: 429, headers: { "retry-after": "7" } },
    { status: 500 },
  ];
  await fetchIt();
  expect(waits).toEqual([1, 2, 7, 8]);
});

test("what another try cannot mend is said at once, and a wrong checksum leaves nothing", async () => {
  faults = [{ status: 404 }];
  await expect(fetchIt()).rejects.toThrow(
    "cannot be downloaded: the server answered 404 Not Found: there is no such file.",
  );
  expect(asked.length).toBe(1);
  await expect(fetchIt({ sha256: "0".repeat(64) })).rejects.toThrow(
    `its sha256 is ${hashOf(served.bytes)}, not 0000`,
  );
  expect(left()).toEqual([]);
});

test("a connection that falls silent counts as cut, and a server that is not there is named", async () => {
  const silent = http.createServer(
    (_, response) => void response.writeHead(200, { "content-length": "10" }).write("ab"),
  );
  await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`;
  const options = { tries: 2, patience: 0.1, wait: async () => {} };
  await expect(download(address, file, options)).rejects.toThrow("no byte came for 0.1 seconds");
  silent.closeAllConnections();
  await new Promise((resolve) => silent.close(resolve));
  await expect(download(address, file, options)).rejects.toThrow("ECONNREFUSED");
});

test("a part that was not asked for, or is of another version, is never joined nor taken for the whole", async () => {
  const part = (range: string, headers = {}, body = served.bytes.subarray(0, 100)) => ({
    send: (response: http.ServerResponse) =>
      void response.writeHead(206, { "content-range": range, ...headers }).end(body),
  });
  for (const range of ["bytes 0-99/*", "bytes 0-99/100", "bytes 0-99/300000", "nothing"]) {
    faults = [part(range)];
    await expect(fetchIt({ sha256: undefined })).rejects.toThrow("something else than the file");
    expect(left()).toEqual([]);
  }
  const tail = served.bytes.subarray(1000);
  const others = [
    { etag: '"another"' }, // of another version
    {}, // does not say of which
  ];
  for (const headers of others) {
    faults = [{ cut: 1000 }, part("bytes 1000-299999/300000", headers, Buffer.alloc(tail.length))];
    await fetchIt({ sha256: undefined });
    expect(fs.readFileSync(file)).toEqual(served.bytes);
    fs.rmSync(file);
  }
  const etag = { etag: `"${hashOf(served.bytes)}"` };
  for (const range of ["bytes 1000-299999/400000", "bytes 1000-299999/*"]) {
    faults = [{ cut: 1000 }, part(range, etag, tail)];
    await fetchIt({ sha256: undefined }); // begun again where the length is another, gone on with where it is not said
    expect(fs.readFileSync(file)).toEqual(served.bytes);
    fs.rmSync(file);
  }
  faults = [{ cut: 1000 }, part("bytes 2000-299999/300000", etag, tail)];
  await expect(fetchIt()).rejects.toThrow("another part of the file");
});

test("no more is taken than is allowed, or than the server had said; what is packed is counted unpacked", async () => {
  const refuse = async (send: (response: http.ServerResponse) => void, words: string) => {
    faults = [{ send }];
    await expect(fetchIt({ sha256: undefined, maxBytes: 200_000 })).rejects.toThrow(words);
    expect(left()).toEqual([]);
  };
  await refuse(
    (response) => response.writeHead(200, { "content-length": 10 ** 13 }).end(),
    "has 10.0 TB or more",
  );
  await refuse((response) => response.writeHead(200).end(served.bytes), "at most 200 kB are taken");
  const bomb = zlib.gzipSync(Buffer.alloc(10 ** 7));
  await refuse(
    (response) =>
      response.writeHead(200, { "content-encoding": "gzip", "content-length": bomb.length }).end(bomb),
    "at most 200 kB are taken",
  );
  faults = [
    {
      send: (response) =>
        response.writeHead(200, { "content-encoding": "gzip" }).end(zlib.gzipSync(served.bytes)),
    },
  ];
  await fetchIt();
  expect(fs.readFileSync(file)).toEqual(served.bytes);
});

test("files of others beside it are neither read nor touched, and two downloads of one file are one too many", async () => {
  const theirs = {
    "file.txt.partial": "mine",
    "file.txt.partial.json": `{"url": "${url}"}`,
    "file.txt.part": "mine",
  };
  for (const [name, text] of Object.entries(theirs)) fs.writeFileSync(path.join(folder, name), text);
  const first = fetchIt();
  await expect(fetchIt()).rejects.toThrow("file.txt is in use");
  await first;
  expect(asked[0].range).toBeUndefined();
  expect(left()).toEqual(["file.txt", ...Object.keys(theirs)].sort());
  for (const [name, text] of Object.entries(theirs))
    expect(fs.readFileSync(path.join(folder, name), "utf8")).toBe(text);
});

/** `tslm data get` as a process of its own; our server answers meanwhile. */
function get(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const binary = fileURLToPath(new URL("../lib/bin/tslm.mjs", import.meta.url));
  const child = spawn(process.execPath, [binary, "data", "get", ...args], { cwd: folder });
  const texts = { out: "", err: "" };
  for (const [stream, name] of [
    [child.stdout, "out"],
    [child.stderr, "err"],
  ] as const)
    stream.on("data", (chunk) => {
      texts[name] += chunk;
    });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, ...texts })));
}

test("the command leaves the file and what is known about it, and does not fetch twice", async () => {
  const sha256 = hashOf(served.bytes);
  faults = [{ cut: 100_000 }];
  const first = await get(url, "--out", "new/a.txt", "--sha256", sha256, "--json");
  expect(first.code).toBe(0);
  const card = { kind: "download", url, bytes: 300_000, sha256 };
  expect(JSON.parse(first.out)).toEqual({ file: "new/a.txt", ...card });
  expect(JSON.parse(fs.readFileSync(path.join(folder, "new/a.txt.json"), "utf8"))).toEqual(card);
  expect(first.err).toContain("trying again in 1 s");
  expect(asked.length).toBe(2);
  expect((await get(url, "--out", "new/a.txt", "--sha256", sha256)).err).toContain("is there already");
  expect(asked.length).toBe(2);
  const other = await get(url, "--out", "new/a.txt", "--sha256", "1".repeat(64));
  expect(other).toMatchObject({ code: 1 });
  expect(other.err).toContain("exists and is something else");
  fs.writeFileSync(path.join(folder, "c.txt.json"), '{"mine": true}');
  expect((await get(url, "--out", "c.txt")).err).toContain("c.txt.json is not tslm's");
  expect(fs.readFileSync(path.join(folder, "c.txt.json"), "utf8")).toBe('{"mine": true}');
  fs.rmSync(path.join(folder, "c.txt.json"));
  expect((await get(url, "--out", "c.txt", "--max-size", "100kB")).err).toContain("--max-size");
  expect((await get("tinyshakespear", "--out", "b.txt")).err).toContain('did you mean "tinyshakespeare"?');
  expect((await get(url, "--out", "b.txt", "--sha256", "12")).code).toBe(2);
  expect(left()).toEqual(["new"]);
});

test("every public set says where it is from, how long it is and what it hashes to", () => {
  for (const set of Object.values(publicSets)) {
    expect(set.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(set.url).toMatch(/^https:/);
    expect(set.page).toMatch(/^https:/);
    expect(set.bytes).toBeGreaterThan(0);
    expect(set.license).not.toBe("");
  }
});
