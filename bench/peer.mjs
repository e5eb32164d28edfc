// One library in a process of its own: prepares the task that it is started with, checks it, and then runs it whenever it
// is told to, for a while, answering with the seconds that a run took.
process.env.XDG_RUNTIME_DIR ??= "/tmp";
const { checkProduct, factors } = await import("./inputs.mjs");
const [peer, task, size] = process.argv.slice(2);

/** What one run does, and what the comparison has to know of the preparation. */
async function prepare() {
  const library = await import(`./peers/${peer}.mjs`);
  const adapter = peer === "tslm" && (await library.adapter());
  if (task === "matmul") {
    const { run, read } = await library.matmul(Number(size));
    checkProduct(Number(size), factors(Number(size)), await read());
    await run();
    return { run, facts: { adapter } };
  }
  const run = await library.step();
  const losses = [];
  for (let i = 0; i < 5; i++) losses.push(await run());
  return { run, facts: { adapter, losses } };
}

try {
  const { run, facts } = await prepare();
  process.on("message", async () => {
    const start = performance.now();
    let [runs, seconds, loss] = [0, 0];
    for (; seconds < 0.05; runs++) {
      loss = await run();
      seconds = (performance.now() - start) / 1000;
    }
    process.send({ seconds: seconds / runs, loss });
  });
  process.send({ ready: facts });
} catch (error) {
  if (process.env.TSLM_DEBUG === "1") console.error(error);
  process.send({ failed: String(error.message ?? error).split("\n")[0] });
}
