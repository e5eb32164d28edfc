// An answer comes whole, or as a stream of pieces: what a request says decides.
import type { CommonRequest } from "./schema.js";
import type { Send } from "./stream.js";

/** Both ways of an answer, of which one is used. */
interface Ways {
  whole(): Promise<object>;
  pieces(send: Send): Promise<void>;
  /** The last piece of a stream, where usage is asked for. */
  usage(): object;
}

/** What to do with a request. */
export type Reply = { whole: () => Promise<object> } | { stream: (send: Send) => Promise<void> };

/** The way that a request asks for. */
export function replyWith({ stream, stream_options: options }: CommonRequest, ways: Ways): Reply {
  if (!stream) return { whole: ways.whole };
  return {
    async stream(send) {
      await ways.pieces(send);
      if (options?.include_usage) await send(ways.usage());
    },
  };
}
