"""How many of the first results of a search are right, where the generator knows the truth.

A result is right when its track covers an object that the phrase is true of, at a mean IoU of at
least `COVERED`. Whether a phrase is true can be open to argument ("standing still" of a shape that
spins in place); results of such objects count neither way. Axes: N mask tracks, O objects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from sola_model.metrics.jf import track_overlaps
from tasks.search.track_search import Hit, search
from tasks.stage import Plan
from tasks.tables import read_mask_tracks, read_objects
from warehouse import Key, Warehouse
from warehouse.demo_data import Scene, fits, holds

COVERED = 0.5
FIRST = 10
LOOKED_AT = 50  # results, of which some may be open to argument
SURE = 0.95


class Phrase(NamedTuple):
    """A sentence to search for, and what it says; None where it says nothing."""

    text: str
    colour: str | None
    kind: str | None
    motion: str
    direction: str | None = None


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Of the first `FIRST` results, or as many as there are true objects: how many, and the right.

    sure: how many of the first results have a probability of at least `SURE`; sure_right: of these.
    """

    phrase: Phrase
    results: int
    right: int
    sure: int
    sure_right: int


def search_precision(
    plan: Plan, scenes: Mapping[str, Scene], phrases: Sequence[Phrase]
) -> list[Precision]:
    """The precision of each phrase that is true of an object of the videos of a search's plan.

    `scenes`: all clips of the one split that is searched, in its order. The vectors are made
    already. Raises WarehouseError when there is no track at all.
    """
    wanted = plan.wanted
    counts = [len(scene.shapes) for scene in scenes.values()]
    first_object = dict(zip(scenes, accumulate(counts, initial=0), strict=False))
    covered = _covered_objects(plan.store, wanted, first_object)
    found = []
    for phrase in phrases:
        meant = {
            (video, o): holds(phrase.motion, phrase.direction, shape)
            for video, scene in scenes.items()
            for o, shape in enumerate(scene.shapes)
            if fits(shape, phrase.colour, phrase.kind)
        }
        true = {shape for shape, truth in meant.items() if truth}
        open_to_argument = {shape for shape, truth in meant.items() if truth is None}
        if not true:
            continue

        def shows(hit: Hit, shapes: set[tuple[str, int]]) -> bool:
            found = covered[hit.video_id].get(hit.track_id, ())
            return any((hit.video_id, o) in shapes for o in found)

        hits = search(plan, phrase.text, LOOKED_AT, len(wanted)).hits
        hits = tuple(hit for hit in hits if not shows(hit, open_to_argument))[:FIRST]
        first = hits[: len(true)]
        sure = [hit for hit in hits if (hit.probability or 0.0) >= SURE]
        found.append(
            Precision(
                phrase=phrase,
                results=len(first),
                right=sum(shows(hit, true) for hit in first),
                sure=len(sure),
                sure_right=sum(shows(hit, true) for hit in sure),
            )
        )
    return found


def _covered_objects(
    store: Warehouse, wanted: Mapping[Key, str], first_object: Mapping[str, int]
) -> dict[str, dict[int, list[int]]]:
    """video -> track -> the shapes that it covers. Annotations count the shapes of all clips."""
    keys = [key.of(run_id="") for key in wanted]
    ingested = store.current("ingest", [key.of(track_set="") for key in keys])
    precomputed = store.current("precompute", keys)
    covered: dict[str, dict[int, list[int]]] = {}
    for key in keys:
        objects = read_objects(store, ingested[key.of(track_set="")])
        tracks = read_mask_tracks(store, precomputed[key])
        covered[key.video_id] = {}
        if objects and tracks:
            miou_NO = track_overlaps(tracks, list(objects.values())).miou_NO
            places = [int(name) - first_object[key.video_id] for name in objects]
            covered[key.video_id] = {
                n: [o for o, iou in zip(places, row_O, strict=True) if iou >= COVERED]
                for n, row_O in enumerate(miou_NO)
            }
    return covered
