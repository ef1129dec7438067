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
    them. What a running stage makes of them meanwhile goes, too. Gives the number of commits.

    Raises:
        WarehouseError: nothing is named, or there is no such video or track set.
    """
    if not video_ids and tracks is None:
        raise WarehouseError("name the videos to remove, or a track set with --tracks")
    if "" in (*video_ids, tracks):  # where a shell's variable is not set
        raise WarehouseError("the name of a video or track set is empty; nothing was removed")
    where = {"dataset": dataset, "split": split} | ({"track_set": tracks} if tracks else {})
    found = _made(store, where, video_ids)
    known = {commit.key.video_id for commit in found}
    missing = sorted(set(video_ids) - known) or ([] if found else [tracks or ""])
    if missing:
        raise WarehouseError(
            f"{dataset}/{split} has no {', '.join(missing)}; nothing was removed. "
            "`sola tracks` lists the track sets, `sola query tracks_per_video` the videos."
        )
    count = 0
    while found:
        for commit in found:
            store.withdraw(commit)
        count += len(found)
        found = _made(store, where, video_ids)
    compact(store)
    return count


def _made(store: Warehouse, where: Mapping[str, str], video_ids: Collection[str]) -> list[Commit]:
    """What there is of these videos, or of all, in every stage."""
    return [
        commit
        for stage in ALL
        for commit in _of_stage(store, stage, where)
        if not video_ids or commit.key.video_id in video_ids
    ]


def _of_stage(store: Warehouse, stage: Stage, where: Mapping[str, str]) -> list[Commit]:
    """What a stage made, and what it failed on and never made."""
    made = store.current(stage.name, **where)
    failed = {
        key: commit
        for key, commit in store.failures(stage.name).items()
        if all(getattr(key, name) == value for name, value in where.items())
    }
    return list((failed | made).values())
