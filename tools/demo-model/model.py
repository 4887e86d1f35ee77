"""Llama in PyTorch, for training on a CPU or a GPU: GQA, rotate-half RoPE, SwiGLU, RMSNorm, tied embeddings; and its Hugging Face folder.

Weights are f32 and are used in bf16 (the products) while training; `precise` computes all in the weights' own type."""
import dataclasses
import json
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

import bpe

# Marks are written out: a role is data, and what comes from data is no control token.
TEMPLATE = ("{{- bos_token }}{%- for message in messages %}{%- if message['role'] == 'system' %}{{- '<|system|>' }}{%- elif message['role'] == 'user' %}{{- '<|user|>' }}"
            "{%- elif message['role'] == 'assistant' %}{{- '<|assistant|>' }}{%- else %}{{- raise_exception('roles are system, user and assistant, not ' + message['role']) }}{%- endif %}"
            "{{- message['content'] }}{{- '<|end|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}")


@dataclasses.dataclass
class Config:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    head_dim: int = 64
    vocabulary: int = 2048
    context: int = 1024
    theta: float = 10000.0
    eps: float = 1e-5

    def parameters(self):
        a = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.vocabulary * self.hidden + self.layers * (a + 3 * self.hidden * self.ffn + 2 * self.hidden) + self.hidden


TARGET = Config(layers=6, hidden=256, heads=4, kv_heads=2, ffn=512)
DRAFT = Config(layers=2, hidden=128, heads=2, kv_heads=1, ffn=128)


def rotate(x, cos, sin):
    """x [B, T, H, D]: pairs are halves."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Llama(torch.nn.Module):
    def __init__(self, config, seed=1, device="cpu"):
        super().__init__()
        self.config = c = config
        g = torch.Generator().manual_seed(seed)

        def matrix(rows, cols):
            return torch.nn.Parameter((torch.randn(rows, cols, generator=g) * cols ** -0.5).to(device))

        def zeros(rows, cols):
            return torch.nn.Parameter(torch.zeros(rows, cols, device=device))

        def ones():
            return torch.nn.Parameter(torch.ones(c.hidden, device=device))

        self.embedding = torch.nn.Parameter((torch.randn(c.vocabulary, c.hidden, generator=g) * 0.06).to(device))
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        # Blocks begin as nothing, so that the first that is learned to look at is the tokens themselves.
        self.layers = torch.nn.ModuleList()
        for _ in range(c.layers):
            layer = torch.nn.Module()
            layer.attention_norm, layer.ffn_norm = ones(), ones()
            layer.q, layer.k, layer.v, layer.o = matrix(q, c.hidden), matrix(kv, c.hidden), matrix(kv, c.hidden), zeros(c.hidden, q)
            layer.gate, layer.up, layer.down = matrix(c.ffn, c.hidden), matrix(c.ffn, c.hidden), zeros(c.hidden, c.ffn)
            self.layers.append(layer)
        self.norm = ones()
        angles = torch.outer(torch.arange(c.context).double(), c.theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim))
        self.cos, self.sin = angles.cos().float().to(device), angles.sin().float().to(device)
        self.precise = False

    def cast(self, x):
        return x if self.precise else x.to(torch.bfloat16)

    def normed(self, x, weight):
        return self.cast(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config.eps) * weight)

    def block(self, layer, x, cos, sin, mask, cache=None):
        """cos, sin [T, 1, D/2] or [B, T, 1, D/2]; mask is added to the scores [B Hkv, group T, keys]. cache: (keys, values, tokens before)."""
        c = self.config
        B, T, _ = x.shape
        h = self.normed(x, layer.attention_norm)
        qkv = F.linear(h, self.cast(torch.cat((layer.q, layer.k, layer.v))))
        q, k, v = qkv.split((c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim), -1)
        q = rotate(q.view(B, T, c.heads, c.head_dim), cos, sin) * c.head_dim ** -0.5
        k = rotate(k.view(B, T, c.kv_heads, c.head_dim), cos, sin)
        group = c.heads // c.kv_heads
        q = q.view(B, T, c.kv_heads, group, c.head_dim).permute(0, 2, 3, 1, 4).reshape(B * c.kv_heads, group * T, c.head_dim)
        k = k.permute(0, 2, 3, 1).reshape(B * c.kv_heads, c.head_dim, T)
        v = v.view(B, T, c.kv_heads, c.head_dim).permute(0, 2, 1, 3).reshape(B * c.kv_heads, T, c.head_dim)
        if cache:
            keys, values, before = cache
            keys[:, :, before:before + T], values[:, before:before + T] = k, v
            k, v = keys[:, :, :before + T], values[:, :before + T]
        p = torch.softmax(torch.bmm(q, k).add_(mask), -1)
        o = torch.bmm(p, v).view(B, c.kv_heads, group, T, c.head_dim).permute(0, 3, 1, 2, 4).reshape(B, T, -1)
        x = x + F.linear(o, self.cast(layer.o))
        h = self.normed(x, layer.ffn_norm)
        gate, up = F.linear(h, self.cast(torch.cat((layer.gate, layer.up)))).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.cast(layer.down))

    def hidden(self, ids, exits=()):
        """Residual streams [B, T, C] after the last layer and after each of `exits` (a count of layers)."""
        T = ids.shape[1]
        x = self.embedding[ids]
        mask = self.cast(torch.full((T, T), float("-inf"), device=ids.device, dtype=x.dtype)).triu(1).repeat(self.config.heads // self.config.kv_heads, 1)
        cos, sin = self.cast(self.cos[:T, None]), self.cast(self.sin[:T, None])
        out = {}
        for i, layer in enumerate(self.layers):
            x = self.block(layer, x, cos, sin, mask)
            if i + 1 in exits:
                out[i + 1] = x
        return x, out

    def logits(self, x):
        """x [..., C] to [..., V]: the final norm and the tied head, for the last layer and for exits alike."""
        return F.linear(self.normed(x, self.norm), self.cast(self.embedding))

    def forward(self, ids):
        return self.logits(self.hidden(ids)[0])


@torch.no_grad()
def generate(model, prompts, most, temperature=0.0, generator=None, exit_layer=None, batch=96, told=None):
    """Replies to prompts of token ids, without the token that ends them; `most` is one number or one a prompt. Prompts stand at the right of a batch, so
    that all rows go on in the same column. exit_layer: layers that are computed, all if None. told: called with how many are done."""
    c, device = model.config, model.embedding.device
    most = [most] * len(prompts) if isinstance(most, int) else most
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [None] * len(prompts)
    stops = torch.tensor((bpe.END, bpe.END_OF_TEXT), device=device)
    layers = list(model.layers)[:exit_layer]
    group = c.heads // c.kv_heads
    for start in range(0, len(order), batch):
        rows = order[start:start + batch]
        B, T = len(rows), max(len(prompts[i]) for i in rows)
        room = min(max(most[i] for i in rows), c.context - T)
        ids = torch.zeros((B, T + room), dtype=torch.long, device=device)
        pads = torch.tensor([T - len(prompts[i]) for i in rows], device=device)
        for row, i in enumerate(rows):
            ids[row, T - len(prompts[i]):T] = torch.tensor(prompts[i])
        dtype = model.embedding.dtype if model.precise else torch.bfloat16
        caches = [(torch.zeros(B * c.kv_heads, c.head_dim, T + room, dtype=dtype, device=device), torch.zeros(B * c.kv_heads, T + room, c.head_dim, dtype=dtype, device=device)) for _ in layers]
        columns = torch.arange(T + room, device=device)
        ended = torch.zeros(B, dtype=torch.bool, device=device)
        length = torch.zeros(B, dtype=torch.long, device=device)
        limits = torch.tensor([most[i] for i in rows], device=device)
        before, end = 0, T
        while True:
            positions = (columns[before:end] - pads[:, None]).clamp_min(0)
            # A pad sees itself alone, so that no row is without a key.
            seen = (columns[:end] <= columns[before:end, None]) & ((columns[:end] >= pads[:, None, None]) | (columns[:end] == columns[before:end, None]))
            mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
            mask = mask[:, None, None].expand(B, c.kv_heads, group, end - before, end).reshape(B * c.kv_heads, group * (end - before), end)
            cos, sin = model.cast(model.cos[positions][:, :, None]), model.cast(model.sin[positions][:, :, None])
            x = model.embedding[ids[:, before:end]]
            for layer, (k, v) in zip(layers, caches):
                x = model.block(layer, x, cos, sin, mask, (k, v, before))
            logits = model.logits(x[:, -1]).float()
            if temperature > 0:
                token = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)[:, 0]
            else:
                token = logits.argmax(-1)
            ended |= torch.isin(token, stops) | (length >= limits)
            length += ~ended
            if bool(ended.all()) or end == T + room:
                break
            ids[:, end] = torch.where(ended, 0, token)
            before, end = end, end + 1
        for row, i in enumerate(rows):
            out[i] = ids[row, T:T + length[row]].tolist()
        if told:
            told(min(start + batch, len(order)))
    return out


def tensors_of(model):
    """Hugging Face's names; rotate-half is its own order of rows."""
    yield "model.embed_tokens.weight", model.embedding
    for i, layer in enumerate(model.layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", layer.attention_norm
        yield p + "post_attention_layernorm.weight", layer.ffn_norm
        for ours, theirs in (("q", "self_attn.q_proj"), ("k", "self_attn.k_proj"), ("v", "self_attn.v_proj"), ("o", "self_attn.o_proj"),
                             ("gate", "mlp.gate_proj"), ("up", "mlp.up_proj"), ("down", "mlp.down_proj")):
            yield f"{p}{theirs}.weight", getattr(layer, ours)
    yield "model.norm.weight", model.norm


def save_folder(model, tokenizer, folder, extra):
    """config.json, generation_config.json, tokenizer.json, tokenizer_config.json, model.safetensors in f16."""
    os.makedirs(folder, exist_ok=True)
    c = model.config

    def write(name, data):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(data, f, indent=2)
            f.write("\n")

    write("config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": c.vocabulary, "hidden_size": c.hidden, "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers, "num_attention_heads": c.heads, "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "hidden_act": "silu",
        "max_position_embeddings": c.context, "rms_norm_eps": c.eps, "rope_theta": c.theta, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": bpe.END_OF_TEXT, "eos_token_id": bpe.END, "torch_dtype": "float16", **extra})
    write("generation_config.json", {"bos_token_id": bpe.END_OF_TEXT, "eos_token_id": [bpe.END, bpe.END_OF_TEXT]})
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bpe.SPECIALS[bpe.END_OF_TEXT], "eos_token": bpe.SPECIALS[bpe.END], "add_bos_token": True,
        "clean_up_tokenization_spaces": False, "model_max_length": c.context, "chat_template": TEMPLATE})
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in sorted(tensors_of(model)):
        data = tensor.detach().cpu().numpy().astype("<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        blobs.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def load_folder(folder, device="cpu"):
    """The model that a folder holds, in f32 with the folder's values."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        j = json.load(f)
    model = Llama(Config(layers=j["num_hidden_layers"], hidden=j["hidden_size"], heads=j["num_attention_heads"], kv_heads=j["num_key_value_heads"], ffn=j["intermediate_size"],
                         head_dim=j["head_dim"], vocabulary=j["vocab_size"], context=j["max_position_embeddings"], theta=j["rope_theta"], eps=j["rms_norm_eps"]), device=device)
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    with torch.no_grad():
        for name, tensor in tensors_of(model):
            begin, end = header[name]["data_offsets"]
            tensor.copy_(torch.from_numpy(np.frombuffer(data[begin:end], "<f2").astype(np.float32)).view(tensor.shape))
    return model
