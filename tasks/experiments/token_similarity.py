"""Similarity of object tokens against the overlap of their masks (paper Figure 4)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tasks.experiments.measured import Measured
from tasks.pictures.figures import draw_similarity
from warehouse import Warehouse, WarehouseError

OVERLAPPING = 0.1  # mIoU; most pairs are of tracks that hardly meet


def token_similarity(
    store: Warehouse, dataset: str, split: str, tracks: str, picture: Path
) -> list[Measured]:
    """Mean and standard deviation in buckets of mIoU, rank correlation over all pairs; draws both.

    The pairs are those of the view `token_similarities`, of expressions with one target: of those
    with several, tracks of different objects can have an mIoU of 1 alike. Expressions that mean the
    same object have the same pairs, which count once.

    Raises:
        WarehouseError: there are none.
    """
    sql = """
        SELECT DISTINCT video_id, track_id, best_track_id, miou, similarity
        FROM token_similarities
        JOIN expressions USING (dataset, split, video_id, expression_id)
        WHERE dataset = $dataset AND split = $split AND track_set = $tracks
            AND len(list_distinct(object_ids)) = 1
    """
    with store.connect() as connection:
        pairs = connection.sql(
            sql, params={"dataset": dataset, "split": split, "tracks": tracks}
        ).fetchnumpy()
    miou, similarity = (np.asarray(pairs[name], np.float64) for name in ("miou", "similarity"))
    if not len(miou):
        raise WarehouseError(f"no two tracks of {dataset}/{split} are visible in the same frame")
    bucket = np.minimum(miou * 10, 9).astype(int)
    buckets = [
        (b / 10, similarity[bucket == b].mean(), similarity[bucket == b].std())
        for b in np.unique(bucket)
    ]
    draw_similarity(picture, buckets)
    found = [
        (f"mIoU from {start:.1f}", f"similarity, {name}", "cosine", value)
        for start, mean, spread in buckets
        for name, value in (("mean", mean), ("deviation", spread))
    ]
    correlations = rank_correlations(miou, similarity)
    found += [(name, "rank correlation", "Spearman", v) for name, v in correlations.items()]
    return [
        Measured(
            variant=variant,
            metric=metric,
            unit=unit,
            value=float(value),
            measured_on=f"{dataset}/{split}",
        )
        for variant, metric, unit, value in found
    ]


def rank_correlations(
    miou: NDArray[np.float64], similarity: NDArray[np.float64]
) -> dict[str, float]:
    """Spearman's rank correlation of all pairs and of those that overlap, where it is defined."""
    overlapping = miou >= OVERLAPPING
    chosen = {
        f"all {len(miou)} pairs": np.ones(len(miou), bool),
        f"{overlapping.sum()} pairs from mIoU {OVERLAPPING}": overlapping,
    }
    return {
        name: float(spearmanr(miou[some], similarity[some]).statistic)
        for name, some in chosen.items()
        if len(set(miou[some])) > 1 and len(set(similarity[some])) > 1
    }
