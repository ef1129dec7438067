"""Train: object tokens, text features and pseudo-labels -> track selector (Figure 3).

sola train --dataset mevis --split train --validation valid_u
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefect import flow

from flows.artifacts import show_run
from flows.progress import training_progress
from flows.tensorboard import event_files
from sola_model.recipes import override, recipe_by_name
from sola_model.training import Progress
from tasks.evaluate import find_run
from tasks.train import run_recipe, train_run
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
    settings = run_recipe(warehouse, parent) if parent else recipe_by_name(recipe)
    settings = override(settings, changes)
    if seed is not None:
        settings = replace(settings, training=replace(settings.training, seed=seed))
    folder = Path(tensorboard, f"{settings.name}-{settings.training.seed}") if tensorboard else None
    datasets = [dataset] if isinstance(dataset, str) else dataset
    with training_progress(settings.training.epochs) as show, event_files(folder) as write:

        def on_progress(progress: Progress) -> None:
            show(progress)
            write(progress)

        run_id = train_run(
            warehouse,
            splits_of(datasets, split),
            splits_of(datasets, validation),
            settings,
            parent,
            everything,
            limit,
            on_progress,
        )
    store = Warehouse(warehouse)
    show_run(store, find_run(store, run_id))
    return run_id


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
