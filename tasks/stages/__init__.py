"""Every stage there is, in the order in which they are made."""

from collections.abc import Collection, Mapping

from tasks.runs import TRAIN
from tasks.search.vectors import REFERENCES, SEARCH
from tasks.stage import Stage
from tasks.stages.baseline import BASELINE
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import EVALUATE
from tasks.stages.ingest import INGEST
from tasks.stages.label import LABEL
from tasks.stages.oracle import ORACLE
from tasks.stages.own_masks import OWN_MASKS
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from warehouse import Commit, Warehouse

EXPERIMENT = Stage(
    name="experiment", command="experiment", keyed_by=("dataset", "split", "experiment")
)
TRACK_SET = Stage(
    name="track_set", command="precompute --root DIR", keyed_by=("dataset", "split", "track_set")
)
DEFAULT_TRACKS = Stage(
    name="default_tracks", command="tracks --default NAME", keyed_by=("dataset", "split")
)
PLAN = Stage(name="plan", command="plan --root DIR", keyed_by=("dataset", "split", "track_set"))
ALL = (
    INGEST,
    DETECT,
    OWN_MASKS,
    PRECOMPUTE,
    BOX_TRACKS,
    LABEL,
    TRAIN,
    EVALUATE,
    ORACLE,
    BASELINE,
    EXPERIMENT,
    TRACK_SET,
    DEFAULT_TRACKS,
    PLAN,
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
