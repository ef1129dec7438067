"""The expressions of the embedded data in words that no training expression has.

Only function words (`FUNCTION_WORDS`) are shared. A paraphrase means what the expression means, so
what a selector loses on it is lost in reading.
"""

import numpy as np

from warehouse.demo_data.language import Description, Look, Meaning

FUNCTION_WORDS = frozenset({"the", "that", "and", "in", "to", "by", "at", "a", "of"})

COLOURS = {
    "red": ("crimson", "scarlet", "ruby"),
    "green": ("emerald", "jade", "olive"),
    "blue": ("cobalt", "navy", "sapphire"),
    "yellow": ("golden", "lemon", "mustard"),
    "purple": ("violet", "plum", "mauve"),
    "orange": ("tangerine", "apricot", "amber"),
    "cyan": ("turquoise", "aqua", "teal"),
    "white": ("ivory", "snowy", "pearl"),
}
NOUNS = {
    "circle": ("disc", "ball", "dot"),
    "square": ("cube", "block", "tile"),
    "triangle": ("wedge", "pyramid", "cone"),
    "star": ("asterisk", "pentagram", "starburst"),
    "bar": ("rectangle", "plank", "strip"),
    None: ("figure", "item", "element", "piece"),
}
DETERMINERS, PLURAL_DETERMINERS = ("the", "this", "that"), ("the", "these", "those")
MOVES = ("travelling", "drifting", "gliding", "which slides")
DIRECTIONS = {
    "left": ("leftwards", "westward"),
    "right": ("rightwards", "eastward"),
    "up": ("skyward", "toward the top"),
    "down": ("earthward", "toward the bottom"),
}
MOTIONS = {
    "stands still": ("motionless", "at rest", "remaining stationary", "immobile"),
    "stops": ("which halts midway", "gliding and later motionless", "travelling until it rests"),
    "starts": ("which departs late", "setting off after a pause", "motionless and later gliding"),
    "turns back": ("which reverses midway", "retracing its path", "which retreats eventually"),
    "grows": ("expanding", "swelling", "inflating", "which increases in size"),
    "shrinks": ("contracting", "dwindling", "deflating", "which decreases in size"),
    "spins": ("twirling", "whirling", "pirouetting", "which revolves about its centre"),
    "circles": ("orbiting", "looping", "tracing a ring", "which travels along a loop"),
    "leaves and returns": (
        "exiting the frame and reappearing",
        "vanishing beyond the border and reappearing",
        "hidden offscreen for a while",
    ),
    "follows": ("chasing", "trailing", "pursuing", "tailing"),
    "is followed": ("chased by", "trailed by", "pursued by", "tailed by"),
}
COMPARATIVES = {"faster": ("quicker", "speedier", "swifter"), "slower": ("lazier", "more sluggish")}
PLURALS = {"its": "their", "it": "they"}


def paraphrase(description: Description, rng: np.random.Generator) -> str:
    """An expression in other words, with the same targets."""
    meaning, many = description.meaning, len(description.targets) > 1
    if meaning.motion in COMPARATIVES:
        return _noun(meaning.look, many, rng, str(rng.choice(COMPARATIVES[meaning.motion])))
    motion = _motion(meaning, many, rng)
    return " ".join(filter(None, [_noun(meaning.look, many, rng), motion]))


def _noun(look: Look, many: bool, rng: np.random.Generator, before: str | None = None) -> str:
    """A noun phrase; `before` is an adjective of its own."""
    colour, kind = look
    determiner = str(rng.choice(PLURAL_DETERMINERS if many else DETERMINERS))
    adjective = str(rng.choice(COLOURS[colour])) if colour else None
    noun = str(rng.choice(NOUNS[kind])) + ("s" if many else "")
    return " ".join(filter(None, [determiner, before, adjective, noun]))


def _motion(meaning: Meaning, many: bool, rng: np.random.Generator) -> str | None:
    """A motion phrase, with the other shape of a relation; None of a static expression."""
    if meaning.motion is None:
        return None
    if meaning.motion == "moves":
        assert meaning.direction is not None
        phrase = f"{rng.choice(MOVES)} {rng.choice(DIRECTIONS[meaning.direction])}"
    else:
        phrase = str(rng.choice(MOTIONS[meaning.motion]))
    if many:
        phrase = _plural(phrase)
    return phrase if meaning.other is None else f"{phrase} {_noun(meaning.other, False, rng)}"


def _plural(phrase: str) -> str:
    """The verb after "which" or a pronoun agrees with several subjects, and so does the pronoun."""
    words = [PLURALS.get(word, word) for word in phrase.split()]
    before = [None, *words]
    return " ".join(
        word.removesuffix("s") if before[n] in ("which", "they") else word
        for n, word in enumerate(words)
    )
