"""check.py FOLDER...: runs folders that hold golden.json and exact.f32, and compares. Exit status 1 where one differs.

For goldens of another's making as well as for our own: the rows must agree to 1e-5 of the logits' deviation, the ids to the letter.
"""
import json
import os
import sys

import numpy as np

from model import Model


def check(folder):
    with open(os.path.join(folder, "golden.json")) as file:
        golden = json.load(file)
    exact = np.fromfile(os.path.join(folder, "exact.f32"), "<f4").reshape(golden["logits_rows"], golden["n_vocab"])
    prompt = golden["prompt_ids"]
    ids, rows = Model(folder).run(prompt, len(exact) - len(prompt))
    error = np.abs(rows - exact).max() / exact.std()
    good = error <= 1e-5 and ids == golden["ids"][:len(ids)]
    print(f"{os.path.basename(folder.rstrip('/')):24} largest error {error:.1e} of the deviation, ids {'equal' if ids == golden['ids'][:len(ids)] else 'DIFFER'}")
    return good


if __name__ == "__main__":
    results = [check(folder) for folder in sys.argv[1:]]
    sys.exit(0 if results and all(results) else 1)
