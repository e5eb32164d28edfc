// Answers as server-sent events.
import { asApiError } from "./errors.js";

const encoder = new TextEncoder();

/** Hands on one object as an event. It waits while the client does not read. */
export type Send = (data: object) => Promise<void>;

/**
 * The response that streams what `produce` sends, and `[DONE]` at the end. An error before the first event is thrown, so that it becomes a
 * response of its own; a later one is sent as the last event. `gone` is called when the client does not want more.
 */
export async function streamed(produce: (send: Send) => Promise<void>, gone: () => void): Promise<Response> {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  let begin!: () => void;
  let read = () => {};
  const begun = new Promise<"begun">((resolve) => {
    begin = () => resolve("begun");
  });
  const body = new ReadableStream<Uint8Array>({
    start(given) {
      controller = given;
    },
    pull: () => read(),
    cancel: gone,
  });
  const write = async (data: string) => {
    controller.enqueue(encoder.encode(`data: ${data}\n\n`));
    begin();
    if ((controller.desiredSize ?? 1) > -64) return;
    await new Promise<void>((resolve) => {
      read = resolve;
    });
  };
  let hasBegun = false;
  const work = produce((data) => {
    hasBegun = true;
    return write(JSON.stringify(data));
  });
  const end = work
    .catch((error) => {
      if (!hasBegun) throw error;
      return write(JSON.stringify(asApiError(error)));
    })
    .then(() => write("[DONE]"))
    .then(() => controller.close());
  await Promise.race([begun, end]);
  end.catch(() => {}); // the client has gone
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    },
  });
}
