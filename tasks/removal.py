"""Take videos, or a track set, out of a warehouse, with everything that was made from them."""

from collections.abc import Collection, Mapping

from tasks.stage import Stage
from tasks.stages import ALL
from warehouse import Commit, Warehouse, WarehouseError
from warehouse.compact import compact


def remove(
    store: Warehouse, dataset: str, split: str, video_ids: Collection[str], tracks: str | None
) -> int:
    """Remove videos of a split, or what was made of a track set (of these videos, or of all).

    Rows are in no query from then on, and files that other videos share are written again without
    them. Gives the number of commits.

    Raises:
        WarehouseError: nothing is named, or there is no such video or track set.
    """
    if not video_ids and not tracks:
        raise WarehouseError("name the videos to remove, or a track set with --tracks")
    where = {"dataset": dataset, "split": split} | ({"track_set": tracks} if tracks else {})
    found = [
        commit
        for stage in ALL
        for commit in _of_stage(store, stage, where)
        if (commit.key.video_id in video_ids if video_ids else True)
    ]
    known = {commit.key.video_id for commit in found}
    missing = sorted(set(video_ids) - known) or ([] if found else [tracks or ""])
    if missing:
        raise WarehouseError(
            f"{dataset}/{split} has no {', '.join(missing)}; nothing was removed. "
            "`sola tracks` lists the track sets, `sola query tracks_per_video` the videos."
        )
    for commit in found:
        store.withdraw(commit)
    compact(store)
    return len(found)


def _of_stage(store: Warehouse, stage: Stage, where: Mapping[str, str]) -> list[Commit]:
    """What a stage made, and what it failed on and never made."""
    made = store.current(stage.name, **where)
    failed = {
        key: commit
        for key, commit in store.failures(stage.name).items()
        if all(getattr(key, name) == value for name, value in where.items())
    }
    return list((failed | made).values())
