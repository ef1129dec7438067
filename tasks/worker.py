"""Where the tasks of this process run their models, and what a video costs there."""

import os
import platform
import resource
import sys
import time
from functools import cache
from importlib import metadata
from typing import Any


def device() -> str:
    """`SOLA_DEVICE` (set for each worker process, one GPU each), else the best there is."""
    if chosen := os.environ.get("SOLA_DEVICE"):
        return chosen
    import torch  # slow: what only looks into a warehouse does without

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> str:
    """What SAM2 computes in on this process's device (`sola_model.extraction.engine`)."""
    return "bfloat16" if device().startswith("cuda") else "float32"


def device_name() -> str:
    """What that is, as commits have it: the name of the GPU, or "cpu"."""
    import torch

    on_gpu = device().startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else "cpu"


@cache
def code() -> str:
    """The version of this package."""
    return metadata.version("sola-rvos")


class Clock:
    """What is spent from when it is made until `cost`."""

    def __init__(self) -> None:
        import torch

        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._on_gpu = device().startswith("cuda") and torch.cuda.is_available()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def cost(self) -> dict[str, Any]:
        """Fields of `warehouse.commits.Making`."""
        import torch

        kilobyte = 1 if sys.platform == "darwin" else 1024
        return {
            "code": code(),
            "host": platform.node(),
            "device": device_name(),
            "wall_seconds": round(time.monotonic() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
            "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte,
            "device_bytes": torch.cuda.max_memory_allocated() if self._on_gpu else 0,
        }
