"""GPTQ's and AWQ's packings of 4-bit weights, there and back.

A linear of [out, in] weights: qweight, qzeros (eight nibbles an int32), scales F16 [groups, out], and for GPTQ g_idx [in].
GPTQ packs qweight along in, in order; AWQ along out, interleaved. Both pack qzeros along out, each in its own order.
"""
import numpy as np

_IN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
_AWQ = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble j of a word is the word's column _AWQ[j]


def _pack(columns, order):
    """[rows, 8 n] of 0..15 -> int32 [rows, n]"""
    eights = columns.reshape(len(columns), -1, 8).astype(np.uint32)
    words = np.zeros(eights.shape[:2], np.uint32)
    for nibble, column in enumerate(order):
        words |= eights[:, :, column] << np.uint32(4 * nibble)
    return words.view(np.int32)


def _unpack(words, order):
    words = words.view(np.uint32)
    eights = np.empty((*words.shape, 8), np.int64)
    for nibble, column in enumerate(order):
        eights[:, :, column] = words >> np.uint32(4 * nibble) & 15
    return eights.reshape(len(words), -1)


def _is_awq(quantization):
    return quantization["quant_method"] == "awq"


def _zero_offset(quantization):
    """GPTQ's first format stores zero points minus one."""
    return 0 if _is_awq(quantization) or quantization.get("checkpoint_format") == "gptq_v2" else 1


def unpack(tensor, prefix, quantization):
    """The exact weights [out, in] of the linear at prefix. tensor(name) gives decoded tensors."""
    order = _AWQ if _is_awq(quantization) else _IN_ORDER
    scales = tensor(prefix + ".scales")
    zeros = _unpack(tensor(prefix + ".qzeros"), order) + _zero_offset(quantization)
    if _is_awq(quantization):
        q = _unpack(tensor(prefix + ".qweight"), order)
        groups = np.arange(len(q)) // quantization["group_size"]
    else:
        q = _unpack(np.ascontiguousarray(tensor(prefix + ".qweight").T), order).T
        groups = tensor(prefix + ".g_idx")
    return (scales[groups] * (q - zeros[groups])).T


def pack(weights, prefix, quantization, rng):
    """Rounds weights [out, in] to 4 bits: name -> (dtype, stored array). desc_act scatters the inputs over the groups."""
    outputs, inputs = weights.shape
    group = inputs if quantization["group_size"] == -1 else quantization["group_size"]
    offset = _zero_offset(quantization)
    chosen = rng.permutation(inputs) if quantization.get("desc_act") else np.arange(inputs)
    place = np.argsort(chosen)  # of each input among the groups
    blocks = weights[:, chosen].reshape(outputs, -1, group)
    low, high = np.minimum(blocks.min(-1), 0), np.maximum(blocks.max(-1), 0)
    scales = ((high - low) / 15).astype(np.float16)
    step = scales.astype(np.float64)
    # Stored minus one, a zero point of 0 would not be told from 16.
    zeros = np.clip(np.rint(-low / step), offset, 15).astype(np.int64)
    if offset == 0:  # the ends of the range are where readers err
        zeros[:8, 0], zeros[8:16, 0] = 0, 15
    q = np.clip(np.rint(blocks / step[..., None]) + zeros[..., None], 0, 15).astype(np.int64)
    q = q.reshape(outputs, inputs)[:, place]
    order = _AWQ if _is_awq(quantization) else _IN_ORDER
    words = _pack(q.T, order) if _is_awq(quantization) else np.ascontiguousarray(_pack(q, order).T)
    tensors = {
        prefix + ".qweight": ("I32", words),
        prefix + ".qzeros": ("I32", _pack(zeros.T - offset, order)),
        prefix + ".scales": ("F16", np.ascontiguousarray(scales.T)),
    }
    if not _is_awq(quantization):
        tensors[prefix + ".g_idx"] = ("I32", (place // group).astype(np.int32))
    return tensors
