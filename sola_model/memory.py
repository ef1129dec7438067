"""Batches that fit the memory of a GPU."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Output = TypeVar("Output")

_found: dict[str, int] = {}  # what -> how many fit, once memory has run out in this process


def in_batches(
    what: str, at_most: int, function: Callable[[slice], Output], count: int
) -> list[Output]:
    """The results of `function` for consecutive slices that cover `range(count)`.

    When a GPU's memory runs out the batch is halved and the same slice is tried again; `function`
    must not have changed anything by then. The size that was found holds for this process.

    Args:
        what: names what is counted, "objects"; sizes are remembered by it.

    Raises:
        torch.OutOfMemoryError: not even one fits.
    """
    outputs: list[Output] = []
    start = 0
    while start < count:
        size = min(at_most, _found.get(what, at_most), count - start)
        try:
            outputs.append(function(slice(start, start + size)))
            start += size
            continue
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise torch.OutOfMemoryError(
                    f"the GPU's memory is too small for a batch of 1 ({what}). End what else runs "
                    "on it, choose another one with SOLA_DEVICE=cuda:1, or compute with "
                    f"SOLA_DEVICE=cpu. {error}"
                ) from error
        # Outside the handler, which would keep the failed attempt's tensors alive.
        _found[what] = size // 2
        logger.warning("out of memory with %d %s, going on with %d", size, what, size // 2)
        torch.cuda.empty_cache()
    return outputs
