"""What can be refused from the arguments and the warehouse alone, before anything slow begins.

Nothing here imports torch or Prefect, so that a wrong argument is answered at once.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from sola_model.detection.names import check_detector
from sola_model.extraction.trackers import check_weights
from sola_model.recipes import RECIPES, Recipe, check_concerns, chosen_recipe, override
from tasks.runs import Run, find_run, last_recipe
from tasks.shards import in_shard
from tasks.track_sets import check_tokens, sets_of, tracks_for
from warehouse import Warehouse, WarehouseError
from warehouse.corruptions import check_corruption
from warehouse.own_video import check_own_video
from warehouse.sources import check_reads, data_set_name

EMBEDDED = "demo"  # the name of embedded models, and of the recipe that is made for them


def recipe_to_use(warehouse: str, named: str | None, sam2: str | None = None) -> str:
    """The recipe that is named, else the one last used in the warehouse, else release.

    Models must fit: with the embedded SAM2 it is demo, where another was used, and what was last
    used is not taken with another SAM2 if it is of the embedded models. Standard error says which
    recipe it is where nobody named it.
    """
    if named:
        return named
    try:
        last, why = last_recipe(Warehouse(warehouse)), "last used in this warehouse"
    except WarehouseError:
        last, why = None, ""  # there is none yet
    if sam2 and (sam2 == EMBEDDED) != (last is not None and RECIPES[last].sam2 == EMBEDDED):
        last, why = (EMBEDDED if sam2 == EMBEDDED else None), "made for the embedded SAM2"
    if last:
        print(f"recipe {last}, {why}; --recipe names another", file=sys.stderr)
    return last or "release"


def splits_of(datasets: list[str], splits: str | list[str]) -> list[tuple[str, str]]:
    """Each data set with its split."""
    names = [splits] if isinstance(splits, str) else splits
    if len(names) == 1:
        names = names * len(datasets)
    if len(names) != len(datasets):
        raise ValueError(
            f"{len(datasets)} data sets ({', '.join(datasets)}) and {len(names)} splits "
            f"({', '.join(names)}): give one split for all, or one for each."
        )
    return list(zip(datasets, names, strict=True))


def check_models(recipe: Recipe) -> None:
    """Raise ValueError for a tracker, its weights or a detector that cannot be."""
    from tasks.stages.precompute import check_tracker  # brings all stages with it

    check_tracker(recipe.tracker)
    check_weights(recipe.tracker, recipe.sam2)
    if recipe.detector:
        check_detector(recipe.detector)


def check_precompute(
    warehouse: str,
    dataset: str,
    dataset_name: str | None,
    root: str | Path,
    split: str,
    recipe: str,
    changes: Sequence[str],
    *,
    sam2: str | None = None,
    detector: str | None = None,
    boxes: str | None = None,
    masks: str | None = None,
    corruption: str | None = None,
    shard: str | None = None,
) -> None:
    """Raise ValueError for arguments of `flows.precompute` that cannot be."""
    check_models(chosen_recipe(recipe, changes, "precompute", sam2=sam2, detector=detector))
    in_shard(shard)
    check_corruption(corruption)
    if boxes and not Path(boxes).is_file():
        raise ValueError(f"{boxes}: no such file; give a CSV, JSON or Parquet file of boxes")
    if masks and not Path(masks).is_dir():
        raise ValueError(f"{masks}: no such folder; give one of label images VIDEO/FRAME.png")
    data_set_name(dataset, dataset_name)
    check_reads(dataset, Path(root), split)
    Warehouse.check_place(warehouse)


def check_ingested(store: Warehouse, dataset: str, split: str) -> None:
    """Raise WarehouseError when a split has no videos in the warehouse."""
    if not store.current("ingest", dataset=dataset, split=split):
        there = sorted({f"{key.dataset}/{key.split}" for key in store.current("ingest")})
        raise WarehouseError(
            f"there are no videos of {dataset}/{split} in {store.url}. It has: "
            f"{', '.join(there) or 'none yet'}. Run `sola precompute --dataset {dataset} --root "
            f"DIR --split {split}` first."
        )


def check_train(
    warehouse: str,
    datasets: list[str],
    splits: list[str],
    validation: list[str],
    recipe: str,
    changes: Sequence[str],
    parent: str | None,
    tracks: Sequence[str],
) -> None:
    """Raise ValueError for arguments of `flows.train` that cannot be.

    A validation split that nobody named may be missing: then there is no validation.
    """
    store = Warehouse(warehouse)
    check_concerns(changes, "train")
    override(find_run(store, parent).recipe if parent else chosen_recipe(recipe), changes)
    training = splits_of(datasets, splits)
    held_out = splits_of(datasets, validation)
    for dataset, split in training:
        named = set(tracks) & sets_of(store, dataset, split).keys()
        check_tokens(tracks_for(store, dataset, split, next(iter(named), None)))
    for dataset, split in held_out if validation != ["valid_u"] else []:
        tracks_for(store, dataset, split)
    if tracks:
        known = {n for each in (*training, *held_out) for n in sets_of(store, *each)}
        if unknown := set(tracks) - known:
            raise WarehouseError(
                f"no split of these has a track set {', '.join(sorted(unknown))}. There are: "
                f"{', '.join(sorted(known))}."
            )


def check_evaluated(
    store: Warehouse, run: str | None, dataset: str | None, splits: Sequence[str]
) -> Run:
    """The run of this id, or the newest. Raises WarehouseError if it was not evaluated there."""
    found = find_run(store, run)
    there = {(k.dataset, k.split) for k in store.current("evaluate", run_id=found.run_id)}
    there = {on for on in there if dataset in (None, on[0])}
    if not there or set(splits) - {split for _, split in there}:
        asked = ", ".join("/".join(filter(None, [dataset, s])) for s in splits or [""])
        has = ", ".join(sorted("/".join(on) for on in there)) or "none yet"
        raise WarehouseError(
            f"there are no predictions of run {found.run_id} for {asked or 'any split'}. It has: "
            f"{has}. Run `sola evaluate --run {found.run_id}` with --dataset and --split first."
        )
    return found


def check_searched(
    store: Warehouse, dataset: str | None, split: str | None, tracks: str | None
) -> None:
    """Raise WarehouseError when no track set is of this data set, split and name."""
    there = list(store.current("track_set"))
    asked = {"dataset": dataset, "split": split, "track_set": tracks}
    if not any(all(value in (None, getattr(k, n)) for n, value in asked.items()) for k in there):
        named = ", ".join(f"{name} {value}" for name, value in asked.items() if value)
        has = ", ".join(sorted(f"{k.dataset}/{k.split}/{k.track_set}" for k in there))
        raise WarehouseError(
            f"there are no mask tracks of {named or 'any data set'} in {store.url}. It has: "
            f"{has or 'none yet; `sola precompute` makes them'}."
        )


def check_segment(
    video: str | Path,
    sentences: Sequence[str],
    tracker: str,
    sam2: str | None,
    detector: str | None,
) -> None:
    """Raise ValueError for arguments of `sola segment` that cannot be; `tracker`: the run's."""
    check_own_video(video)
    if not all(text.strip() for text in sentences):
        raise ValueError(f'the sentences are {list(sentences)}: give one or more, "in quotes"')
    if sam2:
        check_weights(tracker, sam2)
    if detector:
        check_detector(detector)


def check_experiment(
    warehouse: str,
    dataset: str,
    root: str | Path | None,
    splits: Sequence[str],
    recipe: str | None,
    changes: Sequence[str],
    sam2: str | None,
    detector: str | None,
    run: str | None,
) -> None:
    """Raise ValueError for arguments of `flows.experiment` that cannot be."""
    check_models(chosen_recipe(recipe or "release", changes, sam2=sam2, detector=detector))
    if root:
        for split in splits:
            check_reads(dataset, Path(root), split)
    if root or dataset == EMBEDDED:
        Warehouse.check_place(warehouse)
    else:
        for split in splits:
            tracks_for(Warehouse(warehouse), dataset, split)
    if run:
        find_run(Warehouse(warehouse), run)
