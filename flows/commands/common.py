"""What the commands share: options, a Prefect API, errors explained, exit codes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from tasks.stage import Outcome

console = Console(stderr=True, markup=False, emoji=False, soft_wrap=True)  # paths stay whole

WarehousePath = Annotated[
    str,
    typer.Option(
        "--warehouse",
        envvar="SOLA_WAREHOUSE",
        help="Folder of the warehouse, or s3://bucket/prefix.",
    ),
]
DatasetName = Annotated[
    str,
    typer.Option(
        help="mevis, mevis-v2, ref-youtube-vos, ref-davis17, pascal-voc, demo, folder (videos of "
        "your own) or labelled (with masks); names the rows, too."
    ),
]
OwnName = Annotated[
    str | None,
    typer.Option(
        "--dataset-name",
        help="Name of the rows, and of --dataset from then on; default: that of --dataset.",
    ),
]
Root = Annotated[Path, typer.Option(help="Folder of the data set, or of videos, or a video.")]
Sam2 = Annotated[
    str | None, typer.Option(help="Checkpoint path, hub id or 'demo'; default: the recipe's.")
]
Prompting = Annotated[
    str | None,
    typer.Option(help="Grounding DINO (path, hub id or 'demo') whose boxes prompt as well."),
]
GroundTruth = Annotated[
    bool, typer.Option("--ground-truth", help="Tracks of ground-truth masks too, to train on.")
]
Split = Annotated[str, typer.Option(help="Split of the data set, e.g. train or valid_u.")]
RecipeName = Annotated[
    str | None, typer.Option(help="Such as release or demo; default: the last used.")
]
Changes = Annotated[
    list[str], typer.Option("--set", help="Change of the recipe, such as extraction.batch=8.")
]
Tracks = Annotated[
    str | None,
    typer.Option("--tracks", help="Track set; default: the split's, see sola tracks."),
]
RunId = Annotated[str | None, typer.Option(help="Run id; default: the newest run.")]
RunTracks = Annotated[
    str | None,
    typer.Option("--tracks", help="Track set; default: one made as those the run was trained on."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; default: one per GPU, or per CPU core.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many videos.")]

HERE = "sola-warehouse"


@contextmanager
def explained() -> Iterator[None]:
    """Errors that a user can mend end in their message and exit code 1, without a traceback."""
    import duckdb

    from flows.server import ServerError

    try:
        yield
    except (ValueError, OSError, ServerError, duckdb.Error) as error:
        console.print(
            f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


@contextmanager
def running() -> Iterator[None]:
    """A Prefect API for the flows, and errors explained."""
    from flows.runtime import prefect_api

    with explained(), prefect_api():
        yield


def print_failures(outcomes: "Sequence[Outcome]") -> int:
    """Name the videos that failed on standard error; gives their number."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        typer.echo(f"{outcome.video_id} failed: {outcome.message}", err=True)
    return len(failed)


def finish(failures: int) -> None:
    """Exit code 2 when some videos failed: everything else was done."""
    if failures:
        raise typer.Exit(2)
