// tslm and other WebGPU libraries on one adapter in one run. Each is in a process of its own and they take turns, so that
// a machine's moods meet all alike; medians.
// npm install --prefix bench, then: node bench/compare.mjs matmul [SIZE…] | step
import { fork } from "node:child_process";
import path from "node:path";

const peers = {
  matmul: ["tslm", "jax-js", "tfjs", "onnxruntime", "webgpu-torch"],
  step: ["tslm", "jax-js", "tfjs"],
};
const rounds = 7;

/** The next message of a process; its end without one is an error. */
function answer(child) {
  return new Promise((resolve, reject) => {
    const ended = (code, signal) =>
      reject(new Error(`its process ended with ${signal ?? `exit code ${code}`}`));
    child.once("exit", ended);
    child.once("message", (message) => {
      child.off("exit", ended);
      if (message.failed) reject(new Error(message.failed));
      else resolve(message);
    });
  });
}

/** Starts a library with its task. */
async function start(peer, task, size) {
  const file = path.join(import.meta.dirname, "peer.mjs");
  const child = fork(file, [peer, task, size], { stdio: ["ignore", "ignore", "ignore", "ipc"] });
  try {
    return { peer, child, times: [], ...(await answer(child)).ready };
  } catch (error) {
    child.kill();
    return { peer, why: error.message };
  }
}

/** Runs a task in all libraries, round by round. One that fails on the way has a reason and no times. */
async function compare(task, size) {
  const started = [];
  for (const peer of peers[task]) started.push(await start(peer, task, size));
  const [{ losses: expected }] = started;
  for (const each of started) checkLosses(each, expected);
  for (let round = 0; round < rounds; round++)
    for (const each of started.filter(({ why }) => !why)) await turn(each);
  for (const { child } of started) child?.kill();
  return started;
}

/** One run of a library. */
async function turn(each) {
  each.child.send({});
  try {
    const { seconds, loss } = await answer(each.child);
    each.times.push(seconds);
    each.loss = loss;
  } catch (error) {
    each.why = error.message;
  }
}

/** Leaves out a library whose losses are not those of tslm, from the same weights on the same batch: it trains another model. */
function checkLosses(each, expected) {
  if (each.why || !expected) return;
  const differs = each.losses.some((loss, i) => !(Math.abs(loss - expected[i]) < 0.01 * expected[i]));
  const falls = each.losses.at(-1) < each.losses[0];
  if (differs) each.why = `its losses ${each.losses.map((loss) => loss.toFixed(3))} are not tslm's`;
  else if (!falls) each.why = "its loss does not go down";
}

const median = (times) => [...times].sort((x, y) => x - y)[times.length >> 1];

/** A row of the table. */
function row({ peer, times, why, losses, loss }, tslm, flops, gigaflops) {
  if (why) return { library: peer, why };
  const seconds = median(times);
  const rate = flops / seconds / 1e9;
  return {
    library: peer,
    ms: Number((seconds * 1000).toFixed(1)),
    ...(flops
      ? { "GFLOP/s": Number(rate.toFixed(1)), "of the ceiling": `${Math.round((100 * rate) / gigaflops)} %` }
      : {}),
    ...(losses ? { "first loss": losses[0].toFixed(4), "last loss": loss.toFixed(4) } : {}),
    "times tslm's": Number((seconds / median(tslm.times)).toFixed(2)),
  };
}

const [task, ...sizes] = process.argv.slice(2);
if (!(task in peers) || !sizes.every((size) => Number(size) > 0)) {
  console.error("usage: node bench/compare.mjs matmul [SIZE…] | step");
  process.exit(2);
}
for (const size of task === "step" ? [""] : sizes.length > 0 ? sizes : ["256", "512", "1024"]) {
  const started = await compare(task, size);
  const [tslm] = started;
  if (tslm.why) throw new Error(`tslm: ${tslm.why}`);
  const { name, gigaflops, gigabytes } = tslm.adapter;
  console.log(
    `${task} ${size} on ${name}: ceiling ${gigaflops.toFixed(1)} GFLOP/s, ${gigabytes.toFixed(1)} GB/s`,
  );
  console.table(started.map((each) => row(each, tslm, task === "matmul" && 2 * size ** 3, gigaflops)));
}
