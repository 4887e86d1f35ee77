"""One transformer layer of each family, by the semantics of transformers' modelling files."""
import math

import numpy as np

import rope


def _silu(x):
    return x / (1 + np.exp(-x))


def _gelu_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))) / 2


_ACTIVATIONS = {"silu": _silu, "gelu_pytorch_tanh": _gelu_tanh}


class Family:
    """Llama's layer; the other families override what they do differently."""

    norm_offset = 0.0
    norms_after = False  # of a block's output, before it is added

    def embedding_scale(self, config):
        return config.get("embedding_multiplier", 1.0)

    def residual_scale(self, config):
        return config.get("residual_multiplier", 1.0)

    def attention_scale(self, m):
        return m.config.get("attention_multiplier") or m.head_dim ** -0.5

    def window(self, config, layer):
        return None

    def rope(self, m, layer, length):
        """Angles and factor, or None for a layer without positions."""
        return rope.frequencies(m.config, m.head_dim, length)

    def project(self, m, prefix, x):
        q, k, v = (m.linear(x, f"{prefix}.{name}_proj") for name in "qkv")
        return m.split(q), m.split(k), m.split(v)

    def attention(self, m, layer, x, positions):
        prefix = f"model.layers.{layer}.self_attn"
        q, k, v = self.project(m, prefix, x)
        turn = self.rope(m, layer, m.length + len(x))
        if turn is not None:
            q, k = rope.rotate(q, positions, *turn), rope.rotate(k, positions, *turn)
        o = m.attend(layer, q, k, v, self.attention_scale(m), self.window(m.config, layer),
                     m.config.get("attn_logit_softcapping"))
        return m.linear(o, prefix + ".o_proj")

    def gate_and_up(self, m, prefix, x):
        return m.linear(x, prefix + ".gate_proj"), m.linear(x, prefix + ".up_proj")

    def mlp(self, m, layer, x):
        prefix = f"model.layers.{layer}.mlp"
        gate, up = self.gate_and_up(m, prefix, x)
        act = _ACTIVATIONS[m.config.get("hidden_activation") or m.config["hidden_act"]]
        return m.linear(act(gate) * up, prefix + ".down_proj")

    def layer(self, m, layer, x, positions):
        prefix, scale = f"model.layers.{layer}.", self.residual_scale(m.config)
        before_mlp = "pre_feedforward_layernorm" if self.norms_after else "post_attention_layernorm"
        block = self.attention(m, layer, m.norm(x, prefix + "input_layernorm"), positions)
        x = x + scale * (m.norm(block, prefix + "post_attention_layernorm") if self.norms_after else block)
        block = self.mlp(m, layer, m.norm(x, prefix + before_mlp))
        return x + scale * (m.norm(block, prefix + "post_feedforward_layernorm") if self.norms_after else block)


class Mistral(Family):
    def window(self, config, layer):
        return config.get("sliding_window")


def _normalised_heads(family, m, prefix, x):
    """QK-norm of each head alone."""
    q, k, v = Family.project(family, m, prefix, x)
    return m.norm(q, prefix + ".q_norm"), m.norm(k, prefix + ".k_norm"), v


class Qwen3(Family):
    project = _normalised_heads

    def window(self, config, layer):
        return config["sliding_window"] if config.get("use_sliding_window") and layer >= config["max_window_layers"] else None


class SmolLm3(Family):
    """Some layers have no positions: where no_rope_layers says 0."""

    def rope(self, m, layer, length):
        listed = m.config.get("no_rope_layers")
        positioned = listed[layer] if listed is not None else (layer + 1) % m.config.get("no_rope_layer_interval", 4) != 0
        return super().rope(m, layer, length) if positioned else None


class Phi3(Mistral):
    """q, k, v in one matrix; gate and up in one."""

    def project(self, m, prefix, x):
        q_end = m.heads * m.head_dim
        return [m.split(part) for part in np.split(m.linear(x, prefix + ".qkv_proj"), [q_end, q_end + m.kv_heads * m.head_dim], -1)]

    def gate_and_up(self, m, prefix, x):
        return np.split(m.linear(x, prefix + ".gate_up_proj"), 2, -1)


class Gemma(Family):
    norm_offset = 1.0

    def embedding_scale(self, config):
        return math.sqrt(config["hidden_size"])


class Gemma2(Gemma):
    """Norms on both sides of a block; every other layer, from the first, sees a window."""

    norms_after = True

    def attention_scale(self, m):
        return m.config["query_pre_attn_scalar"] ** -0.5

    def windowed(self, config, layer):
        types = config.get("layer_types")
        return types[layer] == "sliding_attention" if types else self.windowed_by_place(config, layer)

    def windowed_by_place(self, config, layer):
        return layer % 2 == 0

    def window(self, config, layer):
        return config["sliding_window"] if self.windowed(config, layer) else None


class Gemma3(Gemma2):
    """QK-norm; every sixth layer is global, the others see a window and have a RoPE of their own without scaling."""

    project = _normalised_heads

    def windowed_by_place(self, config, layer):
        return (layer + 1) % config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6)) != 0

    def rope(self, m, layer, length):
        windowed = self.windowed(m.config, layer)
        if m.config.get("rope_parameters"):
            return rope.frequencies(m.config, m.head_dim, length, "sliding_attention" if windowed else "full_attention")
        return (rope.plain(m.config["rope_local_base_freq"], m.head_dim), 1.0) if windowed else super().rope(m, layer, length)


class Olmo2(Family):
    """No norm before a block but one behind it; QK-norm of the whole row, before heads are cut."""

    def project(self, m, prefix, x):
        q, k = (m.norm(m.linear(x, f"{prefix}.{name}_proj"), f"{prefix}.{name}_norm") for name in "qk")
        return m.split(q), m.split(k), m.split(m.linear(x, prefix + ".v_proj"))

    def layer(self, m, layer, x, positions):
        prefix = f"model.layers.{layer}."
        x = x + m.norm(self.attention(m, layer, x, positions), prefix + "post_attention_layernorm")
        return x + m.norm(self.mlp(m, layer, x), prefix + "post_feedforward_layernorm")


# Granite is llama with multipliers, Qwen 2 llama with biases: both stand in their configs and tensors.
_FAMILIES = {
    "llama": Family, "granite": Family, "qwen2": Family, "mistral": Mistral, "qwen3": Qwen3, "smollm3": SmolLm3, "phi3": Phi3,
    "gemma": Gemma, "gemma2": Gemma2, "gemma3_text": Gemma3, "olmo2": Olmo2,
}


def of(model_type):
    return _FAMILIES[model_type]()
