"""Where the tasks of this process run their models, and what a video costs there."""

import os
import platform
import resource
import sys
import time
from functools import cache
from importlib import metadata
from typing import Any

BINDING = ("SOLA_DEVICE", "CUDA_VISIBLE_DEVICES")
"""The environment variables that `bind` sets."""


def device() -> str:
    """`SOLA_DEVICE` (set for each worker process, one GPU each), else the best there is."""
    if chosen := os.environ.get("SOLA_DEVICE"):
        return chosen
    import torch  # slow: what only looks into a warehouse does without

    return "cuda" if torch.cuda.is_available() else "cpu"


def devices() -> list[str]:
    """Where processes that use a GPU may compute, one on each: "cuda:0", ...; [] is on the CPU.

    All GPUs, or what SOLA_DEVICE names: "cuda" (all of them), "cuda:1", "mps" or "cpu".

    Raises:
        ValueError: SOLA_DEVICE names none of these, or a GPU that is not there.
    """
    import torch

    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    fitting = {"cpu": [], "mps": ["mps"], **{gpu: [gpu] for gpu in gpus}}
    fitting |= {"cuda": gpus} if gpus else {}
    chosen = os.environ.get("SOLA_DEVICE")
    if chosen and chosen not in fitting:
        valid = ", ".join(sorted(fitting))
        raise ValueError(f"SOLA_DEVICE is {chosen!r}; valid on this machine are: {valid}")
    return fitting[chosen] if chosen else gpus


def bind(where: str) -> None:
    """Let this process compute on one device alone; on the CPU with one thread, seeing no GPU."""
    import torch

    os.environ["SOLA_DEVICE"] = where
    if where == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        torch.set_num_threads(1)
    elif where.startswith("cuda") and torch.cuda.is_available():
        torch.cuda.set_device(where)


def precision() -> str:
    """What SAM2 computes in on this process's device (`sola_model.extraction.engine`)."""
    return "bfloat16" if device().startswith("cuda") else "float32"


def device_name() -> str:
    """What that is, as commits have it: the name of the GPU, or "cpu"."""
    import torch

    where = device()
    on_gpu = where.startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name(where) if on_gpu else "cpu"


@cache
def code() -> str:
    """The version of this package."""
    return metadata.version("sola-rvos")


class Clock:
    """What is spent from when it is made until `cost`."""

    def __init__(self) -> None:
        import torch

        self._wall, self._cpu = time.monotonic(), time.process_time()
        where = device()
        self._gpu = where if where.startswith("cuda") and torch.cuda.is_available() else None
        if self._gpu:
            torch.cuda.reset_peak_memory_stats(self._gpu)

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
            "device_bytes": torch.cuda.max_memory_allocated(self._gpu) if self._gpu else 0,
        }
