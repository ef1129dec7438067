"""Why each stage of a video is current, stale, failed or missing."""

from collections.abc import Iterator
from pathlib import Path

from tasks.stage import Stage
from tasks.stages import ALL
from tasks.stages.label import LABEL
from tasks.stages.precompute import PRECOMPUTE
from tasks.tables import read_expressions, read_video
from tasks.track_sets import sets_of
from warehouse import Commit, Key, Warehouse, WarehouseError
from warehouse.frames import stat_signature
from warehouse.images import FrameError


def why(store: Warehouse, video_id: str) -> list[str]:
    """A line for each stage and key of every ingested video of this id.

    Raises:
        WarehouseError: no such video.
    """
    found = [key for key in store.current("ingest") if key.video_id == video_id]
    if not found:
        raise WarehouseError(
            f'{store.url} has no video {video_id!r}; `sola query "SELECT video_id FROM videos"` '
            "lists those it has"
        )
    return [line for key in found for line in _of_video(store, key)]


def _of_video(store: Warehouse, video: Key) -> Iterator[str]:
    where = {"dataset": video.dataset, "split": video.split, "video_id": video.video_id}
    for stage in ALL:
        if "video_id" not in stage.keyed_by:
            continue
        current = store.current(stage.name, **where)
        failed = {
            key: commit
            for key, commit in store.failures(stage.name).items()
            if stage.key(video) == key.of(run_id="", track_set="")
        }
        for key in sorted(current | failed | dict.fromkeys(_expected(store, stage, video))):
            named = " ".join(filter(None, [stage.name, *_names(key)]))
            yield f"{named}: {_state(store, stage, current.get(key), failed.get(key))}"


def _expected(store: Warehouse, stage: Stage, video: Key) -> list[Key]:
    """Keys of a stage that a video should have: tracks and, where it is labelled, labels."""
    if stage not in (PRECOMPUTE, LABEL):
        return []
    if stage is LABEL:
        expressions = read_expressions(store, store.current("ingest", [video])[video])
        if all(expression.object_ids is None for expression in expressions):
            return []
    return [video.of(track_set=name) for name in sets_of(store, video.dataset, video.split)]


def _names(key: Key) -> list[str]:
    return [f"{key.dataset}/{key.split}/{key.video_id}", key.track_set, key.run_id]


def _state(store: Warehouse, stage: Stage, current: Commit | None, failed: Commit | None) -> str:
    if failed:
        return f"failed: {failed.error}"
    if not current:
        return "missing"
    made = current.created_at[:19]
    if changed := [*_replaced(store, current), *_frames_replaced(store, stage, current)]:
        return f"stale: changed since {made}: {', '.join(changed)}"
    if current.making.version != stage.version:
        return f"made at {made} by version {current.making.version}, now {stage.version}"
    return "up to date"


def _replaced(store: Warehouse, commit: Commit) -> Iterator[str]:
    """What a commit was made from that there is no more."""
    for given in commit.inputs:
        now = store.current(given.stage, [given.key]).get(given.key)
        if now is None:
            yield f"{given.stage} is gone"
            continue
        changed = [name for name, was in given.contents.items() if now.content(name) != was]
        if changed:
            yield f"{' and '.join(changed)} of {given.stage}"
        elif store.stale([now]):
            yield f"{given.stage} is stale"


def _frames_replaced(store: Warehouse, stage: Stage, ingested: Commit) -> Iterator[str]:
    """Whether the frames' files are others now; what annotations say only `ingest` can tell."""
    if stage.name != "ingest" or not ingested.making.settings:
        return
    video = read_video(store, ingested)
    try:
        files = stat_signature(Path(video["path"]), video["frames"])
    except (FrameError, OSError) as error:
        files = str(error)
    if files != ingested.making.settings["files"]:
        yield "files"
