"""Work on many videos in worker processes, for commands that run without Prefect."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from typing import TypeVar

Progress = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""`progress(stage, videos)` is a context that yields `advance(videos, failed)`."""

T = TypeVar("T")
R = TypeVar("R")


def each_video(
    function: Callable[[T], R],
    videos: Sequence[T],
    workers: int | None,
    stage: str,
    progress: Progress,
) -> Iterator[R]:
    """`function` of each video, in order, in so many processes; default: one per CPU core.

    Only a few results wait at a time. The first error of a video is raised.
    """
    workers = min(workers or os.cpu_count() or 1, len(videos))
    with progress(stage, len(videos)) as advance:
        for result in map(function, videos) if workers <= 1 else _spread(function, videos, workers):
            yield result
            advance(1, 0)


def _spread(function: Callable[[T], R], videos: Sequence[T], workers: int) -> Iterator[R]:
    # Spawned: a fork would copy the locks of numba's and pyarrow's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        rest: Iterable[T] = iter(videos)
        waiting = [pool.submit(function, video) for video in islice(rest, 2 * workers)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(function, video) for video in islice(rest, 1)]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
