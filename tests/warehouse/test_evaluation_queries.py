"""Views and queries about scores, on a small warehouse whose answers are worked out by hand.

Video v1: 40 frames of 100 x 200 pixels, objects a (in frames 0 and 1), b and c (in frame 0). Its
last object is "void". Expression 0 means a, 1 means a and b, 2 nothing, 3 an object never seen.
Video v2: 130 frames, nothing annotated, one no-target expression.
"""

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from warehouse import TABLES, Key, Warehouse
from warehouse.queries import load_query

V1, V2 = Key("mevis-v2", "valid_u", "v1"), Key("mevis-v2", "valid_u", "v2")
EXPRESSIONS = {
    V1: {
        "0": (["a"], "The dog running away", ["motion"]),
        "1": (["a", "b", "a"], "both red dogs", ["look-alike"]),
        "2": ([], "the cat that flies", []),
        "3": (["x"], "the black bird on the left", []),
    },
    V2: {"0": ([], "nothing here", [])},
}
GROUND_TRUTH = {  # object -> area by frame
    V1: {"a": {0: 200, 1: 600}, "b": {0: 1000}, "c": {0: 5}, "void": {0: 9}},
    V2: {},
}
# run -> (J&F, oracle J&F, tracks selected, predicted empty), F is 0.1 above J
SCORES = {
    "mine": {
        V1: {"0": (0.5, 0.8, 1, False), "1": (0.7, 0.9, 2, False), "2": (1.0, 1.0, 0, True),
             "3": (0.0, 1.0, 1, True)},
        V2: {"0": (0.0, 1.0, 1, False)},
    },
    "tuned": {V1: {"0": (0.5, 0.8, 1, False)}, V2: {}},
    "brought": {V1: {"0": (0.5, 0.8, 1, False)}, V2: {}},
}  # fmt: skip
RUNS = {  # run -> trained on, parent
    "mine": ("ref-youtube-vos", None),
    "base": ("ref-davis17+mevis", None),
    "tuned": ("ref-youtube-vos", "base"),
    "brought": ("imported", None),
}


def rows(table: str, key: Key, records: list[dict[str, Any]]) -> pa.Table:
    """Rows of `table` under `key`; columns not given are 0 or empty."""
    zeros = {
        field.name: []
        if pa.types.is_list(field.type)
        else pa.array(["0"]).cast(field.type)[0].as_py()
        for field in TABLES[table]
        if not field.nullable
    }
    names = {name: value for name in ("dataset", "split", "video_id", "run_id")
             if (value := getattr(key, name)) and name in zeros}  # fmt: skip
    return pa.Table.from_pylist([zeros | names | r for r in records], schema=TABLES[table])


def publish(warehouse: Warehouse, stage: str, key: Key, tables: dict[str, list[dict]]) -> None:
    warehouse.publish(stage, key, "a", {n: rows(n, key, found) for n, found in tables.items()})


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    warehouse = Warehouse.create(tmp_path_factory.mktemp("warehouse"))
    for key, expressions in EXPRESSIONS.items():
        tables = {
            "videos": [{"frame_count": 40 if key == V1 else 130}],
            "expressions": [
                {"expression_id": e, "object_ids": ids, "text": text, "tags": tags}
                for e, (ids, text, tags) in expressions.items()
            ],
            "ground_truth": [
                {"object_id": o, "frame_index": t, "area": area, "height": 100, "width": 200}
                for o, areas in GROUND_TRUTH[key].items()
                for t, area in areas.items()
            ],
        }
        publish(warehouse, "ingest", key, tables)
    for run, (dataset, parent) in RUNS.items():
        record = {"run_id": run, "parent": parent, "dataset": dataset, "split": "train"}
        publish(warehouse, "train", Key(run_id=run), {"runs": [record], "training_metrics": []})
    for run, by_video in SCORES.items():
        for key, found in by_video.items():
            key = Key(key.dataset, key.split, key.video_id, run)
            scores = [
                {"expression_id": e, "j": jf - 0.05, "f": jf + 0.05, "jf": jf,
                 "oracle_jf": oracle, "tracks_selected": count, "predicted_empty": empty}
                for e, (jf, oracle, count, empty) in found.items()
            ]  # fmt: skip
            thresholds = [
                {**{name: s[name] for name in s if name != "oracle_jf"}, "tau": tau,
                 "jf": s["jf"] * factor}
                for s in scores for tau, factor in ((0.25, 0.5), (0.5, 1.0), (0.75, 1.0))
            ]  # fmt: skip
            tables = {"predictions": [], "scores": scores, "threshold_scores": thresholds}
            publish(warehouse, "evaluate", key, tables)
    return warehouse.connect()


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple]:
    return connection.sql(sql).fetchall()


def test_facts_of_expressions(connection: duckdb.DuckDBPyConnection) -> None:
    found = ask(
        connection,
        """
        SELECT video_id, expression_id, targets, other_objects, object_size, visible_share
        FROM expression_facts ORDER BY ALL
        """,
    )
    assert found == [
        # a takes 200 and 600 of 20,000 pixels in the two frames that it is in
        ("v1", "0", 1, 2, pytest.approx(0.02), 0.05),
        ("v1", "1", 2, 1, pytest.approx((1200 + 600) / 2 / 20_000), 0.05),
        ("v1", "2", 0, 3, None, 0.0),
        ("v1", "3", 1, 3, None, 0.0),
        ("v2", "0", 0, 0, None, 0.0),
    ]


@pytest.mark.parametrize(
    ("text", "motion"),
    [
        ("The dog running away", True),
        ("a man who stands still", True),
        ("bird flies", True),
        ("the one that moved", True),
        ("panda sitting", True),
        ("the black bird on the left", False),
        ("the lower red circle", False),
        ("girl in the passage", False),
        ("", False),
    ],
)
def test_motion_words(tmp_path, text: str, motion: bool) -> None:
    warehouse = Warehouse.create(tmp_path)
    publish(warehouse, "ingest", V1, {
        "videos": [{"frame_count": 1}],
        "expressions": [{"expression_id": "0", "text": text, "object_ids": None}],
        "ground_truth": [],
    })  # fmt: skip
    sql = "SELECT motion_words, targets, other_objects, visible_share FROM expression_facts"
    assert ask(warehouse.connect(), sql) == [(motion, None, None, None)]


def test_slices(connection: duckdb.DuckDBPyConnection) -> None:
    found = ask(
        connection,
        """
        SELECT slice, value, string_agg(name, ' ' ORDER BY name)
        FROM (SELECT *, video_id || '/' || expression_id AS name FROM expression_slices)
        GROUP BY slice, place, value
        ORDER BY slice, place, value
        """,
    )
    assert found == [
        ("frames", "30 to 59", "v1/0 v1/1 v1/2 v1/3"),
        ("frames", "120 or more", "v2/0"),
        ("motion words", "absent", "v1/1 v1/3 v2/0"),
        ("motion words", "present", "v1/0 v1/2"),
        ("object size", "1 to 5 %", "v1/0 v1/1"),
        ("other objects", "0", "v2/0"),
        ("other objects", "1", "v1/1"),
        ("other objects", "2", "v1/0"),
        ("other objects", "3+", "v1/2 v1/3"),
        ("tag", "look-alike", "v1/1"),
        ("tag", "motion", "v1/0"),
        ("targets", "0", "v1/2 v2/0"),
        ("targets", "1", "v1/0 v1/3"),
        ("targets", "2", "v1/1"),
    ]


def test_summary(connection: duckdb.DuckDBPyConnection) -> None:
    summary = connection.sql(load_query("scores_summary")).to_arrow_table().to_pylist()
    by_run = {row["run_id"]: row for row in summary}
    assert list(by_run) == ["brought", "mine", "tuned"]
    row = by_run["mine"]
    assert (row["jf"], row["j"], row["f"]) == (44.0, 39.0, 49.0)
    assert row["oracle_jf"] == 94.0
    assert (row["lost_in_tracks"], row["lost_in_selection"]) == (6.0, 50.0)
    assert row["n_acc"] == 50.0  # v1/2 is empty, v2/0 is not
    assert row["t_acc"] == pytest.approx(66.67)  # v1/3 is empty
    assert row["challenge"] == pytest.approx((44 + 50 + 66.67) / 3, abs=0.01)
    assert by_run["tuned"]["n_acc"] is by_run["tuned"]["t_acc"] is None  # no such expression
    assert row["trained_on"] == "ref-youtube-vos/train"


def test_zero_shot_asks_parents_and_joined_data_sets(connection) -> None:
    sql = f"SELECT run_id, zero_shot FROM ({load_query('scores_summary')})"
    assert dict(ask(connection, sql)) == {
        "mine": True,
        "tuned": False,  # its parent saw mevis, the same videos
        "brought": None,
    }


def test_scores_by_slice(connection: duckdb.DuckDBPyConnection) -> None:
    sql = f"""
        SELECT slice, value, expressions, jf, oracle_jf, lost_in_tracks, lost_in_selection
        FROM ({load_query("scores_by_slice")})
        WHERE run_id = 'mine' AND slice IN ('targets', 'tag')
    """
    assert ask(connection, sql) == [
        ("tag", "look-alike", 1, 70.0, 90.0, 10.0, 20.0),
        ("tag", "motion", 1, 50.0, 80.0, 20.0, 30.0),
        ("targets", "0", 2, 50.0, 100.0, 0.0, 50.0),
        ("targets", "1", 2, 25.0, 90.0, 10.0, 65.0),
        ("targets", "2", 1, 70.0, 90.0, 10.0, 20.0),
    ]


def test_jf_by_threshold(connection: duckdb.DuckDBPyConnection) -> None:
    sql = f"""
        SELECT tau, jf, tracks_selected, n_acc, best FROM ({load_query("jf_by_threshold")})
        WHERE run_id = 'mine'
    """
    assert ask(connection, sql) == [
        (0.25, 22.0, 1.0, 50.0, False),
        (0.5, 44.0, 1.0, 50.0, True),  # of equals the smaller
        (0.75, 44.0, 1.0, 50.0, False),
    ]
