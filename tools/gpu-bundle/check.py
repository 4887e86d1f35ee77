#!/usr/bin/env python3
"""How torch_peers.py stands our times beside PyTorch's, with Python alone. Part of `./build.sh test`."""
import json
import sys

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
    assert line_of(lines, "paged_attention decode 32") == "paged_attention decode 32/8/128 bs 8 kv 1024 8.0 us sdpa 2.00"
    assert not any("rms_norm" in line or "simt" in line for line in lines)


def check_medians():
    more = TEXT.rsplit("\n", 1)[0] + "\n" + "\n".join(json.dumps({"target": target, "case": f"linear {kind} {m}x2048x2048", "us": us}) for m, ours in ((4, 30.0), (8, 60.0), (16, 20.0)) for target, kind, us in (("cuda", "Q4_0", ours), ("torch", "F16", 20.0)))
    lines = torch_peers.compare(more, "cuda")
    medians = lines[lines.index("medians") + 1:]
    assert line_of(medians, "linear Q4_0, M 2 to 16") == "linear Q4_0, M 2 to 16 f16 1.50 (of 3)"
    assert line_of(medians, "paged_attention decode") == "paged_attention decode sdpa 2.00 (of 1)"
    assert len([line for line in medians if line.startswith("linear Q4_0, M 1 ")]) == 2  # f16 and int4


def check_nothing_to_compare():
    assert torch_peers.compare(TEXT, "cpu/avx2") == ["no case has both a row of cpu/avx2 and one of torch"]
    assert torch_peers.compare("", "cuda") == ["no case has both a row of cuda and one of torch"]


def check_shapes():
    assert len(torch_peers.DECODE) == len(set(torch_peers.DECODE))
    assert all(b * n * kv * d <= 1 << 28 for _, kv, d, b, n in torch_peers.DECODE)
    assert all(k % torch_peers.GROUP == 0 for shapes in torch_peers.LARGE.values() for _, k in shapes)


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
