"""Every stage there is, in the order in which they are made."""

from collections.abc import Collection, Mapping
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.runs import TRAIN
from tasks.search.vectors import REFERENCES, SEARCH
from tasks.stage import Outcome, Stage, make_each
from tasks.stages.baseline import BASELINE
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import INGEST
from tasks.stages.label import LABEL
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from warehouse import Commit, Key, Warehouse

EXPERIMENT = Stage(
    name="experiment", command="experiment", keyed_by=("dataset", "split", "experiment")
)
TRACK_SET = Stage(
    name="track_set", command="precompute --root DIR", keyed_by=("dataset", "split", "track_set")
)
DEFAULT_TRACKS = Stage(
    name="default_tracks", command="tracks --default NAME", keyed_by=("dataset", "split")
)
ALL = (
    INGEST,
    DETECT,
    PRECOMPUTE,
    BOX_TRACKS,
    LABEL,
    TRAIN,
    EVALUATE,
    BASELINE,
    EXPERIMENT,
    TRACK_SET,
    DEFAULT_TRACKS,
    REFERENCES,
    SEARCH,
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in ALL}


def to_mend(store: Warehouse, stale: Collection[Commit]) -> str:
    """The commands that make stale commits anew, those for what they are made from first."""
    waiting, commands = list(stale), dict[str, int]()
    while waiting:
        commands |= {
            STAGES[commit.stage].redo(commit.key): ALL.index(STAGES[commit.stage])
            for commit in waiting
        }
        inputs = {(given.stage, given.key) for commit in waiting for given in commit.inputs}
        there = [store.current(stage, [key]).get(key) for stage, key in sorted(inputs)]
        waiting = store.stale([commit for commit in there if commit])
    return ", then ".join(sorted(commands, key=commands.__getitem__))


@task(cache_policy=NO_CACHE)
def make_videos(
    warehouse: str, wanted: Mapping[Key, str], stage_and_subject: tuple[str, Any]
) -> list[Outcome]:
    """Make and publish a stage's data of each key: the work of a worker process."""
    return _make_videos(warehouse, wanted, *stage_and_subject)


def _make_videos(
    warehouse: str, wanted: Mapping[Key, str], stage: str, subject: Any
) -> list[Outcome]:
    # A function of its own: a task's is sent to workers with all that it refers to, and a stage
    # must be one object in a process.
    return make_each(STAGES[stage], Warehouse(warehouse), wanted, subject)
