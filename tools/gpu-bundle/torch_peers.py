#!/usr/bin/env python3
"""What PyTorch takes for the shapes of our own table of ops, on the same device and by the same method: cuBLAS in f16, its INT4
product (_weight_int4pack_mm, bf16, groups of 128) and scaled_dot_product_attention on keys that lie in one piece, for decode, prefill and appends: as it chooses by
itself (target "torch"), and by its flash and cuDNN backends alone ("torch/flash", "torch/cudnn"). It only calls PyTorch.

  torch_peers.py [--device cuda|cpu] [--seconds N] [--small]   one JSON object a line, with the keys of `Sluice.Perf ops`, target "torch..."
  torch_peers.py --compare bench.json [--target cuda]          ours over theirs, by case and as medians; needs no PyTorch

Each run finds an L2 that 256 MB of other bytes went through, and the device busy; device events; the median of at least 100 ms of runs
after 25 ms that warm up; beside it the read rate of a sum over 1 GB in the same process. What a version of PyTorch cannot do is a row
with an `error`; what there was no time for is counted on standard error."""
import argparse
import contextlib
import json
import statistics
import sys
import time

GROUP = 128
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 512, 4096)
LARGE = {
    "8B": ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)),
    "1B": ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192)),
    "70B": ((10240, 8192), (57344, 8192), (8192, 28672)),
}
HEADS = ((32, 32, 128), (32, 8, 128), (32, 8, 64), (28, 4, 128), (64, 8, 128), (8, 4, 256))
# What our goals are set for is measured first: decode (heads, KV heads, head dim, sequences, keys), then prompts (queries, keys before them).
GOALS = ((32, 32, 128, 16, 4096), (32, 4, 128, 64, 8192), (32, 4, 128, 1, 65536), (32, 32, 128, 1, 1024), (32, 32, 128, 1, 65536), (32, 8, 128, 1, 1024))
PROMPTS = ((32, 32, 128, 8192, 0), (32, 8, 128, 8192, 0))
DECODE = tuple((h, kv, d, b, n) for h, kv, d in HEADS for b in (1, 8, 64) for n in (1024, 4096, 32768) if b * n * kv * d <= 1 << 28 and (h, kv, d, b, n) not in GOALS)
APPENDS = tuple((32, 8, 128, q, n) for n in (0, 4096, 32768) for q in (128, 512, 2048, 8192) if (32, 8, 128, q, n) not in PROMPTS)
BACKENDS = {"torch": None, "torch/flash": "FLASH_ATTENTION", "torch/cudnn": "CUDNN_ATTENTION"}
# What a version of PyTorch lacks or refuses; out of memory is a RuntimeError.
FAILURES = (RuntimeError, AttributeError, NotImplementedError, TypeError, ImportError, ValueError)


# ---- measuring

class Bench:
    def __init__(self, device, seconds, small):
        import torch

        self.torch, self.device, self.small = torch, device, small
        self.end = time.monotonic() + seconds
        self.left_out = 0
        cuda = device == "cuda"
        if cuda and not torch.cuda.is_available():
            sys.exit("torch_peers.py: this PyTorch sees no GPU")
        self.name = torch.cuda.get_device_name() if cuda else "cpu"
        self.other = torch.empty((256 if cuda else 1) << 20, dtype=torch.uint8, device=device)
        count = (1 << 20 if small else 1 << 30) // 4
        x = torch.zeros(count, dtype=torch.float32, device=device)
        self.peak = 4 * count / self.median(x.sum) / 1e6
        print(f"torch {torch.__version__} on {self.name}: reads {self.peak:.0f} GB/s", file=sys.stderr)

    def median(self, run):
        """Milliseconds of one run."""
        took, began, warm = [], time.monotonic(), 0.0
        while warm < 25 and time.monotonic() - began < 1:
            warm += sum(self.batch(run))
        began = time.monotonic()
        while not took or (sum(took) < 100 and len(took) < 400 and time.monotonic() - began < 2):
            took += self.batch(run)
        return sorted(took)[len(took) // 2]

    def batch(self, run):
        if self.device != "cuda":
            took = []
            for _ in range(2):
                self.other.zero_()
                start = time.perf_counter()
                run()
                took.append(1e3 * (time.perf_counter() - start))
            return took
        event = lambda: self.torch.cuda.Event(enable_timing=True)
        pairs = [(event(), event()) for _ in range(20)]
        for start, end in pairs:
            self.other.zero_()
            start.record()
            run()
            end.record()
        self.torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]

    def out_of_time(self):
        return time.monotonic() >= self.end

    def fastest(self, runs):
        """The one that a batch of runs finds the fastest, of those that this version can do."""
        runs = [(run, attempt(run)) for run in runs]
        able = [run for run, result in runs if not isinstance(result, Exception)]
        if not able:
            raise runs[0][1]
        return able[0] if len(able) == 1 else min(able, key=lambda run: sum(self.batch(run)))

    def row(self, case, run, moved, flops, target="torch"):
        """Prints a case's row. `run` may be what made it impossible, or a function that finds out."""
        if self.out_of_time():
            self.left_out += 1
            return
        row = {"target": target, "device": self.name, "case": case}
        try:
            if isinstance(run, Exception):
                raise run
            ms = self.median(run)
            row |= {"us": round(1e3 * ms, 3), "gb_per_s": round(moved / ms / 1e6, 3), "gflop_per_s": round(flops / ms / 1e6, 1), "read_peak_gb_per_s": round(self.peak, 1)}
            print(f"{target:<12} {case:<56} {row['us']:10.1f} us {row['gb_per_s']:8.2f} GB/s {row['gflop_per_s']:9.1f} GFLOP/s {100 * row['gb_per_s'] / self.peak:5.1f}% of the read peak", file=sys.stderr)
        except FAILURES as e:
            row["error"] = short(e)
            print(f"{target:<12} {case:<56} {row['error']}", file=sys.stderr)
        print(json.dumps(row), flush=True)


def short(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


def int4_weight(torch, device, n, k):
    """A packed weight [N,K] of random nibbles with its scales and zeros [K/128,N,2], and the product to call. Raises what this version says."""
    ops = torch.ops.aten
    pack, product = ops._convert_weight_to_int4pack, ops._weight_int4pack_mm  # AttributeError: not in this version
    if device == "cpu":
        pack, product = getattr(ops, "_convert_weight_to_int4pack_for_cpu", pack), getattr(ops, "_weight_int4pack_mm_for_cpu", product)
    scales = torch.full((k // GROUP, n, 2), 0.01, dtype=torch.bfloat16, device=device)
    # One nibble an int32 until 2.4 (and on the CPU later too), two a byte since.
    failure = None
    for make in (lambda: torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=device), lambda: torch.randint(0, 16, (n, k), dtype=torch.int32, device=device)):
        try:
            packed = pack(make(), 8)
            x = torch.zeros((1, k), dtype=torch.bfloat16, device=device)
            if product(x, packed, GROUP, scales).shape != (1, n):
                raise RuntimeError("the product has another shape")
            return lambda x: product(x, packed, GROUP, scales)
        except (RuntimeError, TypeError) as e:
            failure = failure or e
    raise failure


def attempt(make):
    try:
        return make()
    except FAILURES as e:
        return e


def products(bench, n, k, rows):
    torch, device = bench.torch, bench.device
    half = torch.float16 if device == "cuda" else torch.float32  # the CPU of old versions has no f16 product
    name = "F16" if half == torch.float16 else "F32"
    if bench.out_of_time():
        bench.left_out += 2 * len(rows)
        return
    w = attempt(lambda: torch.randn((n, k), dtype=half, device=device))
    packed = attempt(lambda: int4_weight(torch, device, n, k))
    for m in rows:
        def dense():
            x = torch.randn((m, k), dtype=half, device=device)
            return lambda: torch.nn.functional.linear(x, w)

        def int4():
            x = torch.randn((m, k), dtype=torch.bfloat16, device=device)
            return lambda: packed(x)

        flops, size = 2 * m * n * k, 2 if half == torch.float16 else 4
        bench.row(f"linear {name} {m}x{n}x{k}", w if isinstance(w, Exception) else attempt(dense), size * (m * k + n * k + m * n), flops)
        bench.row(f"linear int4pack g{GROUP} {m}x{n}x{k}", packed if isinstance(packed, Exception) else attempt(int4), 2 * m * k + n * k // 2 + 4 * n * (k // GROUP) + 2 * m * n, flops)


def only(torch, backend):
    """scaled_dot_product_attention by one backend or not at all."""
    if backend is None:
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel  # ImportError: before 2.3

    return sdpa_kernel(getattr(SDPBackend, backend))  # AttributeError: no such backend in this version


def attention_rows(bench, case, make, moved, flops):
    """A row a backend. `make` gives what to run, within the backend; what it closes over is made once for all of them."""
    for target, backend in BACKENDS.items():
        if bench.out_of_time():
            bench.left_out += 1
            continue
        context = attempt(lambda: only(bench.torch, backend))
        if isinstance(context, Exception):
            bench.row(case, context, moved, flops, target)
            continue
        with context:
            bench.row(case, attempt(make), moved, flops, target)


def tensors(bench, *shapes):
    """Random ones, all at once or none: an exception then."""
    dtype = bench.torch.float16 if bench.device == "cuda" else bench.torch.float32
    return attempt(lambda: [bench.torch.randn(shape, dtype=dtype, device=bench.device) for shape in shapes])


def decode(bench, h, kv, d, batch, length):
    # One query a head. Heads that share keys stand as queries of one head: all see all keys, so it is the same sum, and keys are read once.
    made = tensors(bench, (batch, kv, h // kv, d), (batch, kv, length, d), (batch, kv, length, d))

    def make():
        if isinstance(made, Exception):
            raise made
        q, k, v = made
        attention = bench.torch.nn.functional.scaled_dot_product_attention  # AttributeError: not in this version
        by_head = q.reshape(batch, h, 1, d)
        return bench.fastest([lambda: attention(q, k, v)] + ([lambda: attention(by_head, k, v, enable_gqa=True)] if h != kv else []))  # enable_gqa: since 2.5

    size = 2 if bench.device == "cuda" else 4
    attention_rows(bench, f"paged_attention decode {h}/{kv}/{d} bs {batch} kv {length}", make, size * batch * (2 * h * d + 2 * kv * length * d), 4 * batch * length * h * d)


def append(bench, h, kv, d, queries, prefix):
    keys = prefix + queries
    made = tensors(bench, (1, h, queries, d), (1, kv, keys, d), (1, kv, keys, d))

    def make():
        if isinstance(made, Exception):
            raise made
        q, k, v = made
        attention = bench.torch.nn.functional.scaled_dot_product_attention
        more = {"enable_gqa": True} if h != kv else {}
        if prefix == 0:
            return bench.fastest([lambda: attention(q, k, v, is_causal=True, **more)])
        from torch.nn.attention.bias import causal_lower_right  # is_causal would let query i see keys 0 .. i

        mask = causal_lower_right(queries, keys)
        return bench.fastest([lambda: attention(q, k, v, attn_mask=mask, **more)])

    size = 2 if bench.device == "cuda" else 4
    attention_rows(bench, f"paged_attention append {queries} on {prefix} {h}/{kv}/{d}", make, size * (2 * queries * h * d + 2 * keys * kv * d), 4 * h * d * (queries * prefix + queries * (queries + 1) // 2))


def measure(device, seconds, small):
    bench = Bench(device, seconds, small)
    with bench.torch.no_grad():
        if small:
            products(bench, 256, 256, (1, 4))
            decode(bench, 4, 2, 64, 2, 256)
            append(bench, 4, 2, 64, 32, 96)
            append(bench, 4, 4, 64, 32, 0)
        else:
            for shape in GOALS:
                decode(bench, *shape)
            for shape in PROMPTS:
                append(bench, *shape)
            for shape in LARGE["8B"]:
                products(bench, *shape, ROWS)
            for shape in DECODE:
                decode(bench, *shape)
            for shape in APPENDS:
                append(bench, *shape)
            for shape in LARGE["1B"] + LARGE["70B"]:
                products(bench, *shape, ROWS)
    if bench.left_out:
        print(f"torch: no time was left for {bench.left_out} cases", file=sys.stderr)


# ---- comparing

def rows_of(text):
    """Every whole JSON line that is a case's: a run that was stopped may leave half a line."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "case" in row and "target" in row:
            yield row


def medians(rows):
    """{(target, case): us}, the median where a case ran more than once."""
    found = {}
    for row in rows:
        if "us" in row:
            found.setdefault((row["target"], row["case"]), []).append(row["us"])
    return {key: statistics.median(all) for key, all in found.items()}


def peers_of(case):
    """(kind of peer, its target, its case) for a case of ours: the same name, or the same product of matrices; INT4 beside four bits alone."""
    op, _, rest = case.partition(" ")
    if op == "paged_attention":
        return [("sdpa", "torch", case), ("flash", "torch/flash", case), ("cudnn", "torch/cudnn", case)]
    words = rest.split()
    if op != "linear" or not words or words[-1].count("x") != 2:
        return []
    int4 = [("int4", "torch", f"linear int4pack g{GROUP} {words[-1]}")] if words[0].startswith(("Q4", "GPTQ4", "AWQ4")) else []
    return [("f16", "torch", f"linear F16 {words[-1]}"), *int4]


def compare(text, target):
    """The table's lines: our time, and ours over theirs for each peer; below 1 we are faster. Then the medians."""
    us = medians(rows_of(text))
    lines, groups = [], {}
    for (of, case), ours in us.items():
        if of != target:
            continue
        ratios = [(kind, ours / us[peer, theirs]) for kind, peer, theirs in peers_of(case) if us.get((peer, theirs))]
        if not ratios:
            continue
        lines.append(f"{case:<56} {ours:10.1f} us   " + "   ".join(f"{kind} {ratio:6.2f}" for kind, ratio in ratios))
        # By encoding and the band of rows that a kernel is chosen by, or by kind of attention.
        words = case.split()
        if words[0] == "linear":
            m = int(words[-1].split("x")[0])
            group = f"{' '.join(words[:-1])}, M {'1' if m == 1 else '2 to 16' if m <= 16 else '32 to 128' if m <= 128 else '512 and more'}"
        else:
            group = " ".join(words[:2])
        for kind, ratio in ratios:
            groups.setdefault((group, kind), []).append(ratio)
    if not lines:
        return [f"no case has both a row of {target} and one of torch"]
    summary = [f"{group:<56} {kind:<5} {statistics.median(all):6.2f} (of {len(all)})" for (group, kind), all in groups.items()]
    return ["our time, and ours over PyTorch's (below 1: we are faster); f16: cuBLAS, int4: _weight_int4pack_mm; sdpa: attention as PyTorch chooses, flash and cudnn: by that backend", *lines, "", "medians", *summary]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--small", action="store_true", help="a few small cases: does it work?")
    parser.add_argument("--compare", metavar="FILE")
    parser.add_argument("--target", default="cuda", help="which of our targets is compared")
    options = parser.parse_args()
    if options.compare:
        with open(options.compare, encoding="utf-8") as file:
            print("\n".join(compare(file.read(), options.target)))
        return
    measure(options.device, options.seconds, options.small)


if __name__ == "__main__":
    main()
