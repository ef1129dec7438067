"""The command that trains."""

from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

from flows.commands.common import HERE, Limit, RecipeName, WarehousePath, running


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
    recipe: RecipeName = "release",
    changes: Annotated[
        list[str], typer.Option("--set", help="Change of the recipe, such as selector.layers=1.")
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(help="Seed; default: the recipe's, 0.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with so many seeds in a row.")] = 1,
    parent: Annotated[
        str | None,
        typer.Option("--from", help="Run to continue from, with what is new since then."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="With --from: train on all, not the new alone.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard event files.")
    ] = None,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
) -> None:
    """Train a track selector; prints the run id. An interrupted run continues.

    Example: `sola train --dataset mevis --split train --validation valid_u`
    """
    from flows.train import train as flow
    from tasks.train import run_metrics

    measured = []
    with running():
        for number in range(seeds):
            chosen = seed if seeds == 1 else (seed or 0) + number
            folder = str(tensorboard) if tensorboard else None
            run_id = flow(
                str(warehouse), dataset, split, validation, recipe, changes, chosen, parent,
                everything, folder, limit,
            )  # fmt: skip
            typer.echo(run_id)
            measured.append(run_metrics(str(warehouse), run_id).get("validation_jf"))
    if seeds > 1 and None not in measured:
        jf = [100 * value for value in measured]
        typer.echo(f"validation J&F {mean(jf):.1f} +- {stdev(jf):.1f} over {seeds} seeds", err=True)
