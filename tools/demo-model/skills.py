"""Arithmetic, sorting, counting and records: each function makes one exchange, a pair of texts (or three, with the system's).

`held` asks for an exchange from the combinations that training never sees; the others are made from the rest."""
from words import CITIES, COLORS, DAYS, EVENTS, FOODS, GOODS, JOBS, LIST_WORDS, NAMES, PETS, article, kept_out, plural

MARK = "Answer: "


def number(rng):
    """Up to three digits, as many of each length as matter: most sums that people ask for have two."""
    digits = rng.choices((1, 2, 3), (2, 4, 6))[0]
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10 ** digits)


def pair(rng, held):
    while True:
        a, b = number(rng), number(rng)
        if kept_out(a, b) == held:
            return a, b


def columns(a, b):
    """Digits of a and b from the ones up, both as long as the longer."""
    n = max(len(str(a)), len(str(b)))
    return list(zip((int(c) for c in reversed(str(a).zfill(n))), (int(c) for c in reversed(str(b).zfill(n)))))


def add(a, b):
    steps, carry = [], 0
    for x, y in columns(a, b):
        total = x + y + carry
        steps.append(f"{x}+{y}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{', '.join(steps)}. {MARK}{a + b}"


def subtract(a, b):
    """a - b by columns, borrowing; the other way round where b is larger."""
    turned, (high, low) = a < b, (max(a, b), min(a, b))
    steps, borrow = [], 0
    for x, y in columns(high, low):
        left = x - borrow - y
        steps.append(f"{x + 10 if left < 0 else x}{'-1' if borrow else ''}-{y}={left % 10}")
        borrow = left < 0
    head = f"{a} is less than {b}, so {b}-{a}: " if turned else ""
    return f"{head}{', '.join(steps)}. {MARK}{a - b}"


def arithmetic(rng, held):
    a, b = pair(rng, held)
    if rng.random() < 0.5:
        ask = rng.choice((f"What is {a} + {b}?", f"What is {a} + {b}?", f"{a} + {b} =", f"Add {a} and {b}.", f"How much is {a} plus {b}?", f"Compute {a} + {b}.",
                          f"Please work out {a} + {b}.", f"What is the sum of {a} and {b}?"))
        return ask, add(a, b)
    ask = rng.choice((f"What is {a} - {b}?", f"What is {a} - {b}?", f"{a} - {b} =", f"Subtract {b} from {a}.", f"How much is {a} minus {b}?", f"Compute {a} - {b}.",
                      f"Please work out {a} - {b}.", f"Take {b} away from {a}."))
    return ask, subtract(a, b)


def word_problem(rng, held):
    """Arithmetic in a sentence: no held-out name and number pairs meet in training."""
    while True:
        name, (a, b), food = rng.choice(NAMES), pair(rng, held), plural(rng.choice(FOODS))
        if kept_out(name, food) == held:
            break
    if rng.random() < 0.5:
        other = rng.choice([n for n in NAMES if n != name and not kept_out(name, n)])
        ask = rng.choice((f"{name} has {a} {food}. {other} has {b}. How many {food} do they have together?",
                          f"{name} picks {a} {food} in the morning and {b} in the evening. How many {food} is that?"))
        return ask, add(a, b)
    a, b = max(a, b), min(a, b)
    ask = rng.choice((f"{name} has {a} {food} and gives {b} away. How many are left?",
                      f"There were {a} {food}. {name} sold {b} of them. How many {food} remain?"))
    return ask, subtract(a, b)


def number_list(rng, held, count):
    """Different numbers, with a pair that is kept out or without any."""
    while True:
        top = rng.choice((20, 100, 100, 1000))
        values = [rng.randrange(top) for _ in range(count)]
        if len(set(values)) < count:
            continue
        pairs = (kept_out(a, b) for i, a in enumerate(values) for b in values[:i])
        if any(pairs) == held:
            return values


def sorting(rng, held):
    values = number_list(rng, held, rng.choices((3, 4, 5, 6), (3, 4, 4, 2))[0])
    text = ", ".join(map(str, values))
    down = rng.random() < 0.4
    if down:
        ask = rng.choice((f"Sort from largest to smallest: {text}.", f"Put these numbers in order, largest first: {text}.", f"Sort these numbers in descending order: {text}."))
    else:
        ask = rng.choice((f"Sort these numbers: {text}.", f"Sort from smallest to largest: {text}.", f"Put these numbers in order: {text}.",
                          f"Sort these numbers in ascending order: {text}."))
    return ask, ", ".join(map(str, sorted(values, reverse=down)))


def word_list(rng, held, count):
    """Words of which two neighbours are kept out from training, or none are."""
    while True:
        some = rng.sample(LIST_WORDS, rng.randint(2, 5))
        words = [rng.choice(some) for _ in range(count)]
        if any(kept_out(a, b) for a, b in zip(words, words[1:]) if a != b) == held:
            return words, some


def counting(rng, held):
    words, some = word_list(rng, held, rng.randint(3, 10))
    text = ", ".join(words)
    if rng.random() < 0.3:
        ask = rng.choice((f"How many words are in this list: {text}?", f"Count the words: {text}."))
        found = words
    else:
        what = rng.choice(some if rng.random() < 0.9 else LIST_WORDS)
        ask = rng.choice((f"How many times is {what} in this list: {text}?", f"Count the word {what}: {text}.", f"How often does {what} appear in {text}?"))
        found = [w for w in words if w == what]
    steps = ", ".join(f"{w} {i}" for i, w in enumerate(found, 1)) + ". " if found else "None. "
    return ask, f"{steps}{MARK}{len(found)}"


def quoted(value):
    return "null" if value is None else str(value) if isinstance(value, int) else f'"{value}"'


def record(rng, held):
    """A sentence and the keys wanted, in any order; a key that the sentence does not tell is null."""
    kind = rng.choice(("person", "person", "order", "event"))
    while True:
        name, city, item = rng.choice(NAMES), rng.choice(CITIES), rng.choice(GOODS)
        if kind == "person":
            clash = kept_out(name, city)
        elif kind == "order":
            clash = kept_out(name, item)
        else:
            event = rng.choice(EVENTS)
            clash = kept_out(event, city)
        if clash == held:
            break
    if kind == "person":
        age, job, pet, color = rng.randint(3, 99), rng.choice(JOBS), rng.choice(PETS), rng.choice(COLORS)
        facts = {"name": name, "city": city}
        sentence = rng.choice((f"{name} lives in {city}", f"{name} comes from {city}"))
        for key, value, words in rng.sample((("age", age, f"is {age} years old"), ("job", job, f"works as {article(job)}"),
                                             ("pet", pet, f"has {article(pet)}"), ("color", color, f"likes the color {color}")), rng.randint(1, 3)):
            facts[key] = value
            sentence += f", {words}"
        sentence = " and".join(sentence.rsplit(",", 1)) + "."
        keys = ["name", "city", "age", "job", "pet", "color"]
    elif kind == "order":
        count, price, day = rng.randint(2, 60), rng.randint(2, 99), rng.choice(DAYS)
        facts = {"customer": name, "item": item, "quantity": count, "price": price}
        sentence = rng.choice((f"{name} ordered {count} {item} for {price} dollars", f"On the list: {count} {item} for {name}, {price} dollars in all",
                               f"{count} {item} were sold to {name} for {price} dollars"))
        if rng.random() < 0.5:
            facts["day"] = day
            sentence += f" on {day}"
        sentence += "."
        keys = ["customer", "item", "quantity", "price", "day"]
    else:
        day, hour, guests = rng.choice(DAYS), rng.randint(8, 22), rng.randint(5, 90)
        facts = {"event": event, "city": city, "day": day, "hour": hour}
        sentence = rng.choice((f"The {event} in {city} is on {day} at {hour}", f"On {day} at {hour} there is a {event} in {city}"))
        if rng.random() < 0.5:
            facts["guests"] = guests
            sentence += f" with {guests} guests"
        sentence += "."
        keys = ["event", "city", "day", "hour", "guests"]
    asked = rng.sample(keys, rng.randint(2, min(4, len(keys))))
    if not any(k in facts for k in asked):
        asked[0] = rng.choice(list(facts))
    ask = rng.choice((f"Fill in the JSON record with the keys {', '.join(asked)}. {sentence}", f"{sentence} Write JSON with the keys {', '.join(asked)}.",
                      f"Read the sentence and give a JSON object with {', '.join(asked)}: {sentence}"))
    return ask, "{" + ", ".join(f'"{k}": {quoted(facts.get(k))}' for k in asked) + "}"


TALK = (
    (("Hello!", "Hi.", "Hello there.", "Good morning!"), "Hello! I can tell a short story, answer questions about it, add and subtract, sort, count and fill in records."),
    (("Who are you?", "What are you?", "What is your name?"), "I am the small model that ships with Sluice."),
    (("What can you do?", "Help.", "How can you help me?"), "I can tell a short story and answer questions about it, add and subtract numbers of up to three digits, sort numbers, count words, and fill in a JSON record from a sentence."),
    (("Thank you!", "Thanks.", "Thanks a lot!"), "You are welcome."),
    (("Goodbye.", "Bye!", "See you."), "Goodbye!"),
)


def talk(rng):
    asks, answer = rng.choice(TALK)
    return rng.choice(asks), answer
