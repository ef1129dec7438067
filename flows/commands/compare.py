"""The command that compares two runs."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from flows.commands.common import HERE, DatasetName, Split, WarehousePath, explained


def compare(
    run_a: Annotated[str, typer.Argument(help="Run id; differences are B minus A.")],
    run_b: Annotated[str, typer.Argument(help="Run id of the other run.")],
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    tracks_a: Annotated[
        str | None, typer.Option(help="Track set of A; default: as it was trained on.")
    ] = None,
    tracks_b: Annotated[str | None, typer.Option(help="Likewise of B.")] = None,
    warehouse: WarehousePath = HERE,
    format: Annotated[str, typer.Option(help="table, or json (fractions, not percent).")] = "table",
) -> None:
    """How the J&F of two evaluated runs differs: mean, interval, by slice.

    It ends with the expressions where they differ most.

    Example: `sola compare release-1a2b3c4d paper-5e6f7a8b --dataset mevis --split valid_u`
    """
    from flows.printing import print_comparison
    from tasks.results.compare import compare_runs
    from warehouse import Warehouse

    with explained():
        if format not in ("table", "json"):
            raise ValueError(f"there is no format {format!r}; valid are: table, json")
        comparison = compare_runs(
            Warehouse(warehouse), run_a, run_b, dataset, split, tracks_a, tracks_b
        )
        if format == "json":
            typer.echo(json.dumps(asdict(comparison), indent=2))
        else:
            print_comparison(comparison)
