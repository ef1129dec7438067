"""Data set readers: files to videos, expressions and ground truth, one module per data set."""

from pathlib import Path

from warehouse.sources import folder, mevis
from warehouse.sources.base import BadVideo, SourceError, SourceExpression, SourceVideo

__all__ = ["READERS", "BadVideo", "SourceError", "SourceExpression", "SourceVideo", "read_split"]

READERS = {
    "mevis": mevis.read_split,
    "demo": mevis.read_split,  # the embedded synthetic data has MeViS's layout
    "folder": folder.read_split,
}


def read_split(dataset: str, root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of one split; raises SourceError for an unknown data set or an unreadable split."""
    if dataset not in READERS:
        raise SourceError(f"unknown data set {dataset!r}; valid: {', '.join(READERS)}")
    return READERS[dataset](root, split)
