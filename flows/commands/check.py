"""The command that looks for faults of a data set."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import DatasetName, OwnName, explained


def check(
    root: Annotated[Path, typer.Argument(help="Folder of the data set, or of videos.")],
    dataset: DatasetName = "mevis",
    dataset_name: OwnName = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split; may be repeated; default: all.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Decode every image, not only headers.")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Also find texts too long for this recipe's text encoder.")
    ] = None,
    format: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """All faults of a data set, each with its file and line or key.

    Example: `sola check ref-davis --dataset ref-davis17 --split val`

    Exit code 1 if there are any. It finds files and folders that are missing, malformed JSON, CSV
    and lists, frames, masks and label images that are missing, broken or of a wrong size, masks
    that do not decode, expressions without text or of unknown objects, and names that cannot be
    file names.
    `docs/data-sets.md` lists every case by data set.
    """
    from flows.progress import video_progress
    from warehouse.sources import data_set_name
    from warehouse.sources.check import check_dataset

    with explained():
        if format not in ("text", "json"):
            raise ValueError(f"there is no format {format!r}; valid are: text, json")
        named = data_set_name(dataset, dataset_name)
        fault = _text_fault(recipe) if recipe else None
        checks = check_dataset(
            dataset, root, split or (), video_progress, full=full, text_fault=fault
        )
    problems = [problem for found in checks for problem in found.problems]
    if format == "json":
        counts = {"problems": len(problems), "splits": [asdict(check) for check in checks]}
        typer.echo(json.dumps({"dataset": named, "root": str(root), **counts}, indent=2))
    else:
        for problem in problems:
            where = "/".join(filter(None, [problem.split, problem.video_id]))
            typer.echo(f"{where}: {problem.message}")
        for found in checks:
            typer.echo(
                f"{found.split}: {found.videos} videos, {found.expressions} expressions, "
                f"{found.frames} frames, {len(found.problems)} problems"
            )
    raise typer.Exit(1 if problems else 0)


def _text_fault(recipe: str) -> Callable[[str], str | None]:
    """What says why a recipe's text encoder does not take a text."""
    from sola_model.recipes import recipe_by_name
    from sola_model.text.encoder import TextEncoder

    return TextEncoder(recipe_by_name(recipe).text_encoder).fault
