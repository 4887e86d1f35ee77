"""The folders under tests/data/families: a config, a stored type and a packing for each, and what its absence would change.

`without` names config changes that a loader which overlooks a feature would amount to; make.py refuses a folder whose logits
do not notice.
"""
from dataclasses import dataclass, field

import tokenizer


@dataclass
class Spec:
    config: dict
    dtype: str = "F32"
    norm_dtype: str = ""  # "": as dtype
    shards: int = 1
    quantization: dict | None = None
    without: dict = field(default_factory=dict)


def _config(architecture, kind, **own):
    common = dict(attention_bias=False, head_dim=16, hidden_act="silu", hidden_size=32, intermediate_size=32,
                  max_position_embeddings=512, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2,
                  rms_norm_eps=1e-5, rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=False,
                  vocab_size=tokenizer.SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2, torch_dtype="float32")
    return {"architectures": [architecture], "model_type": kind, **common, **own}


def _llama(**own):
    return _config("LlamaForCausalLM", "llama", **{"mlp_bias": False, **own})


def _phi3(**own):
    config = _config("Phi3ForCausalLM", "phi3", **{"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": None,
                                                   "original_max_position_embeddings": 512, **own})
    del config["head_dim"]  # as in Microsoft's: hidden_size / num_attention_heads
    return config


def _gemma(architecture, kind, **own):
    return _config(architecture, kind, **{"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh",
                                          "rms_norm_eps": 1e-6, "tie_word_embeddings": True, **own})


def _gemma3(**own):
    return _gemma("Gemma3ForCausalLM", "gemma3_text", **{
        "num_hidden_layers": 6, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 16, "query_pre_attn_scalar": 12,
        "rope_local_base_freq": 100.0, "rope_theta": 10000.0, "sliding_window": 8, "sliding_window_pattern": 6, **own})


def _gptq(**own):
    return dict(bits=4, checkpoint_format="gptq", desc_act=False, group_size=32, quant_method="gptq", sym=False, **own)


_AWQ = dict(bits=4, group_size=32, quant_method="awq", version="gemm", zero_point=True)
_LLAMA3 = dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=32, rope_type="llama3")
_YARN = dict(factor=4.0, original_max_position_embeddings=32, rope_type="yarn")
_LONG = dict(type="longrope", short_factor=[1.0 + 0.03 * i for i in range(8)], long_factor=[1.1 * 1.21 ** i for i in range(8)])
_UNSCALED = {"rope_scaling": None}
_PACKED = dict(hidden_size=64, intermediate_size=96, torch_dtype="float16")

SPECS = {
    "llama3-rope": Spec(_llama(rope_scaling=_LLAMA3, tie_word_embeddings=True, torch_dtype="bfloat16"), "BF16", without=_UNSCALED),
    "llama-linear": Spec(_llama(rope_scaling={"type": "linear", "factor": 4.0}), "F16", without=_UNSCALED),
    # Never longer than max_position_embeddings: plain RoPE.
    "llama-dynamic": Spec(_llama(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "F16"),
    "llama-yarn": Spec(_llama(rope_scaling=_YARN, max_position_embeddings=128), "F16", norm_dtype="F32", without=_UNSCALED),
    "llama-bias": Spec(_llama(attention_bias=True, mlp_bias=True)),
    "mistral-window": Spec(_config("MistralForCausalLM", "mistral", sliding_window=8, num_key_value_heads=1, torch_dtype="bfloat16"),
                           "BF16", shards=2, without={"sliding_window": None}),
    "qwen3": Spec(_config("Qwen3ForCausalLM", "qwen3", tie_word_embeddings=True, use_sliding_window=False, sliding_window=None,
                          max_window_layers=2, rms_norm_eps=1e-6, torch_dtype="bfloat16"), "BF16"),
    "phi3": Spec(_phi3(torch_dtype="bfloat16"), "BF16"),
    # Short factors up to 16 tokens, then all anew with long ones.
    "phi3-longrope": Spec(_phi3(rope_scaling=_LONG, original_max_position_embeddings=16, max_position_embeddings=64), "F16",
                          without=_UNSCALED),
    "gemma": Spec(_gemma("GemmaForCausalLM", "gemma", num_key_value_heads=1)),
    "gemma2": Spec(_gemma("Gemma2ForCausalLM", "gemma2", attn_logit_softcapping=5.0, final_logit_softcapping=20.0,
                          query_pre_attn_scalar=10, sliding_window=8, torch_dtype="bfloat16"), "BF16",
                   without={"sliding_window": 512, "attn_logit_softcapping": None, "final_logit_softcapping": None,
                            "query_pre_attn_scalar": 16}),
    "gemma3": Spec(_gemma3(torch_dtype="bfloat16"), "BF16",
                   without={"sliding_window": 512, "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 8}),
    "gemma3-linear": Spec(_gemma3(rope_scaling={"rope_type": "linear", "factor": 8.0}, torch_dtype="float16"), "F16",
                          norm_dtype="F32", without=_UNSCALED),
    "olmo2": Spec(_config("Olmo2ForCausalLM", "olmo2", head_dim=8, rms_norm_eps=1e-6, rope_theta=500000.0)),
    "granite": Spec(_config("GraniteForCausalLM", "granite", attention_multiplier=0.4, embedding_multiplier=12.0, logits_scaling=8.0,
                            mlp_bias=False, residual_multiplier=0.22, torch_dtype="bfloat16"), "BF16", norm_dtype="F32",
                    without={"attention_multiplier": 0.25, "residual_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0}),
    "smollm3": Spec(_config("SmolLM3ForCausalLM", "smollm3", head_dim=8, num_hidden_layers=4, no_rope_layers=[1, 1, 1, 0],
                            no_rope_layer_interval=4, tie_word_embeddings=True, use_sliding_window=False, sliding_window=None,
                            torch_dtype="bfloat16"), "BF16", without={"no_rope_layers": [1, 1, 1, 1]}),
    "gptq-row": Spec(_llama(**_PACKED), "F16", quantization={**_gptq(), "group_size": -1}),
    "gptq-v2-act": Spec(_llama(**_PACKED), "F16", quantization={**_gptq(), "checkpoint_format": "gptq_v2", "desc_act": True}),
    "awq": Spec(_llama(**_PACKED), "F16", quantization=_AWQ),
    "phi3-gptq": Spec(_phi3(num_attention_heads=4, num_key_value_heads=2, **_PACKED), "F16", quantization=_gptq()),
}
