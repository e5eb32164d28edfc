import "../dawn.mjs";
import { defaultDevice, init, jit, nn, numpy as np, tree, valueAndGrad } from "@jax-js/jax";
import { corrections, factors, rotation, trainingStep } from "../inputs.mjs";

if (!(await init("webgpu")).includes("webgpu")) throw new Error("it found no WebGPU adapter");
defaultDevice("webgpu");

export async function matmul(size) {
  const [a, b] = factors(size).map((values) => np.array(values).reshape([size, size]));
  const product = jit((x, y) => np.matmul(x, y));
  const run = async () => {
    const c = product(a.ref, b.ref);
    await c.blockUntilReady();
    c.dispose();
  };
  return { run, read: () => product(a.ref, b.ref).data() };
}

const linear = (x, weight) => np.matmul(x, np.transpose(weight));

/** The loss of a model, of its weights by name: what tslm's decoder computes, written with this library's functions. */
function lossOf({ model, batch, context, inputs, targets }) {
  const { layers, heads, headDim, hiddenSize, normEps, vocabSize } = model;
  const [cosines, sines] = rotation(model, context).map((v) => np.array(v).reshape([1, context, 1, headDim]));
  const places = (ids) => np.array(Int32Array.from(ids), { dtype: np.int32 });
  // Products with these instead of looking up rows, whose gradient its jit does not compile.
  const [words, goals] = [inputs, targets].map((ids) => nn.oneHot(places(ids), vocabSize));
  const norm = (x, weight) => {
    const square = np.mean(x.ref.mul(x.ref), -1, { keepdims: true });
    return x.div(np.sqrt(square.add(normEps))).mul(weight);
  };
  const turned = (x) => {
    const [left, right] = np.split(x.ref, 2, -1);
    return x.mul(cosines.ref).add(np.concatenate([right.mul(-1), left], -1).mul(sines.ref));
  };
  const future = np
    .array(
      Float32Array.from({ length: context * context }, (_, i) =>
        i % context > Math.floor(i / context) ? -1e9 : 0,
      ),
    )
    .reshape([context, context]);
  // Its own dotProductAttention wants a newer Node.
  const attend = (q, k, v) => {
    const [queries, keys, values] = [q, k, v].map((x) => np.transpose(x, [0, 2, 1, 3]));
    const scores = np.matmul(queries, np.transpose(keys, [0, 1, 3, 2])).mul(headDim ** -0.5);
    return np.transpose(np.matmul(nn.softmax(scores.add(future.ref), -1), values), [0, 2, 1, 3]);
  };
  const split = (x) => x.reshape([batch, context, heads, headDim]);
  return (weights) => {
    const w = (name) => weights[name].ref;
    let x = np.matmul(words.ref, w("model.embed_tokens.weight")).reshape([batch, context, hiddenSize]);
    for (let layer = 0; layer < layers; layer++) {
      const named = (name) => w(`model.layers.${layer}.${name}.weight`);
      const y = norm(x.ref, named("input_layernorm"));
      const [q, k, v] = ["q", "k", "v"].map((name) => split(linear(y.ref, named(`self_attn.${name}_proj`))));
      y.dispose();
      const mixed = attend(turned(q), turned(k), v);
      x = x.add(linear(mixed.reshape([batch, context, hiddenSize]), named("self_attn.o_proj")));
      const z = norm(x.ref, named("post_attention_layernorm"));
      const gate = nn.silu(linear(z.ref, named("mlp.gate_proj")));
      x = x.add(linear(gate.mul(linear(z, named("mlp.up_proj"))), named("mlp.down_proj")));
    }
    const logits = linear(norm(x, w("model.norm.weight")), w("model.embed_tokens.weight"));
    const logs = nn.logSoftmax(logits.reshape([batch * context, vocabSize]), -1);
    tree.dispose(weights);
    return np.sum(logs.mul(goals.ref)).mul(-1 / (batch * context));
  };
}

export async function step() {
  const task = trainingStep();
  const { betas, epsilon, weightDecay: decay, rate } = task.settings;
  const [beta1, beta2] = betas;
  const lossAndGradient = valueAndGrad(lossOf(task));
  const update = jit((weights, means, squares, correction1, correction2) => {
    const [loss, gradients] = lossAndGradient(tree.ref(weights));
    const next = { weights: {}, means: {}, squares: {} };
    for (const { name, decayed } of task.weights) {
      const [p, g] = [weights[name], gradients[name]];
      const mean = means[name].mul(beta1).add(g.ref.mul(1 - beta1));
      const square = squares[name].mul(beta2).add(g.ref.mul(g).mul(1 - beta2));
      const root = np.sqrt(square.ref.mul(correction2.ref)).add(epsilon);
      const move = mean.ref.mul(correction1.ref).div(root);
      next.weights[name] = p.mul(decayed ? 1 - rate * decay : 1).sub(move.mul(rate));
      next.means[name] = mean;
      next.squares[name] = square;
    }
    correction1.dispose();
    correction2.dispose();
    return [loss, next.weights, next.means, next.squares];
  });
  const byName = (make) => Object.fromEntries(task.weights.map((each) => [each.name, make(each)]));
  let state = [
    byName(({ values, shape }) => np.array(values).reshape(shape)),
    byName(({ shape }) => np.zeros(shape)),
    byName(({ shape }) => np.zeros(shape)),
  ];
  let done = 0;
  return async () => {
    const numbers = corrections(task.settings, done++).map((value) => np.array(value));
    const [loss, ...next] = update(...state, ...numbers);
    state = next;
    return (await loss.data())[0];
  };
}
