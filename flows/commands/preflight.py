"""The commands for before a long run: is it right here, and what will it cost."""

import json
from typing import Annotated

import typer

from flows.commands.common import (
    HERE,
    Changes,
    DatasetName,
    GroundTruth,
    Limit,
    OwnName,
    Prompting,
    RecipeName,
    Root,
    Sam2,
    Split,
    WarehousePath,
    Workers,
    explained,
)


def doctor(
    sam2: Annotated[str | None, typer.Option(help="Checkpoint path, hub id or 'demo'.")] = None,
    detector: Annotated[
        str | None, typer.Option(help="Grounding DINO: path, hub id or 'demo'.")
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="Of a selector to train: path, hub id or 'demo'.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Whose settings and text width count; default: release, or demo for the embedded "
            "models."
        ),
    ] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Whether extraction is right on this machine, with these models.

    A line for each finding: ok, warning or fault, and what to do. Exit code 1 if there is a fault.

    Example: `sola doctor --sam2 sam2.1_hiera_large.pt`

    It looks at versions, devices, memory and disk, loads each model, and tracks the objects of a
    clip of five frames twice: as `sola precompute` does, and with the official SAM2 predictor as
    the release does. Where there is a GPU, that is compared with the CPU, too. Without models it
    takes the embedded ones, and less than a minute.
    """
    from flows.checks import EMBEDDED
    from sola_model.recipes import recipe_by_name

    with explained():
        if not (sam2 or detector or text_encoder):
            sam2 = detector = text_encoder = EMBEDDED
        embedded = {sam2, detector, text_encoder} <= {None, EMBEDDED}
        chosen = recipe_by_name(recipe or (EMBEDDED if embedded else "release"))
        from dataclasses import replace

        from tasks.doctor import examine

        chosen = replace(chosen, text_encoder=text_encoder or chosen.text_encoder)
        models = {"sam2": sam2, "detector": detector, "text_encoder": text_encoder}
        findings = []
        for finding in examine(chosen, str(warehouse), **models, workers=workers):
            findings.append(finding)
            if not as_json:
                advice = f" -> {finding.advice}" if finding.advice else ""
                typer.echo(f"{finding.state:8} {finding.what}: {finding.found}{advice}")
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    raise typer.Exit(any(finding.state == "fault" for finding in findings))


def plan(
    root: Root,
    dataset: DatasetName = "mevis",
    dataset_name: OwnName = None,
    split: Split = "train",
    recipe: RecipeName = None,
    sam2: Sam2 = None,
    detector: Prompting = None,
    ground_truth: GroundTruth = False,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
    workers: Workers = None,
    changes: Changes = [],  # noqa: B006 - typer copies it
    measured: Annotated[
        int,
        typer.Option(min=2, help="Videos to measure: with more of them the intervals shrink."),
    ] = 3,
    gpu_hour_price: Annotated[
        float | None, typer.Option(min=0, help="Of an hour of a GPU (or a worker), for the costs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What the tracks of a split will cost: hours, disk, memory and money.

    It reads the split and makes the tracks of three videos, which are kept: `sola precompute` with
    the same arguments goes on from there.

    Example: `sola plan --root mevis --split train --sam2 sam2.1_hiera_large.pt --gpu-hour-price 2`

    The plan is kept, too: `sola query cost_by_stage` has it beside what was spent. Once videos are
    done, it is made from all of them, and measures none.
    """
    from flows.checks import check_precompute, recipe_to_use

    with explained():
        recipe = recipe_to_use(warehouse, recipe, sam2)
        check_precompute(
            warehouse, dataset, dataset_name, root, split, recipe, changes, sam2=sam2,
            detector=detector,
        )  # fmt: skip
        from flows.plan import plan_split
        from flows.printing_plan import as_lines, as_values
        from flows.runtime import worker_count

        planned = plan_split(
            str(warehouse),
            dataset,
            str(root),
            split,
            recipe,
            changes,
            sam2=sam2,
            detector=detector,
            ground_truth=ground_truth,
            limit=limit,
            dataset_name=dataset_name,
            measured=measured,
        )
        workers = worker_count(True, workers)
        if as_json:
            typer.echo(json.dumps(as_values(planned, workers, gpu_hour_price), indent=2))
        else:
            typer.echo("\n".join(as_lines(planned, workers, gpu_hour_price, str(warehouse))))
