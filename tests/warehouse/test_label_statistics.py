"""What queries say of pseudo-labels where expressions have no target and videos no tracks.

v1 has 3 tracks. Its expression 0 means one object, 1 two, 2 nothing; 3 is not labelled. v2 has no
tracks, an expression with a target and one without. Set "none" has no tracks of v1 either. v3 has
tracks, but was not labelled yet.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from warehouse import TABLES, Key, Warehouse
from warehouse.commits import STAGES, Input

V1, V2, V3 = (Key("mevis", "train", name, track_set="grid") for name in ("v1", "v2", "v3"))
NONE = V1.of(track_set="none")
OBJECTS = {
    V1: {"0": ["a"], "1": ["a", "b"], "2": [], "3": None},
    V2: {"0": ["a"], "1": []},
    V3: {"0": ["a"]},
}
MIOUS = {"0": (0.9, 0.25, 0.7), "1": (0.3, 0.2, 0.1), "2": (0, 0, 0), "3": (0, 0, 0)}


def rows(table: str, key: Key, records: list[dict[str, Any]]) -> pa.Table:
    """Rows of `table` under `key`; columns not given are 0, empty or null."""
    zeros = {
        field.name: []
        if pa.types.is_list(field.type)
        else pa.array(["0"]).cast(field.type)[0].as_py()
        for field in TABLES[table]
        if not field.nullable
    }
    named = {n: getattr(key, n, zeros[n]) for n in zeros}
    return pa.Table.from_pylist([named | r for r in records], schema=TABLES[table])


def publish(store: Warehouse, stage: str, key: Key, tables: dict[str, list[dict]], **given) -> None:
    made = {name: rows(name, key, tables.get(name, [])) for name in STAGES[stage]}
    store.publish(stage, key, "a", made, **given)


def publish_video(store: Warehouse, key: Key) -> None:
    expressions = [
        {"expression_id": name, "object_ids": ids, "text": f"text {name}"}
        for name, ids in OBJECTS[key].items()
    ]
    video = {"videos": [{"frame_count": 4}], "expressions": expressions}
    publish(store, "ingest", key.of(track_set=""), video)


def publish_tracks(store: Warehouse, key: Key, count: int) -> None:
    """Tracks that are visible in one frame, all with the same token."""
    tracks = [{"track_id": n, "visible_frames": 1} for n in range(count)]
    masks = [{"track_id": n, "area": 5} for n in range(count)]
    tokens = [{"track_id": n, "token": [1.0, 0.0]} for n in range(count)]
    publish(store, "precompute", key, {"tracks": tracks, "masks": masks, "tokens": tokens})


def publish_labels(store: Warehouse, key: Key, mious: dict[str, tuple], **given) -> None:
    labels = [
        {"expression_id": name, "track_id": n, "miou": miou, "label": miou > 0.7}
        for name, of_tracks in mious.items()
        for n, miou in enumerate(of_tracks)
    ]
    publish(store, "label", key, {"pseudo_labels": labels}, **given)


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    store = Warehouse.create(tmp_path / "w")
    for key in OBJECTS:
        publish_video(store, key)
    for key, count in ((V1, 3), (V2, 0), (V3, 1), (NONE, 0)):
        publish_tracks(store, key, count)
    for key, mious in ((V1, MIOUS), (V2, {}), (NONE, {})):
        publish_labels(store, key, mious)
    return store


def asked(store: Warehouse, sql: str) -> list[dict[str, Any]]:
    with store.connect(read_only=True) as connection:
        return connection.sql(sql).to_arrow_table().to_pylist()


def statistics(store: Warehouse) -> dict[str, dict[str, Any]]:
    """By track set."""
    return {row["track_set"]: row for row in asked(store, "FROM pseudo_label_statistics")}


def test_statistics(store: Warehouse) -> None:
    found = statistics(store)
    assert found["grid"] == {
        "dataset": "mevis",
        "split": "train",
        "track_set": "grid",
        "videos": 2,
        "expressions": 5,
        "tracks": 3,
        "labels": 9,
        "positives": 1,
        "positive_rate": pytest.approx(1 / 9),
        "expressions_without_target": 2,
        "expressions_without_positive": 2,
        "share_without_positive": pytest.approx(2 / 3),
        "mean_best_miou": pytest.approx((0.9 + 0.3 + 0) / 3),
    }
    without_tracks = {
        "videos": 1,
        "expressions": 3,
        "tracks": 0,
        "labels": 0,
        "positives": 0,
        "positive_rate": None,
        "expressions_without_target": 1,
        "expressions_without_positive": 2,
        "share_without_positive": 1.0,
        "mean_best_miou": 0.0,
    }
    assert without_tracks.items() <= found["none"].items()


def test_statistics_of_what_is_there(store: Warehouse) -> None:
    """A failure after it hides no label; what was taken out or is stale does not count."""
    before = statistics(store)
    store.publish_failure("label", V1, "b", "no space left")
    assert statistics(store) == before
    (withdrawn,) = store.current("label", [V2]).values()
    store.withdraw(withdrawn)
    assert statistics(store)["grid"]["expressions"] == 3
    replaced = Input(
        stage="ingest", key=V2.of(track_set=""), fingerprint="b", contents={"expressions": "b"}
    )
    publish_labels(store, V2, {}, inputs=(replaced,))
    assert statistics(store)["grid"]["expressions"] == 3


def test_positives_per_expression(store: Warehouse) -> None:
    columns = "video_id, track_set, expression_id, targets, tracks, positives, best_miou"
    found = asked(store, f"SELECT {columns} FROM positives_per_expression")
    by_name = {(r["video_id"], r["track_set"], r["expression_id"]): r for r in found}
    assert len(found) == len(by_name) == 8
    assert found[-1] == by_name["v1", "grid", "0"], "most positives last"
    counts = {name: tuple(row.values())[3:] for name, row in by_name.items()}
    assert counts == {
        ("v1", "grid", "0"): (1, 3, 1, pytest.approx(0.9)),
        ("v1", "grid", "1"): (2, 3, 0, pytest.approx(0.3)),
        ("v1", "grid", "2"): (0, 3, 0, None),
        ("v1", "none", "0"): (1, 0, 0, 0.0),
        ("v1", "none", "1"): (2, 0, 0, 0.0),
        ("v1", "none", "2"): (0, 0, 0, None),
        ("v2", "grid", "0"): (1, 0, 0, 0.0),
        ("v2", "grid", "1"): (0, 0, 0, None),
    }


def test_nothing_overlaps_an_expression_without_target(store: Warehouse) -> None:
    labels = asked(store, "SELECT sum(labels)::INTEGER AS labels FROM iou_histogram")
    assert labels == [{"labels": 6}]
    compared = asked(store, "SELECT DISTINCT expression_id FROM token_similarities ORDER BY ALL")
    assert [row["expression_id"] for row in compared] == ["0", "1"]


def test_videos_without_tracks_of_a_set(store: Warehouse) -> None:
    found = asked(store, "SELECT video_id, track_set, tracks FROM tracks_per_video")
    assert [tuple(row.values()) for row in found] == [
        ("v1", "grid", 3),
        ("v3", "grid", 1),
        ("v1", "none", 0),
        ("v2", "grid", 0),
    ]
