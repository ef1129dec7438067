"""How sure a difference between two runs is: a paired bootstrap over videos.

Axes: E expressions, V videos, R resamples.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


def bootstrap_interval(
    difference_E: Sequence[float], video_E: Sequence[str], seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean difference; None with fewer than two videos.

    Whole videos are drawn with replacement, since the expressions of a video share its tracks and
    targets and are not independent. The same seed gives the same interval.
    """
    _, video_index_E = np.unique(np.asarray(video_E), return_inverse=True)
    expressions_V = np.bincount(video_index_E)
    videos = len(expressions_V)
    if videos < 2:
        return None
    sum_V = np.bincount(video_index_E, weights=difference_E)
    drawn_RV = np.random.default_rng(seed).multinomial(videos, [1 / videos] * videos, RESAMPLES)
    means_R = (drawn_RV @ sum_V) / (drawn_RV @ expressions_V)
    low, high = np.percentile(means_R, [2.5, 97.5])
    return float(low), float(high)
