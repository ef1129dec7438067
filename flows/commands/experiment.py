"""The command that runs the paper's experiments."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    DatasetName,
    Limit,
    WarehousePath,
    Workers,
    console,
    explained,
    running,
)


def experiment(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments, e.g. table5b.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dataset: DatasetName = "mevis",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set; default: only what is precomputed.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split to train on.")] = "train",
    validation: Annotated[str, typer.Option(help="Split to evaluate on.")] = "valid_u",
    recipe: Annotated[str | None, typer.Option(help="Default: release; demo for demo.")] = None,
    changes: Annotated[
        list[str], typer.Option("--set", help="Change of the recipe for all variants.")
    ] = [],  # noqa: B006 - typer copies it
    sam2: Annotated[
        str | None, typer.Option("--sam2", "--checkpoint", help="As in sola precompute.")
    ] = None,
    detector: Annotated[str | None, typer.Option(help="As in sola precompute.")] = None,
    ground_truth: Annotated[
        bool, typer.Option("--ground-truth", help="As in sola precompute, for the training split.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 3,
    run: Annotated[
        str | None, typer.Option(help="Run for counterfactual; default: the newest.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for README.md with all tables, and pictures."),
    ] = None,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
    workers: Workers = None,
) -> None:
    """A table or figure of the paper; without a name, a list of them.

    It runs what is missing.

    Example: `sola experiment table5b --dataset mevis --root DIR --sam2 sam2.1_hiera_large.pt`
    """
    from flows.checks import check_experiment
    from flows.experiments import MODULES, check_experiments

    with explained():
        check_experiments(names or [])
    if names or everything:
        with explained():
            check_experiment(
                warehouse, dataset, root, (split, validation), recipe, changes, sam2, detector, run
            )
    from flows.experiment import EXPERIMENTS
    from flows.experiment import experiment as flow

    if not names and not everything:
        for name, function in EXPERIMENTS.items():
            typer.echo(f"{name:16}{str(function.__doc__).splitlines()[0]}")
        return
    with running():
        not_run = flow(
            str(warehouse), list(MODULES) if everything else names or [], dataset,
            str(root) if root else None, split, validation, recipe, changes, sam2, detector,
            ground_truth, seeds, limit, run, str(out) if out else None, workers,
        )  # fmt: skip
    for name, why in not_run.items():
        console.print(f"{name} could not run: {why}", markup=False, highlight=False, soft_wrap=True)
    if not_run:
        raise typer.Exit(1)
