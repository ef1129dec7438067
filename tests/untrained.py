"""A run that never was trained, for tests of what is done with one."""

import json
from dataclasses import asdict

import pyarrow as pa
import torch

from sola_model.recipes import Recipe
from sola_model.selector.checkpoints import save_selector
from sola_model.selector.modules import new_selector
from warehouse import TABLES, Key, Warehouse


def publish_untrained(
    store: Warehouse, recipe: Recipe, run_id: str = "run", **columns: float
) -> None:
    """A run of the recipe with random weights, always the same; `columns` of its row in `runs`."""
    torch.manual_seed(0)
    save_selector(new_selector(recipe.selector), store.root / "selectors" / run_id)
    run = {field.name: None if field.nullable else 0 for field in TABLES["runs"]} | {
        "run_id": run_id, "parent": None, "dataset": "demo", "split": "train",
        "recipe": recipe.name, "config": json.dumps(asdict(recipe)),
        "weights": f"selectors/{run_id}", "videos": [],
        **columns,
    }  # fmt: skip
    tables = {
        "runs": pa.Table.from_pylist([run], schema=TABLES["runs"]),
        "training_metrics": TABLES["training_metrics"].empty_table(),
    }
    store.publish("train", Key(run_id=run_id), "f", tables)
