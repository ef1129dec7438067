"""Videos and track sets that are taken out of a warehouse."""

from pathlib import Path

import pytest

from tasks.removal import remove
from tests.warehouse.samples import stage_tables
from warehouse import Commit, Key, Warehouse, WarehouseError

SPLIT = ("mevis", "train")


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    """Videos a and b with two track sets, and c, which could not be read."""
    store = Warehouse.create(tmp_path / "w")
    for video in "ab":
        key = Key(*SPLIT, video)
        store.publish("ingest", key, "f", stage_tables("ingest", key))
        for name in ("one", "two"):
            tracked = key.of(track_set=name)
            store.publish("precompute", tracked, "f", stage_tables("precompute", tracked))
    store.publish_failure("ingest", Key(*SPLIT, "c"), "f", "no frames")
    split = Key(*SPLIT)
    store.publish("default_tracks", split, "f", stage_tables("default_tracks", split))
    return store


def there(store: Warehouse) -> set[tuple[str, str]]:
    rows = store.connect().sql("SELECT video_id, track_set FROM masks").fetchall()
    return set(rows)


def test_a_video_goes_with_what_was_made_of_it(store: Warehouse) -> None:
    assert remove(store, *SPLIT, ["a"], None) == 3
    assert there(store) == {("b", "one"), ("b", "two")}
    assert [key.video_id for key in store.current("ingest")] == ["b"]


def test_a_track_set_goes_alone(store: Warehouse) -> None:
    assert remove(store, *SPLIT, [], "one") == 2
    assert there(store) == {("a", "two"), ("b", "two")}
    assert len(store.current("ingest")) == 2
    assert remove(store, *SPLIT, ["a"], "two") == 1
    assert there(store) == {("b", "two")}


def test_a_video_that_only_failed_can_go(store: Warehouse) -> None:
    """Else a split from which it was withdrawn would have a failure for ever."""
    assert remove(store, *SPLIT, ["c"], None) == 1
    assert not store.failures("ingest")


def test_what_is_made_of_them_meanwhile_goes_too(
    store: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that had read the video before it was removed publishes in the middle of it."""
    late = [Key(*SPLIT, "a", track_set=name) for name in ("three", "one")]
    withdraw = store.withdraw

    def withdraw_slowly(commit: Commit) -> None:
        withdraw(commit)
        if late:
            key = late.pop()
            store.publish("label", key, "f", stage_tables("label", key))

    monkeypatch.setattr(store, "withdraw", withdraw_slowly)
    assert remove(store, *SPLIT, ["a"], None) == 5
    assert not late
    assert store.current("label") == {}
    assert there(store) == {("b", "one"), ("b", "two")}


@pytest.mark.parametrize(
    ("videos", "tracks", "message"),
    [
        ([], None, "name the videos to remove, or a track set"),
        ([""], None, "is empty; nothing was removed"),
        (["a"], "", "is empty; nothing was removed"),
        ([], "", "is empty; nothing was removed"),
        (["a", "x"], None, "has no x; nothing was removed.*sola tracks"),
        ([], "three", "has no three"),
        (["c"], "one", "has no c"),
    ],
)
def test_what_is_not_there_is_named(
    store: Warehouse, videos: list[str], tracks: str | None, message: str
) -> None:
    with pytest.raises(WarehouseError, match=message):
        remove(store, *SPLIT, videos, tracks)
    assert len(there(store)) == 4
    assert len(store.current("default_tracks")) == 1
