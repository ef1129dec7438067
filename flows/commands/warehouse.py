"""The commands that look into a warehouse."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    DatasetName,
    Split,
    WarehousePath,
    explained,
    finish,
)


def query(
    sql: Annotated[str | None, typer.Argument(help="SQL, or the name of a query.")] = None,
    warehouse: WarehousePath = HERE,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write; parquet needs one.")] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Let SQL write, too, and reach files and the network.")
    ] = False,
) -> None:
    """SQL over the warehouse; without SQL, the named queries and tables there are.

    One statement that asks for rows of this warehouse. It uses at most half of the memory; what
    exceeds that goes to a folder below TMPDIR, which is removed afterwards.

    Example: `sola query worst_expressions` or `sola query --format csv "SELECT * FROM scores"`
    """
    from flows.printing import print_catalogue, write_result

    with explained():
        if sql is None:
            print_catalogue()
        else:
            write_result(warehouse, sql, format, out, unsafe)


def status(
    warehouse: WarehousePath = HERE,
    why: Annotated[
        str | None, typer.Option(help="Video id: what of it is stale, and what has changed.")
    ] = None,
) -> None:
    """What is done, stale and failed, by stage and track set; how to repair it.

    Example: `sola status --warehouse demo-warehouse`
    """
    from flows.printing import print_status, print_why

    with explained():
        if why:
            print_why(warehouse, why)
        else:
            finish(print_status(warehouse))


def tracks(
    dataset: Annotated[str | None, typer.Option(help="Only of this data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Only of this split.")] = None,
    default: Annotated[
        str | None, typer.Option(help="Let commands take this set of the split from now on.")
    ] = None,
    warehouse: WarehousePath = HERE,
) -> None:
    """How the tracks of each split were made, what they cost, what uses them.

    Example: `sola tracks --warehouse demo-warehouse`
    """
    from flows.printing import print_tracks
    from tasks.track_sets import make_default
    from warehouse import Warehouse

    with explained():
        if default is not None:
            if not (dataset and split):
                raise ValueError("--default is for one split: give --dataset and --split too")
            make_default(Warehouse(warehouse), dataset, split, default)
        print_tracks(warehouse, dataset, split)


def remove(
    videos: Annotated[list[str] | None, typer.Argument(help="Ids of videos.")] = None,
    dataset: DatasetName = "mevis",
    split: Split = "train",
    tracks: Annotated[
        str | None, typer.Option(help="Track set to remove, of these videos or of all.")
    ] = None,
    warehouse: WarehousePath = HERE,
) -> None:
    """Take out videos, or a track set, with everything made from them.

    Their rows are in no query from then on. `sola gc` then deletes them from the disk. Weights of
    runs that were trained on them stay.

    Example: `sola remove 0a1b2c --dataset mevis --split train`
    """
    from tasks.removal import remove as take_out
    from warehouse import Warehouse

    with explained():
        count = take_out(Warehouse(warehouse), dataset, split, videos or [], tracks)
    what = " and ".join(filter(None, [", ".join(videos or []), tracks and f"tracks {tracks}"]))
    typer.echo(
        f"removed {what} from {dataset}/{split}, {count} results in all; `sola gc` deletes them "
        "from the disk"
    )


def upgrade(
    warehouse: WarehousePath = HERE,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe that tracks or labels may have been made with.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change of it, such as extraction.batch=8; each may hold."),
    ] = None,
    sam2: Annotated[
        list[str] | None, typer.Option(help="Checkpoint that tracks may have been made with.")
    ] = None,
) -> None:
    """Bring a warehouse that an earlier version wrote to the format of this one.

    Nothing is computed again, and only records are written: it takes seconds. Nobody else may use
    the warehouse meanwhile. After a kill it is as before, and the same command goes on.

    What tracks were made with is found among the settings of runs and recipes; where it is none of
    them, --recipe, --set and --sam2 say what it was.

    Example: `sola upgrade --warehouse sola-warehouse`
    """
    from tasks.upgrade.format_2 import upgrade as bring

    with explained():
        count = bring(warehouse, recipe, changes or (), sam2 or ())
        print(f"took over {count} commits" if count else "it has the format of this version")
