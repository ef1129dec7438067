"""The command line `sola`. Each command is a function in `flows/commands/`, listed here."""

import sys

import typer

from flows.commands import (
    check,
    checkpoint,
    compare,
    experiment,
    label_export,
    pipeline,
    report,
    search,
    segment,
    submission,
    tidy,
    training,
    warehouse,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Referring video object segmentation by language-aligned track selection (SOLA).\n\n"
    "Example: `sola demo`",
)
PANELS = {
    "From videos to scores": (
        pipeline.demo,
        check.check,
        pipeline.precompute,
        pipeline.label,
        training.train,
        checkpoint.import_checkpoint,
        pipeline.evaluate,
        pipeline.baseline,
    ),
    "Use a trained selector": (
        segment.segment,
        search.search,
        label_export.label_export,
    ),
    "Results": (
        report.report,
        compare.compare,
        experiment.experiment,
        submission.submit,
        submission.score,
        submission.export,
    ),
    "The warehouse": (
        warehouse.query,
        warehouse.status,
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
        stream.reconfigure(errors="backslashreplace")
    app(prog_name="sola")


if __name__ == "__main__":
    main()
