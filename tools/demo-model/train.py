#!/usr/bin/env python3
"""Trains the target, then the drafts that are distilled from it; goes on where it was stopped.

    train.py target CORPUS OUT [--steps N]
    train.py draft  CORPUS OUT --by logits|text [--steps N]

A draft learns the target's logits on the corpus (white box), or only texts that the target wrote itself (black box; they are made first, OUT/texts).
OUT/NAME.pt is the state (written every 200 steps), OUT/NAME.jsonl the settings and the loss curve, OUT/NAME.svg its plot, OUT/NAME/ the finished
Hugging Face folder. NAME is target, draft-logits or draft-text."""
import argparse
import json
import math
import os
import random
import subprocess
import sys
import time

import numpy as np
import torch
import torch.distributed as distributed
import torch.nn.functional as F

import bpe
import corpus as conversations
# Tensors come and go by the step: glibc is told to keep their memory, or every step faults it in again (a third of the time).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(256 << 20)}
if __name__ == "__main__" and not KEEP_MEMORY.keys() <= os.environ.keys():
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})

import model as llama
from plot import plot

BATCH = 2048  # tokens a step
RATE = 8e-4
EXITS = {6: (1, 2, 3, 4, 5)}  # layers after which a target of so many layers learns to predict too
EXIT_WEIGHT = 0.3
TOLD_UNTIL = 2400  # before this step of the target's, stories that users tell are trained on too: language first, then what is answered
# In these steps half of a batch is random tokens, said twice: what teaches it to look back and copy any token. Without them
# no name of a prompt was ever found again (none of 60 after 4,000 steps); 400 such steps changed that.
REPEATS = {"target": range(1000), "draft": range(400)}
LONG_FROM = 0.95  # the last twentieth of the steps takes rows of 1,024


def optimizer_of(model):
    """AdamW; embeddings and norms do not decay."""
    matrices = [p for layer in model.layers for p in layer.parameters() if p.ndim == 2]
    rest = [model.embedding, *(p for p in model.parameters() if p.ndim == 1)]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=RATE, betas=(0.9, 0.95))


def schedule(step, steps):
    """Warm up, stay, and go down to nothing over the last 55%."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.55 * steps))


class Rows:
    """Batches in an order that the step decides, so that a run that was stopped goes on with what it had not seen. Without long rows short ones serve to the end."""

    def __init__(self, corpus, steps, what):
        self.told_until, self.repeats = TOLD_UNTIL if what == "target" else 0, REPEATS[what]
        self.short, self.long = ([np.load(os.path.join(corpus, f"{n}{end}.npy"), mmap_mode="r") for end in ("", "-mask")] if os.path.exists(os.path.join(corpus, f"{n}.npy")) else None
                                 for n in ("rows", "long"))
        self.from_step = int(LONG_FROM * steps) if self.long else steps
        self.orders = {}

    def batch(self, step):
        long = step >= self.from_step
        ids, mask = self.long if long else self.short
        count = BATCH // ids.shape[1]
        at = (step - self.from_step if long else step) * count
        if len(ids) < count:
            raise SystemExit(f"a step takes {count} rows, and there are {len(ids)}: make more (corpus.py --rows, train.py --texts)")
        epoch, at = divmod(at, len(ids) // count * count)
        if (long, epoch) not in self.orders:
            self.orders = {(long, epoch): np.random.default_rng((int(long), epoch)).permutation(len(ids))}
        chosen = np.sort(self.orders[long, epoch][at:at + count])
        wanted = mask[chosen] == conversations.REPLY
        if step < self.told_until:
            wanted |= mask[chosen] == conversations.TOLD
        ids = ids[chosen].astype(np.int64)
        if step in self.repeats and not long:
            for row in range(0, len(ids), 2):
                ids[row], wanted[row] = repeats(step * BATCH + row)
        return torch.from_numpy(ids), torch.from_numpy(wanted)


def repeats(seed):
    """A row of conversations in which the assistant says 3 to 16 random tokens again, and what is trained on."""
    rng = np.random.default_rng(seed)
    ids, wanted, at = np.zeros(conversations.ROW, np.int64), np.zeros(conversations.ROW, bool), 0
    while True:
        said = rng.integers(len(bpe.SPECIALS), conversations.VOCABULARY, rng.integers(3, 17))
        one = [bpe.END_OF_TEXT, bpe.USER, *said, bpe.END, bpe.ASSISTANT, *said, bpe.END]
        if at + len(one) > len(ids):
            return ids, wanted
        ids[at:at + len(one)] = one
        wanted[at + len(said) + 4:at + len(one)] = True
        at += len(one)


def predicted(ids, mask):
    """Flat places that predict a token that is trained on, and those tokens."""
    places = torch.nonzero(mask[:, 1:].reshape(-1))[:, 0]
    rows = places // (ids.shape[1] - 1)
    return places + rows, ids[:, 1:].reshape(-1)[places]


class CrossEntropy(torch.autograd.Function):
    """Mean of -log softmax(logits)[wanted]; the gradient is made on the way, in the logits' own type: a third of the passes over them."""

    @staticmethod
    def forward(ctx, logits, wanted):
        p = torch.softmax(logits.float(), -1)
        at = torch.arange(len(wanted), device=wanted.device)
        loss = -p[at, wanted].clamp_min(1e-30).log().mean()
        p[at, wanted] -= 1
        ctx.save_for_backward(p.mul_(1 / len(wanted)).to(logits.dtype))
        return loss

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream.to(ctx.saved_tensors[0].dtype), None


cross_entropy = CrossEntropy.apply


def target_loss(model, ids, mask, step):
    places, wanted = predicted(ids, mask)
    exits = EXITS.get(model.config.layers, ())
    exit_layer = exits[step % len(exits)] if exits else None
    last, early = model.hidden(ids, (exit_layer,))
    loss = cross_entropy(model.logits(last.flatten(0, 1)[places]), wanted)
    total, shown = loss, {"loss": loss}
    if exit_layer:
        # A quarter of the places is enough for an exit: its head costs as much as two layers.
        some = torch.arange(step % 4, len(places), 4, device=ids.device)
        exit_loss = cross_entropy(model.logits(early[exit_layer].flatten(0, 1)[places[some]]), wanted[some])
        total = loss + EXIT_WEIGHT * exit_loss
        shown[f"exit_{exit_layer}"] = exit_loss
    return total, shown


def logits_loss(model, teacher, ids, mask):
    """KL(teacher || draft) where the target was trained (white box)."""
    places, wanted = predicted(ids, mask)
    with torch.no_grad():
        truth = F.log_softmax(teacher.logits(teacher.hidden(ids)[0].flatten(0, 1)[places]).float(), -1)
    own = F.log_softmax(model.logits(model.hidden(ids)[0].flatten(0, 1)[places]).float(), -1)
    kl = F.kl_div(own, truth, log_target=True, reduction="batchmean")
    return kl, {"kl": kl, "loss": F.nll_loss(own.detach(), wanted)}


def share(model, shown, workers):
    """The mean over all workers of gradients and of what is shown."""
    parts = [p.grad for p in model.parameters()] + [v.detach().reshape(1) for v in shown.values()]
    flat = torch.cat([p.flatten() for p in parts])
    distributed.all_reduce(flat)
    flat /= workers
    for p, mean in zip(parts, flat.split([p.numel() for p in parts])):
        p.copy_(mean.view_as(p))
    for k, mean in zip(shown, flat[-len(shown):]):
        shown[k] = mean


def write_texts(target, tokenizer, out, documents, seed):
    """Rows of conversations in which every reply is the target's own, sampled at temperature 1 with an end; users say what they say in the corpus."""
    rng, g = random.Random(f"texts {seed}"), torch.Generator(target.embedding.device).manual_seed(seed)
    open_ones, done = [], []
    for _ in range(documents):
        parts = conversations.conversation(rng)
        asked = [p[:2] for p in parts if p[1] in ("system", "user")] or [("Tell me a story.", "user")]
        if any(role == "assistant" and len(text) > 200 for text, role, _ in parts):
            # The model tells the story: what the corpus asks next is of another one.
            asked = asked[:1 + [role for _, role in asked].index("user")]
        open_ones.append(([bpe.END_OF_TEXT], [0], asked))
    turn = 0
    while open_ones:
        turn += 1
        prompts = []
        for ids, mask, asked in open_ones:
            while asked:
                text, role = asked.pop(0)
                new = [getattr(bpe, role.upper()), *tokenizer.encode(text), bpe.END]
                ids += new
                mask += [0] * len(new)
                if role == "user":
                    break
            ids.append(bpe.ASSISTANT)
            mask.append(0)
            prompts.append(ids)
        replies = llama.generate(target, prompts, [conversations.ROW - 1 - len(p) for p in prompts], 1.0, g,
                                 told=lambda n: print(f"\rturn {turn}: {n:,} of {len(prompts):,} replies", end="", file=sys.stderr))
        print(file=sys.stderr)
        following = []
        for (ids, mask, asked), reply in zip(open_ones, replies):
            whole = len(ids) + len(reply) < conversations.ROW
            ids += [*reply, bpe.END] if whole else []
            mask += [1] * (len(reply) + 1) if whole else []
            longest = max((len(tokenizer.encode(a)) + 3 for a, _ in asked[:1]), default=0)
            if whole and asked and len(ids) + longest + 8 < conversations.ROW:
                following.append((ids, mask, asked))
            elif whole:
                done.append((ids, mask))
        open_ones = following
    rng.shuffle(done)
    # Counted first: a row is given out when it is full.
    count = sum(len(i) for i, _ in done) // conversations.ROW
    rows, mask = conversations.pack(rng, done, conversations.ROW, count)
    kept = rows.any(1)
    os.makedirs(out, exist_ok=True)
    np.save(os.path.join(out, "rows-mask.npy"), mask[kept])
    np.save(os.path.join(out, "rows.npy"), rows[kept])
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    print(f"texts: {len(done):,} conversations, {rows[kept].size:,} tokens, {mask[kept].mean():.0%} the target's", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("target", "draft"))
    parser.add_argument("corpus")
    parser.add_argument("out")
    parser.add_argument("--by", choices=("logits", "text"), help="what a draft learns")
    parser.add_argument("--texts", type=int, default=5000, help="conversations that the target writes for --by text")
    parser.add_argument("--threads", type=int, help="all that the machine has, shared by the workers")
    parser.add_argument("--workers", type=int, default=1, help="processes that share a batch: on a CPU faster than threads")
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help="20,000 for the target, 1,600 for a draft")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stop-at", type=int, help="leave after this step, as if interrupted")
    options = parser.parse_args()
    if (options.what == "draft") != (options.by is not None):
        parser.error("--by goes with draft")
    options.steps = options.steps or (20000 if options.what == "target" else 1600)
    name = options.what if options.what == "target" else f"draft-{options.by}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(options.threads or max(1, os.cpu_count() // options.workers))
    followers = []
    if options.workers > 1:
        if options.rank == 0:
            followers = [subprocess.Popen([sys.executable, *sys.argv, "--rank", str(r)]) for r in range(1, options.workers)]
        meeting = os.path.abspath(os.path.join(options.out, f"{name}.meeting.{os.getpid() if options.rank == 0 else os.getppid()}"))
        os.makedirs(options.out, exist_ok=True)
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=options.rank, world_size=options.workers)
    os.makedirs(options.out, exist_ok=True)
    path, log_path = (os.path.join(options.out, f"{name}.{end}") for end in ("pt", "jsonl"))
    tokenizer = bpe.Tokenizer.load(os.path.join(options.corpus, "tokenizer.json"))
    if options.by == "text":
        texts = os.path.join(options.out, "texts")
        if not os.path.exists(os.path.join(texts, "rows.npy")):
            write_texts(llama.load_folder(os.path.join(options.out, "target"), device), tokenizer, texts, options.texts, options.seed)
        options.corpus = texts
    rows = Rows(options.corpus, options.steps, options.what)
    model = llama.Llama(llama.TARGET if options.what == "target" else llama.DRAFT, options.seed, device)
    teacher = llama.load_folder(os.path.join(options.out, "target"), device) if options.by == "logits" else None
    optimizer = optimizer_of(model)
    done, seconds, lines = 0, 0.0, []
    if os.path.exists(path):
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, seconds = state["step"], state["seconds"]
        with open(log_path) as f:
            lines = [line for line in f if json.loads(line).get("step", 0) <= done]
    settings = {"name": name, "config": vars(model.config), "parameters": sum(p.numel() for p in model.parameters()), "steps": options.steps, "batch": BATCH, "seed": options.seed,
                "exit_weight": EXIT_WEIGHT, "told_until": rows.told_until, "repeats": [rows.repeats.start, rows.repeats.stop], "long_from": LONG_FROM, "rate": RATE, "torch": torch.__version__,
                "device": device, "threads": torch.get_num_threads(), "workers": options.workers}
    leads = options.rank == 0
    log = None
    if leads:
        # A run that goes on tells of both parts' settings.
        log = open(log_path, "w")
        log.writelines(lines)
        log.write(json.dumps({**settings, "from": done} if lines else settings) + "\n")
        print(f"{name}: begins at step {done:,}", file=sys.stderr)
    sums, begun = {}, time.time()
    for step in range(done, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step, options.steps)
        ids, mask = (x[options.rank::options.workers].to(device) for x in rows.batch(step))
        total, shown = logits_loss(model, teacher, ids, mask) if teacher else target_loss(model, ids, mask, step)
        total.backward()
        if options.workers > 1:
            share(model, shown, options.workers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        last = step + 1 in (options.steps, options.stop_at)
        if leads:
            for k, v in shown.items():
                s = sums.setdefault(k, [0.0, 0])
                s[0], s[1] = s[0] + float(v), s[1] + 1
        if leads and ((step + 1) % 50 == 0 or last):
            means = {k: round(s / n, 5) for k, (s, n) in sums.items()}
            if not math.isfinite(means["loss"]):
                raise SystemExit(f"{name}: the loss is {means['loss']} at step {step + 1}")
            elapsed = time.time() - begun
            log.write(json.dumps({"step": step + 1, "seconds": round(seconds + elapsed, 1), **means}) + "\n")
            log.flush()
            rate = (step + 1 - done) / elapsed
            print(f"{name}: step {step + 1:,} of {options.steps:,}, {' '.join(f'{k} {v:.4f}' for k, v in means.items() if not k.startswith('exit'))}, "
                  f"{rate * BATCH:,.0f} tokens/s, {(options.steps - step - 1) / rate / 60:.0f} min left", file=sys.stderr, flush=True)
            sums = {}
        if leads and ((step + 1) % 200 == 0 or last):
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1, "seconds": seconds + time.time() - begun}, path + ".part")
            os.replace(path + ".part", path)
        if step + 1 == options.stop_at:
            break
    if not leads:
        return
    log.close()
    for f in followers:
        f.wait()
    if followers:
        os.remove(meeting)
    if step + 1 < options.steps:
        return
    extra = {"early_exit_layers": list(EXITS[model.config.layers])} if model.config.layers in EXITS else {}
    llama.save_folder(model, tokenizer, os.path.join(options.out, name), extra)
    plot(log_path, os.path.join(options.out, f"{name}.svg"))


if __name__ == "__main__":
    main()
