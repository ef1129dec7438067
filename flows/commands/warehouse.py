"""The commands that look into a warehouse."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import HERE, RecipeName, WarehousePath, explained, finish


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
    recipe: RecipeName = "release",
    run: Annotated[str | None, typer.Option(help="Run id, with --why; default: newest.")] = None,
) -> None:
    """What is done and what failed, by stage and split, and what mends it.

    Example: `sola status --warehouse demo-warehouse`
    """
    from flows.printing import print_status, print_why

    with explained():
        if why:
            print_why(warehouse, why, recipe, run)
        else:
            finish(print_status(warehouse))
