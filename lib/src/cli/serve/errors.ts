// Errors as clients of OpenAI's interface expect them: a status, and an object that says what is wrong and with which field.
import { GpuError } from "../../gpu/device.js";

/** The kinds of errors by status. */
const types: Record<number, string> = { 401: "authentication_error", 429: "rate_limit_error" };

/** What an error says besides its message. */
interface ErrorFacts {
  /** The field that is wrong, such as `messages[0].content`. */
  param?: string;
  /** A word for programs, such as `context_length_exceeded`. */
  code?: string;
  /** Seconds after which it is worth trying again. */
  retryAfter?: number;
  /** The methods that there are, where the one that was used is not. */
  allow?: string;
}

/** An error that is the answer to a request. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly facts: ErrorFacts = {},
  ) {
    super(message);
  }

  /** The error as the body of an answer, or of a line of a stream. */
  toJSON(): object {
    const { param = null, code = null } = this.facts;
    const type = types[this.status] ?? (this.status < 500 ? "invalid_request_error" : "server_error");
    return { error: { message: this.message, type, param, code } };
  }

  /** The answer that says it. */
  response(): Response {
    const headers = new Headers();
    const { retryAfter, allow } = this.facts;
    if (retryAfter !== undefined) headers.set("retry-after", String(retryAfter));
    if (allow !== undefined) headers.set("allow", allow);
    if (this.status === 401) headers.set("www-authenticate", "Bearer");
    return Response.json(this, { status: this.status, headers });
  }
}

/** An error for a request that asks for something that we do not do, or that means nothing. */
export function badRequest(message: string, param?: string, code?: string): ApiError {
  return new ApiError(400, message, { param, code });
}

/** Any error as the answer to a request. A lost device is no fault of the request: it is worth trying again. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof GpuError)
    return new ApiError(
      503,
      "The GPU device was lost while the answer was written; the model is being opened again: send the request again.",
      { code: "device_lost", retryAfter: 1 },
    );
  return new ApiError(500, `The server failed: ${error instanceof Error ? error.message : String(error)}`);
}
