"""Shards: the parts of a split that several machines work on at once."""

import hashlib
import re
from collections.abc import Callable


def in_shard(shard: str | None) -> Callable[[str], bool]:
    """Whether a video id is in the shard "2/8", the second of eight; without one, all are.

    Each video is in exactly one, which does not change when other videos come.

    Raises:
        ValueError: there is no such shard.
    """
    if shard is None:
        return lambda _: True
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"there is no shard {shard!r}; give one such as 2/8, the second of eight")

    def chosen(video_id: str) -> bool:
        digest = hashlib.sha256(video_id.encode()).digest()
        return int.from_bytes(digest) % count == number - 1

    return chosen
