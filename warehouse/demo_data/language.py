"""Referring expressions for scenes of the embedded data set, mostly about motion.

An expression is a noun phrase and, usually, a motion phrase. Whether a motion phrase holds for a
shape can be open to argument ("moving left" of a shape that moves left and stops): such phrases
are not used in that scene, so that every expression has one right answer.
"""

from dataclasses import dataclass, replace

import numpy as np

from warehouse.demo_data.scene import COLOURS, DIRECTIONS, KINDS, Scene, Shape

Look = tuple[str | None, str | None]
"""Colour and kind, None where unsaid."""

EXPRESSIONS = 14  # at most, of one scene; MeViS has as many on average
GENERIC_NOUNS = ("shape", "object", "thing")

WORDINGS: dict[str, tuple[str, ...]] = {
    "moves": ("moving {direction}", "going {direction}", "that keeps moving {direction}"),
    "stands still": ("standing still", "that does not move", "staying in place"),
    "stops": ("that moves and then stops", "that comes to a stop", "moving first, then stopping"),
    "starts": ("that starts to move", "waiting and then moving", "standing first, then moving"),
    "turns back": ("that turns back", "turning around and going back", "moving there and back"),
    "grows": ("growing", "that gets bigger", "becoming larger"),
    "shrinks": ("shrinking", "that gets smaller", "becoming smaller"),
    "spins": ("spinning", "rotating in place", "that turns on the spot"),
    "circles": ("moving in a circle", "going round and round", "circling around"),
    "leaves and returns": (
        "that leaves the view and returns",
        "going out of sight and coming back",
        "disappearing at the edge and coming back",
    ),
}
DIRECTION_WORDS = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
}


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What an expression says, whatever its words.

    `motion` is one of `WORDINGS`, "follows", "is followed", "faster" or "slower", None of a static
    expression. `other` is the look of the shape that it follows or is followed by.
    """

    look: Look
    motion: str | None = None
    direction: str | None = None
    other: Look | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """An expression, the indices of the shapes it refers to, and what it takes to tell them.

    Tags: `static` or `motion`; `look-alike` where a shape that looks like a target is not meant;
    `multi-target`, `no-target`; and the motion's name.
    """

    text: str
    targets: tuple[int, ...]
    tags: tuple[str, ...]
    meaning: Meaning


def describe(scene: Scene, rng: np.random.Generator) -> list[Description]:
    """Up to `EXPRESSIONS` of a scene: three static, the others about motion, none twice."""
    motion = [*_motion_descriptions(scene, rng), *_relations(scene, rng)]
    present = [d for d in motion if d.targets]
    absent = [d for d in motion if not d.targets] + _absent_looks(scene, rng)
    hard = [d for d in present if "look-alike" in d.tags]
    several = [d for d in present if len(d.targets) > 1]
    chosen = [
        *_sample(rng, _static_descriptions(scene, rng), 3),
        *_sample(rng, absent, 1),
        *_sample(rng, hard, 4),
        *_sample(rng, several, 2),
        *_sample(rng, present, EXPRESSIONS),
    ]
    return list({d.text: d for d in chosen}.values())[:EXPRESSIONS]


def _sample(rng: np.random.Generator, items: list[Description], count: int) -> list[Description]:
    return [items[i] for i in rng.permutation(len(items))[:count]]


def _nouns(scene: Scene) -> list[Look]:
    """Every look that a noun phrase of the scene may name."""
    looks = {(s.colour, s.kind) for s in scene.shapes}
    partial = {(colour, None) for colour, _ in looks} | {(None, kind) for _, kind in looks}
    return [*sorted(looks), *sorted(partial, key=str), (None, None)]


def _noun_phrase(rng: np.random.Generator, colour: str | None, kind: str | None, many: bool) -> str:
    noun = kind or str(rng.choice(GENERIC_NOUNS))
    if many:
        determiner, noun = str(rng.choice(["all", "the"])), noun + "s"
    else:
        determiner = "the"
    return " ".join(filter(None, [determiner, colour, noun]))


def fits(shape: Shape, colour: str | None, kind: str | None) -> bool:
    """Whether a shape looks like that; None where unsaid."""
    return colour in (None, shape.colour) and kind in (None, shape.kind)


def holds(motion: str, direction: str | None, shape: Shape) -> bool | None:
    """Whether a motion phrase is true of a shape; None where that is open to argument."""
    if motion == "moves":
        if shape.motion == "moves":
            return shape.direction == direction
        along = shape.direction is not None and (
            (shape.direction in ("left", "right")) == (direction in ("left", "right"))
        )
        return None if along else False
    if motion == "stands still" and shape.motion in ("grows", "shrinks", "spins"):
        return None
    if motion == "turns back" and shape.motion == "leaves and returns":
        return None
    return shape.motion == motion


def _motion_descriptions(scene: Scene, rng: np.random.Generator) -> list[Description]:
    found = []
    for motion, wordings in WORDINGS.items():
        for direction in DIRECTIONS if motion == "moves" else (None,):
            for colour, kind in _nouns(scene):
                meant = [n for n, s in enumerate(scene.shapes) if fits(s, colour, kind)]
                truth = {n: holds(motion, direction, scene.shapes[n]) for n in meant}
                if None in truth.values():
                    continue
                targets = tuple(n for n in meant if truth[n])
                wording = str(rng.choice(wordings))
                if direction is not None:
                    wording = wording.format(direction=rng.choice(DIRECTION_WORDS[direction]))
                if len(targets) > 1:
                    wording = _plural(wording)
                noun = _noun_phrase(rng, colour, kind, many=len(targets) > 1)
                meaning = Meaning(look=(colour, kind), motion=motion, direction=direction)
                found.append(_description(scene, f"{noun} {wording}", targets, meaning))
    return found


def _plural(wording: str) -> str:
    """Verbs of relative clauses agree with several subjects."""
    singular = ("moves", "stops", "comes", "starts", "turns", "gets", "leaves", "returns", "keeps")
    words = wording.replace("does not", "do not").split()
    return " ".join(word[:-1] if word in singular else word for word in words)


def _relations(scene: Scene, rng: np.random.Generator) -> list[Description]:
    """Who follows whom, and which of two moving twins is faster."""
    found = []
    for n, shape in enumerate(scene.shapes):
        if shape.follows is None:
            continue
        leader = scene.shapes[shape.follows]
        noun = _noun_phrase(rng, None, None, many=False)
        after = str(rng.choice(["following", "moving behind"]))
        text = f"{noun} {after} the {leader.colour} {leader.kind}"
        follows = Meaning(look=(None, None), motion="follows", other=(leader.colour, leader.kind))
        found.append(_description(scene, text, (n,), follows))
        text = f"{noun} followed by the {shape.colour} {shape.kind}"
        followed = replace(follows, motion="is followed", other=(shape.colour, shape.kind))
        found.append(_description(scene, text, (shape.follows,), followed))
    first, second = scene.shapes[:2]
    moving = first.motion == second.motion == "moves"
    if moving and (first.colour, first.kind) == (second.colour, second.kind):
        for word, sign in (("faster", 1), ("slower", -1)):
            ratio = (first.speed / second.speed) ** sign
            if max(ratio, 1 / ratio) > 1.5:
                text = f"the {word} {first.colour} {first.kind}"
                meaning = Meaning(look=(first.colour, first.kind), motion=word)
                found.append(_description(scene, text, (0 if ratio > 1 else 1,), meaning))
    return found


def _static_descriptions(scene: Scene, rng: np.random.Generator) -> list[Description]:
    found = []
    for colour, kind in _nouns(scene)[:-1]:
        targets = tuple(n for n, s in enumerate(scene.shapes) if fits(s, colour, kind))
        text = _noun_phrase(rng, colour, kind, many=len(targets) > 1)
        found.append(_description(scene, text, targets, Meaning(look=(colour, kind))))
    return found


def _absent_looks(scene: Scene, rng: np.random.Generator) -> list[Description]:
    """A few objects in colours that are not there."""
    absent = sorted(set(COLOURS) - {s.colour for s in scene.shapes})
    looks = [(str(c), str(rng.choice(KINDS))) for c in rng.choice(absent, 2, replace=False)]
    return [
        _description(scene, f"the {colour} {kind}", (), Meaning(look=(colour, kind)))
        for colour, kind in looks
    ]


def _description(
    scene: Scene, text: str, targets: tuple[int, ...], meaning: Meaning
) -> Description:
    looks = {(scene.shapes[n].colour, scene.shapes[n].kind) for n in targets}
    others = {(s.colour, s.kind) for n, s in enumerate(scene.shapes) if n not in targets}
    motion = "follows" if meaning.motion == "is followed" else meaning.motion
    tags = ["static"] if motion is None else ["motion", motion]
    if looks & others:
        tags.append("look-alike")
    if len(targets) > 1:
        tags.append("multi-target")
    if not targets:
        tags.append("no-target")
    return Description(text=text, targets=targets, tags=tuple(tags), meaning=meaning)
