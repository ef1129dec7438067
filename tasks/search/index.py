"""The search vectors of a run in one memory-mapped file, so that a query reads nothing twice.

Made from the commits of the stage "search" when they have changed, and found by what these are; the
files may be deleted at any time. A query goes through the vectors in parts, so memory does not grow
with their number.

    cache/search/<run>/<commits>.f16     (N, K) vectors        <commits>.npz     video and track ids

Axes: N mask tracks, K channels of a vector.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sola_model.selector.search import Query
from warehouse import Commit, Key, Warehouse, fingerprint

ROWS = 4096  # of the vectors that are multiplied at once: few enough to stay in a core's cache
COMMITS = 512  # read at once
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class SearchIndex:
    """All tracks; video_N is the place of a track's video in `keys`, track_N its id."""

    keys: Sequence[Key]
    video_N: np.ndarray
    track_N: np.ndarray
    vectors_NK: np.ndarray

    def logits(self, query: Query) -> np.ndarray:
        """The logits (N,) of a query, float32."""
        parts = torch.from_numpy(self.vectors_NK).split(ROWS)
        logits = [query.logits(part.float()).numpy() for part in parts if len(part)]
        return np.concatenate([np.empty(0, np.float32), *logits])


def search_index(store: Warehouse, run_id: str, commits: Sequence[Commit]) -> SearchIndex:
    """The index of these commits of a run's vectors, as it is, or made now and put in its place."""
    folder = store.work_folder() / "cache" / "search" / run_id
    name = fingerprint(files=[commit.files["search_vectors"].sha256 for commit in commits])
    keys = [commit.key for commit in commits]
    for _ in range(ATTEMPTS):
        try:
            return _read(keys, folder, name)
        except FileNotFoundError:  # not made yet, or a search of another state removed it
            _write(store, commits, folder, name)
            _remove_others(folder, name)
    return _read(keys, folder, name)


def _read(keys: Sequence[Key], folder: Path, name: str) -> SearchIndex:
    ids = np.load(folder / f"{name}.npz")
    shape = (len(ids["video_N"]), int(ids["width"]))
    vectors_NK: np.ndarray = np.empty(shape, np.float16)
    if all(shape):
        vectors_NK = np.memmap(folder / f"{name}.f16", np.float16, mode="c", shape=shape)
    return SearchIndex(
        keys=keys, video_N=ids["video_N"], track_N=ids["track_N"], vectors_NK=vectors_NK
    )


def _write(store: Warehouse, commits: Sequence[Commit], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{uuid.uuid4().hex}.tmp"
    video_N, track_N, width = [np.empty(0, np.int32)], [np.empty(0, np.int32)], 0
    try:
        with partial.open("wb") as file:
            for start in range(0, len(commits), COMMITS):
                part = commits[start : start + COMMITS]
                table = store.read("search_vectors", part)
                vectors = table["vector"].combine_chunks().flatten()
                file.write(vectors.to_numpy(zero_copy_only=False).tobytes())
                rows = [commit.files["search_vectors"].rows for commit in part]
                video_N.append(np.repeat(np.arange(start, start + len(part), dtype=np.int32), rows))
                track_N.append(table["track_id"].to_numpy().astype(np.int32))
                width = width or len(vectors) // max(table.num_rows, 1)
        partial.replace(folder / f"{name}.f16")
        with partial.open("wb") as file:
            np.savez(
                file, video_N=np.concatenate(video_N), track_N=np.concatenate(track_N), width=width
            )
        partial.replace(folder / f"{name}.npz")
    finally:
        partial.unlink(missing_ok=True)


def _remove_others(folder: Path, name: str) -> None:
    """Delete what was made of other commits; who has it open keeps it."""
    for file in folder.iterdir():
        if file.stem != name and file.suffix in (".f16", ".npz"):
            file.unlink(missing_ok=True)
