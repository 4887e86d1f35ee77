"""make.py FOLDER [NAME...]: writes the folders of specs.py, each a Hugging Face model with its golden inside.

A seed's first draw that gives 16 greedy tokens without a special one, ten of them distinct, and no near tie, is taken, so
that f32 arithmetic in any order must find the same ids. Never run to make a failing test pass.
"""
import json
import os
import sys
import zlib

import numpy as np

import packing
import tensorfile
from model import Model
from specs import SPECS
from tokenizer import Tokenizer
from weights import Weights

PROMPT = "the bird was happy, do not"
TOKENS = 16
LEAST_MARGIN = 0.08  # of a logit, between the likeliest token and the second
LEAST_DISTINCT = 10
LEAST_CHANGE = 0.05  # of the logits' deviation, where a feature is left out


def write_tensors(folder, spec, seed):
    drawn = Weights(spec.config, seed)
    tensors = {}
    for name, values in drawn.arrays.items():
        if spec.quantization and name.endswith("_proj.weight"):
            tensors.update(packing.pack(values, name.removesuffix(".weight"), spec.quantization, drawn.rng))
        else:
            dtype = spec.norm_dtype if spec.norm_dtype and "norm" in name else spec.dtype
            tensors[name] = (dtype, tensorfile.encode(values, dtype))
    for old in os.listdir(folder):
        if "safetensors" in old:
            os.remove(os.path.join(folder, old))
    if spec.shards == 1:
        tensorfile.write(os.path.join(folder, "model.safetensors"), tensors)
        return
    names, where = sorted(tensors), {}
    for shard in range(spec.shards):  # cut by count: a layer lies in two files
        file = f"model-{shard + 1:05}-of-{spec.shards:05}.safetensors"
        part = names[shard * len(names) // spec.shards:(shard + 1) * len(names) // spec.shards]
        tensorfile.write(os.path.join(folder, file), {n: tensors[n] for n in part})
        where.update(dict.fromkeys(part, file))
    total = sum(array.nbytes for _, array in tensors.values())
    write_json(os.path.join(folder, "model.safetensors.index.json"), {"metadata": {"total_size": total}, "weight_map": where})


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def step(position, token, row):
    top = np.argsort(-row, kind="stable")[:2]
    logprob = row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
    return {"pos": position, "id": token, "logprob": round(float(logprob), 6), "top": [[int(i), round(float(row[i]), 6)] for i in top]}


def write_golden(folder, name, seed, text, prompt, ids, rows):
    answer = rows[len(prompt) - 1:-1]
    golden = {
        "model": name, "seed": seed, "kv": "f64", "n_vocab": rows.shape[1], "prompt": text, "prompt_ids": prompt,
        "steps": [step(len(prompt) + i, token, answer[i]) for i, token in enumerate(ids)], "ids": ids,
        "min_top1_top2_margin": round(float(margins(answer).min()), 6), "logits_rows": len(rows),
    }
    raw = Tokenizer().decode(ids)
    golden.update(text_utf8_hex=raw.hex(), text=raw.decode())
    fields = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    with open(os.path.join(folder, "golden.json"), "w") as file:
        file.write("{\n" + ",\n".join(fields) + "\n}\n")
    rows.astype("<f4").tofile(os.path.join(folder, "exact.f32"))


def margins(rows):
    two = -np.sort(-rows, -1)[:, :2]
    return two[:, 0] - two[:, 1]


def make(folder, name):
    spec, tokenizer = SPECS[name], Tokenizer()
    os.makedirs(folder, exist_ok=True)
    config = {**spec.config, "quantization_config": spec.quantization} if spec.quantization else spec.config
    write_json(os.path.join(folder, "config.json"), config)
    tokenizer.write(os.path.join(folder, "tokenizer.json"))
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "add_bos_token": False, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"})
    prompt = tokenizer.encode(PROMPT)
    first = zlib.crc32(name.encode())  # of a folder's own, so that a new spec changes no other
    for seed in range(first, first + 1000):
        write_tensors(folder, spec, seed)
        ids, rows = Model(folder).run(prompt, TOKENS)
        least = margins(rows[len(prompt) - 1:-1]).min()
        if least < LEAST_MARGIN or len(set(ids)) < LEAST_DISTINCT or set(ids) & set(tokenizer.special):
            continue
        changes = {key: np.abs(Model(folder, {key: other}).run(prompt, TOKENS, ids)[1] - rows).max() / rows.std()
                   for key, other in spec.without.items()}
        if min(changes.values(), default=1.0) >= LEAST_CHANGE:
            break
    else:
        sys.exit(f"{name}: no seed of 1,000 will do")
    write_golden(folder, name, seed, PROMPT, prompt, ids, rows)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    noticed = ", ".join(f"{key} {change:.2g}" for key, change in changes.items())
    print(f"{name:16} seed {seed:10} prompt {len(prompt)} margin {least:.3f} {size:7,} bytes; {noticed}", flush=True)
    return size


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    chosen = sys.argv[2:] or list(SPECS)
    total = sum(make(os.path.join(sys.argv[1], name), name) for name in chosen)
    print(f"{len(chosen)} folders, {total:,} bytes")
