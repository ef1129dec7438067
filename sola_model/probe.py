"""What can be read off object tokens linearly: paper section 4.5.

Axes: K samples, D channels, M targets, L classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray


def read_out(
    tokens_KD: np.ndarray, targets_KM: np.ndarray, train_K: NDArray[np.bool_]
) -> np.ndarray:
    """R^2 of each target (M,) on the other rows, by ridge regression on the rows of `train_K`."""
    design = np.column_stack([tokens_KD, np.ones(len(tokens_KD))])
    gram = design[train_K].T @ design[train_K] + 1e-2 * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, design[train_K].T @ targets_KM[train_K])
    truth, guess = targets_KM[~train_K], (design @ weights)[~train_K]
    return 1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)


def linear_accuracy(
    tokens_KD: np.ndarray, classes_K: NDArray[np.int64], train_K: NDArray[np.bool_]
) -> float:
    """Share of the other rows whose class a linear head gets right, trained on `train_K`.

    Softmax regression on standardised channels, with a little weight decay, to convergence.
    """
    mean_D, spread_D = tokens_KD[train_K].mean(0), tokens_KD[train_K].std(0) + 1e-6
    features_KD = torch.from_numpy((tokens_KD - mean_D) / spread_D).double()
    targets_K = torch.from_numpy(classes_K)
    head_LD = torch.zeros(int(classes_K.max()) + 1, features_KD.shape[1] + 1, dtype=torch.float64)
    head_LD.requires_grad_()
    optimiser = torch.optim.LBFGS([head_LD], max_iter=200, line_search_fn="strong_wolfe")
    chosen_KD = features_KD[train_K]

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits_KL = chosen_KD @ head_LD[:, :-1].T + head_LD[:, -1]
        total = torch.nn.functional.cross_entropy(logits_KL, targets_K[train_K])
        total = total + 1e-4 * head_LD.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        logits_KL = features_KD[~train_K] @ head_LD[:, :-1].T + head_LD[:, -1]
    return (logits_KL.argmax(1) == targets_K[~train_K]).double().mean().item()
