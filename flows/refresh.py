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
) -> str:
    """Precompute and label both splits, train on one, evaluate on the other; gives the run id.

    Videos that fail are left out, and the run says so at its end.
    """
    failed = 0
    for part in (split, validation):
        trained_on = part == split
        failed += precompute(
            warehouse, dataset, root, part, recipe, sam2, ground_truth=trained_on, workers=workers
        ).failed
        failed += label(warehouse, dataset, part, recipe, workers).failed
    run_id = train(warehouse, dataset, split, validation, recipe)
    failed += evaluate(warehouse, dataset, validation, run_id, workers).failed
    return ended(run_id, failed)
