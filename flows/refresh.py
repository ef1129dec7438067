"""Refresh: everything that new videos, expressions or settings call for, and nothing else.

Runs on a schedule (prefect.yaml). Each stage does what is missing; the same data trains no second
run, and a run is evaluated once.
"""

from prefect import flow

from flows.evaluate import evaluate
from flows.label import label
from flows.precompute import precompute
from flows.train import train


@flow
def refresh(
    warehouse: str,
    dataset: str,
    root: str,
    split: str = "train",
    validation: str = "valid_u",
    recipe: str = "release",
    sam2: str | None = None,
    workers: int | None = None,
) -> str:
    """Precompute and label both splits, train on one, evaluate on the other; gives the run id."""
    for part in (split, validation):
        trained_on = part == split
        precompute(
            warehouse, dataset, root, part, recipe, sam2, ground_truth=trained_on, workers=workers
        )
        label(warehouse, dataset, part, recipe, workers)
    run_id = train(warehouse, dataset, split, validation, recipe)
    evaluate(warehouse, dataset, validation, run_id, workers)
    return run_id
