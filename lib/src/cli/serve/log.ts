// The request log: one JSON line for each request, without a word of what users or the model wrote.

/** What is known of a request. */
export interface RequestRecord {
  id: string;
  method: string;
  path: string;
  /** When it came: milliseconds of the process. */
  begin: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  finishReasons: string[];
  /** Milliseconds from when it came to the first token. */
  firstToken?: number;
  /** Whether pieces of an answer have been sent. */
  stream: boolean;
  /** The word for an error. */
  error?: string;
}

/** A record of a request that came just now. */
export function requestRecord(id: string, method: string, path: string): RequestRecord {
  const none = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, finishReasons: [], stream: false };
  return { id, method, path, begin: performance.now(), ...none };
}

/** A request's line. */
export function logLine(record: RequestRecord, status: number): string {
  const { id, method, path, begin, firstToken, stream, error } = record;
  const round = (milliseconds: number) => Math.round(milliseconds * 10) / 10;
  const isAnswer = record.promptTokens > 0;
  return JSON.stringify({
    time: new Date().toISOString(),
    id,
    method,
    path,
    status,
    duration_ms: round(performance.now() - begin),
    ...(firstToken !== undefined && { first_token_ms: round(firstToken) }),
    ...(isAnswer && {
      stream,
      prompt_tokens: record.promptTokens,
      cached_tokens: record.cachedTokens,
      completion_tokens: record.completionTokens,
      finish_reasons: record.finishReasons,
    }),
    ...(error !== undefined && { error }),
  });
}
