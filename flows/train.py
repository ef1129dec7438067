"""Train: object tokens, text features and pseudo-labels -> track selector (Figure 3).

sola train --dataset mevis --split train --validation valid_u
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import as_completed

from flows.artifacts import show_run
from flows.checks import splits_of
from flows.progress import run_progress, training_progress
from flows.runtime import kill_workers, video_workers, worker_count
from flows.tensorboard import event_files
from sola_model.recipes import Recipe, check_concerns, override, recipe_by_name
from sola_model.training.loop import Progress
from tasks.runs import find_run
from tasks.training.train import Training, present_run, run_recipe, train_run
from warehouse import Warehouse


@flow
def train(
    warehouse: str,
    dataset: str | list[str],
    split: str | list[str] = "train",
    validation: str | list[str] = "valid_u",
    recipe: str = "release",
    changes: Sequence[str] = (),
    seed: int | None = None,
    parent: str | None = None,
    everything: bool = False,
    tensorboard: str | None = None,
    limit: int | None = None,
    tracks: Sequence[str] = (),
    mixed: bool = False,
) -> str:
    """Train a selector on labelled splits; returns the run id. An interrupted run continues.

    Several data sets train together; splits are one for all, or one for each. `changes` are
    fields of the recipe, "selector.layers=1"; the recipe of a `parent` is the parent's own.
    `limit` takes the first videos of each split only. `tracks` and `mixed`: see `Training`.
    """
    data = (warehouse, dataset, split, validation, recipe, changes)
    (asked,) = trainings(*data, [seed], parent, everything, limit, tracks, mixed)
    settings = asked.recipe
    folder = Path(tensorboard, f"{settings.name}-{settings.training.seed}") if tensorboard else None
    with training_progress(settings.training.epochs) as show, event_files(folder) as write:

        def on_progress(progress: Progress) -> None:
            show(progress)
            write(progress)

        run_id = train_run(warehouse, asked, on_progress)
    store = Warehouse(warehouse)
    show_run(store, find_run(store, run_id))
    return run_id


@flow
def train_seeds(
    warehouse: str,
    dataset: str | list[str],
    split: str | list[str] = "train",
    validation: str | list[str] = "valid_u",
    recipe: str = "release",
    changes: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    parent: str | None = None,
    everything: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    tracks: Sequence[str] = (),
    mixed: bool = False,
) -> list[str]:
    """`train` with several seeds, as many at once as there are GPUs, or CPU cores; the run ids."""
    data = (warehouse, dataset, split, validation, recipe, changes)
    asked = trainings(*data, seeds, parent, everything, limit, tracks, mixed)
    return train_together(warehouse, asked, workers)


def trainings(
    warehouse: str,
    dataset: str | list[str],
    split: str | list[str],
    validation: str | list[str],
    recipe: str,
    changes: Sequence[str],
    seeds: Sequence[int | None],
    parent: str | None,
    everything: bool,
    limit: int | None,
    tracks: Sequence[str],
    mixed: bool,
) -> list[Training]:
    """What is asked for by these arguments of `train`, for each seed; None: the recipe's.

    Raises ValueError for changes that the recipe does not take, and unequal numbers of splits.
    """
    check_concerns(changes, "train")
    settings = run_recipe(warehouse, parent) if parent else recipe_by_name(recipe)
    settings = override(settings, changes)
    datasets = [dataset] if isinstance(dataset, str) else dataset
    asked = Training(
        training=splits_of(datasets, split),
        validation=splits_of(datasets, validation),
        recipe=settings,
        parent=parent,
        everything=everything,
        limit=limit,
        tracks=tracks,
        mixed=mixed,
    )
    return [
        asked if seed is None else replace(asked, recipe=with_seed(settings, seed))
        for seed in seeds
    ]


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed."""
    return replace(recipe, training=replace(recipe.training, seed=seed))


def train_together(
    warehouse: str, asked: Sequence[Training], workers: int | None = None
) -> list[str]:
    """Train several selectors, as many at once as there are GPUs, or CPU cores; their run ids.

    When one fails, those beside it are trained first, then its error is raised. Several at once
    compute with one CPU thread each: that changes the order of sums, and so the last bits of the
    weights. Call it inside a flow.
    """
    run_ids: list[Any] = [present_run(warehouse, each) for each in asked]
    missing = [n for n, run_id in enumerate(run_ids) if run_id is None]
    workers = min(len(missing), worker_count(uses_gpu=True, asked=workers))
    if workers <= 1:
        for n in missing:
            with training_progress(asked[n].recipe.training.epochs) as show:
                run_ids[n] = train_run(warehouse, asked[n], show)
        return run_ids
    with run_progress(len(missing)) as advance, video_workers(workers, uses_gpu=True) as runner:
        try:
            futures = {
                n: runner.submit(train_run, {"warehouse": warehouse, "asked": asked[n]})
                for n in missing
            }
            for _ in as_completed(list(futures.values())):
                advance()
            return [run_id or futures[n].result() for n, run_id in enumerate(run_ids)]
        except BaseException:  # Ctrl-C, a failed run, a dead worker: leave; the checkpoints stay
            kill_workers()
            raise
