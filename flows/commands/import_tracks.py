"""The command that brings tracks of other methods in."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    Changes,
    DatasetName,
    RecipeName,
    Split,
    WarehousePath,
    Workers,
    explained,
    finish,
    print_failures,
)


def import_tracks(
    file: Annotated[Path, typer.Argument(help="JSON, or folder or zip of PNG, of any method.")],
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    name: Annotated[
        str | None, typer.Option(help="Name of the method; default: the file's.")
    ] = None,
    no_tokens: Annotated[
        bool, typer.Option("--no-tokens", help="No object tokens: for oracle and export alone.")
    ] = False,
    recipe: RecipeName = None,
    sam2: Annotated[
        str | None, typer.Option(help="SAM2 that makes tokens of the masks; default: the recipe's.")
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer copies it
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Mask tracks made by any method as a track set; prints its name.

    The videos are those of a split of the warehouse. Nothing is imported unless the whole file is
    sound. `docs/data-sets.md` has the layouts.

    Example: `sola import-tracks tracks.json --dataset mevis --split valid_u`
    """
    from flows.checks import check_ingested, check_models, recipe_to_use
    from flows.progress import video_progress
    from sola_model.recipes import chosen_recipe
    from warehouse import Warehouse
    from warehouse.sources.base import check_path_name
    from warehouse.track_files import check_file

    with explained():
        check_path_name(name or file.stem, "the name of the tracks")
        check_ingested(Warehouse(warehouse), dataset, split)
        check_file(file)
        made_by = None
        if not no_tokens:
            used = recipe_to_use(warehouse, recipe, sam2)
            made_by = chosen_recipe(used, changes, "precompute", sam2=sam2)
            check_models(made_by)
        from tasks.import_tracks import import_tracks as bring

        where = (str(warehouse), dataset, split, file, name)
        track_set, outcomes = bring(*where, made_by, workers, video_progress)
    failed = print_failures(outcomes)
    typer.echo(track_set.name)
    finish(failed)
