"""Alignment scores as probabilities: how likely is it that a track is a positive pseudo-label?

K pairs of expression and track.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Calibration(NamedTuple):
    """probability = sigmoid(logit / temperature + bias)."""

    temperature: float
    bias: float

    def probability(self, logits: ArrayLike) -> np.ndarray:
        """Calibrated probabilities of score logits, NaN where they are NaN."""
        from scipy.special import expit  # slow to import, as is the rest of scipy

        return expit(np.asarray(logits, np.float64) / self.temperature + self.bias)


def fit_calibration(logits_K: np.ndarray, labels_K: np.ndarray) -> Calibration | None:
    """The calibration of least log-loss on labelled pairs.

    Source: temperature scaling (Guo et al., On Calibration of Modern Neural Networks, 2017). The
    bias takes out what the loss's weight of positives adds. None if the labels are all alike, or
    higher logits are not more often positive: then scores tell nothing.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    logits_K, labels_K = logits_K.astype(np.float64), labels_K.astype(np.float64)
    if labels_K.size == 0 or labels_K.min() == labels_K.max():
        return None

    def log_loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        slope, bias = line
        x_K = slope * logits_K + bias
        off_K = expit(x_K) - labels_K
        loss = np.mean(np.logaddexp(0, x_K) - labels_K * x_K)
        return loss, np.array([np.mean(off_K * logits_K), np.mean(off_K)])

    slope, bias = minimize(log_loss, (1.0, 0.0), jac=True, method="BFGS").x
    return Calibration(float(1 / slope), float(bias)) if slope > 0 else None
