"""The command line `sola`. Each command is a function in `flows/commands/`, listed here."""

import sys

import typer

from flows.commands import check, compare, pipeline, warehouse

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Referring video object segmentation by language-aligned track selection (SOLA).",
)
for command in (
    pipeline.demo,
    check.check,
    pipeline.precompute,
    pipeline.label,
    pipeline.train,
    pipeline.evaluate,
    compare.compare,
    warehouse.query,
    warehouse.status,
):
    app.command()(command)


def main() -> None:
    """Entry point of the command `sola`."""
    app(prog_name="sola")


if __name__ == "__main__":
    sys.exit(main())
