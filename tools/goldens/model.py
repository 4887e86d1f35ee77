"""A Hugging Face folder run in float64: what its weights say, without an engine's rounding."""
import json
import os

import numpy as np

import families
import packing
import rope
import tensorfile


class Model:
    def __init__(self, folder, override=None):
        with open(os.path.join(folder, "config.json")) as file:
            self.config = {**json.load(file), **(override or {})}
        self.tensors = tensorfile.read_folder(folder)
        self.family = families.of(self.config["model_type"])
        self.heads = self.config["num_attention_heads"]
        self.kv_heads = self.config.get("num_key_value_heads") or self.heads
        self.head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        self.eps = float(np.float32(self.config["rms_norm_eps"]))  # engines hold it in f32
        self._decoded = {}
        self.forget()

    def forget(self):
        """Empties the cache of keys and values."""
        self._keys, self._values, self.length = {}, {}, 0

    def tensor(self, name):
        if name not in self._decoded:
            self._decoded[name] = tensorfile.decode(*self.tensors[name])
        return self._decoded[name]

    def linear(self, x, prefix):
        """x W^T + b, whichever way W is stored."""
        if prefix + ".weight" in self.tensors:
            weights = self.tensor(prefix + ".weight")
        else:
            if prefix not in self._decoded:
                self._decoded[prefix] = packing.unpack(self.tensor, prefix, self.config["quantization_config"])
            weights = self._decoded[prefix]
        y = x @ weights.T
        return y + self.tensor(prefix + ".bias") if prefix + ".bias" in self.tensors else y

    def norm(self, x, name):
        """RMSNorm; Gemma stores its weights less one."""
        w = self.tensor(name + ".weight") + self.family.norm_offset
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.eps) * w

    def split(self, x):
        return x.reshape(len(x), -1, self.head_dim)

    def attend(self, layer, q, k, v, scale, window=None, cap=None):
        """Puts k and v [n, Hkv, D] behind what is cached; query i sees the keys j with i - window < j <= i."""
        if layer in self._keys:
            k, v = np.concatenate([self._keys[layer], k]), np.concatenate([self._values[layer], v])
        self._keys[layer], self._values[layer] = k, v
        shared = self.heads // self.kv_heads
        scores = scale * np.einsum("ihd,jhd->hij", q, np.repeat(k, shared, 1))
        if cap:
            scores = cap * np.tanh(scores / cap)
        i, j = self.length + np.arange(len(q))[:, None], np.arange(len(k))
        seen = (j <= i) & (j > i - window) if window else j <= i
        p = np.exp(np.where(seen, scores - scores.max(-1, keepdims=True), -np.inf))
        p /= p.sum(-1, keepdims=True)
        return np.einsum("hij,jhd->ihd", p, np.repeat(v, shared, 1)).reshape(len(q), -1)

    def forward(self, ids):
        """Logits [len(ids), V] of ids behind those that are cached."""
        x = self.tensor("model.embed_tokens.weight")[ids] * self.family.embedding_scale(self.config)
        positions = np.arange(self.length, self.length + len(ids), dtype=np.float64)
        for layer in range(self.config["num_hidden_layers"]):
            x = self.family.layer(self, layer, x, positions)
        self.length += len(ids)
        tied = self.config.get("tie_word_embeddings") or "lm_head.weight" not in self.tensors
        head = self.tensor("model.embed_tokens.weight" if tied else "lm_head.weight")
        logits = self.norm(x, "model.norm") @ head.T / self.config.get("logits_scaling", 1.0)
        cap = self.config.get("final_logit_softcapping")
        return cap * np.tanh(logits / cap) if cap else logits

    def run(self, prompt, count, forced=None):
        """Greedy ids (or the forced ones) and the logits after each position: [len(prompt) + count, V].

        Prompt rows are one pass over the prompt. Under LongRoPE the whole sequence is computed anew when it first passes the
        original length, as transformers' generation does: earlier rows stay as they were.
        """
        self.forget()
        rows, ids = list(self.forward(np.array(prompt))), []
        original = rope.longrope_original(self.config)
        for step in range(count):
            ids.append(int(np.argmax(rows[-1])) if forced is None else forced[step])
            anew = self.length == original
            if anew:
                self.forget()
            rows.append(self.forward(np.array([*prompt, *ids] if anew else ids[-1:]))[-1])
        return ids, np.array(rows)
