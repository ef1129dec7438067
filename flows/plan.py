"""What the tracks of a split will cost, from those of a few videos, which are kept."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import torch

from flows.here import make_one_by_one
from flows.precompute import asked_tracks
from tasks.costs import Estimate, estimate, line_through, spanning, together
from tasks.stage import Plan, adopt
from tasks.stages.detect import DETECT
from tasks.stages.ingest import ingest_split
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE, TRACKERS, track_plan
from tasks.track_sets import TrackSet, continued, remember
from tasks.worker import device, device_name
from warehouse import TABLES, Commit, Key, Warehouse, fingerprint, read_video
from warehouse.commit_table import keys_of
from warehouse.demo_data import SAMPLE_CLIP
from warehouse.sources import data_set_name

LOOKED_AT = 20  # videos whose files are measured
WARM_UP = 4  # frames of the embedded clip: what is loaded and compiled at first use


@dataclass(frozen=True, kw_only=True)
class StageCosts:
    """What a stage will cost for all videos; `measured` is how many have cost something so far.

    wall, cpu: seconds. size: bytes. host, device: the most bytes of memory of a worker.
    """

    stage: str
    measured: int
    wall: Estimate
    cpu: Estimate
    size: Estimate
    host: float
    device: float


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The costs of a split's tracks, all videos together.

    done: videos that have them; spent: the seconds of these. start: seconds until a worker begins.
    on: the device that they were measured on.
    """

    dataset: str
    split: str
    track_set: str
    on: str
    videos: int
    frames: int
    done: int
    spent: float
    start: float
    stages: list[StageCosts]

    @property
    def wall(self) -> Estimate:
        return together(costs.wall for costs in self.stages)

    @property
    def size(self) -> Estimate:
        return together(costs.size for costs in self.stages)

    def time_left(self, workers: int) -> Estimate:
        """Seconds until so many workers have made the rest."""
        return (self.wall + -self.spent) * (1 / workers) + self.start


def plan_split(
    warehouse: str,
    dataset: str,
    root: str,
    split: str,
    recipe: str,
    changes: Sequence[str] = (),
    *,
    sam2: str | None = None,
    detector: str | None = None,
    ground_truth: bool = False,
    limit: int | None = None,
    dataset_name: str | None = None,
    measured: int = 3,
) -> Planned:
    """Ingest a split, make the tracks of so many of its videos, and say what all will cost.

    The arguments are those of `flows.precompute`, which goes on from there. The videos that are
    measured span what has to be made; where as many have been made already, none is. What is said
    is remembered as the split's plan.

    Raises:
        ValueError: none of the split's videos could be made, or read.
    """
    named = data_set_name(dataset, dataset_name)
    track_set = asked_tracks(recipe, changes, sam2, detector, None, ground_truth)
    ingested = ingest_split(warehouse, dataset, root, split, limit, name=named)
    videos = [outcome.video_id for outcome in ingested if outcome.status == "done"]
    store = Warehouse(warehouse)
    track_set = continued(store, named, split, track_set)
    if not videos:
        raise ValueError(f"no video of {named}/{split} can be read: {ingested[0].message}")
    remember(store, named, split, track_set, recipe)
    adopt(track_plan(store, named, split, videos, track_set))
    frames, pixels = _sizes(store, named, split, videos, track_set.name)
    stages = (PRECOMPUTE, DETECT, BOX_TRACKS) if track_set.boxes else (PRECOMPUTE,)
    before = [_made(Plan(stage, store, list(frames), track_set)) for stage in stages]
    missing = [key for key in frames if not all(key in of for of in before)]
    known = [key for key in frames if all(key in _paid(of) for of in before)]
    start = 0.0
    if missing and len(known) < measured:
        start = _started(track_set)
        chosen = [missing[n] for n in spanning([pixels[key] for key in missing], measured)]
        chosen.sort(key=frames.__getitem__)  # the memory of a process only grows
        for stage in stages:
            make_one_by_one(Plan(stage, store, chosen, track_set))
    made = [_made(Plan(stage, store, list(frames), track_set)) for stage in stages]
    if any(len(of) < len(frames) and not _paid(of) for of in made):
        raise ValueError(f"none of the videos tried of {named}/{split} could be made, see above")
    planned = Planned(
        dataset=named,
        split=split,
        track_set=track_set.name,
        on=device_name(),
        videos=len(videos),
        frames=sum(frames.values()),
        done=sum(all(key in of for of in made) for key in frames),
        spent=sum(commit.making.wall_seconds for of in made for commit in of.values()),
        start=start,
        stages=[
            _costs(store, stage.name, frames, of) for stage, of in zip(stages, made, strict=True)
        ],
    )
    _remember(store, planned)
    return planned


def _sizes(
    store: Warehouse, dataset: str, split: str, videos: Sequence[str], track_set: str
) -> tuple[dict[Key, int], dict[Key, int]]:
    """The frames of each video, and the pixels of all of them, by the key of its tracks."""
    keys = [Key(dataset=dataset, split=split, video_id=video) for video in videos]
    rows = store.read("videos", store.current("ingest", keys).values()).to_pylist()
    found = {Key(dataset, split, row["video_id"], track_set=track_set): row for row in rows}
    frames = {key: row["frame_count"] for key, row in found.items()}
    return frames, {k: frames[k] * row["height"] * row["width"] for k, row in found.items()}


def _made(plan: Plan) -> dict[Key, Commit]:
    """What is up to date of a plan."""
    missing = plan.to_make()
    there = plan.store.current(plan.stage.name, set(keys_of(plan.keys)))
    return {key: commit for key, commit in there.items() if key not in missing}


def _started(track_set: TrackSet) -> float:
    """Load and use everything once, so that no video is charged for it; the seconds it took."""
    started = time.monotonic()
    if device() == "cpu":
        torch.set_num_threads(1)  # as workers do
    PRECOMPUTE.warm_up(track_set)
    TRACKERS[track_set.tracker](islice(read_video(SAMPLE_CLIP), WARM_UP), {}, track_set)
    return time.monotonic() - started


def _costs(
    store: Warehouse, stage: str, frames: Mapping[Key, int], made: Mapping[Key, Commit]
) -> StageCosts:
    """What a stage will cost for all videos, from those that were made on this kind of device."""
    paid = _paid(made)
    waiting = [count for key, count in frames.items() if key not in made]
    work, longest = [frames[key] for key in paid], max(frames.values())

    def in_all(name: str) -> Estimate:
        costs = [getattr(commit.making, name) for commit in paid.values()]
        spent = sum(getattr(commit.making, name) for commit in made.values())
        return estimate(work, costs, waiting) + spent

    def most(name: str) -> float:
        memory = [getattr(commit.making, name) for commit in paid.values()]
        return max([line_through(work, memory, longest), *memory]) if memory else 0.0

    return StageCosts(
        stage=stage,
        measured=len(paid),
        wall=in_all("wall_seconds"),
        cpu=in_all("cpu_seconds"),
        size=_size(store, frames, made),
        host=most("host_bytes"),
        device=most("device_bytes"),
    )


def _paid(made: Mapping[Key, Commit]) -> dict[Key, Commit]:
    """What tells the cost on this kind of device; copies of other videos' tracks cost nothing."""
    on = device_name()
    return {k: c for k, c in made.items() if c.making.wall_seconds and c.making.device == on}


def _size(store: Warehouse, frames: Mapping[Key, int], made: Mapping[Key, Commit]) -> Estimate:
    """The bytes of a stage's files for all videos, from those of a few."""
    keys = list(made)
    looked_at = [keys[n] for n in spanning([frames[key] for key in keys], LOOKED_AT)]
    sizes = [_bytes(store, made[key]) for key in looked_at]
    rest = [count for key, count in frames.items() if key not in looked_at]
    return estimate([frames[key] for key in looked_at], sizes, rest) + sum(sizes)


def _bytes(store: Warehouse, commit: Commit) -> float:
    """The bytes of a commit's rows, its share of files that others have rows in, too."""
    total = 0.0
    for file in commit.files.values():
        with store.storage.open(file.path) as stream:
            total += stream.size() * (file.rows / file.file_rows if file.file_rows else 1)
    return total


def _remember(store: Warehouse, planned: Planned) -> None:
    """Publish the plan, for the query `cost_by_stage`."""
    key = Key(dataset=planned.dataset, split=planned.split, track_set=planned.track_set)
    rows = [
        {
            "dataset": planned.dataset,
            "split": planned.split,
            "track_set": planned.track_set,
            "stage": costs.stage,
            "videos": planned.videos,
            "frames": planned.frames,
            "measured": costs.measured,
            **_columns("wall_seconds", costs.wall),
            **_columns("cpu_seconds", costs.cpu),
            **_columns("bytes", costs.size),
        }
        for costs in planned.stages
    ]
    table = pa.Table.from_pylist(rows, schema=TABLES["plans"])
    store.publish("plan", key, fingerprint(plan=repr(rows)), {"plans": table})


def _columns(name: str, found: Estimate) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
