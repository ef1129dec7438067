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
from flows.progress import run_progress, training_progress
from flows.runtime import default_workers, kill_workers, video_workers
from flows.tensorboard import event_files
from sola_model.recipes import override, recipe_by_name
from sola_model.training.loop import Progress
from tasks.stages.evaluate import find_run
from tasks.training.train import present_run, run_recipe, train_run
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
) -> str:
    """Train a selector on labelled splits; returns the run id. An interrupted run continues.

    Several data sets train together; splits are one for all, or one for each. `changes` are
    fields of the recipe, "selector.layers=1"; the recipe of a `parent` is the parent's own.
    `limit` takes the first videos of each split only.
    """
    run = _arguments(
        warehouse, dataset, split, validation, recipe, changes, seed, parent, everything, limit
    )
    settings = run["recipe"]
    folder = Path(tensorboard, f"{settings.name}-{settings.training.seed}") if tensorboard else None
    with training_progress(settings.training.epochs) as show, event_files(folder) as write:

        def on_progress(progress: Progress) -> None:
            show(progress)
            write(progress)

        run_id = train_run(warehouse, **run, on_progress=on_progress)
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
) -> list[str]:
    """`train` with several seeds, as many at once as there are GPUs, or CPU cores; the run ids."""
    data = (warehouse, dataset, split, validation, recipe, changes)
    runs = [_arguments(*data, seed, parent, everything, limit) for seed in seeds]
    return train_together(warehouse, runs, workers)


def _arguments(
    warehouse: str,
    dataset: str | list[str],
    split: str | list[str],
    validation: str | list[str],
    recipe: str,
    changes: Sequence[str],
    seed: int | None,
    parent: str | None,
    everything: bool,
    limit: int | None,
) -> dict[str, Any]:
    """The arguments of `train_run` for these of `train`."""
    settings = run_recipe(warehouse, parent) if parent else recipe_by_name(recipe)
    settings = override(settings, changes)
    if seed is not None:
        settings = replace(settings, training=replace(settings.training, seed=seed))
    datasets = [dataset] if isinstance(dataset, str) else dataset
    return {
        "training": splits_of(datasets, split),
        "validation": splits_of(datasets, validation),
        "recipe": settings,
        "parent": parent,
        "everything": everything,
        "limit": limit,
    }


def train_together(
    warehouse: str, runs: Sequence[dict[str, Any]], workers: int | None = None
) -> list[str]:
    """Train several selectors, as many at once as there are GPUs, or CPU cores; their run ids.

    `runs` are arguments of `tasks.training.train.train_run`. When one fails, those beside it are trained
    first, then its error is raised. Several at once compute with one CPU thread each: that changes
    the order of sums, and so the last bits of the weights. Call it inside a flow.
    """
    run_ids: list[Any] = [present_run(warehouse, **run) for run in runs]
    missing = [n for n, run_id in enumerate(run_ids) if run_id is None]
    workers = min(len(missing), workers or default_workers())
    if workers <= 1:
        for n in missing:
            with training_progress(runs[n]["recipe"].training.epochs) as show:
                run_ids[n] = train_run(warehouse, **runs[n], on_progress=show)
        return run_ids
    with run_progress(len(missing)) as advance, video_workers(workers) as runner:
        try:
            futures = {
                n: runner.submit(train_run, {"warehouse": warehouse, **runs[n]}) for n in missing
            }
            for _ in as_completed(list(futures.values())):
                advance()
            return [run_id or futures[n].result() for n, run_id in enumerate(run_ids)]
        except BaseException:  # Ctrl-C, a failed run, a dead worker: leave; the checkpoints stay
            kill_workers()
            raise


def splits_of(datasets: list[str], splits: str | list[str]) -> list[tuple[str, str]]:
    """Each data set with its split."""
    names = [splits] if isinstance(splits, str) else splits
    if len(names) == 1:
        names = names * len(datasets)
    if len(names) != len(datasets):
        raise ValueError(
            f"{len(datasets)} data sets ({', '.join(datasets)}) and {len(names)} splits "
            f"({', '.join(names)}): give one split for all, or one for each."
        )
    return list(zip(datasets, names, strict=True))
