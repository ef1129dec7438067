"""The command that trains."""

from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    Limit,
    RecipeName,
    WarehousePath,
    Workers,
    explained,
    running,
)


def train(
    dataset: Annotated[
        list[str], typer.Option(help="Data set; repeat it to train on several together.")
    ] = ["mevis"],  # noqa: B006 - typer copies it
    split: Annotated[
        list[str], typer.Option(help="Split, one for all data sets or one for each.")
    ] = ["train"],  # noqa: B006
    validation: Annotated[
        list[str], typer.Option(help="Split that validation loss and J&F are from, likewise.")
    ] = ["valid_u"],  # noqa: B006
    recipe: RecipeName = None,
    changes: Annotated[
        list[str], typer.Option("--set", help="Change of the recipe, such as selector.layers=1.")
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="Seed; default: the recipe's, 0.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds, side by side.")] = 1,
    parent: Annotated[
        str | None,
        typer.Option("--from", help="Run to continue from, with what is new since then."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="With --from: train on all, not the new alone.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard event files, of one seed.")
    ] = None,
    tracks: Annotated[
        list[str],
        typer.Option(help="Track set of the splits that have it; default: of each its default."),
    ] = [],  # noqa: B006
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Train on track sets made in different ways.")
    ] = False,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
    workers: Workers = None,
) -> None:
    """Train a track selector; prints the run id. An interrupted run continues.

    Example: `sola train --dataset mevis --split train --validation valid_u`
    """
    from flows.checks import check_train, recipe_to_use

    with explained():
        if not parent:
            recipe = recipe_to_use(warehouse, recipe)
        recipe = recipe or "release"
        check_train(warehouse, dataset, split, validation, recipe, changes, parent, tracks)
        from flows.train import train as flow
        from flows.train import train_seeds, trainings
        from tasks.training.train import present_run, run_metrics

        data = (str(warehouse), dataset, split, validation, recipe, changes)
        (asked,) = trainings(*data, [seed], parent, everything, limit, tracks, mixed)
        present = present_run(warehouse, asked)
    if seeds == 1 and present:
        typer.echo(present)
        return
    with running():
        if seeds == 1:
            folder = str(tensorboard) if tensorboard else None
            typer.echo(flow(*data, seed, parent, everything, folder, limit, tracks, mixed))
            return
        chosen = [(seed or 0) + number for number in range(seeds)]
        run_ids = train_seeds(*data, chosen, parent, everything, limit, workers, tracks, mixed)
        measured = [run_metrics(str(warehouse), run).get("validation_jf") for run in run_ids]
    for run_id in run_ids:
        typer.echo(run_id)
    if None not in measured:
        jf = [100 * value for value in measured if value is not None]
        typer.echo(f"validation J&F {mean(jf):.1f} +- {stdev(jf):.1f} over {seeds} seeds", err=True)
