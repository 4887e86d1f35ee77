"""Short stories of which every fact is known: a plot moves characters and things about, tells it in one of several wordings, and notes
the questions that the story then answers. What is asked is what was told last: where a thing is in the end, who has it, why somebody was sad."""
from words import (ANIMALS, BOYS, COLORS, FOODS, GIRLS, NAMES, PLACES, SPOTS, TOOLS, TOYS, TRAITS, article, kept_out, plural, pronoun)


class Story:
    """A hero, a friend, a thing; sentences and questions are added as the plot goes."""

    def __init__(self, rng, held, hero=None, thing=None):
        self.rng, self.sentences, self.questions = rng, [], []
        while True:
            self.hero = hero or rng.choice(NAMES)
            self.friend = rng.choice([n for n in NAMES if n != self.hero])
            self.thing = thing or rng.choice(TOYS)
            if kept_out(self.hero, self.friend) == held and not (kept_out(self.hero, self.thing) and not held):
                break
        self.he, self.him, self.his = pronoun(self.hero)
        self.fhe, self.fhim, self.fhis = pronoun(self.friend)
        self.color = rng.choice(COLORS)
        self.places = rng.sample(PLACES, 4)
        self.spots = rng.sample(SPOTS, 2)
        self.trait = rng.choice(TRAITS)
        self.animal = rng.choice(ANIMALS)

    def say(self, *wordings):
        text = self.rng.choice(wordings)
        self.sentences.append(text[0].upper() + text[1:])

    def ask(self, answer, *wordings):
        self.questions.append((self.rng.choice(wordings), answer[0].upper() + answer[1:] + "."))

    def begin(self):
        child = "girl" if self.hero in GIRLS else "boy"
        self.say(f"once upon a time there was {article(self.trait)} {child} named {self.hero}.", f"{self.hero} was {article(self.trait)} {child}.",
                 f"once there was {article(self.trait)} {child} who was called {self.hero}.")
        self.ask(self.trait, f"What was {self.hero} like?", f"What kind of {child} was {self.hero}?")

    def owns(self):
        self.say(f"{self.he} had {article(self.color)} {self.thing}.", f"{self.he} loved {self.his} {self.color} {self.thing}.",
                 f"{self.his} favorite thing was {article(self.color)} {self.thing}.")
        self.color_question()

    def color_question(self):
        self.ask(self.color, f"What color was the {self.thing}?", f"Which color did the {self.thing} have?")

    def meets(self, place):
        self.say(f"one day {self.hero} met {self.friend} {place}.", f"one morning {self.he} saw {self.friend} {place}.", f"{self.friend} was waiting {place}.")
        self.ask(place, f"Where did {self.hero} meet {self.friend}?", f"Where was {self.friend} when {self.hero} came?")

    def felt(self, who, feeling, why, *wordings):
        self.say(*wordings)
        self.ask(f"because {why}", f"Why was {who} {feeling}?")


def lost_and_found(s):
    s.begin()
    s.owns()
    first, second, third, _ = s.places
    s.say(f"one day {s.he} took the {s.thing} for a walk and lost it {first}.", f"one day {s.he} played {first} and lost the {s.thing}.")
    s.ask(first, f"Where did {s.hero} lose the {s.thing}?")
    s.felt(s.hero, "sad", f"{s.he} had lost the {s.thing}", f"{s.hero} was very sad.", f"{s.he} felt sad and sat down.")
    s.say(f"{s.friend} came along and said, \"I will help you look.\"", f"\"Do not cry,\" said {s.friend}. \"We will look for it.\"")
    s.ask(s.friend, f"Who helped {s.hero}?", f"Who helped to look for the {s.thing}?")
    s.say(f"they looked {second}, but it was not there.", f"first they searched {second}, and found nothing.")
    s.say(f"then {s.friend} found it {third}, {s.spots[0]}.", f"at last {s.friend} saw it {s.spots[0]} {third}.")
    s.ask(s.spots[0], f"Where exactly was the {s.thing}?", f"In which spot was the {s.thing}?")
    s.ask(s.friend, f"Who found the {s.thing}?")
    food = plural(s.rng.choice(FOODS))
    s.say(f"{s.hero} was happy and gave {s.friend} some {food}.", f"to say thank you, {s.hero} shared {s.his} {food} with {s.friend}.")
    s.ask(food, f"What did {s.hero} give to {s.friend}?", f"What did {s.friend} get?")


def gift(s):
    s.begin()
    place, meeting, _, _ = s.places
    s.say(f"soon it was the birthday of {s.friend}.", f"{s.friend} had a birthday soon.")
    s.ask(s.friend, "Whose birthday was it?", "Who had a birthday?")
    how = s.rng.choice(("made", "bought", "found"))
    s.say(f"{s.hero} {how} {article(s.color)} {s.thing} {place}.", f"so {s.he} {how} {article(s.color)} {s.thing} {place}.")
    s.color_question()
    s.ask(place, f"Where was the {s.thing} {how}?", f"Where did {s.hero} get the {s.thing}?")
    s.say(f"{s.he} hid it {s.spots[0]}, because it was a surprise.", f"it was a surprise, so {s.he} put it {s.spots[0]}.")
    s.ask(s.spots[0], f"Where did {s.hero} hide the {s.thing}?")
    moved = s.rng.random() < 0.5
    if moved:
        s.say(f"but {article(s.animal)} came and moved it. Now it was {s.spots[1]}.", f"then {article(s.animal)} carried it away and left it {s.spots[1]}.")
        s.ask(f"the {s.animal}", f"Who moved the {s.thing}?")
        s.felt(s.hero, "worried", f"the {s.thing} was gone", f"{s.hero} looked for it and was worried.", f"when {s.hero} came back, {s.he} was worried.")
        s.say(f"{s.he} looked everywhere and found it again.", f"after a long time {s.he} found it.")
        s.ask(s.spots[1], f"Where did {s.hero} find the {s.thing} in the end?", f"Where was the {s.thing} after the {s.animal} had moved it?")
    s.say(f"on the birthday they met {meeting} and {s.hero} gave the {s.thing} to {s.friend}.", f"{s.hero} gave {s.friend} the {s.thing} {meeting}.")
    s.ask(s.friend, f"Who has the {s.thing} now?", f"Who got the {s.thing}?")
    s.ask(meeting, f"Where did {s.friend} get the {s.thing}?")
    s.say(f"\"Thank you,\" said {s.friend}. \"I like it very much.\"", f"{s.friend} smiled and hugged {s.him if s.him != s.fhim else s.hero}.")


def rescue(s):
    tool, (where, tool_place, _, _) = s.rng.choice(TOOLS), s.places
    s.begin()
    s.say(f"one day {s.he} heard a cry {where}.", f"one day {s.he} went for a walk and heard a voice {where}.")
    s.say(f"{article(s.animal)} was stuck {s.spots[0]}.", f"there was {article(s.animal)}, stuck {s.spots[0]}.")
    s.ask(f"the {s.animal}", "Who was stuck?", "Which animal needed help?")
    s.ask(s.spots[0], f"Where was the {s.animal} stuck?")
    s.felt(f"the {s.animal}", "afraid", "it was stuck", f"the {s.animal} was afraid.", f"\"Please help me,\" said the {s.animal}. It was afraid.")
    s.say(f"{s.hero} ran to {s.friend}, who had {article(tool)} {tool_place}.", f"{s.he} asked {s.friend} for help. {s.friend} kept {article(tool)} {tool_place}.")
    s.ask(tool_place, f"Where was the {tool}?", f"Where did {s.friend} have the {tool}?")
    s.ask(tool, f"What did {s.friend} have?", f"What did {s.hero} need from {s.friend}?")
    s.say(f"together they used the {tool} and the {s.animal} was free.", f"with the {tool} they pulled the {s.animal} out.")
    s.ask(f"with the {tool}", f"How did they help the {s.animal}?")
    s.say(f"the {s.animal} gave {s.hero} {article(s.color)} {s.thing}.", f"the {s.animal} was so glad that it gave {article(s.color)} {s.thing} to {s.hero}.")
    s.ask(f"{article(s.color)} {s.thing}", f"What did the {s.animal} give to {s.hero}?", f"What did {s.hero} get?")
    s.color_question()
    s.say(f"from that day on {s.hero}, {s.friend} and the {s.animal} were friends.", "after that they were friends and met every week.")


def trade(s):
    place, after, repair, _ = s.places
    other = s.rng.choice([t for t in TOYS if t != s.thing])
    other_color = s.rng.choice([c for c in COLORS if c != s.color])
    s.begin()
    s.owns()
    s.say(f"{s.his} friend {s.friend} had {article(other_color)} {other}.", f"{s.friend} was {s.his} friend and had {article(other_color)} {other}.")
    s.ask(other_color, f"What color was the {other}?")
    s.say(f"they met {place} and traded their things.", f"one day they met {place}. \"Let us trade,\" said {s.friend}, and they did.")
    s.ask(place, "Where did they trade?", f"Where did {s.hero} and {s.friend} trade?")
    s.ask(s.hero, f"Who had the {other} after the trade?")
    s.ask(s.friend, f"Who had the {s.thing} after the trade?")
    s.say(f"{after}, {s.hero} fell and the {other} broke.", f"on the way home {s.hero} dropped the {other} {after} and it broke.")
    s.ask(after, f"Where did the {other} break?")
    s.ask(f"the {other}", "What broke?")
    s.felt(s.hero, "sorry", f"the {other} broke", f"{s.he} was sorry and told {s.friend}.", f"{s.hero} was sorry. {s.he.capitalize()} told {s.friend} about it.")
    helper = s.rng.choice([n for n in NAMES if n not in (s.hero, s.friend) and not kept_out(s.hero, n) and not kept_out(s.friend, n)])
    s.say(f"{s.friend} was not angry. {helper} mended the {other} {repair}.", f"\"It can be mended,\" said {s.friend}, and {helper} mended it {repair}.")
    s.ask(helper, f"Who mended the {other}?")
    s.ask(repair, f"Where was the {other} mended?")
    s.say("they all laughed and played until dark.", "then they played together until the sun went down.")


def sharing(s):
    food = s.rng.choice(FOODS)
    have = s.rng.randint(4, 12)
    gave = s.rng.randint(1, have - 2)
    place, walk, _, _ = s.places
    foods = plural(food)
    s.begin()
    s.say(f"one day {s.he} picked {have} {foods} {place}.", f"one morning {s.he} got {have} {foods} {place}.")
    s.ask(str(have), f"How many {foods} did {s.hero} have at first?")
    s.ask(place, f"Where did {s.hero} get the {foods}?")
    s.say(f"{s.he} put them into {article(s.color)} basket.", f"{s.he} carried them in {article(s.color)} basket.")
    s.ask(s.color, "What color was the basket?")
    s.say(f"{walk} {s.he} met {s.friend}, who was hungry.", f"then {s.friend} came by {walk} and was hungry.")
    s.ask(walk, f"Where did {s.hero} meet {s.friend}?")
    s.ask(f"because {s.fhe} was hungry", f"Why did {s.friend} get {foods}?")
    one = food if gave == 1 else foods
    s.say(f"{s.hero} gave {s.friend} {gave} {one}, so {have - gave} were left.", f"\"Take {gave},\" said {s.hero}. Now there were {have - gave} left.")
    s.ask(str(gave), f"How many {foods} did {s.friend} get?", f"How many {foods} did {s.hero} give away?")
    s.ask(str(have - gave), f"How many {foods} were left?", f"How many {foods} did {s.hero} keep?")
    s.say(f"in return {s.friend} gave {s.him} {article(s.thing)}.", f"{s.friend} thanked {s.him} and gave {s.him} {article(s.thing)}.")
    s.ask(f"{article(s.thing)}", f"What did {s.friend} give in return?", f"What did {s.hero} get from {s.friend}?")
    s.say("they sat down and ate together.", "then they walked home side by side.")


def forgotten_outside(s):
    place, shelter, _, _ = s.places
    s.begin()
    s.owns()
    weather, harm = s.rng.choice((("it rained", "wet"), ("it snowed", "cold"), ("a storm came", "dirty"), ("the wind blew", "dusty")))
    s.say(f"one evening {s.he} left it {place}, {s.spots[0]}.", f"one evening {s.he} forgot it {s.spots[0]} {place}.")
    s.ask(place, f"Where did {s.hero} leave the {s.thing}?")
    s.say(f"in the night {weather}, and the {s.thing} got {harm}.", f"that night {weather}. The {s.thing} became {harm}.")
    s.ask(f"because {weather}", f"Why did the {s.thing} get {harm}?")
    s.ask(harm, f"How was the {s.thing} after the night?")
    s.say(f"{article(s.animal)} found it and brought it to {s.friend}.", f"in the morning {article(s.animal)} saw it and carried it to {s.friend}.")
    s.ask(f"the {s.animal}", f"Who found the {s.thing}?")
    s.ask(s.friend, f"Who got the {s.thing} from the {s.animal}?", f"To whom did the {s.animal} bring the {s.thing}?")
    s.say(f"{s.friend} cleaned the {s.thing} {shelter}.", f"{shelter}, {s.friend} made it as good as new.")
    s.ask(shelter, f"Where did {s.friend} clean the {s.thing}?")
    s.say(f"then {s.fhe} gave it back to {s.hero}.", f"the next day {s.hero} got it back.")
    s.ask(s.hero, f"Who has the {s.thing} in the end?")
    s.say(f"{s.hero} promised never to forget it again.", f"\"I will take better care of it,\" said {s.hero}.")


def race(s):
    start, goal, _, _ = s.places
    third = s.rng.choice([n for n in NAMES if n not in (s.hero, s.friend) and not kept_out(s.hero, n) and not kept_out(s.friend, n)])
    order = s.rng.sample([s.hero, s.friend, third], 3)
    s.begin()
    s.say(f"one day {s.hero}, {s.friend} and {third} had a race.", f"{s.hero} wanted to race against {s.friend} and {third}.")
    s.say(f"it began {start} and ended {goal}.", f"they started {start}, and the goal was {goal}.")
    s.ask(start, "Where did the race begin?", "Where did they start?")
    s.ask(goal, "Where did the race end?", "Where was the goal?")
    s.say(f"the prize was {article(s.color)} {s.thing}.", f"{article(s.animal)} had {article(s.color)} {s.thing} for the winner.")
    s.ask(f"{article(s.color)} {s.thing}", "What was the prize?")
    s.color_question()
    s.say(f"{order[1]} ran fast, but {order[0]} was faster.", f"{order[0]} was the fastest, and {order[1]} came second.")
    s.ask(order[0], "Who won the race?", "Who was the fastest?")
    s.ask(order[1], "Who came second?")
    reason = s.rng.choice(("fell into the mud", "stopped to rest", "lost a shoe", "took the wrong way"))
    s.say(f"{order[2]} {reason} and came last.", f"{order[2]} came last, because {pronoun(order[2])[0]} {reason}.")
    s.ask(order[2], "Who came last?")
    s.ask(f"because {pronoun(order[2])[0]} {reason}", f"Why did {order[2]} come last?")
    s.say(f"{order[0]} got the {s.thing} and let everybody play with it.", f"so the {s.thing} went to {order[0]}.")
    s.ask(order[0], f"Who got the {s.thing}?", f"Who has the {s.thing} now?")


def carried_along(s):
    """A thing that is passed on twice and carried from place to place: the question is where it is now."""
    first, second, third, _ = s.places
    s.begin()
    s.owns()
    s.say(f"in the morning {s.hero} took the {s.thing} and went to play {first}.", f"{s.hero} played with the {s.thing} {first}.")
    s.ask(first, f"Where did {s.hero} play first?", f"Where was the {s.thing} in the morning?")
    s.say(f"there {s.he} gave it to {s.friend}.", f"{s.friend} asked for it, and {s.he} gave it to {s.fhim}.")
    s.say(f"{s.friend} carried it away and hid it {second}.", f"{s.friend} took it along and left it {second}.")
    s.ask(second, f"Where did {s.friend} leave the {s.thing}?", f"Where did {s.friend} take the {s.thing}?")
    s.ask(s.friend, f"Who got the {s.thing} from {s.hero}?")
    if s.rng.random() < 0.6:
        s.say(f"in the evening {article(s.animal)} took it from there and brought it home. It lies {s.spots[0]} {third}.",
              f"later {article(s.animal)} came and carried it off. Now it is {third}, {s.spots[0]}.")
        s.ask(third, f"Where is the {s.thing} now?", f"Where is the {s.thing} in the end?")
        s.ask(f"the {s.animal}", f"Who took the {s.thing} in the end?", f"Who has the {s.thing} now?")
        s.felt(s.hero, "surprised", f"the {s.thing} was gone", f"when {s.hero} came to fetch it, {s.he} was surprised.", f"{s.hero} looked for it and was surprised.")
    else:
        s.say("nobody touched it, and there it stayed.", "it stayed there the whole night.")
        s.ask(second, f"Where is the {s.thing} now?", f"Where is the {s.thing} in the end?")
        s.say(f"the next day {s.hero} got it back and was glad.", f"{s.hero} went there the next day and played with it again.")
    s.say("everybody laughed about it.", "it was a good day.", "that is the whole story.")


PLOTS = (lost_and_found, gift, rescue, trade, sharing, forgotten_outside, race, carried_along)


def story(rng, held, hero=None, thing=None):
    """(the story's text, its questions with answers, the story itself)"""
    s = Story(rng, held, hero, thing)
    rng.choice(PLOTS)(s)
    return " ".join(s.sentences), s.questions, s


def request(rng, s):
    return rng.choice((f"Tell me a story about {s.hero} and {article(s.thing)}.", f"Tell me a short story about {s.hero}.", f"Write a story with {s.hero} and {s.friend}.",
                       f"Please tell a story about {s.hero} and {s.friend}.", "Tell me a story.", f"Tell me a story about {article(s.thing)}."))
