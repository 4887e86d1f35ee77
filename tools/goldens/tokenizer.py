"""A byte-level BPE tokenizer of 96 tokens for texts of lower-case letters: trained here, written as tokenizer.json."""
import json
from collections import Counter

SIZE = 96
_SPECIAL = ["<pad>", "<s>", "</s>"]
_ALPHABET = "abcdefghijklmnopqrstuvwxyz.,!?'\u0120"  # \u0120 stands for the blank in byte-level BPE
_TEXT = """once upon a time there was a little girl who lived in the forest with her mother and an old bear. one day she went to
the river and saw a bird that could not fly. do not be afraid, she said, i will help you. the bird was happy and sang to the
moon all night, and in the morning they were good friends. what do you want to eat? asked the bear. the red apple from the
big tree, said the bird, and so they ran to the tree together!"""


def _words(text):
    """The parts that byte-level BPE never merges across, for these texts: a word with the blank before it, or a sign."""
    words, word = [], ""
    for c in text:
        c = "\u0120" if c.isspace() else c
        if word and not (c.isalpha() and c != "\u0120" and word[-1].isalpha()):
            words.append(word)
            word = ""
        word += c
    return [*words, word] if word else words


def _merge(parts, pair):
    out = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


class Tokenizer:
    def __init__(self):
        words = Counter(_words(_TEXT))
        split, self.merges = {w: list(w) for w in words}, []
        while len(self.merges) < SIZE - len(_SPECIAL) - len(_ALPHABET):
            pairs = Counter()
            for word, count in words.items():
                for pair in zip(split[word], split[word][1:]):
                    pairs[pair] += count
            best = max(sorted(pairs), key=lambda p: pairs[p])
            self.merges.append(best)
            split = {w: _merge(parts, best) for w, parts in split.items()}
        self.tokens = [*_SPECIAL, *_ALPHABET, *(a + b for a, b in self.merges)]
        self.special = range(len(_SPECIAL))

    def encode(self, text):
        ids = []
        for word in _words(text):
            parts = list(word)
            for pair in self.merges:  # in the order they were learned, which is what ranks mean
                parts = _merge(parts, pair)
            ids += [self.tokens.index(part) for part in parts]
        return ids

    def decode(self, ids):
        return "".join(self.tokens[i] for i in ids).replace("\u0120", " ").encode()

    def write(self, path):
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
        added = [{"id": i, "content": self.tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": True} for i in self.special]
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                 "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                 "vocab": {token: i for i, token in enumerate(self.tokens)}, "merges": [f"{a} {b}" for a, b in self.merges]}
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                 "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}
        with open(path, "w") as file:
            json.dump(whole, file, separators=(",", ":"))
            file.write("\n")
