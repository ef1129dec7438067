"""Refresh: everything that new videos, expressions or settings call for, and nothing else.

Runs on a schedule (prefect.yaml). Each stage does what is missing; the same data trains no second
run, and a run is evaluated once.
"""

from collections.abc import Sequence

from prefect import flow

from flows.evaluate import evaluate
from flows.fanout import ended
from flows.label import label
from flows.precompute import precompute
from flows.train import train
from sola_model.recipes import chosen_recipe, of_command


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
    changes: Sequence[str] = (),
    detector: str | None = None,
    ground_truth: bool = True,
    rehash: bool = False,
    dataset_name: str | None = None,
) -> str:
    """Precompute and label both splits, train on one, evaluate on the other; gives the run id.

    `changes` of the recipe reach every step that they concern. The training split has the tracks of
    ground-truth masks, too, unless `ground_truth` is false; in the validation split boxes of
    `detector` prompt as well. Videos that fail are left out, and the run says so at its end.
    `dataset_name`: see `precompute`.

    Raises ValueError for changes that the recipe does not take.
    """
    chosen_recipe(recipe, changes)
    failed, named = 0, dataset_name or dataset
    for part in (split, validation):
        trained_on = part == split
        failed += tracks_and_labels(
            warehouse,
            dataset,
            root,
            part,
            recipe,
            sam2,
            None if trained_on else detector,
            changes=changes,
            ground_truth=trained_on and ground_truth,
            rehash=rehash,
            workers=workers,
            dataset_name=dataset_name,
        )
    run_id = train(warehouse, named, split, validation, recipe, of_command(changes, "train"))
    failed += evaluate(warehouse, named, validation, run_id, workers).failed
    return ended(run_id, failed)


def tracks_and_labels(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    recipe: str,
    sam2: str | None = None,
    detector: str | None = None,
    *,
    changes: Sequence[str] = (),
    ground_truth: bool = False,
    rehash: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    dataset_name: str | None = None,
) -> int:
    """Precompute and label a split, each with the changes of the recipe that concern it.

    Gives the number of videos that failed.
    """
    tracked = precompute(
        warehouse,
        dataset,
        root,
        split,
        recipe,
        sam2,
        detector,
        ground_truth=ground_truth,
        limit=limit,
        workers=workers,
        changes=of_command(changes, "precompute"),
        rehash=rehash,
        dataset_name=dataset_name,
    )
    labels, named = of_command(changes, "label"), dataset_name or dataset
    return tracked.failed + label(warehouse, named, split, recipe, workers, labels).failed
