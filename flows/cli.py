"""The command line `sola`: one command per flow, and SQL over the warehouse."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Referring video object segmentation by language-aligned track selection (SOLA).",
)
console = Console(stderr=True)

WarehousePath = Annotated[
    Path, typer.Option("--warehouse", envvar="SOLA_WAREHOUSE", help="Folder of the warehouse.")
]
DatasetName = Annotated[
    str, typer.Option(help="mevis, demo, or folder (videos of your own); names the rows, too.")
]
Split = Annotated[str, typer.Option(help="Split of the data set, e.g. train or valid_u.")]
RecipeName = Annotated[str, typer.Option(help="release, or demo for the embedded models.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; default: one per GPU, or per CPU core.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many videos.")]

HERE = Path("warehouse")


@contextmanager
def _explained() -> Iterator[None]:
    """Errors that a user can mend end in their message and exit code 1, without a traceback."""
    import duckdb

    try:
        yield
    except (ValueError, OSError, duckdb.Error) as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False)
        raise typer.Exit(1) from error


@contextmanager
def _running() -> Iterator[None]:
    """A Prefect API for the flows, and errors explained."""
    from flows.runtime import prefect_api

    with _explained(), prefect_api():
        yield


def _finish(failures: int) -> None:
    """Exit code 2 when some videos failed: everything else was done."""
    if failures:
        raise typer.Exit(2)


@app.command()
def demo(
    warehouse: WarehousePath = Path("demo-warehouse"),
    workers: Workers = None,
) -> None:
    """The whole method on embedded data and models, from scratch.

    Example: `sola demo`
    """
    from flows.demo import demo as flow
    from flows.report import print_demo_report

    with _running():
        run_id = flow(str(warehouse), workers=workers)
        print_demo_report(warehouse, run_id)


@app.command()
def precompute(
    root: Annotated[Path, typer.Option(help="Folder of the data set, or of videos, or a video.")],
    dataset: DatasetName = "mevis",
    split: Split = "train",
    recipe: RecipeName = "release",
    sam2: Annotated[
        str | None,
        typer.Option(help="Checkpoint path, hub id or 'demo'; default: the recipe's."),
    ] = None,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
    workers: Workers = None,
) -> None:
    """Videos to prompt masks, mask tracks and object tokens. A second run does what is new.

    Example: `sola precompute --root mevis --split train --sam2 sam2.1_hiera_large.pt`
    """
    from flows.precompute import precompute as flow

    with _running():
        summary = flow(str(warehouse), dataset, str(root), split, recipe, sam2, limit, workers)
    _finish(summary.failed)


@app.command()
def label(
    dataset: DatasetName = "mevis",
    split: Split = "train",
    recipe: RecipeName = "release",
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Pseudo-labels: IoU of every mask track with every expression's ground truth.

    Example: `sola label --dataset mevis --split train`
    """
    from flows.label import label as flow

    with _running():
        summary = flow(str(warehouse), dataset, split, recipe, workers)
    _finish(summary.failed)


@app.command()
def train(
    dataset: DatasetName = "mevis",
    split: Split = "train",
    validation: Annotated[str, typer.Option(help="Split the validation loss is from.")] = "valid_u",
    recipe: RecipeName = "release",
    warehouse: WarehousePath = HERE,
) -> None:
    """Train a track selector; prints the run id. An interrupted run continues.

    Example: `sola train --dataset mevis --split train --validation valid_u`
    """
    from flows.train import train as flow

    with _running():
        typer.echo(flow(str(warehouse), dataset, split, validation, recipe))


@app.command()
def evaluate(
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    run: Annotated[str | None, typer.Option(help="Run id; default: the newest run.")] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Predictions of a run and, where there is ground truth, their J&F.

    Example: `sola evaluate --dataset mevis --split valid_u --run release-1a2b3c4d`
    """
    from flows.evaluate import evaluate as flow

    with _running():
        summary = flow(str(warehouse), dataset, split, run, workers)
    _finish(summary.failed)


@app.command()
def query(
    sql: Annotated[str | None, typer.Argument(help="SQL, or the name of a query.")] = None,
    warehouse: WarehousePath = HERE,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write; parquet needs one.")] = None,
) -> None:
    """SQL over the warehouse; without SQL, the named queries and tables there are.

    Example: `sola query worst_expressions` or `sola query --format csv "SELECT * FROM scores"`
    """
    from flows.report import print_catalogue, write_result

    with _explained():
        if sql is None:
            print_catalogue()
        else:
            write_result(warehouse, sql, format, out)


@app.command()
def status(warehouse: WarehousePath = HERE) -> None:
    """What is done and what failed, by stage and split, and the command that mends it.

    Example: `sola status --warehouse demo-warehouse`
    """
    from flows.report import print_status

    with _explained():
        _finish(print_status(warehouse))


def main() -> None:
    """Entry point of the command `sola`."""
    app(prog_name="sola")


if __name__ == "__main__":
    sys.exit(main())
