// The rooms of lib/src, ground floor first. A room imports only from the floors below its own.

/** Rooms of one floor know nothing of each other. */
export const floors = [
  ["gpu", "tokenizer", "formats"],
  ["kernels", "data"],
  ["tensor"],
  ["model"],
  ["train", "infer"],
  ["cli", "notebook"],
];

/** The rooms that are extracted from notebooks; the top floor is written by hand. */
export const bookRooms = floors.slice(0, -1).flat();
