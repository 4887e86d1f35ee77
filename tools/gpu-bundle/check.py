#!/usr/bin/env python3
"""How torch_peers.py asks for PyTorch's times and stands ours beside them, with Python alone. Part of `./build.sh test`."""
import contextlib
import io
import json
import sys
import time
import types
from unittest import mock

import torch_peers

LINES = [
    {"target": "cuda", "device": "X", "case": "linear Q4_0 1x4096x4096", "us": 10.0},
    {"target": "cuda", "device": "X", "case": "linear Q4_0 1x4096x4096", "us": 30.0},  # run again: the median of both
    {"target": "cuda", "device": "X", "case": "linear GPTQ4 g128 16x4096x4096", "us": 12.0},
    {"target": "cuda", "device": "X", "case": "linear F16 1x28672x4096", "us": 50.0},
    {"target": "cuda", "device": "X", "case": "paged_attention decode 32/8/128 bs 8 kv 1024", "us": 8.0},
    {"target": "cuda", "device": "X", "case": "rms_norm 1x2048 f32 to f16", "us": 2.0},  # nobody beside it
    {"target": "simt/1", "device": "Y", "case": "linear Q4_0 1x4096x4096", "us": 9e9},
    {"model": "random.gguf", "batch": 1},  # a whole model's row
    {"target": "torch", "device": "X", "case": "linear F16 1x4096x4096", "us": 40.0},
    {"target": "torch", "device": "X", "case": "linear int4pack g128 1x4096x4096", "us": 16.0},
    {"target": "torch", "device": "X", "case": "linear F16 16x4096x4096", "us": 24.0},
    {"target": "torch", "device": "X", "case": "linear int4pack g128 16x4096x4096", "error": "RuntimeError: not here"},
    {"target": "torch", "device": "X", "case": "linear F16 1x28672x4096", "us": 100.0},
    {"target": "torch", "device": "X", "case": "linear int4pack g128 1x28672x4096", "us": 30.0},  # beside f16 it says nothing
    {"target": "torch", "device": "X", "case": "paged_attention decode 32/8/128 bs 8 kv 1024", "us": 4.0},
    {"target": "torch/flash", "device": "X", "case": "paged_attention decode 32/8/128 bs 8 kv 1024", "us": 16.0},
    {"target": "torch/cudnn", "device": "X", "case": "paged_attention decode 32/8/128 bs 8 kv 1024", "error": "AttributeError: CUDNN_ATTENTION"},
]
TEXT = "\n".join(json.dumps(line) for line in LINES) + '\n{"target":"torch","case":"linear F16 1x40'  # the last line was cut


def line_of(lines, start):
    found = [line for line in lines if line.startswith(start)]
    assert len(found) == 1, (start, lines)
    return " ".join(found[0].split())


def check_cases():
    lines = torch_peers.compare(TEXT, "cuda")
    assert line_of(lines, "linear Q4_0 1x") == "linear Q4_0 1x4096x4096 20.0 us f16 0.50 int4 1.25"
    assert line_of(lines, "linear GPTQ4 g128 16x") == "linear GPTQ4 g128 16x4096x4096 12.0 us f16 0.50"
    assert line_of(lines, "linear F16 1x28672x4096") == "linear F16 1x28672x4096 50.0 us f16 0.50"
    assert line_of(lines, "paged_attention decode 32") == "paged_attention decode 32/8/128 bs 8 kv 1024 8.0 us sdpa 2.00 flash 0.50"
    assert not any("rms_norm" in line or "simt" in line for line in lines)


def check_medians():
    more = TEXT.rsplit("\n", 1)[0] + "\n" + "\n".join(json.dumps({"target": target, "case": f"linear {kind} {m}x2048x2048", "us": us}) for m, ours in ((4, 30.0), (8, 60.0), (16, 20.0)) for target, kind, us in (("cuda", "Q4_0", ours), ("torch", "F16", 20.0)))
    lines = torch_peers.compare(more, "cuda")
    medians = lines[lines.index("medians") + 1:]
    assert line_of(medians, "linear Q4_0, M 2 to 16") == "linear Q4_0, M 2 to 16 f16 1.50 (of 3)"
    assert [" ".join(line.split()) for line in medians if line.startswith("paged_attention decode")] == ["paged_attention decode sdpa 2.00 (of 1)", "paged_attention decode flash 0.50 (of 1)"]
    assert len([line for line in medians if line.startswith("linear Q4_0, M 1 ")]) == 2  # f16 and int4


def check_nothing_to_compare():
    assert torch_peers.compare(TEXT, "cpu/avx2") == ["no case has both a row of cpu/avx2 and one of torch"]
    assert torch_peers.compare("", "cuda") == ["no case has both a row of cuda and one of torch"]


def check_shapes():
    decode, appends = torch_peers.GOALS + torch_peers.DECODE, torch_peers.PROMPTS + torch_peers.APPENDS
    assert len(decode) == len(set(decode)) and len(appends) == len(set(appends))
    assert all(b * n * kv * d <= 1 << 28 for _, kv, d, b, n in decode)
    assert all(k % torch_peers.GROUP == 0 for shapes in torch_peers.LARGE.values() for _, k in shapes)


class Lent:
    """As much of PyTorch as the attention of torch_peers.py asks for: it notes each call and the backend that was allowed then."""

    def __init__(self):
        self.backend, self.calls = None, []
        self.float32, self.float16 = "float32", "float16"
        self.nn = types.SimpleNamespace(functional=types.SimpleNamespace(scaled_dot_product_attention=self.attention))
        self.modules = {
            "torch": self, "torch.nn": self.nn,
            "torch.nn.attention": types.SimpleNamespace(SDPBackend=types.SimpleNamespace(FLASH_ATTENTION="flash"), sdpa_kernel=self.sdpa_kernel),  # no cuDNN in this version
            "torch.nn.attention.bias": types.SimpleNamespace(causal_lower_right=lambda *shape: ("lower right", *shape)),
        }

    def randn(self, shape, dtype, device):
        tensor = types.SimpleNamespace(shape=tuple(shape))
        tensor.reshape = lambda *to: self.randn(to, dtype, device)
        return tensor

    @contextlib.contextmanager
    def sdpa_kernel(self, backend):
        self.backend = backend
        yield
        self.backend = None

    def attention(self, q, k, v, **options):
        if self.backend == "flash" and options.get("enable_gqa"):
            raise RuntimeError("No available kernel. Aborting execution.")
        self.calls.append((self.backend, q.shape, k.shape, options))


def rows_by_a_lent_torch(measure):
    """The rows that `measure` prints with a PyTorch that is not there, and what it called."""
    lent = Lent()
    bench = torch_peers.Bench.__new__(torch_peers.Bench)
    bench.torch, bench.device, bench.name, bench.peak, bench.left_out, bench.end = lent, "cpu", "X", 1.0, 0, time.monotonic() + 60
    bench.batch = lambda run: run() or [60.0, 60.0]
    with mock.patch.dict(sys.modules, lent.modules), contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        measure(bench)
    return {row["target"]: row for row in map(json.loads, out.getvalue().splitlines())}, lent.calls


def check_decode_is_asked_of_each_backend():
    rows, calls = rows_by_a_lent_torch(lambda bench: torch_peers.decode(bench, 8, 2, 64, 3, 100))
    assert list(rows) == ["torch", "torch/flash", "torch/cudnn"]
    assert all(row["case"] == "paged_attention decode 8/2/64 bs 3 kv 100" for row in rows.values())
    assert rows["torch"]["us"] == rows["torch/flash"]["us"] == 60000 and "AttributeError" in rows["torch/cudnn"]["error"]
    # Flash does not take grouped heads here: it gets them as queries of one head, and nothing was run by another backend.
    assert {(backend, q) for backend, q, _, _ in calls} == {(None, (3, 2, 4, 64)), (None, (3, 8, 1, 64)), ("flash", (3, 2, 4, 64))}


def check_appends_are_causal_from_the_end():
    rows, calls = rows_by_a_lent_torch(lambda bench: torch_peers.append(bench, 4, 4, 64, 32, 96))
    assert all("us" in rows[target] for target in ("torch", "torch/flash"))
    assert all(options == {"attn_mask": ("lower right", 32, 128)} and q == (1, 4, 32, 64) and k == (1, 4, 128, 64) for _, q, k, options in calls)
    rows, calls = rows_by_a_lent_torch(lambda bench: torch_peers.append(bench, 8, 2, 64, 32, 0))
    assert all(options == {"is_causal": True, "enable_gqa": True} for _, _, _, options in calls)
    assert "No available kernel" in rows["torch/flash"]["error"] and rows["torch"]["gflop_per_s"] == round(4 * 8 * 64 * 32 * 33 / 2 / 60 / 1e6, 1)


def main():
    passed = failed = 0
    for name, check in sorted(globals().items()):
        if name.startswith("check_"):
            try:
                check()
                passed += 1
            except Exception as e:
                failed += 1
                print(f"FAILED {name}: {type(e).__name__}: {e}")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
