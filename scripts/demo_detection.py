"""Random images, captions and boxes that `train_demo_detector.py` learns from.

A caption is a noun phrase and, half of the time, a motion phrase, which a single image cannot
show: every shape that the noun phrase fits is a target, and only the words that name it are to be
found. Boxes are x1, y1, x2, y2 as fractions of the image.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from warehouse.demo_data import Scene, describe, random_scene, render_frames
from warehouse.demo_data.language import GENERIC_NOUNS
from warehouse.demo_data.scene import COLOURS, HEIGHT, KINDS, WIDTH

VISIBLE = 60  # pixels from which a shape counts
NOUNS = "|".join([*KINDS, *GENERIC_NOUNS])
NOUN_PHRASE = re.compile(rf"(?<! a )\b(?:({'|'.join(COLOURS)}) )?({NOUNS})(s?)\b")


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Words of a caption, by their first and last character + 1, and the shapes they name."""

    span: tuple[int, int]
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image, its scene, and the box of each shape that can be seen, by the shape's index."""

    image_HW3: np.ndarray
    scene: Scene
    boxes: dict[int, tuple[float, float, float, float]]


def random_sample(rng: np.random.Generator) -> Sample:
    """A random frame of a random scene."""
    scene = random_scene(rng)
    time = int(rng.integers(scene.frames))
    (image_HW3,), masks_N1HW = render_frames(scene, range(time, time + 1))
    boxes = {n: box(m[0]) for n, m in enumerate(masks_N1HW) if m.sum() >= VISIBLE}
    return Sample(image_HW3=image_HW3, scene=scene, boxes=boxes)


def box(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask_HW.any(1))[0], np.nonzero(mask_HW.any(0))[0]
    return xs[0] / WIDTH, ys[0] / HEIGHT, (xs[-1] + 1) / WIDTH, (ys[-1] + 1) / HEIGHT


def phrases(text: str, sample: Sample) -> list[Phrase]:
    """The noun phrases of a caption, with the visible shapes that each fits."""
    found = []
    for match in NOUN_PHRASE.finditer(text):
        colour, noun, _ = match.groups()
        kind = None if noun in GENERIC_NOUNS else noun
        targets = tuple(
            n
            for n in sample.boxes
            if colour in (None, sample.scene.shapes[n].colour)
            and kind in (None, sample.scene.shapes[n].kind)
        )
        found.append(Phrase(span=match.span(), targets=targets))
    return found


def random_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption about an image; one in five names nothing that is there."""
    colour, kind = _look(rng, scene)
    many = rng.random() < 0.2
    words = [rng.choice(["the", "all"] if many else ["", "the"])]
    if rng.random() < 0.05:
        words.append(rng.choice(["faster", "slower"]))
    words += [colour, (kind or rng.choice(GENERIC_NOUNS)) + ("s" if many else "")]
    text = " ".join(filter(None, words))
    if rng.random() < 0.5:
        endings = motion_phrases()[many]
        text += endings[rng.integers(len(endings))]
    return text + "."


@cache
def motion_phrases() -> tuple[list[str], list[str]]:
    """What follows the noun in some thousand expressions: of a singular and of a plural noun."""
    rng = np.random.default_rng(0)
    texts = [d.text for _ in range(300) for d in describe(random_scene(rng), rng)]
    nouns = [(text, NOUN_PHRASE.search(text)) for text in texts]
    one, many = ([t[n.end() :] for t, n in nouns if n.group(3) == s] for s in ("", "s"))
    return one, many


def _look(rng: np.random.Generator, scene: Scene) -> tuple[str | None, str | None]:
    """Colour and kind to name; None where unsaid."""
    shape = scene.shapes[rng.integers(len(scene.shapes))]
    colour, kind = shape.colour, shape.kind
    if rng.random() < 0.5:  # another colour or kind: of another shape, or of none
        other = scene.shapes[rng.integers(len(scene.shapes))]
        if rng.random() < 0.3:
            colour = str(rng.choice([*COLOURS, *[other.colour] * 4]))
        else:
            kind = str(rng.choice([*KINDS, *[other.kind] * 3]))
    unsaid = rng.choice(["nothing", "colour", "kind", "both"], p=[0.6, 0.25, 0.1, 0.05])
    return (
        None if unsaid in ("colour", "both") else colour,
        None if unsaid in ("kind", "both") else kind,
    )
