// The small models whose folders transformers was given, to see what it makes of them (fixtures/folders).
import type { ModelParts } from "../lib/src/cli/model-folder.ts";
import { completeModelConfig, parseModelConfig } from "../lib/src/model/config.ts";
import { randomModelFiles } from "../lib/src/model/weights.ts";
import { characterTokenizer, type Tokenizer } from "../lib/src/tokenizer/characters.ts";
import { trainBpe } from "../lib/src/tokenizer/merges.ts";

const corpus =
  'Once upon a time there were 12 foxes.  They said: "don\'t  go , please ."\n\tAnd  €uros , naïve café';

/** A model of each family with a tokenizer of each kind, by name; one has a chat template. */
export function folderParts(): Map<string, ModelParts> {
  const tokenizers: [string, Tokenizer][] = [
    ["char", characterTokenizer([corpus])],
    ["bpe", trainBpe([corpus.repeat(3)], 280)],
  ];
  const parts = new Map<string, ModelParts>();
  for (const family of ["llama", "qwen3", "qwen3_moe"])
    for (const [kind, tokenizer] of tokenizers) {
      const given = {
        model_type: family,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        initializer_range: 0.5,
        tie_word_embeddings: family === "qwen3",
      };
      const sizes = { vocab_size: tokenizer.vocabSize, max_position_embeddings: 64 };
      const config = parseModelConfig(completeModelConfig(given, sizes), { strict: true });
      const chatTemplate =
        kind === "bpe"
          ? "{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}"
          : undefined;
      parts.set(`${family}-${kind}`, {
        config,
        weights: { "model.safetensors": randomModelFiles(config, 3).weights },
        tokenizer,
        chatTemplate,
      });
    }
  return parts;
}
