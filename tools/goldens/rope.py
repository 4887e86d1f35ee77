"""Rotary embedding by Hugging Face's semantics: the frequencies of every rope_type, and the rotation.

Sources: Su et al. 2021 (RoPE); Peng et al. 2023 (YaRN, and NTK-aware "dynamic"); Ding et al. 2024 (LongRoPE); Llama 3.1's
scaling. What the config keys mean is what transformers makes of them (modeling_rope_utils).
"""
import math

import numpy as np


def plain(base, dims):
    return base ** (-np.arange(0, dims, 2) / dims)


def _linear(s, base, dims, config, length):
    return plain(base, dims) / s["factor"], 1.0


def _dynamic(s, base, dims, config, length):
    limit, factor = config["max_position_embeddings"], s["factor"]
    stretch = factor * max(length, limit) / limit - (factor - 1)
    return plain(base * stretch ** (dims / (dims - 2)), dims), 1.0


def _llama3(s, base, dims, config, length):
    """Short waves stay, long ones are stretched by the factor, those between are mixed."""
    frequencies = plain(base, dims)
    turns = s["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = s["low_freq_factor"], s["high_freq_factor"]
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (keep + (1 - keep) / s["factor"]), 1.0


def _yarn(s, base, dims, config, length):
    factor = s["factor"]
    original = s.get("original_max_position_embeddings") or config["max_position_embeddings"]

    def growth(m=1.0):
        return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0

    attention = s.get("attention_factor")
    if attention is None:
        both = s.get("mscale") and s.get("mscale_all_dim")
        attention = growth(s["mscale"]) / growth(s["mscale_all_dim"]) if both else growth()

    def dimension(turns):  # where a frequency turns that often over the original length
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(s.get("beta_fast") or 32), dimension(s.get("beta_slow") or 1)
    if s.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    ramp = np.clip((np.arange(dims // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    return plain(base, dims) * (1 - ramp + ramp / factor), attention


def _longrope(s, base, dims, config, length):
    original, limit = longrope_original(config), config["max_position_embeddings"]
    factor = limit / original
    attention = s.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    factors = np.array(s["long_factor"] if length > original else s["short_factor"])
    return plain(base, dims) / factors, attention


_KINDS = {"linear": _linear, "dynamic": _dynamic, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope, "su": _longrope}


def _scaling(config):
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _kind(s):
    return s.get("rope_type", s.get("type", "default"))


def longrope_original(config):
    """The length up to which LongRoPE's short factors hold; None where the config is no LongRoPE."""
    s = _scaling(config)
    if _kind(s) not in ("longrope", "su"):
        return None
    return config.get("original_max_position_embeddings") or s.get("original_max_position_embeddings")


def frequencies(config, head_dim, length, layer_type=None):
    """(angles a position [dims / 2], factor of cos and sin) for a sequence of that length.

    layer_type picks from transformers 5's rope_parameters that hold one entry a type of layer.
    """
    s = _scaling(config)
    s = s.get(layer_type, s)
    base = s.get("rope_theta", config.get("rope_theta", 10000.0))
    partial = s.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    dims = int(head_dim * partial)
    if _kind(s) == "default":
        return plain(base, dims), 1.0
    return _KINDS[_kind(s)](s, base, dims, config, length)


def rotate(x, positions, angles, factor):
    """Turns the pairs (i, i + R/2) of the first R dims. x [n, heads, D]"""
    turned = positions[:, None] * angles
    cosines, sines = factor * np.cos(turned)[:, None], factor * np.sin(turned)[:, None]
    half = len(angles)
    a, b = x[..., :half], x[..., half:2 * half]
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines, x[..., 2 * half:]], -1)
