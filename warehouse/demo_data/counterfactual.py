"""Pairs of clips that differ in motion alone, to see whether a selector reads it.

    reversed    the clip and itself played backwards, with its sentence's motion turned
    swapped     the look-alikes exchange their motions: the same sentence means the other one
    removed     the object that is meant is gone: the same sentence means nothing

Each clip holds two look-alikes, one of which its sentence means; in "reversed" the other does the
opposite. So a selector that sees looks alone, and takes the same of two look-alikes whatever they
do, is right in both clips of every second pair of "reversed" and of no other pair (`CHANCE`).

In the data set on disk each expression has one key more than others, "pair": "<kind>/<number>".
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from warehouse.demo_data.language import DIRECTION_WORDS, WORDINGS, fits, holds
from warehouse.demo_data.render import render_frames
from warehouse.demo_data.scene import (
    FRAMES,
    HEIGHT,
    WIDTH,
    Scene,
    Shape,
    overlap,
    random_scene,
)
from warehouse.demo_data.write import add_masks, object_fields, write_frames, write_json

SPLIT = "counterfactual"
CHANCE = {"reversed": 0.5, "swapped": 0.0, "removed": 0.0}
TURNED = {
    "moves": "moves",
    "starts": "stops",
    "stops": "starts",
    "grows": "shrinks",
    "shrinks": "grows",
}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
CROWDED = 0.5  # overlap of two shapes, in frames of complete overlap
LARGEST_SHARE = 0.55  # of the meant look-alike in the area of both


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A scene, its sentence, and the index of the shape that is meant, None where none is."""

    scene: Scene
    text: str
    target: int | None


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What a sentence says: the motion of shapes that look so, in the n-th wording."""

    look: tuple[str, str]
    motion: str
    direction: str | None
    wording: int

    @property
    def text(self) -> str:
        wording = WORDINGS[self.motion][self.wording]
        if self.direction is not None:
            wording = wording.format(direction=DIRECTION_WORDS[self.direction][0])
        return f"the {' '.join(self.look)} {wording}"

    def turned(self) -> "Sentence":
        """What it is of the clip played backwards; of a motion in `TURNED`."""
        direction = OPPOSITE[self.direction] if self.direction else None
        return replace(self, motion=TURNED[self.motion], direction=direction)

    def means(self, scene: Scene) -> list[int] | None:
        """The shapes it is true of; None where that is open to argument."""
        truth = {
            n: holds(self.motion, self.direction, shape)
            for n, shape in enumerate(scene.shapes)
            if fits(shape, *self.look) and not is_removed(shape)
        }
        return None if None in truth.values() else [n for n in truth if truth[n]]


def reversed_in_time(scene: Scene) -> Scene:
    """The scene played backwards."""
    return replace(scene, shapes=tuple(map(_backwards, scene.shapes)))


def opposed(scene: Scene) -> Scene:
    """The scene with the second look-alike doing, in its place, the opposite of the first."""
    first, second, *others = scene.shapes
    return replace(scene, shapes=(first, _moving_as(second, _backwards(first)), *others))


def swapped(scene: Scene) -> Scene:
    """The scene with the motions of its look-alikes exchanged; each stays in its place."""
    first, second, *others = scene.shapes
    return replace(scene, shapes=(_moving_as(first, second), _moving_as(second, first), *others))


def removed(scene: Scene) -> Scene:
    """The scene with its first shape out of the frame throughout; nothing else changes."""
    first, *others = scene.shapes
    gone = replace(first, centre_T2=np.full_like(first.centre_T2, -10.0 * WIDTH))
    return replace(scene, shapes=(gone, *others))


def is_removed(shape: Shape) -> bool:
    """Whether `removed` took a shape away."""
    return bool((shape.centre_T2 < -5.0 * WIDTH).all())


def _backwards(shape: Shape) -> Shape:
    along = shape.motion in ("moves", "starts", "stops")
    return replace(
        shape,
        motion=TURNED.get(shape.motion, shape.motion),
        direction=OPPOSITE[shape.direction] if along and shape.direction else shape.direction,
        centre_T2=shape.centre_T2[::-1],
        scale_T=shape.scale_T[::-1],
        angle_T=shape.angle_T[::-1],
    )


def _moving_as(shape: Shape, other: Shape) -> Shape:
    """A shape with the motion of another, about the middle of its own path."""
    return replace(
        other,
        kind=shape.kind,
        colour=shape.colour,
        texture=shape.texture,
        radius=shape.radius,
        centre_T2=other.centre_T2 - _middle(other) + _middle(shape),
    )


def _middle(shape: Shape) -> np.ndarray:
    return (shape.centre_T2.min(axis=0) + shape.centre_T2.max(axis=0)) / 2


def find_pairs(kind: str, count: int, seed: int, frames: int) -> list[tuple[Clip, Clip]]:
    """The first pairs of a kind among random scenes; the same arguments give the same pairs."""
    number = list(CHANCE).index(kind)
    drawn = (
        _pair(kind, np.random.default_rng([seed, number, n]), frames) for n in itertools.count()
    )
    return list(itertools.islice(filter(None, drawn), count))


def _pair(kind: str, rng: np.random.Generator, frames: int) -> tuple[Clip, Clip] | None:
    """The pair of a random scene; None where the scene does not serve."""
    scene = random_scene(rng, frames)
    first, second = scene.shapes[:2]
    if (first.colour, first.kind) != (second.colour, second.kind):
        return None
    if kind == "reversed" and first.motion not in TURNED:
        return None
    along = first.direction if first.motion == "moves" else None
    sentence = Sentence(
        look=(first.colour, first.kind),
        motion=first.motion,
        direction=along,
        wording=int(rng.integers(len(WORDINGS[first.motion]))),
    )
    other: Callable[[Scene], Scene]
    if kind == "reversed":
        scene, other, said, meant = opposed(scene), reversed_in_time, sentence.turned(), [0]
    elif kind == "swapped":
        other, said, meant = swapped, sentence, [1]
    else:
        other, said, meant = removed, sentence, []
    counterfactual = other(scene)
    if sentence.means(scene) != [0] or said.means(counterfactual) != meant:
        return None
    if not (_clear(scene, [0]) and _clear(counterfactual, meant)):
        return None
    return (
        Clip(scene=scene, text=sentence.text, target=0),
        Clip(scene=counterfactual, text=said.text, target=meant[0] if meant else None),
    )


def _clear(scene: Scene, meant: list[int]) -> bool:
    """Whether shapes are whole and apart, and the meant one is not most of both look-alikes."""
    there = [shape for shape in scene.shapes if not is_removed(shape)]
    size = np.array([WIDTH, HEIGHT], float)
    for shape in there:
        reach_T1 = (shape.radius * shape.scale_T)[:, None]
        if (shape.centre_T2 < reach_T1).any() or (shape.centre_T2 > size - reach_T1).any():
            return False
    if any(overlap(a, b) > CROWDED for a, b in itertools.combinations(there, 2)):
        return False
    areas_2T = np.stack([shape.scale_T**2 for shape in scene.shapes[:2]])
    shares_2 = (areas_2T / areas_2T.sum(axis=0)).mean(axis=1)
    return all(shares_2[n] <= LARGEST_SHARE for n in meant)


def write_pairs(root: Path, count: int, seed: int = 0, frames: int = FRAMES) -> None:
    """Write `count` pairs of each kind as split "counterfactual" in MeViS's layout.

    The clips of pair 3 of "swapped" are videos "swapped_0003_a" and "swapped_0003_b". A split that
    is there already is left as it is.
    """
    folder = root / SPLIT
    if (folder / "meta_expressions.json").exists():
        return
    meta: dict[str, dict] = {}
    masks: dict[str, list] = {}
    for kind in CHANCE:
        for number, pair in enumerate(find_pairs(kind, count, seed, frames)):
            for letter, clip in zip("ab", pair, strict=True):
                video_id = f"{kind}_{number:04d}_{letter}"
                frames_THW3, masks_NTHW = render_frames(clip.scene)
                targets = [] if clip.target is None else [clip.target]
                expression = {
                    "exp": clip.text,
                    "tags": ["motion", "look-alike" if targets else "no-target"],
                    "pair": f"{kind}/{number}",
                    **object_fields(targets, len(masks)),
                }
                names = write_frames(folder / "JPEGImages" / video_id, frames_THW3)
                meta[video_id] = {"expressions": {"0": expression}, "frames": names}
                add_masks(masks, masks_NTHW)
    write_json(folder / "mask_dict.json", masks)
    write_json(folder / "meta_expressions.json", {"videos": meta})
