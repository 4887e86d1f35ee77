"""Byte-level BPE: trained on word counts, and written as tokenizer.json in the form that Hugging Face's library and Sluice read.

The split is Qwen2's (digits single); `re` has no \\p{L}, so this program takes ASCII letters: all that the corpus has."""
import collections
import functools
import heapq
import json
import re

SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
END_OF_TEXT, SYSTEM, USER, ASSISTANT, END = range(5)
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT = re.compile(PATTERN.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9").replace("[^\\r\\nA-Za-z0-9]?A-Za-z+", "[^\\r\\nA-Za-z0-9]?[A-Za-z]+").replace("|0-9|", "|[0-9]|"))


def byte_letters():
    """GPT-2's table: a printable letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return {b: chr(b if b in set(printable) else next(others)) for b in range(256)}


LETTERS = byte_letters()


def pieces(text):
    return SPLIT.findall(text)


class Tokenizer:
    def __init__(self, merges, size):
        self.merges = [tuple(m) for m in merges]
        words = [*SPECIALS, *(LETTERS[b] for b in range(256)), *(a + b for a, b in self.merges)]
        words += [f"<|reserved_{i}|>" for i in range(size - len(words))]
        assert len(words) == len(set(words)) == size
        self.words = words
        self.ids = {w: i for i, w in enumerate(words)}
        self.ranks = {m: i for i, m in enumerate(self.merges)}
        self.bytes_of = {letter: b for b, letter in LETTERS.items()}

    @functools.lru_cache(maxsize=None)
    def piece(self, text):
        parts = [LETTERS[b] for b in text.encode()]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(p, len(self.ranks)), i) for i, p in enumerate(zip(parts, parts[1:])))
            if rank == len(self.ranks):
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ids[p] for p in parts)

    def encode(self, text):
        return [i for p in pieces(text) for i in self.piece(p)]

    def decode(self, ids):
        """Text of ordinary tokens; control tokens are left out."""
        return bytes(self.bytes_of[c] for i in ids if i >= len(SPECIALS) and not self.words[i].startswith("<|reserved") for c in self.words[i]).decode("utf-8", "replace")

    def save(self, path):
        special = [{"id": i, "content": w, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
                   for i, w in enumerate(self.words) if w.startswith("<|")]
        bos = {"SpecialToken": {"id": SPECIALS[END_OF_TEXT], "type_id": 0}}
        data = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
            "post_processor": {"type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, bos, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": {SPECIALS[END_OF_TEXT]: {"id": SPECIALS[END_OF_TEXT], "ids": [END_OF_TEXT], "tokens": [SPECIALS[END_OF_TEXT]]}}},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                      "byte_fallback": False, "ignore_merges": False, "vocab": {w: i for i, w in enumerate(self.words) if not w.startswith("<|")},
                      "merges": [f"{a} {b}" for a, b in self.merges]},
        }
        with open(path, "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False, indent=1)
            f.write("\n")

    @staticmethod
    def load(path):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        return Tokenizer([m.split(" ") for m in data["model"]["merges"]], len(data["model"]["vocab"]) + len(data["added_tokens"]))


def train(texts, size):
    """The most frequent pair of neighbours becomes a token, until the vocabulary is full; ties go to the pair that sorts first."""
    counts = collections.Counter(p for t in texts for p in pieces(t))
    words = [[LETTERS[b] for b in w.encode()] for w in counts]
    weight = list(counts.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, w in enumerate(words):
        for p in zip(w, w[1:]):
            pairs[p] += weight[i]
            where[p].add(i)
    heap = [(-n, p) for p, n in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < size - len(SPECIALS) - 256:
        n, best = heapq.heappop(heap)
        if pairs[best] != -n or n == 0:
            continue  # counted anew since
        merges.append(best)
        changed = set()
        for i in where.pop(best):
            w, at = words[i], 0
            for p in zip(w, w[1:]):
                pairs[p] -= weight[i]
                changed.add(p)
            while at < len(w) - 1:
                if (w[at], w[at + 1]) == best:
                    w[at:at + 2] = [w[at] + w[at + 1]]
                at += 1
            for p in zip(w, w[1:]):
                pairs[p] += weight[i]
                where[p].add(i)
                changed.add(p)
        for p in changed:
            if pairs[p] > 0:
                heapq.heappush(heap, (-pairs[p], p))
    return Tokenizer(merges, size)
