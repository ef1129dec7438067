"""Probabilities of alignment scores: the fit is the one of least log-loss, or there is none."""

import numpy as np
import pytest
from scipy.special import expit

from sola_model.selector.calibration import Calibration, fit_calibration


def sample(temperature: float, bias: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    logits_K = random.normal(-1, 3, 50_000).astype(np.float32)
    labels_K = random.random(logits_K.size) < expit(logits_K / temperature + bias)
    return logits_K, labels_K


@pytest.mark.parametrize(("temperature", "bias"), [(1, 0), (2.5, -0.4), (0.5, 1)])
def test_the_fit_finds_what_made_the_labels(temperature: float, bias: float) -> None:
    logits_K, labels_K = sample(temperature, bias)
    found = fit_calibration(logits_K, labels_K)
    assert found == pytest.approx((temperature, bias), abs=0.07)
    probability_K = found.probability(logits_K)
    assert probability_K.mean() == pytest.approx(labels_K.mean(), abs=1e-4)


def test_labels_that_do_not_say_give_no_calibration() -> None:
    logits_K, labels_K = sample(1, 0)
    assert fit_calibration(logits_K, np.zeros_like(labels_K)) is None
    assert fit_calibration(logits_K[:0], labels_K[:0]) is None
    assert fit_calibration(-logits_K, labels_K) is None  # higher logits are less often positive


def test_scores_at_the_ends_and_missing_ones() -> None:
    found = Calibration(2, 1).probability(np.array([-np.inf, np.inf, 0, np.nan], np.float32))
    np.testing.assert_allclose(found, [0, 1, expit(1), np.nan], rtol=1e-6)
