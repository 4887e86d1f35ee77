"""The words that the corpus is made of, and the rule that keeps some of their combinations for the held-out set."""
import hashlib

GIRLS = ("Mia Ella Nora Ruth Iris Lena Maya Zoe Alma Vera Tess Ida Cora Dina Faye Greta Hana Jana Kira Lucy Mona Nell Olga Pia Rosa Sara "
         "Tilda Una Wanda Yara Anna Betty Agnes Clara Edith Flora Helga Julia Laura Marta Naomi Petra Sonia Irma").split()
BOYS = ("Tom Ben Leo Sam Max Finn Otto Hugo Ivan Karl Luis Milo Noah Omar Paul Remy Seth Theo Uri Vito Walt Yuri Adam Bruno Carl Dan Emil "
        "Fred Gus Hank Jack Kurt Aldo Boris Cyrus Dirk Edgar Felix Gavin Henry Jonas Lars Marco Nils").split()
NAMES = GIRLS + BOYS

TRAITS = "kind brave quiet curious clever gentle cheerful patient funny careful shy bold honest polite lazy proud lively dreamy".split()
COLORS = "red blue green yellow white black brown pink purple orange golden silver".split()
TOYS = ("kite ball drum doll puzzle boat robot whistle top balloon puppet crayon lantern ribbon flute marble scarf hat umbrella bell "
        "basket blanket bucket mirror candle compass feather trumpet teapot wagon pillow necklace").split()
TOOLS = "rope ladder shovel net hammer broom pole saw".split()
FOODS = ("apple", "pear", "plum", "cookie", "carrot", "nut", "berry", "muffin", "peach", "potato", "lemon", "cherry", "pancake", "tomato", "mushroom", "walnut")
PLURALS = {"berry": "berries", "cherry": "cherries", "peach": "peaches", "potato": "potatoes", "tomato": "tomatoes", "box": "boxes"}
ANIMALS = "rabbit fox owl duck goat mouse cat dog frog bear hen pony squirrel turtle sheep beaver badger hedgehog raven donkey otter deer".split()
# A place with the preposition that stands before it.
PLACES = ("in the forest", "in the garden", "at the beach", "by the river", "in the village", "on the hill", "at the market", "in the barn",
          "at the lake", "in the meadow", "at the mill", "in the park", "by the bridge", "in the valley", "at the school", "on the farm",
          "in the orchard", "at the harbor", "in the cave", "by the well", "at the castle", "in the library", "by the fountain", "at the station", "in the kitchen", "on the roof")
SPOTS = ("under a bench", "behind a tree", "under a bush", "behind a rock", "in a hollow log", "under a bed", "behind a door", "in a wooden box",
         "in a clay pot", "on a high shelf", "under a cart", "in a deep hole", "behind a fence", "in a pile of leaves", "under a rug", "in a big barrel", "behind a curtain", "under a stone", "in an old boot", "on a window sill")
CITIES = ("Oslo Paris Rome Lima Cairo Delhi Tokyo Quito Dublin Prague Vienna Athens Boston Berlin Madrid Lisbon Warsaw Havana Nairobi Geneva "
          "Milan Porto Turin Bergen London Munich Naples Zurich Sydney Toronto Lagos Seoul").split()
JOBS = "baker doctor farmer teacher pilot painter singer nurse driver cook writer tailor gardener sailor miller dentist carpenter lawyer plumber waiter".split()
PETS = "dog cat parrot rabbit hamster pony turtle goldfish".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
EVENTS = "concert picnic meeting parade dance race lecture dinner fair workshop festival wedding exhibition auction".split()
GOODS = "chairs lamps books pens cups plates shirts towels bottles candles boxes brushes blankets baskets carpets ladders".split()
LIST_WORDS = "apple pear plum dog cat fox hat cup pen sun tree star fish bird leaf rock boat drum bell key lamp wolf rose nest coin ring".split()


def plural(word):
    return PLURALS.get(word, word + "s")


def article(word):
    return ("an " if word[0] in "aeiouAEIOU" else "a ") + word


def pronoun(name):
    """(subject, object, possessive)"""
    return ("she", "her", "her") if name in GIRLS else ("he", "him", "his")


def kept_out(*parts):
    """Whether a combination is only for the held-out set: one in twelve, decided by the words themselves and no random number.
    The order of the parts does not matter, so that a pair kept out of an addition is kept out of the list that is sorted too."""
    text = "|".join(sorted(map(str, parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") % 12 == 0
