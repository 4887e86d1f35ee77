#!/usr/bin/env python3
"""Measures what train.py made, and writes what ships: the folders, goldens, and numbers for the cards.

    evaluate.py CORPUS OUT [--ship MODELS --goldens FOLDER]

OUT/evaluation.json: exact match by skill of the target, of its early exits and of the drafts, and how many of each draft's guesses the target accepts."""
import argparse
import json
import os
import shutil
import sys

import numpy as np
import torch

import bpe
import model as llama

GOLDENS, GOLDEN_TOKENS = 32, 24


def prompt_of(tokenizer, messages):
    ids = [bpe.END_OF_TEXT]
    for m in messages:
        ids += [getattr(bpe, m["role"].upper()), *tokenizer.encode(m["content"]), bpe.END]
    return [*ids, bpe.ASSISTANT]


def right(item, reply):
    """The rule of `sluice eval`."""
    if "mark" in item:
        return item["mark"] in reply and reply.rsplit(item["mark"], 1)[1].strip() == item["reply"].rsplit(item["mark"], 1)[1].strip()
    if item.get("match") == "json":
        try:
            return json.loads(reply) == json.loads(item["reply"])
        except ValueError:
            return False
    return reply.strip() == item["reply"].strip()


def exact_match(model, tokenizer, items, name, exit_layer=None):
    prompts = [prompt_of(tokenizer, i["messages"]) for i in items]
    most = [max(32, 2 * len(tokenizer.encode(i["reply"]))) for i in items]
    replies = llama.generate(model, prompts, most, exit_layer=exit_layer, told=lambda n: print(f"\r{name}: {n} of {len(items)}", end="", file=sys.stderr))
    skills = {}
    for item, reply in zip(items, replies):
        n = skills.setdefault(item["skill"], [0, 0])
        n[0] += right(item, tokenizer.decode(reply))
        n[1] += 1
    print("  " + ", ".join(f"{k} {a / b:.1%}" for k, (a, b) in skills.items()), file=sys.stderr)
    return {k: a / b for k, (a, b) in skills.items()}, replies


@torch.no_grad()
def perplexity(model, tokenizer, items):
    """Over the reference replies and their ends, given the prompts; an item is a window."""
    total, count = 0.0, 0
    for item in items:
        prompt, reply = prompt_of(tokenizer, item["messages"]), [*tokenizer.encode(item["reply"]), bpe.END]
        logits = model(torch.tensor([prompt + reply]))[0, len(prompt) - 1:-1]
        total -= float(torch.log_softmax(logits.float(), -1)[torch.arange(len(reply)), reply].sum())
        count += len(reply)
    return float(np.exp(total / count))


@torch.no_grad()
def acceptance(target, draft, prompts, replies, exit_layer=None, guesses=4):
    """How often a draft guesses the target's greedy token, given the target's own text; how likely a sample of the draft is accepted (Leviathan et al., 2023:
    the sum of the smaller probabilities); and the mean number of tokens that a step with `guesses` guesses gives (the target's own included)."""
    same, overlap, places, steps, tokens = 0, 0.0, 0, 0, 0
    for prompt, reply in zip(prompts, replies):
        ids = torch.tensor([[*prompt, *reply, bpe.END]])
        x, _ = target.hidden(ids)
        theirs = target.logits(x)[0, len(prompt) - 1:-1].float()
        if draft is None:
            _, exits = target.hidden(ids, (exit_layer,))
            ours = target.logits(exits[exit_layer])[0, len(prompt) - 1:-1].float()
        else:
            ours = draft(ids)[0, len(prompt) - 1:-1].float()
        hits = (theirs.argmax(-1) == ours.argmax(-1)).tolist()
        same += sum(hits)
        overlap += float(torch.minimum(torch.softmax(theirs, -1), torch.softmax(ours, -1)).sum())
        places += len(hits)
        at = 0
        while at < len(hits):
            run = 0
            while run < guesses and at + run < len(hits) and hits[at + run]:
                run += 1
            tokens += min(run + 1, len(hits) - at)
            steps += 1
            at += run + 1
    return {"greedy": same / places, "sampled": overlap / places, f"tokens_a_step_of_{guesses}": tokens / steps, "places": places}


def write_goldens(folder, out, tokenizer, items):
    """Greedy ids and logits in double, from the folder's f16 values: the truth that tests hold a backend against."""
    model = llama.load_folder(folder).double()
    model.precise, model.cos, model.sin = True, model.cos.double(), model.sin.double()
    c = model.config
    angles = torch.outer(torch.arange(c.context).double(), c.theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim))
    model.cos, model.sin = angles.cos(), angles.sin()
    prompts = [prompt_of(tokenizer, i["messages"]) for i in items]
    replies = llama.generate(model, prompts, GOLDEN_TOKENS, batch=1)
    rows, entries = [], []
    with torch.no_grad():
        for item, prompt, reply in zip(items, prompts, replies):
            logits = model(torch.tensor([prompt + reply]))[0, len(prompt) - 1:]
            top = logits.topk(2).values
            # Logits of the first, a middle and the last row; the margin is the smallest of all rows.
            kept = list(range(0, len(logits), max(1, len(logits) // 2)))[:3]
            entries.append({"skill": item["skill"], "messages": item["messages"], "prompt_ids": prompt, "ids": reply, "text": tokenizer.decode(reply),
                            "min_margin": float((top[:, 0] - top[:, 1]).min()), "logit_rows": kept})
            rows.append(logits[kept].numpy().astype("<f4"))
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "golden.json"), "w", encoding="utf-8") as f:
        json.dump({"vocabulary": c.vocabulary, "made_by": f"PyTorch {torch.__version__}, float64", "max_tokens": GOLDEN_TOKENS, "prompts": entries}, f, indent=1)
        f.write("\n")
    np.concatenate(rows).tofile(os.path.join(out, "golden.f32"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus")
    parser.add_argument("out")
    parser.add_argument("--ship", help="where the folders of target and better draft are copied to")
    parser.add_argument("--goldens", help="where goldens of both go")
    parser.add_argument("--limit", type=int, help="items of each skill")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = bpe.Tokenizer.load(os.path.join(options.corpus, "tokenizer.json"))
    with open(os.path.join(options.corpus, "heldout.jsonl"), encoding="utf-8") as f:
        items = [json.loads(line) for line in f]
    if options.limit:
        seen = {}
        items = [i for i in items if seen.setdefault(i["skill"], []).append(i) or len(seen[i["skill"]]) <= options.limit]
    prompts = [prompt_of(tokenizer, i["messages"]) for i in items]
    models = {n: llama.load_folder(os.path.join(options.out, n)) for n in ("target", "draft-logits", "draft-text") if os.path.exists(os.path.join(options.out, n, "model.safetensors"))}
    for m in models.values():
        m.precise = True
    target = models["target"]
    result = {"items": len(items), "models": {}}
    with torch.no_grad():
        for name, m in models.items():
            match, replies = exact_match(m, tokenizer, items, name)
            result["models"][name] = {"parameters": sum(p.numel() for p in m.parameters()), "exact_match": match, "perplexity": perplexity(m, tokenizer, items)}
            if name == "target":
                own = replies
            else:
                result["models"][name]["acceptance"] = acceptance(target, m, prompts, own)
        exits = {}
        for layer in range(1, target.config.layers):
            match, _ = exact_match(target, tokenizer, items, f"target, {layer} layers", layer)
            exits[layer] = {"exact_match": match, "acceptance": acceptance(target, None, prompts, own, layer)}
        result["exits"] = exits
    path = os.path.join(options.out, "evaluation.json")
    with open(path, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    print(json.dumps(result, indent=1))
    if options.ship:
        drafts = [n for n in models if n != "target"]
        best = max(drafts, key=lambda n: result["models"][n]["acceptance"]["greedy"])
        for name, to in (("target", "tales"), (best, "tales-draft")):
            folder = os.path.join(options.ship, to)
            os.makedirs(folder, exist_ok=True)
            for file in os.listdir(os.path.join(options.out, name)):
                shutil.copy(os.path.join(options.out, name, file), folder)
            if options.goldens:
                # Counting is left out: its questions are as those of sorting to a model's arithmetic.
                each = GOLDENS // 4
                chosen = [i for skill in ("arithmetic", "sorting", "json", "story") for i in [x for x in items if x["skill"] == skill][:each]]
                write_goldens(folder, os.path.join(options.goldens, to), tokenizer, chosen)
        shutil.copy(os.path.join(options.corpus, "heldout.jsonl"), os.path.join(options.ship, "heldout.jsonl"))


if __name__ == "__main__":
    main()
