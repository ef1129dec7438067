"""Refresh: everything that new videos, expressions or settings call for, and nothing else.

Runs on a schedule (prefect.yaml). Each stage does what is missing; the same data trains no second
run, and a run is evaluated once.
"""

from prefect import flow

from flows.evaluate import evaluate
from flows.fanout import ended
from flows.label import label
from flows.precompute import precompute
from flows.train import train


@flow(flow_run_name="refresh {dataset}")
def refresh(
    warehouse: str,
    dataset: str,
    root: str,
    split: str = "train",
    validation: str = "valid_u",
    recipe: str = "release",
    sam2: str | None = None,
    workers: int | None = None,
    dataset_name: str | None = None,
) -> str:
    """Precompute and label both splits, train on one, evaluate on the other; gives the run id.

    Videos that fail are left out, and the run says so at its end. `dataset_name`: see `precompute`.
    """
    failed, named = 0, dataset_name or dataset
    for part in (split, validation):
        trained_on = part == split
        failed += precompute(
            warehouse,
            dataset,
            root,
            part,
            recipe,
            sam2,
            ground_truth=trained_on,
            workers=workers,
            dataset_name=dataset_name,
        ).failed
        failed += label(warehouse, named, part, recipe, workers).failed
    run_id = train(warehouse, named, split, validation, recipe)
    failed += evaluate(warehouse, named, validation, run_id, workers).failed
    return ended(run_id, failed)
