"""What the commits of a warehouse of format 2 may have been made with.

Such a commit has digests of the settings and weights, not these themselves: of what may have been
used, the one with this digest was. Runs have their whole recipe, recipes have names, and what else
there is a user knows.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

from sola_model.detection.names import detector_identity
from sola_model.extraction.checkpoints import checkpoint_identity, is_local
from sola_model.recipe_sections import BoxPrompts, DetectorSettings, Extraction, GridPrompts
from sola_model.recipes import (
    DEMO_RELEASE,
    PAPER,
    RECIPES,
    RELEASE,
    Recipe,
    override,
    recipe_by_name,
    recipe_from,
)
from sola_model.settings import from_dict
from tasks.stage import plain
from warehouse import WarehouseError
from warehouse.format_2 import digest

T = TypeVar("T")

EXTRACTION = {
    "grid": (
        "stride",
        "points_per_side",
        "predicted_iou",
        "stability",
        "box_nms",
        "part_overlap",
    ),
    "boxes": ("stability", "max_tracks", "shared"),
    "ground_truth": (),
    "duplicate_iou": (),
    "max_tracks": (),
    "batch": (),
    "merged": (),
}
DETECTION = ("box_threshold", "text_threshold", "short_side", "long_side")
"""The settings of format 2, all of which its fingerprints have; what came later has its default."""

_RELEASE = Extraction(
    grid=GridPrompts(
        stride=4,
        points_per_side=32,
        predicted_iou=0.8,
        stability=0.95,
        box_nms=0.7,
        part_overlap=0.7,
    ),
    boxes=BoxPrompts(stability=0.85, max_tracks=16, shared=False),
    duplicate_iou=0.7,
    max_tracks=64,
    batch=4,
    merged=False,
)
_FAST = replace(_RELEASE, merged=True)
_SHARED = replace(_FAST, boxes=replace(_RELEASE.boxes, shared=True))
_DEMO = replace(
    _SHARED,
    grid=replace(_RELEASE.grid, points_per_side=10, predicted_iou=0.75, stability=0.85),
    max_tracks=16,
)
_DEMO_0_3 = replace(_DEMO, grid=replace(_DEMO.grid, predicted_iou=0.7, stability=0.7))
WRITTEN = (
    *(replace(RELEASE, extraction=made) for made in (_RELEASE, _FAST, _SHARED)),
    replace(PAPER, extraction=_RELEASE),
    *(replace(DEMO_RELEASE, extraction=made) for made in (_DEMO, _DEMO_0_3)),
)
"""The named recipes of the versions that wrote format 2, as they extract and label."""


def extraction_in_format_2(extraction: Extraction) -> dict[str, Any]:
    """The settings as fingerprints of format 2 have them."""
    given = plain(extraction)
    return {
        name: {each: given[name][each] for each in inner} if inner else given[name]
        for name, inner in EXTRACTION.items()
    }


def grid_in_format_2(extraction: Extraction) -> dict[str, Any]:
    """Likewise what tracks of the grid and of ground truth depend on."""
    found = extraction_in_format_2(extraction)
    del found["boxes"]
    return found


def detection_in_format_2(settings: DetectorSettings) -> dict[str, Any]:
    """Likewise the settings of a detector."""
    return {name: getattr(settings, name) for name in DETECTION}


class Candidates:
    """Recipes and weights that may have been used, the likeliest first."""

    def __init__(self, recipes: Iterable[Recipe], checkpoints: Iterable[str]) -> None:
        """`checkpoints`: names and files of SAM2's, beside those of the recipes that are here.

        Raises:
            ValueError: a file is no checkpoint.
        """
        self.recipes = list(recipes)
        self._checkpoints = list(checkpoints)
        own = {recipe.sam2 for recipe in self.recipes}
        there = {name for name in own if is_local(name)}
        known = {name: checkpoint_identity(name) for name in (*sorted(there), *self._checkpoints)}
        self._weights = {digest(found): (name, found) for name, found in known.items()}

    def grid(self, named: str) -> Recipe | None:
        """The recipe whose settings of the grid's tracks have this digest."""
        return self._grids.get(named)

    def boxes(self, named: str) -> Recipe | None:
        """The recipe whose settings of tracks have this digest."""
        return self._extractions.get(named)

    def detection(self, named: str) -> Recipe | None:
        """The recipe whose settings of the detector have this digest."""
        return self._detections.get(named)

    def labels(self, threshold: str, empty_frames: str) -> Recipe | None:
        """A recipe whose settings of pseudo-labels have these digests."""
        one, other = self._thresholds.get(threshold), self._empty_frames.get(empty_frames)
        return one and other and replace(one, empty_frames=other.empty_frames)

    def weights(self, named: str) -> tuple[str, str] | None:
        """Name and sha256 of the SAM2 weights with this digest."""
        return self._weights.get(named)

    def detector(self, named: str) -> tuple[str, str] | None:
        """Name and identity of the detector with this digest."""
        return self._detectors.get(named)

    @cached_property
    def _grids(self) -> Mapping[str, Recipe]:
        return self._by(lambda recipe: grid_in_format_2(recipe.extraction))

    @cached_property
    def _extractions(self) -> Mapping[str, Recipe]:
        return self._by(lambda recipe: extraction_in_format_2(recipe.extraction))

    @cached_property
    def _detections(self) -> Mapping[str, Recipe]:
        return self._by(lambda recipe: detection_in_format_2(recipe.detection))

    @cached_property
    def _thresholds(self) -> Mapping[str, Recipe]:
        return self._by(lambda recipe: recipe.label_threshold)

    @cached_property
    def _empty_frames(self) -> Mapping[str, Recipe]:
        return self._by(lambda recipe: recipe.empty_frames)

    @cached_property
    def _detectors(self) -> Mapping[str, tuple[str, str]]:
        names = ["demo", *(recipe.detector for recipe in self.recipes if recipe.detector)]
        known = {name: detector_identity(name) for name in names}
        return {digest(identity): (name, identity) for name, identity in known.items()}

    def _by(self, part: Callable[[Recipe], Any]) -> Mapping[str, Recipe]:
        """Digest of a part of the settings -> the first recipe that has it."""
        return {digest(part(recipe)): recipe for recipe in reversed(self.recipes)}


def candidates_of(
    runs: Iterable[Mapping[str, Any]],
    splits: Iterable[str],
    name: str | None = None,
    changes: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
) -> Candidates:
    """What may have been used in a warehouse with these rows of `runs` and these splits.

    `name` and `changes` of a recipe, each change or none, and `checkpoints` are what a user says.

    Raises:
        ValueError: there is no such recipe or setting, or a file is no checkpoint.
    """
    given = [recipe_by_name(name)] if name else [*WRITTEN, *RECIPES.values()]
    told = [
        override(recipe, some)
        for recipe in (given if name or changes else [])
        for count in range(len(changes), -1, -1)
        for some in combinations(changes, count)
    ]
    trained = [recipe_from(json.loads(row["config"])) for row in runs]
    recipes = [*told, *trained, *WRITTEN]
    recipes += [override(recipe, some) for some in _in_names(splits) for recipe in recipes]
    with_truth = [
        replace(recipe, extraction=_written(recipe.extraction, truth))
        for recipe in recipes
        for truth in (False, True)
    ]
    return Candidates(with_truth, checkpoints)


def _written(extraction: Extraction, ground_truth: bool) -> Extraction:
    """The settings as a version that knew no others had them."""
    known = extraction_in_format_2(extraction) | {"ground_truth": ground_truth}
    made: Extraction = from_dict(known, Extraction)
    return made


def found(value: T | None, what: str, setting: str) -> T:
    """The value.

    Raises:
        WarehouseError: it is None; says which option of `sola upgrade` gives it.
    """
    if value is None:
        raise WarehouseError(
            f"{what} were made with settings that are not those of a run in the warehouse, nor of "
            "a recipe of this version. Nothing was changed. Say what they were: `sola upgrade "
            f"--recipe NAME --set {setting}=VALUE`."
        )
    return value


def _in_names(splits: Iterable[str]) -> list[list[str]]:
    """Settings that names of splits have, such as valid_u@points_per_side=5,stride=8."""
    names = {field.name for field in fields(GridPrompts)}
    found = []
    for split in dict.fromkeys(splits):
        given = [each.strip() for each in split.partition("@")[2].split(",")]
        if all(each.partition("=")[0] in names for each in given):
            found.append([f"extraction.grid.{each}" for each in given])
    return found
