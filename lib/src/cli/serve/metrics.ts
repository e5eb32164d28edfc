// What Prometheus is told at /metrics: the names of vLLM's metrics, with our prefix.
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { memory } from "../../gpu/buffers.js";
import type { EngineState } from "../../infer/engine.js";

const prefix = "tslm:";

/** Seconds: from a fast card's first token to a long answer without any. */
const latencies = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** The server's metrics. */
export interface Metrics {
  firstToken: Histogram;
  betweenTokens: Histogram;
  wholeRequest: Histogram;
  finished: Counter<"finished_reason">;
  /** All of them as text. */
  text(): Promise<string>;
  contentType: string;
}

/** Counts since the server began, though an engine that is opened again counts from 0. */
function totalOf(read: () => number): () => number {
  let before = 0;
  return () => {
    const now = read();
    const more = now >= before ? now - before : now;
    before = now;
    return more;
  };
}

/** The metrics of a server whose engine's state is `state()`, undefined while none is open. */
export function openMetrics(model: string, state: () => EngineState | undefined): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ model_name: model });
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name: prefix + name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  const total = (name: string, help: string, read: (state: EngineState) => number) => {
    const more = totalOf(() => {
      const now = state();
      return now ? read(now) : 0;
    });
    new Counter({
      name: prefix + name,
      help,
      registers,
      collect() {
        this.inc(more());
      },
    });
  };
  const histogram = (name: string, help: string) =>
    new Histogram({ name: prefix + name, help, registers, buckets: latencies });
  gauge("num_requests_running", "Answers that are being written.", () => state()?.running ?? 0);
  gauge("num_requests_waiting", "Answers that wait for their turn.", () => state()?.waiting ?? 0);
  gauge("kv_cache_usage_perc", "The share of the cache's blocks that are in use, from 0 to 1.", () => {
    const { blocks = 1, freeBlocks = 1 } = state() ?? {};
    return (blocks - freeBlocks) / blocks;
  });
  gauge("gpu_memory_bytes", "GPU memory that is held.", () => memory.held);
  total(
    "prefix_cache_queries_total",
    "Tokens of prompts that were looked for in the cache.",
    (now) => now.prefixQueries,
  );
  total(
    "prefix_cache_hits_total",
    "Tokens of prompts that were found in the cache.",
    (now) => now.prefixHits,
  );
  total("prompt_tokens_total", "Tokens of prompts.", (now) => now.promptTokens);
  total("generation_tokens_total", "Tokens that were generated.", (now) => now.generatedTokens);
  total(
    "num_preemptions_total",
    "Answers that gave their blocks to others and were computed again.",
    (now) => now.preemptions,
  );
  return {
    firstToken: histogram("time_to_first_token_seconds", "From a request to the first token of an answer."),
    betweenTokens: histogram("inter_token_latency_seconds", "From one token of an answer to the next."),
    wholeRequest: histogram("e2e_request_latency_seconds", "From a request to the end of its answer."),
    finished: new Counter({
      name: `${prefix}request_success_total`,
      help: "Answers that came to their end, by how.",
      labelNames: ["finished_reason"],
      registers,
    }),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
