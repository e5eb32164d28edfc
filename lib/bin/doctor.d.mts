/** Prints what this machine has and lacks; returns the exit code, 1 if the library cannot run. */
export function doctor(options?: { json?: boolean }): Promise<number>;
