"""The command that says how good tracks can be."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import (
    HERE,
    DatasetName,
    Split,
    Tracks,
    WarehousePath,
    Workers,
    explained,
    finish,
    print_failures,
)

if TYPE_CHECKING:
    from tasks.results.oracle import OracleReport

MILLION = 1_000_000
SHOWN = 5  # expressions and videos that are named
COLUMNS = {
    "expressions": "number",
    "oracle_jf": "oracle",
    "oracle_bound": "bound",
    "certified": "certified",
    "better_tracks": "better tracks",
    "better_selection": "better selection",
    "tracks_needed": "tracks needed",
}


def oracle(
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    tracks: Tracks = None,
    run: Annotated[
        str | None, typer.Option(help="Run to compare with; default: the best of those evaluated.")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Folder of a split, to judge tracks of a file by.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Tracks of any method: JSON, or folder or zip of PNG.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="As of sola score; default: by the ground truth's layout.")
    ] = None,
    work: Annotated[
        int, typer.Option(min=1, help="Bound of each search, in millions; 200 take about a second.")
    ] = 200,
    format: Annotated[str, typer.Option(help="table, or json.")] = "table",
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """How good tracks can be: the best union for each expression.

    With a certificate, or what is lacking to one. Tracks are a set of the warehouse, or with
    --ground-truth and --file those of any method.

    Example: `sola oracle --dataset mevis --split valid_u`
    """
    from flows.progress import video_progress
    from tasks.runs import find_run
    from tasks.track_sets import tracks_for
    from warehouse import Key, Warehouse
    from warehouse.annotations import guess_protocol
    from warehouse.track_files import check_file

    with explained():
        if format not in ("table", "json"):
            raise ValueError(f"there is no format {format!r}; valid are: table, json")
        if (ground_truth is None) != (file is None):
            raise ValueError("--ground-truth and --file go together: give both, or neither")
        failed = 0
        with ExitStack() as stack:
            if ground_truth and file:
                protocol = protocol or guess_protocol(ground_truth)
                check_file(file)
                from tasks.results.oracle import GIVEN, file_measured, oracle_report

                how = (protocol, workers, video_progress, work * MILLION)
                store = stack.enter_context(file_measured(ground_truth, file, *how))
                report = oracle_report(store, GIVEN)
            else:
                store = Warehouse(warehouse)
                track_set = tracks_for(store, dataset, split, tracks).name
                if run is not None:
                    find_run(store, run)
                from tasks.results.oracle import measure, oracle_report

                on = Key(dataset=dataset, split=split, track_set=track_set)
                outcomes = measure(store, on, workers, video_progress, work * MILLION)
                failed = print_failures(outcomes)
                report = oracle_report(store, on, run)
        if format == "json":
            typer.echo(json.dumps(asdict(report), indent=1))
        else:
            _print(report, str(file or ""))
    finish(failed)


def _print(report: "OracleReport", file: str) -> None:
    from rich.table import Table

    from flows.printing import console

    of = file or f"{report.track_set} on {report.dataset}/{report.split}"
    shown = [name for name in COLUMNS if report.run_id or name != "better_selection"]
    headers = [COLUMNS[name] for name in shown]
    table = Table("", "", *headers, title=f"oracle of {of}, J&F in percent", title_justify="left")
    for row in report.slices:
        values = (row[name] for name in shown)
        cells = (f"{v:.2f}" if isinstance(v, float) else str(v or "") for v in values)
        table.add_row(row["slice"], row["value"], *cells)
    console.print(table)
    whole = report.slices[0]
    typer.echo(f"better tracks would bring up to {whole['better_tracks']:.2f} (100 - oracle)")
    if report.run_id:
        typer.echo(
            f"better than {report.run_id} is the oracle by {whole['better_selection']:.2f}, and "
            "than the oracle in its scores, which is found without a bound, by "
            f"{whole['not_found_before']:.2f}"
        )
    if covers := report.coverage:
        typer.echo(
            f"{covers['objects']} objects: {covers['covered']:.2f} % covered (mean J of 0.5), by "
            f"one track {covers['by_one_track']:.2f} %; fragmented {covers['fragmented']:.2f} %; "
            f"duplicates of each {covers['duplicates']:.2f}; mean J of the best union "
            f"{covers['oracle_j']:.2f}, of the best track {covers['one_track_j']:.2f}"
        )
    if bare := report.without_tracks:
        typer.echo(f"without tracks: {len(bare)} videos: {_listed(bare)}")
    if report.open:
        widest = [
            f"{e['video_id']}/{e['expression_id']} {100 * e['jf']:.2f} to {100 * e['jf_bound']:.2f}"
            for e in report.open
        ]
        typer.echo(f"not certain (--work more): {len(widest)} expressions: {_listed(widest)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
