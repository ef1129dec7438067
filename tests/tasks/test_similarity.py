"""Rank correlation of token similarity and mIoU, where there is one."""

import numpy as np
import pytest

from tasks.experiments.token_similarity import rank_correlations


def test_all_pairs_and_those_that_overlap() -> None:
    miou = np.array([0.0, 0.05, 0.2, 0.5, 0.9])
    rising = rank_correlations(miou, np.array([0.8, 0.1, 0.2, 0.3, 0.4]))
    assert rising["3 pairs from mIoU 0.1"] == pytest.approx(1)
    assert -1 < rising["all 5 pairs"] < 1
    falling = rank_correlations(miou, -miou)
    assert falling["all 5 pairs"] == pytest.approx(-1)


def test_where_nothing_varies_there_is_none() -> None:
    assert rank_correlations(np.zeros(4), np.arange(4.0)) == {}
    assert rank_correlations(np.array([0.0, 0.01]), np.array([0.0, 1.0])).keys() == {"all 2 pairs"}
