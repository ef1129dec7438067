"""The command line `sola`. Each command is a function in `flows/commands/`, listed here."""

import io
import sys
import tomllib
from importlib import metadata
from typing import Annotated

import typer

from flows.commands import (
    check,
    checkpoint,
    compare,
    experiment,
    import_tracks,
    oracle,
    pipeline,
    preflight,
    report,
    submission,
    tidy,
    training,
    use,
    warehouse,
)

app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Referring video object segmentation by language-aligned track selection (SOLA). "
    "Example: `sola demo`",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sola {metadata.version('sola-rvos')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


PANELS = {
    "From videos to scores": (
        pipeline.demo,
        preflight.doctor,
        check.check,
        preflight.plan,
        pipeline.precompute,
        import_tracks.import_tracks,
        pipeline.label,
        training.train,
        checkpoint.import_checkpoint,
        pipeline.evaluate,
        pipeline.baseline,
    ),
    "Use and judge a trained selector": (
        use.segment,
        use.search,
        use.label_export,
        report.report,
        compare.compare,
        oracle.oracle,
        experiment.experiment,
        submission.submit,
        submission.score,
        submission.export,
    ),
    "The warehouse": (
        warehouse.query,
        warehouse.status,
        warehouse.tracks,
        warehouse.remove,
        warehouse.upgrade,
        tidy.verify,
        tidy.compact,
        tidy.gc,
    ),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Entry point of the command `sola`."""
    for stream in (sys.stdout, sys.stderr):  # names may hold what a terminal's encoding has not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="sola")
    except tomllib.TOMLDecodeError as error:  # only Prefect reads TOML, when it is imported
        sys.exit(
            f"error: a settings file of Prefect is not TOML: {error}. Mend or remove profiles.toml "
            "in PREFECT_HOME (~/.prefect), or prefect.toml in this folder."
        )


if __name__ == "__main__":
    main()
