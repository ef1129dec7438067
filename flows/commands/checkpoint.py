"""The command that brings released weights in."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.common import HERE, WarehousePath, explained


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="Released state dict, e.g. epoch_15.pth.")],
    recipe: Annotated[str, typer.Option(help="The recipe it was trained with.")] = "release",
    changes: Annotated[
        list[str], typer.Option("--set", help="Change of the recipe, such as selector.heads=4.")
    ] = [],  # noqa: B006 - typer copies it
    name: Annotated[
        str | None, typer.Option(help="Name of the run; default: the recipe's.")
    ] = None,
    warehouse: WarehousePath = HERE,
    out: Annotated[
        Path | None, typer.Option(help="Only write safetensors and configuration there.")
    ] = None,
) -> None:
    """A released checkpoint as a run to evaluate; prints the run id.

    Example: `sola import-checkpoint epoch_15.pth --recipe release`
    """
    from sola_model.recipes import chosen_recipe
    from sola_model.selector.checkpoints import import_checkpoint as read
    from sola_model.selector.checkpoints import save_selector
    from tasks.training.import_checkpoint import import_run
    from warehouse.outputs import check_output

    with explained():
        settings = chosen_recipe(recipe, changes, "import-checkpoint")
        if out is None:
            typer.echo(import_run(str(warehouse), str(checkpoint), settings, name))
        else:
            if out.is_dir():
                for name in ("selector.safetensors", "selector.json"):
                    check_output(out / name, [checkpoint])
            save_selector(read(checkpoint, settings), out)
