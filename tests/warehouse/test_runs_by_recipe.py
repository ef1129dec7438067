"""The query runs_by_recipe, on runs whose answer is worked out by hand."""

from pathlib import Path

import pyarrow as pa
import pytest

from warehouse import TABLES, Key, Warehouse
from warehouse.commits import tables_of
from warehouse.queries import load_query

# run id -> recipe, seed, weights, J&F of epochs 1 and 2, J&F of two expressions when evaluated
RUNS = {
    "a": ("demo", 0, "last", (0.5, 0.6), (0.5, 0.7)),
    "b": ("demo", 1, "last", (0.9, 0.7), (0.6, 0.8)),
    "c": ("demo+layers=1", 0, "best", (0.4, 0.3), ()),
}


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path / "w")
    for run_id, (recipe, seed, weights, validation, scores) in RUNS.items():
        run = {
            **{"run_id": run_id, "recipe": recipe, "seed": seed, "weights": f"w/{weights}"},
            **{"dataset": "demo", "split": "train", "parent": None, "config": "{}", "videos": []},
            **{"parameters": 1, "epochs": 2, "best_epoch": 1},
            **{"train_videos": 9, "train_expressions": 1},
        }
        metrics = [
            {"run_id": run_id, "epoch": epoch, "metric": name, "value": value}
            for epoch, value in enumerate(validation, start=1)
            for name in ("validation_jf", "train_loss")
        ]
        rows = {"runs": [run], "training_metrics": metrics}
        tables = {n: TABLES[n].empty_table().from_pylist(r, TABLES[n]) for n, r in rows.items()}
        store.publish("train", Key(run_id=run_id), "f", tables)
        key = Key("demo", "valid_u", "v", run_id)
        published = {name: TABLES[name].empty_table() for name in tables_of("evaluate")}
        rows = [
            {f.name: False if pa.types.is_boolean(f.type) else 0 for f in TABLES["scores"]}
            | {
                "track_set": "grid",
                "run_id": run_id,
                "dataset": "demo",
                "split": "valid_u",
                "video_id": "v",
            }
            | {"expression_id": str(e), "jf": jf}
            for e, jf in enumerate(scores)
        ]
        published["scores"] = published["scores"].from_pylist(rows, TABLES["scores"])
        store.publish("evaluate", key, "f", published)
    result = store.connect().sql(load_query("runs_by_recipe")).to_arrow_table().to_pylist()
    found = {(row["recipe"], row["evaluated_on"]): row for row in result}
    demo = found["demo", "demo/valid_u"]
    assert (demo["seeds"], demo["train_videos"]) == (2, 9)
    assert (demo["validation_jf"], demo["validation_spread"]) == pytest.approx((65, 7.07), abs=0.01)
    assert (demo["jf"], demo["spread"]) == pytest.approx((65, 7.07), abs=0.01)
    one = found["demo+layers=1", None]
    assert one["validation_jf"] == pytest.approx(40) and one["spread"] is None
