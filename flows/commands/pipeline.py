"""The commands that run a flow."""

from typing import Annotated, Literal

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
    RunId,
    RunTracks,
    Sam2,
    Split,
    Tracks,
    WarehousePath,
    Workers,
    explained,
    finish,
    running,
)


def demo(
    warehouse: WarehousePath = "demo-warehouse",
    workers: Workers = None,
    size: Annotated[
        Literal["small", "large"],
        typer.Option(help="small: 400 clips. large: 2000 clips and a better selector."),
    ] = "small",
) -> None:
    """The whole method on embedded data and models, from scratch.

    Example: `sola demo`
    """
    from warehouse import Warehouse

    with explained():
        Warehouse.check_place(warehouse)
    from flows.demo import MORE_VIDEOS, VIDEOS
    from flows.demo import demo as flow
    from flows.printing import print_demo_report

    videos, recipe = (MORE_VIDEOS, "demo-large") if size == "large" else (VIDEOS, "demo")
    with running():
        run_id = flow(str(warehouse), videos, recipe, workers)
        print_demo_report(warehouse, run_id)


def precompute(
    root: Root,
    dataset: DatasetName = "mevis",
    dataset_name: OwnName = None,
    split: Split = "train",
    recipe: RecipeName = None,
    sam2: Sam2 = None,
    detector: Prompting = None,
    boxes: Annotated[
        str | None, typer.Option(help="CSV, JSON or Parquet file of detected boxes to prompt with.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Folder of masks to prompt with: VIDEO/FRAME.png, pixel value = object."),
    ] = None,
    ground_truth: GroundTruth = False,
    warehouse: WarehousePath = HERE,
    limit: Limit = None,
    workers: Workers = None,
    shard: Annotated[
        str | None, typer.Option(help="Only a part, e.g. 2/8, the second of eight.")
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer copies it
    corruption: Annotated[
        str | None, typer.Option(help="Of the frames, e.g. gaussian_noise-3.")
    ] = None,
    no_default: Annotated[
        bool, typer.Option("--no-default", help="Other commands go on taking the tracks before.")
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash", help="Look for frames replaced by others of the same size and time."
        ),
    ] = False,
) -> None:
    """Videos to prompt masks, mask tracks and object tokens: a track set.

    A second run does what is new. Other weights or settings make a second set beside the first.

    Example: `sola precompute --root mevis --split train --sam2 sam2.1_hiera_large.pt`
    """
    from flows.checks import check_precompute, recipe_to_use

    with explained():
        recipe = recipe_to_use(warehouse, recipe, sam2)
        check_precompute(
            warehouse, dataset, dataset_name, root, split, recipe, changes, sam2=sam2,
            detector=detector, boxes=boxes, masks=masks, corruption=corruption, shard=shard,
        )  # fmt: skip
        from flows.precompute import asked_tracks
        from flows.precompute import precompute as flow

        asked_tracks(recipe, changes, sam2, detector, boxes, ground_truth, corruption, masks)
    with running():
        summary = flow(
            str(warehouse),
            dataset,
            str(root),
            split,
            recipe,
            sam2,
            detector,
            boxes,
            ground_truth,
            limit,
            workers,
            shard,
            changes,
            corruption,
            not no_default,
            rehash,
            dataset_name,
            masks,
        )
    if not summary.done and not summary.failed:
        typer.echo(
            f"nothing to do: {dataset_name or dataset}/{split} has all these tracks", err=True
        )
    finish(summary.failed)


def baseline(
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    recipe: RecipeName = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Grounding DINO: path, 'demo' or hub id; default: grounding-dino-tiny, or with "
            "the embedded SAM2 the embedded one."
            "the embedded SAM2 the embedded one."
        ),
    ] = None,
    sam2: Annotated[
        str | None,
        typer.Option(help="Checkpoint path, hub id or 'demo'; default: the recipe's."),
    ] = None,
    changes: Changes = [],  # noqa: B006
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """J&F without a selector: the detector's best box of every frame, segmented.

    Its rows in the table `scores` have a run id of their own, to compare runs with.

    Example: `sola baseline --dataset mevis --split valid_u --sam2 sam2.1_hiera_large.pt`
    """
    from flows.checks import check_ingested, check_models, recipe_to_use
    from sola_model.recipes import chosen_recipe
    from warehouse import Warehouse

    with explained():
        store, recipe = Warehouse(warehouse), recipe_to_use(warehouse, recipe, sam2)
        check_models(chosen_recipe(recipe, changes, "baseline", sam2=sam2, detector=detector))
        check_ingested(store, dataset, split)
        from flows.baseline import baseline as flow
        from flows.baseline import baseline_settings
        from flows.here import is_little
        from flows.printing import print_baseline
        from tasks.stages.baseline import baseline_plan, baseline_run

        settings, failed = baseline_settings(recipe, detector, sam2, changes), 0
        if not is_little(baseline_plan(store, dataset, split, settings)):
            from flows.runtime import prefect_api

            with prefect_api():
                asked = (str(warehouse), dataset, split, recipe, detector, sam2, workers, changes)
                failed = flow(*asked).failed
        print_baseline(warehouse, baseline_run(settings), dataset, split)
    finish(failed)


def label(
    dataset: DatasetName = "mevis",
    split: Split = "train",
    recipe: RecipeName = None,
    changes: Annotated[
        list[str], typer.Option("--set", help="Change of the recipe, e.g. label_threshold=0.6.")
    ] = [],  # noqa: B006
    tracks: Tracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Pseudo-labels: IoU of every mask track with every expression's ground truth.

    Example: `sola label --dataset mevis --split train`
    """
    from flows.checks import recipe_to_use
    from sola_model.recipes import chosen_recipe
    from tasks.track_sets import tracks_for
    from warehouse import Warehouse

    with explained():
        store, recipe = Warehouse(warehouse), recipe_to_use(warehouse, recipe)
        settings = chosen_recipe(recipe, changes, "label")
        track_set = tracks_for(store, dataset, split, tracks).name
        from flows.here import is_little
        from flows.label import label as flow
        from tasks.stages.label import label_plan

        failed = 0
        if not is_little(label_plan(store, dataset, split, track_set, settings)):
            from flows.runtime import prefect_api

            with prefect_api():
                asked = (str(warehouse), dataset, split, recipe, workers, changes, track_set)
                failed = flow(*asked).failed
    finish(failed)


def evaluate(
    dataset: DatasetName = "mevis",
    split: Split = "valid_u",
    run: RunId = None,
    tracks: RunTracks = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Predictions of a run; with ground truth, their J&F beside the oracle's.

    The data set need not be the one that the run was trained on (zero-shot).

    Example: `sola evaluate --dataset mevis --split valid_u --run release-1a2b3c4d`
    """
    from tasks.runs import find_run
    from warehouse import Warehouse

    with explained():
        store = Warehouse(warehouse)
        chosen = find_run(store, run)
        track_set = chosen.tracks_of(store, dataset, split, tracks).name
        from flows.here import is_little, make_here
        from flows.printing import print_evaluation
        from tasks.stages.evaluate import score_plan

        plan = score_plan(store, chosen, dataset, split, track_set)
        if is_little(plan):
            failed = make_here(plan)
        else:
            from flows.evaluate import evaluate as flow
            from flows.runtime import prefect_api

            with prefect_api():
                asked = (str(warehouse), dataset, split, chosen.run_id, workers, track_set)
                failed = flow(*asked).failed
        print_evaluation(warehouse, chosen.run_id, dataset, split, track_set)
    finish(failed)
