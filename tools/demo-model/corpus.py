#!/usr/bin/env python3
"""Makes the corpus: conversations from stories.py and skills.py, a tokenizer trained on them, rows of token ids for train.py, and the held-out set.

    corpus.py OUT [--rows 153600] [--seed 1]

OUT/tokenizer.json; OUT/rows.npy [N, 256] and OUT/long.npy [N, 1024], uint16, and masks of what is trained on; OUT/heldout.jsonl.
Everything follows from the seed."""
import argparse
import json
import multiprocessing
import os
import random
import sys

import bpe
import skills
import stories

VOCABULARY, ROW, LONG = 2048, 256, 1024
REPLY, TOLD = 1, 2  # in masks: what the assistant says; a story that the user tells
SYSTEMS = ("You are a helpful assistant.", "You tell short stories.", "Answer briefly.", "You are a friendly helper.", "You are good with numbers.")


def exchange(rng, held=False, skill=None):
    """(skill, what the user says, the reply) of everything but stories."""
    skill = skill or rng.choices(("arithmetic", "sorting", "counting", "json", "talk"), (36, 24, 20, 30, 1))[0]
    if skill == "talk":
        return (skill, *skills.talk(rng))
    make = {"arithmetic": skills.word_problem if rng.random() < 0.15 else skills.arithmetic, "sorting": skills.sorting, "counting": skills.counting, "json": skills.record}[skill]
    return (skill, *make(rng, held))


def asked_story(rng, turns, held=False):
    """The user tells a story and asks about it."""
    text, questions, _ = stories.story(rng, held)
    rng.shuffle(questions)
    first, answer = questions[0]
    yield (rng.choice((f"{text}\n\n{first}", f"Read this story: {text}\n\n{first}", f"{text} {first}", f"{first}\n\n{text}")), answer)
    yield from questions[1:turns]


def told_story(rng, turns):
    """The model tells a story and is asked about it."""
    text, questions, s = stories.story(rng, False)
    yield stories.request(rng, s), text
    rng.shuffle(questions)
    yield from questions[:turns]


def conversation(rng):
    """Parts (text, role, whether it is trained on) of one document."""
    kind = rng.random()
    if kind < 0.02:  # a bare text
        return [(stories.story(rng, False)[0], None, True)]
    parts = [(rng.choice(SYSTEMS), "system", False)] if rng.random() < 0.25 else []
    if kind < 0.27:
        turns, told = asked_story(rng, rng.randint(4, 9)), True
    elif kind < 0.37:
        turns, told = told_story(rng, rng.randint(2, 6)), False
    else:
        turns, told = ((a, b) for _, a, b in [exchange(rng) for _ in range(rng.randint(1, 3))]), False
    for user, reply in turns:
        parts += [(user, "user", told), (reply, "assistant", True)]
        told = False
    return parts


def long_conversation(rng):
    """Several stories and tasks, and questions that go back to the stories before."""
    parts, back = [], []
    for _ in range(rng.randint(4, 9)):
        kind = rng.random()
        if kind < 0.45:
            text, questions, s = stories.story(rng, False)
            parts += [(stories.request(rng, s), "user", False), (text, "assistant", True)]
            rng.shuffle(questions)
            for q, a in questions[:2]:
                parts += [(q, "user", False), (a, "assistant", True)]
            # Only what names its story can be asked once another stands between.
            named = [(q, a) for q, a in questions[2:] if s.thing in q and s.hero in q]
            back = named or back
        elif kind < 0.65 and back:
            q, a = back.pop()
            parts += [(q, "user", False), (a, "assistant", True)]
        else:
            _, q, a = exchange(rng)
            parts += [(q, "user", False), (a, "assistant", True)]
    return parts


def ids_of(tokenizer, parts):
    """Token ids of a document, and a mask that tells REPLY and TOLD from what is not trained on."""
    ids, mask = [bpe.END_OF_TEXT], [0]
    for text, role, trained in parts:
        content = tokenizer.encode(text)
        if role is None:
            ids += [*content, bpe.END_OF_TEXT]
            mask += [REPLY] * (len(content) + 1)
        else:
            ids += [getattr(bpe, role.upper()), *content, bpe.END]
            mask += [0, *[REPLY if role == "assistant" else TOLD if trained else 0] * len(content), REPLY if role == "assistant" else 0]
    return ids, mask


def pack(rng, documents, length, rows):
    """Rows of whole documents, each put into the fullest open row that has room; a row ends with end-of-text, which is not trained on."""
    import numpy as np

    ids, mask = np.zeros((rows, length), np.uint16), np.zeros((rows, length), np.uint8)
    done, open_rows = 0, []
    for i, m in documents:
        if len(i) > length:
            continue
        best = max((r for r in open_rows if r[0] + len(i) <= length), key=lambda r: r[0], default=None)
        if best is None:
            if len(open_rows) == 24:
                fullest = max(open_rows, key=lambda r: r[0])
                open_rows.remove(fullest)
                ids[done, :fullest[0]], mask[done, :fullest[0]] = fullest[1], fullest[2]
                done += 1
                if done == rows:
                    break
            open_rows.append(best := [0, [], []])
        best[1] += i
        best[2] += m
        best[0] += len(i)
    return ids, mask


def shard(job):
    path, seed, length, rows = job
    tokenizer = bpe.Tokenizer.load(path)
    rng = random.Random(seed)
    make = conversation if length == ROW else long_conversation

    def documents():
        while True:
            parts = make(rng)
            ids, mask = ids_of(tokenizer, parts)
            while len(ids) > length and len(parts) > 2:  # questions that do not fit are left out
                parts = parts[:-2]
                ids, mask = ids_of(tokenizer, parts)
            yield ids, mask

    return pack(rng, documents(), length, rows)


def held_out(seed, each):
    """Items for `sluice eval`: combinations of names, things and numbers that the corpus keeps out."""
    rng = random.Random(f"held-out {seed}")
    for skill in ("arithmetic", "sorting", "counting", "json"):
        for _ in range(each):
            _, user, reply = exchange(rng, True, skill)
            item = {"skill": skill, "messages": [{"role": "user", "content": user}], "reply": reply}
            if skill in ("arithmetic", "counting"):
                item["mark"] = skills.MARK
            if skill == "json":
                item["match"] = "json"
            yield item
    for _ in range(each):
        user, reply = next(asked_story(rng, 1, True))
        yield {"skill": "story", "messages": [{"role": "user", "content": user}], "reply": reply}


def main():
    import numpy as np  # here and where rows are made: check.py wants the conversations alone

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--rows", type=int, default=153600, help="of 256 tokens; a ninth as many tokens again come in rows of 1,024")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=120, help="items of each skill")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    rng = random.Random(f"tokenizer {options.seed}")
    print("training the tokenizer", file=sys.stderr)
    texts = [text for _ in range(40000) for text, _, _ in conversation(rng)]
    tokenizer = bpe.train(texts, VOCABULARY)
    path = os.path.join(options.out, "tokenizer.json")
    tokenizer.save(path)
    characters = sum(map(len, texts))
    print(f"{len(tokenizer.merges):,} merges, {characters / sum(len(tokenizer.encode(t)) for t in texts):.2f} characters a token", file=sys.stderr)

    with open(os.path.join(options.out, "heldout.jsonl"), "w", encoding="utf-8") as f:
        for item in held_out(options.seed, options.held_out):
            f.write(json.dumps(item) + "\n")
    for name, length, rows in (("rows", ROW, options.rows), ("long", LONG, options.rows // 36)):
        shards = 64 if rows >= 6400 else 1
        jobs = [(path, f"{name} {options.seed} {i}", length, rows // shards) for i in range(shards)]
        parts = []
        with multiprocessing.Pool() as pool:
            for part in pool.imap(shard, jobs):
                parts.append(part)
                print(f"\r{name}: {len(parts)} of {shards}", end="", file=sys.stderr)
        ids, mask = (np.concatenate(x) for x in zip(*parts))
        np.save(os.path.join(options.out, f"{name}.npy"), ids)
        np.save(os.path.join(options.out, f"{name}-mask.npy"), mask)
        print(f": {ids.size:,} tokens, {np.mean(ids != 0):.0%} used, {np.mean(mask == REPLY):.0%} replies, {np.mean(mask == TOLD):.0%} stories that users tell", file=sys.stderr)


if __name__ == "__main__":
    main()
