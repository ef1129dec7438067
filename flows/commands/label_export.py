"""The command that turns what a run is sure of into a data set."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    DatasetName,
    Split,
    WarehousePath,
    Workers,
    console,
    explained,
    finish,
)


def label_export(
    out: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet.")],
    above: Annotated[
        float, typer.Option(help="Score that every track an expression selects exceeds.")
    ] = 0.8,
    dataset: DatasetName = "mevis",
    split: Split = "valid",
    as_split: Annotated[
        str, typer.Option("--as", help="Name of the split to write; not valid or test.")
    ] = "auto",
    run: Annotated[str | None, typer.Option(help="Run id; default: the newest run.")] = None,
    tracks: Annotated[
        str | None,
        typer.Option(help="Track set; default: made as those that the run was trained on."),
    ] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Auto-labelling: what a run is sure of, as a data set in MeViS's layout.

    Example: `sola label-export --dataset mevis --split valid --above 0.8 --out mevis-auto`

    Expressions are taken with the masks of the selected tracks. An expression with a selected
    track of a lower score is left out. To train on the result, give the data set's name and
    `--root mevis-auto --split auto` to `sola precompute`, and go on as with any other split.
    """
    from flows.progress import video_progress
    from tasks.results.label_export import export_labels

    with explained():
        made = export_labels(
            str(warehouse),
            run,
            dataset,
            split,
            above,
            out,
            as_split,
            workers,
            video_progress,
            tracks,
        )
    for message in made.skipped:
        console.print(f"skipped: {message}", markup=False, highlight=False)
    typer.echo(
        f"{out / as_split}: {made.expressions} of {made.of_expressions} expressions, "
        f"{made.tracks} tracks, {made.videos} videos"
    )
    finish(len(made.skipped))
