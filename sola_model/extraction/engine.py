"""How the work is carried out on a device. Nothing here decides which tracks come out."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Numbers that bound memory. Results do not depend on them beyond rounding.

    objects: objects that go through the model together, at most (halved when memory runs out).
    feature_bytes: image features of a video that stay on the device. None: half of the memory
        that is free when the video comes, on CUDA; else no limit. Others wait in host memory, on
        CUDA. On the host, features of a video take at most half of what is still free; what fits
        nowhere is encoded again whenever it is needed.
    frames_ahead: frames that are read and resized while others are being encoded, by as many
        threads, but not more than this process computes with.
    """

    objects: int = 16
    feature_bytes: int | None = None
    frames_ahead: int = 4

    def __post_init__(self) -> None:
        if self.objects < 1 or self.frames_ahead < 1 or (self.feature_bytes or 0) < 0:
            raise ValueError(
                f"objects={self.objects}, frames_ahead={self.frames_ahead}, "
                f"feature_bytes={self.feature_bytes}: objects and frames_ahead must be at least 1, "
                "feature_bytes None or not negative."
            )


AUTOMATIC = Engine()


def precision(device: torch.device) -> AbstractContextManager:
    """bfloat16 where it is fast, which is on CUDA; float32 elsewhere."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def feature_budget(engine: Engine, device: torch.device) -> float:
    """Bytes of a video's features that may stay on the device (see `Engine`)."""
    if engine.feature_bytes is not None:
        return engine.feature_bytes
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) / 2


class Background:
    """A thread that calls functions one after the other; it may lag by at most `depth` calls.

    What a call raises is raised by a later `call`, at the latest when the context ends.
    """

    def __init__(self, depth: int = 4) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1)
        self._calls: deque[Future] = deque()

    def call(self, function: Callable[..., None], *arguments: object) -> None:
        while len(self._calls) >= self._depth:
            self._calls.popleft().result()
        self._calls.append(self._thread.submit(function, *arguments))

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for call in self._calls:
                call.result()
