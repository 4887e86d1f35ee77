"""Safetensors files of F32, F16, BF16 and I32: written, and read as they lie."""
import json
import os

import numpy as np

_STORED = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I32": np.int32}


def encode(values, dtype):
    """values -> the array that is stored; to BF16 by round to nearest even."""
    if dtype != "BF16":
        return np.ascontiguousarray(values, _STORED[dtype])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode(dtype, stored):
    """A stored array -> float64, exactly (I32: the integers)."""
    if dtype == "I32":
        return stored
    if dtype == "BF16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float64)


def write(path, tensors):
    """tensors: name -> (dtype, stored array). Wide types first, so that every tensor is aligned."""
    names = sorted(tensors, key=lambda n: (-tensors[n][1].itemsize, n))
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        dtype, array = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name][1].tobytes())


def read_folder(folder):
    """All shards of a folder: name -> (dtype, stored array)."""
    tensors = {}
    for name in sorted(n for n in os.listdir(folder) if n.endswith(".safetensors")):
        with open(os.path.join(folder, name), "rb") as file:
            raw = file.read()
        start = 8 + int.from_bytes(raw[:8], "little")
        for tensor, entry in json.loads(raw[8:start]).items():
            if tensor != "__metadata__":
                first, last = entry["data_offsets"]
                array = np.frombuffer(raw[start + first:start + last], _STORED[entry["dtype"]])
                tensors[tensor] = (entry["dtype"], array.reshape(entry["shape"]))
    return tensors
