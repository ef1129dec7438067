"""The share of right results: the tracks are the objects themselves, the results made up here."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from sola_model.metrics.jf import empty_rle
from tasks.experiments import search_precision as module
from tasks.experiments.search_precision import Phrase, Precision, search_precision
from tasks.search.track_search import Found, Hit
from tasks.stages.ingest import ingest_split
from tasks.tables import read_objects, rows
from warehouse import TABLES, Commit, Key, Warehouse
from warehouse.demo_data import Scene, clip_of, write_dataset
from warehouse.demo_data.scene import HEIGHT, WIDTH
from warehouse.masks import mask_columns

SPLIT, SEED, FRAMES, CLIPS = "valid_u", 5, 6, 3
TRACKS = "shapes"
SCENES: dict[str, Scene] = dict(clip_of(SPLIT, index, SEED, FRAMES)[:2] for index in range(CLIPS))
PLACES = [(video, o) for video, scene in SCENES.items() for o in range(len(scene.shapes))]
NOWHERE = Phrase("a mauve rhombus", "mauve", "rhombus", "moves", "left")
Place = tuple[str, int]
"""(video id, shape of its scene)"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The tracks of each video are its shapes, the last one first, and one without a pixel."""
    folder = tmp_path_factory.mktemp("precision")
    write_dataset(folder / "data", {SPLIT: CLIPS}, seed=SEED, frames=FRAMES)
    store = Warehouse.create(folder / "w")
    ingest_split(store.url, "demo", str(folder / "data"), SPLIT)
    for commit in store.current("ingest").values():
        publish_tracks(store, commit)
    return store


def publish_tracks(store: Warehouse, ingested: Commit) -> None:
    objects = read_objects(store, ingested)
    tracks = [objects[name] for name in sorted(objects, key=int, reverse=True)]
    tracks.append([empty_rle(HEIGHT, WIDTH)] * FRAMES)
    columns = {
        "track_id": np.repeat(np.arange(len(tracks)), FRAMES),
        "frame_index": np.tile(np.arange(FRAMES), len(tracks)),
    }
    columns |= mask_columns([rle for masks in tracks for rle in masks])
    tables = {name: TABLES[name].empty_table() for name in ("prompts", "tracks", "tokens")}
    key = ingested.key.of(track_set=TRACKS)
    tables["masks"] = rows("masks", key, columns)
    store.publish("precompute", key, "f", tables)


def phrase_of(place: Place) -> Phrase:
    """What looks and moves like this shape."""
    shape = SCENES[place[0]].shapes[place[1]]
    direction = shape.direction if shape.motion == "moves" else None
    return Phrase(f"like {place}", shape.colour, shape.kind, shape.motion, direction)


def alike(place: Place) -> list[Place]:
    return [other for other in PLACES if phrase_of(other)[1:] == phrase_of(place)[1:]]


def hit(place: Place | None, probability: float | None = None) -> Hit:
    """The track of a shape, or one without a pixel."""
    video, shape = place or (PLACES[0][0], -1)
    return Hit(
        dataset="demo",
        split=SPLIT,
        video_id=video,
        track_set=TRACKS,
        track_id=len(SCENES[video].shapes) - 1 - shape,
        score=0.5,
        probability=probability,
        visible_frames=FRAMES,
        frame_count=FRAMES,
    )


class _Plan(NamedTuple):
    """What is taken of a search's plan."""

    store: Warehouse
    wanted: dict[Key, str]


def measured(
    store: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    hits: dict[str, Sequence[Hit]],
    *phrases: Phrase,
) -> list[Precision]:
    """The precision of a search that finds these, by text."""

    def found(plan: _Plan, text: str, top: int, _: int) -> Found:
        return Found(
            text=text,
            run_id="run",
            tracks=0,
            videos=len(plan.wanted),
            scored=0,
            hits=tuple(hits[text][:top]),
        )

    monkeypatch.setattr(module, "search", found)
    keys = [key.of(run_id="run") for key in store.current("precompute")]
    plan: Any = _Plan(store, dict.fromkeys(keys, "f"))
    return search_precision(plan, SCENES, phrases)


def test_of_as_many_results_as_there_are_objects_those_on_an_object_are_right(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = max(PLACES, key=lambda place: len(alike(place)))
    true, other = alike(place), next(p for p in PLACES if p not in alike(place))
    phrase = phrase_of(place)
    best_first = [*map(hit, true), hit(other)]
    for hits, right in (
        (best_first, len(true)),
        ([hit(other), *best_first], len(true) - 1),
        ([hit(None), *best_first], len(true) - 1),
        ([hit(other)] * len(true), 0),
    ):
        (found,) = measured(store, monkeypatch, {phrase.text: hits}, phrase)
        assert (found.phrase, found.results, found.right) == (phrase, len(true), right)
        assert (found.sure, found.sure_right) == (0, 0)  # without probabilities


def test_at_most_the_first_results_count(store: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST", 1)
    found = measured(
        store, monkeypatch, {phrase_of(p).text: [hit(p), hit(None)] for p in PLACES},
        *map(phrase_of, PLACES),
    )  # fmt: skip
    assert [(each.results, each.right) for each in found] == [(1, 1)] * len(PLACES)


def test_sure_results_are_counted_among_the_first_ten(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, other = PLACES[0], next(p for p in PLACES if p not in alike(PLACES[0]))
    phrase = phrase_of(place)
    hits = [hit(other, 0.99), hit(place, 0.95), hit(place, 0.94)] + [hit(None, 0.2)] * 7
    (found,) = measured(store, monkeypatch, {phrase.text: [*hits, hit(place, 0.99)]}, phrase)
    assert (found.sure, found.sure_right) == (2, 1)


def test_what_is_nowhere_has_no_precision(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(store, monkeypatch, {}, NOWHERE) == []
