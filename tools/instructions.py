#!/usr/bin/env python3
"""instructions.py OBJECT...: what a warp issues for each tensor-core instruction, in the code that sm_90 runs.

From cuobjdump's listing of the objects: of each kernel of products its basic blocks that hold tensor-core instructions or the 16-byte loads of
weights, within a loop; all of their instructions over the tensor-core ones. What stands between (the end of a row, barriers) is left out, so it is
a little less than what is issued. A line a kernel: name, product type, how the weight is kept, how its scales are kept, instructions / mma.
"""
import re
import subprocess
import sys

OPERANDS = ["dense", "four", "five", "six", "eight"]
SCALINGS = ["half", "half_zero", "half_bias", "full", "super", "super_signed", "any"]
MMA = re.compile(r"\b[HI]MMA\.")
WEIGHT_LOAD = re.compile(r"\bLDG\.\S*128")


def functions(path):
    text = subprocess.run(["cuobjdump", "-sass", "-arch", "sm_90", path], capture_output=True, text=True, check=True).stdout
    name, code = None, []
    for line in text.splitlines():
        if (m := re.search(r"Function : (\S+)", line)) is not None:
            if name:
                yield name, code
            name, code = m.group(1), []
        elif (m := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)) is not None:
            code.append((int(m.group(1), 16), m.group(2)))
    if name:
        yield name, code


def ratio(code):
    """Instructions over mma of the innermost loop that holds the most mma; None where there is none."""
    jumps = {at: int(m.group(1), 16) for at, text in code if (m := re.search(r"\b(?:BRA|BSSY|CALL)\b.*?(0x[0-9a-f]+)", text))}
    loops = [(to, at) for at, to in jumps.items() if to < at]
    def mma_of(a, b):
        return sum(1 for at, text in code if a <= at <= b and MMA.search(text))
    held = [(mma_of(a, b), b - a, a, b) for a, b in loops]
    held = [h for h in held if h[0] > 0]
    if not held:
        return None
    most = max(h[0] for h in held)
    _, _, start, end = min(h for h in held if h[0] == most)
    borders = set(jumps.values()) | {at for at in jumps}
    block, instructions, mma = [], 0, 0
    for at, text in [c for c in code if start <= c[0] <= end] + [(None, "")]:
        if at is not None and at not in set(jumps.values()):
            block.append(text)
        if at is None or at in borders:
            products = sum(1 for t in block if MMA.search(t))
            if products or any(WEIGHT_LOAD.search(t) for t in block):
                instructions, mma = instructions + len(block), mma + products
            block = [text] if at in set(jumps.values()) else []
    return instructions / mma


def main(paths):
    rows = []
    for path in paths:
        for mangled, code in functions(path):
            found = ratio(code)
            name = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
            kernel = re.search(r"(\w+)_kernel", name)
            if found is None or kernel is None:
                continue
            enums = dict(re.findall(r"\((?:\w+::)*(operand|scaling)\)(\d)", name))
            size = re.search(r"operand\)\d, (\d)", name)  # of a tile: eights of rows
            kind = kernel.group(1) + ({"2": " narrow", "8": " wide"}[size.group(1)] if size and "weight_tile" in name else "")
            rows.append((kind, "f16" if "__half" in name else "bf16" if "bfloat16" in name else "bytes", OPERANDS[int(enums.get("operand", 0))],
                         SCALINGS[int(enums["scaling"])] if "scaling" in enums else "any", f"{found:.1f}"))
    for row in sorted(set(rows)):
        print("\t".join(row))


if __name__ == "__main__":
    main(sys.argv[1:])
