#!/usr/bin/env python3
"""What must hold of the corpus, with Python alone: nothing kept for the held-out set is trained on, answers follow from what was told, and
models/heldout.jsonl is what the program makes. Part of `./build.sh test`."""
import itertools
import json
import os
import random
import re
import sys

import bpe
import corpus
import skills
import stories
from words import CITIES, EVENTS, GOODS, NAMES, kept_out

MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models")


def numbers(text):
    return list(map(int, re.findall(r"\d+", text)))


def names(text):
    return sorted(set(re.findall(r"[A-Z][a-z]+", text)) & set(NAMES))


def any_kept(things):
    return any(kept_out(a, b) for a, b in itertools.combinations(things, 2) if a != b)


def kept_of(skill, user):
    """Whether a question has a combination that is kept out."""
    if skill == "arithmetic":
        return kept_out(*numbers(user))
    if skill == "sorting":
        return any_kept(numbers(user))
    if skill == "counting":
        words = user.rsplit(": ", 1)[-1].rsplit("appear in ", 1)[-1].rstrip(".?").split(", ")
        return any(kept_out(a, b) for a, b in zip(words, words[1:]) if a != b)
    if skill == "json":
        words = set(re.findall(r"\w+", user.split("keys", 1)[-1] if user.startswith("Fill") else user))
        return any(kept_out(a, b) for a in words & {*NAMES, *EVENTS} for b in words & {*CITIES, *GOODS})
    return any_kept(names(user))


def check_exchanges(held):
    rng = random.Random(f"check {held}")
    for skill in ("arithmetic", "sorting", "counting", "json"):
        for _ in range(1500):
            _, user, reply = corpus.exchange(rng, held, skill)
            if skill != "arithmetic" or "." not in user[:-1]:  # a sentence may be kept out for its name alone
                assert kept_of(skill, user) == held, (held, user)
            answer = reply.rsplit(skills.MARK, 1)[-1]
            if skill == "sorting":
                assert numbers(answer) == sorted(numbers(user), reverse=bool(re.search("largest to|largest first|descending", user))), user
            elif skill == "arithmetic":
                a, b = numbers(user)
                assert int(answer) in (a + b, a - b, b - a), user
                for step in re.findall(r"([\d+-]+)=(\d+)", reply.split(": ", 1)[-1] if "less than" in reply else reply):
                    assert eval(step[0]) == int(step[1]), reply  # digits and signs that the pattern lets through
            elif skill == "json":
                assert all(v is None or str(v) in user for v in json.loads(reply).values()), user


def check_stories(held):
    rng = random.Random(f"stories {held}")
    for _ in range(4000):
        text, questions, s = stories.story(rng, held)
        assert any_kept(names(text)) == held, text
        for question, answer in questions:
            told = answer.rstrip(".").removeprefix("Because ").removeprefix("With the ").removeprefix("The ")
            assert answer.startswith("Because") or told.lower() in text.lower(), (text, question, answer)
        asked = [q for q, _ in questions]
        assert len(asked) == len(set(asked)), asked


def check_training_documents():
    rng = random.Random("documents")
    for _ in range(3000):
        for text, role, _ in corpus.conversation(rng):
            if role in ("user", None):
                assert not any_kept(names(text)), text


def check_held_out_file():
    with open(os.path.join(MODELS, "heldout.jsonl"), encoding="utf-8") as f:
        assert [json.loads(line) for line in f] == list(corpus.held_out(1, 120))


def check_tokenizer():
    tokenizer = bpe.Tokenizer.load(os.path.join(MODELS, "tales", "tokenizer.json"))
    rng = random.Random("texts")
    texts = [t for _ in range(500) for t, _, _ in corpus.conversation(rng)] + ["naïve 漢字 🙂\n\n\tend  ", " 007", "<|user|>"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text, text
    trained = bpe.train(texts[:50], 400)
    assert len(trained.words) == 400 and trained.decode(trained.encode(texts[0])) == texts[0]


def main():
    checks = [lambda: check_exchanges(False), lambda: check_exchanges(True), lambda: check_stories(False), lambda: check_stories(True), check_training_documents,
              check_held_out_file, check_tokenizer]
    failed = 0
    for n, check in enumerate(checks):
        try:
            check()
        except AssertionError as e:
            failed += 1
            print(f"FAILED: check {n}, line {e.__traceback__.tb_next.tb_lineno}: {e}")
    print(f"{len(checks) - failed} passed, {failed} failed, 0 skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
