"""Data set readers: files to videos, expressions and ground truth, one module per data set."""

from pathlib import Path

from warehouse.sources import (
    folder,
    labelled,
    mevis,
    mevis_v2,
    pascal_voc,
    ref_davis17,
    ref_youtube_vos,
)
from warehouse.sources.base import (
    VOID,
    BadVideo,
    SourceError,
    SourceExpression,
    SourceVideo,
    check_path_name,
    check_split,
)

__all__ = [
    "PROTOCOL",
    "READERS",
    "VOID",
    "BadVideo",
    "SourceError",
    "SourceExpression",
    "SourceVideo",
    "check_reads",
    "data_set_name",
    "list_splits",
    "read_split",
]

READERS = {
    "mevis": mevis,
    "mevis-v2": mevis_v2,
    "ref-youtube-vos": ref_youtube_vos,
    "ref-davis17": ref_davis17,
    "pascal-voc": pascal_voc,
    "demo": mevis,  # the embedded synthetic data has MeViS's layout
    "demo-long": mevis,  # longer clips of it, another data set for experiments
    "demo-fresh": mevis,  # more clips of it, which no choice was made on
    "folder": folder,
    "labelled": labelled,
}

# The protocol by which the field scores each data set.
PROTOCOL = {
    "mevis": "mevis",
    "mevis-v2": "mevis",
    "ref-youtube-vos": "ref-youtube-vos",
    "ref-davis17": "davis",
    "pascal-voc": "mevis",
    "demo": "mevis",
    "demo-long": "mevis",
    "demo-fresh": "mevis",
    "folder": "mevis",
    "labelled": "mevis",
}


def read_split(dataset: str, root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of one split; raises SourceError for an unknown data set or an unreadable split."""
    _check(dataset)
    return READERS[dataset].read_split(root, split)


def list_splits(dataset: str, root: Path) -> list[str]:
    """The splits there are under `root`; raises SourceError for an unknown data set."""
    _check(dataset)
    return READERS[dataset].list_splits(root)


def check_reads(dataset: str, root: Path, split: str) -> None:
    """Raise SourceError unless the data set is known, its root there, and the split in it.

    What is in the split is not looked at.
    """
    splits = list_splits(dataset, root)
    if READERS[dataset] is not folder:
        check_split(root, split, splits)
    elif not root.exists():  # a split of any name: a folder of videos, a video or a list of them
        raise SourceError(f"{root}: no such folder or file; give a folder of videos, or a video")


def data_set_name(dataset: str, name: str | None) -> str:
    """What the rows of a data set are named: as asked for, else as its reader.

    Raises SourceError for a name that cannot be one of files, or is another reader's.
    """
    _check(dataset)
    if name is None:
        return dataset
    check_path_name(name, "data set name")
    if name in READERS and name != dataset:
        raise SourceError(
            f"data set name {name!r} is that of another layout than {dataset!r}; give a new name"
        )
    return name


def _check(dataset: str) -> None:
    if dataset not in READERS:
        raise SourceError(
            f"unknown data set {dataset!r}; valid: {', '.join(READERS)}. Data of your own is read "
            f"by one of these, and may be named: --dataset folder --dataset-name {dataset}"
        )
