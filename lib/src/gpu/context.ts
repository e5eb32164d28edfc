// Extracted from chapters/02-attention/a-the-engine-room.ipynb: edit it there, or here and run `npm run backport`.

//| 02-attention/a-the-engine-room.ipynb#context
/** What a context's function may give: anything but a promise. */
export type Synchronous<T> = T & (T extends PromiseLike<unknown> ? never : unknown);

//| 02-attention/a-the-engine-room.ipynb#context-helpers
/**
 * Runs `work` and then `close`, with its result, or without one when it fails. Throws for an async function: a context is for
 * all that runs meanwhile, so while it is open nobody may wait. `name` is the context's name in the error.
 */
export function inContext<T>(name: string, work: () => Synchronous<T>, close: (result?: T) => void): T {
  let result: T | undefined;
  try {
    result = work();
  } finally {
    close(result);
  }
  if (!(result instanceof Promise)) return result;
  result.catch(() => {}); // what it meets outside of its context is no news
  throw new Error(`${name} takes a synchronous function: return the tensors from it, and read them outside.`);
}
