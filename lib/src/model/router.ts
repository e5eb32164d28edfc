// Extracted from chapters/03-moe/1-why-experts.ipynb: edit it there, or here and run `npm run backport`.
import { currentGpu } from "../gpu/device.js";
import { softmaxBackwardKernel } from "../kernels/softmax.js";
import { type TopkShape, topkBackwardKernel, topkKernel } from "../kernels/topk.js";
import { track } from "../tensor/autograd.js";
import { type Tensor, describe, empty, launch, launchInto } from "../tensor/tensor.js";

//| 03-moe/1-why-experts.ipynb#router-types
/** How a router chooses. */
export interface RouterSettings {
  /** Experts that each token visits (top-k). */
  expertsPerToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  normalize: boolean;
  /** Added to each expert's probability for the choice alone, [experts]: see `updateRouterBias`. */
  bias?: Tensor;
}

//| 03-moe/1-why-experts.ipynb#routing
/** What a router decided about N tokens and E experts, k experts a token. */
export interface Routing {
  /** The router's scores [N, E]. */
  logits: Tensor;
  /** Softmax of the scores over all experts [N, E]. Gradients flow through. */
  probabilities: Tensor;
  /** The experts of each token, likeliest first [N, k]. */
  experts: Tensor<"u32">;
  /** How much each of them counts [N, k]. Gradients flow through. */
  weights: Tensor;
}

//| 03-moe/1-why-experts.ipynb#router-shape
/** The sizes of a routing. Throws for logits that are not [tokens, experts], and for a bias of another size. */
export function routerShape(logits: Tensor, { expertsPerToken, normalize, bias }: RouterSettings): TopkShape {
  const [rows, experts] = logits.shape;
  if (logits.shape.length !== 2)
    throw new Error(`route wants logits [tokens, experts], not ${describe(logits)}.`);
  if (bias && bias.size !== experts)
    throw new Error(
      `route: the bias ${describe(bias)} must have one element for each of ${experts} experts.`,
    );
  return { rows, experts, expertsPerToken, normalize, biased: bias !== undefined };
}

//| 03-moe/1-why-experts.ipynb#route
/**
 * Chooses experts for each token from logits [N, E]. The choice has no gradient; the weights of the chosen do, and
 * that is all a router learns from. Throws when a token is to visit more experts than there are.
 */
export function route(logits: Tensor, settings: RouterSettings): Routing {
  const shape = routerShape(logits, settings);
  const { rows, expertsPerToken } = shape;
  const [probabilities, weights] = [empty(logits.shape), empty([rows, expertsPerToken])];
  const experts = empty([rows, expertsPerToken], "u32");
  const inputs = settings.bias ? [logits, settings.bias] : [logits];
  launchInto(topkKernel(shape), inputs, [probabilities, weights, experts]);
  track(weights, [logits], (gradient) => [
    launch(topkBackwardKernel(shape), [probabilities, weights, experts, gradient], logits.shape),
  ]);
  track(probabilities, [logits], (gradient) => {
    const backward = softmaxBackwardKernel(rows, shape.experts, currentGpu().facts);
    return [launch(backward, [probabilities, gradient], logits.shape)];
  });
  return { logits, probabilities, experts, weights };
}
