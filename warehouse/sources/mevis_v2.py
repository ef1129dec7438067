"""MeViS v2 reader (Ding et al., TPAMI 2025): MeViS's layout and videos, more expressions.

The expressions are in `meta_expressions_v2.json`, of the split valid in
`meta_expressions_v2_release.json`; `mask_dict.json` and `JPEGImages` are those of MeViS. An empty
`anno_id` list is a no-target expression. The audio beside the texts is not read. The file names
are those of the release at huggingface.co/datasets/FudanCVL/MeViSv2.
"""

from pathlib import Path

from warehouse.sources import mevis
from warehouse.sources.base import BadVideo, SourceVideo

META_FILES = ("meta_expressions_v2.json", "meta_expressions_v2_release.json")
list_splits = mevis.list_splits


def read_split(root: Path, split: str) -> list[SourceVideo | BadVideo]:
    """Videos of a split in the order of its file of expressions; errors as of `mevis`."""
    return mevis.read_split(root, split, META_FILES)
