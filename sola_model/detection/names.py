"""Which detector a name stands for, told without loading one."""

import hashlib
import re
from pathlib import Path

PAPER_DETECTOR = "IDEA-Research/grounding-dino-tiny"
DEMO_DETECTOR = Path(__file__).parents[1] / "demo" / "detector"


def check_detector(name_or_path: str | Path) -> None:
    """Raise ValueError for what is neither "demo", a file or folder, nor may be a hub id."""
    name = str(name_or_path)
    hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)
    if name != "demo" and not Path(name).exists() and not hub_id:
        raise ValueError(
            f"there is no detector {name!r}: give a folder or file of a Grounding DINO, a hub id "
            f"such as {PAPER_DETECTOR}, or 'demo' for the embedded small model."
        )


def detector_identity(name_or_path: str | Path) -> str:
    """What names a detector in fingerprints: the hash of its local files, else its hub id."""
    path = DEMO_DETECTOR if str(name_or_path) == "demo" else Path(name_or_path)
    if not path.exists():
        return str(name_or_path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
