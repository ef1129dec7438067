"""Every named query on a small warehouse whose answers are worked out by hand.

Two videos of mevis/train. v1 has 3 tracks and 4 frames, v2 one track and 2 frames. Expressions
v1/0 and v1/1 have targets, v2/0 is matched by no track.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.queries import VIEWS, load_query, named_queries, views

V1 = Key("mevis", "train", "v1")
V2 = Key("mevis", "train", "v2")
GRID = {"track_set": "grid"}  # of all tracks here
EAST, NORTH, NORTH_EAST = [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]

# track -> (object token, masks area) per frame; nothing is compared where an area is 0
TRACKS = {
    V1: {
        0: [(EAST, 9), (EAST, 9), (EAST, 0), (EAST, 9)],
        1: [(EAST, 4), (NORTH, 4), (NORTH, 4), (NORTH, 0)],
        2: [(NORTH_EAST, 2)] * 4,
    },
    V2: {0: [(EAST, 5), (NORTH, 5)]},
}
# expression -> track -> mIoU; positive above 0.7
MIOUS = {
    V1: {"0": {0: 0.9, 1: 0.25, 2: 0.7}, "1": {0: 1.0, 1: 0.3, 2: 0.75}},
    V2: {"0": {0: 0.05}},
}
FATES = {
    V1: [("grid", "tracked"), ("grid", "filtered"), ("grid", "filtered"), ("box", "tracked")],
    V2: [("grid", "tracked"), ("grid", "unused")],
}
TAGS = {V1: {"0": ["motion", "short"], "1": ["motion"]}, V2: {"0": []}}
SCORES = {V1: {"0": (0.5, 0.75), "1": (0.25, 0.25)}, V2: {"0": (0.0, 0.5)}}  # J&F, oracle J&F


def rows(table: str, key: Key, records: list[dict[str, Any]]) -> pa.Table:
    """Rows of `table` under `key`; columns not given are 0 or empty."""
    zeros = {
        field.name: []
        if pa.types.is_list(field.type)
        else pa.array(["0"]).cast(field.type)[0].as_py()
        for field in TABLES[table]
        if not field.nullable
    }
    names = {"dataset": key.dataset, "split": key.split, "video_id": key.video_id}
    names |= {"track_set": "grid"} if "track_set" in TABLES[table].names else {}
    return pa.Table.from_pylist([zeros | names | r for r in records], schema=TABLES[table])


def publish_video(warehouse: Warehouse, key: Key) -> None:
    tracks, mious = TRACKS[key], MIOUS[key]
    moments = [
        {"track_id": track, "frame_index": frame, "token": token, "area": area}
        for track, frames in tracks.items()
        for frame, (token, area) in enumerate(frames)
    ]
    plain = [{name: m[name] for name in m if name != "token"} for m in moments]
    tokens = [{name: m[name] for name in m if name != "area"} for m in moments]
    expressions = [
        {"expression_id": name, "text": f"text {name}", "object_ids": ["1"], "tags": tags}
        for name, tags in TAGS[key].items()
    ]
    prompts = [
        {"source": source, "fate": fate, "iou": 0.8 if fate == "filtered" else None}
        for source, fate in FATES[key]
    ]
    track_rows = [
        {"track_id": track, "visible_frames": sum(area > 0 for _, area in frames)}
        for track, frames in tracks.items()
    ]
    label_rows = [
        {"expression_id": name, "track_id": track, "miou": miou, "label": miou > 0.7}
        for name, by_track in mious.items()
        for track, miou in by_track.items()
    ]
    score_rows = [
        {
            "run_id": "run",
            "expression_id": name,
            "j": jf,
            "f": jf,
            "jf": jf,
            "oracle_jf": oracle,
            "all_tracks_jf": 0.125,
            "largest_track_jf": 0.0,
            "random_track_jf": 0.0,
        }
        for name, (jf, oracle) in SCORES[key].items()
    ]
    stages = {
        "ingest": {
            "videos": [{"frame_count": len(tracks[0])}],
            "expressions": expressions,
            "ground_truth": [],
        },
        "precompute": {"prompts": prompts, "tracks": track_rows, "masks": plain, "tokens": tokens},
        "label": {"pseudo_labels": label_rows},
        "evaluate": {"predictions": [], "scores": score_rows, "threshold_scores": []},
    }
    for stage, tables in stages.items():
        published = {name: rows(name, key, records) for name, records in tables.items()}
        of_tracks = key if stage == "ingest" else key.of(track_set="grid")
        warehouse.publish(stage, of_tracks, "a", published)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    warehouse = Warehouse.create(tmp_path_factory.mktemp("warehouse"))
    for key in (V1, V2):
        publish_video(warehouse, key)
    warehouse.publish_failure(
        "precompute", Key("mevis", "train", "v3", track_set="grid"), "a", "unreadable"
    )
    with warehouse.connect() as connection:
        yield connection


def answer(connection: duckdb.DuckDBPyConnection, name: str) -> list[dict[str, Any]]:
    """The rows of a named query, without the columns dataset and split, floats to 6 digits."""
    records = connection.sql(load_query(name)).to_arrow_table().to_pylist()
    for record in records:
        assert (record.pop("dataset", "mevis"), record.pop("split", "train")) == ("mevis", "train")
    return [
        {k: round(v, 6) if isinstance(v, float) else v for k, v in record.items()}
        for record in records
    ]


def test_positives_per_expression(connection: duckdb.DuckDBPyConnection) -> None:
    columns = ("video_id", "expression_id", "text", "tracks", "positives", "best_miou")
    found = [
        tuple(row[c] for c in columns) for row in answer(connection, "positives_per_expression")
    ]
    assert found == [
        ("v2", "0", "text 0", 1, 0, 0.05),
        ("v1", "0", "text 0", 3, 1, 0.9),
        ("v1", "1", "text 1", 3, 2, 1.0),
    ]


def test_iou_histogram(connection: duckdb.DuckDBPyConnection) -> None:
    found = {
        row["miou_from"]: (row["labels"], row["positives"])
        for row in answer(connection, "iou_histogram")
    }
    assert found == {0.0: (1, 0), 0.2: (1, 0), 0.3: (1, 0), 0.7: (2, 1), 0.9: (2, 2)}


def test_tracks_per_video(connection: duckdb.DuckDBPyConnection) -> None:
    share = round(2.5 / 3, 6)
    assert answer(connection, "tracks_per_video") == [
        GRID | {"video_id": "v1", "frames": 4, "tracks": 3, "mean_visible_share": share},
        GRID | {"video_id": "v2", "frames": 2, "tracks": 1, "mean_visible_share": 1.0},
    ]


def test_token_similarity_by_iou(connection: duckdb.DuckDBPyConnection) -> None:
    """Track 0 is the best of both expressions; v2 has no other track to compare.

    Track 1 meets it in frames 0 and 1 (1 and 0: mean 0.5), track 2 in frames 0, 1 and 3
    (always cos 45 degrees).
    """
    diagonal = round(math.sqrt(0.5), 6)
    found = answer(connection, "token_similarity_by_iou")
    assert found == [
        GRID | {"miou_from": 0.2, "pairs": 1, "mean_similarity": 0.5, "std_similarity": 0.0},
        GRID | {"miou_from": 0.3, "pairs": 1, "mean_similarity": 0.5, "std_similarity": 0.0},
        GRID | {"miou_from": 0.7, "pairs": 2, "mean_similarity": diagonal, "std_similarity": 0.0},
    ]


def test_pseudo_label_statistics(connection: duckdb.DuckDBPyConnection) -> None:
    assert answer(connection, "pseudo_label_statistics") == [
        {
            "track_set": "grid",
            "videos": 2,
            "expressions": 3,
            "tracks": 4,
            "labels": 7,
            "positives": 3,
            "positive_rate": round(3 / 7, 6),
            "expressions_without_target": 0,
            "expressions_without_positive": 1,
            "share_without_positive": round(1 / 3, 6),
            "mean_best_miou": round((0.9 + 1.0 + 0.05) / 3, 6),
        }
    ]


def test_worst_expressions(connection: duckdb.DuckDBPyConnection) -> None:
    columns = ("run_id", "video_id", "expression_id", "text", "jf", "oracle_jf")
    found = [tuple(row[c] for c in columns) for row in answer(connection, "worst_expressions")]
    assert found == [
        ("run", "v2", "0", "text 0", 0.0, 50.0),
        ("run", "v1", "1", "text 1", 25.0, 25.0),
        ("run", "v1", "0", "text 0", 50.0, 75.0),
    ]


def test_scores_summary(connection: duckdb.DuckDBPyConnection) -> None:
    assert answer(connection, "scores_summary") == [
        {
            "run_id": "run",
            "track_set": "grid",
            "trained_on": None,
            "zero_shot": None,
            "expressions": 3,
            "j": 25.0,
            "f": 25.0,
            "jf": 25.0,
            "oracle_jf": 50.0,
            "lost_in_tracks": 50.0,
            "lost_in_selection": 25.0,
            "all_tracks_jf": 12.5,
            "largest_track_jf": 0.0,
            "random_track_jf": 0.0,
            "n_acc": None,
            "t_acc": None,
            "challenge": None,
        }
    ]


def test_scores_by_tag(connection: duckdb.DuckDBPyConnection) -> None:
    found = {row["tag"]: row for row in answer(connection, "scores_by_tag")}
    assert list(found) == ["motion", "short"]
    assert (found["motion"]["expressions"], found["short"]["expressions"]) == (2, 1)
    assert (found["motion"]["jf"], found["motion"]["oracle_jf"]) == (37.5, 50.0)
    assert (found["short"]["jf"], found["short"]["oracle_jf"]) == (50.0, 75.0)
    assert found["motion"]["all_tracks_jf"] == 12.5


def test_prompt_fates(connection: duckdb.DuckDBPyConnection) -> None:
    assert [tuple(row.values()) for row in answer(connection, "prompt_fates")] == [
        ("grid", "box", "tracked", 1, None),
        ("grid", "grid", "filtered", 2, 0.8),
        ("grid", "grid", "tracked", 2, None),
        ("grid", "grid", "unused", 1, None),
    ]


def test_status(connection: duckdb.DuckDBPyConnection) -> None:
    assert [tuple(row.values()) for row in answer(connection, "status")] == [
        ("evaluate", "grid", 2, 0, 0),
        ("ingest", "", 2, 0, 0),
        ("label", "grid", 2, 0, 0),
        ("precompute", "grid", 2, 0, 1),
    ]


def test_token_similarity_spread_and_worst_ten(tmp_path: Path) -> None:
    """The spread within a bucket, and only ten of twelve expressions, per run."""
    warehouse = Warehouse.create(tmp_path)
    tokens = {0: EAST, 1: EAST, 2: NORTH}
    moments = [{"track_id": track, "frame_index": 0} for track in tokens]
    tables = {
        "prompts": [],
        "tracks": [],
        "masks": [m | {"area": 1} for m in moments],
        "tokens": [m | {"token": tokens[m["track_id"]]} for m in moments],
    }
    warehouse.publish("precompute", V1, "a", {n: rows(n, V1, r) for n, r in tables.items()})
    labels = [
        {"expression_id": "0", "track_id": t, "miou": 0.9 if t == 0 else 0.45} for t in tokens
    ]
    warehouse.publish("label", V1, "a", {"pseudo_labels": rows("pseudo_labels", V1, labels)})
    names = [f"{index:02}" for index in range(12)]
    ingest = {
        "videos": [],
        "expressions": [{"expression_id": name} for name in names],
        "ground_truth": [],
    }
    warehouse.publish("ingest", V1, "a", {n: rows(n, V1, r) for n, r in ingest.items()})
    for run in ("one", "two"):
        key = Key("mevis", "train", "v1", run)
        scores = [
            {"run_id": run, "expression_id": name, "jf": 1 - index / 12}
            for index, name in enumerate(names)
        ]
        published = {"predictions": [], "scores": scores, "threshold_scores": []}
        warehouse.publish("evaluate", key, "a", {n: rows(n, V1, r) for n, r in published.items()})
    with warehouse.connect() as connection:
        assert answer(connection, "token_similarity_by_iou") == [
            GRID | {"miou_from": 0.4, "pairs": 2, "mean_similarity": 0.5, "std_similarity": 0.5}
        ]
        worst = answer(connection, "worst_expressions")
        assert [row["expression_id"] for row in worst if row["run_id"] == "one"] == names[:1:-1]
        assert len(worst) == 20


@pytest.mark.parametrize("name", named_queries())
def test_every_named_query_is_a_view(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Of the same rows in the same order, and of no table's name."""
    assert name not in TABLES and name not in VIEWS
    whole = connection.sql(load_query(name))
    assert connection.sql(f"SELECT * FROM {name}").columns == whole.columns
    assert connection.sql(f"SELECT * FROM {name}").fetchall() == whole.fetchall()


@pytest.mark.parametrize("name", named_queries())
def test_every_query_runs_on_an_empty_warehouse(tmp_path: Path, name: str) -> None:
    with Warehouse.create(tmp_path).connect() as connection:
        assert connection.sql(load_query(name)).fetchall() == []


def test_named_queries_are_described() -> None:
    queries = named_queries()
    assert queries["status"].startswith("Units of work of each stage")
    for name, description in queries.items():
        assert load_query(name).startswith(f"-- {description}\n")
    with pytest.raises(
        WarehouseError, match=r"Unknown query 'stats'. Queries are: .*scores_by_tag"
    ):
        load_query("stats")


def test_views_are_described() -> None:
    assert views().keys() == set(VIEWS)
    assert all(text.startswith("One row per ") and text.endswith(".") for text in views().values())
