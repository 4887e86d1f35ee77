"""Random weights for a config: every part in play, attention sharp, logits wide enough for an answer that varies."""
import numpy as np


class Weights:
    """name -> float64 array, drawn from one seed."""

    def __init__(self, config, seed):
        self.config, self.kind = config, config["model_type"]
        self.rng, self.arrays = np.random.default_rng(seed), {}
        self.hidden, self.ffn = config["hidden_size"], config["intermediate_size"]
        # phi3's configs have no head_dim: transformers divides.
        self.head_dim = config.get("head_dim") or self.hidden // config["num_attention_heads"]
        self.q_rows = config["num_attention_heads"] * self.head_dim
        self.kv_rows = config["num_key_value_heads"] * self.head_dim
        self.tied = config["tie_word_embeddings"]
        embedding = 0.25 if self.tied else 1 / config.get("embedding_multiplier", 1.0)
        self._put("model.embed_tokens.weight", config["vocab_size"], self.hidden, scale=embedding)
        if not self.tied:
            self._put("lm_head.weight", config["vocab_size"], self.hidden, scale=config.get("logits_scaling", 1.0))
        self._norm("model.norm", self.hidden, 4.0 if self.tied else 1.0)
        for layer in range(config["num_hidden_layers"]):
            self._layer(f"model.layers.{layer}.")

    def _put(self, name, *shape, scale=1.0):
        self.arrays[name] = scale * self.rng.standard_normal(shape)

    def _linear(self, prefix, outputs, inputs, gain, bias=False):
        self._put(prefix + ".weight", outputs, inputs, scale=gain / np.sqrt(inputs))
        if bias:
            self._put(prefix + ".bias", outputs, scale=0.5)

    def _norm(self, prefix, count, mean=1.0):
        less = 1.0 if self.kind.startswith("gemma") else 0.0
        self.arrays[prefix + ".weight"] = mean * (1 + 0.2 * self.rng.standard_normal(count)) - less

    def _layer(self, prefix):
        attention, mlp, kind = prefix + "self_attn.", prefix + "mlp.", self.kind
        bias = self.config["attention_bias"]
        # What comes back must weigh beside the residual; Gemma's embedding, multiplied, is a heavy one.
        back = 8.0 if kind == "gemma" else 2 / self.config.get("residual_multiplier", 1.0)
        if kind == "phi3":
            self._linear(attention + "qkv_proj", self.q_rows + 2 * self.kv_rows, self.hidden, 1.5)
            self._linear(mlp + "gate_up_proj", 2 * self.ffn, self.hidden, 1.2)
        else:
            for name, rows, gain in (("q", self.q_rows, 1.5), ("k", self.kv_rows, 1.5), ("v", self.kv_rows, 1)):
                self._linear(f"{attention}{name}_proj", rows, self.hidden, gain, bias)
            for name in ("gate", "up"):
                self._linear(f"{mlp}{name}_proj", self.ffn, self.hidden, 1.2, self.config.get("mlp_bias"))
        self._linear(attention + "o_proj", self.hidden, self.q_rows, back, bias)
        self._linear(mlp + "down_proj", self.hidden, self.ffn, back, self.config.get("mlp_bias"))

        whole_row, a_head = kind == "olmo2", kind in ("qwen3", "gemma3_text")
        if whole_row or a_head:
            self._norm(attention + "q_norm", self.q_rows if whole_row else self.head_dim, 1.4)
            self._norm(attention + "k_norm", self.kv_rows if whole_row else self.head_dim, 1.4)
        four = kind in ("gemma2", "gemma3_text")
        names = ["post_attention_layernorm"] if whole_row else ["input_layernorm", "post_attention_layernorm"]
        names += ["pre_feedforward_layernorm"] if four else []
        names += ["post_feedforward_layernorm"] if four or whole_row else []
        for name in names:
            self._norm(prefix + name, self.hidden, 6.0 if four and name.startswith("post") else 1.0)
