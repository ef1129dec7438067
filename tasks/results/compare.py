"""Compare two runs, expression by expression, on the same split."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sola_model.metrics.bootstrap import bootstrap_interval
from warehouse import Warehouse, WarehouseError

PAIRED = """
SELECT video_id, expression_id, text, a.jf AS jf_a, b.jf AS jf_b
FROM scores AS a
JOIN scores AS b USING (dataset, split, video_id, expression_id)
JOIN expressions USING (dataset, split, video_id, expression_id)
WHERE a.run_id = $run_a AND b.run_id = $run_b AND dataset = $dataset AND split = $split
ORDER BY jf_b - jf_a, video_id, expression_id
"""
SLICES = """
SELECT slice, value, list((video_id, expression_id)) AS members
FROM expression_slices
WHERE dataset = $dataset AND split = $split
GROUP BY slice, place, value
ORDER BY slice, place, value
"""
SCORED = """
SELECT run_id, dataset, split, count(*) AS expressions
FROM scores
WHERE run_id IN ($run_a, $run_b)
GROUP BY ALL
ORDER BY ALL
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """J&F of both runs for one expression, in [0, 1]."""

    video_id: str
    expression_id: str
    text: str
    jf_a: float
    jf_b: float

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.jf_b - self.jf_a


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
class Comparison:
    """Run B against run A: over all expressions, by slice, and where they differ most.

    `worse` and `better` begin with the largest differences; expressions without one are in neither.
    """

    run_a: str
    run_b: str
    dataset: str
    split: str
    overall: Difference
    slices: list[Difference]
    worse: list[Pair]
    better: list[Pair]


def compare_runs(
    store: Warehouse, run_a: str, run_b: str, dataset: str, split: str, most: int = 10
) -> Comparison:
    """The paired comparison of two runs; `most` expressions at each end are named.

    Raises:
        WarehouseError: the runs have no scored expression of the split in common.
    """
    connection = store.connect()
    where = {"dataset": dataset, "split": split}
    runs = {"run_a": run_a, "run_b": run_b}

    def ask(sql: str, parameters: dict[str, str]) -> list[dict]:
        return connection.sql(sql, params=parameters).to_arrow_table().to_pylist()

    pairs = [Pair(**row) for row in ask(PAIRED, runs | where)]
    if not pairs:
        has = [
            f"{row['run_id']} on {row['dataset']}/{row['split']} ({row['expressions']})"
            for row in ask(SCORED, runs)
        ]
        raise WarehouseError(
            f"runs {run_a} and {run_b} have no scored expressions of {dataset}/{split} in common. "
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
        **runs,
        **where,
        overall=_difference("all", "", pairs),
        slices=slices,
        worse=[pair for pair in pairs if pair.difference < 0][:most],
        better=[pair for pair in reversed(pairs) if pair.difference > 0][:most],
    )


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
