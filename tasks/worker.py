"""Where the tasks of this process run their models."""

import os

import torch


def device() -> str:
    """`SOLA_DEVICE` (set for each worker process, one GPU each), else the best there is."""
    if chosen := os.environ.get("SOLA_DEVICE"):
        return chosen
    return "cuda" if torch.cuda.is_available() else "cpu"
