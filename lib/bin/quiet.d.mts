/** Lets adapters be opened in this process without the lines that Dawn is known to print. */
export function quietAdapters(): Promise<void>;

/** Makes a call, and prints what it said on standard error when it returns, without those lines. */
export function withoutKnownLines<T>(call: () => T): T;
