"""The command that writes the page about a run."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import HERE, WarehousePath, Workers, explained


def report(
    run: Annotated[str | None, typer.Argument(help="Run id; default: the newest run.")] = None,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    dataset: Annotated[
        str | None, typer.Option(help="Data set; default: all that the run was evaluated on.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split; may be repeated; default: all, likewise.")
    ] = None,
    pictures: Annotated[
        float, typer.Option(min=0, help="Megabytes of the page that pictures may take.")
    ] = 10.0,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """One HTML page about an evaluated run: scores, what is lost where, pictures.

    It holds the SQL of every figure, and loads nothing from a network.

    Example: `sola report release-1a2b3c4d --out report.html`
    """
    from flows.checks import check_evaluated
    from flows.progress import video_progress
    from warehouse import Warehouse
    from warehouse.outputs import check_output, files_of

    with explained():
        store = Warehouse(warehouse)
        check_output(out, files_of(store, out))
        check_evaluated(store, run, dataset, split or ())
        from tasks.report_page.page import write_report

        size = write_report(
            warehouse, run, dataset, split or (), out, pictures, workers, video_progress
        )
    typer.echo(f"{out}: {size / 1e6:.1f} MB")
