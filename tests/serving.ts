// A server for tests: the real program in a process of its own, on a port that is free.
import { fork } from "node:child_process";
import { once } from "node:events";
import { binary } from "./tslm.ts";

/** A server that runs. */
export interface Serving {
  /** Where it is: http://127.0.0.1:PORT. */
  url: string;
  pid: number;
  /** Sends a request, with a JSON body where there is one. */
  ask(path: string, body?: unknown, init?: RequestInit): Promise<Response>;
  /** The value of one of its metrics, by its name without our prefix. */
  metric(name: string): Promise<number>;
  /** What it has said on standard error so far: its log, and whatever else. */
  said(): string;
  /** Ends it as Ctrl-C does, and gives its exit code. Once is enough. */
  end(): Promise<number | null>;
}

/** Starts `tslm serve` and waits until it listens. */
export async function startServer(...args: string[]): Promise<Serving> {
  const child = fork(binary, ["serve", "--port", "0", ...args], { silent: true, execArgv: [] }); // it ends when this process does
  const ended = once(child, "exit");
  let [out, said] = ["", ""];
  let isEnding = false;
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      const [address] = /http:\/\/\S+:\d+/.exec(out) ?? [];
      if (address) resolve(address);
    });
    child.once("exit", (code) => reject(new Error(`The server ended with ${code}: ${said}`)));
  });
  const ask = (path: string, body?: unknown, init: RequestInit = {}) =>
    fetch(url + path, {
      ...(body !== undefined && {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
      ...init,
    });
  return {
    url,
    pid: child.pid!,
    ask,
    async metric(name) {
      const text = await (await ask("/metrics")).text();
      const line = text.split("\n").find((one) => one.startsWith(`tslm:${name}{`));
      return Number(line?.split(" ").at(-1));
    },
    said: () => said,
    async end() {
      if (!isEnding) child.kill("SIGINT");
      isEnding = true;
      const [code] = await ended;
      return code;
    },
  };
}
