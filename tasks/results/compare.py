"""Compare two runs, expression by expression, on the same split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from sola_model.metrics.bootstrap import bootstrap_interval
from tasks.runs import find_run
from tasks.stages import to_mend
from tasks.stages.baseline import BASELINE
from tasks.stages.evaluate import EVALUATE
from warehouse import Key, Warehouse, WarehouseError

PAIRED = """
SELECT video_id, expression_id, text, a.jf AS jf_a, b.jf AS jf_b,
    a.oracle_jf AS oracle_a, b.oracle_jf AS oracle_b
FROM scores AS a
JOIN scores AS b USING (dataset, split, video_id, expression_id)
JOIN expressions USING (dataset, split, video_id, expression_id)
WHERE a.run_id = $run_a AND b.run_id = $run_b AND dataset = $dataset AND split = $split
    AND a.track_set IS NOT DISTINCT FROM $tracks_a AND b.track_set IS NOT DISTINCT FROM $tracks_b
ORDER BY jf_b - jf_a, video_id, expression_id
"""
SLICES = """
SELECT slice, value, list((video_id, expression_id)) AS members
FROM expression_slices
WHERE dataset = $dataset AND split = $split
GROUP BY slice, place, value
ORDER BY slice, place, value
"""
SECONDS = """
SELECT sum(wall_seconds) / count(DISTINCT video_id) AS seconds
FROM commits
WHERE dataset = $dataset AND split = $split AND track_set = $track_set AND status = 'done'
    AND stage IN ('detect', 'precompute', 'box_tracks')
"""
SCORED = """
SELECT run_id, dataset, split, track_set, count(*) AS expressions
FROM scores
WHERE run_id IN ($run_a, $run_b)
GROUP BY ALL
ORDER BY ALL
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """J&F of both runs for one expression, in [0, 1], and of the oracles over their tracks.

    A baseline has no oracle: None.
    """

    video_id: str
    expression_id: str
    text: str
    jf_a: float
    jf_b: float
    oracle_a: float | None = None
    oracle_b: float | None = None

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.jf_b - self.jf_a

    def of_tracks(self) -> "Pair | None":
        """The oracles in the place of the runs; None where there are not both."""
        if self.oracle_a is None or self.oracle_b is None:
            return None
        return replace(self, jf_a=self.oracle_a, jf_b=self.oracle_b)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean J&F of both runs over the same expressions, and B minus A, in [0, 1].

    low, high: 95 % bootstrap interval of the difference; None with fewer than two videos.
    """

    slice: str
    value: str
    expressions: int
    videos: int
    jf_a: float
    jf_b: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class TrackDifference:
    """Track set B against A: the oracles over them, where they differ most, and what they cost.

    seconds_a, seconds_b: of workers for each video, mean; 0 of tracks that were copied or given.
    """

    oracle: Difference
    worse: list[Pair]
    better: list[Pair]
    seconds_a: float
    seconds_b: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Run B against run A: over all expressions, by slice, and where they differ most.

    `worse` and `better` begin with the largest differences; expressions without one are in neither.
    """

    run_a: str
    run_b: str
    dataset: str
    split: str
    tracks_a: str | None  # what it selects from; None: a baseline
    tracks_b: str | None
    overall: Difference
    slices: list[Difference]
    worse: list[Pair]
    better: list[Pair]
    of_tracks: TrackDifference | None  # None: both select from the same tracks, or one from none


def compare_runs(
    store: Warehouse,
    run_a: str,
    run_b: str,
    dataset: str,
    split: str,
    tracks_a: str | None = None,
    tracks_b: str | None = None,
    most: int = 10,
) -> Comparison:
    """The paired comparison of two runs; `most` expressions at each end are named.

    `tracks_a`, `tracks_b`: the track sets that they select from; by default as they were trained.

    Raises:
        WarehouseError: the runs have no scored expression of the split in common, or scores of
            tracks or annotations that were replaced since.
    """
    connection = store.connect()
    where = {"dataset": dataset, "split": split}
    runs = {"run_a": run_a, "run_b": run_b}
    tracks = {
        name: _tracks_of(store, run, dataset, split, named)
        for name, run, named in (("tracks_a", run_a, tracks_a), ("tracks_b", run_b, tracks_b))
    }

    def ask(sql: str, parameters: Mapping[str, str | None]) -> list[dict]:
        return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()

    for run, track_set in ((run_a, tracks["tracks_a"]), (run_b, tracks["tracks_b"])):
        _refuse_stale(store, run, dataset, split, track_set)
    pairs = [Pair(**row) for row in ask(PAIRED, {**runs, **tracks, **where})]
    if not pairs:
        has = [
            f"{row['run_id']} on {row['dataset']}/{row['split']}, tracks {row['track_set']} "
            f"({row['expressions']})"
            for row in ask(SCORED, runs)
        ]
        raise WarehouseError(
            f"runs {run_a} and {run_b} have no scores of the same expressions of "
            f"{dataset}/{split} on tracks {tracks['tracks_a']} and {tracks['tracks_b']}. "
            f"Scored are: {', '.join(has) or 'none of theirs'}. Run `sola evaluate --dataset "
            f"{dataset} --split {split} --run RUN` for both."
        )
    by_id = {(pair.video_id, pair.expression_id): pair for pair in pairs}
    slices = [
        _difference(row["slice"], row["value"], members)
        for row in ask(SLICES, where)
        if (
            members := [
                by_id[key] for each in row["members"] if (key := tuple(each.values())) in by_id
            ]
        )
    ]
    return Comparison(
        run_a=run_a,
        run_b=run_b,
        dataset=dataset,
        split=split,
        tracks_a=tracks["tracks_a"],
        tracks_b=tracks["tracks_b"],
        overall=_difference("all", "", pairs),
        slices=slices,
        worse=_worse(pairs)[:most],
        better=_better(pairs)[:most],
        of_tracks=_of_tracks(
            [] if tracks["tracks_a"] == tracks["tracks_b"] else pairs,
            most,
            *(
                ask(SECONDS, {**where, "track_set": track_set})[0]["seconds"] or 0.0
                for track_set in tracks.values()
            ),
        ),
    )


def _of_tracks(
    pairs: Sequence[Pair], most: int, seconds_a: float, seconds_b: float
) -> TrackDifference | None:
    pairs = [oracles for pair in pairs if (oracles := pair.of_tracks())]
    if not pairs:
        return None
    return TrackDifference(
        oracle=_difference("oracle", "", pairs),
        worse=_worse(pairs)[:most],
        better=_better(pairs)[:most],
        seconds_a=seconds_a,
        seconds_b=seconds_b,
    )


def _worse(pairs: Sequence[Pair]) -> list[Pair]:
    """Those with less in B, the largest difference first."""
    return sorted((p for p in pairs if p.difference < 0), key=lambda pair: pair.difference)


def _better(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted((p for p in pairs if p.difference > 0), key=lambda pair: -pair.difference)


def _refuse_stale(
    store: Warehouse, run_id: str, dataset: str, split: str, tracks: str | None
) -> None:
    where = {"run_id": run_id, "dataset": dataset, "split": split, "track_set": tracks or ""}
    scored = [
        commit
        for stage in (EVALUATE, BASELINE)
        for commit in store.current(stage.name, **where).values()
    ]
    if stale := store.stale(scored):
        raise WarehouseError(
            f"the scores of {len(stale)} of {len(scored)} videos of {dataset}/{split}, run "
            f"{run_id}, are stale: what they were made from was replaced since. Run "
            f"{to_mend(store, stale)}."
        )


def _tracks_of(
    store: Warehouse, run_id: str, dataset: str, split: str, named: str | None
) -> str | None:
    """The track set that a run's scores are of; None: those of a baseline, which has none."""
    if Key(run_id=run_id) not in store.current("train", [Key(run_id=run_id)]):
        return named
    return find_run(store, run_id).tracks_of(store, dataset, split, named).name


def _difference(slice: str, value: str, pairs: Sequence[Pair]) -> Difference:
    videos = [pair.video_id for pair in pairs]
    interval = bootstrap_interval([pair.difference for pair in pairs], videos)
    jf_a, jf_b = fmean(pair.jf_a for pair in pairs), fmean(pair.jf_b for pair in pairs)
    return Difference(
        slice=slice,
        value=value,
        expressions=len(pairs),
        videos=len(set(videos)),
        jf_a=jf_a,
        jf_b=jf_b,
        difference=jf_b - jf_a,
        low=interval and interval[0],
        high=interval and interval[1],
    )
