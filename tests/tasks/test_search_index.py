"""The index of search vectors: made once, right about its rows, of the current commits alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sola_model.selector.search import ReferenceQuery
from tasks.search import index as module
from tasks.search.index import SearchIndex, search_index
from tasks.tables import rows
from warehouse import Key, Warehouse

QUERY = ReferenceQuery(torch.tensor([1.0, -2.0, 0.5]))
TRACKS = {"a": [0, 3], "b": [], "c": [1], "d": [0, 1, 2, 5]}


def publish(store: Warehouse, video: str, tracks: list[int], run: str = "run", seed: int = 0):
    key = Key("demo", "valid_u", video, run, track_set="grid")
    vectors = np.random.default_rng([seed, ord(video)]).normal(size=(len(tracks), 3))
    columns = {"track_id": tracks, "vector": list(vectors.astype(np.float16))}
    store.publish(
        "search", key, f"{seed}", {"search_vectors": rows("search_vectors", key, columns)}
    )


def index_of(store: Warehouse, run: str = "run") -> SearchIndex:
    return search_index(store, run, list(store.current("search", run_id=run).values()))


def files(store: Warehouse, run: str = "run") -> dict[Path, int]:
    """What lies in the folder of a run's index, with the times of writing."""
    folder = store.root / "cache" / "search" / run
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def expected_rows(store: Warehouse) -> list[tuple[str, int, float]]:
    """(video, track, logit) of the vectors in the warehouse, by SQL and by hand."""
    sql = "SELECT video_id, track_id, vector FROM search_vectors ORDER BY ALL"
    return [
        (video, track, float(np.dot(np.float32(vector), QUERY.weights_K.numpy())))
        for video, track, vector in store.connect().sql(sql).fetchall()
    ]


def found_rows(index: SearchIndex) -> list[tuple[str, int, float]]:
    videos = [index.keys[v].video_id for v in index.video_N]
    tracks, logits = index.track_N.tolist(), index.logits(QUERY).tolist()
    return sorted(zip(videos, tracks, logits, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    store = Warehouse.create(tmp_path / "w")
    for video, tracks in TRACKS.items():
        publish(store, video, tracks)
    return store


def same(found: list[tuple[str, int, float]], expected: list[tuple[str, int, float]]) -> bool:
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    return [row[2] for row in found] == pytest.approx([row[2] for row in expected], abs=1e-5)


def test_it_has_every_track_and_is_made_once(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(store)
    assert [key.video_id for key in index.keys] == list(TRACKS)
    assert same(found_rows(index), expected_rows(store))
    before = files(store)
    assert {path.suffix for path in before} == {".f16", ".npz"} and len(before) == 2
    commits = list(store.current("search", run_id="run").values())
    monkeypatch.setattr(Warehouse, "read", lambda *_: pytest.fail("it is there"))
    assert found_rows(search_index(store, "run", commits)) == found_rows(index)
    assert files(store) == before


def test_large_indexes_are_read_and_multiplied_in_parts(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMITS", 2)
    monkeypatch.setattr(module, "ROWS", 3)
    index = index_of(store)
    assert len(index.vectors_NK) > module.ROWS
    assert same(found_rows(index), expected_rows(store))


def test_changed_commits_make_it_anew_and_remove_the_former(store: Warehouse) -> None:
    publish(store, "a", [0], run="other")
    index_of(store, "other")
    index_of(store)
    before, of_the_other = files(store), files(store, "other")
    publish(store, "c", [4, 6], seed=1)
    index = index_of(store)
    assert [row[:2] for row in found_rows(index) if row[0] == "c"] == [("c", 4), ("c", 6)]
    assert len(files(store)) == 2 and not before.keys() & files(store).keys()
    assert files(store, "other") == of_the_other


def test_who_has_it_open_keeps_it(store: Warehouse) -> None:
    index = index_of(store)
    before = found_rows(index)
    publish(store, "c", [4, 6], seed=1)
    index_of(store)
    assert found_rows(index) == before


@pytest.mark.parametrize("suffix", [".f16", ".npz"])
def test_a_file_that_is_gone_is_made_again(store: Warehouse, suffix: str) -> None:
    before = found_rows(index_of(store))
    (path,) = (path for path in files(store) if path.suffix == suffix)
    path.unlink()
    assert found_rows(index_of(store)) == before
    assert path.exists()


def test_vectors_may_have_no_channel(tmp_path: Path) -> None:
    """As those of the paper's selector where there is no expression to refer to."""
    store = Warehouse.create(tmp_path / "w")
    key = Key("demo", "valid_u", "a", "run", track_set="grid")
    table = rows("search_vectors", key, {"track_id": [2, 5], "vector": [[], []]})
    store.publish("search", key, "f", {"search_vectors": table})
    index = index_of(store)
    assert index.vectors_NK.shape == (2, 0) and index.track_N.tolist() == [2, 5]


def test_without_tracks_it_is_empty(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path / "w")
    assert found_rows(search_index(store, "run", [])) == []
    publish(store, "b", [])
    index = index_of(store)
    assert found_rows(index) == [] and [key.video_id for key in index.keys] == ["b"]
