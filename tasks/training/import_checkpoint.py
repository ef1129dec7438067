"""Make a run of a released checkpoint, as if it had been trained here."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from sola_model.recipes import Recipe
from sola_model.selector.checkpoints import import_checkpoint, save_selector
from warehouse import TABLES, Key, Warehouse, fingerprint


def import_run(warehouse: str, checkpoint: str, recipe: Recipe, name: str | None = None) -> str:
    """Publish the selector of a released checkpoint as a run and give its run id.

    The run's recipe is `recipe` with the checkpoint's sizes. The run id is `name` (default: the
    recipe's) with a hash of recipe and file: importing a file again changes nothing.

    Raises ValueError for a name that is no file name, for a recipe whose tau is chosen in training,
    and as `import_checkpoint` does.
    """
    name = name or recipe.name
    if not re.fullmatch(r"[\w.+=-]+", name):
        raise ValueError(f"A run cannot be named {name!r}: use letters, digits and _ . + = -.")
    if recipe.tau is None:
        raise ValueError(
            f"recipe {recipe.name!r} has no tau, and an imported run is not trained, where one "
            "would be chosen: give it, such as --set tau=0.5."
        )
    selector = import_checkpoint(checkpoint, recipe)
    recipe = replace(recipe, selector=selector.config)
    store = Warehouse.create(warehouse)
    identity = fingerprint(
        recipe=asdict(recipe), weights=hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    )
    run_id = f"{name}-{identity[:8]}"
    weights = f"selectors/{run_id}/last"
    with TemporaryDirectory() as folder:
        save_selector(selector, Path(folder))
        checksums = store.put_folder(weights, Path(folder))
    run: dict[str, Any] = {
        "run_id": run_id,
        "parent": None,
        "dataset": "imported",
        "split": Path(checkpoint).name,
        "recipe": recipe.name,
        "config": json.dumps(asdict(recipe)),
        "seed": recipe.training.seed,
        "parameters": sum(p.numel() for p in selector.parameters()),
        "epochs": 0,
        "best_epoch": 0,
        "weights": weights,
        "train_videos": 0,
        "train_expressions": 0,
        "videos": [],
    }
    tables = {
        "runs": pa.Table.from_pylist([run], schema=TABLES["runs"]),
        "training_metrics": TABLES["training_metrics"].empty_table(),
    }
    store.publish("train", Key(run_id=run_id), identity, tables, checksums)
    return run_id
