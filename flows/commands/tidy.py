"""The commands that check a warehouse and keep it small."""

import re
from typing import Annotated

import typer

from flows.commands.common import HERE, WarehousePath, explained

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
OlderThan = Annotated[
    str, typer.Option(help="Only what is that old: a number and s, m, h or d, such as 90m.")
]


def verify(
    warehouse: WarehousePath = HERE,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
    delete_damaged: Annotated[
        bool, typer.Option("--delete-damaged", help="Delete damaged files: they count as missing.")
    ] = False,
    older_than: OlderThan = "1h",
) -> None:
    """Check every file against its record; says what is wrong and how to repair it.

    Exit code 1 when something is. Files that no record names count when they are old enough.

    Example: `sola verify --warehouse demo-warehouse`
    """
    from flows.problems import print_problems

    with explained():
        found = print_problems(warehouse, format, delete_damaged, seconds(older_than))
    if found:
        raise typer.Exit(1)


def compact(warehouse: WarehousePath = HERE) -> None:
    """Merge small files into large ones: SQL gets faster.

    Safe while others read and write. What was merged stays, for readers that are open, until
    `sola gc` removes it.

    Example: `sola compact --warehouse demo-warehouse`
    """
    from warehouse import Warehouse
    from warehouse.compact import compact as merge

    with explained():
        done = merge(Warehouse(warehouse))
        files = f"from {done.files_before} to {done.files_after} data files"
        print(f"moved {done.commits} commits {files}" if done.commits else "nothing to merge")


def gc(
    warehouse: WarehousePath = HERE,
    older_than: OlderThan = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove superseded data, leftovers of kills, and what compaction has replaced.

    Readers that are open stay whole for as long as --older-than says, and so long a publish may
    take: give more than the longest of them.

    Example: `sola gc --older-than 1d`
    """
    from warehouse import Warehouse
    from warehouse.collect import collect_garbage, find_garbage

    with explained():
        collect = find_garbage if dry_run else collect_garbage
        garbage = collect(Warehouse(warehouse), seconds(older_than))
        print(
            f"{'would remove' if dry_run else 'removed'} {len(garbage.files)} files, "
            f"{sum(file.size for file in garbage.files) / 1e6:.1f} MB: "
            f"{len(garbage.data)} data, {len(garbage.records)} commit records, "
            f"{len(garbage.weights)} weights, {len(garbage.temporary)} left by kills"
        )


def seconds(text: str) -> float:
    """The seconds in a duration such as 90m. Raises ValueError for anything else."""
    if not (match := re.fullmatch(r"(\d+)([smhd])", text)):
        raise ValueError(f"{text!r} is no duration; give a number and s, m, h or d, such as 90m")
    return int(match[1]) * SECONDS[match[2]]
