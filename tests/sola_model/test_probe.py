"""The linear probe finds what is there, and nothing where there is nothing."""

import numpy as np
import pytest

from sola_model.probe import linear_accuracy, read_out

RNG = np.random.default_rng(0)
TRAIN_K = np.arange(600) < 400


def test_classes_that_a_direction_tells_apart_are_found() -> None:
    classes_K = RNG.integers(0, 4, 600)
    tokens_KD = RNG.normal(size=(600, 8))
    tokens_KD[:, :4] += 6 * np.eye(4)[classes_K]
    assert linear_accuracy(tokens_KD, classes_K, TRAIN_K) > 0.98
    permuted_K = RNG.permutation(classes_K)
    assert linear_accuracy(tokens_KD, permuted_K, TRAIN_K) == pytest.approx(0.25, abs=0.1)


def test_linear_targets_are_read_out() -> None:
    tokens_KD = RNG.normal(size=(600, 8))
    targets_KM = np.stack([tokens_KD @ RNG.normal(size=8) + 3, RNG.normal(size=600)], axis=1)
    known, unknown = read_out(tokens_KD, targets_KM, TRAIN_K)
    assert known > 0.999 and unknown < 0.05
